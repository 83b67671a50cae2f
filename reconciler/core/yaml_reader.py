"""YAML as borgmatic reads it, strictly and safely: bytes in, plain JSON values with positions out. The door to PyYAML.

Called by ``load``. Built on libyaml's *events*: the constructors of PyYAML and ruamel.yaml recurse in C and die of
``"[" * 100_000``. Plain scalars mean what ruamel.yaml (YAML 1.2), and so borgmatic, takes them for: ``no`` is text,
``0o14`` is 12, ``014`` is 14. Two differences, both towards JSON: a date stays text, and infinite or huge numbers are
refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]  # its stub re-exports it without saying so

from reconciler.core import yaml_scalars, yaml_syntax
from schema.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from reconciler.core.catalogue import Pointer

_Event = Any
"""An event of libyaml. PyYAML's stubs say that its marks may be None; those of the C parser never are."""

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 64
MAX_NODES = 200_000
"""Keys, values and containers of one file, each alias counted as everything that it stands for."""
MAX_PROBLEMS = 100
"""In one file: who has made a hundred mistakes does not read on."""


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document. ``content`` is made of dict (text keys), list, str, int, float, bool and None."""

    content: Any
    positions: Mapping[Pointer, tuple[int, int]] = field(repr=False)
    """Line and column, from 1, of each key and each list item; ``()`` is the document's first node."""
    intact: bool
    """False when something in it could not be read as written; ``problems`` of the result say what."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The documents of one file that hold anything, and everything that is wrong with its YAML."""

    documents: tuple[Document, ...]
    problems: tuple[Problem, ...]


def read(data: bytes, *, path: str) -> ReadResult:
    """Read all documents of a file. Never raises: what cannot be read is a problem, and reading goes on after it."""
    reader = _FileReader(data, path)
    reader.read()
    return ReadResult(tuple(reader.documents), tuple(reader.problems))


