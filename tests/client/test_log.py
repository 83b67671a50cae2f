"""What the service says, line by line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import structlog

from client import log

ROOT = Path(__file__).parents[2]
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
LINES = """
from client import log
log.configure({level!r})
said = log.get_logger()
said.debug("a", number=1)
said.info("b", path=__import__("pathlib").Path("/x"), word="ü")
said.warning("c", url="ssh://me:secret@host/x")
said.error("d")
try:
    1 / 0
except ZeroDivisionError:
    said.exception("e", loop="runs")
"""


def said(level: str) -> list[dict[str, object]]:
    command = [sys.executable, "-c", LINES.format(level=level)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_a_service_writes_a_line_of_json_for_each_thing_that_happened():
    lines = said("debug")

    assert all(MOMENT.fullmatch(str(line.pop("timestamp"))) for line in lines)
    assert "ZeroDivisionError: division by zero" in str(lines[-1].pop("exception"))
    assert lines == [
        {"event": "a", "level": "debug", "number": 1},
        {"event": "b", "level": "info", "path": "PosixPath('/x')", "word": "ü"},
        {"event": "c", "level": "warning", "url": "ssh://me:***@host/x"},
        {"event": "d", "level": "error"},
        {"event": "e", "level": "error", "loop": "runs"},
    ]


def test_what_is_below_the_level_is_not_written():
    assert [line["event"] for line in said("warning")] == ["c", "d", "e"]


def test_where_the_process_has_structlog_it_gets_what_the_client_says(monkeypatch):
    monkeypatch.setattr(log, "_write", log._write)
    with structlog.testing.capture_logs() as lines:
        log.through_structlog()
        log.get_logger().warning("a loop stopped", loop="runs")

    assert lines == [{"event": "a loop stopped", "log_level": "warning", "loop": "runs"}]


def test_a_service_loads_no_structlog():
    code = "import sys, client.cli, client.service, client.log; print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
