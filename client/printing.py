"""What ``director-client`` prints for people: errors, an enrolment's end, a run as it goes, status and findings."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from client.terminal import printable, printable_lines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.doctor import Finding
    from client.enrol import Enrolled
    from client.settings import ClientSettings
    from schema.observed import Report, RunFinished, RunProgress

SUCCESS = {"succeeded", "warned"}


def print_error(message: str, hint: str) -> None:
    """Print an error, and what to do about it, where errors go."""
    error = click.style("error: ", fg="red", bold=True) + printable_lines(message)
    click.echo(error, err=True, color=colour(sys.stderr))
    if hint:
        click.echo(click.style("hint: ", fg="cyan") + printable_lines(hint), err=True, color=colour(sys.stderr))


def colour(stream: Any) -> bool:
    """Return whether that stream is to have colours."""
    return bool(stream.isatty()) and not os.environ.get("NO_COLOR")


def print_enrolled(enrolled: Enrolled, settings: ClientSettings) -> None:
    """Print how an enrolment ended, and what comes next."""
    if enrolled.is_approved:
        click.echo(f"The director at {enrolled.url} knows this machine as '{enrolled.name}'.")
    else:
        click.echo(
            f"The director at {enrolled.url} has recorded this machine as pending.\n"
            "\n"
            "Next, a person approves it. Compare the fingerprint above with what the director shows, then either\n"
            f"  commit the Client that `director clients pending` prints (publicKey: {enrolled.public_key}), or\n"
            f"  run on the director: director clients approve {settings.name}\n"
        )
    click.echo("Start the service: systemctl enable --now director-client   (or: director-client run)")


class Terminal:
    """Shows a run to a person: log lines as they come, and one line that says where it stands."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = False

    def progress(self, progress: RunProgress) -> None:
        """Show where the run stands, instead of what was shown before."""
        if self._live:
            text = f"{progress.phase}  {progress.files} files  {size_text(progress.original_size)}  {progress.path}"
            click.echo(f"\r\x1b[K{printable(text)[:100]}", nl=False, err=True)
            self._shown = True

    def report(self, report: Report) -> None:
        """Show the log lines in a report."""
        if report.type == "run-log":
            self.clear()
            for line in report.lines:
                click.echo(printable(line.message), err=True)

    def clear(self) -> None:
        """Take the line away that says where the run stands."""
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._shown = False


def print_finished(finished: RunFinished) -> None:
    """Print how a run that a person started ended."""
    outcome = click.style(finished.outcome.value, fg="green" if finished.outcome.value in SUCCESS else "red")
    click.echo(f"{finished.backup}: {outcome}", color=colour(sys.stdout))
    for one in finished.statistics:
        click.echo(
            f"  {one.repository}: {printable(one.archive)}  {one.files} files, {size_text(one.original_size)}, "
            f"{size_text(one.deduplicated_size)} new"
        )
    if finished.error:
        print_error(finished.error, finished.hint)


def size_text(number: int) -> str:
    """Return a size as Borg and the director print it, in powers of 1000."""
    size = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def print_status(found: Any) -> None:
    """Print what this machine follows, and its jobs."""
    rows = [
        ("client", f"{found.name}  {found.fingerprint}"),
        ("director", found.director or "not enrolled: director-client enroll -"),
        ("service", "running" if found.running else "not running"),
        ("connection", ": ".join(filter(None, (found.connection, found.reason)))),
        ("revision", f"{found.revision[:12]} (generation {found.generation})" if found.revision else "none yet"),
        ("refused", found.refusal),
        ("hint", found.refusal_hint),
        ("hint", found.hint),
    ]
    for title, text in rows:
        if text:
            click.echo(f"{title:<11} {printable(text)}")
    if not found.jobs:
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("BACKUP", "SCHEDULE", "NEXT", "REPOSITORIES"):
        table.add_column(title)
    for job in found.jobs:
        due = job.next_due.astimezone().strftime("%Y-%m-%d %H:%M %Z") if job.next_due else "–"
        state = "running" if job.running else "suspended" if job.suspended else due
        table.add_row(job.backup, job.schedule or "–", state, ", ".join(job.repositories))
    click.echo()
    Console(no_color=not colour(sys.stdout)).print(table)


def print_as(data: Any, output: str) -> None:
    """Print for a program: ``json`` or ``yaml``."""
    if output == "json":
        import json

        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    else:
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), nl=False)


def print_findings(findings: Iterable[Finding]) -> None:
    """Print what ``doctor`` found."""
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    for one in findings:
        level = click.style(f"{one.level.value:<8}", fg=colours[one.level.value])
        click.echo(f"{level} {one.check}: {printable(one.message)}", color=colour(sys.stdout))
        if one.hint:
            click.echo(f"         hint: {printable(one.hint)}")
