"""Deployment by ``git push``: a bare repository that refuses what the director could not use.

``director init --bare DIR`` calls ``init_bare``. Git then runs the two hooks: ``director hook pre-receive`` calls
``pre_receive`` while the pushed objects are still in quarantine, and ``director reconcile --nudge`` tells a running
director afterwards. What is watched stands in the repository's own configuration (``director.branch``,
``director.path``), so that the hooks need no other file.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from reconciler.git_objects import Commit, GitObjects, NotARepository, is_revision, make_repository
from reconciler.source import SourceSettings
from reconciler.source_files import Files
from schema.errors import DirectorError, Problem, Severity, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_MARK = "# Written by `director init --bare`, which also updates it."

_PRE_RECEIVE = """\
#!/bin/sh
{mark}
# Refuses a push that the director could not use, with the reasons, and shows what it would change.
exec {director} hook pre-receive
"""

_POST_RECEIVE = """\
#!/bin/sh
{mark}
# Tells a running director that there is something new. The push is done: nobody waits for this and it cannot fail.
{director} reconcile --nudge </dev/null >/dev/null 2>&1 &
exit 0
"""

_SHOWN_PROBLEMS = 50
"""More would push the summary out of the pusher's terminal."""


class Built(Protocol):
    """What this module needs of a built revision."""

    @property
    def problems(self) -> Sequence[Problem]: ...


