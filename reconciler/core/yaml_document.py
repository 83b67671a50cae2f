"""One YAML document from libyaml's events: plain JSON values, where each stands, and the limits of what one may hold.

Used by ``yaml_reader``, which reads files of documents. The stack is explicit, so that no nesting can exhaust C's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from reconciler.core import yaml_scalars
from schema.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from reconciler.core.catalogue import Pointer

Event = Any
"""An event of libyaml. PyYAML's stubs say that its marks may be None; those of the C parser never are."""

MAX_DEPTH = 64
MAX_NODES = 200_000
"""Keys, values and containers of one file, each alias counted as everything that it stands for."""
MAX_PROBLEMS = 100
"""In one file: who has made a hundred mistakes does not read on."""


class Document(NamedTuple):
    """One YAML document. ``content`` is made of dict (text keys), list, str, int, float, bool and None."""

    content: Any
    positions: Mapping[Pointer, tuple[int, int]]
    """Line and column, from 1, of each key and each list item; ``()`` is the document's first node."""
    intact: bool
    """False when something in it could not be read as written; ``problems`` of the result say what."""


class Unreadable(Exception):
    """The rest of this document cannot be read; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


class Exhausted(Exception):
    """The rest of this file is not worth reading: a limit was reached, and a problem says so."""


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


class _Anchored(NamedTuple):
    """What an alias stands for, and what it costs."""

    value: Any
    nodes: int
    height: int


_TAG_PREFIX = "tag:yaml.org,2002:"


class DocumentBuilder:
    """Builds one document from events, with an explicit stack: ``root`` and ``positions`` when its last one came."""

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

    def scalar(self, event: Event) -> None:
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

    def open(self, event: Event, container: dict[str, Any] | list[Any]) -> None:
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

    def alias(self, event: Event) -> None:
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

    def _key(self, frame: _Frame, text: str, event: Event) -> None:
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
        self._last = text
        if text in frame.container:
            self._take_key(frame, text, event)
            return
        # As ``_take_key`` does, which half of all events would otherwise call.
        mark = event.start_mark
        self.positions[*frame.pointer, text] = (mark.line + self._first_line, mark.column + 1)
        frame.key = text

    def _take_key(self, frame: _Frame, key: str, event: Event) -> None:
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

    def _place(self, value: Any, event: Event) -> None:
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

    def _number(self, text: str, event: Event) -> Any:
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

    def _tagged(self, text: str, event: Event) -> Any:
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

    def _refuse_tag(self, event: Event) -> None:
        tag = event.tag
        shown = f"!!{tag.removeprefix(_TAG_PREFIX)}" if tag.startswith(_TAG_PREFIX) else tag
        self._report(
            event, "unsupported-tag", f"the tag '{shown[:80]}' is not supported", _TAG_HINTS.get(tag, "remove the tag")
        )

    # --- problems

    def _position(self, event: Event) -> tuple[int, int]:
        return event.start_mark.line + self._first_line, event.start_mark.column + 1

    def _report(self, event: Event, code: str, message: str, hint: str) -> None:
        self.intact = False
        line, column = self._position(event)
        self._problems.append(Problem(code=code, message=message, hint=hint, path=self._path, line=line, column=column))
        if len(self._problems) >= MAX_PROBLEMS:
            raise Exhausted

    def _stop(self, event: Event, code: str, message: str, hint: str) -> NoReturn:
        line, column = self._position(event)
        raise Unreadable(Problem(code=code, message=message, hint=hint, path=self._path, line=line, column=column))

    def _too_many_nodes(self, event: Event) -> NoReturn:
        self._report(
            event,
            "too-many-nodes",
            f"the file holds more than {MAX_NODES} values (each alias counts as all that it stands for)",
            "split it into several files, or use fewer aliases",
        )
        raise Exhausted


_KEY_HINT = "put a value that begins with '{' or '[' in quotes when it is meant as text"
_TAG_HINTS = {
    "!include": "share options through a Profile and `profiles: [name]`: the director reads no other file",
    "!retain": "write `layering: {OPTION: replace}` beside `borgmatic:` instead",
    "!omit": "write `layering: {OPTION: replace}` beside `borgmatic:`, and the list as it should be",
}
