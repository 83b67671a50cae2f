"""Problems for people and for CI systems: text, JSON, GitHub annotations, SARIF 2.1.0, JUnit XML. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reconciler.commands.output import json_text, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schema.errors import Problem

FORMATS = ("text", "json", "github", "sarif", "junit")


def format_problems(problems: Sequence[Problem], form: str, *, summary: str) -> str:
    """Return the problems in one of ``FORMATS``; ``summary`` is the closing sentence of ``text``."""
    match form:
        case "text":
            return "\n".join([*(printable(str(problem)) for problem in problems), summary])
        case "json":
            return json_text(
                {
                    "ok": not _errors(problems),
                    "summary": summary,
                    "problems": [one.model_dump(mode="json", exclude={"excerpt"}) for one in problems],
                }
            )
        case "github":
            return "\n".join(_github(problem) for problem in problems) or f"::notice::{_github_text(summary)}"
        case "sarif":
            return json_text(_sarif(problems))
        case "junit":
            return _junit(problems)
        case _:
            raise ValueError(f"'{form}' is not one of {', '.join(FORMATS)}")


def _is_error(problem: Problem) -> bool:
    return problem.severity == "error"


def _errors(problems: Sequence[Problem]) -> int:
    return sum(_is_error(problem) for problem in problems)


def _text(problem: Problem) -> str:
    return f"{problem.message} (hint: {problem.hint})" if problem.hint else problem.message


def _github_text(text: str) -> str:
    # The three characters that GitHub's workflow commands need escaped.
    return printable(text).replace("%", "%25").replace("\n", "%0A")


def _github(problem: Problem) -> str:
    place = f"file={problem.path.replace('%', '%25').replace(',', '%2C').replace(':', '%3A')}" if problem.path else ""
    if problem.line:
        place += f",line={problem.line},col={problem.column or 1}"
    return f"::{problem.severity} {place}::{_github_text(_text(problem))}"


def _sarif(problems: Sequence[Problem]) -> dict[str, object]:
    rules = sorted({problem.code for problem in problems})
    return {
        "version": "2.1.0",
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "runs": [
            {
                "tool": {"driver": {"name": "borgmatic-director", "rules": [{"id": code} for code in rules]}},
                "results": [
                    {
                        "ruleId": problem.code,
                        "level": str(problem.severity),
                        "message": {"text": _text(problem)},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": problem.path or "."},
                                    "region": {
                                        "startLine": max(problem.line, 1),
                                        "startColumn": max(problem.column, 1),
                                    },
                                }
                            }
                        ],
                    }
                    for problem in problems
                ],
            }
        ],
    }


def _junit(problems: Sequence[Problem]) -> str:
    from xml.etree import ElementTree as ET

    paths = sorted({problem.path for problem in problems}) or ["source"]
    suite = ET.Element(
        "testsuite",
        name="director validate",
        tests=str(len(paths)),
        failures=str(len({p.path for p in problems if _is_error(p)})),
    )
    for path in paths:
        case = ET.SubElement(suite, "testcase", classname="director", name=path or "source")
        mine = [problem for problem in problems if problem.path == path]
        errors = [problem for problem in mine if _is_error(problem)]
        if errors:
            failure = ET.SubElement(case, "failure", message=_xml(errors[0].message), type=errors[0].code)
            failure.text = "\n".join(_xml(str(problem)) for problem in errors)
        warnings = [problem for problem in mine if not _is_error(problem)]
        if warnings:
            ET.SubElement(case, "system-out").text = "\n".join(_xml(str(problem)) for problem in warnings)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(suite, encoding="unicode")


def _xml(text: str) -> str:
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)
