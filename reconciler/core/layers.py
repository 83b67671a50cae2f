"""One ``borgmatic:`` block by itself: what is wrong in it, and which secrets it refers to.

Called by ``validate``. What is found has pointers and no file, so that ``Layers`` can hand it on for as long as the
resource is the same object, which a parse cache makes it while its blob does not change.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from reconciler.core.borgmatic_options import BLOCK, SECRET_OPTION, OptionChecker
from reconciler.core.explain import MAX_FAULTS, Fault
from schema.errors import Severity
from schema.resources import SECRET_REFERENCE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from reconciler.core.catalogue import Pointer
    from schema.resources import Backup, Profile

_LOOKS_LIKE_REFERENCE = re.compile(r"\{\s*secret\b", re.IGNORECASE)
_REFERENCE = re.compile(r"^\{(?:secret|credential) |\{\w+\}|\$\{\w+")
_URL_PASSWORD = re.compile(r"(?<![a-z0-9+.-])[a-z0-9+.-]+://[^\s/:@]*:(?![{$])[^\s/@]+@", re.IGNORECASE)


class Reference(NamedTuple):
    """A ``{secret NAME KEY}`` as it was written."""

    pointer: Pointer
    secret: str
    key: str | None


class Layer(NamedTuple):
    """What there is to say of one block."""

    faults: tuple[Fault, ...]
    references: tuple[Reference, ...]
    is_whole: bool
    """Whether it lacks nothing that another layer would have to give."""


class Layers:
    """What was found in each block, for as long as its resource is the same object."""

    def __init__(self, checker: OptionChecker) -> None:
        self._checker = checker
        self._known: dict[tuple[str, str], tuple[Profile | Backup, Layer]] = {}

    def layer(self, resource: Profile | Backup) -> Layer:
        """Return what there is to say of the resource's block."""
        key = (resource.kind, resource.metadata.name)
        known = self._known.get(key)
        if known is None or known[0] is not resource:
            known = self._known[key] = (resource, examine(resource, self._checker))
        return known[1]

    def forget(self, kind: str, name: str) -> None:
        """Forget a resource that is gone."""
        self._known.pop((kind, name), None)


def examine(resource: Profile | Backup, checker: OptionChecker) -> Layer:
    """Return what there is to say of the resource's block, at most ``MAX_FAULTS`` faults."""
    spec = resource.spec
    faults = list(islice(checker.faults(spec.borgmatic), MAX_FAULTS))
    faults += islice(_layering_faults(spec.layering, checker), MAX_FAULTS)
    if "ssh_command" in spec.borgmatic:
        faults.append(_SSH_COMMAND)
    references: list[Reference] = []
    for pointer, text in _strings(spec.borgmatic):
        if "secret" in text:
            match = SECRET_REFERENCE.match(text)
            if match is not None:
                references.append(Reference(pointer, match["name"], match["key"]))
                continue
            if _LOOKS_LIKE_REFERENCE.search(text):
                faults.append(_no_reference(pointer))
        if _is_readable_secret(pointer, text):
            faults.append(_plaintext(pointer))
    return Layer(tuple(faults[: 2 * MAX_FAULTS]), tuple(references), checker.is_whole(spec.borgmatic))


def _layering_faults(layering: Mapping[str, str], checker: OptionChecker) -> Iterator[Fault]:
    for option in layering:
        hint = checker.unknown_option(option)
        if hint is not None:
            message = f"borgmatic does not know the option '{option}'"
            yield Fault("unknown-borgmatic-option", ("spec", "layering", option), message, hint)


def _strings(block: Any) -> Iterator[tuple[Pointer, str]]:
    """Yield every text inside the block with its pointer, in the order written."""
    stack: list[tuple[Pointer, Any]] = [(BLOCK, block)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, str):
            yield place, item
        elif isinstance(item, dict):
            stack += [((*place, key), inner) for key, inner in reversed(item.items())]
        elif isinstance(item, list):
            stack += [((*place, index), item[index]) for index in range(len(item) - 1, -1, -1)]


def _option(pointer: Pointer) -> str:
    return next((part for part in reversed(pointer) if isinstance(part, str)), "")


def _is_readable_secret(pointer: Pointer, text: str) -> bool:
    if "://" in text and _URL_PASSWORD.search(text):
        return True
    return bool(text) and SECRET_OPTION.search(_option(pointer)) is not None and _REFERENCE.search(text) is None


def _plaintext(pointer: Pointer) -> Fault:
    name = _option(pointer)
    return Fault(
        "plaintext-secret",
        pointer,
        f"the secret in '{name}' stands readable in Git",
        f"seal it with `director seal . NAME {name}`, write '{{secret NAME}}' here, and change the secret",
        Severity.WARNING,
    )


def _no_reference(pointer: Pointer) -> Fault:
    return Fault(
        "invalid-secret-reference",
        pointer,
        "this is no reference to a secret: it must be the whole value, '{secret NAME}' or '{secret NAME KEY}'",
        "seal the whole value, and refer to it alone",
    )


_SSH_COMMAND = Fault(
    "ssh-command",
    (*BLOCK, "ssh_command"),
    "ssh_command runs a program of its own: clients refuse it unless their local policy allows it",
    "a Repository's sshKeyFrom and knownHosts make the usual ssh command, which needs no permission",
    Severity.WARNING,
)
