"""What others wrote, fit for a terminal. For ``client.printing``, and for the log where a person reads it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return ``text`` without control characters: a file's name must not steer a terminal."""
    return "".join(char if char.isprintable() else "?" for char in text.replace("\n", " "))


def printable_lines(text: str) -> str:
    """Return ``text`` in its lines, without control characters: nor must what a director says when it refuses."""
    return "\n".join(map(printable, text.split("\n")))
