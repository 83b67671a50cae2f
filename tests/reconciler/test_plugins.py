"""A command of the director looks for no plugins of pydantic, and a pydantic that asks for more gets its own loader."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def told(script: str, **environment: str) -> str:
    """Return what a fresh interpreter prints."""
    variables = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"} | environment
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=variables)
    return done.stdout.strip()


MODEL = "import pydantic\nclass Model(pydantic.BaseModel):\n    number: int\n"


def test_a_model_is_made_without_looking_for_plugins():
    script = f"import sys\nfrom reconciler import plugins\nplugins.use_none()\n{MODEL}"

    assert told(f"{script}print(Model(number='7').number, 'importlib.metadata' in sys.modules)") == "7 False"
    assert told(f"import sys\n{MODEL}print('importlib.metadata' in sys.modules)") == "True"  # or it is in vain


def test_the_plugins_that_somebody_named_stay_disabled_and_the_others_are_used():
    script = f"import sys\nfrom reconciler import plugins\nplugins.use_none()\n{MODEL}"

    assert told(f"{script}print('importlib.metadata' in sys.modules)", PYDANTIC_DISABLE_PLUGINS="one") == "True"


@pytest.mark.parametrize("first", ["", "from pydantic.plugin._loader import get_plugins; "])
def test_whoever_asks_for_more_gets_it_of_pydantic(first):
    script = f"from reconciler import plugins; plugins.use_none(); import pydantic.plugin; {first}"

    asked = "from pydantic.plugin._loader import PYDANTIC_ENTRY_POINT_GROUP as group, get_plugins as plugins_of"
    assert told(f"{script}{asked}; print(group, list(plugins_of()))") == "pydantic []"
