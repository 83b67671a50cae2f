"""Applying a desired state: all of it or nothing, whatever happens in between."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from client.apply import STAGED, Applier, BorgmaticRefuses, FileConflict
from client.borgmatic import BorgmaticMissing
from client.policy import Policy
from schema.desired import DesiredState, SealedSecret, ssh_command
from schema.directories import Directories
from schema.errors import PolicyDenied, TerminalError, TransientError, TrustError
from tests.client import machine

ROOT = Path(__file__).parents[2]


def unseal(secret: SealedSecret, client: str) -> bytes:
    return f"opened {secret.secret} for {client}".encode()


def applier(base: Path, program: str = "accepts", *, opens=unseal) -> Applier:
    directories = Directories(config=str(base / "etc"), state=str(base / "var"))
    return Applier(program=machine.program(program), directories=directories, policy=Policy(), unseal=opens)


def nothing() -> None:
    pass


async def apply(base: Path, state: DesiredState, program: str = "accepts") -> None:
    await applier(base, program).apply(state, persist=nothing)


def tree(base: Path) -> dict[str, bytes]:
    """Return every file below ``base`` with its bytes."""
    return {
        str(path.relative_to(base)): path.read_bytes() if not path.is_symlink() else b"link"
        for path in sorted(base.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def managed(base: Path) -> dict[str, bytes]:
    """Return the files that a desired state is about."""
    return {
        path: content
        for path, content in tree(base).items()
        if path.startswith(("etc/", "var/secrets/", "var/known_hosts/"))
    }


# --- What is there afterwards -----------------------------------------------------------------------------------------


async def test_everything_is_in_place_and_private(tmp_path):
    state = machine.state(tmp_path, secrets=("db",), known_hosts="nas ssh-ed25519 AAAA\n")

    await apply(tmp_path, state)

    assert managed(tmp_path) == {
        "etc/web.yaml": state.content.files[0].rendered("one"),
        "var/known_hosts/nas": state.content.files[1].rendered("one"),
        "var/secrets/db.key": b"opened db for web-1",
    }
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "etc").iterdir()} == {0o600}
    assert (tmp_path / "var/secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "var/secrets/db.key").stat().st_mode & 0o777 == 0o600


async def test_nothing_is_left_of_the_staging(tmp_path):
    await apply(tmp_path, machine.state(tmp_path))

    assert [path for path in tmp_path.rglob("*") if STAGED in path.name] == []


async def test_what_is_no_longer_wanted_goes_and_the_last_good_generation_is_kept(tmp_path):
    await apply(
        tmp_path, machine.state(tmp_path, secrets=("db",), files={"web": machine.config(), "b": machine.config()})
    )
    before = (tmp_path / "etc/web.yaml").read_bytes()

    await apply(tmp_path, machine.state(tmp_path, revision="two", files={"b": machine.config()}))

    assert sorted(managed(tmp_path)) == ["etc/b.yaml"]
    assert (tmp_path / "var/previous/web.yaml").read_bytes() == before
    assert b"revision one" in (tmp_path / "var/previous/b.yaml").read_bytes()


async def test_an_empty_state_removes_all_of_ours_and_nothing_else(tmp_path):
    await apply(tmp_path, machine.state(tmp_path))
    (tmp_path / "etc/mine.yaml").write_text("mine")

    await apply(tmp_path, machine.state(tmp_path, revision="two", files={}))

    assert managed(tmp_path) == {"etc/mine.yaml": b"mine"}


async def test_persist_is_called_once_after_validation_and_before_anything_is_in_place(tmp_path):
    seen = []

    await applier(tmp_path).apply(machine.state(tmp_path), persist=lambda: seen.append(managed(tmp_path)))

    assert [sorted(one) for one in seen] == [[f"etc/{STAGED}/0-web.yaml"]]


# --- Refusals change nothing ------------------------------------------------------------------------------------------


async def refused(base: Path, state: DesiredState, *, by: Applier, error: type[Exception]) -> Exception:
    """Apply ``state`` over a good one, expect ``error``, and that nothing at all changed."""
    await apply(base, machine.state(base, secrets=("old",)))
    before = tree(base)
    persisted: list[bool] = []

    with pytest.raises(error) as caught:
        await by.apply(state, persist=lambda: persisted.append(True))

    assert tree(base) == before
    assert persisted == []
    return caught.value


def changed(base: Path) -> DesiredState:
    """Return a state whose one configuration is another."""
    return machine.state(
        base, revision="two", files={"web": machine.config(options="source_directories:\n  - /srv\nkeep_daily: 7\n")}
    )


async def test_what_borgmatic_refuses_is_refused_with_its_own_words(tmp_path):
    error = await refused(tmp_path, changed(tmp_path), by=applier(tmp_path, "refuses"), error=BorgmaticRefuses)

    assert "'frobnicate' was unexpected" in str(error)
    assert f"{tmp_path}/etc/web.yaml" in str(error)
    assert STAGED not in str(error)


async def test_a_missing_borgmatic_has_its_own_sentence(tmp_path):
    error = await refused(tmp_path, changed(tmp_path), by=applier(tmp_path, "is-not-here"), error=BorgmaticMissing)

    assert "cannot start borgmatic" in str(error)
    assert "install borgmatic" in str(error)


async def test_a_configuration_that_did_not_change_is_not_judged_again(tmp_path):
    await apply(tmp_path, machine.state(tmp_path))

    await applier(tmp_path, "is-not-here").apply(
        machine.state(tmp_path, revision="two", secrets=("new",)), persist=lambda: None
    )

    assert b"revision two" in (tmp_path / "etc/web.yaml").read_bytes()
    assert (tmp_path / "var/secrets/new.key").exists()


async def test_a_borgmatic_that_dies_while_it_validates_is_worth_another_try(tmp_path):
    (tmp_path / "home").mkdir()
    directories = Directories(config=str(tmp_path / "etc"), state=str(tmp_path / "var"))
    dying = Applier(
        program=machine.program("dies"),
        directories=directories,
        policy=Policy(),
        unseal=unseal,
        environment={"HOME": str(tmp_path / "home"), "PATH": os.environ["PATH"]},
    )
    state = machine.state(tmp_path, revision="two")

    with pytest.raises(TransientError, match="killed by signal 9"):
        await dying.apply(state, persist=nothing)


async def test_what_policy_denies_is_refused(tmp_path):
    state = machine.state(tmp_path, revision="two", files={"web": machine.config(options="before_backup: [x]\n")})

    await refused(tmp_path, state, by=applier(tmp_path), error=PolicyDenied)


async def test_a_secret_that_cannot_be_opened_is_refused(tmp_path):
    def cannot_open(secret: SealedSecret, client: str) -> bytes:
        raise TrustError(f"secret '{secret.secret}' was sealed for another machine", code="bad-seal")

    state = machine.state(tmp_path, revision="two", secrets=("db",))

    await refused(tmp_path, state, by=applier(tmp_path, opens=cannot_open), error=TrustError)


USES = """\
source_directories:
  - /etc
