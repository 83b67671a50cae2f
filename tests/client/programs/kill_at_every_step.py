"""Applies a desired state in a forked child and kills it, as a power cut would, right before its n-th file operation.

Reads a number a line, and prints ``killed`` or ``done``. Python's own audit events are the steps, so that the code that
is tested needs no door for this.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from client.apply import Applier
from client.policy import Policy
from schema.desired import DesiredState, SealedSecret
from schema.directories import Directories

STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir"}


def apply(base: Path, program: str, state: DesiredState) -> None:
    def unseal(secret: SealedSecret, client: str) -> bytes:
        return f"opened {secret.sealed}".encode()

    def persist() -> None:
        (base / "persisted").write_text(state.revision)

    directories = Directories(config=str(base / "etc"), state=str(base / "var"))
    applier = Applier(program=program, directories=directories, policy=Policy(), unseal=unseal)
    asyncio.run(applier.apply(state, persist=persist))


def kill_before(step: int, base: Path) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event not in STEPS:
            return
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    base, program = Path(sys.argv[1]), sys.argv[2]
    for line in sys.stdin:
        state = DesiredState.model_validate_json((base / "new.json").read_bytes())
        child = os.fork()
        if child == 0:
            kill_before(int(line), base)
            apply(base, program, state)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write("done\n" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else "killed\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
