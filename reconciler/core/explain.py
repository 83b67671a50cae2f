"""Plain sentences for what pydantic refuses, in the words and at the places of the person who wrote the YAML.

Called by ``load`` (and by ``validate`` for ``did_you_mean``). Values are shown only where no secret can stand.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from schema import scalars
from schema.errors import Severity

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

    from reconciler.core.catalogue import Pointer

MAX_FAULTS = 100
"""Of one resource: who has made a hundred mistakes does not read on."""
_SHOWN = 60


class Fault(NamedTuple):
    """One thing wrong inside one resource."""

    code: str
    pointer: Pointer
    message: str
    hint: str = ""
    severity: Severity = Severity.ERROR


class Known:
    """The names of one kind, for hints at what may have been meant; bounded, however many names and mistakes."""

    _MAX_CANDIDATES = 200
    _MAX_WORDS = 200

    def __init__(self, kind: str, names: Collection[str]) -> None:
        self.kind = kind
        self.names = names
        self._hints: dict[str, str] = {}
        self._listed = ""

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def hint(self, name: str) -> str:
        """Return ``did you mean 'x'?``, or which names there are."""
        found = self._hints.get(name)
        if found is None and len(self._hints) < self._MAX_WORDS:
            alike = (one for one in sorted(self.names) if abs(len(one) - len(name)) <= 3 and _ends_alike(one, name))
            found = self._hints[name] = did_you_mean(name, list(islice(alike, self._MAX_CANDIDATES)))
        return found or self._all()

    def _all(self) -> str:
        if not self._listed:
            there = f"there are: {listed(sorted(self.names))}"
            self._listed = there if self.names else f"the source has no {self.kind} at all"
            if self.kind == "Secret":
                self._listed += "; `director seal . SECRET KEY` makes one"
        return self._listed


def _ends_alike(first: str, second: str) -> bool:
    return first[:1] == second[:1] or first[-1:] == second[-1:]


def did_you_mean(word: object, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest of the known words, or nothing when none is near."""
    if not isinstance(word, str):
        return ""
    by_lower = {name.lower().replace("_", ""): name for name in known}
    import difflib  # noqa: PLC0415 - most sources hold no mistake

    close = difflib.get_close_matches(word[:100].lower().replace("_", ""), by_lower, n=1, cutoff=0.6)
    return f"did you mean '{by_lower[close[0]]}'?" if close else ""


def listed(names: Iterable[str], *, limit: int = 20) -> str:
    """Return names for a sentence: ``a, b, c``, and how many more."""
    names = list(names)
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def shown(value: Any) -> str:
    """Return a short description of a value: its kind, and the value itself when it is a scalar."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"'{value}'" if len(value) <= _SHOWN else f"'{value[: _SHOWN - 1]}…'"
        case list():
            return "a list"
        case _:
            return "a mapping"


def title(content: Any) -> str:
    """Return ``Backup 'web-files'``, as far as the document says what it is."""
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{content['kind']} {shown(name)}" if isinstance(name, str) else f"this {content['kind']}"


def faults(error: ValidationError, model: type[BaseModel], content: Any) -> list[Fault]:
    """Return what is wrong with ``content``, which ``model`` refused, without pydantic's words and branches."""
    found: dict[tuple[str, Pointer], Fault] = {}
    for details in error.errors(include_url=False):
        if len(found) >= MAX_FAULTS:
            break
        pointer, at_key, branch = _pointer(details["loc"], content)
        if branch is not None and not _is_meant(branch, value_at(content, pointer[: branch.depth])):
            continue
        fault = _fault(details, pointer, model=model, content=content, at_key=at_key)
        found.setdefault((fault.code, fault.pointer), fault)
    return list(found.values())


# --- Places ---------------------------------------------------------------------------------------------------------


class _Branch(NamedTuple):
    """One alternative of a union, which pydantic names in its location: ``list[…]`` or a model."""

    label: str
    depth: int


