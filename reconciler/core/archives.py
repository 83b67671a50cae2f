"""Archive names: what archives are called, what a prune matches, and whether two backups get in each other's way.

Called by ``render`` (the director's own format) and ``build`` (collisions). Two backups that share a repository may
only prune their own archives. borgmatic prunes what ``match_archives``, ``prefix`` or, without them,
``archive_name_format`` with its times replaced by ``*`` matches (borgmatic.borg.flags.make_match_archives_flags). The
director's own format ends with a time behind ``<client>.<backup>.``, and names hold no dot, so that it can never
match another's. For formats of a person's own this module compares patterns, and where it cannot know, it assumes the
worse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from reconciler.core.expand import Effective
    from schema.errors import Problem

TIME_FORMAT = "{now:%Y-%m-%dT%H:%M:%S}"

RETENTION = (
    "keep_within",
    "keep_secondly",
    "keep_minutely",
    "keep_hourly",
    "keep_daily",
    "keep_weekly",
    "keep_monthly",
    "keep_yearly",
    "keep_13weekly",
    "keep_3monthly",
)
"""borgmatic's options that keep archives; ``keep_exclude_tags`` is something else."""

NAMING = ("prefix", "match_archives", "archive_name_format")
"""borgmatic's options that decide which archives are a backup's own; the first one given wins."""

_HOST = re.compile(r"\{(?:hostname|fqdn|reverse-fqdn)\}")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}")
_WILDCARDS = re.compile(r"\*+|\?|\[[^\]]*\]|\\.")


def default_format(client: str, backup: str) -> str:
    """Return the director's ``archive_name_format``."""
    return f"{client}.{backup}.{TIME_FORMAT}"


def runs(action: str, *, actions: Iterable[str], options: Mapping[str, JsonValue]) -> bool:
    """Whether a run does ``action``: the backup lists it, and borgmatic's ``skip_actions`` does not take it out."""
    skipped = options.get("skip_actions")
    return action in actions and not (isinstance(skipped, list) and action in skipped)


def keeps(options: Mapping[str, JsonValue]) -> bool:
    """Whether any option tells prune what to keep; Borg counts 0 as nothing, and refuses to prune without."""
    return any(options.get(option) for option in RETENTION)


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """The archives of one backup of one client in one repository: patterns in which only ``*`` is special."""

    url: str
    repository: str
    client: str
    effective: Effective
    names: str
    matches: str
    """What borgmatic takes for this backup's archives: what prune prunes and check checks."""
    prunes: str | None
    """``matches``, or None when it does not prune."""
    own_format: bool
    """Whether the director chose the format: two such claims never collide."""


def claim(*, url: str, repository: str, client: str, effective: Effective) -> Claim:
    """Return what ``effective`` on ``client`` claims in the repository at ``url``."""
    options = effective.options
    written = options.get("archive_name_format")
    name_format = written if isinstance(written, str) and written else default_format(client, effective.name)
    names = pattern(name_format, client=client)
    prefix, match = options.get("prefix"), options.get("match_archives")
    matched = names
    if isinstance(prefix, str) and prefix:
        matched = pattern(f"{prefix}*", client=client)
    elif isinstance(match, str) and match:
        # Anything but a shell pattern (re:, id:, Borg 2's series) is not compared but taken to match everything.
        style, _, glob = match.rpartition(":")
        matched = pattern(glob, client=client) if style in {"", "sh"} else "*"
    prunes = runs("prune", actions=effective.backup.resource.spec.actions, options=options)
    return Claim(
        url=_normal(url),
        repository=repository,
        client=client,
        effective=effective,
        names=names,
        matches=matched,
        prunes=matched if prunes else None,
        own_format=name_format is not written and matched is names,
    )


def _normal(url: str) -> str:
    """Return one spelling for all spellings of one path."""
    if not url.startswith("/"):
        return url.rstrip("/")
    return "/" + "/".join(part for part in url.split("/") if part not in {"", "."})


