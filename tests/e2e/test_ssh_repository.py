"""A Borg repository behind a real sshd, from the YAML that a person writes to an archive: the way of a secret key.

The director's own build renders it, the client's own ``Applier`` puts it into place with the sealed private key opened,
and its ``Runner`` runs the real borgmatic and the real Borg over ssh.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.apply import Applier
from client.clock import SystemClock
from client.inventory import Inventories
from client.policy import Policy
from client.runner import Runner
from client.turns import Turns
from reconciler import borgmatic_schema
from reconciler.core.build import build
from reconciler.core.catalogue import SourceFile
from schema.desired import Content, DesiredState, SealedSecret
from schema.directories import Directories
from schema.envelope import ClientIdentity, seal_for_client
from schema.observed import ArchivesSeen, Outcome, Report, RunFinished, RunLog, Trigger
from tests.e2e.sshd import SSHServer, make_key, sshd

PASSPHRASE = "correct-horse-battery-staple"

SOURCE = """\
apiVersion: borgmatic.director/v1
kind: Client
metadata: {{name: web-1}}
spec:
  publicKey: {public_key}
  directories: {{config: {base}/etc, state: {base}/var}}
---
apiVersion: borgmatic.director/v1
kind: Secret
metadata: {{name: offsite}}
spec:
  values:
    passphrase: {{clients: {{web-1: {passphrase}}}}}
    ssh-key: {{clients: {{web-1: {ssh_key}}}}}
---
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {{name: offsite}}
spec:
  url: {url}
  create: {create}
  encryption: {{passphraseFrom: {{secret: offsite, key: passphrase}}}}
  sshKeyFrom: {{secret: offsite, key: ssh-key}}
  knownHosts: ["{known_hosts}"]
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {{name: web}}
spec:
  clients: [web-1]
  repositories: [offsite]
  borgmatic:
    source_directories: [{base}/source]
    keep_daily: 7
"""


@dataclass
class Machine:
    """A client's machine under ``base``, and what its source says about the repository behind ``server``."""

    base: Path
    server: SSHServer
    url: str = ""
    create: str = "true"
    key: bytes = b""
    known_hosts: str = ""
    identity: ClientIdentity = field(default_factory=ClientIdentity.generate)
    reports: list[Report] = field(default_factory=list)
    content: Content | None = None

    def __post_init__(self) -> None:
        for folder in ("source", "home"):
            (self.base / folder).mkdir(parents=True)
        (self.base / "source/file").write_text("what matters\n" * 100)
        self.url = self.server.url(f"{self.base}/borg/${{client}}")
        self.key = self.server.client_key_path.read_bytes()
        self.known_hosts = self.server.host_key_line
        self.environment = {"PATH": os.environ["PATH"], "HOME": str(self.base / "home")}
        self.directories = Directories(config=str(self.base / "etc"), state=str(self.base / "var"))
        (self.base / "borg").mkdir()

    @property
    def repository(self) -> Path:
        return self.base / "borg/web-1"

    def sealed(self, value: bytes, key: str) -> str:
        return seal_for_client(value, secret="offsite", key=key, client="web-1", to=self.identity.public)

    async def apply(self, revision: str = "one") -> None:
        text = SOURCE.format(
            public_key=self.identity.public.text,
            base=self.base,
            passphrase=self.sealed(PASSPHRASE.encode(), "passphrase"),
            ssh_key=self.sealed(self.key, "ssh-key"),
            url=self.url,
            create=self.create,
            known_hosts=self.known_hosts,
        )
        built = build(
            [SourceFile(path="all.yaml", blob=revision, data=text.encode())],
            borgmatic_schema=borgmatic_schema.load(None),
        )
        assert [str(problem) for problem in built.problems] == []
        self.content = built.contents["web-1"]
        now = datetime.now(UTC)
        state = DesiredState(
            audience=self.identity.public.text,
            generation=1,
            revision=revision,
            issued=now,
            expires=now + timedelta(days=90),
            digest=built.digests["web-1"],
            content=self.content,
        )
        applier = Applier(
            program="borgmatic",
            directories=self.directories,
            policy=Policy(),
            unseal=self.unseal,
            environment=self.environment,
        )
        await applier.apply(state, persist=lambda: None)

    def unseal(self, secret: SealedSecret, client: str) -> bytes:
        return self.identity.open_sealed(secret.sealed, secret=secret.secret, key=secret.key, client=client)

    async def run(self) -> RunFinished:
        assert self.content is not None
        job = self.content.jobs[0]
        clock = SystemClock()
        runner = Runner(
            program="borgmatic",
            config_directory=self.base / "etc",
            state_directory=self.base / "var",
            clock=clock,
            turns=Turns(state_directory=self.base / "var", clock=clock),
            environment=self.environment,
        )

        async def emit(report: Report) -> None:
            self.reports.append(report)

        return await runner.run(
            job,
            run_id="0" * 32,
            trigger=Trigger.PERSON,
            due=None,
            revision="one",
            emit=emit,
            progress=lambda _: None,
            newest=lambda: job,
        )

    async def inventory(self) -> ArchivesSeen:
        assert self.content is not None
        clock = SystemClock()
        inventories = Inventories(
            program="borgmatic",
            config_directory=self.base / "etc",
            state_directory=self.base / "var",
            turns=Turns(state_directory=self.base / "var", clock=clock),
            environment=self.environment,
        )
        (seen,) = await inventories.inventory(self.content.jobs[0], clock.now())
        return seen

    def text(self) -> str:
        return "\n".join(line.message for report in self.reports if isinstance(report, RunLog) for line in report.lines)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with sshd(tmp_path) as server:
        yield Machine(tmp_path / "machine", server)


