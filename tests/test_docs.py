"""What the docs say is true: reference that is current, commands, options, links, settings and resources that exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from client.settings import ClientSettings
from reconciler.core import dangers, load
from reconciler.settings import DirectorSettings
from schema.errors import Severity
from schema.observed import DriftKind, Outcome
from schema.wire import RefusalCode
from tests.reconciler.core import written
from tools import reference

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "reconciler" / "starter" / "README.md"])
OURS = [page for page in PAGES if page.parent != ROOT / "docs" / "reference"]


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    language: str | None = None
    start, lines = 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"\s*```(\w*)", line)
        if fence and language is None:
            language, start, lines = fence[1], number, []
        elif fence and language is not None:
            yield Block(page, start, language, "\n".join(lines) + "\n")
            language = None
        elif language is not None:
            lines.append(line)


BLOCKS = [block for page in PAGES for block in blocks(page)]


# --- Reference --------------------------------------------------------------------------------------------------------


def test_the_reference_is_what_the_code_says():
    assert reference.outdated() == []


def test_a_page_that_is_missing_or_changed_is_named(tmp_path: Path):
    reference.write(tmp_path)
    (tmp_path / "cli.md").unlink()
    (tmp_path / "resources.md").write_text("", encoding="utf-8")

    assert reference.outdated(tmp_path) == ["cli.md", "resources.md"]

    reference.write(tmp_path)
    assert reference.outdated(tmp_path) == []


def test_every_field_and_every_option_has_a_meaning():
    blank = [
        f"{name}: {line}"
        for name, text in reference.generate().items()
        for line in text.splitlines()
        if re.match(r"\| `", line) and re.search(r"\|\s*\|$", line)
    ]

    assert blank == []


# --- Commands ---------------------------------------------------------------------------------------------------------

SEPARATORS = {"&&", "||", "|", ";", "&", "(", ")", "<", ">", ">>"}


def commands_in(text: str) -> Iterator[list[str]]:
    """Yield the words of each call of one of our programs in shell text."""
    for line in text.replace("\\\n", " ").splitlines():
        plain = re.sub(r'\$\((?!director)[^()]*\)|"\$\{?\w+\}?"', "X", line.removeprefix("$ "))
        lexer = shlex.shlex(plain.replace("…", "X"), posix=True, punctuation_chars="();<>|&")
        lexer.whitespace_split, lexer.commenters = True, "#"
        try:
            words = [*lexer, ";"]
        except ValueError:
            if re.search(r"\bdirector(-client)? ", line):
                raise
            continue
        call: list[str] = []
        for word in words:
            if word not in SEPARATORS:
                call.append(word)
                continue
            call = without_prefix(call)
            if call and call[0] in {"director", "director-client"}:
                yield call
            call = []


def without_prefix(call: list[str]) -> list[str]:
    """Return a call without ``NAME=value`` and ``sudo -u USER`` before it."""
    while call and (re.match(r"[A-Z_]+=", call[0]) or call[0] == "sudo"):
        call = call[3:] if call[:2] == ["sudo", "-u"] else call[1:]
    return call


def mistakes(words: list[str]) -> str:
    """Return what is wrong with a call, or nothing."""
    command: click.Command = reference.programs()[words[0]]
    rest, given = words[1:], 0
    while rest:
        word = rest.pop(0)
        if word.startswith("-") and word != "-":
            name, _, value = word.partition("=")
            options = [one for one in command.params if isinstance(one, click.Option)]
            option = next((one for one in options if name in (*one.opts, *one.secondary_opts)), None)
            if name in {"--help", "-h", "--version"}:
                return ""
            if option is None:
                return f"{command.name} has no option {name}"
            if not option.is_flag and not value:
                if not rest:
                    return f"{name} needs a value"
                value = rest.pop(0)
            if isinstance(option.type, click.Choice) and value not in (*option.type.choices, "X"):
                return f"{name} cannot be {value}"
        elif isinstance(command, click.Group):
            inner = command.get_command(click.Context(command), word)
            if inner is None:
                return f"{command.name} has no command {word}"
            command = inner
        else:
            given += 1
    arguments = [one for one in command.params if isinstance(one, click.Argument)]
    if isinstance(command, click.Group) or given < sum(one.required for one in arguments):
        return "it is not complete"
    return f"{command.name} takes {len(arguments)} arguments, not {given}" if given > len(arguments) else ""


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language in {"sh", "console", "bash"}], ids=str)
def test_every_command_in_a_block_exists_with_its_options(block: Block):
    wrong = {shlex.join(words): problem for words in commands_in(block.text) if (problem := mistakes(words))}

    assert wrong == {}


@pytest.mark.parametrize("page", OURS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_exists(page: Path):
    prose = re.sub(r"^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    wrong = {}
    for text in re.findall(r"`((?:director|director-client) [^`]+)`", prose):
        for words in commands_in(text):
            problem = mistakes(words)
            if problem and problem != "it is not complete":  # a sentence may leave out what does not matter to it
                wrong[text] = problem

    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("director status", ""),
        ("director statsu", "main has no command statsu"),
        ("director runs --folow", "runs has no option --folow"),
        ("director validate --format xml .", "--format cannot be xml"),
        ("X=1 sudo -u director director clients approve web-1", ""),
        ("director clients approve", "it is not complete"),
        ("director-client status --config x", "status has no option --config"),
        ("director-client enroll - < enrolment.txt", ""),
        ("director reconcile --wait now", "reconcile takes 0 arguments, not 1"),
    ],
)
def test_a_wrong_command_is_noticed(text: str, problem: str):
    assert [mistakes(words) for words in commands_in(text)] == [problem]


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (page.name, target)
        for page in PAGES
        for target in re.findall(r"(?:`|^ *)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert {(page, target) for page, target in named if target not in targets} == set()


def test_the_versions_of_python_are_those_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lowest, highest = re.findall(r"3\.(\d+)", package["requires-python"])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")

    assert f"Python 3.{lowest} to 3.{int(highest) - 1}" in readme
    assert f"{package['version'].rpartition('.')[0]}" in readme


# --- Links ------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_inside_the_project_leads_somewhere(page: Path):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)

    assert broken == []


def test_every_page_of_docs_is_reachable_from_its_index():
    index = ROOT / "docs" / "index.md"
    seen, waiting = {index}, [index]
    while waiting:
        page = waiting.pop()
        for target in re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.exists() and file not in seen:
                seen.add(file)
                waiting.append(file)

    assert {str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if page not in seen} == set()


# --- Examples ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "block", [one for one in BLOCKS if one.language == "yaml" and "apiVersion:" in one.text], ids=str
)
def test_every_resource_that_is_shown_is_one(block: Block):
    problems = load.load([written.file("docs.yaml", block.text)]).problems

    assert [str(one) for one in problems if one.severity is Severity.ERROR] == []


@pytest.mark.parametrize("block", [one for one in BLOCKS if one.language == "toml"], ids=str)
def test_every_settings_file_that_is_shown_is_one(block: Block):
    first = block.text.splitlines()[0]
    model = ClientSettings if first == "# client.toml" else DirectorSettings

    assert first in {"# client.toml", "# director.toml"}
    model.model_validate(tomllib.loads(block.text))


# --- Words that programs print ----------------------------------------------------------------------------------------

CAMEL_CASE = re.compile(r'"([A-Z][a-z]+(?:[A-Z][a-z]+)*)"')


def reasons() -> set[str]:
    """Return every reason of a condition that the code can emit, from its text."""
    found = set()
    for module in ("schema/assessment.py", "reconciler/loop.py", "reconciler/outcome.py"):
        found |= set(CAMEL_CASE.findall((ROOT / module).read_text(encoding="utf-8")))
    return found - {"True", "False", "Unknown"}


def test_every_reason_of_a_condition_is_explained():
    page = (ROOT / "docs" / "explanation" / "reconciling.md").read_text(encoding="utf-8")

    assert {reason for reason in reasons() if f"`{reason}`" not in page} == set()


def test_every_kind_of_drift_every_outcome_and_every_danger_is_explained():
    page = (ROOT / "docs" / "explanation" / "reconciling.md").read_text(encoding="utf-8")
    words = [*DriftKind, *Outcome, *dangers.CODES]

    assert [word for word in words if f"`{word}`" not in page] == []


def test_every_refusal_of_a_client_has_an_entry_under_its_symptom():
    page = (ROOT / "docs" / "how-to" / "troubleshooting.md").read_text(encoding="utf-8")

    assert [code for code in RefusalCode if f"`{code}`" not in page] == []


# --- Proofs -----------------------------------------------------------------------------------------------------------

PROMISED = """
replay; rollback; freeze; mix of two revisions; another client's state; same generation with other content;
endless frames; slow frames; generation jumped to the maximum; stolen token used twice; man in the middle at enrolment;
downgrade of the protocol version; impersonation by an approved client; cloned client; rogue reports with paths;
rogue reports with huge fields; token brute force from one address; token brute force from ten thousand addresses;
a lockout used as a weapon against a good client behind the same address; secrets moved between clients and names;
every program-executing borgmatic option; degenerate public keys; poisonous YAML: a 258-byte alias bomb
"""
"""The attacks that must be tried. There may be more."""


def attacks() -> list[tuple[str, list[str], list[str]]]:
    """Return the rows of SECURITY.md: an attack, the tests that show it fails, and their twins."""
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("\n## Attacks, ")[2]
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = [[re.findall(r"`(test_\w+)`", cell) for cell in row] for row in rows[1:]]
    return [(row[0], tests, twins) for row, (_, tests, twins) in zip(rows[1:], cells, strict=True)]


def names_of_tests(folder: Path) -> set[str]:
    """Return the names of all tests in a folder."""
    return {
        name
        for file in folder.rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    }


def test_every_test_that_is_named_as_a_proof_exists():
    named = {name for _, tests, twins in attacks() for name in (*tests, *twins)}

    assert named - names_of_tests(ROOT / "tests") == set()
    assert set(re.findall(r"`(test_\w+)`", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))) == named


def test_every_attack_has_a_test_and_another_one_as_its_twin():
    assert [attack for attack, tests, twins in attacks() if not tests or not twins or set(tests) & set(twins)] == []


def test_every_attack_that_must_be_tried_is():
    tried = [attack for attack, _, _ in attacks()]

    wanted = [one.strip() for one in PROMISED.replace("\n", " ").split(";")]
    assert [one for one in wanted if not any(attack.startswith(one) for attack in tried)] == []


def test_every_test_of_an_attack_is_in_the_table():
    named = {name for _, tests, twins in attacks() for name in (*tests, *twins)}

    assert names_of_tests(ROOT / "tests" / "attacks") - named == set()
