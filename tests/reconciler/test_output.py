"""What commands share: words for a terminal, and nothing but data for a pipe."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
import yaml

from reconciler.commands.output import json_text, one_line, print_data, printable


@pytest.mark.parametrize("char", ["\x00", "\x07", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\ufeff", "\ud800"])
def test_what_a_terminal_might_obey_is_never_printed(char: str) -> None:
    assert printable(f"a{char}b") == "a�b"
    text = json_text({f"k{char}": [f"a{char}b"]})
    assert char not in text
    assert json.loads(text) == {f"k{char}": [f"a{char}b"]}


def test_one_line_stays_one_line() -> None:
    assert one_line("all is well\nerror: nothing is\r\n") == "all is well ⏎ error: nothing is"


def test_text_of_all_languages_is_left_as_it_is() -> None:
    assert printable("Größe 文字 🙂") == "Größe 文字 🙂"
    assert json_text(["Größe 文字 🙂"], indent=None) == '["Größe 文字 🙂"]'


def test_yaml_is_read_back_as_what_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for data in (["Größe", "\u202e\x9b"], {"a": None, "b": "yes", "c": "2026-11-23"}):
        print_data(data, "yaml")
        printed = capsys.readouterr().out
        assert yaml.safe_load(printed) == data
        assert printed.replace("\n", "").isprintable()


SLOW = """
import sys, threading
from reconciler.commands import output
output._MOMENT_SECONDS = 0.01
with output.working("counting sheep"):
    if sys.stderr.isatty():
        import os, time
        told = threading.Event()
        echo = output.click.echo
        output.click.echo = lambda *words, **options: (echo(*words, **options), told.set())
        told.wait(30)
print("done")
"""


def test_long_work_is_shown_on_a_terminal_and_wiped_and_never_in_a_pipe() -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 4096).decode()
    os.close(ours)
    assert done.stdout == b"done\n"
    assert "counting sheep … 0 s" in shown
    assert shown.endswith("\r\x1b[K")
    piped = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, check=True, timeout=60)
    assert (piped.stdout, piped.stderr) == (b"done\n", b"")
