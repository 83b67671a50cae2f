"""A small fleet for the tests: a director and clients as the real programs, each with a folder of its own.

::

    with Fleet(tmp_path) as fleet:
        fleet.start_director()
        fleet.enrol("atlas", "luna")
        fleet.write(...); fleet.push("Back it up")
        until("atlas follows", lambda: fleet.clients()["atlas"]["following"] == "current")

The source is a bare Git repository with our hooks, as ``director init --bare`` makes it. Whatever was started ends with
the ``with`` block. ``kill`` is a power cut for one process, ``stop`` what a service manager does.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from schema.envelope import DirectorIdentity, parse_client_key, seal_for_client
from tests.git_repository import GitRepository

T = TypeVar("T")

PASSPHRASE = "correct-horse-battery-staple"
FAST_CLIENT = Path(__file__).with_name("fast_client.py")

_API = "apiVersion: borgmatic.director/v1\n"

SCHEDULE = _API + 'kind: Schedule\nmetadata: {{name: often}}\nspec: {{cron: "{cron}", catchUp: true}}\n'
REPOSITORY = (
    _API
    + """\
kind: Repository
metadata: {{name: nas}}
spec:
  url: {folder}/nas/${{client}}-${{backup}}
  create: true
  encryption: {{passphraseFrom: {{secret: nas}}}}
"""
)
CLIENT = (
    _API
    + """\
kind: Client
metadata: {{name: {name}}}
spec:
  publicKey: {key}
  directories: {{config: {folder}/{name}/etc, state: {folder}/{name}/var}}
"""
)
BACKUP = (
    _API
    + """\
