"""Commands about who may look at the dashboard: ``viewer create``, ``list``, ``revoke``, ``password``.

They change a file of the state directory, whether a director runs or not; a running one follows at once.
"""

from __future__ import annotations

import secrets
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from reconciler.commands.output import (
    CouldNotRun,
    ago,
    examples,
    friendly,
    one_line,
    output_option,
    print_data,
    print_rows,
)
from reconciler.commands.which import config_options

if TYPE_CHECKING:
    from pathlib import Path

_LEAST_PASSWORD = 12


@click.group()
def viewer() -> None:
    """Tokens and passwords to look at the dashboard."""


@viewer.command(
    "create",
    epilog=examples("director viewer create --note 'wall display'", "director viewer create --note ann --lifetime 90d"),
)
@click.option("--note", required=True, help="Whom or what it is for.")
@click.option("--lifetime", help="How long it is good for, e.g. 30d. Default: until it is revoked.")
@output_option
@config_options
@friendly
def viewer_create(
    note: str, lifetime: str | None, output: str, config: Path | None, state_directory: Path | None
) -> None:
    """Print a token to look at the dashboard. It is shown once: only its hash is kept.

    For the login form, or as `Authorization: Bearer TOKEN`. It reads everything and changes nothing.
    """
    from reconciler import viewers
    from schema.scalars import parse_duration
    from schema.viewers import MAX_NOTE

    try:
        duration = timedelta(seconds=parse_duration(lifetime)) if lifetime else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--lifetime") from None
    if len(note) > MAX_NOTE:
        raise click.BadParameter(f"at most {MAX_NOTE} characters", param_hint="--note")
    made, text = viewers.create(_directory(config, state_directory), note=note, lifetime=duration, now=_now())
    if output != "table":
        print_data({"id": made.id, "token": text, "expires": made.expires}, output)
        return
    click.echo(text)
    until = f"until {made.expires:%Y-%m-%d %H:%M}Z" if made.expires else "until it is revoked"
    click.echo(f"good {until}; take it back with: director viewer revoke {made.id}", err=True)


@viewer.command("list", epilog=examples("director viewer list -o json"))
@output_option
@config_options
@friendly
def viewer_list(output: str, config: Path | None, state_directory: Path | None) -> None:
    """List tokens; their text is shown only when they are made."""
    from reconciler import viewers

    rows = [
        {"id": one.id, "note": one.note, "created": one.created, "expires": one.expires}
        for one in viewers.read(_directory(config, state_directory))
    ]
    columns = [
        ("ID", lambda row: row["id"]),
        ("NOTE", lambda row: one_line(row["note"])),
        ("CREATED", lambda row: ago(row["created"])),
        ("EXPIRES", lambda row: ago(row["expires"])),
    ]
    print_rows(rows, columns, output, empty="no viewers: make a token with `director viewer create --note WHOM`")


@viewer.command(
    "revoke",
    short_help="Make a token and its logins worthless at once.",
    epilog=examples("director viewer revoke 5d41402abc4b"),
)
@click.argument("identifier")
@config_options
@friendly
def viewer_revoke(identifier: str, config: Path | None, state_directory: Path | None) -> None:
    """Make a token worthless at once, and the logins that were made with it."""
    from reconciler import viewers

    gone = viewers.revoke(_directory(config, state_directory), identifier)
    click.echo(f"viewer {gone.id} ({one_line(gone.note)}) is revoked")


@viewer.command(
    "password",
    short_help="Print the line that lets NAME log in by password.",
    epilog=examples("director viewer password ann", "openssl rand -base64 24 | director viewer password prometheus"),
)
@click.argument("name")
@friendly
def viewer_password(name: str) -> None:
    """Print the line of director.toml that lets NAME log in with a password, for the table [web.users].

    Asks for the password, or reads it from a pipe; stores nothing.
    """
    import json

    from schema.viewers import MAX_PASSWORD, Password

    if not name or ":" in name or not name.isprintable():
        raise CouldNotRun(f"'{name}' cannot be the name of a user", hint="no colon, nothing invisible")
    if sys.stdin.isatty():
        password = click.prompt("password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        password = sys.stdin.readline(MAX_PASSWORD + 2).removesuffix("\n")
    if not _LEAST_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise CouldNotRun(
            f"a password has at least {_LEAST_PASSWORD} characters, and at most {MAX_PASSWORD}",
            hint="several words that you do not use elsewhere, or what a password manager makes",
        )
    # Quoted keys and values of TOML are those of JSON.
    click.echo(f'{json.dumps(name, ensure_ascii=False)} = "{Password.make(password, salt=secrets.token_bytes(16))}"')


def _directory(config: Path | None, state_directory: Path | None) -> Path:
    from reconciler.settings import load_settings

    return load_settings(config, state_directory=state_directory).state_directory


def _now() -> datetime:
    return datetime.now(UTC)
