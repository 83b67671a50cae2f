"""One address for every page of the dashboard, in the seeded store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.web_readonly import seeded
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from web_readonly.views import View

SAMPLES: Final = {
    "client": "web-3",
    "backup": "web",
    "run": seeded.run_id("web-3", "web", 0),
    "repository": "vault",
    "revision": seeded.REVISIONS[3],
}
"""By the name of a part of a path."""


def address(view: View) -> str:
    """Return where the seeded store shows something for a page."""
    return view.path.format(**SAMPLES)


PAGES: Final = tuple(address(view) for view in VIEWS if view.template)
