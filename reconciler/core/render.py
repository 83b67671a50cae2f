"""One client's desired content: a borgmatic file for each backup, known_hosts files, jobs and sealed secrets.

Called by ``build`` with what ``expand`` returned. The director writes ``repositories`` and, unless the person did,
``archive_name_format``; all else is the person's own. Passphrases and secrets appear only as borgmatic credential
references.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reconciler.core import archives, emit, expand
from schema.desired import (
    MAX_DESIRED_BYTES,
    Content,
    DesiredRepository,
    DesiredSchedule,
    Job,
    ManagedFile,
    SealedSecret,
    known_hosts_path,
    secret_path,
    ssh_command,
)
from schema.resources import SECRET_REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from reconciler.core.archives import Claim
    from reconciler.core.catalogue import Located
    from reconciler.core.expand import Effective
    from schema.directories import Directories
    from schema.errors import Problem
    from schema.resources import Client, Repository, Secret, ValueFrom

SOURCES = (
    "source_directories",
    "patterns",
    "patterns_from",
    "zfs",  # borgmatic backs up the datasets that carry its user property
    "postgresql_databases",
    "mariadb_databases",
    "mysql_databases",
    "mongodb_databases",
    "sqlite_databases",
    "influxdb_databases",
    "openldap_databases",
)
"""borgmatic's options that name something to back up."""

_ENVELOPE_BYTES = 4096
"""Room for what the desired state holds around its content."""


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """What one client must have, what its jobs claim in which repository, and what is wrong."""

    content: Content
    digest: str
    claims: tuple[Claim, ...]
    problems: tuple[Problem, ...]


class Memo:
    """What the clients of one pass share: a backup's own options as text, per state directory, and schedules."""

    __slots__ = ("bodies", "schedules")

    def __init__(self) -> None:
        self.bodies: dict[tuple[int, str], str] = {}
        self.schedules: dict[tuple[int, str], DesiredSchedule] = {}


def render(client: Located[Client], backups: Sequence[Effective], *, memo: Memo | None = None) -> Rendered:
    """Return the content of ``client``, which runs ``backups``."""
    memo = Memo() if memo is None else memo
    spec = client.resource.spec
    files = [_config_file(client, effective, memo=memo) for effective in backups]
    files += _known_hosts_files(backups)
    content = Content(
        client=client.resource.metadata.name,
        directories=spec.directories,
        drift=spec.drift,
        suspend=spec.suspend,
        files=tuple(files),
        jobs=tuple(_job(client, effective, memo=memo) for effective in backups),
        secrets=tuple(_sealed_secrets(client, backups)),
    )
    claims = tuple(claim for effective in backups for claim in _claims(client, effective))
    return Rendered(content, content.digest(), claims, tuple(_bounds(client, content)))


def repository_url(repository: Located[Repository], *, client: str, backup: str) -> str:
    """Return the repository's url with ``${client}`` and ``${backup}`` filled in."""
    return repository.resource.spec.url.replace("${client}", client).replace("${backup}", backup)


# --- The borgmatic file -----------------------------------------------------------------------------------------------


def _config_file(client: Located[Client], effective: Effective, *, memo: Memo) -> ManagedFile:
    spec = client.resource.spec
    key = (id(effective), spec.directories.state)
    body = memo.bodies.get(key)
    if body is None:
        body = memo.bodies[key] = emit.document(_own_options(effective, spec.directories))
    return ManagedFile(
        place="config",
        path=file_name(effective),
        origin=effective.backup.path,
        content=emit.document(_director_options(client, effective)) + body,
    )


def file_name(effective: Effective) -> str:
    """Return the name of the backup's file in borgmatic's directory."""
    return f"{effective.name}.yaml"


def _director_options(client: Located[Client], effective: Effective) -> dict[str, JsonValue]:
    name = client.resource.metadata.name
    directories = client.resource.spec.directories
    options: dict[str, JsonValue] = {
        "repositories": [
            _repository(
                repository,
                effective,
                directories=directories,
                url=repository_url(repository, client=name, backup=effective.name),
            )
            for repository in effective.repositories
        ]
    }
    if not effective.options.get("archive_name_format"):
        options["archive_name_format"] = archives.default_format(name, effective.name)
    return options


def _own_options(effective: Effective, directories: Directories) -> dict[str, JsonValue]:
    """Return the person's options with every ``{secret …}`` resolved to a reference that borgmatic understands."""
    return {
        option: _resolve(value, effective.secrets, directories=directories)
        for option, value in effective.options.items()
        if option != "repositories" and not (option == "archive_name_format" and not value)
    }


