"""All resources of one revision, each with its place in the source. Made by ``load``, read by every later step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, NamedTuple, Self, TypeVar, cast

from schema.errors import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from schema.resources import Resource

Pointer = tuple[str | int, ...]
"""A place inside a document: keys and indexes from its root, as written: ``("spec", "borgmatic", "keep_daily")``."""

R_co = TypeVar("R_co", bound="Resource", covariant=True)
K = TypeVar("K", bound="Resource")


class SourceFile(NamedTuple):
    """One YAML file of a revision. ``blob`` is Git's object id (any stable content id for files outside Git)."""

    path: str
    blob: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Located(Generic[R_co]):
    """A resource and where each of its parts was written."""

    resource: R_co
    path: str
    positions: Mapping[Pointer, tuple[int, int]] = field(repr=False)
    """Pointer → (line, column) of the key (of the item, in a list); counted from 1. ``()`` is the document."""
    digest: str
    """Content id of this one document: equal digests mean equal resources, so derived results may be reused."""

    def position(self, pointer: Pointer = ()) -> tuple[int, int]:
        """Return line and column of ``pointer``, or of its nearest ancestor that was written."""
        while pointer not in self.positions and pointer:
            pointer = pointer[:-1]
        return self.positions.get(pointer, (1, 1))

    @property
    def origin(self) -> str:
        """``path:line`` of the document."""
        return f"{self.path}:{self.position()[0]}"

    def problem(
        self, pointer: Pointer, message: str, *, code: str, hint: str = "", severity: Severity = Severity.ERROR
    ) -> Problem:
        """Return a problem at ``pointer`` of this document."""
        line, column = self.position(pointer)
        return Problem(
            severity=severity, code=code, message=message, hint=hint, path=self.path, line=line, column=column
        )


class Catalogue(NamedTuple):
    """Every resource of a revision by kind and name."""

    kinds: Mapping[str, Mapping[str, Located[Resource]]]

    def all(self, kind: type[K]) -> Mapping[str, Located[K]]:
        """Return all resources of ``kind`` by name."""
        return cast("Mapping[str, Located[K]]", self.kinds.get(kind.__name__, {}))

    def get(self, kind: type[K], name: str) -> Located[K] | None:
        """Return the resource of ``kind`` called ``name``, or None."""
        return self.all(kind).get(name)


class Changed(NamedTuple):
    """The names of the resources that came, went, changed or moved, by kind."""

    kinds: Mapping[str, AbstractSet[str]]

    def names(self, kind: type[Resource]) -> AbstractSet[str]:
        """Return the names of ``kind``."""
        return self.kinds.get(kind.__name__, frozenset())

    @classmethod
    def everything(cls, catalogue: Catalogue) -> Self:
        """Return that all of ``catalogue`` came: there was nothing before."""
        return cls({kind: named.keys() for kind, named in catalogue.kinds.items()})
