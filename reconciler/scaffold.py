"""``director init``: a commented starting source, from the files in ``reconciler/starter``; only ``@WORDS@`` change."""

from __future__ import annotations

import json
import re
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from reconciler.git_objects import discover, make_repository
from schema.directories import Directories
from schema.envelope import parse_client_key
from schema.errors import TerminalError, TransientError
from schema.scalars import NAME_PATTERN

if TYPE_CHECKING:
    from collections.abc import Sequence

_STARTER = Path(__file__).parent / "starter"
_SCHEMAS = Path(__file__).parent.parent / "schema" / "json" / "v1"


_PHRASE_IN_FILE = """\
      # A file that you make on the machine, readable by root only, holding the passphrase on one line. client.toml
      # there has to allow it: credential_files = ["/etc/borgmatic-director/borg-passphrase"] in the table [policy].
      # Keep a copy of it elsewhere: without it the backups cannot be read.
      file: /etc/borgmatic-director/borg-passphrase
      # Or sealed in Git, readable by the clients only: `director seal . borg passphrase`, and then:
      # secret: borg"""
_PHRASE_SEALED = """\
      # Sealed in Git: only the machine can read it, and whoever holds the escrow key (see secrets/borg.yaml).
      secret: borg"""


def write(
    directory: Path,
    *,
    client: str | None,
    public_key: str | None,
    repository: str,
    sources: Sequence[str],
    branch: str = "main",
    directories: Directories | None = None,
    sealed: bool = False,
) -> list[Path]:
    """Write the starting source into ``directory`` and return the paths, relative to it. Nothing is overwritten.

    ``sealed``: the passphrase stands in a Secret (which the caller seals), not in a file on the machine.
    ``directories`` are the client's, when not the default ones.

    Raises:
        TerminalError: a file is already there, or a value cannot be used.
        TransientError: the directory cannot be written.
    """
    name = client or host_name()
    if not re.fullmatch(NAME_PATTERN, name):
        raise TerminalError(
            f"'{name}' cannot be the name of a client: use lower-case letters, digits and hyphens",
            hint="give --client NAME",
        )
    if public_key is not None:
        parse_client_key(public_key)
    words = {
        "@CLIENT@": name,
        "@CLIENT_NAME@": name,
        "@PUBLIC_KEY@": f"publicKey: {public_key}" if public_key else "# publicKey: bd1-client.…",
        "@TIME_ZONE@": _time_zone(),
        "@DIRECTORIES@": _directories(directories),
        "@PASSPHRASE@": _PHRASE_SEALED if sealed else _PHRASE_IN_FILE,
        "@REPOSITORY@": json.dumps(repository),
        "@SOURCES@": json.dumps(list(sources)),
    }
    texts = {
        path.relative_to(_STARTER): _fill(path.read_text(encoding="utf-8"), words)
        for path in sorted(_STARTER.rglob("*"))
        if path.is_file()
    }
    texts = {
        Path("clients") / f"{name}.yaml" if path.name == "client.yaml" else path: text for path, text in texts.items()
    }
    there = [path for path in texts if (directory / path).exists()]
    if there:
        raise TerminalError(
            f"{directory / there[0]} is already there, and nothing is overwritten", hint="name a new folder"
        )
    try:
        for path, text in texts.items():
            (directory / path).parent.mkdir(parents=True, exist_ok=True)
            (directory / path).write_text(text, encoding="utf-8")
        (directory / ".schema").mkdir(exist_ok=True)
        shutil.copyfile(_SCHEMAS / "all.json", directory / ".schema" / "all.json")
        if discover(directory) is None:
            make_repository(directory, branch=branch, bare=False)
    except OSError as error:
        raise TransientError(f"cannot write the starting source to {directory}: {error}") from error
    return [*texts, Path(".schema/all.json")]


def _directories(directories: Directories | None) -> str:
    if directories is None or directories == Directories():
        return "# directories: {config: …, state: …}   # when not the default ones"
    return f"directories: {{config: {json.dumps(directories.config)}, state: {json.dumps(directories.state)}}}"


def host_name() -> str:
    """Return this machine's host name as a resource name."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().partition(".")[0].lower()).strip("-")[:63]
    return name or "this-machine"


def _time_zone() -> str:
    try:
        text = str(Path("/etc/localtime").resolve(strict=True))
    except OSError:
        return "UTC"
    return text.partition("/zoneinfo/")[2].removeprefix("Etc/") or "UTC"


def _fill(text: str, words: dict[str, str]) -> str:
    for word, value in words.items():
        text = text.replace(word, value)
    return text
