"""A gateway to knock at, and two machines that do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from reconciler.store import Store
from schema.envelope import ClientIdentity
from tests.reconciler.house import House


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty store's file, to be copied: making one takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "store.sqlite"

    async def make() -> None:
        await (await Store.open(path)).close()

    asyncio.run(make())
    return path


@pytest.fixture
async def house(tmp_path: Path, empty_store: Path) -> AsyncIterator[House]:
    made = House(tmp_path, empty_store=empty_store)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def me() -> ClientIdentity:
    return ClientIdentity.generate()


@pytest.fixture
def other() -> ClientIdentity:
    return ClientIdentity.generate()
