"""A Git repository of the fleet of ``wire_fleet``: a client and a backup of each, written with ``git fast-import``."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Final

from tests.git_repository import GitRepository

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.benchmarks.wire_fleet import Member

_API: Final = "apiVersion: borgmatic.director/v1\n"
_SHARED: Final = {
    "schedule.yaml": _API + 'kind: Schedule\nmetadata: {name: nightly}\nspec: {cron: "30 2 * * *", jitter: 2h}\n',
    "repository.yaml": _API
    + """\
kind: Repository
metadata: {name: nas}
spec:
  url: ssh://borg@nas.example/./${client}
  encryption: {mode: repokey-blake2, passphraseFrom: {file: /etc/borg/passphrase}}
""",
}
_CLIENT: Final = _API + "kind: Client\nmetadata: {{name: {name}, labels: {{role: web}}}}\nspec: {{publicKey: {key}}}\n"
_BACKUP: Final = (
    _API
    + """\
kind: Backup
metadata: {{name: of-{name}}}
spec:
  clients: [{name}]
  repositories: [nas]
  schedule: nightly
  objectives: {{rpo: 26h}}
  borgmatic:
    source_directories: [/etc, /srv/{name}]
    exclude_patterns: ["*/.cache", /srv/{name}/tmp]
    compression: zstd,{level}
    keep_daily: 7
"""
)


class PushSource:
    """The repository that is pushed to, as a bare one."""

    def __init__(self, folder: Path, fleet: Sequence[Member]) -> None:
        self._git = GitRepository(folder, bare=True)
        self._level = 1
        self._commit([*_SHARED.items(), *(_client(one) for one in fleet), *self._backups(fleet)], parent="")
        self.push()

    def change(self, members: Sequence[Member]) -> None:
        """Write the backups of some clients otherwise, as one commit that nobody follows yet."""
        self._level = self._level % 19 + 1
        self._commit(self._backups(members), parent="from refs/heads/main^0\n")

    def push(self) -> None:
        """Move the branch there, as the end of a push does."""
        self._git.git("update-ref", "refs/heads/main", "refs/heads/next")

    def _backups(self, members: Iterable[Member]) -> Iterable[tuple[str, str]]:
        for one in members:
            yield f"backups/{one.name}.yaml", _BACKUP.format(name=one.name, level=self._level)

    def _commit(self, texts: Iterable[tuple[str, str]], *, parent: str) -> None:
        lines = [
            f"commit refs/heads/next\ncommitter A Person <person@example.org> 1790000000 +0000\ndata 2\nup\n{parent}"
        ]
        lines += [f"M 100644 inline {path}\ndata {len(text.encode())}\n{text}\n" for path, text in texts]
        command = ["git", "-C", str(self._git.directory), "fast-import", "--quiet"]
        subprocess.run(command, input="".join(lines).encode(), check=True, timeout=120)


def _client(one: Member) -> tuple[str, str]:
    return f"clients/{one.name}.yaml", _CLIENT.format(name=one.name, key=one.public_key)
