"""The installed ``director`` program as a process of its own: its log is read line by line, its end is awaited."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PROGRAM = Path(sys.executable).with_name("director")
CLIENT_PROGRAM = Path(sys.executable).with_name("director-client")
SECONDS = 60.0
"""How long anything may take on a machine that is busy with other tests."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class DirectorProcess:
    """``director WORDS…``. Leaving the context ends it, whatever happened."""

    def __init__(self, folder: Path, *words: object, config: str = "", **environment: str) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.web_port = free_port()
        self.config = folder / "director.toml"
        self.config.write_text(config)
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}",
            "BORGMATIC_DIRECTOR_CONFIG": str(self.config),
            "BORGMATIC_DIRECTOR_STATE_DIRECTORY": str(self.state),
            "BORGMATIC_DIRECTOR_LISTEN__ADDRESS": "127.0.0.1:0",
            "BORGMATIC_DIRECTOR_WEB__ADDRESS": f"127.0.0.1:{self.web_port}",
            "BORGMATIC_DIRECTOR_SOURCE__INTERVAL": "1h",  # nothing in these tests is owed to the timer
            **environment,
        }
        self.words = [str(PROGRAM), *map(str, words)]
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        self._reading.join(SECONDS)

    def start(self) -> None:
        self._lines = queue.Queue()
        self.process = subprocess.Popen(
            self.words, env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        if self.process.stdout is not None:
            with self.process.stdout as stream:
                for line in stream:
                    self._lines.put(line.decode())
        self._lines.put(None)

    def log(self, event: str, **values: object) -> dict[str, Any]:
        """Wait for a line of the log that says this, and return it."""
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            self.output.append(line)
            if line.startswith("{"):
                said: dict[str, Any] = json.loads(line)
                if said["event"] == event and all(said.get(name) == value for name, value in values.items()):
                    return said
        raise AssertionError(f"it ended before it said {event!r}:\n{''.join(self.output)}")

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def ended(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and all that it said."""
        code = self.process.wait(SECONDS)
        self._reading.join(SECONDS)
        while (line := self._lines.get(timeout=SECONDS)) is not None:
            self.output.append(line)
        return code, "".join(self.output)

    def command(self, *words: object, program: Path = PROGRAM) -> subprocess.CompletedProcess[str]:
        """Run another command with the same settings."""
        return subprocess.run(
            [program, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def read(self, *words: object) -> Any:
        """Return the JSON of a command."""
        done = self.command(*words, "-o", "json")
        assert done.returncode <= 1, f"{words} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def until(self, check: Callable[[], Any]) -> Any:
        """Look again after every change that the director tells of, until ``check`` is true; then return it."""
        from reconciler.commands.remote import Remote

        limit = threading.Timer(SECONDS, self.process.kill)
        limit.start()
        try:
            changes = Remote(self.state / "director.sock").changes()
            while not (found := check()):
                next(changes)
        except StopIteration:
            raise AssertionError(f"it ended, or took too long:\n{self.ended()[1]}") from None
        finally:
            limit.cancel()
        return found

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.web_port}{path}", timeout=SECONDS) as answer:
            text: str = answer.read().decode()
            return text
