"""/metrics: what it says of a store, how much it says, and what it never says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from reconciler.metrics import Metrics, metrics_text
from schema.status import Following
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly.metrics import FAMILIES, PREFIX, StoreMetrics, exposition, labelled
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "monitor.md"
FAILURES = {"client": "web-3", "backup": "web"}


@pytest.fixture
def reader(store: Path) -> Iterator[Reader]:
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        kept = """{"keep_daily": 7, "keep_weekly": 4}"""
        connection.execute("REPLACE INTO definitions (backup, retention, options) VALUES ('system', ?, '[]')", [kept])
    opened = Reader(store)
    yield opened
    opened.close()


def read(text: bytes) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Return metric → labels → value; a second sample with the same labels is an error."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            labels = frozenset(sample.labels.items())
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


class Told:
    """What one exposition says."""

    def __init__(self, text: bytes) -> None:
        self.metrics = read(text)

    def __call__(self, name: str, **labels: str) -> float | None:
        return self.metrics.get(PREFIX + name, {}).get(frozenset(labels.items()))


def told(reader: Reader, *, limit: int = 10_000) -> Told:
    return Told(exposition(reader.numbers(limit=limit, now=seeded.NOW)))


def stamp(moment: datetime) -> float:
    return moment.timestamp()


# --- What it says -----------------------------------------------------------------------------------------------------


def test_every_metric_of_the_table_is_told_of_an_ordinary_store(reader):
    assert set(told(reader).metrics) == {PREFIX + family.name for family in FAMILIES}


def test_the_labels_are_those_that_the_table_names(reader):
    metrics = told(reader).metrics

    for family in FAMILIES:
        for labels in metrics[PREFIX + family.name]:
            assert {name for name, _ in labels} == set(family.labels), family.name


def test_the_source_is_told(reader):
    tell = told(reader)

    assert (tell("source_held"), tell("source_stalled"), tell("source_suspended")) == (1, 1, 0)
    assert tell("source_problems", severity="warning") == 1


def test_an_overdue_backup_is_told_with_its_objective_and_its_last_run(reader):
    tell = told(reader)

    assert tell("backup_overdue", **FAILURES) == 1
    assert tell("backup_state", **FAILURES, state="unprotected") == 1
    assert tell("backup_state", **FAILURES, state="protected") is None
    assert tell("backup_objective_seconds", **FAILURES) == 26 * 3600
    assert tell("backup_last_run_outcome", **FAILURES, outcome="failed") == 1
    assert (tell("backup_last_run_duration_seconds", **FAILURES) or 0) > 0
    assert 0 < (tell("backup_last_success_timestamp_seconds", **FAILURES) or 0) < stamp(seeded.NOW - 2 * seeded.DAY)


@pytest.mark.parametrize(
    ("kept", "number"),
    [
        ('{"keep_daily": 7, "keep_weekly": 4}', 11),
        ("{}", None),
        ('{"keep_within": "3m"}', None),
        ('{"keep_daily": -1}', None),
    ],
)
def test_what_retention_keeps_is_told_where_it_is_a_number(store, kept, number):
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("REPLACE INTO definitions (backup, retention, options) VALUES ('web', ?, '[]')", [kept])
    with contextlib.closing(Reader(store)) as opened:
        assert told(opened)("backup_retention_archives", **FAILURES) == number


def test_the_counts_agree_with_the_overview(reader):
    tell, overview = told(reader), reader.overview(now=seeded.NOW)

    assert tell("backups", state="unprotected") == overview.unprotected
    assert tell("backups", state="protected") == overview.protected
    assert tell("clients_connected") == overview.connected
    assert {one: tell("clients", following=one.value) for one in Following} == {
        one: overview.following.get(one.value, 0) for one in Following
    }


def test_one_by_one_it_says_what_the_pages_say(reader):
    tell = told(reader)

    for one in reader.backups(limit=500, now=seeded.NOW).items:
        name = {"client": one.client, "backup": one.backup}
        protected = one.conditions[0].status
        assert tell("backup_overdue", **name) == (None if one.rpo is None else int(protected == "False")), name
        assert tell("backup_running", **name) == int(bool(one.running))
        assert tell("backup_last_run_timestamp_seconds", **name) == (
            stamp(one.last_run.finished) if one.last_run and one.last_run.finished else None
        )
        for each in one.evidence:
            assert tell("repository_archives", **name, repository=each.repository) == each.archives
            assert tell("archive_original_bytes", **name, repository=each.repository) == (each.original_size or None)
    for client in reader.clients(limit=500, now=seeded.NOW).items:
        assert tell("client_connected", client=client.name) == int(client.connected)
        assert tell("client_following", client=client.name, following=client.following.value) == 1
        assert tell("client_drift", client=client.name) == sum(not one.healed for one in client.drift)


def test_names_follow_the_rules_of_prometheus():
    for family in FAMILIES:
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z]", family.name)
        # Only counters end so, and all of these are gauges.
        assert not family.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert ("timestamp" in family.name) <= family.name.endswith("_timestamp_seconds")
        assert not re.search(r"_(ms|minutes|hours|kb|mb|size|duration)$", family.name)
        assert family.help == family.help.strip()
        assert "\n" not in family.help
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)


# --- How much it says -------------------------------------------------------------------------------------------------


def test_beyond_the_limit_backups_and_clients_are_only_counted(reader):
    tell, whole = told(reader, limit=5), told(reader)

    assert len(tell.metrics[PREFIX + "backup_running"]) == len(tell.metrics[PREFIX + "client_connected"]) == 5
    assert {dict(labels)["client"] for labels in tell.metrics[PREFIX + "repository_archives"]} == {
        dict(labels)["client"] for labels in tell.metrics[PREFIX + "backup_running"]
    }
    assert tell("backups_left_out") == 33
    assert tell("clients_left_out") == 15
    assert tell.metrics[PREFIX + "backups"] == whole.metrics[PREFIX + "backups"]
    assert (whole("backups_left_out"), whole("clients_left_out")) == (0, 0)


def test_a_limit_of_nothing_leaves_the_counts(reader):
    tell = told(reader, limit=0)

    assert PREFIX + "backup_running" not in tell.metrics
    assert tell("backups_left_out") == 38


async def test_who_asks_in_the_same_moment_costs_one_reading(reader):
    asked = []

    def now() -> datetime:
        asked.append(1)
        return seeded.NOW

    metrics = StoreMetrics(reader, now=now)
    first, second = await asyncio.gather(metrics.text(), metrics.text())

    assert first == second
    assert len(asked) == 1


# --- What it never says -----------------------------------------------------------------------------------------------


def test_no_secret_url_address_or_key_is_told(reader):
    text = exposition(reader.numbers(limit=10_000, now=seeded.NOW)).decode()

    for secret in (seeded.CANARY, "://", "vault.example", "10.20.0.", "203.0.113.9", "SHA256:", "bd1-", "sha256:"):
        assert secret not in text, secret


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_name_is_read_back_as_it_was(name):
    (family,) = text_string_to_metric_families(f"# TYPE x gauge\nx{{{labelled(name=name)}}} 1\n".replace("\r", ""))

    assert family.samples[0].labels == {"name": name.replace("\r", "")}


# --- Where it is served -----------------------------------------------------------------------------------------------


async def test_the_dashboard_serves_the_stores_numbers(store):
    async with visiting(store) as client:
        response = await client.get("/metrics", headers={"Accept-Encoding": "identity"})

        assert response.status == 200
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert Told(await response.read())("store_readable") == 1


async def test_a_director_adds_its_own_and_no_metric_stands_twice(reader, store):
    own = Metrics()
    metrics = StoreMetrics(reader, now=lambda: seeded.NOW, own=lambda: metrics_text(own))
    async with visiting(store, metrics=metrics) as client:
        text = await (await client.get("/metrics")).read()

    names = re.findall(rb"^# TYPE (\S+)", text, re.MULTILINE)
    assert b"borgmatic_director_connections" in names
    assert len(names) == len(set(names))
    assert Told(text)("lockouts_total") == 0


async def test_without_a_store_the_directors_own_numbers_remain(tmp_path):
    reader = Reader(tmp_path / "none.db")
    metrics = StoreMetrics(reader, now=lambda: seeded.NOW, own=lambda: metrics_text(Metrics()))

    tell = Told(await metrics.text())
    assert (tell("store_readable"), tell("lockouts_total")) == (0, 0)
    assert tell("backups", state="unprotected") is None


def test_the_documentation_lists_every_metric_with_its_labels():
    listed = dict(re.findall(rf"^\| `{PREFIX}(\S+?)` \| ([^|]*?) *\|", PAGE.read_text(), re.MULTILINE))
    own = {
        family.name.removeprefix(PREFIX) + ("_total" if family.type == "counter" else "")
        for family in Metrics().registry.collect()
    }

    wanted = {family.name: ", ".join(f"`{name}`" for name in family.labels) for family in FAMILIES}
    assert {name: labels for name, labels in listed.items() if name not in own} == wanted
    assert own <= set(listed)


def test_times_are_seconds_since_1970(reader):
    assert told(reader)("source_published_timestamp_seconds") == stamp(seeded.NOW - 2 * seeded.DAY)
