"""Writes what the examples build into tests/golden, for a person to review in the diff: ``python -m tools.golden``.

Each managed file stands there as it would on the client, and ``desired.json`` says the rest; sealed texts are left out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from reconciler.core import build
from reconciler.core.catalogue import SourceFile

if TYPE_CHECKING:
    from schema.desired import Content

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ("homelab", "fleet")
GOLDEN = ROOT / "tests" / "golden"
REVISION = "0" * 40


def borgmatic_schema() -> dict[str, Any]:
    """Return the schema of the installed borgmatic."""
    schema: dict[str, Any] = yaml.safe_load(files("borgmatic").joinpath("config", "schema.yaml").read_bytes())
    return schema


def build_example(name: str) -> build.Build:
    """Return the build of ``examples/<name>``."""
    folder = ROOT / "examples" / name
    sources = [
        SourceFile(
            path=path.relative_to(folder).as_posix(),
            blob=hashlib.sha256(path.read_bytes()).hexdigest(),
            data=path.read_bytes(),
        )
        for path in sorted(folder.rglob("*.yaml"))
    ]
    return build.build(sources, borgmatic_schema=borgmatic_schema())


def golden_files(built: build.Build) -> dict[str, bytes]:
    """Return the content of every golden file of one example by its path below the example's folder."""
    golden: dict[str, bytes] = {}
    for client, content in built.contents.items():
        for file in content.files:
            golden[f"{client}/{file.place}/{file.path}"] = file.rendered(REVISION)
        golden[f"{client}/desired.json"] = _desired(content)
    return golden


def _desired(content: Content) -> bytes:
    shown = content.model_dump(mode="json")
    for file in shown["files"]:
        del file["content"]
    for secret in shown["secrets"]:
        del secret["sealed"]
    return (json.dumps(shown, indent=2, ensure_ascii=False) + "\n").encode()


def main() -> None:
    for name in EXAMPLES:
        built = build_example(name)
        built.require_ok()
        folder = GOLDEN / name
        shutil.rmtree(folder, ignore_errors=True)
        for path, content in golden_files(built).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        print(f"{folder.relative_to(ROOT)}: {built.counts.jobs} jobs of {len(built.contents)} clients")


if __name__ == "__main__":
    main()
