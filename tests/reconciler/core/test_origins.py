"""Where each option of a backup's file was written, and what it keeps."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core import expand, origins
from reconciler.core.catalogue import SourceFile
from reconciler.core.expand import Effective
from tests.reconciler.core.written import backup, built, catalogue, content_of, file, resource, small

LAYERS = st.fixed_dictionaries(
    {},
    optional={
        "keep_daily": st.integers(0, 9),
        "source_directories": st.lists(st.sampled_from(["/a", "/b", "/c", "/d"])),
        "healthchecks": st.dictionaries(st.sampled_from(["ping_url", "states"]), st.integers(0, 2)),
        "checks": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["data", "archives"])})),
    },
)
PROFILE = """\
apiVersion: borgmatic.director/v1
kind: Profile
metadata: {name: standard}
spec:
  borgmatic:
    keep_daily: 7
    keep_weekly: 4
    exclude_patterns:
      - /proc
      - /sys
"""
BACKUP = """\
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: files}
spec:
  clients: [web-1]
  repositories: [nas]
  profiles: [standard]
  borgmatic:
    source_directories: [/etc]
    keep_weekly: 8
    exclude_patterns:
      - /sys
      - /tmp
    mariadb_databases:
      - name: shop
        username: backup
"""
WRITTEN = (file("profiles/standard.yaml", PROFILE), file("backups/files.yaml", BACKUP))


def effective(*sources: SourceFile) -> Effective:
    return expand.expand(catalogue(*small(*sources))).backups["files"]


def test_every_option_names_the_file_and_line_of_the_last_layer_that_has_it():
    assert dict(origins.option_origins(effective(*WRITTEN))) == {
        "repositories": "backups/files.yaml:6",
        "repositories.0": "repositories/nas.yaml:1",
        "archive_name_format": "",
        "keep_daily": "profiles/standard.yaml:6",
        "keep_weekly": "backups/files.yaml:10",
        "exclude_patterns": "backups/files.yaml:11",
        "exclude_patterns.0": "profiles/standard.yaml:9",
        "exclude_patterns.1": "backups/files.yaml:12",
        "exclude_patterns.2": "backups/files.yaml:13",
        "source_directories": "backups/files.yaml:9",
        "source_directories.0": "backups/files.yaml:9",
        "mariadb_databases": "backups/files.yaml:14",
        "mariadb_databases.0": "backups/files.yaml:15",
        "mariadb_databases.0.name": "backups/files.yaml:15",
        "mariadb_databases.0.username": "backups/files.yaml:16",
    }


def test_the_options_stand_in_the_order_of_the_file():
    content = content_of(built(small(*WRITTEN)), "web-1", "files.yaml")

    outermost = [option for option, _ in origins.option_origins(effective(*WRITTEN)) if "." not in option]

    assert outermost == list(content)


def test_a_name_format_of_a_persons_own_has_a_place():
    own = backup("files", borgmatic={"source_directories": ["/etc"], "archive_name_format": "mine-{now}"})

    assert dict(origins.option_origins(effective(own)))["archive_name_format"] == "backups/files.yaml:14"


@given(st.lists(LAYERS, min_size=1, max_size=3))
def test_it_agrees_with_what_problems_point_at(layers: list[dict[str, Any]]):
    names = [f"p{number}" for number in range(len(layers))]
    profiles = [resource("Profile", name, borgmatic=layer) for name, layer in zip(names, layers, strict=True)]
    found = effective(*profiles, backup("files", profiles=names, borgmatic={"source_directories": ["/own"]}))

    for option, place in origins.option_origins(found):
        path = [int(part) if part.isdigit() else part for part in option.split(".")]
        if path[0] not in {"repositories", "archive_name_format"}:
            assert found.origin(*path).place.rpartition(":")[0] == place


def test_of_a_backup_with_a_list_of_thousands_only_the_options_are_placed():
    patterns = [f"/cache/{number}" for number in range(2 * origins.MAX_ORIGINS)]
    found = effective(backup("files", borgmatic={"source_directories": ["/etc"], "exclude_patterns": patterns}))

    assert [option for option, _ in origins.option_origins(found)] == [
        "repositories",
        "archive_name_format",
        "source_directories",
        "exclude_patterns",
    ]


def test_retention_is_what_the_merged_options_keep():
    assert origins.retention(effective(*WRITTEN)) == {"keep_daily": 7, "keep_weekly": 8}


def test_a_backup_that_prunes_nothing_has_no_retention():
    own = backup("files", actions=["create"], borgmatic={"source_directories": ["/etc"], "keep_daily": 7})

    assert origins.retention(effective(own)) == {}


def test_what_keeps_nothing_is_no_retention():
    options = yaml.safe_load("{source_directories: [/etc], keep_daily: 0, keep_within: 2d}")

    assert origins.retention(effective(backup("files", borgmatic=options))) == {"keep_within": "2d"}
