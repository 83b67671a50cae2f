"""The kinds people write: what each accepts, and the mistakes that its model knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schema.directories import DEFAULT_STATE_DIRECTORY
from schema.resources import (
    API_VERSION,
    KINDS,
    SECRET_REFERENCE,
    Backup,
    Client,
    Encryption,
    FileFrom,
    Repository,
    RepositorySpec,
    Resource,
    Selector,
    ValueFrom,
)
from schema.scalars import AbsolutePath, RepositoryUrl


def resource(kind: str, spec: Any, *, name: str = "x") -> Resource:
    written = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
    return KINDS[kind].model_validate(written, strict=True, by_alias=True, by_name=False)


def refusal(kind: str, spec: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        resource(kind, spec)
    return str(caught.value.errors()[0]["msg"]).removeprefix("Value error, ")


def test_every_kind_is_listed_by_its_own_name_and_has_a_folder():
    assert {name: kind.__name__ for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert len({kind.folder for kind in KINDS.values()}) == len(KINDS)


def test_what_is_left_out_has_the_defaults_of_the_design():
    backup = resource("Backup", {"clients": ["web-1"], "repositories": ["nas"]})

    assert isinstance(backup, Backup)
    assert (backup.name, backup.spec.actions, backup.spec.schedule, backup.spec.suspend) == (
        "x",
        ["create", "prune", "compact", "check"],
        None,
        False,
    )


def test_a_client_needs_no_spec():
    client = Client.model_validate({"apiVersion": API_VERSION, "kind": "Client", "metadata": {"name": "web-1"}})

    assert (client.spec.public_key, client.spec.drift, client.spec.directories.state) == (
        None,
        "heal",
        DEFAULT_STATE_DIRECTORY,
    )


def test_a_resource_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        resource("Client", {}).metadata.name = "other"  # type: ignore[misc]


def test_a_selection_is_names_or_labels():
    spec = {"repositories": ["nas"]}
    by_labels = resource("Backup", {**spec, "clients": {"matchLabels": {"role": "web"}}})

    assert isinstance(by_labels, Backup)
    assert by_labels.spec.clients == Selector(match_labels={"role": "web"})


@pytest.mark.parametrize("clients", [[], {"matchLabels": {}}, {}, "web-1", ["../x"], None])
def test_a_selection_that_selects_nobody_or_everybody_is_refused(clients: Any):
    with pytest.raises(ValidationError):
        resource("Backup", {"repositories": ["nas"], "clients": clients})


# --- Repositories ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, kept",
    [
        ("/mnt/backup/${client}", "/mnt/backup/${client}"),
        ("/mnt/backup/", "/mnt/backup"),
        ("ssh://borg@nas.example:22/./${client}", "ssh://borg@nas.example:22/./${client}"),
        ("ssh://nas/backup", "ssh://nas/backup"),
        ("ssh://borg@[2001:db8::1]:22/x", "ssh://borg@[2001:db8::1]:22/x"),
    ],
)
def test_a_repository_is_a_path_or_an_ssh_url(url: str, kept: str):
    assert TypeAdapter[str](RepositoryUrl).validate_python(url) == kept


@pytest.mark.parametrize(
    "url, reason",
    [
        ("backup", "is not supported: write an absolute path or ssh://user@host:port/path"),
        ("nas:backup", "is not supported"),
        ("http://nas/x", "is not supported"),
        ("s3:bucket", "is not supported"),
        ("/a/../../etc", "is not an absolute path without '..'"),
        ("ssh://nas/../x", "has no '..'"),
        ("ssh://me:hunter2@nas/x", "holds no password"),
        ("ssh://nas", "names no path on the host"),
        ("ssh:///x", "names no host"),
        ("ssh://-oProxyCommand=x/x", "names no host"),
        ("ssh://-oProxyCommand=x@nas/x", "names no host"),
        ("ssh://nas:port/x", "Port could not be cast"),
        ("/a b", "no spaces and no control characters"),
        ("/a\nb", "no spaces and no control characters"),
        ("", "is not supported"),
    ],
)
def test_a_url_that_borg_or_ssh_would_misread_is_refused(url: str, reason: str):
    message = refusal("Repository", {"url": url, "encryption": {"mode": "none"}})

    assert reason in message
    assert "hunter2" not in message


@example("/")
@given(st.text(max_size=30))
def test_whatever_is_accepted_as_a_path_is_absolute_and_stays_below_where_it_points(text: str):
    try:
        path = TypeAdapter[str](AbsolutePath).validate_python(f"/{text}")
    except ValidationError:
        return

    assert path.startswith("/")
    assert ".." not in path.split("/")
    assert path.isprintable() or not any(ord(char) < 32 for char in path)


@pytest.mark.parametrize(
    "spec, reason",
    [
        ({"mode": "none", "passphraseFrom": {"secret": "x"}}, "encryption mode 'none' takes no passphrase"),
        ({"mode": "repokey"}, "encryption mode 'repokey' needs passphraseFrom"),
        ({}, "encryption mode 'repokey-blake2' needs passphraseFrom"),
    ],
)
def test_a_passphrase_goes_with_the_encryption_that_needs_it(spec: Any, reason: str):
    assert refusal("Repository", {"url": "/a", "encryption": spec}) == reason


@pytest.mark.parametrize(
    "spec, reason",
    [
        ({"url": "/a", "sshKeyFrom": {"file": "/k"}}, "sshKeyFrom and knownHosts go with an ssh:// url"),
        ({"url": "/a", "knownHosts": ["nas ssh-ed25519 A"]}, "sshKeyFrom and knownHosts go with an ssh:// url"),
        ({"url": "ssh://nas/a", "mountpoint": "/mnt"}, "mountpoint goes with a path, not with an ssh:// url"),
    ],
)
def test_what_only_ssh_or_only_a_path_has_is_refused_for_the_other(spec: Any, reason: str):
    assert refusal("Repository", {**spec, "encryption": {"mode": "none"}}) == reason


@pytest.mark.parametrize("quota", ["500G", "1", "20T"])
def test_a_quota_is_a_size(quota: str):
    repository = resource("Repository", {"url": "/a", "encryption": {"mode": "none"}, "quota": quota})

    assert isinstance(repository, Repository)
    assert repository.spec.quota == quota


@pytest.mark.parametrize("quota", ["500 G", "5X", "-1", "1.5T", "٣G", "5G\n", ""])
def test_what_is_no_size_is_no_quota(quota: str):
    with pytest.raises(ValidationError):
        resource("Repository", {"url": "/a", "encryption": {"mode": "none"}, "quota": quota})


def test_a_line_of_known_hosts_cannot_smuggle_in_another():
    with pytest.raises(ValidationError):
        resource("Repository", {"url": "ssh://a/b", "encryption": {"mode": "none"}, "knownHosts": ["a b\nc d"]})


# --- Where values come from -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_", [{}, {"secret": "a", "file": "/b"}, {"systemd": "a", "container": "b"}])
def test_a_value_comes_from_exactly_one_place(given_: Any):
    with pytest.raises(ValidationError, match="give exactly one of secret, file, systemd, container"):
        ValueFrom.model_validate(given_)


@pytest.mark.parametrize("given_", [{}, {"secret": "a", "file": "/b"}])
def test_a_file_comes_from_exactly_one_place(given_: Any):
    with pytest.raises(ValidationError, match="give exactly one of secret, file"):
        FileFrom.model_validate(given_)


def test_a_key_names_a_value_of_a_secret_and_of_nothing_else():
    assert Encryption(passphrase_from=ValueFrom(secret="a", key="b")).passphrase_from == ValueFrom(secret="a", key="b")
    for kind in (ValueFrom, FileFrom):
        with pytest.raises(ValidationError, match="key goes with secret"):
            kind.model_validate({"file": "/a", "key": "b"})


@pytest.mark.parametrize(
    "text, parts",
    [
        ("{secret wordpress-db}", ("wordpress-db", None)),
        ("{secret wordpress-db id_1}", ("wordpress-db", "id_1")),
        ("{secret  a   b}", ("a", "b")),
    ],
)
def test_a_reference_names_a_secret_and_perhaps_a_key(text: str, parts: tuple[str, str | None]):
    match = SECRET_REFERENCE.match(text)

    assert match is not None
    assert (match["name"], match["key"]) == parts


@pytest.mark.parametrize(
    "text", ["{secret}", "{secret a b c}", "x{secret a}", "{secret a} ", "{secret ../a}", "{Secret a}"]
)
def test_what_is_not_wholly_a_reference_is_none(text: str):
    assert SECRET_REFERENCE.match(text) is None


@pytest.mark.parametrize("url", ["/mnt/{now:.}/x", "ssh://nas/./a/.{now:.}/b", "/mnt/host:repo"])
def test_a_url_that_borg_would_read_in_another_way_is_refused(url):
    with pytest.raises(ValidationError):
        RepositorySpec.model_validate({"url": url, "encryption": {"mode": "none"}})
