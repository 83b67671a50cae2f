"""Across the resources of a source: references, selections, seals, keys, and layers together."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.core import load
from reconciler.core.catalogue import SourceFile
from schema.envelope import EscrowIdentity
from schema.errors import Problem
from tests.reconciler.core import written

SMALL_ORDER_KEY = "bd1-client." + "A" * 86
SECRET_OF_NAS = {"mode": "repokey", "passphraseFrom": {"secret": "borg"}}


def problems(*more: SourceFile) -> list[Problem]:
    """What is wrong with one client, one repository and one backup, and with what is given besides."""
    return list(written.Across().problems(written.small(*more)))


def said(*more: SourceFile) -> list[tuple[str, str, str]]:
    return [(one.severity, one.message, one.hint) for one in problems(*more)]


def one(*more: SourceFile) -> Problem:
    (only,) = problems(*more)
    return only


def test_a_sound_source_has_no_problems():
    assert problems(written.secret("borg", "web-1"), written.repository(encryption=SECRET_OF_NAS)) == []


# --- References -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, message, hint",
    [
        ({"clients": ["web-2"]}, "there is no Client 'web-2'", "did you mean 'web-1'?"),
        ({"repositories": ["nsa"]}, "there is no Repository 'nsa'", "did you mean 'nas'?"),
        ({"repositories": ["offsite"]}, "there is no Repository 'offsite'", "there are: nas"),
        ({"schedule": "nightly"}, "there is no Schedule 'nightly'", "the source has no Schedule at all"),
        ({"profiles": ["base"]}, "there is no Profile 'base'", "the source has no Profile at all"),
    ],
)
def test_a_reference_to_nothing_is_an_error_at_the_reference(spec: dict[str, Any], message: str, hint: str):
    assert said(written.backup("files", **spec)) == [("error", message, hint)]


def test_the_place_of_a_dangling_reference_is_the_item_of_the_list():
    found = one(
        written.file(
            "backups/files.yaml",
            "apiVersion: borgmatic.director/v1\nkind: Backup\nmetadata: {name: files}\n"
            "spec:\n  clients: [web-1]\n  repositories:\n    - nas\n    - nsa\n",
        )
    )

    assert found.place == "backups/files.yaml:8:7"


@pytest.mark.parametrize(
    "spec",
    [{"clients": ["web-1", "web-1"]}, {"repositories": ["nas", "nas"]}, {"actions": ["create", "check", "create"]}],
)
def test_a_name_that_stands_twice_in_a_list_is_an_error(spec: dict[str, Any]):
    assert one(written.backup("files", **spec)).code == "duplicate-item"


def test_labels_that_no_client_has_are_a_warning():
    backup = written.backup("files", clients={"matchLabels": {"role": "web", "site": "a"}})

    assert said(backup) == [
        ("warning", "no client has the labels {role: web, site: a}", "check metadata.labels of the clients")
    ]


# --- Keys and repositories ------------------------------------------------------------------------------------------


def test_a_public_key_of_small_order_is_refused():
    found = one(written.client("web-1", publicKey=SMALL_ORDER_KEY))

    assert (found.code, found.message) == (
        "bad-key",
        "the publicKey is refused: the client key is not a sound Ed25519 key",
    )


def test_an_escrow_key_of_small_order_is_refused():
    found = one(written.resource("Secret", "borg", escrow={"safe": "bd1-escrow." + "A" * 43}))

    assert (found.code, found.message) == (
        "bad-key",
        "the escrow key is refused: the escrow key is not a sound X25519 key",
    )


def test_one_key_for_two_clients_is_an_error_that_names_both():
    found = one(written.client("web-2", publicKey=written.key_of("web-1").text))

    assert found.message == "client 'web-2' has the same publicKey as client 'web-1' (clients/web-1.yaml:1)"


def test_two_repositories_with_one_url_are_a_warning():
    found = one(written.repository("other"))

    assert (found.severity, found.message) == (
        "warning",
        "repository 'other' has the same url as repository 'nas' (repositories/nas.yaml:1)",
    )


def test_an_unknown_placeholder_in_a_url_is_an_error():
    assert said(written.repository(url="/backup/${clinet}")) == [
        ("error", "unknown placeholder '${clinet}' in the url", "did you mean 'client'?")
    ]


# --- Secrets --------------------------------------------------------------------------------------------------------


def database(password: str) -> SourceFile:
    block = {**written.BLOCK, "mariadb_databases": [{"name": "all", "password": password}]}
    return written.backup("files", borgmatic=block)


@pytest.mark.parametrize(
    "password, message, hint",
    [
        ("{secret dbs}", "there is no Secret 'dbs'", "did you mean 'db'?"),
        ("{secret db passwort}", "secret 'db' has no value 'passwort'", "did you mean 'password'?"),
        ("{secret db x}", "secret 'db' has no value 'x'", "make it with `director seal . db x`"),
        ("{secret two}", "secret 'two' holds several values: say which", "add the key: one of a, b"),
        ("{secret none}", "secret 'none' holds no value yet", "make one with `director seal . none KEY`"),
        (
            "x{secret db}",
            "this is no reference to a secret: it must be the whole value, '{secret NAME}' or '{secret NAME KEY}'",
            "seal the whole value, and refer to it alone",
        ),
    ],
)
def test_a_reference_to_a_secret_must_lead_to_one_value(password: str, message: str, hint: str):
    secrets = (
        written.secret("db", "web-1"),
        written.secret("two", "web-1", values=("a", "b")),
        written.resource("Secret", "none"),
    )

    found = said(database(password), *secrets)

    assert found[0] == ("error", message, hint)


def test_a_secret_that_is_not_sealed_to_a_client_that_needs_it_is_an_error_with_the_command():
    sources = (
        written.secret("db", "web-1"),
        written.client("web-2"),
        written.client("web-3"),
        written.backup(
            "more", clients=["web-2", "web-3"], borgmatic={"ntfy": {"topic": "x", "password": "{secret db}"}}
        ),
    )

    assert said(*sources) == [
        (
            "error",
            "'password' of secret 'db' is not sealed to clients 'web-2', 'web-3' (backup 'more' needs it there)",
            "run `director seal . db password` and commit the result",
        )
    ]


def test_with_an_escrow_copy_the_command_is_reseal():
    value = {"clients": {}, "escrow": {"safe": "bd1-sealed.x"}}
    key = EscrowIdentity.generate().public
    secret = written.resource("Secret", "db", escrow={"safe": key}, values={"password": value})

    found = one(database("{secret db}"), secret)

    assert found.hint == "run `director reseal . db --escrow-key-file FILE` and commit the result"


@pytest.mark.parametrize(
    "repository",
    [
        written.repository(encryption=SECRET_OF_NAS),
        written.repository(url="ssh://nas/x", sshKeyFrom={"secret": "borg"}),
    ],
    ids=["passphrase", "ssh key"],
)
def test_a_repositorys_secrets_are_needed_by_the_clients_of_its_backups(repository: SourceFile):
    found = one(repository, written.secret("borg", "other"), written.client("other"))

    assert (found.code, found.path) == ("secret-not-sealed", "repositories/nas.yaml")
    assert "is not sealed to client 'web-1' (backup 'files' needs it there)" in found.message


def test_a_profiles_secrets_are_needed_by_the_clients_of_the_backups_that_use_it():
    profile = written.resource("Profile", "ntfy", borgmatic={"ntfy": {"topic": "x", "password": "{secret db}"}})
    unused = problems(profile, written.secret("db", "other"), written.client("other"))

    found = one(
        profile, written.secret("db", "other"), written.client("other"), written.backup("files", profiles=["ntfy"])
    )

    assert unused == []
    assert (found.code, found.path) == ("secret-not-sealed", "profiles/ntfy.yaml")


def test_for_a_client_without_a_key_nothing_can_be_sealed_yet_which_is_a_warning():
    found = one(
        written.client("web-1", publicKey=None), database("{secret db}"), written.secret("db", "x"), written.client("x")
    )

    assert (found.severity, found.code) == ("warning", "secret-not-sealed")
    assert found.message.endswith("cannot be sealed to client 'web-1' yet: there is no publicKey in Git")


def test_a_seal_for_a_client_that_does_not_exist_is_a_warning():
    assert said(
        written.secret("db", "web-1"),
        written.resource("Secret", "old", values={"a": {"clients": {"gone": "bd1-sealed.x"}}}),
    ) == [("warning", "'a' is sealed to client 'gone', which does not exist", "remove it, or add the client")]


def test_a_secret_that_names_a_client_that_does_not_exist_is_an_error():
    assert said(written.resource("Secret", "db", clients=["web-2"])) == [
        ("error", "there is no Client 'web-2'", "did you mean 'web-1'?")
    ]


# --- borgmatic blocks -----------------------------------------------------------------------------------------------


def test_what_a_layer_lacks_another_may_give():
    profile = written.resource("Profile", "hc", borgmatic={"healthchecks": {"send_logs": True}})
    backup = written.backup(
        "files", profiles=["hc"], borgmatic={**written.BLOCK, "healthchecks": {"ping_url": "https://hc.example/x"}}
    )

    assert problems(profile, backup) == []


def test_what_all_layers_together_lack_is_said_once_where_it_began():
    profile = written.resource("Profile", "hc", borgmatic={"healthchecks": {"send_logs": True}})
    backups = [written.backup(name, profiles=["hc"]) for name in ("files", "more")]

    found = one(profile, *backups)

    assert found.path == "profiles/hc.yaml"
    assert found.message.startswith("borgmatic does not accept 'healthchecks': 'ping_url' is a required property")


def test_an_option_that_borgmatic_does_not_know_is_said_at_its_place():
    found = one(written.backup("files", borgmatic={**written.BLOCK, "keep_dayly": 7}))

    assert (found.place, found.hint) == ("backups/files.yaml:15:5", "did you mean 'keep_daily'?")


def test_layering_of_an_option_that_borgmatic_does_not_know_is_an_error():
    found = one(written.backup("files", layering={"exclude_pattern": "replace"}))

    assert (found.code, found.hint) == ("unknown-borgmatic-option", "did you mean 'exclude_patterns'?")


def test_an_ssh_command_is_allowed_with_a_warning():
    found = one(written.backup("files", borgmatic={**written.BLOCK, "ssh_command": "ssh -p 22"}))

    assert (found.severity, found.code) == ("warning", "ssh-command")


@pytest.mark.parametrize(
    "block",
    [
        {"mariadb_databases": [{"name": "all", "password": "hunter2"}]},
        {"mariadb_databases": [{"name": "all", "restore_password": "hunter2"}]},
        {"ntfy": {"topic": "x", "access_token": "hunter2"}},
        {"zabbix": {"server": "x", "api_key": "hunter2"}},
        {"pagerduty": {"integration_key": "hunter2"}},
        {"apprise": {"services": [{"url": "mailtos://me:hunter2@mail.example", "label": "x"}]}},
        {"constants": {"db_password": "hunter2"}},
    ],
)
def test_a_secret_that_stands_readable_in_git_is_a_warning_that_does_not_repeat_it(block: dict[str, Any]):
    found = one(written.backup("files", borgmatic={**written.BLOCK, **block}))

    assert (found.severity, found.code) == ("warning", "plaintext-secret")
    assert "director seal" in found.hint
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    "password", ["{credential file /run/x}", "{credential systemd x}", "{db_password}", "${DB_PASSWORD}", "${X:-}", ""]
)
def test_a_reference_is_no_secret(password: str):
    assert problems(database(password)) == []


def test_a_source_may_hold_nothing_at_all():
    assert written.Across().problems([]) == ()


def test_thousands_of_problems_are_counted_and_not_all_shown():
    backup = written.backup("files", repositories=[f"r{index}" for index in range(1_234)])

    found = problems(backup)

    assert len(found) == load.MAX_PROBLEMS + 1
    assert found[-1].message == "234 more problems are not shown"


# --- The cache ------------------------------------------------------------------------------------------------------


def test_the_second_validation_says_the_same():
    sources = written.small(
        written.backup("files", borgmatic={"keep_dayly": 7, "ntfy": {"topic": "x", "password": "{secret db}"}})
    )
    across = written.Across()

    first, second = (across.problems(sources) for _ in range(2))

    assert [one.code for one in first] == ["unknown-borgmatic-option", "dangling-reference"]
    assert second == first


def test_a_known_fault_moves_with_its_file():
    across = written.Across()
    file = written.backup("files", borgmatic={"keep_dayly": 7})

    places = [across.problems([SourceFile(path, file.blob, file.data)])[-1].path for path in ("a.yaml", "b.yaml")]

    assert places == ["a.yaml", "b.yaml"]
