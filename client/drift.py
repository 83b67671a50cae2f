"""What on this machine differs from what the director wrote, and putting it right. Called by ``agent``, on a timer.

A look costs one ``stat`` for each file as long as nothing changed. Files that are not ours are reported, never touched.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from client import policy_file
from client.managed import Folder, digest, failed
from schema.observed import Drift, DriftKind, compare

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from client.apply import Applier
    from client.managed import Place, Places
    from schema.desired import Content, DesiredState, ManagedFile

_HEALABLE = {DriftKind.CHANGED, DriftKind.MISSING}
_MAX_DRIFTS = 500
_Stamp = tuple[int, ...]


class Watch:
    """Compares, and remembers what it has read, so that it need not read it again."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._read: dict[tuple[Place, str], tuple[_Stamp, str]] = {}
        self._sources: dict[str, tuple[str, ...]] = {}
        self._first_seen: dict[tuple[str, str, str], datetime] = {}

    def detect(self, state: DesiredState, *, now: datetime) -> tuple[Drift, ...]:
        """Return every difference, at most 500. ``detected`` is when this watch first saw it."""
        try:
            found = [*self._files(state, now=now), *self._secrets(state.content, now=now)]
        except OSError as error:
            raise failed(error, doing="look at the managed files") from error
        found += self._missing_sources(state.content, now=now)
        known, self._first_seen = self._first_seen, {}
        dated = []
        for drift in found[:_MAX_DRIFTS]:
            key = (drift.kind, drift.subject, drift.diff + drift.message)
            first = self._first_seen[key] = known.get(key, now)
            dated.append(drift.model_copy(update={"detected": first}))
        return tuple(dated)

    def heal(self, state: DesiredState, drifts: Sequence[Drift], *, applier: Applier) -> tuple[Drift, ...]:
        """Write again what was changed or removed, where that is wanted; return ``drifts`` with those marked healed."""
        modes = {job.backup: job.drift for job in state.content.jobs}
        healed = {
            drift.subject
            for drift in drifts
            if drift.kind in _HEALABLE and modes.get(drift.backup or "", state.content.drift) == "heal"
        }
        if healed:
            applier.restore(state, frozenset(healed))
        return tuple(
            drift.model_copy(update={"healed": True}) if drift.subject in healed and drift.kind in _HEALABLE else drift
            for drift in drifts
        )

    # --- Files --------------------------------------------------------------------------------------------------------

    def _files(self, state: DesiredState, *, now: datetime) -> Iterator[Drift]:
        backups = {job.file: job.backup for job in state.content.jobs}
        wanted: dict[str, bytes] = {}
        actual: dict[str, bytes] = {}
        others: list[Drift] = []
        for file in state.content.files:
            content = file.rendered(state.revision)
            wrong = self._look(file, content, actual)
            if wrong is not None:
                wanted[file.path] = content
            if wrong:
                del wanted[file.path]
                others.append(
                    Drift(kind=DriftKind.CHANGED, subject=file.path, message=f"{file.path} {wrong}", detected=now)
                )
        unmanaged = self._unmanaged({file.path for file in state.content.files if file.place == "config"})
        for drift in (*compare(wanted, actual, unmanaged=unmanaged, now=now), *others):
            yield drift.model_copy(update={"backup": backups.get(drift.subject)})

    def _look(self, file: ManagedFile, content: bytes, actual: dict[str, bytes]) -> str | None:
        """Return None when the file is as it should be; else what is wrong beside the content that ``actual`` gets."""
        key = (file.place, file.path)
        wanted = digest(content)
        status = self._places.status(*key)
        if status is not None and self._read.get(key) == (_stamp(status), wanted):
            return None
        self._read.pop(key, None)
        found = self._places.read(*key) if status is not None else None
        if status is None or found is None:
            return ""
        if found.content is None:
            return "is not a regular file of a usual size"
        if found.content != content:
            actual[file.path] = found.content
            return ""
        if found.mode != file.mode:
            return f"has the mode {found.mode:04o} instead of {file.mode:04o}"
        if found.owner != os.geteuid():
            return f"belongs to user {found.owner}"
        self._read[key] = (_stamp(status), wanted)
        return None

    def _unmanaged(self, managed: set[str]) -> frozenset[str]:
        """Return the files beside ours that borgmatic would read as well."""
        names = set()
        with contextlib.suppress(FileNotFoundError), Folder.open(self._places.config) as folder:
            for name in folder.names():
                if name.endswith((".yaml", ".yml")) and name not in managed:
                    status = folder.status(name)
                    if status is not None and not stat.S_ISDIR(status.st_mode):
                        names.add(_shown(name))
        return frozenset(names)

    def _secrets(self, content: Content, *, now: datetime) -> Iterator[Drift]:
        """Yield opened secrets that are gone or altered; never a value."""
        inventory = None
        for secret in content.secrets:
            path = f"secrets/{secret.secret}.{secret.key}"
            status = self._places.status("state", path)
            if status is None:
                yield Drift(kind=DriftKind.MISSING, subject=path, message=f"{path} was removed", detected=now)
                continue
            known = self._read.get(("state", path))
            if known is not None and known == (_stamp(status), digest(secret.sealed.encode())):
                continue
            inventory = inventory or self._places.inventory()
            entry = inventory.find("state", path)
            found = self._places.read("state", path)
            right = (
                entry is not None
                and found is not None
                and found.content is not None
                and digest(found.content) == entry.digest
                and found.mode == entry.mode
            )
            if right:
                self._read["state", path] = _stamp(status), digest(secret.sealed.encode())
            else:
                yield Drift(kind=DriftKind.CHANGED, subject=path, message=f"{path} was edited", detected=now)

    # --- Sources ------------------------------------------------------------------------------------------------------

    def _missing_sources(self, content: Content, *, now: datetime) -> Iterator[Drift]:
        files = {file.path: file for file in content.files if file.place == "config"}
        for job in content.jobs:
            file = files.get(job.file)
            for source in self._source_directories(file) if file is not None else ():
                if not _exists(source):
                    yield Drift(
                        kind=DriftKind.SOURCE_MISSING,
                        subject=source[:1024],
                        backup=job.backup,
                        message=f"{source} is to be backed up and does not exist",
                        detected=now,
                    )

    def _source_directories(self, file: ManagedFile) -> tuple[str, ...]:
        """Return what a configuration names, absolute. What only borgmatic can tell (constants) is left out."""
        key = digest(file.content.encode())
        if key not in self._sources:
            if len(self._sources) > 4096:
                self._sources.clear()
            self._sources[key] = _source_directories(file)
        return self._sources[key]


def _source_directories(file: ManagedFile) -> tuple[str, ...]:
    try:
        options = policy_file.read_options(file)
    except ValueError:
        return ()
    sources, base = options.get("source_directories", []), options.get("working_directory", "/")
    if not isinstance(sources, list) or not isinstance(base, str):
        return ()
    # A "/./" in a source only tells Borg where the stored path begins.
    paths = [os.path.join(base, os.path.expanduser(one)) for one in sources if isinstance(one, str)]  # noqa: PTH111, PTH118
    return tuple(path for path in paths if "{" not in path and "${" not in path)


def _exists(path: str) -> bool:
    """Whether there is something at ``path`` or matching it. What we may not see exists, for all that we know."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return glob.has_magic(path) and bool(glob.glob(path))  # noqa: PTH207 - borgmatic's own rules
    except OSError:
        return True
    return True


def _stamp(status: os.stat_result) -> _Stamp:
    return (
        status.st_ino,
        status.st_dev,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
    )


def _shown(name: str) -> str:
    return Path(name).name.encode("utf-8", "backslashreplace").decode("utf-8")
