"""All routes of the dashboard in one table: path, question, template, filters. Each has a JSON twin under ``/api/v1``.

To add a page: a question in ``web_readonly.questions``, a template, and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from web_readonly import questions, time_questions

if TYPE_CHECKING:
    from web_readonly.questions import Question

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

    @property
    def api_path(self) -> str:
        """Where the JSON is."""
        return API + ("/overview" if self.path == "/" else self.path)


VIEWS: Final = (
    View("/", questions.overview, "overview.html", section="/"),
    View("/clients", questions.clients, "clients.html", ("q", "label", "state", "after"), section="/clients"),
    View("/clients/{client}", questions.client, "client.html", section="/clients"),
    View("/clients/{client}/files", questions.client_files),
    View(
        "/backups",
        questions.backups,
        "backups.html",
        ("client", "backup", "repository", "state", "after"),
        section="/backups",
    ),
    View("/backups/{backup}", questions.backup, "backup.html", ("after",), section="/backups"),
    View("/backups/{client}/{backup}", questions.placement, "placement.html", section="/backups"),
    View("/runs", questions.runs, "runs.html", ("client", "backup", "outcome", "after"), section="/runs"),
    View("/runs/{run}", questions.run, "run.html", ("after", "line", "level", "q", "pause"), section="/runs"),
    View("/runs/{run}/log", questions.run_log, filters=("after", "level", "q")),
    View(
        "/timeline",
        time_questions.timeline,
        "timeline.html",
        ("client", "label", "outcome", "day"),
        section="/timeline",
    ),
    View("/schedule", time_questions.schedule, "schedule.html", ("repository",), section="/schedule"),
    View("/starts", time_questions.next_starts, "starts.html", ("repository", "after"), section="/schedule"),
    View("/repositories", questions.repositories, "repositories.html", ("after",), section="/repositories"),
    View("/repositories/{repository}", questions.repository, "repository.html", ("after",), section="/repositories"),
    View(
        "/archives",
        questions.archives,
        "archives.html",
        ("client", "backup", "repository", "after"),
        section="/archives",
    ),
    View("/source", questions.source, "source.html", ("after",), section="/source"),
    View("/source/{revision}", questions.revision, "revision.html", section="/source"),
    View("/revisions", questions.revisions, filters=("after",)),
    View(
        "/events",
        questions.events,
        "events.html",
        ("client", "reason", "actor", "since", "until", "after"),
        section="/events",
    ),
    View("/about", questions.about, "about.html", section="/about", api=False),
)
