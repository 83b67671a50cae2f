"""Which client runs which backups, and how layers merge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import expand
from reconciler.core.catalogue import SourceFile
from tests.reconciler.core import written
from tests.reconciler.core.written import backup, catalogue, client, file, repository, resource, secret, small

# Options as borgmatic's schema has them: a name always has the same shape.
LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "keep_daily": st.integers(),
        "compression": st.sampled_from(["none", "lz4", "zstd"]),
        "source_directories": st.lists(st.sampled_from(["/a", "/b", "/c", "/d"])),
        "healthchecks": st.dictionaries(st.sampled_from(["ping_url", "states"]), st.integers()),
        "checks": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["data", "archives"])})),
    },
)


def merge(below: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    return expand.merge_layer(below, layer, layering={})


def options(*sources: SourceFile) -> dict[str, Any]:
    return dict(expand.expand(catalogue(*small(*sources))).backups["files"].options)


def selected(*sources: SourceFile) -> dict[str, list[str]]:
    expansion = expand.expand(catalogue(*sources))
    return {name: [effective.name for effective in found] for name, found in expansion.clients.items()}


# --- Selection ---


def test_a_selector_selects_the_clients_that_carry_every_label():
    clients = [
        client("db-1", labels={"role": "db", "site": "fra"}),
        client("db-2", labels={"role": "db", "site": "nyc"}),
        client("web-1", labels={"role": "web", "site": "fra"}),
    ]
    backups = [
        backup("all-db", clients={"matchLabels": {"role": "db"}}),
        backup("fra-db", clients={"matchLabels": {"role": "db", "site": "fra"}}),
        backup("none", clients={"matchLabels": {"role": "db", "site": "moon"}}),
    ]

    assert selected(*clients, repository(), *backups) == {"db-1": ["all-db", "fra-db"], "db-2": ["all-db"], "web-1": []}


def test_a_client_named_twice_runs_the_backup_once():
    assert selected(*small(backup("files", clients=["web-1", "web-1"]))) == {"web-1": ["files"]}


def test_a_client_that_does_not_exist_is_passed_over_for_validate_reports_it():
    assert selected(*small(backup("files", clients=["web-1", "web-9"]))) == {"web-1": ["files"]}


# --- Merging ---


def test_layers_merge_in_order_mappings_deep_lists_appending_the_rest_replacing():
    low = resource(
        "Profile",
        "low",
        borgmatic={"keep_daily": 7, "exclude_patterns": ["a", "b"], "ntfy": {"topic": "x", "server": "s"}},
    )
    high = resource(
        "Profile", "high", borgmatic={"keep_daily": 9, "exclude_patterns": ["b", "c"], "ntfy": {"topic": "y"}}
    )
    own = {"keep_weekly": 4, "source_directories": ["/etc"], "exclude_patterns": ["d"]}

    merged = options(low, high, backup("files", profiles=["low", "high"], borgmatic=own))

    assert merged == {
        "keep_daily": 9,
        "exclude_patterns": ["a", "b", "c", "d"],
        "ntfy": {"topic": "y", "server": "s"},
        "keep_weekly": 4,
        "source_directories": ["/etc"],
    }


def test_the_first_layer_that_names_an_option_fixes_its_place():
    low = resource("Profile", "low", borgmatic={"keep_weekly": 1, "compression": "lz4", "keep_daily": 7})
    merged = options(
        low, backup("files", profiles=["low"], borgmatic={"source_directories": ["/etc"], "keep_daily": 3})
    )

    assert list(merged) == ["keep_weekly", "compression", "keep_daily", "source_directories"]


def test_an_option_that_a_layer_replaces_keeps_nothing_of_the_layers_below():
    low = resource("Profile", "low", borgmatic={"source_directories": ["/a"], "ntfy": {"topic": "x", "server": "s"}})
    own = {"source_directories": ["/b"], "ntfy": {"topic": "y"}}
    layering = {"source_directories": "replace", "ntfy": "replace"}

    assert options(low, backup("files", profiles=["low"], borgmatic=own, layering=layering)) == own


def test_lists_tell_one_from_true_and_from_text():
    assert merge({"a": [1, True]}, {"a": [True, 1, "1", 1.0]}) == {"a": [1, True, "1", 1.0]}
    assert [type(item) for item in merge({"a": [1]}, {"a": [True]})["a"]] == [int, bool]


@given(LAYERS, LAYERS, LAYERS)
def test_how_layers_are_grouped_does_not_matter(first: dict[str, Any], second: dict[str, Any], third: dict[str, Any]):
    assert merge(merge(first, second), third) == merge(first, merge(second, third))


@given(LAYERS, LAYERS)
def test_a_layer_put_on_twice_changes_nothing_more_and_no_layer_is_changed_itself(
    below: dict[str, Any], layer: dict[str, Any]
):
    kept = repr((below, layer))
    once = merge(below, layer)

    assert merge(once, layer) == once
    assert merge(below, {}) == below
    assert repr((below, layer)) == kept


# --- Origins ---

PROFILE = """\
apiVersion: borgmatic.director/v1
kind: Profile
metadata: {name: low}
spec:
  borgmatic:
    keep_daily: 7
    exclude_patterns:
      - a
      - b
    ntfy: {topic: x}
"""

BACKUP = """\
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  profiles: [low]
  borgmatic:
    source_directories: [/etc]
    keep_daily: 3
    exclude_patterns:
      - c
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (("keep_daily",), "backups/files.yaml:10:5"),
        (("exclude_patterns",), "backups/files.yaml:11:5"),
        (("exclude_patterns", 0), "profiles/low.yaml:8:9"),
        (("exclude_patterns", 2), "backups/files.yaml:12:9"),
        (("ntfy", "topic"), "profiles/low.yaml:10:12"),
        (("archive_name_format",), "backups/files.yaml:8:3"),
    ],
)
def test_every_option_knows_the_file_and_line_of_the_last_layer_that_wrote_it(path: tuple[str | int, ...], place: str):
    sources = small(file("profiles/low.yaml", PROFILE), file("backups/files.yaml", BACKUP))
    effective = expand.expand(catalogue(*sources)).backups["files"]

    assert effective.origin(*path).place == place


# --- Secrets ---


def test_secrets_are_found_wherever_they_are_referred_to():
    block = {**written.BLOCK, "mariadb_databases": [{"name": "shop", "password": "{secret shop}"}]}
    nas = repository(encryption={"mode": "repokey", "passphraseFrom": {"secret": "vault", "key": "a"}})
    shop, vault = secret("shop", "web-1"), secret("vault", "web-1", values=["a", "b"])
    effective = expand.expand(catalogue(*small(backup("files", borgmatic=block), nas, shop, vault))).backups["files"]

    assert list(effective.secrets) == ["shop", "vault"]
    assert expand.secret_key(effective.secrets["shop"], None) == "password"
    assert expand.secret_key(effective.secrets["vault"], None) is None
    assert expand.secret_key(effective.secrets["vault"], "b") == "b"
    assert effective.complete


def test_a_backup_with_a_dangling_reference_is_not_complete():
    assert not expand.expand(catalogue(*small(backup("files", schedule="nightly")))).backups["files"].complete
