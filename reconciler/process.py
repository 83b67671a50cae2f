"""One director, put together: store, gateway, loop and admin socket, started in order and stopped in the reverse one.

Called by ``reconciler.cli`` and ``reconciler.standalone``, which hand in the read model and what else runs beside (the
dashboard, in standalone mode a client).
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from pydantic import ValidationError

from reconciler import borgmatic_schema, tls
from reconciler.admin import Admin, Operations
from reconciler.gateway import Gateway, GatewaySettings
from reconciler.keys import load_identity, only_director, prepare_directory
from reconciler.listen import Address
from reconciler.loop import LoopSettings, Reconciler
from reconciler.loop_ports import SourcePort
from reconciler.metrics import Metrics
from reconciler.source import Source, SourceSettings
from reconciler.store import Retention, Store
from schema.addresses import Proxies
from schema.envelope import EnrolmentString
from schema.errors import DirectorError, TerminalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
    from datetime import datetime

    from reconciler.admin import Read
    from reconciler.clock import Clock
    from reconciler.settings import DirectorSettings
    from reconciler.tls import ServerCertificate
    from schema.envelope import DirectorIdentity

_log = structlog.get_logger(__name__)

_TRIM_SECONDS = 6 * 3600.0
_LAST_PASS_SECONDS = 10.0


class WatchedSource(SourcePort, Protocol):
    """A source that can say when it may have moved."""

    def watch(self) -> AsyncIterator[None]:
        """Yield whenever the source may have moved."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a director finds around it. The simulator hands in its own."""

    source: WatchedSource
    borgmatic_schema: Mapping[str, Any]
    random: Random


@dataclass(frozen=True, slots=True)
class Director:
    """The parts of a running director."""

    settings: DirectorSettings
    identity: DirectorIdentity
    store: Store
    gateway: Gateway
    reconciler: Reconciler
    enrolment: EnrolmentString
    source: WatchedSource
    metrics: Metrics
    clock: Clock


def source_settings(settings: DirectorSettings) -> SourceSettings:
    """Return what the source needs of the director's settings.

    Raises:
        TerminalError: no source was named, or its settings do not fit together.
    """
    if not settings.source.url:
        raise TerminalError(
            "no source was named",
            hint='set [source] url = "…" in director.toml, or give --source URL',
        )
    fields = settings.source.model_dump(include=set(SourceSettings.model_fields))
    try:
        return SourceSettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(str(part) for part in ("source", *first["loc"]))
        raise TerminalError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None


@contextlib.asynccontextmanager
async def directing(
    settings: DirectorSettings,
    *,
    clock: Clock,
    listen: Sequence[Address] | None = None,
    surroundings: Surroundings | None = None,
) -> AsyncIterator[Director]:
    """Start the parts and yield them; stop them in the reverse order. The loop does not run yet.

    ``listen`` replaces the settings' address (standalone mode listens on a Unix socket only).
    """
    around = surroundings or _surroundings(settings)
    prepare_directory(settings.state_directory)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(only_director(settings.state_directory))
        identity = load_identity(settings.key_path)
        store = await Store.open(settings.store_path)
        stack.push_async_callback(store.close)
        addresses = tuple(listen) if listen is not None else (Address.parse(settings.listen.address),)
        certificate = None if listen is not None else _certificate(settings, addresses, now=clock.now())
        parts: list[Reconciler] = []
        metrics = Metrics()
        gateway = Gateway(
            identity=identity,
            store=store,
            clock=clock,
            settings=GatewaySettings(
                listen=addresses,
                proxies=Proxies.parse(settings.listen.trusted_proxies),
                resync=float(settings.resync),
                metrics_listen=Address.parse(settings.listen.metrics_address)
                if settings.listen.metrics_address
                else None,
            ),
            metrics=metrics,
            certificate=certificate,
            readiness=lambda: _readiness(parts[0]),
            on_ahead=lambda client, generation: parts[0].ahead(client, generation),  # noqa: PLW0108 - it is made below
            random=around.random,
        )
        reconciler = Reconciler(
            source=around.source,
            records=store,
            gateway=gateway,
            identity=identity,
            borgmatic_schema=around.borgmatic_schema,
            clock=clock,
            settings=LoopSettings(
                interval=float(settings.source.interval),
                validity=float(settings.validity),
                mass_change=settings.source.mass_change,
                hold_dangers=settings.source.hold_dangers,
            ),
            remembered=await _remembered(store, settings),
            issued=await store.issued_all(),
            acknowledged=await store.acknowledged(),
            stored=await store.published(),
            on_pass=lambda outcome, seconds: metrics.reconciled(outcome, seconds=seconds),
            random=around.random,
        )
        parts.append(reconciler)
        # Until the first pass: whoever was approved by the published revision may come in.
        gateway.set_source_clients(await store.committed_keys())
        if not reconciler.status.revision:  # a new store, or a lost one: clients must not stay away for long
            gateway.await_source()
        await gateway.start()
        stack.push_async_callback(gateway.stop)
        yield Director(
            settings=settings,
            identity=identity,
            store=store,
            gateway=gateway,
            reconciler=reconciler,
            enrolment=_enrolment(settings, identity, gateway.addresses[0], certificate),
            source=around.source,
            metrics=metrics,
            clock=clock,
        )


