"""The examples: valid, without warnings, built to what was reviewed, and accepted by the real borgmatic."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from reconciler.core import build
from tools import golden


@cache
def built(name: str) -> build.Build:
    return golden.build_example(name)


@pytest.mark.parametrize("name", golden.EXAMPLES)
def test_an_example_has_neither_errors_nor_warnings(name: str):
    assert built(name).problems == ()


@pytest.mark.parametrize("name", golden.EXAMPLES)
def test_an_example_builds_to_its_golden_files(name: str):
    folder = golden.GOLDEN / name
    reviewed = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    made = golden.golden_files(built(name))

    assert sorted(made) == sorted(reviewed)
    for path, content in made.items():
        assert content.decode() == reviewed[path].decode(), f"{path} changed: review it, then `python -m tools.golden`"


@pytest.mark.parametrize(("name", "clients"), [("homelab", 2), ("fleet", 20)])
def test_every_client_of_an_example_is_approved_and_runs_something(name: str, clients: int):
    contents = built(name).contents

    assert len(contents) == clients
    assert all(content.jobs for content in contents.values())


@pytest.mark.parametrize("name", golden.EXAMPLES)
def test_an_example_has_one_resource_in_each_file_in_the_folder_of_its_kind(name: str):
    catalogue = built(name).catalogue
    places = [located.path for kind in catalogue.kinds.values() for located in kind.values()]

    assert len(places) == len(set(places))
    for kind in catalogue.kinds.values():
        for located in kind.values():
            assert located.path == f"{located.resource.folder}/{located.resource.name}.yaml"


def test_the_real_borgmatic_accepts_what_the_examples_build(tmp_path: Path):
    files = sorted((golden.GOLDEN / "homelab").glob("*/config/*.yaml"))
    files += [golden.GOLDEN / "fleet" / path for path in FLEET_FILES]
    borgmatic = Path(sys.executable).with_name("borgmatic")
    configs = [word for path in files for word in ("--config", str(path))]

    done = subprocess.run(
        [borgmatic, *configs, "config", "validate"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "All configuration files are valid" in done.stdout + done.stderr


FLEET_FILES = (
    "app-1/config/apps.yaml",
    "build-1/config/system.yaml",
    "db-1/config/postgresql.yaml",
    "db-3/config/mariadb.yaml",
    "mail-1/config/mail.yaml",
    "web-1/config/web.yaml",
)
"""One of each backup."""
