"""Where a revision, and a line of a file in it, can be looked at: addresses at the forge that keeps the source. Pure.

Only for an ``https`` source at a forge whose addresses are known; for any other there is no link, and the page shows
the place as text. What is returned is fit for an ``href``: always ``https``, every part quoted, never a credential.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urlsplit

_FORGES: Final = {
    "github": ("/commit/{revision}", "/blob/{revision}/{path}", "#L{line}"),
    "gitlab": ("/-/commit/{revision}", "/-/blob/{revision}/{path}", "#L{line}"),
    "gitea": ("/commit/{revision}", "/src/commit/{revision}/{path}", "#L{line}"),
}
"""Kind → address of a commit, of a file at a commit, and of a line of it, below the repository's."""

_HOSTS: Final = {"codeberg.org": "gitea", "gitea.com": "gitea", "github.com": "github", "gitlab.com": "gitlab"}
_NAMED: Final = {"codeberg": "gitea", "forgejo": "gitea", "gitea": "gitea", "github": "github", "gitlab": "gitlab"}
"""A forge of one's own is mostly called by its kind: ``gitlab.example.org``."""

_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_REVISION: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)
_PLACE: Final = re.compile(r"(?P<path>.+?)(?::(?P<line>[0-9]{1,7}))?(?::[0-9]{1,7})?", re.ASCII | re.DOTALL)
_MAX_PATH: Final = 1_024


def at(source: str, revision: str, place: str = "") -> str:
    """Return the address of ``file:line:column`` (or less of it) at a revision; without a place, of the revision.

    Empty when the source is kept where no address is known for it.
    """
    found = _repository(source)
    if found is None or not _REVISION.fullmatch(revision) or len(place) > _MAX_PATH:
        return ""
    address, (of_commit, of_file, of_line) = found
    if not place:
        return address + of_commit.format(revision=revision)
    match = _PLACE.fullmatch(place)
    path, line = (match["path"], match["line"]) if match else (place, None)
    if path.startswith("/") or any(part in {"", ".", ".."} for part in path.split("/")):
        return ""
    file = of_file.format(revision=revision, path=quote(path, safe="/", errors="replace"))
    return address + file + (of_line.format(line=int(line)) if line else "")


def _repository(source: str) -> tuple[str, tuple[str, str, str]] | None:
    """Return the address of the repository's page, and how the forge's addresses go on."""
    try:
        parts = urlsplit(source)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        return None
    kind = _HOSTS.get(host) or _NAMED.get(host.partition(".")[0])
    names = parts.path.strip("/").removesuffix(".git").split("/")
    if parts.scheme != "https" or kind is None or not _HOST.fullmatch(host) or parts.query or parts.fragment:
        return None
    if len(names) < 2 or any(name in {"", ".", ".."} for name in names):
        return None
    path = "/".join(quote(name, safe="%", errors="replace") for name in names)
    return f"https://{host}{f':{port}' if port else ''}/{path}", _FORGES[kind]
