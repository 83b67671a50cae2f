"""``director init``: the start of a source, or a repository to push it to."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.commands.output import CouldNotRun, examples, friendly, write_private
from reconciler.commands.source import build_files, read_path, require_ok

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command(
    epilog=examples(
        "director init backups",
        "director init backups --client web-1 --repository /mnt/backup/borg",
        "director init --bare /srv/backups.git",
    )
)
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--bare", is_flag=True, help="Make a bare repository that validates every push.")
@click.option("--branch", default="main", show_default=True, help="The branch that is deployed.")
@click.option("--client", help="Name of the first client. Default: this machine's host name.")
@click.option("--public-key", help="Public key of the first client, when it is known already.")
@click.option(
    "--repository", default="/var/backups/borg/${client}", show_default=True, help="URL of the first repository."
)
@click.option(
    "--this-machine",
    is_flag=True,
    help="Make this machine the first client: its key, and a passphrase sealed to it, ready for `standalone`.",
)
@click.option(
    "--source", "sources", multiple=True, default=("/etc", "/home"), show_default=True, help="Directories to back up."
)
@click.option(
    "--client-config",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --this-machine: the client's settings file, when its directories are not the default ones.",
)
@click.option(
    "--escrow-key-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --this-machine: where the new private escrow key goes. Default: beside DIRECTORY.",
)
@friendly
def init(
    directory: Path,
    bare: bool,
    branch: str,
    client: str | None,
    public_key: str | None,
    repository: str,
    this_machine: bool,
    sources: Sequence[str],
    client_config: Path | None,
    escrow_key_file: Path | None,
) -> None:
    """Write a commented starting source to DIRECTORY.

    With a CI workflow and a pre-commit hook; nothing that is there is overwritten.

    With --bare: make a Git repository to push to. An invalid push is refused with the messages; an accepted one is
    deployed.
    """
    if bare:
        from reconciler.bare import init_bare

        new = init_bare(directory, director_command=_program(), branch=branch)
        click.echo(f"{'made' if new else 'updated'} {directory}")
        click.echo(f"push to it:   git remote add deploy {directory.absolute()} && git push deploy {branch}")
        click.echo(f'deploy it:    in director.toml, [source] url = "{directory.absolute()}"')
        return
    from reconciler import scaffold

    directories, escrow_file = None, None
    if this_machine:
        from reconciler import standalone

        escrow_file = _escrow_file(directory, escrow_key_file)
        machine = standalone.this_machine(client_config)
        public_key, directories = machine.public_key, machine.directories
    written = scaffold.write(
        directory,
        client=client,
        public_key=public_key,
        repository=repository,
        sources=list(sources),
        branch=branch,
        directories=directories,
        sealed=this_machine,
    )
    for path in written:
        click.echo(f"  {path}")
    click.echo(f"\nwrote {len(written)} files to {directory}")
    if escrow_file is not None:
        _seal_passphrase(directory, escrow_file)
    require_ok(build_files(read_path(directory)))
    where = shlex.quote(str(directory))
    click.echo("\nnext:")
    click.echo(f"  director validate {where}")
    click.echo(f"  git -C {where} add -A && git -C {where} commit -m 'Back up {client or 'this machine'}'")
    config = f" --client-config {shlex.quote(str(client_config))}" if client_config else ""
    click.echo(
        f"  director standalone {where}{config}" if this_machine else "  docs: README, 'a director with clients'"
    )


def _escrow_file(directory: Path, wanted: Path | None) -> Path:
    """Return where a new escrow key goes. Never into a Git work tree, where the next commit would publish it."""
    from reconciler.git_objects import discover

    file = wanted or directory.resolve().parent / f"{directory.resolve().name}-escrow.key"
    if file.exists():
        raise CouldNotRun(
            f"{file} is already there, and keys are never overwritten", hint="give --escrow-key-file FILE"
        )
    folder = file.resolve().parent
    if discover(folder) is not None or folder.is_relative_to(directory.resolve()):
        raise CouldNotRun(
            f"the escrow key would be written into a Git repository: {file}",
            hint="give --escrow-key-file FILE, outside of any repository: whoever has it can read every backup",
        )
    return file


def _seal_passphrase(directory: Path, file: Path) -> None:
    """Seal a fresh random passphrase to the machine and to a fresh escrow key, which a person must keep."""
    import secrets

    from reconciler import sealing
    from schema.envelope import EscrowIdentity

    escrow = EscrowIdentity.generate()
    write_private(file, escrow.to_text())
    target = directory / "secrets" / "borg.yaml"
    target.parent.mkdir(exist_ok=True)
    target.write_text(_SEALED_RESOURCE.format(escrow=escrow.public), encoding="utf-8")
    book = sealing.open_book(read_path(directory), folder=directory)
    name = "borg"
    sealing.seal(book, secret=name, key="passphrase", value=secrets.token_urlsafe(32).encode())
    click.secho(f"\nthe escrow key is in {file}", bold=True)
    click.echo("keep it offline: with it, and only with it, the passphrase can be had when this machine is lost")


_SEALED_RESOURCE = """\
# yaml-language-server: $schema=../.schema/all.json
# The passphrase of the Borg repository, sealed: `director seal . borg passphrase` replaces it.
apiVersion: borgmatic.director/v1
kind: Secret
metadata:
  name: borg
spec:
  escrow:
    # Whoever holds the private half can read the values, and seal them to a new client with `director reseal`.
    owner: {escrow}
"""


def _program() -> list[str]:
    """Return the command that is this director, for hooks: they run anywhere, and without our environment."""
    called = Path(sys.argv[0])
    program = called.resolve() if called.exists() else Path(sys.executable).with_name("director")
    named = click.get_current_context().find_root().params.get("config") or os.environ.get("BORGMATIC_DIRECTOR_CONFIG")
    return [str(program), *(["--config", str(Path(named).absolute())] if named else [])]
