"""What borgmatic and Borg print: lines, JSON inside JSON, lists of archives and of files."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from client import inventory
from client.archive_tree import ArchiveTree
from client.borgmatic_output import Lines, Reader, Scrubber, Seen, json_list, statistics
from schema import wire
from schema.observed import Archive, ArchiveContents, ArchivesSeen, LogLine, Outcome, RunFinished, RunLog, RunProgress
from tests.fuzz import samples
from tests.fuzz.target import Target
from tests.fuzz.targets.machine import job

NOW = datetime(2026, 11, 23, 18, tzinfo=UTC)
_NAMES = {"/mnt/nas": "nas", "ssh://borg@disk/./x": "disk"}


def _read(data: bytes, pieces: int) -> tuple[Reader, list[LogLine], list[Seen]]:
    lines: list[LogLine] = []
    seen: list[Seen] = []
    reader = Reader(on_line=lines.append, on_progress=seen.append, now=lambda: NOW, scrub=Scrubber(["correct horse"]))
    cut = Lines(1_000)
    size = max(1, len(data) // pieces)
    for place in range(0, len(data), size):
        for line in cut.feed(data[place : place + size]):
            reader.stdout(line)
    reader.stderr(cut.rest())
    return reader, lines, seen


def _output(data: bytes) -> None:
    reader, lines, seen = _read(data, 1)
    again, same_lines, same_seen = _read(data, 7)
    assert (lines, seen) == (same_lines, same_seen), "it matters how the pipe cut it"
    assert (reader.reasons, reader.warning, reader.missing) == (again.reasons, again.warning, again.missing)
    found = statistics(reader.statistics, names=_NAMES)
    reason, hint = reader.reason(-9)
    for text in (reason, hint, *reader.reasons):
        text.encode()
        assert "correct horse" not in text
    finished = RunFinished(
        at=NOW,
        run=samples.RUN,
        backup="files",
        outcome=Outcome.FAILED,
        error=reason,
        hint=hint,
        statistics=tuple(found.values()),
        log_lines=len(lines),
    )
    log = RunLog(run=samples.RUN, first=0, lines=tuple(lines[:500]))
    for report in (finished, log):
        assert wire.parse_report(json.loads(report.model_dump_json())) == report
    for one in seen[:20]:
        RunProgress(
            at=NOW,
            run=samples.RUN,
            backup="files",
            phase=one.phase,
            files=one.files,
            original_size=one.original_size,
            deduplicated_size=one.deduplicated_size,
            path=one.path,
            percent=one.percent,
        ).model_dump_json()


def _inventory(data: bytes) -> None:
    """borgmatic's list of archives and sizes."""
    values = json_list(data)
    statistics(values, names=_NAMES)
    asking = inventory.Inventories.__new__(inventory.Inventories)
    for repository in job().repositories:
        seen = asking._seen(job(), repository, values, now=NOW)
        if seen is not None:
            assert isinstance(seen, ArchivesSeen)
            assert list(seen.archives) == sorted(seen.archives, key=lambda one: one.start, reverse=True)
            assert wire.parse_report(json.loads(seen.model_dump_json())) == seen


def _archive(data: bytes) -> None:
    """Borg's list of what is in an archive, folded into a small tree and told apart in a large one."""
    small, large = ArchiveTree(most=6), ArchiveTree()
    for line in data.split(b"\n"):
        small.read(line)
        large.read(line)
    for tree in (small, large):
        contents = ArchiveContents(
            at=NOW,
            backup="files",
            repository="nas",
            archive=Archive.model_validate(samples.ARCHIVE),
            listed=True,
            files=tree.files,
            size=tree.size,
            oldest=tree.oldest,
            newest=tree.newest,
            directory_count=tree.directory_count,
            directories=tree.directories(),
            largest=tree.largest(),
        )
        sent = contents.model_dump_json()
        assert len(sent) < wire.MAX_CLIENT_FRAME
        assert wire.parse_report(json.loads(sent)) == contents
        paths = [one.path for one in contents.directories]
        assert len(set(paths)) == len(paths)
        for one in contents.directories:
            assert one.path.isprintable() or "\ufffd" in one.path
            assert one.files <= tree.files
            assert one.size <= tree.size
            for below in contents.directories:
                if below.path.startswith(f"{one.path}/"):
                    assert (below.files, below.size) <= (one.files, one.size) or below.size <= one.size
    assert (small.files, small.size, small.directory_count) == (large.files, large.size, large.directory_count)


