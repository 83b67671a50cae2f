"""A store in which everything that a client, a commit or an archive can say was said by somebody who means harm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.core.issue import BackupRow, ClientRow, DefinitionRow, Issued
from reconciler.store import Store
from schema.desired import Content, Job, ManagedFile
from schema.directories import Directories
from schema.errors import ExcerptLine, Problem
from schema.observed import (
    Archive,
    ArchivesSeen,
    ClientEvent,
    Drift,
    DriftKind,
    LogLine,
    Outcome,
    Refusal,
    Report,
    RunFinished,
    RunLog,
    RunProgress,
    RunStarted,
    StateReport,
    Trigger,
    Versions,
)
from schema.status import ClientChange, Condition, ConditionType, Hold, RevisionStatus, SourceStatus, TokenStatus
from tests.web_readonly import seeded

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> \x1b[31mred \u202egnp.exe \u200b{{ 7*7 }} \x00 "
LONG = "L" * 4_000
ENDLESS = "E" * 1_000_000
RUN, ENDED = "b" * 32, "e" * 32
REVISION = "c" * 40
URL = "https://github.com/" + HOSTILE + "/x"


async def seed(path: Path) -> None:
    """Write all of it with the real store."""
    now, said = seeded.NOW, HOSTILE + LONG
    async with await Store.open(path) as store:
        await _publish(store)
        reports = _reports(said)
        items = list(enumerate(reports, 1))
        await store.ingest(client="web-1", public_key="key", epoch="e", items=items, through=len(items), received=now)
        await _publish(store, text="y")
        await store.progress(
            client="web-1",
            progress=RunProgress(at=now, run=RUN, backup="web", phase=HOSTILE, path=HOSTILE + "p" * 800, percent=1),
        )
        await store.upsert_pending(
            public_key=HOSTILE, name=HOSTILE, address=HOSTILE, config_directory="", state_directory="", now=now
        )
        await store.create_token(
            TokenStatus(id="t", note=HOSTILE + LONG, created=now, expires=now, uses_left=1), token_hash="h"
        )
        await store.event(reason=HOSTILE[:60], message=HOSTILE + ENDLESS, at=now, actor=HOSTILE, client=HOSTILE)
        await _source(store, said)


async def _publish(store: Store, *, text: str = "x") -> None:
    now = seeded.NOW
    content = Content(
        client="web-1",
        directories=Directories(),
        files=(
            ManagedFile(place="config", path="web.yaml", origin=HOSTILE, content=f"{HOSTILE}: {text}\n"),
            ManagedFile(place="config", path="long.yaml", origin=HOSTILE, content=f"{HOSTILE}: {text}\n{ENDLESS}\n"),
        ),
        jobs=(Job(backup="web", file="web.yaml", schedule=None, actions=("create",), repositories=()),),
    )
    await store.publish(
        clients=[ClientRow("web-1", "key", {HOSTILE: HOSTILE}, HOSTILE, suspended=False)],
        backups=[
            BackupRow(
                "web-1",
                "web",
                HOSTILE,
                HOSTILE,
                HOSTILE[:60],
                60,
                False,
                ({"name": "nas", "url": HOSTILE, "encryption": HOSTILE},),
            )
        ],
        definitions=[DefinitionRow("web", {HOSTILE: HOSTILE}, ((HOSTILE, HOSTILE), ("b", HOSTILE)))],
        issued=[
            Issued(
                client="web-1",
                audience="key",
                generation=len(text),
                digest=f"sha256:{ord(text):064}",
                revision=REVISION,
                issued=now,
                expires=now,
                envelope=b"{}",
                content=content,
            )
        ],
        removed_clients=[],
        removed_backups=[],
        at=now - seeded.DAY,
    )


def _reports(said: str) -> list[Report]:
    now = seeded.NOW
    lines = tuple(LogLine(at=now, level="error", message=(said * 4)[:8_000]) for _ in range(60))
    return [
        RunStarted(at=now, run=RUN, backup="web", trigger=Trigger.PERSON, revision=HOSTILE[:60]),
        RunStarted(at=now, run=ENDED, backup="web", trigger=Trigger.PERSON, revision=HOSTILE[:60]),
        RunLog(run=ENDED, first=0, lines=lines),
        RunFinished(at=now, run=ENDED, backup="web", outcome=Outcome.FAILED, error=said, hint=said, log_lines=60),
        ArchivesSeen(
            at=now - 3 * seeded.HOUR,
            backup="web",
            repository="nas",
            url=HOSTILE,
            available=True,
            message=said,
            archives=(Archive(id="ab" * 8, name=HOSTILE, start=now - seeded.DAY),),
        ),
        StateReport(
            at=now,
            revision=HOSTILE,
            digest=f"sha256:{ord('x'):064}",
            refusal=Refusal(code=HOSTILE, message=said, hint=said),
            drift=tuple(
                Drift(kind=DriftKind.CHANGED, subject=HOSTILE, message=said, diff=f"+{said}\n-{said}", detected=now)
                for _ in range(30)
            ),
            versions=Versions(client=HOSTILE, borgmatic=HOSTILE),
        ),
        *(ClientEvent(at=now, reason="Healed", message=said, detail=f"+{said}\n-{said}") for _ in range(20)),
    ]


async def _source(store: Store, said: str) -> None:
    now = seeded.NOW
    problem = Problem(
        code=HOSTILE,
        message=said,
        hint=said,
        path=HOSTILE,
        line=2,
        column=3,
        excerpt=(ExcerptLine(number=1, text=HOSTILE), ExcerptLine(number=2, text=HOSTILE + LONG)),
    )
    await store.record_revision(
        RevisionStatus(
            revision=REVISION,
            author=HOSTILE + LONG,
            subject=HOSTILE + ENDLESS,
            seen=now,
            outcome="stalled",
            message=said,
            summary=HOSTILE + LONG,
            changes=(ClientChange(client=HOSTILE, change="changed", added=(HOSTILE,), removed=(HOSTILE,)),),
        ),
        problems=[problem] * 30,
    )
    await store.set_source(
        SourceStatus(
            url=URL,
            branch=HOSTILE,
            path=HOSTILE,
            head=REVISION,
            revision=REVISION,
            hold=Hold(revision=REVISION, reason="DangerHeld", message=said, since=now),
            problems=(problem,) * 3,
        )
    )
    condition = Condition(
        type=ConditionType.READY, status="True", reason=HOSTILE[:60], message=said, last_transition_time=now
    )
    await store.set_conditions("source", [condition])
