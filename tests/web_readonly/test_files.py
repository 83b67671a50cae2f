"""A client's managed files as a page shows them: annotated, compared with what it applied, bounded, without secrets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import emit
from schema.desired import Content, Job, ManagedFile
from schema.directories import Directories
from web_readonly import files


def content(*managed: ManagedFile) -> Content:
    jobs = tuple(
        Job(backup=one.path.removesuffix(".yaml"), file=one.path, schedule=None, actions=("create",), repositories=())
        for one in managed
        if one.place == "config"
    )
    return Content(client="web-1", directories=Directories(), files=managed, jobs=jobs)


def managed(path: str, text: str, *, origin: str = "backups/web.yaml", mode: int = 0o600) -> ManagedFile:
    return ManagedFile(place="config", path=path, origin=origin, content=text, mode=mode)


# --- Where each line came from ----------------------------------------------------------------------------------------


def test_each_line_has_the_place_of_its_innermost_option():
    options = {
        "keep_daily": "profiles/keep.yaml:9",
        "source_directories.0": "backups/web.yaml:12",
        "source_directories.1": "profiles/etc.yaml:4",
        "mariadb_databases": "backups/web.yaml:20",
        "mariadb_databases.1.name": "backups/web.yaml:24",
        "hooks.before": "profiles/hooks.yaml:2",
    }
    text = emit.document(
        {
            "source_directories": ["/etc", "/srv"],
            "keep_daily": 7,
            "mariadb_databases": [{"name": "shop", "options": {"a: b": "x"}}, {"name": "wiki", "port": 3}],
            "hooks": {"before": "echo: one\nkeep_daily: 9\n", "after": []},
            "label": "nobody wrote this",
        }
    )

    assert [(line.text.strip(), line.origin) for line in files.annotated(text, options)] == [
        ("source_directories:", ""),
        ("- /etc", "backups/web.yaml:12"),
        ("- /srv", "profiles/etc.yaml:4"),
        ("keep_daily: 7", "profiles/keep.yaml:9"),
        ("mariadb_databases:", "backups/web.yaml:20"),
        ("- name: shop", "backups/web.yaml:20"),
        ("options:", "backups/web.yaml:20"),
        ('"a: b": x', "backups/web.yaml:20"),
        ("- name: wiki", "backups/web.yaml:24"),
        ("port: 3", "backups/web.yaml:20"),
        ("hooks:", ""),
        ("before: |", "profiles/hooks.yaml:2"),
        ("echo: one", "profiles/hooks.yaml:2"),
        ("keep_daily: 9", "profiles/hooks.yaml:2"),
        ("after: []", ""),
        ("label: nobody wrote this", ""),
    ]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=6), inner, max_size=3),
    max_leaves=12,
)


@given(options=st.dictionaries(st.text(min_size=1, max_size=8), VALUES, min_size=1, max_size=4))
def test_whatever_is_rendered_no_line_is_lost_and_every_top_option_has_its_place(options):
    text = emit.document(options)
    places = {name: f"file.yaml:{number}" for number, name in enumerate(options, 1)}

    found = list(files.annotated(text, places))

    assert [line.text for line in found] == text.splitlines()
    if all(name.isidentifier() and name.isascii() for name in options):
        assert all(line.origin in places.values() for line in found if line.text.strip())


# --- What will change -------------------------------------------------------------------------------------------------


def test_what_will_change_is_shown_file_by_file():
    before = content(managed("a.yaml", "keep_daily: 7\n"), managed("b.yaml", "x: 1\n"), managed("gone.yaml", "x: 1\n"))
    after = content(managed("a.yaml", "keep_daily: 9\n"), managed("b.yaml", "x: 1\n"), managed("new.yaml", "x: 1\n"))

    found = {one.path.rpartition("/")[2]: one for one in files.shown(after, before=before)}

    assert {name: one.change for name, one in found.items()} == {
        "a.yaml": "changed",
        "b.yaml": "same",
        "new.yaml": "new",
        "gone.yaml": "gone",
    }
    assert "-keep_daily: 7\n+keep_daily: 9" in found["a.yaml"].diff
    assert found["a.yaml"].backup == "a"


def test_a_file_that_moved_in_git_and_one_whose_mode_changes_say_so():
    before = content(managed("a.yaml", "x: 1\n"), managed("b.yaml", "x: 1\n"))
    after = content(managed("a.yaml", "x: 1\n", origin="moved/web.yaml"), managed("b.yaml", "x: 1\n", mode=0o640))

    moved, opened = files.shown(after, before=before)

    assert (moved.change, opened.change) == ("changed", "changed")
    assert "edit moved/web.yaml in Git" in moved.diff
    assert (opened.diff, opened.mode) == ("", "0640")


def test_when_what_the_client_has_is_not_known_nothing_is_claimed():
    (only,) = files.shown(content(managed("a.yaml", "x: 1\n")))

    assert (only.change, only.diff) == ("", "")


def test_no_secret_value_is_shown_on_either_side_of_a_diff():
    before = content(managed("a.yaml", "encryption_passphrase: former-canary\n"))
    after = content(managed("a.yaml", "encryption_passphrase: latter-canary\nx: 1\n"))

    (one,) = files.shown(after, before=before)

    assert "canary" not in one.model_dump_json()
    assert one.lines[0].text == "encryption_passphrase: (hidden)"


def test_far_too_much_text_is_named_instead_of_shown():
    many = [managed(f"f{number}.yaml", "x" * 30_000) for number in range(20)]

    found = files.shown(content(*many))

    assert len(found) == 20
    assert sum(len(line.text) for one in found for line in one.lines) <= files.MAX_TEXT
    assert found[0].is_whole
    assert not found[-1].is_whole


def test_a_client_to_which_nothing_was_issued_has_no_files():
    assert files.shown(None) == ()
