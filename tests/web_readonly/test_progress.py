"""How far a run is and when it may end: never more certain than what was heard."""

from __future__ import annotations

from datetime import timedelta

from reconciler.store import Store
from schema.observed import RepositoryStatistics, RunProgress, Trigger
from schema.status import RunStatus
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly.progress import pace

NOW = seeded.NOW
BEGAN = NOW - timedelta(minutes=10)
GB = 10**9


def running(**heard) -> RunStatus:
    progress = {"at": NOW, "run": "a" * 32, "backup": "web", "phase": "create", **heard}
    return RunStatus(
        id="a" * 32,
        client="web-1",
        backup="web",
        trigger=Trigger.SCHEDULE,
        started=BEGAN,
        progress=RunProgress(**progress) if heard else None,
    )


def last(*sizes: int) -> RunStatus:
    statistics = tuple(RepositoryStatistics(repository=f"r{n}", original_size=size) for n, size in enumerate(sizes))
    return running().model_copy(update={"statistics": statistics})


def test_before_anything_was_heard_only_the_time_is_known():
    found = pace(running(), last=last(GB), now=NOW)

    assert found.elapsed == timedelta(minutes=10)
    assert (found.percent, found.remaining, found.bytes_rate, found.quiet) == (None, None, None, None)


def test_the_last_archive_is_the_guess_of_how_much_there_is():
    found = pace(running(original_size=6 * GB, files=1_200), last=last(8 * GB), now=NOW)

    assert (found.percent, found.guessed, found.expected) == (75.0, True, 8 * GB)
    assert (found.bytes_rate, found.files_rate) == (10_000_000, 2)
    assert found.remaining == timedelta(minutes=3)


def test_more_than_last_time_is_not_guessed_any_further():
    found = pace(running(original_size=9 * GB), last=last(8 * GB), now=NOW)

    assert (found.percent, found.guessed, found.expected, found.remaining) == (None, False, 0, None)
    assert found.bytes_rate == 15_000_000


def test_what_borg_itself_says_is_no_guess():
    found = pace(running(phase="check", percent=25), last=last(8 * GB), now=NOW)

    assert (found.percent, found.guessed, found.remaining) == (25.0, False, timedelta(minutes=30))


def test_each_repository_begins_at_nothing_and_its_rate_is_its_own():
    heard = running(original_size=3 * GB, since=NOW - timedelta(minutes=1))

    found = pace(heard, last=last(6 * GB, 6 * GB), now=NOW)

    assert (found.bytes_rate, found.remaining, found.repositories) == (50_000_000, timedelta(minutes=1), 2)
    assert found.elapsed == timedelta(minutes=10)


def test_a_rate_of_the_first_seconds_is_none():
    found = pace(running(original_size=GB, since=NOW - timedelta(seconds=2)), last=last(2 * GB), now=NOW)

    assert (found.percent, found.bytes_rate, found.remaining) == (50.0, None, None)


def test_old_numbers_are_called_old_and_keep_the_rate_they_had():
    heard = running(original_size=6 * GB, at=NOW - timedelta(minutes=5))

    found = pace(heard, last=last(8 * GB), now=NOW)

    assert (found.quiet, found.bytes_rate) == (timedelta(minutes=5), 20_000_000)


def test_a_first_run_has_nothing_to_be_compared_with():
    for other in (None, last(), last(0)):
        found = pace(running(original_size=GB), last=other, now=NOW)

        assert (found.percent, found.guessed, found.remaining) == (None, False, None)


def test_a_clock_that_goes_backwards_makes_no_negative_time():
    heard = running(original_size=GB, at=BEGAN - timedelta(hours=1), since=BEGAN + timedelta(hours=1))

    found = pace(heard, last=last(2 * GB), now=BEGAN - timedelta(minutes=1))

    assert (found.elapsed, found.bytes_rate, found.remaining) == (timedelta(0), None, None)


# --- On the page ------------------------------------------------------------------------------------------------------


async def test_the_page_calls_a_guess_a_guess(store):
    run = seeded.run_id("db-2", "postgresql", "now")
    heard = RunProgress(at=NOW, run=run, backup="postgresql", phase="create", files=9, original_size=10 * GB)
    async with await Store.open(store) as director:
        await director.progress(client="db-2", progress=heard)
    async with visiting(store) as client:
        html = await (await client.get(f"/runs/{run}")).text()

    assert "if it is as large as last time" in html
    assert "not connected" not in html


async def test_a_run_of_a_machine_that_is_away_is_not_shown_as_if_it_were_heard(store):
    async with await Store.open(store) as director:
        await director.disconnected(client="db-2", public_key=seeded.public_key("db-2"), now=NOW)
    async with visiting(store) as client:
        html = await (await client.get(f"/runs/{seeded.run_id('db-2', 'postgresql', 'now')}")).text()

    assert "db-2 is not connected" in html
    assert "What is below was heard before" in html
