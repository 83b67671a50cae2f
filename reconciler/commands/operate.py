"""Commands to a running director: ``status``, ``clients``, ``token``, ``runs``, ``acknowledge`` and the like."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import click

from reconciler.commands.output import (
    CouldNotRun,
    Failed,
    ago,
    echo_lines,
    examples,
    friendly,
    human_size,
    json_text,
    one_line,
    output_option,
    print_data,
    print_rows,
    working,
)
from reconciler.commands.which import config_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from reconciler.commands.remote import Remote

P = ParamSpec("P")
T = TypeVar("T")
Row = dict[str, Any]

_LIMIT = click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="At most so many.")


def with_remote(function: Callable[Concatenate[Remote, P], T]) -> Callable[..., T]:
    """Hand the command a ``Remote`` for the director that its options name."""

    @friendly
    @functools.wraps(function)
    def wrapper(*args: Any, config: Path | None, state_directory: Path | None, **kwargs: Any) -> T:
        from reconciler.commands.remote import Remote
        from reconciler.settings import load_settings

        settings = load_settings(config, state_directory=state_directory)
        return function(Remote(settings.socket_path), *args, **kwargs)

    return config_options(wrapper)


def _moment(row: Row, field: str) -> datetime | None:
    return datetime.fromisoformat(row[field]) if row.get(field) else None


def _ago(field: str) -> Callable[[Row], str]:
    return lambda row: ago(_moment(row, field))


def _text(field: str) -> Callable[[Row], str]:
    return lambda row: str(row.get(field) or "")


def _condition(row: Row, kind: str) -> Row:
    found: Row = next((one for one in row.get("conditions", []) if one["type"] == kind), {})
    return found


def _protected(row: Row) -> str:
    condition = _condition(row, "Protected")
    reason = str(condition.get("reason", "unknown"))
    return {"True": "protected", "False": reason.lower()}.get(str(condition.get("status", "")), reason)


# --- How things stand -------------------------------------------------------------------------------------------------


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
    clients = [remote.read("client", name=client)] if client else remote.read("clients", limit=1000)
    rows = [{"client": one["name"], **difference} for one in clients for difference in one["drift"]]
    if output != "table":
        print_data(rows, output)
    for row in rows if output == "table" else ():
        state = click.style("healed", fg="green") if row["healed"] else click.style(row["kind"], fg="yellow")
        click.echo(
            f"{row['client']}: {one_line(row['subject'])}: {state}: {one_line(row['message'])} "
            f"({_ago('detected')(row)})"
        )
        echo_lines((f"    {line}" for line in row["diff"].splitlines()), columns=(4,))
    if not rows and output == "table":
        click.echo("no drift")
    if any(not row["healed"] for row in rows):
        raise Failed("")


@click.command(
    epilog=examples("director runs", "director runs --backup web-files --follow", "director runs --run 4f1c…")
)
@click.option("--client", default="", help="Only this client.")
@click.option("--backup", default="", help="Only this backup.")
@click.option("--outcome", default="", help="succeeded, warned, failed, cancelled, lost or running.")
@click.option("--run", "run_id", default="", help="One run with its log.")
@click.option("--follow", is_flag=True, help="Print runs as they start, advance and end; with -o json a line each.")
@_LIMIT
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
    _check_client(remote, client, rows)
    columns = [
        ("STARTED", _ago("started")),
        ("CLIENT", _text("client")),
        ("BACKUP", _text("backup")),
        ("OUTCOME", lambda row: row["outcome"] or "running"),
        ("TOOK", _took),
        ("NEW DATA", lambda row: human_size(sum(one["deduplicatedSize"] for one in row["statistics"]))),
        ("RUN", lambda row: row["id"][:12]),
        ("ERROR", lambda row: row["error"][:80]),
    ]
    print_rows(rows, columns, output, empty="no runs yet")


def _check_client(remote: Remote, client: str, rows: Sequence[Row]) -> None:
    """Refuse a client that nobody knows: a misspelt one is not one without runs. A former one may still have rows."""
    if client and not rows:
        remote.read("client", name=client)


def _took(row: Row) -> str:
    started, finished = _moment(row, "started"), _moment(row, "finished")
    return f"{(finished - started).total_seconds():.0f} s" if started and finished else ""


def _show_run(remote: Remote, run_id: str, output: str) -> None:
    run = remote.read("run", id=run_id)
    log = remote.read("run_log", id=run["id"], limit=10_000)
    if output != "table":
        print_data({**run, "log": log}, output)
        return
    click.echo(
        f"{run['client']}/{run['backup']}: {run['outcome'] or 'running'}, started {ago(_moment(run, 'started'))}"
    )
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


@click.command(epilog=examples("director archives", "director archives --client web-1 --backup web-files"))
@click.option("--client", default="", help="Only this client.")
@click.option("--backup", default="", help="Only this backup.")
@click.option("--repository", default="", help="Only this repository.")
@_LIMIT
@output_option
@with_remote
def archives(remote: Remote, client: str, backup: str, repository: str, limit: int, output: str) -> None:
    """List archives that clients saw in repositories, newest first."""
    rows = remote.read("archives", client=client, backup=backup, repository=repository, limit=limit)
    _check_client(remote, client, rows)
    columns = [
        ("MADE", _ago("start")),
        ("CLIENT", _text("client")),
        ("BACKUP", _text("backup")),
        ("REPOSITORY", _text("repository")),
        ("ARCHIVE", _text("name")),
        ("SIZE", lambda row: human_size(row["originalSize"]) if row["originalSize"] else ""),
    ]
    print_rows(rows, columns, output, empty="no archives seen yet")


@click.command(epilog=examples("director backups", "director backups -o json"))
@output_option
@with_remote
def backups(remote: Remote, output: str) -> None:
    """List backups with their objective and evidence.

    Exit 1 when one is not protected.
    """
    rows = remote.read("backups", limit=1000)
    columns = [
        ("CLIENT", _text("client")),
        ("BACKUP", _text("backup")),
        ("PROTECTED", _protected),
        ("NEWEST ARCHIVE", _newest),
        ("OBJECTIVE", _text("rpo")),
        ("LAST RUN", lambda row: (row["lastRun"] or {}).get("outcome") or ""),
        ("NEXT", lambda row: ago(_moment(row, "nextDue")) if row["nextDue"] else "by hand"),
    ]
    print_rows(rows, columns, output, empty="no backups yet: commit one")
    if any(_condition(row, "Protected").get("status") == "False" for row in rows):
        raise Failed("")


def _newest(row: Row) -> str:
    """Return the oldest of the newest archives over all repositories: what the objective is held against."""
    moments = [_moment(one, "newest") for one in row["evidence"]]
    known = [moment for moment in moments if moment is not None]
    return ago(min(known)) if known and len(known) == len(moments) else "never"


@click.command(epilog=examples("director events", "director events --client web-1"))
@click.option("--client", default="", help="Only this client.")
@_LIMIT
@output_option
@with_remote
def events(remote: Remote, client: str, limit: int, output: str) -> None:
    """Show the audit trail, newest first."""
    rows = remote.read("events", client=client, limit=limit)
    _check_client(remote, client, rows)
    columns = [
        ("AT", _ago("at")),
        ("REASON", _text("reason")),
        ("BY", _text("actor")),
        ("CLIENT", _text("client")),
        ("MESSAGE", _text("message")),
    ]
    print_rows(rows, columns, output, empty="no events yet")


# --- The source -------------------------------------------------------------------------------------------------------


def _print_result(result: Row, output: str) -> None:
    if output != "table":
        print_data(result, output)
    else:
        click.secho(f"{result['outcome']}: {one_line(result['message'])}", fg="green" if result["ok"] else "yellow")
        for problem in result["problems"]:
            place = ":".join(str(part) for part in (problem["path"], problem["line"], problem["column"]) if part)
            click.echo(f"{one_line(place)}: {problem['severity']}: {one_line(problem['message'])}")
            for line in problem["excerpt"]:
                mark = ">" if line["number"] == problem["line"] else " "
                click.secho(f"  {mark}{line['number']:>5} | {one_line(line['text'])}", dim=mark == " ")
            if problem["hint"]:
                click.echo(f"  hint: {one_line(problem['hint'])}")
        if result["hint"]:
            click.echo(f"hint: {one_line(result['hint'])}")
    if not result["ok"]:
        raise Failed("")


@click.command(epilog=examples("director reconcile --wait"))
@click.option("--wait", is_flag=True, help="Wait for the pass, and say how it ended (exit 1 when not published).")
@click.option("--nudge", is_flag=True, hidden=True, help="For Git hooks: never fails.")
@output_option
@with_remote
def reconcile(remote: Remote, wait: bool, nudge: bool, output: str) -> None:
    """Ask the director to look at the source now."""
    if wait:
        with working("waiting for the pass"):
            result = remote.operate("reconcile")
        _print_result(result, output)
        return
    try:
        remote.operate("nudge")
    except click.ClickException:
        if not nudge:
            raise


@click.command(epilog=examples("director acknowledge 3f2a9c1d7e55"))
@click.argument("revision")
@output_option
@with_remote
def acknowledge(remote: Remote, revision: str, output: str) -> None:
    """Let a held REVISION through.

    So you say that its mass change or its rewritten history is meant.
    """
    _print_result(remote.operate("acknowledge", text=revision), output)


@click.command(epilog=examples("director suspend"))
@with_remote
def suspend(remote: Remote) -> None:
    """Publish no new revisions until `director resume`. Clients go on with what they have."""
    remote.operate("suspend")
    click.echo("reconciling is suspended; `director resume` goes on")


@click.command(epilog=examples("director resume"))
@with_remote
def resume(remote: Remote) -> None:
    """Go on publishing after `director suspend`."""
    remote.operate("resume")
    click.echo("reconciling goes on")


# --- Tokens and clients -----------------------------------------------------------------------------------------------


@click.group()
def token() -> None:
    """Make, list and revoke tokens for new clients."""


@token.command(
    "create",
    epilog=examples("director token create", "director token create --uses 20 --lifetime 7d --note 'web fleet'"),
)
@click.option(
    "--uses", type=click.IntRange(1, 10_000), default=1, show_default=True, help="How many clients may use it."
)
@click.option("--lifetime", default="1d", show_default=True, help="How long it is good for, e.g. 30m, 1d.")
@click.option("--note", default="", help="What it is for.")
@output_option
@with_remote
def token_create(remote: Remote, uses: int, lifetime: str, note: str, output: str) -> None:
    """Print one string that enrols a client: `director-client enroll STRING` on the machine."""
    from schema.scalars import parse_duration

    try:
        parse_duration(lifetime)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--lifetime") from None
    made = remote.operate("token_create", uses=uses, lifetime=lifetime, note=note)
    if output != "table":
        print_data(made, output)
        return
    click.echo(made["enrolment"])
    click.echo(
        f"good for {uses} {'client' if uses == 1 else 'clients'}, until {made['expires'][:16]}Z; on the machine:",
        err=True,
    )
    click.echo("  director-client enroll STRING", err=True)


@token.command("list", epilog=examples("director token list -o json"))
@output_option
@with_remote
def token_list(remote: Remote, output: str) -> None:
    """List tokens; their text is shown only when they are made."""
    columns = [
        ("ID", _text("id")),
        ("NOTE", _text("note")),
        ("CREATED", _ago("created")),
        ("EXPIRES", _ago("expires")),
        ("USES LEFT", lambda row: "revoked" if row["revoked"] else str(row["usesLeft"])),
    ]
    print_rows(remote.read("tokens"), columns, output, empty="no tokens: make one with `director token create`")


@token.command("revoke", epilog=examples("director token revoke 5d41402abc4b"))
@click.argument("identifier")
@with_remote
def token_revoke(remote: Remote, identifier: str) -> None:
    """Make a token worthless."""
    remote.operate("token_revoke", text=identifier)
    click.echo(f"token {identifier} is revoked")


@click.group()
def clients() -> None:
    """List, approve and revoke clients."""


@clients.command("list", epilog=examples("director clients list", "director clients list --locked"))
@click.option("--locked", is_flag=True, help="Addresses that are locked out, instead.")
@output_option
@with_remote
def clients_list(remote: Remote, locked: bool, output: str) -> None:
    """List clients: what they follow, and whether they are connected."""
    if locked:
        columns = [("ADDRESS", _text("address")), ("FAILURES", _text("failures")), ("UNTIL", _ago("lockedUntil"))]
        print_rows(remote.read("lockouts"), columns, output, empty="no address is locked out")
        return
    columns = [
        ("CLIENT", _text("name")),
        ("PHASE", _text("phase")),
        ("FOLLOWS", _text("following")),
        ("CONNECTED", lambda row: "yes" if row["connected"] else "no"),
        ("SEEN", _ago("lastSeen")),
        ("REVISION", lambda row: row["appliedRevision"][:12]),
        ("DRIFT", lambda row: str(sum(not one["healed"] for one in row["drift"]) or "")),
        ("BACKUPS", _text("backups")),
    ]
    print_rows(remote.read("clients", limit=1000), columns, output, empty="no clients yet: commit one, or enrol one")


@clients.command("pending", epilog=examples("director clients pending"))
@output_option
@with_remote
def clients_pending(remote: Remote, output: str) -> None:
    """Show keys that wait to be approved, each with the snippet to commit."""
    rows = remote.read("pending")
    if output != "table":
        print_data(rows, output)
        return
    if not rows:
        click.echo("nobody is waiting")
    for row in rows:
        click.secho(f"{row['name']}  {row['fingerprint']}", bold=True)
        click.echo(f"  from {row['address'] or 'this machine'}, first seen {_ago('firstSeen')(row)}")
        if row["conflict"]:
            click.secho("  KeyConflict: another key is approved under this name; look twice", fg="red")
        click.echo("  compare the fingerprint with `director-client fingerprint` on the machine, then commit:\n")
        click.echo("".join(f"    {line}\n" for line in snippet(row).splitlines()))
        click.echo(f"  or, without a commit:  director clients approve {row['fingerprint']}\n")


def snippet(row: Row) -> str:
    """Return the YAML that approves a pending client."""
    lines = [
        "apiVersion: borgmatic.director/v1",
        "kind: Client",
        f"metadata: {{name: {row['name']}}}",
        "spec:",
        f"  publicKey: {row['publicKey']}",
    ]
    places = [
        (key, row[field]) for key, field in (("config", "configDirectory"), ("state", "stateDirectory")) if row[field]
    ]
    if places:
        import json

        lines.append("  directories:")
        lines += [f"    {key}: {json.dumps(value)}" for key, value in places]
    return "\n".join(lines)


@clients.command("approve", epilog=examples("director clients approve SHA256:…", "director clients approve web-1"))
@click.argument("client")
@click.option("--name", help="Approve it under this name instead of the one it asked for.")
@with_remote
def clients_approve(remote: Remote, client: str, name: str | None) -> None:
    """Approve a pending CLIENT (fingerprint, key or name) without a commit."""
    done = remote.operate("client_approve", text=client, name=name)
    click.echo(f"approved {done['fingerprint']} as '{done['approved']}'")


@clients.command("revoke", epilog=examples("director clients revoke web-1"))
@click.argument("client")
@with_remote
def clients_revoke(remote: Remote, client: str) -> None:
    """Shut out a CLIENT's key for good, at once, also when it stands in Git."""
    done = remote.operate("client_revoke", text=client)
    click.echo(f"revoked {done['fingerprint']} of '{done['revoked']}'")


@clients.command("unlock", epilog=examples("director clients unlock 203.0.113.7"))
@click.argument("address")
@with_remote
def clients_unlock(remote: Remote, address: str) -> None:
    """Forget the failed attempts of an ADDRESS that is locked out."""
    remote.operate("client_unlock", text=address)
    click.echo(f"{address} is unlocked")


COMMANDS = (
    status, drift, runs, archives, backups, events, reconcile, acknowledge, suspend, resume, token, clients,
)  # fmt: skip
