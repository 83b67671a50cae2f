"""borgmatic's options in a layer: everything borgmatic takes is taken, and what it refuses is said in its words."""
# ruff: noqa: E501 - a table of mistakes reads best with one mistake on a line

from __future__ import annotations

from typing import Any

import pytest
import yaml

from reconciler.core.borgmatic_options import OWNED, OptionChecker
from schema.errors import Problem
from schema.resources import Profile
from tests.reconciler.core import written

CHECKER = OptionChecker(written.BORGMATIC_SCHEMA)


def problems(block: str) -> list[Problem]:
    text = (
        f"apiVersion: borgmatic.director/v1\nkind: Profile\nmetadata: {{name: x}}\nspec:\n  borgmatic:\n    {block}\n"
    )
    profile = written.catalogue(written.file("a.yaml", text)).all(Profile)["x"]
    return [
        profile.problem(fault.pointer, fault.message, code=fault.code, hint=fault.hint)
        for fault in CHECKER.faults(profile.resource.spec.borgmatic)
    ]


@pytest.mark.parametrize(
    "block",
    [
        "{}",
        "source_directories: [/etc]",
        "{keep_daily: 7, exclude_caches: true, compression: 'auto,zstd', umask: 0o77}",
        "healthchecks: {send_logs: true}",
        "apprise: {start: {title: x}}",
        "zfs:",
        "statistics: true",
        "before_backup: [echo]",
        "checks: [{name: repository, frequency: 2 weeks}, {name: spot, count_tolerance_percentage: 1, data_sample_percentage: 1, data_tolerance_percentage: 0.5}]",
        "commands: [{before: action, when: [create], run: [x]}, {after: error, states: [fail], run: [y]}]",
        "{constants: {days: 7, level: high}, keep_daily: '{days}', exclude_caches: '{yes}'}",
        "mariadb_databases: [{name: all, password: '{secret db}', port: 3306}]",
    ],
)
def test_what_borgmatic_accepts_in_a_layer_is_accepted(block: str):
    assert problems(block) == []


@pytest.mark.parametrize(
    "block, code, message, hint",
    [
        ("‸keep_dayly: 7", "unknown-borgmatic-option", "borgmatic does not know the option 'keep_dayly': Additional properties are not allowed ('keep_dayly' was unexpected)", "did you mean 'keep_daily'?"),
        ("‸sourceDirectories: []", "unknown-borgmatic-option", "borgmatic does not know the option 'sourceDirectories': Additional properties are not allowed ('sourceDirectories' was unexpected)", "did you mean 'source_directories'?"),
        ("‸schedule: nightly", "unknown-borgmatic-option", "borgmatic does not know the option 'schedule': Additional properties are not allowed ('schedule' was unexpected)", "'schedule' is a field of the Backup: write it beside `borgmatic:`, not inside"),
        ("mariadb_databases: [{name: x, ‸passwort: y}]", "unknown-borgmatic-option", "borgmatic does not know the option 'mariadb_databases[0].passwort': Additional properties are not allowed ('passwort' was unexpected)", "did you mean 'password'?"),
        ("bootstrap: {‸xyz: y}", "unknown-borgmatic-option", "borgmatic does not know the option 'bootstrap.xyz': Additional properties are not allowed ('xyz' was unexpected)", "the options here are store_config_files"),
        ("‸keep_daily: x", "borgmatic-option", "borgmatic does not accept 'keep_daily': 'x' is not of type 'integer'", ""),
        ("‸keep_daily: '7'", "borgmatic-option", "borgmatic does not accept 'keep_daily': '7' is not of type 'integer'", "write the number without quotes"),
        ("‸exclude_caches: yes", "borgmatic-option", "borgmatic does not accept 'exclude_caches': 'yes' is not of type 'boolean'", "write true or false without quotes: in YAML 1.2 yes, no, on and off are text"),
        ("‸compression: 9", "borgmatic-option", "borgmatic does not accept 'compression': 9 is not of type 'string'", "put it in quotes"),
        ("‸source_directories: /etc", "borgmatic-option", "borgmatic does not accept 'source_directories': '/etc' is not of type 'array'", "write a list: [/etc]"),
        ("‸source_directories:", "borgmatic-option", "borgmatic does not accept 'source_directories': None is not of type 'array'", "give a value, or remove the option"),
        ("source_directories: [/etc, ‸{}]", "borgmatic-option", "borgmatic does not accept 'source_directories[1]': a mapping is not of type 'string'", ""),
        ("‸statistics: standart", "borgmatic-option", "borgmatic does not accept 'statistics': 'standart' is not one of ['standard', 'quick', 'none', True, False]", "did you mean 'standard'?"),
        ("mariadb_databases: [‸{password: x}]", "borgmatic-option", "borgmatic does not accept 'mariadb_databases[0]': 'name' is a required property", ""),
        ("mariadb_databases: [{name: x, ‸password: 12}]", "borgmatic-option", "borgmatic does not accept 'mariadb_databases[0].password': the value is not of type 'string'", "put it in quotes"),
        ("mariadb_databases: [{name: x, ‸port: '{secret db}'}]", "borgmatic-option", "borgmatic does not accept 'mariadb_databases[0].port': '{secret db}' is not of type 'integer'", ""),
        ("checks: [{‸name: repositry}]", "borgmatic-option", "borgmatic does not accept 'checks[0].name': 'repositry' is not one of ['archives', 'data', 'extract', 'disabled', 'repository', 'spot']", "did you mean 'repository'?"),
        ("checks: [{name: archives, ‸max_duration: 5}]", "unknown-borgmatic-option", "borgmatic does not know the option 'checks[0].max_duration': Additional properties are not allowed ('max_duration' was unexpected)", "the options here are name, frequency, only_run_on"),
        ("commands: [{‸before: acton, run: [x]}]", "borgmatic-option", "borgmatic does not accept 'commands[0].before': 'acton' is not one of ['action', 'repository', 'configuration', 'everything']", "did you mean 'action'?"),
        ("commands: [{before: action, ‸run: x}]", "borgmatic-option", "borgmatic does not accept 'commands[0].run': 'x' is not of type 'array'", "write a list: [x]"),
    ],
)  # fmt: skip
def test_what_borgmatic_refuses_is_said_in_its_words_at_the_caret(block: str, code: str, message: str, hint: str):
    (found,) = problems(block.replace("‸", ""))

    assert (found.code, found.message, found.hint) == (code, message, hint)
    assert (found.line, found.column) == (6, 5 + block.index("‸"))


