"""The main job with the real programs: what the director, its clients, Git, borgmatic and Borg promise each other.

``make demo CHECK=1`` shows the way without trouble; here is the trouble.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, Content, DesiredState
from schema.envelope import ClientIdentity, DirectorIdentity, decode_bytes, encode_bytes, open_envelope
from tests.client.director_stub import DirectorStub, desired_state
from tests.client.machine import program
from tests.e2e.fleet import PASSPHRASE, Fleet, until

EVERY_MINUTE = "* * * * *"
COMMANDS = "[{before: action, run: [echo hello]}]"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A director, and nobody else yet."""
    with Fleet(tmp_path) as fleet:
        fleet.start_director()
        yield fleet


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Fleet]:
    """A director; the clocks of its clients run twenty times as fast."""
    with Fleet(tmp_path, speed=20) as fleet:
        fleet.start_director()
        yield fleet


def following(fleet: Fleet, *names: str, cron: str = "", settings: str = "", **options: str) -> None:
    """Enrol machines that back up ``photos`` each, and wait until they follow."""
    for name in names:
        fleet.add_machine(name, settings=settings)
    fleet.enrol(*names)
    fleet.approve_in_source(*names)
    for name in names:
        fleet.write_backup(photos(name), name, cron=cron, **options)
    fleet.push("Back it up")
    until("they follow", lambda: fleet.follows(*names))


def photos(client: str) -> str:
    return f"{client}-photos"


def status(fleet: Fleet, client: str) -> Any:
    return json.loads(fleet.client(client, "status", "-o", "json", check=False).stdout)


# --- Local policy -----------------------------------------------------------------------------------------------------


def test_what_one_machine_refuses_is_told_with_the_line_that_would_allow_it_and_stops_no_other(fleet):
    fleet.add_machine("atlas")
    fleet.add_machine("luna")
    fleet.enrol("atlas", "luna")
    fleet.approve_in_source("atlas", "luna")
    fleet.write_backup("photos", "atlas")
    fleet.write_backup("home", "luna", commands=COMMANDS)
    fleet.push("Back it up")

    until("atlas follows", lambda: fleet.follows("atlas"))
    refusal = until("luna refuses", lambda: fleet.clients()["luna"]["refusal"])

    assert fleet.clients()["luna"]["following"] == "refused"
    assert "commands" in refusal["message"]
    assert 'policy.options = ["commands"]' in refusal["hint"]
    assert fleet.managed("luna") == {}
    assert list(fleet.managed("atlas")) == ["photos.yaml"]
    assert fleet.client("atlas", "once", "photos").returncode == 0

    settings = Path(fleet.settings("luna"))
    settings.write_text(settings.read_text() + 'policy.options = ["commands"]\n')
    fleet.stop("luna")
    fleet.start_client("luna")

    until("luna follows", lambda: fleet.follows("luna"))
    assert fleet.clients()["luna"]["refusal"] is None
    assert fleet.client("luna", "once", "home").returncode == 0


# --- Approval and revocation ------------------------------------------------------------------------------------------


def test_a_revoked_client_is_cut_off_at_once_and_goes_on_backing_up(fleet):
    following(fleet, "atlas", "luna")
    before = fleet.managed("atlas")

    fleet.director("clients", "revoke", "atlas")

    until("atlas is cut off", lambda: not fleet.clients()["atlas"]["connected"], seconds=5)
    until("atlas knows", lambda: status(fleet, "atlas")["connection"] == "waiting")
    assert "revoked" in status(fleet, "atlas")["reason"]
    fleet.write_backup(photos("atlas"), "atlas", keep_daily="3")
    fleet.write_backup(photos("luna"), "luna", keep_daily="3")
    fleet.push("Keep fewer")
    until("luna follows", lambda: b"keep_daily: 3" in fleet.managed("luna")["luna-photos.yaml"])
    assert fleet.managed("atlas") == before
    assert fleet.client("atlas", "once", photos("atlas")).returncode == 0
    assert len(fleet.archives("atlas", photos("atlas"))) == 1
    assert fleet.clients()["atlas"]["phase"] == "revoked"


# --- Suspending -------------------------------------------------------------------------------------------------------


