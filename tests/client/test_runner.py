"""Running borgmatic: programs that hang, die, babble and fail end as reports, and leave nothing running."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from client import borgmatic, telling
from client.clock import SystemClock
from client.runner import Runner
from client.telling import BATCH_LINES
from client.turns import Turns
from schema.desired import DesiredRepository, Job
from schema.observed import Outcome, Report, RunFinished, RunLog, RunProgress, RunStarted, Trigger
from tests.client import machine

RUN = "0123456789abcdef" * 2


class Machine:
    """A runner on a machine under ``base``, and what it reported."""

    def __init__(self, base: Path, program: str, *, grace: float = 5.0) -> None:
        self.base = base
        for folder in ("home", "etc", "var"):
            (base / folder).mkdir(exist_ok=True)
        self.home = base / "home"
        self.reports: list[Report] = []
        self.progress: list[RunProgress] = []
        self.heard = asyncio.Event()
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "BORG_PASSPHRASE": "inherited-secret"}
        clock = SystemClock()
        self.runner = Runner(
            program=machine.program(program),
            config_directory=base / "etc",
            state_directory=base / "var",
            clock=clock,
            turns=Turns(state_directory=base / "var", clock=clock),
            environment=environment,
            grace=grace,
        )

    async def run(
        self, job: Job | None = None, run_id: str = RUN, *, newest: Callable[[], Job | None] | None = None
    ) -> RunFinished:
        job = job or machine.job(url="ssh://borg@nas/./web")
        return await self.runner.run(
            job,
            run_id=run_id,
            trigger=Trigger.PERSON,
            due=None,
            revision="one",
            emit=self._emit,
            progress=self._show,
            newest=newest or (lambda: job),
        )

    async def _emit(self, report: Report) -> None:
        self.reports.append(report)
        self.heard.set()

    def _show(self, progress: RunProgress) -> None:
        self.progress.append(progress)
        self.heard.set()

    async def processes(self) -> list[int]:
        """Return the numbers of the program and its child, once it runs."""
        while not (self.home / "pids").exists():
            await asyncio.sleep(0.01)
        return [int(number) for number in (self.home / "pids").read_text().split()]

    def lines(self) -> list[str]:
        return [line.message for report in self.reports if isinstance(report, RunLog) for line in report.lines]


def is_running(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# --- What changed while it waited ---


async def test_a_backup_that_changed_while_it_waited_runs_as_the_newest_state_says(tmp_path):
    on = Machine(tmp_path, "tells-its-arguments")
    old = machine.job(url="ssh://borg@nas/./web")
    new = old.model_copy(update={"actions": ("create",)})

    finished = await on.run(old, newest=lambda: new)

    assert finished.outcome is Outcome.SUCCEEDED
    assert [line.partition(" create")[2] for line in on.lines()] == [" --json --progress"]


async def test_a_backup_whose_repository_changed_while_it_waited_waits_for_that_one(tmp_path):
    on = Machine(tmp_path, "accepts")
    old, new = machine.job(url="ssh://borg@nas/./web"), machine.job(url="ssh://borg@other/./web")
    async with on.runner._turns.hold([new.repositories[0].url], waiting=lambda _: None):
        running = asyncio.create_task(on.run(old, newest=lambda: new))
        while not any("waiting" in one.phase for one in on.progress):
            await asyncio.sleep(0)
        assert not running.done()

    assert (await running).outcome is Outcome.SUCCEEDED


async def test_a_backup_that_was_suspended_while_it_waited_does_not_run(tmp_path):
    on = Machine(tmp_path, "tells-its-arguments")

    finished = await on.run(newest=lambda: None)

    assert finished.outcome is Outcome.CANCELLED
    assert on.lines() == ["the backup is suspended or gone since, and does not run"]


# --- The usual --------------------------------------------------------------------------------------------------------


async def test_a_run_starts_and_ends_with_its_reports(tmp_path):
    on = Machine(tmp_path, "accepts")

    finished = await on.run()

    assert finished.outcome is Outcome.SUCCEEDED
    assert finished.exit_code == 0
    assert [type(report) for report in on.reports] == [RunStarted, RunFinished]
    assert on.reports[-1] == finished


async def test_a_warning_makes_the_run_warned_and_keeps_its_statistics(tmp_path):
    on = Machine(tmp_path, "warns")

    finished = await on.run()

    assert finished.outcome is Outcome.WARNED
    assert [(one.repository, one.archive, one.files, one.repository_size) for one in finished.statistics] == [
        ("nas", "a-1", 3, 99)
    ]


async def test_progress_says_since_when_it_counts_and_each_repository_begins_at_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(telling, "PROGRESS_SECONDS", 0.0)
    on = Machine(tmp_path, "writes-to-two")

    await on.run()

    one, two, three, four = (progress for progress in on.progress if progress.files)
    assert [progress.files for progress in (one, two, three, four)] == [1, 20, 2, 20]
    assert one.since == two.since == one.at
    assert three.since == four.since == three.at


async def test_log_lines_come_in_numbered_batches_and_all_of_them(tmp_path):
    on = Machine(tmp_path, "talks")

    finished = await on.run()

    logs = [report for report in on.reports if isinstance(report, RunLog)]
    assert on.lines() == [f"line {number}" for number in range(1000)]
    assert [log.first for log in logs] == [sum(len(one.lines) for one in logs[:n]) for n in range(len(logs))]
    assert max(len(log.lines) for log in logs) <= BATCH_LINES
    assert finished.log_lines == 1000


async def test_borgmatic_inherits_nothing_secret_and_its_output_carries_no_secret_away(tmp_path):
    on = Machine(tmp_path, "tells-its-environment")
    (tmp_path / "var/secrets").mkdir()
    (tmp_path / "var/secrets/nas.passphrase").write_text("correct horse\nbattery staple\n")
    (on.home / "secret").write_text("the passphrase is correct horse\nbattery staple!\nssh://user:hunter22@nas/x\n")

    await on.run()

    text = "\n".join(on.lines())
    assert "inherited-secret" not in text
    assert "correct horse" not in text
    assert "battery staple" not in text
    assert "hunter22" not in text
    assert "the passphrase is ***" in text


async def test_two_backups_at_once_do_not_share_the_folder_that_borgmatic_cleans_up(tmp_path):
    on = Machine(tmp_path, "tells-its-environment")
    (on.home / "secret").touch()

    await asyncio.gather(
        on.run(machine.job("a", url="ssh://borg@nas/./a"), "a" * 32),
        on.run(machine.job("b", url="ssh://borg@nas/./b"), "b" * 32),
    )

    folders = {line for line in on.lines() if line.startswith(("RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR="))}
    assert folders == {f"RUNTIME_DIRECTORY={tmp_path}/var/runtime/of-{backup}" for backup in "ab"}


# --- Why it failed ----------------------------------------------------------------------------------------------------

GENERIC = "Error running actions for repository\n"


@pytest.mark.parametrize(
    "says, hint",
    [
        ("Failed to create/acquire the lock /srv/r/lock.exclusive (timeout).", "break-lock"),
        ("Repository /srv/r does not exist.", "create: true"),
        ("/srv/r is not a valid repository. Check repo config.", "something else"),
        ("passphrase supplied in BORG_PASSPHRASE, or via BORG_PASSPHRASE_FD is incorrect.", "passphraseFrom"),
        ("Remote: Host key verification failed.", "knownHosts"),
        ("Remote: ssh: connect to host nas port 22: Connection refused", "cannot be reached"),
        ("Remote: borg@nas: Permission denied (publickey).", "authorized_keys"),
        ("OSError: [Errno 28] No space left on device", "make room"),
        ("/srv/x: open: [Errno 13] Permission denied: '/srv/x'", "as root"),
        ("Source directories or root pattern paths do not exist: /gone", "source_directories"),
        ("[Errno 2] No such file or directory: 'borg'", "borgbackup"),
        ("Connection closed by remote host. Is borg working on the server?", "ended the connection"),
    ],
)  # fmt: skip
async def test_the_line_that_says_why_is_the_error_with_what_to_do(tmp_path, says, hint):
    on = Machine(tmp_path, "fails")
    (on.home / "says").write_text(
        f"{GENERIC}{says}\nCommand 'borg create' returned non-zero exit status 2.\nsummary:\n"
    )

    finished = await on.run()

    assert finished.outcome is Outcome.FAILED
    assert finished.exit_code == 1
    assert finished.error == says
    assert hint in finished.hint


async def test_a_missing_borgmatic_fails_the_run_with_its_own_sentence(tmp_path):
    on = Machine(tmp_path, "is-not-here")

    finished = await on.run()

    assert finished.outcome is Outcome.FAILED
    assert finished.error.startswith("cannot start borgmatic")
    assert "install borgmatic" in finished.hint
    assert on.reports[-1] == finished


async def test_garbage_is_survived_and_bounded(tmp_path):
    on = Machine(tmp_path, "babbles")

    finished = await on.run()

    assert finished.outcome is Outcome.FAILED
    assert finished.error == "the end, without a line break"
    assert max(len(line) for line in on.lines()) <= 8_192
    assert all(RunLog.model_validate_json(one.model_dump_json()) for one in on.reports if isinstance(one, RunLog))


# --- Ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program, grace", [("hangs", 5.0), ("hangs-on", 0.2)])
async def test_a_run_that_takes_too_long_is_ended_with_all_its_processes(tmp_path, program, grace):
    on = Machine(tmp_path, program, grace=grace)

    finished = await on.run(machine.job(url="ssh://borg@nas/./web", timeout=1))

    assert finished.outcome is Outcome.FAILED
    assert finished.error == "timeout: the run took longer than 1 seconds and was ended"
    assert "timeout" in finished.hint
    assert [is_running(pid) for pid in await on.processes()] == [False, False]


@pytest.mark.parametrize("program, grace", [("hangs", 5.0), ("hangs-on", 0.2)])
async def test_a_cancelled_run_is_ended_with_all_its_processes(tmp_path, program, grace):
    on = Machine(tmp_path, program, grace=grace)
    task = asyncio.create_task(on.run())
    processes = await on.processes()

    assert on.runner.cancel(RUN)
    finished = await task

    assert finished.outcome is Outcome.CANCELLED
    assert on.reports[-1] == finished
    assert [is_running(pid) for pid in processes] == [False, False]
    assert not on.runner.cancel(RUN)


async def test_a_run_whose_task_is_cancelled_says_so_and_leaves_nothing_running(tmp_path):
    on = Machine(tmp_path, "hangs")
    task = asyncio.create_task(on.run())
    processes = await on.processes()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert isinstance(on.reports[-1], RunFinished)
    assert on.reports[-1].outcome is Outcome.CANCELLED
    assert [is_running(pid) for pid in processes] == [False, False]


async def test_a_borgmatic_that_is_killed_takes_its_children_along(tmp_path):
    on = Machine(tmp_path, "dies")

    finished = await on.run()

    assert finished.outcome is Outcome.FAILED
    assert finished.exit_code == -9
    assert finished.error == "borgmatic was killed by signal 9"
    assert "memory" in finished.hint
    assert [is_running(pid) for pid in await on.processes()] == [False, False]


# --- Turns ------------------------------------------------------------------------------------------------------------


async def test_two_runs_on_one_repository_take_turns(tmp_path):
    on = Machine(tmp_path, "counts")

    finished = await asyncio.gather(*(on.run(run_id=f"{number:032x}") for number in range(6)))

    assert {one.outcome for one in finished} == {Outcome.SUCCEEDED}
    assert (on.home / "order").read_text().count("in") >= 6


async def test_a_run_waits_for_another_program_on_the_repository_and_says_so(tmp_path):
    on = Machine(tmp_path, "accepts")
    url = "ssh://borg@nas/./web"
    (tmp_path / "var/locks").mkdir()
    lock = (tmp_path / "var/locks" / hashlib.sha256(url.encode()).hexdigest()[:32]).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    task = asyncio.create_task(on.run())
    while not on.progress:
        on.heard.clear()
        await on.heard.wait()
    waiting = on.progress[0].phase
    lock.close()

    assert (await task).outcome is Outcome.SUCCEEDED
    assert waiting == "waiting for another program on the same repository"


async def test_a_run_that_is_cancelled_while_it_waits_never_starts_borgmatic(tmp_path):
    on = Machine(tmp_path, "hangs")
    url = "ssh://borg@nas/./web"
    async with Turns(state_directory=tmp_path / "var", clock=SystemClock()).hold([url], waiting=lambda _: None):
        task = asyncio.create_task(on.run())
        while not on.progress:
            on.heard.clear()
            await on.heard.wait()
        on.runner.cancel(RUN)
        finished = await task

    assert finished.outcome is Outcome.CANCELLED
    assert not (on.home / "pids").exists()


# --- Repositories -----------------------------------------------------------------------------------------------------


def with_repository(base: Path, **changes: Any) -> Job:
    fields: dict[str, Any] = {"name": "nas", "url": str(base / "repositories/web"), "encryption": "none", **changes}
    return machine.job().model_copy(update={"repositories": (DesiredRepository(**fields),)})


async def test_nothing_is_written_where_nothing_is_mounted(tmp_path):
    on = Machine(tmp_path, "accepts")
    (tmp_path / "repositories").mkdir()

    finished = await on.run(with_repository(tmp_path, mountpoint=str(tmp_path / "repositories"), create=True))

    assert finished.outcome is Outcome.FAILED
    assert finished.error.startswith(f"nothing is mounted at {tmp_path}/repositories")
    assert list((tmp_path / "repositories").iterdir()) == []


async def test_a_missing_repository_that_nobody_declared_to_be_made_is_not_made(tmp_path):
    on = Machine(tmp_path, "accepts")
    (tmp_path / "repositories").mkdir()

    finished = await on.run(with_repository(tmp_path))

    assert finished.outcome is Outcome.FAILED
    assert "does not exist" in finished.error
    assert "create: true" in finished.hint


async def test_a_repository_is_not_made_where_its_folder_is_missing_too(tmp_path):
    on = Machine(tmp_path, "accepts")

    finished = await on.run(with_repository(tmp_path, create=True))

    assert finished.outcome is Outcome.FAILED
    assert "is its disk mounted?" in finished.error
    assert "mountpoint" in finished.hint


async def test_what_a_killed_client_left_running_is_waited_for(tmp_path):
    """borgmatic inherits the lock of its turn, which so outlives the client."""
    (tmp_path / "var").mkdir()
    turns = Turns(state_directory=tmp_path / "var", clock=SystemClock())
    async with turns.hold(["/nas"], waiting=lambda _: None) as locks:
        group, output = await borgmatic.start(
            ["sleep", "600"], environment={}, stdout=lambda _: None, stderr=lambda _: None, inherited=locks
        )
    waited: list[str] = []
    heard = asyncio.Event()

    def waiting(whom: str) -> None:
        waited.append(whom)
        heard.set()

    async def come_next() -> None:
        async with turns.hold(["/nas"], waiting=waiting):
            pass

    next_one = asyncio.create_task(come_next())
    await asyncio.wait_for(heard.wait(), 20)
    assert not next_one.done()
    await group.end()
    await output
    await asyncio.wait_for(next_one, 20)

    assert waited[0] == "another program on the same repository"
