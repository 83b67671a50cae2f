"""Which client runs which backups, and each backup with its layers merged. The step between load and render.

A backup's layers are its profiles, in order, then its own ``borgmatic:`` block. They merge as data: mappings key by
key, lists append what they lack, everything else replaces; ``layering: {option: replace}`` replaces that option
whole. The first layer that names a key fixes its place, so that the rendered file keeps its order when a later layer
changes a value.

Nothing here depends on the client but the selection itself: one ``Effective`` is shared by all clients it is selected
for. Dangling references are passed over, for ``validate`` reports them. An ``Expander`` goes from one revision to the
next; ``build`` tells it which backups to look at.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from reconciler.core.catalogue import Changed
from reconciler.core.dependents import label_key
from schema.resources import SECRET_REFERENCE, Backup, Client, Profile, Repository, Schedule, Secret, Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from pydantic import JsonValue

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from reconciler.core.dependents import Key
    from schema.errors import Problem
    from schema.resources import Clients, Resource

LAYER: Pointer = ("spec", "borgmatic")
"""Where a layer stands in a Profile and in a Backup."""


class SecretKeyOf(NamedTuple):
    """One value of one Secret, the key resolved."""

    secret: str
    key: str


class Origin(NamedTuple):
    """Where an option was written."""

    located: Located[Resource]
    pointer: Pointer

    def problem(self, message: str, *, code: str, hint: str = "") -> Problem:
        """Return an error at this place."""
        return self.located.problem(self.pointer, message, code=code, hint=hint)

    @property
    def place(self) -> str:
        """``file:line:column``."""
        line, column = self.located.position(self.pointer)
        return f"{self.located.path}:{line}:{column}"


@dataclass(frozen=True, slots=True, eq=False)
class Effective:
    """A backup as it takes effect: layers merged, references resolved."""

    backup: Located[Backup]
    layers: tuple[Located[Profile] | Located[Backup], ...]
    options: Mapping[str, JsonValue] = field(repr=False)
    """The merged borgmatic options, ``{secret …}`` not yet resolved."""
    repositories: tuple[Located[Repository], ...]
    schedule: Located[Schedule] | None
    secrets: Mapping[str, Located[Secret]]
    """Every Secret that the options or the repositories refer to."""
    complete: bool
    """Whether everything that the backup refers to was found; ``validate`` names what was not."""
    needs: frozenset[Key] = field(repr=False)
    """Whatever it refers to and selects by, there or not: when one of these changes, it is to be merged again."""

    @property
    def name(self) -> str:
        """The backup's name."""
        return self.backup.resource.metadata.name

    def origin(self, *path: str | int) -> Origin:
        """Return where the option at ``path`` of the merged options was written: in the last layer that has it.

        An index counts in the merged list, and is looked up in the layer's own list by value. What no layer wrote
        stands at the backup itself.
        """
        for layer in reversed(self.layers):
            pointer = _find(layer.resource.spec.borgmatic, self.options, path)
            if pointer is not None:
                return Origin(layer, LAYER + pointer)
        return Origin(self.backup, LAYER)


class Expansion(NamedTuple):
    """Every backup with its layers merged, and for every client the backups that select it, by name."""

    catalogue: Catalogue
    backups: Mapping[str, Effective]
    clients: Mapping[str, tuple[Effective, ...]]

    @property
    def pairs(self) -> int:
        """The number of (client, backup) pairs."""
        return sum(map(len, self.clients.values()))


def expand(catalogue: Catalogue) -> Expansion:
    """Return which client runs which backups."""
    return Expander().update(catalogue, Changed.everything(catalogue), backups=catalogue.all(Backup)).expansion


class Expanded(NamedTuple):
    """An expansion, and what in it is not as in the former one."""

    expansion: Expansion
    clients: AbstractSet[str]
    """Clients that came, went or changed, or that run something else than before."""


