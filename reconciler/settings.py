"""The director's settings: read once at start, from a TOML file and the environment; the command line wins over both.

``BORGMATIC_DIRECTOR_SOURCE__URL`` sets ``url`` of the table ``[source]``. Every field has a default that is safe on one
machine; unknown keys are errors. ``docs/reference/director.toml.md`` explains each.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from schema.errors import TerminalError
from schema.scalars import Duration, parse_duration

DEFAULT_FILE = Path("/etc/borgmatic-director/director.toml")
FILE_VARIABLE = "BORGMATIC_DIRECTOR_CONFIG"
_PREFIX = "BORGMATIC_DIRECTOR_"


def _share(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        return float(value[:-1]) / 100
    return value


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
    interval: Duration = parse_duration("1m")
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

    @model_validator(mode="after")
    def _files_when_given(self) -> Self:
        if self.tls == "files" and (self.certificate_file is None or self.key_file is None):
            raise ValueError('tls = "files" needs certificate_file and key_file')
        return self


class WebTable(_Table):
    """The read-only dashboard."""

    enabled: bool = True
    address: str = "127.0.0.1:8441"
    allow_remote: bool = False
    """Let other machines reach it. It asks nobody who they are yet: only behind a proxy that does."""


class StoreTable(_Table):
    """What was observed and issued."""

    url: str = ""
    """A path; empty is ``store.sqlite`` in the state directory."""
    keep: Duration = parse_duration("400d")
    """How long runs, events and sizes are kept; logs for a quarter of it."""


class DirectorSettings(BaseSettings):
    """Everything the director reads at start."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=_PREFIX, env_nested_delimiter="__", validate_default=False
    )

    state_directory: Path = Path("/var/lib/borgmatic-director")
    borgmatic_schema: Path | None = None
    """Another borgmatic's ``config/schema.yaml``, when clients run another version than the one installed here."""
    validity: Duration = parse_duration("90d")
    """How long a signed desired state counts as fresh; renewed when half of it is gone."""
    resync: Duration = parse_duration("5m")
    source: SourceTable = SourceTable()
    listen: ListenTable = ListenTable()
    web: WebTable = WebTable()
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


def load_settings(file: Path | None = None, **overrides: Any) -> DirectorSettings:
    """Return the settings of ``file`` (or ``$BORGMATIC_DIRECTOR_CONFIG``, or the default place when it exists).

    ``overrides`` are fields, or tables as dictionaries, given on the command line.

    Raises:
        TerminalError: the file is missing, is not TOML, or holds unknown keys or unusable values.
    """
    named = file or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    path = named or DEFAULT_FILE
    values: dict[str, Any] = {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if named:
            raise TerminalError(f"there is no settings file {path}", hint="give --config a file that exists") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TerminalError(f"cannot read the settings file {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise TerminalError(f"the settings file {path} is not TOML: {error}") from None
    try:
        settings = DirectorSettings(**values)
        return settings.model_copy(
            update={name: _with(getattr(settings, name), value) for name, value in overrides.items()}
        )
    except ValidationError as error:
        raise TerminalError(_explain(error, path)) from None


def _with(current: Any, override: Any) -> Any:
    """Return ``override`` laid over ``current``; None changes nothing, tables change field by field."""
    if override is None:
        return current
    if isinstance(current, _Table):
        given = {name: value for name, value in override.items() if value is not None}
        return type(current).model_validate({**current.model_dump(), **given})
    return override


def _explain(error: ValidationError, path: Path) -> str:
    lines = []
    for one in error.errors(include_input=False):
        place = ".".join(str(part) for part in one["loc"])
        if one["type"] == "extra_forbidden":
            known = _known(one["loc"][:-1])
            close = difflib.get_close_matches(str(one["loc"][-1]), known, n=1)
            guess = f"did you mean '{close[0]}'?" if close else f"known are {', '.join(known)}"
            lines.append(f"{path}: '{place}' is not a setting; {guess}")
        else:
            lines.append(f"{path}: {place}: {one['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)


def _known(location: tuple[int | str, ...]) -> list[str]:
    model: Any = DirectorSettings
    for part in location:
        model = model.model_fields[str(part)].annotation
    return sorted(model.model_fields)
