"""Source, one revision, and the log of a run: history, problems, holds and their commands, lines to link to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.store import Store
from schema.errors import ExcerptLine, Problem, Severity
from schema.observed import ArchivesSeen, LogLine, Report, RunLog, RunStarted, Trigger
from schema.status import ClientChange, Hold, RevisionStatus, SourceStatus
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import formats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = seeded.NOW
PUBLISHED, HEAD = "a" * 40, "b" * 40
PROBLEM = Problem(
    code="dangling-reference",
    message="backup 'mail' names repository 'vualt', which does not exist",
    hint="did you mean 'vault'?",
    path="backups/mail.yaml",
    line=12,
    column=18,
    excerpt=(
        ExcerptLine(number=11, text="  schedule: nightly"),
        ExcerptLine(number=12, text="  repositories: [vualt]"),
        ExcerptLine(number=13, text="  borgmatic:"),
    ),
)


class Source:
    """A store with a source in it, and how it is looked at."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.store = store

    async def judged(self, revision: str = HEAD, *, problems: tuple[Problem, ...] = (), **facts: object) -> None:
        facts = {"outcome": "stalled", "author": "Ada Novak", "subject": "Move mail", **facts}
        await self.store.record_revision(
            RevisionStatus.model_validate({"revision": revision, "seen": NOW, **facts}, by_name=True), problems=problems
        )

    async def stands(self, **facts: object) -> None:
        facts = {"url": "https://gitlab.example.org/it/backups.git", "revision": PUBLISHED, "head": HEAD, **facts}
        await self.store.set_source(SourceStatus.model_validate(facts, by_name=True))

    async def page(self, path: str = "/source") -> str:
        async with visiting(self.path) as client:
            response = await client.get(path)
            text = await response.text()
            assert response.status == 200, text
            return text


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Source]:
    path = tmp_path / "store.db"
    async with await Store.open(path) as store:
        yield Source(path, store)


# --- Problems ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/source", f"/source/{HEAD}"])
async def test_a_problem_shows_the_line_the_column_and_the_hint(source, path):
    await source.judged(problems=(PROBLEM,))
    await source.stands(problems=(PROBLEM,))

    text = await source.page(path)

    assert '<span class="here"><b>12</b><i>  repositories: [vualt]</i></span>' in text
    assert f"<b></b><i>{' ' * 17}^</i>" in text
    assert "did you mean &#39;vault&#39;?" in text
    assert f'href="https://gitlab.example.org/it/backups/-/blob/{HEAD}/backups/mail.yaml#L12"' in text
    assert ">backups/mail.yaml:12:18</a>" in text


async def test_a_stalled_source_says_that_nothing_of_it_is_used_and_how_to_look_before_the_next_push(source):
    await source.judged(problems=(PROBLEM,))
    await source.stands(problems=(PROBLEM,))

    text = await source.page()

    assert f"1 error stops revision {HEAD[:12]}" in text
    assert f"every client keeps what it has, from revision {PUBLISHED[:12]}" in text
    assert "director validate" in text


async def test_a_warning_stops_nothing(source):
    await source.judged(outcome="published")
    await source.stands(revision=HEAD, problems=(PROBLEM.model_copy(update={"severity": Severity.WARNING}),))

    text = await source.page()

    assert "error stops" not in text
    assert "unused-profile" not in text
    assert "is published" in text


def test_a_caret_stands_under_its_column_whatever_is_before_it():
    assert formats.under("key: value", 6) == "     ^"
    assert formats.under("\tkey: x", 2) == "\t^"
    assert formats.under("名前: x", 5) == "\u3000\u3000  ^"
    assert formats.under("", 1) == "^"
    assert formats.under("x", 0) == "^"


# --- Holds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "why", "trailer"),
    [
        ("HistoryRewritten", "somebody pushed with force", "Director-Acknowledge: history-rewritten"),
        ("MassChangeHeld", "a moved folder", "Director-Acknowledge: mass-change"),
        ("DangerHeld", "It could lose data", ""),
    ],
)
async def test_a_hold_says_why_what_to_look_at_and_the_exact_command(source, reason, why, trailer):
    await source.judged(outcome="held", reason=reason)
    await source.stands(hold=Hold(revision=HEAD, reason=reason, message="9 of 34 backups would go", since=NOW))

    text = await source.page()

    assert f"director acknowledge {HEAD}" in text
    assert f"director plan --from {PUBLISHED[:12]} --to {HEAD[:12]}" in text
    assert why in text
    assert ("Director-Acknowledge" in text) == bool(trailer)
    assert trailer in text


