"""What the reader tells of one object alone: places of options, retention, the envelope, what a revision changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.issue import DefinitionRow
from reconciler.store import Store
from schema.desired import Content
from schema.directories import Directories
from schema.envelope import DirectorIdentity, seal_envelope
from schema.observed import StateReport
from schema.status import ClientChange, OptionOrigin, RevisionStatus
from tests.reconciler import facts
from tests.reconciler.facts import NOW, key_of
from web_readonly.reader import BackupFilter, Reader
from web_readonly.reader.clients import fingerprint

DEFINITION = DefinitionRow("files", {"keep_daily": 7}, (("archive_name_format", ""), ("keep_daily", "standard.yaml:6")))


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    async with await Store.open(tmp_path / "director.db") as opened:
        yield opened


@pytest.fixture
def reader(tmp_path: Path) -> Any:
    opened = Reader(tmp_path / "director.db")
    yield opened
    opened.close()


async def publish(store: Store, **rows: Any) -> None:
    await facts.publish(store, clients=[facts.client_row()], backups=[facts.backup_row()], **rows)


def content(**fields: Any) -> Content:
    return Content(client="web-1", directories=Directories(), **fields)


async def test_one_backup_says_where_its_options_were_written_and_lists_do_not(store, reader):
    await publish(store, definitions=[DEFINITION])

    one = reader.backup(client="web-1", backup="files", now=NOW)
    (listed,) = reader.backups(BackupFilter(), now=NOW).items

    assert one.options == (
        OptionOrigin(option="archive_name_format"),
        OptionOrigin(option="keep_daily", place="standard.yaml:6"),
    )
    assert (one.retention, listed.retention, listed.options) == ({"keep_daily": 7}, {"keep_daily": 7}, ())


async def test_a_backup_that_the_store_knows_no_definition_of_has_neither(store, reader):
    await publish(store)

    one = reader.backup(client="web-1", backup="files", now=NOW)

    assert (one.options, one.retention) == ((), {})


async def test_a_definition_follows_each_publication(store, reader):
    await publish(store, definitions=[DEFINITION])
    await facts.publish(store, definitions=[DefinitionRow("files", {}, (("keep_daily", "standard.yaml:7"),))])
    assert reader.backup(client="web-1", backup="files", now=NOW).options[0].place == "standard.yaml:7"

    await facts.publish(store, removed_definitions=["files"])
    assert reader.backup(client="web-1", backup="files", now=NOW).options == ()


async def test_one_client_says_when_and_by_whom_its_desired_state_was_signed(store, reader):
    director = DirectorIdentity.generate()
    envelope = seal_envelope(b"{}" * 1_000, payload_type="test", identity=director)
    await publish(store, issued=[facts.issued(envelope=envelope)])

    one = reader.client("web-1", now=NOW)
    (listed,) = reader.clients(now=NOW).items

    assert (one.issued, one.envelope.size) == (NOW, len(envelope))
    assert one.envelope.audience == fingerprint(key_of("web-1"))
    assert one.envelope.signer == fingerprint(director.public.text)
    assert (listed.issued, listed.envelope) == (None, None)


async def test_a_client_that_was_issued_nothing_has_no_envelope(store, reader):
    await publish(store)

    assert reader.client("web-1", now=NOW).envelope is None


async def test_what_a_client_follows_is_kept_until_it_follows_the_newest(store, reader):
    first, second, third = content(), content(drift="report"), content(suspend=True)
    digests = [one.digest() for one in (first, second, third)]
    await publish(store, issued=[facts.issued(content=first, digest=digests[0])])
    await facts.ingest(store, StateReport(at=NOW, generation=1, digest=digests[0]))
    for generation, newer in ((2, second), (3, third)):  # away meanwhile: it goes on with the first
        issued = facts.issued(content=newer, digest=newer.digest(), generation=generation)
        await facts.publish(store, issued=[issued])

    assert reader.content("web-1") == third
    assert reader.former("web-1", digest=digests[0]) == first
    assert reader.former("web-1", digest=digests[1]) is None


async def test_the_same_signed_anew_replaces_nothing_that_is_kept(store, reader):
    first, second = content(), content(drift="report")
    await publish(store, issued=[facts.issued(content=first, digest=first.digest())])
    await facts.ingest(store, StateReport(at=NOW, generation=1, digest=first.digest()))
    for generation in (2, 3):
        await facts.publish(store, issued=[facts.issued(content=second, digest=second.digest(), generation=generation)])

    assert reader.former("web-1", digest=first.digest()) == first


async def test_one_revision_says_what_it_changed_and_lists_only_in_short(store, reader):
    changes = (ClientChange(client="web-1", change="changed", changed=("files",)),)
    status = RevisionStatus(
        revision="a" * 40, seen=NOW, outcome="published", summary="backup files changed on web-1", changes=changes
    )
    await store.record_revision(status)

    shown, _ = reader.revision("a" * 12)
    (listed,) = reader.revisions().items

    assert (shown.changes, shown.summary) == (changes, status.summary)
    assert (listed.changes, listed.summary) == ((), status.summary)


async def test_growth_is_asked_by_days(store, reader):
    await publish(store)
    await store.close()

    assert [str(one.day) for one in reader.growth(since=NOW - timedelta(days=1), until=NOW)] == ["2026-11-23"]
    assert reader.growth(since=NOW - timedelta(days=9), until=NOW - timedelta(days=1)) == ()
    assert reader.growth(repository="' OR 1", since=NOW, until=NOW) == ()
