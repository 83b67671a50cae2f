"""Resources: every kind as the loader takes it, and whole revisions built, planned, signed and followed."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml
from ruamel.yaml import YAML

from client import policy
from client.policy import Policy
from client.policy_file import read_options
from reconciler import borgmatic_schema
from reconciler.core import build, excerpts, load, plan
from reconciler.core.build import Build, BuildCache
from reconciler.core.catalogue import SourceFile
from schema.desired import Content, ManagedFile
from schema.envelope import ClientIdentity, seal_for_client
from schema.errors import PolicyDenied, Severity
from schema.resources import KINDS
from tests.fuzz.target import Target

ROOT = Path(__file__).parents[3]
_SEPARATOR = b"\n---\n"
_NEXT = b'"next revision"'


@cache
def _published() -> dict[str, jsonschema_rs.Draft202012Validator]:
    folder = ROOT / "schema" / "json" / "v1"
    return {
        kind: jsonschema_rs.Draft202012Validator(json.loads((folder / f"{kind}.json").read_text(encoding="utf-8")))
        for kind in KINDS
    }


_OPTIONS = (
    *("source_directories", "repositories", "working_directory", "patterns", "exclude_patterns", "constants"),
    *("keep_within", "keep_hourly", "keep_daily", "keep_yearly", "encryption_passphrase", "encryption_passcommand"),
    *("archive_name_format", "match_archives", "ssh_command", "local_path", "remote_path", "extra_borg_options"),
    *("checks", "check_last", "compression", "exclude_caches", "commands", "color", "log_file", "umask", "label"),
    *("mariadb_databases", "healthchecks", "ntfy", "lvm"),
)


@cache
def _borgmatic() -> Any:
    """borgmatic's schema with some options of each kind: all of them take longer to compile than a build takes."""
    whole = borgmatic_schema.load()
    return {
        **whole,
        "properties": {name: whole["properties"][name] for name in _OPTIONS if name in whole["properties"]},
    }


def _file(path: str, data: bytes) -> SourceFile:
    return SourceFile(path, hashlib.sha256(data).hexdigest(), data)


def _load(data: bytes) -> None:
    """Documents of one file."""
    loaded = load.load([_file("a.yaml", data)])
    lines = len(data.decode("utf-8", "replace").splitlines()) + 1
    assert len(loaded.problems) <= load.MAX_PROBLEMS + 1
    for problem in loaded.problems:
        assert problem.path == "a.yaml" or problem.code == "too-many-problems"
        assert problem.message
        assert 0 <= problem.line <= lines + 1
        problem.model_dump_json()
    for kind, resources in loaded.catalogue.kinds.items():
        for name, located in resources.items():
            resource = located.resource
            assert (resource.kind, resource.name) == (kind, name)
            written = resource.model_dump(mode="json", by_alias=True, exclude_unset=True)
            again = KINDS[kind].model_validate(written, strict=True, by_alias=True, by_name=False)
            assert again == resource
            assert _published()[kind].is_valid(written), "an editor marks what the loader takes"


def _build(data: bytes) -> None:
    """Two revisions: documents, the mark, and documents that replace those of their kind and name, or are new."""
    before, _, after = data.partition(_SEPARATOR + _NEXT + _SEPARATOR)
    first = dict(map(_named, enumerate(before.split(_SEPARATOR))))
    second = first | dict(map(_named, enumerate(after.split(_SEPARATOR), start=100))) if after else first
    cache = BuildCache()
    former = _same(first, cache)
    latter = _same(second, cache)
    _consequences(former)
    if former.ok and latter.ok:
        planned = plan.plan(former, latter)
        planned.model_dump_json()
        assert plan.plan(latter, latter).is_empty


def _named(numbered: tuple[int, bytes]) -> tuple[str, bytes]:
    number, data = numbered
    try:
        value = json.loads(data)
        return f"{str(value['kind'])[:20]}-{str(value['metadata']['name'])[:20]}.yaml".replace("/", "_"), data
    except (ValueError, TypeError, KeyError, RecursionError):
        return f"{number}.yaml", data


def _same(files: dict[str, bytes], cache: BuildCache) -> Build:
    """What is built with the memory of the last revision is what is built without."""
    source = [_file(path, data) for path, data in files.items()]
    cold = build.build(source, borgmatic_schema=_borgmatic())
    warm = build.build(source, borgmatic_schema=_borgmatic(), cache=cache)
    assert warm.problems == cold.problems
    assert warm.contents == cold.contents
    assert warm.digests == cold.digests
    assert warm.counts == cold.counts
    for problem in cold.problems:
        assert problem.message
        assert problem.severity in {*Severity}
    excerpts.add_excerpts(cold.problems, files)
    return warm


def _consequences(built: Build) -> None:
    """What was built can be sent, is what its digest says, and borgmatic reads what was meant."""
    for name, content in built.contents.items():
        assert content.digest() == built.digests[name]
        assert Content.model_validate_json(content.model_dump_json()) == content
        for file in content.files:
            if file.place == "config":
                _readable(file)
        try:
            policy.check(content, Policy(), content.directories)
        except PolicyDenied as error:
            str(error).encode()


