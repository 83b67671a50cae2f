"""Commands about secrets, offline: ``seal``, ``reseal``, ``escrow-key``. Plaintext goes nowhere but into the seal."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from reconciler.commands.output import CouldNotRun, Failed, examples, friendly, working, write_private
from reconciler.commands.source import read_path

_PATH = click.Path(exists=True, path_type=Path)
_MOST_BYTES = 64 * 1024


def _read_value(from_file: Path | None) -> bytes:
    if from_file is not None:
        with from_file.open("rb") as stream:
            value = stream.read(_MOST_BYTES + 1)
    elif sys.stdin.isatty():
        value = click.prompt("value", hide_input=True, confirmation_prompt=True).encode()
    else:
        value = sys.stdin.buffer.read(_MOST_BYTES + 1).removesuffix(b"\n")
    if not value:
        raise CouldNotRun("the value is empty", hint="type it, pipe it in, or give --from-file")
    if len(value) > _MOST_BYTES:
        raise CouldNotRun(f"the value is larger than {_MOST_BYTES // 1024} KiB")
    return value


@click.command(
    epilog=examples(
        "director seal . wordpress-db password",
        'printf %s "$PASSPHRASE" | director seal . borg passphrase',
        "director seal . nas id_ed25519 --from-file ~/.ssh/nas --client web-1",
    )
)
@click.argument("path", type=_PATH)
@click.argument("secret")
@click.argument("key")
@click.option(
    "--client", "clients", multiple=True, help="Seal to this client (may be repeated). Default: those who need it."
)
@click.option("--from-file", type=_PATH, help="Take the value from a file, byte for byte.")
@friendly
def seal(path: Path, secret: str, key: str, clients: tuple[str, ...], from_file: Path | None) -> None:
    """Seal a value so that only some clients can read it.

    It is written into the file of the Secret below PATH, which keeps its comments and layout; a Secret that does not
    exist yet gets a file of its own in secrets/. Without --client it is sealed to the Secret's `clients` and to every
    client whose backups refer to it.
    """
    from reconciler import sealing

    book = sealing.open_book(read_path(path), folder=path)
    value = _read_value(from_file)
    for line in sealing.seal(book, secret=secret, key=key, value=value, clients=clients):
        click.echo(line)


@click.command(
    epilog=examples(
        "director reseal . --escrow-key-file ~/escrow.key",
        "director reseal . wordpress-db --escrow-key-file ~/escrow.key --all",
    )
)
@click.argument("path", type=_PATH)
@click.argument("secret", required=False)
@click.option("--escrow-key-file", type=_PATH, required=True, help="The private escrow key.")
@click.option("--all", "everyone", is_flag=True, help="Seal again to every client, also where a sealed value is there.")
@friendly
def reseal(path: Path, secret: str | None, escrow_key_file: Path, everyone: bool) -> None:
    """Seal values again for clients that lack them.

    With the private escrow key instead of the plaintext: for a new client, or (with --all) for one whose key was
    replaced. Values without an escrow copy are named and left (exit 1).
    """
    from reconciler import sealing
    from schema.envelope import EscrowIdentity

    with escrow_key_file.open(encoding="ascii", errors="replace") as stream:
        escrow = EscrowIdentity.from_text(stream.read(4096))
    book = sealing.open_book(read_path(path), folder=path)
    with working("sealing"):
        resealed = sealing.reseal(book, escrow=escrow, secret=secret, everyone=everyone)
    for line in resealed.done:
        click.echo(line)
    for line in resealed.left:
        click.echo(line, err=True)
    if resealed.left:
        raise Failed("")
    if not resealed.done:
        click.echo("nothing to do: every client has what it needs")


@click.command("escrow-key", epilog=examples("director escrow-key ~/escrow.key"))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@friendly
def escrow_key(file: Path) -> None:
    """Make an escrow key, with which values can be resealed.

    The private half goes to FILE (keep it offline), the public one is printed.

    Put the public key into a Secret's `escrow`, and whoever holds FILE can `reseal` its values for a new client.
    """
    from schema.envelope import EscrowIdentity

    identity = EscrowIdentity.generate()
    write_private(file, identity.to_text())
    click.echo(identity.public)
    click.echo(f"the private half is in {file}: keep it offline, and safe", err=True)
