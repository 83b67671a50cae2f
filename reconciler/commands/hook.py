"""``director hook``: what Git calls in a repository that people push to."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from reconciler.commands.output import Failed, friendly, printable
from reconciler.commands.source import build_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.build import Build
    from reconciler.git_objects import Commit


@click.group(hidden=True)
def hook() -> None:
    """Git calls these."""


@hook.command("pre-receive")
@friendly
def pre_receive_hook() -> None:
    """Refuse a push that the director could not use."""
    from reconciler.bare import pre_receive
    from reconciler.core import plan as planning
    from reconciler.core import weigh

    def show_plan(before: Build, after: Build, commits: Sequence[Commit]) -> str:
        acknowledged = planning.acknowledgements(commit.message for commit in commits)
        told = [*planning.lines(planning.plan(before, after), acknowledged=acknowledged)]
        revision = commits[0].revision if commits else "REVISION"
        hold = weigh.weigh(before, after, revision=revision)
        if hold is not None and not acknowledged & {
            weigh.CODE,
            "all",
        }:  # by the default: the director may be told another
            told += [f"the director holds this, unless its `mass_change` allows more: {hold.message}", f"  {hold.hint}"]
        return "\n".join(told) + "\n"

    verdict = pre_receive(sys.stdin, dict(os.environ), build=build_files, plan=show_plan)
    click.echo(printable(verdict.text), nl=False, err=True)
    if verdict.exit_code:
        raise Failed("")
