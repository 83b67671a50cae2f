"""All routes of the dashboard in one table: path, question, template, filters. Each has a JSON twin under ``/api/v1``.

To add a page: a question in ``web_readonly.questions`` or a module beside it, a template, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schema.errors import Problem
from schema.status import (
    ArchiveDetail,
    ArchiveStatus,
    BackupStatus,
    ClientStatus,
    EventRecord,
    Growth,
    LockoutStatus,
    LogEntry,
    Overview,
    Page,
    PendingClient,
    RepositoryStatus,
    RevisionStatus,
    RunStatus,
    Sample,
    SourceStatus,
    TokenStatus,
)
from schema.timeline import NextStart, Schedule, Timeline
from web_readonly import archive_questions, backup_questions, parts, questions, run_questions, time_questions
from web_readonly.asking import Answer
from web_readonly.files import FileShown
from web_readonly.parts import DesiredStatus, FacetShown, RetainedShown
from web_readonly.reader.facets import StoreFacts

if TYPE_CHECKING:
    from pydantic import BaseModel

    from web_readonly.asking import Asked, Question
    from web_readonly.reader import Reader

API: Final = "/api/v1"


@dataclass(frozen=True, slots=True)
class View:
    """One page and its JSON twin; without a template there is only the twin, and without ``api`` only the page."""

    path: str
    question: Question
    template: str = ""
    filters: tuple[str, ...] = ()
    section: str = ""
    """The entry of the navigation that it belongs to."""
    api: bool = True
    answers: type[BaseModel] | None = None
    """The model of the JSON."""
    page_only: tuple[str, ...] = ()
    """Those of the filters that choose what the page shows beside its answer."""

    @property
    def summary(self) -> str:
        """What it answers, as the docstring of its question says."""
        said = _first_sentence(self.question.__doc__ or "").removeprefix("Answer ")
        said = said.removeprefix("with ").removeprefix("for ")
        return said[:1].upper() + said[1:]

    @property
    def api_path(self) -> str:
        """Where the JSON is."""
        return API + ("/overview" if self.path == "/" else self.path)

    @property
    def api_filters(self) -> tuple[str, ...]:
        """The filters of the JSON."""
        return tuple(name for name in self.filters if name not in self.page_only)


def _first_sentence(text: str) -> str:
    return text.partition("\n")[0].partition(". ")[0].strip().removesuffix(".")


def _endpoints(_: Reader, __: Asked) -> Answer:
    """Answer which addresses the API has."""
    return Answer(Page[str](), lambda: {"views": [view for view in VIEWS if view.api]})


VIEWS: Final = (
    View("/", questions.overview, "overview.html", section="/", answers=Overview),
    View(
        "/clients",
        questions.clients,
        "clients.html",
        ("q", "label", "state", "limit", "after"),
        section="/clients",
        answers=Page[ClientStatus],
    ),
    View("/clients/{client}", questions.client, "client.html", section="/clients", answers=ClientStatus),
    View("/clients/{client}/files", questions.client_files, answers=Page[FileShown]),
    View(
        "/backups",
        backup_questions.backups,
        "backups.html",
        ("client", "backup", "repository", "state", "limit", "after"),
        section="/backups",
        answers=Page[BackupStatus],
    ),
    View(
        "/backups/{backup}",
        backup_questions.backup,
        "backup.html",
        ("limit", "after"),
        section="/backups",
        answers=Page[BackupStatus],
    ),
    View(
        "/backups/{client}/{backup}",
        backup_questions.placement,
        "placement.html",
        section="/backups",
        answers=BackupStatus,
    ),
    View(
        "/runs",
        run_questions.runs,
        "runs.html",
        ("client", "backup", "outcome", "limit", "after"),
        section="/runs",
        answers=Page[RunStatus],
    ),
    View(
        "/runs/{run}",
        run_questions.run,
        "run.html",
        ("after", "line", "level", "q", "pause"),
        section="/runs",
        answers=RunStatus,
        page_only=("after", "line", "level", "q", "pause"),
    ),
    View("/runs/{run}/log", run_questions.run_log, filters=("level", "q", "limit", "after"), answers=Page[LogEntry]),
    View(
        "/timeline",
        time_questions.timeline,
        "timeline.html",
        ("client", "label", "outcome", "day"),
        section="/timeline",
        answers=Timeline,
    ),
    View("/schedule", time_questions.schedule, "schedule.html", ("repository",), section="/schedule", answers=Schedule),
    View(
        "/starts",
        time_questions.next_starts,
        "starts.html",
        ("repository", "limit", "after"),
        section="/schedule",
        answers=Page[NextStart],
    ),
    View(
        "/repositories",
        backup_questions.repositories,
        "repositories.html",
        ("limit", "after"),
        section="/repositories",
        answers=Page[RepositoryStatus],
    ),
    View(
        "/repositories/{repository}",
        backup_questions.repository,
        "repository.html",
        ("limit", "after"),
        section="/repositories",
        answers=Page[RepositoryStatus],
    ),
    View(
        "/archives",
        backup_questions.archives,
        "archives.html",
        ("client", "backup", "repository", "limit", "after"),
        section="/archives",
        answers=Page[ArchiveStatus],
    ),
    View(
        "/archives/{client}/{backup}/{repository}/{archive}",
        archive_questions.archive,
        "archive.html",
        ("path",),
        section="/archives",
        answers=ArchiveDetail,
    ),
    View(
        "/source",
        questions.source,
        "source.html",
        ("after",),
        section="/source",
        answers=SourceStatus,
        page_only=("after",),
    ),
    View("/source/{revision}", questions.revision, "revision.html", section="/source", answers=RevisionStatus),
    View("/revisions", questions.revisions, filters=("limit", "after"), answers=Page[RevisionStatus]),
    View(
        "/events",
        questions.events,
        "events.html",
        ("client", "reason", "actor", "since", "until", "limit", "after"),
        section="/events",
        answers=Page[EventRecord],
    ),
    View("/api", _endpoints, "api.html", section="/about", api=False),
    View("/about", questions.about, "about.html", section="/about", api=False),
    # Parts of pages that only the API has at an address of their own.
    View("/pending", parts.pending, answers=Page[PendingClient]),
    View("/tokens", parts.tokens, answers=Page[TokenStatus]),
    View("/lockouts", parts.lockouts, answers=Page[LockoutStatus]),
    View("/labels", parts.labels, answers=Page[FacetShown]),
    View("/reasons", parts.reasons, answers=Page[FacetShown]),
    View("/clients/{client}/desired", parts.desired, answers=DesiredStatus),
    View("/store", parts.store, answers=StoreFacts),
    View("/backups/{client}/{backup}/retention", parts.retained, answers=Page[RetainedShown]),
    View("/source/{revision}/problems", parts.problems, answers=Page[Problem]),
    View("/backups/{client}/{backup}/samples", parts.samples, filters=("days",), answers=Page[Sample]),
    View("/growth", parts.growth, filters=("repository", "url", "days"), answers=Page[Growth]),
)
