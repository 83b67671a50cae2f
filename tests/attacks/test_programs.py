"""Every option of the installed borgmatic that runs a program, at every level of local policy, wherever it may stand.

Which options these are is derived from borgmatic's own schema: what is called a command, a hook, a path to Borg, a flag
for a program, or a password manager that is run. ``tests/client/test_policy.py`` holds a decision on each option.
"""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from client import policy_options
from client.policy import CredentialKind, Policy
from tests.client.test_policy import (
    BASE,
    EXECUTES,
    PASSES_FLAGS,
    SECRETS,
    check,
    denial,
    installed_schema,
    option_names,
)

SCHEMA = installed_schema()
EVIL = "touch /tmp/pwned"
_RUNS = re.compile(
    r"(^|_)(command|commands|cmd|passcommand|hook|hooks|script|program|shell)$|_path$|^(before|after|on)_"
)
_FLAGS = re.compile(r"(^|_)options$")
_PASSWORD_MANAGERS = frozenset({"keepassxc", "onepassword", "systemd"})
"""Their tables choose the program that gives a secret."""
# Places that borgmatic or a database program opens; none of them is run.
_FILES = frozenset(name for name in policy_options.HARMLESS if name.endswith("_path"))


def programs() -> list[str]:
    """Return the whole names of the options that run a program, choose one, or pass flags to one."""
    found = set()
    for name in option_names(SCHEMA):
        parts = name.split(".")
        if any(_RUNS.search(part) or _FLAGS.search(part) for part in parts) or name in _PASSWORD_MANAGERS:
            found.add(name)
    return sorted(found - _FILES - {"influxdb_databases.configurations_path"})


PROGRAMS = programs()
TOP = sorted({name.split(".")[0] for name in PROGRAMS})
EVERYTHING_ELSE = {
    "read_paths": ("/",),
    "write_repositories": ("*",),
    "credentials": ("file", "systemd", "container", "keepassxc", "onepassword"),
    "credential_files": ("/etc/shadow",),
    "send_to": ("*",),
    "environment": ("HOME", "PATH", "SHELL"),
    "minimum_kept": 0,
}
OTHERS = tuple(sorted(name for name in option_names(SCHEMA) if "." not in name and name not in TOP))


def property_of(name: str) -> dict[str, Any]:
    """Return an option's part of the schema, by its whole name."""
    node: dict[str, Any] = SCHEMA
    for part in name.split("."):
        node = below(node)[part]
    return node


def below(node: dict[str, Any]) -> dict[str, Any]:
    found = dict(node.get("properties", {}))
    for nested in (node.get("items"), *node.get("oneOf", ()), *node.get("anyOf", ()), *node.get("allOf", ())):
        if nested:
            found |= below(nested)
    return found


def use(name: str) -> dict[str, Any]:
    """Return options that use the one called ``name``, shaped as borgmatic wants it: lists of mappings are lists."""
    parts = name.split(".")
    value: Any = [EVIL] if property_of(name).get("type") == "array" else EVIL
    for depth in range(len(parts), 0, -1):
        above = ".".join(parts[: depth - 1])
        value = {parts[depth - 1]: value}
        if above and is_list(property_of(above)):
            value = [value]
    return dict(value)


def is_list(node: dict[str, Any]) -> bool:
    return node.get("type") == "array" or any(is_list(one) for one in node.get("oneOf", ()))


def lines(options: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)}: {json.dumps(value)}\n" for key, value in options.items())


def in_repository(options: dict[str, Any]) -> str:
    own = "".join(f"    {line}\n" for line in lines(options).splitlines())
    return BASE.replace("    encryption: none\n", f"    encryption: none\n{own}")


def test_every_option_that_runs_a_program_is_among_those_that_are_tried():
    assert {"commands", "local_path", "remote_path", "ssh_command", "extra_borg_options"} <= set(PROGRAMS)
    assert {"postgresql_databases.pg_dump_command", "encryption_passcommand", "before_backup"} <= set(PROGRAMS)
    assert len(PROGRAMS) > 80
    assert set(PROGRAMS) <= set(EXECUTES) | set(PASSES_FLAGS)
    assert set(EXECUTES) <= set(PROGRAMS)


