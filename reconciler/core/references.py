"""What resources say of each other: names that must exist, and selections of clients.

Called by ``validate`` and ``seals``. Every problem stands at the reference, in the file of the person who wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reconciler.core import explain
from schema.errors import Severity
from schema.resources import KINDS, Client, Profile, Repository, Schedule, Selector

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from reconciler.core.expand import ClientIndex
    from schema.errors import Problem
    from schema.resources import Backup, Clients, Resource, Secret


class Names:
    """Everything that can be referred to, of one catalogue."""

    def __init__(self, catalogue: Catalogue, clients: ClientIndex) -> None:
        self.catalogue = catalogue
        self.clients = clients
        self._known = {name: explain.Known(name, catalogue.all(kind).keys()) for name, kind in KINDS.items()}

    def known(self, kind: type[Resource]) -> explain.Known:
        """Return the names of one kind."""
        return self._known[kind.__name__]


def dangling(located: Located[Any], pointer: Pointer, name: str, known: explain.Known) -> Problem:
    """Return the problem of a reference to something that does not exist."""
    return located.problem(
        pointer, f"there is no {known.kind} '{name}'", code="dangling-reference", hint=known.hint(name)
    )


def backup_problems(backup: Located[Backup], names: Names) -> Iterator[Problem]:
    """Yield what is wrong with the names that a Backup lists."""
    spec = backup.resource.spec
    yield from selection_problems(backup, ("spec", "clients"), spec.clients, names)
    yield from _listed(backup, ("spec", "repositories"), spec.repositories, names.known(Repository))
    yield from _listed(backup, ("spec", "profiles"), spec.profiles, names.known(Profile))
    yield from _repeated(backup, ("spec", "actions"), spec.actions)
    schedules = names.known(Schedule)
    if spec.schedule is not None and spec.schedule not in schedules:
        yield dangling(backup, ("spec", "schedule"), spec.schedule, schedules)


def selection_problems(located: Located[Any], pointer: Pointer, clients: Clients, names: Names) -> Iterator[Problem]:
    """Yield what is wrong with a selection of clients: a name without a client, or labels that nobody has."""
    if not isinstance(clients, Selector):
        yield from _listed(located, pointer, clients, names.known(Client))
    elif not names.clients.select(clients):
        labels = ", ".join(f"{key}: {value}" for key, value in clients.match_labels.items())
        yield located.problem(
            (*pointer, "matchLabels"),
            f"no client has the labels {{{labels}}}",
            code="no-client-selected",
            hint="check metadata.labels of the clients",
            severity=Severity.WARNING,
        )


def secret_problems(secret: Located[Secret], names: Names) -> Iterator[Problem]:
    """Yield what is wrong with whom a Secret names and whom it is sealed to."""
    spec = secret.resource.spec
    if spec.clients is not None:
        yield from selection_problems(secret, ("spec", "clients"), spec.clients, names)
    clients = names.known(Client)
    for key, value in spec.values.items():
        for name in value.clients:
            if name not in clients:
                yield secret.problem(
                    ("spec", "values", key, "clients", name),
                    f"'{key}' is sealed to client '{name}', which does not exist",
                    code="sealed-to-nobody",
                    hint="remove it, or add the client",
                    severity=Severity.WARNING,
                )
        for name in value.escrow:
            if name not in spec.escrow:
                yield secret.problem(
                    ("spec", "values", key, "escrow", name),
                    f"'{key}' is sealed to the escrow key '{name}', which spec.escrow does not name",
                    code="sealed-to-nobody",
                    hint="remove it, or add the key to spec.escrow",
                    severity=Severity.WARNING,
                )


def _listed(located: Located[Any], pointer: Pointer, names: Sequence[str], known: explain.Known) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in known:
            yield dangling(located, (*pointer, index), name, known)
    yield from _repeated(located, pointer, names)


def _repeated(located: Located[Any], pointer: Pointer, names: Sequence[str]) -> Iterator[Problem]:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            yield located.problem(
                (*pointer, index), f"'{name}' stands twice in this list", code="duplicate-item", hint="remove one"
            )
        seen.add(name)