def test_a_suspended_director_publishes_nothing_and_resumes_where_the_source_is(fleet):
    following(fleet, "atlas")
    before = fleet.managed("atlas")

    fleet.director("suspend")
    fleet.write_backup(photos("atlas"), "atlas", keep_daily="3")
    revision = fleet.push("Keep fewer")
    until("it says so", lambda: fleet.ask("status")["source"]["suspended"])
    assert fleet.director("reconcile", "--wait", check=False).returncode == 1
    assert fleet.managed("atlas") == before

    fleet.director("resume")

    until("atlas follows the newest", lambda: fleet.follows("atlas", revision=revision))
    assert b"keep_daily: 3" in fleet.managed("atlas")["atlas-photos.yaml"]


# --- Without a director -----------------------------------------------------------------------------------------------


def test_a_client_backs_up_without_its_director_and_every_run_arrives_once_later(fast):
    following(fast, "atlas", cron=EVERY_MINUTE)
    until("the first run arrives", lambda: fast.runs(outcome="succeeded"))

    fast.kill("director")
    alone = len(fast.recorded("atlas"))
    until("three runs without it", lambda: list(fast.recorded("atlas").values()).count("succeeded") >= alone + 3)
    fast.stop("atlas")
    fast.start_client("atlas")
    until("one more", lambda: list(fast.recorded("atlas").values()).count("succeeded") >= alone + 4)
    fast.start_director()

    until("atlas is back", lambda: fast.follows("atlas"))
    fast.stop("atlas")
    rows = fast.store("SELECT id, outcome FROM runs")
    assert len({run for run, _ in rows}) == len(rows)
    assert dict(rows) == fast.recorded("atlas")
    assert fast.outbox("atlas", "SELECT count(*) FROM reports") == [(0,)]


# --- A director that is not what it was -------------------------------------------------------------------------------


def test_a_director_restored_from_an_older_copy_recovers_by_itself(fleet, tmp_path):
    following(fleet, "atlas")
    fleet.stop("director")
    fleet.copy_store(tmp_path / "copy")
    shutil.copytree(tmp_path / "source.git", tmp_path / "copy.git")
    fleet.start_director()
    fleet.write_backup(photos("atlas"), "atlas", keep_daily="3")
    revision = fleet.push("Keep fewer")
    until("atlas follows the newest", lambda: fleet.follows("atlas", revision=revision))
    ahead = fleet.clients()["atlas"]["appliedGeneration"]

    fleet.stop("director")
    fleet.restore_store(tmp_path / "copy")
    shutil.rmtree(tmp_path / "source.git")
    shutil.copytree(tmp_path / "copy.git", tmp_path / "source.git")
    fleet.start_director()

    until(
        "atlas follows what is published", lambda: b"keep_daily: 3" not in fleet.managed("atlas")["atlas-photos.yaml"]
    )
    until("the director knows", lambda: fleet.follows("atlas"))
    assert fleet.clients()["atlas"]["appliedGeneration"] > ahead
    assert fleet.clients()["atlas"]["refusal"] is None


@pytest.mark.parametrize("keeps_certificate", [True, False])
def test_another_director_at_the_same_address_is_refused_loudly(fleet, keeps_certificate):
    following(fleet, "atlas")
    before = fleet.managed("atlas")
    fleet.stop("director")
    for part in fleet.director_folder.iterdir():
        if part.is_file() and not (keeps_certificate and part.name.startswith("tls.")):
            part.unlink()
    fleet.start_director()

    until("atlas says so", lambda: status(fleet, "atlas")["connection"] == "waiting" and status(fleet, "atlas")["hint"])

    told = status(fleet, "atlas")
    wanted = "another key than the pinned one" if keeps_certificate else "certificate"
    assert wanted in told["reason"]
    assert "enroll again" in told["hint"]
    assert wanted in fleet.log("atlas")
    assert fleet.client("atlas", "status", check=False).returncode == 1
    assert fleet.ask("clients", "pending") == []
    assert fleet.managed("atlas") == before
    assert fleet.client("atlas", "once", photos("atlas")).returncode == 0


def altered(envelope: bytes) -> bytes:
    """Return the envelope with one byte of what was signed changed."""
    parsed = json.loads(envelope)
    payload = bytearray(decode_bytes(parsed["payload"]))
    place = payload.index(b"keep_daily: 7") + len("keep_daily: ")
    payload[place : place + 1] = b"1"
    return json.dumps({**parsed, "payload": encode_bytes(bytes(payload))}).encode()


