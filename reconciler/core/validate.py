"""Across the resources of a revision: what each says of the others, and what borgmatic will say of its block.

Called by ``build`` between load and expand, with the catalogue and the schema of the installed borgmatic. Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from reconciler.core import explain, references
from reconciler.core.borgmatic_options import BLOCK, SECRET_OPTION, OptionChecker
from reconciler.core.expand import ClientIndex, merge_backup
from reconciler.core.load import limited
from schema import envelope
from schema.errors import Problem, Severity, TrustError
from schema.resources import Backup, Client, Profile, Repository, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.catalogue import Catalogue, Located, Pointer

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}?")
_PLACEHOLDERS = ("client", "backup")
_REFERENCE = re.compile(r"^\{(?:secret|credential) |\{\w+\}|\$\{\w+")
_URL_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:(?![{$])[^\s/@]+@", re.IGNORECASE)


def validate(catalogue: Catalogue, *, borgmatic_schema: Mapping[str, Any]) -> tuple[Problem, ...]:
    """Return all problems across the resources, in the order of their places."""
    return limited(_problems(catalogue, OptionChecker(borgmatic_schema)))


def _problems(catalogue: Catalogue, checker: OptionChecker) -> Iterator[Problem]:
    index = ClientIndex(catalogue.all(Client))
    yield from _key_problems(catalogue)
    yield from _url_problems(catalogue)
    for secret in catalogue.all(Secret).values():
        yield from references.secret_problems(secret, catalogue, index)
    for backup in catalogue.all(Backup).values():
        yield from references.backup_problems(backup, catalogue, index)
    uses = references.SecretUses(catalogue, index)
    uses.collect()
    yield from uses.problems
    yield from uses.unsealed()
    yield from _block_problems(catalogue, checker)


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


def _block_problems(catalogue: Catalogue, checker: OptionChecker) -> Iterator[Problem]:
    incomplete: set[str] = set()
    lacking: dict[tuple[str, str], Problem] = {}  # a profile's fault is named once, not for every backup
    for profile in catalogue.all(Profile).values():
        yield from _layer_problems(profile, checker)
        if not checker.is_whole(profile.resource.spec.borgmatic):
            incomplete.add(profile.resource.name)
    for backup in catalogue.all(Backup).values():
        yield from _layer_problems(backup, checker)
        spec = backup.resource.spec
        if not checker.is_whole(spec.borgmatic) or not incomplete.isdisjoint(spec.profiles):
            for message, problem in _lacking(backup, catalogue, checker):
                lacking.setdefault((problem.place, message), problem)
    yield from lacking.values()


def _layer_problems(located: Located[Profile] | Located[Backup], checker: OptionChecker) -> Iterator[Problem]:
    spec = located.resource.spec
    yield from checker.layer_problems(located)
    for option in spec.layering:
        hint = checker.unknown_option(option)
        if hint is not None:
            yield located.problem(
                ("spec", "layering", option),
                f"borgmatic does not know the option '{option}'",
                code="unknown-borgmatic-option",
                hint=hint,
            )
    yield from _plaintext(located)
    if "ssh_command" in spec.borgmatic:
        yield located.problem(
            (*BLOCK, "ssh_command"),
            "ssh_command runs a program of its own: clients refuse it unless their local policy allows it",
            code="ssh-command",
            hint="a Repository's sshKeyFrom and knownHosts make the usual ssh command, which needs no permission",
            severity=Severity.WARNING,
        )


def _lacking(backup: Located[Backup], catalogue: Catalogue, checker: OptionChecker) -> Iterator[tuple[str, Problem]]:
    """Yield what is still missing when the layers of a backup are merged: borgmatic's message, and the problem."""
    effective = merge_backup(catalogue, backup)
    for path, message in checker.lacking(effective.options):
        sentence = f"{message} (in backup '{backup.resource.name}', with all its layers)"
        yield message, effective.origin(*path).problem(sentence, code="borgmatic-option")


def _plaintext(located: Located[Profile] | Located[Backup]) -> Iterator[Problem]:
    """Yield a warning for each secret that stands readable in Git."""
    for pointer, text in references.strings(located.resource.spec.borgmatic, BLOCK):
        name = next((part for part in reversed(pointer) if isinstance(part, str)), "")
        readable = bool(text) and SECRET_OPTION.search(name) is not None and _REFERENCE.search(text) is None
        if readable or ("://" in text and _URL_PASSWORD.search(text)):
            yield located.problem(
                pointer,
                f"the secret in '{name}' stands readable in Git",
                code="plaintext-secret",
                hint=f"seal it with `director seal . NAME {name}`, write '{{secret NAME}}' here, and change the secret",
                severity=Severity.WARNING,
            )
