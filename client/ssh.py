"""Why a server would not have us, asked of ssh itself. Called by ``runner`` and ``inventory`` when Borg does not say.

Borg 1.2 reads the server's answers and ssh's messages from two pipes. When both end in the same moment it gives up with
"Connection closed by remote host" and drops what ssh said: a wrong host key and a wrong key look alike. So the same ssh
command is tried once more, with nothing to do.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from client import borgmatic, policy_file
from schema.desired import ManagedFile
from schema.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.borgmatic_output import Reader
    from schema.desired import Job

UNEXPLAINED = "Connection closed by remote host"
_SECONDS = 30.0


async def explain(reader: Reader, job: Job, *, config: Path, environment: Mapping[str, str], only: str | None) -> None:
    """Let ``reader`` read what ssh says of the job's repositories, or of ``only``, if that is what it lacks.

    ``config`` is borgmatic's directory. Never raises: what cannot be asked stays unexplained.
    """
    if UNEXPLAINED not in reader.reason(1)[0]:
        return
    urls = [one.url for one in job.repositories if only in {None, one.name} and one.url.startswith("ssh://")]
    try:
        options = policy_file.read_options(
            ManagedFile(place="config", path=job.file, origin="", content=(config / job.file).read_text("utf-8"))
        )
        for command in filter(None, (_command(options, url) for url in urls)):
            ended = await borgmatic.call(command, environment=environment, timeout=_SECONDS)
            for line in ended.stderr.splitlines() if ended.exit_code else ():
                reader.stderr(b"Remote: " + line)  # as Borg would have said it
    except (OSError, ValueError, DirectorError):
        return


def _command(options: Mapping[str, object], url: str) -> list[str] | None:
    """Return what asks the server at ``url`` for Borg's version, as Borg would reach it."""
    entries = options.get("repositories")
    entry = next(_entries(entries, url), {}) if isinstance(entries, list) else {}
    merged = {**options, **entry}
    parts = urlsplit(url)
    if not parts.hostname:
        return None
    port = ["-p", str(parts.port)] if parts.port else []
    where = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    ssh = shlex.split(str(merged.get("ssh_command", "ssh")))
    return [*ssh, *port, where, str(merged.get("remote_path", "borg")), "--version"]


def _entries(entries: list[object], url: str) -> Iterator[dict[str, object]]:
    for entry in entries:
        if isinstance(entry, dict) and entry.get("path") == url:
            yield entry
