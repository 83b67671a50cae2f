"""What the pages of runs ask, and of a run and its log. As ``web_readonly.questions``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schema.observed import Outcome
from schema.status import Page
from web_readonly import progress
from web_readonly.asking import RUN_OUTCOMES, Answer, Asked, found
from web_readonly.reader import RunFilter

if TYPE_CHECKING:
    from datetime import datetime

    from schema.observed import RepositoryStatistics
    from schema.status import RunStatus
    from web_readonly.reader import Reader

LOG_LINES: Final = 500
ARCHIVES_LINKED: Final = 20
LINES_BEFORE: Final = 20
"""Above the line of a log that a link leads to."""
_LEVELS: Final = ("debug", "info", "warning", "error", "critical")


def runs(reader: Reader, asked: Asked) -> Answer:
    """Answer what ran."""
    return Answer(
        reader.runs(_run_filter(asked), limit=asked.limit(), before=asked.text("after")),
        lambda: {"outcomes": RUN_OUTCOMES},
    )


def _run_filter(asked: Asked) -> RunFilter:
    outcome = asked.choice("outcome", RUN_OUTCOMES)
    return RunFilter(
        client=asked.text("client"),
        backup=asked.text("backup"),
        outcome="running" if outcome == "running" else Outcome(outcome) if outcome else None,
    )


def run(reader: Reader, asked: Asked) -> Answer:
    """Answer how one run goes or went. Of a long log the end is shown first: that is where it failed."""
    name = asked.path["run"]
    main = found(reader.run(name), "run", name, look="/runs; old runs are forgotten by age")
    asked.choice("pause", ("yes",))
    after, line = asked.number("after", least=-1), asked.number("line", least=1)
    narrowed = bool(asked.text("level") or asked.text("q"))
    if after is None and line is not None:
        after = max(-1, line - LINES_BEFORE - 2)
    elif after is None:
        after = -1 if narrowed else max(-1, main.log_lines - LOG_LINES - 1)
    return Answer(
        main,
        lambda: {
            "log": _log(reader, asked, after=after),
            "after": after,
            "levels": _LEVELS,
            "earlier": None if narrowed or after < 0 else max(-1, after - LOG_LINES),
            "source": reader.source(),
            "known": reader.known_revisions((main.revision,)),
            "there": {
                (one.repository, one.archive_id)
                for one in main.statistics[:ARCHIVES_LINKED]
                if _is_there(reader, main, one)
            },
            **(_progress(reader, main, now=asked.now) if main.outcome is None else {}),
        },
    )


def _progress(reader: Reader, run: RunStatus, *, now: datetime) -> dict[str, Any]:
    """Return how a run goes on, and whether its machine is there to tell."""
    wanted = RunFilter(client=run.client, backup=run.backup, outcome=Outcome.SUCCEEDED)
    last = next(iter(reader.runs(wanted, limit=1).items), None)
    return {"pace": progress.pace(run, last=last, now=now), "machine": reader.client(run.client, now=now)}


def _is_there(reader: Reader, run: RunStatus, made: RepositoryStatistics) -> bool:
    """Whether the archive that a run made is still seen: it may have been pruned since."""
    if not made.archive_id:
        return False
    found = reader.archive(client=run.client, backup=run.backup, repository=made.repository, archive=made.archive_id)
    return found is not None


def run_log(reader: Reader, asked: Asked) -> Answer:
    """Answer with log lines of one run, from the first."""
    name = asked.path["run"]
    found(reader.run(name), "run", name, look="/runs; old runs are forgotten by age")
    after = asked.number("after", least=-1)
    return Answer(_log(reader, asked, after=-1 if after is None else after))


def _log(reader: Reader, asked: Asked, *, after: int) -> Page[Any]:
    chosen = asked.choice("level", _LEVELS)
    level = next((one for one in ("info", "warning", "error", "critical") if one == chosen), "debug")
    limit = asked.limit(LOG_LINES)
    return reader.run_log(asked.path["run"], after=after, limit=limit, level=level, text=asked.text("q"))  # type: ignore[arg-type]
