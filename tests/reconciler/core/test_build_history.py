"""A build that goes on from the one before says the same as one from nothing, after any history of a source."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.core import build, changes, dangers, issue, plan, weigh
from reconciler.core.build import Build
from reconciler.core.catalogue import SourceFile
from tests.reconciler.core.written import built, file, key_of

# Small pools, so that names meet: duplicates, dangling references, shared keys, urls, labels and secrets.
CLIENTS = ["c-1", "c-2", "c-3"]
REPOSITORIES = ["nas", "offsite"]
PROFILES = ["low", "high"]
SECRETS = ["borg", "db"]
BACKUPS = ["b-1", "b-2", "b-3"]

BLOCKS: list[dict[str, Any]] = [
    {"source_directories": ["/etc"], "keep_daily": 7},
    {"source_directories": ["/etc", "/srv"], "keep_daily": 3},
    {"keep_daily": 1},
    {"keep_dayly": 1},
    {"source_directories": ["/etc"], "keep_daily": 7, "archive_name_format": "{now}"},
    {"source_directories": ["/etc"], "keep_daily": 7, "ntfy": {"topic": "x", "password": "{secret db}"}},
    {"ntfy": {"topic": "y", "password": "{secret borg password}"}},
    {"healthchecks": {"states": ["finish"]}},
    {"mariadb_databases": [{"name": "all", "password": "readable"}], "keep_weekly": 2},
]


def some(names: list[str], least: int = 0) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), min_size=least, max_size=2)


LABELS = st.fixed_dictionaries({}, optional={"role": st.sampled_from(["web", "db"]), "site": st.just("oslo")})
SELECTIONS = st.one_of(
    some(CLIENTS, 1),
    st.fixed_dictionaries({"role": st.sampled_from(["web", "db"])}, optional={"site": st.just("oslo")}).map(
        lambda labels: {"matchLabels": labels}
    ),
)
SEALED = st.lists(st.sampled_from(CLIENTS), max_size=3).map(
    lambda names: {"clients": dict.fromkeys(names, "bd1-sealed.AAAA")}
)
PASSPHRASES = st.sampled_from(
    [
        {"mode": "none"},
        {"mode": "repokey", "passphraseFrom": {"secret": "borg"}},
        {"mode": "repokey", "passphraseFrom": {"secret": "borg", "key": "password"}},
    ]
)
SPECS: dict[str, tuple[list[str], st.SearchStrategy[dict[str, Any]]]] = {
    "Client": (
        CLIENTS,
        st.fixed_dictionaries(
            {},
            optional={
                "publicKey": st.sampled_from([key_of("one").text, key_of("two").text, "bd1-client." + "A" * 86]),
                "suspend": st.booleans(),
                "timeZone": st.sampled_from(["UTC", "Europe/Oslo"]),
            },
        ),
    ),
    "Repository": (
        REPOSITORIES,
        st.fixed_dictionaries(
            {"url": st.sampled_from(["/b/${client}", "/b/all", "/b/${cleint}"]), "encryption": PASSPHRASES}
        ),
    ),
    "Schedule": (["nightly"], st.fixed_dictionaries({"cron": st.sampled_from(["@daily", "1 2 * * *"])})),
    "Profile": (PROFILES, st.fixed_dictionaries({"borgmatic": st.sampled_from(BLOCKS)})),
    "Secret": (
        SECRETS,
        st.fixed_dictionaries(
            {"values": st.dictionaries(st.sampled_from(["password", "other"]), SEALED, max_size=2)},
            optional={"clients": SELECTIONS},
        ),
    ),
    "Backup": (
        BACKUPS,
        st.fixed_dictionaries(
            {"clients": SELECTIONS, "repositories": some(REPOSITORIES, 1), "borgmatic": st.sampled_from(BLOCKS)},
            optional={
                "profiles": some(PROFILES),
                "schedule": st.just("nightly"),
                "actions": st.sampled_from([["create"], ["create", "prune"]]),
                "objectives": st.sampled_from([{"rpo": "1d"}, {"rpo": "2d"}]),
            },
        ),
    ),
}


@st.composite
def documents(draw: st.DrawFn) -> str:
    import json

    kind = draw(st.sampled_from([*SPECS, "Backup", "Backup", "Client"]))
    names, specs = SPECS[kind]
    metadata = {"name": draw(st.sampled_from(names)), "labels": draw(LABELS)}
    return json.dumps(
        {"apiVersion": "borgmatic.director/v1", "kind": kind, "metadata": metadata, "spec": draw(specs)}, indent=1
    )


TEXTS = st.one_of(
    st.lists(documents(), min_size=1, max_size=3).map("\n---\n".join),
    documents(),
    documents(),
    st.sampled_from(["kind: [", "", "apiVersion: borgmatic.director/v1\nkind: Bakcup\n"]),
)
PATHS = st.sampled_from([f"{letter}.yaml" for letter in "abcdefgh"])
EDITS = st.one_of(
    st.tuples(st.just("write"), PATHS, TEXTS),
    st.tuples(st.just("write"), PATHS, TEXTS),
    st.tuples(st.just("remove"), PATHS, st.none()),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("copy"), PATHS, PATHS),
    st.tuples(st.just("comment"), PATHS, st.none()),
)
SOUND = {
    "x.yaml": """
{apiVersion: borgmatic.director/v1, kind: Repository, metadata: {name: nas},
 spec: {url: "/srv/${client}", encryption: {mode: none}}}
