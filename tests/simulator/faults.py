"""What happens to a world, drawn from its seed: each fault is a moment and something that a person or nature does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tests.simulator import durable
from tests.simulator.machines import Service
from tests.simulator.network import FAIR, Weather
from tests.simulator.world import World


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that happens at ``at``, in seconds since the begin."""

    at: float
    happen: Callable[[], None]


def draw(world: World, dice: Random, *, begin: float, end: float, count: int, lasting: bool = True) -> list[Fault]:
    """Return faults, in order of time; without those that ``last``, when many more are to come after them."""
    known = [(maker, weight) for maker, weight in _MAKERS if lasting or maker not in _LASTING]
    found: list[Fault] = []
    for _ in range(count):
        at = dice.uniform(begin, end)
        maker = dice.choices([one for one, _ in known], [weight for _, weight in known])[0]
        found += maker(world, dice, at)
    return sorted(found, key=lambda fault: fault.at)


def _service(world: World, dice: Random) -> Service:
    return world.fleet.director if dice.random() < 0.4 else dice.choice(list(world.fleet.clients.values()))


# --- Deaths -----------------------------------------------------------------------------------------------------------


def _kill(world: World, dice: Random, at: float) -> list[Fault]:
    """Kill a process at a step, a file operation or a transaction that is soon to come."""
    service = _service(world, dice)
    kind, soon = dice.choice(("step", "operation", "transaction")), dice.random() ** 2

    def happen() -> None:
        process = service.process
        if process is None or not process.alive:
            return
        match kind:
            case "step":
                process.dies_at_step = process.steps + 1 + int(soon * 400)
            case "operation":
                process.dies_at_operation = process.operations + 1 + int(soon * 60)
            case _:
                process.dies_at_transaction = process.transactions + 1 + int(soon * 30)

    return [Fault(at, happen)]


def _kill_while_it_changes(world: World, dice: Random, at: float) -> list[Fault]:
    """Push, and kill whoever follows in the middle of it."""
    death = _kill(world, dice, at + dice.uniform(0.0, 2.0))
    return [Fault(at, world.push_change), *death]


def _power_cut(world: World, dice: Random, at: float) -> list[Fault]:
    service = _service(world, dice)
    return [Fault(at, lambda: world.cut_power(service))]


def _stop(world: World, dice: Random, at: float) -> list[Fault]:
    service = _service(world, dice)
    return [Fault(at, lambda: world.stop(service))]


def _away(world: World, dice: Random, at: float) -> list[Fault]:
    """A machine is off for a while."""
    service = _service(world, dice)

    def leave() -> None:
        service.hold_down(held=True)
        world.cut_power(service)

    return [Fault(at, leave), Fault(at + dice.uniform(20.0, 200.0), lambda: service.hold_down(held=False))]


# --- The wire ---------------------------------------------------------------------------------------------------------


def _storm(world: World, dice: Random, at: float) -> list[Fault]:
    """Bad weather for one machine, or for all."""
    names = world.names if dice.random() < 0.3 else [dice.choice(world.names)]
    share = dice.choice((0.02, 0.1, 0.4))
    weather = dice.choice(
        (
            Weather(latency=(0.5, 8.0)),
            Weather(latency=(0.001, 1.0), breaks=share),
            Weather(silent=share),
            Weather(refused=0.7, breaks=share / 4),
            Weather(unanswered=0.7, silent=share / 4),
            Weather(lost=share),
            Weather(doubled=share),
            Weather(swapped=share),
            Weather(lost=share / 3, doubled=share / 3, swapped=share / 3, latency=(0.001, 2.0)),
        )
    )

    def begin() -> None:
        world.tell("weather", f"{weather} for {', '.join(names)}")
        for name in names:
            world.network.set_weather(name, weather)

    def end() -> None:
        for name in names:
            world.network.set_weather(name, FAIR)

    return [Fault(at, begin), Fault(at + dice.uniform(5.0, 120.0), end)]


