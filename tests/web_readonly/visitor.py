"""A browser at the dashboard of a store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiohttp.test_utils import TestClient, TestServer

from tests.web_readonly import seeded
from web_readonly.app import make_app
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Visitor = TestClient[Any, Any]


@asynccontextmanager
async def visiting(path: Path, **options: Any) -> AsyncIterator[Visitor]:
    reader = Reader(path)
    app = make_app(reader, now=lambda: seeded.NOW, **options)
    try:
        async with TestClient(TestServer(app, host="127.0.0.1")) as client:
            yield client
    finally:
        reader.close()
