"""Operational commands over a Unix socket that only the director's user may open; ``commands.remote`` calls it.

Reading goes through one function (the dashboard's reader, handed in by the command line); everything else is an
``Operations`` method, and every one of them is an audit event with the name of the user who asked.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import socket
import stat
import struct
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schema.envelope import EnrolmentString, fingerprint, hash_token, random_token
from schema.errors import DirectorError, TerminalError
from schema.scalars import Duration, Name, parse_duration
from schema.status import TokenStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from reconciler.clock import Clock
    from reconciler.gateway import Gateway
    from reconciler.loop import Reconciler
    from reconciler.store import Store
    from reconciler.store.changes import Changes

_log = structlog.get_logger(__name__)

MAX_REQUEST = 64 * 1024
_GOODBYE_SECONDS = 2.0


class Read(Protocol):
    """The read model, by the name of the question."""

    def __call__(self, question: str, **arguments: str) -> Any:
        """Return models that answer ``question``; ``TerminalError`` when there is no such thing."""


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CreateToken(_Request):
    """What a token is for, and how far it goes."""

    note: str = Field(default="", max_length=200)
    lifetime: Duration = parse_duration("1d")
    uses: int = Field(default=1, ge=1, le=10_000)


class ByText(_Request):
    """One thing, as a person names it."""

    text: str = Field(min_length=1, max_length=200)
    name: Name | None = None


class Nothing(_Request):
    """No arguments."""


class Operations:
    """What a person may do to a running director."""

    def __init__(
        self,
        *,
        store: Store,
        gateway: Gateway,
        reconciler: Reconciler,
        enrolment: EnrolmentString,
        clock: Clock,
    ) -> None:
        self._store = store
        self._gateway = gateway
        self._reconciler = reconciler
        self._enrolment = enrolment
        self._clock = clock

    async def token_create(self, request: CreateToken, *, actor: str) -> dict[str, Any]:
        """Make a connection token; its text is returned once and kept nowhere."""
        token, now = random_token(), self._clock.now()
        status = TokenStatus(
            id=hash_token(token)[:12],
            note=request.note,
            created=now,
            expires=now + timedelta(seconds=request.lifetime),
            uses_left=request.uses,
        )
        await self._store.create_token(status, token_hash=hash_token(token))
        await self._event(
            "TokenCreated", f"token {status.id} for {request.uses} uses: {request.note or 'no note'}", actor
        )
        text = self._enrolment.model_copy(update={"token": token}).to_text()
        return {
            **status.model_dump(mode="json", by_alias=True),
            "enrolment": text,
            "director": self._enrolment.director,
        }

    async def token_revoke(self, request: ByText, *, actor: str) -> dict[str, Any]:
        """Make a token worthless."""
        if not await self._store.revoke_token(request.text):
            raise TerminalError(f"there is no token '{request.text}'", hint="see `director token list`")
        await self._event("TokenRevoked", f"token {request.text} was revoked", actor)
        return {"revoked": request.text}

    async def client_approve(self, request: ByText, *, actor: str) -> dict[str, Any]:
        """Approve a pending key, named by fingerprint, public key or name."""
        waiting = [one for one in await self._store.pending() if request.text in _names_of(one.public_key, one.name)]
        if not waiting:
            raise TerminalError(f"no pending client '{request.text}'", hint="see `director clients pending`")
        if len(waiting) > 1:
            raise TerminalError(
                f"{len(waiting)} pending keys are named '{request.text}'", hint="give the fingerprint of the right one"
            )
        one, name = waiting[0], request.name or waiting[0].name
        await self._store.approve(public_key=one.public_key, name=name, by=actor, at=self._clock.now())
        await refresh_registry(self._store, self._gateway)
        await self._event(
            "ClientApproved", f"key {fingerprint(one.public_key)} was approved as '{name}'", actor, client=name
        )
        self._reconciler.trigger()
        return {"approved": name, "fingerprint": fingerprint(one.public_key)}

    async def client_revoke(self, request: ByText, *, actor: str) -> dict[str, Any]:
        """Shut out a key for good, at once, also when it stands in Git."""
        key, name = await self._find_client(request.text)
        await self._store.revoke(public_key=key, name=name, by=actor, at=self._clock.now())
        await refresh_registry(self._store, self._gateway)
        await self._event("ClientRevoked", f"key {fingerprint(key)} of '{name}' was revoked", actor, client=name)
        return {"revoked": name, "fingerprint": fingerprint(key)}

    async def client_unlock(self, request: ByText, *, actor: str) -> dict[str, Any]:
        """Forget the failed attempts of an address."""
        if not self._gateway.unlock(request.text):
            raise TerminalError(
                f"address '{request.text}' is not locked out", hint="see `director clients list --locked`"
            )
        await self._event("AddressUnlocked", f"address {request.text} was unlocked", actor)
        return {"unlocked": request.text}

    async def acknowledge(self, request: ByText, *, actor: str) -> dict[str, Any]:
        """Let a held revision through."""
        result = await self._reconciler.acknowledge(request.text, actor=actor)
        await self._store.set_acknowledged(self._reconciler.acknowledged)
        return _result(result)

    async def suspend(self, _: Nothing, *, actor: str) -> dict[str, Any]:
        """Publish no new revisions until ``resume``."""
        return await self._suspend(actor, suspended=True)

    async def resume(self, _: Nothing, *, actor: str) -> dict[str, Any]:
        """Publish again."""
        return await self._suspend(actor, suspended=False)

    async def _suspend(self, actor: str, *, suspended: bool) -> dict[str, Any]:
        await self._store.set_suspended("source", actor=actor if suspended else None)
        self._reconciler.suspend(suspended=suspended)
        word = "suspended" if suspended else "resumed"
        await self._event(word.capitalize(), f"reconciling was {word}", actor)
        return {"suspended": suspended}

    async def reconcile(self, _: Nothing, *, actor: str) -> dict[str, Any]:  # noqa: ARG002 - the table's signature
        """Run a pass, and tell how it ended."""
        return _result(await self._reconciler.reconciled())

    async def nudge(self, _: Nothing, *, actor: str) -> dict[str, Any]:  # noqa: ARG002
        """Ask for a pass, and wait for nothing."""
        self._reconciler.trigger()
        return {}

    async def _find_client(self, text: str) -> tuple[str, str]:
        """Return public key and name of whoever a person means by name, key or fingerprint."""
        keys = {key: name for name, key in (await self._store.committed_keys()).items()}
        keys |= {one.public_key: one.name for one in await self._store.approvals()}
        keys |= {one.public_key: one.name for one in await self._store.pending() if one.public_key not in keys}
        found = [(key, name) for key, name in keys.items() if text in _names_of(key, name)]
        if not found:
            raise TerminalError(f"no client '{text}' has a key", hint="see `director clients list`")
        if len(found) > 1:
            raise TerminalError(f"{len(found)} keys are named '{text}'", hint="give the fingerprint of the right one")
        return found[0]

    async def _event(self, reason: str, message: str, actor: str, *, client: str = "") -> None:
        await self._store.event(reason=reason, message=message, actor=actor, client=client, at=self._clock.now())


OPERATIONS: dict[str, type[_Request]] = {
    "token_create": CreateToken,
    "token_revoke": ByText,
    "client_approve": ByText,
    "client_revoke": ByText,
    "client_unlock": ByText,
    "acknowledge": ByText,
    "suspend": Nothing,
    "resume": Nothing,
    "reconcile": Nothing,
    "nudge": Nothing,
}
"""Every operation and its request: nothing else can be called."""


class Admin:
    """Serves the socket until ``close``."""

    def __init__(self, path: Path, *, operations: Operations, read: Read, store: Store) -> None:
        self._path = path
        self._operations = operations
        self._read = read
        self._store = store
        self._runner: web.AppRunner | None = None
        self._readers: set[Changes] = set()

    async def start(self) -> None:
        """Begin to listen. A socket file left behind is replaced; one that somebody answers on is not.

        Raises:
            TerminalError: another director answers there, something else is in the way, or the path cannot be used.
        """
        _clear(self._path)
        app = web.Application(client_max_size=MAX_REQUEST, middlewares=[_explain])
        app.router.add_get("/v1/read/{question}", self._answer)
        app.router.add_get("/v1/changes", self._changes)
        app.router.add_post("/v1/{operation}", self._operate)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_GOODBYE_SECONDS)
        await self._runner.setup()
        before = os.umask(0o177)  # the socket must never be open to others, not even for a moment
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        except OSError as error:
            await self._runner.cleanup()
            self._runner = None
            raise TerminalError(
                f"cannot make the socket of the director's commands, {self._path}: {error.strerror or error}",
                hint="a socket's path has at most 107 characters: choose a shorter state directory",
            ) from None
        finally:
            os.umask(before)

    async def close(self) -> None:
        """Stop listening. Who follows changes is told that there are no more."""
        for reader in self._readers:
            reader.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._path.unlink(missing_ok=True)

    async def _answer(self, request: web.Request) -> web.Response:
        arguments = {name: value for name, value in request.query.items() if name != "question"}

        def read() -> str:
            return json.dumps(_plain(self._read(request.match_info["question"], **arguments)))

        return web.json_response(text=await asyncio.to_thread(read))

    async def _operate(self, request: web.Request) -> web.Response:
        name = request.match_info["operation"]
        if name not in OPERATIONS:
            raise TerminalError(f"there is no operation '{name}'")
        arguments = OPERATIONS[name].model_validate_json(await request.read() or b"{}")
        operate: Callable[..., Awaitable[dict[str, Any]]] = getattr(self._operations, name)
        return web.json_response(await operate(arguments, actor=f"operator:{_user(request)}"))

    async def _changes(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        with self._store.changes() as changes:
            self._readers.add(changes)
            try:
                async for notice in changes:
                    await response.write(json.dumps(notice).encode() + b"\n")
            except ConnectionResetError:  # who followed has gone, which is how following ends
                pass
            finally:
                self._readers.discard(changes)
        return response


async def refresh_registry(store: Store, gateway: Gateway) -> None:
    """Hand the store's approvals and revocations to the gateway, where they take effect at once."""
    gateway.registry_changed(
        approvals=await store.approvals(),
        revoked=[one.public_key for one in await store.revocations()],
        pending=[one.public_key for one in await store.pending()],
    )