def _readable(file: ManagedFile) -> None:
    theirs = YAML(typ="safe").load(StringIO(file.rendered("0" * 40).decode()))
    assert isinstance(theirs, dict)
    assert list(read_options(file)) == list(theirs)


# --- Seeds ------------------------------------------------------------------------------------------------------------


@cache
def _key() -> ClientIdentity:
    return ClientIdentity(b"\1" * 32, b"\2" * 32)


def _written(kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "borgmatic.director/v1",
        "kind": kind,
        "metadata": {"name": name, **metadata},
        "spec": spec,
    }


def _small() -> list[dict[str, Any]]:
    sealed = seal_for_client(b"x", secret="nas", key="passphrase", client="web-1", to=_key().public)
    return [
        _written("Client", "web-1", {"publicKey": _key().public.text, "timeZone": "UTC"}, labels={"role": "web"}),
        _written("Client", "web-2", {"suspend": True, "drift": "report", "directories": {"config": "/etc/b.d"}}),
        _written(
            "Repository",
            "nas",
            {
                "url": "ssh://borg@nas.example:22/./${client}",
                "borg": "1",
                "encryption": {"mode": "repokey-blake2", "passphraseFrom": {"secret": "nas", "key": "passphrase"}},
                "knownHosts": [
                    "nas.example ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"
                ],
                "create": True,
                "quota": "5G",
            },
        ),
        _written(
            "Repository",
            "disk",
            {"url": "/mnt/${client}/${backup}", "encryption": {"mode": "none"}, "mountpoint": "/mnt"},
        ),
        _written("Schedule", "nightly", {"cron": "30 2 * * *", "jitter": "10m", "catchUp": False, "timeZone": "UTC"}),
        _written("Profile", "keep", {"borgmatic": {"keep_daily": 7, "exclude_patterns": ["*.tmp"]}}),
        _written(
            "Backup",
            "files",
            {
                "clients": {"matchLabels": {"role": "web"}},
                "repositories": ["nas", "disk"],
                "schedule": "nightly",
                "profiles": ["keep"],
                "borgmatic": {
                    "source_directories": ["/etc", "/srv"],
                    "mariadb_databases": [{"name": "all", "password": "{secret nas passphrase}"}],
                    "commands": [{"before": "action", "run": ["echo hi"]}],
                },
                "layering": {"exclude_patterns": "replace"},
                "actions": ["create", "prune", "check"],
                "objectives": {"rpo": "26h"},
                "drift": "heal",
                "timeout": "4h",
            },
        ),
        _written("Secret", "nas", {"clients": ["web-1"], "values": {"passphrase": {"clients": {"web-1": sealed}}}}),
    ]


def _seeds() -> list[bytes]:
    texts = [_SEPARATOR.join(json.dumps(one).encode() for one in _small())]
    texts += [json.dumps(one).encode() for one in _small()]
    for path in sorted((ROOT / "examples" / "homelab").rglob("*.yaml")):
        documents = [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one is not None]
        texts.append(_SEPARATOR.join(json.dumps(one).encode() for one in documents)[:12_000])
    return [text for text in texts if text]


def _revisions() -> list[bytes]:
    small = [json.dumps(one).encode() for one in _small()]
    other = json.dumps(
        _written(
            "Backup",
            "files",
            {
                "clients": ["web-1"],
                "repositories": ["disk"],
                "borgmatic": {"source_directories": ["/etc"], "keep_daily": 1},
            },
        )
    ).encode()
    plain = [small[0], small[3], other]
    return [
        _SEPARATOR.join([*small, _NEXT, other]),
        _SEPARATOR.join([*small, _NEXT, small[4]]),
        _SEPARATOR.join(plain),
        _SEPARATOR.join([*plain, _NEXT, small[4], small[5], small[7]]),
    ]


_WORDS = (
    *KINDS,
    *("${client}", "${backup}", "{secret nas}", "{secret nas passphrase}", "{credential file /x}", "matchLabels"),
    *("web-1", "nas", "disk", "files", "nightly", "keep", "borgmatic.director/v1", "source_directories", "keep_daily"),
    *("repositories", "encryption_passphrase", "constants", "archive_name_format", "match_archives", "commands"),
    *("ssh://a@b/c", "/mnt/${client}", "26h", "0s", "*/5 * * * *", "Europe/Berlin", "merge", "replace", "prune"),
    *(
        "postgresql_databases",
        "healthchecks",
        "working_directory",
        "patterns",
        "R /etc",
        "checks",
        "extra_borg_options",
    ),
)

TARGETS = (
    Target(
        name="resources",
        promise="loading any bytes raises nothing; what is a resource is written and read back equal, and the "
        "published JSON Schema takes it too",
        check=_load,
        seeds=_seeds,
        most=12_288,
        words=_WORDS,
    ),
    Target(
        name="build",
        promise="building any two revisions raises nothing; built with the memory of the last one it comes out the "
        "same; what was built has its digest, travels unchanged, and is read by borgmatic and by the client's policy; "
        "planning from one to the other raises nothing, and from one to itself finds nothing",
        check=_build,
        seeds=_revisions,
        most=12_288,
        words=_WORDS,
        seconds=10,
    ),
)
