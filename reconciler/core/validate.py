"""Across the resources of a revision: what each says of the others, and what borgmatic will say of its block.

Called by ``build`` after load and expand. Pure. A ``Validator`` goes from one revision to the next. Clients and backups
come in thousands, so only those are looked at that ``build`` names; the kinds they share (repositories, profiles,
secrets) are few, and looked at as a whole when one of them changed.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import TYPE_CHECKING, Any

from reconciler.core import explain, references, seals
from reconciler.core.borgmatic_options import OptionChecker
from reconciler.core.layers import Layers
from reconciler.core.load import limited
from reconciler.core.shared_keys import SharedKeys, bad_escrow_keys, bad_key
from schema.errors import Problem, Severity
from schema.resources import Backup, Client, Profile, Repository, Secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from reconciler.core.catalogue import Catalogue, Changed, Located
    from reconciler.core.dependents import Key
    from reconciler.core.expand import Effective, Expander
    from reconciler.core.references import Names
    from reconciler.core.seals import Missing, Use

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}?")
_PLACEHOLDERS = ("client", "backup")


class Validator:
    """Checks one revision after the other against one schema of borgmatic."""

    def __init__(self, borgmatic_schema: Mapping[str, Any]) -> None:
        self._checker = OptionChecker(borgmatic_schema)
        self._layers = Layers(self._checker)
        self._keys = SharedKeys()
        self._client_problems: dict[str, Problem] = {}
        self._kind_problems: dict[str, tuple[Problem, ...]] = {}
        """Of the shared kinds."""
        self._uses: dict[Key, tuple[Use, ...]] = {}
        """Of repositories and profiles."""
        self._backup_problems: dict[str, tuple[Problem, ...]] = {}
        self._lacking: dict[str, tuple[tuple[str, Problem], ...]] = {}
        self._missing: dict[str, tuple[Missing, ...]] = {}
        self.unsettled: set[str] = set()
        """Backups that refer to something wrongly. To be looked at each time: hints name whatever else there is."""

    def update(
        self, names: Names, changed: Changed, *, backups: Mapping[str, Effective], dirty: Iterable[str], by: Expander
    ) -> tuple[Problem, ...]:
        """Return all problems across the resources, in the order of their places, after looking at what is ``dirty``.

        ``backups`` are all backups, merged; ``by`` knows which clients each of them selects.
        """
        catalogue = names.catalogue
        self._look_at_clients(catalogue, changed)
        self._look_at_shared(names, changed)
        for name in sorted(dirty):
            self._forget_backup(name)
            backup = catalogue.get(Backup, name)
            if backup is None:
                self._layers.forget("Backup", name)
            else:
                self._look_at_backup(backup, backups[name], by.selected(name), names=names)
        return limited(self._problems(catalogue))

    def needs(self, backup: Backup, catalogue: Catalogue) -> Iterator[Key]:
        """Yield the secrets that a backup refers to, also where a later layer takes the place of the reference."""
        written = list(self._layers.layer(backup).references)
        for name in backup.spec.profiles:
            profile = catalogue.get(Profile, name)
            written += self._layers.layer(profile.resource).references if profile is not None else ()
        for name in backup.spec.repositories:
            repository = catalogue.get(Repository, name)
            written += seals.of_repository(repository) if repository is not None else ()
        return (("Secret", reference.secret) for reference in written)

    def _problems(self, catalogue: Catalogue) -> Iterator[Problem]:
        yield from self._client_problems.values()
        yield from self._keys.problems(catalogue)
        yield from chain.from_iterable(self._kind_problems.values())
        yield from chain.from_iterable(self._backup_problems.values())
        lacking: dict[tuple[str, str], Problem] = {}  # a profile's fault is named once, not for every backup
        for name in sorted(self._lacking):
            for message, problem in self._lacking[name]:
                lacking.setdefault((problem.place, message), problem)
        yield from lacking.values()
        yield from seals.unsealed(self._missing, catalogue)

    # --- Clients and shared kinds -------------------------------------------------------------------------------------

    def _look_at_clients(self, catalogue: Catalogue, changed: Changed) -> None:
        for name in changed.names(Client):
            self._client_problems.pop(name, None)
            client = catalogue.get(Client, name)
            self._keys.put(name, client.resource.spec.public_key if client is not None else None)
            problem = bad_key(client) if client is not None else None
            if problem is not None:
                self._client_problems[name] = problem

    def _look_at_shared(self, names: Names, changed: Changed) -> None:
        catalogue, kinds = names.catalogue, changed.kinds.keys()
        if "Repository" in kinds:
            self._kind_problems["url"] = tuple(_url_problems(catalogue))
        if kinds & {"Secret", "Client"}:
            self._kind_problems["secret"] = tuple(_secret_problems(names))
        if "Profile" in kinds:
            for name in changed.names(Profile):
                self._layers.forget("Profile", name)
            self._kind_problems["profile"] = tuple(
                _located(profile, fault)
                for profile in catalogue.all(Profile).values()
                for fault in self._layers.layer(profile.resource).faults
            )
        if kinds & {"Repository", "Profile", "Secret"}:
            self._look_at_uses(names)

    def _look_at_uses(self, names: Names) -> None:
        problems: list[Problem] = []
        self._uses = {}
        for repository in names.catalogue.all(Repository).values():
            found = seals.uses(repository, seals.of_repository(repository), names)
            self._uses["Repository", repository.resource.name] = found.found
            problems += found.problems
        for profile in names.catalogue.all(Profile).values():
            found = seals.uses(profile, self._layers.layer(profile.resource).references, names)
            self._uses["Profile", profile.resource.name] = found.found
            problems += found.problems
        self._kind_problems["use"] = tuple(problems)

    # --- Backups ------------------------------------------------------------------------------------------------------

    def _forget_backup(self, name: str) -> None:
        for kept in (self._backup_problems, self._lacking, self._missing):
            kept.pop(name, None)
        self.unsettled.discard(name)

    def _look_at_backup(
        self, backup: Located[Backup], effective: Effective, clients: frozenset[str], *, names: Names
    ) -> None:
        name, spec, layer = effective.name, backup.resource.spec, self._layers.layer(backup.resource)
        wrong = list(references.backup_problems(backup, names))
        own = seals.uses(backup, layer.references, names)
        wrong += own.problems
        if wrong or not effective.complete:
            self.unsettled.add(name)
        problems = (*wrong, *(_located(backup, fault) for fault in layer.faults))
        if problems:
            self._backup_problems[name] = problems
        shared = [("Repository", one) for one in spec.repositories] + [("Profile", one) for one in spec.profiles]
        used = chain(own.found, *(self._uses.get(key, ()) for key in dict.fromkeys(shared)))
        missing = tuple(seals.missing(used, sorted(clients), names.catalogue))
        if missing:
            self._missing[name] = missing
        if not layer.is_whole or not all(
            self._layers.layer(one.resource).is_whole for one in effective.layers if one is not backup
        ):
            lacking = tuple(self._what_lacks(effective))
            if lacking:
                self._lacking[name] = lacking

    def _what_lacks(self, effective: Effective) -> Iterator[tuple[str, Problem]]:
        """Yield what is still missing when the layers of a backup are merged: borgmatic's message, and the problem."""
        for path, message in self._checker.lacking(effective.options):
            sentence = f"{message} (in backup '{effective.name}', with all its layers)"
            yield message, effective.origin(*path).problem(sentence, code="borgmatic-option")


# --- Whole kinds ------------------------------------------------------------------------------------------------------


def _secret_problems(names: Names) -> Iterator[Problem]:
    for secret in names.catalogue.all(Secret).values():
        yield from references.secret_problems(secret, names)
        yield from bad_escrow_keys(secret)


def _url_problems(catalogue: Catalogue) -> Iterator[Problem]:
    owners: dict[str, Located[Repository]] = {}
    for repository in sorted(catalogue.all(Repository).values(), key=lambda one: (one.path, one.position())):
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


def _located(located: Located[Any], fault: explain.Fault) -> Problem:
    return located.problem(fault.pointer, fault.message, code=fault.code, hint=fault.hint, severity=fault.severity)
