"""What a change would do, and which dangers it has."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reconciler.core import dangers, plan
from reconciler.core.catalogue import SourceFile
from tests.reconciler.core.written import BLOCK, backup, built, client, key_of, repository, resource, secret, small

FULL: dict[str, Any] = {
    **BLOCK,
    "keep_within": "2d",
    "keep_weekly": 4,
    "source_directories": ["/etc", "/srv"],
    "patterns": ["R /data", "- /data/tmp"],
    "postgresql_databases": [{"name": "shop"}, {"name": "shop", "hostname": "db-2"}],
    "exclude_patterns": ["*.tmp"],
    "checks": [{"name": "repository"}, {"name": "data"}],
}


def planned(before: list[SourceFile], after: list[SourceFile]) -> plan.Plan:
    return plan.plan(built(before), built(after))


def changed(option: str | None = None, value: Any = None, **spec: Any) -> plan.Plan:
    """Return the plan of changing one option of the one backup, or taking it out."""
    block = dict(FULL)
    if option is not None:
        block[option] = value
        if value is None:
            del block[option]
    before = small(
        backup("files", borgmatic=FULL, objectives={"rpo": "26h"}, schedule="n"),
        resource("Schedule", "n", cron="@daily"),
    )
    spec = {"objectives": {"rpo": "26h"}, "schedule": "n", **spec}
    after = small(backup("files", borgmatic=block, **{k: v for k, v in spec.items() if v is not None}), before[-1])
    return planned(before, after)


def found(planned: plan.Plan) -> list[tuple[str, str]]:
    return [(danger.code, danger.message) for danger in planned.dangers]


# --- What changes ---


def test_nothing_changed_is_an_empty_plan():
    result = planned(small(), small())

    assert result == plan.Plan(clients=(), unchanged=1, dangers=())
    assert result.is_empty
    assert list(plan.lines(result)) == ["clients: 1 unchanged"]


def test_a_file_that_changes_is_shown_as_a_diff_without_the_header_of_its_revision():
    (machine,) = changed("keep_weekly", 5).clients
    (file,) = machine.files

    assert (machine.client, machine.change, file.path, file.change) == (
        "web-1",
        "changed",
        "config/files.yaml",
        "changed",
    )
    lines = file.diff.splitlines()
    assert lines[:2] == ["--- a/config/files.yaml", "+++ b/config/files.yaml"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-keep_weekly: 4", "+keep_weekly: 5"]


def test_only_the_clients_concerned_are_in_the_plan():
    before = small(client("web-2"), backup("other", clients=["web-2"]))
    after = small(
        client("web-2"), backup("other", clients=["web-2"], borgmatic={**BLOCK, "compression": "lz4"}), client("web-3")
    )
    result = planned(before, after)

    assert [(each.client, each.change) for each in result.clients] == [("web-2", "changed"), ("web-3", "added")]
    assert result.unchanged == 1


def test_schedules_and_settings_are_told_in_words():
    nightly = resource("Schedule", "nightly", cron="30 2 * * *", jitter="15m", catchUp=False)
    (machine,) = planned(
        small(),
        small(
            nightly, client("web-1", suspend=True), backup("files", schedule="nightly", drift="report", timeout="1h")
        ),
    ).clients

    assert [(each.backup, each.setting, each.before, each.after) for each in machine.settings] == [
        (None, "suspend", "", "yes"),
        ("files", "schedule", "", "nightly: 30 2 * * * UTC, jitter 15m, no catch-up"),
        ("files", "timeout", "", "1h"),
        ("files", "drift", "heal", "report"),
    ]


def test_secrets_are_told_by_name_and_never_by_ciphertext():
    block = {**BLOCK, "ntfy": {"topic": "x", "password": "{secret ntfy}"}}
    before, after = (small(backup("files", borgmatic=block), secret("ntfy", "web-1")) for _ in range(2))
    result = planned(before, after)

    assert result.clients[0].secrets == (plan.SecretChange(secret="ntfy", key="password", change="changed"),)
    assert "bd1-sealed" not in result.model_dump_json()


def test_moving_a_resource_to_another_file_changes_no_machine():
    sources = small()
    moved = [SourceFile(f"elsewhere/{each.path}", each.blob, each.data) for each in sources]

    assert planned(sources, moved).clients == ()


def test_the_plan_is_stable_json():
    result = changed("keep_weekly", 3)

    assert plan.Plan.model_validate_json(result.model_dump_json()) == result
    assert list(json.loads(result.model_dump_json())) == ["clients", "unchanged", "dangers"]


# --- Dangers ---


@pytest.mark.parametrize(
    ("option", "value", "danger"),
    [
        ("keep_daily", 6, ("retention-shortened", "keep_daily: 7 → 6")),
        ("keep_weekly", None, ("retention-shortened", "keep_weekly: 4 → none")),
        ("keep_within", "47H", ("retention-shortened", "keep_within: 2d → 47H")),
        ("archive_name_format", "{now}", ("prune-widened", "archive_name_format: none → {now}")),
        ("match_archives", "*", ("prune-widened", "match_archives: none → *")),
        ("match_archives", "web-1.*", ("prune-widened", "match_archives: none → web-1.*")),
        ("match_archives", "web-1.files.2026*", ("archives-orphaned", "match_archives: none → web-1.files.2026*")),
        ("source_directories", ["/etc"], ("source-dropped", "source_directories: /srv is removed")),
        ("patterns", ["- /data/tmp"], ("source-dropped", "patterns: 'R /data' is removed")),
        ("patterns", [*FULL["patterns"], "! /data/x"], ("exclude-added", "patterns: '! /data/x' is added")),
        (
            "postgresql_databases",
            [{"name": "shop"}],
            ("source-dropped", "postgresql_databases: shop on db-2 is removed"),
        ),
        ("exclude_patterns", ["*.tmp", "*.iso"], ("exclude-added", "exclude_patterns: *.iso is added")),
        ("exclude_caches", True, ("exclude-added", "exclude_caches is switched on")),
        ("checks", [{"name": "repository"}], ("checks-removed", "check 'data' is removed")),
        ("skip_actions", ["check"], ("checks-removed", "nothing is checked any more")),
        ("skip_actions", ["create"], ("create-stopped", "no more archives are created")),
    ],
)
def test_a_change_of_an_option_that_may_lose_data_is_a_danger(option: str, value: Any, danger: tuple[str, str]):
    assert danger in found(changed(option, value))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("keep_daily", 8),
        ("keep_daily", -1),
        ("keep_within", "1w"),
        ("keep_yearly", 1),
        ("source_directories", ["/srv", "/home", "/etc"]),
        ("exclude_patterns", []),
        ("patterns", ["R /data"]),
        (
            "postgresql_databases",
            [{"name": "shop", "format": "tar"}, {"name": "shop", "hostname": "db-2"}, {"name": "all"}],
        ),
        ("checks", [{"name": "data"}, {"name": "repository"}, {"name": "extract"}]),
        ("compression", "lz4"),
        ("skip_actions", ["prune"]),
    ],
)
def test_a_change_that_keeps_more_or_the_same_is_none(option: str, value: Any):
    assert found(changed(option, value)) == []


@pytest.mark.parametrize(
    ("spec", "danger"),
    [
        ({"objectives": {"rpo": "27h"}}, ("objective-loosened", "rpo: 1d2h → 1d3h")),
        ({"objectives": None}, ("objective-loosened", "rpo: 1d2h → none")),
        ({"schedule": None}, ("schedule-removed", "the backup runs only when a person starts it")),
        ({"actions": ["create", "prune"]}, ("checks-removed", "nothing is checked any more")),
    ],
)
def test_a_looser_promise_is_a_danger(spec: dict[str, Any], danger: tuple[str, str]):
    assert found(changed(**spec)) == [danger]


def test_pauses_and_reported_drift_are_no_dangers():
    assert found(changed(suspend=True, drift="report")) == []


def test_beginning_to_prune_is_a_danger():
    result = planned(small(backup("files", actions=["create"])), small(backup("files", actions=["create", "prune"])))

    assert found(result) == [("prune-started", "archives are pruned that were all kept")]


@pytest.mark.parametrize(
    ("nas", "code"),
    [
        ({"url": "/elsewhere/${client}"}, "repository-changed"),
        ({"encryption": {"mode": "repokey", "passphraseFrom": {"file": "/p"}}}, "encryption-changed"),
    ],
)
def test_another_url_or_encryption_is_a_danger_at_the_repository(nas: dict[str, Any], code: str):
    (danger,) = planned(small(), small(repository(**nas))).dangers

    assert (danger.code, danger.path, danger.client, danger.backup) == (code, "repositories/nas.yaml", "web-1", "files")


def test_what_leaves_is_a_danger_clients_backups_and_repositories():
    before = small(client("web-2"), repository("two"), backup("more"), backup("files", repositories=["nas", "two"]))
    after = small(repository("two"))

    assert [(danger.code, danger.client, danger.backup) for danger in planned(before, after).dangers] == [
        ("repository-removed", "web-1", "files"),
        ("backup-removed", "web-1", "more"),
        ("client-removed", "web-2", None),
    ]


def test_another_key_for_a_client_is_a_danger_and_a_first_key_is_none():
    without = SourceFile(
        "clients/web-1.yaml", "none", b"apiVersion: borgmatic.director/v1\nkind: Client\nmetadata: {name: web-1}\n"
    )

    assert found(planned(small(), small(client("web-1", publicKey=key_of("another").text)))) == [
        ("client-key-changed", "the public key is replaced by another")
    ]
    assert found(planned(small(), small(without)))[0][0] == "client-key-changed"
    assert found(planned(small(without), small())) == []


def test_a_danger_knows_the_line_that_makes_it_even_in_a_profile():
    def sources(daily: int) -> list[SourceFile]:
        low = resource("Profile", "low", borgmatic={"keep_daily": daily})
        return small(low, backup("files", profiles=["low"], borgmatic={"source_directories": ["/etc"]}))

    (danger,) = planned(sources(9), sources(2)).dangers

    assert danger.place == "profiles/low.yaml:8:5"


# --- Acknowledging ---


@pytest.mark.parametrize(
    ("message", "codes"),
    [
        ("Shorten\n\nDirector-Acknowledge: retention-shortened", {"retention-shortened"}),
        ("Shorten\n\nWhy.\n\nSigned-off-by: A <a@b>\ndirector-acknowledge: all, mass-change\n", {"all", "mass-change"}),
        ("Shorten\r\n\r\nDirector-Acknowledge: a b\r\n", {"a", "b"}),
        ("Director-Acknowledge: all", set()),
        ("Shorten\n\nDirector-Acknowledge: all\n\nis what one would write", set()),
        ("Shorten\n\nto acknowledge, write\nDirector-Acknowledge: all", set()),
        ("", set()),
    ],
)
def test_only_a_trailer_of_the_commit_message_acknowledges(message: str, codes: set[str]):
    assert plan.acknowledgements([message]) == codes


def test_what_is_acknowledged_is_no_longer_in_the_way():
    result = changed("keep_daily", 1, objectives=None)

    assert [danger.code for danger in plan.unacknowledged(result.dangers, frozenset({"retention-shortened"}))] == [
        "objective-loosened"
    ]
    assert plan.unacknowledged(result.dangers, frozenset({"all"})) == ()


def test_the_text_tells_a_danger_of_many_clients_once_and_how_to_acknowledge_it():
    machines = [client(f"c-{number}", labels={"role": "c"}) for number in range(5)]
    before, after = (
        small(
            *machines, backup("all", clients={"matchLabels": {"role": "c"}}, borgmatic={**BLOCK, "keep_daily": daily})
        )
        for daily in (7, 6)
    )
    text = list(plan.lines(planned(before, after)))

    assert text[-4:] == [
        "clients: 5 changed, 1 unchanged",
        "danger retention-shortened: keep_daily: 7 → 6 (c-0, c-1, c-2 and 2 more of backup all)",
        "    at backups/all.yaml:15:5",
        f"where dangers are held (CI, hold_dangers), end the commit message with: {plan.TRAILER}: retention-shortened",
    ]
    acknowledged = list(plan.lines(planned(before, after), acknowledged=frozenset({"retention-shortened"})))
    assert acknowledged[-2].startswith("acknowledged retention-shortened")


def test_every_danger_has_a_meaning_in_the_list_of_codes():
    assert {danger.code for danger in changed("skip_actions", ["check"]).dangers} <= dangers.CODES.keys()
