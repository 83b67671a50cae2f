"""borgmatic as a program: where it is, the environment it gets, and process groups that always end.

Used by ``apply`` (validate), ``runner``, ``inventory`` and ``doctor``. A program runs in a session of its own, so that
its whole group can be ended; the pipes are ours, not asyncio's, so that a grandchild that keeps one open cannot keep us
waiting once the program itself is gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from schema.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    "BORG_BASE_DIR",
    "BORG_CACHE_DIR",
    "BORG_CONFIG_DIR",
    "BORG_KEYS_DIR",
    "BORG_SECURITY_DIR",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "CREDENTIALS_DIRECTORY",  # systemd's, for {credential systemd …}
)
"""All that borgmatic inherits from us. No BORG_PASSPHRASE: a passphrase comes from the configuration alone."""

GRACE_SECONDS = 30.0
"""How long a group may take to end after SIGTERM: Borg writes a checkpoint and gives its lock back."""

_CHUNK = 65_536
_DRAIN_SECONDS = 2.0
_POLL_SECONDS = 0.05
_MAX_OUTPUT = 64 * 1024 * 1024


class BorgmaticMissing(TerminalError):
    """The program is not there, or cannot be executed."""

    def __init__(self, program: str) -> None:
        super().__init__(
            f"cannot start borgmatic: '{program}' is not there or not executable",
            hint='install borgmatic on this machine, or set `borgmatic = "/path/to/borgmatic"` in client.toml',
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; ``exit_code`` is negative for a signal. ``timed_out``: we ended it."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""
    timed_out: bool = False


def find(program: str) -> str:
    """Return the path of ``program``: a bare name is looked for beside our own interpreter, then on PATH."""
    if "/" in program:
        return program
    beside = Path(sys.executable).with_name(program)
    return str(beside) if os.access(beside, os.X_OK) else shutil.which(program) or program


def environment(inherited: Mapping[str, str], *, also: Iterable[str] = ()) -> dict[str, str]:
    """Return the minimal environment, made from ``inherited``; ``also`` names what local policy passes on besides."""
    names = (*PASSED_ON, *also)
    chosen = {name: inherited[name] for name in names if name in inherited}
    return {"PATH": os.defpath, "LANG": "C.UTF-8", **chosen}


def opened_secrets(state_directory: Path) -> list[str]:
    """Return the opened values on this machine, so that no text that leaves it carries one away."""
    values = []
    with contextlib.suppress(OSError):
        for path in (state_directory / "secrets").iterdir():
            with contextlib.suppress(OSError):
                values.append(path.read_bytes().decode("utf-8", "replace"))
    return values


class Running(Protocol):
    """A program that was started, and everything it started."""

    @property
    def id(self) -> int:
        """The process group."""

    async def wait(self) -> int:
        """Return the exit code of the program. When a signal killed it, what it started is ended as well."""

    async def end(self, *, grace: float = GRACE_SECONDS) -> int:
        """End the whole group: politely, then for certain. Returns the program's exit code."""


class Start(Protocol):
    """How programs are started: ``start``, or what stands in for this machine in the simulator."""

    async def __call__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        stdout: Callable[[bytes], None],
        stderr: Callable[[bytes], None],
        inherited: Sequence[int] = (),
    ) -> tuple[Running, asyncio.Task[None]]:
        """Start a program; its output goes to the callbacks. The task ends when both outputs are closed."""


class Group:
    """A running program of this machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def id(self) -> int:
        return self._process.pid

    async def wait(self) -> int:
        code = await self._process.wait()
        if code < 0:
            await self.end()
        return code

    async def end(self, *, grace: float = GRACE_SECONDS) -> int:
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._process.wait()
                # Borg may still be busy giving its lock back when borgmatic is gone.
                while _is_alive(self.id):  # noqa: ASYNC110 - a process group wakes nobody when it ends
                    await asyncio.sleep(_POLL_SECONDS)
        self._signal(signal.SIGKILL)
        return await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def _is_alive(group: int) -> bool:
    """Whether a process of the group runs. Zombies do not: in a container nobody may ever collect them. See proc(5)."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            state, _, number = path.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(number) == group and state not in {"Z", "X"}:
                return True
    return False


async def start(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdout: Callable[[bytes], None],
    stderr: Callable[[bytes], None],
    inherited: Sequence[int] = (),
) -> tuple[Group, asyncio.Task[None]]:
    """Start a program; its output goes to the callbacks in chunks. The task ends when both outputs are closed.

    ``inherited`` are descriptors that stay open in it: the locks of ``client.turns``.
    """
    pipes = [os.pipe(), os.pipe()]
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipes[0][1],
            stderr=pipes[1][1],
            env=dict(environment),
            start_new_session=True,
            pass_fds=tuple(inherited),
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        _close(*(pipe[0] for pipe in pipes))
        raise BorgmaticMissing(arguments[0]) from None
    except OSError as error:
        _close(*(pipe[0] for pipe in pipes))
        raise TransientError(f"cannot start '{arguments[0]}': {error.strerror}") from error
    finally:
        _close(*(pipe[1] for pipe in pipes))
    return Group(process), asyncio.create_task(_both(_pump(pipes[0][0], stdout), _pump(pipes[1][0], stderr)))


async def finish(group: Running, output: asyncio.Task[None]) -> int:
    """Return the exit code once the program ended and its output was read, whoever still holds the pipe."""
    code = await group.wait()
    await drain(output)
    return code


async def drain(output: asyncio.Task[None]) -> None:
    """Read what is left of the output, for a bounded time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DRAIN_SECONDS):
            await output


async def call(
    arguments: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout: float,
    grace: float = GRACE_SECONDS,
    inherited: Sequence[int] = (),
    start: Start = start,
) -> Ended:
    """Run a program to its end and return its output; past ``timeout`` seconds or when cancelled, its group ends."""
    outputs = bytearray(), bytearray()

    def keep(into: bytearray) -> Callable[[bytes], None]:
        return lambda chunk: into.extend(chunk[: max(0, _MAX_OUTPUT - len(into))])

    group, output = await start(
        arguments, environment=environment, stdout=keep(outputs[0]), stderr=keep(outputs[1]), inherited=inherited
    )
    timed_out = False
    try:
        async with asyncio.timeout(timeout):
            code = await finish(group, output)
    except TimeoutError:
        timed_out, code = True, await group.end(grace=grace)
        await drain(output)
    except asyncio.CancelledError:
        await group.end(grace=grace)
        raise
    finally:
        output.cancel()
    return Ended(code, bytes(outputs[0]), bytes(outputs[1]), timed_out)


async def _both(first: Awaitable[None], second: Awaitable[None]) -> None:
    await asyncio.gather(first, second)


async def _pump(descriptor: int, into: Callable[[bytes], None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_CHUNK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        while chunk := await reader.read(_CHUNK):
            into(chunk)
    finally:
        transport.close()


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
