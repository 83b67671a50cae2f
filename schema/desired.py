"""What one client must have: made by ``reconciler.core.render``, signed, sent, and followed by ``client``.

The exact bytes of a managed file are ``ManagedFile.rendered(revision)``: the director's ``build`` and ``plan``, the
client's ``apply`` and drift watch all use that one function. Annotations are not put off, as in ``resources``.
"""

import hashlib
import json
import shlex
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from schema.cron import Cron, TimeZone
from schema.directories import Directories
from schema.scalars import (
    AbsolutePath,
    Action,
    Digest,
    DriftMode,
    Duration,
    EncryptionMode,
    Generation,
    Moment,
    Name,
    Sealed,
    SecretKey,
)

PAYLOAD_TYPE = "application/vnd.borgmatic-director.desired-state.v1+json"

HEADER = "# Managed by Borgmatic Director: edit {origin} in Git instead (revision {revision}).\n"

MAX_DESIRED_BYTES = 4 * 1024 * 1024
"""The largest serialised desired state that is signed or accepted."""


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class Sent(BaseModel):
    """Base of what travels: frozen; unknown fields of a newer peer are ignored.

    Sent, stored and signed in snake_case; the aliases are for people and scripts, who read it inside the read model.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=False,
        serialize_by_alias=False,
        defer_build=True,
    )


def _relative_path(text: str) -> str:
    if ".." in text:
        raise ValueError(f"'{text}' may not contain '..'")
    return text


RelativePath = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,120}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,120})?$"),
    AfterValidator(_relative_path),
]
"""At most one folder deep, never absolute, never ``..``, never hidden."""


class ManagedFile(Sent):
    """A file that the director owns on the client."""

    place: Literal["config", "state"]
    """``config``: borgmatic's directory, flat. ``state``: the client's state directory (known_hosts files)."""
    path: RelativePath
    origin: str
    """Where it comes from in Git, ``backups/web.yaml``: without a line, so that a comment above changes no machine."""
    content: str
    mode: int = Field(default=0o600, ge=0, le=0o777)

    def rendered(self, revision: str) -> bytes:
        """Return the exact bytes on disk: a header naming the origin and revision, then the content."""
        return (HEADER.format(origin=self.origin, revision=revision[:12]) + self.content).encode()


class DesiredRepository(Sent):
    """A Borg repository as this client's jobs use it: placeholders are filled in."""

    name: Name
    url: str
    """Checked by the client's local policy, which says what is wrong with it; a parser could only refuse."""
    encryption: EncryptionMode
    create: bool = False
    append_only: bool = False
    quota: str | None = None
    mountpoint: AbsolutePath | None = None


class DesiredSchedule(Sent):
    """When a job runs, with everything resolved."""

    name: Name
    cron: Cron
    time_zone: TimeZone
    jitter: Duration = 0
    catch_up: bool = True


class Job(Sent):
    """One backup on this client: one borgmatic configuration file and when to run it."""

    backup: Name
    file: RelativePath
    """The ``ManagedFile`` of place ``config``, always ``<backup>.yaml``."""
    schedule: DesiredSchedule | None
    actions: Annotated[tuple[Action, ...], Field(min_length=1)]
    """Never empty: borgmatic without an action runs its defaults, prune among them."""
    repositories: tuple[DesiredRepository, ...]
    rpo: Duration | None = None
    suspend: bool = False
    drift: DriftMode = "heal"
    timeout: Duration | None = None


class SealedSecret(Sent):
    """One sealed value, to be opened into ``<state>/secrets/<secret>.<key>``."""

    secret: Name
    key: SecretKey
    sealed: Sealed


class Content(Sent):
    """What the source asks of one client, without when and by whom it was issued: the part that has a digest."""

    client: Name
    directories: Directories
    drift: DriftMode = "heal"
    suspend: bool = False
    files: tuple[ManagedFile, ...] = ()
    jobs: tuple[Job, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()

    def digest(self) -> Digest:
        """Return the SHA-256 of the canonical JSON: equal content has equal digests on every machine."""
        return "sha256:" + hashlib.sha256(_CANONICAL(self.model_dump(mode="json")).encode()).hexdigest()


class DesiredState(Sent):
    """The payload of the signed envelope: content for one audience."""

    audience: str
    """The client's public key text (``bd1-client.…``): nobody else accepts it."""
    generation: Generation
    revision: str
    issued: Moment
    expires: Moment
    digest: Digest
    content: Content


def runtime_directory(state: str, backup: str) -> str:
    """Return where borgmatic puts dumps of databases while a backup runs; ``state`` is the client's state directory.

    Borg before 1.4 keeps it in the names of the dumps, and `borgmatic restore` has to be told.
    """
    # borgmatic takes every folder called borgmatic-… on the way for a random name of its own.
    return f"{state}/runtime/of-{backup}"


def secret_path(directories: Directories, secret: str, key: str) -> str:
    """Return where the client keeps an opened value."""
    return f"{directories.state}/secrets/{secret}.{key}"


def known_hosts_path(repository: str) -> str:
    """Return the path, relative to the state directory, of a repository's managed known_hosts file."""
    return f"known_hosts/{repository}"


def ssh_command(*, key_path: str | None, known_hosts: str | None) -> str:
    """Return the only ``ssh_command`` that the director writes and that local policy knows to be harmless.

    Batch mode never prompts; a managed known_hosts makes host keys strict; without one ssh's own files decide.
    """
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ServerAliveInterval=30", "-o", "ServerAliveCountMax=5"]
    if key_path is not None:
        words += ["-o", "IdentitiesOnly=yes", "-i", key_path]
    if known_hosts is not None:
        words += [
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            f"UserKnownHostsFile={known_hosts}",
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]
    return shlex.join(words)
