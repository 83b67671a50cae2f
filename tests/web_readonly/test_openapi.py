"""The OpenAPI document says what the routes do, all of it, and the API has all that the pages show."""

from __future__ import annotations

import inspect
import json
import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest
from schemathesis.specs.openapi.definitions import OPENAPI_31
from yarl import URL

from schema.status import Page
from tests.web_readonly import seeded
from tests.web_readonly.visitor import visiting
from web_readonly import openapi
from web_readonly.app import make_app
from web_readonly.asking import Asked
from web_readonly.reader import Reader
from web_readonly.views import API, VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from web_readonly.views import View

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "api.md"
RUN = seeded.run_id("web-1", "system", 0)
PATH = {
    "client": "web-1",
    "backup": "system",
    "repository": "vault",
    "run": RUN,
    "revision": seeded.REVISIONS[5],
    "archive": seeded.run_id(RUN, "archive") * 2,
}
LISTS = [view for view in VIEWS if view.api and "after" in view.api_filters]


@pytest.fixture(scope="module")
def reader(seeded_store: Path) -> Iterator[Reader]:
    with closing(Reader(seeded_store)) as opened:
        yield opened


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    told: dict[str, Any] = json.loads(json.dumps(openapi.document()))
    return told


def names(view: View) -> dict[str, str]:
    return {name: PATH[name] for name in re.findall(r"{(\w+)}", view.path)}


# --- The document -----------------------------------------------------------------------------------------------------


def test_it_is_openapi_3_1(document):
    errors = [error.message for error in jsonschema_rs.validator_for(OPENAPI_31).iter_errors(document)]

    assert errors == []
    assert document["openapi"] == "3.1.0"


def test_its_schemas_are_json_schemas_and_every_reference_leads_somewhere(document):
    for name, schema in document["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name
    for reference in re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)):
        place = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_every_operation_has_a_name_of_its_own_a_summary_and_a_tag_that_is_told(document):
    operations = [path["get"] for path in document["paths"].values()]
    tags = {tag["name"] for tag in document["tags"]}

    assert len({one["operationId"] for one in operations}) == len(operations)
    for one in operations:
        assert one["summary"][:1].isupper()
        assert set(one["tags"]) <= tags


def test_no_schema_has_a_snake_case_name_in_it(document):
    for name, schema in document["components"]["schemas"].items():
        assert [one for one in schema.get("properties", ()) if "_" in one] == [], name


# --- The routes -------------------------------------------------------------------------------------------------------


def test_it_lists_the_routes_and_nothing_else(document, tmp_path):
    with closing(Reader(tmp_path / "none.db")) as reader:
        app = make_app(reader, now=lambda: seeded.NOW)
    pages = {view.path for view in VIEWS if view.template}
    # What serves the pages themselves, and says nothing that they do not say.
    served = {"/static/{name}", "/live", "/login", "/logout"}
    routes = {route.resource.canonical for route in app.router.routes() if route.resource is not None}

    assert set(document["paths"]) == routes - pages - served


def test_the_filters_are_those_that_the_routes_take(document):
    for view in VIEWS:
        if view.api:
            told = [one["name"] for one in document["paths"][view.api_path]["get"]["parameters"]]
            assert told == [*names(view), *view.api_filters], view.path


@pytest.mark.parametrize("view", [view for view in VIEWS if view.api], ids=lambda view: view.api_path)
def test_each_answer_is_of_the_model_that_the_table_names(view, reader, document):
    answer = view.question(reader, Asked(now=seeded.NOW, path=names(view)))
    assert view.answers is not None
    model, *_ = view.answers.__pydantic_generic_metadata__["args"] or (view.answers,)
    for one in answer.main.items if isinstance(answer.main, Page) else [answer.main]:
        assert type(one) is model

    success = document["paths"][view.api_path]["get"]["responses"]["200"]
    schema = {**success["content"]["application/json"]["schema"], "components": document["components"]}
    printed = json.loads(answer.main.model_dump_json(by_alias=True))
    assert [error.message for error in jsonschema_rs.validator_for(schema).iter_errors(printed)] == []


def test_each_question_of_the_api_says_what_it_answers():
    for view in VIEWS:
        assert (inspect.getdoc(view.question) or "").startswith("Answer "), view.path
        assert re.fullmatch(r"[A-Z].*[^.]", view.summary), view.path


async def test_it_is_served_with_a_tag_and_to_who_has_it_not_again(seeded_store, document):
    async with visiting(seeded_store) as client:
        first = await client.get(openapi.PATH)
        again = await client.get(openapi.PATH, headers={"If-None-Match": first.headers["ETag"]})

        assert await first.json() == document
        assert (again.status, await again.read()) == (304, b"")


