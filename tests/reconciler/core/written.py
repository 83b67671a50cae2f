"""What a person could have written, made short: one resource per file, and whole sources from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from reconciler.core import build, load
from reconciler.core.catalogue import Catalogue, SourceFile
from reconciler.core.expand import Expander
from reconciler.core.references import Names
from reconciler.core.validate import Validator
from schema.envelope import ClientIdentity, ClientKey, seal_for_client
from schema.errors import Problem
from schema.resources import KINDS, Backup

KEEP = {"keep_daily": 7}
BLOCK: dict[str, Any] = {"source_directories": ["/etc"], **KEEP}
BORGMATIC_SCHEMA = yaml.safe_load(files("borgmatic").joinpath("config", "schema.yaml").read_bytes())


@cache
def key_of(name: str) -> ClientKey:
    return ClientIdentity.generate().public


def file(path: str, text: str) -> SourceFile:
    return SourceFile(path, hashlib.sha256(text.encode()).hexdigest(), text.encode())


def resource(kind: str, name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> SourceFile:
    document = {
        "apiVersion": "borgmatic.director/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": labels or {}},
        "spec": spec,
    }
    return file(f"{KINDS[kind].folder}/{name}.yaml", yaml.safe_dump(document, sort_keys=False))


def client(name: str, *, labels: dict[str, str] | None = None, **spec: Any) -> SourceFile:
    return resource("Client", name, labels=labels, **{"publicKey": key_of(name).text, **spec})


def repository(name: str = "nas", **spec: Any) -> SourceFile:
    written = {"url": "/backup/${client}", "encryption": {"mode": "none"}, **spec}
    return resource("Repository", name, **written)


def backup(name: str, **spec: Any) -> SourceFile:
    return resource("Backup", name, **{"clients": ["web-1"], "repositories": ["nas"], "borgmatic": BLOCK, **spec})


def secret(name: str, *clients: str, values: Iterable[str] = ("password",)) -> SourceFile:
    sealed = {
        key: {
            "clients": {
                each: seal_for_client(b"x", secret=name, key=key, client=each, to=key_of(each)) for each in clients
            }
        }
        for key in values
    }
    return resource("Secret", name, clients=list(clients), values=sealed)


def small(*more: SourceFile) -> list[SourceFile]:
    """One client, one repository, one backup, and what is given; of two files at one path the later one stands."""
    return list({each.path: each for each in (client("web-1"), repository(), backup("files"), *more)}.values())


def catalogue(*sources: SourceFile) -> Catalogue:
    loaded = load.load(sources)
    assert loaded.problems == ()
    return loaded.catalogue


def built(sources: Iterable[SourceFile], *, cache: build.BuildCache | None = None) -> build.Build:
    return build.build(sources, borgmatic_schema=BORGMATIC_SCHEMA, cache=cache)


def content_of(built: build.Build, client: str, path: str) -> dict[str, Any]:
    """Return a managed file as data, read by another YAML reader than borgmatic's."""
    (text,) = (each.content for each in built.contents[client].files if each.path == path)
    options: dict[str, Any] = yaml.safe_load(text)
    return options


class Across:
    """What is wrong across the resources, and nothing else, from one source to the next: every backup is looked at."""

    def __init__(self, schema: Mapping[str, Any] = BORGMATIC_SCHEMA) -> None:
        self._parsed = load.ParseCache()
        self._expander = Expander()
        self._validator = Validator(schema)

    def problems(self, sources: Iterable[SourceFile]) -> tuple[Problem, ...]:
        loaded = self._parsed.load(sources)
        names = {*loaded.catalogue.all(Backup), *loaded.changed.names(Backup)}
        expansion = self._expander.update(loaded.catalogue, loaded.changed, backups=names).expansion
        known = Names(loaded.catalogue, self._expander.index)
        return self._validator.update(known, loaded.changed, backups=expansion.backups, dirty=names, by=self._expander)
