"""Sealing values into the source's files: finds who needs a value, seals it, and edits the YAML that a person owns.

Called by ``director seal`` and ``reseal``. The only place that writes into a source, and the door to ruamel.yaml's
round-trip mode: comments, order and quoting of the file stay as they are.
"""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from reconciler.core import expand, load
from reconciler.source import discover
from schema.envelope import ClientKey, parse_client_key, seal_for_client, seal_for_escrow
from schema.errors import InvalidSource, Severity, TerminalError, TransientError, TrustError
from schema.resources import API_VERSION, Client, Secret, SecretSpec, Selector
from schema.scalars import NAME_PATTERN, SECRET_KEY_PATTERN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reconciler.core.catalogue import Catalogue
    from reconciler.core.expand import Expansion
    from reconciler.source import Files
    from schema.envelope import EscrowIdentity


@dataclass(frozen=True, slots=True)
class Book:
    """A source whose secrets are to be edited."""

    catalogue: Catalogue
    expansion: Expansion
    folder: Path
    """Where new files go: the folder that a person named."""
    root: Path
    """What paths of the catalogue are relative to."""


def open_book(files: Files, *, folder: Path) -> Book:
    """Return the source, which must be readable; dangling references are fine, for sealing is how they are mended."""
    loaded = load.load(files.files)
    errors = [problem for problem in (*files.problems, *loaded.problems) if problem.severity is Severity.ERROR]
    if errors:
        raise InvalidSource(errors)
    folder = folder if folder.is_dir() else folder.parent
    place = discover(folder)
    root = place.repository if place is not None else folder
    return Book(loaded.catalogue, expand.expand(loaded.catalogue), folder, root)


def seal(book: Book, *, secret: str, key: str, value: bytes, clients: Iterable[str] = ()) -> list[str]:
    """Seal ``value`` as ``secret``/``key`` and write it. Returns what was done, a line each.

    Raises:
        TerminalError: a name cannot be used, nobody would be able to read it, or a client has no public key yet.
    """
    if not re.fullmatch(NAME_PATTERN, secret):
        raise TerminalError(f"'{secret}' cannot be the name of a Secret: use lower-case letters, digits and hyphens")
    if not re.fullmatch(SECRET_KEY_PATTERN, key):
        raise TerminalError(f"'{key}' cannot be the name of a value: use letters, digits, '_' and '-'")
    located = book.catalogue.get(Secret, secret)
    spec = located.resource.spec if located is not None else SecretSpec()
    readers = sorted(set(clients)) or readers_of(book, secret, key)
    if not readers and not spec.escrow:
        raise TerminalError(
            f"no client needs value '{key}' of secret '{secret}'",
            hint="refer to it in a backup or repository first, name spec.clients in the Secret, or give --client NAME",
        )
    sealed = {
        name: seal_for_client(value, secret=secret, key=key, client=name, to=_key_of(book, name)) for name in readers
    }
    escrow = {name: seal_for_escrow(value, secret=secret, key=key, to=public) for name, public in spec.escrow.items()}
    path = _write(book, secret, {key: {"clients": sealed, "escrow": escrow}}, replace=True)
    who = ", ".join([*readers, *(f"escrow {name}" for name in escrow)])
    return [f"sealed '{key}' of secret '{secret}' to {who} in {path}"]


def reseal(book: Book, *, escrow: EscrowIdentity, secret: str | None, everyone: bool) -> list[str]:
    """Seal values again, from their escrow copies, to clients that lack them (or to all). Returns a line each.

    Raises:
        TerminalError: there is no such Secret, or a client has no public key yet.
        TrustError: an escrow copy was made for another key or another name.
    """
    secrets = book.catalogue.all(Secret)
    if secret is not None and secret not in secrets:
        raise TerminalError(f"there is no Secret '{secret}'; the source has: {', '.join(sorted(secrets)) or 'none'}")
    done = []
    for name in sorted(secrets) if secret is None else [secret]:
        spec = secrets[name].resource.spec
        ours = [label for label, public in spec.escrow.items() if public == escrow.public]
        changes: dict[str, dict[str, dict[str, str]]] = {}
        for key, value in spec.values.items():
            readers = readers_of(book, name, key)
            lacking = [client for client in readers if everyone or client not in value.clients]
            if not lacking:
                continue
            copies = [value.escrow[label] for label in ours if label in value.escrow]
            if not copies:
                done.append(f"left '{key}' of secret '{name}' alone: it has no copy for this escrow key")
                continue
            plain = escrow.open_sealed(copies[0], secret=name, key=key)
            changes[key] = {
                "clients": {
                    client: seal_for_client(plain, secret=name, key=key, client=client, to=_key_of(book, client))
                    for client in lacking
                }
            }
            done.append(f"sealed '{key}' of secret '{name}' to {', '.join(lacking)}")
        if changes:
            _write(book, name, changes, replace=False)
    return done


