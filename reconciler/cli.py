"""The ``director`` command. Offline commands stand in ``reconciler.commands``; this module builds the processes.

Only here and in ``reconciler.standalone`` are adapters made: Git, the store, the gateway and the pages meet nowhere
else.
"""

from __future__ import annotations

from importlib.metadata import version

import click

from reconciler.commands import secrets, source

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    context_settings=CONTEXT,
    epilog='Shell completion: eval "$(_DIRECTOR_COMPLETE=bash_source director)" (or zsh_source, fish_source).',
)
@click.version_option(version("borgmatic-director"), prog_name="director")
def main() -> None:
    """GitOps for borgmatic: Git says what every machine backs up; the director makes it so.

    Exit codes: 0 all is well, 1 something wrong was found, 2 the command could not run.
    """


for command in (source.init, source.validate, source.build, source.plan, source.schema, source.hook):
    main.add_command(command)
for command in (secrets.seal, secrets.reseal, secrets.escrow_key):
    main.add_command(command)