def _resolve(value: JsonValue, secrets: Mapping[str, Located[Secret]], *, directories: Directories) -> JsonValue:
    if isinstance(value, str):
        match = SECRET_REFERENCE.match(value) if value.startswith("{secret") else None
        if match is None:
            return value
        key = expand.secret_key(secrets.get(match["name"]), match["key"])
        return value if key is None else _credential_file(secret_path(directories, match["name"], key))
    if isinstance(value, dict):
        return {key: _resolve(item, secrets, directories=directories) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, secrets, directories=directories) for item in value]
    return value


def _repository(
    repository: Located[Repository], effective: Effective, *, directories: Directories, url: str
) -> JsonValue:
    """Return one entry of borgmatic's ``repositories``, where any option counts for that repository only."""
    spec = repository.resource.spec
    entry: dict[str, JsonValue] = {
        "path": url,
        "label": repository.resource.metadata.name,
        "encryption": spec.encryption.mode,
    }
    if spec.append_only:
        entry["append_only"] = True
    if spec.quota is not None:
        entry["storage_quota"] = spec.quota
    if spec.create:
        entry["make_parent_directories"] = True
    if spec.encryption.passphrase_from is not None:
        passphrase = _credential(spec.encryption.passphrase_from, effective.secrets, directories=directories)
        if passphrase is not None:
            entry["encryption_passphrase"] = passphrase
    if url.startswith("ssh://") and (spec.ssh_key_from or spec.known_hosts or not effective.options.get("ssh_command")):
        entry["ssh_command"] = _ssh_command(repository, effective, directories=directories)
    return entry


def _ssh_command(repository: Located[Repository], effective: Effective, *, directories: Directories) -> str:
    spec = repository.resource.spec
    key_path: str | None = None
    if spec.ssh_key_from is not None:
        secret = spec.ssh_key_from.secret
        key = expand.secret_key(effective.secrets.get(secret or ""), spec.ssh_key_from.key)
        key_path = spec.ssh_key_from.file or (secret_path(directories, secret, key) if secret and key else None)
    known_hosts = (
        f"{directories.state}/{known_hosts_path(repository.resource.metadata.name)}" if spec.known_hosts else None
    )
    return ssh_command(key_path=key_path, known_hosts=known_hosts)


def _credential(source: ValueFrom, secrets: Mapping[str, Located[Secret]], *, directories: Directories) -> str | None:
    """Return ``source`` as a borgmatic credential reference; None when it dangles."""
    if source.systemd is not None:
        return f"{{credential systemd {source.systemd}}}"
    if source.container is not None:
        return f"{{credential container {source.container}}}"
    if source.file is not None:
        return _credential_file(source.file)
    key = expand.secret_key(secrets.get(source.secret or ""), source.key)
    return (
        None if source.secret is None or key is None else _credential_file(secret_path(directories, source.secret, key))
    )


def _credential_file(path: str) -> str:
    # borgmatic splits the parameters as a shell would (borgmatic.hooks.credential.parse).
    return f"{{credential file {shlex.quote(path)}}}"


# --- What goes beside it ----------------------------------------------------------------------------------------------


def _known_hosts_files(backups: Sequence[Effective]) -> Iterator[ManagedFile]:
    used = {
        repository.resource.metadata.name: repository for effective in backups for repository in effective.repositories
    }
    for name, repository in sorted(used.items()):
        lines = repository.resource.spec.known_hosts
        if lines:
            content = "".join(f"{line}\n" for line in lines)
            yield ManagedFile(place="state", path=known_hosts_path(name), origin=repository.path, content=content)


def _job(client: Located[Client], effective: Effective, *, memo: Memo) -> Job:
    spec = effective.backup.resource.spec
    name = client.resource.metadata.name
    # Constructed, not validated: every part comes from a validated model, and checking a cron expression once per job
    # of ten thousand is what would take the time.
    return Job.model_construct(
        backup=effective.name,
        file=file_name(effective),
        schedule=_schedule(client, effective, memo=memo),
        actions=tuple(spec.actions),
        repositories=tuple(
            DesiredRepository(
                name=repository.resource.metadata.name,
                url=repository_url(repository, client=name, backup=effective.name),
                encryption=repository.resource.spec.encryption.mode,
                create=repository.resource.spec.create,
                append_only=repository.resource.spec.append_only,
                quota=repository.resource.spec.quota,
                mountpoint=repository.resource.spec.mountpoint,
            )
            for repository in effective.repositories
        ),
        rpo=None if spec.objectives is None else spec.objectives.rpo,
        suspend=spec.suspend,
        drift=spec.drift or client.resource.spec.drift,
        timeout=spec.timeout,
    )


