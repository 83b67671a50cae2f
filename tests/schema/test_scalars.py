"""Names, durations and moments: what is accepted, and what each refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schema.scalars import (
    FIRST_MOMENT,
    LAST_MOMENT,
    MAX_DURATION_SECONDS,
    Digest,
    Duration,
    Generation,
    LabelKey,
    LabelValue,
    Moment,
    Name,
    SecretKey,
    format_duration,
    parse_duration,
)


def accepts(kind: Any, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", ["a", "web-1", "0", "a" * 63, "a--b"])
def test_a_name_is_lower_case_letters_digits_and_hyphens(name: str):
    assert accepts(Name, name)


@pytest.mark.parametrize(
    "name", ["", "A", "-a", "a-", "a.b", "a_b", "a/b", "..", "a b", "a\n", "a" * 64, "ä", "a\x00", "٣", 1, None]
)
def test_a_name_can_be_no_path_no_option_and_no_number(name: object):
    assert not accepts(Name, name)


@pytest.mark.parametrize(
    "key, value, accepted",
    [
        ("role", "web", True),
        ("example.org/role", "", True),
        ("role", "Web_1.x-y", True),
        ("a/b/c", "x", False),
        ("/role", "x", False),
        ("-role", "x", False),
        ("role", "a b", False),
        ("role", "-x", False),
        ("x" * 64, "x", False),
        ("role", "x" * 64, False),
    ],
)
def test_labels_follow_kubernetes(key: str, value: str, *, accepted: bool):
    assert (accepts(LabelKey, key) and accepts(LabelValue, value)) is accepted


@pytest.mark.parametrize("key", ["password", "id_ed25519", "0", "_x", "A-b"])
def test_a_secrets_key_may_be_a_file_name(key: str):
    assert accepts(SecretKey, key)


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "-x", ".x", "a" * 64, "a\n"])
def test_a_secrets_key_can_be_no_path(key: str):
    assert not accepts(SecretKey, key)


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 63, "sha256:" + "A" * 64, "md5:" + "0" * 64, "0" * 64])
def test_a_digest_is_a_whole_sha256_in_lower_case(digest: str):
    assert accepts(Digest, "sha256:" + "0" * 64)
    assert not accepts(Digest, digest)


@pytest.mark.parametrize("generation", [0, -1, 2**53, 1.5, "1", True])
def test_a_generation_is_a_positive_integer_that_json_keeps(generation: object):
    assert accepts(Generation, 2**53 - 1)
    assert not accepts(Generation, generation)


# --- Durations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, seconds",
    [("90s", 90), ("15m", 900), ("26h", 93_600), ("7d", 604_800), ("1w", 604_800), ("1d12h", 129_600), ("0s", 0)],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: int):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "1", "1x", "1h1d", "1h1h", "-1h", "1.5h", "1 h", " 1h", "1h\n", "1H", "٣h", "9999999h", "11w1y"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str):
    with pytest.raises(ValueError, match="is not a duration: write for example 90s, 15m, 26h, 7d or 1d12h"):
        parse_duration(text)


def test_a_duration_is_at_most_ten_years():
    assert parse_duration(f"{MAX_DURATION_SECONDS}s") == MAX_DURATION_SECONDS
    with pytest.raises(ValueError, match="is longer than ten years"):
        parse_duration(f"{MAX_DURATION_SECONDS + 1}s")


@given(st.integers(0, MAX_DURATION_SECONDS))
def test_every_duration_is_read_back_from_how_it_is_written(seconds: int):
    assert parse_duration(format_duration(seconds)) == seconds


def test_a_duration_travels_as_text():
    adapter = TypeAdapter[int](Duration)

    assert adapter.dump_json(adapter.validate_python("26h")) == b'"1d2h"'


@pytest.mark.parametrize("value", [90, 1.5, None, True, ["1h"]])
def test_a_duration_without_a_unit_is_refused(value: object):
    assert not accepts(Duration, value)


# --- Moments --------------------------------------------------------------------------------------------------------


def test_a_moment_is_kept_in_utc():
    adapter = TypeAdapter[datetime](Moment)

    kept = adapter.validate_python(datetime(2026, 11, 23, 18, tzinfo=timezone(timedelta(hours=2))))

    assert (kept, kept.tzinfo) == (datetime(2026, 11, 23, 16, tzinfo=UTC), UTC)


def test_a_time_without_an_offset_is_no_moment():
    with pytest.raises(ValidationError, match="a time needs an offset"):
        TypeAdapter[datetime](Moment).validate_json('"2026-11-23T18:00:00"')


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:00:00+14:00"])
def test_a_moment_at_the_end_of_all_years_is_moved_to_where_zones_and_spans_lead_nowhere_else(text: str):
    moment = TypeAdapter(Moment).validate_python(text)

    assert moment in {FIRST_MOMENT, LAST_MOMENT}
    assert abs(moment.astimezone(timezone(timedelta(hours=14))) - moment) == timedelta(0)
    assert moment - timedelta(days=360) < moment < moment + timedelta(days=360)
