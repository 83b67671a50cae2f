"""From the files of a revision to what every client must have: the one door for the loop, validate, build and plan.

``load → validate → expand → render``, and all problems at once. A ``BuildCache`` carries what one build made to the
next: what did not change is recognised (by blob, then by identity) and handed on as the same object, so that a commit
that changes one of ten thousand backups costs about what one costs, and a caller may compare contents with ``is``
before it looks inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from reconciler.core import archives, expand, load, render, validate
from reconciler.core.layers import LayerCache
from schema.errors import InvalidSource, Problem, Severity
from schema.resources import KINDS, Client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.archives import Claim
    from reconciler.core.catalogue import Catalogue, Located, SourceFile
    from reconciler.core.expand import Effective, Expansion
    from reconciler.core.render import Rendered
    from schema.desired import Content


class Counts(BaseModel):
    """How much there is, for people and metrics."""

    model_config = ConfigDict(frozen=True)

    resources: dict[str, int]
    """Kind → number of resources."""
    jobs: int
    """(client, backup) pairs."""
    unselected_clients: int
    """Clients that no backup selects."""


@dataclass(frozen=True, slots=True)
class Build:
    """One revision, built. Without errors it may be published; with one, ``contents`` is empty."""

    catalogue: Catalogue = field(repr=False)
    expansion: Expansion = field(repr=False)
    contents: Mapping[str, Content] = field(repr=False)
    """What every client of the source must have, by its name, also clients without a backup."""
    digests: Mapping[str, str] = field(repr=False)
    """``Content.digest()`` of each, already computed."""
    problems: tuple[Problem, ...]
    """Errors and warnings, in the order of their places."""
    counts: Counts

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not any(problem.severity is Severity.ERROR for problem in self.problems)

    def require_ok(self) -> None:
        """Raise ``InvalidSource`` with all problems when there is an error."""
        if not self.ok:
            raise InvalidSource(self.problems)


@dataclass(slots=True)
class BuildCache:
    """What one build made, for the next. For one caller, who builds one revision at a time; bounded by one revision."""

    parsed: load.ParseCache = field(default_factory=load.ParseCache)
    layers: LayerCache = field(default_factory=LayerCache)
    expansion: Expansion | None = None
    rendered: dict[str, tuple[Located[Client], tuple[Effective, ...], Rendered]] = field(default_factory=dict)
    problems: dict[str, tuple[Effective, tuple[Problem, ...]]] = field(default_factory=dict)
    collisions: dict[str, tuple[tuple[Claim, ...], tuple[Problem, ...]]] = field(default_factory=dict)


def build(
    files: Iterable[SourceFile], *, borgmatic_schema: Mapping[str, Any], cache: BuildCache | None = None
) -> Build:
    """Return what ``files`` ask of every client, and everything that is wrong with them."""
    cache = BuildCache() if cache is None else cache
    loaded = load.load(files, cache=cache.parsed)
    catalogue = loaded.catalogue
    problems = [*loaded.problems, *_across(loaded, borgmatic_schema, cache.layers)]
    expansion = cache.expansion = expand.expand(catalogue, before=cache.expansion)
    problems += _backup_problems(expansion, cache)
    rendered = _render(catalogue, expansion, cache)
    problems += [problem for each in rendered.values() for problem in each.problems]
    problems += _collisions(rendered.values(), cache)
    problems.sort(key=lambda problem: (problem.path, problem.line, problem.column, problem.code, problem.message))
    broken = any(problem.severity is Severity.ERROR for problem in problems)
    return Build(
        catalogue=catalogue,
        expansion=expansion,
        contents={} if broken else {name: each.content for name, each in rendered.items()},
        digests={} if broken else {name: each.digest for name, each in rendered.items()},
        problems=tuple(problems),
        counts=_counts(catalogue, expansion),
    )


_CONSEQUENCES = frozenset({"dangling-reference", "no-client-selected", "sealed-to-nobody"})
"""What is wrong with everything that names a resource whose file could not be read."""


def _across(loaded: load.Loaded, borgmatic_schema: Mapping[str, Any], layers: LayerCache) -> Iterator[Problem]:
    """Yield what is wrong across the resources; where some could not be read, not that they are missed."""
    lacking = any(problem.severity is Severity.ERROR for problem in loaded.problems)
    for problem in validate.validate(loaded.catalogue, borgmatic_schema=borgmatic_schema, cache=layers):
        if not (lacking and problem.code in _CONSEQUENCES):
            yield problem


def _backup_problems(expansion: Expansion, cache: BuildCache) -> Iterator[Problem]:
    """Yield what is wrong with the backups themselves; with a dangling reference, validate has said what matters."""
    former, cache.problems = cache.problems, {}
    for name, effective in expansion.backups.items():
        known = former.get(name)
        if known is None or known[0] is not effective:
            known = (effective, tuple(render.backup_problems(effective)) if effective.complete else ())
        cache.problems[name] = known
        yield from known[1]


def _render(catalogue: Catalogue, expansion: Expansion, cache: BuildCache) -> dict[str, Rendered]:
    former, cache.rendered = cache.rendered, {}
    memo = render.Memo()
    clients = catalogue.all(Client)
    for name, backups in expansion.clients.items():
        client, known = clients[name], former.get(name)
        if known is None or not expand.is_same(known[0], client) or known[1] != backups:
            rendered = render.render(client, backups, memo=memo)
            if known is not None and known[2].digest == rendered.digest:
                # Made anew from something that moved, and yet the same: callers compare with `is`.
                rendered = replace(rendered, content=known[2].content)
            known = (client, backups, rendered)
        cache.rendered[name] = known
    return {name: known[2] for name, known in cache.rendered.items()}


def _collisions(rendered: Iterable[Rendered], cache: BuildCache) -> Iterator[Problem]:
    """Yield the errors of backups that share a repository and would prune each other's archives."""
    former, cache.collisions = cache.collisions, {}
    by_url: dict[str, list[Claim]] = {}
    for each in rendered:
        for claim in each.claims:
            by_url.setdefault(claim.url, []).append(claim)
    for url, claims in by_url.items():
        if len(claims) < 2:
            continue
        known = former.get(url)
        if known is None or known[0] != tuple(claims):
            known = (tuple(claims), tuple(archives.collisions(claims)))
        cache.collisions[url] = known
        yield from known[1]


def _counts(catalogue: Catalogue, expansion: Expansion) -> Counts:
    return Counts(
        resources={kind: len(catalogue.kinds.get(kind, {})) for kind in KINDS},
        jobs=expansion.pairs,
        unselected_clients=sum(not backups for backups in expansion.clients.values()),
    )
