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
    # Of the newest run that made one: the last three failed.
    "archive": seeded.run_id(seeded.run_id("web-3", "web", 3), "archive") * 2,
}
"""By the name of a part of a path."""


def address(view: View) -> str:
    """Return where the seeded store shows something for a page."""
    return view.path.format(**SAMPLES)


_PART: Final = "/archives/{client}/{backup}/{repository}/{archive}?path=var/www/shop".format(**SAMPLES)
PAGES: Final = (*(address(view) for view in VIEWS if view.template), _PART)
