"""A configuration file as local policy reads it: plain YAML, from its exact bytes, that cannot be read in two ways.

Read with borgmatic's own parser, under rules that leave nothing to interpretation: no tags and so no ``!include``, no
anchors, no merge keys, no doubled keys. ``client.policy`` asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schema.desired import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schema.desired import ManagedFile

_MAX_BYTES = 1024 * 1024
_MAX_DEPTH = 12
_MAX_NODES = 50_000

Node = str | list["Node"] | dict[str, "Node"]
"""YAML with every scalar as its text: what type borgmatic makes of it matters to no rule here."""


class _Unreadable(ValueError):
    """A sentence's end: what about the YAML is refused."""


def read_options(file: ManagedFile) -> dict[str, Node]:
    """Return the options in a configuration file, scalars as their text. ``ValueError`` when it is not plain YAML."""
    node = _build(_events(HEADER.format(origin=file.origin, revision="0" * 12) + file.content))
    if not isinstance(node, dict):
        raise _Unreadable("is not a mapping of options")
    return node


def _events(text: str) -> Iterator[object]:
    """Yield the events of borgmatic's own parser."""
    # A client at rest never needs it.
    from ruamel.yaml import YAML  # noqa: PLC0415
    from ruamel.yaml.error import YAMLError  # noqa: PLC0415

    if len(text.encode()) > _MAX_BYTES:
        raise _Unreadable(f"is larger than {_MAX_BYTES // 1024} KiB")
    try:
        yield from YAML(typ="safe").parse(text)
    except YAMLError as error:
        raise _Unreadable(f"is not YAML ({str(error).splitlines()[0]})") from None


def _build(events: Iterator[object]) -> Node | None:
    """Return the one document as plain data, without recursion; refuse all that could be read in two ways."""
    root: Node | None = None
    stack: list[tuple[list[Node] | dict[str, Node], str | None]] = []
    documents = nodes = 0
    for event in events:
        kind = type(event).__name__
        if kind in {"StreamStartEvent", "StreamEndEvent", "DocumentEndEvent", "CommentEvent"}:
            continue
        if kind == "DocumentStartEvent":
            documents += 1
            if documents > 1 or getattr(event, "version", None) or getattr(event, "tags", None):
                raise _Unreadable("has directives or more than one document")
            continue
        if kind in {"MappingEndEvent", "SequenceEndEvent"}:
            stack.pop()
            continue
        nodes += 1
        _refuse_ambiguous(event, kind)
        node: Node = (
            str(getattr(event, "value", "")) if kind == "ScalarEvent" else [] if kind == "SequenceStartEvent" else {}
        )
        if stack and isinstance(stack[-1][0], dict) and stack[-1][1] is None:
            stack[-1] = stack[-1][0], _key(node, stack[-1][0])
            continue
        if not stack:
            root = node
        else:
            parent, key = stack[-1]
            if isinstance(parent, list):
                parent.append(node)
            else:
                parent[str(key)] = node
                stack[-1] = parent, None
        if not isinstance(node, str):
            stack.append((node, None))
        if len(stack) > _MAX_DEPTH or nodes > _MAX_NODES:
            raise _Unreadable("is too deep or too large")
    return root


def _refuse_ambiguous(event: object, kind: str) -> None:
    if kind == "AliasEvent" or getattr(event, "anchor", None):
        raise _Unreadable("has anchors or aliases")
    tag = getattr(event, "tag", None)
    if tag is not None and str(tag) not in {"", "None"}:
        raise _Unreadable(f"has the tag {tag}")


def _key(node: Node, mapping: dict[str, Node]) -> str:
    if not isinstance(node, str):
        raise _Unreadable("has a key that is not text")
    if node == "<<":
        raise _Unreadable("has a merge key")
    if node in mapping:
        raise _Unreadable(f"has the key '{node}' twice")
    return node