class _Unreadable(Exception):
    """The rest of this document cannot be read; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class _Exhausted(Exception):
    """The rest of this file is not worth reading: a limit was reached, and a problem says so."""


# --- A file ---------------------------------------------------------------------------------------------------------

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
            except _Exhausted:
                return
            except _Unreadable as error:
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
        next_event: Callable[[], _Event] = parser.get_event
        builder: _DocumentBuilder | None = None
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
                builder = _DocumentBuilder(
                    self._path, first_line=self._first_line, nodes_left=MAX_NODES - self._nodes, problems=self.problems
                )

    def _finish(self, builder: _DocumentBuilder) -> None:
        self._nodes += builder.nodes
        if builder.root is not None:
            self.documents.append(Document(builder.root, builder.positions, intact=builder.intact))

    def _check_version(self, event: _Event) -> None:
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


# --- A document -----------------------------------------------------------------------------------------------------


class _Frame:
    """A mapping or list that is still open."""

    __slots__ = ("anchor", "container", "height", "key", "nodes_before", "pointer")

    def __init__(
        self, container: dict[str, Any] | list[Any], pointer: Pointer, anchor: str | None, nodes_before: int
    ) -> None:
        self.container = container
        self.pointer = pointer
        self.anchor = anchor
        self.nodes_before = nodes_before
        self.key: str | None = None  # of a mapping: the key whose value comes next
        self.height = 1


@dataclass(frozen=True, slots=True)
class _Anchored:
    """What an alias stands for, and what it costs."""

    value: Any
    nodes: int
    height: int


_TAG_PREFIX = "tag:yaml.org,2002:"


class _DocumentBuilder:
    """Builds one document from events, with an explicit stack."""

    def __init__(self, path: str, *, first_line: int, nodes_left: int, problems: list[Problem]) -> None:
        self._path = path
        self._first_line = first_line
        self._nodes_left = nodes_left
        self._problems = problems
        self._stack: list[_Frame] = []
        self._frame: _Frame | None = None
        self._anchors: dict[str, _Anchored | None] = {}
        self.root: Any = None
        self.nodes = 0
        self.positions: dict[Pointer, tuple[int, int]] = {}
        self.intact = True

    def scalar(self, event: _Event) -> None:
        self.nodes += 1
        if self.nodes > self._nodes_left:
            self._too_many_nodes(event)
        text = event.value
        frame = self._frame
        if frame is not None and frame.key is None and frame.container.__class__ is dict:
            self._key(frame, text, event)
        elif event.implicit[0]:
            first = text[:1]
            if first in yaml_scalars.WORD_STARTS:
                self._place(yaml_scalars.WORDS.get(text, text), event)
            elif first in yaml_scalars.NUMBER_STARTS:
                self._place(self._number(text, event), event)
            else:
                self._place(text, event)
        elif event.tag is None:
            self._place(text, event)
        else:
            self._place(self._tagged(text, event), event)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Anchored(self._last, 1, 0)

    def open(self, event: _Event, container: dict[str, Any] | list[Any]) -> None:
        self.nodes += 1
        if self.nodes > self._nodes_left:
            self._too_many_nodes(event)
        if len(self._stack) >= MAX_DEPTH:
            self._stop(
                event, "too-deep", f"this is nested more than {MAX_DEPTH} levels deep", "restructure the document"
            )
        if event.tag is not None and event.tag not in {"!", f"{_TAG_PREFIX}map", f"{_TAG_PREFIX}seq"}:
            self._refuse_tag(event)
        frame = self._frame
        pointer: Pointer
        if frame is None:
            pointer = ()
            if not self._stack:
                self.root = container
                self.positions[()] = self._position(event)
        elif frame.container.__class__ is dict:
            if frame.key is None:
                self._stop(event, "key-not-text", "a key must be text, not a mapping or a list", _KEY_HINT)
            pointer = (*frame.pointer, frame.key)
        else:
            pointer = (*frame.pointer, len(frame.container))
            self.positions[pointer] = self._position(event)
        self._attach(container)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._frame = _Frame(container, pointer, event.anchor, self.nodes)
        self._stack.append(self._frame)

    def close(self) -> None:
        frame = self._stack.pop()
        if frame.anchor is not None:
            self._anchors[frame.anchor] = _Anchored(frame.container, self.nodes - frame.nodes_before + 1, frame.height)
        self._frame = self._stack[-1] if self._stack else None
        if self._frame is not None and self._frame.height <= frame.height:
            self._frame.height = frame.height + 1

    def alias(self, event: _Event) -> None:
        name = event.anchor
        anchored = self._anchors.get(name)
        if anchored is None:
            if name in self._anchors:
                self._stop(
                    event,
                    "endless-alias",
                    f"the alias '*{name}' stands inside what it refers to",
                    "write the value out",
                )
            hint = f"define it above with '&{name}', or put the value in quotes: '*{name}'"
            self._stop(event, "unknown-anchor", f"there is no anchor '&{name}' above this alias", hint)
        self.nodes += anchored.nodes
        if self.nodes > self._nodes_left:
            self._too_many_nodes(event)
        if len(self._stack) + anchored.height > MAX_DEPTH:
            self._stop(
                event,
                "too-deep",
                f"with its aliases this is nested more than {MAX_DEPTH} levels deep",
                "write fewer aliases",
            )
        frame = self._frame
        if frame is not None and frame.key is None and frame.container.__class__ is dict:
            if not isinstance(anchored.value, str):
                self._stop(event, "key-not-text", "a key must be text", _KEY_HINT)
            self._take_key(frame, anchored.value, event)
            return
        self._place(anchored.value, event)
        if frame is not None and frame.height <= anchored.height:
            frame.height = anchored.height + 1

    # --- keys and values

    def _key(self, frame: _Frame, text: str, event: _Event) -> None:
        if event.implicit[0]:
            if text == "<<":
                self._report(
                    event,
                    "merge-key",
                    "the merge key '<<' is not supported",
                    "share options through a Profile and `profiles: [name]`, or write them out",
                )
            elif text[:1] in yaml_scalars.KEY_STARTS and not isinstance(yaml_scalars.plain(text), str):
                self._report(
                    event, "key-not-text", f"the key {text[:40]!r} is not text", f"put it in quotes: '{text[:40]}'"
                )
        elif event.tag is not None and event.tag != f"{_TAG_PREFIX}str":
            self._refuse_tag(event)
        self._take_key(frame, text, event)
        self._last = text

    def _take_key(self, frame: _Frame, key: str, event: _Event) -> None:
        pointer = (*frame.pointer, key)
        mark = event.start_mark
        position = (mark.line + self._first_line, mark.column + 1)
        if key in frame.container:
            line, _ = self.positions[pointer]
            self._report(
                event,
                "duplicate-key",
                f"the key '{key[:80]}' stands twice in this mapping (first in line {line})",
                "remove one",
            )
        self.positions[pointer] = position
        frame.key = key

    def _place(self, value: Any, event: _Event) -> None:
        """Put a finished value where it belongs, and note the position of a list item or of the document."""
        frame = self._frame
        if frame is None:
            self.root = value
            self.positions[()] = self._position(event)
        elif frame.key is not None:
            frame.container[frame.key] = value  # type: ignore[call-overload]  # a frame with a key is a mapping
            frame.key = None
        else:
            container = frame.container
            mark = event.start_mark
            self.positions[*frame.pointer, len(container)] = (mark.line + self._first_line, mark.column + 1)
            container.append(value)  # type: ignore[union-attr]  # one without a key is a list here
        self._last = value

    def _attach(self, container: dict[str, Any] | list[Any]) -> None:
        frame = self._frame
        if frame is None:
            return
        if frame.key is not None:
            frame.container[frame.key] = container  # type: ignore[call-overload]  # as in _place
            frame.key = None
        else:
            frame.container.append(container)  # type: ignore[union-attr]

    def _number(self, text: str, event: _Event) -> Any:
        value = yaml_scalars.plain(text)
        if value is yaml_scalars.UNFIT:
            self._report(
                event,
                "number-too-large",
                "this number is infinite, not a number, or too large",
                "put it in quotes if it is meant as text",
            )
            return text
        return value

    def _tagged(self, text: str, event: _Event) -> Any:
        """Return a scalar with an explicit standard tag; other tags are problems."""
        kind = event.tag.removeprefix(_TAG_PREFIX)
        if kind in {"str", "!"}:
            return text
        if kind not in yaml_scalars.TAGGED_TYPES:
            self._refuse_tag(event)
            return text
        value = yaml_scalars.plain(text)
        if type(value) in yaml_scalars.TAGGED_TYPES[kind]:
            return float(value) if kind == "float" else value
        self._report(event, "wrong-tag", f"this is not what its tag '!!{kind}' says", "remove the tag")
        return text

    def _refuse_tag(self, event: _Event) -> None:
        tag = event.tag
        shown = f"!!{tag.removeprefix(_TAG_PREFIX)}" if tag.startswith(_TAG_PREFIX) else tag
        self._report(
            event, "unsupported-tag", f"the tag '{shown[:80]}' is not supported", _TAG_HINTS.get(tag, "remove the tag")
        )

    # --- problems

    def _position(self, event: _Event) -> tuple[int, int]:
        return event.start_mark.line + self._first_line, event.start_mark.column + 1

    def _report(self, event: _Event, code: str, message: str, hint: str) -> None:
        self.intact = False
        line, column = self._position(event)
        self._problems.append(Problem(code=code, message=message, hint=hint, path=self._path, line=line, column=column))
        if len(self._problems) >= MAX_PROBLEMS:
            raise _Exhausted

    def _stop(self, event: _Event, code: str, message: str, hint: str) -> NoReturn:
        line, column = self._position(event)
        raise _Unreadable(Problem(code=code, message=message, hint=hint, path=self._path, line=line, column=column))

    def _too_many_nodes(self, event: _Event) -> NoReturn:
        self._report(
            event,
            "too-many-nodes",
            f"the file holds more than {MAX_NODES} values (each alias counts as all that it stands for)",
            "split it into several files, or use fewer aliases",
        )
        raise _Exhausted


_KEY_HINT = "put a value that begins with '{' or '[' in quotes when it is meant as text"
_TAG_HINTS = {
    "!include": "share options through a Profile and `profiles: [name]`: the director reads no other file",
    "!retain": "write `layering: {OPTION: replace}` beside `borgmatic:` instead",
    "!omit": "write `layering: {OPTION: replace}` beside `borgmatic:`, and the list as it should be",
}