async def test_desired_states_for_others_older_or_altered_are_never_applied(fleet):
    following(fleet, "atlas", keep_daily="7")
    identity, key = fleet.identity, fleet.keys["atlas"]
    ((envelope, generation),) = fleet.store("SELECT envelope, generation FROM issued")
    payload = open_envelope(envelope, payload_type=PAYLOAD_TYPE, key=identity.public, limit=MAX_DESIRED_BYTES)
    content = DesiredState.model_validate_json(payload).content
    other = content.model_copy(update={"suspend": True})
    before = fleet.managed("atlas")
    fleet.stop("director")
    fleet.stop("atlas")

    def signed(audience: str = key, by: DirectorIdentity = identity, content: Content = other, **changes: Any) -> bytes:
        newer = {"generation": generation + 1, "issued": datetime.now(UTC)}
        return desired_state(by, audience, content=content, **{**newer, **changes})

    rogues = {
        "is for another client": signed(ClientIdentity.generate().public.text),
        "for 'luna'": signed(content=other.model_copy(update={"client": "luna"})),
        "is older than": signed(generation=generation - 1),
        "sent before with other content": signed(generation=generation),
        "the signature is not right": altered(envelope),
        "not signed by the pinned director": signed(by=DirectorIdentity.generate()),
        "digest does not match": signed(digest="sha256:" + "0" * 64),
        "issued in the future": signed(issued=datetime(2099, 1, 1, tzinfo=UTC)),
        "far ahead": signed(generation=generation * 2),
    }
    async with DirectorStub(identity=identity, name="atlas") as rogue:
        settings = Path(fleet.settings("atlas"))
        settings.write_text(f'url = "{rogue.url}"\n' + settings.read_text())
        for reason, desired in rogues.items():
            rogue.envelope = desired
            fleet.start_client("atlas")
            await asyncio.to_thread(until, reason, partial(refuses, fleet, reason), seconds=20)
            await asyncio.to_thread(fleet.stop, "atlas")
            assert fleet.managed("atlas") == before, reason

    fleet.start_director()
    settings.write_text(settings.read_text().replace(f'url = "{rogue.url}"\n', ""))
    fleet.start_client("atlas")
    until("atlas follows as before", lambda: fleet.follows("atlas"))


def refuses(fleet: Fleet, reason: str) -> bool:
    return reason in status(fleet, "atlas")["refusal"]


# --- Full disks -------------------------------------------------------------------------------------------------------

FILL = 3 * 1024 * 1024


def small_disk(place: Path) -> tuple[str, ...]:
    """Return what runs a program with ``place`` on a disk of its own, of which three MiB are left."""
    kib = sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) // 1024 + FILL // 1024
    script = (
        f'cp -a "{place}" "{place}.kept" && mount -t tmpfs -o size={kib}k,mode=0700 tmpfs "{place}" '
        f'&& cp -a "{place}.kept/." "{place}" && exec "$@"'
    )
    return ("unshare", "--mount", "sh", "-c", script, "sh")


def can_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="needs the right to mount a tmpfs")


def fill(fleet: Fleet, name: str, place: Path) -> Path:
    """Fill the small disk of a program to its last byte; return the file to remove."""
    inside = Path(f"/proc/{fleet.processes[name].pid}/root{place}")
    file = inside / "filler"
    with file.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(b"\0" * 512)
        except OSError:
            return file


@needs_mount
def test_a_client_whose_disk_is_full_goes_on_and_loses_no_run(fast):
    following(fast, "atlas", cron=EVERY_MINUTE)
    until("the first run arrives", lambda: fast.runs(outcome="succeeded"))
    fast.stop("atlas")
    state = fast.folder / "atlas/var"
    fast.start_client("atlas", wrapper=small_disk(state))
    until("it is back", lambda: fast.follows("atlas"))

    filler = fill(fast, "atlas", state)
    told = len(finished(fast))
    until("two runs on a full disk", lambda: len(finished(fast)) >= told + 2)
    fast.write_backup(photos("atlas"), "atlas", cron=EVERY_MINUTE, keep_daily="3")
    revision = fast.push("Keep fewer")
    until("it says that it cannot follow", lambda: "a desired state is not followed" in fast.log("atlas"))
    filler.unlink()

    until("it follows", lambda: fast.follows("atlas", revision=revision), seconds=60)
    told = list(finished(fast).values()).count("succeeded")
    until("backups succeed again", lambda: list(finished(fast).values()).count("succeeded") > told)
    fast.stop("atlas")
    assert dict(fast.store("SELECT id, outcome FROM runs")) == finished(fast)
    reasons = {row[0] for row in fast.store("SELECT hint FROM runs WHERE outcome = 'failed'")}
    assert all("make room" in reason for reason in reasons)
    assert "Traceback" not in fast.log("atlas")


