"""The page of one client: what it should have, what it has, what will change, and where each option was written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow, Issued
from reconciler.store import Store
from schema.desired import Content, Job, ManagedFile
from schema.directories import Directories
from schema.observed import StateReport
from schema.status import RevisionStatus, SourceStatus
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = seeded.NOW
FORMER, NEWEST = "a" * 40, "b" * 40


def content(*files: tuple[str, str]) -> Content:
    return Content(
        client="web-1",
        directories=Directories(),
        files=tuple(
            ManagedFile(place="config", path=name, origin="backups/web.yaml", content=text) for name, text in files
        ),
        jobs=tuple(
            Job(backup=name.removesuffix(".yaml"), file=name, schedule=None, actions=("create",), repositories=())
            for name, _ in files
        ),
    )


BEFORE = content(("web.yaml", "keep_daily: 7\ncompression: lz4\n"), ("old.yaml", "keep_daily: 1\n"))
AFTER = content(("web.yaml", "keep_daily: 9\ncompression: lz4\n"), ("new.yaml", "keep_daily: 2\n"))


class Fleet:
    """A director with one client."""

    def __init__(self, path: Path, store: Store) -> None:
        self.path = path
        self.store = store
        self._sequence = 0

    async def publish(self, wanted: Content, *, revision: str, generation: int) -> None:
        await self.store.record_revision(RevisionStatus(revision=revision, seen=NOW, outcome="published"), problems=())
        await self.store.publish(
            clients=[ClientRow("web-1", "key", {"role": "web"}, "clients/web-1.yaml:1", suspended=False)],
            backups=[BackupRow("web-1", "web", "backups/web.yaml:1", "", "", None, False, ())],
            definitions=[
                DefinitionRow(
                    "web", {}, (("keep_daily", "profiles/keep.yaml:7"), ("compression", "backups/web.yaml:12"))
                )
            ],
            issued=[
                Issued(
                    client="web-1",
                    audience="key",
                    generation=generation,
                    digest=wanted.digest(),
                    revision=revision,
                    issued=NOW,
                    expires=NOW + 28 * seeded.DAY,
                    envelope=b"e" * 1_234,
                    content=wanted,
                )
            ],
            removed_clients=[],
            removed_backups=[],
            at=NOW,
        )

    async def report(self, applied: Content | None, *, revision: str = FORMER) -> None:
        self._sequence += 1
        report = StateReport(
            at=NOW,
            generation=self._sequence,
            digest=applied.digest() if applied else None,
            revision=revision if applied else "",
        )
        await self.store.ingest(
            client="web-1",
            public_key="key",
            epoch="e",
            items=[(self._sequence, report)],
            through=self._sequence,
            received=NOW,
        )

    async def page(self, path: str = "/clients/web-1") -> str:
        async with visiting(self.path) as client:
            response = await client.get(path)
            text = await response.text()
            assert response.status == 200, text
            return text


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    path = tmp_path / "store.db"
    async with await Store.open(path) as store:
        await store.set_source(SourceStatus(url="https://github.com/ops/backups.git", revision=NEWEST))
        yield Fleet(path, store)


# --- What will change -------------------------------------------------------------------------------------------------


async def test_a_client_that_is_behind_shows_what_will_change_when_it_follows(fleet):
    await fleet.publish(BEFORE, revision=FORMER, generation=1)
    await fleet.report(BEFORE)
    await fleet.publish(AFTER, revision=NEWEST, generation=2)

    text = await fleet.page()

    assert "What will change when it applies this" in text
    assert '<span class="removed">-keep_daily: 7</span><span class="added">+keep_daily: 9</span>' in text
    assert "1 file changed, 1 file new, 1 file gone" in text
    assert "No archive and no repository is." in text


async def test_a_client_that_follows_waits_for_nothing(fleet):
    await fleet.publish(BEFORE, revision=FORMER, generation=1)
    await fleet.report(BEFORE)
    await fleet.publish(AFTER, revision=NEWEST, generation=2)
    await fleet.report(AFTER, revision=NEWEST)

    text = await fleet.page()

    assert "What will change" not in text
    assert "same content" in text
    assert "it applied exactly this content" in text


async def test_what_it_has_is_remembered_over_revisions_that_it_never_applied(fleet):
    await fleet.publish(BEFORE, revision=FORMER, generation=1)
    await fleet.report(BEFORE)
    await fleet.publish(content(("web.yaml", "keep_daily: 8\n")), revision="c" * 40, generation=2)
    await fleet.publish(AFTER, revision=NEWEST, generation=3)

    text = await fleet.page()

    assert '<span class="removed">-keep_daily: 7</span><span class="added">+keep_daily: 9</span>' in text


async def test_what_is_not_known_is_not_claimed(fleet):
    await fleet.publish(AFTER, revision=NEWEST, generation=2)
    await fleet.report(BEFORE)

    text = await fleet.page()

    assert "issued longer ago than the store remembers" in text
    assert "other content" in text
    assert 'class="removed"' not in text


async def test_a_client_that_never_applied_anything_says_so(fleet):
    await fleet.publish(AFTER, revision=NEWEST, generation=2)
    await fleet.report(None)

    assert "It has applied nothing yet: 2 files are new to it." in await fleet.page()


# --- Where options come from ------------------------------------------------------------------------------------------


async def test_beside_each_option_is_the_line_in_git_that_wrote_it(fleet):
    await fleet.publish(AFTER, revision=NEWEST, generation=2)

    text = await fleet.page()

    forge = f"https://github.com/ops/backups/blob/{NEWEST}"
    assert f'<i>keep_daily: 9</i><span><a class="mono" href="{forge}/profiles/keep.yaml#L7"' in text
    assert f'href="{forge}/backups/web.yaml#L12"' in text
    assert f'href="{forge}/clients/web-1.yaml#L1"' in text
    assert 'rel="noopener noreferrer"' in text


async def test_where_the_forge_is_not_known_the_place_is_text_to_copy(fleet):
    await fleet.store.set_source(SourceStatus(url="/srv/git/backups.git", revision=NEWEST))
    await fleet.publish(AFTER, revision=NEWEST, generation=2)

    text = await fleet.page()

    assert '<code class="copy">profiles/keep.yaml:7</code>' in text
    assert 'href="http' not in text


async def test_the_files_are_json_too(fleet):
    await fleet.publish(BEFORE, revision=FORMER, generation=1)
    await fleet.report(BEFORE)
    await fleet.publish(AFTER, revision=NEWEST, generation=2)

    async with visiting(fleet.path) as client:
        found = (await (await client.get("/api/v1/clients/web-1/files")).json())["items"]

    assert [(one["path"], one["change"]) for one in found] == [
        ("/etc/borgmatic.d/web.yaml", "changed"),
        ("/etc/borgmatic.d/new.yaml", "new"),
        ("/etc/borgmatic.d/old.yaml", "gone"),
    ]
    assert found[0]["lines"][0] == {"text": "keep_daily: 9", "origin": "profiles/keep.yaml:7"}


# --- The envelope and revisions ---------------------------------------------------------------------------------------


async def test_the_facts_of_the_signed_envelope_are_shown(fleet):
    await fleet.publish(AFTER, revision=NEWEST, generation=1_795_246_930_000)

    text = await fleet.page()

    assert AFTER.digest() in text
    assert "1795246930000" in text
    assert "1,234 bytes" in text
    assert "not heard" in text


async def test_a_revision_that_the_store_forgot_is_text_and_one_that_it_knows_a_link(fleet):
    await fleet.publish(AFTER, revision=NEWEST, generation=2)
    await fleet.report(BEFORE, revision="d" * 40)

    text = await fleet.page()
    listed = await fleet.page("/clients")

    assert f'href="/source/{NEWEST}"' in text
    assert f'href="/source/{"d" * 40}"' not in text + listed
    assert f'title="{"d" * 40}: the store knows it no more' in text


# --- Lists of clients -------------------------------------------------------------------------------------------------


async def test_states_and_labels_are_links_with_how_many_there_are(store):
    async with visiting(store) as client:
        text = await (await client.get("/clients")).text()
        narrowed = await (await client.get("/clients?label=role%3Dweb")).text()

    assert 'href="?state=drifted">drifted <b>1</b>' in text
    assert 'href="?label=role%3Dweb">role=web <b>8</b>' in text
    assert 'href="?label=role%3Dweb&amp;label=site%3Dnorth">site=north <b>11</b>' in narrowed
    assert '<a class="chip on" href="?" aria-current="true">role=web <b>8</b>' in narrowed
    assert '<input type="hidden" name="label" value="role=web">' in narrowed
