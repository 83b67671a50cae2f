"""The director's settings: read once at start, from a TOML file and the environment; the command line wins over both.

``BORGMATIC_DIRECTOR_SOURCE__URL`` sets ``url`` of the table ``[source]``. Every field has a default that is safe on one
machine; unknown keys are errors, and so are variables that look like a misspelt key. ``docs/reference/`` explains each.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from schema.addresses import Proxies
from schema.errors import TerminalError
from schema.scalars import Duration, parse_duration
from schema.viewers import Password

DEFAULT_FILE = Path("/etc/borgmatic-director/director.toml")
FILE_VARIABLE = "BORGMATIC_DIRECTOR_CONFIG"
_PREFIX = "BORGMATIC_DIRECTOR_"
_SYSTEM_STATE = Path("/var/lib/borgmatic-director")
_SIMILAR = 0.8
"""From here on a variable that is none of ours is taken for a misspelt one."""


def _share(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        return float(value[:-1]) / 100
    return value


_HOST = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_NO_NAMES = {"authorization", "cookie", "host", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
"""Headers that everybody sends, or that mean something else."""

Share = Annotated[float, BeforeValidator(_share), Field(gt=0, le=1)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SourceTable(_Table):
    """Where the resources are, and how they are fetched."""

    url: str = ""
    """A path, ``https://…`` or ``ssh://…`` (``user@host:path`` too)."""
    branch: str = "main"
    path: str = ""
    """A folder of the repository that holds the resources; empty is the whole repository."""
    username: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    ca_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None
    fetch_timeout: Duration = parse_duration("2m")
    interval: Annotated[Duration, Field(ge=1)] = parse_duration("1m")
    hold_dangers: bool = False
    """Hold every revision that ``plan`` calls dangerous until it is acknowledged."""
    mass_change: Share = 0.2
    """Hold a revision that removes more than this share of all backups."""


