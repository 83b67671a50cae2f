"""``borgmatic:`` blocks, checked against the schema of the installed borgmatic. The door to jsonschema.

Called by ``layers``. A block is one *layer* of a configuration, so what a layer lacks is no fault: required options
are asked of the merged layers only. jsonschema-rs accepts what is right in microseconds; jsonschema explains the rest,
in borgmatic's own words, which are jsonschema's. What borgmatic still rewrites for old configurations
(``borgmatic.config.normalize``) is refused with the modern form, because old and new forms would not merge.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import jsonschema_rs

from reconciler.core import explain
from reconciler.core.explain import Fault
from schema.resources import BackupSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from jsonschema import Draft7Validator
    from jsonschema.exceptions import ValidationError

    from reconciler.core.catalogue import Pointer

BLOCK: Pointer = ("spec", "borgmatic")

OWNED = {
    "repositories": "write `repositories: [NAME]` beside `borgmatic:`, and the url into a Repository resource",
    "encryption_passphrase": "write it into the Repository: `encryption: {passphraseFrom: {secret: NAME}}`",
    "encryption_passcommand": (
        "write `encryption: {passphraseFrom: …}` into the Repository: from a secret, a file, systemd or a container"
    ),
}
"""borgmatic's options that the director writes itself, and what to write instead."""

_SECTION = "write its options directly under `borgmatic:`; borgmatic's sections are history"
_LEGACY = {
    **dict.fromkeys(("location", "storage", "retention", "consistency", "output", "hooks"), _SECTION),
    "numeric_owner": "it is called numeric_ids now",
    "bsd_flags": "it is called flags now",
    "remote_rate_limit": "it is called upload_rate_limit now",
    "store_config_files": "write `bootstrap: {store_config_files: …}`",
}
_LEGACY_VALUES: dict[tuple[str, type], str] = {
    ("exclude_if_present", str): "write a list: [.nobackup]",
    ("healthchecks", str): "write `healthchecks: {ping_url: …}`",
    ("cronitor", str): "write `cronitor: {ping_url: …}`",
    ("pagerduty", str): "write `pagerduty: {integration_key: …}`",
}

SECRET_OPTION = re.compile(r"(?:^|_)(?:password|passphrase|token|api_key|integration_key|secret)$")
"""Names of options, at any depth, whose value is a secret."""

# borgmatic replaces {name} in any value by a constant, and makes numbers and booleans of the result, before it checks.
_CONSTANT = re.compile(r"\{\w+\}")


class OptionChecker:
    """Checks blocks against one borgmatic schema."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.known: dict[str, Any] = {
            name: option for name, option in schema["properties"].items() if name not in OWNED
        }
        whole = {**schema, "properties": self.known}
        whole.pop("required", None)
        layer = {**whole, "properties": {name: _optional(option) for name, option in self.known.items()}}
        self._is_whole = jsonschema_rs.Draft7Validator(whole).is_valid
        self._schemas = {"whole": whole, "layer": layer}

    @cached_property
    def _is_layer(self) -> Callable[[Any], bool]:
        return jsonschema_rs.Draft7Validator(self._schemas["layer"]).is_valid

    @cached_property
    def _explaining(self) -> dict[str, Draft7Validator]:
        # A tenth of the time of `director validate`, for what a valid source never asks.
        import jsonschema  # noqa: PLC0415

        return {name: jsonschema.Draft7Validator(schema) for name, schema in self._schemas.items()}

    def is_whole(self, options: Mapping[str, Any]) -> bool:
        """Whether the options are right and lack nothing: then so is whatever they are merged with, if it is too."""
        return bool(self._is_whole(options))

    def faults(self, block: Mapping[str, Any]) -> Iterator[Fault]:
        """Yield what is wrong in one block, whatever it is merged with."""
        for name, instead in OWNED.items():
            if name in block:
                message = f"the borgmatic option '{name}' is written by the director"
                yield Fault("director-owned-option", (*BLOCK, name), message, instead)
        options = {name: value for name, value in block.items() if name not in OWNED}
        # What lacks nothing is right as a layer, too, and most blocks lack nothing.
        if not self._is_whole(options) and not self._is_layer(options):
            for error in self._explaining["layer"].iter_errors(options):
                yield from _explained(error)

    def lacking(self, options: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield path and message of every required option that merged layers lack; items of lists never merge."""
        for error in self._explaining["whole"].iter_errors(options):
            path = tuple(error.absolute_path)
            if error.validator == "required" and all(isinstance(part, str) for part in path):
                yield path, f"borgmatic does not accept {_dotted(error)}: {error.message}"

    def unknown_option(self, name: str) -> str | None:
        """Return a hint when borgmatic has no option ``name``, or None."""
        if name in self.known or name in OWNED:
            return None
        return explain.did_you_mean(name, self.known) or "see `borgmatic config generate` for all options"


def _explained(error: ValidationError) -> Iterator[Fault]:
    """Yield what an error of jsonschema means to the person who wrote the block."""
    match error.validator:
        case "additionalProperties":
            yield from _unknown(error)
        case "oneOf" | "anyOf" if error.context:
            for inner in _meant_branch(error):
                yield from _explained(inner)
        case "oneOf" | "anyOf":
            return  # valid under several: only where the type is wrong, too, which is an error of its own
        case _ if _is_interpolated(error):
            return
        case _:
            message = f"borgmatic does not accept {_dotted(error)}: {_own_words(error)}"
            yield Fault("borgmatic-option", (*BLOCK, *error.absolute_path), message, _hint(error))


