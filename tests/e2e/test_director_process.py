"""``director run`` as a process: signals, kills, pushes through its hooks, and starts that cannot succeed."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from schema.envelope import ClientIdentity
from tests.e2e.director_process import PROGRAM, SECONDS, DirectorProcess, free_port
from tests.git_repository import GitRepository

KEY = ClientIdentity.generate().public.text
CLIENT = f"""\
apiVersion: borgmatic.director/v1
kind: Client
metadata: {{name: web-1}}
spec: {{publicKey: {KEY}}}
"""
REST = """\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: "/srv/${client}", encryption: {mode: none}}
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  borgmatic: {source_directories: [/etc], keep_daily: 7}
"""
BROKEN = REST.replace("[nas]", "[nsa]")


@pytest.fixture
def git(tmp_path: Path) -> GitRepository:
    made = GitRepository(tmp_path / "source")
    made.commit("start", client=CLIENT, rest=REST)
    return made


@pytest.fixture
def director(git: GitRepository, tmp_path: Path) -> Iterator[DirectorProcess]:
    with DirectorProcess(tmp_path, "run", "--source", git.directory) as running:
        running.log("reconcile", outcome="published")
        yield running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_good_order(director: DirectorProcess, number: signal.Signals) -> None:
    director.signal(number)
    code, said = director.ended()
    assert (code, "Traceback" in said) == (0, False)
    assert not (director.state / "director.sock").exists()
    gone = director.command("status")
    assert (gone.returncode, "no director is running" in gone.stderr) == (2, True)


def test_a_commit_is_followed_at_once_and_a_broken_one_changes_nothing(
    director: DirectorProcess, git: GitRepository
) -> None:
    good = git.head()
    bad = git.commit("broken", rest=BROKEN)
    said = director.log("reconcile", outcome="stalled")
    assert "rest.yaml:11:18: there is no Repository 'nsa'" in said["message"]
    source = director.read("status")["source"]
    assert (source["revision"], source["head"]) == (good, bad)
    assert "rest.yaml:11:18" in director.page("/source")
    git.commit("mended", rest=REST)
    director.log("reconcile", outcome="published", revision=git.head()[:12])


def test_sighup_reconciles_what_nothing_else_would_have_noticed(git: GitRepository, tmp_path: Path) -> None:
    # Over file:// the source is one behind a network: it is not watched.
    with DirectorProcess(tmp_path, "run", "--source", f"file://{git.directory}") as director:
        director.log("reconcile", outcome="published")
        revision = git.commit("more", rest=REST.replace("/etc", "/srv"))
        director.signal(signal.SIGHUP)
        assert director.log("reconcile")["revision"] == revision[:12]


def test_after_kill_9_it_goes_on_where_it_was_and_issues_nothing_anew(
    director: DirectorProcess, git: GitRepository
) -> None:
    before = director.read("clients", "list")
    director.process.kill()
    director.process.wait(SECONDS)
    assert (director.state / "director.sock").exists()
    director.start()
    director.log("running")
    assert director.command("reconcile", "--wait").returncode == 0
    after = director.read("clients", "list")
    assert [one["desiredGeneration"] for one in after] == [one["desiredGeneration"] for one in before]
    revision = git.commit("more", rest=REST.replace("/etc", "/srv"))
    assert director.log("reconcile", outcome="published")["revision"] == revision[:12]


def test_suspended_it_stays_suspended_after_a_restart(director: DirectorProcess, git: GitRepository) -> None:
    good = git.head()
    assert director.command("suspend").returncode == 0
    director.signal(signal.SIGTERM)
    assert director.ended()[0] == 0
    git.commit("more", rest=REST.replace("/etc", "/srv"))
    director.start()
    director.log("reconcile", outcome="suspended")
    assert director.read("status")["source"]["revision"] == good
    assert director.command("resume").returncode == 0
    director.log("reconcile", outcome="published", revision=git.head()[:12])


def test_numbers_say_the_same_on_the_dashboard_and_at_an_address_of_their_own(
    git: GitRepository, tmp_path: Path
) -> None:
    address = f"127.0.0.1:{free_port()}"
    with DirectorProcess(
        tmp_path, "run", "--source", git.directory, BORGMATIC_DIRECTOR_LISTEN__METRICS_ADDRESS=address
    ) as director:
        director.log("reconcile", outcome="published")
        assert director.command("reconcile", "--wait").returncode == 0
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=SECONDS) as answer:
            apart = answer.read().decode()
        for text in (apart, director.page("/metrics")):
            assert 'borgmatic_director_reconciles_total{outcome="published"} 1.0' in text
            assert 'borgmatic_director_backup_running{client="web-1",backup="files"} 0' in text


def test_an_empty_source_is_waited_for(tmp_path: Path) -> None:
    git = GitRepository(tmp_path / "source")
    with DirectorProcess(tmp_path, "run", "--source", git.directory) as director:
        said = director.log("reconcile", outcome="stalled")
        assert "is empty: no branch has a commit yet" in said["message"]
        waiting = director.command("reconcile", "--wait")
        assert (waiting.returncode, "director init" in waiting.stdout) == (1, True)
        revision = git.commit("start", client=CLIENT, rest=REST)
        assert director.log("reconcile", outcome="published")["revision"] == revision[:12]


def test_a_push_is_refused_in_the_pusher_s_terminal_or_deployed_at_once(tmp_path: Path) -> None:
    bare = tmp_path / "backups.git"
    subprocess.run([PROGRAM, "init", "--bare", bare], check=True, capture_output=True)
    with DirectorProcess(tmp_path, "run", "--source", bare) as director:
        director.log("reconcile", outcome="stalled")
        git = GitRepository(tmp_path / "source")
        revision = git.commit("start", client=CLIENT, rest=REST)
        shown = git.push(bare, "HEAD:main")
        assert "remote: + client web-1" in shown
        assert director.log("reconcile", outcome="published")["revision"] == revision[:12]
        git.commit("broken", rest=BROKEN)
        refused = git.attempt("push", str(bare), "HEAD:main")
        assert refused.returncode == 1
        assert "remote: rest.yaml:11:18: error: there is no Repository 'nsa'" in refused.stderr
        assert director.read("status")["source"]["head"] == revision
        git.commit("nothing left", rest="# nothing\n")
        assert "remote: the director holds this, unless its `mass_change` allows more" in git.push(bare, "HEAD:main")
        assert director.log("reconcile", reason="MassChangeHeld")


def test_following_runs_ends_cleanly_with_ctrl_c_and_with_the_director(director: DirectorProcess) -> None:
    def follow() -> subprocess.Popen[str]:
        words = [director.words[0], "runs", "--follow"]
        following = subprocess.Popen(
            words, env=director.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert following.stderr is not None
        assert following.stderr.readline() == "following runs; end with Ctrl-C\n"
        return following

    first, second = follow(), follow()
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=SECONDS)
    assert (first.returncode, "Traceback" in said) == (0, False)
    director.signal(signal.SIGTERM)
    assert director.ended()[0] == 0
    _, said = second.communicate(timeout=SECONDS)
    assert second.returncode in {0, 2}  # 2: it had not reached the director yet
    assert "the director" in said


def test_a_second_director_names_the_first(director: DirectorProcess) -> None:
    second = director.command("run", "--source", "/nowhere")
    assert second.returncode == 2
    assert "another director is running with the state directory" in second.stderr
    assert f"it is process {director.process.pid}" in second.stderr
    assert director.command("reconcile", "--wait").returncode == 0


# --- Starts that cannot succeed ---------------------------------------------------------------------------------------


def refused(director: DirectorProcess) -> str:
    code, said = director.ended()
    assert code == 2, said
    assert "Traceback" not in said
    assert "ExceptionGroup" not in said
    return said


def test_without_a_source_it_says_how_to_name_one(tmp_path: Path) -> None:
    with DirectorProcess(tmp_path, "run") as director:
        said = refused(director)
    assert "error: no source was named\n hint: set [source] url" in said
    assert not director.state.exists()


@pytest.mark.parametrize("which", ["web", "listen"])
def test_an_address_in_use_ends_it_in_words(git: GitRepository, tmp_path: Path, which: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        setting = {f"BORGMATIC_DIRECTOR_{which.upper()}__ADDRESS": address}
        with DirectorProcess(tmp_path, "run", "--source", git.directory, **setting) as director:
            said = refused(director)
    assert address in said
    assert "ddress already in use" in said
    assert not (director.state / "director.sock").exists()


@pytest.mark.parametrize(
    "setting, value, message",
    [
        ("WEB__ADDRESS", "nonsense", "nonsense"),
        ("LISTEN__ADDRESS", "127.0.0.1:99999", "99999"),
        ("LISTEN__TRUSTED_PROXIES", '["x"]', "x"),
        ("WEB__ADDRESS", "0.0.0.0:0", "cannot serve the dashboard at 0.0.0.0"),
        ("BORGMATIC_SCHEMA", "/nowhere.yaml", "cannot read borgmatic's schema /nowhere.yaml"),
        ("SOURCE__BRANCH", "a..b", "branch"),
        ("SOURCE__URL", "https://user:secret@example.org/x.git", "source"),
    ],
)
def test_a_setting_that_cannot_work_ends_it_in_words(
    git: GitRepository, tmp_path: Path, setting: str, value: str, message: str
) -> None:
    variables = {"BORGMATIC_DIRECTOR_SOURCE__URL": str(git.directory), f"BORGMATIC_DIRECTOR_{setting}": value}
    with DirectorProcess(tmp_path, "run", **variables) as director:
        said = refused(director)
    assert message in said
    assert "secret" not in said


def test_a_state_directory_that_others_can_write_is_refused(git: GitRepository, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    with DirectorProcess(tmp_path, "run", "--source", git.directory) as director:
        assert "other users may write to the state directory" in refused(director)


def test_a_store_that_is_none_is_refused_and_left_alone(git: GitRepository, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "store.sqlite").write_bytes(b"this is no database" * 100)
    with DirectorProcess(tmp_path, "run", "--source", git.directory) as director:
        said = refused(director)
    assert "it is damaged or no store at all" in said
    assert (tmp_path / "state" / "store.sqlite").read_bytes() == b"this is no database" * 100


def test_ctrl_c_while_a_fetch_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket() as silent:  # takes connections and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/x.git"
        with DirectorProcess(tmp_path, "run", "--source", url) as director:
            director.log("running")
            silent.settimeout(SECONDS)
            connection = silent.accept()[0]
            director.signal(signal.SIGINT)
            director.log("stopping")
            director.signal(signal.SIGINT)
            code, said = director.ended()
            connection.close()
    assert (code, "Traceback" in said) == (130, False)


def test_the_dashboard_alone_serves_the_store_of_a_director_that_is_gone(director: DirectorProcess) -> None:
    director.signal(signal.SIGTERM)
    assert director.ended()[0] == 0
    director.words = [director.words[0], "web"]
    director.start()
    director.log("web.serving")
    assert "web-1" in director.page("/clients")
    director.signal(signal.SIGINT)
    code, said = director.ended()
    assert (code, "Traceback" in said) == (0, False)


def test_nothing_it_writes_can_be_read_by_others(director: DirectorProcess) -> None:
    for path in director.state.rglob("*"):
        assert path.lstat().st_mode & 0o077 == 0, path
    assert director.state.stat().st_mode & 0o777 == 0o700