class ListenTable(_Table):
    """Where clients connect."""

    address: str = "127.0.0.1:8440"
    public_url: str = ""
    """What enrolment strings say, when clients reach the director under another address."""
    tls: Literal["self-signed", "files", "off"] = "self-signed"
    certificate_file: Path | None = None
    key_file: Path | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Networks of proxies that end TLS and whose X-Forwarded-For is believed."""
    metrics_address: str = ""
    """Where `/metrics` is served by itself, e.g. `127.0.0.1:9440`; empty: beside the clients' door, if on loopback.
    It names every client and asks nobody who they are: let only Prometheus reach it."""

    @model_validator(mode="after")
    def _files_when_given(self) -> Self:
        if self.tls == "files" and (self.certificate_file is None or self.key_file is None):
            raise ValueError('tls = "files" needs certificate_file and key_file')
        return self


class WebTable(_Table):
    """The read-only dashboard."""

    enabled: bool = True
    address: str = "127.0.0.1:8441"
    login: Literal["auto", "always", "never"] = "auto"
    """`auto`: asked for, unless only this machine can reach `address` and no other setting here tells of others.
    `never`: whoever reaches it may look, so something in front must ask."""
    hosts: tuple[str, ...] = ()
    """The names it is reached by, e.g. `backups.example`. Empty, and with a login: any."""
    users: dict[str, str] = {}
    """Names and their passwords' hashes, as `director viewer password` prints them."""
    proxy_header: str = ""
    """The header in which a proxy tells who has logged in there, e.g. `X-Forwarded-User`."""
    proxy_addresses: tuple[str, ...] = ()
    """Networks of the proxies that are believed: that header, X-Forwarded-For and X-Forwarded-Proto."""
    open_badges: bool = False
    """Show badges to everybody who reaches `address`, without a login and inside the pages of other sites."""
    certificate_file: Path | None = None
    """Serve https: the chain, in PEM."""
    key_file: Path | None = None
    """Its key, in PEM, not encrypted, readable by the director only."""

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(f"'{host[:80]}' is not the name of a host: write it without scheme, port and path")
        return tuple(host.lower() for host in hosts)

    @field_validator("users")
    @classmethod
    def _hashes(cls, users: dict[str, str]) -> dict[str, str]:
        for name, text in users.items():
            if not name or ":" in name or not name.isprintable():
                raise ValueError(f"'{name[:80]}' cannot be the name of a user: no colon, nothing invisible")
            try:
                Password.parse(text)
            except ValueError as error:
                raise ValueError(f"the password of '{name}' {error}") from None
        return users

    @field_validator("proxy_header")
    @classmethod
    def _a_header(cls, name: str) -> str:
        if name and (not _HEADER.fullmatch(name) or name.lower() in _NO_NAMES):
            raise ValueError("is not a header that a proxy could tell a name in: write for example X-Forwarded-User")
        return name

    @field_validator("proxy_addresses")
    @classmethod
    def _networks(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        try:
            Proxies.parse(texts)
        except TerminalError as error:
            raise ValueError(f"{error.message}; {error.hint}") from None
        return texts

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.proxy_header and not self.proxy_addresses:
            raise ValueError("proxy_header needs proxy_addresses: anybody could send that header")
        if self.login == "never" and (self.users or self.proxy_header):
            raise ValueError('login = "never" asks nobody: take users and proxy_header away, or login')
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("https needs certificate_file and key_file")
        return self


class MetricsTable(_Table):
    """What ``/metrics`` tells, wherever it is served."""

    limit: Annotated[int, Field(ge=0, le=1_000_000)] = 10_000
    """How many backups, and how many clients, it shows one by one; all beyond are only counted."""


class StoreTable(_Table):
    """What was observed and issued."""

    url: str = ""
    """A path; empty is ``store.sqlite`` in the state directory."""
    keep: Duration = parse_duration("400d")
    """How long runs, events and sizes are kept; logs for a quarter of it."""

    @field_validator("url")
    @classmethod
    def _a_path(cls, url: str) -> str:
        if "://" in url:
            raise ValueError("write the path of a SQLite file: other databases are not supported")
        return url


class DirectorSettings(BaseSettings):
    """Everything the director reads at start."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__", validate_default=False
    )

    state_directory: Path = _SYSTEM_STATE
    """Key, store and clone. For a user who is neither root nor its owner: ``~/.local/state/borgmatic-director``."""
    borgmatic_schema: Path | None = None
    """Another borgmatic's ``config/schema.yaml``, when clients run another version than the one installed here."""
    validity: Duration = parse_duration("90d")
    """How long a signed desired state counts as fresh; renewed when half of it is gone."""
    resync: Duration = parse_duration("5m")
    source: SourceTable = SourceTable()
    listen: ListenTable = ListenTable()
    web: WebTable = WebTable()
    metrics: MetricsTable = MetricsTable()
    store: StoreTable = StoreTable()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings' interface
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file (handed in as keyword arguments)."""
        return env_settings, init_settings

    @property
    def socket_path(self) -> Path:
        """The Unix socket of operational commands."""
        return self.state_directory / "director.sock"

    @property
    def store_path(self) -> Path:
        """The SQLite file."""
        return Path(self.store.url) if self.store.url else self.state_directory / "store.sqlite"

    @property
    def clone_path(self) -> Path:
        """Where the director keeps its own clone of a remote source."""
        return self.state_directory / "source.git"

    @property
    def key_path(self) -> Path:
        """The director's signing key."""
        return self.state_directory / "identity"


def default_state_directory() -> Path:
    """Return the state directory when nothing is said: the system's for root and its owner, else the user's own."""
    user = os.geteuid()
    with contextlib.suppress(OSError):
        if user == 0 or _SYSTEM_STATE.stat().st_uid == user:
            return _SYSTEM_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "borgmatic-director"


def load_settings(file: Path | None = None, **overrides: Any) -> DirectorSettings:
    """Return the settings of ``file`` (or ``$BORGMATIC_DIRECTOR_CONFIG``, or the default place when it exists).

    ``overrides`` are fields, or tables as dictionaries, given on the command line.

    Raises:
        TerminalError: the file is missing, is not TOML, or holds unknown keys or unusable values.
    """
    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    path = named or DEFAULT_FILE
    values = _read(path, is_named=named is not None)
    _check_variables()
    try:
        settings = DirectorSettings(**values)
        update = {name: _with(name, getattr(settings, name), value) for name, value in overrides.items()}
    except SettingsError as error:
        raise TerminalError(f"cannot use the environment: {error}") from None
    except ValidationError as error:
        raise TerminalError(_explain(error, path)) from None
    if "state_directory" not in settings.model_fields_set:
        update["state_directory"] = overrides.get("state_directory") or default_state_directory()
    settings = settings.model_copy(update=update)
    return settings.model_copy(update={"state_directory": settings.state_directory.absolute()})


def _read(path: Path, *, is_named: bool) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if is_named:
            raise TerminalError(f"there is no settings file {path}", hint="give --config a file that exists") from None
        return {}
    except OSError as error:
        raise TerminalError(f"cannot read the settings file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TerminalError(f"the settings file {path} is not TOML: it is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise TerminalError(f"the settings file {path} is not TOML: {error}") from None
    except RecursionError:
        raise TerminalError(f"the settings file {path} is not TOML: it is nested too deeply") from None


def _with(name: str, current: Any, override: Any) -> Any:
    """Return ``override`` laid over ``current``; None changes nothing, tables change field by field."""
    if override is None:
        return current
    if isinstance(current, _Table):
        given = {key: value for key, value in override.items() if value is not None}
        try:
            return type(current).model_validate(current.model_dump() | given)
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            place = ".".join(str(part) for part in (name, *first["loc"]))
            raise TerminalError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
    return override


def _check_variables() -> None:
    """Refuse a variable that is nearly one of ours: it would be overlooked in silence."""
    known = {name.upper() for name in DirectorSettings.model_fields}
    for variable in os.environ:
        first = variable.removeprefix(_PREFIX).partition("__")[0]
        if variable.startswith(_PREFIX) and first not in known and variable != FILE_VARIABLE:
            close = difflib.get_close_matches(first, known, n=1, cutoff=_SIMILAR)
            if close:
                raise TerminalError(
                    f"the environment sets {variable}, which is not a setting",
                    hint=f"did you mean {variable.replace(first, close[0], 1)}?",
                )


def _explain(error: ValidationError, path: Path) -> str:
    lines = []
    for one in error.errors(include_input=False):
        place, origin = ".".join(str(part) for part in one["loc"]), _origin(one["loc"], path)
        if one["type"] == "extra_forbidden":
            known = _known(one["loc"][:-1])
            close = difflib.get_close_matches(str(one["loc"][-1]), known, n=1)
            guess = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            lines.append(f"{origin}: '{place}' is not a setting; {guess}")
        else:
            lines.append(f"{origin}: {place}: {one['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _origin(location: tuple[int | str, ...], path: Path) -> str:
    """Return who said it: the environment wins over the file."""
    said = _PREFIX + "__".join(str(part).upper() for part in location)
    in_environment = any(name.upper() in {said, said.partition("__")[0]} for name in os.environ)
    return "the environment" if in_environment else str(path)


def _known(location: tuple[int | str, ...]) -> list[str]:
    model: Any = DirectorSettings
    for part in location:
        field = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else None
    return sorted(getattr(model, "model_fields", ()))
