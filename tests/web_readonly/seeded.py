"""A store as a director with twenty clients has it on an ordinary morning, written by the real store.

Something of everything: running, failed, warned, lost, overdue, drifted, refused, stale, away, pending, held, stalled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from reconciler.core.issue import BackupRow, ClientRow, Issued
from reconciler.core.lockout import LockoutRow
from reconciler.store import Store
from schema.desired import Content, DesiredRepository, DesiredSchedule, Job, ManagedFile, SealedSecret
from schema.directories import Directories
from schema.errors import Problem, Severity
from schema.hiding import diff_files
from schema.observed import (
    Archive,
    ArchivesSeen,
    ClientEvent,
    Drift,
    DriftKind,
    JobState,
    LogLine,
    Outcome,
    Refusal,
    Report,
    RepositoryStatistics,
    RunFinished,
    RunLog,
    RunProgress,
    RunStarted,
    StateReport,
    Trigger,
    Versions,
)
from schema.status import Condition, ConditionType, Hold, RevisionStatus, SourceStatus, TokenStatus
from tests.web_readonly.seeded_contents import contents_of
from tests.web_readonly.seeded_history import changed, definition, excerpt, seed_growth

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 23, 7, 42, 10, tzinfo=UTC)
CANARY = "canary-7f3a9c51"
"""Stands in every column that a secret could stand in, and may be in no response."""

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
REVISIONS = [hashlib.sha256(f"revision {number}".encode()).hexdigest()[:40] for number in range(8)]
NAMES = (
    *(f"web-{number}" for number in range(1, 9)),
    *(f"db-{number}" for number in range(1, 5)),
    *(f"app-{number}" for number in range(1, 5)),
    "mail-1",
    "mail-2",
    "build-1",
    "monitor-1",
)
OWN = {"web": "web", "db": "postgresql", "app": "apps", "mail": "mail"}
SEALED = "bd1-sealed." + CANARY
BEHIND = {"app-2", "build-1"}
"""Have not applied what was issued to them: the first refuses it, the second is slow."""
OLD_DIGEST = "sha256:" + "0" * 64

ENVELOPE = (
    '{"payloadType":"application/vnd.borgmatic-director.desired-state.v1+json","payload":"%s",'
    '"signatures":[{"keyid":"SHA256:Ku8iQ2vVd4dXo0mTjQ0rI0ZtV8xq3yEoYhB6bq5nW2c","sig":"bm90IGEgc2lnbmF0dXJl"}]}'
)
CONFIGURATION = """\
repositories:
  - path: {url}
    label: vault
    encryption: repokey-blake2
    encryption_passphrase: "{{credential file /var/lib/borgmatic-director-client/secrets/vault.passphrase}}"
archive_name_format: "{client}.{backup}.{{now:%Y-%m-%dT%H:%M:%S}}"
compression: zstd,6
keep_daily: 7
keep_weekly: 4
keep_monthly: 6
source_directories:
  - /etc
  - /root
  - /usr/local
