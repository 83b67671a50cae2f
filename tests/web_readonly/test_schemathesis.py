"""Schemathesis asks the API what its OpenAPI document allows, and what it forbids, and finds no failure.

Every check it has is on. It asks a real server over loopback; the same questions each time.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.web_readonly import seeded
from web_readonly import openapi
from web_readonly.app import make_app, serving
from web_readonly.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXAMPLES = 12
"""Of each operation, in each mode; besides those that cover each parameter's bounds."""

_moments = st.datetimes(seeded.NOW.replace(tzinfo=None) - timedelta(days=900), seeded.NOW.replace(tzinfo=None))
schemathesis.openapi.format("cursor", st.just(""))
schemathesis.openapi.format("moment", _moments.map(lambda moment: moment.isoformat(timespec="minutes")))
schemathesis.openapi.format("day", _moments.map(lambda moment: moment.date().isoformat()))


def document() -> dict[str, Any]:
    """The document, with examples that are in the store, so that answers are looked at and not only refusals."""
    told = openapi.document()
    run = seeded.run_id("web-1", "system", 0)
    known = {"run": run, "revision": seeded.REVISIONS[5][:12], "archive": seeded.run_id(run, "archive") * 2}
    for path in told["paths"].values():
        for parameter in path["get"].get("parameters", ()):
            if parameter["name"] in known:
                parameter["example"] = known[parameter["name"]]
    return told


schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def address(seeded_store: Path) -> Iterator[str]:
    """The dashboard in a thread of its own: schemathesis waits for each answer."""
    found: list[str] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        with closing(Reader(seeded_store)) as reader:
            async with serving(make_app(reader, now=lambda: seeded.NOW), host="127.0.0.1", port=0) as url:
                found.append(url)
                started.set()
                await stopping.wait()

    stopping = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert started.wait(20)
    yield found[0]
    loop.call_soon_threadsafe(stopping.set)
    thread.join(20)
    loop.close()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
def test_schemathesis_finds_no_failure(case: schemathesis.Case, address: str):
    case.call_and_validate(base_url=address, timeout=20)
