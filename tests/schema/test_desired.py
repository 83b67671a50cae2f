"""What a client must have: exact bytes, stable digests, and paths that cannot leave their place."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schema.desired import (
    Content,
    DesiredRepository,
    DesiredSchedule,
    DesiredState,
    Job,
    ManagedFile,
    SealedSecret,
    known_hosts_path,
    secret_path,
    ssh_command,
)
from schema.directories import Directories

WIRE: dict[str, Any] = {
    "client": "web-1",
    "directories": {"config": "/etc/borgmatic.d", "state": "/srv/state"},
    "files": [{"place": "config", "path": "files.yaml", "origin": "backups/files.yaml", "content": "a: é\n"}],
    "jobs": [
        {
            "backup": "files",
            "file": "files.yaml",
            "schedule": {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "jitter": "15m"},
            "actions": ["create"],
            "repositories": [{"name": "nas", "url": "/backup", "encryption": "none"}],
            "rpo": "26h",
        }
    ],
    "secrets": [{"secret": "vault", "key": "key", "sealed": "bd1-sealed.abc"}],
}


def test_a_file_begins_with_where_it_comes_from_and_the_short_revision():
    file = ManagedFile(place="config", path="files.yaml", origin="backups/files.yaml", content="keep_daily: 7\n")

    assert file.rendered("0123456789abcdef0123") == (
        b"# Managed by Borgmatic Director: edit backups/files.yaml in Git instead "
        b"(revision 0123456789ab).\nkeep_daily: 7\n"
    )
    assert file.mode == 0o600


@pytest.mark.parametrize("path", ["files.yaml", "known_hosts/nas", "a.b-c_d", "A1"])
def test_a_path_is_a_plain_name_or_one_folder_deep(path: str):
    assert ManagedFile(place="state", path=path, origin="", content="").path == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "..",
        "../x",
        "a/../b",
        "a/..",
        ".hidden",
        "a/.b",
        "a/b/c",
        "a//b",
        "a b",
        "a\n",
        "a\x00",
        "a..b",
        "-x",
    ],
)
def test_a_path_cannot_leave_its_place_or_hide_there(path: str):
    with pytest.raises(ValidationError):
        ManagedFile(place="config", path=path, origin="", content="")


def test_content_survives_the_wire_and_keeps_its_digest():
    content = Content.model_validate(WIRE)
    again = Content.model_validate_json(content.model_dump_json())

    assert again == content
    assert again.digest() == content.digest()
    assert content.jobs[0].rpo == 26 * 3600


@pytest.mark.parametrize(
    "change",
    [
        {"client": "web-2"},
        {"suspend": True},
        {"drift": "report"},
        {"files": []},
        {"files": [{**WIRE["files"][0], "content": "a: e\n"}]},
        {"files": [{**WIRE["files"][0], "mode": 0o644}]},
        {"jobs": [{**WIRE["jobs"][0], "timeout": "1h"}]},
        {"secrets": [{**WIRE["secrets"][0], "sealed": "bd1-sealed.abd"}]},
    ],
)
def test_every_difference_is_another_digest(change: dict[str, Any]):
    assert Content.model_validate({**WIRE, **change}).digest() != Content.model_validate(WIRE).digest()


def test_the_digest_does_not_change_from_one_version_to_the_next():
    # Another digest for the same content would send every client everything again.
    assert Content(client="web-1", directories=Directories(config="/c", state="/s")).digest() == (
        "sha256:3b7ce5fbcf56f263c96a2e6271e659d991a7cb83a50008f79c9c74c1e618c97a"
    )


def test_a_newer_director_may_say_more_than_this_client_knows():
    later = {**WIRE, "novelty": 1, "jobs": [{**WIRE["jobs"][0], "novelty": {"a": 1}}]}

    assert Content.model_validate(later) == Content.model_validate(WIRE)


@pytest.mark.parametrize(
    "change",
    [
        {"client": "../web"},
        {"directories": {"config": "etc"}},
        {"jobs": [{**WIRE["jobs"][0], "backup": "a/b"}]},
        {"jobs": [{**WIRE["jobs"][0], "file": "../files.yaml"}]},
        {"jobs": [{**WIRE["jobs"][0], "actions": ["delete"]}]},
        {"jobs": [{**WIRE["jobs"][0], "rpo": 93600}]},
        {"jobs": [{**WIRE["jobs"][0], "schedule": {"name": "n", "cron": "61 * * * *", "time_zone": "UTC"}}]},
        {"jobs": [{**WIRE["jobs"][0], "schedule": {"name": "n", "cron": "@daily", "time_zone": "Mars"}}]},
        {"secrets": [{"secret": "vault", "key": "../key", "sealed": "bd1-sealed.a"}]},
        {"secrets": [{"secret": "vault", "key": "key", "sealed": "plain"}]},
        {"files": [{**WIRE["files"][0], "place": "root"}]},
        {"files": [{**WIRE["files"][0], "mode": 0o4755}]},
    ],
)
def test_hostile_content_is_refused_as_a_whole(change: dict[str, Any]):
    with pytest.raises(ValidationError):
        Content.model_validate({**WIRE, **change})


def test_a_desired_state_has_times_with_an_offset_and_a_generation_that_json_keeps():
    now = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
    content = Content.model_validate(WIRE)
    fields: dict[str, Any] = {
        "audience": "bd1-client.x",
        "generation": 1,
        "revision": "abc",
        "issued": now,
        "expires": now + timedelta(days=30),
        "digest": content.digest(),
        "content": content,
    }

    state = DesiredState.model_validate(fields)
    assert DesiredState.model_validate_json(state.model_dump_json()) == state
    for change in (
        {"generation": 0},
        {"generation": 2**53},
        {"issued": now.replace(tzinfo=None)},
        {"digest": "sha256:0"},
    ):
        with pytest.raises(ValidationError):
            DesiredState.model_validate({**fields, **change})


def test_models_are_frozen():
    with pytest.raises(ValidationError):
        Content.model_validate(WIRE).client = "web-2"  # type: ignore[misc]


def test_secrets_and_host_keys_have_their_places():
    assert secret_path(Directories(state="/srv/s"), "vault", "ssh-key") == "/srv/s/secrets/vault.ssh-key"
    assert known_hosts_path("nas") == "known_hosts/nas"


PATHS = st.text(alphabet=st.characters(min_codepoint=32, exclude_characters="\x7f"), min_size=1).map(
    lambda text: f"/{text}"
)


@given(st.none() | PATHS, st.none() | PATHS)
def test_no_path_adds_a_word_to_the_ssh_command(key: str | None, known_hosts: str | None):
    words = shlex.split(ssh_command(key_path=key, known_hosts=known_hosts))

    assert words[:3] == ["ssh", "-o", "BatchMode=yes"]
    assert len(words) == 7 + (4 if key else 0) + (6 if known_hosts else 0)
    assert key is None or words[words.index("-i") + 1] == key
    assert known_hosts is None or f"UserKnownHostsFile={known_hosts}" in words


def test_host_keys_are_strict_exactly_where_they_are_managed():
    assert "StrictHostKeyChecking=yes" in ssh_command(key_path=None, known_hosts="/k")
    assert "StrictHostKeyChecking" not in ssh_command(key_path="/k", known_hosts=None)


def test_the_small_models_have_sober_defaults():
    repository = DesiredRepository(name="nas", url="/backup", encryption="none")
    schedule = DesiredSchedule(name="n", cron="@daily", time_zone="UTC")
    job = Job(backup="b", file="b.yaml", schedule=schedule, actions=("create",), repositories=(repository,))
    sealed = SealedSecret(secret="vault", key="a", sealed="bd1-sealed.a")

    assert (repository.create, repository.append_only, schedule.jitter, schedule.catch_up) == (False, False, 0, True)
    assert (job.suspend, job.drift, job.rpo, job.timeout) == (False, "heal", None, None)
    assert sealed.key == "a"