kind: Backup
metadata: {{name: {name}}}
spec:
  clients: [{client}]
  repositories: [nas]
  {schedule}
  actions: [create]
  borgmatic:
    source_directories: [{folder}/{client}/source]
{options}"""
)


class NotInTime(AssertionError):
    """Something did not come about."""


def until(what: str, look: Callable[[], T], *, seconds: float = 40) -> T:
    """Return the first true answer of ``look``. A real process has no event to wait for: it is asked again."""
    end = time.monotonic() + seconds
    trouble: Exception | None = None
    while True:
        try:
            if answer := look():
                return answer
            trouble = None
        except (OSError, ValueError, KeyError, StopIteration, subprocess.SubprocessError, sqlite3.Error) as error:
            trouble = error
        if time.monotonic() > end:
            raise NotInTime(f"{what}: not within {seconds:.0f} seconds{f' ({trouble})' if trouble else ''}")
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def program(name: str) -> str:
    """Return one of our programs, from beside the interpreter that runs the tests."""
    return str(Path(sys.executable).with_name(name))


class Fleet:
    """One director and its clients below ``folder``."""

    def __init__(self, folder: Path, *, speed: float = 1, pages: bool = False) -> None:
        """``speed`` is how fast the clients' clock runs (see ``fast_client``); ``pages`` serves the dashboard."""
        self.folder = folder
        self.speed = speed
        self.began = time.time()
        self.port = free_port()
        self.pages_port = free_port() if pages else 0
        self.director_folder = folder / "d"  # short: a Unix socket's path has at most 107 characters
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.prefix: tuple[str, ...] = ()
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "BORGMATIC_DIRECTOR_CONFIG": str(folder / "director.toml"),
            **{name: value for name, value in os.environ.items() if name.startswith("GIT_")},
        }
        for name in ("home", "nas"):
            (folder / name).mkdir(parents=True)
        web = f'address = "127.0.0.1:{self.pages_port}"' if pages else "enabled = false"
        (folder / "director.toml").write_text(
            f'state_directory = "{self.director_folder}"\nresync = "10s"\n'
            f'[source]\nurl = "{folder}/source.git"\ninterval = "5s"\n'
            f'[listen]\naddress = "127.0.0.1:{self.port}"\n[web]\n{web}\n'
        )
        self.director("init", "--bare", str(folder / "source.git"))
        self.source = GitRepository(folder / "source")
        self.keys: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
        for log in sorted(self.folder.glob("*.log")):  # pytest shows it when the test failed
            sys.stdout.write(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").split("\n")[-40:]))

    @property
    def dashboard(self) -> str:
        """The URL of the dashboard (``pages``)."""
        return f"http://127.0.0.1:{self.pages_port}"

    # --- Programs -----------------------------------------------------------------------------------------------------

    def inside(self, name: str) -> None:
        """Run every command from now on where that program runs: in the mount namespace that its wrapper made."""
        self.prefix = ("nsenter", f"--target={self.processes[name].pid}", "--mount")

    def run(
        self, *command: str, text: str | None = None, check: bool = True, also: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        done = subprocess.run(
            [*self.prefix, *command],
            input=text,
            capture_output=True,
            text=True,
            env={**self.environment, **(also or {})},
            check=False,
            timeout=60,
        )
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done

    def director(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a director command."""
        return self.run(program("director"), *arguments, text=text, check=check)

    def ask(self, *arguments: str) -> Any:
        """Run a director command and return its JSON; exit 1 only says that something was found."""
        done = self.director(*arguments, "-o", "json", check=False)
        if done.returncode > 1:
            raise OSError(done.stderr)
        return json.loads(done.stdout)

    def client(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a client command on the machine ``name``."""
        return self.run(program("director-client"), "--config", self.settings(name), *arguments, check=check)

    def start(
        self, name: str, *command: str, wrapper: Iterable[str] = (), also: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program that goes on; what it says is in ``<name>.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = self.processes[name] = subprocess.Popen(
                [*wrapper, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **(also or {})},
                start_new_session=True,
            )
        return process

    def start_director(self, *, wait: bool = True, wrapper: Iterable[str] = ()) -> None:
        """Start the director, and wait until it answers on its socket."""
        self.start("director", program("director"), "run", wrapper=wrapper)
        if wait:
            until("the director answers", self.director_answers)

    def director_answers(self) -> bool:
        """Whether the director takes commands."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.director_folder / "director.sock"))
            return True

    def start_client(self, name: str, *, wrapper: Iterable[str] = ()) -> None:
        """Start a client's service."""
        if self.speed == 1:
            self.start(name, program("director-client"), "--config", self.settings(name), "run", wrapper=wrapper)
            return
        clock = {"FAST_CLOCK": f"{self.speed} {self.began}", "PYTHONPATH": str(FAST_CLIENT.parents[2])}
        command = (sys.executable, str(FAST_CLIENT), self.settings(name), str(self.record(name)))
        self.start(name, *command, wrapper=wrapper, also=clock)

    def stop(self, name: str) -> int:
        """Stop a program as a service manager would; return its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(30)

    def kill(self, name: str) -> None:
        """Kill a program, and nothing that it started, as the kernel does when memory runs out."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def log(self, name: str) -> str:
        """Return what a program has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    # --- Machines -----------------------------------------------------------------------------------------------------

    def settings(self, name: str) -> str:
        """Return the path of a client's settings."""
        return str(self.folder / name / "client.toml")

    def add_machine(self, name: str, *, settings: str = "") -> None:
        """Make the machine ``name``: something to back up, and settings."""
        machine = self.folder / name
        (machine / "source").mkdir(parents=True)
        (machine / "source/file").write_text(f"what matters on {name}\n" * 100)
        (machine / "etc").mkdir()
        (machine / "client.toml").write_text(
            f'name = "{name}"\nconfig_directory = "{machine}/etc"\nstate_directory = "{machine}/var"\n'
            f"policy.minimum_kept = 0\n{settings}\n"
        )

    def enrol(self, *names: str) -> None:
        """Enrol and start machines that ``add_machine`` made, and learn their keys; nobody has approved them yet."""
        token = self.director("token", "create", "--uses", str(len(names))).stdout.strip()
        for name in names:
            self.client(name, "enroll", token)
            self.keys[name] = json.loads(self.client(name, "fingerprint", "-o", "json").stdout)["publicKey"]
            self.start_client(name)

    def record(self, name: str) -> Path:
        """Return where a fast client writes down its runs."""
        return self.folder / f"{name}.record"

    def recorded(self, name: str) -> dict[str, str]:
        """Return by run what a fast client has written down last of it: ``started``, or its outcome."""
        lines = self.record(name).read_text().split("\n")[:-1] if self.record(name).exists() else []
        return dict(line.split(" ") for line in lines if not line.startswith("event "))

    def recorded_events(self, name: str) -> Counter[str]:
        """Return how often a fast client has told of what, by reason."""
        lines = self.record(name).read_text().split("\n")[:-1] if self.record(name).exists() else []
        return Counter(line.removeprefix("event ") for line in lines if line.startswith("event "))

    def managed(self, client: str) -> dict[str, bytes]:
        """Return the managed files of a machine, by name."""
        return {path.name: path.read_bytes() for path in sorted((self.folder / client / "etc").glob("*.yaml"))}

    def outbox(self, client: str, query: str) -> list[tuple[Any, ...]]:
        """Return what is in a client's outbox."""
        return _select(self.folder / client / "var/outbox.sqlite", query)

    # --- What people write --------------------------------------------------------------------------------------------

    def approve_in_source(self, *names: str, suspend: Iterable[str] = ()) -> None:
        """Write the ``Client`` of each machine, the repository ``nas`` and its passphrase, sealed to all of them."""
        for name in names:
            text = CLIENT.format(name=name, key=self.keys[name], folder=self.folder)
            self.source.write(f"clients/{name}.yaml", text + ("  suspend: true\n" if name in suspend else ""))
        self.source.write("nas.yaml", REPOSITORY.format(folder=self.folder))
        self.seal(PASSPHRASE)

    def seal(self, passphrase: str) -> None:
        """Write the passphrase of ``nas``, sealed to every client of the source."""
        lines = [_API + "kind: Secret\nmetadata: {name: nas}\nspec:\n  values:\n    passphrase:\n      clients:"]
        for file in sorted((self.source.directory / "clients").glob("*.yaml")):
            key = parse_client_key(self.keys[file.stem])
            sealed = seal_for_client(passphrase.encode(), secret="nas", key="passphrase", client=file.stem, to=key)
            lines.append(f"        {file.stem}: {sealed}")
        self.source.write("secrets/nas.yaml", "\n".join(lines) + "\n")

    def write_backup(self, name: str, client: str, *, cron: str = "", **options: str) -> None:
        """Write a backup of the machine's ``source``; with ``cron``, also the schedule that it follows."""
        if cron:
            self.source.write("schedule.yaml", SCHEDULE.format(cron=cron))
        text = BACKUP.format(
            name=name,
            client=client,
            folder=self.folder,
            schedule="schedule: often" if cron else "timeout: 1h",
            options="".join(f"    {option}: {value}\n" for option, value in options.items()),
        )
        self.source.write(f"backups/{name}.yaml", text)

    def push(self, message: str) -> str:
        """Commit everything and push it to the director's repository; return the revision."""
        revision = self.source.commit(message)
        self.source.push(self.folder / "source.git", "HEAD:main")
        return revision

    # --- What the director knows --------------------------------------------------------------------------------------

    def clients(self) -> dict[str, Any]:
        """Return ``director clients list`` by name."""
        return {one["name"]: one for one in self.ask("clients", "list")}

    def follows(self, *names: str, revision: str | None = None) -> bool:
        """Whether all of them are connected and follow the newest desired state (of ``revision``)."""
        clients = self.clients()
        return all(
            clients[name]["following"] == "current"
            and clients[name]["connected"]
            and revision in {None, clients[name]["appliedRevision"]}
            for name in names
        )

    def runs(self, **filters: str) -> list[Any]:
        """Return ``director runs``."""
        arguments = [word for name, value in filters.items() for word in (f"--{name}", value)]
        return list(self.ask("runs", "--limit", "1000", *arguments))

    def store(self, query: str) -> list[tuple[Any, ...]]:
        """Return what is in the director's store."""
        return _select(self.director_folder / "store.sqlite", query)

    def copy_store(self, to: Path) -> None:
        """Copy the store of a director that does not run."""
        to.mkdir()
        for part in self.director_folder.glob("store.sqlite*"):
            shutil.copy2(part, to / part.name)

    def restore_store(self, copy: Path) -> None:
        """Put such a copy back."""
        for part in self.director_folder.glob("store.sqlite*"):
            part.unlink()
        for part in copy.iterdir():
            shutil.copy2(part, self.director_folder / part.name)

    @property
    def identity(self) -> DirectorIdentity:
        """The director's own key."""
        return DirectorIdentity.from_text((self.director_folder / "identity").read_text())

    # --- What Borg knows ----------------------------------------------------------------------------------------------

    def archives(self, client: str, backup: str) -> list[str]:
        """Return the names of the archives in the repository of a backup, as Borg itself lists them."""
        path = str(self.folder / "nas" / f"{client}-{backup}")
        also = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
        return self.run("borg", "list", "--short", "--lock-wait", "30", path, also=also).stdout.split()


def _select(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as sql:
        return sql.execute(query).fetchall()
