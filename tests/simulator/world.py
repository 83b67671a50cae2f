"""One seed: a small fleet, what happens to it, and the time it takes."""

from __future__ import annotations

import asyncio
import shutil
from contextvars import copy_context
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from client.state import Enrolment, StateDirectory
from reconciler import borgmatic_schema
from reconciler.core.build import BuildCache, build
from schema.envelope import ClientIdentity, DirectorIdentity
from tests.simulator import durable
from tests.simulator.borg import Borg, Execution
from tests.simulator.history import History
from tests.simulator.machines import DIRECTOR, ClientMachine, DirectorMachine, Fleet, Service
from tests.simulator.network import FAIR, Network
from tests.simulator.oracle import Oracle
from tests.simulator.people import ACKNOWLEDGED, People
from tests.simulator.process import Process
from tests.simulator.timeline import Timeline
from tests.simulator.virtual_loop import VirtualLoop

POWER_CUT = "power cut"
TWIN = "twin"
MEMORY_SECONDS = 60.0
"""Within this time after a disk has room again, nothing waits in memory any more."""


class World:
    """Everything of one seed."""

    def __init__(
        self, seed: int, *, base: Path, loop: VirtualLoop, clients: int = 0, nightly: bool = False, keep_days: int = 400
    ) -> None:
        """``clients`` is how many there are, 0 for as many as the seed says; ``nightly`` backs up once a day."""
        self.seed = seed
        self.base = base
        self.loop = loop
        loop.began = loop.time()
        self.descriptors = durable.open_descriptors()
        self.timeline = Timeline(loop, base=str(base))
        self.network = loop.wire = Network(loop, self.dice("network"))
        self.history = History(self.dice("git"), base=str(base))
        self._context = copy_context()
        self.executions: list[Execution] = []
        self._number = 0
        self._expected: tuple[str, dict[str, str]] = ("", {})
        self.tasks: list[asyncio.Task[None]] = []
        self.cloned: tuple[str, float] | None = None
        self.is_mistaken = False
        self._full: dict[str, tuple[float, float]] = {}
        self.store = base / "director" / "store.sqlite"
        self.names = [f"web-{number}" for number in range(1, (clients or self.dice("size").choice((2, 2, 3, 4))) + 1)]
        self.identity = _director_identity(self.dice("director key"))
        self.oracle = Oracle(store=self.store, base=base, director=self.identity.public, names=tuple(self.names))
        identities = {name: _client_identity(self.dice(f"key of {name}")) for name in self.names}
        self.people = People(
            random=self.dice("people"),
            base=str(base),
            keys={name: one.public.text for name, one in identities.items()},
            nightly=nightly,
        )
        self.fleet = Fleet(self._director(keep_days))
        for name, identity in identities.items():
            self.fleet.clients[name] = self._client(name, identity)

    def dice(self, name: str) -> Random:
        """Return the dice of one part: what one part draws changes nothing for the others."""
        return Random(f"{self.seed}/{name}")

    # --- Making machines ----------------------------------------------------------------------------------------------

    def _director(self, keep_days: int) -> DirectorMachine:
        folder = self.base / "director"
        folder.mkdir(mode=0o700)
        shutil.copyfile(durable.empty_store(), folder / "store.sqlite")
        key = folder / "identity"
        key.write_text(self.identity.to_text())
        key.chmod(0o600)
        return DirectorMachine(
            history=self.history,
            schema=_schema(),
            keep_days=keep_days,
            folder=folder,
            random=self.dice("director"),
            tell=self.timeline.tell,
            on_death=self.died,
        )

    def _client(self, name: str, identity: ClientIdentity) -> ClientMachine:
        folder = self.base / name
        for path in (folder, folder / "var", folder / "etc", self.base / "repositories" / name):
            path.mkdir(mode=0o700, parents=True)
        (self.base / "repositories" / name / "config").touch()
        directory = StateDirectory(folder / "var")
        directory.prepare()
        key = folder / "var" / "identity"
        key.write_text(identity.to_text())
        key.chmod(0o600)
        directory.save_enrolment(Enrolment(url=f"unix://{DIRECTOR}", director=self.identity.public.text))
        return self._machine(name)

    def _machine(self, name: str, *, as_name: str | None = None) -> ClientMachine:
        machine: ClientMachine
        borg = Borg(
            name=name,
            process=self._machine_process(name),
            random=self.dice(f"borg of {name}"),
            now=lambda: machine.clock.now(),  # noqa: PLW0108 - it is made below
            executed=self.executed,
            number=self._next_number,
        )
        machine = ClientMachine(
            name,
            as_name=as_name,
            borg=borg,
            folder=self.base / name,
            random=self.dice(name),
            tell=self.timeline.tell,
            on_death=self.died,
        )
        return machine

    def _machine_process(self, name: str) -> Process:
        """Return a process for what runs on a machine besides the client."""
        return self._context.run(
            lambda: Process(
                f"{name}'s borg", random=self.dice(f"machine {name}"), folder=self.base / "none", on_death=self.died
            )
        )

    def begin(self) -> None:
        """Push the first revision, and start everything."""
        self.people.begin()
        self.push()
        for service in self.fleet.services():
            self.tasks.append(asyncio.create_task(service.supervise()))

    # --- What happens -------------------------------------------------------------------------------------------------

    def tell(self, who: str, what: str) -> None:
        """Note what happened."""
        self.timeline.tell(who, what)

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def executed(self, execution: Execution) -> None:
        """Note that borgmatic began, and let the oracle judge it."""
        self.executions.append(execution)
        self.tell(execution.machine, f"executes {execution.file} {' '.join(execution.actions)} ({execution.number})")
        self.oracle.began(execution, self.loop.time())

    def died(self, process: Process, how: str) -> None:
        """A process is dead."""
        self.tell(process.name, f"dies: {how}")
        self.network.died(process, silently=how == POWER_CUT)
        self.loop.call_soon(process.bury, context=self._context)
        begin, end = self._full.get(process.name, (0.0, float("-inf")))
        if process.name in self.fleet.clients and self.loop.time() < end + MEMORY_SECONDS:
            self.oracle.excuses.intervals[process.name].append((begin, self.loop.time()))
            self.oracle.excuses.forgetful.add(process.name)

    def cut_power(self, service: Service) -> None:
        """End everything on a machine. Nobody is told."""
        if isinstance(service, ClientMachine):
            service.borg.process.kill(POWER_CUT)
            service.borg.process = self._machine_process(service.name)
        if service.process is not None:
            service.process.kill(POWER_CUT)

    def stop(self, service: Service) -> None:
        """Stop a program in good order."""
        self.tell(service.name, "is asked to stop")
        service.stop()

    def fill_disk(self, service: Service, *, full: bool) -> None:
        """Fill a disk, or make room."""
        self.tell(service.name, f"disk full: {full}")
        service.fill_disk(full=full)
        begin, _ = self._full.get(service.name, (self.loop.time(), 0.0))
        self._full[service.name] = (begin, float("inf") if full else self.loop.time())

    def jump(self, service: Service, seconds: float) -> None:
        """Set a wall clock wrong."""
        self.tell(service.name, f"clock jumps by {seconds}")
        service.clock.wrong += seconds
        self.oracle.excuses.jumped.add(service.name)

    def restore_store(self, files: dict[str, bytes], *, since: float) -> None:
        """Put an older store in place of the director's; none at all when there are no files."""
        director = self.fleet.director

        def put() -> None:
            self.tell("people", f"restore the director's store {'of before' if files else 'as an empty one'}")
            self.oracle.learn()
            known = self.oracle.reported()
            durable.restore(self.store, files or {self.store.name: durable.empty_store().read_bytes()})
            self.oracle.excuses.unlearnt |= known - self.oracle.reported()
            self.oracle.forgot()
            for name in self.names:
                self.oracle.excuses.intervals[name].append((since, self.loop.time()))

        director.between = put
        if director.process is not None:
            director.process.kill("its store is restored")

    def clone(self, name: str) -> None:
        """Make a twin of a machine, which has its key and its outbox, and its directories elsewhere."""
        if TWIN in self.fleet.clients:
            return
        self.tell(TWIN, f"is a clone of {name}")
        shutil.copytree(self.base / name, self.base / TWIN, ignore=shutil.ignore_patterns("*-shm"))
        self.oracle.excuses.cloned.add(name)
        self.cloned = (name, self.loop.time())
        machine = self._machine(TWIN, as_name=name)
        self.fleet.clients[TWIN] = machine
        self.loop.create_task(machine.supervise())

    # --- What people push ---------------------------------------------------------------------------------------------

    def push(self, *, message: str = "a change", onto: str | None = None, files: dict[str, str] | None = None) -> str:
        """Push what people have written."""
        self.is_mistaken = files is not None
        revision = self.history.push(
            files or self.people.files(), message=message, at=self.fleet.director.clock.now(), onto=onto
        )
        self.tell("people", f"push {revision[:8]}")
        return revision

    def push_change(self) -> None:
        """Change something."""
        self.tell("people", self.people.change())
        self.push()

    def push_mistake(self) -> None:
        """Push something that nobody can publish."""
        files = self.people.files()
        self.tell("people", f"mistake: {self.people.break_it(files)}")
        self.push(files=files)

    def force_push(self, *, acknowledged: bool) -> None:
        """Rewrite history."""
        log = self.history.log(None, self.history.head)
        base = log[min(len(log) - 1, self.people.random.randint(1, 3))].revision
        self.tell("people", f"{self.people.change()}, force-pushed, acknowledged: {acknowledged}")
        self.push(message=f"rewritten{ACKNOWLEDGED if acknowledged else ''}", onto=base)

    # --- The end of all faults ----------------------------------------------------------------------------------------

    def calm(self) -> None:
        """Let everything be as it should be, from now on."""
        self.tell("weather", "calm")
        self.history.is_away = False
        if self.cloned is not None:
            name, begin = self.cloned
            twin = self.fleet.clients.pop(TWIN)
            twin.hold_down(held=True)
            self.cut_power(twin)
            self.oracle.excuses.intervals[name].append((begin, float("inf")))  # what shares a name is not told apart
        for service in self.fleet.services():
            self.network.set_weather(service.name, FAIR)
            service.hold_down(held=False)
            service.clock.wrong = 0.0
            service.slowness = 1.0
            service.fill_disk(full=False)
            if service.process is not None:
                service.process.spare()
                service.process.slowness = 1.0
        for name, (begin, end) in self._full.items():
            self._full[name] = (begin, min(end, self.loop.time()))

    def expected(self) -> dict[str, str]:
        """Return the digest of what each client should have by the newest revision."""
        head = self.history.head
        if self._expected[0] != head:
            built = build(self.history.files(head).files, borgmatic_schema=_schema(), cache=BuildCache())
            built.require_ok()
            self._expected = (head, dict(built.digests))
        return self._expected[1]

    def end(self) -> None:
        """Kill everything."""
        for service in self.fleet.services():
            service.hold_down(held=True)
            self.cut_power(service)
        for task in self.tasks:
            task.cancel()

    def forget(self) -> None:
        """Let go of what was judged, so that our own memory does not grow."""
        self.executions = [one for one in self.executions if one.ended is None]
        self.oracle.forget(self.fleet.director.clock.now())
        self.history.forget()

    def clear(self) -> None:
        """Let go of everything that knows everything else, so that it can be collected."""
        for machine in self.fleet.clients.values():
            machine.agent = None
        self.fleet.director.director = None


@lru_cache(maxsize=1)
def _schema() -> Any:
    return borgmatic_schema.load()


def _director_identity(dice: Random) -> DirectorIdentity:
    return DirectorIdentity(dice.randbytes(32))


def _client_identity(dice: Random) -> ClientIdentity:
    return ClientIdentity(dice.randbytes(32), dice.randbytes(32))
