"""Questions that only ``/api/v1`` asks: what pages show beside their main answer, each part at an address of its own.

``tests/web_readonly/test_openapi.py`` knows for each part of each page where the API has it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from schema.errors import Problem
from schema.scalars import Moment
from schema.status import Growth, LockoutStatus, Page, PendingClient, Sample, Shown, TokenStatus
from web_readonly import backup_questions
from web_readonly.asking import Answer, Asked, NotFound
from web_readonly.reader import InvalidQuery

if TYPE_CHECKING:
    from web_readonly.reader import Reader
    from web_readonly.reader.facets import Facet
    from web_readonly.retention import Retained

DAYS: Final = 90
MAX_DAYS: Final = 400


class FacetShown(Shown):
    """One value of a filter, and how many have it."""

    value: str
    number: int
    is_more: bool = False
    """Whether there are more than ``number``: counting stops there."""


class DirectoriesShown(Shown):
    """Where a client keeps its files."""

    config: str = ""
    state: str = ""


class DesiredStatus(Shown):
    """What else a client was told and has said, beside its files."""

    directories: DirectoriesShown = DirectoriesShown()
    drift: str = ""
    """What it does about drift."""
    secrets: tuple[str, ...] = ()
    """Names of the secrets that were sealed to it."""
    reported: Moment | None = None
    """When it last told its state."""
    applied_expires: Moment | None = None
    """When the desired state that it applied expires."""
    dropped_events: int = 0
    """Reports that its outbox had no room for."""


class RuleShown(Shown):
    """One rule of retention, and the archives that it keeps now."""

    name: str
    declared: int
    """How many it wants; -1: without end."""
    kept: tuple[Moment, ...]


class RetainedShown(Shown):
    """The archives of a backup in one repository, by the rule that keeps them."""

    repository: str
    rules: tuple[RuleShown, ...]
    leaving: tuple[Moment, ...]
    """What no rule keeps: the next prune removes it."""
    most: int
    """The number of archives when every rule has its number; -1: without end."""


def pending(reader: Reader, _: Asked) -> Answer:
    """Answer which keys wait for approval, the longest waiting first."""
    return Answer(Page[PendingClient](items=reader.pending()))


def tokens(reader: Reader, _: Asked) -> Answer:
    """Answer which connection tokens there are; never their text, which nobody keeps."""
    return Answer(Page[TokenStatus](items=reader.tokens()))


def lockouts(reader: Reader, asked: Asked) -> Answer:
    """Answer which addresses are locked out."""
    return Answer(Page[LockoutStatus](items=reader.lockouts(now=asked.now)))


def labels(reader: Reader, _: Asked) -> Answer:
    """Answer which labels clients have, as key=value: the most frequent first."""
    return Answer(_facets(reader.labels()))


def reasons(reader: Reader, _: Asked) -> Answer:
    """Answer which reasons stand in the audit trail."""
    return Answer(_facets(reader.reasons()))


def _facets(found: tuple[Facet, ...]) -> Page[FacetShown]:
    shown = tuple(FacetShown(value=one.value, number=one.number, is_more=one.is_more) for one in found)
    return Page[FacetShown](items=shown)


def desired(reader: Reader, asked: Asked) -> Answer:
    """Answer what one client was told beside its files, and what it last said of itself."""
    name = asked.path["client"]
    if reader.client(name, now=asked.now) is None:
        raise NotFound(f"there is no client '{name[:200]}'", hint="see /clients for all of them")
    content, state = reader.content(name), reader.state(name)
    told = DesiredStatus()
    if content is not None:
        told = DesiredStatus(
            directories=DirectoriesShown(config=content.directories.config, state=content.directories.state),
            drift=content.drift,
            secrets=tuple(f"{one.secret}.{one.key}" for one in content.secrets),
        )
    if state is not None:
        said = {"reported": state.at, "applied_expires": state.expires, "dropped_events": state.dropped_events}
        told = told.model_copy(update=said)
    return Answer(told)


def problems(reader: Reader, asked: Asked) -> Answer:
    """Answer what was wrong with one revision, each problem with its place."""
    name = asked.path["revision"]
    found = reader.revision(name)
    if found is None:
        raise NotFound(f"there is no revision '{name[:200]}'", hint="see /source for those that were seen")
    return Answer(Page[Problem](items=found[1]))


def samples(reader: Reader, asked: Asked) -> Answer:
    """Answer what each run of one backup put into its repositories, oldest first."""
    of, name = asked.path["client"], asked.path["backup"]
    if reader.backup(client=of, backup=name, now=asked.now) is None:
        hint = f"see /clients/{of[:200]} for the backups of that client"
        raise NotFound(f"there is no backup '{of[:200]}/{name[:200]}'", hint=hint)
    since = asked.now - timedelta(days=days(asked))
    return Answer(Page[Sample](items=reader.samples(client=of, backup=name, since=since)))


def retained(reader: Reader, asked: Asked) -> Answer:
    """Answer which rule keeps which archive of one backup, in each of its repositories."""
    judged: dict[str, Retained] = dict(backup_questions.placement(reader, asked).beside()["retained"])
    shown = tuple(
        RetainedShown(
            repository=repository,
            rules=tuple(RuleShown(**rule._asdict()) for rule in one.rules),
            leaving=one.leaving,
            most=one.most,
        )
        for repository, one in judged.items()
    )
    return Answer(Page[RetainedShown](items=shown))


def store(reader: Reader, _: Asked) -> Answer:
    """Answer how large the store is, and how far back it goes."""
    return Answer(reader.facts())


def growth(reader: Reader, asked: Asked) -> Answer:
    """Answer how repositories grew day by day, oldest first: one of them, or all together."""
    since = asked.now - timedelta(days=days(asked))
    found = reader.growth(repository=asked.text("repository"), url=asked.text("url"), since=since, until=asked.now)
    return Answer(Page[Growth](items=found))


def days(asked: Asked) -> int:
    """Return how far back was asked for."""
    found = asked.number("days", least=1)
    if found is not None and found > MAX_DAYS:
        raise InvalidQuery(f"'days' cannot be '{found}'", hint=f"it is a number from 1 to {MAX_DAYS}")
    return found or DAYS