class Expander:
    """Expands one revision after the other; of each it does what differs from the former.

    Expansions that were handed out are never changed: what did not change is the same object in the next one.
    """

    def __init__(self) -> None:
        self.index = ClientIndex()
        self._backups: dict[str, Effective] = {}
        self._clients: dict[str, tuple[Effective, ...]] = {}
        self._selected: dict[str, frozenset[str]] = {}
        self._runs: dict[str, set[str]] = {}

    def update(self, catalogue: Catalogue, changed: Changed, *, backups: Iterable[str]) -> Expanded:
        """Return the expansion of ``catalogue``.

        ``backups`` are the names of those that changed, and of those that name or select something that did.
        """
        self.index.update(catalogue.all(Client), changed.names(Client))
        touched = set(changed.names(Client))
        merged = dict(self._backups) if backups else self._backups
        for name in sorted(backups):
            touched |= self._expand(name, catalogue, merged)
        self._backups = merged
        if touched:
            self._clients = self._select(catalogue, touched)
        return Expanded(Expansion(catalogue, merged, self._clients), touched)

    def selected(self, backup: str) -> frozenset[str]:
        """Return the clients that a backup selects."""
        return self._selected.get(backup, frozenset())

    def _expand(self, name: str, catalogue: Catalogue, merged: dict[str, Effective]) -> AbstractSet[str]:
        """Merge one backup into ``merged`` and return the clients that are to notice."""
        backup, former, was = catalogue.get(Backup, name), merged.get(name), self.selected(name)
        if backup is None:
            merged.pop(name, None)
            now: frozenset[str] = frozenset()
        else:
            if former is None or not _is_current(former, catalogue):
                merged[name] = merge_backup(catalogue, backup)
            now = frozenset(self.index.select(backup.resource.spec.clients))
        for client in was - now:
            self._runs[client].discard(name)
        for client in now - was:
            self._runs.setdefault(client, set()).add(name)
        self._selected[name] = now
        if backup is None:
            del self._selected[name]
        return was ^ now if merged.get(name) is former else was | now

    def _select(self, catalogue: Catalogue, touched: Iterable[str]) -> dict[str, tuple[Effective, ...]]:
        clients, selected = catalogue.all(Client), dict(self._clients)
        for name in sorted(touched):
            if name not in clients:
                selected.pop(name, None)
                self._runs.pop(name, None)
                continue
            found = tuple(self._backups[backup] for backup in sorted(self._runs.get(name, ())))
            if selected.get(name) != found:
                selected[name] = found
        return selected


class ClientIndex:
    """Clients by label, so that ten thousand selectors need no ten thousand scans."""

    def __init__(self) -> None:
        self._labels: dict[str, Mapping[str, str]] = {}
        self._by_label: dict[tuple[str, str], set[str]] = {}

    def update(self, clients: Mapping[str, Located[Client]], changed: Iterable[str]) -> None:
        """Take in the clients that came, went or changed."""
        for name in changed:
            for label in self._labels.pop(name, {}).items():
                self._by_label[label].discard(name)
            if name in clients:
                labels = self._labels[name] = clients[name].resource.metadata.labels
                for label in labels.items():
                    self._by_label.setdefault(label, set()).add(name)

    def labels(self, name: str) -> Mapping[str, str]:
        """Return the labels of a client; none, when there is no such client."""
        return self._labels.get(name, {})

    def select(self, clients: Clients) -> Iterable[str]:
        """Return the names of the clients selected; names of clients that do not exist are passed over."""
        if not isinstance(clients, Selector):
            return dict.fromkeys(name for name in clients if name in self._labels)
        sets = sorted((self._by_label.get(label, set()) for label in clients.match_labels.items()), key=len)
        return set.intersection(*sets) if len(sets) > 1 else sets[0]


# --- Merging ----------------------------------------------------------------------------------------------------------


def merge_backup(catalogue: Catalogue, backup: Located[Backup]) -> Effective:
    """Return ``backup`` with its layers merged and its references resolved."""
    spec = backup.resource.spec
    profiles = (catalogue.get(Profile, name) for name in spec.profiles)
    layers: tuple[Located[Profile] | Located[Backup], ...] = (*filter(None, profiles), backup)
    options: dict[str, JsonValue] = {}
    for layer in layers:
        options = merge_layer(options, layer.resource.spec.borgmatic, layering=layer.resource.spec.layering)
    repositories = tuple(filter(None, (catalogue.get(Repository, name) for name in dict.fromkeys(spec.repositories))))
    schedule = None if spec.schedule is None else catalogue.get(Schedule, spec.schedule)
    names = {name for name, _ in (*secret_references(options), *repository_secrets(repositories))}
    secrets = {name: secret for name in sorted(names) if (secret := catalogue.get(Secret, name)) is not None}
    selector = spec.clients
    needs = {("Profile", name) for name in spec.profiles} | {("Repository", name) for name in spec.repositories}
    needs |= {("Secret", name) for name in names} | ({("Schedule", spec.schedule)} if spec.schedule else set())
    if isinstance(selector, Selector):
        needs |= {label_key(key, value) for key, value in selector.match_labels.items()}
    else:
        needs |= {("Client", name) for name in selector}
    return Effective(
        backup=backup,
        layers=layers,
        options=options,
        repositories=repositories,
        schedule=schedule,
        secrets=secrets,
        complete=len(layers) == len(spec.profiles) + 1
        and len(repositories) == len(set(spec.repositories))
        and (schedule is None) == (spec.schedule is None)
        and len(secrets) == len(names),
        needs=frozenset(needs),
    )


