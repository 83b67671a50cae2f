"""Files become resources, and every mistake is a sentence at its place."""
# ruff: noqa: E501 - a table of mistakes reads best with one mistake on a line

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import load
from reconciler.core.catalogue import SourceFile
from schema.errors import Problem
from schema.resources import KINDS, Backup, Client
from tests.reconciler.core import written

HEAD = "apiVersion: borgmatic.director/v1\nkind: {kind}\nmetadata: {{name: {name}}}\n"


def loaded(*texts: str) -> load.Loaded:
    return load.load([written.file(f"{index}.yaml", text) for index, text in enumerate(texts)])


def problems(kind: str, spec: str, *, name: str = "x") -> list[Problem]:
    return list(loaded(HEAD.format(kind=kind, name=name) + f"spec: {spec}\n").problems)


def problem(kind: str, spec: str, *, name: str = "x") -> Problem:
    (only,) = problems(kind, spec, name=name)
    return only


BACKUP = "clients: [a], repositories: [b]"


# --- What is loaded -------------------------------------------------------------------------------------------------


def test_every_document_of_every_file_becomes_a_resource_of_its_kind():
    texts = (HEAD + "---\n" + HEAD).format(kind="Client", name="a"), HEAD.format(kind="Client", name="c")

    result = loaded(texts[0].replace("name: a", "name: b", 1), texts[1])

    assert result.problems == ()
    assert list(result.catalogue.all(Client)) == ["b", "a", "c"]


def test_a_resource_knows_its_file_its_line_and_the_place_of_each_part():
    text = (
        "# a comment\n---\n" + HEAD.format(kind="Backup", name="web") + "spec:\n  clients: [a]\n  repositories: [b]\n"
    )

    located = loaded(text).catalogue.all(Backup)["web"]

    assert located.origin == "0.yaml:3"
    assert located.position(("spec", "repositories", 0)) == (8, 18)
    assert located.position(("spec", "repositories", 7)) == (8, 3)


def test_equal_contents_have_equal_digests_wherever_they_stand():
    text = HEAD.format(kind="Client", name="a")
    first, second = loaded(text), loaded(f"# moved\n---\n{text}")

    assert first.catalogue.all(Client)["a"].digest == second.catalogue.all(Client)["a"].digest


def test_the_order_of_keys_is_a_part_of_the_digest_because_it_shows_in_what_is_rendered():
    first, second = (
        loaded(HEAD.format(kind="Profile", name="a") + f"spec: {{borgmatic: {block}}}").catalogue.kinds["Profile"]["a"]
        for block in ("{keep_daily: 1, keep_weekly: 2}", "{keep_weekly: 2, keep_daily: 1}")
    )

    assert first.digest != second.digest


@pytest.mark.parametrize(
    "path, is_read",
    [
        ("a.yaml", True),
        ("clients/web/a.yml", True),
        ("a.json", False),
        ("a.yaml.orig", False),
        ("README.md", False),
        (".github/workflows/ci.yaml", False),
        ("backups/.hidden/a.yaml", False),
        (".pre-commit-config.yaml", False),
    ],
)
def test_only_yaml_files_outside_hidden_folders_are_read(path: str, *, is_read: bool):
    assert load.is_resource_path(path) is is_read


# --- The cache ------------------------------------------------------------------------------------------------------


def test_a_blob_that_was_read_once_is_not_read_again():
    cache = load.ParseCache()
    first = load.load([written.client("web-1")], cache=cache)
    (file,) = [written.client("web-1")]

    second = load.load([SourceFile(file.path, file.blob, b"not looked at: [")], cache=cache)

    assert second.problems == ()
    assert second.catalogue.all(Client)["web-1"].resource is first.catalogue.all(Client)["web-1"].resource


def test_one_blob_at_two_paths_is_reported_with_the_path_of_each():
    file = written.file("a.yaml", "a: @b")

    result = load.load([file, SourceFile("b.yaml", file.blob, file.data)])

    assert [one.place for one in result.problems] == ["a.yaml:1:4", "b.yaml:1:4"]


def test_files_that_are_gone_are_forgotten():
    cache = load.ParseCache()
    load.load([written.client("web-1"), written.client("web-2")], cache=cache)

    load.load([written.client("web-2")], cache=cache)

    assert (len(cache), written.client("web-2").path in cache) == (1, True)


