"""``director-client``: the commands of a machine that is backed up. The only place that builds the client's parts.

Exit codes: 0 all is well, 1 something is wrong, 2 the command could not do its work.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import click

from client.printing import (
    SUCCESS,
    Terminal,
    print_as,
    print_enrolled,
    print_error,
    print_findings,
    print_finished,
    print_status,
)
from client.terminal import printable
from schema.errors import DirectorError

if TYPE_CHECKING:
    from client.settings import ClientSettings

OK, WRONG, FAILED = 0, 1, 2
ENROLMENT_VARIABLE = "BORGMATIC_DIRECTOR_ENROLMENT"

Parameters = ParamSpec("Parameters")
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True, help="Format."
)


def say_errors(command: Callable[Parameters, int]) -> Callable[Parameters, None]:
    """Turn our own errors into two lines for a person, and what the command returns into the exit code."""

    @functools.wraps(command)
    def run(*args: Parameters.args, **kwargs: Parameters.kwargs) -> None:
        try:
            code = command(*args, **kwargs)
        except DirectorError as error:
            print_error(error.message, error.hint)
            code = FAILED
        except OSError as error:
            print_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", "")
            code = FAILED
        except KeyboardInterrupt:
            code = FAILED
        sys.exit(code)

    return run


class _Context:
    """What every command begins with."""

    def __init__(self, config: Path | None) -> None:
        self.config = config

    def settings(self) -> ClientSettings:
        from client.settings import read_settings

        return read_settings(self.config)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  director-client enroll -            enrol; paste the string that `director token create` printed
  director-client run                 the service
  director-client doctor              what could keep this machine from being backed up?
""",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings of this machine. [default: /etc/borgmatic-director/client.toml, when there is one]",
)
@click.version_option(package_name="borgmatic-director")
@click.pass_context
def main(context: click.Context, config: Path | None) -> None:
    """Follow a director: apply what it signs, back up on schedule, report."""
    context.obj = _Context(config)


# --- enroll ---------------------------------------------------------------------------------------------------------


@main.command(
    short_help="Enrol this machine with a director.",
    epilog="""\b
Examples:
  director-client enroll -                         read the string from standard input (or paste it)
  director-client enroll bd1-enroll.eyJ1cm…        where others cannot see the process list
  BORGMATIC_DIRECTOR_ENROLMENT=bd1-… director-client enroll
""",
)
@click.argument("string", required=False, default="")
@click.option("--name", help="What this machine would like to be called. [default: its host name]")
@click.pass_obj
@say_errors
def enroll(context: _Context, string: str, name: str | None) -> int:
    """Enrol this machine with the director that printed STRING (`director token create`)."""
    import asyncio

    from client.clock import SystemClock
    from client.enrol import enrol
    from client.state import StateDirectory

    settings = _named(context.settings(), name)
    text = _enrolment_string(string)
    directory = StateDirectory(Path(settings.state_directory))
    directory.prepare()
    click.echo(f"This machine: {directory.identity().public.fingerprint}")
    enrolled = asyncio.run(enrol(text, settings=settings, directory=directory, clock=SystemClock()))
    print_enrolled(enrolled, settings)
    return OK


def _named(settings: ClientSettings, name: str | None) -> ClientSettings:
    from client.settings import ClientSettings
    from schema.errors import TerminalError

    if name is None:
        return settings
    try:
        return ClientSettings.model_validate({**settings.model_dump(mode="json"), "name": name})
    except ValueError:
        hint = "write lower-case letters, digits and hyphens, at most 63"
        raise TerminalError(f"'{name}' is not a name", hint=hint) from None


def _enrolment_string(argument: str) -> str:
    from schema.errors import TerminalError

    if argument == "-":
        if sys.stdin.isatty():
            return str(click.prompt("Enrolment string", hide_input=True))
        return sys.stdin.read(65_536)
    text = argument or os.environ.get(ENROLMENT_VARIABLE, "")
    if not text:
        hint = "on the director: director token create; then here: director-client enroll -"
        raise TerminalError("there is no enrolment string", hint=hint)
    return text


# --- run ------------------------------------------------------------------------------------------------------------


@main.command(
    short_help="Run the service.",
    epilog="""\b
Examples:
  director-client run                              in the foreground; Ctrl-C ends it in good order
  systemctl enable --now director-client           as a service (examples/systemd/)
""",
)
@click.pass_obj
@say_errors
def run(context: _Context) -> int:
    """Run the service: follow the director, back up on schedule, report."""
    import asyncio

    from client import log
    from client.service import serve
    from client.state import StateDirectory

    settings = context.settings()
    log.configure(settings.log_level)
    directory = StateDirectory(Path(settings.state_directory))
    directory.prepare()
    if directory.enrolment() is None and (text := os.environ.get(ENROLMENT_VARIABLE, "")):
        from client.clock import SystemClock
        from client.enrol import enrol

        enrolled = asyncio.run(enrol(text, settings=settings, directory=directory, clock=SystemClock()))
        print_enrolled(enrolled, settings)
    os.environ.pop(ENROLMENT_VARIABLE, None)  # no program that we start may see the token
    asyncio.run(serve(settings))
    return OK