def _names_of(public_key: str, name: str) -> set[str]:
    whole = fingerprint(public_key)
    return {name, public_key, whole, whole.removeprefix("SHA256:")}


def _result(result: Any) -> dict[str, Any]:
    return {**asdict(result), "problems": _plain(result.problems), "hold": _plain(result.hold), "ok": result.ok}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _user(request: web.Request) -> str:
    """Return who asks, from the socket's peer credentials (which nobody can forge)."""
    transport = request.transport
    peer = transport.get_extra_info("socket") if transport is not None else None
    if peer is None:
        return "unknown"
    packed = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", packed)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _clear(path: Path) -> None:
    """Remove the socket that a killed director left behind; never anything else, never one that still answers."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise TerminalError(f"{path} is in the way: it is not a director's socket", hint="move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise TerminalError(
        f"another director is running with the state directory {path.parent}",
        hint="one director per state directory; stop the other one first",
    )


@web.middleware
async def _explain(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except DirectorError as error:
        return _refused(error.message, error.hint)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return _refused(f"{place}: {message}" if place else message)
    except web.HTTPException as error:
        return _refused(error.text or error.reason, status=error.status)
    except (ConnectionResetError, asyncio.CancelledError):
        raise
    except Exception:  # noqa: BLE001 - a fault of ours must not take the socket down
        _log.exception("admin.fault", path=request.path)
        return _refused("internal error", "see the director's log", status=500)


def _refused(error: str, hint: str = "", *, status: int = 422) -> web.Response:
    return web.json_response({"error": error, "hint": hint}, status=status)
