"""What a client reports, and the comparison of desired with observed. Facts only: what was seen, and when.

Lists stop at their first fault (``FailFast``): a rogue client's million wrong entries must not cost a director seconds.
Everything here except ``RunProgress`` goes through the client's outbox: numbered, sent until acknowledged, stored once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import FailFast, Field, StringConstraints

from schema.desired import Sent
from schema.hiding import MAX_DIFF, diff_files
from schema.scalars import MAX_GENERATION, Digest, Generation, LogMoment, Moment, Name

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT = 8_192
MAX_LINES = 1_000_000_000
"""Of one run's log; far more than anybody keeps, and well inside every column."""
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]
Short = Annotated[str, StringConstraints(max_length=1_024)]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Size = Annotated[int, Field(ge=0, le=2**63 - 1)]


class Outcome(StrEnum):
    """How a run ended. Cancelled: by a person or a shutdown. Lost: the machine or the client died under it."""

    SUCCEEDED = "succeeded"
    WARNED = "warned"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"


class Trigger(StrEnum):
    """Why a run started."""

    SCHEDULE = "schedule"
    CATCH_UP = "catch-up"
    PERSON = "person"


class DriftKind(StrEnum):
    """Configuration: changed, missing, unmanaged. Evidence: overdue, …-missing. Coverage: unprotected."""

    CHANGED = "changed"
    MISSING = "missing"
    UNMANAGED = "unmanaged"
    OVERDUE = "overdue"
    REPOSITORY_MISSING = "repository-missing"
    SOURCE_MISSING = "source-missing"
    UNPROTECTED = "unprotected"


class Drift(Sent):
    """One difference between desired and observed."""

    kind: DriftKind
    subject: Short
    """The file, repository or directory concerned."""
    backup: Name | None = None
    message: Text
    diff: Annotated[str, StringConstraints(max_length=MAX_DIFF + 64)] = ""
    """Unified diff, desired → on disk, for ``changed``; values of secret options are hidden."""
    detected: Moment
    healed: bool = False


class Versions(Sent):
    """Programs on the client; empty when not found."""

    client: Short = ""
    borgmatic: Short = ""
    borg: Short = ""
    python: Short = ""
    platform: Short = ""


class JobState(Sent):
    """One job as the client sees it."""

    backup: Name
    next_due: Moment | None = None
    running: RunId | None = None


class Refusal(Sent):
    """Why the client does not follow a desired state it was sent."""

    code: Short
    message: Text
    hint: Text = ""
    generation: int = Field(default=0, ge=0, le=MAX_GENERATION)
    revision: Short = ""


class StateReport(Sent):
    """The client's observed state; the newest one replaces all former ones."""

    type: Literal["state"] = "state"
    at: Moment
    generation: Generation | None = None
    digest: Digest | None = None
    revision: Short = ""
    expires: Moment | None = None
    stale: bool = False
    refusal: Refusal | None = None
    drift: Annotated[tuple[Drift, ...], FailFast()] = Field(default=(), max_length=500)
    jobs: Annotated[tuple[JobState, ...], FailFast()] = Field(default=(), max_length=2_000)
    versions: Versions = Versions()
    dropped_events: int = Field(default=0, ge=0)
    """Log lines that a full disk or a full outbox made the client drop; never runs or archives."""


class RunStarted(Sent):
    """A borgmatic execution began."""

    type: Literal["run-started"] = "run-started"
    at: Moment
    run: RunId
    backup: Name
    trigger: Trigger
    due: Moment | None = None
    revision: Short = ""


class LogLine(Sent):
    """One line of borgmatic's or Borg's output."""

    at: LogMoment
    level: Literal["debug", "info", "warning", "error", "critical"]
    message: Text


class RunLog(Sent):
    """Log lines of a run, in order; ``first`` is the number of the first line, from 0."""

    type: Literal["run-log"] = "run-log"
    run: RunId
    first: int = Field(ge=0, le=MAX_LINES)
    lines: Annotated[tuple[LogLine, ...], FailFast()] = Field(max_length=500)


class RepositoryStatistics(Sent):
    """What one run put into one repository (sizes in bytes)."""

    repository: Name
    archive: Short = ""
    archive_id: Short = ""
    files: Size = 0
    original_size: Size = 0
    compressed_size: Size = 0
    deduplicated_size: Size = 0
    duration: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    repository_size: Size = 0
    """Deduplicated, compressed size of the whole repository."""


