"""A source as a firm with many servers would have it: a folder for each client, four backups in each, shared the rest.

Used by the benchmarks of the core. Every file differs from every other; what is written is what people write.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from reconciler.core.catalogue import SourceFile
from reconciler.source_files import blob_id
from schema.envelope import ClientIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator

PER_CLIENT: Final = 4
_PURPOSES: Final = ("system", "home", "www", "databases")
_SITES: Final = ("berlin", "oslo", "porto", "vienna")

_CLIENT = """\
# yaml-language-server: $schema=../../.schema/all.json
apiVersion: borgmatic.director/v1
kind: Client
metadata:
  name: {name}
  labels: {{site: {site}, role: web}}
spec:
  publicKey: {key}
  timeZone: Europe/Berlin
"""

_BACKUP = """\
# yaml-language-server: $schema=../../.schema/all.json
apiVersion: borgmatic.director/v1
kind: Backup
metadata:
  name: {name}
  labels:
    purpose: {purpose}
spec:
  clients: [{client}]
  repositories: [{site}, offsite]
  schedule: nightly
  profiles: [retention]
  objectives:
    rpo: 26h
  borgmatic:
    source_directories:
      - /srv/{name}
      - /var/lib/{name}
    exclude_patterns:
      - "*/.cache"
      - /srv/{name}/tmp
    compression: zstd,{level}
    keep_monthly: {monthly}
"""

_SHARED = {
    "schedules/nightly.yaml": """\
apiVersion: borgmatic.director/v1
kind: Schedule
metadata: {name: nightly}
spec: {cron: "30 2 * * *", jitter: 2h}
""",
    "profiles/retention.yaml": """\
apiVersion: borgmatic.director/v1
kind: Profile
metadata: {name: retention}
spec:
  borgmatic:
    exclude_caches: true
    keep_daily: 7
    keep_weekly: 4
    checks:
      - name: repository
        frequency: 2 weeks
""",
    **{
        f"repositories/{name}.yaml": f"""\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {{name: {name}}}
spec:
  url: ssh://borg@{name}.example:22/./${{client}}/${{backup}}
  encryption:
    mode: repokey-blake2
    passphraseFrom: {{file: /etc/borg/passphrase}}
"""
        for name in (*_SITES, "offsite")
    },
}


def texts(backups: int) -> Iterator[tuple[str, str]]:
    """Yield path and text of each file."""
    yield from _SHARED.items()
    for number in range(0, backups, PER_CLIENT):
        client, site = f"web-{number // PER_CLIENT:05}", _SITES[number % len(_SITES)]
        key = ClientIdentity.generate().public.text
        yield f"clients/{client}/client.yaml", _CLIENT.format(name=client, site=site, key=key)
        for place in range(PER_CLIENT):
            yield backup(number + place, level=3)


def backup(number: int, *, level: int) -> tuple[str, str]:
    """Return path and text of one backup; ``level`` is what a change of it changes."""
    client, purpose = f"web-{number // PER_CLIENT:05}", _PURPOSES[number % PER_CLIENT]
    name = f"{client}-{purpose}"
    text = _BACKUP.format(
        name=name,
        purpose=purpose,
        client=client,
        site=_SITES[number // PER_CLIENT * PER_CLIENT % len(_SITES)],
        level=level,
        monthly=1 + number % 12,
    )
    return f"clients/{client}/{purpose}.yaml", text


def files(backups: int) -> tuple[SourceFile, ...]:
    """Return the same as files of a source."""
    return tuple(SourceFile(path, blob_id(text.encode()), text.encode()) for path, text in sorted(texts(backups)))
