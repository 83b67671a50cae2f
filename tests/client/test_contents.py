"""Listing the newest archives: what is asked of borgmatic, when, and how a run that comes due gets its way."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client.contents import EVERY, FORBIDDEN, Contents, Listings
from client.outbox import Outbox
from client.runs import Recorder
from client.turns import Turns
from schema.observed import Archive, ArchiveContents, ArchivesSeen
from tests.client import machine
from tests.client.test_runner import is_running
from tests.client.virtual_clock import VirtualClock

if TYPE_CHECKING:
    from datetime import datetime

    from schema.desired import Job

NOW = machine.NOW
JOBS = {"web": machine.job()}


def archive(number: int = 1) -> Archive:
    return Archive(id=f"{number:064x}", name=f"web-1.web.{number}", start=NOW - timedelta(hours=1))


def listings(base: Path, program: str, **options: Any) -> Listings:
    (base / "home").mkdir(exist_ok=True)
    return Listings(
        program=machine.program(program) if "/" not in program else program,
        config_directory=base / "etc",
        state_directory=base / "var",
        turns=Turns(state_directory=base / "var", clock=VirtualClock()),
        environment={"HOME": str(base / "home"), "PATH": os.environ["PATH"]},
        **{"allowed": True, **options},
    )


def stand_in(base: Path, script: str) -> str:
    path = base / "borgmatic"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


# --- Asking borgmatic -------------------------------------------------------------------------------------------------


async def test_what_borgmatic_lists_is_told_in_short(tmp_path):
    lines = [
        json.dumps({"type": "-", "path": f"etc/{name}", "size": 5, "mtime": "2026-11-01T00:00:00"}) for name in "ab"
    ]
    one = listings(tmp_path, "answers")
    (tmp_path / "home/answer").write_text("\n".join(["nas: Listing archive x", *lines, ""]))

    told = await one.contents(machine.job(), "nas", archive(), NOW)

    assert told.listed
    assert (told.backup, told.repository, told.archive, told.message) == ("web", "nas", archive(), "")
    assert (told.files, told.size) == (2, 10)
    assert [(row.path, row.files, row.size) for row in told.directories] == [("etc", 2, 10)]
    assert told.oldest == told.newest
    assert f"{told.oldest:%Y-%m-%dT%H:%M%z}" == "2026-11-01T00:00+0000"


async def test_borgmatic_runs_with_the_lowest_priority_and_takes_no_lock_that_another_machine_would_wait_for(tmp_path):
    script = 'echo "$@" > "$HOME/called"\nuntil [ "$(nice)" = 19 ]; do :; done'

    told = await listings(tmp_path, stand_in(tmp_path, script)).contents(machine.job(), "nas", archive(), NOW)

    assert told.listed
    called = (tmp_path / "home/called").read_text().split()
    assert called[:4] == ["--config", str(tmp_path / "etc/web.yaml"), "--verbosity", "0"]
    assert "--extra-borg-options.list=--bypass-lock" in called
    assert called[-5:] == ["list", "--json", "--repository", "nas", "--archive=web-1.web.1"]


async def test_an_archive_with_the_name_of_an_option_stays_one_argument(tmp_path):
    strange = Archive(id="ab" * 32, name="--help; id", start=NOW)
    script = 'for last; do :; done; echo "$last" > "$HOME/called"'

    await listings(tmp_path, stand_in(tmp_path, script)).contents(machine.job(), "nas", strange, NOW)

    assert (tmp_path / "home/called").read_text() == "--archive=--help; id\n"


async def test_where_local_policy_forbids_it_nothing_is_asked(tmp_path):
    told = await listings(tmp_path, "is-not-here", allowed=False).contents(machine.job(), "nas", archive(), NOW)

    assert not told.listed
    assert told.message == FORBIDDEN
    assert (told.files, told.directories, told.largest) == (0, (), ())


@pytest.mark.parametrize(
    "program, message", [("is-not-here", "cannot start"), ("dies", "killed by signal 9"), ("fails", "")]
)
async def test_a_borgmatic_that_cannot_list_says_why(tmp_path, program, message):
    told = await listings(tmp_path, program).contents(machine.job(), "nas", archive(), NOW)

    assert not told.listed
    assert told.message
    assert message in told.message
    assert told.directories == ()


async def test_a_list_that_takes_too_long_is_ended_and_half_of_it_is_not_told(tmp_path):
    script = 'echo \'{"type": "-", "path": "etc/a", "size": 5}\'; sleep 600 & echo $! > "$HOME/pid"; wait'

    told = await listings(tmp_path, stand_in(tmp_path, script), seconds=0.2).contents(
        machine.job(), "nas", archive(), NOW
    )

    assert not told.listed
    assert "was not listed to its end within" in told.message
    assert told.files == 0


async def test_cancelled_it_ends_everything_it_started(tmp_path):
    one = listings(tmp_path, "hangs")
    task = asyncio.create_task(one.contents(machine.job(), "nas", archive(), NOW))
    pids = tmp_path / "home/pids"
    while not pids.exists():
        await asyncio.sleep(0.01)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert [is_running(pid) for pid in map(int, pids.read_text().split())] == [False, False]


# --- When -------------------------------------------------------------------------------------------------------------


class Looks:
    """Looks into archives as the real ``Listings`` does, as far as ``Contents`` can tell."""

    def __init__(self) -> None:
        self.archives: list[str] = []
        self.hang = False
        self.began = asyncio.Event()

    async def __call__(self, job: Job, repository: str, archive: Archive, now: datetime) -> ArchiveContents:
        self.archives.append(archive.name)
        self.began.set()
        if self.hang:
            await asyncio.Event().wait()
        return ArchiveContents(at=now, backup=job.backup, repository=repository, archive=archive, listed=True)


class Bench:
    """A ``Contents`` with a real outbox."""

    def __init__(self, base: Path) -> None:
        self.clock = VirtualClock()
        self.path = base / "outbox.db"
        self.looks = Looks()
        self.outbox = Outbox(self.path, now=self.clock.now)
        self.contents = self.begin()

    def begin(self) -> Contents:
        return Contents(self.looks, recorder=Recorder(self.outbox), clock=self.clock)

    def saw(self, *numbers: int, available: bool = True) -> None:
        seen = ArchivesSeen(
            at=self.clock.now(),
            backup="web",
            repository="nas",
            url="/mnt/nas/web",
            available=available,
            archives=tuple(archive(number) for number in numbers),
        )
        self.contents.saw(JOBS["web"], [seen])

    async def go(self, *, jobs: dict[str, Job] | None = None, may_go_on: bool = True) -> list[str]:
        await self.contents.list_wanted(jobs=JOBS if jobs is None else jobs, may_go_on=lambda: may_go_on)
        return self.looks.archives

    async def reported(self) -> list[str]:
        batch = await self.outbox.batch()
        return [str(item.report["archive"]["name"]) for item in batch.items] if batch else []  # type: ignore[index,call-overload]


@pytest.fixture
async def bench(tmp_path):
    one = Bench(tmp_path)
    yield one
    one.outbox.close()


async def test_the_newest_archive_is_listed_once_and_reported(bench):
    for _ in range(3):
        bench.saw(2, 1)
        await bench.go()

    assert bench.looks.archives == ["web-1.web.2"]
    assert await bench.reported() == ["web-1.web.2"]


async def test_a_place_is_listed_at_most_about_once_a_day_and_then_its_newest(bench):
    for number in range(1, 30):
        bench.saw(number)
        await bench.go()
        bench.clock.jump(3600)

    assert bench.looks.archives == ["web-1.web.1", f"web-1.web.{EVERY.seconds // 3600 + 1}"]


async def test_a_new_process_remembers_when_it_was(bench):
    bench.saw(1)
    await bench.go()

    bench.contents = bench.begin()
    bench.contents.remember(await bench.outbox.state() | {"contents.x/y": "nonsense", "handled.web": "later"})
    bench.saw(2)
    assert await bench.go() == ["web-1.web.1"]
    bench.clock.jump(EVERY.total_seconds())
    assert await bench.go() == ["web-1.web.1", "web-1.web.2"]


async def test_a_note_from_the_future_holds_nothing_up(bench):
    bench.contents.remember({"contents.web/nas": f"{(NOW + timedelta(days=400)).isoformat()} {archive(1).id}"})
    bench.saw(2)

    assert await bench.go() == ["web-1.web.2"]


async def test_a_director_that_lost_everything_is_told_again(bench):
    bench.saw(1)
    await bench.go()
    bench.contents.forget()
    bench.saw(1)

    assert await bench.go() == ["web-1.web.1", "web-1.web.1"]


@pytest.mark.parametrize("available, numbers", [(False, (1,)), (True, ())])
async def test_where_there_is_nothing_to_list_nothing_is_listed(bench, available, numbers):
    bench.saw(*numbers, available=available)

    assert await bench.go() == []


async def test_an_archive_that_went_before_its_turn_is_not_listed(bench):
    bench.saw(1)
    bench.saw()

    assert await bench.go() == []


async def test_of_a_backup_that_is_another_one_now_nothing_is_listed(bench):
    for jobs in ({}, {"web": machine.job(url="/elsewhere")}):
        bench.saw(1)
        assert await bench.go(jobs=jobs) == []

    assert await bench.go() == []


async def test_beside_a_run_nothing_is_listed_and_afterwards_it_is(bench):
    bench.saw(1)

    assert await bench.go(may_go_on=False) == []
    assert await bench.go() == ["web-1.web.1"]


async def test_a_run_that_comes_due_ends_it_and_it_is_tried_again(bench):
    bench.looks.hang = True
    bench.saw(1)
    task = asyncio.create_task(bench.go())
    await bench.looks.began.wait()

    bench.contents.interrupt()
    await task
    assert await bench.reported() == []

    bench.looks.hang = False
    assert await bench.go() == ["web-1.web.1", "web-1.web.1"]
    assert await bench.reported() == ["web-1.web.1"]
    bench.contents.interrupt()  # nothing goes on


async def test_a_stop_ends_it_as_well(bench):
    bench.looks.hang = True
    bench.saw(1)
    task = asyncio.create_task(bench.go())
    await bench.looks.began.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await bench.reported() == []