B = TypeVar("B", bound=Built)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a push may pass, and what its pusher is told. ``exit_code`` is that of the hook."""

    exit_code: int
    text: str


def init_bare(directory: Path, *, director_command: Sequence[str], branch: str = "main", path: str = "") -> bool:
    """Make ``directory`` a bare repository with our hooks, or bring the hooks of one we made up to date.

    ``director_command`` starts the director from anywhere (an absolute path and its arguments). Whatever else a person
    set in the repository's configuration stays. Returns whether the repository is new.

    Raises:
        TerminalError: the directory holds something else, or a hook was replaced by hand.
        TransientError: it cannot be written.
    """
    if not director_command or not Path(director_command[0]).is_absolute():
        raise TerminalError(f"hooks need the absolute path of the director, not '{' '.join(director_command)}'")
    watched = SourceSettings(url=str(directory.absolute()), branch=branch, path=path)
    is_new = not _is_ours(directory)
    try:
        if is_new:
            if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
                raise TerminalError(
                    f"cannot make a bare repository of '{directory}': it is not empty",
                    hint="name a new folder, or one that `director init --bare` made",
                )
            make_repository(directory, branch=watched.branch, bare=True)
        _configure(GitObjects(directory), watched)
        director = shlex.join(director_command)
        for name, text in (("pre-receive", _PRE_RECEIVE), ("post-receive", _POST_RECEIVE)):
            _write_hook(directory / "hooks" / name, text.format(mark=_MARK, director=director))
    except OSError as error:
        raise TransientError(f"cannot write the bare repository '{directory}': {error}") from error
    return is_new


def pre_receive(
    lines: Iterable[str],
    environment: Mapping[str, str],
    *,
    build: Callable[[Files], B],
    plan: Callable[[B, B, Sequence[Commit]], str],
) -> Verdict:
    """Decide on one push. ``lines`` are ``OLD NEW REFERENCE``, as Git writes them to the hook's standard input.

    Only the commit that the watched branch will stand on is checked: the director never uses those before it, and a
    mistake that a later commit of the same push corrects must be pushable. ``plan`` gets the build of the old revision,
    that of the new one and the commits between, newest first, and returns what to show.
    """
    repository = Path(environment.get("GIT_DIR", ".")).resolve()
    gate = _Gate(GitObjects(repository, environment=environment))
    told: list[str] = []
    for line in lines:
        words = line.split(maxsplit=2)
        if len(words) != len(("old", "new", "reference")):
            return Verdict(1, "refused: this is a hook for Git to call, which says OLD NEW REFERENCE on each line\n")
        old, new, reference = words
        if reference.strip() != f"refs/heads/{gate.branch}":
            continue
        try:
            told.append(gate.admit(old, new, build=build, plan=plan))
        except DirectorError as error:
            return Verdict(1, f"refused: {error}\n")
    return Verdict(0, "".join(told))


class _Gate:
    """One bare repository, seen from its hook."""

    def __init__(self, objects: GitObjects) -> None:
        self.objects = objects
        self.branch = objects.setting("director.branch") or "main"
        self.path = objects.setting("director.path") or ""

    def admit(
        self, old: str, new: str, *, build: Callable[[Files], B], plan: Callable[[B, B, Sequence[Commit]], str]
    ) -> str:
        """Return what to tell the pusher of an admitted revision.

        Raises:
            DirectorError: it is refused, and why.
        """
        if not is_revision(new):
            raise TerminalError(f"branch '{self.branch}' is what the director follows: it cannot be deleted")
        told = self._history(old, new)
        files = self.objects.files(new, self.path)
        after = build(files)
        problems = [*files.problems, *after.problems]
        errors = sum(problem.severity is Severity.ERROR for problem in problems)
        if errors:
            count = "1 error" if errors == 1 else f"{errors} errors"
            raise TerminalError(f"{count} in {new[:12]}; nothing changes anywhere\n{_listed(problems)}")
        told += _listed(problems)
        return told + self._plan(old, new, after=after, build=build, plan=plan)

    def _history(self, old: str, new: str) -> str:
        if not is_revision(old) or self.objects.is_descendant(new, of=old):
            return ""
        if self.objects.setting("receive.denyNonFastForwards", kind="bool") != "false":
            raise TerminalError(
                f"this push would rewrite the history of '{self.branch}'",
                hint="pull first; or, on the server: `git config receive.denyNonFastForwards false`",
            )
        return f"history is rewritten: the director holds this until `director acknowledge {new[:12]}`\n"

    def _plan(
        self,
        old: str,
        new: str,
        *,
        after: B,
        build: Callable[[Files], B],
        plan: Callable[[B, B, Sequence[Commit]], str],
    ) -> str:
        """Return the plan against the old revision; a plan that cannot be made is no reason to refuse a push."""
        try:
            before_files = self.objects.files(old, self.path) if is_revision(old) else Files()
        except TerminalError:  # the folder is new with this push
            before_files = Files()
        before = build(before_files)
        if any(problem.severity is Severity.ERROR for problem in (*before_files.problems, *before.problems)):
            return "accepted; there is no plan, because the revision before was not valid\n"
        commits = self.objects.log(None if not is_revision(old) else old, new)
        text = plan(before, after, commits)
        return text if text.endswith("\n") or not text else f"{text}\n"


def _listed(problems: Sequence[Problem]) -> str:
    ordered = sorted(problems, key=lambda problem: problem.severity is not Severity.ERROR)
    text = "".join(f"{problem}\n" for problem in ordered[:_SHOWN_PROBLEMS])
    more = len(ordered) - _SHOWN_PROBLEMS
    return f"{text}… and {more} more\n" if more > 0 else text


def _is_ours(directory: Path) -> bool:
    try:
        return (directory / "HEAD").is_file() and GitObjects(directory).setting("director.branch") is not None
    except NotARepository:
        return False


def _configure(objects: GitObjects, watched: SourceSettings) -> None:
    """Say what is watched, and protect history where nobody has decided otherwise."""
    objects.set("director.branch", watched.branch)
    objects.set("director.path", watched.path)
    for name in ("receive.denyNonFastForwards", "receive.denyDeletes"):
        if objects.setting(name) is None:
            objects.set(name, "true")


def _write_hook(file: Path, text: str) -> None:
    if file.exists() and _MARK not in file.read_text(encoding="utf-8", errors="replace"):
        raise TerminalError(
            f"'{file}' was not written by us, and is left as it is",
            hint="move it away and run this again; then call both from a hook of your own",
        )
    file.parent.mkdir(exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o755)
    new.replace(file)
