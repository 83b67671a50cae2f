"""borgmatic's own JSON schema, read as data from the installed borgmatic: none of its code is imported.

Called where a process is put together; the core is handed the result.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reconciler.core import yaml_reader
from schema.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACE = Path("config", "schema.yaml")


def load(path: Path | None = None) -> Mapping[str, Any]:
    """Return the schema of the installed borgmatic, or the one in ``path``; ``TerminalError`` when unusable."""
    file = installed() if path is None else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise TerminalError(
            f"cannot read borgmatic's schema {file}: {error.strerror or error}",
            hint="install borgmatic, or name the config/schema.yaml of one",
        ) from None
    result = yaml_reader.read(data, path=str(file))
    if result.problems:
        raise TerminalError(f"cannot read borgmatic's schema: {result.problems[0]}")
    content = result.documents[0].content if result.documents else None
    if not isinstance(content, dict) or not isinstance(content.get("properties"), dict):
        raise TerminalError(
            f"{file} is not a schema of borgmatic: it has no properties", hint="name borgmatic's config/schema.yaml"
        )
    return content


def installed() -> Path:
    """Return the path of the installed borgmatic's schema; ``TerminalError`` when borgmatic is not installed."""
    found = importlib.util.find_spec("borgmatic")  # finds a top-level package without importing it
    folders = (found.submodule_search_locations or []) if found is not None else []
    for folder in folders:
        if (Path(folder) / _PLACE).is_file():
            return Path(folder) / _PLACE
    raise TerminalError(
        "borgmatic is not installed beside the director, so its options cannot be checked",
        hint="install borgmatic in the director's environment, or name the config/schema.yaml of one",
    )
