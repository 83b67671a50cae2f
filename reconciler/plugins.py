"""No plugins for pydantic, in whatever a director runs. Called at the start of every command, before any model is made.

pydantic offers a variable to say so, and reads it only after it has loaded what would read the metadata of installed
distributions: half of the email package, and a tenth of the time of a short command.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any, Final

_LOADER: Final = "pydantic.plugin._loader"


def use_none() -> None:
    """Let pydantic look for no plugins, unless somebody has said which."""
    if os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__") == "__all__":
        sys.modules.setdefault(_LOADER, _NoPlugins(_LOADER))


class _NoPlugins(ModuleType):
    """Stands in the place of pydantic's loader, and gives way to it should a later pydantic ask for anything else."""

    @staticmethod
    def get_plugins() -> tuple[()]:
        """Return what the loader returns when all plugins are disabled."""
        return ()

    def __getattr__(self, name: str) -> Any:
        """Called for what is not here."""
        if name.startswith("__"):  # Python's own questions about a module
            raise AttributeError(name)
        if sys.modules.get(_LOADER) is self:
            del sys.modules[_LOADER]
        return getattr(importlib.import_module(_LOADER), name)
