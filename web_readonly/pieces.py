"""The parts of pages that come by the hundred, as HTML: made here, for the macro of a template costs ten times as much.

``parts.html`` and ``charts.html`` offer them beside their macros. What the templates have by themselves is done here by
``text``: whatever is not a number or a word of ours goes through it. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from web_readonly import formats
from web_readonly.links import link

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping
    from datetime import datetime

    from schema.status import Growth
    from web_readonly.charts import Cell, Lane, LineChart
    from web_readonly.tones import State


def text(value: str) -> Markup:
    """Return text fit to be seen, escaped: what ``web_readonly.pages`` does to every value of a template."""
    return escape(formats.shown(value))


def _html(made: str) -> Markup:
    return Markup(made)  # noqa: S704 - of our own words and numbers, and of ``text``


# --- Words and numbers ------------------------------------------------------------------------------------------------


def state(of: State) -> Markup:
    """Return a state: its tone and its word."""
    why = f' title="{text(of.why)}"' if of.why else ""
    return _html(f'<span class="state {of.tone}"{why}>{text(of.word)}</span>')


def time(moment: datetime | None, now: datetime, missing: str = "–") -> Markup:
    """Return how long ago or ahead a moment is, with the moment itself."""
    if not moment:
        return _html(f'<span class="muted">{text(missing)}</span>')
    exact, words = formats.absolute(moment), formats.relative(moment, now)
    return _html(f'<time datetime="{formats.machine(moment)}" title="{exact}" class="nowrap">{words}</time>')


def size(count: int | None, missing: str = "–") -> Markup:
    """Return a size, with its bytes."""
    if not count:
        return _html(f'<span class="muted">{text(missing)}</span>')
    return _html(f'<span class="nowrap" title="{count:,} bytes">{formats.size(count)}</span>')


def number(count: int) -> Markup:
    """Return a count."""
    return _html(f"{count:,}")


def span(seconds: float) -> Markup:
    """Return a length of time, with its seconds."""
    return _html(f'<span class="nowrap" title="{seconds:,.1f} seconds">{formats.span(seconds)}</span>')


def revision(name: str, missing: str = "–", known: Container[str] | None = None) -> Markup:
    """Return a revision, with a link to its page; ``known`` are those that have one, without it all."""
    if not name:
        return _html(f'<span class="muted">{text(missing)}</span>')
    short = text(formats.short(name))
    if known is not None and name not in known:
        why = f"{text(name)}: the store knows it no more, so it has no page"
        return _html(f'<span class="mono" title="{why}">{short}</span>')
    return _html(f'<a class="mono" href="{text(link("/source", name))}" title="{text(name)}">{short}</a>')


def labels(of: Mapping[str, str]) -> Markup:
    """Return the labels of a client by key, each with a link to all that have it."""
    if not of:
        return Markup("")
    shown = "".join(
        f'<a class="label" href="{text(link("/clients", query={"label": f"{key}={value}"}))}">'
        f"{text(key)}={text(value)}</a>"
        for key, value in sorted(of.items(), key=lambda one: one[0].lower())
    )
    return _html(f'<span class="labels">{shown}</span>')


# --- Charts -----------------------------------------------------------------------------------------------------------


def lane_marks(lane: Lane) -> Markup:
    """Return the starts of a lane that are to come or late."""
    return _html(
        "".join(
            f'<svg class="bad late" x="{mark.x}" y="{mark.y}"><title>{text(mark.title)}</title>'
            '<path d="M0-7 7 0 0 7-7 0z"/></svg>'
            if mark.late
            else f'<circle class="due" cx="{mark.x}" cy="{mark.y}" r="3.5"><title>{text(mark.title)}</title></circle>'
            for mark in lane.marks
        )
    )


def lane_bars(lane: Lane) -> Markup:
    """Return the runs of a lane."""
    return _html(
        "".join(
            f'<a href="{text(link("/runs", bar.run.id))}" tabindex="-1"><title>{text(bar.title)}</title>'
            f'<rect class="{bar.tone}" x="{bar.x}" width="{bar.width}" y="{bar.y}" height="{bar.height}" rx="2"/></a>'
            for bar in lane.bars
        )
    )


def chart_days(chart: LineChart) -> Markup:
    """Return what of a chart can be pointed at."""
    return _html(
        "".join(
            f'<rect class="hit" x="{day.x}" width="{day.width}" y="0" height="100">'
            f"<title>{text(day.title)}</title></rect>"
            for day in chart.days
        )
    )


def growth_rows(days: Iterable[Growth]) -> Markup:
    """Return the rows of a table of sizes."""
    return _html(
        "".join(
            f'<tr><th scope="row" class="nowrap">{day.day}</th>'
            f'<td class="number">{size(day.original_size)}</td><td class="number">{size(day.compressed_size)}</td>'
            f'<td class="number">{size(day.repository_size)}</td><td class="number">{size(day.deduplicated_size)}</td>'
            f'<td class="number">{day.archives:,}</td></tr>'
            for day in days
        )
    )


def heat_cells(day: Iterable[Cell]) -> Markup:
    """Return the hours of one day of a heat map."""
    return _html("\n".join(_heat_cell(cell) for cell in day))


def _heat_cell(cell: Cell) -> str:
    if cell.starts <= 0:
        return f'<td class="{"out" if cell.level < 0 else f"heat-{cell.level}"}"></td>'
    title = f"{cell.at:%a %H:%M} UTC: {formats.plural(cell.starts, 'start')}"
    return f'<td class="heat-{cell.level}" title="{title}">{formats.brief(cell.starts)}</td>'
