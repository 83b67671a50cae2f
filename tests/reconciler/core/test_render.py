"""One client's content: the borgmatic file that the machine gets, and what goes beside it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from reconciler.core import expand, render
from reconciler.core.build import Build
from reconciler.core.catalogue import SourceFile
from schema.desired import MAX_DESIRED_BYTES, Content, DesiredSchedule
from schema.errors import Problem
from tests.reconciler.core.written import (
    BLOCK,
    backup,
    built,
    catalogue,
    client,
    content_of,
    repository,
    resource,
    secret,
    small,
)

KNOWN = "nas.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFakeFakeFakeFakeFakeFakeFakeFakeFakeFakeFake"


def content(*sources: SourceFile) -> Content:
    return built_ok(*sources).contents["web-1"]


def options(*sources: SourceFile) -> dict[str, Any]:
    return content_of(built_ok(*sources), "web-1", "files.yaml")


def built_ok(*sources: SourceFile) -> Build:
    result = built(small(*sources))
    assert result.ok, result.problems
    return result


def problems(*sources: SourceFile) -> list[Problem]:
    expansion = expand.expand(catalogue(*small(*sources)))
    return [problem for effective in expansion.backups.values() for problem in render.backup_problems(effective)]


# --- The borgmatic file ---


def test_the_directors_options_come_first_and_the_persons_stay_as_written():
    nas = repository(url="/backup/${client}/${backup}", create=True, quota="5G", appendOnly=True)

    text = content(nas).files[0].content

    assert text == (
        "repositories:\n"
        "  - path: /backup/web-1/files\n"
        "    label: nas\n"
        "    encryption: none\n"
        "    append_only: true\n"
        '    storage_quota: "5G"\n'
        "    make_parent_directories: true\n"
        'archive_name_format: "web-1.files.{now:%Y-%m-%dT%H:%M:%S}"\n'
        "source_directories:\n"
        "  - /etc\n"
        "keep_daily: 7\n"
    )


def test_a_format_of_the_persons_own_stands_instead_of_the_directors():
    own = {**BLOCK, "archive_name_format": "{hostname}-{now}"}

    assert options(backup("files", borgmatic=own))["archive_name_format"] == "{hostname}-{now}"


def test_borgmatics_own_interpolation_passes_through():
    own = {**BLOCK, "source_directories": ["${HOME}/${client}"], "working_directory": "${DIR:-/srv}"}
    rendered = options(backup("files", borgmatic=own))

    assert (rendered["source_directories"], rendered["working_directory"]) == (["${HOME}/${client}"], "${DIR:-/srv}")


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ({"secret": "vault"}, "{credential file /srv/s/secrets/vault.password}"),
        ({"secret": "vault", "key": "password"}, "{credential file /srv/s/secrets/vault.password}"),
        ({"file": "/etc/borg key"}, "{credential file '/etc/borg key'}"),
        ({"systemd": "borg"}, "{credential systemd borg}"),
        ({"container": "borg"}, "{credential container borg}"),
    ],
)
def test_a_passphrase_is_a_reference_that_borgmatic_resolves(source: dict[str, str], reference: str):
    nas = repository(encryption={"mode": "repokey", "passphraseFrom": source})
    machine = client("web-1", directories={"state": "/srv/s"})

    (entry,) = options(nas, machine, secret("vault", "web-1"))["repositories"]

    assert entry["encryption_passphrase"] == reference


def test_secrets_resolve_at_any_depth():
    databases = [{"name": "shop", "password": "{secret shop}"}, {"name": "wiki", "password": "{secret both b}"}]
    own = {**BLOCK, "mariadb_databases": databases, "ntfy": {"topic": "x", "password": "{secret both a}"}}
    sources = [backup("files", borgmatic=own), secret("shop", "web-1"), secret("both", "web-1", values=["a", "b"])]

    found = options(*sources)

    state = "/var/lib/borgmatic-director-client/secrets"
    assert [each["password"] for each in found["mariadb_databases"]] == [
        f"{{credential file {state}/shop.password}}",
        f"{{credential file {state}/both.b}}",
    ]
    assert found["ntfy"] == {"topic": "x", "password": f"{{credential file {state}/both.a}}"}
    assert [(each.secret, each.key) for each in content(*sources).secrets] == [
        ("both", "a"),
        ("both", "b"),
        ("shop", "password"),
    ]


def test_ssh_uses_the_key_and_the_host_keys_that_the_repository_gives_and_nothing_else():
    nas = repository(url="ssh://borg@nas.example/./x", sshKeyFrom={"secret": "ssh"}, knownHosts=[KNOWN, "# a comment"])
    machine = client("web-1", directories={"state": "/srv/our state"})

    made = content(nas, machine, secret("ssh", "web-1", values=["key"]))
    (entry,) = options(nas, machine, secret("ssh", "web-1", values=["key"]))["repositories"]

    words = shlex.split(entry["ssh_command"])
    assert words[words.index("-i") + 1] == "/srv/our state/secrets/ssh.key"
    assert "UserKnownHostsFile=/srv/our state/known_hosts/nas" in words
    assert "StrictHostKeyChecking=yes" in words
    (known_hosts,) = (each for each in made.files if each.place == "state")
    assert (known_hosts.path, known_hosts.content) == ("known_hosts/nas", f"{KNOWN}\n# a comment\n")
    assert [(each.secret, each.key) for each in made.secrets] == [("ssh", "key")]


def test_an_ssh_command_of_the_persons_own_is_left_alone_where_the_repository_gives_no_key():
    nas = repository(url="ssh://borg@nas.example/./x")
    found = options(nas, backup("files", borgmatic={**BLOCK, "ssh_command": "ssh -p 23"}))

    assert found["ssh_command"] == "ssh -p 23"
    assert "ssh_command" not in found["repositories"][0]


# --- What goes beside it ---


def test_a_client_gets_only_the_sealed_texts_that_are_its_own_and_that_it_needs():
    own = {**BLOCK, "ntfy": {"topic": "x", "password": "{secret shared}"}}
    sources = [
        client("web-2"),
        backup("files", clients=["web-1", "web-2"], borgmatic=own),
        secret("shared", "web-1", "web-2"),
        secret("unused", "web-1", "web-2"),
    ]
    contents = built_ok(*sources).contents

    first, second = contents["web-1"].secrets, contents["web-2"].secrets
    assert [each.secret for each in first] == [each.secret for each in second] == ["shared"]
    assert first[0].sealed != second[0].sealed


@pytest.mark.parametrize(
    ("schedule", "machine", "expected"),
    [(None, "Europe/Berlin", "Europe/Berlin"), ("Asia/Tokyo", "Europe/Berlin", "Asia/Tokyo"), (None, None, "UTC")],
)
def test_a_schedule_is_in_its_own_time_zone_or_the_clients(schedule: str | None, machine: str | None, expected: str):
    zone: dict[str, Any] = {} if schedule is None else {"timeZone": schedule}
    home: dict[str, Any] = {} if machine is None else {"timeZone": machine}
    nightly = resource("Schedule", "nightly", cron="30 2 * * *", jitter="15m", catchUp=False, **zone)
    sources = [
        nightly,
        client("web-1", **home),
        backup("files", schedule="nightly"),
    ]

    assert content(*sources).jobs[0].schedule == DesiredSchedule.model_construct(
        name="nightly", cron="30 2 * * *", time_zone=expected, jitter=900, catch_up=False
    )


def test_a_job_carries_promises_pauses_and_limits_and_the_backup_decides_over_the_client():
    strict = backup("files", objectives={"rpo": "26h"}, timeout="4h", suspend=True, drift="heal", actions=["create"])
    made = content(client("web-1", drift="report", suspend=True), strict, backup("other"))

    files, other = made.jobs
    assert (files.rpo, files.timeout, files.suspend, files.drift, files.actions) == (
        93_600,
        14_400,
        True,
        "heal",
        ("create",),
    )
    assert (other.rpo, other.suspend, other.drift) == (None, False, "report")
    assert (made.suspend, made.drift) == (True, "report")


def test_content_survives_the_wire():
    made = content(
        backup("files", objectives={"rpo": "26h"}, timeout="4h", schedule="n"), resource("Schedule", "n", cron="@daily")
    )

    assert Content.model_validate_json(made.model_dump_json()) == made


def test_a_comment_or_another_place_in_the_file_changes_no_machine():
    nas = repository()
    lines = SourceFile(nas.path, "other", b"# a comment\n\n" + nas.data)

    assert content(lines).digest() == content().digest()


# --- What can be wrong ---


def test_creating_archives_of_nothing_is_an_error_where_the_options_stand():
    (problem,) = problems(backup("files", borgmatic={"keep_daily": 7, "source_directories": []}))

    assert (problem.code, problem.path) == ("no-source", "backups/files.yaml")
    assert problem.message == "backup 'files' has nothing to back up"


@pytest.mark.parametrize(
    "source",
    [
        {"patterns": ["R /etc"]},
        {"zfs": None},
        {"sqlite_databases": [{"name": "a", "path": "/a"}]},
        {"patterns_from": ["/p"]},
    ],
)
def test_whatever_borgmatic_can_back_up_is_a_source(source: dict[str, Any]):
    assert problems(backup("files", borgmatic={"keep_daily": 7, **source})) == []


def test_a_backup_that_does_not_create_needs_no_source():
    assert problems(backup("files", borgmatic={"keep_daily": 7}, actions=["prune", "check"])) == []
    assert problems(backup("files", borgmatic={"keep_daily": 7, "skip_actions": ["create"]})) == []


def test_pruning_without_retention_is_an_error_and_keep_exclude_tags_is_no_retention():
    (problem,) = problems(backup("files", borgmatic={"source_directories": ["/etc"], "keep_exclude_tags": True}))

    assert problem.code == "no-retention"
    assert "keep_daily" in problem.hint


def test_an_ssh_command_and_a_key_of_the_repository_exclude_each_other():
    nas = repository(url="ssh://borg@nas.example/./x", knownHosts=[KNOWN])
    (problem,) = problems(nas, backup("files", borgmatic={**BLOCK, "ssh_command": "ssh"}))

    assert problem.code == "conflicting-ssh-command"


def test_content_beyond_the_bounds_names_its_client():
    many = [f"/srv/{number:0100d}" for number in range(8_000)]
    profile = resource("Profile", "many", borgmatic={"exclude_patterns": many})
    backups = [backup(f"files-{number}", profiles=["many"]) for number in range(MAX_DESIRED_BYTES // 800_000)]

    result = built(small(profile, *backups))

    (problem,) = (each for each in result.problems if each.code == "too-large")
    assert "desired state of client 'web-1'" in problem.message
    assert problem.path == "clients/web-1.yaml"
    assert result.contents == {}
