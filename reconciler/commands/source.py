"""Commands about a source, offline: ``init``, ``validate``, ``build``, ``plan``, ``schema``, and Git's hooks."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from reconciler.commands.output import (
    CouldNotRun,
    Failed,
    echo_lines,
    examples,
    friendly,
    print_data,
    printable,
    working,
    write_private,
)
from reconciler.commands.problem_formats import FORMATS, format_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.build import Build
    from reconciler.git_objects import Commit
    from reconciler.source_files import Files
    from schema.errors import Problem

_PATH = click.Path(exists=True, path_type=Path)


def build_files(files: Files, *, schema_file: Path | None = None) -> Build:
    """Return the build of ``files``, with the problems of reading them first: the server's own code."""
    from dataclasses import replace

    from reconciler.garbage import left_alone

    with left_alone(), working(f"checking {len(files.files):,} files"):
        from reconciler import borgmatic_schema
        from reconciler.core.build import build

        built = build(files.files, borgmatic_schema=borgmatic_schema.load(schema_file))
    return replace(built, problems=(*files.problems, *built.problems)) if files.problems else built


def read_path(path: Path) -> Files:
    """Return the resource files below ``path`` as they are now; shown paths start where the repository does."""
    from reconciler.source_files import read_folder

    if not (path.is_dir() or path.is_file()):
        raise CouldNotRun(f"{path} is neither a file nor a folder")
    root = repository_around(path if path.is_dir() else path.parent)
    return read_folder(path.resolve(), relative_to=root)


def repository_around(folder: Path) -> Path | None:
    """Return the root of the repository around ``folder``, or None when there is none.

    Most are seen by their files. Starting git, and loading all that reads commits, is a tenth of a `director validate`.
    """
    from reconciler.git_places import candidates, is_usual

    nearest = next(candidates(folder.resolve()), None)
    if nearest is None or is_usual(nearest):
        return nearest
    from reconciler.git_objects import discover

    place = discover(nearest)
    return place.repository if place is not None else None


def _errors(problems: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in problems if problem.severity == "error"]


def _summary(built: Build) -> str:
    errors = len(_errors(built.problems))
    warnings = len(built.problems) - errors
    noun = "backup" if built.counts.jobs == 1 else "backups"
    found = ", ".join(f"{count} {kind}" for kind, count in built.counts.resources.items() if count)
    counted = f"{found or 'no resources'}; {built.counts.jobs} {noun} on clients"
    if errors:
        return f"invalid: {errors} {'error' if errors == 1 else 'errors'}, {warnings} warnings ({counted})"
    return f"valid: {counted}" + (f", {warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else "")


@click.command(
    epilog=examples(
        "director validate .",
        "director validate --format github .",
        "director validate --format sarif . > result.sarif",
    )
)
@click.argument("path", type=_PATH, default=Path())
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", show_default=True, help="How to print.")
@click.option("--strict", is_flag=True, help="Warnings fail, too.")
@click.option(
    "--borgmatic-schema", "schema_file", type=_PATH, help="Check options against this borgmatic's config/schema.yaml."
)
@friendly
def validate(path: Path, form: str, strict: bool, schema_file: Path | None) -> None:
    """Check every resource below PATH and say all that is wrong.

    As the director would, but without one and without a network. Uncommitted work is read as it is.

    Exit 0: valid; 1: not; 2: could not run.
    """
    built = build_files(read_path(path), schema_file=schema_file)
    click.echo(format_problems(built.problems, form, summary=_summary(built)))
    if not built.ok or (strict and built.problems):
        raise Failed("")
    if not any(built.counts.resources.values()):
        raise Failed(f"there is no resource below {path}: is it the right folder?")


@click.command(
    epilog=examples(
        "director build . --client web-1",
        "director build . --out /tmp/rendered",
    )
)
@click.argument("path", type=_PATH, default=Path())
@click.option("--client", help="Only this client.")
@click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False), help="Write files below this folder, per client."
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@friendly
def build(path: Path, client: str | None, out: Path | None, output: str) -> None:
    """Render what each client would get from PATH.

    Offline, with the director's own code. Secrets stay sealed: rendered files hold references only.
    """
    built = build_files(read_path(path))
    _require_ok(built)
    contents = dict(built.contents)
    if client is not None:
        if client not in contents:
            known = ", ".join(sorted(contents)) or "none"
            raise CouldNotRun(f"there is no client '{client}'; the source has: {known}")
        contents = {client: contents[client]}
    if output == "json":
        print_data(contents, "json")
        return
    for name, content in sorted(contents.items()):
        for file in content.files:
            text = file.rendered("0" * 40).decode().partition("\n")[2] if out is None else file.content
            if out is None:
                click.secho(f"# {name}: {file.path}  (from {file.origin})", fg="cyan")
                click.echo(text)
                continue
            target = out / name / file.place / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        if out is not None:
            jobs = out / name / "jobs.json"
            jobs.parent.mkdir(parents=True, exist_ok=True)
            shown = [job.model_dump(mode="json", by_alias=True) for job in content.jobs]
            jobs.write_text(json.dumps(shown, indent=2) + "\n", encoding="utf-8")
    if out is not None:
        click.echo(f"wrote the files of {len(contents)} {'client' if len(contents) == 1 else 'clients'} to {out}")


