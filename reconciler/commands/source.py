"""Commands about a source, offline: ``validate``, ``build``, ``plan`` and ``schema``; what others read it with."""

from __future__ import annotations

import json
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
    working,
)
from reconciler.commands.problem_formats import FORMATS, format_problems

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reconciler.core.build import Build
    from reconciler.source_files import Files
    from schema.errors import Problem

_PATH = click.Path(exists=True, path_type=Path)


def build_files(files: Files, *, schema_file: Path | None = None) -> Build:
    """Return the build of ``files``, with the problems of reading them first: the server's own code."""
    from dataclasses import replace

    from reconciler.garbage import never_looked_through

    with never_looked_through(), working(f"checking {len(files.files):,} files"):
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
    require_ok(built)
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


def require_ok(built: Build) -> None:
    """Print what is wrong and fail, unless nothing is."""
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
    require_ok(built_after)
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
