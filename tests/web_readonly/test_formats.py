from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web_readonly import formats

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("bytes_", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (1_250_000_000, "1.25 GB"),
        (99_950_000, "100 MB"),
        (999_600, "1.00 MB"),
        (2**63 - 1, "9.22 EB"),
    ],
)
def test_sizes_are_shown_in_borgs_decimal_units(bytes_, expected):
    assert formats.size(bytes_) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0 s"),
        (0.2, "under 1 s"),
        (59.6, "1 min"),
        (65, "1 min 5 s"),
        (3_600, "1 h"),
        (3_605, "1 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_spans_are_shown_in_their_two_largest_units(seconds, expected):
    assert formats.span(seconds) == expected


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (timedelta(seconds=1), "just now"),
        (timedelta(seconds=59), "59 s ago"),
        (timedelta(minutes=5), "5 min ago"),
        (timedelta(hours=26), "1 d ago"),
        (-timedelta(hours=3), "in 3 h"),
        (-timedelta(seconds=2), "in a moment"),
    ],
)
def test_moments_are_shown_by_their_distance(away, expected):
    assert formats.relative(NOW - away, NOW) == expected


def test_a_moment_is_shown_in_utc_whatever_its_zone():
    assert formats.absolute(datetime.fromisoformat("2026-11-23T13:00:00+01:00")) == "2026-11-23 12:00:00 UTC"


def test_a_share_is_never_all_of_less_nor_nothing_of_something():
    assert [formats.percent(999, 1000), formats.percent(1, 1000), formats.percent(3, 3), formats.percent(0, 0)] == [
        "99 %",
        "1 %",
        "100 %",
        "–",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain\n\ttext", "plain\n\ttext"),
        ("\x1b[31mred\x00", "␛[31mred␀"),
        ("invoice\u202efdp.exe", "invoice⟨U+202E⟩fdp.exe"),
        ("zero\u200bwidth", "zero⟨U+200B⟩width"),
        ("c1\x9b and delete\x7f", "c1⟨U+009B⟩ and delete␡"),
        ("half of a pair \ud800", "half of a pair ⟨U+D800⟩"),
        ("line\u2028separator", "line⟨U+2028⟩separator"),
        ("Grüße, 日本, 🎉", "Grüße, 日本, 🎉"),
    ],
)
def test_what_hides_or_reorders_is_made_visible(text, expected):
    assert formats.shown(text) == expected


def test_a_long_text_is_shortened_and_says_by_how_much():
    assert formats.shown("x" * 1_000_000, 10) == "xxxxxxxxxx… (999,990 more characters)"


def test_passwords_in_urls_and_tokens_are_not_shown():
    shown = formats.shown("ssh://borg:hunter2@nas/./x with bd1-token.abcdef")

    assert shown == "ssh://borg:***@nas/./x with bd1-token.***"


def test_a_password_that_ends_where_the_text_is_cut_is_not_shown():
    assert "hunter2" not in formats.shown("ssh://borg:hunter2@nas", 18)


@given(st.text(alphabet=st.characters()))
def test_whatever_was_written_can_be_sent_and_reorders_nothing(text):
    shown = formats.shown(text)

    assert all(one.isprintable() or one in "\n\t" for one in shown.encode().decode())


def test_a_diff_loses_its_file_names_and_keeps_its_lines():
    diff = "--- a (desired)\n+++ a (on disk)\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n--- not a name"

    assert formats.diff_lines(diff) == [
        ("place", "@@ -1,2 +1,2 @@"),
        ("same", " same"),
        ("removed", "-old"),
        ("added", "+new"),
        ("removed", "--- not a name"),
    ]


def test_a_diff_of_endless_lines_is_shown_in_part():
    lines = formats.diff_lines("+\n" * 8_000)

    assert len(lines) == formats.MAX_DIFF_LINES + 1
    assert lines[-1] == ("place", "… 7,701 more lines")


def test_what_is_remembered_of_characters_is_bounded():
    every = "".join(chr(code) for code in range(0x100, 0x11000) if not 0xD800 <= code < 0xE000)

    for at in range(0, len(every), 4_000):
        formats.shown(every[at : at + 4_000])

    assert len(formats._VISIBLE) <= 10_000
