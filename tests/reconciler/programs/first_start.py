"""Starts a director's state directory in a forked child, and kills it right before its n-th step (``tests.e2e.steps``).

Reads a folder and a number a line, and prints ``killed``, or what the start came to: the key and the certificate.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from reconciler.keys import load_identity, only_director, prepare_directory
from reconciler.store import Store
from reconciler.tls import self_signed_certificate
from tests.e2e import steps


async def start(folder: Path) -> str:
    prepare_directory(folder)
    with only_director(folder):
        identity = load_identity(folder / "identity")
        store = await Store.open(folder / "store.sqlite")
        certificate = self_signed_certificate(folder, names=["director.example"], now=datetime.now(UTC))
        await store.close()
    return f"{identity.public.text} {certificate.fingerprint}"


def kill_before(number: int) -> None:
    left = number

    def before(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            steps.die()

    steps.watch(before)


def main() -> None:
    for line in sys.stdin:
        folder, number = line.split()
        child = os.fork()
        if child == 0:
            if int(number):
                kill_before(int(number))
            sys.stdout.write(asyncio.run(start(Path(folder))) + "\n")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == -9:
            sys.stdout.write("killed\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
