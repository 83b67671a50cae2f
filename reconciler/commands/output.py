"""How commands print: tables for people, JSON and YAML for scripts, errors with hints, and the three exit codes."""

from __future__ import annotations

import functools
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click
import structlog
from pydantic import BaseModel

from schema.errors import DirectorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

FOUND_SOMETHING = 1
COULD_NOT_RUN = 2


class Failed(click.ClickException):
    """The command ran and found something wrong: exit 1. The message has been printed, or is ``message``."""

    exit_code = FOUND_SOMETHING

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's interface
        """Print nothing when there is nothing to add."""
        if self.message:
            click.echo(self.message, err=True)


class CouldNotRun(click.ClickException):
    """The command could not do its work: exit 2."""

    exit_code = COULD_NOT_RUN

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's interface
        """Print ``error:`` and ``hint:`` lines."""
        click.echo(f"{click.style('error:', fg='red', bold=True)} {self.message}", err=True)
        if self.hint:
            click.echo(f" {click.style('hint:', fg='cyan')} {self.hint}", err=True)


def friendly(function: Callable[P, T]) -> Callable[P, T]:
    """Turn our own errors into ``CouldNotRun``: no traceback for what people can mend."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except DirectorError as error:
            raise CouldNotRun(error.message, hint=error.hint) from error

    return wrapper


def examples(*commands: str) -> str:
    """Return the epilog of a command's help."""
    return "Examples:\n\n\b\n" + "\n".join(f"  {command}" for command in commands)


def output_option(function: Callable[P, T]) -> Callable[P, T]:
    """Add ``-o table|json|yaml``."""
    option = click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "yaml"]),
        default="table",
        show_default=True,
        help="How to print; the JSON is stable.",
    )
    return option(function)


def print_data(value: Any, output: str) -> None:
    """Print ``value`` (models, or JSON data) as JSON or YAML."""
    data = _jsonable(value)
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def print_rows(
    rows: Sequence[Any], columns: Sequence[tuple[str, Callable[[Any], str]]], output: str, *, empty: str
) -> None:
    """Print ``rows`` as a table with these columns, or as JSON or YAML data; ``empty`` is what a person reads then."""
    if output != "table":
        print_data(list(rows), output)
        return
    if not rows:
        click.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title, _ in columns:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell(row)), style=_STYLES.get(cell(row), "")) for _, cell in columns))
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)


_STYLES = {
    "failed": "red", "lost": "red", "warned": "yellow", "succeeded": "green", "current": "green", "behind": "yellow",
    "refused": "red", "stale": "yellow", "overdue": "red", "protected": "green", "pending": "yellow", "revoked": "red",
    "critical": "red", "warning": "yellow", "yes": "green", "no": "yellow",
}  # fmt: skip


def write_private(file: Path, text: str) -> None:
    """Write a new file that only we can read; one that is there is never overwritten."""
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise CouldNotRun(f"{file} is already there, and keys are never overwritten") from None
    except OSError as error:
        raise CouldNotRun(f"cannot write {file}: {error.strerror}") from None
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(text)


def printable(text: str) -> str:
    """Return ``text`` without control and direction-changing characters, for what others say is not trusted."""
    return "".join(char if char.isprintable() or char == "\n" else "�" for char in text)


def ago(moment: datetime | None) -> str:
    """Return ``3 min ago``, ``in 5 h`` or ``never``."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    size, word = next(
        ((size, word) for size, word in ((86_400, "d"), (3_600, "h"), (60, "min")) if abs(seconds) >= size), (1, "s")
    )
    count = int(abs(seconds) // size)
    return f"{count} {word} ago" if seconds >= 0 else f"in {count} {word}"


def human_size(size: int) -> str:
    """Return ``1.2 GB`` (powers of 1000, as Borg prints)."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} PB"


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr: coloured lines on a terminal, JSON elsewhere. Called once by long-running commands."""
    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(10 if verbose else 20),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )


def _jsonable(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines of a diff or plan with the colours people expect (none when not on a terminal)."""
    for line in lines:
        colour = (
            "green"
            if line.startswith("+")
            else "red"
            if line.startswith("-")
            else "cyan"
            if line.startswith("@@")
            else None
        )
        click.secho(printable(line), fg=colour)
