"""Across the resources of a revision: what each says of the others, and what borgmatic will say of its block.

Called by ``build`` between load and expand, with the catalogue and the schema of the installed borgmatic. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reconciler.core import explain, references
from reconciler.core.expand import merge_backup
from reconciler.core.layers import LayerCache
from reconciler.core.load import limited
from reconciler.core.seals import Uses
from schema import envelope
from schema.errors import Problem, Severity, TrustError
from schema.resources import Backup, Client, Profile, Repository, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.borgmatic_options import OptionChecker
    from reconciler.core.catalogue import Catalogue, Located, Pointer

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}?")
_PLACEHOLDERS = ("client", "backup")


def validate(
    catalogue: Catalogue, *, borgmatic_schema: Mapping[str, Any], cache: LayerCache | None = None
) -> tuple[Problem, ...]:
    """Return all problems across the resources, in the order of their places."""
    return limited(_problems(catalogue, borgmatic_schema, LayerCache() if cache is None else cache))


def _problems(catalogue: Catalogue, borgmatic_schema: Mapping[str, Any], cache: LayerCache) -> Iterator[Problem]:
    names = references.Names(catalogue)
    yield from _key_problems(catalogue)
    yield from _url_problems(catalogue)
    for secret in catalogue.all(Secret).values():
        yield from references.secret_problems(secret, names)
    for backup in catalogue.all(Backup).values():
        yield from references.backup_problems(backup, names)
    uses = Uses(names)
    yield from _layer_problems(catalogue, uses, checker=cache.checker(borgmatic_schema), cache=cache)
    yield from uses.problems
    yield from uses.unsealed()


# --- Keys and repositories ------------------------------------------------------------------------------------------


def _key_problems(catalogue: Catalogue) -> Iterator[Problem]:
    """Yield what is wrong with public keys: unsound ones, and one key for two machines."""
    owners: dict[str, Located[Client]] = {}
    for client in catalogue.all(Client).values():
        key = client.resource.spec.public_key
        if key is None:
            continue
        pointer: Pointer = ("spec", "publicKey")
        try:
            envelope.parse_client_key(key)
        except TrustError as error:
            hint = f"copy again what `director-client fingerprint` prints on {client.resource.name}"
            yield client.problem(pointer, f"the publicKey is refused: {error.message}", code="bad-key", hint=hint)
        former = owners.setdefault(key, client)
        if former is not client:
            yield client.problem(
                pointer,
                f"client '{client.resource.name}' has the same publicKey as client '{former.resource.name}' "
                f"({former.origin})",
                code="duplicate-key-of-client",
                hint="each machine has a key of its own: run `director-client fingerprint` there",
            )
    for secret in catalogue.all(Secret).values():
        for name, key in secret.resource.spec.escrow.items():
            try:
                envelope.parse_escrow_key(key)
            except TrustError as error:
                yield secret.problem(
                    ("spec", "escrow", name), f"the escrow key is refused: {error.message}", code="bad-key"
                )


def _url_problems(catalogue: Catalogue) -> Iterator[Problem]:
    owners: dict[str, Located[Repository]] = {}
    for repository in catalogue.all(Repository).values():
        url = repository.resource.spec.url
        for placeholder in _PLACEHOLDER.findall(url):
            if placeholder not in _PLACEHOLDERS:
                yield repository.problem(
                    ("spec", "url"),
                    f"unknown placeholder '${{{placeholder}}}' in the url",
                    code="unknown-placeholder",
                    hint=explain.did_you_mean(placeholder, _PLACEHOLDERS) or "there are ${client} and ${backup}",
                )
        former = owners.setdefault(url.rstrip("/"), repository)
        if former is not repository:
            yield repository.problem(
                ("spec", "url"),
                f"repository '{repository.resource.name}' has the same url as repository '{former.resource.name}' "
                f"({former.origin})",
                code="duplicate-url",
                hint="let the backups name one of them",
                severity=Severity.WARNING,
            )


# --- borgmatic blocks -----------------------------------------------------------------------------------------------


def _layer_problems(
    catalogue: Catalogue, uses: Uses, *, checker: OptionChecker, cache: LayerCache
) -> Iterator[Problem]:
    incomplete: set[str] = set()
    for profile in catalogue.all(Profile).values():
        layer = cache.layer(profile.resource, checker)
        yield from (_located(profile, fault) for fault in layer.faults)
        uses.add(profile, layer.references)
        if not layer.is_whole:
            incomplete.add(profile.resource.name)
    lacking: dict[tuple[str, str], Problem] = {}  # a profile's fault is named once, not for every backup
    for backup in catalogue.all(Backup).values():
        layer = cache.layer(backup.resource, checker)
        yield from (_located(backup, fault) for fault in layer.faults)
        uses.add(backup, layer.references)
        if not layer.is_whole or not incomplete.isdisjoint(backup.resource.spec.profiles):
            for message, problem in _lacking(backup, catalogue, checker):
                lacking.setdefault((problem.place, message), problem)
    yield from lacking.values()


def _located(located: Located[Any], fault: explain.Fault) -> Problem:
    return located.problem(fault.pointer, fault.message, code=fault.code, hint=fault.hint, severity=fault.severity)


def _lacking(backup: Located[Backup], catalogue: Catalogue, checker: OptionChecker) -> Iterator[tuple[str, Problem]]:
    """Yield what is still missing when the layers of a backup are merged: borgmatic's message, and the problem."""
    effective = merge_backup(catalogue, backup)
    for path, message in checker.lacking(effective.options):
        sentence = f"{message} (in backup '{backup.resource.name}', with all its layers)"
        yield message, effective.origin(*path).problem(sentence, code="borgmatic-option")
