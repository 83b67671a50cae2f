"""One archive: the run that made it, and what its client told of what is in it. Functions of a read connection."""

from __future__ import annotations

import zlib
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from sqlalchemy import select

from schema.observed import ArchiveContents
from schema.status import ArchiveDetail
from schema.tables import archives, contents, runs
from web_readonly.reader.backups import read_archive
from web_readonly.reader.paging import unindexed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, RowMapping

    from schema.status import ArchiveStatus

_SLACK: Final = timedelta(seconds=2)
"""Borg tells the start of an archive in whole seconds."""
_LOOKED_AT: Final = 5
"""Runs before an archive that may have made it."""


def read_detail(
    connection: Connection, *, client: str, backup: str, repository: str, archive: str
) -> ArchiveDetail | None:
    """Return one archive by id or name, with everything that is known of it."""
    found = read_archive(connection, client=client, backup=backup, repository=repository, archive=archive)
    if found is None:
        return None
    here = {"client": client, "backup": backup, "repository": repository}
    newest = select(archives.c.id).filter_by(**here).order_by(archives.c.start.desc()).limit(1)
    listed = select(contents.c.archive).filter_by(**here).order_by(contents.c.start.desc())
    with_contents = [row.archive for row in connection.execute(listed)]
    made_by = _run(connection, found)
    return ArchiveDetail(
        **found.model_dump(by_alias=False),
        run=made_by["id"] if made_by else "",
        revision=made_by["revision"] if made_by else "",
        is_newest=connection.execute(newest).scalar() == found.id,
        listed_archives=tuple(with_contents),
        contents=_contents(connection, found.id, here) if found.id in with_contents else None,
    )


def _contents(connection: Connection, archive: str, here: Mapping[str, str]) -> ArchiveContents | None:
    packed = connection.execute(select(contents.c.report).filter_by(**here, archive=archive)).scalar()
    if packed is None:
        return None
    try:
        return ArchiveContents.model_validate_json(zlib.decompress(packed))
    except (zlib.error, ValidationError):
        return None


def _run(connection: Connection, archive: ArchiveStatus) -> RowMapping | None:
    """Return the run that says it made the archive, or else the one during which it was begun."""
    query = (
        select(runs.c.id, runs.c.revision, runs.c.finished, runs.c.statistics)
        # One client's runs are few, and in order; those of a backup are those of the whole fleet.
        .where(runs.c.client == archive.client, unindexed(runs.c.backup) == archive.backup)
        .where(runs.c.started <= archive.start + _SLACK)
        .order_by(runs.c.started.desc())
        .limit(_LOOKED_AT)
    )
    found = connection.execute(query).mappings().all()
    for run in found:
        if any(one.get("archive_id") == archive.id for one in run["statistics"] or ()):
            return run
    latest = next(iter(found), None)
    # One that says what it made made no other.
    if latest is None or latest["statistics"] or (latest["finished"] and latest["finished"] < archive.start):
        return None
    return latest
