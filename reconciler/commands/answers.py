"""What commands to a running director share: which director is asked, and how a field of its answers is told."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from reconciler.commands.output import ago, friendly
from reconciler.commands.which import config_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reconciler.commands.remote import Remote

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]
"""One thing of an answer, as JSON has it."""

limit_option = click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many."
)


def with_remote(function: Callable[Concatenate[Remote, P], T]) -> Callable[..., T]:
    """Hand the command a ``Remote`` for the director that its options name."""

    @friendly
    @functools.wraps(function)
    def wrapper(*args: Any, config: Path | None, state_directory: Path | None, **kwargs: Any) -> T:
        from reconciler.commands.remote import Remote
        from reconciler.settings import load_settings

        settings = load_settings(config, state_directory=state_directory)
        return function(Remote(settings.socket_path), *args, **kwargs)

    return config_options(wrapper)


def moment(row: Row, field: str) -> datetime | None:
    """Return a field that is a time; None when it is not there."""
    return datetime.fromisoformat(row[field]) if row.get(field) else None


def ago_of(field: str) -> Callable[[Row], str]:
    """Return the cell of a column that says how long ago a field was."""
    return lambda row: ago(moment(row, field))


def text_of(field: str) -> Callable[[Row], str]:
    """Return the cell of a column that says a field as it is."""
    return lambda row: str(row.get(field) or "")


def check_client(remote: Remote, client: str, rows: Sequence[Row]) -> None:
    """Refuse a client that nobody knows: a misspelt one is not one without runs. A former one may still have rows."""
    if client and not rows:
        remote.read("client", name=client)