keep_daily: 7
encryption_passphrase: "{{credential file {state}/secrets/nas.key}}"
ssh_command: {ssh}
"""


def using(base: Path, *, options: str = USES, **changes: Any) -> DesiredState:
    """Return a state whose secret ``nas.key`` is a passphrase, and ``ssh.key`` an ssh key; ``free.key`` is unused."""
    own = f"{base}/var"
    text = options.format(state=own, ssh=ssh_command(key_path=f"{own}/secrets/ssh.key", known_hosts=None))
    return machine.state(base, files={"web": machine.config(options=text)}, **changes)


LINES = (b"x\nplugin-dir=/srv", b"x\rplugin-dir=/srv", b"x\n\n", b"\nx")
NEVER = (b"a\x00b", b"a\x1bb", b"a\x7fb", b"\x7fELF\x02x")


@pytest.mark.parametrize(
    "name, value",
    [*((name, value) for name in ("nas", "free") for value in LINES + NEVER), *(("ssh", value) for value in NEVER)],
)
async def test_a_secret_that_would_be_more_than_its_option_is_refused(tmp_path, name, value):
    state = using(tmp_path, revision="two", secrets=(name,))
    by = applier(tmp_path, opens=lambda secret, client: value)

    error = await refused(tmp_path, state, by=by, error=TerminalError)

    assert f"'{name}.key'" in str(error)
    assert "plugin-dir" not in str(error)
    assert "seal" in str(error)


async def test_an_ssh_key_has_lines(tmp_path):
    key = b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"

    await applier(tmp_path, opens=lambda secret, client: key).apply(using(tmp_path, secrets=("ssh",)), persist=nothing)

    assert (tmp_path / "var/secrets/ssh.key").read_bytes() == key


@pytest.mark.parametrize("value", [b"one line", b"one line\n", b"one line\r\n", "pässword".encode()])
async def test_a_secret_of_one_line_passes(tmp_path, value):
    await applier(tmp_path, opens=lambda secret, client: value).apply(
        using(tmp_path, secrets=("nas",)), persist=nothing
    )

    assert (tmp_path / "var/secrets/nas.key").read_bytes() == value


NTFY = """\
source_directories:
  - /etc