def finished(fleet: Fleet) -> dict[str, str]:
    """Return every run that the client's log tells the end of, with its outcome."""
    lines = (json.loads(line) for line in fleet.log("atlas").splitlines() if line.startswith("{"))
    return {line["run"]: line["outcome"] for line in lines if line["event"] == "run finished"}


@needs_mount
def test_a_director_whose_disk_is_full_recovers_and_has_lost_no_run(fast):
    following(fast, "atlas", cron=EVERY_MINUTE)
    until("the first run arrives", lambda: fast.runs(outcome="succeeded"))
    fast.stop("director")
    fast.start_director(wait=False, wrapper=small_disk(fast.director_folder))
    fast.inside("director")
    until("it is back", lambda: fast.follows("atlas"))

    filler = fill(fast, "director", fast.director_folder)
    done = list(fast.recorded("atlas").values()).count("succeeded")
    until("three runs meanwhile", lambda: list(fast.recorded("atlas").values()).count("succeeded") >= done + 3)
    fast.write_backup(photos("atlas"), "atlas", cron=EVERY_MINUTE, keep_daily="3")
    revision = fast.push("Keep fewer")
    filler.unlink()

    until("it goes on", lambda: fast.follows("atlas", revision=revision), seconds=60)
    fast.stop("atlas")
    recorded = fast.recorded("atlas")
    until("every run has arrived", lambda: {one["id"]: one["outcome"] for one in fast.runs()} == recorded)


# --- Borg's troubles --------------------------------------------------------------------------------------------------


def test_what_is_wrong_with_a_repository_is_told_at_the_director(fleet):
    following(fleet, "atlas")
    repository = fleet.folder / "nas" / f"atlas-{photos('atlas')}"
    assert fleet.client("atlas", "once", photos("atlas")).returncode == 0

    def failing_run() -> Any:
        known = {one["id"] for one in fleet.runs()}
        assert fleet.client("atlas", "once", photos("atlas"), check=False).returncode == 1
        (run,) = until("it arrives", lambda: [one for one in fleet.runs(outcome="failed") if one["id"] not in known])
        return run

    with held_by_another(fleet, repository):
        locked = failing_run()
    fleet.seal("something else")
    fleet.source.write("nas.yaml", (fleet.source.directory / "nas.yaml").read_text().replace("  create: true\n", ""))
    revision = fleet.push("Another passphrase")
    until("atlas follows", lambda: fleet.follows("atlas", revision=revision))
    wrong = failing_run()
    repository.rename(repository.with_name("away"))
    missing = failing_run()

    assert "lock" in locked["error"]
    assert "break-lock" in locked["hint"]
    assert "passphrase" in wrong["error"]
    assert "passphraseFrom" in wrong["hint"]
    assert "does not exist" in missing["error"]
    assert "create: true" in missing["hint"]
    assert not repository.exists()


class held_by_another:  # noqa: N801 - reads as what it is: a context
    """While it lasts, another borg holds the repository's lock."""

    def __init__(self, fleet: Fleet, repository: Path) -> None:
        also = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        self._lock = repository / "lock.exclusive"
        self._fleet = fleet
        fleet.start("borg", "borg", "with-lock", str(repository), "sleep", "600", also=also)

    def __enter__(self) -> None:
        until("it is locked", self._lock.exists)

    def __exit__(self, *_: object) -> None:
        self._fleet.stop("borg")
        until("it is unlocked", lambda: not self._lock.exists())


# --- borgmatic's troubles ---------------------------------------------------------------------------------------------

