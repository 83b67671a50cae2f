"""What the pages of backups, their repositories and archives ask. As ``web_readonly.questions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from web_readonly import growth, retention
from web_readonly.asking import BACKUP_STATES, GROWTH, PROTECTION, Answer, Asked, found
from web_readonly.reader import BackupFilter, RunFilter
from web_readonly.reader.paging import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schema.status import ArchiveStatus, BackupStatus, Evidence
    from web_readonly.reader import Reader
    from web_readonly.reader.numbers import Standing

USERS: Final = 50
"""Backups that the page of a repository shows; the list of backups has all."""
MAX_RETAINED: Final = 4
"""Repositories of one backup whose archives are held against retention."""


def backups(reader: Reader, asked: Asked) -> Answer:
    """Answer whether each backup meets its objective."""
    page = reader.backups(_backup_filter(asked), limit=asked.limit(), after=asked.text("after"), now=asked.now)
    return Answer(page, lambda: {"states": BACKUP_STATES})


def _backup_filter(asked: Asked, *, backup: str = "") -> BackupFilter:
    state = asked.choice("state", BACKUP_STATES)
    return BackupFilter(
        client=asked.text("client"),
        backup=backup or asked.text("backup"),
        repository=asked.text("repository"),
        state=next((one for one in PROTECTION if one == state), None),
        running=state == "running",
    )


def backup(reader: Reader, asked: Asked) -> Answer:
    """Answer for one backup across its clients: objective, evidence, runs."""
    name = asked.path["backup"]
    wanted, after = BackupFilter(backup=name), asked.text("after")
    page = reader.backups(wanted, limit=asked.limit(), after=after, now=asked.now)
    there = page if page.items or after else None
    near = reader.neighbours("backup", name) if there is None else ()
    found(there, "backup", name, look="/backups for all of them", near=near)

    def beside() -> Mapping[str, Any]:
        # Those that need a person come first, whatever page they would stand on.
        bad = BackupFilter(backup=name, state="unprotected")
        first = () if after else reader.backups(bad, limit=20, now=asked.now).items
        worst = {one.client for one in first}
        return {
            "name": name,
            "runs": reader.runs(RunFilter(backup=name), limit=30).items,
            "rows": evidence_rows((*first, *(one for one in page.items if one.client not in worst))),
            "standings": _by_state(reader.standings(backup=name, now=asked.now)),
        }

    return Answer(page, beside)


def _by_state(standings: Sequence[Standing]) -> dict[str, int]:
    return {state: sum(one.number for one in standings if one.state == state) for state in PROTECTION}


def placement(reader: Reader, asked: Asked) -> Answer:
    """Answer for one backup on one client."""
    of, name = asked.path["client"], asked.path["backup"]
    main = found(
        reader.backup(client=of, backup=name, now=asked.now),
        "backup",
        f"{of}/{name}",
        look=f"/clients/{of} for the backups of that client",
    )
    return Answer(
        main,
        lambda: {
            "runs": reader.runs(RunFilter(client=of, backup=name), limit=30).items,
            "archives": reader.archives(client=of, backup=name, limit=20).items,
            "retained": {
                each.repository: retention.judge(
                    (one.start for one in _seen(reader, main, each.repository)),
                    main.retention,
                    time_zone=main.time_zone,
                    now=asked.now,
                )
                for each in main.evidence[:MAX_RETAINED]
            },
            "growth": growth.by_day(reader.samples(client=of, backup=name, since=asked.now - GROWTH)),
        },
    )


def _seen(reader: Reader, of: BackupStatus, repository: str) -> Sequence[ArchiveStatus]:
    return reader.archives(client=of.client, backup=of.backup, repository=repository, limit=MAX_LIMIT).items


def evidence_rows(
    found: Sequence[BackupStatus], *, repository: str = "", url: str = ""
) -> list[tuple[BackupStatus, Evidence | None]]:
    """Return one row for each backup and repository; a backup without a repository has one as well."""
    rows: list[tuple[BackupStatus, Evidence | None]] = []
    for one in found:
        seen = [each for each in one.evidence if repository in {"", each.repository} and url in {"", each.url}]
        rows += [(one, each) for each in seen] if seen else [(one, None)] if not repository else []
    return rows


# --- Repositories and archives ----------------------------------------------------------------------------------------


def repositories(reader: Reader, asked: Asked) -> Answer:
    """Answer which Borg repositories there are, and how full."""
    page = reader.repositories(limit=asked.limit(), after=asked.text("after"))
    return Answer(page, lambda: {"growth": reader.growth(since=asked.now - GROWTH, until=asked.now)})


def repository(reader: Reader, asked: Asked) -> Answer:
    """Answer for one repository, at each of its urls, who uses it."""
    name, after = asked.path["repository"], asked.text("after")
    page = reader.repositories(name=name, limit=asked.limit(), after=after)
    there = page if page.items or after else None
    near = reader.neighbours("repository", name) if there is None else ()
    found(there, "repository", name, look="/repositories for all of them", near=near)

    def beside() -> Mapping[str, Any]:
        users = reader.backups(BackupFilter(repository=name), limit=USERS, now=asked.now)
        return {
            "name": name,
            "rows": evidence_rows(users.items, repository=name),
            "more_users": bool(users.next),
            "wanted": retention.wanted(one.retention for one in users.items),
            "growth": reader.growth(repository=name, since=asked.now - GROWTH, until=asked.now),
            "archives": reader.archives(repository=name, limit=15).items,
        }

    return Answer(page, beside)


def archives(reader: Reader, asked: Asked) -> Answer:
    """Answer which archives were seen."""
    return Answer(
        reader.archives(
            client=asked.text("client"),
            backup=asked.text("backup"),
            repository=asked.text("repository"),
            limit=asked.limit(),
            before=asked.text("after"),
        )
    )