# --- Seeds ------------------------------------------------------------------------------------------------------------


def _message(text: str, level: str = "INFO", **more: Any) -> dict[str, Any]:
    return {"type": "log_message", "time": 1.8e9, "message": text, "levelname": level, "name": "root", **more}


_STATISTICS = [
    {
        "archive": {
            "duration": 0.5,
            "id": "ab" * 32,
            "name": "web-1.files",
            "stats": {"compressed_size": 5, "deduplicated_size": 3, "nfiles": 2, "original_size": 9},
        },
        "cache": {"stats": {"total_csize": 1, "total_size": 9, "unique_csize": 7}},
        "repository": {"id": "cd" * 32, "label": "nas", "location": "/mnt/nas"},
    }
]
_RUN = (
    _message("nas: Creating archive", name="borgmatic.actions.create"),
    _message(json.dumps({"type": "archive_progress", "nfiles": 3, "original_size": 9, "path": "etc/x"}), "ERROR"),
    {"type": "progress_percent", "current": 5, "total": 10, "finished": False, "msgid": "check.check_data"},
    {"type": "file_status", "status": "A", "path": "/etc/passwd"},
    _message("Repository /mnt/nas does not exist.", "ERROR"),
    _message("warning: correct horse", "WARNING"),
    _message("summary:"),
    _STATISTICS,
)
_PLAIN = b"ssh: Permission denied (publickey).\nException ignored in: <function _TemporaryFileCloser\nXError: y\r50%\r"
_LISTING = [
    {
        "archives": [
            {"archive": "web-1.files", "id": "ab" * 32, "name": "web-1.files", "start": "2026-11-23T18:00:00.000000"},
            {"archive": "web-1.files-2", "id": "cd" * 32, "time": "2026-11-24T18:00:00.000000+02:00"},
        ],
        "repository": {"id": "cd" * 32, "label": "nas", "location": "/mnt/nas"},
        "encryption": {"mode": "repokey-blake2"},
    },
    {"repository": {"label": "", "location": "/mnt/nas"}, "cache": {"stats": {"unique_csize": 7, "total_size": 9}}},
]
_FILES = tuple(
    {"type": kind, "path": path, "size": size, "mtime": "2026-11-23T18:00:00.000000", "mode": "-rw-r--r--"}
    for kind, path, size in (
        ("d", "etc", 0),
        ("-", "etc/passwd", 9),
        ("d", "srv/www/a/b/c", 0),
        ("-", "srv/www/a/b/c/x", 100),
        ("l", "srv/link", 0),
        ("-", "home/\u202ee\udcff", 7),
        ("d", "home", 0),
    )
)

TARGETS = (
    Target(
        name="borgmatic-output",
        promise="any output is understood alike however the pipe cuts it, tells no secret, and what comes of it can be "
        "reported",
        check=_output,
        seeds=lambda: [samples.lines(*_RUN), _PLAIN, *(samples.lines(one) for one in _RUN)],
        separator=b"\n",
        words=(
            "log_message",
            "archive_progress",
            "summary:",
            "finished",
            "correct horse",
            "levelname",
            "CRITICAL",
            "[",
        ),
    ),
    Target(
        name="inventories",
        promise="any list of archives is read without an error, newest first, and can be reported",
        check=_inventory,
        seeds=lambda: [samples.lines(_LISTING), b"noise\n" + samples.lines(_LISTING), samples.lines(_STATISTICS)],
        separator=b"\n",
        words=("archives", "repository", "label", "location", "/mnt/nas", "nas", "start", "0001-01-01T00:00:00"),
    ),
    Target(
        name="archive-listing",
        promise="any list of files becomes numbers that can be reported and shown; folded or not, the totals are "
        "equal, and no directory has more than the one above it",
        check=_archive,
        seeds=lambda: [samples.lines(*_FILES), samples.lines(*(_message(json.dumps(one)) for one in _FILES))],
        separator=b"\n",
        words=("a/b/c", "./", "//", "..", "/".join("abcdefghijklmnopqrstuvwxyz"), "x" * 400, "mtime", "-", "d", "l"),
        most=8_192,
    ),
)
