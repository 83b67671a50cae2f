"""How commands print: tables for people, JSON and YAML for scripts, errors with hints, and the three exit codes.

Every command imports this module, so it imports nothing but click: ``director --help`` and completion stay fast.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import sys
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

P = ParamSpec("P")
T = TypeVar("T")

FOUND_SOMETHING = 1
COULD_NOT_RUN = 2
INTERRUPTED = 130
"""128 + SIGINT, as shells say it."""


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
        click.echo(f"{click.style('error:', fg='red', bold=True)} {printable(self.message)}", err=True)
        if self.hint:
            click.echo(f" {click.style('hint:', fg='cyan')} {printable(self.hint)}", err=True)


class Interrupted(click.ClickException):
    """Ctrl-C. A program that dies of it says nothing more."""

    exit_code = INTERRUPTED

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    def show(self, file: Any = None) -> None:  # noqa: ARG002 - click's interface
        """Print what there is to say, on a line of its own after the terminal's ^C."""
        click.echo(f"\n{self.message}" if self.message else "", err=True)


def friendly(function: Callable[P, T]) -> Callable[P, T]:
    """Turn our own errors, the system's and Ctrl-C into words and an exit code: no traceback for what can be mended."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except KeyboardInterrupt:
            raise Interrupted from None
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our output had enough; click ends quietly
                raise
            place = f" {error.filename}" if error.filename else ""
            raise CouldNotRun(f"cannot use{place}: {error.strerror or error}") from error
        except Exception as error:
            from schema.errors import DirectorError

            if not isinstance(error, DirectorError):
                raise
            raise CouldNotRun(error.message, hint=error.hint) from error

    return wrapper


@contextlib.contextmanager
def working(doing: str) -> Iterator[None]:
    """Show on a terminal what takes more than a moment, and for how long it has; nothing anywhere else."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    begun = time.monotonic()

    def show() -> None:
        if done.wait(_MOMENT_SECONDS):
            return
        while not done.wait(0.2):
            click.echo(f"\r{doing} … {time.monotonic() - begun:.0f} s", err=True, nl=False)
        click.echo("\r\x1b[K", err=True, nl=False)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


_MOMENT_SECONDS = 1.0


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
        click.echo(json_text(data))
    else:
        import yaml

        text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
        if not text.replace("\n", "").isprintable():
            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False)
        click.echo(text, nl=False)


def json_text(data: Any, *, indent: int | None = 2) -> str:
    """Return JSON in which whatever a terminal might obey is escaped."""
    text = json.dumps(data, indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else _json_escape(char) for char in text)


def _json_escape(char: str) -> str:
    return json.dumps(char, ensure_ascii=True)[1:-1]


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
    # Scripts that read a table line by line must not meet folded lines.
    console = Console(soft_wrap=False, width=None if sys.stdout.isatty() else 10_000)
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
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else " " if char == "\t" else "�" for char in text)


def one_line(text: str) -> str:
    """Return ``text`` printable and on one line, so that it cannot pretend to be another line of ours."""
    return printable(text.rstrip()).replace("\n", " ⏎ ")


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
    import structlog

    terminal = sys.stderr.isatty()
    renderer = structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            _scrubbed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(10 if verbose else 20),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    from reconciler.commands import server_log

    server_log.take_over()


def _scrubbed(_logger: Any, _method: str, event: Any) -> Any:
    """A line of the log says no secret, whoever wrote it and whatever it quotes."""
    from schema.errors import scrub

    return {key: scrub(value) if isinstance(value, str) else value for key, value in event.items()}


def _jsonable(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value


def echo_lines(lines: Iterable[str], *, columns: Sequence[int]) -> None:
    """Print lines of a diff or plan with the colours people expect (none when not on a terminal).

    ``columns`` are where a sign may stand; elsewhere a ``-`` is what YAML writes its lists with.
    """
    for line in lines:
        first = len(line) - len(line.lstrip(" "))
        click.secho(one_line(line), fg=_DIFF_COLOURS.get(line[first : first + 1]) if first in columns else None)


_DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