def pattern(text: str, *, client: str) -> str:
    """Return ``text`` with everything that changes as ``*``, and what names the machine as one fixed word per client.

    ``{user}`` is nearly always root, so it does not tell clients apart.
    """
    text = _HOST.sub(f"\x00{client}\x00", text)
    text = _PLACEHOLDER.sub("*", text)
    return re.sub(r"\*+", "*", _WILDCARDS.sub("*", text))


def overlap(first: str, second: str) -> bool:
    """Whether one text can match both patterns."""
    reachable = {0}
    for char in first:
        reachable = _closure(reachable, second)
        if char == "*":
            reachable = set(range(min(reachable), len(second) + 1)) if reachable else set()
        else:
            reachable = {
                at if second[at] == "*" else at + 1
                for at in reachable
                if at < len(second) and second[at] in (char, "*")
            }
        if not reachable:
            return False
    return len(second) in _closure(reachable, second)


def covers(wide: str, narrow: str) -> bool:
    """Whether ``wide`` matches every text that ``narrow`` matches; False also where that is not plain to see."""
    expression = ".*".join(re.escape(part) for part in wide.split("*"))
    return re.fullmatch(expression, narrow, re.DOTALL) is not None


def collisions(claims: Sequence[Claim]) -> Iterator[Problem]:
    """Yield an error for each backup in one repository that would prune archives of another; at most one for each."""
    if len(claims) < 2 or all(each.own_format for each in claims):
        return
    reported: set[int] = set()
    for pruner, other in _candidates(claims):
        if id(pruner) in reported or pruner.prunes is None or not overlap(pruner.prunes, other.names):
            continue
        reported.add(id(pruner))
        yield _problem(pruner, other)


def _closure(reachable: set[int], second: str) -> set[int]:
    """Let every ``*`` of ``second`` match nothing."""
    closed = set(reachable)
    for at in reachable:
        while at < len(second) and second[at] == "*":
            at += 1  # noqa: PLW2901 - walks over the stars
            closed.add(at)
    return closed


def _candidates(claims: Sequence[Claim]) -> Iterator[tuple[Claim, Claim]]:
    """Yield pairs (pruner, other) whose patterns may overlap: one's fixed beginning must begin the other's.

    Sorted by it, those that begin an entry are the open ones on a stack, so that no claim is compared with all others.
    """
    entries = sorted(
        [(each.names.partition("*")[0], 0, index) for index, each in enumerate(claims)]
        + [(each.prunes.partition("*")[0], 1, index) for index, each in enumerate(claims) if each.prunes is not None]
    )
    stack: list[tuple[str, int, int]] = []
    for entry in entries:
        while stack and not entry[0].startswith(stack[-1][0]):
            stack.pop()
        for other in stack:
            if entry[1] != other[1] and entry[2] != other[2]:
                pruner, named = (entry, other) if entry[1] else (other, entry)
                yield claims[pruner[2]], claims[named[2]]
        stack.append(entry)


def _problem(pruner: Claim, other: Claim) -> Problem:
    source, option = _cause(pruner) or _cause(other) or (pruner.effective, "archive_name_format")
    return source.origin(option).problem(
        f"backup '{pruner.effective.name}' of client '{pruner.client}' would prune archives of "
        f"backup '{other.effective.name}' of client '{other.client}': "
        f"both are in repository '{pruner.repository}' ({pruner.url}), and the names of their archives overlap",
        code="retention-collision",
        hint=f"leave {option} out (the director then names archives <client>.<backup>.<time>), "
        "or put ${client} or ${backup} into the repository's url",
    )


def _cause(claim: Claim) -> tuple[Effective, str] | None:
    """Return the option of a person's own that decides the claim's pattern."""
    return next(((claim.effective, option) for option in NAMING if claim.effective.options.get(option)), None)
