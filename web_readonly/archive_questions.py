"""What the page of one archive asks: what is in it, and how it comes back. As ``web_readonly.questions``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schema.desired import runtime_directory
from web_readonly import restoring
from web_readonly.asking import Answer, NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schema.desired import Content
    from schema.observed import ArchiveContents, DirectoryContents
    from web_readonly.asking import Asked
    from web_readonly.reader import Reader

MAX_ROWS: Final = 120
"""Of two levels; when they have more, one level is shown."""
UNKNOWN: Final = "\ufffd"
_DATABASES: Final = re.compile(r"^\w+_databases:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table of contents: a directory, or (without a path) what the others do not account for."""

    path: str
    name: str
    level: int
    files: int
    size: int


def archive(reader: Reader, asked: Asked) -> Answer:
    """Answer what is in one archive, and how it comes back: all of it, or the path that was asked for."""
    client, backup, repository = (asked.path[name] for name in ("client", "backup", "repository"))
    found = reader.archive_detail(client=client, backup=backup, repository=repository, archive=asked.path["archive"])
    if found is None:
        raise NotFound(
            f"there is no archive '{asked.path['archive'][:200]}' of {client}/{backup} in {repository}"[:400],
            hint="see /archives for all of them; pruned ones are gone from there, too",
        )
    path = clean_path(asked.text("path"))
    content = reader.content(client)
    file = configuration(content, backup)
    told = found.contents
    base, rows = rows_below(told, path) if told is not None and told.listed else (None, ())
    known: dict[str, object] = {"path": path, "configuration": file}
    if UNKNOWN not in path:
        known["resource"] = restoring.resource(found, path=path)
        if file:
            dumps = dumps_of_databases(content, backup)
            known["commands"] = restoring.commands(found, file=file, path=path, dumps=dumps)
    return Answer(
        found.model_copy(update=known),
        lambda: {
            "told": told,
            "above": path.split("/") if path else [],
            "base": base,
            "rows": rows,
            "largest": [one for one in told.largest if one.path.startswith(f"{path}/") or not path] if told else [],
            "instead": next(iter(found.listed_archives), ""),
        },
    )


def clean_path(text: str) -> str:
    """Return a path as archives have it: without slashes at its ends."""
    return "/".join(part for part in text.split("/") if part not in {"", "."})


def configuration(content: Content | None, backup: str) -> str:
    """Return where borgmatic's configuration of a backup lies on the client; empty when it has none any more."""
    job = next((one for one in content.jobs if one.backup == backup), None) if content is not None else None
    return f"{content.directories.config}/{job.file}" if content is not None and job is not None else ""


def dumps_of_databases(content: Content | None, backup: str) -> str:
    """Return where a backup dumps databases on the client, which come back by a command of their own; or nothing."""
    job = next((one for one in content.jobs if one.backup == backup), None) if content is not None else None
    if content is None or job is None:
        return ""
    dumps = any(one.path == job.file and _DATABASES.search(one.content) for one in content.files)
    return runtime_directory(content.directories.state, backup) if dumps else ""


def rows_below(told: ArchiveContents, path: str) -> tuple[Row | None, tuple[Row, ...]]:
    """Return the directory at ``path`` (None when it is not told apart), and two levels of what is below it.

    A directory that holds nothing but another one shares its row.
    """
    base = None if path else Row("", "", 0, told.files, told.size)
    below: dict[str, list[DirectoryContents]] = {}
    for one in told.directories:
        if not one.path:
            continue  # nothing that a client of ours says; it would be below itself
        below.setdefault(one.path.rpartition("/")[0], []).append(one)
        if path and one.path == path:
            base = Row(one.path, one.path, 0, one.files, one.size)
    if base is None:
        return None, ()
    upper = [_row(one, 0, below) for one in below.get(path, ())]
    nested = {row.path: [_row(one, 1, below) for one in below.get(row.path, ())] for row in upper}
    two = sum(map(len, nested.values())) + len(upper) <= MAX_ROWS
    rows = [each for row in upper for each in (row, *(nested[row.path] if two else ()))]
    files, size = base.files - sum(row.files for row in upper), base.size - sum(row.size for row in upper)
    rest = [Row("", "", 0, files, max(0, size))] if files > 0 and upper else []
    return base, (*rows, *rest)


def _row(one: DirectoryContents, level: int, below: Mapping[str, Sequence[DirectoryContents]]) -> Row:
    names = [one.path.rpartition("/")[2]]
    while len(inner := below.get(one.path, ())) == 1 and inner[0].files == one.files:
        one = inner[0]
        names.append(one.path.rpartition("/")[2])
    return Row(one.path, "/".join(names), level, one.files, one.size)
