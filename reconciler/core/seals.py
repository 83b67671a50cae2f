"""References to secrets: each must lead to one value, and that value must be sealed to every client that needs it.

Called by ``validate``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reconciler.core import explain, references
from schema.errors import Severity
from schema.resources import Backup, Client, Repository, Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from reconciler.core.catalogue import Located, Pointer
    from reconciler.core.layers import Reference
    from reconciler.core.references import Names
    from schema.errors import Problem
    from schema.resources import FileFrom, Profile, Resource, SealedValue, ValueFrom

_SHOWN_CLIENTS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """One place that refers to a value of a Secret, the key resolved."""

    located: Located[Resource]
    pointer: Pointer
    secret: str
    key: str


class Uses:
    """Every reference to a secret: fill it with ``add``, then ask for ``problems`` and ``unsealed``."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._secrets = names.catalogue.all(Secret)
        self._by_resource: dict[tuple[str, str], list[Use]] = {}
        self.problems: list[Problem] = []
        for repository in names.catalogue.all(Repository).values():
            for pointer, source in _sources(repository):
                if source is not None and source.secret is not None:
                    part = "key" if source.key is not None else "secret"
                    self._add(repository, (*pointer, part), source.secret, source.key)

    def add(self, located: Located[Profile] | Located[Backup], written: Iterable[Reference]) -> None:
        """Take in what the block of ``located`` refers to."""
        for pointer, secret, key in written:
            self._add(located, pointer, secret, key)

    def unsealed(self) -> Iterator[Problem]:
        """Yield an error for each reference that a client must follow and cannot, because nothing is sealed to it."""
        missing: dict[Use, dict[str, str]] = {}
        for backup in self._names.catalogue.all(Backup).values():
            uses = list(self._of_backup(backup.resource))
            if not uses:
                continue
            clients = list(self._names.clients.select(backup.resource.spec.clients))
            for use in uses:
                sealed = self._value(use).clients
                for client in clients:
                    if client not in sealed:
                        missing.setdefault(use, {}).setdefault(client, backup.resource.name)
        for use, needed_by in missing.items():
            yield from self._unsealed(use, needed_by)

    def _add(self, located: Located[Any], pointer: Pointer, secret: str, written: str | None) -> None:
        key = self._key(located, pointer, secret, written)
        if key is not None:
            owner = (located.resource.kind, located.resource.name)
            self._by_resource.setdefault(owner, []).append(Use(located, pointer, secret, key))

    def _key(self, located: Located[Any], pointer: Pointer, name: str, key: str | None) -> str | None:
        """Return the key that is meant, or None after noting why there is no such value."""
        secret = self._secrets.get(name)
        if secret is None:
            self.problems.append(references.dangling(located, pointer, name, self._names.known(Secret)))
            return None
        values = secret.resource.spec.values
        if key is not None and key in values:
            return key
        if key is None and len(values) == 1:
            return next(iter(values))
        if key is not None:
            message = f"secret '{name}' has no value '{key}'"
            hint = explain.did_you_mean(key, values) or f"make it with `director seal . {name} {key}`"
        elif values:
            message = f"secret '{name}' holds several values: say which"
            hint = f"add the key: one of {explain.listed(values)}"
        else:
            message = f"secret '{name}' holds no value yet"
            hint = f"make one with `director seal . {name} KEY`"
        self.problems.append(located.problem(pointer, message, code="unknown-secret-key", hint=hint))
        return None

    def _of_backup(self, backup: Backup) -> Iterator[Use]:
        yield from self._by_resource.get(("Backup", backup.name), ())
        for kind, names in (("Repository", backup.spec.repositories), ("Profile", backup.spec.profiles)):
            for name in dict.fromkeys(names):
                yield from self._by_resource.get((kind, name), ())

    def _value(self, use: Use) -> SealedValue:
        return self._secrets[use.secret].resource.spec.values[use.key]

    def _unsealed(self, use: Use, needed_by: Mapping[str, str]) -> Iterator[Problem]:
        clients = self._names.catalogue.all(Client)
        keyless = sorted(name for name in needed_by if clients[name].resource.spec.public_key is None)
        sealable = sorted(needed_by.keys() - set(keyless))
        what = f"'{use.key}' of secret '{use.secret}'"
        if sealable:
            backup = needed_by[sealable[0]]
            command = f"director seal . {use.secret} {use.key}"
            if self._value(use).escrow:
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


def _sources(repository: Located[Repository]) -> tuple[tuple[Pointer, ValueFrom | FileFrom | None], ...]:
    spec = repository.resource.spec
    return (
        (("spec", "encryption", "passphraseFrom"), spec.encryption.passphrase_from),
        (("spec", "sshKeyFrom"), spec.ssh_key_from),
    )


def _clients(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN_CLIENTS])
    more = f" and {len(names) - _SHOWN_CLIENTS} more" if len(names) > _SHOWN_CLIENTS else ""
    return f"client {shown}" if len(names) == 1 else f"clients {shown}{more}"
