"""Archive names: whose archives a prune would take."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import archives
from schema.scalars import NAME_PATTERN

PATTERNS = st.text(alphabet="ab*.", max_size=8)
NAMES = st.from_regex(NAME_PATTERN, fullmatch=True).filter(str.isascii)


@given(PATTERNS, PATTERNS, st.text(alphabet="ab.", max_size=8))
def test_patterns_that_share_a_text_overlap(first: str, second: str, text: str):
    if fnmatch.fnmatchcase(text, first) and fnmatch.fnmatchcase(text, second):
        assert archives.overlap(first, second)


@given(PATTERNS, st.text(alphabet="ab.", max_size=8))
def test_a_text_without_wildcards_overlaps_what_matches_it(pattern: str, text: str):
    assert archives.overlap(pattern, text) == fnmatch.fnmatchcase(text, pattern)
    assert archives.covers(pattern, text) == fnmatch.fnmatchcase(text, pattern)


@given(PATTERNS, PATTERNS)
def test_overlapping_has_no_direction(first: str, second: str):
    assert archives.overlap(first, second) == archives.overlap(second, first)


@given(PATTERNS, PATTERNS, st.text(alphabet="ab.", max_size=8))
def test_what_covers_a_pattern_matches_all_that_it_matches(wide: str, narrow: str, text: str):
    if archives.covers(wide, narrow) and fnmatch.fnmatchcase(text, narrow):
        assert fnmatch.fnmatchcase(text, wide)


@given(NAMES, NAMES, NAMES, NAMES)
def test_the_directors_own_names_never_overlap(client: str, backup: str, other_client: str, other_backup: str):
    first = archives.pattern(archives.default_format(client, backup), client=client)
    second = archives.pattern(archives.default_format(other_client, other_backup), client=other_client)

    assert archives.overlap(first, second) == ((client, backup) == (other_client, other_backup))


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("web.{now:%Y-%m-%d}", "web.*"),
        ("{hostname}-{now}", "\x00web-1\x00-*"),
        ("{fqdn}{utcnow}", "\x00web-1\x00*"),
        ("{user}-{pid}", "*-*"),
        ("a?[bc]*{now}x", "a*x"),
    ],
)
def test_what_changes_is_a_star_and_what_names_the_machine_is_its_own_word(text: str, pattern: str):
    assert archives.pattern(text, client="web-1") == pattern


@pytest.mark.parametrize(
    ("options", "keeps"),
    [
        ({}, False),
        ({"keep_exclude_tags": True}, False),
        ({"keep_daily": 0}, False),
        ({"keep_daily": 1}, True),
        ({"keep_within": "2d"}, True),
    ],
)
def test_only_options_that_keep_something_count_as_retention(options: dict[str, Any], keeps: bool):  # noqa: FBT001 - a parameter of the table
    assert archives.keeps(options) == keeps
