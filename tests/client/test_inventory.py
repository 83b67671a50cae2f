"""The inventory of archives: what borgmatic prints, understood; whatever else it prints, survived."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import borgmatic_output
from client.borgmatic_output import MAX_LINE_BYTES, Lines, Reader, Scrubber, Seen
from client.clock import SystemClock
from client.inventory import MAX_ARCHIVES, Inventories
from client.turns import Turns
from schema.desired import DesiredRepository
from schema.observed import ArchivesSeen, LogLine
from tests.client import machine

NOW = machine.NOW


def inventories(base: Path, program: str) -> Inventories:
    (base / "home").mkdir(exist_ok=True)
    return Inventories(
        program=machine.program(program),
        config_directory=base / "etc",
        state_directory=base / "var",
        turns=Turns(state_directory=base / "var", clock=SystemClock()),
        environment={"HOME": str(base / "home"), "PATH": os.environ["PATH"]},
    )


async def ask(base: Path, answer: Any, *, names: tuple[str, ...] = ("nas",)) -> tuple[ArchivesSeen, ...]:
    """Return what the inventory makes of ``answer``, printed by borgmatic."""
    one = inventories(base, "answers")
    (base / "home/answer").write_text(answer if isinstance(answer, str) else json.dumps(answer))
    repositories = tuple(DesiredRepository(name=name, url=f"/mnt/{name}", encryption="none") for name in names)
    return await one.inventory(machine.job(repositories=repositories), NOW)


def listing(name: str, *starts: str) -> dict[str, Any]:
    archives = [{"name": f"a-{n}", "id": f"{n:064x}", "start": start} for n, start in enumerate(starts)]
    return {"archives": archives, "repository": {"label": name, "id": "ff" * 32}, "encryption": {"mode": "none"}}


async def test_archives_are_newest_first_and_in_utc(tmp_path):
    size = {"cache": {"stats": {"unique_csize": 7, "total_size": 9}}, "repository": {"label": "nas"}}

    (seen,) = await ask(tmp_path, [listing("nas", "2026-11-22T01:00:00.000000", "2026-11-23T01:00:00.000000"), size])

    assert seen.available
    assert [f"{one.start:%Y-%m-%dT%H:%M%z}" for one in seen.archives] == [
        "2026-11-23T01:00+0000",
        "2026-11-22T01:00+0000",
    ]
    assert (seen.count, seen.unique_size, seen.total_size, seen.encryption) == (2, 7, 9, "none")


async def test_more_archives_than_are_kept_are_counted(tmp_path):
    (seen,) = await ask(tmp_path, [listing("nas", *["2026-11-22T01:00:00"] * (MAX_ARCHIVES + 5))])

    assert len(seen.archives) == MAX_ARCHIVES
    assert seen.count == MAX_ARCHIVES + 5


async def test_an_archive_that_makes_no_sense_hides_no_other(tmp_path):
    answer = listing("nas", "2026-11-22T01:00:00", "yesterday")
    answer["archives"] += [17, {"name": "x", "id": "../..", "start": "2026-11-22T01:00:00"}, {"name": None}]

    (seen,) = await ask(tmp_path, [answer])

    assert [one.name for one in seen.archives] == ["a-0"]
    assert seen.count == 5


async def test_half_a_character_hides_no_archive(tmp_path):
    answer = listing("nas", "2026-11-22T01:00:00") | {"encryption": {"mode": "\ud800"}}
    answer["repository"]["id"] = "\udcff"

    (seen,) = await ask(tmp_path, [answer])

    assert (seen.available, seen.count, seen.encryption, seen.repository_id) == (True, 1, "?", "?")


async def test_a_repository_that_is_not_listed_is_not_taken_for_empty(tmp_path):
    seen = await ask(tmp_path, [listing("nas", "2026-11-22T01:00:00")], names=("nas", "offsite"))

    assert [(one.repository, one.available) for one in seen] == [("nas", True), ("offsite", False)]


@pytest.mark.parametrize(
    "answer", ["", "no json", "[", "{}", "[[1]]", '[{"archives": 1, "repository": 2}]', "[" * 100_000]
)
async def test_garbage_makes_a_repository_unavailable(tmp_path, answer):
    (seen,) = await ask(tmp_path, answer)

    assert not seen.available
    assert seen.message


@pytest.mark.parametrize(
    "program, message", [("babbles", "log_message"), ("is-not-here", "cannot start"), ("dies", "killed by signal 9")]
)
async def test_a_borgmatic_that_cannot_answer_says_why(tmp_path, program, message):
    (seen,) = await inventories(tmp_path, program).inventory(machine.job(), NOW)

    assert not seen.available
    assert message in seen.message


# --- Output ---------------------------------------------------------------------------------------------------------


class Heard:
    """Reads output and keeps all that was understood."""

    def __init__(self, *secrets: str) -> None:
        self.lines: list[LogLine] = []
        self.progress: list[Seen] = []
        self.reader = Reader(
            on_line=self.lines.append, on_progress=self.progress.append, now=lambda: NOW, scrub=Scrubber(secrets)
        )

    def read(self, output: bytes) -> Heard:
        lines = Lines()
        for line in (*lines.feed(output), lines.rest()):
            self.reader.stderr(line)
        return self


def wrapped(inner: dict[str, Any]) -> bytes:
    """Return a line of Borg's as borgmatic hands it on."""
    message = {"type": "log_message", "time": NOW.timestamp(), "message": json.dumps(inner), "levelname": "ERROR"}
    return json.dumps(message).encode() + b"\n"