# --- What is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, code, message, hint",
    [
        ("jobs: {}\n", "not-a-resource", "this is not a resource: it has no apiVersion and no kind", "begin it with"),
        (
            "[a]\n",
            "not-a-resource",
            "a resource is a mapping with apiVersion, kind, metadata and spec, not a list",
            "begin",
        ),
        (
            "hello\n",
            "not-a-resource",
            "a resource is a mapping with apiVersion, kind, metadata and spec, not 'hello'",
            "",
        ),
        (
            "kind: Backup\n",
            "missing-field",
            "the resource has no apiVersion",
            "write apiVersion: borgmatic.director/v1",
        ),
        ("apiVersion: borgmatic.director/v1\n", "missing-field", "the resource has no kind", "the kinds are Client, "),
        (
            "apiVersion: v1\nkind: Pod\n",
            "unknown-api-version",
            "unknown apiVersion 'v1'",
            "write apiVersion: borgmatic",
        ),
        ("apiVersion: 1\nkind: Pod\n", "unknown-api-version", "unknown apiVersion the number 1", "write apiVersion"),
        (HEAD.format(kind="Bakcup", name="x"), "unknown-kind", "unknown kind 'Bakcup'", "did you mean 'Backup'?"),
        (HEAD.format(kind="Pod", name="x"), "unknown-kind", "unknown kind 'Pod'", "the kinds are Client, Repository"),
        (HEAD.format(kind="[]", name="x"), "unknown-kind", "unknown kind a list", "the kinds are"),
    ],
)
def test_what_is_no_resource_is_told_what_a_resource_is(text: str, code: str, message: str, hint: str):
    (only,) = loaded(text).problems

    assert (only.code, only.message) == (code, message)
    assert only.hint.startswith(hint)


@pytest.mark.parametrize("kind", sorted(load.LATER_KINDS))
def test_kinds_of_the_design_that_are_not_built_yet_say_so(kind: str):
    (only,) = loaded(HEAD.format(kind=kind, name="x")).problems

    assert only.message == f"the kind {kind} is not available in this version"


@pytest.mark.parametrize(
    "kind, line, message, hint",
    [
        ("Backup", "spec: {clients: [a], repositories: [b], ‸schedul: x}", "unknown field 'schedul' in spec of Backup 'x'", "did you mean 'schedule'?"),
        ("Backup", "‸'[key]': x\nspec: {clients: [a], repositories: [b]}", "unknown field '[key]' in Backup 'x'", "the fields here are apiVersion, metadata, kind, spec"),
        ("Backup", "‸spec: {clients: [a]}", "the field 'repositories' is missing in spec of Backup 'x'", ""),
        ("Backup", "spec: {clients: [a], repositories: [b], ‸suspend: yes}", "spec.suspend of Backup 'x' must be true or false, not 'yes'", "write true or false without quotes: in YAML 1.2 yes, no, on and off are text"),
        ("Backup", "spec: {clients: [a], repositories: [b], actions: [‸crate]}", "spec.actions[0] of Backup 'x' must be 'create', 'prune', 'compact' or 'check', not 'crate'", "did you mean 'create'?"),
        ("Backup", "spec: {clients: [a], repositories: [b], objectives: {‸rpo: 5}}", "spec.objectives.rpo of Backup 'x': a duration is text with a unit, for example 90s, 15m, 26h, 7d or 1d12h", ""),
        ("Backup", "spec: {‸clients: [], repositories: [b]}", "spec.clients of Backup 'x' must not be empty", ""),
        ("Backup", "spec: {‸clients: all, repositories: [b]}", "spec.clients of Backup 'x' must be a list of names, or {matchLabels: …}, not 'all'", "write [a, b], or one '- item' in each line"),
        ("Backup", "spec: {clients: {‸matchLabel: {a: b}, matchLabels: {a: b}}, repositories: [b]}", "unknown field 'matchLabel' in spec.clients of Backup 'x'", "did you mean 'matchLabels'?"),
        ("Backup", "spec: {clients: {‸matchLabels: {}}, repositories: [b]}", "spec.clients.matchLabels of Backup 'x' must not be empty", ""),
        ("Backup", "spec: {clients: [a], ‸repositories: nas}", "spec.repositories of Backup 'x' must be a list, not 'nas'", "write [a, b], or one '- item' in each line"),
        ("Backup", "spec: {clients: [a], repositories: [b], layering: {‸keep_daily: append}}", "spec.layering.keep_daily of Backup 'x' must be 'merge' or 'replace', not 'append'", ""),
        ("Backup", "spec: {clients: [a], repositories: [b], ‸borgmatic: []}", "spec.borgmatic of Backup 'x' must be a mapping, not a list", ""),
        ("Backup", "‸spec: ", "spec of Backup 'x' must be a mapping, not nothing", "its fields are clients, repositories, schedule, profiles, borgmatic, layering, actions, objectives, suspend, drift, timeout"),
        ("Repository", "spec: {url: /a, encryption: {mode: none}, ‸borg: 1}", "spec.borg of Repository 'x' must be '1', not the number 1", "put it in quotes: '1'"),
        ("Repository", "spec: {url: /a, encryption: {mode: none}, ‸quota: 5X}", "spec.quota of Repository 'x' must be a size such as 500G (K, M, G or T), not '5X'", ""),
        ("Repository", "spec: {url: /a, encryption: {mode: none}, ‸ssh_key_from: {}}", "unknown field 'ssh_key_from' in spec of Repository 'x'", "did you mean 'sshKeyFrom'?"),
        ("Repository", "spec: {url: /a, ‸encryption: {mode: repokey}}", "spec.encryption of Repository 'x': encryption mode 'repokey' needs passphraseFrom", ""),
        ("Repository", "spec: {‸url: '/a/../b', encryption: {mode: none}}", "spec.url of Repository 'x': '/a/../b' is not an absolute path without '..' and control characters", ""),
        ("Schedule", "spec: {‸cron: every day}", "spec.cron of Schedule 'x': 'every day' is not a cron expression: write five fields (minute hour day month weekday) and nothing around them, or an alias such as @daily", ""),
        ("Schedule", "spec: {cron: '@daily', ‸timeZone: Mars}", "spec.timeZone of Schedule 'x': 'Mars' is not a time zone: write for example UTC or Europe/Berlin", ""),
        ("Client", "spec: {‸publicKey: ssh-ed25519}", "spec.publicKey of Client 'x' must be a client's public key ('bd1-client.' and 86 characters)", "copy what `director-client fingerprint` prints on that machine"),
    ],
)  # fmt: skip
def test_what_a_model_refuses_is_said_in_the_writers_words_at_the_caret(kind: str, line: str, message: str, hint: str):
    (found,) = loaded(HEAD.format(kind=kind, name="x") + line.replace("‸", "")).problems

    assert (found.place, found.message, found.hint) == (f"0.yaml:4:{line.index('‸') + 1}", message, hint)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/b", "a.b", ".x", "-x", "X", "a" * 64, "a b", "''", '"a\\n"']
)
def test_a_name_that_tries_to_be_a_path_is_refused(name: str):
    found = problem("Client", "{}", name=name)

    assert (found.code, found.place) == ("invalid-name", "0.yaml:3:12")


