"""What a text of a configuration comes to, once borgmatic has put in constants and environment variables. Pure.

``policy`` judges what these return, never what is written: ``{credential file /etc/shadow}`` may come out of parts that
look harmless. What could be read in two ways is refused instead of understood.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client.policy_file import Node

# borgmatic.config.environment and borgmatic.config.constants
_VARIABLE = re.compile(r"(?P<escape>\\)?\$\{(?P<name>[A-Za-z0-9_]+)(?::?-(?P<default>[^}]+))?\}")
_CONSTANT = re.compile(r"(?P<left>\\)?\{(?P<name>\w+)(?P<right>\\)?\}")
_ESCAPED = re.compile(r"\\\$?\{")
_NOT_PLAIN = re.compile(r"[{}$\\]")
BREAKS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
"""Whatever somebody could take for the end of a line, and control characters."""


class Denied(ValueError):
    """A text that may not be. ``variable`` is the one that this machine's policy would have to list, if any."""

    def __init__(self, what: str, *, variable: str = "") -> None:
        super().__init__(what)
        self.variable = variable


class Texts:
    """Reads the texts of one configuration."""

    def __init__(self, constants: Node, *, may_read: Callable[[str], bool]) -> None:
        """Take the configuration's ``constants``. ``may_read`` says whether an environment variable is allowed."""
        self._constants = _plain(constants)
        self._may_read = may_read

    def put_in(self, text: str) -> str:
        """Return ``text`` with constants put in, and variables as they are.

        Raises:
            Denied: it reads a variable that is not allowed, or could be read in two ways.
        """
        replaced = _CONSTANT.sub(self._constant, text)
        for candidate in (text, replaced):
            if "${" in candidate[candidate.rfind("}") + 1 :]:
                # borgmatic's own search for its end would take the square of its length.
                raise Denied("an environment variable has no end")
            for match in _VARIABLE.finditer(candidate):
                self._check(match)
        return replaced

    def readings(self, text: str) -> set[str]:
        """Return what ``text`` may come to: with each variable unset, empty, and set to something."""
        replaced = _CONSTANT.sub(self._constant, text)
        end = replaced.rfind("}") + 1
        return {
            _VARIABLE.sub(partial(_variable, otherwise=one), replaced[:end]) + replaced[end:]
            for one in (None, "", "variable")
        }

    def _check(self, match: re.Match[str]) -> None:
        name = match["name"]
        if match["escape"]:
            return
        if not self._may_read(name):
            raise Denied(f"the environment variable '{name}' may not be read", variable=name)
        if _NOT_PLAIN.search(match["default"] or ""):
            raise Denied(f"the default of the environment variable '{name}' holds a brace, '$' or backslash")

    def _constant(self, match: re.Match[str]) -> str:
        if match["left"] and match["right"]:
            return f"{{{match['name']}}}"
        return self._constants.get(match["name"], match[0])


def has_variable(text: str) -> bool:
    """Whether borgmatic would put an environment variable into ``text``, or take the escape of one away."""
    return _VARIABLE.search(text) is not None


def is_escaped(node: Node) -> bool:
    """Whether a text in ``node`` is another one when it is read again, as a repository's own options are."""
    if isinstance(node, str):
        return _ESCAPED.search(node) is not None
    return any(map(is_escaped, node.values() if isinstance(node, dict) else node))


def _plain(constants: Node) -> Mapping[str, str]:
    if not isinstance(constants, dict):
        raise Denied("'constants' is not a mapping")
    for name, value in constants.items():
        if not isinstance(value, str) or _NOT_PLAIN.search(value) or BREAKS.search(value):
            raise Denied(f"constant '{name}' is not a plain value (no braces, '$', backslash or line break)")
    return {name: value for name, value in constants.items() if isinstance(value, str)}


def _variable(match: re.Match[str], *, otherwise: str | None) -> str:
    """Return what stands for an environment variable: ``otherwise``, or its default where it has one."""
    if match["escape"]:
        return match[0]
    return otherwise if otherwise is not None else match["default"] or ""
