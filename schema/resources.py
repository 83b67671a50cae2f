"""The kinds people write: one model per kind, in the envelope of Kubernetes. Frozen, and unknown fields are errors.

``reconciler.core.load`` makes these from YAML; ``json/v1/`` is generated from them (``make schemas``). To add a kind,
write its spec and resource here, add it to ``KINDS``, and follow the recipe in CONTRIBUTING.md.

Annotations are not put off here: pydantic needs each of them at once, and would have to compile it from its text.
"""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from schema.cron import Cron, TimeZone
from schema.directories import Directories, Written
from schema.scalars import (
    AbsolutePath,
    Action,
    DriftMode,
    Duration,
    EncryptionMode,
    LabelKey,
    LabelValue,
    Name,
    RepositoryUrl,
    Sealed,
    SecretKey,
)

API_VERSION = "borgmatic.director/v1"


def _none() -> list[Any]:
    """Return what ``list`` would. pydantic asks for a factory's signature, and reads that of ``list`` from its text."""
    return []


class Metadata(Written):
    """Name, labels (selectable) and annotations (free notes, never interpreted)."""

    name: Name
    labels: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    annotations: dict[LabelKey, Annotated[str, StringConstraints(max_length=4096)]] = Field(default_factory=dict)


class Selector(Written):
    """Selects by labels: every pair must match. An empty selector is refused, for it would select everybody."""

    match_labels: dict[LabelKey, LabelValue] = Field(min_length=1)


Clients = Annotated[list[Name], Field(min_length=1)] | Selector
"""Names, or ``{matchLabels: …}``."""


class ValueFrom(Written):
    """Where a client finds a secret value: exactly one of the four. The director never sees the value."""

    secret: Name | None = Field(default=None, description="A Secret of this source.")
    key: SecretKey | None = Field(
        default=None, description="Which value of the Secret; may be left out when it has only one."
    )
    file: AbsolutePath | None = Field(default=None, description="A file on the client.")
    systemd: SecretKey | None = Field(default=None, description="A systemd credential of the client's service.")
    container: SecretKey | None = Field(default=None, description="A container secret on the client.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [name for name in ("secret", "file", "systemd", "container") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give exactly one of secret, file, systemd, container")
        if self.key is not None and self.secret is None:
            raise ValueError("key goes with secret")
        return self


class FileFrom(Written):
    """As ``ValueFrom``, for things that must be files on the client (private keys)."""

    secret: Name | None = None
    key: SecretKey | None = None
    file: AbsolutePath | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.secret is None) == (self.file is None):
            raise ValueError("give exactly one of secret, file")
        if self.key is not None and self.secret is None:
            raise ValueError("key goes with secret")
        return self


# --- Client ---------------------------------------------------------------------------------------------------------


class ClientSpec(Written):
    """``publicKey`` is the approval: commit it, and the machine that holds the key is let in."""

    public_key: Annotated[str, StringConstraints(pattern=r"^bd1-client\.[A-Za-z0-9_-]{86}$")] | None = Field(
        default=None, description="As `director-client fingerprint` or `director clients pending` prints it."
    )
    suspend: bool = Field(default=False, description="Keep the configuration, run nothing.")
    drift: DriftMode = Field(default="heal", description="What happens to managed files that were edited by hand.")
    time_zone: TimeZone = "UTC"
    directories: Directories = Directories()


# --- Repository -----------------------------------------------------------------------------------------------------


class Encryption(Written):
    """Borg's encryption mode, and where each client finds the passphrase."""

    mode: EncryptionMode = "repokey-blake2"
    passphrase_from: ValueFrom | None = None

    @model_validator(mode="after")
    def _passphrase_where_needed(self) -> Self:
        if self.mode == "none" and self.passphrase_from is not None:
            raise ValueError("encryption mode 'none' takes no passphrase")
        if self.mode != "none" and self.passphrase_from is None:
            raise ValueError(f"encryption mode '{self.mode}' needs passphraseFrom")
        return self


class RepositorySpec(Written):
    """A Borg repository that backups may name."""

    url: RepositoryUrl
    borg: Literal["1"] = Field(default="1", description="The major version of Borg that made the repository.")
    encryption: Encryption
    ssh_key_from: FileFrom | None = Field(default=None, description="The private key for ssh:// urls.")
    known_hosts: list[Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f]+$", max_length=2_000)]] = Field(
        default_factory=_none, description="Lines of known_hosts; when given, only these host keys are accepted."
    )
    create: bool = Field(
        default=False,
        description="Create the repository on first use when it does not exist; one that was used is not made anew.",
    )
    append_only: bool = Field(default=False, description="Create it append-only.")
    quota: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}[KMGT]?$")] | None = Field(
        default=None, description="Storage quota at creation, e.g. 500G."
    )
    mountpoint: AbsolutePath | None = Field(default=None, description="Refuse to run while nothing is mounted here.")

    @model_validator(mode="after")
    def _ssh_only_with_ssh(self) -> Self:
        if not self.url.startswith("ssh://") and (self.ssh_key_from is not None or self.known_hosts):
            raise ValueError("sshKeyFrom and knownHosts go with an ssh:// url")
        if self.mountpoint is not None and self.url.startswith("ssh://"):
            raise ValueError("mountpoint goes with a path, not with an ssh:// url")
        return self


# --- Schedule -------------------------------------------------------------------------------------------------------


