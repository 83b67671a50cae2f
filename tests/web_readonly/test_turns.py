"""The line before the answers."""

from __future__ import annotations

import asyncio

import pytest

from web_readonly.turns import Turns


class Answers:
    """What began and ended; each answer lasts until it is told to end."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._ends: dict[str, asyncio.Event] = {}
        self.begun: list[str] = []

    def start(self, name: str) -> asyncio.Task[None]:
        self._ends[name] = asyncio.Event()
        return asyncio.create_task(self._make(name))

    def end(self, name: str) -> None:
        self._ends[name].set()

    async def _make(self, name: str) -> None:
        async with self._turns.mine():
            self.begun.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    """Let everything go on that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_answers_are_made_one_after_the_other_in_the_order_of_their_questions() -> None:
    answers = Answers(Turns(patience=60))
    tasks = [answers.start(name) for name in ("first", "second", "third")]
    await settle()
    assert answers.begun == ["first"]
    answers.end("first")
    await settle()
    assert answers.begun == ["first", "second"]
    answers.end("second")
    answers.end("third")
    await asyncio.gather(*tasks)
    assert answers.begun == ["first", "second", "third"]


async def test_an_answer_that_takes_long_keeps_nobody_waiting() -> None:
    answers = Answers(Turns(patience=0))
    slow = answers.start("slow")
    await settle()
    quick = answers.start("quick")
    answers.end("quick")
    await quick
    assert answers.begun == ["slow", "quick"]
    answers.end("slow")
    await slow


async def test_one_who_goes_away_or_fails_gives_up_the_turn() -> None:
    answers = Answers(turns := Turns(patience=60))
    first, waits = answers.start("first"), answers.start("waits")
    await settle()
    waits.cancel()
    first.cancel()
    await settle()
    with pytest.raises(ValueError, match="broken"):
        async with turns.mine():
            raise ValueError("broken")
    last = answers.start("last")
    answers.end("last")
    await last
    assert answers.begun == ["first", "last"]
