"""From the files of a revision to what every client must have: the one door for the loop, validate, build and plan.

``load → expand → validate → render``, and all problems at once. There is one way to build: from what the former build
left in its ``BuildCache``, and what changed since; a cold build is one after nothing. What did not change is handed on
as the same object, so that a commit that changes one of ten thousand backups costs about what one costs, and a caller
may compare two builds with ``is`` before it looks inside.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.core import archives, load, render
from reconciler.core.dependents import Dependents, label_key
from reconciler.core.expand import Expander
from reconciler.core.references import Names
from reconciler.core.validate import Validator
from schema.errors import InvalidSource, Problem, Severity
from schema.resources import KINDS, Backup, Client

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.archives import Claim
    from reconciler.core.catalogue import Catalogue, Changed, SourceFile
    from reconciler.core.dependents import Key
    from reconciler.core.expand import Expanded, Expansion
    from reconciler.core.render import Rendered
    from schema.desired import Content


class Counts(NamedTuple):
    """How much there is, for people and metrics."""

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
    rendered: Mapping[str, Rendered] = field(repr=False)
    """By client. The same object as in the build before, unless something about the client or its backups changed."""
    contents: Mapping[str, Content] = field(repr=False)
    """What every client of the source must have, by its name, also clients without a backup."""
    digests: Mapping[str, str] = field(repr=False)
    """``Content.digest()`` of each, already computed."""
    keys: Mapping[str, str] = field(repr=False)
    """Client → public key, of those that have one; the same object as before unless one changed."""
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


class BuildCache:
    """What one build made, for the next. For one caller, who builds one revision at a time; bounded by one revision."""

    def __init__(self) -> None:
        self._built: _Revision | None = None

    def build(self, files: Iterable[SourceFile], borgmatic_schema: Mapping[str, Any]) -> Build:
        """Build ``files``. A fault of ours leaves nothing behind: the next build is a cold one."""
        former, self._built = self._built, None
        revision = former if former is not None and former.schema is borgmatic_schema else _Revision(borgmatic_schema)
        built = revision.build(files)
        self._built = revision
        return built


def build(
    files: Iterable[SourceFile], *, borgmatic_schema: Mapping[str, Any], cache: BuildCache | None = None
) -> Build:
    """Return what ``files`` ask of every client, and everything that is wrong with them."""
    return (BuildCache() if cache is None else cache).build(files, borgmatic_schema)


_CONSEQUENCES = frozenset({"dangling-reference", "no-client-selected", "sealed-to-nobody"})
"""What is wrong with everything that names a resource whose file could not be read."""


class _Revision:
    """The last revision that was built, in the parts that the next one goes on from."""

    def __init__(self, borgmatic_schema: Mapping[str, Any]) -> None:
        self.schema = borgmatic_schema
        self._parsed = load.ParseCache()
        self._dependents = Dependents()
        self._expander = Expander()
        self._validator = Validator(borgmatic_schema)
        self._backup_problems: dict[str, tuple[Problem, ...]] = {}
        self._rendering = _Rendering()
        self._keys: dict[str, str] = {}

    def build(self, files: Iterable[SourceFile]) -> Build:
        loaded = self._parsed.load(files)
        catalogue, changed = loaded.catalogue, loaded.changed
        dirty = self._dependents.of(self._moved(catalogue, changed)) | changed.names(Backup) | self._validator.unsettled
        expanded = self._expander.update(catalogue, changed, backups=dirty)
        problems = [*loaded.problems, *self._across(loaded, expanded, dirty)]
        self._look_at_backups(expanded.expansion, dirty)
        problems += [problem for found in self._backup_problems.values() for problem in found]
        self._rendering.update(expanded)
        self._take_keys(catalogue, changed.names(Client))
        problems += self._rendering.problems()
        problems.sort(key=lambda problem: (problem.path, problem.line, problem.column, problem.code, problem.message))
        broken = any(problem.severity is Severity.ERROR for problem in problems)
        return Build(
            catalogue=catalogue,
            expansion=expanded.expansion,
            rendered=self._rendering.rendered,
            contents={} if broken else self._rendering.contents,
            digests={} if broken else self._rendering.digests,
            keys=self._keys,
            problems=tuple(problems),
            counts=_counts(catalogue, expanded.expansion),
        )

    def _moved(self, catalogue: Catalogue, changed: Changed) -> Iterator[Key]:
        """Yield what backups may depend on and is not as it was: resources, and labels of clients before and now."""
        for kind, names in changed.kinds.items():
            yield from ((kind, name) for name in names)
        clients = catalogue.all(Client)
        for name in changed.names(Client):
            before = self._expander.index.labels(name)
            now = clients[name].resource.metadata.labels if name in clients else {}
            yield from (label_key(*label) for label in before.items() ^ now.items())

    def _take_keys(self, catalogue: Catalogue, names: Iterable[str]) -> None:
        keys = dict(self._keys)
        for name in names:
            client = catalogue.get(Client, name)
            key = client.resource.spec.public_key if client is not None else None
            if key is not None:
                keys[name] = key
            else:
                keys.pop(name, None)
        if keys != self._keys:
            self._keys = keys

    def _across(self, loaded: load.Loaded, expanded: Expanded, dirty: Iterable[str]) -> Iterator[Problem]:
        """Yield what is wrong across the resources; where some could not be read, not that they are missed."""
        names = Names(loaded.catalogue, self._expander.index)
        backups = expanded.expansion.backups
        found = self._validator.update(names, loaded.changed, backups=backups, dirty=dirty, by=self._expander)
        for name in dirty:
            effective = backups.get(name)
            needs = () if effective is None else self._validator.needs(effective.backup.resource, loaded.catalogue)
            self._dependents.put(name, frozenset() if effective is None else effective.needs.union(needs))
        lacking = any(problem.severity is Severity.ERROR for problem in loaded.problems)
        return (problem for problem in found if not (lacking and problem.code in _CONSEQUENCES))

    def _look_at_backups(self, expansion: Expansion, dirty: Iterable[str]) -> None:
        """Find what is wrong with the backups themselves; with a dangling reference, validate has said what matters."""
        for name in dirty:
            effective = expansion.backups.get(name)
            found = tuple(render.backup_problems(effective)) if effective is not None and effective.complete else ()
            self._backup_problems.pop(name, None)
            if found:
                self._backup_problems[name] = found


class _Rendering:
    """What every client must have, and what its jobs claim where. Mappings that were handed out are never changed."""

    def __init__(self) -> None:
        self.rendered: dict[str, Rendered] = {}
        self.contents: dict[str, Content] = {}
        self.digests: dict[str, str] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._claims: dict[str, dict[str, list[Claim]]] = {}
        """By url and client."""
        self._collisions: dict[str, tuple[Problem, ...]] = {}

    def update(self, expanded: Expanded) -> None:
        """Render the clients for which something changed."""
        if not expanded.clients:
            return
        self.rendered, self.contents, self.digests = dict(self.rendered), dict(self.contents), dict(self.digests)
        memo, urls, clients = render.Memo(), set(), expanded.expansion.catalogue.all(Client)
        for name in sorted(expanded.clients):
            former = self.rendered.pop(name, None)
            self._problems.pop(name, None)
            urls |= self._forget_claims(name, former)
            if name not in clients:
                del self.contents[name], self.digests[name]
                continue
            rendered = render.render(clients[name], expanded.expansion.clients[name], memo=memo)
            if former is not None and former.digest == rendered.digest:
                # Made anew from something that moved, and yet the same: callers compare with `is`.
                rendered = replace(rendered, content=former.content)
            self.rendered[name], self.contents[name] = rendered, rendered.content
            self.digests[name] = rendered.digest
            if rendered.problems:
                self._problems[name] = rendered.problems
            for claim in rendered.claims:
                self._claims.setdefault(claim.url, {}).setdefault(name, []).append(claim)
                urls.add(claim.url)
        for url in urls:
            self._collide(url)

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with single clients, and with those that would prune each other's archives."""
        for found in (*self._problems.values(), *self._collisions.values()):
            yield from found

    def _forget_claims(self, name: str, former: Rendered | None) -> set[str]:
        urls = {claim.url for claim in former.claims} if former is not None else set()
        for url in urls:
            by_client = self._claims[url]
            by_client.pop(name, None)
            if not by_client:
                del self._claims[url]
        return urls

    def _collide(self, url: str) -> None:
        by_client = self._claims.get(url, {})
        claims = [claim for name in sorted(by_client) for claim in by_client[name]]
        found = tuple(archives.collisions(claims))
        self._collisions.pop(url, None)
        if found:
            self._collisions[url] = found


def _counts(catalogue: Catalogue, expansion: Expansion) -> Counts:
    return Counts(
        resources={kind: len(catalogue.kinds.get(kind, {})) for kind in KINDS},
        jobs=expansion.pairs,
        unselected_clients=sum(not backups for backups in expansion.clients.values()),
    )
