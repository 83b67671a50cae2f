"""The demo's stage: a scratch folder with sample data, a bare Git repository, a director, two clients, a dashboard.

Everything is real: the programs that people install, Git, borgmatic and Borg. Everything is below one scratch folder,
on loopback, and is removed at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ("atlas", "luna")
PASSPHRASE = "correct horse battery staple"  # noqa: S105 - protects sample data only


class DemoFailed(Exception):
    """Something did not happen that should have."""


def program(name: str) -> str:
    """Return the path of one of our programs, beside the interpreter that runs the demo."""
    return str(Path(sys.executable).with_name(name))


def wait_for(what: str, check: Callable[[], Any], *, seconds: float = 30) -> Any:
    """Return the first true answer of ``check``; ``DemoFailed`` when none comes in time."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, json.JSONDecodeError, KeyError, StopIteration, subprocess.CalledProcessError):
            if answer := check():
                return answer
        if time.monotonic() > deadline:
            raise DemoFailed(f"{what}: not within {seconds:.0f} seconds")
        time.sleep(0.2)


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Stage:
    """One running demo. Use as a context manager: leaving it stops every process and removes the scratch folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "backups"
        self.bare = folder / "backups.git"
        self.web_port = free_port()
        self.port = free_port()
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        # Nothing of the person who runs the demo takes part: no Git identity, no SSH agent, no Borg environment.
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Demo",
            "GIT_AUTHOR_EMAIL": "demo@example.org",
            "GIT_COMMITTER_NAME": "Demo",
            "GIT_COMMITTER_EMAIL": "demo@example.org",
            "BORGMATIC_DIRECTOR_CONFIG": str(folder / "director.toml"),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self.processes):
            self.stop(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Programs -----------------------------------------------------------------------------------------------------

    def run(
        self, *command: str, text: str | None = None, check: bool = True, also: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return what it printed."""
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            text=True,
            env={**self.environment, **(also or {})},
            check=False,
            timeout=120,
        )
        if check and done.returncode:
            raise DemoFailed(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def git(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Git in the person's work tree."""
        return self.run("git", "-C", str(self.source), *arguments, check=check)

    def director(
        self, *arguments: str, text: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a director command."""
        return self.run(program("director"), *arguments, text=text, check=check)

    def read(self, *arguments: str) -> Any:
        """Run a director command and return its JSON; exit 1 only says that something was found."""
        done = self.director(*arguments, "-o", "json", check=False)
        if done.returncode > 1:
            raise OSError(done.stderr)
        return json.loads(done.stdout)

    def client(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a client command as the machine ``name``."""
        return self.run(program("director-client"), *self.client_options(name, arguments), check=check)

    def client_options(self, name: str, arguments: tuple[str, ...]) -> list[str]:
        """Return the arguments with which ``name``'s own settings are used."""
        return ["--config", str(self.folder / name / "client.toml"), *arguments]

    def start(self, name: str, *command: str) -> None:
        """Start a program that goes on, its output in a log file."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )

    def start_director(self) -> None:
        """Start the director with its dashboard, and wait until it answers."""
        self.start("director", program("director"), "run")
        wait_for("the director starts", lambda: self.read("token", "list") is not None)

    def start_client(self, name: str) -> None:
        """Start a client's service."""
        self.start(name, program("director-client"), *self.client_options(name, ("run",)))

    def stop(self, name: str) -> None:
        """Stop a program as a service manager would, and its whole group if it does not listen."""
        process = self.processes.pop(name, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)

    def kill(self, name: str) -> None:
        """Kill a program as a power cut would."""
        process = self.processes.pop(name)
        process.kill()
        process.wait(5)

    def page(self, path: str) -> str:
        """Return a page of the dashboard."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=10) as answer:
                text: str = answer.read().decode()
                return text
        except OSError as error:
            raise DemoFailed(f"the page {path} cannot be read: {error}") from error

    # --- Setting up ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the sample data, the machines' settings, and the repository with the hooks."""
        (self.folder / "home").mkdir()
        (self.folder / "nas").mkdir()  # as if it were mounted: a client makes repositories, never the disk's own folder
        for name in CLIENTS:
            for place in ("etc", "srv/photos", "srv/documents", "usr/local", "home"):
                data = self.folder / name / "data" / place
                data.mkdir(parents=True)
                for number in range(20):
                    (data / f"file-{number}.txt").write_text(f"{name} {place} {number}\n" * 400, encoding="utf-8")
            (self.folder / name / "borgmatic.d").mkdir()
            (self.folder / name / "client.toml").write_text(
                f'name = "{name}"\n'
                f'config_directory = "{self.folder / name / "borgmatic.d"}"\n'
                f'state_directory = "{self.folder / name / "state"}"\n',
                encoding="utf-8",
            )
        (self.folder / "director.toml").write_text(
            f'state_directory = "{self.folder / "director"}"\n'
            f'[source]\nurl = "{self.bare}"\ninterval = "10s"\n'
            f'[listen]\naddress = "127.0.0.1:{self.port}"\n'
            f'[web]\naddress = "127.0.0.1:{self.web_port}"\n',
            encoding="utf-8",
        )
        self.director("init", "--bare", str(self.bare))
        shutil.copytree(ROOT / "examples" / "homelab", self.source)
        self.run("git", "init", "--quiet", "--initial-branch=main", str(self.source))
        self.git("remote", "add", "deploy", str(self.bare))

    def enrol(self) -> dict[str, str]:
        """Enrol both clients with one token, start them, and return the public keys they wait with."""
        token = self.director("token", "create", "--uses", "2", "--note", "demo").stdout.strip()
        for name in CLIENTS:
            self.client(name, "enroll", token)
            self.start_client(name)
        wait_for("both clients wait for approval", lambda: len(self.read("clients", "pending")) == len(CLIENTS))
        return {one["name"]: one["publicKey"] for one in self.read("clients", "pending")}

    def adapt(self, keys: dict[str, str]) -> None:
        """Turn the example into this machine's: keys, directories, paths, and a schedule of every minute."""
        for name in CLIENTS:
            with self.edit(f"clients/{name}.yaml") as client:
                client["spec"]["publicKey"] = keys[name]
                client["spec"]["directories"] = {
                    "config": str(self.folder / name / "borgmatic.d"),
                    "state": str(self.folder / name / "state"),
                }
        with self.edit("clients/luna.yaml") as client:
            client["spec"]["drift"] = "report"
        with self.edit("repositories/nas.yaml") as repository:
            repository["spec"]["url"] = f"{self.folder}/nas/${{client}}"
            del repository["spec"]["mountpoint"]
        data = {"photos": "atlas", "home": "luna"}
        for backup in ("photos", "home", "system"):
            with self.edit(f"backups/{backup}.yaml") as resource:
                sources = resource["spec"]["borgmatic"]["source_directories"]
                owner = data.get(backup, "atlas")
                resource["spec"]["borgmatic"]["source_directories"] = [
                    f"{self.folder}/{owner}/data{path}" for path in sources
                ]
        for schedule in ("nightly", "lunchtime"):
            with self.edit(f"schedules/{schedule}.yaml") as resource:
                resource["spec"]["cron"] = "* * * * *"
                resource["spec"].pop("jitter", None)
        self.director("seal", str(self.source), "borg-passphrase", "passphrase", text=PASSPHRASE)

    @contextlib.contextmanager
    def edit(self, path: str) -> Iterator[Any]:
        """Edit a YAML file as a person would: comments stay."""
        yaml = YAML()
        yaml.width = 10_000
        file = self.source / path
        document = yaml.load(file.read_text(encoding="utf-8"))
        yield document
        with file.open("w", encoding="utf-8") as stream:
            yaml.dump(document, stream)

    def push(self, message: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Commit everything and push it, which deploys it."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("push", "--quiet", "deploy", "HEAD:main", check=check)
