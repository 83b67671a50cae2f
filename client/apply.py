"""Follow a desired state: check, stage, validate, swap. Atomic whenever the machine may die. Called by ``agent``.

::

    policy → unseal → stage → borgmatic config validate → fsync → persist() → commit → swap → clean up
    └──────────── nothing changed; a crash or error leaves no trace ───────┘         └─ completed ─┘

Staged files wait in hidden folders on the filesystems where they belong. The commit is the rename of a journal beside
them: before it a restart throws the staged files away, after it ``recover`` finishes the swap. Between ``persist`` and
the commit the state is accepted and not applied, which the caller knows from its own marker, and it applies it again.

What the swap replaces or prunes is kept under ``<state>/previous`` until the next one.
"""

from __future__ import annotations

import asyncio
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from client import borgmatic, policy
from client.managed import Entry, Folder, Found, Inventory, Places, digest, failed
from schema.directories import Directories
from schema.errors import TerminalError, TransientError, scrub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client.borgmatic import Start
    from client.policy import Policy, Uses
    from schema.desired import Content, DesiredState, ManagedFile, SealedSecret

    Unseal = Callable[[SealedSecret, str], bytes]
    """Opens a sealed value for the named client."""

STAGED = ".borgmatic-director"
_JOURNAL = "journal.json"
_VALIDATE_SECONDS = 120.0
_REVISION = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PREVIOUS = "previous"
_REPOSITORY_SECRETS = "repository-secrets.json"
"""The names of the secrets that were ever a repository's, in the state directory."""
_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[str])
_NO_LINE = re.compile(rb"[\x00-\x1f\x7f]")
_NO_LINES = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_KEY_WITHOUT_END = re.compile(
    rb"\A-----BEGIN [A-Z ]*PRIVATE KEY-----\r?\n.*-----END [A-Z ]*PRIVATE KEY-----\Z", re.DOTALL
)


class FileConflict(TerminalError):
    """A file that we did not write is where one of ours should be."""


class BorgmaticRefuses(TerminalError):
    """This machine's borgmatic does not accept the configuration."""


class _Journal(BaseModel):
    """A committed swap: what moves where, what goes, and the inventory afterwards."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    moves: tuple[Entry, ...]
    removals: tuple[Entry, ...]
    inventory: Inventory


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One file as it should be."""

    entry: Entry
    content: bytes = field(repr=False)