keep_daily: 7
ntfy: {{topic: t, server: "https://evil.example", password: "{{credential file {state}/secrets/%s.key}}"}}
"""


@pytest.mark.parametrize("name", ["nas", "ssh"])
async def test_what_was_the_secret_of_a_repository_is_never_sent_away(tmp_path, name):
    directories = Directories(config=str(tmp_path / "etc"), state=str(tmp_path / "var"))
    own = Applier(
        program=machine.program("accepts"), directories=directories, policy=Policy(send_to=("*",)), unseal=unseal
    )
    await own.apply(using(tmp_path, secrets=("nas", "ssh")), persist=nothing)
    await own.apply(machine.state(tmp_path, revision="two", secrets=("nas", "ssh")), persist=nothing)
    before = tree(tmp_path)

    with pytest.raises(PolicyDenied, match="the secret of a repository"):
        await own.apply(using(tmp_path, options=NTFY % name, revision="three", secrets=(name,)), persist=nothing)

    assert tree(tmp_path) == before
    await own.apply(using(tmp_path, options=NTFY % "free", revision="three", secrets=("free",)), persist=nothing)


async def test_names_of_repository_secrets_that_cannot_be_read_are_told(tmp_path):
    await apply(tmp_path, using(tmp_path, secrets=("nas",)))
    path = tmp_path / "var/repository-secrets.json"
    assert b"opened" not in path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("[")

    with pytest.raises(TerminalError, match=r"repository-secrets\.json is damaged"):
        await apply(tmp_path, using(tmp_path, secrets=("nas",)))


async def test_a_revision_that_breaks_the_header_is_refused(tmp_path):
    await refused(tmp_path, machine.state(tmp_path, revision="a\nb: c"), by=applier(tmp_path), error=TerminalError)


async def test_a_failing_persist_changes_nothing(tmp_path):
    def full() -> None:
        raise TransientError("cannot write: no space left on device")

    await apply(tmp_path, machine.state(tmp_path))
    before = tree(tmp_path)

    with pytest.raises(TransientError):
        await applier(tmp_path).apply(machine.state(tmp_path, revision="two"), persist=full)

    assert tree(tmp_path) == before


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """As a full disk: no file may grow beyond ``size``."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [0, 200, 700])
async def test_a_full_disk_changes_nothing_and_passes(tmp_path, size):
    await apply(tmp_path, machine.state(tmp_path))
    before = tree(tmp_path)
    large = machine.state(tmp_path, revision="two", files={f"b{n}": machine.config() + "# x\n" * 60 for n in range(3)})

    with files_limited_to(size), pytest.raises(TransientError) as caught:
        await applier(tmp_path).apply(large, persist=nothing)

    assert "make room" in caught.value.hint
    assert tree(tmp_path) == before
    await apply(tmp_path, large)
    assert len(managed(tmp_path)) == 3


# --- Files that are not ours ------------------------------------------------------------------------------------------