def _pointer(location: tuple[str | int, ...], content: Any) -> tuple[Pointer, bool, _Branch | None]:
    """Return the pointer that pydantic's location means, whether it is the key itself, and the union's branch."""
    pointer: Pointer = ()
    node = content
    branch = None
    for index, part in enumerate(location):
        if (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        ):
            node = value_at(node, (part,))
            pointer = (*pointer, part)
        elif part == "[key]" and index == len(location) - 1:
            return pointer, True, branch
        elif index == len(location) - 1 and not _is_branch(part):
            pointer = (*pointer, part)
        else:
            branch = _Branch(str(part), len(pointer))
    return pointer, False, branch


def _is_branch(part: str | int) -> bool:
    return isinstance(part, str) and (part.startswith("list[") or part == "Selector")


def _is_meant(branch: _Branch, value: Any) -> bool:
    """Whether the person meant this alternative: a mapping is meant as a model, everything else as a list."""
    return isinstance(value, dict) != branch.label.startswith("list[")


def value_at(content: Any, pointer: Pointer) -> Any:
    """Return the value at ``pointer``, or None when there is none."""
    for part in pointer:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def _path(pointer: Pointer) -> str:
    text = ""
    for part in pointer:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _annotations(annotation: Any) -> Iterator[Any]:
    """Yield the alternatives of an annotation: models, and list and dict types."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _annotations(get_args(annotation)[0])
    elif origin in {list, dict} or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _annotations(argument)


def _models_at(model: type[BaseModel], pointer: Pointer) -> list[type[BaseModel]]:
    """Return the models that may stand at ``pointer``."""
    here: list[Any] = [model]
    for part in pointer:
        following: list[Any] = []
        for annotation in here:
            if get_origin(annotation) in {list, dict}:
                following += _annotations(get_args(annotation)[-1])
            else:
                fields = annotation.model_fields.values()
                following += [one for field in fields if field.alias == part for one in _annotations(field.annotation)]
        here = following
    return [annotation for annotation in here if get_origin(annotation) is None]


def _fields_at(model: type[BaseModel], pointer: Pointer) -> list[str]:
    return [field.alias or name for one in _models_at(model, pointer) for name, field in one.model_fields.items()]


# --- Sentences ------------------------------------------------------------------------------------------------------

_TYPES = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}

_PATTERNS = {
    scalars.NAME_PATTERN: "lower-case letters, digits and hyphens, at most 63, with a letter or digit at both ends",
    scalars.SECRET_KEY_PATTERN: "letters, digits, hyphens and underscores, at most 63",
    r"^[a-z0-9_]{1,64}$": "the name of a borgmatic option",
    r"^[0-9]{1,9}[KMGT]?$": "a size such as 500G (K, M, G or T)",
    r"^[^\x00-\x1f]+$": "one line without control characters",
}
_SECRET_PATTERNS = {
    "bd1-sealed": (
        "a sealed value ('bd1-sealed.…')",
        "`director seal` makes them; a plain value does not belong into Git",
    ),
    "bd1-client": (
        "a client's public key ('bd1-client.' and 86 characters)",
        "copy what `director-client fingerprint` prints on that machine",
    ),
    "bd1-escrow": ("a public escrow key ('bd1-escrow.' and 43 characters)", "copy the whole key"),
}


def _fault(details: ErrorDetails, pointer: Pointer, *, model: type[BaseModel], content: Any, at_key: bool) -> Fault:
    of = f"of {title(content)}"
    kind, context = details["type"], details.get("ctx", {})
    path = _path(pointer)
    if kind == "missing":
        place = f"in {_path(pointer[:-1])} {of}" if pointer[:-1] else f"in {title(content)}"
        return Fault(
            "missing-field", pointer, f"the field '{pointer[-1]}' is missing {place}", _description(model, pointer)
        )
    if kind == "extra_forbidden":
        fields = _fields_at(model, pointer[:-1])
        place = f"in {_path(pointer[:-1])} {of}" if pointer[:-1] else f"in {title(content)}"
        hint = did_you_mean(pointer[-1], fields) or f"the fields here are {listed(fields)}"
        return Fault("unknown-field", pointer, f"unknown field '{pointer[-1]}' {place}", hint)
    if kind in _TYPES:
        return _wrong_type(details, pointer, of=of, model=model)
    if kind == "literal_error":
        return _not_allowed(details, pointer, of=of)
    if kind == "string_pattern_mismatch":
        return _mismatch(str(context["pattern"]), details["input"], pointer, of=of, at_key=at_key)
    if kind in {"too_short", "string_too_short"}:
        return Fault("invalid-value", pointer, f"{path} {of} must not be empty")
    if kind in {"too_long", "string_too_long"}:
        return Fault("invalid-value", pointer, f"{path} {of} is too long: at most {context['max_length']}")
    return Fault("invalid-value", pointer, f"{path} {of}: {_reason(details)}")


def _reason(details: ErrorDetails) -> str:
    """Return the sentence of our own validator, or pydantic's without its capital."""
    error = details.get("ctx", {}).get("error")
    if error is not None:
        return str(error)
    return details["msg"][:1].lower() + details["msg"][1:]


