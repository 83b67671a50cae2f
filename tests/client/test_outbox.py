"""Reports are kept until they are stored elsewhere, whatever happens to this process and this disk."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from client.outbox import MAX_BATCH, MAX_ITEM, MAX_WAITING, Database, Outbox, entries, read_state
from schema.errors import TransientError
from schema.observed import (
    Archive,
    ArchivesSeen,
    ClientEvent,
    Drift,
    DriftKind,
    LogLine,
    Outcome,
    RunFinished,
    RunLog,
    RunStarted,
    StateReport,
    Trigger,
)
from schema.wire import MAX_CLIENT_FRAME, encode

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
RUN = "a" * 32
ROOT = Path(__file__).parent.parent.parent


def event(text: str = "hello") -> ClientEvent:
    return ClientEvent(at=NOW, reason="Applied", message=text)


def logs(count: int = 10, *, first: int = 0, text: str = "a line", run: str = RUN) -> RunLog:
    lines = tuple(LogLine(at=NOW, level="info", message=text) for _ in range(count))
    return RunLog(run=run, first=first, lines=lines)


def finished(run: str = RUN) -> RunFinished:
    return RunFinished(at=NOW, run=run, backup="web", outcome=Outcome.SUCCEEDED)


def archives(count: int = 1, *, repository: str = "nas") -> ArchivesSeen:
    seen = tuple(Archive(id=f"{number:08x}", name=f"web-{number}", start=NOW) for number in range(count))
    return ArchivesSeen(
        at=NOW, backup="web", repository=repository, url="/nas", available=True, archives=seen, count=count
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.sqlite"


@pytest.fixture
def outbox(path):
    box = Outbox(path, now=lambda: NOW)
    yield box
    box.close()


async def bodies(outbox: Outbox) -> list[dict]:
    batch = await outbox.batch()
    return [item.report for item in batch.items] if batch else []


async def test_reports_come_out_in_order_and_numbered(outbox):
    await outbox.append(event("one"))
    await outbox.append(event("two"), event("three"))

    batch = await outbox.batch()

    assert [(item.sequence, item.report["message"]) for item in batch.items] == [(1, "one"), (2, "two"), (3, "three")]


async def test_an_acknowledged_report_is_gone_and_its_number_is_never_used_again(outbox, path):
    await outbox.append(event("one"))
    batch = await outbox.batch()
    await outbox.acknowledge(batch.epoch, 1)
    assert await outbox.batch() is None

    await outbox.append(event("two"))

    assert [item.sequence for item in (await outbox.batch()).items] == [2]


async def test_what_was_never_sent_cannot_be_acknowledged(outbox):
    await outbox.append(event("one"))
    assert not outbox.was_sent(outbox.epoch, 1)
    await outbox.acknowledge(outbox.epoch, 1)
    await outbox.batch(items=1)
    await outbox.append(event("two"))

    await outbox.acknowledge(outbox.epoch, 2)
    await outbox.acknowledge("0" * 32, 1)

    assert [body["message"] for body in await bodies(outbox)] == ["one", "two"]


async def test_an_outbox_with_a_new_name_sends_again_what_waits_and_keeps_its_name(outbox, path):
    await outbox.append(event("one"), event("two"))
    before = await outbox.batch()
    await outbox.acknowledge(before.epoch, 1)

    await outbox.rename()

    assert not outbox.was_sent(outbox.epoch, 2)
    batch = await outbox.batch()
    assert batch.epoch == outbox.epoch != before.epoch
    assert [item.sequence for item in batch.items] == [2]
    outbox.close()
    again = Outbox(path, now=lambda: NOW)
    assert again.epoch == batch.epoch
    again.close()


async def test_reports_and_the_epoch_survive_a_restart(path):
    first = Outbox(path, now=lambda: NOW)
    await first.append(event("one"), notes={"last-run.web": "x"})
    first.close()

    second = Outbox(path, now=lambda: NOW)

    assert second.epoch == first.epoch
    assert [body["message"] for body in await bodies(second)] == ["one"]
    assert await second.state("last-run.") == {"last-run.web": "x"}
    second.close()


async def test_notes_are_written_with_their_report_and_removed_by_none(outbox, path):
    await outbox.append(
        RunStarted(at=NOW, run=RUN, backup="web", trigger=Trigger.PERSON), notes={f"running.{RUN}": "web"}
    )
    assert read_state(path, "running.") == {f"running.{RUN}": "web"}

    await outbox.append(finished(), notes={f"running.{RUN}": None, "last-run.web": "then"})

    assert await outbox.state() == {"last-run.web": "then"}


async def test_only_the_newest_state_report_is_kept(outbox):
    await outbox.append(StateReport(at=NOW, revision="old"))
    await outbox.append(event())
    await outbox.append(StateReport(at=NOW, revision="new"))

    assert [body.get("revision") for body in await bodies(outbox)] == [None, "new"]


async def test_a_full_outbox_drops_the_oldest_logs_and_counts_them_and_never_drops_runs_and_archives(path):
    outbox = Outbox(path, now=lambda: NOW, max_bytes=40_000)
    for number in range(60):
        run = f"{number:032x}"
        await outbox.append(logs(10, text=f"line of {number}", run=run))
        await outbox.append(finished(run))
    await outbox.append(archives())

    kept = await bodies(outbox)

    assert [body["run"] for body in kept if body["type"] == "run-finished"] == [f"{n:032x}" for n in range(60)]
    assert len([body for body in kept if body["type"] == "archives"]) == 1
    remaining = [body for body in kept if body["type"] == "run-log"]
    assert await outbox.dropped() == 600 - 10 * len(remaining) > 0
    assert remaining[-1]["run"] == f"{59:032x}"
    assert size_of(outbox) <= 40_000
    outbox.close()


async def test_a_full_outbox_keeps_the_newest_inventory_of_each_repository(path):
    outbox = Outbox(path, now=lambda: NOW, max_bytes=30_000)
    for count in range(1, 60):
        await outbox.append(archives(count))
    await outbox.append(archives(1, repository="offsite"))

    kept = await bodies(outbox)

    assert (kept[-2]["repository"], kept[-2]["count"]) == ("nas", 59)
    assert kept[-1]["repository"] == "offsite"
    assert size_of(outbox) <= 30_000
    outbox.close()


async def test_logs_are_dropped_while_the_disk_is_nearly_full_and_runs_are_not(path):
    outbox = Outbox(path, now=lambda: NOW, disk_reserve=2**62)

    await outbox.append(logs(7), finished())

    assert [body["type"] for body in await bodies(outbox)] == ["run-finished"]
    assert await outbox.dropped() == 7
    outbox.close()


async def test_a_full_disk_is_said_and_what_waits_in_memory_is_written_later(path):
    outbox = Outbox(path, now=lambda: NOW)
    await fill(outbox)

    with pytest.raises(TransientError, match="full"):
        await outbox.append(event("x" * 8000), notes={"last-run.web": "then"})
    with pytest.raises(TransientError, match="full"):
        await outbox.append(event("second" * 1000))
    sql_of(outbox).execute("PRAGMA max_page_count = 1000000")
    await outbox.append(event("third"))

    assert [body["message"][:6] for body in await bodies(outbox)] == ["xxxxxx", "second", "third"]
    assert await outbox.state() == {"last-run.web": "then"}
    outbox.close()


async def test_memory_is_bounded_while_the_disk_is_full_and_logs_go_first(path):
    outbox = Outbox(path, now=lambda: NOW)
    await fill(outbox)
    for _ in range(10):
        with pytest.raises(TransientError):
            await outbox.append(logs(3, text="l" * 4000))
    outbox._waiting.extend([(entries(event("e" * 4000)), {})] * MAX_WAITING)

    with pytest.raises(TransientError):
        await outbox.append(finished(), notes={"last-run.web": "then"})

    assert len(outbox._waiting) == MAX_WAITING
    assert outbox._waiting[-1][1] == {"last-run.web": "then"}
    assert not any(entry.type == "run-log" for batch, _ in outbox._waiting for entry in batch)
    outbox.close()


def sql_of(outbox: Outbox) -> sqlite3.Connection:
    assert outbox._database is not None
    return outbox._database._sql


def size_of(outbox: Outbox) -> int:
    assert outbox._database is not None
    assert outbox._database.size == outbox._database._total("1")
    return outbox._database.size


async def fill(outbox: Outbox) -> None:
    """Let SQLite itself say that there is no room for another page."""
    pages = sql_of(outbox).execute("PRAGMA page_count").fetchone()[0]
    sql_of(outbox).execute(f"PRAGMA max_page_count = {pages}")


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 500, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_corrupt_database_is_set_aside_and_a_new_epoch_begins(path, damage):
    first = Outbox(path, now=lambda: NOW)
    await first.append(event())
    first.close()
    path.write_bytes(damage)

    second = Outbox(path, now=lambda: NOW)

    assert second.epoch != first.epoch
    await second.append(event("anew"))
    assert [body["message"] for body in await bodies(second)] == ["anew"]
    aside = list(path.parent.glob("outbox.sqlite.corrupt-*"))
    assert [one.read_bytes() for one in aside] == ([damage] if damage else [])
    second.close()


async def test_a_database_that_rots_while_it_is_open_is_set_aside_too(path):
    outbox = Outbox(path, now=lambda: NOW)
    await outbox.append(*[event("x" * 3000) for _ in range(50)])
    sql_of(outbox).execute("PRAGMA wal_checkpoint(TRUNCATE)")
    epoch = outbox.epoch
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 40_000)
    sql_of(outbox).execute("PRAGMA cache_size = 0")
    sql_of(outbox).execute("PRAGMA shrink_memory")

    for _ in range(3):
        await outbox.append(event("still here"))
        await outbox.batch()

    assert outbox.epoch != epoch
    assert "still here" in [body["message"] for body in await bodies(outbox)]
    assert not outbox.was_sent(epoch, 1)
    outbox.close()


async def test_a_batch_fits_into_a_frame(outbox):
    await outbox.append(*[logs(400, first=400 * number, text="ä" * 700) for number in range(5)])

    total = 0
    while batch := await outbox.batch():
        assert len(encode(batch).encode()) < MAX_CLIENT_FRAME
        total += sum(len(item.report["lines"]) for item in batch.items)
        await outbox.acknowledge(batch.epoch, batch.items[-1].sequence)

    assert total == 2000
    assert MAX_ITEM < MAX_BATCH < MAX_CLIENT_FRAME


def test_oversized_log_reports_are_split_and_their_lines_keep_their_numbers():
    parts = [json.loads(entry.body) for entry in entries(logs(500, first=100, text="\0" * 8000))]

    assert all(len(entry.body) <= MAX_ITEM for entry in entries(logs(500, first=100, text="\0" * 8000)))
    assert [part["first"] for part in parts] == sorted(part["first"] for part in parts)
    assert sum(len(part["lines"]) for part in parts) == 500
    assert parts[0]["first"] == 100
    assert parts[1]["first"] == 100 + len(parts[0]["lines"])


def test_oversized_inventories_and_states_are_shortened():
    long = tuple(Archive(id="ab" * 64, name="n" * 1024, start=NOW) for _ in range(2000))
    drift = Drift(kind=DriftKind.CHANGED, subject="x", message="m", diff="d" * 16_000, detected=NOW)

    (inventory,) = entries(archives().model_copy(update={"archives": long, "count": 2000}))
    (state,) = entries(StateReport(at=NOW, drift=(drift,) * 500))

    assert len(inventory.body) <= MAX_ITEM
    assert json.loads(inventory.body)["count"] == 2000
    assert len(state.body) <= MAX_ITEM
    assert len(json.loads(state.body)["drift"]) == 500


async def test_the_file_is_readable_by_its_owner_only(outbox, path):
    await outbox.append(event())

    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}


async def test_many_appends_at_once_share_transactions_and_all_arrive(outbox):
    await asyncio.gather(*[outbox.append(event(str(number))) for number in range(500)])

    seen = []
    while batch := await outbox.batch():
        seen += [item.report["message"] for item in batch.items]
        await outbox.acknowledge(batch.epoch, batch.items[-1].sequence)
    assert sorted(seen, key=int) == [str(number) for number in range(500)]


async def test_a_cancelled_append_is_written_once(outbox):
    tasks = [asyncio.ensure_future(outbox.append(event(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await outbox.append(event("20"))

    written = [body["message"] for body in await bodies(outbox)]

    assert len(written) == len(set(written))
    assert written[-1] == "20"


WRITER = """
import asyncio, sys
from pathlib import Path
from tests.client.test_outbox import NOW, event
from client.outbox import Outbox

async def main():
    outbox = Outbox(Path(sys.argv[1]), now=lambda: NOW)
    number = len(await outbox.state("n."))
    while True:
        await outbox.append(event(str(number)), notes={f"n.{number}": "there"})
        print(number, flush=True)
        number += 1

asyncio.run(main())
"""


async def test_nothing_that_was_appended_is_lost_when_the_process_is_killed(path):
    said = -1
    for _ in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert writer.stdout is not None
        for _ in range(25):
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        said = max([said, *map(int, rest.split())])

        database = Database(path)
        stored = [json.loads(body)["message"] for _, body in database.batch(0, items=10_000, limit=10**9)]
        assert stored == [str(number) for number in range(len(stored))]
        assert len(stored) in {said + 1, said + 2}
        assert len(database.state("n.")) == len(stored)
        database.close()


def test_a_reader_of_another_process_sees_notes_and_nothing_when_there_is_no_outbox(path):
    assert read_state(path) == {}
    path.write_bytes(b"rubbish" * 100)

    assert read_state(path) == {}
    with pytest.raises(sqlite3.DatabaseError):
        Database(path)
