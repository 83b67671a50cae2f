"""Hints at what may have been meant."""

from __future__ import annotations

import pytest

from reconciler.core.explain import Known, did_you_mean, listed, shown


@pytest.mark.parametrize(
    "word, hint",
    [
        ("keep_dayly", "did you mean 'keep_daily'?"),
        ("keepDaily", "did you mean 'keep_daily'?"),
        ("KEEP-DAILY", "did you mean 'keep_daily'?"),
        ("xyz", ""),
        ("", ""),
        (3, ""),
        (None, ""),
    ],
)
def test_a_near_miss_is_answered_with_the_name_that_was_meant(word: object, hint: str):
    assert did_you_mean(word, ["keep_daily", "compression"]) == hint


def test_without_a_near_name_all_names_are_listed():
    assert Known("Client", ["web-2", "web-1"]).hint("database") == "there are: web-1, web-2"
    assert Known("Client", []).hint("database") == "the source has no Client at all"
    assert Known("Secret", []).hint("borg") == "the source has no Secret at all; `director seal . SECRET KEY` makes one"


def test_many_names_are_not_all_listed():
    assert listed((f"n{index}" for index in range(30)), limit=2) == "n0, n1 and 28 more"


@pytest.mark.timeout(10)
def test_thousands_of_mistakes_among_thousands_of_names_stay_cheap():
    known = Known("Client", [f"client-{index}" for index in range(5_000)])

    hints = [known.hint(f"cliemt-{index}") for index in range(5_000)]

    assert hints[0] == "did you mean 'client-0'?"
    assert hints[-1].startswith("there are: client-0, ")


@pytest.mark.parametrize(
    "value, text",
    [
        (None, "nothing"),
        (True, "true"),
        (3, "the number 3"),
        ("x", "'x'"),
        ("x" * 99, "'" + "x" * 59 + "…'"),
        ([1], "a list"),
        ({}, "a mapping"),
    ],
)
def test_a_value_is_shown_shortly(value: object, text: str):
    assert shown(value) == text
