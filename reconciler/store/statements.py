"""The statements of ``reconciler.store.ingest``, compiled once. Parameters ``of_…`` say where, the others what."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import bindparam, case, delete, func, literal_column, null, select, update
from sqlalchemy.dialects.sqlite import insert

from reconciler.store.prepared import Prepared
from schema.tables import UtcText, archives, backups, contents, evidence, observed, outboxes, runs, samples

MAX_EPOCHS: Final = 8
"""Outboxes remembered for one key: a client has one, and a new one after it lost the old."""

SEQUENCE = Prepared(
    select(outboxes.c.sequence, outboxes.c.mark).where(
        outboxes.c.public_key == bindparam("of_key"), outboxes.c.epoch == bindparam("of_epoch")
    )
)
_outbox = insert(outboxes)
PUT_OUTBOX = Prepared(
    _outbox.on_conflict_do_update(
        index_elements=["public_key", "epoch"],
        set_={name: _outbox.excluded[name] for name in ("sequence", "at", "mark")},
    ),
    into=outboxes,
)
_mine = outboxes.c.public_key == bindparam("of_key")
_newest = select(outboxes.c.epoch).where(_mine).order_by(outboxes.c.at.desc()).limit(literal_column(str(MAX_EPOCHS)))
FORGET_OUTBOXES = Prepared(
    delete(outboxes).where(_mine, outboxes.c.epoch.not_in(_newest), outboxes.c.epoch != bindparam("of_epoch"))
)

_run = insert(runs)
OWNER = Prepared(select(runs.c.client).where(runs.c.id == bindparam("run")))
START_RUN = Prepared(
    _run.on_conflict_do_update(
        index_elements=["id"],
        set_={name: _run.excluded[name] for name in ("backup", "trigger", "started", "due", "revision")},
        where=runs.c.client == _run.excluded.client,
    ),
    into=runs,
)
PLACE_RUN = Prepared(_run.on_conflict_do_nothing(), into=runs)
_lines = func.max(runs.c.log_lines, bindparam("lines"))
FINISH_RUN = Prepared(
    update(runs)
    .where(runs.c.id == bindparam("run"))
    .values(
        progress=null(),
        log_lines=_lines,
        **{name: bindparam(name) for name in ("finished", "outcome", "exit_code", "error", "hint", "statistics")},
    )
)
COUNT_LINES = Prepared(update(runs).where(runs.c.id == bindparam("run")).values(log_lines=_lines))
LINES_AT_ONCE: Final = 50
_INTO_LINES: Final = "INSERT INTO run_logs (run, number, at, level, message) VALUES (?, ?, ?, ?, ?)"
# The bulk of all rows: handed to the driver as they are, and so many with one statement that it seldom has to ask
# the interpreter, which others use meanwhile.
ADD_LINE = f"{_INTO_LINES} ON CONFLICT DO NOTHING"
ADD_LINES = f"{_INTO_LINES}{', (?, ?, ?, ?, ?)' * (LINES_AT_ONCE - 1)} ON CONFLICT DO NOTHING"

_of_backup = (backups.c.client == bindparam("of_client")) & (backups.c.backup == bindparam("of_backup"))
BACKUP_RUNS = Prepared(update(backups).where(_of_backup).values(running=bindparam("run")))
BACKUP_RAN = Prepared(
    update(backups)
    .where(_of_backup)
    .values(
        running=case((backups.c.running == bindparam("run"), ""), else_=backups.c.running),
        last_run=bindparam("run"),
        last_outcome=bindparam("outcome"),
        last_finished=bindparam("at"),
        last_success=func.coalesce(bindparam("success", type_=UtcText), backups.c.last_success),
    )
)
DUES = Prepared(
    select(backups.c.backup, backups.c.next_due, backups.c.running).where(backups.c.client == bindparam("of_client"))
)
BACKUP_DUE = Prepared(update(backups).where(_of_backup).values(next_due=bindparam("due"), running=bindparam("run")))

_STATE = (
    "public_key",
    "reported",
    "generation",
    "digest",
    "revision",
    "expires",
    "stale",
    "refused",
    "drifted",
    "state",
)
_state = insert(observed)
PUT_STATE = Prepared(
    _state.on_conflict_do_update(index_elements=["client"], set_={name: _state.excluded[name] for name in _STATE}),
    into=observed,
)

SIZES = ("original_size", "compressed_size", "deduplicated_size", "repository_size")
_sample = insert(samples)
PUT_SAMPLE = Prepared(
    _sample.on_conflict_do_update(
        index_elements=["client", "backup", "repository", "at"],
        set_={name: _sample.excluded[name] for name in (*SIZES, "duration")},
    ),
    into=samples,
)
_archive = insert(archives)
_ARCHIVE_KEY = ["client", "backup", "repository", "id"]
SIZE_ARCHIVE = Prepared(
    _archive.on_conflict_do_update(
        index_elements=_ARCHIVE_KEY, set_={name: _archive.excluded[name] for name in (*SIZES[:3], "files")}
    ),
    into=archives,
)
NAME_ARCHIVE = Prepared(
    _archive.on_conflict_do_update(
        index_elements=_ARCHIVE_KEY, set_={name: _archive.excluded[name] for name in ("name", "start")}
    ),
    into=archives,
)
_of_place = (
    (archives.c.client == bindparam("of_client"))
    & (archives.c.backup == bindparam("of_backup"))
    & (archives.c.repository == bindparam("of_repository"))
)
ARCHIVES = Prepared(select(archives.c.id, archives.c.name, archives.c.start).where(_of_place))
FORGET_ARCHIVE = Prepared(delete(archives).where(_of_place, archives.c.id == bindparam("of_id")))

KEPT_CONTENTS: Final = 3
"""Of the newest archives in one place: thousands of backups have some kilobytes each."""
_of_contents = (
    (contents.c.client == bindparam("of_client"))
    & (contents.c.backup == bindparam("of_backup"))
    & (contents.c.repository == bindparam("of_repository"))
)
_contents = insert(contents)
HAS_ARCHIVE = Prepared(select(archives.c.id).where(_of_place, archives.c.id == bindparam("of_id")))
PUT_CONTENTS = Prepared(
    _contents.on_conflict_do_update(
        index_elements=["client", "backup", "repository", "archive"],
        set_={name: _contents.excluded[name] for name in ("start", "report")},
    ),
    into=contents,
)
FORGET_CONTENTS = Prepared(delete(contents).where(_of_contents, contents.c.archive == bindparam("of_id")))
_newest_contents = (
    select(contents.c.archive)
    .where(_of_contents)
    .order_by(contents.c.start.desc(), contents.c.archive)
    .limit(literal_column(str(KEPT_CONTENTS)))
)
FORGET_OLD_CONTENTS = Prepared(delete(contents).where(_of_contents, contents.c.archive.not_in(_newest_contents)))

DECLARED = Prepared(
    select(evidence.c.repository).where(
        evidence.c.client == bindparam("of_client"), evidence.c.backup == bindparam("of_backup")
    )
)
_of_evidence = (
    (evidence.c.client == bindparam("of_client"))
    & (evidence.c.backup == bindparam("of_backup"))
    & (evidence.c.repository == bindparam("of_repository"))
)


def _unless(name: str, unknown: Any) -> Any:
    """Return the value to write: the given one, or what is there when that says "unknown"."""
    return func.coalesce(func.nullif(bindparam(name), unknown), evidence.c[name])


SIZE_EVIDENCE = Prepared(
    update(evidence)
    .where(_of_evidence)
    .values(**{name: bindparam(name) for name in SIZES[:3]}, repository_size=_unless("repository_size", 0))
)
_SEEN = ("seen", "available", "message")
UNAVAILABLE = Prepared(update(evidence).where(_of_evidence).values(**{name: bindparam(name) for name in _SEEN}))
AVAILABLE = Prepared(
    update(evidence)
    .where(_of_evidence)
    .values(
        **{name: bindparam(name) for name in (*_SEEN, "repository_id", "newest", "newest_archive", "archives")},
        encryption=_unless("encryption", ""),
        repository_size=_unless("repository_size", 0),
    )
)
