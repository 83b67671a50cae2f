"""The client's machine with the real borgmatic and the real Borg, on repositories of the test's own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.apply import Applier, BorgmaticRefuses
from client.clock import SystemClock
from client.doctor import versions
from client.inventory import Inventories
from client.known_repositories import KnownRepositories
from client.policy import Policy
from client.runner import Runner
from client.turns import Turns
from schema.desired import (
    Content,
    DesiredRepository,
    DesiredState,
    Job,
    ManagedFile,
    SealedSecret,
    secret_path,
)
from schema.directories import Directories
from schema.observed import Outcome, Report, RunFinished, RunLog, RunProgress, Trigger
from tests.client import machine
from tests.client.test_apply import applier, apply, managed, two_states

PASSPHRASE = "correct-horse-battery-staple"
ROOT = Path(__file__).parents[2]


class Machine:
    """A client's machine under ``base`` with one backup to ``repositories`` (name → url)."""

    def __init__(self, base: Path, repositories: dict[str, str], **changes: Any) -> None:
        self.base = base
        self.repositories = repositories
        self.directories = Directories(config=str(base / "etc"), state=str(base / "var"))
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(base / "home")}
        self.reports: list[Report] = []
        self.progress: list[RunProgress] = []
        self.changes = changes
        for folder in ("source", "home"):
            (base / folder).mkdir(exist_ok=True)
        (base / "source/file").write_text("what matters")
        clock = SystemClock()
        places = {
            "program": "borgmatic",
            "config_directory": base / "etc",
            "state_directory": base / "var",
            "turns": Turns(state_directory=base / "var", clock=clock),
            "environment": self.environment,
        }
        self.runner = Runner(clock=clock, **places)  # type: ignore[arg-type]
        self.inventories = Inventories(**places)  # type: ignore[arg-type]
        self.job = self._job()

    def _job(self) -> Job:
        common = {"encryption": "repokey-blake2", "create": True, **self.changes}
        return machine.job().model_copy(
            update={
                "actions": ("create", "prune", "compact", "check"),
                "repositories": tuple(
                    DesiredRepository(name=name, url=url, **common) for name, url in self.repositories.items()
                ),
            }
        )

    def state(self, *, extra: str = "", passphrase: str = PASSPHRASE, revision: str = "one") -> DesiredState:
        lines = ["repositories:"]
        for name, url in self.repositories.items():
            lines += [f'  - path: "{url}"', f"    label: {name}", "    encryption: repokey-blake2"]
            reference = f"{{credential file {secret_path(self.directories, 'nas', 'passphrase')}}}"
            lines += [f'    encryption_passphrase: "{reference}"']
        lines += ["source_directories:", f"  - {self.base}/source"]
        lines += ["archive_name_format: 'web-1.web.{now:%Y-%m-%dT%H:%M:%S.%f}'", "keep_daily: 7", extra]
        self.passphrase = passphrase
        file = ManagedFile(place="config", path="web.yaml", origin="web.yaml:1", content="\n".join(lines) + "\n")
        content = Content(
            client="web-1",
            directories=self.directories,
            files=(file,),
            jobs=(self.job,),
            secrets=(SealedSecret(secret="nas", key="passphrase", sealed="bd1-sealed.AAAA"),),
        )
        return machine.state(self.base, revision=revision).model_copy(update={"content": content})

    async def apply(self, **changes: Any) -> None:
        state = self.state(**changes)
        own = Applier(
            program="borgmatic",
            directories=self.directories,
            policy=Policy(),
            unseal=lambda secret, client: self.passphrase.encode(),
            environment=self.environment,
        )
        await own.apply(state, persist=lambda: None)

    async def run(self, job: Job | None = None) -> RunFinished:
        async def emit(report: Report) -> None:
            self.reports.append(report)

        return await self.runner.run(
            job or self.job,
            run_id="0" * 32,
            trigger=Trigger.PERSON,
            due=None,
            revision="one",
            emit=emit,
            progress=self.progress.append,
            newest=lambda: job or self.job,
        )

    def text(self) -> str:
        return "\n".join(line.message for report in self.reports if isinstance(report, RunLog) for line in report.lines)


@pytest.fixture
def two(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {"nas": f"{tmp_path}/nas", "offsite": f"{tmp_path}/offsite"})


async def test_a_backup_makes_its_repositories_and_tells_what_went_into_each(two):
    await two.apply()

    finished = await two.run()

    assert finished.error == ""
    assert finished.outcome is Outcome.SUCCEEDED
    assert [one.repository for one in finished.statistics] == ["nas", "offsite"]
    assert all(one.archive.startswith("web-1.web.") and one.files > 0 for one in finished.statistics)
    assert all(one.repository_size > 0 for one in finished.statistics)
    assert PASSPHRASE not in two.text()
    assert {"create", "check"} <= {one.phase for one in two.progress}


