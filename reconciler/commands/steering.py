"""Commands that tell a running director what to do with its source: ``reconcile``, ``acknowledge`` and the like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from reconciler.commands.answers import Row, with_remote
from reconciler.commands.output import Failed, examples, one_line, output_option, print_data, working

if TYPE_CHECKING:
    from reconciler.commands.remote import Remote


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
