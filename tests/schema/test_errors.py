"""Problems and errors: how they read, and what they never say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import (
    DirectorError,
    InvalidSource,
    PolicyDenied,
    Problem,
    Severity,
    TerminalError,
    TransientError,
    TrustError,
    scrub,
)


@pytest.mark.parametrize(
    "path, line, column, place",
    [("a.yaml", 3, 5, "a.yaml:3:5"), ("a.yaml", 3, 0, "a.yaml:3"), ("a.yaml", 0, 0, "a.yaml"), ("", 0, 0, "")],
)
def test_a_place_is_as_long_as_what_is_known(path: str, line: int, column: int, place: str):
    assert Problem(code="x", message="m", path=path, line=line, column=column).place == place


def test_a_problem_reads_as_editors_and_people_expect():
    problem = Problem(
        code="x", message="there is no Repository 'nsa'", hint="did you mean 'nas'?", path="a.yaml", line=3
    )

    assert str(problem) == "a.yaml:3: error: there is no Repository 'nsa'\n  hint: did you mean 'nas'?"
    assert str(Problem(code="x", message="m", severity=Severity.WARNING)) == "source: warning: m"


def test_an_invalid_source_carries_all_problems_and_says_the_first_error():
    problems = [
        Problem(code="w", message="careful", severity=Severity.WARNING),
        Problem(code="a", message="first", path="a.yaml"),
        Problem(code="b", message="second", path="b.yaml"),
    ]

    error = InvalidSource(iter(problems))

    assert error.problems == tuple(problems)
    assert error.message == "a.yaml: error: first (and 1 more)"


def test_an_error_reads_as_message_and_hint():
    assert str(TransientError("cannot fetch", hint="check the network")) == "cannot fetch\n  hint: check the network"
    assert str(TerminalError("cannot fetch")) == "cannot fetch"


def test_a_denial_says_the_line_that_would_allow_it():
    error = PolicyDenied("commands may not run", allow='allow_options = ["commands"]')

    assert (error.allow, error.hint) == (
        'allow_options = ["commands"]',
        'to allow it, put into client.toml on that machine: allow_options = ["commands"]',
    )


@pytest.mark.parametrize(
    "kind, is_transient",
    [(TransientError, True), (TerminalError, False), (InvalidSource, False), (PolicyDenied, False)],
)
def test_every_error_is_transient_or_terminal(kind: type[DirectorError], *, is_transient: bool):
    assert issubclass(kind, TransientError) is is_transient
    assert issubclass(kind, TerminalError) is not is_transient


def test_a_refusal_carries_its_code():
    assert TrustError("no", code="bad-signature").code == "bad-signature"


@pytest.mark.parametrize(
    "text, scrubbed",
    [
        ("https://me:hunter2@example.org/x", "https://me:***@example.org/x"),
        ("ssh://git:a%40b@example.org", "ssh://git:***@example.org"),
        ("https://:hunter2@example.org", "https://:***@example.org"),
        ("https://example.org:8080/a@b", "https://example.org:8080/a@b"),
        ("ssh://git@example.org:22/x", "ssh://git@example.org:22/x"),
        ("two: http://a:b@c and http://d:e@f", "two: http://a:***@c and http://d:***@f"),
        ("token bd1-token.abcDEF_-123 here", "token bd1-token.*** here"),
        ("bd1-enroll.aGVsbG8=", "bd1-token.***"),
        ("bd1-viewer.abcDEF_-123", "bd1-token.***"),
        ("PGPASSWORD=hunter2 pg_dump shop", "PGPASSWORD=*** pg_dump shop"),
        ("mysqldump --password='a b' -u me", "mysqldump --password=*** -u me"),
        ("mysqldump --password='it'\"'\"'s hunter2' -u me", "mysqldump --password=*** -u me"),
        ("mysqldump --password='it'\\''s hunter2' -u me", "mysqldump --password=*** -u me"),
        ("mysqldump --password='a b'hunter2 -u me", "mysqldump --password=*** -u me"),
        ("'password=x' and 'token=y'", "'password=***' and 'token=***'"),
        ('export BORG_PASSPHRASE="a b";', "export BORG_PASSPHRASE=***;"),
        ("secret='never closed", "secret=*** closed"),
        ("GET /x?token=abc&y=1", "GET /x?token=***&y=1"),
        ("AWS_SECRET_ACCESS_KEY=a/b+c==", "AWS_SECRET_ACCESS_KEY=***"),
        ("BORG_PASSPHRASE=***", "BORG_PASSPHRASE=***"),
        ("PASSWORD_FILE=/run/x --keep=3 password: x", "PASSWORD_FILE=/run/x --keep=3 password: x"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_passwords_in_urls_and_tokens_are_scrubbed(text: str, scrubbed: str):
    assert scrub(text) == scrubbed


@given(st.text(st.characters(exclude_characters="/@", exclude_categories=["Z", "C"]), min_size=1).filter(str.strip))
def test_no_password_in_a_url_survives_in_an_error(password: str):
    error = TransientError(f"cannot reach https://user:{password}@host/x", hint=f"see https://user:{password}@host/x")

    assert f":{password}@" not in str(error) or password == "***"
    assert f":{password}@" not in "".join(error.args) or password == "***"
