"""A fleet that is killed: what may never be seen of it, not even right after a kill, and what must hold in the end.

``kill`` is ``kill -9`` of that one process: what it started goes on, as when the kernel needs memory. ``cut`` kills
what it started as well, as a power cut does. ``before`` (``stepped_fleet``) lets a process die by itself, right before
one of its steps.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Final

from schema.desired import DesiredState
from schema.envelope import decode_bytes
from tests.e2e.fleet import PASSPHRASE, until
from tests.e2e.stepped_fleet import SteppedFleet

SPEED: Final = 20
BACKUPS: Final = ("photos", "system")
EVERY_MINUTE: Final = "* * * * *"
ATTEMPTS: Final = 5


class KilledFleet(SteppedFleet):
    """A fleet with one client, ``atlas``, which is told something new by ``change``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, speed=SPEED)
        self.generation = 0
        self.changes = 0
        self.kills = 0
        self._signed: set[bytes] = set()

    def begin(self) -> None:
        """Enrol, approve, and back up each backup once."""
        self.start_director()
        self.add_machine("atlas", settings='stop_timeout = "10m"')
        self.enrol("atlas")
        self.approve_in_source("atlas")
        for backup in BACKUPS:
            self.write_backup(backup, "atlas", cron=EVERY_MINUTE)
        self.push("Back it up")
        until("atlas follows", lambda: self.follows("atlas"))
        until("both have run", lambda: {one["backup"] for one in self.runs() if one["outcome"]} >= set(BACKUPS))

    # --- Kills --------------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        super().kill(name)
        self.kills += 1

    def cut(self) -> None:
        """Kill what a client that is dead has left running."""
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (place / "cmdline").read_bytes()
                if b"borg" in words and f"{self.folder}/".encode() in words:
                    os.kill(int(place.name), signal.SIGKILL)

    # --- What people do -----------------------------------------------------------------------------------------------

    def change(self) -> None:
        """Push another retention of ``photos``."""
        self.note_signed()
        self.changes += 1
        self.write_backup("photos", "atlas", cron=EVERY_MINUTE, keep_daily=str(self.changes))
        self.push(f"Change {self.changes}")

    def is_published(self) -> bool:
        """Whether the director has signed the newest revision for atlas."""
        self.note_signed()
        return self.newest().revision == self.source.head()

    def newest(self) -> DesiredState:
        """Return the newest desired state that was signed for atlas."""
        ((envelope,),) = self.store("SELECT envelope FROM issued WHERE client = 'atlas'")
        return DesiredState.model_validate_json(decode_bytes(json.loads(envelope)["payload"], what="payload"))

    # --- What may never be seen ---------------------------------------------------------------------------------------

    def note_signed(self) -> None:
        """Remember the files that were signed: nothing else may ever stand in borgmatic's directory."""
        state = self.newest()
        self._signed |= {file.rendered(state.revision) for file in state.content.files if file.place == "config"}

    def check_now(self) -> None:
        """Look at what may never be seen, not even in the moment after a kill."""
        self.note_signed()
        for file, content in self.managed("atlas").items():
            assert content in self._signed, f"{file} is not as it was signed: {content.decode()}"
        (generation,) = self.store("SELECT generation FROM issued WHERE client = 'atlas'")[0]
        assert generation >= self.generation
        self.generation = generation
        for path in (self.director_folder / "store.sqlite", self.folder / "atlas/var/outbox.sqlite"):
            with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as sql:
                assert sql.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    # --- What must hold in the end ------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Both sides live: return when the director has all that the client ever said, and nothing is running."""
        revision = self.source.head()
        until("atlas follows the newest", lambda: self.follows("atlas", revision=revision), seconds=60)
        before = len(self.runs(outcome="succeeded"))
        until("runs succeed again", lambda: len(self.runs(outcome="succeeded")) >= before + 3, seconds=60)
        # A stop waits for the director's word for half a second only, by its fast clock.
        for _ in range(ATTEMPTS):
            assert self.stop("atlas") == 0
            if self.outbox("atlas", "SELECT count(*) FROM reports") == [(0,)]:
                break
            self.start_client("atlas")
            until("all is delivered", lambda: self.outbox("atlas", "SELECT count(*) FROM reports") == [(0,)])
        assert self.outbox("atlas", "SELECT count(*) FROM reports") == [(0,)]
        assert self.outbox("atlas", "SELECT * FROM state WHERE key LIKE 'running.%'") == []
        self.check_now()
        state = self.newest()
        wanted = {file.path: file.rendered(state.revision) for file in state.content.files if file.place == "config"}
        assert self.managed("atlas") == wanted

    def check_runs(self) -> Counter[str]:
        """Compare what the client wrote down with what the director has; return how often each outcome came."""
        rows = self.store("SELECT id, backup, trigger, due, outcome, statistics FROM runs WHERE client = 'atlas'")
        stored = {row[0]: row for row in rows}
        recorded = self.recorded("atlas")

        assert [run for run in recorded if run not in stored] == [], "a run was lost"
        assert [run for run, row in stored.items() if row[4] is None] == [], "a run has no end"
        wrong = {
            run: (said, stored[run][4]) for run, said in recorded.items() if said not in {"started", stored[run][4]}
        }
        assert wrong == {}, "a run has another outcome than the client said"
        # Begun, and no end of it on the disk: that is what lost means. A kill may have come between the transaction
        # with the end and the line in the record.
        unfinished = [stored[run][4] for run, said in recorded.items() if said == "started"]
        assert len(unfinished) - unfinished.count("lost") <= self.kills
        assert "cancelled" not in unfinished
        # Likewise for both backups, which may share the transaction with their starts.
        assert len(set(stored) - set(recorded)) <= len(BACKUPS) * self.kills
        dues = Counter((row[1], row[3]) for row in rows if row[2] != "person")
        assert [due for due, count in dues.items() if count > 1] == [], "a due time was run twice"
        for backup in BACKUPS:
            made = {one["archive"] for row in rows if row[1] == backup for one in json.loads(row[5] or "[]")}
            assert made <= set(self.archives("atlas", backup)), "an archive that was reported is not there"
        failed = self.store("SELECT backup, error FROM runs WHERE outcome NOT IN ('succeeded', 'lost', 'cancelled')")
        assert failed == [], "what a kill left behind made a later run fail"
        return Counter(row[4] for row in rows)

    def check_events(self) -> None:
        """Compare what else the client told: each once."""
        stored = Counter(
            dict(self.store("SELECT reason, count(*) FROM events WHERE actor = 'client:atlas' GROUP BY 1"))
        )
        recorded = self.recorded_events("atlas")
        assert recorded - stored == Counter(), "an event was lost"
        assert (stored - recorded).total() <= self.kills, "an event was doubled"

    def check_nothing_is_left(self) -> None:
        """Both stopped: no lock of Borg, no file that was never finished, and repositories without a fault."""
        self.stop("director")
        for place in (self.folder / "atlas", self.director_folder):
            found = (place.rglob(name) for name in ("*.new", "*.staged", ".*.*", ".borgmatic-director", "*.lock"))
            assert list(chain.from_iterable(found)) == [], "a file that was never finished was left"
        for backup in BACKUPS:
            repository = self.folder / "nas" / f"atlas-{backup}"
            assert list(repository.glob("lock.*")) == [], "a lock of Borg was left"
            also = {"BORG_PASSPHRASE": PASSPHRASE, "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
            self.run("borg", "check", "--lock-wait", "0", str(repository), also=also)
