"""The fleet of a soak: one real director, and one process with hundreds of real agents."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

from tests.e2e.fleet import Fleet, until
from tests.soak import census
from tests.soak.measures import Moment, Sample

_HERE: Final = Path(__file__).parent
STAND_IN: Final = str(_HERE / "programs/borgmatic")
API: Final = "apiVersion: borgmatic.director/v1\n"
SCHEDULE: Final = API + (
    "kind: Schedule\nmetadata: {name: often}\nspec: {cron: '*/2 * * * *', jitter: 110s, catchUp: true}\n"
)
PROFILE: Final = API + (
    "kind: Profile\nmetadata: {{name: kept}}\nspec:\n  borgmatic:\n    keep_daily: 7\n    keep_weekly: {weeks}\n"
)
BACKUP: Final = API + (
    "kind: Backup\nmetadata: {{name: data-{client}}}\nspec:\n  clients: [{client}]\n  repositories: [nas]\n"
    "  schedule: often\n  profiles: [kept]\n  actions: [create]\n  objectives: {{rpo: 1h}}\n  borgmatic:\n"
    "    source_directories: [{folder}/{client}/source]\n    keep_monthly: {months}\n"
)


class SoakFleet(Fleet):
    """``begin``, then ``measure`` and ``change`` as often as wanted, then ``end``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, pages=True)
        self.names: list[str] = []
        self._counted = 0.0
        self.environment["PYTHONPATH"] = str(_HERE.parent.parent)
        (folder / "director.toml").write_text(
            f'state_directory = "{self.director_folder}"\nresync = "1m"\n'
            f'[source]\nurl = "{folder}/source.git"\ninterval = "5s"\n'
            f'[listen]\naddress = "127.0.0.1:{self.port}"\n'
            f'[web]\naddress = "127.0.0.1:{self.pages_port}"\n'
        )

    # --- Life ---------------------------------------------------------------------------------------------------------

    def begin(self, *, clients: int, real: int) -> None:
        """Start the director; enrol, approve and start the clients."""
        self.names = [f"c{number:04}" for number in range(clients)]
        for number, name in enumerate(self.names):
            source = self.folder / name / "source"
            source.mkdir(parents=True)
            (source / "file").write_text(f"what matters on {name} is {number}\n" * 50)
        programs = {name: "borgmatic" if number < real else STAND_IN for number, name in enumerate(self.names)}
        (self.folder / "machines.json").write_text(json.dumps(programs))
        words = (sys.executable, "-m", "tests.soak.director", str(self.folder / "director.census"), "run")
        self.start("director", *words)
        until("the director answers", self.director_answers)
        string = self.director("token", "create", "--uses", str(clients)).stdout.strip()
        enrolled = self.run(*self._clients("enrol"), text=string)
        self.keys = json.loads(enrolled.stdout)
        self._approve()
        self.start("clients", *self._clients("run"))

    def _clients(self, command: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "tests.soak.clients", str(self.folder), command)

    def _approve(self) -> None:
        self.approve_in_source(*self.names)
        self.source.write("schedule.yaml", SCHEDULE)
        self.source.write("profile.yaml", PROFILE.format(weeks=4))
        for name in self.names:
            self._write_backup(name, months=6)
        self.push("Back it up")

    def _write_backup(self, name: str, *, months: int) -> None:
        text = BACKUP.format(client=name, folder=self.folder, months=months)
        self.source.write(f"backups/{name}.yaml", text)

    def change(self, number: int, *, everything: bool) -> None:
        """Push a change of one client's backup, or of all."""
        if everything:
            self.source.write("profile.yaml", PROFILE.format(weeks=5 + number % 7))
        else:
            self._write_backup(self.names[number % len(self.names)], months=7 + number % 5)
        self.push(f"Change {number}")

    def all_follow(self) -> bool:
        """Whether every client has applied the newest revision."""
        return self.follows(*self.names)

    def end(self) -> list[str]:
        """Stop the clients, then the director; return what is not as it must be."""
        wrong = []
        if (code := self.stop("clients")) != 0:
            wrong.append(f"the clients ended with {code}")
        waiting = sum(self.outbox(name, "SELECT count(*) FROM reports")[0][0] for name in self.names)
        if waiting:
            wrong.append(f"{waiting} reports were not delivered")
        if (code := self.stop("director")) != 0:
            wrong.append(f"the director ended with {code}")
        outcomes = dict(self.store("SELECT coalesce(outcome, 'none'), count(*) FROM runs GROUP BY 1"))
        sys.stdout.write(f"runs by outcome: {outcomes}\n")
        if set(outcomes) - {"succeeded", "cancelled"}:
            wrong.append(f"runs ended otherwise than well: {outcomes}")
        if (found := self.store("PRAGMA integrity_check")) != [("ok",)]:
            wrong.append(f"the store is damaged: {found}")
        return wrong

    def complaints(self, name: str) -> list[str]:
        """Return what a process logged as a warning or worse, each kind once, with how often it came."""
        counted: Counter[str] = Counter()
        for text in self.log(name).splitlines():
            try:
                said = json.loads(text)
                if said.get("level") in {"warning", "error", "critical"}:
                    counted[f"{said['level']}: {said['event']} {said.get('reason', '')}".strip()] += 1
            except (ValueError, AttributeError):
                counted[text] += 1
        return [f"{count} × {text}" for text, count in counted.most_common()]

    # --- Measuring ----------------------------------------------------------------------------------------------------

    def measure(self, seconds: float) -> Moment:
        """Look at both processes now."""
        boxes = [self.folder / name / "var/outbox.sqlite" for name in self.names]
        return Moment(
            seconds=seconds,
            director=self._sample("director", [self.director_folder / "store.sqlite"]),
            clients=self._sample("clients", boxes),
        )

    def all_counted(self) -> bool:
        """Whether both processes have told their tasks since all clients follow: the first counts are of a start."""
        self._counted = self._counted or time.time()
        return all((self.folder / f"{name}.census").stat().st_mtime > self._counted for name in ("director", "clients"))

    def _sample(self, name: str, stores: list[Path]) -> Sample:
        process = self.processes[name]
        assert process.poll() is None, f"the process of the {name} has ended"
        proc = Path(f"/proc/{process.pid}")
        status = dict(text.split(":", 1) for text in (proc / "status").read_text().splitlines())
        return Sample(
            memory=int(status["VmRSS"].split()[0]) * 1024,
            handles=len(list((proc / "fd").iterdir())),
            threads=int(status["Threads"]),
            tasks=int(census.read(self.folder / f"{name}.census").get("tasks", 0)),
            store=sum(map(_size, stores)),
            wal=sum(_size(store.with_name(store.name + "-wal")) for store in stores),
        )


def _size(file: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return file.stat().st_size
    return 0