class RunFinished(Sent):
    """A borgmatic execution ended."""

    type: Literal["run-finished"] = "run-finished"
    at: Moment
    run: RunId
    backup: Name
    outcome: Outcome
    exit_code: int | None = Field(default=None, ge=-255, le=255)
    error: Text = ""
    """The line that best says why it failed."""
    hint: Text = ""
    statistics: Annotated[tuple[RepositoryStatistics, ...], FailFast()] = Field(default=(), max_length=100)
    log_lines: int = Field(default=0, ge=0, le=MAX_LINES)


class RunProgress(Sent):
    """Where a running backup stands. Not kept in the outbox: a lost one is replaced by the next."""

    type: Literal["run-progress"] = "run-progress"
    at: Moment
    run: RunId
    backup: Name
    phase: Short = ""
    files: Size = 0
    original_size: Size = 0
    deduplicated_size: Size = 0
    path: Short = ""
    percent: float | None = Field(default=None, ge=0, le=100, allow_inf_nan=False)
    since: Moment | None = None
    """When these numbers began to count: Borg begins at nothing for each repository and each action."""


class Archive(Sent):
    """One archive seen in a repository."""

    id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,128}$")]
    name: Short
    start: Moment


class ArchivesSeen(Sent):
    """The inventory of one backup in one repository: everything that is there now, newest first.

    ``available`` false means that the repository could not be read (``message`` says why): what was known is kept.
    """

    type: Literal["archives"] = "archives"
    at: Moment
    backup: Name
    repository: Name
    url: Short
    available: bool
    message: Text = ""
    repository_id: Short = ""
    encryption: Short = ""
    count: Size = 0
    archives: Annotated[tuple[Archive, ...], FailFast()] = Field(default=(), max_length=2_000)
    total_size: Size = 0
    unique_size: Size = 0
    """Deduplicated, compressed size of the whole repository in bytes; 0 when unknown."""


MAX_DIRECTORIES = 500
MAX_LARGEST = 20


class DirectoryContents(Sent):
    """One directory in an archive, with everything below it. ``path`` as Borg keeps it: without the leading slash."""

    path: Short
    files: Size = 0
    """All that is not a directory."""
    size: Size = 0


class LargeFile(Sent):
    """One of the largest files in an archive."""

    path: Short
    size: Size


class ArchiveContents(Sent):
    """What is in one archive, in short. ``listed`` false: it was not looked into, and ``message`` says why.

    Directories are in the order of their paths. What is not among them counts for the nearest one above; files that
    are in none of them count for the totals alone. Paths are fit to be shown: what was no printable text in them is
    U+FFFD, so that a path with that character cannot be asked for by name.
    """

    type: Literal["contents"] = "contents"
    at: Moment
    backup: Name
    repository: Name
    archive: Archive
    listed: bool
    message: Text = ""
    files: Size = 0
    size: Size = 0
    oldest: Moment | None = None
    """When the file that is longest unchanged was changed last."""
    newest: Moment | None = None
    directory_count: Size = 0
    """Of all directories, also those that are not listed here."""
    directories: Annotated[tuple[DirectoryContents, ...], FailFast()] = Field(default=(), max_length=MAX_DIRECTORIES)
    largest: Annotated[tuple[LargeFile, ...], FailFast()] = Field(default=(), max_length=MAX_LARGEST)


class ClientEvent(Sent):
    """Something a person should know of: applied, refused, healed, stale, clock jumped."""

    type: Literal["event"] = "event"
    at: Moment
    reason: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Za-z]{1,63}$")]
    message: Text
    backup: Name | None = None
    detail: Text = ""
    """What there is to unfold: the diff of a drift that was healed, secrets hidden."""


Report = Annotated[
    StateReport | RunStarted | RunLog | RunFinished | ArchivesSeen | ArchiveContents | ClientEvent,
    Field(discriminator="type"),
]


def compare(
    desired: Mapping[str, bytes], actual: Mapping[str, bytes], *, unmanaged: frozenset[str] = frozenset(), now: Moment
) -> tuple[Drift, ...]:
    """Return the configuration drift between desired files and those on disk (path → bytes), in path order.

    ``unmanaged`` are files in borgmatic's directory that we did not write: reported, never touched.
    """
    drifts = []
    for path, content in sorted(desired.items()):
        if path not in actual:
            drifts.append(Drift(kind=DriftKind.MISSING, subject=path, message=f"{path} was removed", detected=now))
        elif actual[path] != content:
            diff = diff_files(content, actual[path], name=path)
            drifts.append(
                Drift(kind=DriftKind.CHANGED, subject=path, message=f"{path} was edited", diff=diff, detected=now)
            )
    drifts += [
        Drift(kind=DriftKind.UNMANAGED, subject=path, message=f"{path} is not managed by the director", detected=now)
        for path in sorted(unmanaged)
    ]
    return tuple(drifts)
