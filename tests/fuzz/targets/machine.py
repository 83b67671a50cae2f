"""What bounds a machine: its settings, and the policy over the files that a director signs; the director's settings."""

from __future__ import annotations

import atexit
import tempfile
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from client import policy
from client.policy import Policy
from client.policy_options import HARMLESS
from client.settings import parse_settings
from reconciler.settings import load_settings
from schema.desired import Content, DesiredRepository, Job, ManagedFile
from schema.directories import Directories
from schema.errors import PolicyDenied, TerminalError
from tests.fuzz.target import Target, refusing

_POLICY = Policy(options=("commands", "lvm.mount_command"), send_to=("hc.example",), environment=("HOME",))
_OWN = {"repositories", "ssh_command", "match_archives", "prefix", *_POLICY.options}


def job() -> Job:
    """Return a job with two repositories."""
    return Job(
        backup="web",
        file="web.yaml",
        schedule=None,
        actions=("create", "prune"),
        repositories=(
            DesiredRepository(name="nas", url="/mnt/nas", encryption="none"),
            DesiredRepository(name="disk", url="ssh://borg@disk/./x", encryption="none"),
        ),
    )


def _policy(data: bytes) -> None:
    """A borgmatic file as a hostile director may have signed it."""
    text = data.decode("utf-8", "replace")
    file = ManagedFile(place="config", path="web.yaml", origin="a.yaml", content=text)
    content = Content(client="web-1", directories=Directories(), files=(file,), jobs=(job(),))
    with refusing(PolicyDenied):
        policy.check(content, _POLICY, Directories())
    theirs = YAML(typ="safe").load(StringIO(file.rendered("0" * 40).decode()))
    assert isinstance(theirs, dict)
    for name, value in theirs.items():
        assert name in HARMLESS or name in _OWN, f"{name} got through"
        assert name == "repositories" or _is_harmless(str(name), value)
    assert [entry["path"] for entry in theirs["repositories"]] == [one.url for one in job().repositories]


def _is_harmless(name: str, value: Any) -> bool:
    """Whether borgmatic finds nothing below an option that the table does not have."""
    if name in _OWN or any(name.startswith(f"{one}.") for one in _OWN) or name == "constants":
        return True
    if isinstance(value, dict):
        below = ((f"{name}.*" if f"{name}.*" in HARMLESS else f"{name}.{key}", one) for key, one in value.items())
        return all((key in HARMLESS or key in _OWN) and _is_harmless(key, one) for key, one in below)
    if isinstance(value, list):
        return all(_is_harmless(name, one) for one in value)
    return True


def _client_settings(data: bytes) -> None:
    with refusing(TerminalError):
        settings = parse_settings(data, origin="client.toml")
    settings.model_dump_json()
    assert settings.config_directory.startswith("/")
    assert settings.directories.state == settings.state_directory


@cache
def _scratch() -> Path:
    made = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(made.cleanup)
    return Path(made.name)


def _director_settings(data: bytes) -> None:
    file = _scratch() / "director.toml"
    file.write_bytes(data)
    with refusing(TerminalError):
        settings = load_settings(file)
    assert settings.state_directory.is_absolute()


_BASE = b"""\
repositories:
  - path: /mnt/nas
    label: nas
  - path: ssh://borg@disk/./x
    label: disk
source_directories: [/etc, /srv]
keep_daily: 7
"""
_MORE = b"""\
constants: {user: x}
encryption_passphrase: "{credential file /var/lib/borgmatic-director-client/secrets/nas.passphrase}"
patterns: ["R /etc", "- /etc/x"]
archive_name_format: web-1.web.{now}
match_archives: "sh:web-1.web.*"
mariadb_databases: [{name: shop, hostname: localhost, password: "{credential systemd x}"}]
healthchecks: {ping_url: "https://hc.example/x", states: [error]}
ssh_command: ssh -o BatchMode=yes -o ServerAliveInterval=30 -o ServerAliveCountMax=5
commands: [{before: action, run: [echo hi]}]
"""
_CLIENT = b"""\
name = "web-1"
config_directory = "/etc/borgmatic.d"
state_directory = "/var/lib/x"
url = "wss://director.example:8440"
stop = "wait"
stop_timeout = "60s"
log_level = "info"
[policy]
options = ["commands", "lvm.mount_command"]
read_paths = ["/"]
write_repositories = ["*"]
credentials = ["file"]
credential_files = ["/etc/x"]
send_to = ["*"]
environment = ["HOME"]
contents = "none"
minimum_kept = 3
"""
_DIRECTOR = b"""\
state_directory = "/var/lib/director"
validity = "90d"
resync = "5m"
[source]
url = "ssh://git@forge.example/x.git"
branch = "main"
path = "backups"
interval = "1m"
mass_change = 0.2
[listen]
address = "127.0.0.1:8440"
tls = "off"
trusted_proxies = ["10.0.0.0/8", "unix"]
[web]
address = "127.0.0.1:8441"
login = "always"
hosts = ["d.example"]
users = {ana = "scrypt:15:8:1:AAAAAAAAAAAAAAAAAAAAAA==:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}
[metrics]
limit = 10
[store]
keep = "400d"
"""

TARGETS = (
    Target(
        name="policy",
        promise="a signed file is denied with PolicyDenied, or borgmatic's own parser finds no option in it that the "
        "table of harmless ones or client.toml does not name, and the repositories of the job",
        check=_policy,
        seeds=lambda: [_BASE, *(_BASE + line for line in _MORE.splitlines()), _BASE + _MORE],
        words=(
            *sorted(HARMLESS)[:120],
            "{credential file ",
            "${HOME}",
            "before",
            "!include x",
            "&a",
            "*a",
            "<<: ",
            "? ",
        ),
    ),
    Target(
        name="client-settings",
        promise="client.toml is refused with a TerminalError that can be shown, or gives settings",
        check=_client_settings,
        seeds=lambda: [_CLIENT, b"", b'policy = {options = ["a.b"]}\n'],
        words=("[policy]", '"""', "'''", "[[", "]]", "= {", "\\u0000", "inf", "1979-05-27T07:32:00Z", "unix:///x"),
    ),
    Target(
        name="director-settings",
        promise="director.toml is refused with a TerminalError that can be shown, or gives settings",
        check=_director_settings,
        seeds=lambda: [_DIRECTOR, b""],
        words=("[web]", "[listen]", "[store]", "[metrics]", '"""', "[[", "= {", "nan", "scrypt:15:8:1:", "7d", "::1"),
    ),
)