def _schedule(client: Located[Client], effective: Effective, *, memo: Memo) -> DesiredSchedule | None:
    if effective.schedule is None:
        return None
    schedule = effective.schedule.resource
    key = (id(schedule), schedule.spec.time_zone or client.resource.spec.time_zone)
    if key not in memo.schedules:
        memo.schedules[key] = DesiredSchedule.model_construct(
            name=schedule.metadata.name,
            cron=schedule.spec.cron,
            time_zone=key[1],
            jitter=schedule.spec.jitter,
            catch_up=schedule.spec.catch_up,
        )
    return memo.schedules[key]


def _sealed_secrets(client: Located[Client], backups: Sequence[Effective]) -> Iterator[SealedSecret]:
    """Yield what this client's jobs refer to, sealed to this client. What is not sealed to it, ``validate`` reports."""
    name = client.resource.metadata.name
    for secret, key in sorted({reference for effective in backups for reference in secrets_used(effective)}):
        located = next(effective.secrets[secret] for effective in backups if secret in effective.secrets)
        sealed = located.resource.spec.values[key].clients.get(name)
        if sealed is not None:
            yield SealedSecret(secret=secret, key=key, sealed=sealed)


def secrets_used(effective: Effective) -> Iterator[tuple[str, str]]:
    """Yield (secret, key) of every value that the backup's file or ssh refers to, except dangling ones."""
    references: list[tuple[str, str | None]] = list(expand.secret_references(effective.options))
    references += expand.repository_secrets(effective.repositories)
    for name, written in references:
        key = expand.secret_key(effective.secrets.get(name), written)
        if key is not None:
            yield name, key


# --- What can be wrong ------------------------------------------------------------------------------------------------


def backup_problems(effective: Effective) -> Iterator[Problem]:
    """Yield what is wrong with a backup whatever client runs it."""
    actions, options = effective.backup.resource.spec.actions, effective.options
    if archives.runs("create", actions=actions, options=options) and not any(
        _has(options, source) for source in SOURCES
    ):
        yield effective.origin().problem(
            f"backup '{effective.name}' has nothing to back up",
            code="no-source",
            hint="give borgmatic.source_directories, patterns or a database option, here or in a profile",
        )
    if archives.runs("prune", actions=actions, options=options) and not archives.keeps(options):
        yield effective.origin().problem(
            f"backup '{effective.name}' prunes but does not say what to keep",
            code="no-retention",
            hint="give keep_daily or another keep_* option, here or in a profile, or leave prune out of `actions`",
        )
    if options.get("ssh_command"):
        yield from _ssh_conflicts(effective)


def _has(options: Mapping[str, JsonValue], source: str) -> bool:
    return bool(options.get(source)) or (source == "zfs" and source in options)


def _ssh_conflicts(effective: Effective) -> Iterator[Problem]:
    for repository in effective.repositories:
        name = repository.resource.metadata.name
        if repository.resource.spec.ssh_key_from is not None or repository.resource.spec.known_hosts:
            yield effective.origin("ssh_command").problem(
                f"backup '{effective.name}' gives an ssh_command, and repository '{name}' gives "
                "sshKeyFrom or knownHosts: only one of them can hold",
                code="conflicting-ssh-command",
                hint="leave ssh_command out",
            )


def _claims(client: Located[Client], effective: Effective) -> Iterable[Claim]:
    name = client.resource.metadata.name
    for repository in effective.repositories:
        url = repository_url(repository, client=name, backup=effective.name)
        yield archives.claim(url=url, repository=repository.resource.metadata.name, client=name, effective=effective)


def _bounds(client: Located[Client], content: Content) -> Iterator[Problem]:
    # JSON escapes make text at most six times as long; only a content that may be too large is measured.
    size = sum(len(file.content) for file in content.files) + sum(len(secret.sealed) for secret in content.secrets)
    if size * 6 + len(content.jobs) * 4096 < MAX_DESIRED_BYTES:
        return
    size = len(content.model_dump_json().encode()) + _ENVELOPE_BYTES
    if size > MAX_DESIRED_BYTES:
        yield client.problem(
            ("metadata", "name"),
            f"the desired state of client '{content.client}' has {size} bytes; {MAX_DESIRED_BYTES} are allowed",
            code="too-large",
            hint="select fewer backups for this client, or shorten their lists (exclude_from reads a file)",
        )
