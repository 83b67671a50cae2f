"""Configuration shown without its secrets: texts, and the differences between two files.

Used by ``schema.observed`` for drift, and wherever a file of Git is shown. Whoever wrote a text may be no friend: what
it costs to look at a line grows with the line, not with its square.
"""

from __future__ import annotations

import re

MAX_DIFF = 16_384

# A person may have typed a secret into a managed file by hand: its value must not travel in a diff, however written.
# Nothing here takes back a step, so that a line of a megabyte costs what its bytes do.
_KEY = r"[\"']?(?P<name>[\w-]++)[\"']?\s*+:"
_OPTION = re.compile(rf"(?P<head>[ +-]?\s*+(?:-\s++)*+)(?P<key>{_KEY})(?P<value>(?:\s.*)?)$")
_OPTION_IN_FLOW = re.compile(rf"[{{,\[]\s*+{_KEY}\s*+")
_VALUE_IN_FLOW = re.compile(r"(?:\"(?:[^\"\\]|\\.)*+\"?|'(?:[^']|'')*+'?)?[^,}\]]*+")
_HIDDEN_END = re.compile(
    r"(?:pass|secret|token|api_key|access_key|ping_url|dsn_key|integration_key|ping_key|user|url|key)$", re.IGNORECASE
)
# Misspelt ones too: whoever writes `pasword:` is shown that line as the fault it is.
_HIDDEN_PASSWORD = re.compile(r"pas{1,2}[wpc]", re.IGNORECASE)
_REFERENCE = re.compile(r"""\s*["']?\{credential [^{}]*\}["']?\s*""")
_REFERENCE_IN_FLOW = re.compile(r"""["']?\{credential [^{}]*+\}["']?\s*+(?=[,}\]]|$)""")

_CONTEXT = 3
_MAX_COMPARED = 1_000
"""Lines from the first difference on; far more than fit into ``MAX_DIFF``, unless they are very short."""
_HUNK = re.compile(r"^@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@$")


def hide_secret_values(text: str) -> str:
    """Return ``text`` with the values of options that may hold a secret replaced, unless they are references.

    Also where the value stands on the lines below its option, and inside ``{…}``. Lines keep their number.
    """
    lines: list[str] = []
    below = -1  # the column of the option whose value may go on below; -1 outside of one
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if below >= 0 and (not line.strip() or indent > below):
            lines.append(f"{line[:indent]}(hidden)" if line.strip() else line)
            continue
        match = _OPTION.match(line)
        if match is not None and not _is_secret(match["name"]):
            match = None
        below = len(match["head"]) if match else -1
        if match and match["value"].strip() and not _REFERENCE.fullmatch(match["value"]):
            lines.append(f"{match['head']}{match['key']} (hidden)")
            continue
        hidden, goes_on = _hide_in_flow(line)
        if goes_on:
            below = indent if match is None else min(below, indent)
        lines.append(hidden)
    return "\n".join(lines)


def _is_secret(name: str) -> bool:
    """Whether an option of that name may hold a secret."""
    return _HIDDEN_END.search(name) is not None or _HIDDEN_PASSWORD.search(name.rpartition("-")[2]) is not None


def _hide_in_flow(line: str) -> tuple[str, bool]:
    """Return ``line`` without the secrets inside of ``{…}``, and whether the last of them may go on below it."""
    pieces: list[str] = []
    done = place = 0
    goes_on = False
    while (key := _OPTION_IN_FLOW.search(line, place)) is not None:
        place = key.end()
        if not _is_secret(key["name"]) or _REFERENCE_IN_FLOW.match(line, place):
            continue
        value = _VALUE_IN_FLOW.match(line, place)
        assert value is not None  # noqa: S101 - for the type checker; the pattern matches nothing, too
        place = value.end()
        goes_on = place == len(line)
        if value[0].strip():
            pieces += [line[done : value.start()], "(hidden)"]
            done = place
    return "".join([*pieces, line[done:]]), goes_on


def diff_files(desired: bytes, actual: bytes, *, name: str) -> str:
    """Return a bounded unified diff from the desired to the actual bytes, secrets hidden, fit to be shown as text."""
    import difflib  # noqa: PLC0415 - seldom is anything edited by hand, and every client would have it in memory

    before, after = (
        hide_secret_values(part[:262_144].decode("utf-8", "backslashreplace")).splitlines()
        for part in (desired, actual)
    )
    # What is compared is bounded as well: repeated lines cost the third power of their number.
    same = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), None)
    first = max(0, min(len(before), len(after)) - _CONTEXT if same is None else same - _CONTEXT)
    lines = difflib.unified_diff(
        before[first : first + _MAX_COMPARED],
        after[first : first + _MAX_COMPARED],
        f"{name} (desired)",
        f"{name} (on disk)",
        lineterm="",
        n=_CONTEXT,
    )
    diff = "\n".join(_HUNK.sub(lambda match: _moved(match, by=first), line) for line in lines)
    if not diff and before == after:
        diff = f"{name}: only hidden values or line endings differ"
    is_whole = max(len(before), len(after)) <= first + _MAX_COMPARED and len(diff) <= MAX_DIFF
    return diff if is_whole else diff[:MAX_DIFF] + "\n… (shortened)"


def _moved(match: re.Match[str], *, by: int) -> str:
    return f"@@ -{int(match[1]) + by}{match[2] or ''} +{int(match[3]) + by}{match[4] or ''} @@"
