"""What people write into Git: a small fleet that changes, now and then by mistake."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from random import Random

API = "apiVersion: borgmatic.director/v1"
ACKNOWLEDGED = "\n\nDirector-Acknowledge: all"
_EVERY = ("*/2 * * * *", "*/3 * * * *", "1-59/2 * * * *", "*/5 * * * *")


@dataclass(slots=True)
class WrittenBackup:
    """One backup, as it stands in Git."""

    clients: list[str]
    cron: str
    keep: int = 7
    source: int = 0
    prunes: bool = True
    suspended: bool = False
    catches_up: bool = True
    jitter: int = 0


@dataclass(slots=True)
class People:
    """Who pushes. ``files`` is what the branch holds after the last push that was meant to be valid."""

    random: Random
    base: str
    keys: dict[str, str]
    nightly: bool = False
    suspended: set[str] = field(default_factory=set)
    backups: dict[str, WrittenBackup] = field(default_factory=dict)

    def begin(self) -> None:
        """Write the first revision."""
        for number in range(self.random.randint(1, 2)):
            self.backups[f"backup-{number}"] = self._new(list(self.keys))

    def _new(self, clients: list[str]) -> WrittenBackup:
        cron = f"{self.random.randint(0, 59)} {self.random.randint(0, 5)} * * *"
        return WrittenBackup(
            clients=clients,
            cron=cron if self.nightly else self.random.choice(_EVERY),
            prunes=self.random.random() < 0.6,
            catches_up=self.random.random() < 0.8,
            jitter=self.random.choice((0, 0, 20, 60)),
        )

    def change(self) -> str:
        """Change something, and return what."""
        name = self.random.choice(sorted(self.backups))
        backup = self.backups[name]
        match self.random.randint(0, 8):
            case 0:
                backup.cron = self._new([]).cron
                return f"{name} runs at {backup.cron}"
            case 1 | 2:
                backup.source += 1
                return f"{name} backs up source {backup.source}"
            case 3:
                backup.keep = self.random.randint(3, 30)
                return f"{name} keeps {backup.keep}"
            case 4:
                backup.suspended = not backup.suspended
                return f"{name} suspended: {backup.suspended}"
            case 5:
                backup.prunes = not backup.prunes
                return f"{name} prunes: {backup.prunes}"
            case 6 if len(self.backups) < 4:
                fresh = f"backup-{len(self.backups)}"
                self.backups[fresh] = self._new(self.random.sample(sorted(self.keys), 1))
                return f"{fresh} is new"
            case 7:
                client = self.random.choice(sorted(self.keys))
                self.suspended ^= {client}
                return f"{client} suspended: {client in self.suspended}"
            case _:
                chosen = self.random.sample(sorted(self.keys), self.random.randint(1, len(self.keys)))
                backup.clients = sorted(chosen)
                return f"{name} is on {', '.join(backup.clients)}"

    def break_it(self, files: dict[str, str]) -> str:
        """Make a mistake in ``files``, and return which."""
        match self.random.randint(0, 3):
            case 0:
                files["backups.yaml"] += "\n---\nkind: [\n"
                return "no YAML"
            case 1:
                files["backups.yaml"] += (
                    f"\n---\n{API}\nkind: Backup\nmetadata: {{name: oops}}\nspec: {{clients: [nobody]}}\n"
                )
                return "a client that nobody knows"
            case 2:
                del files["repositories.yaml"]
                return "no repository"
            case _:
                files["backups.yaml"] = files["backups.yaml"].replace("keep_daily", "keep_dayly", 1)
                return "no such option"

    def files(self) -> dict[str, str]:
        """Return the files of the branch."""
        return {
            "clients.yaml": "---\n".join(self._client(name) for name in sorted(self.keys)),
            "repositories.yaml": (
                f"{API}\nkind: Repository\nmetadata: {{name: nas}}\n"
                f'spec: {{url: "{self.base}/repositories/${{client}}", encryption: {{mode: none}}}}\n'
            ),
            "backups.yaml": "---\n".join(self._backup(name, one) for name, one in sorted(self.backups.items())),
        }

    def _client(self, name: str) -> str:
        directories = {"config": f"{self.base}/{name}/etc", "state": f"{self.base}/{name}/var"}
        spec = {"publicKey": self.keys[name], "directories": directories, "suspend": name in self.suspended}
        return f"{API}\nkind: Client\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"

    def _backup(self, name: str, backup: WrittenBackup) -> str:
        schedule = f"schedule-{name}"
        timing = {"cron": backup.cron, "jitter": f"{backup.jitter}s", "catchUp": backup.catches_up, "timeZone": "UTC"}
        spec = {
            "clients": backup.clients,
            "repositories": ["nas"],
            "schedule": schedule,
            "suspend": backup.suspended,
            "actions": ["create", "prune"] if backup.prunes else ["create"],
            "borgmatic": {"source_directories": [f"/srv/{backup.source}"], "keep_daily": backup.keep},
        }
        return (
            f"{API}\nkind: Schedule\nmetadata: {{name: {schedule}}}\nspec: {json.dumps(timing)}\n---\n"
            f"{API}\nkind: Backup\nmetadata: {{name: {name}}}\nspec: {json.dumps(spec)}\n"
        )
