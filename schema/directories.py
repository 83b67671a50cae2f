"""Where a client keeps things, which people write, desired states carry and a client's own settings say.

It stands apart from ``schema.resources`` because every client has it in memory, and no client has the kinds.
Annotations are not put off here, as there.
"""

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from schema.scalars import AbsolutePath

DEFAULT_CONFIG_DIRECTORY = "/etc/borgmatic.d"
DEFAULT_STATE_DIRECTORY = "/var/lib/borgmatic-director-client"


class Written(BaseModel):
    """Base of everything people write: camelCase in YAML, snake_case in Python."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        # Checks are compiled when they are first used: no process uses all, and most are used inside of others.
        defer_build=True,
    )


class Directories(Written):
    """Where this client keeps things, when not at the default places. Must equal what its own client.toml says."""

    config: AbsolutePath = Field(default=DEFAULT_CONFIG_DIRECTORY, description="borgmatic's configuration files.")
    state: AbsolutePath = Field(default=DEFAULT_STATE_DIRECTORY, description="Keys, secrets, outbox.")
