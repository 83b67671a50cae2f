"""What each page asks of the reader, from the path and the filters of one request. ``web_readonly.views`` lists them.

A question returns its main answer, which is also the JSON of ``/api/v1``, and what the page shows beside it. Sealed
values never leave here: of a desired state, pages get the files and the names of its secrets.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

from schema import assessment
from schema.errors import TerminalError
from schema.observed import Outcome
from schema.status import Following, Page, Phase
from web_readonly import files, growth, progress, retention
from web_readonly.reader import BackupFilter, ClientFilter, EventFilter, InvalidQuery, RunFilter
from web_readonly.reader.facade import DEFAULT_LIMIT
from web_readonly.reader.paging import MAX_LIMIT
from web_readonly.reader.timeline import TimelineFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import BaseModel

    from schema.desired import Content
    from schema.observed import RepositoryStatistics
    from schema.status import ArchiveStatus, BackupStatus, ClientStatus, Evidence, RunStatus
    from web_readonly.reader import Reader
    from web_readonly.reader.numbers import Standing

    Question = Callable[[Reader, "Asked"], "Answer"]

T = TypeVar("T")

LOG_LINES: Final = 500
USERS: Final = 50
"""Backups that the page of a repository shows; the list of backups has all."""
ARCHIVES_LINKED: Final = 20
LINES_BEFORE: Final = 20
"""Above the line of a log that a link leads to."""
OVERVIEW_ROWS: Final = 12
GROWTH: Final = timedelta(days=90)
MAX_RETAINED: Final = 4
"""Repositories of one backup whose archives are held against retention."""
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_PROTECTION: Final = ("protected", "unprotected", "unknown", "without-objective")
CLIENT_STATES: Final = (
    "connected",
    "away",
    "drifted",
    *(one.value for one in Following),
    *(one.value for one in Phase),
)
BACKUP_STATES: Final = (*_PROTECTION, "running")
RUN_OUTCOMES: Final = ("running", *(one.value for one in Outcome))


class NotFound(TerminalError):
    """There is no such thing. Answered with 404."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when, the parts of its path, and its filters (name → values, empty ones left out)."""

    now: datetime
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a filter that may be given once; empty when it is not."""
        values = self.query.get(name, ())
        if len(values) > 1:
            raise InvalidQuery(f"'{name}' was given {len(values)} times", hint=f"give '{name}' once")
        return values[0] if values else ""

    def choice(self, name: str, allowed: Sequence[str]) -> str:
        """Return a filter that is one of a few words."""
        value = self.text(name)
        if value and value not in allowed:
            raise InvalidQuery(f"'{name}' cannot be '{value[:80]}'", hint=f"it is one of: {', '.join(allowed)}")
        return value

    def labels(self) -> dict[str, str]:
        """Return the labels of ``label=key=value``, which may be given several times."""
        found = {}
        for text in self.query.get("label", ()):
            key, separator, value = text.partition("=")
            if not key or not separator:
                raise InvalidQuery(f"'{text[:80]}' is not a label", hint="write key=value, for example role=web")
            found[key.strip()] = value.strip()
        return found

    def number(self, name: str, *, least: int) -> int | None:
        """Return a filter that is a whole number."""
        text = self.text(name)
        if not text:
            return None
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 12 and int(text) >= least):
            raise InvalidQuery(f"'{name}' cannot be '{text[:80]}'", hint=f"it is a number from {least}")
        return int(text)

    def limit(self, usual: int = DEFAULT_LIMIT) -> int:
        """Return how many rows of a list are wanted."""
        found = self.number("limit", least=1)
        if found is not None and found > MAX_LIMIT:
            raise InvalidQuery(f"'limit' cannot be '{found}'", hint=f"it is a number from 1 to {MAX_LIMIT}")
        return usual if found is None else found

    def moment(self, name: str, *, end: bool = False) -> datetime | None:
        """Return a filter that is a day or a time, in UTC unless it says otherwise; ``end`` is the end of a day."""
        text = self.text(name)
        if not text:
            return None
        try:
            found = datetime.fromisoformat(text)
            moment = found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
            return moment + timedelta(days=1) if end and len(text) == len("2026-11-23") else moment
        except (ValueError, OverflowError):
            hint = "it is a day or a time in UTC: 2026-11-23 or 2026-11-23T07:42"
            raise InvalidQuery(f"'{name}' cannot be '{text[:80]}'", hint=hint) from None


@dataclass(frozen=True, slots=True)
class Answer:
    """The main answer, and what a page shows beside it."""

    main: BaseModel
    beside: Callable[[], Mapping[str, Any]] = dict
    """Asked for by pages alone: the JSON does without, and without its cost."""


def _found(value: T | None, kind: str, name: str, *, look: str, near: Sequence[str] = ()) -> T:
    if value is None:
        close = difflib.get_close_matches(name[:100], near, n=1)
        meant = f"did you mean '{close[0]}'? " if close else ""
        raise NotFound(f"there is no {kind} '{name[:200]}'", hint=f"{meant}see {look}")
    return value


# --- Overview and source ----------------------------------------------------------------------------------------------


def overview(reader: Reader, asked: Asked) -> Answer:
    """Answer whether anything is unprotected, and what to do first."""
    since = asked.now.replace(minute=asked.now.minute // 10 * 10, second=0, microsecond=0) - timedelta(days=1)
    main = reader.overview(now=asked.now)
    return Answer(
        main,
        lambda: {
            "silent": assessment.silent_since(main.source, now=asked.now),
            "running": reader.runs(RunFilter(outcome="running"), limit=5).items,
            "runs": reader.runs(limit=1).items,
            "pending": reader.pending(),
            "timeline": reader.timeline(
                TimelineFilter(), since=since, until=since + timedelta(days=2), rows=OVERVIEW_ROWS, now=asked.now
            ),
            "growth": reader.growth(since=asked.now - GROWTH, until=asked.now),
            "wanted": reader.wanted_archives(),
        },
    )


def source(reader: Reader, asked: Asked) -> Answer:
    """Answer which revision is published, and what is wrong with the newest."""
    main = reader.source()
    return Answer(
        main,
        lambda: {
            "revisions": reader.revisions(limit=30, before=asked.text("after")),
            "silent": assessment.silent_since(main, now=asked.now),
        },
    )


def revisions(reader: Reader, asked: Asked) -> Answer:
    """Answer how each revision was judged."""
    return Answer(reader.revisions(limit=asked.limit(), before=asked.text("after")))


def revision(reader: Reader, asked: Asked) -> Answer:
    """Answer how one revision was judged, and why."""
    name = asked.path["revision"]
    main, problems = _found(reader.revision(name), "revision", name, look="/source for those that were seen")
    return Answer(main, lambda: {"problems": problems, "source": reader.source()})


def events(reader: Reader, asked: Asked) -> Answer:
    """Answer who did what."""
    wanted = EventFilter(
        client=asked.text("client"),
        reason=asked.text("reason"),
        actor=asked.text("actor"),
        since=asked.moment("since"),
        until=asked.moment("until", end=True),
    )
    return Answer(
        reader.events(wanted, limit=asked.limit(), before=asked.text("after")), lambda: {"reasons": reader.reasons()}
    )


def about(reader: Reader, asked: Asked) -> Answer:
    """Answer what this is, how much it keeps, and who could get in."""
    main = reader.source()
    return Answer(
        main,
        lambda: {
            "tokens": reader.tokens(),
            "lockouts": reader.lockouts(now=asked.now),
            "facts": reader.facts(),
            "silent": assessment.silent_since(main, now=asked.now),
        },
    )


# --- Clients ----------------------------------------------------------------------------------------------------------


def clients(reader: Reader, asked: Asked) -> Answer:
    """Answer how each client stands."""
    state = asked.choice("state", CLIENT_STATES)
    labels = asked.labels()
    wanted = ClientFilter(
        text=asked.text("q"),
        labels=labels,
        phase=Phase(state) if state in set(Phase) else None,
        # "unknown" and the like belong to following; no word stands in both.
        following=Following(state) if state in set(Following) else None,
        connected={"connected": True, "away": False}.get(state),
        drifted=True if state == "drifted" else None,
    )
    page = reader.clients(wanted, limit=asked.limit(), after=asked.text("after"), now=asked.now)
    return Answer(
        page,
        lambda: {
            "pending": reader.pending(),
            "states": CLIENT_STATES,
            "counts": reader.client_counts(now=asked.now),
            "facets": reader.labels(),
            "chosen": labels,
            "known": reader.known_revisions(one.applied_revision for one in page.items),
            "silent": assessment.silent_since(reader.source(), now=asked.now),
        },
    )


def client(reader: Reader, asked: Asked) -> Answer:
    """Answer what one client should have, has, and does."""
    name = asked.path["client"]
    main = _client(reader, asked)

    def beside() -> Mapping[str, Any]:
        content, state = reader.content(name), reader.state(name)
        return {
            "backups": reader.backups(BackupFilter(client=name), limit=200, now=asked.now).items,
            "runs": reader.runs(RunFilter(client=name), limit=30).items,
            "events": reader.events(EventFilter(client=name), limit=8).items,
            "files": _files(reader, main, content),
            "source": reader.source(),
            "secrets": [f"{one.secret}.{one.key}" for one in content.secrets] if content else [],
            "directories": content.directories if content else None,
            "heals": content.drift if content else "",
            "reported": state.at if state else None,
            "applied_expires": state.expires if state else None,
            "dropped": state.dropped_events if state else 0,
            "known": reader.known_revisions((main.applied_revision, main.desired_revision)),
        }

    return Answer(main, beside)


def client_files(reader: Reader, asked: Asked) -> Answer:
    """Answer with the managed files of one client: text, where each line comes from, and what will change."""
    main = _client(reader, asked)
    return Answer(Page[files.FileShown](items=_files(reader, main, reader.content(main.name))))


def _client(reader: Reader, asked: Asked) -> ClientStatus:
    name = asked.path["client"]
    main = reader.client(name, now=asked.now)
    near = reader.neighbours("client", name) if main is None else ()
    return _found(main, "client", name, look="/clients for all of them", near=near)


def _files(reader: Reader, main: ClientStatus, content: Content | None) -> tuple[files.FileShown, ...]:
    waits = main.applied_digest not in {"", main.desired_digest}
    before = reader.former(main.name, digest=main.applied_digest) if waits else None
    return files.shown(content, before=before, options=reader.options(main.name))


# --- Backups ----------------------------------------------------------------------------------------------------------


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
        state=next((one for one in _PROTECTION if one == state), None),
        running=state == "running",
    )


def backup(reader: Reader, asked: Asked) -> Answer:
    """Answer for one backup across its clients: objective, evidence, runs."""
    name = asked.path["backup"]
    wanted, after = BackupFilter(backup=name), asked.text("after")
    page = reader.backups(wanted, limit=asked.limit(), after=after, now=asked.now)
    there = page if page.items or after else None
    near = reader.neighbours("backup", name) if there is None else ()
    _found(there, "backup", name, look="/backups for all of them", near=near)

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
    return {state: sum(one.number for one in standings if one.state == state) for state in _PROTECTION}


def placement(reader: Reader, asked: Asked) -> Answer:
    """Answer for one backup on one client."""
    of, name = asked.path["client"], asked.path["backup"]
    main = _found(
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
    _found(there, "repository", name, look="/repositories for all of them", near=near)

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


# --- Runs -------------------------------------------------------------------------------------------------------------


def runs(reader: Reader, asked: Asked) -> Answer:
    """Answer what ran."""
    return Answer(
        reader.runs(_run_filter(asked), limit=asked.limit(), before=asked.text("after")),
        lambda: {"outcomes": RUN_OUTCOMES},
    )


def _run_filter(asked: Asked) -> RunFilter:
    outcome = asked.choice("outcome", RUN_OUTCOMES)
    return RunFilter(
        client=asked.text("client"),
        backup=asked.text("backup"),
        outcome="running" if outcome == "running" else Outcome(outcome) if outcome else None,
    )


def run(reader: Reader, asked: Asked) -> Answer:
    """Answer how one run goes or went. Of a long log the end is shown first: that is where it failed."""
    name = asked.path["run"]
    main = _found(reader.run(name), "run", name, look="/runs; old runs are forgotten by age")
    asked.choice("pause", ("yes",))
    after, line = asked.number("after", least=-1), asked.number("line", least=1)
    narrowed = bool(asked.text("level") or asked.text("q"))
    if after is None and line is not None:
        after = max(-1, line - LINES_BEFORE - 2)
    elif after is None:
        after = -1 if narrowed else max(-1, main.log_lines - LOG_LINES - 1)
    return Answer(
        main,
        lambda: {
            "log": _log(reader, asked, after=after),
            "after": after,
            "levels": _LEVELS,
            "earlier": None if narrowed or after < 0 else max(-1, after - LOG_LINES),
            "source": reader.source(),
            "known": reader.known_revisions((main.revision,)),
            "there": {
                (one.repository, one.archive_id)
                for one in main.statistics[:ARCHIVES_LINKED]
                if _is_there(reader, main, one)
            },
            **(_progress(reader, main, now=asked.now) if main.outcome is None else {}),
        },
    )


def _progress(reader: Reader, run: RunStatus, *, now: datetime) -> dict[str, Any]:
    """Return how a run goes on, and whether its machine is there to tell."""
    wanted = RunFilter(client=run.client, backup=run.backup, outcome=Outcome.SUCCEEDED)
    last = next(iter(reader.runs(wanted, limit=1).items), None)
    return {"pace": progress.pace(run, last=last, now=now), "machine": reader.client(run.client, now=now)}


def _is_there(reader: Reader, run: RunStatus, made: RepositoryStatistics) -> bool:
    """Whether the archive that a run made is still seen: it may have been pruned since."""
    if not made.archive_id:
        return False
    found = reader.archive(client=run.client, backup=run.backup, repository=made.repository, archive=made.archive_id)
    return found is not None


def run_log(reader: Reader, asked: Asked) -> Answer:
    """Answer with log lines of one run, from the first."""
    name = asked.path["run"]
    _found(reader.run(name), "run", name, look="/runs; old runs are forgotten by age")
    after = asked.number("after", least=-1)
    return Answer(_log(reader, asked, after=-1 if after is None else after))


def _log(reader: Reader, asked: Asked, *, after: int) -> Page[Any]:
    chosen = asked.choice("level", _LEVELS)
    level = next((one for one in ("info", "warning", "error", "critical") if one == chosen), "debug")
    limit = asked.limit(LOG_LINES)
    return reader.run_log(asked.path["run"], after=after, limit=limit, level=level, text=asked.text("q"))  # type: ignore[arg-type]
