"""The commands that a page shows are exact: whatever the names are, a shell hands them on as they are."""

from __future__ import annotations

import shlex
import subprocess
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from schema.status import ArchiveStatus
from web_readonly import restoring

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40)


def archive(**changes: Any) -> ArchiveStatus:
    start = datetime(2026, 11, 23, 1, 2, tzinfo=UTC)
    known = {"id": "ab" * 32, "name": "web-1.web.2026", "client": "web-1", "backup": "web", "repository": "vault"}
    return ArchiveStatus.model_validate({**known, "start": start, **changes})


def test_the_command_makes_a_folder_of_its_own_and_extracts_into_it():
    made = restoring.commands(archive(), file="/etc/borgmatic.d/web.yaml")

    assert made.extract == (
        "mkdir -m 700 /var/tmp/restore && borgmatic --config /etc/borgmatic.d/web.yaml extract "
        "--repository vault --archive web-1.web.2026 --destination /var/tmp/restore"
    )
    assert made.restore_databases == ""


def test_one_path_is_named_in_every_command_that_takes_one():
    made = restoring.commands(archive(), file="/etc/borgmatic.d/web.yaml", path="home/ada/my letters", dumps="/var/x")

    for command in (made.extract, made.list, made.mount):
        words = shlex.split(command)
        assert words[words.index("--path") + 1] == "home/ada/my letters"
    assert "--path" not in made.restore_databases


@pytest.mark.parametrize("path", ["-rf", "--help", "re:.*", "sh:**", "pp:etc"])
def test_a_path_that_looks_like_something_else_is_said_to_be_a_path(path):
    assert restoring.as_borg_path(path) == f"pp:{path}"


@example("it's; rm -rf / #")
@example("$(id)`id`\n!x\\")
@example("\u202e\x1b[2J")
@given(NAMES)
def test_a_shell_hands_on_what_it_is_given(name):
    words = subprocess.run(
        ["/bin/bash", "-c", f"printf %s {restoring.quoted(name)}"], capture_output=True, check=True
    ).stdout

    assert words == name.encode()
    assert restoring.quoted(name).isprintable()


def test_an_archive_named_like_an_option_stays_a_value():
    made = restoring.commands(archive(name="--destination=/etc"), file="/etc/borgmatic.d/web.yaml")

    assert "--archive=--destination=/etc" in shlex.split(made.list)


@given(NAMES, NAMES)
def test_the_resource_is_yaml_that_says_what_was_meant(name, path):
    text = restoring.resource(archive(name=name), path=path)

    read = yaml.safe_load(text)
    assert read["kind"] == "Restore"
    assert read["metadata"]["name"] == "web-1-web-2026-11-23"
    assert read["spec"] == {
        "client": "web-1",
        "repository": "vault",
        "archive": name,
        "paths": [path],
        "destination": restoring.DESTINATION,
    }


@pytest.mark.parametrize("name", ["123", "null", "true", "off", "0x1f", "1e5", "web-1"])
def test_a_name_that_looks_like_a_number_or_a_truth_stays_a_name(name):
    spec = yaml.safe_load(restoring.resource(archive(client=name, repository=name)))["spec"]

    assert (spec["client"], spec["repository"]) == (name, name)
