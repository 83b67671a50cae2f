"""Every target by its name. The modules beside this say what each is held to."""

from __future__ import annotations

import importlib
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.target import Target

MODULES = ("yaml_files", "resources", "wire", "trust", "schedules", "borgmatic", "texts", "machine", "sources", "http")


def load() -> dict[str, Target]:
    """Return all targets. Imports what they test."""
    modules = [importlib.import_module(f"tests.fuzz.targets.{name}") for name in MODULES]
    return {target.name: target for target in chain.from_iterable(module.TARGETS for module in modules)}
