"""What resources say of each other: names that must exist, selections, and secrets that their readers can open.

Called by ``validate``. Every problem stands at the reference, in the file of the person who wrote it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reconciler.core import explain
from reconciler.core.expand import ClientIndex
from schema.errors import Severity
from schema.resources import (
    SECRET_REFERENCE,
    Backup,
    Client,
    Profile,
    Repository,
    Schedule,
    Secret,
    Selector,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from schema.errors import Problem
    from schema.resources import Clients, FileFrom, Resource, SealedValue, ValueFrom

BLOCK: Pointer = ("spec", "borgmatic")
_LOOKS_LIKE_REFERENCE = re.compile(r"\{\s*secret\b", re.IGNORECASE)
_SHOWN_CLIENTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class SecretUse:
    """One place that refers to a value of a Secret; ``key`` is the one meant, None while it cannot be known."""

    located: Located[Resource]
    pointer: Pointer
    secret: str
    key: str | None


@dataclass(slots=True)
class SecretUses:
    """Every reference to a secret, and who must be able to follow it."""

    catalogue: Catalogue
    index: ClientIndex
    problems: list[Problem] = field(default_factory=list)
    _by_resource: dict[tuple[str, str], tuple[SecretUse, ...]] = field(default_factory=dict)

    def collect(self) -> None:
        """Find all references, and note what is wrong with each one by itself."""
        for repository in self.catalogue.all(Repository).values():
            self._keep(repository, _repository_references(repository))
        layers: tuple[Mapping[str, Located[Any]], ...] = (self.catalogue.all(Profile), self.catalogue.all(Backup))
        for located in (each for layer in layers for each in layer.values()):
            self._keep(located, self._block_references(located))

    def unsealed(self) -> Iterator[Problem]:
        """Yield an error for each reference that a client must follow and cannot, because nothing is sealed to it."""
        missing: dict[SecretUse, dict[str, str]] = {}
        secrets = self.catalogue.all(Secret)
        for backup in self.catalogue.all(Backup).values():
            uses = [use for use in self._of_backup(backup) if use.key is not None]
            if not uses:
                continue
            clients = list(self.index.select(backup.resource.spec.clients))
            for use in uses:
                sealed = secrets[use.secret].resource.spec.values[use.key or ""].clients
                for client in clients:
                    if client not in sealed:
                        missing.setdefault(use, {}).setdefault(client, backup.resource.name)
        for use, needed_by in missing.items():
            yield from self._unsealed(use, needed_by, secrets[use.secret].resource.spec.values[use.key or ""])

    def _of_backup(self, backup: Located[Backup]) -> Iterator[SecretUse]:
        spec = backup.resource.spec
        owners = [("Repository", name) for name in dict.fromkeys(spec.repositories)]
        owners += [("Profile", name) for name in dict.fromkeys(spec.profiles)]
        for owner in (*owners, ("Backup", backup.resource.name)):
            yield from self._by_resource.get(owner, ())

    def _unsealed(self, use: SecretUse, needed_by: Mapping[str, str], value: SealedValue) -> Iterator[Problem]:
        clients = self.catalogue.all(Client)
        keyless = sorted(name for name in needed_by if clients[name].resource.spec.public_key is None)
        sealable = sorted(needed_by.keys() - set(keyless))
        what = f"'{use.key}' of secret '{use.secret}'"
        if sealable:
            backup = needed_by[sealable[0]]
            command = f"director seal . {use.secret} {use.key}"
            if value.escrow:
                command = f"director reseal . {use.secret} --escrow-key-file FILE"
            yield use.located.problem(
                use.pointer,
                f"{what} is not sealed to {_clients(sealable)} (backup '{backup}' needs it there)",
                code="secret-not-sealed",
                hint=f"run `{command}` and commit the result",
            )
        if keyless:
            yield use.located.problem(
                use.pointer,
                f"{what} cannot be sealed to {_clients(keyless)} yet: there is no publicKey in Git",
                code="secret-not-sealed",
                hint="put what `director-client fingerprint` prints into the Client's spec.publicKey, then seal",
                severity=Severity.WARNING,
            )

    def _keep(self, located: Located[Any], uses: Iterable[SecretUse]) -> None:
        found = tuple(resolved for use in uses if (resolved := self._resolved(use)) is not None)
        if found:
            self._by_resource[located.resource.kind, located.resource.name] = found

    def _resolved(self, use: SecretUse) -> SecretUse | None:
        """Return the reference with its key, or None after noting why there is no such value."""
        secrets = self.catalogue.all(Secret)
        secret = secrets.get(use.secret)
        if secret is None:
            self.problems.append(dangling(use.located, use.pointer, kind="Secret", name=use.secret, known=secrets))
            return None
        values = secret.resource.spec.values
        message, hint = "", ""
        if use.key is not None and use.key not in values:
            message = f"secret '{use.secret}' has no value '{use.key}'"
            hint = explain.did_you_mean(use.key, values) or f"make it with `director seal . {use.secret} {use.key}`"
        elif use.key is None and not values:
            message = f"secret '{use.secret}' holds no value yet"
            hint = f"make one with `director seal . {use.secret} KEY`"
        elif use.key is None and len(values) > 1:
            message = f"secret '{use.secret}' holds several values: say which"
            hint = f"add the key: one of {explain.listed(values)}"
        if message:
            self.problems.append(use.located.problem(use.pointer, message, code="unknown-secret-key", hint=hint))
            return None
        return SecretUse(use.located, use.pointer, use.secret, use.key or next(iter(values)))

    def _block_references(self, located: Located[Any]) -> Iterator[SecretUse]:
        for pointer, text in strings(located.resource.spec.borgmatic, BLOCK):
            if "secret" not in text:
                continue
            match = SECRET_REFERENCE.match(text)
            if match is not None:
                yield SecretUse(located, pointer, match["name"], match["key"])
            elif _LOOKS_LIKE_REFERENCE.search(text):
                self.problems.append(
                    located.problem(
                        pointer,
                        "this is no reference to a secret: it must be the whole value, '{secret NAME}' or "
                        "'{secret NAME KEY}'",
                        code="invalid-secret-reference",
                        hint="seal the whole value, and refer to it alone",
                    )
                )


def strings(value: Any, pointer: Pointer) -> Iterator[tuple[Pointer, str]]:
    """Yield every text inside ``value`` with its pointer, in the order written."""
    stack: list[tuple[Pointer, Any]] = [(pointer, value)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, dict):
            stack += [((*place, key), inner) for key, inner in reversed(item.items())]
        elif isinstance(item, list):
            stack += [((*place, index), item[index]) for index in range(len(item) - 1, -1, -1)]


def dangling(
    located: Located[Any],
    pointer: Pointer,
    *,
    kind: str,
    name: str,
    known: Iterable[str],
    severity: Severity = Severity.ERROR,
) -> Problem:
    """Return the problem of a reference to something that does not exist."""
    known = sorted(known)
    nothing = f"the source has no {kind} at all" if not known else f"there are: {explain.listed(known)}"
    return located.problem(
        pointer,
        f"there is no {kind} '{name}'",
        code="dangling-reference",
        hint=explain.did_you_mean(name, known) or nothing,
        severity=severity,
    )


def backup_problems(backup: Located[Backup], catalogue: Catalogue, index: ClientIndex) -> Iterator[Problem]:
    """Yield what is wrong with the names that a Backup lists."""
    spec = backup.resource.spec
    yield from selection_problems(backup, ("spec", "clients"), spec.clients, catalogue=catalogue, index=index)
    repositories, profiles = catalogue.all(Repository), catalogue.all(Profile)
    yield from _names(backup, ("spec", "repositories"), spec.repositories, kind="Repository", known=repositories)
    yield from _names(backup, ("spec", "profiles"), spec.profiles, kind="Profile", known=profiles)
    yield from _repeated(backup, ("spec", "actions"), spec.actions)
    schedules = catalogue.all(Schedule)
    if spec.schedule is not None and spec.schedule not in schedules:
        yield dangling(backup, ("spec", "schedule"), kind="Schedule", name=spec.schedule, known=schedules)


def selection_problems(
    located: Located[Any], pointer: Pointer, clients: Clients, *, catalogue: Catalogue, index: ClientIndex
) -> Iterator[Problem]:
    """Yield what is wrong with a selection of clients: a name without a client, or labels that nobody has."""
    if not isinstance(clients, Selector):
        yield from _names(located, pointer, clients, kind="Client", known=catalogue.all(Client))
    elif not index.select(clients):
        labels = ", ".join(f"{key}: {value}" for key, value in clients.match_labels.items())
        yield located.problem(
            (*pointer, "matchLabels"),
            f"no client has the labels {{{labels}}}",
            code="no-client-selected",
            hint="check metadata.labels of the clients",
            severity=Severity.WARNING,
        )


def secret_problems(secret: Located[Secret], catalogue: Catalogue, index: ClientIndex) -> Iterator[Problem]:
    """Yield what is wrong with whom a Secret names and whom it is sealed to."""
    spec = secret.resource.spec
    if spec.clients is not None:
        yield from selection_problems(secret, ("spec", "clients"), spec.clients, catalogue=catalogue, index=index)
    clients = catalogue.all(Client)
    for key, value in spec.values.items():
        for name in value.clients:
            if name not in clients:
                yield secret.problem(
                    ("spec", "values", key, "clients", name),
                    f"'{key}' is sealed to client '{name}', which does not exist",
                    code="sealed-to-nobody",
                    hint=explain.did_you_mean(name, clients) or "remove it, or add the client",
                    severity=Severity.WARNING,
                )
        for name in value.escrow:
            if name not in spec.escrow:
                yield secret.problem(
                    ("spec", "values", key, "escrow", name),
                    f"'{key}' is sealed to the escrow key '{name}', which spec.escrow does not name",
                    code="sealed-to-nobody",
                    hint=explain.did_you_mean(name, spec.escrow) or "remove it, or add the key to spec.escrow",
                    severity=Severity.WARNING,
                )


def _names(
    located: Located[Any], pointer: Pointer, names: Sequence[str], *, kind: str, known: Iterable[str]
) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name not in known:
            yield dangling(located, (*pointer, index), kind=kind, name=name, known=known)
    yield from _repeated(located, pointer, names)


def _repeated(located: Located[Any], pointer: Pointer, names: Sequence[str]) -> Iterator[Problem]:
    if len(set(names)) == len(names):
        return
    for name, count in Counter(names).items():
        if count > 1:
            second = names.index(name, names.index(name) + 1)
            yield located.problem(
                (*pointer, second), f"'{name}' stands twice in this list", code="duplicate-item", hint="remove one"
            )


def _repository_references(repository: Located[Repository]) -> Iterator[SecretUse]:
    spec = repository.resource.spec
    sources: tuple[tuple[Pointer, ValueFrom | FileFrom | None], ...] = (
        (("spec", "encryption", "passphraseFrom"), spec.encryption.passphrase_from),
        (("spec", "sshKeyFrom"), spec.ssh_key_from),
    )
    for pointer, source in sources:
        if source is not None and source.secret is not None:
            part = "key" if source.key is not None else "secret"
            yield SecretUse(repository, (*pointer, part), source.secret, source.key)


def _clients(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN_CLIENTS])
    more = f" and {len(names) - _SHOWN_CLIENTS} more" if len(names) > _SHOWN_CLIENTS else ""
    return f"client {shown}" if len(names) == 1 else f"clients {shown}{more}"