# --- once -----------------------------------------------------------------------------------------------------------


@main.command(
    epilog="""\b
Examples:
  director-client once web-files                   back up now, whatever the schedule says
"""
)
@click.argument("backup")
@click.pass_obj
@say_errors
def once(context: _Context, backup: str) -> int:
    """Run BACKUP once, now. Exits 0 when it succeeded (or only warned), 1 when it failed, 2 when it could not run."""
    import asyncio

    from client import log
    from client.service import run_once

    settings = context.settings()
    log.configure("error")
    terminal = Terminal()
    finished = asyncio.run(run_once(settings, backup, progress=terminal.progress, watch=terminal.report))
    terminal.clear()
    print_finished(finished)
    return OK if finished.outcome.value in SUCCESS else WRONG


# --- status, fingerprint, doctor --------------------------------------------------------------------------------------


@main.command(
    short_help="Show what this machine follows and does.",
    epilog="""\b
Examples:
  director-client status
  director-client status -o json | jq .connection
""",
)
@output_option
@click.pass_obj
@say_errors
def status(context: _Context, output: str) -> int:
    """Show what this machine follows, its jobs, and its connection. Exits 1 when something is wrong."""
    from client.service import read_status

    found = read_status(context.settings())
    if output == "table":
        print_status(found)
    else:
        print_as(found.model_dump(mode="json", by_alias=True), output)
    return OK if found.is_well else WRONG


@main.command(
    epilog="""\b
Examples:
  director-client fingerprint                      compare it with `director clients pending`
"""
)
@output_option
@click.pass_obj
@say_errors
def fingerprint(context: _Context, output: str) -> int:
    """Print this machine's fingerprint and public key. The key goes into the Client's `publicKey`."""
    from client.state import StateDirectory

    directory = StateDirectory(Path(context.settings().state_directory))
    directory.prepare()
    key = directory.identity().public
    if output == "table":
        click.echo(f"{key.fingerprint}\n{key.text}")
    else:
        print_as({"fingerprint": key.fingerprint, "publicKey": key.text}, output)
    return OK


@main.command(
    short_help="Find what could keep backups from working.",
    epilog="""\b
Examples:
  director-client doctor
  director-client doctor -o json
""",
)
@output_option
@click.pass_obj
@say_errors
def doctor(context: _Context, output: str) -> int:
    """Look for what could keep this machine from being backed up. Exits 1 when it finds something."""
    import asyncio
    from dataclasses import asdict

    from client import log
    from client.service import examine

    log.configure("error")
    findings = asyncio.run(examine(context.settings()))
    if output == "table":
        print_findings(findings)
    else:
        print_as([{key: str(value) for key, value in asdict(one).items()} for one in findings], output)
    return WRONG if any(one.level.value == "error" for one in findings) else OK


# --- forget-repository ----------------------------------------------------------------------------------------------


@main.command(
    short_help="Let a REPOSITORY that is gone be made anew.",
    epilog="""\b
Examples:
  director-client forget-repository                which repositories does this machine know?
  director-client forget-repository nas            'nas' is gone for good: the next run may make a new one
""",
)
@click.argument("repository", required=False, default="")
@click.pass_obj
@say_errors
def forget_repository(context: _Context, repository: str) -> int:
    """Let REPOSITORY (its name or url) be made anew by the next run, when it is gone and its Repository says `create`.

    A repository that this machine has backed up into is never made anew by itself. This touches no repository.
    """
    from client.known_repositories import KnownRepositories
    from schema.errors import TerminalError

    known = KnownRepositories(Path(context.settings().state_directory))
    found = known.all()
    chosen = [one for one in found if repository in {one.name, one.url}]
    if repository and not chosen:
        hint = "it knows: " + (", ".join(sorted({one.name for one in found})) or "none")
        raise TerminalError(f"this machine knows no repository '{repository}'", hint=hint)
    for one in chosen:
        known.forget(one)
        click.echo(f"Forgot {printable(one.name)} at {printable(one.url)}. If it is gone, the next run makes it anew.")
    for one in () if repository else found:
        click.echo(f"{printable(one.name)}  since {one.since:%Y-%m-%d}  {printable(one.url)}")
    return OK


@main.command(
    epilog="""\b
Examples:
  eval "$(director-client completion bash)"        now; put the line into ~/.bashrc to keep it
  director-client completion fish > ~/.config/fish/completions/director-client.fish
"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@say_errors
def completion(shell: str) -> int:
    """Print what makes SHELL complete this command."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        return FAILED
    click.echo(kind(main, {}, "director-client", "_DIRECTOR_CLIENT_COMPLETE").source())
    return OK
