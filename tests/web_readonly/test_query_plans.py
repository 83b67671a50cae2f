"""What the pages ask of SQLite costs what a page shows, not what the store holds: its plans, never its time."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import Engine, event

import web_readonly.reader
from schema.observed import Outcome
from schema.status import Following
from tests.benchmarks.visits import one_of_each, read_names
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import questions
from web_readonly.asking import Asked as PageAsked
from web_readonly.reader import BackupFilter, ClientFilter, EventFilter, Reader, RunFilter
from web_readonly.reader.timeline import TimelineFilter

HISTORY = ("runs", "run_logs", "archives", "samples", "growth", "events", "contents")
"""Tables that grow with time: nothing may walk through one of them to its end."""
WIDE = ("issued", "observed")
"""Tables with long rows: what asks of all clients reads their indexes alone."""


class Asked(NamedTuple):
    statement: str
    parameters: Any


@contextmanager
def listening() -> Iterator[list[Asked]]:
    """Gather what is asked of SQLite meanwhile, each statement once."""
    asked: dict[str, Asked] = {}

    def keep(connection: Any, cursor: Any, statement: str, parameters: Any, *rest: Any) -> None:
        if statement.startswith(("SELECT", "WITH")):
            asked[statement] = Asked(statement, parameters)

    found: list[Asked] = []
    event.listen(Engine, "before_cursor_execute", keep)
    try:
        yield found
    finally:
        event.remove(Engine, "before_cursor_execute", keep)
        found += asked.values()


def plan(store: Path, asked: Asked) -> list[str]:
    connection = sqlite3.connect(store)
    try:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked.statement}", asked.parameters)]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def of_all_pages(seeded_store: Path) -> list[Asked]:
    """What every page and its JSON asks, with each filter that the benchmark knows."""
    return asyncio.run(visit_all(seeded_store))


async def visit_all(seeded_store: Path) -> list[Asked]:
    with listening() as asked:
        async with visiting(seeded_store) as visitor:
            for visit in one_of_each(read_names(seeded_store)):
                response = await visitor.get(visit.target)
                assert response.status in {200, 404}, f"{response.status} {visit.target}"
    return asked


def test_no_page_counts_rows_to_find_its_place():
    reader = Path(web_readonly.reader.__file__).parent

    # SQLAlchemy writes "OFFSET 0" by itself.
    assert [one.name for one in reader.glob("*.py") if re.search(r"(?i)\boffset\b", one.read_text())] == []


def test_no_page_walks_through_history_to_its_end(of_all_pages, seeded_store):
    walk = re.compile(rf"SCAN ({'|'.join(HISTORY)})\b")
    # In the order of an index it ends with the page.
    ends = re.compile(r"\bLIMIT\b|\bmin\(")
    walks = [
        (step, one.statement)
        for one in of_all_pages
        for step in plan(seeded_store, one)
        if walk.match(step) and not ("INDEX" in step and ends.search(one.statement))
    ]

    assert len(of_all_pages) > 50
    # Events are kept by id, and their newest page is read from the end.
    assert [one for one in walks if not one[0].startswith("SCAN events")] == []


def test_no_page_reads_the_envelopes_or_reports_of_all_clients(of_all_pages, seeded_store):
    read = [
        (step, one.statement)
        for one in of_all_pages
        for step in plan(seeded_store, one)
        if re.match(rf"SCAN ({'|'.join(WIDE)})\b", step) and "COVERING INDEX" not in step
    ]

    assert read == []


# --- What is asked most ---------------------------------------------------------------------------------------------

HOT: dict[str, tuple[Callable[[Reader], object], tuple[str, ...]]] = {
    "runs": (lambda reader: reader.runs(), ("SCAN runs USING INDEX ix_runs_started",)),
    "runs of a client": (
        lambda reader: reader.runs(RunFilter(client="web-1")),
        ("SEARCH runs USING INDEX ix_runs_client_started (client=?)",),
    ),
    "failed runs of a client": (
        lambda reader: reader.runs(RunFilter(client="web-1", outcome=Outcome.FAILED)),
        ("SEARCH runs USING INDEX ix_runs_client_started (client=?)",),
    ),
    "runs of one backup on a client": (
        lambda reader: reader.runs(RunFilter(client="web-1", backup="web")),
        ("SEARCH runs USING INDEX ix_runs_client_started (client=?)",),
    ),
    "runs of a backup": (
        lambda reader: reader.runs(RunFilter(backup="web")),
        ("SEARCH runs USING INDEX ix_runs_backup_started (backup=?)",),
    ),
    "lost runs of a backup": (
        lambda reader: reader.runs(RunFilter(backup="web", outcome=Outcome.LOST)),
        ("SEARCH runs USING INDEX ix_runs_backup_outcome_started (backup=? AND outcome=?)",),
    ),
    "runs that go on": (
        lambda reader: reader.runs(RunFilter(outcome="running")),
        ("SEARCH runs USING INDEX ix_runs_outcome_started (outcome=?)",),
    ),
    "archives": (
        lambda reader: reader.archives(),
        ("SCAN archives USING INDEX ix_archives_start",),
    ),
    "archives of one backup on a client": (
        lambda reader: reader.archives(client="web-1", backup="web"),
        ("SEARCH archives USING PRIMARY KEY (client=? AND backup=?)",),
    ),
    "archives of a client in a repository": (
        lambda reader: reader.archives(client="web-1", repository="vault"),
        ("SEARCH archives USING PRIMARY KEY (client=?)",),
    ),
    "archives of a backup in a repository": (
        lambda reader: reader.archives(backup="web", repository="vault"),
        ("SEARCH archives USING INDEX ix_archives_backup_repository_start (backup=? AND repository=?)",),
    ),
    "archives in a repository": (
        lambda reader: reader.archives(repository="vault"),
        ("SEARCH archives USING INDEX ix_archives_repository_start (repository=?)",),
    ),
    "repositories": (
        lambda reader: reader.repositories(),
        ("SCAN evidence USING COVERING INDEX ix_evidence_repository_url",),
    ),
    "what happened to a client": (
        lambda reader: reader.events(EventFilter(client="web-1")),
        ("SEARCH events USING INDEX ix_events_client (client=?)",),
    ),
    "what is not protected": (
        lambda reader: reader.backups(BackupFilter(client="web-1"), now=seeded.NOW),
        ("SEARCH backups USING PRIMARY KEY (client=?)",),
    ),
    "how many clients follow": (
        lambda reader: reader.client_counts(now=seeded.NOW),
        (
            "SEARCH issued USING COVERING INDEX ix_issued_heads (client=?) LEFT-JOIN",
            "SEARCH observed USING COVERING INDEX ix_observed_heads (client=?) LEFT-JOIN",
        ),
    ),
    "which clients are behind": (
        lambda reader: reader.clients(ClientFilter(following=Following.BEHIND), now=seeded.NOW),
        (
            "SEARCH issued USING COVERING INDEX ix_issued_heads (client=?) LEFT-JOIN",
            "SEARCH observed USING COVERING INDEX ix_observed_heads (client=?) LEFT-JOIN",
        ),
    ),
    "how backups stand": (
        lambda reader: reader.overview(now=seeded.NOW),
        (
            "SCAN backups USING COVERING INDEX ix_backups_protected_until",
            "SEARCH backups USING INDEX ix_backups_protected_until (protected_until<?)",
        ),
    ),
    "how a backup stands on all its clients": (
        lambda reader: reader.standings(backup="web", now=seeded.NOW),
        ("SCAN backups USING COVERING INDEX ix_backups_protected_until",),
    ),
    "how all repositories grew": (
        lambda reader: reader.growth(since=seeded.NOW - timedelta(days=90), until=seeded.NOW),
        ("SEARCH growth USING INDEX ix_growth_repository_url_day (repository=? AND url=? AND day>? AND day<?)",),
    ),
}


@pytest.mark.parametrize("name", HOT)
def test_what_is_asked_most_is_found_by_the_index_made_for_it(name, seeded_store):
    ask, expected = HOT[name]
    reader = Reader(seeded_store)
    with listening() as asked:
        ask(reader)
    reader.close()

    steps = {step for one in asked for step in plan(seeded_store, one)}

    assert set(expected) - steps == set(), "\n".join(sorted(steps))


def test_the_json_asks_for_nothing_that_only_its_page_shows(seeded_store):
    reader = Reader(seeded_store)
    with listening() as by_json:
        answer = questions.clients(reader, PageAsked(now=seeded.NOW))
    with listening() as by_page:
        answer.beside()
    reader.close()

    facets = [["GROUP BY clients.labels" in one.statement for one in asked] for asked in (by_json, by_page)]
    assert [any(found) for found in facets] == [False, True]


def test_of_the_timeline_no_kind_is_looked_for_that_would_not_be_shown(seeded_store):
    reader = Reader(seeded_store)
    window = {"since": seeded.NOW - timedelta(days=1), "until": seeded.NOW + timedelta(days=1), "now": seeded.NOW}
    with listening() as by_few:
        few = reader.timeline(TimelineFilter(), rows=1, **window)
    with listening() as by_all:
        whole = reader.timeline(TimelineFilter(), rows=1_000, **window)
    reader.close()

    assert (few.rows, few.more, whole.more) == (whole.rows[:1], True, False)
    assert len(by_few) < len(by_all)


def test_of_a_list_of_clients_only_those_shown_are_read_whole(seeded_store):
    reader = Reader(seeded_store)
    with listening() as asked:
        reader.clients(limit=5, now=seeded.NOW)
    reader.close()

    wide = [one for one in asked if any(f" {table}" in one.statement for table in WIDE)]

    assert ["names.name IN (" in one.statement for one in wide] == [True]
