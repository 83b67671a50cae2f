"""From the files of a revision to its resources: every problem at once, at ``file:line:column``, in plain sentences.

Called by ``build`` with what ``source`` read. Pure. What a file says is parsed and checked once and kept in a
``ParseCache``, which also tells which resources a commit changed; ``validate`` then looks across the resources.
"""

from __future__ import annotations

import hashlib
import json
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import ValidationError

from reconciler.core import explain, identity, yaml_reader
from reconciler.core.catalogue import Catalogue, Changed, Located, Pointer
from schema.errors import Problem
from schema.resources import API_VERSION, KINDS, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.catalogue import SourceFile
    from reconciler.core.yaml_document import Document

MAX_PROBLEMS = 1_000
"""Of one revision. More are counted, not shown."""

LATER_KINDS = frozenset({"Template", "Application", "SSHKey", "Policy", "Restore", "Drill", "Alert"})
"""Kinds of the design that this version does not have."""


class Loaded(NamedTuple):
    """The resources that could be read, and everything wrong. With an error among the problems, use no resource."""

    catalogue: Catalogue
    problems: tuple[Problem, ...]
    changed: Changed
    """What differs from the former load with the same cache; everything, when there was none."""


class _Parsed(NamedTuple):
    """One resource, wherever its file is."""

    resource: Resource
    positions: Mapping[Pointer, tuple[int, int]]
    digest: str


class _ParsedFile(NamedTuple):
    """What one blob says, without a path: the same blob may stand at several."""

    resources: tuple[_Parsed, ...]
    problems: tuple[Problem, ...]


class _KnownFile(NamedTuple):
    """A file of the last load."""

    file: SourceFile
    parsed: _ParsedFile
    located: tuple[Located[Resource], ...]


class ParseCache:
    """The last load: what each file said, and who has which name. A file with a known path and blob is not looked at.

    Catalogues that were handed out are never changed: a new one shares the kinds in which nothing did.
    """

    def __init__(self) -> None:
        self._files: dict[str, _KnownFile] = {}
        self._given: dict[str, SourceFile] = {}
        self._kinds: dict[str, dict[str, Located[Resource]]] = {kind: {} for kind in KINDS}
        self._rivals: dict[tuple[str, str], list[Located[Resource]]] = {}
        """All resources with one kind and name, where there are several."""
        self._problems: dict[str, tuple[Problem, ...]] = {}
        """By path, of the files that have any."""

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def __len__(self) -> int:
        return len(self._files)

    def load(self, files: Iterable[SourceFile]) -> Loaded:
        """Return the catalogue of ``files``."""
        given = {file.path: file for file in files}
        known, before, self._given = self._files, self._given, given
        fresh = identity.differing(before, given)
        gone = identity.gone(before, given, differing=fresh)
        left = {known[path].file.blob: known[path].parsed for path in gone}
        out: list[Located[Resource]] = [located for path in gone for located in known.pop(path).located]
        into: list[Located[Resource]] = []
        for path in gone:
            self._problems.pop(path, None)
        for path in sorted(fresh):
            file, former = given[path], known.get(path)
            if former is not None and former.file.blob == file.blob:
                known[path] = _KnownFile(file, former.parsed, former.located)
                continue
            parsed = left.get(file.blob) or _parse(file.data)
            located = _located(parsed, path, former)
            known[path] = _KnownFile(file, parsed, located)
            out += former.located if former is not None else ()
            into += located
            self._note(path, parsed)
        changed = self._put(out, into)
        problems = [problem for path in sorted(self._problems) for problem in self._problems[path]]
        for rivals in self._rivals.values():
            problems += [_second(located, rivals[0]) for located in rivals[1:]]
        return Loaded(Catalogue(dict(self._kinds)), limited(problems), changed)

    def _note(self, path: str, parsed: _ParsedFile) -> None:
        self._problems.pop(path, None)
        if parsed.problems:
            self._problems[path] = tuple(problem.model_copy(update={"path": path}) for problem in parsed.problems)

    def _put(self, out: list[Located[Resource]], into: list[Located[Resource]]) -> Changed:
        """Replace resources and return whose names were touched. The first of a name, by its place, has it."""
        kept = {id(located) for located in into}
        leaving = {id(located) for located in out} - kept
        arriving = {id(located) for located in out} & kept  # stands where it stood
        names: dict[str, set[str]] = {}
        joining: dict[tuple[str, str], list[Located[Resource]]] = {}
        for located in out:
            if id(located) in leaving:
                joining.setdefault(_name(located), [])
        for located in into:
            if id(located) not in arriving:
                joining.setdefault(_name(located), []).append(located)
        for kind, name in joining:
            names.setdefault(kind, set()).add(name)
        for kind in names:
            self._kinds[kind] = dict(self._kinds[kind])
        for key, new in joining.items():
            kind, name = key
            present = self._rivals.pop(key, None)
            if present is None:
                present = [only] if (only := self._kinds[kind].get(name)) is not None else []
            remaining = [located for located in present if id(located) not in leaving] + new
            if not remaining:
                self._kinds[kind].pop(name, None)
                continue
            remaining.sort(key=_place)
            self._kinds[kind][name] = remaining[0]
            if len(remaining) > 1:
                self._rivals[key] = remaining
        return Changed(names)


def _name(located: Located[Resource]) -> tuple[str, str]:
    return located.resource.kind, located.resource.metadata.name


