"""What a client reports, and the comparison of desired with observed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from schema import observed
from schema.hiding import MAX_DIFF, diff_files, hide_secret_values
from schema.observed import Drift, DriftKind, Outcome, Report, compare

NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)
REPORTS: TypeAdapter[Any] = TypeAdapter(Report)
FILES = st.dictionaries(st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]), st.binary(max_size=40))


def kinds(drifts: tuple[Drift, ...]) -> list[tuple[str, str]]:
    return [(drift.kind.value, drift.subject) for drift in drifts]


# --- Drift ---


def test_equal_files_are_no_drift():
    assert compare({"a.yaml": b"x"}, {"a.yaml": b"x"}, now=NOW) == ()


def test_changed_missing_and_unmanaged_files_are_drift_in_the_order_of_their_paths():
    drifts = compare(
        {"c.yaml": b"x", "a.yaml": b"x\n", "b.yaml": b"x"},
        {"a.yaml": b"y\n", "b.yaml": b"x"},
        unmanaged=frozenset({"z.yaml", "own.yaml"}),
        now=NOW,
    )

    assert kinds(drifts) == [
        ("changed", "a.yaml"),
        ("missing", "c.yaml"),
        ("unmanaged", "own.yaml"),
        ("unmanaged", "z.yaml"),
    ]
    assert drifts[0].diff.splitlines()[-2:] == ["-x", "+y"]
    assert not any(drift.healed for drift in drifts)


@given(FILES, FILES)
def test_there_is_drift_exactly_where_desired_and_actual_differ(desired: dict[str, bytes], actual: dict[str, bytes]):
    drifts = compare(desired, actual, now=NOW)

    assert {drift.subject for drift in drifts} == {
        path for path, content in desired.items() if actual.get(path) != content
    }
    assert all((drift.kind is DriftKind.MISSING) == (drift.subject not in actual) for drift in drifts)


@pytest.mark.parametrize(
    "line",
    [
        "encryption_passphrase: hunter2",
        '    password: "hunter2"',
        "  - password: hunter2",
        "access_token: hunter2",
        '"api_key": hunter2',
        "ping_url: https://hc.example/hunter2",
        "encryption_passcommand: echo hunter2",
        "PASSWORD: hunter2",
        "password: |\n  hunter2",
        "password: >-\n\n    hunter2\n  hunter2",
        "password:\n  hunter2",
        "password: begins\n  hunter2",
        "  - password: |\n      hunter2\n    name: shop",
        "mariadb_databases: [{name: shop, password: hunter2}]",
        "  - {password: 'hunter2, and more', name: shop}",
        '  - {"password": "hunter2, \\" hunter2", name: shop}',
        "password: hunter2 # {credential file /x}",
        "- - password: hunter2",
        "ntfy: {topic: x, password: 'it''s hunter2'}",
        "ntfy: {topic: x, password: 'it' hunter2}",
        'ntfy: {topic: x, password: "it\n  is hunter2"}',
        "  - {name: shop, password:\n      hunter2}",
    ],
)
def test_a_secret_typed_into_a_managed_file_does_not_travel_in_the_diff(line: str):
    diff = diff_files(b"keep_daily: 7\n", f"keep_daily: 7\n{line}\n".encode(), name="a.yaml")

    assert "hunter2" not in diff
    assert "(hidden)" in diff


def test_a_changed_secret_is_a_drift_although_it_is_not_shown():
    (drift,) = compare({"a": b"password: one\n"}, {"a": b"password: two\n"}, now=NOW)

    assert drift.diff == "a: only hidden values or line endings differ"


def test_what_follows_a_hidden_value_is_shown_again():
    text = "ntfy:\n  password: |\n    one\n    two\n  topic: x\nkeep_daily: 7"

    assert (
        hide_secret_values(text) == "ntfy:\n  password: (hidden)\n    (hidden)\n    (hidden)\n  topic: x\nkeep_daily: 7"
    )


def test_references_to_secrets_are_shown_for_they_are_none():
    for line in (
        'password: "{credential file /srv/secrets/a.b}"',
        "- {name: shop, password: '{credential systemd x}'}",
    ):
        assert hide_secret_values(line) == line


def test_a_diff_says_which_side_is_which():
    diff = diff_files(b"a\n", b"b\n", name="a.yaml")

    assert diff.splitlines()[:2] == ["--- a.yaml (desired)", "+++ a.yaml (on disk)"]


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_can_be_compared_and_make_a_report(desired: bytes, actual: bytes):
    for drift in compare({"a": desired}, {"a": actual}, now=NOW):
        drift.diff.encode()
        assert Drift.model_validate_json(drift.model_dump_json()) == drift


def test_a_huge_edit_makes_a_bounded_diff():
    (drift,) = compare({"a": b""}, {"a": b"x\n" * 500_000}, now=NOW)

    assert len(drift.diff) < MAX_DIFF + 64
    assert drift.diff.endswith("… (shortened)")


# --- Reports ---

RUN = "0123456789abcdef0123456789abcdef"
WIRE: list[dict[str, Any]] = [
    {"type": "state", "at": "2026-11-23T18:00:00Z", "generation": 7, "drift": [], "jobs": [{"backup": "files"}]},
    {"type": "run-started", "at": "2026-11-23T18:00:00Z", "run": RUN, "backup": "files", "trigger": "schedule"},
    {
        "type": "run-log",
        "run": RUN,
        "first": 0,
        "lines": [{"at": "2026-11-23T18:00:00Z", "level": "info", "message": "x"}],
    },
    {"type": "run-finished", "at": "2026-11-23T18:00:00Z", "run": RUN, "backup": "files", "outcome": "warned"},
    {
        "type": "archives",
        "at": "2026-11-23T18:00:00Z",
        "backup": "files",
        "repository": "nas",
        "url": "/backup",
        "available": True,
        "archives": [{"id": "0123abcd", "name": "web-1.files.x", "start": "2026-11-23T18:00:00Z"}],
    },
    {"type": "event", "at": "2026-11-23T18:00:00Z", "reason": "Applied", "message": "x"},
]


@pytest.mark.parametrize("wire", WIRE, ids=lambda wire: str(wire["type"]))
def test_every_report_survives_the_wire_and_a_newer_client_may_say_more(wire: dict[str, Any]):
    report = REPORTS.validate_python({**wire, "novelty": 1})

    assert report.type == wire["type"]
    assert REPORTS.validate_json(REPORTS.dump_json(report)) == report


@pytest.mark.parametrize(
    "wire",
    [
        {"type": "unknown"},
        {},
        {**WIRE[0], "at": "2026-11-23T18:00:00"},
        {**WIRE[0], "generation": 2**53},
        {**WIRE[1], "run": "../../etc"},
        {**WIRE[1], "backup": "a/b"},
        {**WIRE[2], "first": -1},
        {**WIRE[2], "lines": WIRE[2]["lines"] * 501},
        {**WIRE[2], "lines": [{**WIRE[2]["lines"][0], "message": "x" * 8193}]},
        {**WIRE[3], "outcome": "perfect"},
        {**WIRE[4], "archives": [{**WIRE[4]["archives"][0], "id": "x"}]},
        {**WIRE[4], "total_size": -1},
        {**WIRE[5], "reason": "not a reason"},
    ],
)
def test_a_malformed_or_oversized_report_is_refused(wire: dict[str, Any]):
    with pytest.raises(ValidationError):
        REPORTS.validate_python(wire)


def test_outcomes_are_those_of_the_glossary():
    assert [outcome.value for outcome in Outcome] == ["succeeded", "warned", "failed", "cancelled", "lost"]


def test_progress_is_bounded_too():
    progress = {"at": NOW, "run": RUN, "backup": "files", "percent": 101}

    with pytest.raises(ValidationError):
        observed.RunProgress.model_validate(progress)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "line",
    ["passw" * 200_000, "- {" + "passw" * 200_000, "- " + ", passw" * 150_000, '{password: "' + "\\\\" * 400_000],
)
def test_a_line_of_a_megabyte_that_looks_like_a_secret_all_along_costs_little(line):
    assert hide_secret_values("a: 1\n" + line + "\nb: 2").splitlines()[0] == "a: 1"


@pytest.mark.timeout(20)
def test_files_of_few_lines_over_and_over_are_compared_in_part():
    desired = "".join(f"- {number % 102}\n" for number in range(50_000))
    actual = "".join(f"- {number * 7 % 102}\n" for number in range(50_000))

    diff = diff_files(desired.encode(), actual.encode(), name="a.yaml")

    assert len(diff) <= MAX_DIFF + 64
    assert diff.endswith("… (shortened)")


def test_a_difference_far_down_is_shown_at_its_line():
    lines = [f"- {number % 102}\n" for number in range(40_500)]
    edited = [*lines[:40_000], "- new\n", *lines[40_000:]]

    diff = diff_files("".join(lines).encode(), "".join(edited).encode(), name="a.yaml")

    shown = ["@@ -39998,6 +39998,7 @@", " - 13", " - 14", " - 15", "+- new", " - 16", " - 17", " - 18"]
    assert diff.splitlines()[2:] == shown


def test_what_is_missing_at_the_end_is_shown():
    assert diff_files(b"a: 1\nb: 2\n", b"a: 1\n", name="a.yaml").splitlines()[2:] == ["@@ -1,2 +1 @@", " a: 1", "-b: 2"]