def test_a_name_that_yaml_takes_for_a_number_is_answered_with_quotes():
    assert problem("Client", "{}", name="12").hint == "put it in quotes: '12'"


def test_an_unsealed_value_of_a_secret_is_never_repeated_in_a_message():
    found = problems("Secret", "{values: {a: {clients: {b: hunter2}}, c: hunter2, d: {clients: hunter2}}}")

    assert [one.code for one in found] == ["invalid-value", "wrong-type", "wrong-type"]
    assert "hunter2" not in "".join(f"{one} {one.hint}" for one in found)


def test_all_problems_of_all_files_come_at_once_in_the_order_of_their_places():
    result = loaded("a: [\n", HEAD.format(kind="Backup", name="x") + "spec: {clients: [A], foo: 1}\n")

    assert [(one.place, one.code) for one in result.problems] == [
        ("0.yaml:2:1", "yaml-syntax"),
        ("1.yaml:4:1", "missing-field"),
        ("1.yaml:4:18", "invalid-name"),
        ("1.yaml:4:22", "unknown-field"),
    ]


def test_two_resources_with_one_name_are_an_error_that_names_both_places():
    text = HEAD.format(kind="Client", name="a")

    (only,) = loaded(text, f"---\n{text}").problems

    assert (only.place, only.code) == ("1.yaml:4:12", "duplicate-resource")
    assert only.message == ("there are two resources of kind Client named 'a': this one, and the one at 0.yaml:1")


def test_one_name_may_be_used_once_for_each_kind():
    assert (
        loaded(
            HEAD.format(kind="Client", name="a"), HEAD.format(kind="Profile", name="a") + "spec: {borgmatic: {}}"
        ).problems
        == ()
    )


def test_snake_case_is_not_a_second_spelling_of_our_fields():
    assert problem("Client", "{public_key: x}").hint == "did you mean 'publicKey'?"


def test_of_very_many_problems_a_thousand_are_shown_and_the_rest_are_counted():
    result = load.load([written.file(f"{index:05}.yaml", "a: [") for index in range(1234)])

    assert len(result.problems) == load.MAX_PROBLEMS + 1
    assert result.problems[-1].message == "234 more problems are not shown"


def test_an_error_is_never_hidden_behind_a_thousand_warnings():
    warnings = [Problem(severity="warning", code="w", message="w", path="a") for _ in range(2_000)]  # type: ignore[arg-type]

    shown = load.limited([*warnings, Problem(code="e", message="e", path="z")])

    assert [one.code for one in shown if one.code != "w"] == ["e", "too-many-problems"]


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(-9, 9)
    | st.sampled_from(["a", "create", "@daily", "26h", "/a", "", "bd1-sealed.x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["clients", "repositories", "matchLabels", "mode", "values", "name", "labels", "secret", "A b"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(list(KINDS)),
    ANYTHING,
    st.dictionaries(
        st.sampled_from(
            ["clients", "repositories", "schedule", "borgmatic", "layering", "url", "encryption", "cron", "values", "escrow", "publicKey"]
        ),
        ANYTHING,
    )
    | ANYTHING,
)  # fmt: skip
def test_whatever_a_document_holds_it_becomes_a_resource_or_a_problem_with_a_place(kind: str, metadata: Any, spec: Any):
    document = {"apiVersion": "borgmatic.director/v1", "kind": kind, "metadata": metadata, "spec": spec}

    result = loaded(yaml.safe_dump(document))

    assert bool(result.problems) != bool(result.catalogue.kinds[kind])
    assert all(one.line and one.column and one.message for one in result.problems)
