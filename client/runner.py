"""One run of one job: borgmatic as a program, its output as reports, and an end that is always clean.

Called by ``agent``. A run takes its turn at each repository (in this process by a lock, between processes by a file
lock), makes declared repositories on first use (``readiness``), starts borgmatic once for all repositories, and tells
what came of it (``telling``).

borgmatic runs as ``borgmatic --config FILE --log-json --verbosity 1 ACTIONS``, ``create`` with ``--json --progress``
unless the configuration says ``list_details``, which contradicts them. Without ``--json``, and when it fails, borgmatic
prints no statistics, and each repository is asked for its newest archive instead.

Each backup has a runtime directory of its own. borgmatic 2.1 cleans up in every ``borgmatic-*`` folder beside its own,
so that two that run at once would take each other's database dumps and manifests away. The place is stable, because
Borg before 1.4 stores it in the archive, and `borgmatic restore` has to be told (``user_runtime_directory``).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from client import borgmatic, borgmatic_output, readiness, ssh
from client.borgmatic_output import Lines, Reader, Scrubber, Seen
from client.known_repositories import KnownRepositories, KnownRepository
from client.readiness import Failure
from client.telling import Telling
from schema.desired import runtime_directory
from schema.errors import DirectorError
from schema.observed import MAX_TEXT, Outcome, RepositoryStatistics, RunFinished, RunStarted, Trigger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from client.borgmatic import Start
    from client.clock import Clock
    from client.telling import Emit, ShowProgress
    from client.turns import Turns
    from schema.desired import DesiredRepository, Job

_QUERY_SECONDS = 120.0
_CREATE_SECONDS = 600.0
_LIST_DETAILS = re.compile(rb"^[ -]*list_details:[ ]*true", re.MULTILINE)
_CLOCK_SLACK = timedelta(seconds=2)


class _Changed(Exception):
    """The job is another one since."""

    def __init__(self, job: Job) -> None:
        super().__init__(job.backup)
        self.job = job


@dataclass(slots=True)
class _Run:
    """What is known of a run while it goes on."""

    job: Job
    newest: Callable[[], Job | None]
    telling: Telling
    began: datetime
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[object] | None = None
    """While it waits for its turn: the task that a cancellation has to wake."""
    deadline: float | None = None
    locks: tuple[int, ...] = ()
    """The locks of its turn, for borgmatic to inherit."""
    warned: bool = False
    warning: str = ""
    exit_code: int | None = None
    stopped: Outcome | None = None
    failures: dict[str, Failure] = field(default_factory=dict)
    """By repository; the empty name is the run itself."""
    statistics: dict[str, RepositoryStatistics] = field(default_factory=dict)


class Runner:
    """Runs jobs. One instance for the process."""

    def __init__(
        self,
        *,
        program: str,
        config_directory: Path,
        state_directory: Path,
        clock: Clock,
        turns: Turns,
        environment: Mapping[str, str] = os.environ,
        pass_on: tuple[str, ...] = (),
        grace: float = borgmatic.GRACE_SECONDS,
        start: Start = borgmatic.start,
    ) -> None:
        """``pass_on`` are the environment variables that local policy allows; ``grace`` is the time to end politely."""
        self._program = borgmatic.find(program)
        self._config = config_directory
        self._state = state_directory
        self._clock = clock
        self._environment = borgmatic.environment(environment, also=pass_on)
        self._grace = grace
        self._start = start
        self._turns = turns
        self._known = KnownRepositories(state_directory)
        self._runs: dict[str, _Run] = {}

    async def run(
        self,
        job: Job,
        *,
        run_id: str,
        trigger: Trigger,
        due: datetime | None,
        revision: str,
        emit: Emit,
        progress: ShowProgress,
        newest: Callable[[], Job | None],
    ) -> RunFinished:
        """Run ``job`` to its end; ``RunStarted``, ``RunLog`` and ``RunFinished`` go to ``emit``.

        Never raises for what borgmatic does. When the task itself is cancelled, the run ends as cancelled, its end is
        emitted, and ``CancelledError`` goes on.
        """
        scrub = Scrubber(borgmatic.opened_secrets(self._state))
        telling = Telling(run_id, job.backup, emit=emit, progress=progress, scrub=scrub, clock=self._clock)
        run = self._runs[run_id] = _Run(job, newest, telling, self._clock.now())
        started = RunStarted(
            at=run.began, run=run_id, backup=job.backup, trigger=trigger, due=due, revision=revision[:1024]
        )
        interrupted: asyncio.CancelledError | None = None
        flusher = asyncio.create_task(telling.flush_for_ever())
        try:
            await emit(started)
            await self._work_in_turn(run)
        except asyncio.CancelledError as error:
            run.stopped = Outcome.CANCELLED
            if not self._was_ours(run):
                interrupted = error
        except DirectorError as error:
            run.failures[""] = Failure(error.message, error.hint)
        finally:
            flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await flusher
            del self._runs[run_id]
        await telling.flush()
        finished = self._finished(run)
        await emit(finished)
        if interrupted is not None:
            raise interrupted
        return finished

    def cancel(self, run_id: str) -> bool:
        """End a run: its outcome will be ``cancelled``. Returns whether it was running."""
        run = self._runs.get(run_id)
        if run is None:
            return False
        first = not run.cancelled.is_set()
        run.cancelled.set()
        if first and run.task is not None:
            run.task.cancel()
        return True

    def _was_ours(self, run: _Run) -> bool:
        """Whether the task was woken by ``cancel`` alone, and not by whoever owns it."""
        return run.task is not None and run.cancelled.is_set() and run.task.uncancel() == 0

    async def _work_in_turn(self, run: _Run) -> None:
        """Work, on what the job is when its turn has come. One with other repositories has to wait for those."""
        while run.stopped is None:
            async with self._turn(run):
                try:
                    await self._work(run)
                except _Changed as changed:
                    run.job = changed.job
                    run.failures.clear()
                else:
                    return

    @asynccontextmanager
    async def _turn(self, run: _Run) -> AsyncIterator[None]:
        """Hold every repository of the job; the time that the run may take begins then."""
        urls = {repository.url for repository in run.job.repositories}

        def wait(what: str) -> None:
            run.telling.show(Seen(phase=f"waiting for {what}"))

        run.task = asyncio.current_task()
        async with self._turns.hold(urls, waiting=wait) as run.locks:
            run.task = None
            run.began = self._clock.now()
            timeout = run.job.timeout
            run.deadline = None if timeout is None else self._clock.monotonic() + timeout
            yield

    # --- The work -----------------------------------------------------------------------------------------------------

    async def _work(self, run: _Run) -> None:
        for repository in run.job.repositories:
            failure = await self._prepare(run, repository)
            if failure is not None:
                run.failures[repository.name] = failure
        available = [one.name for one in run.job.repositories if one.name not in run.failures]
        everywhere: list[str | None] = [None]
        for target in everywhere if not run.failures else available:
            await self._borgmatic(run, target)
        if "create" in run.job.actions and run.stopped is None:
            await self._ask_for_statistics(run)
        self._remember(run)

    def _remember(self, run: _Run) -> None:
        """Note where this run made an archive: such a repository is not made anew when it is gone."""
        for repository in run.job.repositories:
            if repository.name in run.statistics:
                try:
                    self._known.note(KnownRepository(url=repository.url, name=repository.name, since=run.began))
                except DirectorError as error:
                    run.telling.note("warning", f"cannot remember repository '{repository.name}': {error.message}")

    async def _prepare(self, run: _Run, repository: DesiredRepository) -> Failure | None:
        """Return why ``repository`` cannot be used; make it where it is to be made."""
        seen = await readiness.look_at(repository)
        return await self._create(run, repository) if seen.absent else seen.failure

    async def _create(self, run: _Run, repository: DesiredRepository) -> Failure | None:
        """Make a repository on its first use. Borg itself refuses to touch one that exists."""
        known = self._known.find(repository.url)
        if known is not None:
            return readiness.gone(repository, known)
        run.telling.note("info", f"creating repository '{repository.name}' at {repository.url}")
        reader = run.telling.reader(quiet=True)
        arguments = self._arguments(run, "repo-create", "--repository", repository.name)
        code = await self._follow(run, arguments, reader, limit=_CREATE_SECONDS)
        if code == 0 or run.stopped is not None:
            return None
        error, hint = await self._reason(run, reader, code, target=repository.name)
        return Failure(f"cannot create repository '{repository.name}': {error}", hint)

    async def _borgmatic(self, run: _Run, target: str | None) -> None:
        """Run the actions, for all repositories or for one."""
        self._check_newest(run)
        if run.stopped is not None:
            return
        reader = run.telling.reader()
        code = await self._follow(run, self._arguments(run, *self._actions(run.job, target)), reader)
        run.warned = run.warned or reader.warned
        run.warning = run.warning or reader.warning
        run.exit_code = code
        names = {repository.url: repository.name for repository in run.job.repositories}
        run.statistics |= borgmatic_output.statistics(reader.statistics, names=names)
        if code == 0 or run.stopped is not None:
            return
        await self._after_failure(run, target, reader, code)

    def _check_newest(self, run: _Run) -> None:
        """Never mix two states: the file on disk is the newest one's, so the actions have to be, too.

        Raises:
            _Changed: the job is another one by now, and nothing was run yet.
        """
        job = run.newest()
        if job is None:
            run.telling.note("warning", "the backup is suspended or gone since, and does not run")
            run.stopped = Outcome.CANCELLED
        elif job != run.job and run.exit_code is None:
            raise _Changed(job)
        elif job != run.job:
            run.stopped = Outcome.FAILED
            run.failures[""] = Failure("the backup was changed while it ran", "its next run is the changed one")

    async def _after_failure(self, run: _Run, target: str | None, reader: Reader, code: int) -> None:
        """Make remote repositories that Borg missed and that are declared to be made; then run those once more."""
        missed = [
            repository
            for repository in run.job.repositories
            if repository.create and repository.url in reader.missing and not repository.url.startswith("/")
        ]
        reasons = set(reader.reasons)
        if target is None and missed:
            for repository in missed:
                failure = await self._create(run, repository)
                if failure is not None:
                    run.failures[repository.name] = failure
                else:
                    await self._borgmatic(run, repository.name)
            reasons = {reason for reason in reasons if not any(repository.url in reason for repository in missed)}
        if target is not None or not missed or reasons:
            error, hint = await self._reason(run, reader, code, target=target)
            run.failures.setdefault(target or "", Failure(error, hint))

    async def _reason(self, run: _Run, reader: Reader, code: int, *, target: str | None) -> tuple[str, str]:
        """Return why borgmatic failed, and what to do about it."""
        await ssh.explain(reader, run.job, config=self._config, environment=self._environment, only=target)
        return reader.reason(code)

    def _actions(self, job: Job, target: str | None) -> list[str]:
        flags = [] if self._lists_files(job) else ["--json", "--progress"]
        words: list[str] = []
        for action in job.actions:
            words += [action, *flags] if action == "create" else [action]
        return words if target is None else [*words, "--repository", target]

    def _lists_files(self, job: Job) -> bool:
        """Whether the configuration wants a line for each file."""
        with contextlib.suppress(OSError):
            return _LIST_DETAILS.search((self._config / job.file).read_bytes()) is not None
        return False

    def _arguments(self, run: _Run, *words: str) -> list[str]:
        file = str(self._config / run.job.file)
        return [self._program, "--config", file, "--log-json", "--verbosity", "1", *words]

    def _runtime(self, job: Job) -> Path:
        return Path(runtime_directory(str(self._state), job.backup))

    async def _follow(self, run: _Run, arguments: list[str], reader: Reader, *, limit: float | None = None) -> int:
        """Run a program until it ends, the run is cancelled, or its time is over; return the exit code."""
        if run.cancelled.is_set():
            self._stop(run, seconds=None)
            return -signal.SIGTERM
        lines = Lines(), Lines()

        def read(into: Lines, understand: Callable[[bytes], None]) -> Callable[[bytes], None]:
            def chunk(data: bytes) -> None:
                for line in into.feed(data):
                    understand(line)

            return chunk

        group, output = await self._start(
            arguments,
            environment={**self._environment, "RUNTIME_DIRECTORY": str(self._runtime(run.job))},
            stdout=read(lines[0], reader.stdout),
            stderr=read(lines[1], reader.stderr),
            inherited=run.locks,
        )
        waits: dict[str, asyncio.Task[object]] = {
            "ended": asyncio.create_task(group.wait()),
            "cancelled": asyncio.create_task(run.cancelled.wait()),
        }
        seconds = self._seconds_left(run, limit)
        if seconds is not None:
            waits["timeout"] = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait(waits.values(), return_when=asyncio.FIRST_COMPLETED)
            if not waits["ended"].done():
                self._stop(run, seconds=None if run.cancelled.is_set() else seconds)
                await group.end(grace=self._grace)
        except asyncio.CancelledError:
            run.stopped = Outcome.CANCELLED
            await group.end(grace=self._grace)
            raise
        finally:
            for task in waits.values():
                task.cancel()
            await borgmatic.drain(output)
            output.cancel()
            reader.stdout(lines[0].rest())
            reader.stderr(lines[1].rest())
        return await group.wait()

    def _seconds_left(self, run: _Run, limit: float | None) -> float | None:
        left = None if run.deadline is None else max(0.0, run.deadline - self._clock.monotonic())
        return min((one for one in (left, limit) if one is not None), default=None)

    def _stop(self, run: _Run, *, seconds: float | None) -> None:
        if seconds is None:
            run.stopped = Outcome.CANCELLED
            run.telling.note("warning", "the run was cancelled")
            return
        run.stopped = Outcome.FAILED
        timeout = run.job.timeout if run.job.timeout is not None else int(seconds)
        run.failures[""] = Failure(
            f"timeout: the run took longer than {timeout} seconds and was ended",
            "raise `timeout` of the Backup, or find out in the log what took so long",
        )

    async def _ask_for_statistics(self, run: _Run) -> None:
        """Where borgmatic printed none, look whether the repository has an archive of this run all the same."""
        for repository in run.job.repositories:
            if repository.name in run.statistics or repository.name in run.failures:
                continue
            words = ["info", "--json", "--archive", "latest", "--repository", repository.name]
            ended = await borgmatic.call(
                [self._program, "--config", str(self._config / run.job.file), "--log-json", *words],
                environment={**self._environment, "TZ": "UTC"},
                timeout=self._seconds_left(run, _QUERY_SECONDS) or 0.0,
                grace=self._grace,
                inherited=run.locks,
                start=self._start,
            )
            for value in borgmatic_output.json_list(ended.stdout):
                archives = value.get("archives")
                start = archives[-1].get("start") if isinstance(archives, list) and archives else None
                moment = borgmatic_output.utc(start)
                if moment is not None and moment >= run.began - _CLOCK_SLACK:
                    names = {repository.url: repository.name}
                    run.statistics |= borgmatic_output.statistics([value], names=names)

    def _finished(self, run: _Run) -> RunFinished:
        failures = list(run.failures.values())
        error = failures[0].error if failures else run.warning
        if len(failures) > 1:
            error += f" (and {len(failures) - 1} more)"
        return RunFinished(
            at=self._clock.now(),
            run=run.telling.run,
            backup=run.job.backup,
            outcome=_outcome(run),
            exit_code=run.exit_code,
            error=run.telling.scrub(error)[:MAX_TEXT],
            hint=failures[0].hint if failures else "",
            statistics=tuple(run.statistics[one.name] for one in run.job.repositories if one.name in run.statistics)[
                :100
            ],
            log_lines=run.telling.lines,
        )


def _outcome(run: _Run) -> Outcome:
    if run.stopped is not None:
        return run.stopped
    if run.failures:
        return Outcome.FAILED
    return Outcome.WARNED if run.warned else Outcome.SUCCEEDED
