"""References to secrets: each must lead to one value, and that value must be sealed to every client that needs it.

Called by ``validate``: ``uses`` for one resource, ``missing`` for one backup, ``unsealed`` for all that is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.core import explain, references
from reconciler.core.layers import Reference
from schema.errors import Severity
from schema.resources import Client, Repository, Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from reconciler.core.catalogue import Catalogue, Located, Pointer
    from reconciler.core.references import Names
    from schema.errors import Problem
    from schema.resources import FileFrom, SealedValue, ValueFrom

_SHOWN_CLIENTS = 5


class Use(NamedTuple):
    """One place that refers to a value of a Secret, the key resolved."""

    kind: str
    name: str
    """Of the resource that refers to it."""
    pointer: Pointer
    secret: str
    key: str


class Uses(NamedTuple):
    """What one resource refers to, and what is wrong with how it does."""

    found: tuple[Use, ...]
    problems: tuple[Problem, ...]


class Missing(NamedTuple):
    """A client that must follow a reference and cannot, because nothing is sealed to it."""

    use: Use
    client: str


def uses(located: Located[Any], written: Iterable[Reference], names: Names) -> Uses:
    """Return where the references of one resource lead."""
    found: list[Use] = []
    problems: list[Problem] = []
    kind, name = located.resource.kind, located.resource.name
    for pointer, secret, key in written:
        resolved = _resolve(located, pointer, secret, key, names=names)
        if isinstance(resolved, str):
            found.append(Use(kind, name, pointer, secret, resolved))
        else:
            problems.append(resolved)
    return Uses(tuple(found), tuple(problems))


def of_repository(repository: Located[Repository]) -> Iterator[Reference]:
    """Yield the references of a Repository."""
    for pointer, source in _sources(repository):
        if source is not None and source.secret is not None:
            part = "key" if source.key is not None else "secret"
            yield Reference((*pointer, part), source.secret, source.key)


def missing(found: Iterable[Use], clients: Iterable[str], catalogue: Catalogue) -> Iterator[Missing]:
    """Yield each of ``clients`` to which a value that is used is not sealed."""
    for use in found:
        sealed = _value(use, catalogue).clients
        yield from (Missing(use, client) for client in clients if client not in sealed)


def unsealed(lacking: Mapping[str, Iterable[Missing]], catalogue: Catalogue) -> Iterator[Problem]:
    """Yield an error for each reference that clients cannot follow. ``lacking`` is what each backup misses."""
    needed_by: dict[Use, dict[str, str]] = {}
    for backup in sorted(lacking):
        for use, client in lacking[backup]:
            needed_by.setdefault(use, {}).setdefault(client, backup)
    for use, clients in needed_by.items():
        yield from _unsealed(use, clients, catalogue)


def _resolve(located: Located[Any], pointer: Pointer, name: str, key: str | None, *, names: Names) -> str | Problem:
    """Return the key that is meant, or why there is no such value."""
    secret = names.catalogue.get(Secret, name)
    if secret is None:
        return references.dangling(located, pointer, name, names.known(Secret))
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
    return located.problem(pointer, message, code="unknown-secret-key", hint=hint)


def _value(use: Use, catalogue: Catalogue) -> SealedValue:
    return catalogue.all(Secret)[use.secret].resource.spec.values[use.key]


def _unsealed(use: Use, needed_by: Mapping[str, str], catalogue: Catalogue) -> Iterator[Problem]:
    clients, located = catalogue.all(Client), catalogue.kinds[use.kind][use.name]
    keyless = sorted(name for name in needed_by if clients[name].resource.spec.public_key is None)
    sealable = sorted(needed_by.keys() - set(keyless))
    what = f"'{use.key}' of secret '{use.secret}'"
    if sealable:
        backup = needed_by[sealable[0]]
        command = f"director seal . {use.secret} {use.key}"
        if _value(use, catalogue).escrow:
            command = f"director reseal . {use.secret} --escrow-key-file FILE"
        yield located.problem(
            use.pointer,
            f"{what} is not sealed to {_clients(sealable)} (backup '{backup}' needs it there)",
            code="secret-not-sealed",
            hint=f"run `{command}` and commit the result",
        )
    if keyless:
        yield located.problem(
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
