"""Who asks what in the benchmark of the pages: every page of ``web_readonly.views``, with filters that people use.

Names come from the store. The same seed asks the same in the same order.
"""

from __future__ import annotations

import random
import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, quote

from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from web_readonly.views import View

_STATES: Final = ("connected", "away", "drifted", "current", "behind", "refused", "stale", "unknown", "revoked")
QUERIES: Final[dict[str, tuple[str, ...]]] = {
    "/clients": (
        "",
        "q=web-1",
        "q=nobody",
        "label=role=mail&label=site=turin",
        "label=role=web&state=behind",
        "after={client}",
        *(f"state={state}" for state in _STATES),
    ),
    "/backups": (
        "",
        "client={client}",
        "backup=mailboxes",
        "repository=offsite",
        "state=unprotected",
        "state=protected",
        "state=unknown",
        "state=without-objective",
        "state=running",
        "backup=mailboxes&state=unprotected",
        "after={client}~system",
    ),
    "/backups/{backup}": ("", "after={client}~{backup}"),
    "/runs": (
        "",
        "client={client}",
        "client={client}&outcome=failed",
        "client={client}&backup=system",
        "backup=system",
        "backup=postgresql&outcome=cancelled",
        "backup=nothing&outcome=succeeded",
        "outcome=running",
        "outcome=failed",
        "outcome=succeeded",
        "outcome=lost",
        "after={moment}~0",
        "outcome=failed&after={moment}~0",
    ),
    "/runs/{run}": ("", "level=error", "q=line"),
    "/timeline": ("", "client={client}", "label=role=mail", "outcome=failed"),
    "/schedule": ("", "repository=offsite"),
    "/starts": ("", "repository=offsite"),
    "/repositories": ("", "after=vault~ssh://borg@vault-4"),
    "/archives": (
        "",
        "client={client}",
        "backup=system",
        "repository=vault",
        "repository=offsite",
        "client={client}&repository=vault",
        "client={client}&backup=system",
        "backup=system&repository=offsite",
        "after={moment}~a~b~c~d",
    ),
    "/source": ("", "after=1000"),
    "/revisions": ("", "after=1000"),
    "/events": ("", "client={client}", "reason=TokenCreated", "reason=Applied", "after={moment}~50000"),
}
"""Queries by the path of a view; a view that is not here is asked without."""


class Visit(NamedTuple):
    """One request to come."""

    view: str
    query: str
    """The pattern, which says what was slow."""
    target: str


@dataclass(frozen=True, slots=True)
class Names:
    """What there is to ask for."""

    backups: list[tuple[str, str]]
    runs: list[tuple[str, str]]
    """Id and start."""
    revisions: list[str]
    archives: list[tuple[str, str, str, str]]


def read_names(store: Path, *, seed: int = 7) -> Names:
    """Return some of each; among the runs the one with the longest log."""
    connection = sqlite3.connect(f"file:{quote(str(store))}?mode=ro", uri=True)
    chance = random.Random(seed)

    def some(sql: str, number: int) -> list[Any]:
        found: list[Any] = connection.execute(sql).fetchall()
        return chance.sample(found, min(number, len(found)))

    try:
        return Names(
            backups=some("SELECT client, backup FROM backups", 500),
            runs=[
                *some("SELECT id, started FROM runs ORDER BY started DESC LIMIT 20000", 300),
                *some("SELECT id, started FROM runs ORDER BY started LIMIT 20000", 100),
                *some(
                    "SELECT id, started FROM runs WHERE id = (SELECT run FROM run_logs WHERE number > 1000 LIMIT 1)", 1
                ),
            ],
            revisions=[one for (one,) in some("SELECT revision FROM revisions", 50)],
            archives=some("SELECT client, backup, repository, id FROM archives LIMIT 20000", 200),
        )
    finally:
        connection.close()


def plan(names: Names, *, number: int, seed: int = 1) -> list[Visit]:
    """Return ``number`` visits: each view as often as the others, and each of its queries, in no order."""
    chance = random.Random(seed)
    visits: list[Visit] = []
    turn = 0
    while len(visits) < number:
        visits += [_visit(view, target, turn, names, chance) for view, target in _targets()]
        turn += 1
    chance.shuffle(visits)
    return visits[:number]


def one_of_each(names: Names) -> list[Visit]:
    """Return every view with each of its queries, once."""
    chance = random.Random(0)
    return [
        _visit(view, target, turn, names, chance)
        for view, target in _targets()
        for turn in range(len(_queries(view, target)))
    ]


def _targets() -> Iterator[tuple[View, str]]:
    for view in VIEWS:
        if view.template:
            yield view, view.path
        if view.api:
            yield view, view.api_path


def _queries(view: View, target: str) -> list[str]:
    """Return what may be asked of a page, or of its JSON, which has fewer filters."""
    known = view.filters if target == view.path else view.api_filters
    return [one for one in QUERIES.get(view.path, ("",)) if {name for name, _ in parse_qsl(one)} <= set(known)]


def _visit(view: View, target: str, turn: int, names: Names, chance: random.Random) -> Visit:
    queries = _queries(view, target)
    query = queries[turn % len(queries)]
    client, backup = chance.choice(names.backups)
    run, started = chance.choice(names.runs)
    values = {
        "client": client,
        "backup": backup,
        "run": run,
        "moment": started,
        "revision": chance.choice(names.revisions),
        "repository": chance.choice(["vault", "offsite"]),
    }
    if "{archive}" in target:
        values |= dict(zip(("client", "backup", "repository", "archive"), chance.choice(names.archives), strict=True))
    unknown = set(re.findall(r"\{(\w+)\}", target)) - values.keys()
    if unknown:
        raise LookupError(f"{view.path} asks for {', '.join(sorted(unknown))}: say in visits.py what that may be")
    asked = query.format_map(values)
    return Visit(target, query, target.format_map(values) + (f"?{asked}" if asked else ""))
