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
    from collections.abc import Iterable, Iterator

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


@dataclass(frozen=True, slots=True)
class Resealed:
    """What ``reseal`` did and could not do, a line each."""

    done: tuple[str, ...]
    left: tuple[str, ...]


def reseal(book: Book, *, escrow: EscrowIdentity, secret: str | None, everyone: bool) -> Resealed:
    """Seal values again, from their escrow copies, to clients that lack them (or to all).

    Raises:
        TerminalError: there is no such Secret, or a client has no public key yet.
        TrustError: an escrow copy was made for another key or another name.
    """
    secrets = book.catalogue.all(Secret)
    if secret is not None and secret not in secrets:
        raise TerminalError(f"there is no Secret '{secret}'; the source has: {', '.join(sorted(secrets)) or 'none'}")
    done: list[str] = []
    left: list[str] = []
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
                left.append(
                    f"'{key}' of secret '{name}' has no copy for this escrow key: {', '.join(lacking)} cannot read it"
                )
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
    return Resealed(tuple(done), tuple(left))


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


_MARK = re.compile(r"^(?:---|\.\.\.)(?:[ \t]*(?:#[^\n]*)?(?:\n|\Z)|[ \t]+)", re.MULTILINE)
"""What separates documents. YAML allows these at the start of a line nowhere else, not even in a text block."""

_SEQUENCE = re.compile(r"^(?P<key> *)[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?P<dash> *)-(?P<gap> +)\S", re.MULTILINE)
_MAPPING = re.compile(r"^[^\s#-][^\n]*:[ \t]*(?:#[^\n]*)?\n(?P<key> +)[^\s#-]", re.MULTILINE)


def _yaml(text: str) -> YAML:
    """Return a reader and writer in the habits of ``text``: a person's file is not laid out anew."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 2**31  # sealed values are long words: never fold them
    sequence, mapping = _SEQUENCE.search(text), _MAPPING.search(text)
    offset = max(0, len(sequence["dash"]) - len(sequence["key"])) if sequence else 2
    yaml.indent(
        mapping=len(mapping["key"]) if mapping else 2,
        sequence=offset + 1 + (len(sequence["gap"]) if sequence else 1),
        offset=offset,
    )
    return yaml


def _split(text: str) -> list[str]:
    """Return documents and the marks between them, in turn: joined they are ``text``."""
    parts, at = [], 0
    for mark in _MARK.finditer(text):
        parts += [text[at : mark.start()], mark.group()]
        at = mark.end()
    return [*parts, text[at:]]


def _write(book: Book, secret: str, changes: dict[str, dict[str, dict[str, str]]], *, replace: bool) -> Path:
    """Lay ``changes`` (key → clients/escrow → name → sealed) into the Secret's document, and return its path."""
    located = book.catalogue.get(Secret, secret)
    if located is None:
        path = book.folder / "secrets" / f"{secret}.yaml"
        if path.exists():
            raise TerminalError(f"{path} is already there, and holds no Secret named '{secret}'")
        parts = [_NEW_DOCUMENT.format(version=API_VERSION, name=secret)]
    else:
        path = book.root / located.path
        parts = _split(path.read_bytes().decode())
    number, yaml, document = next(_documents(parts, secret))
    _lay(document, changes, replace=replace)
    stream = io.StringIO()
    yaml.dump(document, stream)
    is_crlf = "\r\n" in parts[number]
    parts[number] = stream.getvalue().replace("\n", "\r\n") if is_crlf else stream.getvalue()
    _replace_file(path, "".join(parts))
    return path


_NEW_DOCUMENT = """\
apiVersion: {version}
kind: Secret
metadata:
  name: {name}
spec: {{}}
"""


def _documents(parts: list[str], secret: str) -> Iterator[tuple[int, YAML, Any]]:
    """Yield the one document that is our Secret: where it stands, how it is written, what it holds."""
    for number in range(0, len(parts), 2):
        text = parts[number].replace("\r\n", "\n")
        yaml = _yaml(text)
        document = yaml.load(text)
        if isinstance(document, dict) and document.get("kind") == "Secret" and document["metadata"]["name"] == secret:
            yield number, yaml, document


def _lay(document: Any, changes: dict[str, dict[str, dict[str, str]]], *, replace: bool) -> None:
    spec = document["spec"] or _put(document, "spec")
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


def _put(mapping: Any, key: str) -> CommentedMap:
    mapping[key] = CommentedMap()
    made: CommentedMap = mapping[key]
    return made


def _replace_file(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staged.write_bytes(text.encode())
        if path.exists():
            staged.chmod(path.stat().st_mode & 0o777)
        staged.replace(path)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise TransientError(f"cannot write {path}: {error.strerror}") from error