def merge_layer(
    below: Mapping[str, JsonValue], layer: Mapping[str, JsonValue], *, layering: Mapping[str, str]
) -> dict[str, JsonValue]:
    """Return the options of ``below`` with ``layer`` on top. Neither is changed."""
    merged = dict(below)
    for option, value in layer.items():
        if option in merged and layering.get(option, "merge") == "merge":
            merged[option] = merge_values(merged[option], value)
        else:
            merged[option] = value
    return merged


def merge_values(below: JsonValue, value: JsonValue) -> JsonValue:
    """Return ``value`` merged onto ``below``: mappings deep, lists appended to, everything else replaced."""
    if isinstance(below, dict) and isinstance(value, dict):
        return merge_layer(below, value, layering={})
    if isinstance(below, list) and isinstance(value, list):
        items = {value_identity(item): item for item in value}
        present = {value_identity(item) for item in below}
        return below + [item for identity, item in items.items() if identity not in present]
    return value


def value_identity(item: JsonValue) -> str:
    """Return a text that only equal items share, types included: 1, 1.0, true and "1" are four things."""
    return f'"{item}' if isinstance(item, str) else json.dumps(item, sort_keys=True)


def secret_references(value: JsonValue | Mapping[str, JsonValue]) -> Iterator[tuple[str, str | None]]:
    """Yield name and key (when written) of every ``{secret …}`` inside ``value``."""
    if isinstance(value, str):
        match = SECRET_REFERENCE.match(value) if value.startswith("{secret") else None
        if match:
            yield match["name"], match["key"]
    elif isinstance(value, dict):
        for item in value.values():
            yield from secret_references(item)
    elif isinstance(value, list):
        for item in value:
            yield from secret_references(item)


def repository_secrets(repositories: Sequence[Located[Repository]]) -> Iterator[tuple[str, str | None]]:
    """Yield name and key (when written) of every Secret value that the repositories refer to."""
    for repository in repositories:
        spec = repository.resource.spec
        for source in (spec.encryption.passphrase_from, spec.ssh_key_from):
            if source is not None and source.secret is not None:
                yield source.secret, source.key


def secret_key(secret: Located[Secret] | None, key: str | None) -> str | None:
    """Return the key meant: the one written, or the only one the Secret has."""
    if secret is None:
        return None
    values = secret.resource.spec.values
    if key is None:
        return next(iter(values)) if len(values) == 1 else None
    return key if key in values else None


# --- Private ----------------------------------------------------------------------------------------------------------


def _find(layer: JsonValue, merged: JsonValue | Mapping[str, JsonValue], path: Sequence[str | int]) -> Pointer | None:
    """Return the pointer inside ``layer`` of what stands at ``path`` in ``merged``; None when it is not from there."""
    pointer: Pointer = ()
    for step in path:
        if isinstance(step, int):
            if not isinstance(merged, list) or not isinstance(layer, list):
                return None
            merged = merged[step]
            index = next((index for index, item in enumerate(layer) if item == merged), None)
            if index is None:
                return None
            layer, pointer = layer[index], (*pointer, index)
        else:
            if not isinstance(layer, dict) or step not in layer:
                return None
            layer, pointer = layer[step], (*pointer, step)
            merged = merged[step] if isinstance(merged, dict) else None
    return pointer


def _is_current(effective: Effective, catalogue: Catalogue) -> bool:
    """Whether everything ``effective`` was made of is still the same, positions included."""
    return (
        effective.complete
        and _same(effective.backup, catalogue)
        and all(_same(layer, catalogue) for layer in effective.layers)
        and all(_same(repository, catalogue) for repository in effective.repositories)
        and (effective.schedule is None or _same(effective.schedule, catalogue))
        and all(_same(secret, catalogue) for secret in effective.secrets.values())
    )


def _same(located: Located[Resource], catalogue: Catalogue) -> bool:
    # ``load`` hands the same object on for as long as nothing about it changes, its place included.
    return catalogue.kinds[located.resource.kind].get(located.resource.metadata.name) is located
