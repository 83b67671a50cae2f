"""A store that the real store has written."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.web_readonly import seeded


@pytest.fixture(scope="session")
def seeded_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with twenty clients in it, to be read only."""
    path = tmp_path_factory.mktemp("seeded") / "store.db"
    asyncio.run(seeded.seed(path))
    return path


@pytest.fixture
def store(seeded_store: Path, tmp_path: Path) -> Path:
    """The same, of a test's own."""
    path = tmp_path / "store.db"
    shutil.copy(seeded_store, path)
    return path
