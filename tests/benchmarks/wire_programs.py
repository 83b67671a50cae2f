"""Programs of the wire, each on one core: started, told what to do in lines, measured and ended.

``wire_director`` is the real director and ``wire_floor`` the bare one; both are told the same words. ``wire_load`` is a
fleet of clients: one for each of them, so that neither meets the limit of open files for two.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar

import uvloop

from tests.benchmarks.processes import Program, staying_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping

    Words = Mapping[str, Callable[..., Awaitable[Mapping[str, Any]]]]

T = TypeVar("T")

SPARE_HANDLES: Final = 200
NICENESS: Final = -10
DIRECTOR: Final = "tests.benchmarks.wire_director"
FLOOR: Final = "tests.benchmarks.wire_floor"
LOAD: Final = "tests.benchmarks.wire_load"


class Told(Program):
    """A program of the wire: it is told words in lines, and answers each in a line when it is done."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        super().__init__(process)
        self._pipes = process
        self.first = self.wait()
        """What it says when it is ready."""

    def tell(self, *words: object) -> None:
        """Tell it to do something."""
        assert self._pipes.stdin is not None
        self._pipes.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        self._pipes.stdin.flush()

    def wait(self) -> dict[str, Any]:
        """Return what it says when that is done."""
        assert self._pipes.stdout is not None
        line = self._pipes.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._pipes.args!r} ended")
        found: dict[str, Any] = json.loads(line)
        return found

    def ask(self, *words: object) -> dict[str, Any]:
        """Tell, and wait."""
        self.tell(*words)
        return self.wait()

    def kill(self) -> None:
        """End it as a power cut does."""
        self._pipes.kill()
        self._pipes.wait()

    def stop(self) -> None:
        """End it as a restart does: it says goodbye to everybody."""
        assert self._pipes.stdin is not None
        self._pipes.stdin.close()
        self._pipes.wait()


@contextlib.contextmanager
def told(module: str, *, cores: set[int], **options: object) -> Iterator[Told]:
    """Run a program of the wire on these cores, and end it afterwards."""
    words = [f"--{name}={value}" for name, value in options.items()]
    with staying_on(cores):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
    with process:
        try:
            yield Told(process)
        finally:
            # Nothing that it could still do is of use to anybody.
            process.kill()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what comes of the work, done as the director does it: on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


async def obey(first: Mapping[str, Any], words: Words) -> None:
    """In such a program: say ``first``, then do what it is told until nobody is there any more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(first)
    while line := await reader.readline():
        word, *rest = line.decode().split()
        _say(await words[word](*rest))


def _say(found: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(found) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def preferred() -> Iterator[None]:
    """Go before most other programs of this machine, where that is allowed, with what is started meanwhile.

    Not before all of them, as ``processes.undisturbed``: the kernel carries packets and writes disks in threads that
    would have to wait too.
    """
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, NICENESS)
    try:
        yield
    finally:
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


@contextlib.contextmanager
def allow_sockets(count: int) -> Iterator[None]:
    """Let this program, and those that it starts meanwhile, hold so many sockets.

    Raises:
        RuntimeError: the machine does not allow it.
    """
    wanted = count + SPARE_HANDLES
    before = soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
    except ValueError:
        raise RuntimeError(f"only {hard} open files are allowed, and {wanted} are needed (ulimit -n)") from None
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
