"""``director runs``: list runs, show one with its log, or follow them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.commands.answers import Row, ago_of, check_client, limit_option, moment, text_of, with_remote
from reconciler.commands.output import (
    CouldNotRun,
    ago,
    examples,
    human_size,
    json_text,
    one_line,
    output_option,
    print_data,
    print_rows,
)

if TYPE_CHECKING:
    from reconciler.commands.remote import Remote


@click.command(
    epilog=examples("director runs", "director runs --backup web-files --follow", "director runs --run 4f1c…")
)
@click.option("--client", default="", help="Only this client.")
@click.option("--backup", default="", help="Only this backup.")
@click.option("--outcome", default="", help="succeeded, warned, failed, cancelled, lost or running.")
@click.option("--run", "run_id", default="", help="One run with its log.")
@click.option("--follow", is_flag=True, help="Print runs as they start, advance and end; with -o json a line each.")
@limit_option
@output_option
@with_remote
def runs(
    remote: Remote, client: str, backup: str, outcome: str, run_id: str, follow: bool, limit: int, output: str
) -> None:
    """List runs, show one with its log, or follow them."""
    if run_id:
        _show_run(remote, run_id, output)
        return
    if follow:
        _follow_runs(remote, client=client, backup=backup, output=output)
        return
    rows = remote.read("runs", client=client, backup=backup, outcome=outcome, limit=limit)
    check_client(remote, client, rows)
    columns = [
        ("STARTED", ago_of("started")),
        ("CLIENT", text_of("client")),
        ("BACKUP", text_of("backup")),
        ("OUTCOME", lambda row: row["outcome"] or "running"),
        ("TOOK", _took),
        ("NEW DATA", lambda row: human_size(sum(one["deduplicatedSize"] for one in row["statistics"]))),
        ("RUN", lambda row: row["id"][:12]),
        ("ERROR", lambda row: row["error"][:80]),
    ]
    print_rows(rows, columns, output, empty="no runs yet")


def _took(row: Row) -> str:
    started, finished = moment(row, "started"), moment(row, "finished")
    return f"{(finished - started).total_seconds():.0f} s" if started and finished else ""


def _show_run(remote: Remote, run_id: str, output: str) -> None:
    run = remote.read("run", id=run_id)
    log = remote.read("run_log", id=run["id"], limit=10_000)
    if output != "table":
        print_data({**run, "log": log}, output)
        return
    click.echo(f"{run['client']}/{run['backup']}: {run['outcome'] or 'running'}, started {ago(moment(run, 'started'))}")
    for line in log:
        click.echo(f"{line['at'][11:19]} {line['level']:<8} {one_line(line['message'])}")
    if run["error"]:
        click.secho(f"error: {one_line(run['error'])}", fg="red")
    if run["hint"]:
        click.secho(f"hint: {one_line(run['hint'])}", fg="cyan")


def _follow_runs(remote: Remote, *, client: str, backup: str, output: str) -> None:
    """Print runs as they change until Ctrl-C, or until the director stops: both are how following ends."""
    click.echo("following runs; end with Ctrl-C", err=True)
    shown: dict[str, str] = {}
    try:
        for notice in remote.changes():
            for run in _told(remote, notice, client=client, backup=backup):
                line = _one_line(run) if output == "table" else json_text(run, indent=None)
                if shown.get(run["id"]) != line:
                    shown[run["id"]] = line
                    click.echo(line)
    except KeyboardInterrupt:
        click.echo(err=True)  # the terminal has written ^C
    else:
        click.echo("the director stopped", err=True)


def _told(remote: Remote, notice: str, *, client: str, backup: str) -> list[Row]:
    """Return the runs that a notice is about."""
    kind, _, identifier = notice.partition("/")
    if kind == "*":  # too much happened to tell each
        return list(reversed(remote.read("runs", client=client, backup=backup, limit=50)))
    if kind != "run" or not identifier:
        return []
    try:
        run = remote.read("run", id=identifier)
    except CouldNotRun:  # forgotten already, or the director stops: then there are no more notices
        return []
    return [run] if client in {"", run["client"]} and backup in {"", run["backup"]} else []


def _one_line(run: Row) -> str:
    name = f"{run['client']}/{run['backup']}"
    if run["outcome"]:
        return f"{name}: {run['outcome']}" + (f": {one_line(run['error'])}" if run["error"] else "")
    progress = run["progress"]
    if not progress:
        return f"{name}: started ({run['trigger']})"
    return (
        f"{name}: {progress['files']} files, {human_size(progress['originalSize'])} {one_line(progress['path'])[:60]}"
    )