def _wrong_type(details: ErrorDetails, pointer: Pointer, *, of: str, model: type[BaseModel]) -> Fault:
    value = details["input"]
    wanted = _TYPES[details["type"]]
    if pointer == ("spec", "clients"):
        wanted = "a list of names, or {matchLabels: …}"
    hint = ""
    if details["type"] == "bool_type" and isinstance(value, str):
        hint = "write true or false without quotes: in YAML 1.2 yes, no, on and off are text"
    elif details["type"] == "string_type" and isinstance(value, (bool, int, float)):
        hint = f"put it in quotes: '{shown(value).removeprefix('the number ')}'"
    elif details["type"] == "list_type" and isinstance(value, str):
        hint = "write [a, b], or one '- item' in each line"
    elif details["type"].startswith("model"):
        hint = f"its fields are {listed(_fields_at(model, pointer))}"
    given = "text" if isinstance(value, str) and "mapping" in wanted else shown(value)
    return Fault("wrong-type", pointer, f"{_path(pointer)} {of} must be {wanted}, not {given}", hint)


def _not_allowed(details: ErrorDetails, pointer: Pointer, *, of: str) -> Fault:
    value = details["input"]
    expected = str(details.get("ctx", {}).get("expected", ""))
    allowed = [word for index, word in enumerate(expected.split("'")) if index % 2]
    hint = did_you_mean(value, allowed)
    if str(value) in allowed and not isinstance(value, str):
        hint = f"put it in quotes: '{value}'"
    return Fault("invalid-value", pointer, f"{_path(pointer)} {of} must be {expected}, not {shown(value)}", hint)


def _mismatch(pattern: str, value: Any, pointer: Pointer, *, of: str, at_key: bool) -> Fault:
    for prefix, (wanted, hint) in _SECRET_PATTERNS.items():
        if pattern.startswith(f"^{prefix}"):
            return Fault("invalid-value", pointer, f"{_path(pointer)} {of} must be {wanted}", hint)
    wanted = _PATTERNS.get(pattern, f"as the pattern {pattern} says")
    if "labels" in pointer or "annotations" in pointer or "matchLabels" in pointer:
        wanted = "letters, digits, '.', '_' and '-', at most 63, with a letter or digit at both ends"
        wanted += " (before it, optionally a domain name and '/')" if at_key else ""
    subject = f"the key {shown(pointer[-1])} in {_path(pointer[:-1])}" if at_key else _path(pointer)
    given = "" if at_key else f", not {shown(value)}"
    return Fault(
        "invalid-name" if at_key or pattern == scalars.NAME_PATTERN else "invalid-value",
        pointer,
        f"{subject} {of} must be {wanted}{given}",
    )


def _description(model: type[BaseModel], pointer: Pointer) -> str:
    """Return what the missing field is for."""
    for one in _models_at(model, pointer[:-1]):
        for field in one.model_fields.values():
            if field.alias == pointer[-1] and field.description:
                return field.description
    if pointer == ("metadata",):
        return "write metadata: {name: …}"
    if len(pointer) == 1 and pointer[0] == "spec":
        return f"its fields are {listed(_fields_at(model, pointer))}"
    return ""