@pytest.mark.parametrize(
    "block, hint",
    [
        ("hooks: {}", "write its options directly under `borgmatic:`; borgmatic's sections are history"),
        ("location: {source_directories: [/etc]}", "write its options directly under `borgmatic:`"),
        ("numeric_owner: true", "it is called numeric_ids now"),
        ("bsd_flags: true", "it is called flags now"),
        ("remote_rate_limit: 5", "it is called upload_rate_limit now"),
        ("store_config_files: true", "write `bootstrap: {store_config_files: …}`"),
        ("exclude_if_present: .nobackup", "write a list: [.nobackup]"),
        ("healthchecks: https://hc.example/x", "write `healthchecks: {ping_url: …}`"),
        ("cronitor: https://cronitor.example/x", "write `cronitor: {ping_url: …}`"),
        ("pagerduty: x", "write `pagerduty: {integration_key: …}`"),
        ("checks: [repository]", "write `- name: repository`"),
    ],
)
def test_what_borgmatic_only_rewrites_for_old_files_is_answered_with_the_modern_form(block: str, hint: str):
    (found,) = problems(block)

    assert hint in found.hint


@pytest.mark.parametrize("option", OWNED)
def test_what_the_director_writes_is_refused_with_what_to_write_instead(option: str):
    (found,) = problems(f"{option}: x")

    assert (found.code, found.message) == (
        "director-owned-option",
        f"the borgmatic option '{option}' is written by the director",
    )
    assert "Repository" in found.hint


@pytest.mark.parametrize(
    "block",
    [
        "ntfy: {topic: x, password: [hunter2]}",
        "ntfy: {topic: x, password: {a: hunter2}}",
        "ntfy: [{password: hunter2}]",
        "pushover: {token: [hunter2]}",
        "mariadb_databases: {password: hunter2}",
        "mariadb_databases: [[hunter2]]",
        "commands: [{before: x, password: hunter2}]",
    ],
)
def test_a_secret_is_never_repeated_in_a_message(block: str):
    found = problems(block)

    assert found != []
    assert "hunter2" not in "".join(f"{one} {one.hint}" for one in found)


def test_all_mistakes_of_a_block_come_at_once():
    block = "{keep_dayly: 1, keep_weekly: x, repositories: [], ntfy: {topi: x}, checks: [{nam: x}]}"

    assert sorted(one.code for one in problems(block)) == [
        "borgmatic-option",
        "borgmatic-option",
        "director-owned-option",
        "unknown-borgmatic-option",
        "unknown-borgmatic-option",
        "unknown-borgmatic-option",
    ]


def test_required_options_are_asked_of_the_merged_layers_only():
    assert problems("healthchecks: {send_logs: true}") == []
    assert list(CHECKER.lacking({"healthchecks": {"send_logs": True}})) == [
        (("healthchecks",), "borgmatic does not accept 'healthchecks': 'ping_url' is a required property")
    ]


def test_a_layer_with_everything_is_whole():
    assert CHECKER.is_whole({"healthchecks": {"ping_url": "x"}})
    assert not CHECKER.is_whole({"healthchecks": {}})


def own_example(option: dict[str, Any]) -> Any:
    """Return the example that borgmatic's schema gives for an option, put together from its parts where it has none."""
    if "example" in option:
        return option["example"]
    if "properties" in option:
        parts = {name: own_example(inner) for name, inner in option["properties"].items()}
        return {name: part for name, part in parts.items() if part is not None}
    if "items" in option and "oneOf" not in option["items"]:
        return [own_example(option["items"])]
    return None


@pytest.mark.parametrize("name", sorted(set(written.BORGMATIC_SCHEMA["properties"]) - set(OWNED)))
def test_every_example_in_borgmatics_own_documentation_is_accepted(name: str):
    example = own_example(written.BORGMATIC_SCHEMA["properties"][name])
    if example is None:
        return

    assert [str(one) for one in problems(yaml.safe_dump({name: example}, default_flow_style=True, width=10**6))] == []
