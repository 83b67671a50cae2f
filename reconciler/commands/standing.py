"""Commands that say how things stand: ``status``, ``drift``, ``backups``, ``archives`` and ``events``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.commands.answers import Row, ago_of, check_client, limit_option, moment, text_of, with_remote
from reconciler.commands.output import (
    Failed,
    ago,
    echo_lines,
    examples,
    human_size,
    one_line,
    output_option,
    print_data,
    print_rows,
)

if TYPE_CHECKING:
    from reconciler.commands.remote import Remote


@click.command(epilog=examples("director status", "director status -o json | jq .source.revision"))
@output_option
@with_remote
def status(remote: Remote, output: str) -> None:
    """Show how the source, the clients and the backups stand.

    Exit 1 when something needs a person.
    """
    overview = remote.read("overview")
    if output != "table":
        print_data(overview, output)
    else:
        _print_overview(overview)
    if any(one["level"] in {"critical", "warning"} for one in overview["attention"]):
        raise Failed("")


def _print_overview(overview: Row) -> None:
    source, following = overview["source"], overview["following"]
    revision, head = source["revision"][:12] or "none yet", source["head"][:12]
    click.echo(f"source     {one_line(source['url'])} {source['branch']}")
    click.echo(
        f"revision   {revision}" + (f" (newest seen: {head})" if head and head != source["revision"][:12] else "")
    )
    for condition in source["conditions"]:
        if condition["type"] == "Ready" and condition["status"] != "True":
            click.secho(f"           {condition['reason']}: {one_line(condition['message'])}", fg="yellow")
    counted = ", ".join(f"{count} {word}" for word, count in following.items() if count)
    click.echo(
        f"clients    {overview['clients']}, {overview['connected']} connected" + (f"; {counted}" if counted else "")
    )
    click.echo(
        f"backups    {overview['backups']}: {overview['protected']} protected, {overview['unprotected']} not, "
        f"{overview['unknown']} not known yet, {overview['withoutObjective']} without an objective"
    )
    click.echo(f"running    {overview['running']}")
    if not overview["attention"]:
        click.secho("\nnothing needs a person", fg="green")
        return
    click.echo("")
    for one in overview["attention"]:
        colour = {"critical": "red", "warning": "yellow"}.get(one["level"], "cyan")
        click.secho(f"{one['level']:<9}", fg=colour, nl=False)
        click.echo(f" {one_line(one['subject'])}: {one_line(one['message'])}")
        if one["fix"]:
            click.echo(f"           → {one_line(one['fix'])}")


@click.command(epilog=examples("director drift", "director drift --client web-1 -o json"))
@click.option("--client", default="", help="Only this client.")
@output_option
@with_remote
def drift(remote: Remote, client: str, output: str) -> None:
    """Show what differs from what should be, as diffs.

    Exit 1 when there is any drift that is not healed.
    """
    clients = [remote.read("client", name=client)] if client else remote.read("clients")
    rows = [{"client": one["name"], **difference} for one in clients for difference in one["drift"]]
    if output != "table":
        print_data(rows, output)
    for row in rows if output == "table" else ():
        state = click.style("healed", fg="green") if row["healed"] else click.style(row["kind"], fg="yellow")
        click.echo(
            f"{row['client']}: {one_line(row['subject'])}: {state}: {one_line(row['message'])} "
            f"({ago_of('detected')(row)})"
        )
        echo_lines((f"    {line}" for line in row["diff"].splitlines()), columns=(4,))
    if not rows and output == "table":
        click.echo("no drift")
    if any(not row["healed"] for row in rows):
        raise Failed("")


@click.command(epilog=examples("director archives", "director archives --client web-1 --backup web-files"))
@click.option("--client", default="", help="Only this client.")
@click.option("--backup", default="", help="Only this backup.")
@click.option("--repository", default="", help="Only this repository.")
@limit_option
@output_option
@with_remote
def archives(remote: Remote, client: str, backup: str, repository: str, limit: int, output: str) -> None:
    """List archives that clients saw in repositories, newest first."""
    rows = remote.read("archives", client=client, backup=backup, repository=repository, limit=limit)
    check_client(remote, client, rows)
    columns = [
        ("MADE", ago_of("start")),
        ("CLIENT", text_of("client")),
        ("BACKUP", text_of("backup")),
        ("REPOSITORY", text_of("repository")),
        ("ARCHIVE", text_of("name")),
        ("SIZE", lambda row: human_size(row["originalSize"]) if row["originalSize"] else ""),
    ]
    print_rows(rows, columns, output, empty="no archives seen yet")


@click.command(epilog=examples("director backups", "director backups --client web-1", "director backups -o json"))
@click.option("--client", default="", help="Only this client.")
@click.option("--backup", default="", help="Only this backup.")
@output_option
@with_remote
def backups(remote: Remote, client: str, backup: str, output: str) -> None:
    """List backups with their objective and evidence.

    Exit 1 when one is not protected.
    """
    rows = remote.read("backups", client=client, backup=backup)
    check_client(remote, client, rows)
    columns = [
        ("CLIENT", text_of("client")),
        ("BACKUP", text_of("backup")),
        ("PROTECTED", _protected),
        ("NEWEST ARCHIVE", _newest),
        ("OBJECTIVE", text_of("rpo")),
        ("LAST RUN", lambda row: (row["lastRun"] or {}).get("outcome") or ""),
        ("NEXT", _next),
    ]
    print_rows(rows, columns, output, empty="no backups yet: commit one")
    if any(_condition(row, "Protected").get("status") == "False" for row in rows):
        raise Failed("")


def _next(row: Row) -> str:
    """Return when the backup runs next; nothing when its client has not said."""
    if row["suspended"]:
        return "suspended"
    if row["nextDue"]:
        return ago(moment(row, "nextDue"))
    return "" if row["cron"] else "by hand"


def _newest(row: Row) -> str:
    """Return the oldest of the newest archives over all repositories: what the objective is held against."""
    moments = [moment(one, "newest") for one in row["evidence"]]
    known = [moment for moment in moments if moment is not None]
    return ago(min(known)) if known and len(known) == len(moments) else "never"


@click.command(epilog=examples("director events", "director events --client web-1"))
@click.option("--client", default="", help="Only this client.")
@limit_option
@output_option
@with_remote
def events(remote: Remote, client: str, limit: int, output: str) -> None:
    """Show the audit trail, newest first."""
    rows = remote.read("events", client=client, limit=limit)
    check_client(remote, client, rows)
    columns = [
        ("AT", ago_of("at")),
        ("REASON", text_of("reason")),
        ("BY", text_of("actor")),
        ("CLIENT", text_of("client")),
        ("MESSAGE", text_of("message")),
    ]
    print_rows(rows, columns, output, empty="no events yet")


def _condition(row: Row, kind: str) -> Row:
    found: Row = next((one for one in row.get("conditions", []) if one["type"] == kind), {})
    return found


def _protected(row: Row) -> str:
    condition = _condition(row, "Protected")
    reason = str(condition.get("reason", "unknown"))
    return {"True": "protected", "False": reason.lower()}.get(str(condition.get("status", "")), reason)