def readers_of(book: Book, secret: str, key: str) -> list[str]:
    """Return who should be able to read a value: the clients the Secret names, and those whose backups use it."""
    located = book.catalogue.get(Secret, secret)
    wanted = located.resource.spec.clients if located is not None else None
    clients = book.catalogue.all(Client)
    named: set[str] = set()
    if isinstance(wanted, Selector):
        pairs = wanted.match_labels.items()
        named = {name for name, one in clients.items() if pairs <= one.resource.metadata.labels.items()}
    elif wanted is not None:
        named = set(wanted)
    using = {
        name
        for name, backups in book.expansion.clients.items()
        for effective in backups
        for used, written in (
            *expand.secret_references(effective.options),
            *expand.repository_secrets(effective.repositories),
        )
        if used == secret and written in {None, key}
    }
    return sorted(named | using)


def _key_of(book: Book, name: str) -> ClientKey:
    client = book.catalogue.get(Client, name)
    if client is None:
        known = ", ".join(sorted(book.catalogue.all(Client))) or "none"
        raise TerminalError(f"there is no client '{name}'; the source has: {known}")
    text = client.resource.spec.public_key
    if text is None:
        raise TerminalError(
            f"client '{name}' has no publicKey in {client.origin}, so nothing can be sealed to it",
            hint=f"run `director-client fingerprint` on {name}, and put the key there",
        )
    try:
        return parse_client_key(text)
    except TrustError as error:
        raise TerminalError(f"the publicKey of client '{name}' in {client.origin}: {error.message}") from None


# --- Editing the file -------------------------------------------------------------------------------------------------


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 2**31  # sealed values are long words: never fold them
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _write(book: Book, secret: str, changes: dict[str, dict[str, dict[str, str]]], *, replace: bool) -> Path:
    """Lay ``changes`` (key → clients/escrow → name → sealed) into the Secret's document, and return its path."""
    yaml = _yaml()
    located = book.catalogue.get(Secret, secret)
    if located is None:
        path = book.folder / "secrets" / f"{secret}.yaml"
        if path.exists():
            raise TerminalError(f"{path} is already there, and holds no Secret named '{secret}'")
        documents: list[Any] = [_new_document(secret)]
    else:
        path = book.root / located.path
        documents = list(yaml.load_all(path.read_text(encoding="utf-8")))
    document = next(one for one in documents if _is_secret(one, secret))
    spec = document.setdefault("spec", CommentedMap()) if document.get("spec") is not None else _put(document, "spec")
    values = spec.get("values") if spec.get("values") is not None else _put(spec, "values")
    for key, groups in changes.items():
        value = values.get(key) if values.get(key) is not None else _put(values, key)
        for group, sealed in groups.items():
            if not sealed:
                if replace:
                    value.pop(group, None)
                continue
            there = value.get(group) if value.get(group) is not None and not replace else _put(value, group)
            there.update(sealed)
    stream = io.StringIO()
    yaml.dump_all(documents, stream)
    _replace_file(path, stream.getvalue())
    return path


def _put(mapping: Any, key: str) -> CommentedMap:
    mapping[key] = CommentedMap()
    made: CommentedMap = mapping[key]
    return made


def _is_secret(document: Any, name: str) -> bool:
    return isinstance(document, dict) and document.get("kind") == "Secret" and document["metadata"]["name"] == name


def _new_document(secret: str) -> CommentedMap:
    document = CommentedMap(apiVersion=API_VERSION, kind="Secret")
    document["metadata"] = CommentedMap(name=secret)
    document["spec"] = CommentedMap()
    return document


def _replace_file(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_text(text, encoding="utf-8")
        if path.exists():
            staged.chmod(path.stat().st_mode & 0o777)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise TransientError(f"cannot write {path}: {error.strerror}") from error
