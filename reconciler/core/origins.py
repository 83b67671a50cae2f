"""Where each option of a backup's file was written, and what it keeps. Called by ``issue`` for the rows of the store.

Nothing of it is signed or has a part in a digest: a comment above a profile moves lines, and changes no machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler.core import archives
from reconciler.core.expand import LAYER, value_identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import JsonValue

    from reconciler.core.catalogue import Located, Pointer
    from reconciler.core.expand import Effective
    from schema.resources import Resource

MAX_ORIGINS: Final = 1_000
"""Of one backup; one with more (a list of thousands) gets those of its options only, not of what is inside them."""

Place = tuple[str, str]
"""Option path and ``file:line``; no file when the director itself wrote the option."""


class _Source(NamedTuple):
    """One layer's part of a value."""

    value: JsonValue
    located: Located[Resource]
    pointer: Pointer

    def inside(self, key: str | int, value: JsonValue) -> _Source:
        return _Source(value, self.located, (*self.pointer, key))

    @property
    def place(self) -> str:
        return f"{self.located.path}:{self.located.position(self.pointer)[0]}"


def option_origins(effective: Effective) -> tuple[Place, ...]:
    """Return the place of every option in the backup's file, in its order, as ``render`` writes it."""
    found = _of_director(effective)
    for option, sources in _own_options(effective):
        _walk(option, effective.options[option], sources, found)
    if len(found) > MAX_ORIGINS:
        found = [place for place in _of_director(effective) if "." not in place[0]]
        found += [(option, sources[-1].place) for option, sources in _own_options(effective)]
    return tuple(found[:MAX_ORIGINS])


def retention(effective: Effective) -> dict[str, JsonValue]:
    """Return the options that say which archives a backup keeps; empty when it prunes nothing."""
    options = effective.options
    if not archives.runs("prune", actions=effective.backup.resource.spec.actions, options=options):
        return {}
    return {
        name: value
        for name in archives.RETENTION
        if isinstance(value := options.get(name), int | str) and value and not isinstance(value, bool)
    }


def _of_director(effective: Effective) -> list[Place]:
    """Return the places of what the director writes at the top of a file."""
    found = [("repositories", _Source(None, effective.backup, ("spec", "repositories")).place)]
    found += [(f"repositories.{number}", one.origin) for number, one in enumerate(effective.repositories)]
    return found if effective.options.get("archive_name_format") else [*found, ("archive_name_format", "")]


def _own_options(effective: Effective) -> Iterator[tuple[str, list[_Source]]]:
    """Yield each option that people wrote, with the layers that have it."""
    layers = [_Source(dict(layer.resource.spec.borgmatic), layer, LAYER) for layer in effective.layers]
    for option, value in effective.options.items():
        if option != "repositories" and (value or option != "archive_name_format"):
            yield option, _of_key(option, layers)


def _walk(option: str, value: JsonValue, sources: list[_Source], found: list[Place]) -> None:
    """Add the place of ``value`` and of all that is inside it; of several layers that have it the last one counts."""
    if len(sources) == 1:
        _walk_alone(option, value, sources[0].located, sources[0].pointer, found)
        return
    if not sources or len(found) > MAX_ORIGINS:
        return
    found.append((option, sources[-1].place))
    if isinstance(value, dict):
        for key, inner in value.items():
            _walk(f"{option}.{key}", inner, _of_key(key, sources), found)
    elif isinstance(value, list):
        indexes = [_by_value(source) for source in sources]
        for number, item in enumerate(value):
            identity = value_identity(item)
            having = [
                source.inside(index[identity], item)
                for source, index in zip(sources, indexes, strict=True)
                if identity in index
            ]
            _walk(f"{option}.{number}", item, having, found)


def _walk_alone(
    option: str, value: JsonValue, located: Located[Resource], pointer: Pointer, found: list[Place]
) -> None:
    """Do the same for what one layer alone wrote, which is almost everything: it stands there as it was merged."""
    if len(found) > MAX_ORIGINS:
        return
    found.append((option, f"{located.path}:{located.position(pointer)[0]}"))
    if isinstance(value, dict):
        for key, inner in value.items():
            _walk_alone(f"{option}.{key}", inner, located, (*pointer, key), found)
    elif isinstance(value, list):
        first: dict[str, int] = {}
        for number, item in enumerate(value):
            index = first.setdefault(value_identity(item), number)
            _walk_alone(f"{option}.{number}", item, located, (*pointer, index), found)


def _of_key(key: str, sources: list[_Source]) -> list[_Source]:
    return [
        source.inside(key, source.value[key])
        for source in sources
        if isinstance(source.value, dict) and key in source.value
    ]


def _by_value(source: _Source) -> dict[str, int]:
    """Return where each item of a layer's list stands there: merged lists are found by value."""
    items = source.value if isinstance(source.value, list) else []
    return {value_identity(item): index for index, item in reversed(list(enumerate(items)))}
