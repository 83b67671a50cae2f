"""Which client runs which backups, and each backup with its layers merged. The step between load and render.

A backup's layers are its profiles, in order, then its own ``borgmatic:`` block. They merge as data: mappings key by
key, lists append what they lack, everything else replaces; ``layering: {option: replace}`` replaces that option
whole. The first layer that names a key fixes its place, so that the rendered file keeps its order when a later layer
changes a value.

Nothing here depends on the client but the selection itself: one ``Effective`` is shared by all clients it is selected
for. Dangling references are passed over, for ``validate`` reports them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from schema.resources import SECRET_REFERENCE, Backup, Client, Profile, Repository, Schedule, Secret, Selector

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from schema.errors import Problem
    from schema.resources import Clients, Resource

LAYER: Pointer = ("spec", "borgmatic")
"""Where a layer stands in a Profile and in a Backup."""


class SecretKeyOf(NamedTuple):
    """One value of one Secret, the key resolved."""

    secret: str
    key: str


@dataclass(frozen=True, slots=True)
class Origin:
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


@dataclass(frozen=True, slots=True)
class Expansion:
    """Every backup with its layers merged, and for every client the backups that select it, by name."""

    catalogue: Catalogue = field(repr=False)
    backups: Mapping[str, Effective]
    clients: Mapping[str, tuple[Effective, ...]]
    index: ClientIndex = field(repr=False)

    @property
    def pairs(self) -> int:
        """The number of (client, backup) pairs."""
        return sum(map(len, self.clients.values()))


def expand(catalogue: Catalogue, *, before: Expansion | None = None) -> Expansion:
    """Return which client runs which backups.

    From ``before``, the former expansion, every unchanged part is handed on as the same object.
    """
    clients = catalogue.all(Client)
    if before is None:
        backups = {name: merge_backup(catalogue, backup) for name, backup in sorted(catalogue.all(Backup).items())}
        index = ClientIndex(clients)
        return Expansion(catalogue, backups, _select(backups, index, clients), index)
    backups = _merge_changed(catalogue, before)
    if _relabelled(before.catalogue.all(Client), clients):
        index = ClientIndex(clients)
        selected = _select(backups, index, clients)
        former = before.clients
        selected = {name: kept if (kept := former.get(name)) == found else found for name, found in selected.items()}
        return Expansion(catalogue, backups, selected, index)
    return Expansion(catalogue, backups, _select_changed(backups, before), before.index)


def _merge_changed(catalogue: Catalogue, before: Expansion) -> dict[str, Effective]:
    """Return all backups merged, those of ``before`` where nothing they are made of has changed."""
    backups = catalogue.all(Backup)
    suspects = changed_names(before.catalogue.all(Backup), backups)
    shared = (Profile, Repository, Schedule, Secret)
    if any(changed_names(before.catalogue.all(kind), catalogue.all(kind)) for kind in shared):
        suspects |= {name for name, effective in before.backups.items() if not _is_current(effective, catalogue)}
    if not suspects:
        return dict(before.backups)
    merged = {name: effective for name, effective in before.backups.items() if name in backups}
    merged.update((name, merge_backup(catalogue, backups[name])) for name in suspects if name in backups)
    return merged if merged.keys() == before.backups.keys() else dict(sorted(merged.items()))


def _select(
    backups: Mapping[str, Effective], index: ClientIndex, clients: Iterable[str]
) -> Mapping[str, tuple[Effective, ...]]:
    selected: dict[str, list[Effective]] = {name: [] for name in sorted(clients)}
    for effective in backups.values():
        for client in index.select(effective.backup.resource.spec.clients):
            selected[client].append(effective)
    return {name: tuple(found) for name, found in selected.items()}


def _select_changed(backups: Mapping[str, Effective], before: Expansion) -> Mapping[str, tuple[Effective, ...]]:
    """Return the selection for the clients and labels of ``before``: only changed backups are looked at."""
    names = {name for name, effective in backups.items() if before.backups.get(name) is not effective}
    gone = before.backups.keys() - backups.keys()
    added: dict[str, list[Effective]] = {}
    for name in names | gone:
        for side in (before.backups, backups):
            if name in side:
                for client in before.index.select(side[name].backup.resource.spec.clients):
                    found = added.setdefault(client, [])
                    found += [side[name]] if side is backups else []
    selected = dict(before.clients)
    for client, found in added.items():
        kept = [effective for effective in selected[client] if effective.name not in names | gone]
        selected[client] = tuple(sorted([*kept, *found], key=lambda effective: effective.name))
    return selected


def _relabelled(before: Mapping[str, Located[Client]], after: Mapping[str, Located[Client]]) -> bool:
    """Whether selectors may select others than before: a client came, went, or has other labels."""
    return before.keys() != after.keys() or any(
        before[name].resource.metadata.labels != after[name].resource.metadata.labels
        for name in changed_names(before, after)
    )


def changed_names(before: Mapping[str, Located[Resource]], after: Mapping[str, Located[Resource]]) -> set[str]:
    """Return the names of resources that came, went, changed or moved."""
    changed = {
        name for name, located in after.items() if (former := before.get(name)) is None or not is_same(former, located)
    }
    return changed | (before.keys() - after.keys())


def is_same(first: Located[Resource], second: Located[Resource]) -> bool:
    """Whether both are one resource at one place. A parse cache hands the same resource on for the same blob."""
    return first is second or (
        first.path == second.path
        and (
            first.resource is second.resource or (first.digest == second.digest and first.positions == second.positions)
        )
    )


class ClientIndex:
    """Clients by label, so that ten thousand selectors need no ten thousand scans."""

    def __init__(self, clients: Mapping[str, Located[Client]]) -> None:
        self._names = clients.keys()
        self._by_label: dict[tuple[str, str], set[str]] = {}
        for name, client in clients.items():
            for label in client.resource.metadata.labels.items():
                self._by_label.setdefault(label, set()).add(name)

    def select(self, clients: Clients) -> Iterable[str]:
        """Return the names of the clients selected; names of clients that do not exist are passed over."""
        if not isinstance(clients, Selector):
            return dict.fromkeys(name for name in clients if name in self._names)
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
    current = catalogue.kinds[located.resource.kind].get(located.resource.metadata.name)
    return current is not None and is_same(located, current)
