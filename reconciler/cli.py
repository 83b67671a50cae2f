"""The ``director`` command. Offline commands stand in ``reconciler.commands``; this module builds the processes.

Only here and in ``reconciler.standalone`` are adapters made: Git, the store, the gateway and the pages meet nowhere
else.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from reconciler.commands.output import configure_logging, examples, friendly
from reconciler.commands.which import config_options, group_options
from reconciler.garbage import look_seldom
from reconciler.plugins import use_none

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from reconciler.process import Director
    from reconciler.settings import DirectorSettings
    from web_readonly.metrics import StoreMetrics
    from web_readonly.reader import Reader

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_ROOMS = {
    "A source of resources, offline": ("init", "validate", "build", "plan", "schema", "seal", "reseal", "escrow-key"),
    "Run": ("standalone", "run", "web"),
    "Ask a running director": ("status", "drift", "runs", "archives", "backups", "events", "clients", "token"),
    "Tell a running director": ("reconcile", "acknowledge", "suspend", "resume"),
    "Say who may look at the dashboard": ("viewer",),
}


_MODULES = {
    "init": ("init",),
    "source": ("validate", "build", "plan", "schema"),
    "hook": ("hook",),
    "secrets": ("seal", "reseal", "escrow-key"),
    "standing": ("status", "drift", "archives", "backups", "events"),
    "runs": ("runs",),
    "steering": ("reconcile", "acknowledge", "suspend", "resume"),
    "clients": ("token", "clients"),
    "viewers": ("viewer",),
}
"""Which module of ``reconciler.commands`` has which commands; the others stand below."""


class _Commands(click.Group):
    """Lists the commands by what they are for, and loads the modules of those that are asked for: each is short."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command. When there is none, all are there, for click to say which may have been meant."""
        for module, names in _MODULES.items():
            if cmd_name in names:
                self._load(module)
        if cmd_name not in self.commands:
            self.list_commands(ctx)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        for module in _MODULES:
            self._load(module)
        return super().list_commands(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists."""
        limit = formatter.width - 6 - max(map(len, self.list_commands(ctx)))
        for room, names in _ROOMS.items():
            with formatter.section(room):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in names])

    def _load(self, module: str) -> None:
        found = importlib.import_module(f"reconciler.commands.{module}")
        for name in _MODULES[module]:
            self.add_command(getattr(found, name.replace("-", "_")))


@click.group(
    cls=_Commands,
    context_settings=CONTEXT,
    epilog='Shell completion: eval "$(_DIRECTOR_COMPLETE=bash_source director)" (or zsh_source, fish_source).',
)
@group_options
@click.version_option(package_name="borgmatic-director", prog_name="director")
def main(config: Path | None, state_directory: Path | None) -> None:  # noqa: ARG001 - commands look them up
    """GitOps for borgmatic: Git says what every machine backs up; the director makes it so.

    Exit codes: 0 all is well, 1 something wrong was found, 2 the command could not run.
    """
    # Commands are short: a quarter of their time would go into looking for garbage, and for plugins of pydantic.
    look_seldom()
    use_none()


_WEB = click.option("--web", "web_address", help="Where the dashboard listens, e.g. 127.0.0.1:8441.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="Log more.")


@main.command(
    epilog=examples("director run", "director run --config ./director.toml", "director run --source /srv/backups.git")
)
@click.option("--source", "source_url", help="Where the resources are, instead of where the settings say.")
@click.option("--branch", help="The branch to follow, instead of the settings'.")
@_WEB
@_VERBOSE
@config_options
@friendly
def run(
    source_url: str | None,
    branch: str | None,
    web_address: str | None,
    verbose: bool,
    config: Path | None,
    state_directory: Path | None,
) -> None:
    """Run the director: follow the source, serve the clients.

    SIGHUP reconciles at once; SIGTERM and Ctrl-C end it in good order, a second Ctrl-C at once.
    """
    from reconciler.settings import load_settings

    configure_logging(verbose=verbose)
    settings = load_settings(
        config,
        state_directory=state_directory,
        source={"url": source_url, "branch": branch},
        web={"address": web_address},
    )
    _run(_direct(settings))


@main.command(
    epilog=examples(
        "director init backups --this-machine && git -C backups add -A && git -C backups commit -m start",
        "director standalone backups",
    )
)
@click.argument("path", type=click.Path(exists=True, path_type=Path, file_okay=False))
@click.option("--branch", help="The branch to follow. Default: the one that is checked out.")
@click.option("--client", help="Which client of the source this machine is. Default: found by its key.")
@click.option("--client-config", type=click.Path(path_type=Path, dir_okay=False), help="The client's settings file.")
@_WEB
@_VERBOSE
@config_options
@friendly
def standalone(
    path: Path,
    branch: str | None,
    client: str | None,
    client_config: Path | None,
    web_address: str | None,
    verbose: bool,
    config: Path | None,
    state_directory: Path | None,
) -> None:
    """Run everything for this one machine, from a Git repository.

    No network, no enrolment: watches the repository around PATH and follows every commit: validates, renders, applies,
    runs borgmatic on schedule, shows it all on the dashboard. Ctrl-C ends it in good order, a second one at once.
    """
    from reconciler.git_objects import discover
    from reconciler.settings import load_settings
    from schema.errors import TerminalError

    configure_logging(verbose=verbose)
    place = discover(path)
    if place is None:
        raise TerminalError(f"{path} is not in a Git repository", hint=f"git init {path}, and commit your resources")
    settings = load_settings(
        config,
        state_directory=state_directory,
        source={"url": str(place.repository), "path": place.path, "branch": branch or place.branch or "main"},
        web={"address": web_address},
    )
    _run(_direct_this_machine(settings, name=client, client_config=client_config))


@main.command(epilog=examples("director web", "director web --web 127.0.0.1:9000"))
@_WEB
@_VERBOSE
@config_options
@friendly
def web(web_address: str | None, verbose: bool, config: Path | None, state_directory: Path | None) -> None:
    """Serve the dashboard alone, from a director's store.

    The director need not run, and the store is only read.
    """
    from reconciler.settings import load_settings

    configure_logging(verbose=verbose)
    settings = load_settings(config, state_directory=state_directory, web={"address": web_address})
    _run(_serve_alone(settings))


def _run(work: Coroutine[Any, Any, None]) -> None:
    import signal

    import uvloop

    os.umask(0o077)  # what a director writes is nobody else's
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is a loop that it can nudge
    uvloop.run(work)


def _now() -> datetime:
    return datetime.now(UTC)


async def _direct(settings: DirectorSettings) -> None:
    from reconciler.clock import SystemClock
    from reconciler.process import directing, serve

    async with directing(settings, clock=SystemClock()) as director:
        with _reading(settings) as (reader, read):
            await serve(director, read=read, beside=_pages(reader, director))


async def _direct_this_machine(settings: DirectorSettings, *, name: str | None, client_config: Path | None) -> None:
    from reconciler.clock import SystemClock
    from reconciler.listen import Address
    from reconciler.process import directing, serve
    from reconciler.standalone import follow_here

    listen = [Address(path=str(settings.state_directory / "clients.sock"))]
    async with directing(settings, clock=SystemClock(), listen=listen) as director:
        this_machine = functools.partial(follow_here, director, name=name, config=client_config)
        with _reading(settings) as (reader, read):
            await serve(director, read=read, beside=[*_pages(reader, director), this_machine])


def _pages(reader: Reader, director: Director) -> list[Callable[[], Coroutine[Any, Any, None]]]:
    from web_readonly.metrics import StoreMetrics

    metrics = StoreMetrics(reader, now=_now, limit=director.settings.metrics.limit, own=director.gateway.numbers)
    director.gateway.probes.all_numbers = metrics.text
    if not director.settings.web.enabled:
        return []
    return [functools.partial(_serve_pages, reader, director.settings, metrics=metrics)]


async def _serve_pages(reader: Reader, settings: DirectorSettings, *, metrics: StoreMetrics) -> None:
    from reconciler import web_access
    from reconciler.listen import Address
    from web_readonly.app import make_app, serve

    address = Address.parse(settings.web.address)
    access, viewers, tls = web_access.prepare(settings, address)
    app = make_app(reader, now=_now, metrics=metrics, access=access, viewers=viewers)
    await serve(app, host=address.host, port=address.port, tls=tls)


async def _serve_alone(settings: DirectorSettings) -> None:
    import structlog

    from reconciler.process import until_stopped
    from web_readonly.metrics import StoreMetrics

    if not settings.store_path.exists():
        structlog.get_logger(__name__).warning("there is no store yet", path=str(settings.store_path))
    with _reading(settings) as (reader, _):
        metrics = StoreMetrics(reader, now=_now, limit=settings.metrics.limit)
        await until_stopped(_serve_pages(reader, settings, metrics=metrics))


@contextlib.contextmanager
def _reading(settings: DirectorSettings) -> Iterator[tuple[Reader, Callable[..., Any]]]:
    """Open the read model of a store: as the pages' reader, and as the admin socket's questions."""
    from web_readonly.answers import answer
    from web_readonly.reader import Reader

    with contextlib.closing(Reader(settings.store_path)) as reader:
        yield reader, lambda question, **arguments: answer(reader, question, arguments, now=_now())
