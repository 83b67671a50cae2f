"""What must be true, whatever happens. Sees what the machines did and what is on their disks, never how.

1. No client runs what no signed, allowed, newest state told it to.
2. Generations only rise.
3. After the last fault every client follows the newest valid revision (``simulation`` says within which time).
4. No run and no report is lost or doubled.
5. A due time is run once and on time; no two programs use one repository at once.
6. Nothing grows without bound.

What is *not* promised is written where it is left out: see ``Excuses``.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from client.scheduler import jitter
from client.trust import HighWater
from schema import cron
from schema.desired import MAX_DESIRED_BYTES, PAYLOAD_TYPE, DesiredState, Job
from schema.envelope import VerifyKey, open_envelope
from schema.tables import moment_text
from tests.simulator.borg import Execution

ON_TIME = timedelta(seconds=20)


class Violation(Exception):
    """Something that must be true is not."""


@dataclass(frozen=True, slots=True)
class Told:
    """One state that the director signed for a client."""

    generation: int
    payload: str
    state: DesiredState
    files: dict[str, bytes]

    def allows(self, execution: Execution) -> bool:
        """Whether a client that follows this runs that."""
        job = next((one for one in self.state.content.jobs if one.file == execution.file), None)
        if job is None or job.suspend or self.state.content.suspend:
            return False
        return self.files.get(execution.file) == execution.content and tuple(job.actions) == execution.actions


@dataclass(slots=True)
class Excuses:
    """When a promise could not be kept, which the design says: by client, intervals of the loop's time."""

    intervals: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    jumped: set[str] = field(default_factory=set)
    """Clients whose wall clock was wrong at some time: their due times are not judged."""
    cloned: set[str] = field(default_factory=set)
    """Clients that had a twin: what two send under one name is told apart from when the client sees it."""
    unlearnt: set[int] = field(default_factory=set)
    """Executions whose reports were acknowledged by a store that was replaced by an older one."""
    forgetful: set[str] = field(default_factory=set)
    """Clients that died while their disk was full: what was in memory only is lost, also that something was due."""

    def cover(self, client: str, begin: float, end: float) -> bool:
        """Whether something of that time may be missing."""
        return any(begin <= last and first <= end for first, last in self.intervals[client])