async def test_the_inventory_has_the_archives_with_their_moments_in_utc(two, monkeypatch):
    two.inventories._environment["TZ"] = "UTC"
    two.runner._environment["TZ"] = "Asia/Tokyo"
    await two.apply()
    before = datetime.now(UTC).replace(microsecond=0)
    finished = await two.run()
    await two.run()
    after = datetime.now(UTC)

    seen = await two.inventories.inventory(two.job, after)

    assert [(one.repository, one.available, one.count, one.encryption) for one in seen] == [
        ("nas", True, 2, "repokey-blake2"),
        ("offsite", True, 2, "repokey-blake2"),
    ]
    newest, oldest = seen[0].archives
    assert before <= oldest.start <= newest.start <= after
    assert (oldest.name, oldest.id) == (finished.statistics[0].archive, finished.statistics[0].archive_id)
    assert seen[0].unique_size > 0
    assert len(seen[0].repository_id) == 64


async def test_one_repository_that_is_away_hides_no_other(two):
    await two.apply()
    await two.run()
    (two.base / "offsite").rename(two.base / "away")

    seen = await two.inventories.inventory(two.job, datetime.now(UTC))
    finished = await two.run(
        two.job.model_copy(
            update={"repositories": tuple(one.model_copy(update={"create": False}) for one in two.job.repositories)}
        )
    )

    assert [one.available for one in seen] == [True, False]
    assert "does not exist" in seen[1].message
    assert finished.outcome is Outcome.FAILED
    assert finished.error.startswith("repository 'offsite' does not exist")
    assert [one.repository for one in finished.statistics] == ["nas"]
    assert not (two.base / "offsite").exists()


async def test_a_repository_that_is_gone_is_not_made_anew_until_a_person_says_so(two):
    await two.apply()
    await two.run()
    (two.base / "offsite").rename(two.base / "away")

    refused = await two.run()
    known = KnownRepositories(two.base / "var")
    was_made = (two.base / "offsite").exists()
    known.forget(next(one for one in known.all() if one.name == "offsite"))
    made = await two.run()

    assert refused.outcome is Outcome.FAILED
    assert refused.error.startswith("repository 'offsite' is gone: this machine has backed up into it since 20")
    assert "director-client forget-repository offsite" in refused.hint
    assert [one.repository for one in refused.statistics] == ["nas"]
    assert not was_made
    assert (made.outcome, made.error) == (Outcome.SUCCEEDED, "")
    assert (two.base / "offsite/config").is_file()


async def test_a_failure_in_one_repository_loses_no_statistics_of_the_other(two):
    await two.apply()
    await two.run()
    shutil.rmtree(two.base / "offsite/data")

    finished = await two.run()

    assert finished.outcome is Outcome.FAILED
    assert "nas" in [one.repository for one in finished.statistics]


@pytest.fixture
def one(tmp_path: Path) -> Machine:
    return Machine(tmp_path, {"nas": f"{tmp_path}/nas"})


async def test_a_wrong_passphrase_is_told_as_what_it_is(one):
    await one.apply()
    await one.run()
    await one.apply(passphrase="something-else", revision="two")

    finished = await one.run()

    assert finished.outcome is Outcome.FAILED
    assert "incorrect" in finished.error
    assert "passphraseFrom" in finished.hint


async def test_a_locked_repository_is_told_as_what_it_is(one):
    await one.apply()
    await one.run()
    (one.base / "nas/lock.exclusive").mkdir()
    (one.base / "nas/lock.exclusive" / f"other@{'0' * 12}.1-0").touch()

    finished = await one.run()

    assert finished.outcome is Outcome.FAILED
    assert "lock" in finished.error
    assert "break-lock" in finished.hint


async def test_a_missing_source_is_told_as_what_it_is(one):
    await one.apply()
    shutil.rmtree(one.base / "source")

    finished = await one.run()

    assert finished.outcome is Outcome.FAILED
    assert "do not exist" in finished.error
    assert "source_directories" in finished.hint


async def test_a_source_that_vanishes_is_a_warning_where_it_may(one):
    await one.apply(extra="source_directories_must_exist: false\npatterns: ['R /nonexistent/path']")

    finished = await one.run()

    assert finished.outcome is Outcome.WARNED
    assert len(finished.statistics) == 1


async def test_a_server_that_refuses_the_connection_is_told_as_what_it_is(tmp_path):
    on = Machine(tmp_path, {"nas": "ssh://borg@127.0.0.1:1/./web"})
    await on.apply()

    finished = await on.run()

    assert finished.outcome is Outcome.FAILED
    assert "Connection refused" in finished.error
    assert "cannot be reached" in finished.hint


async def test_what_is_no_repository_is_never_written_to(one):
    await one.apply()
    (one.base / "nas").mkdir()
    (one.base / "nas/precious").write_text("precious")

    finished = await one.run()

    assert finished.outcome is Outcome.FAILED
    assert [path.name for path in (one.base / "nas").iterdir()] == ["precious"]


def begin_a_repository(half: Path) -> None:
    half.mkdir(parents=True)
    (half / "README").write_text("Borg's first file, and then the power went")