def test_borgs_progress_inside_borgmatics_log_is_progress_and_no_error():
    heard = Heard().read(wrapped({"type": "archive_progress", "nfiles": 3, "original_size": 4, "path": "srv/a"}))

    assert heard.progress == [Seen(phase="create", files=3, original_size=4, path="srv/a")]
    assert heard.lines == []
    assert heard.reader.reasons == ()


def test_the_list_at_the_end_is_read_though_the_next_line_sticks_to_it():
    heard = Heard().read(b'[{"repository": {}}]{"type": "log_message", "message": "done", "levelname": "INFO"}')

    assert heard.reader.statistics == [{"repository": {}}]
    assert [line.message for line in heard.lines] == ["done"]


def test_a_lock_that_borg_takes_from_the_dead_is_told_and_is_no_warning():
    def line(message: str) -> bytes:
        return json.dumps({"type": "log_message", "message": message, "levelname": "WARNING"}).encode() + b"\n"

    of_the_dead = ["Killed stale lock vm@42.1-0.", "Removed stale exclusive roster lock for host vm@42 pid 1 thread 0."]

    heard = Heard().read(b"".join(map(line, of_the_dead)))
    assert [one.message for one in heard.lines] == of_the_dead
    assert not heard.reader.warned

    assert heard.read(line("Found stale lock vm@42.1-0, but not deleting")).reader.warned
    assert heard.reader.warning == "Found stale lock vm@42.1-0, but not deleting"


def test_the_summary_says_nothing_twice():
    def line(message: str) -> bytes:
        return json.dumps({"type": "log_message", "message": message, "levelname": "CRITICAL"}).encode() + b"\n"

    heard = Heard().read(
        line("it broke") + line("summary:") + line("it broke") + line("") + line("Need some help? https://x")
    )

    assert [one.message for one in heard.lines] == ["it broke"]


def test_half_a_character_in_the_statistics_does_not_cost_the_report():
    value = {"repository": {"label": "nas"}, "archive": {"name": "a\udcff", "id": "\ud800", "stats": {"nfiles": 3}}}

    heard = Heard()
    heard.reader.stdout(json.dumps([value]).encode())
    found = borgmatic_output.statistics(heard.reader.statistics, names={"/mnt/nas": "nas"})

    assert (found["nas"].archive, found["nas"].archive_id, found["nas"].files) == ("a?", "?", 3)


def test_a_time_that_cannot_be_is_now():
    for time in ("1e400", "-1", "true", '"x"', "99999999999999999999", "null"):
        heard = Heard().read(f'{{"type": "log_message", "message": "m", "levelname": "INFO", "time": {time}}}'.encode())
        assert [one.at for one in heard.lines] == [NOW]


def test_terminal_escapes_and_lone_surrogates_do_not_pass():
    (line,) = Heard().read(b'{"type": "log_message", "message": "\\u001b[31mred\\ud800", "levelname": "INFO"}').lines

    assert line.message == "red?"


@given(st.binary(max_size=4096), st.lists(st.integers(1, 4096), max_size=20))
def test_lines_are_the_same_however_the_bytes_arrive(data, cuts):
    whole, parts = Lines(), Lines()
    expected = [*whole.feed(data), whole.rest()]
    actual: list[bytes] = []
    start = 0
    for cut in cuts:
        actual += parts.feed(data[start : start + cut])
        start += cut
    actual += [*parts.feed(data[start:]), parts.rest()]

    assert actual == expected


def test_a_line_is_bounded_and_the_next_one_is_whole():
    lines = Lines()

    found = [line for _ in range(5) for line in lines.feed(b"x" * 1_000_000)]
    found += [*lines.feed(b"\nnext\n")]

    assert [len(line) for line in found] == [MAX_LINE_BYTES, 4]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from(["type", "message", "levelname", "time", "name", "archive", "archives", "repository", "stats",
                         "nfiles", "label", "location", "cache", "current", "total", "path", "id", "start"]),
        inner | st.sampled_from(["log_message", "archive_progress", "progress_percent", "file_status", "nas"]),
        max_size=6,
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.lists(json_values | st.text(max_size=50), max_size=8))
def test_nothing_that_borgmatic_could_print_breaks_the_reader(values):
    text = "\n".join(value if isinstance(value, str) else json.dumps(value) for value in values)

    heard = Heard().read(text.encode("utf-8", "surrogatepass"))

    borgmatic_output.statistics(heard.reader.statistics, names={"/x": "nas"})
    assert heard.reader.reason(1)[0]
    for line in heard.lines:
        assert LogLine.model_validate_json(line.model_dump_json()) == line


@given(st.binary(max_size=2000))
def test_no_bytes_break_the_reader(data):
    Heard().read(data)


@given(st.text("abcdef \n", min_size=6, max_size=30), st.text(max_size=20), st.text(max_size=20))
def test_a_secret_never_comes_through(secret, before, after):
    heard = Heard(secret).read(json.dumps({"type": "log_message", "message": before + secret + after}).encode())

    words = [part for part in secret.splitlines() if len(part) >= 6]
    assert not any(word in line.message for word in words for line in heard.lines)
