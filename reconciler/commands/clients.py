"""``director token`` and ``director clients``: who may connect, and who does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.commands.answers import Row, ago_of, text_of, with_remote
from reconciler.commands.output import examples, output_option, print_data, print_rows

if TYPE_CHECKING:
    from reconciler.commands.remote import Remote


@click.group()
def token() -> None:
    """Make, list and revoke tokens for new clients."""


@token.command(
    "create",
    short_help="Print a string that enrols clients.",
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
    """Print one string that enrols a client: `director-client enroll -` on the machine, and paste it there."""
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
    click.echo("  director-client enroll -        (and paste the string)", err=True)


@token.command("list", epilog=examples("director token list -o json"))
@output_option
@with_remote
def token_list(remote: Remote, output: str) -> None:
    """List tokens; their text is shown only when they are made."""
    columns = [
        ("ID", text_of("id")),
        ("NOTE", text_of("note")),
        ("CREATED", ago_of("created")),
        ("EXPIRES", ago_of("expires")),
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
        columns = [("ADDRESS", text_of("address")), ("FAILURES", text_of("failures")), ("UNTIL", ago_of("lockedUntil"))]
        print_rows(remote.read("lockouts"), columns, output, empty="no address is locked out")
        return
    columns = [
        ("CLIENT", text_of("name")),
        ("PHASE", text_of("phase")),
        ("FOLLOWS", text_of("following")),
        ("CONNECTED", lambda row: "yes" if row["connected"] else "no"),
        ("SEEN", ago_of("lastSeen")),
        ("REVISION", lambda row: row["appliedRevision"][:12]),
        ("DRIFT", lambda row: str(sum(not one["healed"] for one in row["drift"]) or "")),
        ("BACKUPS", text_of("backups")),
    ]
    print_rows(remote.read("clients"), columns, output, empty="no clients yet: commit one, or enrol one")


@clients.command(
    "pending",
    short_help="Show keys that wait to be approved.",
    epilog=examples("director clients pending"),
)
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
        click.echo(f"  from {row['address'] or 'this machine'}, first seen {ago_of('firstSeen')(row)}")
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


@clients.command(
    "approve",
    short_help="Approve a pending CLIENT without a commit.",
    epilog=examples("director clients approve SHA256:…", "director clients approve web-1"),
)
@click.argument("client")
@click.option("--name", help="Approve it under this name instead of the one it asked for.")
@with_remote
def clients_approve(remote: Remote, client: str, name: str | None) -> None:
    """Approve a pending CLIENT (fingerprint, key or name) without a commit."""
    done = remote.operate("client_approve", text=client, name=name)
    click.echo(f"approved {done['fingerprint']} as '{done['approved']}'")


@clients.command(
    "revoke",
    short_help="Shut out a CLIENT's key for good, at once.",
    epilog=examples("director clients revoke web-1"),
)
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
