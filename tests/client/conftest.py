"""One machine and the director that it follows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.director_stub import DirectorStub
from tests.client.fleet import Fleet


@pytest.fixture
async def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Fleet]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with DirectorStub() as director:
        one = Fleet(tmp_path, director)
        yield one
        await one.stop()
