"""One valid example of everything that travels, from which fuzzing starts."""

from __future__ import annotations

import json
from typing import Any

AT = "2026-11-23T18:00:00Z"
RUN = "a" * 32
EPOCH = "e" * 32
ARCHIVE = {"id": "ab" * 32, "name": "web-1.files.2026-11-23T18:00:00", "start": AT}
DIGEST = "sha256:" + "1" * 64

REPORTS: tuple[dict[str, Any], ...] = (
    {
        "type": "state",
        "at": AT,
        "generation": 7,
        "digest": DIGEST,
        "revision": "c" * 40,
        "expires": AT,
        "stale": False,
        "refusal": {"code": "older-generation", "message": "no", "hint": "", "generation": 6, "revision": ""},
        "drift": [
            {
                "kind": "changed",
                "subject": "files.yaml",
                "backup": "files",
                "message": "edited",
                "diff": "-a\n+b",
                "detected": AT,
            }
        ],
        "jobs": [{"backup": "files", "next_due": AT, "running": RUN}],
        "versions": {"client": "0.1.0", "borgmatic": "2.1.10", "borg": "1.4.1", "python": "3.11.9", "platform": "x"},
        "dropped_events": 0,
    },
    {
        "type": "run-started",
        "at": AT,
        "run": RUN,
        "backup": "files",
        "trigger": "schedule",
        "due": AT,
        "revision": "c" * 40,
    },
    {"type": "run-log", "run": RUN, "first": 0, "lines": [{"at": AT, "level": "info", "message": "line"}]},
    {
        "type": "run-finished",
        "at": AT,
        "run": RUN,
        "backup": "files",
        "outcome": "warned",
        "exit_code": 1,
        "error": "x",
        "hint": "y",
        "statistics": [
            {
                "repository": "nas",
                "archive": "a",
                "archive_id": "ab" * 32,
                "files": 3,
                "original_size": 9,
                "duration": 1.5,
            }
        ],
        "log_lines": 1,
    },
    {
        "type": "archives",
        "at": AT,
        "backup": "files",
        "repository": "nas",
        "url": "/mnt/nas",
        "available": True,
        "repository_id": "ab" * 32,
        "encryption": "repokey-blake2",
        "count": 1,
        "archives": [ARCHIVE],
        "total_size": 10,
        "unique_size": 5,
    },
    {
        "type": "contents",
        "at": AT,
        "backup": "files",
        "repository": "nas",
        "archive": ARCHIVE,
        "listed": True,
        "files": 2,
        "size": 10,
        "oldest": AT,
        "newest": AT,
        "directory_count": 1,
        "directories": [{"path": "etc", "files": 2, "size": 10}],
        "largest": [{"path": "etc/passwd", "size": 9}],
    },
    {"type": "event", "at": AT, "reason": "Applied", "message": "well", "backup": "files", "detail": "more"},
)

PROGRESS: dict[str, Any] = {
    "type": "run-progress",
    "at": AT,
    "run": RUN,
    "backup": "files",
    "phase": "create",
    "files": 1,
    "original_size": 2,
    "deduplicated_size": 1,
    "path": "etc",
    "percent": 50.0,
    "since": AT,
}
FROM_CLIENT: tuple[dict[str, Any], ...] = (
    {
        "type": "hello",
        "versions": [1],
        "name": "web-1",
        "key": "bd1-client." + "A" * 86,
        "nonce": "A" * 43,
        "client_version": "0.1.0",
        "config_directory": "/etc/borgmatic.d",
        "state_directory": "/var/lib/borgmatic-director-client",
    },
    {"type": "proof", "signature": "A" * 86, "token": "bd1-token." + "A" * 43},
    {"type": "pull", "generation": 7, "digest": DIGEST},
    {
        "type": "reports",
        "epoch": EPOCH,
        "items": [{"sequence": number, "report": one} for number, one in enumerate(REPORTS, start=1)],
    },
    {"type": "progress", "progress": PROGRESS},
)

ACCEPTED: dict[str, Any] = {
    "type": "accepted",
    "name": "web-1",
    "time": AT,
    "heartbeat": 30.0,
    "resync": 300.0,
    "resend": True,
}
PENDING: dict[str, Any] = {"type": "pending", "fingerprint": "SHA256:x", "retry_after": 5.0, "message": "waits"}
REFUSED: dict[str, Any] = {"type": "refused", "code": "busy", "message": "no", "hint": "later", "retry_after": 5.0}
FROM_DIRECTOR: tuple[dict[str, Any], ...] = (
    {
        "type": "challenge",
        "version": 1,
        "nonce": "A" * 43,
        "key": "bd1-director." + "A" * 43,
        "signature": "A" * 86,
    },
    ACCEPTED,
    PENDING,
    REFUSED,
    {"type": "desired", "envelope": '{"payloadType": "x", "payload": "", "signatures": []}'},
    {"type": "current", "generation": 7},
    {"type": "acknowledged", "epoch": EPOCH, "sequence": 7},
)

CONTENT: dict[str, Any] = {
    "client": "web-1",
    "directories": {"config": "/etc/borgmatic.d", "state": "/var/lib/borgmatic-director-client"},
    "drift": "heal",
    "suspend": False,
    "files": [
        {"place": "config", "path": "files.yaml", "origin": "a.yaml", "content": "x: 1\n", "mode": 384},
        {"place": "state", "path": "known_hosts/nas", "origin": "a.yaml", "content": "x", "mode": 420},
    ],
    "jobs": [
        {
            "backup": "files",
            "file": "files.yaml",
            "schedule": {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "jitter": "10m"},
            "actions": ["create", "prune"],
            "repositories": [{"name": "nas", "url": "/mnt/nas", "encryption": "none", "quota": None}],
            "rpo": "26h",
            "timeout": "4h",
        }
    ],
    "secrets": [{"secret": "nas", "key": "passphrase", "sealed": "bd1-sealed.AAAA"}],
}

WORDS = (
    *("hello", "proof", "pull", "reports", "progress", "challenge", "accepted", "pending", "refused", "desired"),
    *("current", "acknowledged", "state", "run-started", "run-log", "run-finished", "archives", "contents", "event"),
    *(AT, RUN, DIGEST, "failed", "lost", "catch-up", "unmanaged", "critical", "bd1-client." + "A" * 86),
)


def lines(*values: Any) -> bytes:
    """Return values as JSON, a line each."""
    return b"\n".join(json.dumps(value).encode() for value in values)