# --- Parts of lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", LISTS, ids=lambda view: view.api_path)
async def test_who_follows_the_links_sees_every_row_once(view, seeded_store):
    path = view.api_path.format(**names(view))
    async with visiting(seeded_store) as client:
        whole = await (await client.get(path, params={"limit": "500"})).json()
        seen, address = [], f"{path}?limit=3"
        for _ in range(len(whole["items"]) // 3 + 2):
            response = await client.get(address)
            part = await response.json()
            seen += part["items"]
            assert len(part["items"]) <= 3
            assert bool(part["next"]) == ("next" in response.links)
            if not part["next"]:
                break
            address = str(URL(response.links["next"]["url"]).relative())

        assert seen == whole["items"][: len(seen)]
        assert len(seen) == len(whole["items"])


async def test_a_link_keeps_the_filters(seeded_store):
    async with visiting(seeded_store) as client:
        response = await client.get(
            f"{API}/clients", params=[("label", "role=web"), ("limit", "2"), ("state", "current")]
        )
        link = URL(response.links["next"]["url"])

        assert dict(link.query) == {"label": "role=web", "limit": "2", "state": "current", "after": "web-2"}


@pytest.mark.parametrize("limit", ["0", "501", "-1", "x", "", "1.5", "9" * 30, "\u0661"])
async def test_a_limit_is_a_number_from_1_to_500(seeded_store, limit):
    async with visiting(seeded_store) as client:
        for view in LISTS:
            response = await client.get(view.api_path.format(**names(view)), params={"limit": limit})
            assert response.status == 400, view.path
            assert "limit" in (await response.json())["error"]["message"]


async def test_what_is_not_utf_8_or_has_a_null_in_it_is_no_fault(seeded_store):
    async with visiting(seeded_store) as client:
        for query in ("q=%00", "q=%ff%fe", "label=%00%3D%00", "after=%00", "q=%F0%9F", "state=%ff"):
            for path in (f"{API}/clients", f"{API}/clients/%00", f"{API}/clients/%ff", f"{API}/runs/%00/log"):
                response = await client.get(f"{path}?{query}")
                assert response.status in {200, 400, 404}, (path, query)


# --- All that the pages show ------------------------------------------------------------------------------------------

CHROME = {
    "states": "words of a filter",
    "outcomes": "words of a filter",
    "levels": "words of a filter",
    "names": "names for a filter: /repositories",
    "name": "stands in the path",
    "chosen": "the filter that was given",
    "labels": "the filter that was given",
    "after": "the filter that was given",
    "path": "the filter that was given",
    "above": "links to the directories above",
    "earlier": "a link to the lines before",
    "day": "the filter that was given",
    "before": "a link to the day before",
    "after_that": "a link to the day after",
    "more_users": "next of /backups?repository=",
    "known": "whether a revision has a page: /source/{revision}",
    "there": "whether an archive has a page: /archives/{client}/{backup}/{repository}/{archive}",
    "views": "this very document",
}
"""What stands beside an answer only to draw the page."""
ELSEWHERE = {
    "pending": "/pending",
    "running": "/runs",
    "runs": "/runs",
    "events": "/events",
    "backups": "/backups",
    "archives": "/archives",
    "revisions": "/revisions",
    "problems": "/source/{revision}/problems",
    "tokens": "/tokens",
    "lockouts": "/lockouts",
    "facets": "/labels",
    "reasons": "/reasons",
    "counts": "/overview",
    "timeline": "/timeline",
    "growth": "/growth",
    "source": "/source",
    "files": "/clients/{client}/files",
    "secrets": "/clients/{client}/desired",
    "directories": "/clients/{client}/desired",
    "heals": "/clients/{client}/desired",
    "reported": "/clients/{client}/desired",
    "applied_expires": "/clients/{client}/desired",
    "dropped": "/clients/{client}/desired",
    "log": "/runs/{run}/log",
    "machine": "/clients/{client}",
    "silent": "/source",
    "facts": "/store",
    "standings": "/backups/{backup}",
    "wanted": "/backups",
    "retained": "/backups/{client}/{backup}/retention",
    "told": "/archives/{client}/{backup}/{repository}/{archive}",
    "rows": "/archives/{client}/{backup}/{repository}/{archive}",
    "base": "/archives/{client}/{backup}/{repository}/{archive}",
    "largest": "/archives/{client}/{backup}/{repository}/{archive}",
    "instead": "/archives/{client}/{backup}/{repository}/{archive}",
}
"""Where the API has what stands beside an answer."""


@pytest.mark.parametrize("view", [view for view in VIEWS if view.template], ids=lambda view: view.path)
def test_all_that_a_page_shows_is_in_the_api(view, reader, document):
    beside = view.question(reader, Asked(now=seeded.NOW, path=names(view))).beside()

    assert set(beside) <= {*CHROME, *ELSEWHERE}, "give it an address in web_readonly.parts, and say which here"
    assert {API + ELSEWHERE[name] for name in beside if name in ELSEWHERE} <= set(document["paths"])


def test_the_reference_lists_every_address_with_its_filters():
    listed = dict(re.findall(r"^\| `(/\S+)` \| [^|]+ \| ([^|]*?) *\|", REFERENCE.read_text(), re.MULTILINE))

    assert listed == {
        view.api_path.removeprefix(API): ", ".join(f"`{name}`" for name in view.api_filters)
        for view in VIEWS
        if view.api
    }
