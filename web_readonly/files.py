"""The managed files of one client as pages and API show them: their text, whence it came, and what will change. Pure.

Secret values are hidden; each line has the place in Git of its option. What a client has is known only by its digest:
``before`` is the content that had that digest, when the store still knows it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, Literal

from schema.hiding import diff_files, hide_secret_values
from schema.status import Shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schema.desired import Content, ManagedFile

MAX_TEXT: Final = 200_000
"""Characters of all files of one client that a page shows; what does not fit is named."""
MAX_DIFFS: Final = 100

Change = Literal["", "same", "new", "changed", "gone"]
Place = tuple[str, str]
"""Place (``config`` or ``state``) and path: what a managed file is known by."""


class FileLine(Shown):
    """One line, and where in Git the option that it belongs to was written; empty when nobody wrote it."""

    text: str
    origin: str = ""


class FileShown(Shown):
    """A managed file: where it lies on the client, where it comes from, and its text without secret values."""

    path: str
    origin: str
    backup: str = ""
    size: int
    mode: str
    change: Change = ""
    """What applying does to it; empty when nothing waits to be applied, or what the client has is not known."""
    diff: str = ""
    """From what the client applied to what was issued; empty when only the mode changes."""
    lines: tuple[FileLine, ...] = ()
    is_whole: bool = True
    """False when the text was too long to be shown."""


def shown(
    content: Content | None, *, before: Content | None = None, options: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[FileShown, ...]:
    """Return the files of a desired state. ``options`` is, for each backup, option path → place in Git."""
    if content is None:
        return ()
    found = tuple(_shown_each(content, _by_place(before) if before else None, options or {}))
    return (*found, *_gone(content, before)) if before else found


def _by_place(content: Content) -> dict[Place, ManagedFile]:
    return {(one.place, one.path): one for one in content.files}


def _where(content: Content, one: ManagedFile) -> str:
    folder = content.directories.config if one.place == "config" else content.directories.state
    return f"{folder}/{one.path}"


def _shown_each(
    content: Content, before: Mapping[Place, ManagedFile] | None, options: Mapping[str, Mapping[str, str]]
) -> Iterator[FileShown]:
    backups = {job.file: job.backup for job in content.jobs}
    room, diffs = MAX_TEXT, 0
    for one in content.files:
        change: Change = ""
        diff = ""
        if before is not None:
            former = before.get((one.place, one.path))
            change = "new" if former is None else "same" if _is_same(former, one) else "changed"
            if former is not None and change == "changed" and diffs < MAX_DIFFS:
                diff, diffs = _diff(former, one), diffs + 1
        backup = backups.get(one.path, "") if one.place == "config" else ""
        is_whole = len(one.content) <= room
        if is_whole:
            room -= len(one.content)
        yield FileShown(
            path=_where(content, one),
            origin=one.origin,
            backup=backup,
            size=len(one.content.encode()),
            mode=f"{one.mode:04o}",
            change=change,
            diff=diff,
            lines=tuple(annotated(hide_secret_values(one.content), options.get(backup, {}))) if is_whole else (),
            is_whole=is_whole,
        )


def _is_same(former: ManagedFile, one: ManagedFile) -> bool:
    return (former.content, former.origin, former.mode) == (one.content, one.origin, one.mode)


def _diff(former: ManagedFile, one: ManagedFile) -> str:
    """Return the difference of two texts; with the header when only that differs; empty when not even that."""
    if former.content != one.content:
        return diff_files(former.content.encode(), one.content.encode(), name=one.path)
    return diff_files(former.rendered("…"), one.rendered("…"), name=one.path) if former.origin != one.origin else ""


def _gone(content: Content, before: Content) -> Iterator[FileShown]:
    kept = _by_place(content)
    for place, one in _by_place(before).items():
        if place not in kept:
            yield FileShown(
                path=_where(before, one), origin=one.origin, size=len(one.content.encode()), mode="", change="gone"
            )


# --- Where each line came from ----------------------------------------------------------------------------------------

_KEY: Final = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*"|[^\s:"#][^:"]*):(?:\s|$)')
_ITEM: Final = re.compile(r"- +|-$")


def annotated(text: str, options: Mapping[str, str]) -> Iterator[FileLine]:
    """Yield the lines of a file that the director rendered, each with the place of its innermost known option.

    Its YAML is in block style (``reconciler.core.emit``): a line's path follows from the indents. ``options`` is keyed
    by path, ``mariadb_databases.0.name``; what it does not name has the place of what it stands in.
    """
    stack: list[tuple[int, str, str]] = []  # column, path and place of every key and item that the line stands in
    counts: dict[tuple[str, int], int] = {}
    for line in text.splitlines():
        rest = line.lstrip(" ")
        column = len(line) - len(rest)
        if rest:
            while stack and stack[-1][0] >= column:
                stack.pop()
        while item := _ITEM.match(rest):
            parent, place = (stack[-1][1], stack[-1][2]) if stack else ("", "")
            number = counts[parent, column] = counts.get((parent, column), -1) + 1
            path = f"{parent}.{number}"
            stack.append((column, path, options.get(path, place)))
            column, rest = column + len(item[0]), rest[len(item[0]) :]
        if key := _KEY.match(rest):
            parent, place = (stack[-1][1], stack[-1][2]) if stack else ("", "")
            path = f"{parent}.{_name(key['key'])}" if parent else _name(key["key"])
            stack.append((column, path, options.get(path, place)))
        yield FileLine(text=line, origin=stack[-1][2] if stack and rest else "")


def _name(key: str) -> str:
    if not key.startswith('"'):
        return key
    try:
        return str(json.loads(key))
    except ValueError:
        return key