def make_a_repository_without_a_manifest(half: Path) -> None:
    subprocess.run(["borg", "init", "--encryption", "none", str(half)], check=True, capture_output=True, timeout=60)
    for file in (*half.glob("data/*/*"), *(one for one in half.iterdir() if one.suffix[1:].isdecimal())):
        file.unlink()


@pytest.mark.parametrize("make_half", [begin_a_repository, make_a_repository_without_a_manifest])
async def test_a_repository_whose_making_was_cut_off_is_told_as_what_it_is(one, make_half):
    await one.apply()
    (half,) = map(Path, one.repositories.values())
    make_half(half)

    failed = await one.run()
    half.rename(half.with_name("moved-away"))
    worked = await one.run()

    assert failed.outcome is Outcome.FAILED
    assert "making was cut off" in failed.hint
    assert "move it away" in failed.hint
    assert worked.outcome is Outcome.SUCCEEDED


async def test_a_configuration_that_lists_files_works_as_well(one):
    await one.apply(extra="list_details: true")

    finished = await one.run()

    assert finished.outcome is Outcome.SUCCEEDED
    assert [entry.repository for entry in finished.statistics] == ["nas"]
    assert "source/file" in one.text()


async def test_what_this_borgmatic_does_not_know_is_refused_with_its_own_words(one):
    await one.apply()
    before = managed(one.base)

    with pytest.raises(BorgmaticRefuses, match="'keep_monthly'"):
        await one.apply(extra="keep_weekly: 7\nkeep_monthly: seven", revision="two")

    assert managed(one.base) == before


async def test_a_cancelled_backup_leaves_no_process_and_no_lock(one):
    await one.apply()
    await one.run()
    with (one.base / "source/large").open("wb") as file:
        for _ in range(60):
            file.write(os.urandom(4_000_000))
    task = asyncio.create_task(one.run())
    one.progress.clear()
    while not any(entry.phase == "create" for entry in one.progress):
        await asyncio.sleep(0.01)
    one.runner.cancel("0" * 32)

    finished = await task

    assert finished.outcome is Outcome.CANCELLED
    assert not list((one.base / "nas").glob("lock.*"))
    assert str(one.base) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


async def test_the_versions_of_this_machine_are_known():
    found = await versions("borgmatic")

    assert found.borgmatic.startswith("2.")
    assert found.borg.startswith("1.")


async def test_a_killed_borgmatic_leaves_a_repository_that_the_next_run_can_use(one):
    await one.apply()
    await one.run()
    with (one.base / "source/large").open("wb") as file:
        for _ in range(60):
            file.write(os.urandom(4_000_000))
    task = asyncio.create_task(one.run())
    one.progress.clear()
    while not any(entry.phase == "create" for entry in one.progress):
        await asyncio.sleep(0.01)
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        words = path.read_bytes().split(b"\0") if path.exists() else []
        if any(word.endswith(b"/borgmatic") for word in words) and str(one.base).encode() in b" ".join(words):
            os.kill(int(path.parent.name), signal.SIGKILL)

    killed = await task
    again = await one.run()

    assert killed.outcome is Outcome.FAILED
    assert killed.exit_code == -signal.SIGKILL
    assert again.error == ""
    assert again.outcome is Outcome.SUCCEEDED


async def test_a_kill_at_any_step_of_applying_leaves_the_old_state_or_the_new_one(tmp_path):
    base = tmp_path / "machine"
    old, new = two_states(base)
    await apply(base, old)
    old_files = managed(base)
    (base / "new.json").write_text(new.model_dump_json())
    start = tmp_path / "start"
    shutil.copytree(base, start)
    killer = subprocess.Popen(
        [sys.executable, str(machine.PROGRAMS / "kill_at_every_step.py"), str(base), machine.program("accepts")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert killer.stdin
    assert killer.stdout
    finished: list[str] = []
    outcomes = set()
    for step in range(1, 1000):
        killer.stdin.write(f"{step}\n")
        killer.stdin.flush()
        finished.append(killer.stdout.readline().strip())
        persisted = (base / "persisted").exists()
        applier(base).recover()
        files = managed(base)
        is_new = any(b"revision new" in content for content in files.values())
        outcomes.add((persisted, is_new))
        if not is_new:
            assert files == old_files, f"a mixture after step {step}"
        # What an agent does at its start with a state that was accepted and is not marked as applied.
        await apply(base, new)
        assert sorted(managed(base)) == [
            "etc/b.yaml",
            "etc/c.yaml",
            "var/known_hosts/nas",
            "var/secrets/three.key",
            "var/secrets/two.key",
        ]
        assert not any(b"revision old" in content for content in managed(base).values()), f"step {step}"
        if finished[-1] == "done":
            break
        shutil.rmtree(base)
        shutil.copytree(start, base)
    killer.stdin.close()
    killer.stdout.close()
    assert killer.wait() == 0

    assert finished[-1] == "done"
    assert len(finished) > 30
    assert outcomes == {(False, False), (True, False), (True, True)}
