"""What the seeded clients told of their newest archives: folded by the client's own tree from a list of files."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from client.archive_tree import ArchiveTree
from client.contents import FORBIDDEN
from schema.observed import Archive, ArchiveContents

if TYPE_CHECKING:
    from datetime import datetime

HOSTILE = "home/ada/<img src=x onerror=alert(1)>"
_COMMON = (
    *("etc/ssl/certs", "etc/systemd/system", "etc/nginx/sites-available", "root/bin", "usr/local/bin"),
    *("usr/local/lib/python3.11/site-packages/shop", "usr/local/share/man/man1"),
)
_OWN = {
    "web": ("var/www/shop/public/images", "var/www/shop/public/css", "var/www/shop/releases/41", "var/www/blog"),
    "postgresql": ("var/lib/postgresql/16/main/base/16402", "var/lib/postgresql/16/main/pg_wal"),
    "apps": ("srv/apps/billing/data", "srv/apps/billing/attachments/2026", "srv/apps/wiki/data", HOSTILE),
    "mail": ("var/mail/example.org/ada/cur", "var/mail/example.org/jon/cur", "var/mail/example.org/mira/cur"),
}


def contents_of(
    client: str, backup: str, repository: str, archive: Archive, *, at: datetime, files: int, size: int
) -> ArchiveContents:
    report = ArchiveContents(at=at, backup=backup, repository=repository, archive=archive, listed=False)
    if client == "mail-1":
        return report.model_copy(update={"message": FORBIDDEN})
    tree = ArchiveTree()
    for number, directory in enumerate(_OWN.get(backup, _COMMON)):
        seed = int(hashlib.sha256(f"{client}/{directory}".encode()).hexdigest()[:8], 16)
        for depth in range(directory.count("/") + 1):
            tree.read(_line(directory.rsplit("/", depth)[0], kind="d"))
        for file in range(12 + seed % 60):
            bytes_of = seed * (file + 1) % (40_000_000 >> number)
            tree.read(_line(f"{directory}/{file:04d}.dat", bytes_of, mtime=f"2026-{1 + file % 11:02d}-17T04:05:06"))
    # About as many and as large as the run said that they are: to list each of them here would take too long.
    more, larger = max(1, files // tree.files), max(1, size // tree.size)
    return report.model_copy(
        update={
            "listed": True,
            "files": tree.files * more,
            "size": tree.size * larger,
            "oldest": tree.oldest,
            "newest": tree.newest,
            "directory_count": tree.directory_count,
            "directories": tuple(
                one.model_copy(update={"files": one.files * more, "size": one.size * larger})
                for one in tree.directories()
            ),
            "largest": tuple(one.model_copy(update={"size": one.size * larger}) for one in tree.largest()),
        }
    )


def _line(path: str, size: int = 0, *, kind: str = "-", mtime: str = "") -> bytes:
    return json.dumps({"type": kind, "path": path, "size": size, "mtime": mtime}).encode()
