"""What this machine's own administrator says: read once from ``client.toml``, which no director can reach.

The file is optional. Where it exists, only root or our own user may have written it, for it bounds what any director
may ask (see ``client.policy``). ``client.cli`` is the only caller.
"""

from __future__ import annotations

import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from client.policy import Policy
from client.state import check_ownership
from schema.directories import DEFAULT_CONFIG_DIRECTORY, DEFAULT_STATE_DIRECTORY, Directories
from schema.errors import TerminalError
from schema.scalars import AbsolutePath, Duration, Name

DEFAULT_FILE = Path("/etc/borgmatic-director/client.toml")
FILE_VARIABLE = "BORGMATIC_DIRECTOR_CLIENT_CONFIG"
_MAX_BYTES = 256 * 1024
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1")


def name_of_this_machine() -> str:
    """Return the host's name made into a valid ``Name``: ``Web-1.example.org`` is ``web-1``."""
    host = socket.gethostname().split(".")[0].lower()
    return re.sub(r"[^a-z0-9]+", "-", host).strip("-")[:63].rstrip("-") or "client"


def check_url(text: str) -> str:
    """Return ``text`` when a director may be there: TLS, a Unix socket, or plain on this machine's loopback only."""
    parts = urlsplit(text)
    if parts.username is not None or parts.password is not None:
        raise ValueError("a director's url holds no user and no password")
    if parts.scheme == "unix" and parts.path.startswith("/"):
        return text
    if parts.scheme not in {"wss", "ws"} or not parts.hostname:
        raise ValueError("write wss://host:port (or unix:///path, or ws:// to loopback)")
    if parts.scheme == "ws" and not _LOOPBACK.fullmatch(parts.hostname):
        raise ValueError(f"ws:// is not encrypted, and {parts.hostname} is not this machine: write wss://")
    _ = parts.port  # raises ValueError when it is not a port
    return text


Url = Annotated[str, AfterValidator(check_url)]


class ClientSettings(BaseModel):
    """Everything the client reads at start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(default_factory=name_of_this_machine)
    """What we would like to be called; the director decides."""
    config_directory: AbsolutePath = DEFAULT_CONFIG_DIRECTORY
    """borgmatic's configuration files."""
    state_directory: AbsolutePath = DEFAULT_STATE_DIRECTORY
    """Keys, secrets, outbox."""
    borgmatic: str = "borgmatic"
    """The program: a path, or a name to be found beside our own interpreter or on PATH."""
    url: Url | None = None
    """Where the director is, when not where the enrolment string said. Its key stays pinned."""
    ca_file: AbsolutePath | None = None
    """Certificate authorities to believe instead of the system's."""
    behind_proxy: bool = False
    """A proxy ends TLS in front of the director: signatures do not cover the certificate that we see."""
    stop: Literal["cancel", "wait"] = "cancel"
    """What happens to a running backup when the service is stopped."""
    stop_timeout: Duration = 60
    """How long a stop may take: for the running backup to end, and for the last reports to be sent."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    policy: Policy = Policy()

    @property
    def directories(self) -> Directories:
        """The directories, as the director's ``Client`` resource must name them too."""
        return Directories(config=self.config_directory, state=self.state_directory)


def read_settings(path: Path | None = None, *, environment: Mapping[str, str] = os.environ) -> ClientSettings:
    """Return the settings in ``path``, in the file that the environment names, or in the default place."""
    named = path or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    file = named or DEFAULT_FILE
    try:
        check_ownership(file.resolve().parent, what="the folder")
        check_ownership(file, what="the settings file")
        with file.open("rb") as opened:
            content = opened.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        if named is None:
            return ClientSettings()
        raise TerminalError(
            f"there is no settings file {file}", hint="leave out --config to use the defaults"
        ) from None
    except OSError as error:
        raise TerminalError(f"cannot read {file}: {error.strerror}", hint="run it as root") from None
    return parse_settings(content, origin=str(file))


def parse_settings(content: bytes, *, origin: str) -> ClientSettings:
    """Return the settings in TOML ``content``; ``TerminalError`` naming each wrong key."""
    if len(content) > _MAX_BYTES:
        raise TerminalError(f"{origin} is larger than {_MAX_BYTES // 1024} KiB")
    try:
        return ClientSettings.model_validate(tomllib.loads(content.decode()))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TerminalError(f"{origin} is not TOML: {error}") from None
    except ValidationError as error:
        problems = error.errors(include_url=False)
        messages = "; ".join(f"{_place(one['loc'])}: {_message(one)}" for one in problems)
        hints = filter(None, (_suggestion(one) for one in problems))
        raise TerminalError(f"{origin}: {messages}", hint="; ".join(hints)) from None


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location))


def _message(problem: Any) -> str:
    if problem["type"] == "extra_forbidden":
        return "unknown key"
    return str(problem["msg"]).removeprefix("Value error, ")


def _suggestion(problem: Any) -> str:
    if problem["type"] != "extra_forbidden":
        return ""
    import difflib  # noqa: PLC0415 - only for who has made a mistake

    known = _keys_at(ClientSettings, problem["loc"][:-1])
    close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
    return f"did you mean '{close[0]}'?" if close else f"known keys: {', '.join(known)}"


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that may stand in the table at ``location``."""
    for part in location:
        field = model.model_fields.get(str(part))
        if field is None:
            return []
        inner = next((one for one in (field.annotation, *get_args(field.annotation)) if _is_model(one)), None)
        if inner is None:
            return []
        model = inner
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
