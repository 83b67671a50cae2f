"""Which director is meant: ``--config`` and ``--state-directory``, before or after the command's name alike.

``director --config FILE status`` and ``director status --config FILE`` say the same; what stands nearer wins.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


def config_options(function: Callable[P, T]) -> Callable[P, T]:
    """Add the options that say which director is meant."""
    for option in (
        click.option("--state-directory", type=_FOLDER, default=_of_the_group("state_directory"), help=_STATE_HELP),
        click.option("--config", type=_FILE, default=_of_the_group("config"), help=_CONFIG_HELP),
    ):
        function = option(function)
    return function


def group_options(function: Callable[P, T]) -> Callable[P, T]:
    """Add the same to the group, for those who write them first."""
    for option in (
        click.option("--state-directory", type=_FOLDER, help=_STATE_HELP),
        click.option("--config", type=_FILE, help=_CONFIG_HELP),
    ):
        function = option(function)
    return function


_CONFIG_HELP = "The director's settings file. [default: /etc/borgmatic-director/director.toml, when there is one]"
_STATE_HELP = "Keys, store and clone, instead of where the settings say."


def _of_the_group(name: str) -> Callable[[], Any]:
    return lambda: click.get_current_context().find_root().params.get(name)
