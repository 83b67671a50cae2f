"""What is made without templates keeps to their rules: escaped, without secrets, and nothing unseen."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

from schema.observed import Outcome
from schema.status import Growth
from schema.timeline import DueMark, RunSpan, TimelineRow
from web_readonly import charts, pieces
from web_readonly.tones import State

NOW = datetime(2026, 11, 23, 7, 40, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
HOSTILE = '<b title="x">\u202e&'
SEEN = "&lt;b title=&#34;x&#34;&gt;⟨U+202E⟩&amp;"


def test_what_a_stranger_wrote_is_escaped_and_can_be_seen():
    run = RunSpan(id=HOSTILE, client="c", backup=HOSTILE, started=NOW - HOUR, finished=NOW, outcome=Outcome.FAILED)
    due = (DueMark(backup=HOSTILE, at=NOW + HOUR), DueMark(backup=HOSTILE, at=NOW - HOUR, late=True))
    row = TimelineRow(client="c", runs=(run,), due=due)
    lane = charts.lane(row, since=NOW - DAY, until=NOW + DAY, now=NOW)
    made = [
        pieces.state(State("bad", HOSTILE, HOSTILE)),
        pieces.time(None, NOW, HOSTILE),
        pieces.size(0, HOSTILE),
        pieces.revision(HOSTILE),
        pieces.revision(HOSTILE, known=()),
        pieces.labels({HOSTILE: HOSTILE}),
        pieces.lane_bars(lane),
        pieces.lane_marks(lane),
    ]

    assert [one.count(SEEN) for one in made] == [2, 1, 1, 1, 1, 2, 1, 2]
    assert [one.count("<b ") + one.count("\u202e") for one in made] == [0] * len(made)


def test_a_password_in_an_address_is_shown_nowhere():
    shown = pieces.text("ssh://borg:verysecret@nas.example/./web")

    assert "verysecret" not in shown
    assert "nas.example" in shown


def test_numbers_say_what_they_are_to_the_last_digit():
    assert pieces.size(1_250_000_000) == '<span class="nowrap" title="1,250,000,000 bytes">1.25 GB</span>'
    assert pieces.number(12_345) == "12,345"
    assert pieces.span(65) == '<span class="nowrap" title="65.0 seconds">1 min 5 s</span>'
    assert pieces.time(NOW - HOUR, NOW) == (
        '<time datetime="2026-11-23T06:40:00Z" title="2026-11-23 06:40:00 UTC" class="nowrap">1 h ago</time>'
    )


def test_a_day_without_sizes_has_none_in_the_table():
    rows = pieces.growth_rows([Growth(day=date(2026, 11, 23), archives=3)])

    assert rows.count('<span class="muted">–</span>') == 4
    assert '<th scope="row" class="nowrap">2026-11-23</th>' in rows
    assert '<td class="number">3</td>' in rows
