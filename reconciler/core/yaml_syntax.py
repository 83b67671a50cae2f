"""libyaml's syntax errors in plain words. Called by ``yaml_reader``."""

from __future__ import annotations

# What libyaml says → (what we say, what to do). The first entry whose text occurs in its words is taken.
_EXPLANATIONS = (
    (
        "while scanning an alias",
        "a value that begins with '*' must be quoted",
        "write it in quotes: '*.log'; unquoted, '*name' refers to an anchor",
    ),
    ("while scanning an anchor", "a value that begins with '&' must be quoted", "write it in quotes: '&…'"),
    ("while scanning a block scalar", "", "after '|' or '>' the text begins on the next line, indented"),
    (
        "found character that cannot start any token",
        "{character} cannot stand here",
        "put a value that begins with it in quotes",
    ),
    (
        "mapping values are not allowed",
        "a ':' cannot stand here",
        "put a value that holds ': ' in quotes, or check the indentation",
    ),
    ("could not find expected ':'", "a ':' is missing after a key", "write 'key: value', with a space after the colon"),
    (
        "block sequence entries are not allowed",
        "a list item cannot stand here",
        "begin the list on a new line below its key",
    ),
    ("did not find expected key", "", "check the indentation: the keys of one mapping begin in one column"),
    ("did not find expected '-' indicator", "", "check the indentation: the items of one list begin in one column"),
    ("did not find expected ',' or ']'", "a ',' or ']' is missing", "close the list that was opened with '['"),
    ("did not find expected ',' or '}'", "a ',' or '}' is missing", "close the mapping that was opened with '{'"),
    (
        "did not find expected <document start>",
        "there is something after the end of the document",
        "begin another document with ---",
    ),
    ("found unexpected end of stream", "the file ends inside a quoted text", "close the quotes"),
    ("found unexpected document indicator", "the document ends inside a quoted text", "close the quotes"),
    ("found unknown escape character", "", "put text with backslashes in single quotes"),
    ("found undefined tag handle", "tags are not supported", "remove the tag"),
)


def explain(problem: str, context: str, *, character: str) -> tuple[str, str]:
    """Return libyaml's words, or clearer ones, and a hint. ``character`` is the one where it stopped."""
    if character == "\t" and "cannot start any token" in problem:
        return "a tab cannot stand here", "indent with spaces"
    said = f"{problem} {context}"
    for words, message, hint in _EXPLANATIONS:
        if words in said:
            return message.format(character=repr(character)) if "{character}" in message else message or problem, hint
    return problem, ""