def _surroundings(settings: DirectorSettings) -> Surroundings:
    return Surroundings(
        source=Source(source_settings(settings), state_directory=settings.state_directory),
        borgmatic_schema=borgmatic_schema.load(settings.borgmatic_schema),
        random=Random(),
    )


async def serve(
    director: Director, *, read: Read, beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()
) -> None:
    """Run a director until SIGTERM or SIGINT (a second SIGINT ends it at once); SIGHUP asks for a pass.

    ``beside`` runs as long as it does: cancelled first, so that it can still say goodbye. What one of them cannot do
    ends the director.

    Raises:
        DirectorError: a part of it cannot run: an address is in use, the socket cannot be made.
    """
    operations = Operations(
        store=director.store,
        gateway=director.gateway,
        reconciler=director.reconciler,
        enrolment=director.enrolment,
        clock=director.clock,
    )
    admin = Admin(director.settings.socket_path, operations=operations, read=read, store=director.store)
    with _signals(director.reconciler.trigger) as stopping:
        await admin.start()
        _log.info("running", source=director.settings.source.url, state=str(director.settings.state_directory))
        try:
            async with asyncio.TaskGroup() as group:
                looping = group.create_task(director.reconciler.run())
                watching = group.create_task(_watch(director))
                trimming = group.create_task(_trim(director))
                others = [group.create_task(one()) for one in beside]
                await stopping.wait()
                _log.info("stopping")
                await _end(others)
                await _end([watching, trimming])
                director.reconciler.stop()
                # A pass that hangs in the network is given up: it changes nothing before its last step, and that is one
                # transaction.
                await asyncio.wait([looping], timeout=_LAST_PASS_SECONDS)
                await _end([looping])
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            await admin.close()


async def until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do ``work`` until SIGTERM or SIGINT."""
    with _signals(lambda: None) as stopping:
        working = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(stopping.wait())
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not working.done():
            await _end([working])
        elif not working.cancelled():
            working.result()


@contextlib.contextmanager
def _signals(on_hangup: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Turn signals into an event while the body runs. After the first SIGINT, the second interrupts at once."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not stopping.is_set():
            stopping.set()
            loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    try:
        yield stopping
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)


async def _end(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what went wrong first: the rest are its consequences."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _watch(director: Director) -> None:
    """Ask for a pass when a branch of a local source may have moved; polling goes on when watching fails."""
    try:
        async for _ in director.source.watch():
            director.reconciler.trigger()
    except (OSError, DirectorError) as error:
        _log.warning("source.cannot-watch", problem=str(error))


async def _trim(director: Director) -> None:
    """Forget history that is older than the settings keep."""
    days = max(1, director.settings.store.keep // 86_400)
    retention = Retention(runs=days, logs=max(1, days // 4), events=days, samples=3 * days)
    while True:
        try:
            await director.store.trim(now=director.clock.now(), retention=retention)
        except DirectorError as error:
            _log.warning("store.cannot-trim", problem=error.message)
        await director.clock.sleep(_TRIM_SECONDS)


async def _readiness(reconciler: Reconciler) -> str:
    return "" if reconciler.ready else "the first reconcile is not done yet"


async def _remembered(store: Store, settings: DirectorSettings) -> Any:
    status = await store.source()
    update = {"url": settings.source.url, "branch": settings.source.branch, "path": settings.source.path}
    return status.model_copy(update={**update, "suspended": "source" in await store.suspended()})


def _certificate(
    settings: DirectorSettings, addresses: Sequence[Address], *, now: datetime
) -> ServerCertificate | None:
    if settings.listen.tls == "off":
        return None
    if settings.listen.tls == "files":
        assert settings.listen.certificate_file is not None  # noqa: S101 - the settings' validator saw to it
        assert settings.listen.key_file is not None  # noqa: S101
        return tls.load_certificate(settings.listen.certificate_file, settings.listen.key_file)
    names = [one.host for one in addresses if one.host]
    return tls.self_signed_certificate(settings.state_directory, names=names, now=now)


def _enrolment(
    settings: DirectorSettings, identity: DirectorIdentity, address: Address, certificate: ServerCertificate | None
) -> EnrolmentString:
    scheme = "ws" if certificate is None else "wss"
    url = settings.listen.public_url or (f"unix://{address.path}" if address.path else f"{scheme}://{address}")
    pin = certificate.fingerprint if certificate is not None and certificate.self_signed else ""
    return EnrolmentString(url=url, director=identity.public.text, token="", certificate=pin)