def _unknown(error: ValidationError) -> Iterator[Fault]:
    path = tuple(error.absolute_path)
    known = error.schema.get("properties", {}) if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    for name in (name for name in instance if name not in known):
        hint = _LEGACY.get(name, "") if not path else ""
        if not hint and not path and name in _BACKUP_FIELDS:
            hint = f"'{name}' is a field of the Backup: write it beside `borgmatic:`, not inside"
        hint = hint or explain.did_you_mean(name, known)
        if not hint and path:
            hint = f"the options here are {explain.listed(known)}"
        message = (
            f"borgmatic does not know the option '{_join((*path, name))}': "
            f"Additional properties are not allowed ('{name}' was unexpected)"
        )
        yield Fault("unknown-borgmatic-option", (*BLOCK, *path, name), message, hint)


_BACKUP_FIELDS = {field.alias for field in BackupSpec.model_fields.values()}


def _optional(option: Any) -> Any:
    """Return an option's schema without ``required`` where layers merge: in mappings, not inside lists."""
    if not isinstance(option, dict):
        return option
    relaxed = {key: value for key, value in option.items() if key != "required"}
    if isinstance(relaxed.get("properties"), dict):
        relaxed["properties"] = {name: _optional(inner) for name, inner in relaxed["properties"].items()}
    return relaxed


def _meant_branch(error: ValidationError) -> list[ValidationError]:
    """Return the errors of the alternative that comes nearest to what was written."""
    branches: dict[Any, list[ValidationError]] = {}
    for inner in error.context or ():
        branches.setdefault(inner.schema_path[0], []).append(inner)
    alternatives: list[Any] = error.validator_value if isinstance(error.validator_value, list) else []
    common = set.intersection(*(set(one.get("properties", ())) for one in alternatives))
    wrong_choice = [_choice(branch, common) for branch in branches.values()]
    if all(wrong_choice):
        # A discriminating value fits no alternative: what all of them together allow is what to say.
        first = wrong_choice[0]
        allowed = [value for choice in wrong_choice if choice is not None for value in _allowed(choice)]
        if first is not None:
            first.validator_value = allowed
            first.message = f"{first.instance!r} is not one of {allowed}"
            return [first]
    return min(branches.values(), key=lambda branch: (_choice(branch, common) is not None, len(branch)))


def _allowed(error: ValidationError) -> list[Any]:
    return error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]


def _choice(branch: Iterable[ValidationError], common: set[str]) -> ValidationError | None:
    """Return the error that says "this is another alternative": a fixed value of an option that all of them have."""
    fixed = (error for error in branch if error.validator in {"enum", "const"})
    return next((error for error in fixed if len(error.path) == 1 and error.path[0] in common), None)


def _is_interpolated(error: ValidationError) -> bool:
    return (
        error.validator in {"type", "enum", "const", "format"}
        and isinstance(error.instance, str)
        and _CONSTANT.search(error.instance) is not None
    )


def _join(path: Iterable[str | int]) -> str:
    """Return ``commands[0].run``, as borgmatic writes it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _dotted(error: ValidationError) -> str:
    return f"'{_join(error.absolute_path)}'" if error.absolute_path else "these options"


def _own_words(error: ValidationError) -> str:
    """Return borgmatic's message, unless it would quote a secret or a whole mapping."""
    names = [part for part in error.absolute_path if isinstance(part, str)]
    if (names and SECRET_OPTION.search(names[-1])) or isinstance(error.instance, (dict, list)):
        if error.validator == "required":
            return error.message
        wanted = f" of type {error.validator_value!r}" if error.validator == "type" else f": {error.validator}"
        given = explain.shown(error.instance) if isinstance(error.instance, (dict, list)) else "the value"
        return f"{given} is not{wanted}" if error.validator == "type" else f"{given} is not right{wanted}"
    return error.message if len(error.message) <= 300 else f"{error.message[:299]}…"


def _hint(error: ValidationError) -> str:
    value: Any = error.instance
    wanted = error.validator_value
    path = tuple(error.absolute_path)
    if len(path) == 1 and (legacy := _LEGACY_VALUES.get((str(path[0]), type(value)))):
        return legacy
    if path[:1] == ("checks",) and len(path) == 2 and isinstance(value, str):
        return f"write `- name: {value}`"
    if error.validator == "enum" and isinstance(wanted, list):
        return explain.did_you_mean(value, [str(one) for one in wanted if isinstance(one, str)])
    if error.validator == "type":
        if value is None:
            return "give a value, or remove the option"
        if wanted == "boolean" and isinstance(value, str):
            return "write true or false without quotes: in YAML 1.2 yes, no, on and off are text"
        if wanted == "integer" and isinstance(value, str) and value.strip().lstrip("-").isdigit():
            return "write the number without quotes"
        if wanted == "string" and isinstance(value, (int, float)):
            return "put it in quotes"
        if wanted == "array" and isinstance(value, str):
            return f"write a list: [{value[:60]}]"
    return ""
