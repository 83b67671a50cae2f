"""What the pages of the whole, of the source and of clients ask, from the path and the filters of one request.

``web_readonly.views`` lists all questions; backups, runs, archives and times have modules of their own. A question
returns its main answer, which is also the JSON of ``/api/v1``, and what the page shows beside it. Sealed values never
leave here: of a desired state, pages get the files and the names of its secrets.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from schema import assessment
from schema.status import Following, Page, Phase
from web_readonly import files
from web_readonly.asking import CLIENT_STATES, GROWTH, Answer, Asked, found
from web_readonly.reader import BackupFilter, ClientFilter, EventFilter, RunFilter
from web_readonly.reader.timeline import TimelineFilter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schema.desired import Content
    from schema.status import ClientStatus
    from web_readonly.reader import Reader

OVERVIEW_ROWS: Final = 12


# --- Overview and source ----------------------------------------------------------------------------------------------


def overview(reader: Reader, asked: Asked) -> Answer:
    """Answer whether anything is unprotected, and what to do first."""
    since = asked.now.replace(minute=asked.now.minute // 10 * 10, second=0, microsecond=0) - timedelta(days=1)
    main = reader.overview(now=asked.now)
    return Answer(
        main,
        lambda: {
            "silent": assessment.silent_since(main.source, now=asked.now),
            "running": reader.runs(RunFilter(outcome="running"), limit=5).items,
            "runs": reader.has_runs(),
            "pending": reader.count_pending(),
            "timeline": reader.timeline(
                TimelineFilter(), since=since, until=since + timedelta(days=2), rows=OVERVIEW_ROWS, now=asked.now
            ),
            "growth": reader.growth(since=asked.now - GROWTH, until=asked.now),
            "wanted": reader.wanted_archives(),
        },
    )


def source(reader: Reader, asked: Asked) -> Answer:
    """Answer which revision is published, and what is wrong with the newest."""
    main = reader.source()
    return Answer(
        main,
        lambda: {
            "revisions": reader.revisions(limit=30, before=asked.text("after")),
            "silent": assessment.silent_since(main, now=asked.now),
        },
    )


def revisions(reader: Reader, asked: Asked) -> Answer:
    """Answer how each revision was judged."""
    return Answer(reader.revisions(limit=asked.limit(), before=asked.text("after")))


def revision(reader: Reader, asked: Asked) -> Answer:
    """Answer how one revision was judged, and why."""
    name = asked.path["revision"]
    main, problems = found(reader.revision(name), "revision", name, look="/source for those that were seen")
    return Answer(main, lambda: {"problems": problems, "source": reader.source()})


def events(reader: Reader, asked: Asked) -> Answer:
    """Answer who did what."""
    wanted = EventFilter(
        client=asked.text("client"),
        reason=asked.text("reason"),
        actor=asked.text("actor"),
        since=asked.moment("since"),
        until=asked.moment("until", end=True),
    )
    return Answer(
        reader.events(wanted, limit=asked.limit(), before=asked.text("after")), lambda: {"reasons": reader.reasons()}
    )


def about(reader: Reader, asked: Asked) -> Answer:
    """Answer what this is, how much it keeps, and who could get in."""
    main = reader.source()
    return Answer(
        main,
        lambda: {
            "tokens": reader.tokens(),
            "lockouts": reader.lockouts(now=asked.now),
            "facts": reader.facts(),
            "silent": assessment.silent_since(main, now=asked.now),
        },
    )


# --- Clients ----------------------------------------------------------------------------------------------------------


def clients(reader: Reader, asked: Asked) -> Answer:
    """Answer how each client stands."""
    state = asked.choice("state", CLIENT_STATES)
    labels = asked.labels()
    wanted = ClientFilter(
        text=asked.text("q"),
        labels=labels,
        phase=Phase(state) if state in set(Phase) else None,
        # "unknown" and the like belong to following; no word stands in both.
        following=Following(state) if state in set(Following) else None,
        connected={"connected": True, "away": False}.get(state),
        drifted=True if state == "drifted" else None,
    )
    page = reader.clients(wanted, limit=asked.limit(), after=asked.text("after"), now=asked.now)
    return Answer(
        page,
        lambda: {
            "pending": reader.pending(),
            "states": CLIENT_STATES,
            "counts": reader.client_counts(now=asked.now),
            "facets": reader.labels(),
            "chosen": labels,
            "known": reader.known_revisions(one.applied_revision for one in page.items),
            "silent": assessment.silent_since(reader.source(), now=asked.now),
        },
    )


def client(reader: Reader, asked: Asked) -> Answer:
    """Answer what one client should have, has, and does."""
    name = asked.path["client"]
    main = _client(reader, asked)

    def beside() -> Mapping[str, Any]:
        content, state = reader.content(name), reader.state(name)
        return {
            "backups": reader.backups(BackupFilter(client=name), limit=200, now=asked.now).items,
            "runs": reader.runs(RunFilter(client=name), limit=30).items,
            "events": reader.events(EventFilter(client=name), limit=8).items,
            "files": _files(reader, main, content),
            "source": reader.source(),
            "secrets": [f"{one.secret}.{one.key}" for one in content.secrets] if content else [],
            "directories": content.directories if content else None,
            "heals": content.drift if content else "",
            "reported": state.at if state else None,
            "applied_expires": state.expires if state else None,
            "dropped": state.dropped_events if state else 0,
            "known": reader.known_revisions((main.applied_revision, main.desired_revision)),
        }

    return Answer(main, beside)


def client_files(reader: Reader, asked: Asked) -> Answer:
    """Answer with the managed files of one client: text, where each line comes from, and what will change."""
    main = _client(reader, asked)
    return Answer(Page[files.FileShown](items=_files(reader, main, reader.content(main.name))))


def _client(reader: Reader, asked: Asked) -> ClientStatus:
    name = asked.path["client"]
    main = reader.client(name, now=asked.now)
    near = reader.neighbours("client", name) if main is None else ()
    return found(main, "client", name, look="/clients for all of them", near=near)


def _files(reader: Reader, main: ClientStatus, content: Content | None) -> tuple[files.FileShown, ...]:
    waits = main.applied_digest not in {"", main.desired_digest}
    before = reader.former(main.name, digest=main.applied_digest) if waits else None
    return files.shown(content, before=before, options=reader.options(main.name))