STAND_IN = """\
#!/bin/sh
# Agrees with every configuration; runs what the test names.
case "$*" in *"config validate"*|*--version*) exit 0;; esac
case "$*" in *" create"*) exec "{stand_in}" "$@";; esac
exit 0
"""


def test_whatever_borgmatic_does_the_client_goes_on_and_tells(fast):
    stand_in, borgmatic = fast.folder / "stand-in", fast.folder / "borgmatic"
    borgmatic.write_text(STAND_IN.format(stand_in=stand_in))
    borgmatic.chmod(0o755)
    stand_in.symlink_to(program("accepts"))
    fast.add_machine("atlas", settings=f'borgmatic = "{borgmatic}"')
    fast.enrol("atlas")
    fast.approve_in_source("atlas")
    fast.write_backup(photos("atlas"), "atlas", cron=EVERY_MINUTE)
    file = fast.source.directory / "backups/atlas-photos.yaml"
    file.write_text(file.read_text().replace("schedule: often\n", "schedule: often\n  timeout: 30s\n"))
    (fast.folder / "nas/atlas-atlas-photos").mkdir()
    (fast.folder / "nas/atlas-atlas-photos/README").write_text("as if it were a repository")
    fast.push("Back it up")
    until("atlas follows", lambda: fast.follows("atlas"))
    process = fast.processes["atlas"].pid

    def run_of(name: str, outcome: str, error: str) -> Any:
        stand_in.unlink()
        stand_in.symlink_to(program(name))

        def look() -> Any:
            return next((one for one in fast.runs() if one["outcome"] == outcome and error in one["error"]), None)

        return until(f"a run with borgmatic that {name}", look)

    assert run_of("accepts", "succeeded", "")["exitCode"] == 0
    assert run_of("dies", "failed", "killed by signal 9")["exitCode"] == -9
    assert "timeout" in run_of("hangs", "failed", "took longer than 30 seconds")["error"]
    assert run_of("babbles", "failed", "the end, without a line break")["exitCode"] == 1
    borgmatic.rename(fast.folder / "away")
    missing = until("a run without borgmatic", lambda: [one for one in fast.runs() if "is not there" in one["error"]])[
        0
    ]
    assert "install borgmatic" in missing["hint"]
    (fast.folder / "away").rename(borgmatic)
    before = len(fast.runs(outcome="succeeded"))
    stand_in.unlink()
    stand_in.symlink_to(program("accepts"))
    until("backups go on", lambda: len(fast.runs(outcome="succeeded")) > before)

    assert fast.processes["atlas"].poll() is None
    assert fast.processes["atlas"].pid == process
    assert (fast.folder / "home/pids").exists()
    for pid in (fast.folder / "home/pids").read_text().split():
        assert not Path(f"/proc/{pid}").exists(), "what hung was not ended"


# --- Drift, and nonsense ----------------------------------------------------------------------------------------------


def test_an_edit_by_hand_is_healed_and_told_and_nonsense_changes_nothing(fleet):
    following(fleet, "atlas", keep_daily="7")
    before = fleet.managed("atlas")
    file = fleet.folder / "atlas/etc/atlas-photos.yaml"

    file.write_bytes(before[file.name] + b"# by hand\n")
    drift = until("it is told with a diff", lambda: [one for one in fleet.ask("drift") if "+# by hand" in one["diff"]])
    assert drift[0]["subject"] == file.name
    until("it is healed", lambda: fleet.managed("atlas") == before)

    fleet.source.write("backups/broken.yaml", "apiVersion: borgmatic.director/v1\nkind: Backup\nmetadata: {name: [\n")
    fleet.source.commit("Nonsense")
    pushed = fleet.source.attempt("push", str(fleet.folder / "source.git"), "HEAD:main")
    assert pushed.returncode != 0
    assert "backups/broken.yaml:" in pushed.stderr
    source = str(fleet.source.directory)
    fleet.run("git", f"--git-dir={fleet.folder}/source.git", "fetch", "--quiet", source, "+HEAD:main")
    problems = until("the source is stalled", lambda: fleet.ask("status")["source"]["problems"])
    assert (problems[0]["path"], problems[0]["line"] > 0) == ("backups/broken.yaml", True)
    assert fleet.managed("atlas") == before
    assert fleet.follows("atlas")