"""


def url(client: str) -> str:
    return f"ssh://borg@vault.example:2222/./fleet/{client}"


def public_key(client: str) -> str:
    return f"bd1-client.{hashlib.sha256(client.encode()).hexdigest()[:43]}"


def backups_of(client: str) -> list[str]:
    return ["system", *filter(None, [OWN.get(client.partition("-")[0])])]


def run_id(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def content_of(client: str) -> Content:
    jobs = tuple(
        Job(
            backup=backup,
            file=f"{backup}.yaml",
            schedule=DesiredSchedule(name="nightly", cron="0 1 * * *", time_zone="Europe/Berlin"),
            actions=("create", "prune", "compact"),
            repositories=(DesiredRepository(name="vault", url=url(client), encryption="repokey-blake2"),),
        )
        for backup in backups_of(client)
    )
    files = tuple(
        ManagedFile(
            place="config",
            path=f"{backup}.yaml",
            origin=f"backups/{backup}.yaml",
            content=CONFIGURATION.format(url=url(client), client=client, backup=backup)
            + f"mariadb_databases:\n  - name: shop\n    password: {CANARY}\n",
        )
        for backup in backups_of(client)
    )
    return Content.model_construct(
        client=client,
        directories=Directories(),
        drift="heal",
        suspend=False,
        files=files,
        jobs=jobs,
        secrets=(SealedSecret.model_construct(secret="vault", key="passphrase", sealed=SEALED),),
    )


@dataclass
class Reports:
    """The outbox of one client."""

    items: list[tuple[int, Report]]

    def add(self, *reports: Report) -> None:
        for report in reports:
            self.items.append((len(self.items) + 1, report))


# --- The source -------------------------------------------------------------------------------------------------------

_SUBJECTS = (
    ("Ada Novak", "Start with the fleet's machines"),
    ("Ada Novak", "vault: one repository for each client"),
    ("Jon Berg", "mail: keep six months"),
    ("Mira Oduya", "web-9 is gone"),
    ("Jon Berg", "postgresql: back up the shop's database"),
    ("Ada Novak", "All machines: exclude caches"),
    ("Mira Oduya", "Move to the new vault"),
    ("Jon Berg", "Clean up old backups"),
)
PROBLEMS = (
    Problem(
        code="dangling-reference",
        message="backup 'mail' names repository 'vualt', which does not exist",
        hint="did you mean 'vault'?",
        path="backups/mail.yaml",
        line=12,
        column=18,
        excerpt=excerpt(
            10, "spec:", "  clients: {matchLabels: {role: mail}}", "  repositories: [vualt]", "  schedule: nightly"
        ),
    ),
    Problem(
        code="unknown-option",
        message="'exclude_cache' is no option of borgmatic",
        hint="did you mean 'exclude_caches'?",
        path="backups/web.yaml",
        line=31,
        column=5,
        excerpt=excerpt(
            29,
            "  borgmatic:",
            "    source_directories: [/etc, /var/www]",
            "    exclude_cache: true",
            "    mariadb_databases:",
            "      - name: shop",
        ),
    ),
    Problem(
        severity=Severity.WARNING,
        code="unused-profile",
        message="profile 'database' is used by no backup",
        path="profiles/database.yaml",
        line=1,
        column=1,
        excerpt=excerpt(1, "apiVersion: borgmatic.director/v1", "kind: Profile", "metadata: {name: database}"),
    ),
)


async def seed_source(store: Store, *, now: datetime = NOW) -> None:
    """The newest revision is held, one before it was stalled, and an older one is published."""
    outcomes = ["superseded"] * 4 + ["published", "published", "stalled", "held"]
    for number, (revision, (author, subject), outcome) in enumerate(zip(REVISIONS, _SUBJECTS, outcomes, strict=True)):
        seen = now - (7 - number) * DAY + timedelta(hours=1)
        seen = now - 25 * timedelta(minutes=1) if outcome == "held" else seen
        await store.record_revision(
            RevisionStatus(
                revision=revision,
                author=author,
                subject=subject,
                committed=seen - timedelta(minutes=2),
                seen=seen,
                outcome=outcome,  # type: ignore[arg-type]
                reason={"stalled": "InvalidSource", "held": "MassChangeHeld"}.get(outcome, ""),
                message={"stalled": "2 errors", "held": "9 of 34 backups would go"}.get(outcome, ""),
                changed_clients=0 if outcome in {"stalled", "held"} else 20 - number,
                summary="" if outcome == "stalled" else "backup system changed on web-1, web-2",
                changes=() if outcome == "stalled" else changed("system", "web-1", "web-2"),
            ),
            problems=PROBLEMS if outcome == "stalled" else (),
        )
    await store.set_source(
        SourceStatus(
            url=f"https://deploy:{CANARY}@git.example/ops/backups.git",
            branch="main",
            path="fleet",
            head=REVISIONS[7],
            revision=REVISIONS[5],
            published=now - 2 * DAY,
            fetched=now - timedelta(seconds=38),
            hold=Hold(
                revision=REVISIONS[7],
                reason="MassChangeHeld",
                message="9 of 34 backups would go (more than a fifth): mail on mail-1, mail-2; web on web-1 to web-7",
                since=now - 25 * timedelta(minutes=1),
            ),
            problems=PROBLEMS[2:],
        )
    )
    await store.set_conditions(
        "source",
        [
            Condition(
                type=ConditionType.READY,
                status="True",
                reason="Published",
                message=f"revision {REVISIONS[5][:12]} is published",
                last_transition_time=now - 2 * DAY,
            ),
            Condition(
                type=ConditionType.STALLED,
                status="True",
                reason="MassChangeHeld",
                message="waits for a person",
                last_transition_time=now - 25 * timedelta(minutes=1),
            ),
        ],
    )


# --- The clients ------------------------------------------------------------------------------------------------------


async def seed_clients(store: Store, *, now: datetime = NOW, names: tuple[str, ...] = NAMES) -> None:
    """Published, issued, and reported."""
    await seed_former(store, now=now, names=names)
    await store.publish(
        clients=[
            ClientRow(
                name=name,
                public_key=public_key(name),
                labels={"role": name.partition("-")[0], "site": "north" if name[-1] in "1357" else "south"},
                origin=f"clients/{name}.yaml",
                suspended=name == "build-1",
            )
            for name in names
        ],
        backups=[
            BackupRow(
                client=name,
                backup=backup,
                origin=f"backups/{backup}.yaml",
                cron="0 1 * * *",
                time_zone="Europe/Berlin",
                rpo=None if backup == "apps" and name == "app-4" else 26 * 3600,
                suspended=name == "build-1",
                repositories=(
                    {"name": "vault", "url": url(name), "encryption": "repokey-blake2"},
                    *(
                        [{"name": "cold", "url": "/mnt/cold/borg", "encryption": "repokey-blake2"}]
                        if backup == "postgresql"
                        else []
                    ),
                ),
            )
            for name in names
            for backup in backups_of(name)
        ],
        issued=[issued(name, now=now) for name in names],
        removed_clients=[],
        removed_backups=[],
        definitions=[definition(backup) for backup in ("system", *OWN.values())],
        at=now - 7 * DAY,
    )
    for number, name in enumerate(names):
        await seed_client(store, name, number=number, now=now)


async def seed_former(store: Store, *, now: datetime, names: tuple[str, ...]) -> None:
    """What those have applied who do not follow: the newest was issued over it."""
    for name in BEHIND & set(names):
        former, at = issued(name, now=now), now - 4 * DAY
        files = tuple(
            one.model_copy(update={"content": one.content.replace("keep_daily: 7\n", "keep_daily: 14\n")})
            for one in content_of(name).files
        )
        kept = replace(
            former,
            generation=int(at.timestamp() * 1000),
            digest=OLD_DIGEST,
            revision=REVISIONS[4],
            content=content_of(name).model_copy(update={"files": files}),
        )
        await store.publish(clients=[], backups=[], issued=[kept], removed_clients=[], removed_backups=[], at=at)
        report = StateReport(at=at, generation=kept.generation, digest=OLD_DIGEST, revision=REVISIONS[4])
        await store.ingest(
            client=name, public_key=public_key(name), epoch="f" * 32, items=[(1, report)], through=1, received=at
        )


def issued(name: str, *, now: datetime) -> Issued:
    content = content_of(name)
    return Issued(
        client=name,
        audience=public_key(name),
        generation=int((now - 2 * DAY).timestamp() * 1000),
        digest="sha256:" + hashlib.sha256(name.encode()).hexdigest(),
        revision=REVISIONS[5],
        issued=now - 2 * DAY,
        expires=now + 28 * DAY,
        envelope=(ENVELOPE % (CANARY * 200)).encode(),
        content=content,
    )


async def seed_client(store: Store, name: str, *, number: int, now: datetime) -> None:
    """One client's session and outbox."""
    if name == "monitor-1":
        return
    key = public_key(name)
    away = name == "web-3"
    last = now - 9 * HOUR if away else now - timedelta(seconds=number)
    await store.connected(client=name, public_key=key, address=f"10.20.0.{10 + number}", now=last)
    if away:
        await store.disconnected(client=name, public_key=key, now=last)
    reports = Reports([])
    for place, backup in enumerate(backups_of(name)):
        add_runs(reports, name, backup, offset=timedelta(minutes=3 * number + 17 * place), now=now)
    reports.add(state_of(name, at=last, now=now))
    reports.add(ClientEvent(at=now - 2 * DAY, reason="Applied", message=f"applied revision {REVISIONS[5][:12]}"))
    if name == "app-3":
        healed = state_of(name, at=last, now=now).drift[0]
        message = f"{healed.message}; it was put back"
        reports.add(ClientEvent(at=now - 7 * HOUR, reason="Healed", message=message, detail=healed.diff))
    await store.ingest(
        client=name, public_key=key, epoch="0" * 32, items=reports.items, through=len(reports.items), received=now
    )
    if name == "db-2":
        await store.progress(
            client=name,
            progress=RunProgress(
                at=now - timedelta(seconds=1),
                run=run_id(name, "postgresql", "now"),
                backup="postgresql",
                phase="create",
                files=182_339,
                original_size=41_200_331_776,
                deduplicated_size=1_920_114_688,
                path="/var/lib/postgresql/16/main/base/16402/2619",
                percent=63.0,
            ),
        )


