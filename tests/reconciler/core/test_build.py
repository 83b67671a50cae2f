"""From files to contents, and from one build to the next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from reconciler.core import build
from reconciler.core.catalogue import SourceFile
from schema.errors import InvalidSource
from tests.reconciler.core.written import (
    BLOCK,
    BORGMATIC_SCHEMA,
    backup,
    built,
    client,
    file,
    repository,
    resource,
    secret,
    small,
)

SHARED = "/backup/all"


def codes(*sources: SourceFile) -> list[str]:
    return [problem.code for problem in built(small(*sources)).problems]


def named(name: str, name_format: str, **spec: Any) -> SourceFile:
    return backup(name, borgmatic={**BLOCK, "archive_name_format": name_format}, **spec)


# --- Builds ---


def test_every_client_has_a_content_also_without_a_backup():
    result = built(small(client("idle")))

    assert result.ok
    assert {name: len(content.jobs) for name, content in result.contents.items()} == {"idle": 0, "web-1": 1}
    assert result.digests == {name: content.digest() for name, content in result.contents.items()}
    assert (result.counts.jobs, result.counts.unselected_clients, result.counts.resources["Client"]) == (1, 1, 2)


def test_a_broken_source_has_no_contents_and_all_its_problems():
    broken = file("clients/broken.yaml", "kind: [")
    result = built(small(broken, backup("files", borgmatic={"source_directories": ["/etc"]})))

    assert not result.ok
    assert result.contents == {}
    assert {problem.path for problem in result.problems} == {"clients/broken.yaml", "backups/files.yaml"}
    with pytest.raises(InvalidSource):
        result.require_ok()


def test_what_only_follows_from_a_broken_file_is_not_reported_beside_it():
    assert (
        codes(file("repositories/nas.yaml", "apiVersion: borgmatic.director/v1\nkind: Repository\nspec: {}\n"))[0]
        == "missing-field"
    )
    assert "dangling-reference" not in codes(file("repositories/nas.yaml", "kind: ["))
    assert "dangling-reference" in codes(backup("files", repositories=["nsa"]))


def test_nothing_at_all_builds_to_nothing():
    assert built([]).contents == {}


def test_the_order_of_files_does_not_matter():
    sources = small(client("web-2"), backup("more", clients=["web-2", "web-1"]), backup("also"))

    assert built(sources).contents == built(reversed(sources)).contents


# --- The cache ---


def fleet(**blocks: dict[str, Any]) -> list[SourceFile]:
    sources = [repository()]
    for number in range(4):
        name = f"own-{number}"
        sources += [
            client(f"web-{number}"),
            backup(name, clients=[f"web-{number}"], borgmatic=blocks.get(name.replace("-", "_"), BLOCK)),
        ]
    return sources


def test_a_change_of_one_backup_makes_one_new_content():
    cache = build.BuildCache()
    before = built(fleet(), cache=cache)
    after = built(fleet(own_2={**BLOCK, "compression": "lz4"}), cache=cache)

    changed = [name for name, content in after.contents.items() if content is not before.contents[name]]
    assert changed == ["web-2"]


def test_a_cached_build_equals_one_from_nothing_after_any_history():
    cache = build.BuildCache()
    histories: list[list[SourceFile]] = [
        fleet(),
        fleet(own_1={"keep_daily": 1}),
        fleet(own_1={**BLOCK, "umask": 63}),
        [*fleet(), file("broken.yaml", "kind: [")],
        [],
        [
            *fleet(),
            resource("Schedule", "nightly", cron="@daily"),
            backup("extra", clients=["web-1"], schedule="nightly"),
        ],
        fleet()[:-1],
        [named("a", "{now}", clients=["web-0"]), named("b", "{now}", clients=["web-1"]), *fleet()],
        fleet(),
    ]
    for sources in histories:
        cached, fresh = built(sources, cache=cache), built(sources)
        assert (cached.contents, cached.digests, cached.problems) == (fresh.contents, fresh.digests, fresh.problems)


def test_a_problem_moves_with_its_line_although_everything_else_is_cached():
    cache = build.BuildCache()
    broken = backup("files", borgmatic={"source_directories": ["/etc"]})
    (first,) = built(small(broken), cache=cache).problems
    moved = SourceFile(broken.path, "moved", b"# one\n# two\n" + broken.data)
    (second,) = built(small(moved), cache=cache).problems

    assert (second.line, second.message) == (first.line + 2, first.message)


def test_a_hint_names_what_came_meanwhile():
    cache = build.BuildCache()
    wrong = backup("files", profiles=["low"])
    built(small(wrong), cache=cache)
    after = built(small(wrong, resource("Profile", "lower", borgmatic={})), cache=cache)

    assert after.problems == built(small(wrong, resource("Profile", "lower", borgmatic={}))).problems
    assert [problem.hint for problem in after.problems] == ["did you mean 'lower'?"]


def test_a_secret_behind_a_reference_that_a_later_layer_replaces_is_still_looked_after():
    cache = build.BuildCache()
    hook = {"ntfy": {"topic": "x", "password": "{secret db}"}}
    instead = {**BLOCK, "ntfy": {"topic": "y", "password": "{credential file /x}"}}
    sources = small(
        client("web-2"),
        resource("Profile", "low", borgmatic=hook),
        backup("files", profiles=["low"], borgmatic=instead),
    )
    built([*sources, secret("db", "web-1")], cache=cache)
    after = [*sources, secret("db", "web-2")]

    assert built(after, cache=cache).problems == built(after).problems
    assert [problem.code for problem in built(after).problems] == ["secret-not-sealed"]


def test_another_schema_is_not_answered_from_the_cache():
    cache = build.BuildCache()
    strict = {"type": "object", "additionalProperties": False, "properties": {"keep_daily": {"type": "integer"}}}

    found = [
        {problem.code for problem in build.build(small(), borgmatic_schema=schema, cache=cache).problems}
        for schema in (BORGMATIC_SCHEMA, strict, BORGMATIC_SCHEMA)
    ]

    assert found == [set(), {"unknown-borgmatic-option"}, set()]


def test_a_fault_in_the_middle_of_a_build_leaves_nothing_half_done_behind():
    class Fault(Exception):
        pass

    def broken(sources: list[SourceFile]) -> Iterator[SourceFile]:
        yield from sources
        raise Fault

    cache = build.BuildCache()
    built(fleet(), cache=cache)
    with pytest.raises(Fault):
        build.build(broken(fleet(own_2={"umask": 1})), borgmatic_schema=BORGMATIC_SCHEMA, cache=cache)

    assert built(fleet(), cache=cache).contents == built(fleet()).contents


# --- Retention collisions ---


def test_backups_with_the_directors_own_names_share_a_repository_freely():
    assert (
        codes(repository(url=SHARED), client("web-2"), backup("files", clients=["web-1", "web-2"]), backup("more"))
        == []
    )


def test_two_backups_whose_archives_have_one_name_may_not_prune_each_other():
    result = built(small(repository(url=SHARED), named("files", "{hostname}-{now}"), named("more", "{hostname}-{now}")))

    assert [problem.code for problem in result.problems] == ["retention-collision"] * 2
    first = result.problems[0]
    assert first.path == "backups/files.yaml"
    assert first.line > 1
    assert first.message == (
        "backup 'files' of client 'web-1' would prune archives of backup 'more' of client 'web-1': "
        "both are in repository 'nas' (/backup/all), and the names of their archives overlap"
    )


def test_the_hostname_tells_clients_apart_but_the_user_does_not():
    both = {"clients": ["web-1", "web-2"]}
    assert codes(repository(url=SHARED), client("web-2"), named("files", "{hostname}-{now}", **both)) == []
    assert "retention-collision" in codes(
        repository(url=SHARED), client("web-2"), named("files", "{user}-{now}", **both)
    )


def test_a_repository_for_each_client_keeps_clients_apart():
    assert (
        codes(repository(url="/backup/${client}"), client("web-2"), named("files", "{now}", clients=["web-1", "web-2"]))
        == []
    )


def test_what_nobody_prunes_may_have_any_name():
    create = {"actions": ["create", "check"]}
    assert codes(repository(url=SHARED), named("files", "{now}", **create), named("more", "{now}", **create)) == []


def test_a_wide_match_takes_archives_that_the_director_named():
    wide = backup("files", borgmatic={**BLOCK, "match_archives": "*"})
    result = built(small(repository(url=SHARED), wide, backup("more", actions=["create"])))

    (problem,) = result.problems
    assert problem.message.startswith("backup 'files' of client 'web-1' would prune archives of backup 'more'")
    assert "leave match_archives out" in problem.hint


@pytest.mark.parametrize("match", ["sh:web-1.files.*", "web-1.files.*"])
def test_a_match_that_stays_with_its_own_archives_is_fine(match: str):
    assert (
        codes(repository(url=SHARED), backup("files", borgmatic={**BLOCK, "match_archives": match}), backup("more"))
        == []
    )


def test_a_match_that_cannot_be_compared_counts_as_everything():
    regular = backup("files", borgmatic={**BLOCK, "match_archives": "re:^web-1"})

    assert codes(repository(url=SHARED), regular, backup("more")) == ["retention-collision"]


def test_one_repository_under_two_names_is_one_repository():
    again = repository("again", url="/backup//all/")
    more = named("more", "{now}", repositories=["again"])

    assert "retention-collision" in codes(repository(url=SHARED), again, named("files", "{now}"), more)


def test_each_backup_is_reported_once_however_many_it_meets():
    clients = [client(f"c-{number}") for number in range(40)]
    shared = named("files", "{now}", clients=[f"c-{number}" for number in range(40)])

    assert codes(repository(url=SHARED), *clients, shared) == ["retention-collision"] * 40
