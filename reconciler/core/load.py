"""From the files of a revision to its resources: every problem at once, at ``file:line:column``, in plain sentences.

Called by the loop and by ``director validate`` with what ``source`` read. Pure. What a blob says is parsed and checked
once and kept in a ``ParseCache``, so that a small commit costs little; ``validate`` then looks across the resources.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from reconciler.core import explain, yaml_reader
from reconciler.core.catalogue import Catalogue, Located, Pointer
from schema.errors import Problem
from schema.resources import API_VERSION, KINDS, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from reconciler.core.catalogue import SourceFile

MAX_PROBLEMS = 1_000
"""Of one revision. More are counted, not shown."""

LATER_KINDS = frozenset({"Template", "Application", "SSHKey", "Policy", "Restore", "Drill", "Alert"})
"""Kinds of the design that this version does not have."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The resources that could be read, and everything wrong. With an error among the problems, use no resource."""

    catalogue: Catalogue
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class _Parsed:
    """One resource, wherever its file is."""

    resource: Resource
    positions: Mapping[Pointer, tuple[int, int]] = field(repr=False)
    digest: str


@dataclass(frozen=True, slots=True)
class _ParsedFile:
    """What one blob says, without a path: the same blob may stand at several."""

    resources: tuple[_Parsed, ...]
    problems: tuple[Problem, ...]


class ParseCache:
    """What each blob of the last load said. The ``SourceFile.data`` of such a blob is not looked at."""

    def __init__(self) -> None:
        self._files: dict[str, _ParsedFile] = {}

    def __contains__(self, blob: str) -> bool:
        return blob in self._files

    def __len__(self) -> int:
        return len(self._files)

    def parsed(self, file: SourceFile) -> _ParsedFile:
        """Return what ``file`` says, parsing it when its blob is new."""
        found = self._files.get(file.blob)
        if found is None:
            found = self._files[file.blob] = _parse(file.data)
        return found

    def keep(self, blobs: set[str]) -> None:
        """Forget every other blob."""
        if len(self._files) > len(blobs):
            self._files = {blob: parsed for blob, parsed in self._files.items() if blob in blobs}


def is_resource_path(path: str) -> bool:
    """Whether a file at ``path`` (within the source) is read: ``*.yaml`` and ``*.yml`` outside hidden folders."""
    return path.endswith((".yaml", ".yml")) and not any(part.startswith(".") for part in path.split("/"))


def load(files: Iterable[SourceFile], *, cache: ParseCache | None = None) -> Loaded:
    """Return the catalogue of ``files`` and all problems, in the order of paths. Never raises on bad input."""
    cache = ParseCache() if cache is None else cache
    kinds: dict[str, dict[str, Located[Resource]]] = {kind: {} for kind in KINDS}
    problems: list[Problem] = []
    blobs: set[str] = set()
    for file in sorted(files, key=attrgetter("path")):
        blobs.add(file.blob)
        parsed = cache.parsed(file)
        if parsed.problems:
            problems += [problem.model_copy(update={"path": file.path}) for problem in parsed.problems]
        for one in parsed.resources:
            resource = one.resource
            located = Located(resource, file.path, one.positions, one.digest)
            former = kinds[resource.kind].setdefault(resource.metadata.name, located)
            if former is not located:
                problems.append(_second(located, former))
    cache.keep(blobs)
    return Loaded(Catalogue(kinds), limited(problems))


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


def _digest(content: Any) -> str:
    """Return a digest of the content in its own order, for the order of keys shows in what is rendered."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def _kind(document: yaml_reader.Document) -> tuple[type[Resource] | None, Problem | None]:
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


def _at(document: yaml_reader.Document, pointer: Pointer, message: str, *, code: str, hint: str) -> Problem:
    while pointer and pointer not in document.positions:
        pointer = pointer[:-1]
    line, column = document.positions.get(pointer, (1, 1))
    return Problem(code=code, message=message, hint=hint, line=line, column=column)
