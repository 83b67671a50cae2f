"""What the machine's own administrator may say, and who may say it."""

from __future__ import annotations

import re

import pytest

from client.settings import (
    FILE_VARIABLE,
    ClientSettings,
    check_url,
    name_of_this_machine,
    parse_settings,
    read_settings,
)
from schema.errors import TerminalError
from schema.scalars import NAME_PATTERN


def message(content: str) -> str:
    with pytest.raises(TerminalError) as caught:
        parse_settings(content.encode(), origin="client.toml")
    return str(caught.value)


def test_without_a_file_everything_has_a_safe_default():
    settings = ClientSettings()

    assert settings.state_directory == "/var/lib/borgmatic-director-client"
    assert settings.policy.options == ()
    assert re.fullmatch(NAME_PATTERN, settings.name)


def test_a_file_is_read_where_it_is_named(tmp_path):
    file = tmp_path / "client.toml"
    file.write_text('name = "web-1"\nstop = "wait"\nstop_timeout = "2h"\n[policy]\noptions = ["commands"]\n')

    by_path = read_settings(file)
    by_environment = read_settings(environment={FILE_VARIABLE: str(file)})

    assert by_path == by_environment
    assert (by_path.name, by_path.stop, by_path.stop_timeout) == ("web-1", "wait", 7200)
    assert by_path.policy.options == ("commands",)


def test_a_named_file_that_is_not_there_is_an_error_and_the_default_one_may_be_missing(tmp_path):
    with pytest.raises(TerminalError, match="no settings file"):
        read_settings(tmp_path / "client.toml")


@pytest.mark.parametrize(
    "content, expected",
    [
        ('state_dir = "/x"', "did you mean 'state_directory'?"),
        ("[policy]\noption = []", "did you mean 'options'?"),
        ("[polizy]", "did you mean 'policy'?"),
        ("zzz = 1", "known keys: behind_proxy"),
        ('name = "Web 1"', "name: "),
        ('state_directory = "relative"', "state_directory: "),
        ('stop = "never"', "stop: "),
        ("stop_timeout = 5", "a duration is text with a unit"),
        ('url = "ws://example.org"', "is not this machine"),
        ("not toml at all", "is not TOML"),
        ("[" * 5000, "is not TOML"),
    ],
)
def test_wrong_keys_and_values_are_explained(content, expected):
    assert expected in message(content)


def test_all_problems_are_told_at_once():
    assert message('name = "_"\nzzz = 1\nstop = 1').count(": ") >= 4


def test_binary_and_oversized_files_are_refused():
    with pytest.raises(TerminalError, match="not TOML"):
        parse_settings(b"\xff\xfe", origin="x")
    with pytest.raises(TerminalError, match="larger"):
        parse_settings(b"#" * 300_000, origin="x")


@pytest.mark.parametrize("mode", [0o666, 0o662, 0o660])
def test_a_file_that_others_can_write_is_refused(tmp_path, mode):
    file = tmp_path / "client.toml"
    file.write_text("")
    file.chmod(mode)

    with pytest.raises(TerminalError, match="can be written by others"):
        read_settings(file)


def test_a_file_in_a_folder_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    (folder / "client.toml").write_text("")
    folder.chmod(0o777)

    with pytest.raises(TerminalError, match="can be written by others"):
        read_settings(folder / "client.toml")


@pytest.mark.parametrize(
    "url", ["wss://director.example:8440", "ws://localhost:1", "ws://127.0.0.1:1", "ws://[::1]:1", "unix:///run/x.sock"]
)
def test_addresses_that_keep_a_token_secret_are_allowed(url):
    assert check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "ws://director.example",
        "ws://localhost.example.org",
        "ws://127.0.0.1.example.org",
        "http://localhost",
        "wss://",
        "wss://user:password@director.example",
        "unix://relative",
        "wss://director.example:99999",
        "",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(ValueError):
        check_url(url)


@pytest.mark.parametrize(
    "host, expected", [("Web-1.example.org", "web-1"), ("my_host", "my-host"), ("--", "client"), ("x" * 80, "x" * 63)]
)
def test_a_host_name_becomes_a_name(monkeypatch, host, expected):
    monkeypatch.setattr("socket.gethostname", lambda: host)

    assert name_of_this_machine() == expected
