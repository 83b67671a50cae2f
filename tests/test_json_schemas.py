"""The published JSON Schemas are current, sound, and of one mind with the loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from reconciler.core import load
from schema.resources import KINDS
from tests.reconciler.core import written
from tools import schemas

EXAMPLES = Path(__file__).parent.parent / "examples"


def published(name: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((schemas.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return schema


def accepts(name: str, document: Any) -> bool:
    return jsonschema.Draft202012Validator(published(name)).is_valid(document)


def test_the_published_files_are_what_the_models_say():
    assert schemas.outdated() == []


def test_a_file_that_is_missing_changed_or_left_over_is_named(tmp_path: Path):
    schemas.write(tmp_path)
    (tmp_path / "Client.json").unlink()
    (tmp_path / "Backup.json").write_text("{}", encoding="utf-8")
    (tmp_path / "Old.json").write_text("{}", encoding="utf-8")

    assert schemas.outdated(tmp_path) == ["Backup.json", "Client.json", "Old.json"]

    schemas.write(tmp_path)
    assert schemas.outdated(tmp_path) == []


@pytest.mark.parametrize("name", [*KINDS, "all"])
def test_each_is_a_sound_schema_with_a_name_of_its_own_and_no_address(name: str):
    schema = published(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:borgmatic-director:v1:{name}"
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*/*.yaml")), ids=lambda file: "/".join(file.parts[-3:]))
def test_every_example_is_accepted(file: Path):
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
        if isinstance(document, dict) and "apiVersion" in document:
            assert accepts("all", document)
            assert accepts(document["kind"], document)


HEAD = {"apiVersion": "borgmatic.director/v1", "metadata": {"name": "x"}}
BACKUP = {"clients": ["a"], "repositories": ["b"]}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kind": "Client"},
        {**HEAD, "kind": "Pod"},
        {**HEAD, "kind": "Client", "apiVersion": "v1"},
        {**HEAD, "kind": "Client", "metadata": {"name": "../x"}},
        {**HEAD, "kind": "Client", "metadata": {"name": "x", "labels": {"a b": "c"}}},
        {**HEAD, "kind": "Client", "extra": 1},
        {**HEAD, "kind": "Client", "spec": {"public_key": "x"}},
        {**HEAD, "kind": "Backup"},
        {**HEAD, "kind": "Backup", "spec": {**BACKUP, "suspend": "yes"}},
        {**HEAD, "kind": "Backup", "spec": {**BACKUP, "objectives": {"rpo": 5}}},
        {**HEAD, "kind": "Backup", "spec": {**BACKUP, "clients": {"matchLabels": {}}}},
        {**HEAD, "kind": "Backup", "spec": {**BACKUP, "layering": {"A": "merge"}}},
        {**HEAD, "kind": "Repository", "spec": {"url": "/a", "encryption": {"mode": "none"}, "quota": "5X"}},
        {**HEAD, "kind": "Secret", "spec": {"values": {"a b": {}}}},
    ],
)
def test_an_editor_marks_what_the_loader_refuses(document: dict[str, Any]):
    text = yaml.safe_dump(document)

    assert load.load([written.file("a.yaml", text)]).problems != ()
    assert not accepts("all", document)


def test_defaults_are_given_as_people_write_them():
    jitter = published("Schedule")["$defs"]["ScheduleSpec"]["properties"]["jitter"]

    assert (jitter["type"], jitter["default"]) == ("string", "0s")


def test_the_borgmatic_block_is_explained():
    block = published("Backup")["$defs"]["BackupSpec"]["properties"]["borgmatic"]

    assert "Options of borgmatic under their own names" in block["description"]
