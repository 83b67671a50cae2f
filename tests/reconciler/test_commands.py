"""The commands that need no running director, as people, CI and Git's hooks call them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from reconciler.cli import main
from schema.envelope import ClientIdentity
from tests.git_repository import GitRepository

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = ClientIdentity.generate().public.text
ESCAPE = "\x1b]0;owned\x07"

CLIENT = f"""\
apiVersion: borgmatic.director/v1
kind: Client
metadata: {{name: web-1}}
spec: {{publicKey: {KEY}}}
"""
REPOSITORY = """\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: "/srv/${client}", encryption: {mode: none}}
"""
BACKUP = """\
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  borgmatic: {source_directories: [/etc], keep_daily: 7}
"""


def director(*arguments: object, value: str | bytes = b"") -> Result:
    """Run a command. Whatever it is given, it ends with one of our exit codes and no traceback."""
    done = CliRunner().invoke(main, [str(one) for one in arguments], input=value, prog_name="director")
    assert done.exception is None or isinstance(done.exception, SystemExit), (done.output, repr(done.exception))
    assert done.exit_code in {0, 1, 2}
    return done


@pytest.fixture
def git(tmp_path: Path) -> GitRepository:
    made = GitRepository(tmp_path / "source")
    made.commit("start", client=CLIENT, nas=REPOSITORY, files=BACKUP)
    return made


def break_it(git: GitRepository) -> None:
    git.write("files.yaml", BACKUP.replace("[nas]", "[nsa]").replace("keep_daily", "keep_dayly"))


def commands(group: click.Group = main, *before: str) -> list[tuple[tuple[str, ...], click.Command]]:
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name in group.list_commands(click.Context(group)):
        command = group.commands[name]
        if isinstance(command, click.Group):
            found += commands(command, *before, name)
        else:
            found.append(((*before, name), command))
    return found


# --- Help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path, command", [(" ".join(path), command) for path, command in commands()])
def test_every_command_has_help_with_an_example_that_is_that_command(path: str, command: click.Command) -> None:
    done = director(*path.split(), "--help")
    assert done.exit_code == 0
    if not path.startswith("hook"):
        assert "Examples:" in done.output
        assert f"director {path}" in done.output


@pytest.mark.parametrize("path, command", [(" ".join(path), command) for path, command in commands()])
def test_the_options_in_examples_exist(path: str, command: click.Command) -> None:
    known = {word for one in command.params for word in (*one.opts, *one.secondary_opts)}
    for line in re.findall(rf"director {path}([^&|>\n]*)", command.epilog or ""):
        assert {word for word in line.split() if re.match(r"--?[a-z]", word)} <= known


def test_the_overview_lists_every_command_once_and_none_is_cut_off() -> None:
    overview = director("--help").output
    for name in (name for name in main.list_commands(click.Context(main)) if not main.commands[name].hidden):
        assert len(re.findall(rf"^  {name} ", overview, re.MULTILINE)) == 1
    assert "..." not in overview.partition("Options:")[2]


@pytest.mark.parametrize("group", ["clients", "token", "viewer"])
def test_the_overview_of_a_group_cuts_no_command_off(group: str) -> None:
    assert "..." not in director(group, "--help").output.partition("Options:")[2]


def test_a_misspelt_command_is_recognised_whichever_module_has_it() -> None:
    for wrong, meant in (("valdate", "validate"), ("reconcil", "reconcile"), ("viewr", "viewer")):
        assert f"Did you mean '{meant}'?" in director(wrong).output


def test_help_loads_neither_models_nor_adapters() -> None:
    script = (
        "import sys; from reconciler.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert not loaded & {"pydantic", "structlog", "rich", "aiohttp", "sqlalchemy", "yaml", "ruamel", "nacl", "asyncio"}


def test_the_settings_file_may_be_named_before_or_after_the_command(tmp_path: Path) -> None:
    for words in (["--config", "/none.toml", "status"], ["status", "--config", "/none.toml"]):
        done = director(*words)
        assert (done.exit_code, "there is no settings file /none.toml" in done.output) == (2, True)
    done = director("--config", "/other.toml", "token", "list", "--config", "/none.toml")
    assert "there is no settings file /none.toml" in done.output
    done = director("--state-directory", tmp_path, "clients", "list")
    assert f"nobody answers on {tmp_path}/director.sock" in done.output


# --- validate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["homelab", "fleet"])
def test_the_examples_are_valid(name: str) -> None:
    done = director("validate", EXAMPLES / name)
    assert done.exit_code == 0
    assert done.output.startswith("valid: ")


def test_what_is_wrong_is_said_with_place_and_hint(git: GitRepository) -> None:
    break_it(git)
    done = director("validate", git.directory)
    assert done.exit_code == 1
    assert "files.yaml:6:18: error: there is no Repository 'nsa'\n  hint: did you mean 'nas'?" in done.output
    assert re.search(r"files\.yaml:7:\d+: error: .*keep_dayly", done.output)
    assert done.output.splitlines()[-1].startswith("invalid: 2 errors")


def test_places_start_at_the_root_of_the_repository_wherever_the_command_is_run(
    git: GitRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    git.write("deep/er/wrong.yaml", "kind: [")
    monkeypatch.chdir(git.directory / "deep")
    for path in (".", "er", "er/wrong.yaml", git.directory / "deep"):
        assert director("validate", path).output.startswith("deep/er/wrong.yaml:"), path


@pytest.mark.parametrize("form", ["text", "json", "github", "sarif", "junit"])
def test_every_format_says_valid_or_not_by_its_exit_code(git: GitRepository, form: str) -> None:
    for expected in (0, 1):
        done = director("validate", git.directory, "--format", form)
        assert (done.exit_code, done.stderr) == (expected, "")
        break_it(git)


def test_json_holds_all_that_text_says(git: GitRepository) -> None:
    break_it(git)
    found = json.loads(director("validate", git.directory, "--format", "json").stdout)
    assert (found["ok"], len(found["problems"])) == (False, 2)
    assert {"severity", "code", "message", "hint", "path", "line", "column"} == set(found["problems"][0])
    mended = json.loads(director("validate", EXAMPLES / "homelab", "--format", "json").stdout)
    assert (mended["ok"], mended["problems"]) == (True, [])


def test_github_gets_one_annotation_a_problem_on_a_line_of_its_own(git: GitRepository) -> None:
    break_it(git)
    lines = director("validate", git.directory, "--format", "github").stdout.splitlines()
    assert len(lines) == 2
    assert "::error file=files.yaml,line=6,col=18::there is no Repository 'nsa' (hint: did you mean 'nas'?)" in lines


def test_sarif_is_what_code_scanning_reads(git: GitRepository) -> None:
    break_it(git)
    log: Any = json.loads(director("validate", git.directory, "--format", "sarif").stdout)
    assert (log["version"], len(log["runs"])) == ("2.1.0", 1)
    run = log["runs"][0]
    rules = {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert len(run["results"]) == 2
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert (result["ruleId"] in rules, result["level"]) == (True, "error")
        assert place["artifactLocation"]["uri"] == "files.yaml"
        assert place["region"]["startLine"] >= 1
    clean = json.loads(director("validate", EXAMPLES / "homelab", "--format", "sarif").stdout)
    assert clean["runs"][0]["results"] == []


def test_junit_is_well_formed_and_counts(git: GitRepository) -> None:
    for name in ("first", "second"):
        git.write(f"{name}.yaml", f"kind: {json.dumps(ESCAPE + '<&]]>')}\n")
    suite = ET.fromstring(director("validate", git.directory, "--format", "junit").stdout)
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "2")
    assert {case.attrib["name"] for case in suite} == {"first.yaml", "second.yaml"}
    assert all("apiVersion" in (case[0].text or "") for case in suite)
    clean = ET.fromstring(director("validate", EXAMPLES / "homelab", "--format", "junit").stdout)
    assert (clean.attrib["tests"], clean.attrib["failures"]) == ("1", "0")


def test_warnings_fail_only_when_asked(git: GitRepository) -> None:
    git.write("link.yaml", "")
    (git.directory / "link.yaml").unlink()
    (git.directory / "link.yaml").symlink_to("files.yaml")
    done = director("validate", git.directory)
    assert (done.exit_code, "1 warning" in done.output) == (0, True)
    assert director("validate", git.directory, "--strict").exit_code == 1


def test_a_folder_outside_of_git_is_fine(tmp_path: Path) -> None:
    (tmp_path / "client.yaml").write_text(CLIENT)
    assert director("validate", tmp_path).exit_code == 0
    assert director("validate", tmp_path / "client.yaml").exit_code == 0


def test_an_empty_folder_is_found_wrong_so_that_ci_in_the_wrong_folder_is_not_green(tmp_path: Path) -> None:
    done = director("validate", tmp_path)
    assert done.exit_code == 1
    assert "is it the right folder?" in done.output


@pytest.mark.parametrize("schema", ["missing", "not yaml", "not a schema"])
def test_another_borgmatic_s_schema_must_be_one(git: GitRepository, schema: str, tmp_path: Path) -> None:
    file = tmp_path / "schema.yaml"
    if schema != "missing":
        file.write_text("kind: [" if schema == "not yaml" else "a: b\n")
    done = director("validate", git.directory, "--borgmatic-schema", file)
    assert done.exit_code == 2


def test_hostile_text_never_reaches_a_terminal_as_it_is(git: GitRepository) -> None:
    hostile = json.dumps(f"{ESCAPE}\u202e\u009b31m")
    git.write("hostile.yaml", BACKUP.replace("files", "other").replace("[nas]", f"[{hostile}]"))
    git.write("kind.yaml", f"apiVersion: borgmatic.director/v1\nkind: {hostile}\nmetadata: {{name: x}}\n")
    for form in ("text", "json", "github", "sarif", "junit"):
        output = director("validate", git.directory, "--format", form).output
        assert all(char.isprintable() or char == "\n" for char in output), form


# --- build ------------------------------------------------------------------------------------------------------------


def test_build_prints_what_each_client_would_get(git: GitRepository) -> None:
    done = director("build", git.directory)
    assert done.exit_code == 0
    assert done.output.startswith("# web-1: files.yaml  (from files.yaml")
    assert yaml.safe_load(done.output)["source_directories"] == ["/etc"]


def test_build_writes_files_and_jobs_below_a_folder(git: GitRepository, tmp_path: Path) -> None:
    done = director("build", git.directory, "--out", tmp_path / "out")
    assert done.output == f"wrote the files of 1 client to {tmp_path / 'out'}\n"
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == [
        "web-1/config/files.yaml",
        "web-1/jobs.json",
    ]
    (job,) = json.loads((tmp_path / "out" / "web-1" / "jobs.json").read_text())
    assert job["backup"] == "files"


def test_build_of_one_client_of_many(tmp_path: Path) -> None:
    director("build", EXAMPLES / "fleet", "--client", "web-3", "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["web-3"]
    done = director("build", EXAMPLES / "fleet", "--client", "web-99")
    assert (done.exit_code, "there is no client 'web-99'; the source has: app-1" in done.output) == (2, True)


def test_build_of_an_invalid_source_writes_nothing_and_says_why_on_stderr(git: GitRepository, tmp_path: Path) -> None:
    break_it(git)
    done = director("build", git.directory, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "there is no Repository 'nsa'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_build_as_json_holds_every_client() -> None:
    contents = json.loads(director("build", EXAMPLES / "homelab", "-o", "json").stdout)
    assert sorted(contents) == ["atlas", "luna"]


def test_build_into_a_place_that_cannot_be_written_is_an_error(git: GitRepository, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = director("build", git.directory, "--out", tmp_path / "file" / "out")
    assert (done.exit_code, "Not a directory" in done.output) == (2, True)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_a_plan_shows_what_a_commit_changes(git: GitRepository) -> None:
    git.commit(files=BACKUP.replace("[/etc]", "[/etc, /srv]"))
    done = director("plan", git.directory, "--from", "HEAD~1", "--to", "HEAD")
    assert done.exit_code == 0
    assert "~ client web-1" in done.output
    assert re.search(r"^ +\+.*- /srv$", done.output, re.MULTILINE)


def test_a_danger_fails_until_a_trailer_acknowledges_it(git: GitRepository) -> None:
    git.commit(files=BACKUP.replace("keep_daily: 7", "keep_daily: 2"))
    arguments = ["plan", git.directory, "--from", "HEAD~1", "--to", "HEAD"]
    assert "retention-shortened" in director(*arguments).output
    assert director(*arguments).exit_code == 1
    git.git("commit", "--quiet", "--amend", "-m", "Keep less\n\nDirector-Acknowledge: retention-shortened")
    assert director(*arguments).exit_code == 0
    planned = json.loads(director(*arguments, "-o", "json").stdout)
    assert (planned["ok"], planned["acknowledged"]) == (True, ["retention-shortened"])


def test_uncommitted_work_is_planned_against_the_last_commit(git: GitRepository) -> None:
    git.write("files.yaml", BACKUP.replace("[/etc]", "[/srv]"))
    done = director("plan", git.directory)
    assert (done.exit_code, "source-dropped" in done.output or "danger" in done.output.lower()) == (1, True)


def test_commits_since_count_with_uncommitted_work(git: GitRepository) -> None:
    git.commit("Keep less\n\nDirector-Acknowledge: retention-shortened", files=BACKUP.replace("7}", "2}"))
    assert director("plan", git.directory, "--from", "HEAD~1").exit_code == 0


def test_a_plan_of_an_invalid_change_says_why(git: GitRepository) -> None:
    break_it(git)
    done = director("plan", git.directory)
    assert (done.exit_code, "there is no Repository 'nsa'" in done.stderr) == (1, True)


def test_a_plan_against_an_invalid_revision_could_not_run(git: GitRepository) -> None:
    break_it(git)
    git.commit("broken")
    git.commit(files=BACKUP)
    done = director("plan", git.directory, "--from", "HEAD~1")
    assert (done.exit_code, "is itself invalid: files.yaml:" in done.output) == (2, True)


@pytest.mark.parametrize(
    "revision",
    ["nonsense", "--output=/tmp/x", "-x", "HEAD~99", "HEAD:files.yaml", "", "@{upstream}", "a b", "\x1b[31m", "0" * 40],
)
@pytest.mark.parametrize("side", ["--from", "--to"])
def test_a_revision_that_is_none_is_refused(git: GitRepository, side: str, revision: str) -> None:
    done = director("plan", git.directory, f"{side}={revision}")
    assert done.exit_code == 2
    assert done.output.startswith("error: ")
    assert not Path("/tmp/x").exists()


def test_a_plan_needs_a_repository_with_a_commit(tmp_path: Path) -> None:
    done = director("plan", tmp_path)
    assert (done.exit_code, "is not in a Git repository" in done.output) == (2, True)
    GitRepository(tmp_path / "empty")
    assert director("plan", tmp_path / "empty").exit_code == 2


# --- schema, and all that takes a path --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["all", "Backup", "backup", "CLIENT"])
def test_schemas_are_printed_as_they_are_published(kind: str) -> None:
    assert json.loads(director("schema", kind).stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_an_unknown_kind_is_refused_with_those_that_are_known() -> None:
    done = director("schema", "../../etc/passwd")
    assert (done.exit_code, "known are: all, Client, Repository" in done.output) == (2, True)


@pytest.mark.parametrize("command", ["validate", "build", "plan", "seal x y", "reseal --escrow-key-file /dev/null"])
@pytest.mark.parametrize("path", ["missing", "binary.yaml", "fifo", "binary.git", "huge.yaml", "latin.yaml", "locked"])
def test_whatever_a_path_leads_to_there_is_an_error_and_no_traceback(tmp_path: Path, command: str, path: str) -> None:
    (tmp_path / "binary.yaml").write_bytes(os.urandom(4096))
    (tmp_path / "huge.yaml").write_bytes(b"a: b\n" * 500_000)
    (tmp_path / "latin.yaml").write_bytes("a: ä\n".encode("latin-1"))
    (tmp_path / "binary.git").mkdir()
    (tmp_path / "binary.git" / ".git").write_bytes(os.urandom(64))
    (tmp_path / "locked").mkdir(mode=0)
    os.mkfifo(tmp_path / "fifo")
    name, *rest = command.split()
    done = director(name, tmp_path / path, *rest, value=b"x")
    expected = {0, 1, 2} if path in {"locked", "binary.git"} else {1, 2}  # root can look into a locked folder
    assert done.exit_code in expected


@pytest.mark.parametrize(
    "words", [["--nonsense"], ["valdate"], ["validate", "a", "b"], ["validate", "--format", "xml"]]
)
def test_a_misused_command_ends_with_2_and_usage(words: list[str]) -> None:
    done = director(*words)
    assert (done.exit_code, "Usage: director" in done.output) == (2, True)


# --- Hooks ------------------------------------------------------------------------------------------------------------


def test_a_push_is_refused_with_the_place_and_taken_with_the_plan(git: GitRepository, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("director")
    subprocess.run([program, "init", "--bare", tmp_path / "bare.git"], check=True, capture_output=True)
    assert "client web-1" in git.push(tmp_path / "bare.git", "HEAD:main")
    break_it(git)
    git.commit("broken")
    done = git.attempt("push", str(tmp_path / "bare.git"), "HEAD:main")
    assert done.returncode != 0
    assert "files.yaml:6:18: error: there is no Repository 'nsa'" in done.stderr


def test_hooks_call_the_director_that_made_them_with_the_settings_it_was_given(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("director")
    config = tmp_path / "my director.toml"
    config.write_text("")
    subprocess.run([program, "--config", config, "init", "--bare", tmp_path / "b.git"], check=True, capture_output=True)
    for name in ("pre-receive", "post-receive"):
        text = (tmp_path / "b.git" / "hooks" / name).read_text()
        assert f"{program.resolve()} --config '{config}' " in text


@pytest.mark.parametrize("lines", ["", "x", "a b c d\n", "\x00\x00", "0 0 refs/heads/main\n"])
def test_the_hook_survives_whatever_it_is_told(tmp_path: Path, lines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    director("hook", "pre-receive", value=lines)
