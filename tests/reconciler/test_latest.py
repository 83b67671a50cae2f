"""Facts of the moment: how often they are written."""

from __future__ import annotations

import asyncio

import pytest

from reconciler.store.latest import Latest


class Written:
    """What was written, and when by the loop's time."""

    def __init__(self) -> None:
        self.writes: list[tuple[float, dict[str, int]]] = []

    async def write(self, values) -> None:
        self.writes.append((asyncio.get_running_loop().time(), dict(values)))

    async def become(self, number: int) -> None:
        while len(self.writes) < number:
            await asyncio.sleep(0)


async def test_only_the_newest_of_each_key_is_written():
    written = Written()
    latest = Latest(written.write, every=0.01)
    for value in range(3):
        latest.put("a", value)
        latest.put("b", value)
    await written.become(1)

    assert [values for _, values in written.writes] == [{"a": 2, "b": 2}]


@pytest.mark.parametrize(("keys", "rest"), [(10, 0.02), (20, 0.04), (100, 0.2)])
async def test_many_keys_are_written_less_often(keys, rest):
    written = Written()
    latest = Latest(written.write, every=0.02, many=10)
    for number in range(2):
        for key in range(keys):
            latest.put(str(key), number)
        await written.become(number + 1)
    first, second = (at for at, _ in written.writes)

    # The loop may be late, and is never early.
    assert second - first >= rest - 0.005


async def test_what_waits_is_written_at_the_close():
    written = Written()
    latest = Latest(written.write, every=1_000.0)
    latest.put("a", 1)
    await written.become(1)
    latest.put("a", 2)
    await latest.close()

    assert [values for _, values in written.writes] == [{"a": 1}, {"a": 2}]
