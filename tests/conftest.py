"""What holds for every test: its own home, Git that is told who it is, and no connection that leaves the machine."""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog

from tests.order import dealt

TESTS = Path(__file__).parent
E2E = TESTS / "e2e"
UNITS = (
    TESTS / "schema",
    TESTS / "reconciler" / "core",
    *(TESTS / "client" / f"test_{name}.py" for name in ("policy", "scheduler", "trust", "settings", "drift")),
    *(TESTS / "reconciler" / f"test_{name}.py" for name in ("settings", "sealing", "scaffold", "keys")),
    TESTS / "web_readonly" / "test_formats.py",
)
"""What needs no socket, no database and no program: seconds, for working on the code. `make test` runs all."""
LONG = (E2E, TESTS / "browser", TESTS / "simulator", TESTS / "soak", TESTS / "fuzz")
"""What takes minutes: each of several workers begins with its part of it."""

ATTACKS = frozenset(re.findall(r"`(test_\w+)`", (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")))
"""The attacks and their twins, by the table that promises them."""

# Time limits belong to pytest-timeout: a slow machine is no counterexample. CI tries the same examples on every run.
hypothesis.settings.register_profile("borgmatic-director", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("borgmatic-director")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if getattr(item, "originalname", item.name) in ATTACKS:
            item.add_marker("attack")
        if E2E in item.path.parents:
            item.add_marker("e2e")
        if any(place in {item.path, *item.path.parents} for place in UNITS):
            item.add_marker("unit")
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        items[:] = dealt(
            items,
            file=lambda item: item.path,
            is_long=lambda path: not set(LONG).isdisjoint(path.parents),
            workers=workers,
        )


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """Commands choose where logs go and how many, for their whole process; a test's choice ends with the test."""
    former = structlog.get_config()
    yield
    structlog.configure(**former)


@pytest.fixture(scope="session", autouse=True)
def _environment_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a person has set up for Git, SSH, Borg, borgmatic or us may change what a test sees."""
    if threading.current_thread() is threading.main_thread():
        # A shell that starts tests in the background has them ignore SIGINT, and what they start would inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("BORG_", "BORGMATIC_", "DIRECTOR_", "GIT_", "SSH_", "XDG_")):
                patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("GIT_TERMINAL_PROMPT", "0")
        for role in ("AUTHOR", "COMMITTER"):
            patch.setenv(f"GIT_{role}_NAME", "A Person")
            patch.setenv(f"GIT_{role}_EMAIL", "person@example.org")
        patch.setenv("LC_ALL", "C.UTF-8")
        yield


def is_loopback(host: str) -> bool:
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


@pytest.fixture(scope="session", autouse=True)
def _no_connection_leaves_the_machine() -> Iterator[None]:
    connect = socket.socket.connect

    def connect_to_loopback(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6} and not is_loopback(address[0]):
            raise PermissionError(f"a test tried to connect to {address}, which is not on this machine")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_to_loopback)
        yield