# --- History ----------------------------------------------------------------------------------------------------------


async def test_history_tells_who_what_and_how_it_ended(source):
    await source.judged("1" * 40, outcome="superseded", changed_clients=3, subject="Start")
    await source.judged(PUBLISHED, outcome="published", changed_clients=1, subject="Keep six months")
    await source.judged(HEAD, outcome="stalled", reason="InvalidSource", message="2 errors", subject="Typo")
    await source.stands()

    text = await source.page()

    assert text.index("Typo") < text.index("Keep six months") < text.index("Start")
    assert "changed 3 clients" in text
    assert "InvalidSource: 2 errors" in text
    assert text.count("what clients follow") == 1


async def test_a_revision_shows_what_it_changed_client_by_client(source):
    changes = (
        ClientChange(client="db-1", change="changed", added=("postgresql",), removed=("mysql",), others=True),
        ClientChange(client="web-9", change="removed", removed=("web",)),
    )
    await source.judged(PUBLISHED, outcome="published", changed_clients=250, changes=changes)
    await source.stands()

    text = await source.page(f"/source/{PUBLISHED}")

    assert "2 clients of 250" in text
    assert 'href="/clients/db-1"' in text
    assert 'href="/clients/web-9"' not in text  # it is gone: there is no such page
    assert "settings of the machine" in text
    assert f'href="https://gitlab.example.org/it/backups/-/commit/{PUBLISHED}"' in text


# --- The log of a run -------------------------------------------------------------------------------------------------


RUN = "c" * 32


@pytest.fixture
async def log(source: Source) -> Source:
    reports: list[Report] = [RunStarted(at=NOW, run=RUN, backup="web", trigger=Trigger.SCHEDULE)]
    for first in range(0, 1_500, 500):
        lines = tuple(
            LogLine(at=NOW, level="info", message=f"said {number} of it") for number in range(first, first + 500)
        )
        reports.append(RunLog(run=RUN, first=first, lines=lines))
    items = list(enumerate(reports, 1))
    await source.store.ingest(client="web-1", public_key="k", epoch="e", items=items, through=len(items), received=NOW)
    return source


async def test_a_link_opens_a_long_log_at_its_line(log):
    text = await log.page(f"/runs/{RUN}?line=700")

    assert '<li id="L700"' in text
    assert f'href="/runs/{RUN}?line=700#L700"' in text
    assert "said 679 of it" in text  # and some of what was said before
    assert "said 678 of it" not in text
    assert "http-equiv" not in text  # who reads does not lose the place


async def test_a_long_log_is_walked_in_both_directions(log):
    last = await log.page(f"/runs/{RUN}")
    middle = await log.page(f"/runs/{RUN}?after=499")

    assert "said 1499 of it" in last
    assert 'href="?after=499#log"' in last  # earlier
    assert 'href="?after=-1#log"' in last  # the first
    assert ("said 500 of it" in middle, "said 999 of it" in middle, "said 1000 of it" in middle) == (True, True, False)
    assert 'href="?after=999#log"' in middle  # later


async def test_a_line_that_is_not_there_says_how_many_there_are(log):
    assert "The log has only 1,500 lines." in await log.page(f"/runs/{RUN}?line=9999")


async def test_a_search_that_finds_nothing_says_what_was_searched(log):
    text = await log.page(f"/runs/{RUN}?q=nothing+like+this&level=error")

    assert "No line has “nothing like this” in it and is of level error or above." in text


async def test_a_run_links_the_archives_that_it_made_while_they_are_there(store):
    run = seeded.run_id("db-1", "postgresql", 0)
    archive = seeded.run_id(run, "archive") * 2
    async with visiting(store) as client:
        before = await (await client.get(f"/runs/{run}")).text()
        async with await Store.open(store) as written:
            await written.ingest(
                client="db-1",
                public_key=seeded.public_key("db-1"),
                epoch="f" * 32,
                items=[(1, pruned("cold"))],
                through=1,
                received=NOW,
            )
        after = await (await client.get(f"/runs/{run}")).text()

    paths = {name: f'href="/archives/db-1/postgresql/{name}/{archive}"' for name in ("vault", "cold")}
    assert {name: path in before for name, path in paths.items()} == {"vault": True, "cold": True}
    assert {name: path in after for name, path in paths.items()} == {"vault": True, "cold": False}


def pruned(repository: str) -> ArchivesSeen:
    return ArchivesSeen(at=NOW, backup="postgresql", repository=repository, url="/mnt/cold/borg", available=True)
