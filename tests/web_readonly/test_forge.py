"""Links to the forge: right where the forge is known, and harmless wherever not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web_readonly import forge

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("https://github.com/ops/backups.git", f"https://github.com/ops/backups/blob/{REVISION}/a/b.yaml#L7"),
        ("https://github.com/ops/backups", f"https://github.com/ops/backups/blob/{REVISION}/a/b.yaml#L7"),
        ("https://gitlab.com/it/ops/backups.git", f"https://gitlab.com/it/ops/backups/-/blob/{REVISION}/a/b.yaml#L7"),
        ("https://codeberg.org/ops/b.git", f"https://codeberg.org/ops/b/src/commit/{REVISION}/a/b.yaml#L7"),
        ("https://gitea.com/ops/b", f"https://gitea.com/ops/b/src/commit/{REVISION}/a/b.yaml#L7"),
        ("https://gitlab.example.org/ops/b", f"https://gitlab.example.org/ops/b/-/blob/{REVISION}/a/b.yaml#L7"),
        ("https://Forgejo.lan:3000/ops/b", f"https://forgejo.lan:3000/ops/b/src/commit/{REVISION}/a/b.yaml#L7"),
    ],
)
def test_a_line_of_a_file_is_found_at_each_forge(source, address):
    assert forge.at(source, REVISION, "a/b.yaml:7") == address
    assert forge.at(source, REVISION, "a/b.yaml:7:3") == address
    assert forge.at(source, REVISION, "a/b.yaml") == address.removesuffix("#L7")


def test_a_revision_has_an_address_too():
    assert forge.at("https://github.com/ops/b", REVISION) == f"https://github.com/ops/b/commit/{REVISION}"
    assert forge.at("https://gitlab.com/ops/b", REVISION) == f"https://gitlab.com/ops/b/-/commit/{REVISION}"


def test_a_credential_in_the_source_is_in_no_link():
    assert forge.at("https://deploy:hunter2@github.com/ops/b.git", REVISION) == (
        f"https://github.com/ops/b/commit/{REVISION}"
    )


@pytest.mark.parametrize(
    "source",
    [
        "",
        "/srv/git/backups.git",
        "git@github.com:ops/backups.git",
        "ssh://git@github.com/ops/backups.git",
        "http://github.com/ops/backups",
        "javascript:alert(1)//github.com/a/b",
        "https://git.example/ops/backups.git",
        "https://github.com.evil.example.org/ops",
        "https://evil-github.com/ops/b",
        "https://github.com/ops",
        "https://github.com/../b",
        "https://github.com/a/b?x=1",
        "https://github.com:nonsense/a/b",
        "https://[::1/a/b",
        'https://github"onclick=x.com/a/b',
    ],
)
def test_any_other_source_has_no_link(source):
    assert forge.at(source, REVISION, "a.yaml:1") == ""


def test_a_place_that_is_no_file_of_the_source_has_no_link():
    for place in ("/etc/passwd", "../x.yaml:3", "a//b", "a/./b", "x" * 2_000):
        assert forge.at("https://github.com/ops/b", REVISION, place) == ""
    for revision in ("main", "", "0123", REVISION + "/..", REVISION.upper()):
        assert forge.at("https://github.com/ops/b", revision, "a.yaml") == ""


def test_what_a_path_holds_is_quoted():
    assert forge.at("https://github.com/a b/<c>", REVISION, 'x "y"?#%.yaml:2') == (
        f"https://github.com/a%20b/%3Cc%3E/blob/{REVISION}/x%20%22y%22%3F%23%25.yaml#L2"
    )


@given(source=st.text(max_size=60), place=st.text(max_size=60))
def test_whatever_the_source_is_called_a_link_is_https_and_has_nothing_to_break_out_with(source, place):
    for one in (source, f"https://github.com/{source}", f"https://gitlab.{source}/a/b"):
        found = forge.at(one, REVISION, place)
        assert found == "" or found.startswith("https://")
        assert not set(found) & set("\"'<> \n\t\\`")
