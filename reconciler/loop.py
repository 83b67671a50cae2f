"""The reconcile loop: how what Git says becomes what every client must have.

::

    fetch → verify → build (load, validate, expand, render) → weigh → publish

Level-triggered: a push, a timer, a file watch or a person only ask for a pass (``trigger``); a pass reads the source
anew. Each step takes what the former returned; the first that objects ends the pass, and ``_summarise`` says once, in
``finally``, how it ended. A revision is all or nothing: whatever is wrong, the published one stays.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Any

import structlog

from reconciler import garbage
from reconciler.core import changes, excerpts, issue
from reconciler.core.build import Build, BuildCache, build
from reconciler.core.changes import Changes
from reconciler.judging import Held, Past, judge_changes, judge_history, look_back
from reconciler.ledger import Ledger
from reconciler.outcome import EVENTS, Outcome, Result, first_error, revision_status, source_conditions
from reconciler.rhythm import LONGEST_RETRY_SECONDS, Rhythm
from schema.errors import DirectorError, InvalidSource, Severity, TerminalError, TransientError
from schema.resources import Client
from schema.status import Hold, SourceStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from reconciler.clock import Clock
    from reconciler.core.issue import Issued
    from reconciler.loop_ports import Gateway, Records, SourcePort
    from schema.envelope import DirectorIdentity

_log = structlog.get_logger(__name__)

_SHORTEST_REVISION = 7


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """What a person may choose about the loop. Times in seconds."""

    interval: float = 60.0
    validity: float = 90 * 86_400.0
    mass_change: float = 0.2
    hold_dangers: bool = False


@dataclass(slots=True)
class _Pass:
    """What one pass has found so far."""

    head: str = ""
    build: Build | None = None
    past: Past | None = None
    touched: list[str] = field(default_factory=list)
    """The clients about which something differs from what is published."""
    changes: Changes = field(default_factory=Changes)
    was_published: bool = False
    """Whether the head was the published revision before: what it changed is known."""
    result: Result = field(default_factory=lambda: Result("failed"))
    is_given_up: bool = False


class Reconciler:
    """Runs passes, one at a time, until ``stop``."""

    def __init__(
        self,
        *,
        source: SourcePort,
        records: Records,
        gateway: Gateway,
        identity: DirectorIdentity,
        borgmatic_schema: Mapping[str, Any],
        clock: Clock,
        settings: LoopSettings,
        remembered: SourceStatus,
        issued: Mapping[str, Issued],
        acknowledged: Iterable[str] = (),
        stored: tuple[frozenset[str], frozenset[tuple[str, str]]] = (frozenset(), frozenset()),
        on_pass: Callable[[Outcome, float], None] = lambda _outcome, _seconds: None,
        random: Random | None = None,
    ) -> None:
        """Take what the store remembers.

        ``stored`` are the names of its published clients, and client and backup of its published backups.
        ``on_pass`` is told how each pass ended, and its seconds. ``random`` is for jitter.
        """
        self._source = source
        self._records = records
        self._gateway = gateway
        self._schema = borgmatic_schema
        self._clock = clock
        self._settings = settings
        self._status = remembered
        self._ledger = Ledger(issued, identity=identity, audience=gateway.audience, validity=settings.validity)
        self._acknowledged = set(acknowledged)
        self._stored = stored
        self._cache = BuildCache()
        self._published: Build | None = None
        self._has_written = False
        """Whether the store's rows are those of ``_published``: a former life may have died before it said so."""
        self._approved: Mapping[str, str] | None = None
        self._judged: tuple[str, Result] | None = None
        self._judge_anew = False
        self._has_passed = False
        self._rhythm = Rhythm(self.reconcile, clock=clock, interval=settings.interval, random=random or Random())
        self._on_pass = on_pass
        self._said: tuple[str, str, str] | None = None

    # --- Asking for passes --------------------------------------------------------------------------------------------

    @property
    def status(self) -> SourceStatus:
        """How the source stood at the end of the last pass."""
        return self._status

    @property
    def ready(self) -> bool:
        """Whether a pass has ended since the start."""
        return self._has_passed

    def clients(self) -> list[Client]:
        """Return the clients of the published revision."""
        if self._published is None:
            return []
        return [located.resource for located in self._published.catalogue.all(Client).values()]

    def trigger(self) -> None:
        """Ask for a pass soon; asking twice is asking once."""
        self._rhythm.trigger()

    async def reconciled(self) -> Result:
        """Ask for a pass that begins after now, and return how it ended. A person asks, so nothing is taken as judged.

        Raises:
            TransientError: the director stopped before.
        """
        waiter = self._rhythm.next()
        self._judge_anew = True
        return await waiter

    def passed(self) -> asyncio.Future[Result]:
        """Return a future of how the next pass to end will have ended. Asks for none."""
        return self._rhythm.passed()

    async def acknowledge(self, revision: str, *, actor: str) -> Result:
        """Let a held revision through, and return how the pass for it ended."""
        hold = self._status.hold
        if hold is None or not hold.revision.startswith(revision) or len(revision) < _SHORTEST_REVISION:
            held = hold.revision[:12] if hold else "none"
            raise TerminalError(f"no held revision '{revision}'; held is: {held}", hint="see `director status`")
        self._acknowledged.add(hold.revision)
        await self._records.event(
            reason="Acknowledged",
            message=f"{hold.reason} of {hold.revision[:12]} was acknowledged",
            actor=actor,
            at=self._clock.now(),
        )
        return await self.reconciled()

    @property
    def acknowledged(self) -> frozenset[str]:
        """Revisions a person let through, for the store to keep."""
        return frozenset(self._acknowledged)

    def ahead(self, client: str, generation: int) -> None:
        """Take note that a client holds a newer generation than was issued, and issue a still newer one.

        So it is after the store was lost or restored. A generation from the far future is nobody's we issued.
        """
        if not self._ledger.ahead(client, generation, now=self._clock.now()):
            _log.warning("reconcile.generation-refused", client=client, generation=generation)
            return
        self.trigger()

    def suspend(self, *, suspended: bool) -> None:
        """Stop (or go on) publishing new revisions; what is published stays, and clients go on."""
        self._status = self._status.model_copy(update={"suspended": suspended})
        self.trigger()

    # --- One pass -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run passes for ever: when asked, and on a jittered timer."""
        await self._rhythm.run()

    def stop(self) -> None:
        """End ``run`` after the current pass."""
        self._rhythm.stop()

    async def reconcile(self) -> Result:
        """Run one pass. Never raises for what is wrong with the source, the network or the store."""
        this, begun = _Pass(), self._clock.monotonic()
        try:
            this.result = await self._steps(this)
        except Held as held:
            this.result = Result(
                "held",
                this.head,
                held.reason,
                held.message,
                hold=self._hold(this.head, held),
                hint=f"look at `director plan`, then `director acknowledge {this.head[:12]}` or change the source",
            )
        except InvalidSource as error:
            this.result = Result(
                "stalled", this.head, "InvalidSource", first_error(error.problems), problems=error.problems
            )
        except TransientError as error:
            this.result = Result("failed", this.head, "Failed", error.message, error.hint)
        except DirectorError as error:
            this.result = Result("stalled", this.head, "SourceUnusable", error.message, error.hint)
        except Exception as error:  # noqa: BLE001 - the loop outlives every fault, and says so
            # A fault of ours: nothing is published, everything goes on, and the log has the traceback.
            _log.exception("reconcile.fault")
            this.result = Result(
                "failed", this.head, "InternalError", f"{type(error).__name__}: see the director's log"
            )
        except asyncio.CancelledError:
            this.is_given_up = True
            raise
        finally:
            if not this.is_given_up:
                await self._summarise(this)
        self._on_pass(this.result.outcome, self._clock.monotonic() - begun)
        return this.result

    async def _steps(self, this: _Pass) -> Result:
        if self._status.suspended:
            # What is published goes on: it must not grow stale, and a client that is approved now gets it.
            await self._restore()
            return await self._renew(self._suspended())
        anew, self._judge_anew = self._judge_anew, False
        this.head = await self._source.fetch()
        if self._judged and self._judged[0] == this.head and not (anew and not self._judged[1].ok):
            # Judged before: only what time or approvals changed is left to do.
            return await self._renew(self._judged[1])
        with garbage.left_alone():
            return await self._build_and_publish(this)

    async def _build_and_publish(self, this: _Pass) -> Result:
        await self._restore()
        published = self._status.revision
        past = this.past = await asyncio.to_thread(look_back, self._source, head=this.head, published=published)
        if this.head not in self._acknowledged:
            judge_history(past, head=this.head, published=published)
        this.build = await asyncio.to_thread(self._build, this.head)
        this.build.require_ok()
        this.was_published = this.head == published
        await asyncio.to_thread(self._compare, this, this.build)
        if self._published is not None and this.head not in self._acknowledged:
            await asyncio.to_thread(
                judge_changes,
                self._published,
                this.build,
                past=past,
                head=this.head,
                names=this.touched,
                mass_change=self._settings.mass_change,
                hold_dangers=self._settings.hold_dangers,
            )
        if self.status.suspended:  # meanwhile
            return self._suspended()
        return await self._publish(this, this.build)

    def _suspended(self) -> Result:
        return Result(
            "suspended",
            self._status.revision,
            "Suspended",
            "reconciling is suspended: no new revision is published",
            "`director resume` goes on",
        )

    # --- The steps ----------------------------------------------------------------------------------------------------

    async def _restore(self) -> None:
        """After a start: build the published revision again, for it is what the next one is weighed against."""
        if self._published is not None or not self._status.revision:
            return
        try:
            built = await asyncio.to_thread(self._build, self._status.revision)
        except DirectorError as error:
            _log.warning("reconcile.published-revision-gone", revision=self._status.revision, problem=error.message)
            return
        self._published = built if built.ok else None

    def _build(self, revision: str) -> Build:
        files = self._source.files(revision)
        built = build(files.files, borgmatic_schema=self._schema, cache=self._cache)
        if not files.problems and not built.problems:
            return built
        contents = {file.path: file.data for file in files.files}
        return replace(built, problems=excerpts.add_excerpts((*files.problems, *built.problems), contents))

    def _compare(self, this: _Pass, built: Build) -> None:
        """Find what differs from what is published; it is the measure of all that follows."""
        before = self._published
        this.touched = list(built.contents) if before is None else changes.touched(before, built)
        if before is not None or not self._status.revision:  # else what was published is not known any more
            this.changes = changes.between(before, built, names=this.touched)

    def _hold(self, head: str, held: Held) -> Hold:
        before = self._status.hold
        known = before is not None and before.revision == head and before.reason == held.reason
        since = before.since if before is not None and known else self._clock.now()
        return Hold(revision=head, reason=held.reason, message=held.message, since=since)

    async def _publish(self, this: _Pass, built: Build) -> Result:
        head, before, now = this.head, self._published, self._clock.now()
        if self._approved is not built.keys:
            self._gateway.set_source_clients(built.keys)
            self._approved = built.keys
        # Those whom the revision changes come first: looking through all the others costs what all of them cost.
        issued = self._ledger.due(built, revision=head, now=now, names=this.touched)
        change = await asyncio.to_thread(
            issue.rows,
            before if self._has_written else None,
            built,
            names=this.touched,
            stored_clients=self._stored[0],
            stored_backups=self._stored[1],
        )
        await self._records.publish(
            clients=change.clients,
            backups=change.backups,
            issued=issued,
            removed_clients=change.removed_clients,
            removed_backups=change.removed_backups,
            definitions=change.definitions,
            removed_definitions=change.removed_definitions,
            at=now,
        )
        self._published, self._has_written = built, True
        self._ledger.enter(issued)
        await self._gateway.publish(issued)
        unchanged = head == self._status.revision
        self._status = self._status.model_copy(
            update={"revision": head, "published": self._status.published if unchanged else now}
        )
        issued += await self._issue_again(built, head)
        warnings = tuple(problem for problem in built.problems if problem.severity is Severity.WARNING)
        return Result(
            "unchanged" if unchanged and not issued else "published",
            head,
            "Published",
            f"revision {head[:12]} is published: {built.counts.jobs} backups on {len(built.contents)} clients",
            problems=warnings,
            changed=tuple(one.client for one in issued),
        )

    async def _renew(self, judged: Result) -> Result:
        if self._published is None or not self._status.revision:
            return judged
        issued = await self._issue_again(self._published, self._status.revision)
        changed = tuple(one.client for one in issued)
        return replace(judged, outcome="unchanged" if judged.ok else judged.outcome, changed=changed)

    async def _issue_again(self, built: Build, revision: str) -> list[Issued]:
        """Issue again to clients whose key was approved or replaced since, or whose desired state grows old."""
        now = self._clock.now()
        issued = self._ledger.due(built, revision=revision, now=now)
        if issued:
            await self._records.publish(
                clients=(), backups=(), issued=issued, removed_clients=(), removed_backups=(), at=now
            )
            self._ledger.enter(issued)
            await self._gateway.publish(issued)
        return issued

    # --- The one summary ----------------------------------------------------------------------------------------------

    async def _summarise(self, this: _Pass) -> None:
        result, now = this.result, self._clock.now()
        # The same said again is no news, nor is a start that finds everything as it was.
        saying = (this.head, "published" if result.ok else result.outcome, result.message)
        news = saying != self._said and result.outcome != "unchanged"
        self._said, self._has_passed = saying, True
        has_looked = result.outcome not in {"failed", "suspended"}
        if has_looked and this.head:
            self._judged = (this.head, result)
        self._status = self._status.model_copy(
            update={
                "head": this.head or self._status.head,
                "fetched": now if this.head else self._status.fetched,
                "passed": now,
                "expected": now + timedelta(seconds=max(1.1 * self._settings.interval, LONGEST_RETRY_SECONDS)),
                # A pass that could not look leaves what was found before: a held revision can still be acknowledged.
                "hold": result.hold if has_looked else self._status.hold,
                "problems": result.problems if has_looked else self._status.problems,
            }
        )
        conditions = source_conditions(result, now)
        self._status = self._status.model_copy(update={"conditions": tuple(conditions)})
        try:
            judged = result.outcome in {"published", "unchanged", "stalled", "held"}
            if this.past is not None and news and judged and not this.was_published:
                await self._records.record_revision(
                    revision_status(this.past.commit, result, this.changes, now=now), problems=result.problems
                )
            if news:
                _log.info(
                    "reconcile",
                    outcome=result.outcome,
                    revision=this.head[:12],
                    reason=result.reason,
                    message=result.message,
                )
                await self._records.event(
                    reason=EVENTS.get(result.outcome, "ReconcileFailed"),
                    message=result.message,
                    actor="director",
                    at=now,
                )
            await self._records.set_source(self._status)
            await self._records.set_conditions("source", conditions)
        except DirectorError as error:
            self._said = None  # not recorded is not said: the next pass tells it again
            _log.error("reconcile.cannot-record", problem=error.message, hint=error.hint)
        except Exception:  # noqa: BLE001 - the loop outlives every fault, and says so
            _log.exception("reconcile.fault")