async def test_a_file_that_somebody_else_wrote_is_never_overwritten(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/web.yaml").write_text("mine")

    with pytest.raises(FileConflict) as caught:
        await apply(tmp_path, machine.state(tmp_path))

    assert "mv " in caught.value.hint
    assert managed(tmp_path) == {"etc/web.yaml": b"mine"}


async def test_a_file_with_just_our_bytes_is_ours(tmp_path):
    state = machine.state(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/web.yaml").write_bytes(state.content.files[0].rendered("one"))

    await apply(tmp_path, state)
    await apply(tmp_path, machine.state(tmp_path, revision="two", files={}))

    assert managed(tmp_path) == {}


async def test_a_link_in_place_of_a_file_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/web.yaml").symlink_to(victim)

    with pytest.raises(FileConflict):
        await apply(tmp_path, machine.state(tmp_path))

    assert victim.read_text() == "precious"


async def test_a_link_that_took_the_place_of_our_file_is_replaced_and_not_followed(tmp_path):
    await apply(tmp_path, machine.state(tmp_path))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "etc/web.yaml").unlink()
    (tmp_path / "etc/web.yaml").symlink_to(victim)

    await apply(tmp_path, machine.state(tmp_path, revision="two"))

    assert victim.read_text() == "precious"
    assert not (tmp_path / "etc/web.yaml").is_symlink()


@pytest.mark.parametrize("name", [f"etc/{STAGED}", f"var/{STAGED}", "var/secrets", "var/known_hosts"])
async def test_a_folder_of_ours_that_is_a_link_leads_nowhere(tmp_path, name):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).symlink_to(elsewhere)

    with contextlib.suppress(TerminalError):
        await apply(tmp_path, machine.state(tmp_path, secrets=("db",), known_hosts="x\n"))

    assert tree(elsewhere) == {"precious": b"precious"}


async def test_a_folder_that_others_may_write_is_refused(tmp_path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc").chmod(0o777)

    with pytest.raises(TerminalError, match="can be written by others"):
        await apply(tmp_path, machine.state(tmp_path))


async def test_an_edit_stays_where_drift_is_only_reported(tmp_path):
    def reporting(revision: str, options: str) -> DesiredState:
        text = machine.config(options=f"source_directories: [/etc]\n{options}")
        jobs = (machine.job().model_copy(update={"drift": "report"}),)
        return machine.state(tmp_path, revision=revision, files={"web": text}, jobs=jobs)

    await apply(tmp_path, reporting("one", "keep_daily: 7\n"))
    file = tmp_path / "etc/web.yaml"
    file.write_text("edited by hand\n")

    await apply(tmp_path, reporting("two", "keep_daily: 7\n"))
    assert file.read_text() == "edited by hand\n"

    await apply(tmp_path, reporting("three", "keep_daily: 8\n"))
    assert "keep_daily: 8" in file.read_text()
    assert (tmp_path / "var/previous/web.yaml").read_text() == "edited by hand\n"


# --- Crashes ----------------------------------------------------------------------------------------------------------


def two_states(base: Path) -> tuple[DesiredState, DesiredState]:
    old = machine.state(
        base,
        revision="old",
        files={"a": machine.config(), "b": machine.config()},
        secrets=("one", "two"),
        known_hosts="old ssh-ed25519 AAAA\n",
    )
    new = machine.state(
        base,
        revision="new",
        files={"b": machine.config(), "c": machine.config()},
        secrets=("two", "three"),
        known_hosts="new ssh-ed25519 AAAA\n",
    )
    return old, new


# A kill at each step, which takes its time, is in tests/e2e/test_client_borg.py.


async def test_a_power_cut_during_validation_leaves_the_old_state(tmp_path):
    base = tmp_path / "machine"
    old, new = two_states(base)
    await apply(base, old)
    before = managed(base)
    (base / "new.json").write_text(new.model_dump_json())

    done = subprocess.run(
        [sys.executable, machine.PROGRAMS / "kill_at_every_step.py", base, machine.program("kills-its-parent")],
        input="100000\n",
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    applier(base).recover()

    assert done.stdout == "killed\n"
    assert managed(base) == before


def test_recovering_when_nothing_happened_does_nothing(tmp_path):
    assert applier(tmp_path).recover() is False
    assert tree(tmp_path) == {}


async def test_a_damaged_journal_is_told_and_not_guessed_at(tmp_path):
    await apply(tmp_path, machine.state(tmp_path))
    (tmp_path / "var" / STAGED).mkdir()
    (tmp_path / "var" / STAGED / "journal.json").write_text("{")

    with pytest.raises(TerminalError, match="journal"):
        applier(tmp_path).recover()
