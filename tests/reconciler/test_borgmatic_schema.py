"""borgmatic's schema is read from the installed package, as data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from reconciler import borgmatic_schema
from schema.errors import TerminalError


def test_the_schema_of_the_installed_borgmatic_is_found():
    schema = borgmatic_schema.load()

    assert {"repositories", "source_directories", "keep_daily"} <= schema["properties"].keys()


def test_none_of_borgmatics_code_is_loaded():
    code = (
        "import sys; from reconciler import borgmatic_schema; borgmatic_schema.load(); "
        "sys.exit('borgmatic' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_another_schema_may_be_named(tmp_path: Path):
    file = tmp_path / "schema.yaml"
    file.write_text("type: object\nproperties: {keep_daily: {type: integer}}\n", encoding="utf-8")

    assert borgmatic_schema.load(file)["properties"] == {"keep_daily": {"type": "integer"}}


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [\n", "cannot read borgmatic's schema: "),
        ("", "is not a schema of borgmatic: it has no properties"),
        ("- a\n", "is not a schema of borgmatic: it has no properties"),
        ("properties: 3\n", "is not a schema of borgmatic: it has no properties"),
    ],
)
def test_what_is_no_schema_is_refused(tmp_path: Path, content: str, message: str):
    file = tmp_path / "schema.yaml"
    file.write_text(content, encoding="utf-8")

    with pytest.raises(TerminalError) as caught:
        borgmatic_schema.load(file)

    assert message in caught.value.message


def test_a_file_that_is_not_there_is_named_with_what_to_do(tmp_path: Path):
    with pytest.raises(TerminalError, match="No such file or directory") as caught:
        borgmatic_schema.load(tmp_path / "schema.yaml")

    assert caught.value.hint == "install borgmatic, or name the config/schema.yaml of one"


def test_a_missing_borgmatic_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "borgmatic", raising=False)

    with pytest.raises(TerminalError, match="borgmatic is not installed beside the director"):
        borgmatic_schema.load()