# --- At each level ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_that_runs_a_program_is_refused_where_nothing_was_said(name):
    assert denial(BASE + lines(use(name))).allow.startswith("policy.options = [")


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_that_runs_a_program_is_refused_where_all_but_options_is_allowed(name):
    assert denial(BASE + lines(use(name)), Policy.model_validate(EVERYTHING_ELSE)).allow.startswith("policy.options")


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_that_runs_a_program_is_refused_where_every_other_option_is_allowed(name):
    own = name.split(".")[0]
    others = tuple(one for one in (*TOP, *OTHERS) if one != own)

    assert own in denial(BASE + lines(use(name)), Policy(options=others)).message


@pytest.mark.parametrize("name", [name for name in PROGRAMS if "." in name])
def test_an_option_that_runs_a_program_is_refused_where_its_neighbours_are_allowed(name):
    own, _, last = name.rpartition(".")
    neighbours = tuple(f"{own}.{one}" for one in below(property_of(own)) if one != last)
    neighbours += () if own in policy_options.HARMLESS else (f"{own}.x",)

    denial(BASE + lines(use(name)), Policy(options=neighbours))


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_option_that_runs_a_program_is_refused_in_a_repository_too(name):
    denial(in_repository(use(name)))
    denial(in_repository(use(name)), Policy.model_validate(EVERYTHING_ELSE))


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_machine_that_allows_an_option_by_its_whole_name_gets_it(name):
    above = [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
    own = Policy(options=(name, *(one for one in above if one not in policy_options.HARMLESS)))

    check(BASE + lines(use(name)), own)
    check(in_repository(use(name)), own)


@pytest.mark.parametrize("name", TOP)
def test_the_machine_that_allows_an_option_by_its_first_name_gets_it(name):
    for one in PROGRAMS:
        if one.split(".")[0] == name:
            check(BASE + lines(use(one)), Policy(options=(name,)))


# --- In disguise ------------------------------------------------------------------------------------------------------


DISGUISES = [
    '"commands": [{before: action, run: [evil]}]',
    "'commands': [{before: action, run: [evil]}]",
    '"\\x63ommands": [{before: action, run: [evil]}]',
    '"\\u0063ommands": [{before: action, run: [evil]}]',
    "? commands\n: [{before: action, run: [evil]}]",
    "? |-\n  commands\n: [{before: action, run: [evil]}]",
    "!!str commands: [{before: action, run: [evil]}]",
    "&x commands: [{before: action, run: [evil]}]",
    "commands : [{before: action, run: [evil]}]",
    "commands:\n- run: [evil]\n  before: action",
    "Commands: [{before: action, run: [evil]}]",
    "comm\u0430nds: [{before: action, run: [evil]}]",
    "\uff43\uff4f\uff4d\uff4d\uff41\uff4e\uff44\uff53: [{before: action, run: [evil]}]",
    "commands\u200b: [{before: action, run: [evil]}]",
    "commands\u00a0: [{before: action, run: [evil]}]",
    "<<: {commands: [{before: action, run: [evil]}]}",
    "<<: !include /etc/evil.yaml",
    "include: /etc/evil.yaml",
    "!include /etc/evil.yaml",
    "hooks: {commands: [{before: action, run: [evil]}]}",
    "hooks: {before_backup: [evil]}",
    "location: {local_path: evil}",
    "storage: {encryption_passcommand: evil}",
    "constants: {x: commands}\n'{x}': [{before: action, run: [evil]}]",
    "'${X-commands}': [{before: action, run: [evil]}]",
    "options.commands: [evil]",
    "commands.run: [evil]",
    "healthchecks: {ping_url: 'https://x', commands: [evil]}",
    "zfs: {zfs_command: evil}",
    "bootstrap: {store_config_files: true, commands: [evil]}",
    "container: {secrets_directory: /root}",
    "keepassxc: {keepassxc_cli_command: evil}",
    "systemd: {systemd_creds_command: evil}",
    "postgresql_databases: [{name: x}, {name: y, pg_dump_command: evil}]",
    "postgresql_databases: [[{name: y, pg_dump_command: evil}]]",
    "postgresql_databases: {pg_dump_command: evil}",
    "checks: [{name: spot, xxh64sum_command: evil}]",
    "mariadb_databases: [{name: all, options: --plugin-dir=/srv}]",
    "extra_borg_options: {create: --rsh=evil}",
    "borg_exit_codes: [{code: 1, treat_as: warning, run: evil}]",
]


@pytest.mark.parametrize("text", DISGUISES)
def test_an_option_that_runs_a_program_is_refused_in_any_disguise(text):
    denial(BASE + text + "\n")
    denial(BASE + text + "\n", Policy.model_validate(EVERYTHING_ELSE))


@pytest.mark.parametrize("text", DISGUISES[:1] + DISGUISES[8:10])
def test_the_option_itself_in_any_of_its_plain_forms_is_allowed_by_its_name(text):
    check(BASE + text + "\n", Policy(options=("commands",)))


# --- Values that would run something ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["keepassxc", "onepassword"])
@pytest.mark.parametrize("option", ["encryption_passphrase: {}", "mariadb_databases: [{{name: x, password: {}}}]"])
def test_a_credential_that_runs_a_password_manager_is_refused(kind, option):
    text = BASE + option.format(f'"{{credential {kind} /root/db.kdbx entry}}"') + "\n"

    assert denial(text).allow.endswith(f'"{kind}"]')
    denial(text, Policy(options=(kind,)))
    denial(text, Policy.model_validate({**EVERYTHING_ELSE, "credentials": ("file",)}))


@pytest.mark.parametrize("kind", ["keepassxc", "onepassword"])
@pytest.mark.parametrize("option", ["encryption_passphrase: {}", "mariadb_databases: [{{name: x, password: {}}}]"])
def test_a_credential_that_runs_a_password_manager_passes_where_the_machine_names_it(kind: CredentialKind, option):
    text = BASE + option.format(f'"{{credential {kind} /root/db.kdbx entry}}"') + "\n"

    check(text, Policy(credentials=("file", kind)))


@pytest.mark.parametrize(
    "text",
    [
        "ssh_command: ssh -o ProxyCommand=evil",
        "ssh_command: '{x}'\nconstants: {x: evil}",
        "umask: 0",
        "working_directory: --rsh=evil",
        "compression: --rsh=evil",
        "postgresql_databases: [{name: '--file=/etc/cron.d/x'}]",
        "postgresql_databases: [{name: 'x', hostname: '-x'}]",
        "postgresql_databases: [{name: x, ssl_key: 'engine:evil'}]",
        "mariadb_databases: [{name: '../../etc/cron.d/x'}]",
        'mariadb_databases: [{name: x, username: "a\\nplugin-dir=/srv"}]',
        'patterns: ["R /srv\\nP sh"]',
        "archive_name_format: '-x'",
        "retries: -x",
    ],
)
def test_a_harmless_option_cannot_be_given_a_value_that_would_run_something(text):
    denial(BASE + text + "\n")


@pytest.mark.parametrize(
    "text",
    [
        "umask: 0077",
        "working_directory: /srv",
        "compression: auto,zstd,5",
        "postgresql_databases: [{name: x, hostname: localhost, port: 5432}]",
        f"postgresql_databases: [{{name: x, ssl_key: {SECRETS}/pg.key}}]",
        "mariadb_databases: [{name: wordpress, username: backup}]",
        'patterns: ["R /srv", "- /srv/cache"]',
        "retries: 3",
    ],
)
def test_a_harmless_option_with_an_ordinary_value_passes(text):
    check(BASE + text + "\n")
