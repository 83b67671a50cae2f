"""A director as a process, with a secret in every place of its settings and its source that can hold one.

``tests/web_readonly/test_canary.py`` does the same with what clients and commits say.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from schema.viewers import Password
from tests.e2e.director_process import SECONDS, DirectorProcess
from tests.e2e.test_director_process import CLIENT, REST
from tests.git_repository import GitRepository

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary5d20c7"
BACKUP = f"""\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {{name: nas}}
spec: {{url: "ssh://me:{CANARY}@nas.example/./x", encryption: {{mode: none}}}}
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {{name: files}}
spec:
  clients: [web-1]
  repositories: [nas]
  borgmatic:
    source_directories: [/etc]
    encryption_passphrase: {CANARY}
    mariadb_databases:
      - {{name: shop, username: me, password: {CANARY}}}
    healthchecks: {{ping_url: "https://hc.example/{CANARY}"}}
    commands:
      - before: action
        run: ["PGPASSWORD={CANARY} pg_isready"]
"""
WRONG = BACKUP.replace("clients: [web-1]", "clients: [wbe-1]")
WORSE = BACKUP.replace(
    "source_directories: [/etc]", f"source_directories: [/etc]\n    encryption_passphrasse: {CANARY}"
)
WORST = BACKUP + f"passphrase: [{CANARY}\n"


def test_no_secret_of_a_running_director_is_in_any_answer_or_its_log(tmp_path: Path) -> None:
    git = GitRepository(tmp_path / "source")
    git.commit("start", client=CLIENT, rest=REST)
    password = Password.make(CANARY, salt=b"salt" * 4)
    config = f"""\
[web]
login = "always"
[web.users]
ann = "{password}"
"""
    with DirectorProcess(tmp_path, "run", "-v", "--source", git.directory, config=config) as director:
        director.log("reconcile", outcome="published")
        token = director.command("viewer", "create", "--note", "crawler").stdout.strip()
        enrolment = director.command("token", "create").stdout.strip()
        revisions = []
        for text in (BACKUP, WRONG, WORSE, WORST, BACKUP):
            revisions.append(git.commit("try", client=CLIENT, rest=text))
            director.command("reconcile", "--wait")
        seen = {path: asked(director, path, token=token) for path in PATHS}
        seen |= {f"/source/{one}": asked(director, f"/source/{one}", token=token) for one in revisions}
        for secret in (CANARY, f"bd1-viewer.{CANARY}"):
            seen[f"refused {secret}"] = asked(director, "/api/v1/overview", token=secret)
        director.process.terminate()
        _, log = director.ended()

    assert "problems" in seen["/api/v1/source"] + log
    assert "web-1" in seen["/clients"]
    hashes = [str(password), json.loads((director.state / "viewers.json").read_text())["viewers"][0]["hash"]]
    for secret in (CANARY, token, enrolment, *hashes):
        leaks = {path: text[max(0, text.index(secret) - 60) :][:120] for path, text in seen.items() if secret in text}
        assert leaks == {}
        assert secret not in log


@pytest.mark.parametrize("file", ["password_file", "token_file"])
def test_a_source_that_cannot_be_fetched_tells_no_password(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret").write_text(CANARY + "\n")
    username = 'username = "me"\n' if file == "password_file" else ""
    config = f'[source]\nurl = "https://127.0.0.1:1/x.git"\n{username}{file} = "{tmp_path / "secret"}"\n'
    with DirectorProcess(tmp_path, "run", "-v", config=config) as director:
        director.log("reconcile")
        seen = {path: asked(director, path) for path in PATHS}
        director.process.terminate()
        _, log = director.ended()

    assert [path for path, text in seen.items() if CANARY in text] == []
    assert CANARY not in log


def test_settings_that_are_refused_are_not_repeated(tmp_path: Path) -> None:
    for config in (
        f'[source]\nurl = "https://me:{CANARY}@127.0.0.1:1/x.git"\n',
        f'[web.users]\nann = "{CANARY}"\n',
        f'[source]\npasword = "{CANARY}"\n',
    ):
        with DirectorProcess(tmp_path, "run", "-v", config=config) as director:
            code, log = director.ended()

        assert (code, CANARY in log) == (2, False), log


PATHS = (
    *("/", "/clients", "/clients/web-1", "/backups", "/backups/files", "/backups/web-1/files", "/runs", "/source"),
    *("/repositories", "/repositories/nas", "/archives", "/events", "/about", "/schedule", "/timeline", "/metrics"),
    *(
        "/api/v1/overview",
        "/api/v1/clients/web-1",
        "/api/v1/clients/web-1/files",
        "/api/v1/source",
        "/api/v1/revisions",
    ),
    *("/api/v1/backups", "/api/v1/backups/web-1/files", "/api/v1/repositories", "/api/v1/events", "/badge/files.svg"),
    *("/nope", "/clients?x=y"),
)


def asked(director: DirectorProcess, path: str, *, token: str = "") -> str:
    """Return an answer with its headers, whatever its status: what is wrong is told there too."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    question = urllib.request.Request(f"http://127.0.0.1:{director.web_port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(question, timeout=SECONDS) as answer:
            said = answer.read().decode() + str(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode() + str(error.headers)
    return re.sub(r"\s+", " ", said)
