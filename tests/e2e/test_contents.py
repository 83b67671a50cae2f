"""An archive of the real Borg: listed by the client, shown by the page's commands, and brought back by typing them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client.clock import SystemClock
from client.contents import Listings
from client.turns import Turns
from schema.desired import runtime_directory
from schema.status import ArchiveStatus, RestoreCommands
from tests.e2e.test_client_borg import PASSPHRASE, Machine
from web_readonly import restoring

if TYPE_CHECKING:
    from schema.observed import Archive, ArchiveContents

BESIDE = Path(sys.executable).parent
HOSTILE = "it's $(touch pwned) \u202e"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    made = Machine(tmp_path, {"nas": f"{tmp_path}/nas"})
    made.job = made.job.model_copy(update={"actions": ("create",)})
    source = tmp_path / "source"
    (source / "letters/old").mkdir(parents=True)
    (source / "letters/dear.txt").write_text("dear reader")
    (source / "letters/old/dearer.txt").write_text("dearer reader")
    (source / f"-{HOSTILE}").mkdir()
    (source / f"-{HOSTILE}/file").write_text("harmless")
    (source / os.fsdecode(b"broken-\xff")).write_text("?")
    (source / "link").symlink_to("letters")
    return made


async def newest(machine: Machine) -> Archive:
    await machine.apply()
    finished = await machine.run()
    assert finished.error == ""
    (seen,) = await machine.inventories.inventory(machine.job, datetime.now(UTC))
    return seen.archives[0]


def listings(machine: Machine, **options: Any) -> Listings:
    base = machine.base
    return Listings(
        program="borgmatic",
        config_directory=base / "etc",
        state_directory=base / "var",
        turns=Turns(state_directory=base / "var", clock=SystemClock()),
        environment=machine.environment,
        allowed=True,
        **options,
    )


async def look(machine: Machine, archive: Archive) -> ArchiveContents:
    return await listings(machine).contents(machine.job, "nas", archive, datetime.now(UTC))


def typed(machine: Machine, command: str) -> str:
    """Return what a shell prints for a command that a person copied from the page."""
    ended = subprocess.run(
        ["/bin/bash", "-c", command],
        env=machine.environment | {"LANG": "C.UTF-8", "PATH": f"{BESIDE}:{os.environ['PATH']}"},
        cwd=machine.base,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def shown(machine: Machine, archive: Archive, *, path: str = "", dumps: str = "") -> RestoreCommands:
    status = ArchiveStatus(
        id=archive.id, name=archive.name, client="web-1", backup="web", repository="nas", start=archive.start
    )
    destination = str(machine.base / "restored here")
    return restoring.commands(
        status, file=str(machine.base / "etc/web.yaml"), path=path, dumps=dumps, destination=destination
    )


async def test_the_client_tells_what_is_in_the_newest_archive(machine):
    told = await look(machine, await newest(machine))

    assert told.message == ""
    assert told.listed
    source = str(machine.base / "source").lstrip("/")
    rows = {row.path: (row.files, row.size) for row in told.directories}
    assert rows[f"{source}/letters"] == (2, 24)
    assert rows[f"{source}/letters/old"] == (1, 13)
    assert rows[source][0] == 6
    assert all(path.isprintable() for path in [*rows, *(file.path for file in told.largest)])
    assert f"{source}/broken-?" in {file.path for file in told.largest}
    assert told.newest is not None
    assert abs((told.newest - datetime.now(UTC)).total_seconds()) < 600
    assert PASSPHRASE not in told.model_dump_json()


async def test_it_is_listed_while_another_machine_holds_the_repository(machine):
    archive = await newest(machine)
    (machine.base / "nas/lock.exclusive").mkdir()
    (machine.base / "nas/lock.exclusive" / f"other@{'0' * 12}.1-0").touch()

    assert (await look(machine, archive)).listed


async def test_an_archive_that_was_pruned_meanwhile_is_said_to_be_gone(machine):
    archive = await newest(machine)

    told = await look(machine, archive.model_copy(update={"name": "web-1.web.gone"}))

    assert not told.listed
    assert "web-1.web.gone does not exist" in told.message


async def test_a_list_that_takes_too_long_leaves_the_repository_usable(machine):
    archive = await newest(machine)

    told = await listings(machine, seconds=0.01).contents(machine.job, "nas", archive, datetime.now(UTC))

    assert not told.listed
    assert (await machine.run()).error == ""


async def test_typing_the_command_of_the_page_brings_everything_back(machine):
    commands = shown(machine, await newest(machine))

    typed(machine, commands.extract)

    restored = machine.base / "restored here" / str(machine.base / "source").lstrip("/")
    assert (restored / "letters/dear.txt").read_text() == "dear reader"
    assert (restored / "letters/old/dearer.txt").read_text() == "dearer reader"
    assert (restored / f"-{HOSTILE}/file").read_text() == "harmless"
    assert (machine.base / "restored here").stat().st_mode & 0o777 == 0o700
    assert not (machine.base / "pwned").exists()


async def test_a_second_time_it_refuses_rather_than_overwrite(machine):
    commands = shown(machine, await newest(machine))
    (machine.base / "restored here").mkdir()

    with pytest.raises(AssertionError, match="File exists"):
        typed(machine, commands.extract)
    assert list((machine.base / "restored here").iterdir()) == []


@pytest.mark.parametrize("name", ["letters/old", f"-{HOSTILE}"])
async def test_typing_the_command_for_one_path_brings_back_that_alone(machine, name):
    source = str(machine.base / "source").lstrip("/")
    commands = shown(machine, await newest(machine), path=f"{source}/{name}")

    typed(machine, commands.extract)
    listed = typed(machine, commands.list)

    restored = machine.base / "restored here" / source
    files = [one for one in restored.rglob("*") if one.is_file()]
    assert [str(one.parent.relative_to(restored)) for one in files] == [name]
    assert files[0].name in listed
    assert "dear.txt" not in listed
    assert not (machine.base / "pwned").exists()


async def test_a_relative_path_that_begins_like_an_option_comes_back_too(machine):
    file = machine.base / "etc/web.yaml"
    await machine.apply()
    text = (
        file.read_text().replace(f"  - {machine.base}/source", "  - .") + f"working_directory: {machine.base}/source\n"
    )
    file.write_text(text)
    finished = await machine.run()
    assert finished.error == ""
    (seen,) = await machine.inventories.inventory(machine.job, datetime.now(UTC))

    typed(machine, shown(machine, seen.archives[0], path=f"-{HOSTILE}").extract)

    found = [one for one in (machine.base / "restored here").rglob("*") if one.is_file()]
    assert [one.read_text() for one in found] == ["harmless"]


async def test_typing_the_command_for_databases_brings_them_back(machine):
    shop = machine.base / "shop.db"
    with closing(sqlite3.connect(shop)) as database:
        database.executescript("CREATE TABLE orders (number); INSERT INTO orders VALUES (42)")
    await machine.apply(extra=f"sqlite_databases:\n  - name: shop\n    path: {shop}")
    finished = await machine.run()
    assert finished.error == ""
    (seen,) = await machine.inventories.inventory(machine.job, datetime.now(UTC))
    shop.unlink()

    typed(
        machine,
        shown(machine, seen.archives[0], dumps=runtime_directory(f"{machine.base}/var", "web")).restore_databases,
    )

    with closing(sqlite3.connect(shop)) as database:
        assert database.execute("SELECT number FROM orders").fetchall() == [(42,)]
