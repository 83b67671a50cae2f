"""The words that bring an archive back: commands to be typed on the machine, and a ``Restore`` to be committed. Pure.

Borg takes a path that begins like an option for one, and ``re:`` and the like for a pattern: such a path is named with
Borg's own prefix for "this path, and what is below it".
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Final

from schema.status import RestoreCommands

if TYPE_CHECKING:
    from schema.status import ArchiveStatus

DESTINATION: Final = "/var/tmp/restore"  # noqa: S108 - made with mkdir, which refuses what somebody else put there
_PATTERN_LIKE: Final = re.compile(r"-|[a-z]{2}:")
_NOT_IN_NAMES: Final = re.compile(r"[^a-z0-9]+")


def commands(
    archive: ArchiveStatus, *, file: str, path: str = "", dumps: str = "", destination: str = DESTINATION
) -> RestoreCommands:
    """Return the commands for an archive, or for one path in it.

    ``file`` is borgmatic's configuration; ``dumps`` is where databases are dumped to, when there are any.
    """
    borgmatic = f"borgmatic --config {quoted(file)}"
    these = f"{_option('repository', archive.repository)} {_option('archive', archive.name)}"
    only = f" {_option('path', as_borg_path(path))}" if path else ""
    folder = quoted(destination)
    return RestoreCommands(
        extract=f"mkdir -m 700 {folder} && {borgmatic} extract {these}{only} --destination {folder}",
        list=f"{borgmatic} list {these}{only}",
        mount=f"mkdir -m 700 {folder} && {borgmatic} mount {these}{only} --mount-point {folder}",
        unmount=f"{borgmatic} umount --mount-point {folder}",
        browse=f"{borgmatic} browse",
        restore_databases=f"{borgmatic} --user-runtime-directory {quoted(dumps)} restore {these}" if dumps else "",
    )


def resource(archive: ArchiveStatus, *, path: str = "", destination: str = DESTINATION) -> str:
    """Return the YAML of a ``Restore`` that asks for the same."""
    moment = archive.start.strftime("%Y-%m-%d")
    words = f"{archive.client} {archive.backup}"[:52].lower()
    name = _NOT_IN_NAMES.sub("-", f"{words} {moment}").strip("-")
    lines = [
        "apiVersion: borgmatic.director/v1",
        "kind: Restore",
        "metadata:",
        f"  name: {_name(name)}",
        "spec:",
        f"  client: {_name(archive.client)}",
        f"  repository: {_name(archive.repository)}",
        f"  archive: {_yaml(archive.name)}",
        *([f"  paths: [{_yaml(path)}]"] if path else []),
        f"  destination: {destination}",
    ]
    return "\n".join(lines) + "\n"


def _name(text: str) -> str:
    """Return a name as YAML; quoted when a reader could take it for a number or a truth."""
    plain = text[:1].isalpha() and text.lower() not in {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
    return text if plain else _yaml(text)


def as_borg_path(path: str) -> str:
    """Return a path as Borg takes it for nothing else."""
    return f"pp:{path}" if _PATTERN_LIKE.match(path) else path


def quoted(text: str) -> str:
    """Return a word of a shell. What a page could not show as it is becomes bytes that bash and zsh read."""
    if text.isprintable():
        return shlex.quote(text)
    shown = "".join(
        one if one.isprintable() and one not in "'\\" else "".join(f"\\x{byte:02x}" for byte in _bytes(one))
        for one in text
    )
    return f"$'{shown}'"


def _option(name: str, value: str) -> str:
    return f"--{name}={quoted(value)}" if value.startswith("-") else f"--{name} {quoted(value)}"


def _yaml(text: str) -> str:
    """Return a double-quoted scalar: JSON is YAML, and what is not printable is escaped."""
    return "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in json.dumps(text, ensure_ascii=False))


def _bytes(character: str) -> bytes:
    return character.encode("utf-8", "surrogateescape" if "\udc80" <= character <= "\udcff" else "replace")
