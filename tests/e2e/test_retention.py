"""Two backups share one repository, and the real borgmatic prunes one: the other loses none of its archives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from reconciler.core.build import Build
from tests.reconciler.core.written import backup, built, client, repository

BORGMATIC = Path(sys.executable).with_name("borgmatic")


def run(*words: str | Path, home: Path) -> str:
    environment = {**os.environ, "HOME": str(home), "BORG_BASE_DIR": str(home), "XDG_RUNTIME_DIR": str(home)}
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=home, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def two_backups_in_one_repository(folder: Path) -> Build:
    (folder / "source").mkdir()
    (folder / "pass phrase").write_text("it is a secret\n")
    passphrase = {"file": str(folder / "pass phrase")}
    nas = repository(
        url=f"{folder}/new/borg", create=True, encryption={"mode": "repokey", "passphraseFrom": passphrase}
    )
    block = {"source_directories": [str(folder / "source")], "keep_daily": 1}
    # The name of one begins the name of the other.
    return built([client("web-1"), nas, *(backup(name, borgmatic=block) for name in ("files", "files-more"))])


def test_a_prune_takes_only_archives_of_its_own_backup(tmp_path: Path):
    result = two_backups_in_one_repository(tmp_path)
    assert result.problems == ()
    for file in result.contents["web-1"].files:
        (tmp_path / file.path).write_bytes(file.rendered("0" * 40))
    files, more = tmp_path / "files.yaml", tmp_path / "files-more.yaml"

    run(BORGMATIC, "-c", files, "repo-create", home=tmp_path)
    first = time.time()
    for _ in range(2):
        for config in (files, more):
            run(BORGMATIC, "-c", config, "create", home=tmp_path)
        while int(time.time()) == int(first):  # archives are named by the second
            os.sched_yield()
        first = time.time()
    run(BORGMATIC, "-c", files, "prune", home=tmp_path)

    listed = json.loads(run(BORGMATIC, "-c", files, "repo-list", "--match-archives", "*", "--json", home=tmp_path))
    names = [archive["name"].rpartition(".")[0] for archive in listed[0]["archives"]]
    assert sorted(names) == ["web-1.files", "web-1.files-more", "web-1.files-more"]