def _place(located: Located[Resource]) -> tuple[str, tuple[int, int]]:
    return located.path, located.position()


def _located(parsed: _ParsedFile, path: str, former: _KnownFile | None) -> tuple[Located[Resource], ...]:
    """Return the resources of a file; one that stands there as it stood is the same object."""
    before = {each.digest: each for each in former.located} if former is not None else {}
    return tuple(
        same
        if (same := before.get(one.digest)) is not None and same.positions == one.positions
        else Located(one.resource, path, one.positions, one.digest)
        for one in parsed.resources
    )


def is_resource_path(path: str) -> bool:
    """Whether a file at ``path`` (within the source) is read: ``*.yaml`` and ``*.yml`` outside hidden folders."""
    return path.endswith((".yaml", ".yml")) and not any(part.startswith(".") for part in path.split("/"))


def load(files: Iterable[SourceFile], *, cache: ParseCache | None = None) -> Loaded:
    """Return the catalogue of ``files`` and all problems, in the order of paths. Never raises on bad input."""
    return (ParseCache() if cache is None else cache).load(files)


def limited(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return the problems in the order of their places, at most ``MAX_PROBLEMS`` and then a note."""
    ordered = sorted(problems, key=attrgetter("path", "line", "column"))
    if len(ordered) <= MAX_PROBLEMS:
        return tuple(ordered)
    ordered.sort(key=lambda problem: problem.severity != "error")  # errors are never hidden behind warnings
    more = len(ordered) - MAX_PROBLEMS
    note = Problem(
        code="too-many-problems", message=f"{more} more problems are not shown", severity=ordered[MAX_PROBLEMS].severity
    )
    return (*sorted(ordered[:MAX_PROBLEMS], key=attrgetter("path", "line", "column")), note)


def _second(located: Located[Resource], former: Located[Resource]) -> Problem:
    name = located.resource.name
    kind = located.resource.kind
    return located.problem(
        ("metadata", "name"),
        f"there are two resources of kind {kind} named '{name}': this one, and the one at {former.origin}",
        code="duplicate-resource",
        hint="rename or remove one of them",
    )


def _parse(data: bytes) -> _ParsedFile:
    result = yaml_reader.read(data, path="")
    resources: list[_Parsed] = []
    problems = list(result.problems)
    for document in result.documents:
        kind, problem = _kind(document)
        if kind is None:
            problems += [problem] if problem is not None else []
            continue
        try:
            resource = kind.model_validate(document.content, strict=True, by_alias=True, by_name=False)
        except ValidationError as error:
            problems += [
                _at(document, fault.pointer, fault.message, code=fault.code, hint=fault.hint)
                for fault in explain.faults(error, kind, document.content)
            ]
        else:
            resources.append(_Parsed(resource, document.positions, _digest(document.content)))
    return _ParsedFile(tuple(resources), tuple(problems))


_TEXT: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _digest(content: Any) -> str:
    """Return a digest of the content in its own order, for the order of keys shows in what is rendered."""
    return hashlib.blake2b(_TEXT(content).encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _kind(document: Document) -> tuple[type[Resource] | None, Problem | None]:
    """Return the model of the document's kind, or what is wrong with its apiVersion and kind."""
    content = document.content
    if not isinstance(content, dict):
        return None, _at(
            document,
            (),
            f"a resource is a mapping with apiVersion, kind, metadata and spec, not {explain.shown(content)}",
            code="not-a-resource",
            hint=_NOT_A_RESOURCE,
        )
    if "apiVersion" not in content and "kind" not in content:
        return None, _at(
            document,
            (),
            "this is not a resource: it has no apiVersion and no kind",
            code="not-a-resource",
            hint=_NOT_A_RESOURCE,
        )
    if "apiVersion" not in content:
        return None, _at(
            document,
            (),
            "the resource has no apiVersion",
            code="missing-field",
            hint=f"write apiVersion: {API_VERSION}",
        )
    if content["apiVersion"] != API_VERSION:
        return None, _at(
            document,
            ("apiVersion",),
            f"unknown apiVersion {explain.shown(content['apiVersion'])}",
            code="unknown-api-version",
            hint=f"write apiVersion: {API_VERSION}",
        )
    name = content.get("kind")
    if isinstance(name, str) and name in KINDS:
        return KINDS[name], None
    if isinstance(name, str) and name in LATER_KINDS:
        return None, _at(
            document,
            ("kind",),
            f"the kind {name} is not available in this version",
            code="unavailable-kind",
            hint=_KINDS,
        )
    if name is None:
        return None, _at(document, ("kind",), "the resource has no kind", code="missing-field", hint=_KINDS)
    hint = explain.did_you_mean(name, KINDS) or _KINDS
    return None, _at(document, ("kind",), f"unknown kind {explain.shown(name)}", code="unknown-kind", hint=hint)


_KINDS = f"the kinds are {', '.join(KINDS)}"
_NOT_A_RESOURCE = (
    f"begin it with 'apiVersion: {API_VERSION}' and 'kind: …', or keep it outside the source's path or in a folder "
    "whose name begins with a dot"
)


def _at(document: Document, pointer: Pointer, message: str, *, code: str, hint: str) -> Problem:
    while pointer and pointer not in document.positions:
        pointer = pointer[:-1]
    line, column = document.positions.get(pointer, (1, 1))
    return Problem(code=code, message=message, hint=hint, line=line, column=column)
