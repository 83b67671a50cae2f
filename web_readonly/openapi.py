"""The OpenAPI 3.1 document of ``/api/v1``, made from the table of views and the models of their answers.

``web_readonly.app`` serves it, and ``tests/web_readonly/test_openapi.py`` holds it against the real routes. ``after``
and times have formats of their own: what a cursor or a moment is cannot be said by a pattern.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

from web_readonly.asking import BACKUP_STATES, CLIENT_STATES, RUN_OUTCOMES
from web_readonly.parts import MAX_DAYS
from web_readonly.reader.paging import MAX_LIMIT
from web_readonly.reader.runs import LEVELS
from web_readonly.views import API, VIEWS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from web_readonly.views import View

PATH: Final = f"{API}/openapi.json"
MAX_FILTER: Final = 500
BADGES: Final = ("/badge/overview.svg", "/badge/{backup}.svg", "/badge/{client}/{backup}.svg")
_REFERENCE: Final = "#/components/schemas/{model}"

Schema = dict[str, Any]


def _text(description: str, **more: Any) -> Schema:
    return {"description": description, "schema": {"type": "string", "maxLength": MAX_FILTER, **more}}


def _word(description: str, words: Iterable[str]) -> Schema:
    return {"description": description, "schema": {"type": "string", "enum": [*words]}}


def _number(description: str, *, least: int, most: int) -> Schema:
    return {"description": description, "schema": {"type": "integer", "minimum": least, "maximum": most}}


_MOMENT: Final = "a day or a time, UTC unless it says otherwise: 2026-11-23 or 2026-11-23T07:42"
_FILTERS: Final[dict[str, Schema]] = {
    "q": _text("Only those with this text in their name, or in their message"),
    "client": _text("Only those of this client"),
    "backup": _text("Only those of this backup"),
    "repository": _text("Only those that use this repository, by name"),
    "url": _text("Only those at this url"),
    "reason": _text("Only those with this reason; /reasons lists them"),
    "actor": _text("Only those that this one did"),
    "outcome": _word("Only runs that ended so, or are running", RUN_OUTCOMES),
    "level": _word("Only lines of this level or a more severe one", LEVELS),
    "since": _text(f"Not older than this: {_MOMENT}", format="moment"),
    "until": _text(f"Not newer than this: {_MOMENT}", format="moment"),
    "day": _text("The whole of this day in UTC, instead of a day before and after now", format="day"),
    "path": _text("Only this file or directory of the archive"),
    "days": _number("How far back", least=1, most=MAX_DAYS),
    "limit": _number("How many at once", least=1, most=MAX_LIMIT),
    "after": _text("Go on after this: the `next` of the part before", format="cursor"),
    "label": {
        "description": "Only clients with this label, as key=value; all of them when given several times",
        "style": "form",
        "explode": True,
        "schema": {
            "type": "array",
            "maxItems": 20,
            "items": {
                "type": "string",
                "pattern": r"^([A-Za-z0-9./_-]{1,253}=[A-Za-z0-9._-]{0,63})?$",
                "maxLength": MAX_FILTER,
            },
        },
    },
}
_TURNED_AWAY: Final = ("401", "403", "421", "429")
_STATES: Final = {
    "/clients": _word("Only clients that stand so", CLIENT_STATES),
    "/backups": _word("Only backups that stand so", BACKUP_STATES),
}
_LINE_AFTER: Final = _number(
    "Go on after the line of this number: the `next` of the part before", least=-1, most=999_999_999_999
)
_EXAMPLES: Final = {
    "client": "web-1",
    "backup": "system",
    "repository": "vault",
    "run": "0f" * 16,
    "revision": "0123abc",
    "archive": "web-1.system.2026-11-23T01:00:00",
}
_TAGS: Final = {
    "": "overview",
    "timeline": "runs",
    "schedule": "runs",
    "starts": "runs",
    "growth": "repositories",
    "revisions": "source",
    "reasons": "events",
    "pending": "clients",
    "labels": "clients",
    "tokens": "trust",
    "lockouts": "trust",
    "store": "about",
}


def document() -> Schema:
    """Return the whole document."""
    twins = [view for view in VIEWS if view.api]
    models: list[type[BaseModel]] = list(dict.fromkeys(view.answers for view in twins if view.answers is not None))
    _, schemas = models_json_schema(
        [(model, "serialization") for model in models], by_alias=True, ref_template=_REFERENCE
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Borgmatic Director",
            "version": metadata.version("borgmatic-director"),
            "summary": "What every machine backs up, and whether it did.",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"bearer": []}, {"basic": []}, {"cookie": []}],
        "tags": [{"name": name} for name in dict.fromkeys([*map(_tag, twins), "badges", "monitoring"])],
        "paths": {
            **{view.api_path: {"get": _operation(view)} for view in twins},
            PATH: {"get": _itself()},
            **{path: {"get": _badge(path)} for path in BADGES},
            "/metrics": {"get": _plain("metrics", "Everything in Prometheus' text format")},
            "/livez": {"get": _plain("livez", "Whether the dashboard lives; asks for no credential")},
        },
        "components": {
            "schemas": {**schemas.get("$defs", {}), "Error": _ERROR},
            "responses": _RESPONSES,
            "headers": _HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A viewer token"},
                "basic": {"type": "http", "scheme": "basic", "description": "A user of the settings"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "director", "description": "Of a browser's login"},
            },
        },
    }


_DESCRIPTION: Final = (
    "Everything that the pages show. Only GET and HEAD: nothing can be changed. Lists come in parts: give `next` as "
    "`after`, or follow the `Link` header, until `next` is empty. An answer's `ETag`, given as `If-None-Match`, is "
    "answered with 304 while nothing changed. Where the dashboard asks who is there, give a viewer token or a user."
)


def _operation(view: View) -> Schema:
    name = re.sub(r"[{}]", "", view.api_path.removeprefix(API + "/"))
    model = _REFERENCE.format(model=_name(view.answers)) if view.answers else None
    is_list = "after" in view.api_filters
    success = {
        "description": "The answer",
        "headers": {
            "ETag": {"$ref": "#/components/headers/ETag"},
            **({"Link": {"$ref": "#/components/headers/Link"}} if is_list else {}),
        },
        "content": {"application/json": {"schema": {"$ref": model} if model else {"type": "object"}}},
    }
    statuses = ["304", "400", *_TURNED_AWAY, "500", "503"]
    if "{" in view.path:
        statuses.append("404")
    return {
        "operationId": re.sub(r"\W+", "_", name),
        "summary": view.summary,
        "tags": [_tag(view)],
        "parameters": [*_path(view.api_path), *(_filter(view, one) for one in view.api_filters)],
        "responses": {"200": success, **_refused(sorted(statuses))},
    }


def _tag(view: View) -> str:
    first = view.path.split("/")[1]
    return _TAGS.get(first, first)


def _name(model: type[BaseModel]) -> str:
    # As pydantic names the schema of a generic model: Page[ClientStatus] → Page_ClientStatus_.
    return re.sub(r"[^a-zA-Z0-9.\-_]", "_", model.__name__)


def _path(path: str) -> list[Schema]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[^/{}\x00-\x20\x7f]+$"},
            "example": _EXAMPLES[name],
        }
        for name in re.findall(r"{(\w+)}", path)
    ]


def _filter(view: View, name: str) -> Schema:
    told = _STATES[view.path] if name == "state" else _FILTERS[name]
    if name == "after" and view.path.endswith("/log"):
        told = _LINE_AFTER
    return {"name": name, "in": "query", "required": False, **told}


def _refused(statuses: Iterable[str]) -> Schema:
    return {status: {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _itself() -> Schema:
    return {
        "operationId": "openapi",
        "summary": "This document",
        "tags": ["overview"],
        "responses": {
            "200": {
                "description": "The document",
                "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
                "content": {"application/json": {"schema": {"type": "object", "required": ["openapi", "paths"]}}},
            },
            **_refused(["304", "400", *_TURNED_AWAY, "500"]),
        },
    }


def _badge(path: str) -> Schema:
    picture = {"image/svg+xml": {"schema": {"type": "string"}}}
    of = {1: "one backup on all its clients", 2: "one backup on one client"}.get(path.count("{"), "all backups")
    return {
        "operationId": "badge_" + "_".join(re.findall(r"{(\w+)}", path) or ["overview"]),
        "summary": f"How {of} stands, as a picture" if "{" in path else f"How {of} stand, as a picture",
        "tags": ["badges"],
        "parameters": _path(path),
        "responses": {
            "200": {
                "description": "The badge",
                "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
                "content": picture,
            },
            **({"404": {"description": "A badge that says so", "content": picture}} if "{" in path else {}),
            "304": {"$ref": "#/components/responses/304"},
            **{status: _PAGES[status] for status in ("400", *_TURNED_AWAY, "500", "503")},
        },
    }


def _plain(name: str, summary: str) -> Schema:
    return {
        "operationId": name,
        "summary": summary,
        "tags": ["monitoring"],
        "responses": {
            "200": {"description": "The text", "content": {"text/plain": {"schema": {"type": "string"}}}},
            **{status: _PAGES[status] for status in (*_TURNED_AWAY, "500")},
        },
    }


_ERROR: Final = {
    "type": "object",
    "description": "What went wrong: a sentence, and what to do about it",
    "required": ["error"],
    "additionalProperties": False,
    "properties": {
        "error": {
            "type": "object",
            "required": ["status", "message", "hint"],
            "additionalProperties": False,
            "properties": {
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "message": {"type": "string"},
                "hint": {"type": "string"},
            },
        }
    },
}
_HEADERS: Final = {
    "ETag": {"description": "The tag of these bytes", "schema": {"type": "string"}},
    "Link": {
        "description": 'Where the list goes on, with rel="next"; missing at its end',
        "schema": {"type": "string"},
    },
    "Retry-After": {"description": "Seconds to wait", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "How to say who is there", "schema": {"type": "string"}},
    "Allow": {"description": "GET, HEAD", "schema": {"type": "string"}},
}


_WHY: Final = {
    "400": "A filter is unknown, or makes no sense; the hint says what does. As text: the request is too large",
    "401": "The dashboard asks who is there",
    "403": "The dashboard is open to its own machine only, and a proxy brought this request",
    "404": "There is no such thing, or it was forgotten by age",
    "421": "The dashboard was asked for under a name that is not its own",
    "429": "Too many failed logins from this address",
    "500": "A fault of the dashboard; backups are not concerned",
    "503": "The store is missing, locked, damaged or of another version",
}


def _error(status: str) -> Schema:
    named = {"401": "WWW-Authenticate", "429": "Retry-After"}.get(status)
    example = {"error": {"status": int(status), "message": _WHY[status].lower(), "hint": ""}}
    schema = {"$ref": _REFERENCE.format(model="Error")}
    # The head of a request is read before anybody knows what it asks for.
    unread = {"text/plain": {"schema": {"type": "string"}}} if status == "400" else {}
    return {
        "description": _WHY[status],
        **({"headers": {named: {"$ref": f"#/components/headers/{named}"}}} if named else {}),
        "content": {"application/json": {"schema": schema, "example": example}, **unread},
    }


_RESPONSES: Final = {
    "304": {"description": "Nothing changed since the `ETag` that was given as `If-None-Match`"},
    **{status: _error(status) for status in _WHY},
}
_PAGES: Final = {
    status: {"description": why, "content": {"text/html": {"schema": {"type": "string"}}}}
    for status, why in _WHY.items()
}
