"""Where settings come from, and what is said about those that cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reconciler.settings import DEFAULT_FILE, DirectorSettings, default_state_directory, load_settings
from schema.errors import TerminalError


def written(folder: Path, text: str | bytes) -> Path:
    file = folder / "director.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def refusal(file: Path | None, **overrides: object) -> TerminalError:
    with pytest.raises(TerminalError) as raised:
        load_settings(file, **overrides)
    return raised.value


def test_without_a_file_the_defaults_serve_one_machine() -> None:
    settings = load_settings()
    assert (settings.listen.address, settings.web.address) == ("127.0.0.1:8440", "127.0.0.1:8441")
    assert (settings.source.url, settings.source.branch, settings.source.interval) == ("", "main", 60)


def test_a_file_is_read_with_durations_and_shares(tmp_path: Path) -> None:
    file = written(tmp_path, 'validity = "30d"\n[source]\nurl = "/srv/x.git"\ninterval = "10s"\nmass_change = "35%"\n')
    settings = load_settings(file)
    assert (settings.source.url, settings.source.interval, settings.source.mass_change) == ("/srv/x.git", 10, 0.35)
    assert settings.validity == 30 * 86_400


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, '[source]\nurl = "file"\nbranch = "file"\npath = "file"\n[web]\naddress = "file:1"\n')
    monkeypatch.setenv("BORGMATIC_DIRECTOR_SOURCE__BRANCH", "environment")
    monkeypatch.setenv("BORGMATIC_DIRECTOR_SOURCE__PATH", "environment")
    settings = load_settings(file, source={"path": "command", "url": None}, web={"address": None})
    assert (settings.source.url, settings.source.branch, settings.source.path) == ("file", "environment", "command")
    assert settings.web.address == "file:1"


def test_what_the_command_line_does_not_say_keeps_every_other_value_of_its_table(tmp_path: Path) -> None:
    file = written(tmp_path, '[source]\nurl = "/srv/x.git"\nfetch_timeout = "7m"\nhold_dangers = true\n')
    settings = load_settings(file, source={"url": "/elsewhere", "branch": None})
    assert (settings.source.url, settings.source.fetch_timeout, settings.source.hold_dangers) == (
        "/elsewhere",
        420,
        True,
    )


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORGMATIC_DIRECTOR_CONFIG", str(written(tmp_path, '[source]\nurl = "/srv/x.git"\n')))
    assert load_settings().source.url == "/srv/x.git"


def test_a_file_that_was_named_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "none.toml"
    assert refusal(missing).message == f"there is no settings file {missing}"
    monkeypatch.setenv("BORGMATIC_DIRECTOR_CONFIG", str(missing))
    assert refusal(None).message == f"there is no settings file {missing}"


@pytest.mark.skipif(DEFAULT_FILE.exists(), reason="this machine has a director")
def test_the_default_file_need_not_exist() -> None:
    assert load_settings() == load_settings()


@pytest.mark.parametrize(
    "text, expected",
    [
        ('[source]\nbrnch = "x"\n', "'source.brnch' is not a setting; did you mean 'branch'?"),
        ('[surce]\nurl = "x"\n', "'surce' is not a setting; did you mean 'source'?"),
        ("[web]\nzzz = 1\n", "'web.zzz' is not a setting; known are address, certificate_file, enabled, hosts"),
        ('[source]\ninterval = "soon"\n', "source.interval: 'soon' is not a duration: write for example 90s"),
        ('[source]\ninterval = "0s"\n', "source.interval: Input should be greater than or equal to 1"),
        ("[source]\ninterval = 60\n", "source.interval: a duration is text with a unit, for example 90s"),
        ("[source]\nmass_change = 2\n", "source.mass_change: Input should be less than or equal to 1"),
        ('[source]\nmass_change = "x%"\n', "source.mass_change: "),
        ('[listen]\ntls = "maybe"\n', "listen.tls: Input should be 'self-signed', 'files' or 'off'"),
        ('[listen]\ntls = "files"\n', 'listen: tls = "files" needs certificate_file and key_file'),
        ('[store]\nurl = "postgresql://x/y"\n', "store.url: write the path of a SQLite file"),
        ('source = "x"\n', "source: "),
        ("[source\n", "is not TOML: "),
        (b"\xff\xfe\x00binary", "is not TOML: it is not UTF-8 text"),
        ("a = " + "[" * 5000, "is not TOML: "),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, text: str | bytes, expected: str) -> None:
    file = written(tmp_path, text)
    message = refusal(file).message
    assert str(file) in message
    assert expected in message


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    message = refusal(written(tmp_path, '[source]\nbrnch = "x"\ninterval = "soon"\n[web]\nport = 1\n')).message
    assert len(message.splitlines()) == 3


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"cannot read the settings file {tmp_path}: Is a directory"


def test_a_bad_variable_is_blamed_on_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORGMATIC_DIRECTOR_SOURCE__INTERVAL", "soon")
    assert refusal(None).message.startswith("the environment: source.interval: 'soon' is not a duration")


def test_a_variable_that_is_not_json_where_a_table_is_wanted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORGMATIC_DIRECTOR_SOURCE", "{")
    assert refusal(None).message.startswith("cannot use the environment: ")


def test_a_misspelt_variable_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BORGMATIC_DIRECTOR_SOUCE__URL", "/srv/x.git")
    error = refusal(None)
    assert error.message == "the environment sets BORGMATIC_DIRECTOR_SOUCE__URL, which is not a setting"
    assert error.hint == "did you mean BORGMATIC_DIRECTOR_SOURCE__URL?"


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("VERSION", "CLIENT_CONFIG", "ENROLMENT", "IMAGE"):
        monkeypatch.setenv(f"BORGMATIC_DIRECTOR_{name}", "x")
    assert load_settings().source.url == ""


def test_the_command_line_s_values_are_checked_too(tmp_path: Path) -> None:
    assert refusal(None, source={"mass_change": 7}).message == (
        "source.mass_change: Input should be less than or equal to 1"
    )


def test_a_relative_state_directory_stays_where_the_command_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(state_directory=Path("state")).socket_path == tmp_path / "state" / "director.sock"


def test_a_user_keeps_state_at_home_and_root_where_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    assert default_state_directory() == Path.home() / ".local" / "state" / "borgmatic-director"
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    assert load_settings().state_directory == Path("/elsewhere/borgmatic-director")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_directory() == DirectorSettings.model_fields["state_directory"].default


def test_a_state_directory_that_is_set_is_used_by_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54_321)
    file = written(tmp_path, f'state_directory = "{tmp_path}/state"\n')
    assert load_settings(file).state_directory == tmp_path / "state"
    monkeypatch.setenv("BORGMATIC_DIRECTOR_STATE_DIRECTORY", str(tmp_path / "other"))
    assert load_settings(file).state_directory == tmp_path / "other"
    assert load_settings(file, state_directory=tmp_path / "third").state_directory == tmp_path / "third"