def _require_ok(built: Build) -> None:
    if not built.ok:
        click.echo(format_problems(_errors(built.problems), "text", summary=_summary(built)), err=True)
        raise Failed("")


@click.command(
    epilog=examples(
        "director plan . --from main --to HEAD",
        "director plan . --from HEAD~1",
        "director plan . -o json",
    )
)
@click.argument("path", type=_PATH, default=Path())
@click.option("--from", "before", default="HEAD", show_default=True, help="The revision that is there.")
@click.option("--to", "after", help="The revision that would come. Default: the files as they are now.")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@friendly
def plan(path: Path, before: str, after: str | None, output: str) -> None:
    """Show what a change would do, client by client.

    Files, schedules, secrets, and dangers to data. Without --to it is what your uncommitted work would do.

    Exit 1 when a danger is not acknowledged by a `Director-Acknowledge: CODE` trailer in a commit message (or the
    change is invalid), so that CI can ask for a second look.
    """
    from reconciler.core import plan as planning
    from reconciler.git_objects import GitObjects, discover

    place = discover(path if path.is_dir() else path.parent)
    if place is None:
        raise CouldNotRun(
            f"{path} is not in a Git repository", hint="plan compares revisions: `git init` and commit first"
        )
    objects = GitObjects(place.repository)
    old = objects.resolve(before)
    built_before = build_files(objects.files(old, place.path))
    if not built_before.ok:
        errors = _errors(built_before.problems)
        raise CouldNotRun(f"the revision to compare with, {old[:12]}, is itself invalid: {errors[0]}")
    if after is None:
        built_after, commits = build_files(read_path(path)), objects.log(old, objects.resolve("HEAD"))
    else:
        new = objects.resolve(after)
        built_after, commits = build_files(objects.files(new, place.path)), objects.log(old, new)
    _require_ok(built_after)
    planned = planning.plan(built_before, built_after)
    acknowledged = planning.acknowledgements(commit.message for commit in commits)
    open_dangers = planning.unacknowledged(planned.dangers, acknowledged)
    if output == "json":
        print_data(
            {**planned.model_dump(mode="json"), "acknowledged": sorted(acknowledged), "ok": not open_dangers}, "json"
        )
    else:
        echo_lines(planning.lines(planned, acknowledged=acknowledged), columns=(0, 4, 6))
    if open_dangers:
        raise Failed("")


@click.command(
    epilog=examples(
        "director schema Backup",
        "director schema all > .vscode/borgmatic-director.json",
    )
)
@click.argument("kind", default="all")
@friendly
def schema(kind: str) -> None:
    """Print the JSON Schema of KIND, or of all kinds.

    For editors and CI.
    """
    from schema.resources import KINDS

    folder = Path(sys.modules["schema"].__file__ or "").parent / "json" / "v1"
    known = {name.lower(): name for name in ("all", *KINDS)}
    if kind.lower() not in known:
        raise CouldNotRun(f"there is no kind '{kind}'; known are: {', '.join(known.values())}")
    click.echo((folder / f"{known[kind.lower()]}.json").read_text(encoding="utf-8"), nl=False)


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
    _require_ok(build_files(read_path(directory)))
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
