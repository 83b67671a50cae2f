"""Writes ``schema/json/v1/``, the published JSON Schemas: one for each kind, and ``all.json`` for editors.

``python -m tools.schemas`` writes them (``make schemas``); ``--check`` only says whether they are current, exit 1 when
they are not. Generated from ``schema.resources`` alone, so that they and the loader cannot disagree.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from schema.resources import API_VERSION, KINDS
from schema.scalars import format_duration

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import core_schema

FOLDER = Path(__file__).resolve().parent.parent / "schema" / "json" / "v1"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ID = "urn:borgmatic-director:v1"


class _Generator(GenerateJsonSchema):
    """pydantic's generator, where what people write and what the models hold in memory differ."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - pydantic's signature
        """Leave out titles such as "Matchlabels"."""
        return False

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Forbid the keys that a pattern forbids; JSON Schema lets others pass unless told not to."""
        result = super().dict_schema(schema)
        return {**result, "additionalProperties": False} if "patternProperties" in result else result

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Give a duration's default as it is written, ``0s``, not as the seconds in memory."""
        result = super().default_schema(schema)
        if result.get("type") == "string" and isinstance(result.get("default"), int):
            return {**result, "default": format_duration(result["default"])}
        return result


def generate() -> dict[str, str]:
    """Return the text of every file by its name."""
    schemas = {name: _one(name) for name in KINDS} | {"all": _all()}
    return {f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas.items()}


def outdated(folder: Path = FOLDER) -> list[str]:
    """Return the names of files that are not as they would be generated, or should not be there."""
    wanted = generate()
    there = {file.name for file in folder.glob("*.json")}
    differing = [name for name in wanted if name not in there or _read(folder / name) != wanted[name]]
    return sorted([*differing, *(there - wanted.keys())])


def write(folder: Path = FOLDER) -> None:
    """Write every file, and remove those that are no longer generated."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = generate()
    for file in folder.glob("*.json"):
        if file.name not in wanted:
            file.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


def _one(name: str) -> dict[str, Any]:
    schema = KINDS[name].model_json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
    return {"$schema": _DIALECT, "$id": f"{_ID}:{name}", **schema}


def _all() -> dict[str, Any]:
    """Return the schema of any resource, self-contained: editors resolve no references between files."""
    references, definitions = models_json_schema(
        [(kind, "validation") for kind in KINDS.values()], by_alias=True, schema_generator=_Generator
    )
    by_kind = {kind.__name__: reference for (kind, _), reference in references.items()}
    return {
        "$schema": _DIALECT,
        "$id": f"{_ID}:all",
        "title": "Borgmatic Director",
        "description": f"A resource of {API_VERSION}: one of {', '.join(KINDS)}.",
        "type": "object",
        "required": ["apiVersion", "kind", "metadata"],
        "properties": {"apiVersion": {"const": API_VERSION}, "kind": {"enum": list(KINDS)}},
        # One condition for each kind, so that a mistake is explained by its own kind and not by all of them.
        "allOf": [
            {
                "if": {"required": ["kind"], "properties": {"kind": {"const": name}}},
                "then": by_kind[name],
            }
            for name in KINDS
        ],
        "$defs": definitions["$defs"],
    }


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def main() -> int:
    """Write the files, or with ``--check`` name those that are not current."""
    if sys.argv[1:] not in ([], ["--check"]):
        print("usage: python -m tools.schemas [--check]", file=sys.stderr)
        return 2
    if not sys.argv[1:]:
        write()
        return 0
    differing = outdated()
    for name in differing:
        print(f"schema/json/v1/{name} is not current: run `make schemas`", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
