"""Either side killed at any moment, while backups run and reports flow: nothing is lost, doubled or half-written.

The director is the real program; the client is the real agent under a clock that runs twenty times as fast, so that
every backup is due every three seconds. Every kill is ``kill -9`` of that one process: what it started goes on, as when
the kernel needs memory.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest

from tests.e2e.fleet import Fleet, until

ROUNDS = 12
SPEED = 20
BACKUPS = ("photos", "system")


class KilledFleet(Fleet):
    """A fleet with one client, ``atlas``, and what has to hold of it at any moment."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, speed=SPEED)
        self.generation = 0

    def check_now(self) -> None:
        """Look at what may never be seen, not even in the moment after a kill."""
        for file, content in self.managed("atlas").items():
            assert content.startswith(b"# Managed by"), file
            assert content.endswith(b"\n"), file
        (generation,) = self.store("SELECT generation FROM issued WHERE client = 'atlas'")[0]
        assert generation >= self.generation
        self.generation = generation
        for path in (self.director_folder / "store.sqlite", self.folder / "atlas/var/outbox.sqlite"):
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as sql:
                assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[KilledFleet]:
    with KilledFleet(tmp_path) as fleet:
        fleet.start_director()
        fleet.add_machine("atlas", settings='stop_timeout = "5s"')
        fleet.enrol("atlas")
        fleet.approve_in_source("atlas")
        for backup in BACKUPS:
            fleet.write_backup(backup, "atlas", cron="* * * * *")
        fleet.push("Back it up")
        until("atlas follows", lambda: fleet.follows("atlas"))
        until("both have run", lambda: {one["backup"] for one in fleet.runs() if one["outcome"]} >= set(BACKUPS))
        yield fleet


def has_begun_since(fleet: Fleet, runs: int) -> bool:
    return len(fleet.recorded("atlas")) > runs


def settle(fleet: KilledFleet) -> None:
    """Both sides live: return when the director has all that the client ever said, and nothing is running."""
    before = len(fleet.runs(outcome="succeeded"))
    until("runs succeed again", lambda: len(fleet.runs(outcome="succeeded")) >= before + 3, seconds=60)
    assert fleet.stop("atlas") == 0
    assert fleet.outbox("atlas", "SELECT count(*) FROM reports") == [(0,)]
    assert fleet.outbox("atlas", "SELECT * FROM state WHERE key LIKE 'running.%'") == []


def check_runs(fleet: KilledFleet, *, kills: int) -> Counter[str]:
    """Compare what the client wrote down with what the director has; return how often each outcome came."""
    rows = fleet.store("SELECT id, backup, trigger, due, outcome, statistics FROM runs WHERE client = 'atlas'")
    stored = {row[0]: row for row in rows}
    recorded = fleet.recorded("atlas")

    assert [run for run in recorded if run not in stored] == [], "a run was lost"
    assert [run for run, row in stored.items() if row[4] is None] == [], "a run has no end"
    wrong = {run: (said, stored[run][4]) for run, said in recorded.items() if said not in {"started", stored[run][4]}}
    assert wrong == {}, "a run has another outcome than the client said"
    unfinished = [stored[run][4] for run, said in recorded.items() if said == "started"]
    assert set(unfinished) <= {"lost", "succeeded", "failed", "cancelled"}
    # Only the stop in good order at the end cancels, and then one run of each backup can be going on.
    assert unfinished.count("cancelled") <= len(BACKUPS)
    # A kill may come between the commit and the line in the record.
    assert len(set(stored) - set(recorded)) <= kills
    dues = Counter((row[1], row[3]) for row in rows if row[2] != "person")
    assert [due for due, count in dues.items() if count > 1] == [], "a due time was run twice"
    for backup in BACKUPS:
        made = {one["archive"] for row in rows if row[1] == backup for one in json.loads(row[5] or "[]")}
        assert made <= set(fleet.archives("atlas", backup)), "an archive that was reported is not there"
    return Counter(row[4] for row in rows)


def test_a_client_that_is_killed_again_and_again_loses_and_doubles_nothing(fleet, record_property):
    random = Random(20261123)
    for number in range(ROUNDS):
        started = len(fleet.recorded("atlas"))
        until("a run begins", partial(has_begun_since, fleet, started))
        time.sleep(random.uniform(0.0, 2.5))  # the moment is what is tried, not something that is waited for
        if number % 4 == 0:
            fleet.write_backup("photos", "atlas", cron="* * * * *", keep_daily=str(number + 1))
            fleet.push(f"Round {number}")
            time.sleep(random.uniform(0.0, 1.0))
        fleet.kill("atlas")
        fleet.check_now()
        fleet.start_client("atlas")

    settle(fleet)

    outcomes = check_runs(fleet, kills=ROUNDS)
    record_property("outcomes", dict(outcomes))
    failed = fleet.store("SELECT backup, error FROM runs WHERE outcome NOT IN ('succeeded', 'lost', 'cancelled')")
    assert failed == [], "what a kill left behind made a later run fail"
    assert outcomes["lost"] > 0
    assert b"keep_daily: 9" in fleet.managed("atlas")["photos.yaml"]


def test_a_director_that_is_killed_again_and_again_loses_and_doubles_nothing(fleet, record_property):
    random = Random(20261124)
    for number in range(ROUNDS):
        if number % 4 == 0:
            fleet.write_backup("photos", "atlas", cron="* * * * *", keep_daily=str(number + 1))
            fleet.push(f"Round {number}")
        time.sleep(random.uniform(0.0, 1.5))
        fleet.kill("director")
        fleet.check_now()
        fleet.start_director(wait=number % 2 == 0)

    until("the director answers", fleet.director_answers)
    until("atlas follows the newest", lambda: fleet.follows("atlas", revision=fleet.source.head()), seconds=60)
    settle(fleet)

    outcomes = check_runs(fleet, kills=0)
    record_property("outcomes", dict(outcomes))
    assert set(outcomes) <= {"succeeded", "cancelled"}
    assert b"keep_daily: 9" in fleet.managed("atlas")["photos.yaml"]
