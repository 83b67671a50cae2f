"""A page that was made is gone at once: what stands in circles waits for the collector, which stops every page."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from jinja2.runtime import Context, Macro
from pydantic import BaseModel

from tests.benchmarks.visits import read_names
from tests.web_readonly import seeded
from web_readonly.asking import Asked
from web_readonly.pages import Pages, load_assets
from web_readonly.reader import Reader
from web_readonly.views import VIEWS

if TYPE_CHECKING:
    from pathlib import Path


def test_no_page_leaves_what_it_showed_to_the_garbage_collector(seeded_store: Path) -> None:
    reader, pages = Reader(seeded_store), Pages(load_assets())
    names = read_names(seeded_store)
    client, backup, repository, archive = names.archives[0]
    path = {"client": client, "backup": backup, "repository": repository, "archive": archive}
    asked = Asked(now=seeded.NOW, path={**path, "run": names.runs[0][0], "revision": names.revisions[0]})
    left = {}
    for view in (one for one in VIEWS if one.template):
        pages.page(view, view.question(reader, asked), asked)  # compiles the template
        gc.collect()
        gc.disable()
        try:
            pages.page(view, view.question(reader, asked), asked)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left[view.path] = [one for one in gc.garbage if isinstance(one, (BaseModel, Context, Macro))]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    reader.close()

    assert len(left) > 15
    assert {path: kept for path, kept in left.items() if kept} == {}