class ScheduleSpec(Written):
    """When; reusable by many backups."""

    cron: Cron
    time_zone: TimeZone | None = Field(default=None, description="Default: the client's time zone.")
    jitter: Duration = Field(
        default=0, description="Each client starts up to this much later, always by the same amount."
    )
    catch_up: bool = Field(default=True, description="Run once after a downtime in which at least one run was due.")


# --- Backup and Profile ---------------------------------------------------------------------------------------------

Borgmatic = Annotated[
    dict[str, JsonValue],
    Field(
        description=(
            "Options of borgmatic under their own names (https://torsion.org/borgmatic/docs/reference/configuration/), "
            "checked by the director against the installed borgmatic; `repositories` and `encryption_*` belong into "
            'Repository resources. A whole value may be "{secret NAME}" or "{secret NAME KEY}".'
        ),
        examples=[{"source_directories": ["/etc"], "exclude_caches": True}],
    ),
]
"""Any option borgmatic documents, under its own name; checked against the installed borgmatic's schema."""

Layering = dict[Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")], Literal["merge", "replace"]]
"""How one option of a layer meets the layers below it. Default ``merge``: mappings merge key by key, lists append what
they lack, everything else replaces."""


class ProfileSpec(Written):
    """A borgmatic layer shared by backups."""

    borgmatic: Borgmatic
    layering: Layering = Field(default_factory=dict)


class Objectives(Written):
    """What the backup promises."""

    rpo: Duration = Field(description="Recovery point objective: the newest archive may be at most this old.")


class BackupSpec(Written):
    """What is backed up, on which clients, to which repositories, when."""

    clients: Clients
    repositories: list[Name] = Field(min_length=1)
    schedule: Name | None = Field(default=None, description="Without one, runs only when a person starts it.")
    profiles: list[Name] = Field(default_factory=_none, description="Layers below `borgmatic:`, in order.")
    borgmatic: Borgmatic = Field(default_factory=dict)
    layering: Layering = Field(default_factory=dict)
    actions: list[Action] = Field(default=["create", "prune", "compact", "check"], min_length=1)
    objectives: Objectives | None = None
    suspend: bool = False
    drift: DriftMode | None = Field(default=None, description="Overrides the client's.")
    timeout: Duration | None = Field(default=None, description="A run that takes longer is ended. Default: none.")


# --- Secret ---------------------------------------------------------------------------------------------------------

EscrowKey = Annotated[str, StringConstraints(pattern=r"^bd1-escrow\.[A-Za-z0-9_-]{43}$")]


class SealedValue(Written):
    """One value, sealed once per client, and once per escrow key."""

    clients: dict[Name, Sealed] = Field(default_factory=dict)
    escrow: dict[Name, Sealed] = Field(default_factory=dict)


class SecretSpec(Written):
    """Named values that only the named clients can read. `director seal` writes them."""

    clients: Clients | None = Field(
        default=None, description="Who may read it: `director seal` and `reseal` seal to these."
    )
    escrow: dict[Name, EscrowKey] = Field(
        default_factory=dict, description="Public escrow keys: who holds a private one can reseal for a new client."
    )
    values: dict[SecretKey, SealedValue] = Field(default_factory=dict)


# --- The envelope ---------------------------------------------------------------------------------------------------


class Resource(Written):
    """``apiVersion``, ``kind``, ``metadata``, ``spec``. Subclasses fix kind and spec."""

    api_version: Literal["borgmatic.director/v1"]
    metadata: Metadata

    kind: str
    spec: Any

    folder: ClassVar[str]
    """Where `director init` puts resources of this kind; only a habit, any layout loads."""

    @property
    def name(self) -> str:
        """The resource's name, unique within its kind."""
        return self.metadata.name


class Client(Resource):
    """A machine that runs borgmatic."""

    kind: Literal["Client"]
    spec: ClientSpec = ClientSpec()
    folder: ClassVar[str] = "clients"


class Repository(Resource):
    """A Borg repository."""

    kind: Literal["Repository"]
    spec: RepositorySpec
    folder: ClassVar[str] = "repositories"


class Schedule(Resource):
    """When backups run."""

    kind: Literal["Schedule"]
    spec: ScheduleSpec
    folder: ClassVar[str] = "schedules"


class Backup(Resource):
    """What is backed up, where and when."""

    kind: Literal["Backup"]
    spec: BackupSpec
    folder: ClassVar[str] = "backups"


class Profile(Resource):
    """A shared borgmatic layer."""

    kind: Literal["Profile"]
    spec: ProfileSpec
    folder: ClassVar[str] = "profiles"


class Secret(Resource):
    """Sealed values."""

    kind: Literal["Secret"]
    spec: SecretSpec
    folder: ClassVar[str] = "secrets"


KINDS: dict[str, type[Resource]] = {
    kind.__name__: kind for kind in (Client, Repository, Schedule, Backup, Profile, Secret)
}
"""Every kind by its name: the one list that the loader, the JSON Schemas and the help texts follow."""

SECRET_REFERENCE = re.compile(r"^\{secret +(?P<name>[a-z0-9-]+)(?: +(?P<key>[A-Za-z0-9_-]+))?\}$")
"""``"{secret NAME}"`` or ``"{secret NAME KEY}"`` as a whole value inside ``borgmatic:``; beside borgmatic's own
``{credential …}``. Rendered as ``{credential file PATH}``."""
