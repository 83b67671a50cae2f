"""Who may look at the dashboard: the tokens' file, the commands, and what the settings come to."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from reconciler import viewers, web_access
from reconciler.cli import main
from reconciler.listen import Address
from reconciler.settings import load_settings
from reconciler.tls import self_signed_certificate
from schema.errors import TerminalError, scrub
from schema.viewers import Password, token_hash

NOW = datetime(2026, 11, 23, 7, 42, tzinfo=UTC)
LINE = Password(14, 8, 1, b"salt" * 4, bytes(32))


def director(directory: Path, *arguments: str, given: str | None = None, status: int = 0):
    result = CliRunner().invoke(main, ["--state-directory", str(directory), *arguments], input=given)
    assert result.exit_code == status, result.output
    return result


# --- Tokens -----------------------------------------------------------------------------------------------------------


def test_only_the_hash_of_a_token_is_kept_and_only_for_us(tmp_path):
    made, text = viewers.create(tmp_path / "state", note="wall", lifetime=None, now=NOW)
    file = tmp_path / "state" / "viewers.json"

    assert made.hash == token_hash(text)
    assert text not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert viewers.read(tmp_path / "state") == (made,)
    assert [one.name for one in (tmp_path / "state").iterdir()] == ["viewers.json"]


def test_a_token_is_hidden_wherever_it_is_said():
    assert "secret" not in scrub("it said bd1-viewer.secret-secret twice")


def test_tokens_that_are_over_are_forgotten_when_another_is_made(tmp_path):
    viewers.create(tmp_path, note="short", lifetime=timedelta(days=1), now=NOW)
    kept, _ = viewers.create(tmp_path, note="long", lifetime=timedelta(days=3), now=NOW)
    made, _ = viewers.create(tmp_path, note="new", lifetime=None, now=NOW + timedelta(days=2))

    assert viewers.read(tmp_path) == (kept, made)


def test_there_are_only_so_many_tokens(tmp_path, monkeypatch):
    monkeypatch.setattr(viewers, "MAX_VIEWERS", 2)
    for note in ("one", "two"):
        viewers.create(tmp_path, note=note, lifetime=None, now=NOW)

    with pytest.raises(TerminalError, match="viewers already"):
        viewers.create(tmp_path, note="three", lifetime=None, now=NOW)


@pytest.mark.parametrize("text", ["", "{", '{"viewers": [{}]}', "\udcff"])
def test_a_damaged_file_is_not_written_over(tmp_path, text):
    (tmp_path / "viewers.json").write_text(text, errors="surrogateescape")

    with pytest.raises(TerminalError, match="is damaged"):
        viewers.create(tmp_path, note="x", lifetime=None, now=NOW)
    with pytest.raises(TerminalError, match="is damaged"):
        viewers.revoke(tmp_path, "x")
    assert (tmp_path / "viewers.json").read_text(errors="surrogateescape") == text


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path):
    (tmp_path / "viewers.json").symlink_to("/etc/hostname")

    with pytest.raises(TerminalError, match="cannot read"):
        viewers.read(tmp_path)


# --- Commands ---------------------------------------------------------------------------------------------------------


def test_a_token_is_made_listed_and_revoked(tmp_path):
    made = director(tmp_path, "viewer", "create", "--note", "wall \x1b[31mdisplay", "--lifetime", "30d")
    token = made.stdout.strip()
    assert token.startswith("bd1-viewer.")
    identifier = token_hash(token)[:12]
    assert identifier in made.stderr

    listed = director(tmp_path, "viewer", "list")
    assert identifier in listed.stdout
    assert "in 29 d" in listed.stdout or "in 30 d" in listed.stdout
    assert "\x1b" not in listed.stdout
    assert token not in listed.stdout

    assert "is revoked" in director(tmp_path, "viewer", "revoke", identifier).stdout
    assert json.loads(director(tmp_path, "viewer", "list", "-o", "json").stdout) == []
    again = director(tmp_path, "viewer", "revoke", identifier, status=2)
    assert "director viewer list" in again.stderr


def test_a_script_gets_the_token_as_json(tmp_path):
    made = json.loads(director(tmp_path, "viewer", "create", "--note", "x", "-o", "json").stdout)

    assert made["id"] == token_hash(made["token"])[:12]
    assert made["expires"] is None


@pytest.mark.parametrize("arguments", [["--note", "x", "--lifetime", "soon"], ["--note", "x" * 300], []])
def test_a_token_needs_a_purpose_and_a_time_that_makes_sense(tmp_path, arguments):
    director(tmp_path, "viewer", "create", *arguments, status=2)


def test_the_line_of_a_password_is_what_the_settings_take(tmp_path):
    password = "correct horse battery staple"
    line = director(tmp_path, "viewer", "password", "ann b.", given=password + "\n").stdout
    assert password not in line
    file = tmp_path / "director.toml"
    file.write_text("[web.users]\n" + line)

    users = load_settings(file).web.users
    assert Password.parse(users["ann b."]).fits(password)
    assert not Password.parse(users["ann b."]).fits(password + " ")


@pytest.mark.parametrize(
    ("name", "given"), [("ann", "short\n"), ("ann", "x" * 2_000), ("a:b", "x" * 20), ("", "x" * 20)]
)
def test_a_password_that_is_too_short_or_a_name_that_cannot_be_is_refused(tmp_path, name, given):
    director(tmp_path, "viewer", "password", name, given=given, status=2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "scrypt:14:8:1:!:!",
        "scrypt:x:8:1:c2FsdHNhbHQ=:" + "A" * 44,
        "scrypt:1:8:1:c2FsdHNhbHQ=:" + "A" * 43 + "=",
        "scrypt:30:8:1:c2FsdHNhbHQ=:" + "A" * 43 + "=",
        "scrypt:15:8000:1:c2FsdHNhbHQ=:" + "A" * 43 + "=",
        "scrypt:15:8:1:c2FsdHNhbHQ=:AAAA",
    ],
)
def test_what_is_not_the_hash_of_a_password_is_refused_without_showing_it(tmp_path, text):
    file = tmp_path / "director.toml"
    file.write_text(f'[web.users]\nann = "{text}"\n')

    with pytest.raises(TerminalError, match="the password of 'ann' is") as caught:
        load_settings(file)
    assert not text or text not in str(caught.value)


# --- What the settings come to ----------------------------------------------------------------------------------------


def prepared(directory: Path, web: str, *, address: str = "127.0.0.1:8441"):
    file = directory / "director.toml"
    file.write_text(f'state_directory = "{directory}"\n[web]\n{web}')
    return web_access.prepare(load_settings(file), Address.parse(address))


def test_badges_are_open_only_when_that_is_said(tmp_path):
    assert not prepared(tmp_path, "")[0].open_badges
    assert prepared(tmp_path, "open_badges = true")[0].open_badges


@pytest.mark.parametrize(
    ("web", "address", "asks"),
    [
        ("", "127.0.0.1:8441", False),
        ("", "[::1]:8441", False),
        ("", "0.0.0.0:8441", True),
        ("", "backups.example:8441", True),
        ('login = "always"', "127.0.0.1:8441", True),
        ('login = "never"', "0.0.0.0:8441", False),
        ('hosts = ["backups.example"]', "127.0.0.1:8441", True),
        ('hosts = ["backups.example"]\nlogin = "never"', "127.0.0.1:8441", False),
        ('proxy_addresses = ["127.0.0.1"]', "127.0.0.1:8441", True),
        ('proxy_addresses = ["127.0.0.1"]\nproxy_header = "X-Forwarded-User"', "127.0.0.1:8441", True),
        (f'users = {{ann = "{LINE}"}}', "127.0.0.1:8441", True),
    ],
)
def test_a_login_is_asked_for_unless_only_this_machine_can_come(tmp_path, web, address, asks):
    viewers.create(tmp_path, note="x", lifetime=None, now=NOW)

    access, known, tls = prepared(tmp_path, web, address=address)

    assert (access.asks, access.anywhere, len(known()), tls) == (asks, "never" in web, 1, None)


def test_a_dashboard_that_nobody_could_enter_is_refused_with_the_next_command(tmp_path):
    with pytest.raises(TerminalError) as caught:
        prepared(tmp_path, "", address="0.0.0.0:8441")

    assert "director viewer create" in caught.value.hint
    # Once there was a token, its end stops no director: it only lets nobody in.
    made, _ = viewers.create(tmp_path, note="x", lifetime=None, now=NOW)
    viewers.revoke(tmp_path, made.id)
    assert prepared(tmp_path, "", address="0.0.0.0:8441")[0].asks


def test_browsers_open_no_unix_socket(tmp_path):
    with pytest.raises(TerminalError, match="a host and a port"):
        prepared(tmp_path, f'users = {{ann = "{LINE}"}}', address="unix:/run/x.sock")


@pytest.mark.parametrize(
    ("web", "address", "events"),
    [
        ("", "127.0.0.1:8441", []),
        ('login = "never"', "127.0.0.1:8441", []),
        ('login = "never"', "0.0.0.0:8441", ["web.open-to-all"]),
        ("", "0.0.0.0:8441", ["web.unencrypted"]),
        ('proxy_addresses = ["10.0.0.1"]', "0.0.0.0:8441", []),
    ],
)
def test_what_is_risky_and_meant_is_said_at_start(tmp_path, web, address, events):
    viewers.create(tmp_path, note="x", lifetime=None, now=NOW)

    with capture_logs() as logs:
        prepared(tmp_path, web, address=address)

    assert [one["event"] for one in logs] == events


def test_with_a_certificate_it_speaks_https(tmp_path):
    viewers.create(tmp_path, note="x", lifetime=None, now=NOW)
    made = self_signed_certificate(tmp_path, names=["backups.example"], now=NOW)
    web = f'certificate_file = "{made.certificate}"\nkey_file = "{made.key}"\n'

    with capture_logs() as logs:
        assert prepared(tmp_path, web, address="0.0.0.0:8441")[2] is not None
    assert logs == []
    os.chmod(made.key, 0o644)  # noqa: PTH101
    with pytest.raises(TerminalError, match="everybody can read"):
        prepared(tmp_path, web, address="0.0.0.0:8441")


@pytest.mark.parametrize(
    ("web", "said"),
    [
        ('proxy_header = "X-Forwarded-User"', "needs proxy_addresses"),
        ('proxy_header = "Host"\nproxy_addresses = ["10.0.0.1"]', "is not a header"),
        ('proxy_header = "a b"\nproxy_addresses = ["10.0.0.1"]', "is not a header"),
        ('proxy_addresses = ["proxy.example"]', "not a network"),
        ('hosts = ["https://backups.example"]', "without scheme"),
        ('hosts = ["backups.example:443"]', "without scheme"),
        ('key_file = "/x"', "certificate_file and key_file"),
        (f'login = "never"\nusers = {{ann = "{LINE}"}}', "asks nobody"),
        ('login = "maybe"', "auto"),
        ("allow_remote = true", "is not a setting"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(tmp_path, web, said):
    with pytest.raises(TerminalError) as caught:
        prepared(tmp_path, web)

    assert said in str(caught.value), str(caught.value)


def test_the_word_of_the_environment_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("BORGMATIC_DIRECTOR_WEB__USERS", json.dumps({"ann": str(LINE)}))
    monkeypatch.setenv("BORGMATIC_DIRECTOR_WEB__HOSTS", '["backups.example"]')
    file = tmp_path / "director.toml"
    file.write_text("")

    web = load_settings(file).web
    assert (web.users, web.hosts) == ({"ann": str(LINE)}, ("backups.example",))
    assert tomllib.loads(f'x = "{LINE}"')["x"] == str(LINE)
