from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.benchmarks import seed
from tests.benchmarks.fleet import Fleet
from tests.benchmarks.visits import one_of_each, plan, read_names
from web_readonly.reader import Reader
from web_readonly.views import VIEWS

MOMENT = datetime(2026, 11, 23, 12, tzinfo=UTC)
FLEET = Fleet(moment=MOMENT, clients=150, runs=1_800)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fleet") / "store.sqlite"
    seed.write(path, FLEET)
    return path


def count(store: Path, table: str) -> int:
    connection = sqlite3.connect(store)
    number: int = connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    connection.close()
    return number


def test_a_seeded_store_has_the_size_that_was_asked_for(store):
    assert [count(store, table) for table in ("clients", "backups", "runs")] == [150, 600, 1_800]


def test_a_seeded_store_is_one_that_the_reader_understands(store):
    reader = Reader(store)
    overview = reader.overview(now=MOMENT)
    reader.close()

    assert (overview.clients, overview.backups, overview.running) == (150, 600, 6)
    assert 0 < overview.unprotected < 20
    assert overview.protected > 550


def test_the_same_seed_gives_the_same_runs():
    again = Fleet(moment=MOMENT, clients=150, runs=1_800)
    other = Fleet(moment=MOMENT, clients=150, runs=1_800, seed=2)

    assert list(FLEET.nightly()) == list(again.nightly())
    assert list(FLEET.nightly()) != list(other.nightly())


def test_every_page_and_its_json_is_visited(store):
    visited = {visit.view for visit in one_of_each(read_names(store))}

    assert visited == {view.path for view in VIEWS if view.template} | {view.api_path for view in VIEWS if view.api}


def test_the_same_plan_is_visited_each_time(store):
    names = read_names(store)

    assert plan(names, number=200) == plan(names, number=200)