---
{apiVersion: borgmatic.director/v1, kind: Client, metadata: {name: c-1, labels: {role: web}}}
---
{apiVersion: borgmatic.director/v1, kind: Client, metadata: {name: c-2, labels: {role: web}}}
""",
    "y.yaml": """
{apiVersion: borgmatic.director/v1, kind: Backup, metadata: {name: b-9}, spec: {clients: {matchLabels: {role: web}},
 repositories: [nas], borgmatic: {source_directories: [/etc], keep_daily: 7}}}
""",
}


def edited(texts: dict[str, str], edit: tuple[str, str, Any]) -> dict[str, str]:
    what, path, value = edit
    after = dict(texts)
    if what == "write":
        after[path] = value
    elif what == "remove":
        after.pop(path, None)
    elif path in after and what == "comment":
        after[path] = f"# a comment\n{after[path]}"
    elif path in after:
        after[value] = after[path] if what == "copy" else after.pop(path)
    return after


def sources(texts: dict[str, str]) -> list[SourceFile]:
    return [file(path, text) for path, text in texts.items()]


def shown(one: Build) -> dict[str, Any]:
    """Everything that anybody can see of a build."""
    return {
        "contents": dict(one.contents),
        "digests": dict(one.digests),
        "problems": one.problems,
        "counts": one.counts,
        "keys": dict(one.keys),
        "resources": {
            (kind, name): (located.path, located.position(), located.digest)
            for kind, named in one.catalogue.kinds.items()
            for name, located in named.items()
        },
        "merged": {name: each.options for name, each in one.expansion.backups.items()},
        "runs": {name: [each.name for each in found] for name, found in one.expansion.clients.items()},
    }


class Table:
    """The store's rows, as a publication leaves them."""

    def __init__(self) -> None:
        self.rows: dict[Any, Any] = {}

    def take(self, rows: issue.Rows) -> None:
        for key in (*rows.removed_clients, *rows.removed_backups, *((name,) for name in rows.removed_definitions)):
            del self.rows[key]
        self.rows |= {row.name: asdict(row) for row in rows.clients}
        self.rows |= {(row.client, row.backup): asdict(row) for row in rows.backups}
        self.rows |= {(row.backup,): asdict(row) for row in rows.definitions}


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(EDITS, min_size=1, max_size=3), min_size=2, max_size=7))
def test_a_build_from_the_one_before_equals_one_from_nothing(history: list[list[tuple[str, str, Any]]]):
    cache, texts = build.BuildCache(), dict(SOUND)
    before, cold_before, table = None, None, Table()
    for number, edits in enumerate(([], *history, [("reset", "", None)])):
        for edit in edits:
            texts = dict(SOUND) if edit[0] == "reset" else edited(texts, edit)
        after, cold = built(sources(texts), cache=cache), built(sources(texts))
        assert shown(after) == shown(cold), number
        if not after.ok:
            continue  # as the loop does: what is broken is compared with nothing, and the published one stays
        assert changes.between(before, after) == changes.between(cold_before, cold)
        assert weigh.weigh(before, after, revision="r") == weigh.weigh(cold_before, cold, revision="r")
        if before is not None and cold_before is not None:
            assert list(dangers.find(before, after)) == list(dangers.find(cold_before, cold))
            assert plan.plan(before, after) == plan.plan(cold_before, cold)
        table.take(issue.rows(before, after))
        whole = Table()
        whole.take(issue.rows(None, cold))
        assert table.rows == whole.rows
        before, cold_before = after, cold