async def test_a_repository_is_made_over_ssh_and_its_archives_are_seen(machine):
    await machine.apply()

    first = await machine.run()
    second = await machine.run()
    seen = await machine.inventory()

    assert (first.outcome, first.error) == (Outcome.SUCCEEDED, "")
    assert (second.outcome, second.error) == (Outcome.SUCCEEDED, "")
    assert [one.repository for one in first.statistics + second.statistics] == ["offsite", "offsite"]
    assert second.statistics[0].files == first.statistics[0].files
    # Nothing but the archive's own metadata: the files were there.
    assert second.statistics[0].deduplicated_size < first.statistics[0].deduplicated_size
    assert (seen.available, seen.count, seen.encryption) == (True, 2, "repokey-blake2")
    assert {one.id for one in seen.archives} == {one.statistics[0].archive_id for one in (first, second)}
    assert (machine.repository / "config").is_file()


async def test_a_repository_that_is_gone_from_its_server_is_not_made_anew(machine):
    await machine.apply()
    await machine.run()
    machine.repository.rename(machine.base / "away")

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert finished.error.startswith("repository 'offsite' is gone")
    assert not machine.repository.exists()


async def test_the_private_key_is_a_file_that_ssh_accepts_and_nobody_else_reads(machine):
    await machine.apply()

    key = machine.base / "var/secrets/offsite.ssh-key"
    known_hosts = machine.base / "var/known_hosts/offsite"

    assert key.read_bytes() == machine.server.client_key_path.read_bytes()
    assert [path.stat().st_mode & 0o777 for path in (key, known_hosts)] == [0o600, 0o600]
    assert (machine.base / "var/secrets").stat().st_mode & 0o777 == 0o700
    assert machine.server.host_key_line in known_hosts.read_text()
    assert PASSPHRASE not in (machine.base / "etc/web.yaml").read_text()


async def test_a_key_whose_last_line_break_was_lost_on_its_way_works_all_the_same(machine):
    """Pasting a key into ``director seal`` or ``$(cat key)`` loses the line break, without which ssh refuses it."""
    machine.key = machine.key.rstrip(b"\n")
    await machine.apply()

    finished = await machine.run()

    assert (finished.outcome, finished.error) == (Outcome.SUCCEEDED, "")


async def test_another_host_key_is_told_as_what_it_is_and_nothing_is_made(machine, tmp_path):
    other = make_key(tmp_path / "other")
    address = machine.known_hosts.split()[0]
    machine.known_hosts = f"{address} {' '.join(other.split()[:2])}"
    await machine.apply()

    finished = await machine.run()
    seen = await machine.inventory()

    assert finished.outcome is Outcome.FAILED
    assert "Host key verification failed" in finished.error
    assert "knownHosts" in finished.hint
    assert not machine.repository.exists()
    assert not seen.available
    assert "knownHosts" in seen.message


async def test_a_host_that_known_hosts_does_not_name_is_refused(machine, tmp_path):
    machine.known_hosts = f"other.example {' '.join(make_key(tmp_path / 'other').split()[:2])}"
    await machine.apply()

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "knownHosts" in finished.hint
    assert not machine.repository.exists()


async def test_a_key_that_the_server_does_not_know_is_told_as_what_it_is(machine, tmp_path):
    make_key(tmp_path / "stranger")
    machine.key = (tmp_path / "stranger").read_bytes()
    await machine.apply()

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "Permission denied (publickey" in finished.error
    assert "authorized_keys" in finished.hint
    assert not machine.repository.exists()
    assert "PRIVATE KEY" not in machine.text()


async def test_what_is_no_key_at_all_is_told_as_what_it_is(machine):
    machine.key = b"not a key\n"
    await machine.apply()

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "cannot read the private key" in finished.hint
    assert not machine.repository.exists()


async def test_a_port_where_nobody_listens_is_told_as_what_it_is(machine):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    machine.url = machine.url.replace(f":{machine.server.port}/", f":{port}/")
    machine.known_hosts = machine.known_hosts.replace(f":{machine.server.port} ", f":{port} ")
    await machine.apply()

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "Connection refused" in finished.error
    assert "cannot be reached" in finished.hint


async def test_a_repository_that_is_not_to_be_made_is_not(machine):
    machine.create = "false"
    await machine.apply()

    finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "does not exist" in finished.error
    assert "create: true" in finished.hint
    assert not machine.repository.exists()


async def test_a_server_without_borg_is_told_as_what_it_is(tmp_path):
    with sshd(tmp_path, command="no-such-borg serve") as server:
        machine = Machine(tmp_path / "machine", server)
        await machine.apply()

        finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "Borg installed there" in finished.hint or "is not installed" in finished.hint


async def test_a_server_that_forces_an_append_only_borg_serve_works(tmp_path):
    """How people run a hardened backup server: the key may do nothing but append below one folder."""
    allowed = tmp_path / "machine/borg"
    with sshd(tmp_path, command=f"borg serve --append-only --restrict-to-path {allowed}") as server:
        machine = Machine(tmp_path / "machine", server)
        await machine.apply()

        finished = await machine.run()
        again = await machine.run()
        seen = await machine.inventory()

    assert (finished.outcome, finished.error) == (Outcome.SUCCEEDED, "")
    assert (again.outcome, again.error) == (Outcome.SUCCEEDED, "")
    assert seen.count == 2


async def test_a_path_outside_of_what_the_server_allows_is_told_as_what_it_is(tmp_path):
    with sshd(tmp_path, command=f"borg serve --restrict-to-path {tmp_path}/elsewhere") as server:
        machine = Machine(tmp_path / "machine", server)
        await machine.apply()

        finished = await machine.run()

    assert finished.outcome is Outcome.FAILED
    assert "not allowed" in finished.error
    assert "restrict" in finished.hint
    assert not machine.repository.exists()
