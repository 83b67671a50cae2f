"""YAML as borgmatic reads it, strictly and safely: bytes in, plain JSON values with positions out. The door to PyYAML.

Called by ``load``. Built on libyaml's *events*: the constructors of PyYAML and ruamel.yaml recurse in C and die of
``"[" * 100_000``. Plain scalars mean what ruamel.yaml (YAML 1.2), and so borgmatic, takes them for: ``no`` is text,
``0o14`` is 12, ``014`` is 14. Two differences, both towards JSON: a date stays text, and infinite or huge numbers are
refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stub re-exports it without saying so

from reconciler.core import yaml_syntax
from reconciler.core.yaml_document import MAX_NODES, MAX_PROBLEMS, Document, DocumentBuilder, Exhausted, Unreadable
from schema.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from reconciler.core.yaml_document import Event

MAX_BYTES = 1024 * 1024


class ReadResult(NamedTuple):
    """The documents of one file that hold anything, and everything that is wrong with its YAML."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read(data: bytes, *, path: str) -> ReadResult:
    """Read all documents of a file. Never raises: what cannot be read is a problem, and reading goes on after it."""
    reader = _FileReader(data, path)
    reader.read()
    return ReadResult(tuple(reader.documents), tuple(reader.problems))


_LINE_BREAK = re.compile(rb"\r\n|\n|\r|\xc2\x85|\xe2\x80[\xa8\xa9]")
_DOCUMENT_START = re.compile(rb"^---(?=\s|\Z)", re.MULTILINE)


class _FileReader:
    """Reads one file; after a broken document it starts again at the next ``---``."""

    def __init__(self, data: bytes, path: str) -> None:
        self._data = data
        self._path = path
        self._first_line = 1  # of the part that is being read
        self._document_line = 0  # where the present document began; 0 between documents
        self._nodes = 0
        self.documents: list[Document] = []
        self.problems: list[Problem] = []

    def read(self) -> None:
        if problem := self._unfit():
            self.problems.append(problem)
            return
        part = self._data
        while True:
            try:
                self._read_part(part)
            except Exhausted:
                return
            except Unreadable as error:
                stopped_at = error.problem.line
                self.problems.append(error.problem)
            except yaml.reader.ReaderError as error:
                self.problems.append(self._unreadable_character(error, part))
                return
            except yaml.MarkedYAMLError as error:
                problem = self._syntax_problem(error, part)
                stopped_at = problem.line
                self.problems.append(problem)
            else:
                return
            following = self._next_document(stopped_at)
            if following is None or len(self.problems) >= MAX_PROBLEMS:
                return
            self._first_line, part = following

    def _unfit(self) -> Problem | None:
        """Return why this file is not looked into at all, or None."""
        data = self._data
        if len(data) > MAX_BYTES:
            return self._problem(
                "file-too-large",
                f"the file is larger than {MAX_BYTES // 1024} KiB, the most that is read",
                hint="split it: any number of files and folders is fine",
            )
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            return self._problem("not-utf-8", "the file is UTF-16, not UTF-8", hint="save it as UTF-8")
        return None

    def _read_part(self, part: bytes) -> None:
        """Read documents until the end of ``part``."""
        parser = CParser(part)
        next_event: Callable[[], Event] = parser.get_event
        builder: DocumentBuilder | None = None
        self._document_line = 0
        while (event := next_event()) is not None:
            kind = event.__class__
            if builder is not None:
                if kind is yaml.ScalarEvent:
                    builder.scalar(event)
                elif kind is yaml.MappingStartEvent:
                    builder.open(event, {})
                elif kind is yaml.SequenceStartEvent:
                    builder.open(event, [])
                elif kind is yaml.AliasEvent:
                    builder.alias(event)
                elif kind is yaml.DocumentEndEvent:
                    self._finish(builder)
                    builder = None
                    self._document_line = 0
                else:
                    builder.close()
            elif kind is yaml.DocumentStartEvent:
                self._document_line = event.start_mark.line + self._first_line
                self._check_version(event)
                builder = DocumentBuilder(
                    self._path, first_line=self._first_line, nodes_left=MAX_NODES - self._nodes, problems=self.problems
                )

    def _finish(self, builder: DocumentBuilder) -> None:
        self._nodes += builder.nodes
        if builder.root is not None:
            self.documents.append(Document(builder.root, builder.positions, intact=builder.intact))

    def _check_version(self, event: Event) -> None:
        if event.version is not None and event.version != (1, 2):
            self.problems.append(
                self._problem(
                    "yaml-version",
                    f"YAML {event.version[0]}.{event.version[1]} is not supported: files are read as YAML 1.2",
                    hint="remove the %YAML line, and write true and false instead of yes and no",
                    line=self._document_line,
                    column=1,
                )
            )

    def _next_document(self, stopped_at: int) -> tuple[int, bytes] | None:
        """Return where to go on after the problem in line ``stopped_at``: a line number and the bytes from there."""
        line, counted_to = 1, 0
        for match in _DOCUMENT_START.finditer(self._data):
            offset = match.start()
            line += len(_LINE_BREAK.findall(self._data, counted_to, offset))
            counted_to = offset
            if line > self._first_line and line > self._document_line and line >= stopped_at:
                return line, self._data[offset:]
        return None

    def _syntax_problem(self, error: Any, part: bytes) -> Problem:
        mark, context, context_mark = error.problem_mark, error.context or "", error.context_mark
        if mark is None:
            return self._problem("yaml-syntax", f"cannot read the YAML: {error}")
        lines = _LINE_BREAK.split(part)
        line = lines[mark.line].decode("utf-8", "replace") if mark.line < len(lines) else ""
        message, hint = yaml_syntax.explain(error.problem, context, character=line[mark.column : mark.column + 1])
        if context and context_mark is not None and context_mark.line != mark.line:
            message += f" ({context}, which began in line {context_mark.line + self._first_line})"
        elif context:
            message += f" ({context})"
        return self._problem(
            "yaml-syntax",
            f"cannot read the YAML: {message}",
            hint=hint,
            line=mark.line + self._first_line,
            column=mark.column + 1,
        )

    def _unreadable_character(self, error: yaml.reader.ReaderError, part: bytes) -> Problem:
        """Explain a byte that cannot stand in YAML. The whole file is in doubt then, so reading ends."""
        before = part[: error.position]
        breaks = list(_LINE_BREAK.finditer(before))
        line = self._first_line + len(breaks)
        column = len(before[breaks[-1].end() if breaks else 0 :].decode("utf-8", "replace")) + 1
        if b"\x00" in self._data:
            return self._problem(
                "binary-file",
                "the file holds a zero byte: it is binary, not YAML",
                hint="only resources belong into *.yaml and *.yml files",
                line=line,
                column=column,
            )
        if "control" in error.reason:
            return self._problem(
                "control-character",
                f"the control character U+{error.character:04X} is not allowed",
                hint='remove it, or write it as an escape inside double quotes: "\\x07"',
                line=line,
                column=column,
            )
        return self._problem(
            "not-utf-8", "the file is not UTF-8 here", hint="save it as UTF-8", line=line, column=column
        )

    def _problem(self, code: str, message: str, *, hint: str = "", line: int = 0, column: int = 0) -> Problem:
        return Problem(code=code, message=message, hint=hint, path=self._path, line=line, column=column)