def state_of(name: str, *, at: datetime, now: datetime) -> StateReport:
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    behind = name in BEHIND
    drift: tuple[Drift, ...] = ()
    if name in {"web-5", "app-3"}:
        wanted = CONFIGURATION.format(url=url(name), client=name, backup="system")
        found = wanted.replace("keep_daily: 7\n", "keep_daily: 2\n").replace("  - /root\n", "")
        drift = (
            Drift(
                kind=DriftKind.CHANGED,
                subject="/etc/borgmatic.d/system.yaml",
                backup="system",
                message="/etc/borgmatic.d/system.yaml was edited",
                diff=diff_files(wanted.encode(), found.encode(), name="system.yaml"),
                detected=now - timedelta(minutes=7),
                healed=name == "app-3",
            ),
            Drift(
                kind=DriftKind.UNMANAGED,
                subject="/etc/borgmatic.d/old.yaml",
                message="/etc/borgmatic.d/old.yaml is not managed by the director",
                detected=now - 5 * DAY,
                healed=name == "app-3",
            ),
        )
    refusal = None
    if name == "app-2":
        refusal = Refusal(
            code="policy-denied",
            message="the machine's policy does not allow the option 'commands' of backup 'apps'",
            hint='to allow it, put into client.toml on that machine: allow_options = ["commands"]',
            generation=int((now - 2 * DAY).timestamp() * 1000),
            revision=REVISIONS[5],
        )
    return StateReport(
        at=at,
        generation=int((now - (4 if behind else 2) * DAY).timestamp() * 1000),
        digest=OLD_DIGEST if behind else digest,
        revision=REVISIONS[4] if behind else REVISIONS[5],
        expires=now - HOUR if name == "mail-2" else now + 28 * DAY,
        stale=name == "mail-2",
        refusal=refusal,
        drift=drift,
        jobs=tuple(
            JobState(
                backup=backup,
                next_due=now.replace(hour=0, minute=0, second=0) + DAY + timedelta(minutes=len(name)),
                running=run_id(name, backup, "now") if (name, backup) == ("db-2", "postgresql") else None,
            )
            for backup in backups_of(name)
        ),
        versions=Versions(
            client="0.1.0", borgmatic="2.1.10", borg="1.4.0", python="3.11.7", platform="Debian GNU/Linux 12"
        ),
    )