@dataclass(slots=True)
class Oracle:
    """Judges one world. ``names`` are clients; machines that are none of them may run nothing."""

    store: Path
    base: Path
    director: VerifyKey
    names: tuple[str, ...]
    excuses: Excuses = field(default_factory=Excuses)
    told: dict[str, dict[str, Told]] = field(default_factory=lambda: defaultdict(dict))
    """By client, and by the digest of the signed bytes."""
    _read_up_to: int = 0
    _judged_to: str = ""
    _newest: dict[str, int] = field(default_factory=dict)
    _applied: dict[str, int] = field(default_factory=dict)
    _marks: dict[str, int] = field(default_factory=dict)
    _executing: dict[str, Execution] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def object(self, sentence: str) -> None:
        """Note that something is wrong."""
        self.violations.append(sentence)

    # --- What the director said ---------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Read what was issued since."""
        rows = self._rows(
            "SELECT id, client, generation, envelope FROM ever_issued WHERE id > ? ORDER BY id", self._read_up_to
        )
        for number, client, generation, envelope in rows:
            self._read_up_to = number
            payload = open_envelope(
                bytes(envelope), payload_type=PAYLOAD_TYPE, key=self.director, limit=MAX_DESIRED_BYTES
            )
            digest = "sha256:" + hashlib.sha256(payload).hexdigest()
            if digest in self.told[client]:
                continue
            if generation <= self._newest.get(client, 0):
                self.object(f"{client} was issued generation {generation} after {self._newest[client]}")
            self._newest[client] = generation
            state = DesiredState.model_validate_json(payload)
            files = {file.path: file.rendered(state.revision) for file in state.content.files}
            self.told[client][digest] = Told(generation, digest, state, files)

    def forgot(self) -> None:
        """The store is an older one now: what it issued since is not in it, but was issued."""
        self._read_up_to = 0
        self._newest.clear()

    def forget(self, now: datetime) -> None:
        """Let go of what is of no use any more: states before the applied one, and runs that were judged."""
        self._judged_to = moment_text(now)
        for name, told in self.told.items():
            applied = self._applied.get(name, 0)
            self.told[name] = {digest: one for digest, one in told.items() if one.generation >= applied}
        self.excuses.intervals.clear()
        self.excuses.unlearnt.clear()

    # --- What a client does -------------------------------------------------------------------------------------------

    def began(self, execution: Execution, now: float) -> None:
        """Judge borgmatic that begins."""
        name = execution.machine
        self.learn()
        self.look_at(name)
        former = self._executing.get(name)
        if former is not None and former.ended is None:
            self.object(f"{name} runs {execution.file} while execution {former.number} of {former.file} goes on")
        self._executing[name] = execution
        if execution.content is None:
            return  # borgmatic says that there is no such file, and does nothing
        allowed = [one.generation for one in self.told[name].values() if one.allows(execution)]
        if name not in self.names or not allowed:
            self.object(
                f"{name} runs {execution.file} {execution.actions}, which no state that was issued to it says"
                f" (execution {execution.number})"
            )
        elif max(allowed) < self._applied.get(name, 0):
            self.object(
                f"{name} runs {execution.file} of generation {max(allowed)}, and has applied {self._applied[name]}"
            )

    def look_at(self, name: str) -> None:
        """Judge what is on a client's disk: how far it came never goes back."""
        folder = self.base / name / "var"
        with contextlib.suppress(FileNotFoundError, ValueError):
            mark = HighWater.model_validate_json((folder / "high-water").read_bytes())
            if mark.generation < self._marks.get(name, 0):
                self.object(f"{name}'s high-water mark fell from {self._marks[name]} to {mark.generation}")
            self._marks[name] = mark.generation
        with contextlib.suppress(FileNotFoundError):
            digest = (folder / "desired" / "applied").read_text().strip()
            told = self.told[name].get(digest)
            if told is None:
                self.learn()
                told = self.told[name].get(digest)
            if told is None:
                self.object(f"{name} applied {digest}, which was never issued to it")
                return
            if told.generation < self._applied.get(name, 0):
                self.object(f"{name} applied generation {told.generation} after {self._applied[name]}")
            self._applied[name] = told.generation

    # --- At the end ---------------------------------------------------------------------------------------------------

    def follows(self, name: str, digest: str) -> str:
        """Return why a client does not follow the content with that digest, on its disk; nothing when it does."""
        try:
            applied = (self.base / name / "var" / "desired" / "applied").read_text().strip()
        except FileNotFoundError:
            return f"{name} has applied nothing"
        self.learn()
        told = self.told[name].get(applied)
        if told is None or told.state.digest != digest:
            return f"{name} has applied revision {told.state.revision[:8] if told else '?'}"
        folder = self.base / name / "etc"
        found = {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}
        wanted = {path: content for path, content in told.files.items() if "/" not in path}
        return "" if found == wanted else f"{name} has other files than it applied: {sorted(found)}"

    def judge_state(self, expected: Mapping[str, str]) -> None:
        """Judge what the director believes its clients to follow, once all is delivered."""
        known = {row[0]: row[1:] for row in self._rows("SELECT client, digest, refused FROM observed")}
        for name, digest in expected.items():
            if name in self.excuses.cloned or self.excuses.intervals[name]:
                continue  # an older store believes what it knew, until the client has news
            if known.get(name) != (digest, 0):
                self.object(f"the director believes that {name} follows {known.get(name)}, and it follows {digest}")
        for client, backup, running, last, outcome, actual in self._rows(
            "SELECT backups.client, backups.backup, running, last_run, last_outcome, outcome FROM backups"
            " LEFT JOIN runs ON runs.id = last_run"
        ):
            if running:
                self.object(f"the director believes that {backup} on {client} runs as {running}")
            if actual is not None and outcome != actual:  # an old run may have been trimmed
                self.object(f"the director believes that {backup} on {client} {outcome}, and run {last} {actual}")

    def reported(self) -> set[int]:
        """Return the executions of whose end the director's store knows."""
        ended = "SELECT message FROM run_logs JOIN runs ON runs.id = run WHERE finished IS NOT NULL"
        return {int(message.split()[1]) for (message,) in self._rows(ended) if message.startswith("execution ")}

    def judge_reports(self, executions: Iterable[Execution]) -> None:
        """Judge what the director's store knows, once all is delivered."""
        found = self._rows("SELECT id, client, backup, outcome, finished FROM runs WHERE started >= ?", self._judged_to)
        runs = {row[0]: row[1:] for row in found}
        lines: dict[str, list[str]] = defaultdict(list)
        for run, message in self._rows("SELECT run, message FROM run_logs ORDER BY run, number"):
            lines[run].append(message)
        of_execution: dict[int, set[str]] = defaultdict(set)
        for run, messages in lines.items():
            for message in messages:
                if message.startswith("execution "):
                    of_execution[int(message.split()[1])].add(run)
        silent = Counter(
            (client, backup)
            for run, (client, backup, outcome, _) in runs.items()
            if outcome in {"lost", "cancelled"} and not any(line.startswith("execution ") for line in lines[run])
        )
        for execution in executions:
            if execution.machine in self.names and execution.content is not None:
                self._judge_execution(execution, of_execution[execution.number], runs, lines, silent)
        for run, (client, backup, outcome, finished) in runs.items():
            if finished is None and not self.excuses.intervals[client]:
                self.object(f"run {run} of {backup} on {client} has no end")
            if outcome == "succeeded" and not lines[run] and not self.excuses.intervals[client]:
                self.object(f"run {run} of {backup} on {client} succeeded without having run")
        self._judge_events()
        self._judge_due_times()

    def _judge_execution(
        self,
        execution: Execution,
        found: set[str],
        runs: dict[str, Any],
        lines: dict[str, list[str]],
        silent: Counter[tuple[str, str]],
    ) -> None:
        name, backup = execution.machine, execution.file.removesuffix(".yaml")
        what = f"execution {execution.number} of {backup} on {name}"
        if self.excuses.cover(name, execution.began, execution.ended or float("inf")):
            return
        if execution.number in self.excuses.unlearnt:
            return
        if len(found) > 1:
            self.object(f"{what} is in {len(found)} runs")
            return
        if not found:
            if not silent[name, backup]:
                self.object(f"{what} is in no run")
            silent[name, backup] -= 1
            return
        (run,) = found
        _, _, outcome, _ = runs[run]
        said = [line for line in lines[run] if line.startswith("execution ")]
        if said != execution.lines[: len(said)]:
            self.object(f"{what}: lines {said} instead of {execution.lines}")
        elif outcome in {"succeeded", "warned", "failed"} and len(said) != len(execution.lines):
            self.object(f"{what}: only {len(said)} of {len(execution.lines)} lines, and it {outcome}")
        expected = {0: {"succeeded", "warned"}, 1: {"failed"}}.get(execution.exit_code or 0, set())
        if outcome not in {*expected, "lost", "cancelled"}:
            self.object(f"{what} ended with {execution.exit_code}, and is reported as {outcome}")

    def _judge_events(self) -> None:
        said = Counter(self._rows("SELECT client, at, reason, message, detail FROM events WHERE actor LIKE 'client:%'"))
        for (client, at, reason, *_), count in said.items():
            if count > 1 and client not in self.excuses.cloned:
                self.object(f"the event {reason} of {client} at {at} is stored {count} times")

    def _judge_due_times(self) -> None:
        due = Counter(self._rows("SELECT client, backup, due FROM runs WHERE due IS NOT NULL"))
        for (client, backup, moment), count in due.items():
            if count > 1 and client not in self.excuses.jumped | self.excuses.forgetful | self.excuses.cloned:
                self.object(f"{backup} on {client} ran {count} times for {moment}")

    def judge_schedule(self, name: str, jobs: Iterable[Job], *, since: datetime, until: datetime) -> None:
        """Judge that each due time in a quiet time was met."""
        for job in jobs:
            if job.schedule is None or job.suspend or name in self.excuses.jumped:
                continue
            started = {
                datetime.fromisoformat(due): datetime.fromisoformat(at)
                for due, at in self._rows(
                    "SELECT due, started FROM runs WHERE client = ? AND backup = ? AND due IS NOT NULL",
                    name,
                    job.backup,
                )
            }
            offset = jitter(name, job)
            due = cron.next_due(job.schedule.cron, time_zone=job.schedule.time_zone, after=since)
            while due + offset + ON_TIME < until:
                if due not in started:
                    self.object(f"{job.backup} on {name} was due at {due:%H:%M:%S} and did not run")
                elif not timedelta(0) <= started[due] - due - offset <= ON_TIME:
                    self.object(f"{job.backup} on {name} was due at {due:%H:%M:%S} and ran at {started[due]:%H:%M:%S}")
                due = cron.next_due(job.schedule.cron, time_zone=job.schedule.time_zone, after=due)

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.store)) as sql:
            return sql.execute(query, parameters).fetchall()
