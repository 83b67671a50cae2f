"""Drift: every difference is seen, what is ours is put back, and what is not is left alone."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from client.apply import Applier
from client.drift import Watch
from client.managed import Found, Place, Places
from schema.desired import DesiredState
from schema.observed import Drift, DriftKind
from tests.client import machine
from tests.client.test_apply import applier, apply

NOW = machine.NOW


class Watched:
    """A machine in its desired state, and the watch over it."""

    def __init__(self, base: Path, state: DesiredState) -> None:
        self.base = base
        self.state = state
        self.applier: Applier = applier(base)
        self.watch = Watch(self.applier.places)

    def detect(self, now=NOW) -> tuple[Drift, ...]:
        return self.watch.detect(self.state, now=now)

    def heal(self) -> tuple[Drift, ...]:
        return self.watch.heal(self.state, self.detect(), applier=self.applier)


async def watched(base: Path, **changes: Any) -> Watched:
    (base / "source").mkdir(exist_ok=True)
    text = machine.config(options=f"source_directories:\n  - {base}/source\nkeep_daily: 7\n")
    state = machine.state(base, files={"web": text}, secrets=("db",), known_hosts="nas ssh-ed25519 A\n", **changes)
    await apply(base, state)
    return Watched(base, state)


async def test_a_machine_in_its_desired_state_has_no_drift(tmp_path):
    assert (await watched(tmp_path)).detect() == ()


async def test_an_edit_is_reported_with_a_diff_and_healed(tmp_path):
    on = await watched(tmp_path)
    file = tmp_path / "etc/web.yaml"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"keep_daily: 7", b"keep_daily: 1"))

    (drift,) = on.heal()

    assert (drift.kind, drift.subject, drift.backup, drift.healed) == (DriftKind.CHANGED, "web.yaml", "web", True)
    assert "-keep_daily: 7\n+keep_daily: 1" in drift.diff
    assert file.read_bytes() == before
    assert on.detect() == ()


@pytest.mark.parametrize("name", ["etc/web.yaml", "var/known_hosts/nas", "var/secrets/db.key"])
async def test_what_was_removed_is_put_back(tmp_path, name):
    on = await watched(tmp_path)
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()

    (drift,) = on.heal()

    assert (drift.kind, drift.healed) == (DriftKind.MISSING, True)
    assert (tmp_path / name).read_bytes() == before
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


async def test_another_mode_is_drift(tmp_path):
    on = await watched(tmp_path)
    (tmp_path / "etc/web.yaml").chmod(0o644)

    (drift,) = on.heal()

    assert drift.message == "web.yaml has the mode 0644 instead of 0600"
    assert (tmp_path / "etc/web.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_another_owner_is_drift(tmp_path):
    on = await watched(tmp_path)
    os.chown(tmp_path / "etc/web.yaml", 12345, -1)

    assert [drift.message for drift in on.heal()] == ["web.yaml belongs to user 12345"]
    assert (tmp_path / "etc/web.yaml").stat().st_uid == 0


async def test_a_link_in_place_of_our_file_is_drift_and_is_not_followed(tmp_path):
    on = await watched(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "etc/web.yaml").unlink()
    (tmp_path / "etc/web.yaml").symlink_to(victim)

    (drift,) = on.heal()

    assert drift.kind is DriftKind.CHANGED
    assert victim.read_text() == "precious"
    assert on.detect() == ()


async def test_an_edited_secret_is_reported_without_its_value_and_healed(tmp_path):
    on = await watched(tmp_path)
    (tmp_path / "var/secrets/db.key").write_text("typed by hand")

    (drift,) = on.heal()

    assert (drift.subject, drift.diff, drift.healed) == ("secrets/db.key", "", True)
    assert "typed by hand" not in drift.model_dump_json()
    assert (tmp_path / "var/secrets/db.key").read_text() == "opened db for web-1"


async def test_unmanaged_files_are_reported_and_never_touched(tmp_path):
    on = await watched(tmp_path)
    for name in ("mine.yaml", "old.yml", "notes.txt"):
        (tmp_path / "etc" / name).write_text("mine")
    (tmp_path / "etc/folder.yaml").mkdir()

    drifts = on.heal()

    assert [(drift.kind, drift.subject, drift.healed) for drift in drifts] == [
        (DriftKind.UNMANAGED, "mine.yaml", False),
        (DriftKind.UNMANAGED, "old.yml", False),
    ]
    assert (tmp_path / "etc/mine.yaml").read_text() == "mine"


async def test_where_drift_is_only_reported_nothing_is_healed(tmp_path):
    on = await watched(tmp_path, jobs=(machine.job(drift="report"),), drift="report")
    (tmp_path / "etc/web.yaml").write_text("edited\n")
    (tmp_path / "var/known_hosts/nas").write_text("edited\n")

    assert [drift.healed for drift in on.heal()] == [False, False]
    assert (tmp_path / "etc/web.yaml").read_text() == "edited\n"


async def test_a_source_that_does_not_exist_is_reported_until_it_does(tmp_path):
    on = await watched(tmp_path)
    (tmp_path / "source").rmdir()

    (drift,) = on.detect()
    (tmp_path / "source").mkdir()

    assert (drift.kind, drift.subject, drift.backup) == (DriftKind.SOURCE_MISSING, f"{tmp_path}/source", "web")
    assert on.detect() == ()


async def test_a_glob_is_missing_when_nothing_matches_it(tmp_path):
    text = machine.config(options=f"source_directories: [{tmp_path}/s*/x, {tmp_path}/var*]\nkeep_daily: 7\n")
    state = machine.state(tmp_path, files={"web": text})
    await apply(tmp_path, state)

    assert [drift.subject for drift in Watched(tmp_path, state).detect()] == [f"{tmp_path}/s*/x"]


async def test_a_difference_keeps_the_moment_when_it_was_first_seen(tmp_path):
    on = await watched(tmp_path)
    (tmp_path / "etc/web.yaml").write_text("edited\n")

    on.detect()
    (drift,) = on.detect(NOW + timedelta(hours=1))

    assert drift.detected == NOW


class Counting(Places):
    """Places that know how often they were read."""

    reads = 0

    def read(self, place: Place, path: str) -> Found | None:
        self.reads += 1
        return super().read(place, path)


async def test_a_look_reads_no_file_when_nothing_changed(tmp_path):
    on = await watched(tmp_path)
    places = Counting(config=tmp_path / "etc", state=tmp_path / "var")
    watch = Watch(places)

    watch.detect(on.state, now=NOW)
    reads = places.reads
    watch.detect(on.state, now=NOW)

    assert reads > 0
    assert places.reads == reads


async def test_an_edit_that_keeps_size_and_time_is_seen_all_the_same(tmp_path):
    on = await watched(tmp_path)
    on.detect()
    file = tmp_path / "etc/web.yaml"
    status = file.stat()
    file.write_bytes(file.read_bytes().replace(b"keep_daily: 7", b"keep_daily: 1"))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert [drift.subject for drift in on.detect()] == ["web.yaml"]