# --- The runs ---------------------------------------------------------------------------------------------------------


def outcome_of(name: str, backup: str, days: int) -> Outcome:
    if (name, backup) == ("web-3", "web") and days < 3:
        return Outcome.FAILED
    if name == "web-6" and days == 1:
        return Outcome.LOST
    if days == 0 and (name, backup) in {("web-1", "system"), ("mail-1", "mail")}:
        return Outcome.WARNED
    if (hash_of(name, backup, days) % 29) == 0:
        return Outcome.WARNED
    return Outcome.FAILED if hash_of(name, backup, days) % 61 == 0 and days else Outcome.SUCCEEDED


def hash_of(*parts: object) -> int:
    return int(run_id(*parts), 16)


def add_runs(reports: Reports, name: str, backup: str, *, offset: timedelta, now: datetime) -> None:
    repositories = ["vault", "cold"] if backup == "postgresql" else ["vault"]
    archives: list[Archive] = []
    latest = RepositoryStatistics(repository="vault")
    base = 2_000_000_000 + hash_of(name, backup) % 60_000_000_000
    for days in range(6, -1, -1):
        started = now.replace(hour=0, minute=4, second=0) - days * DAY + offset
        run = run_id(name, backup, days)
        outcome = outcome_of(name, backup, days)
        took = timedelta(seconds=60 + hash_of(run) % 1500)
        reports.add(
            RunStarted(
                at=started,
                run=run,
                backup=backup,
                trigger=Trigger.SCHEDULE,
                due=started,
                revision=REVISIONS[5 - days // 3],
            ),
            RunLog(run=run, first=0, lines=log_of(outcome, backup, started)),
        )
        statistics: tuple[RepositoryStatistics, ...] = ()
        if outcome in {Outcome.SUCCEEDED, Outcome.WARNED}:
            archive = Archive(
                id=run_id(run, "archive") * 2, name=f"{name}.{backup}.{started:%Y-%m-%dT%H:%M:%S}", start=started
            )
            archives.insert(0, archive)
            statistics = tuple(
                RepositoryStatistics(
                    repository=repository,
                    archive=archive.name,
                    archive_id=archive.id,
                    files=21_000 + hash_of(run) % 300_000,
                    original_size=base + (6 - days) * 31_000_000,
                    compressed_size=int(base * 0.61),
                    deduplicated_size=4_000_000 + hash_of(run) % 900_000_000,
                    duration=took.total_seconds() - 12,
                    repository_size=int(base * 0.8) + (6 - days) * 90_000_000,
                )
                for repository in repositories
            )
        latest = statistics[0] if statistics else latest
        reports.add(
            RunFinished(
                at=started + took,
                run=run,
                backup=backup,
                outcome=outcome,
                exit_code={Outcome.SUCCEEDED: 0, Outcome.WARNED: 1, Outcome.FAILED: 2}.get(outcome),
                error={
                    Outcome.FAILED: "vault: Failed to create/acquire the lock (timeout).",
                    Outcome.WARNED: "/var/www/cache: stat: [Errno 2] No such file or directory",
                }.get(outcome, ""),
                hint="look whether another program uses the repository; if none: borgmatic break-lock"
                if outcome is Outcome.FAILED
                else "",
                statistics=statistics,
                log_lines=len(log_of(outcome, backup, started)),
            )
        )
    for repository in repositories:
        unreadable = name == "db-4" and repository == "cold"
        reports.add(
            ArchivesSeen(
                at=now - 2 * HOUR,
                backup=backup,
                repository=repository,
                url=url(name) if repository == "vault" else "/mnt/cold/borg",
                available=not unreadable,
                message="/mnt/cold is not mounted" if unreadable else "",
                count=0 if unreadable else len(archives),
                archives=() if unreadable else tuple(archives),
                encryption="repokey-blake2",
            )
        )
        if archives and not unreadable:
            made = {"files": latest.files, "size": latest.original_size}
            reports.add(contents_of(name, backup, repository, archives[0], at=now - 2 * HOUR, **made))
    if (name, backup) == ("db-2", "postgresql"):
        run, started = run_id(name, backup, "now"), now - timedelta(minutes=6)
        reports.add(
            RunStarted(at=started, run=run, backup=backup, trigger=Trigger.PERSON, revision=REVISIONS[5]),
            RunLog(run=run, first=0, lines=log_of(Outcome.SUCCEEDED, backup, started)[:5]),
        )


def log_of(outcome: Outcome, backup: str, started: datetime) -> tuple[LogLine, ...]:
    lines: list[tuple[str, str]] = [
        ("info", "vault: Running actions for repository"),
        ("debug", f"/etc/borgmatic.d/{backup}.yaml: No commands to run for before_backup hook"),
        ("info", "vault: Creating archive"),
        ("debug", "BORG_PASSPHRASE=*** borg create --compression zstd,6 --exclude-caches"),
        ("info", "Creating archive at the repository"),
    ]
    if outcome is Outcome.WARNED:
        lines.append(("warning", "/var/www/cache: stat: [Errno 2] No such file or directory: '/var/www/cache'"))
    if outcome is Outcome.FAILED:
        lines += [
            ("error", "vault: Error running actions for repository"),
            ("error", "Failed to create/acquire the lock /srv/borg/fleet/lock.exclusive (timeout)."),
            ("critical", "summary: an error occurred"),
        ]
    else:
        lines += [
            ("info", "vault: Pruning archives"),
            ("info", "vault: Compacting segments"),
            ("info", "summary: done"),
        ]
    levels: dict[str, Any] = {}
    return tuple(
        LogLine(at=started + timedelta(seconds=4 * number), level=levels.get(level, level), message=message)
        for number, (level, message) in enumerate(lines)
    )


# --- Trust and the whole ----------------------------------------------------------------------------------------------


async def seed_trust(store: Store, *, now: datetime = NOW) -> None:
    """Tokens, waiting keys, one of them for a name that is taken, and a locked-out address."""
    await store.create_token(
        TokenStatus(id="5f2ac01be771", note="laptops", created=now - HOUR, expires=now + 23 * HOUR, uses_left=4),
        token_hash=CANARY,
    )
    for name, key in (("laptop-anna", "laptop-anna"), ("web-8", "a stranger")):
        await store.upsert_pending(
            public_key=public_key(key),
            name=name,
            address="10.20.4.17",
            config_directory="/etc/borgmatic.d",
            state_directory="/var/lib/borgmatic-director-client",
            now=now - timedelta(minutes=11),
        )
    await store.save_lockouts(
        [LockoutRow(address="203.0.113.9", failures=10, window_start=now - HOUR, locked_until=now + HOUR / 2)]
    )
    await store.event(
        reason="TokenCreated", message="token 5f2ac01be771 for 4 uses: laptops", at=now - HOUR, actor="operator:ada"
    )
    await store.event(reason="MassChangeHeld", message="9 of 34 backups would go", at=now, actor="director")


async def seed(path: Path, *, now: datetime = NOW) -> None:
    """Write all of it."""
    async with await Store.open(path) as store:
        await seed_source(store, now=now)
        await seed_clients(store, now=now)
        await seed_trust(store, now=now)
    seed_growth(path, now=now)