class Applier:
    """Puts desired states into place, one at a time."""

    def __init__(
        self,
        *,
        program: str,
        directories: Directories,
        policy: Policy,
        unseal: Unseal,
        environment: Mapping[str, str] = os.environ,
        start: Start = borgmatic.start,
    ) -> None:
        self._program = borgmatic.find(program)
        self._directories = directories
        self._policy = policy
        self._unseal = unseal
        self._environment = borgmatic.environment(environment, also=policy.environment)
        self._start = start
        self._turn = asyncio.Lock()
        self.places = Places(config=Path(directories.config), state=Path(directories.state))

    async def apply(self, state: DesiredState, *, persist: Callable[[], None]) -> None:
        """Make this machine look like ``state``. ``persist`` writes down that the state was accepted.

        Raises ``PolicyDenied``, ``FileConflict``, ``BorgmaticRefuses``, ``TrustError`` and other ``DirectorError``s
        with nothing changed.
        """
        async with self._turn:
            uses = self.check(state)
            wanted = list(self._wanted(state))
            self._check_values(wanted, uses)

            def accepted() -> None:
                persist()
                self._remember(uses)

            try:
                self.recover()
                await self._apply(state.content, wanted, persist=accepted)
            except OSError as error:
                raise failed(error, doing="put the desired state into place") from error

    def check(self, state: DesiredState) -> Uses:
        """Raise what ``apply`` would raise before it opens or touches anything."""
        if not _REVISION.fullmatch(state.revision):
            raise TerminalError("the revision of the desired state is not one line of letters and digits")
        known = self._repository_secrets()
        return policy.check(state.content, self._policy, self._directories, repository_secrets=known)

    def recover(self) -> bool:
        """Finish or undo what a crash interrupted. Call at start. Returns whether a swap was finished."""
        try:
            journal = self._journal()
            if journal is not None:
                self._swap(journal)
            self._clean_up()
        except OSError as error:
            raise failed(error, doing="finish the interrupted change") from error
        return journal is not None

    def restore(self, state: DesiredState, paths: frozenset[str]) -> None:
        """Write the files and secrets of ``state`` named by ``paths`` again: how drift is healed."""
        chosen = [wanted for wanted in self._wanted(state) if wanted.entry.path in paths]
        try:
            for wanted in chosen:
                folder, name = self.places.open(wanted.entry.place, wanted.entry.path, create=True)
                with folder:
                    folder.replace(name, wanted.content, mode=wanted.entry.mode)
            self.places.save_inventory(_updated(self.places.inventory(), [wanted.entry for wanted in chosen]))
        except OSError as error:
            raise failed(error, doing="restore managed files") from error

    # --- What is wanted -----------------------------------------------------------------------------------------------

    def _wanted(self, state: DesiredState) -> Iterator[_Wanted]:
        for file in state.content.files:
            yield _Wanted(_entry(file, state.revision), file.rendered(state.revision))
        for secret in state.content.secrets:
            value = _as_file(self._unseal(secret, state.content.client))
            path = f"secrets/{secret.secret}.{secret.key}"
            yield _Wanted(Entry(place="state", path=path, digest=digest(value), mode=0o600), value)

    def _check_values(self, wanted: list[_Wanted], uses: Uses) -> None:
        """Refuse an opened secret that would say more than its option: the director never sees it, and cannot judge.

        A line break in a password is another line in the settings of a database's program, and a library is none.
        """
        for one in wanted:
            if not one.entry.path.startswith("secrets/"):
                continue
            path = f"{self._directories.state}/{one.entry.path}"
            name = one.entry.path.removeprefix("secrets/")
            if one.content.startswith(b"\x7fELF"):
                raise TerminalError(f"secret '{name}' is a program", hint="seal a password, a key or a certificate")
            has_lines = path in uses.files and path not in uses.one_line
            text = one.content.removesuffix(b"\n").removesuffix(b"\r")
            if (_NO_LINES if has_lines else _NO_LINE).search(text):
                raise TerminalError(
                    f"secret '{name}' holds {'control characters' if has_lines else 'more than one line of text'}",
                    hint="seal it again as text"
                    if has_lines
                    else "seal it again as one line; only ssh keys, TLS keys and certificates have more",
                )

    def _repository_secrets(self) -> frozenset[str]:
        try:
            found = self.places.read("state", _REPOSITORY_SECRETS)
            return frozenset() if found is None else frozenset(_NAMES.validate_json(found.content or b""))
        except OSError as error:
            raise failed(error, doing="read which secrets are a repository's") from error
        except ValidationError as error:
            path = self.places.state / _REPOSITORY_SECRETS
            raise TerminalError(f"{path} is damaged", hint=f"remove it: rm {path}") from error

    def _remember(self, uses: Uses) -> None:
        known = self._repository_secrets()
        if not uses.repository <= known:
            with Folder.open(self.places.state) as folder:
                names = _NAMES.dump_json(sorted(known | uses.repository), indent=1)
                folder.replace(_REPOSITORY_SECRETS, names, mode=0o600)

    def _kept_by_hand(self, content: Content, wanted: _Wanted, found: Found, written: Entry) -> bool:
        """Whether a person's edit stays: drift is only reported, and this change is about something else."""
        job = next((job for job in content.jobs if job.file == wanted.entry.path), None)
        edited = found.content is not None and digest(found.content) != written.digest
        return job is not None and job.drift == "report" and edited and written.body == wanted.entry.body

    # --- The steps ----------------------------------------------------------------------------------------------------

    async def _apply(self, content: Content, wanted: list[_Wanted], *, persist: Callable[[], None]) -> None:
        inventory = self.places.inventory()
        moves, kept = [], []
        for one in wanted:
            found = self.places.read(one.entry.place, one.entry.path)
            written = inventory.find(one.entry.place, one.entry.path)
            self._check_conflict(one, found, written)
            if found is not None and written is not None and self._kept_by_hand(content, one, found, written):
                kept.append(written)
            else:
                moves.append(one)
        names = {(one.entry.place, one.entry.path) for one in wanted}
        removals = tuple(entry for entry in inventory.entries if (entry.place, entry.path) not in names)
        entries = (*kept, *(one.entry for one in moves))
        journal = _Journal(
            moves=tuple(one.entry for one in moves), removals=removals, inventory=Inventory(entries=entries)
        )
        try:
            self._stage(moves, journal)
            await self._validate(_changed(moves, inventory))
        except BaseException:
            self._clean_up()
            raise
        try:
            persist()
            self._commit()
        except BaseException:
            self._clean_up()
            raise
        self._forget_previous()
        self._swap(journal)
        self._clean_up()

    def _check_conflict(self, wanted: _Wanted, found: Found | None, written: Entry | None) -> None:
        if found is None or written is not None or found.content == wanted.content:
            return
        if wanted.entry.place == "state":
            return
        path = self.places.config / wanted.entry.path
        if found.content is None:
            raise FileConflict(f"{path} is not a regular file", hint=f"remove it: rm {path}")
        raise FileConflict(
            f"{path} exists and was not written by the director",
            hint=f"to let the director take its place: mv {path} {path}.before-director",
        )

    def _stage(self, moves: list[_Wanted], journal: _Journal) -> None:
        self._clean_up()
        for place, root, mode in (("config", self.places.config, 0o755), ("state", self.places.state, 0o700)):
            with Folder.open(root, create=True, mode=mode) as folder, folder.below(STAGED) as staged:
                for number, one in enumerate(moves):
                    if one.entry.place == place:
                        staged.create(_staged_name(number, one.entry), one.content, mode=one.entry.mode)
                if place == "state":
                    staged.create(_JOURNAL + ".staged", journal.model_dump_json().encode(), mode=0o600)
                staged.sync()
                folder.sync()

    async def _validate(self, names: list[str]) -> None:
        """Ask the machine's own borgmatic, which may be older or newer than the director's, about staged files.

        It needs half a second to start and a tenth for each file: what stands below the header of a file that we wrote
        was judged when we wrote it.
        """
        if not names:
            return
        staged = self.places.config / STAGED
        chosen = [word for name in names for word in ("--config", str(staged / name))]
        ended = await borgmatic.call(
            [self._program, *chosen, "config", "validate"],
            environment=self._environment,
            timeout=_VALIDATE_SECONDS,
            start=self._start,
        )
        if ended.timed_out:
            raise TransientError(f"borgmatic did not validate the configuration within {_VALIDATE_SECONDS:.0f} seconds")
        if ended.exit_code < 0:
            raise TransientError(
                f"borgmatic was killed by signal {-ended.exit_code} while validating the configuration"
            )
        if ended.exit_code != 0:
            raise BorgmaticRefuses(
                f"this machine's borgmatic refuses the configuration: {self._refusal(ended.stderr or ended.stdout)}",
                hint="is its borgmatic older than the director's? `director-client doctor` shows the versions",
            )

    def _refusal(self, output: bytes) -> str:
        text = scrub(output[:65_536].decode("utf-8", "replace"))
        text = re.sub(rf"{re.escape(str(self.places.config / STAGED))}/\d+-", f"{self.places.config}/", text)
        ours = ("summary:", "Need some help?", "Configuration validation failed", "An error occurred while parsing")
        lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(ours)]
        return "; ".join(dict.fromkeys(lines))[:2_000] or "it says nothing"

    def _commit(self) -> None:
        """The instant after which the swap is finished, whatever happens."""
        with Folder.open(self.places.state) as root, root.below(STAGED) as staged:
            staged.take(_JOURNAL, _JOURNAL + ".staged", of=staged)
            staged.sync()

    def _journal(self) -> _Journal | None:
        found = self.places.read("state", f"{STAGED}/{_JOURNAL}")
        if found is None or found.content is None:
            return None
        try:
            return _Journal.model_validate_json(found.content)
        except ValidationError as error:
            raise TerminalError(
                "the journal of an interrupted change is damaged", hint=f"remove {self.places.state / STAGED}"
            ) from error

    def _swap(self, journal: _Journal) -> None:
        """Move every staged file into place and prune. Doing it twice, or from the middle, comes to the same."""
        self._keep_previous(journal)
        numbered = list(enumerate(journal.moves))
        # Secrets and known_hosts first: a configuration that is in place never names what is not.
        for number, entry in sorted(numbered, key=lambda one: one[1].place == "config"):
            folder, name = self.places.open(entry.place, entry.path, create=True)
            root = self.places.config if entry.place == "config" else self.places.state
            with folder, Folder.open(root) as outer, outer.below(STAGED) as staged:
                if folder.take(name, _staged_name(number, entry), of=staged):
                    folder.sync()
        self.places.save_inventory(
            Inventory(entries=(*journal.inventory.entries, *journal.removals))
            if journal.removals
            else journal.inventory
        )
        for entry in sorted(journal.removals, key=lambda one: one.place == "state"):
            try:
                folder, name = self.places.open(entry.place, entry.path)
            except FileNotFoundError:
                continue
            with folder:
                folder.remove(name)
                folder.sync()
        if journal.removals:
            self.places.save_inventory(journal.inventory)

    def _forget_previous(self) -> None:
        with Folder.open(self.places.state) as root:
            root.clear(_PREVIOUS)

    def _keep_previous(self, journal: _Journal) -> None:
        """Keep the configuration that is about to be replaced or pruned, as it is on disk. Secrets are not kept."""
        pruned = set(journal.removals)
        with Folder.open(self.places.state) as root, root.below(_PREVIOUS) as previous:
            for entry in (*journal.moves, *journal.removals):
                found = self.places.read("config", entry.path) if entry.place == "config" else None
                content = found.content if found is not None else None
                if content is not None and (entry in pruned or digest(content) != entry.digest):
                    previous.create(entry.path, content, mode=0o600)

    def _clean_up(self) -> None:
        for root in (self.places.config, self.places.state):
            if os.path.lexists(root / STAGED):
                with Folder.open(root) as folder:
                    folder.clear(STAGED)
                    folder.sync()


def _entry(file: ManagedFile, revision: str) -> Entry:
    return Entry(
        place=file.place,
        path=file.path,
        digest=digest(file.rendered(revision)),
        body=digest(file.content.encode()),
        mode=file.mode,
    )


def _as_file(secret: bytes) -> bytes:
    """Return ``secret`` as it must stand in a file: a PEM key without its last line break is none to ssh."""
    return secret + b"\n" if _KEY_WITHOUT_END.search(secret) else secret


def _changed(moves: list[_Wanted], inventory: Inventory) -> list[str]:
    """Return the staged names of the configurations that differ from what we wrote before by more than the header."""
    bodies = {entry.path: entry.body for entry in inventory.entries if entry.place == "config"}
    return [
        _staged_name(number, one.entry)
        for number, one in enumerate(moves)
        if one.entry.place == "config" and bodies.get(one.entry.path) != one.entry.body
    ]


def _staged_name(number: int, entry: Entry) -> str:
    return f"{number}-{entry.path.replace('/', '-')}"


def _updated(inventory: Inventory, entries: list[Entry]) -> Inventory:
    new = {(entry.place, entry.path) for entry in entries}
    return Inventory(entries=(*(one for one in inventory.entries if (one.place, one.path) not in new), *entries))
