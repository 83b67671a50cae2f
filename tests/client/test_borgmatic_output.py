from __future__ import annotations

from datetime import UTC, datetime

import pytest

from client.borgmatic_output import Reader, Scrubber
from schema.observed import LogLine

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize("between", ["", "\x02" * 80, "\x1b[31m", "\x1b[0m\x07"])
def test_a_secret_is_taken_out_whatever_a_terminal_would_not_show_within_it(between: str):
    lines: list[LogLine] = []
    reader = Reader(
        on_line=lines.append, on_progress=lambda _: None, now=lambda: NOW, scrub=Scrubber(["correct horse"])
    )

    reader.stderr(f"error: the passphrase correct{between} horse is wrong".encode())
    reader.stderr(f"error: at ssh://user:{between}battery@host".encode())

    assert [line.message for line in lines] == [
        "error: the passphrase *** is wrong",
        "error: at ssh://user:***@host",
    ]