def _cut(world: World, dice: Random, at: float) -> list[Fault]:
    name, silently = dice.choice(world.names), dice.random() < 0.5
    return [Fault(at, lambda: world.network.cut(name, silently=silently))]


# --- Disks and clocks -------------------------------------------------------------------------------------------------


def _full_disk(world: World, dice: Random, at: float) -> list[Fault]:
    service = _service(world, dice)
    return [
        Fault(at, lambda: world.fill_disk(service, full=True)),
        Fault(at + dice.uniform(1.0, 150.0), lambda: world.fill_disk(service, full=False)),
    ]


def _slow_disk(world: World, dice: Random, at: float) -> list[Fault]:
    service, slowness = _service(world, dice), dice.choice((10.0, 100.0, 1_000.0))

    def set_to(value: float) -> None:
        service.slowness = value
        if service.process is not None:
            service.process.slowness = value

    return [Fault(at, lambda: set_to(slowness)), Fault(at + dice.uniform(5.0, 60.0), lambda: set_to(1.0))]


def _jump(world: World, dice: Random, at: float) -> list[Fault]:
    service = _service(world, dice)
    seconds = dice.choice((-1, 1)) * dice.choice((5.0, 90.0, 3_600.0, 40_000.0, 200_000.0))
    return [Fault(at, lambda: world.jump(service, seconds))]


def _old_backup(world: World, dice: Random, at: float) -> list[Fault]:
    """The director's store is restored from a backup that is some minutes old."""
    at = max(at, 12.0)
    kept: dict[str, bytes] = {}
    taken: list[float] = []

    def keep() -> None:
        kept.update(durable.snapshot(world.store))
        taken.append(world.loop.time())

    return [
        Fault(max(5.0, at - dice.uniform(10.0, 200.0)), keep),
        Fault(at, lambda: world.restore_store(kept, since=taken[0])),
    ]


def _lost_store(world: World, dice: Random, at: float) -> list[Fault]:
    """The director's store is lost altogether, and a new one begins."""
    return [Fault(at, lambda: world.restore_store({}, since=0.0))]


def _twin(world: World, dice: Random, at: float) -> list[Fault]:
    """A machine is cloned, with its key."""
    name = dice.choice(world.names)
    return [Fault(at, lambda: world.clone(name))]


# --- Git --------------------------------------------------------------------------------------------------------------


def _push(world: World, dice: Random, at: float) -> list[Fault]:
    return [Fault(at, world.push_change)]


def _mistake(world: World, dice: Random, at: float) -> list[Fault]:
    return [Fault(at, world.push_mistake)]


def _force(world: World, dice: Random, at: float) -> list[Fault]:
    acknowledged = dice.random() < 0.5
    return [Fault(at, lambda: world.force_push(acknowledged=acknowledged))]


def _git_away(world: World, dice: Random, at: float) -> list[Fault]:
    def set_to(*, away: bool) -> None:
        world.history.is_away = away

    return [
        Fault(at, lambda: set_to(away=True)),
        Fault(at + dice.uniform(10.0, 200.0), lambda: set_to(away=False)),
    ]


Maker = Callable[[World, Random, float], list[Fault]]
_MAKERS: tuple[tuple[Maker, int], ...] = (
    (_kill, 6),
    (_kill_while_it_changes, 6),
    (_power_cut, 3),
    (_stop, 2),
    (_away, 2),
    (_storm, 7),
    (_cut, 2),
    (_full_disk, 3),
    (_slow_disk, 1),
    (_jump, 2),
    (_old_backup, 2),
    (_lost_store, 1),
    (_twin, 1),
    (_push, 5),
    (_mistake, 2),
    (_force, 2),
    (_git_away, 1),
)
_LASTING = frozenset({_twin, _lost_store, _jump})
"""What excuses a client from being judged, from then on."""
