"""Turns answers into bytes: HTML by the templates, JSON by the models. The only module that knows Jinja.

Three rules hold for every template without its doing: values are escaped; text goes through ``formats.shown``; and a
name that is not there, or nothing where something was meant, is an error instead of an empty place.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from schema.assessment import unhealed
from schema.errors import scrub
from schema.scalars import format_duration
from web_readonly import charts, forge, formats, pieces, tones
from web_readonly.links import link
from web_readonly.views import API

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from web_readonly.access import Who
    from web_readonly.asking import Answer, Asked
    from web_readonly.views import View

NAVIGATION: Final = (
    ("/", "Overview"),
    ("/clients", "Clients"),
    ("/backups", "Backups"),
    ("/runs", "Runs"),
    ("/timeline", "Timeline"),
    ("/schedule", "Schedule"),
    ("/repositories", "Repositories"),
    ("/archives", "Archives"),
    ("/source", "Source"),
    ("/events", "Events"),
)
_TYPES: Final = {".css": "text/css", ".svg": "image/svg+xml", ".js": "text/javascript"}


class Asset:
    """One static file, in memory: there is no path that a request could climb."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name: Final = name
        self.content: Final = content
        self.digest: Final = hashlib.sha256(content).hexdigest()[:16]
        self.type: Final = _TYPES[name[name.rindex(".") :]]


def load_assets() -> dict[str, Asset]:
    """Return the static files by name."""
    folder = resources.files("web_readonly") / "static"
    return {one.name: Asset(one.name, one.read_bytes()) for one in folder.iterdir() if one.is_file()}


class Pages:
    """All templates, each compiled when it is first shown. Safe to use from several threads."""

    def __init__(self, assets: Mapping[str, Asset], *, asks: bool = False) -> None:
        # ``asks``: whether people log in here, and so out.
        self._environment = Environment(
            loader=PackageLoader("web_readonly"),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._environment.globals |= {
            "api": API,
            "charts": charts,
            "asks": asks,
            "asset": lambda name: f"/static/{name}?{assets[name].digest}",
            "link": link,
            "forge": forge,
            "formats": formats,
            "navigation": NAVIGATION,
            "pieces": pieces,
            "duration": format_duration,
            "tones": tones,
            "unhealed": unhealed,
            "licence": metadata.metadata("borgmatic-director")["License-Expression"],
            "version": metadata.version("borgmatic-director"),
        }

    def load(self) -> None:
        """Compile all templates, which takes a second: else the first visitor of each page waits for its own."""
        for name in self._environment.list_templates():
            self._environment.get_template(name)

    def page(self, view: View, answer: Answer, asked: Asked) -> bytes:
        """Return the page of an answer."""
        filters = {name: asked.query.get(name, ("",))[0] for name in view.filters}
        return self._render(
            view.template,
            now=asked.now,
            section=view.section,
            shown=answer.main,
            filters=filters,
            again=partial(_again, asked),
            twin=_twin(view, asked) if view.api else "",
            **answer.beside(),
        )

    def error(self, *, status: int, title: str, message: str, hint: str, now: datetime) -> bytes:
        """Return the page of something that went wrong."""
        return self._render(
            "error.html", now=now, section="", status=status, title=title, message=message, hint=hint, twin=""
        )

    def login(self, *, now: datetime, then: str, problem: str, again: bool, who: Who | None, users: bool) -> bytes:
        """Return the form of ``web_readonly.gate``; for somebody who is logged in, the way out."""
        return self._render(
            "login.html", now=now, then=then, problem=problem, again=again, who=who.name if who else "", users=users
        )

    def _render(self, template: str, **context: Any) -> bytes:
        return self._environment.get_template(template).render(context).encode("utf-8", "replace")


def _finalize(value: Any) -> Any:
    if value is None:
        raise TypeError("a template shows None: say what is meant when there is nothing")
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _shown(value) if len(value) <= _SHORT else formats.shown(value)


_SHORT: Final = 64
_shown: Final = lru_cache(maxsize=8_192)(formats.shown)
"""Names, words and sizes come again on every page, and are looked through once."""


def _twin(view: View, asked: Asked) -> str:
    """Return where the JSON of a page is: without the filters that only choose what the page shows beside it."""
    parts = {name: quote(part, safe="") for name, part in asked.path.items()}
    query = {name: values for name, values in asked.query.items() if name in view.api_filters}
    return link(view.api_path.format(**parts), query=query)


def _again(asked: Asked, **changes: str | tuple[str, ...]) -> str:
    """Return the query of the same page with some filters changed; an empty value takes one away."""
    query = {name: values for name, values in asked.query.items() if name not in changes}
    return link("", query={**query, **changes}) or "?"


def as_json(answer: Answer) -> bytes:
    """Return the main answer as JSON; text as it was seen, without secrets in urls."""
    return dump(answer.main.model_dump(mode="json", by_alias=True))


def dump(value: Any) -> bytes:
    """Return JSON in ASCII: what is not printable is escaped."""
    return json.dumps(_scrubbed(value), ensure_ascii=True, separators=(",", ":")).encode() + b"\n"


def _scrubbed(value: Any) -> Any:
    match value:
        case str():
            return scrub(value) if "://" in value or "bd1-" in value or "=" in value else value
        case dict():
            return {_scrubbed(key): _scrubbed(one) for key, one in value.items()}
        case list():
            return [_scrubbed(one) for one in value]
        case _:
            return value
