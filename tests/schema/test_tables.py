"""Times as the store keeps them: text of one length, so that text sorts as time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from schema.scalars import FIRST_MOMENT, LAST_MOMENT
from schema.tables import moment_text, moment_texts

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(FIRST_MOMENT.replace(tzinfo=None), LAST_MOMENT.replace(tzinfo=None), timezones=OFFSETS)


def test_a_moment_is_text_of_one_length_with_microseconds():
    assert moment_text(datetime(2026, 11, 23, 18, tzinfo=UTC)) == "2026-11-23T18:00:00.000000Z"


@given(st.lists(MOMENTS | st.sampled_from([FIRST_MOMENT, LAST_MOMENT])))
def test_many_moments_at_once_are_the_texts_of_each(moments):
    assert moment_texts(moments) == [moment_text(one) for one in moments]
