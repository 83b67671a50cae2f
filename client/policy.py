"""Local policy: what this machine lets any director ask of it. Pure; ``apply`` asks before anything is written.

The file contents are signed, and still not believed: each is read with borgmatic's own parser, from its exact bytes,
under rules that leave nothing to interpretation (no tags and so no ``!include``, no anchors, no merge keys, no doubled
keys). Options are allowed by name. What is not in ``HARMLESS`` (because it runs a program, chooses one, passes flags
through, writes to a place of its own, gives Borg's protection away, or is simply unknown) needs a line in client.toml.

Values are checked where an allowed option could do more than its name says:

* borgmatic joins source directories and patterns into one patterns file, a line each, so that a line break in one is
  another pattern;
* a database's name reaches its dump program as a bare argument, so that a leading hyphen makes it a flag, and names,
  labels and hosts become parts of a path;
* a ``{credential …}`` in the password of a monitoring service could send any file there: only secrets are read, to
  hosts in ``send_to``, and never those of a repository;
* a line break in the password of a database is another line in the settings of its program, so that only the text of a
  message may have lines;
* ``constants`` and ``${…}`` rewrite all other values, and so are put in before anything is checked, or refused;
* borgmatic puts them into a repository's own options twice, the second time with that repository's own constants, so
  that a repository may have neither constants nor anything escaped.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
import shlex
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from client.policy_file import Node, read_options
from client.policy_options import HARMLESS
from client.policy_texts import BREAKS, Denied, Texts, has_variable, is_escaped
from schema.desired import Content, Job, ManagedFile, ssh_command
from schema.errors import PolicyDenied
from schema.scalars import NAME_PATTERN, AbsolutePath, RepositoryUrl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from schema.directories import Directories

OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}(\.[a-z0-9_]{1,64}){0,3}$")]
CredentialKind = Literal["file", "systemd", "container", "keepassxc", "onepassword"]


class Policy(BaseModel):
    """The ``[policy]`` table of client.toml. The default lets borgmatic back up, and nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: tuple[OptionName, ...] = ()
    """Options allowed besides the harmless ones, with all that is below them: ``commands``, ``lvm.mount_command``."""
    read_paths: tuple[AbsolutePath, ...] = ("/",)
    """What may be backed up: these paths and what is below them."""
    write_repositories: tuple[str, ...] = ("*",)
    """Repository urls, as globs in which ``*`` matches slashes too."""
    credentials: tuple[CredentialKind, ...] = ("file", "systemd", "container")
    """borgmatic's credential hooks that may be used; ``keepassxc`` and ``onepassword`` run programs."""
    credential_files: tuple[AbsolutePath, ...] = ()
    """Files besides the managed secrets that ``{credential file …}`` and ssh keys may name."""
    send_to: tuple[str, ...] = ()
    """Hosts that credentials may be sent to, by monitoring options and databases elsewhere, or ``*``; and by name the
    services without a host of their own: ``pushover``, ``pagerduty``, ``apprise``."""
    environment: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,128}$")], ...] = ()
    """Variables of the service that borgmatic may see and that ``${…}`` may name."""
    contents: Literal["directories", "none"] = "directories"
    """What the director may hear of what is in archives: the names of directories and of the 20 largest files, with
    numbers and sizes; or nothing."""
    minimum_kept: int = Field(default=3, ge=0)
    """What a prune must keep: the sum of ``keep_secondly``, ``keep_minutely``, ``keep_hourly`` and ``keep_daily``, or
    ``keep_within`` in days. Checked whenever a file holds a ``keep_…``, or its backup prunes.

    Each of these rules of Borg keeps the newest archive of the latest periods that have one, and none that a finer rule
    kept counts again, so that a sum of 3 keeps 3 archives where there are archives of 3 days. Weeks, months and years
    do not count: ``keep_yearly: 10`` keeps two archives of a repository that is a year old. It is a floor under one
    prune: whoever may ask for backups can fill the latest hours with new archives, and ``keep_within`` counts nothing
    when there was no backup for so long. Only an append-only repository keeps what is older.
    """


_REPOSITORY_OWN = frozenset(name.split(".")[1] for name in HARMLESS if name.startswith("repositories."))
"""What belongs to an entry of ``repositories``; borgmatic takes everything else there for a general option."""

_OWN_FORM = frozenset({"ssh_command", "match_archives", "prefix"})
"""Options that pass without a line when their value is what the director itself would write."""

_LINES = frozenset({"message", "body"})
"""Last words of options that may have several lines: they are sent as JSON or as a form. Nothing else may."""
_FREE_TEXT = frozenset({*_LINES, "title", "url_title", "*"})
"""Last words of options whose text may be anything else."""
_SECRET_TEXT = frozenset({"encryption_passphrase", "password", "restore_password", "token", "access_token", "api_key"})
_PATHS = frozenset(
    {
        "source_directories",
        "working_directory",
        "sqlite_databases.path",
        "sqlite_databases.restore_path",
        "loki.tls.cert_path",
        "loki.tls.key_path",
    }
)
_MAY_BE_RELATIVE = frozenset({"source_directories", "patterns"})
"""Paths that borgmatic puts into a file of patterns. All others may become an argument or a program's own setting."""
_SOCKETS = frozenset({"socket_path", "restore_socket_path"})
_TLS_FILES = frozenset(f"postgresql_databases.ssl_{name}" for name in ("cert", "key", "root_cert", "crl"))
"""libpq takes ``engine:key`` for a key of an OpenSSL engine, which is a library that it loads."""
_PATH_PARTS = frozenset({"name", "label", "hostname", "container"})
"""What borgmatic makes the path of a dump of (borgmatic.hooks.data_source.dump)."""

_MONITORS = {
    "apprise": "",
    "cronitor": "ping_url",
    "healthchecks": "ping_url",
    "loki": "url",
    "ntfy": "server",
    "pagerduty": "",
    "pushover": "",
    "sentry": "data_source_name_url",
    "uptime_kuma": "push_url",
    "watchgoose": "ping_url",
    "zabbix": "server",
}
"""borgmatic's monitoring options, and which option below each says where the service is."""
_LOCAL = frozenset({"", "localhost", "127.0.0.1", "::1"})

_BREAKS_WITHIN_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_CREDENTIAL = re.compile(r"\{credential ([a-z]+) ([^{}\x00-\x1f]+)\}")
_LOOKS_LIKE_CREDENTIAL = re.compile(r"\{\s*credential")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
_GLOB = re.compile(r"[*?\[]")
_STYLES = frozenset({"", "fm", "sh", "re", "pp", "pf"})
_WEB_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?:[/?#][^\\@$]*)?")
_WITHIN = re.compile(r"(\d+)([SMHdwmy])")
_WITHIN_DAYS = {"S": 1 / 86_400, "M": 1 / 1_440, "H": 1 / 24, "d": 1, "w": 7, "m": 31, "y": 365}
_KEEP_COUNTS = ("keep_secondly", "keep_minutely", "keep_hourly", "keep_daily")
_KEEP = frozenset(name for name in HARMLESS if name.startswith("keep_")) - {"keep_exclude_tags"}
_OF_THIS_HOST = re.compile(r"\{(hostname|fqdn|reverse-fqdn)\}-")
_URL: TypeAdapter[str] = TypeAdapter(RepositoryUrl)
_PRIVATE_MODES = frozenset({0o400, 0o440, 0o444, 0o600, 0o640, 0o644})


@dataclass(frozen=True, slots=True)
class Uses:
    """Where secrets are used: as ``file /path``, ``systemd name``, or as paths."""

    repository: frozenset[str] = frozenset()
    """Passphrases of repositories and ssh keys. What was one once may never be used for anything else."""
    one_line: frozenset[str] = frozenset()
    """Paths whose content becomes the value of an option."""
    files: frozenset[str] = frozenset()
    """Paths that a program reads as a file: keys and certificates, which have lines."""


def check(
    content: Content, policy: Policy, directories: Directories, *, repository_secrets: frozenset[str] = frozenset()
) -> Uses:
    """Raise ``PolicyDenied`` unless this machine lets a director ask for ``content``. Return how it uses secrets.

    ``repository_secrets`` are those of former states: ``Uses.repository``.
    """
    if content.directories != directories:
        raise PolicyDenied(
            f"the director names other directories ({content.directories.config}, {content.directories.state}) than "
            f"this machine uses ({directories.config}, {directories.state})",
            allow=f"config_directory = {_toml(content.directories.config)}, "
            f"state_directory = {_toml(content.directories.state)}",
        )
    configured = _check_files(content)
    checks = [_Check(content.client, job, policy, directories) for job in content.jobs]
    for one in checks:
        one.file(configured[one.job.file])
    repository = repository_secrets.union(*(one.repository for one in checks))
    for one in checks:
        one.refuse_elsewhere(repository)
    return Uses(
        repository=frozenset().union(*(one.repository for one in checks)),
        one_line=frozenset().union(*(one.one_line for one in checks)),
        files=frozenset().union(*(one.files for one in checks)),
    )


def _check_files(content: Content) -> dict[str, ManagedFile]:
    configured: dict[str, ManagedFile] = {}
    seen: set[tuple[str, str]] = set()
    for file in content.files:
        if (file.place, file.path) in seen:
            raise PolicyDenied(f"file '{file.path}' is sent twice")
        seen.add((file.place, file.path))
        if file.mode not in _PRIVATE_MODES:
            raise PolicyDenied(
                f"file '{file.path}' would have the mode {file.mode:04o}: only 0600 and narrower ones, or 0644"
            )
        if BREAKS.search(file.origin):
            raise PolicyDenied(f"the origin of file '{file.path}' holds a line break or control character")
        if file.place == "config":
            if "/" in file.path or not file.path.endswith(".yaml"):
                raise PolicyDenied(f"'{file.path}' is not a .yaml file directly in borgmatic's directory")
            configured[file.path] = file
        elif not re.fullmatch(r"known_hosts/" + NAME_PATTERN.strip("^$"), file.path):
            raise PolicyDenied(f"'{file.path}' may not be written to the state directory: only known_hosts files")
    jobs = [job.file for job in content.jobs]
    if sorted(jobs) != sorted(configured) or any(job.file != f"{job.backup}.yaml" for job in content.jobs):
        raise PolicyDenied("the configuration files are not exactly those of the jobs")
    return configured


class _Check:
    """The rules for one job and its file."""

    def __init__(self, client: str, job: Job, policy: Policy, directories: Directories) -> None:
        self._names = f"{client}.{job.backup}."
        self.job = job
        self._policy = policy
        self._directories = directories
        self._secrets = f"{directories.state}/secrets"
        self.repository: set[str] = set()
        self.one_line: set[str] = set()
        self.files: set[str] = set()
        self._elsewhere: list[tuple[str, str]] = []
        self._texts = Texts({}, may_read=self._may_read)
        self._working_directory: str | None = None

    def file(self, file: ManagedFile) -> None:
        if not self.job.actions:
            raise self._denied("it has no actions, and borgmatic would do all of its own, pruning too")
        options = self._parse(file)
        with self._denying():
            self._texts = Texts(options.get("constants", {}), may_read=self._may_read)
        base = options.get("working_directory")
        self._working_directory = self._put_in(base) if isinstance(base, str) else None
        for name, value in options.items():
            if name != "repositories":
                self._option(name, value)
        repositories = options.get("repositories")
        if not isinstance(repositories, list) or not all(isinstance(entry, dict) for entry in repositories):
            raise self._denied("'repositories' is not a list of mappings")
        entries = [entry for entry in repositories if isinstance(entry, dict)]
        self._repositories(entries)
        self._sending([options, *entries])
        for merged in ({**options, **entry} for entry in entries):
            self._retention(merged)

    # --- Names --------------------------------------------------------------------------------------------------------

    def _option(self, name: str, value: Node) -> None:
        """Check one option and all that is below it. ``name`` is its whole name, ``postgresql_databases.name``."""
        self._allowed(name)
        if isinstance(value, dict):
            for key, below in value.items():
                if name == "constants":
                    continue
                if BREAKS.search(key):
                    raise self._denied(f"a name in option '{name}' holds a line break or control character")
                whole = f"{name}.*" if f"{name}.*" in HARMLESS else f"{name}.{key}"
                self._option(whole, below)
        elif isinstance(value, list):
            for item in value:
                self._option(name, item)
        elif not self._listed(name):
            self._value(name, value)
        else:
            named = set[str]()
            for text in self._texts.readings(value):
                self._credentials(name, text)
                named.update(re.findall(re.escape(self._secrets) + r"/[A-Za-z0-9_.-]+", text))
            self.files |= named
            if name == "ssh_command":
                self.repository |= {f"file {path}" for path in named}

    def refuse_elsewhere(self, repository: frozenset[str]) -> None:
        """Refuse that a secret of a repository is used for anything but repositories: it would be sent away."""
        for name, reference in self._elsewhere:
            if reference in repository:
                raise self._denied(
                    f"option '{name}' uses the secret of a repository ({reference}); one that was a passphrase or an "
                    f"ssh key once stays one, so seal another secret for this"
                )

    def _allowed(self, name: str) -> None:
        if name in HARMLESS or self._listed(name) or name in _OWN_FORM:
            return
        raise self._denied(f"option '{name}' is not among those that this machine allows", option="options", value=name)

    def _listed(self, name: str) -> bool:
        return any(name == listed or name.startswith(f"{listed}.") for listed in self._policy.options)

    # --- Values -------------------------------------------------------------------------------------------------------

    def _value(self, name: str, written: str) -> None:
        self._put_in(written)
        for text in sorted(self._texts.readings(written)):
            self._reading(name, text)

    def _reading(self, name: str, text: str) -> None:
        self._credentials(name, text)
        last = name.rsplit(".", 1)[-1]
        if (_BREAKS_WITHIN_LINES if last in _LINES else BREAKS).search(text):
            raise self._denied(f"option '{name}' holds a line break or control character")
        if last in _FREE_TEXT or last in _SECRET_TEXT:
            return
        if name == "ssh_command":
            self._ssh_command(text)
        elif name == "patterns":
            self._pattern(text)
        elif name != "exclude_patterns":
            self._plain(name, text)

    def _plain(self, name: str, text: str) -> None:
        """Check a value that may become an argument, a part of a path or a path."""
        last = name.rsplit(".", 1)[-1]
        if text.startswith("-") and not _NUMBER.fullmatch(text):
            raise self._denied(f"option '{name}' begins with a hyphen, and would be taken for a flag: '{text}'")
        if "_databases." in name:
            part = last.removeprefix("restore_")
            if part in _PATH_PARTS and ("/" in text or text in {".", ".."}):
                raise self._denied(f"option '{name}' names a place outside borgmatic's folder for dumps: '{text}'")
            if part in {"name", "hostname", "port", "container"} and ("=" in text or "://" in text):
                raise self._denied(f"option '{name}' would be taken for a connection string: '{text}'")
        if name in _TLS_FILES:
            self._tls_file(name, text)
        elif name == "umask":
            self._umask(text)
        elif name in _PATHS:
            self._path(name, text)
        elif last in _SOCKETS and not text.startswith("/"):
            raise self._denied(f"option '{name}' is not an absolute path: '{text}'")
        elif name in {"archive_name_format", "match_archives", "prefix"}:
            self._archive_names(name, text)

    def _tls_file(self, name: str, text: str) -> None:
        if not text.startswith("/") or ":" in text:
            raise self._denied(f"option '{name}' is not an absolute path without ':': '{text}'")
        self._secret_file(text, what=f"option '{name}'")
        self._elsewhere.append((name, f"file {text}"))
        self.files.add(text)

    def _umask(self, text: str) -> None:
        """Borg makes repositories under it: what others may open there, they may read or destroy."""
        if not re.fullmatch("[0-7]{1,4}", text) or int(text, 8) & 0o007 != 0o007:
            raise self._denied(
                f"option 'umask' would open repositories to all users of this machine: '{text}' does not end with 7",
                option="options",
                value="umask",
            )

    def _archive_names(self, name: str, text: str) -> None:
        """Let a backup take only archives for its own that are: a prune deletes what is taken."""
        own = text.removeprefix("sh:") if name == "match_archives" else text
        if own.startswith(self._names):
            return
        if name == "archive_name_format" and _OF_THIS_HOST.match(text) and not re.search(r"[*?\[\\]", text):
            return
        form = f"{self._names}*" if name == "match_archives" else self._names
        raise self._denied(
            f"option '{name}' could take archives of other backups for its own: '{text}' does not begin with '{form}'",
            option="options",
            value=name,
        )

    def _put_in(self, text: str) -> str:
        """Return ``text`` with borgmatic's constants and no environment variable that is not listed."""
        with self._denying():
            return self._texts.put_in(text)

    def _may_read(self, variable: str) -> bool:
        return variable in self._policy.environment

    def _credentials(self, name: str, text: str) -> None:
        if not _LOOKS_LIKE_CREDENTIAL.search(text):
            return
        match = _CREDENTIAL.fullmatch(text)
        words = _words(match[2]) if match else []
        if match is None or not words:
            raise self._denied(
                f"option '{name}' holds a credential reference in a form that this machine does not read"
            )
        kind = match[1]
        if kind not in self._policy.credentials:
            raise self._denied(f"credentials of kind '{kind}' may not be used", option="credentials", value=kind)
        if kind == "file":
            if len(words) != 1:
                raise self._denied(f"option '{name}' names more than one credential file")
            self._secret_file(words[0], what=f"option '{name}'")
        elif kind in {"systemd", "container"} and not (len(words) == 1 and re.fullmatch(r"[\w.-]+", words[0])):
            raise self._denied(f"option '{name}' holds a credential whose name is not a name")
        reference = f"{kind} {' '.join(words)}"
        if name == "encryption_passphrase":
            self.repository.add(reference)
        else:
            self._elsewhere.append((name, reference))
        if kind == "file":
            self.one_line.add(words[0])

    def _secret_file(self, path: str, *, what: str) -> None:
        folder, _, file = path.rpartition("/")
        managed = folder == self._secrets and re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", file)
        if not managed and path not in self._policy.credential_files:
            raise self._denied(f"{what} reads a secret from '{path}'", option="credential_files", value=path)

    def _ssh_command(self, text: str) -> None:
        words = _words(text)
        after = dict(itertools.pairwise(words))
        key = after.get("-i")
        hosts = next((word.partition("=")[2] for word in words if word.startswith("UserKnownHostsFile=")), None)
        if text != ssh_command(key_path=key, known_hosts=hosts):
            raise self._denied(
                "option 'ssh_command' is not the command that the director writes",
                option="options",
                value="ssh_command",
            )
        if key is not None:
            self._secret_file(key, what="option 'ssh_command'")
            self.repository.add(f"file {key}")
            self.files.add(key)
        known = f"{self._directories.state}/known_hosts/"
        if hosts is not None and not (
            hosts.startswith(known) and re.fullmatch(NAME_PATTERN, hosts.removeprefix(known))
        ):
            raise self._denied(f"option 'ssh_command' names the known_hosts file '{hosts}' outside the state directory")

    def _pattern(self, text: str) -> None:
        line = text.strip()
        if not line or line.startswith("#"):
            return
        kind, _, rest = line.partition(" ")
        if kind not in {"R", "P", "-", "!", "+"} or not rest:
            raise self._denied(f"'{line}' is not a pattern")
        if kind == "R":
            style, colon, path = rest.partition(":")
            self._path("patterns", path if colon and style in _STYLES else rest)

    def _path(self, name: str, text: str) -> None:
        whole = text
        if not text.startswith(("/", "~")) and self._working_directory is not None and name != "working_directory":
            whole = f"{self._working_directory}/{text}"
        if ".." in whole.split("/"):
            raise self._denied(f"option '{name}' holds '..': '{text}'")
        if not text.startswith("/") and name not in _MAY_BE_RELATIVE:
            raise self._denied(f"option '{name}' is not an absolute path: '{text}'")
        self._elsewhere.append((name, f"file {whole}"))
        if not whole.startswith("/") and "/" not in self._policy.read_paths:
            raise self._denied(f"option '{name}' is not an absolute path: '{text}'")
        glob = _GLOB.search(whole)
        fixed = whole if glob is None else whole[: whole.rfind("/", 0, glob.start()) + 1]
        fixed = posixpath.normpath(fixed).replace("//", "/")
        if not any(allowed in {"/", fixed} or fixed.startswith(f"{allowed}/") for allowed in self._policy.read_paths):
            raise self._denied(f"'{text}' may not be read", option="read_paths", value=fixed)

    # --- Where credentials go -----------------------------------------------------------------------------------------

    def _sending(self, tables: list[dict[str, Node]]) -> None:
        """Check the hosts that get a credential. borgmatic merges the options of a repository into the general ones."""
        for hook, option in _MONITORS.items():
            blocks = [table[hook] for table in tables if hook in table]
            if any(self._holds_credential(block) for block in blocks):
                for block in blocks:
                    self._may_get(hook, self._monitor_host(hook, block, option))
        for table in tables:
            for name, databases in table.items():
                if name.endswith("_databases") and isinstance(databases, list):
                    for database in databases:
                        self._database(name, database)

    def _database(self, name: str, database: Node) -> None:
        if not isinstance(database, dict) or not self._holds_credential(database):
            return
        for option in ("hostname", "restore_hostname"):
            host = self._text(database.get(option))
            if host not in _LOCAL:
                self._may_get(name, host)

    def _holds_credential(self, node: Node) -> bool:
        if isinstance(node, str):
            return any(_LOOKS_LIKE_CREDENTIAL.search(text) for text in self._texts.readings(node))
        return any(self._holds_credential(below) for below in (node.values() if isinstance(node, dict) else node))

    def _monitor_host(self, hook: str, block: Node, option: str) -> str:
        url = self._text(block.get(option)) if isinstance(block, dict) else ""
        if not url or _LOOKS_LIKE_CREDENTIAL.search(url):
            return "ntfy.sh" if hook == "ntfy" else hook
        host = _WEB_URL.fullmatch(url)
        return host[1].lower() if host else "*"

    def _may_get(self, name: str, host: str) -> None:
        if host not in self._policy.send_to and "*" not in self._policy.send_to:
            where = "a place that cannot be told" if host == "*" else f"'{host}'"
            raise self._denied(f"option '{name}' would send a credential to {where}", option="send_to", value=host)

    # --- Repositories and retention -----------------------------------------------------------------------------------

    def _repositories(self, entries: list[dict[str, Node]]) -> None:
        for entry in entries:
            for name, value in entry.items():
                if name in {"repositories", "constants"}:
                    raise self._denied(f"a repository holds {name}")
                if is_escaped(value):
                    raise self._denied(f"option '{name}' of a repository holds a backslash before a brace")
                self._option(f"repositories.{name}" if name in _REPOSITORY_OWN else name, value)
        written = [(self._text(entry.get("label")), self._text(entry.get("path"))) for entry in entries]
        declared = [(repository.name, repository.url) for repository in self.job.repositories]
        if written != declared:
            raise self._denied("the repositories of the file are not those of the job")
        for _, url in declared:
            self._url(url)

    def _text(self, value: Node | None) -> str:
        return self._put_in(value) if isinstance(value, str) else ""

    def _url(self, url: str) -> None:
        try:
            plain = _URL.validate_python(url) == url
        except ValidationError:
            plain = False
        if not plain or has_variable(url):
            raise self._denied(f"'{url}' is not the url of a repository")
        if re.search(r"[{}]", url) or (url.startswith("/") and ":" in url):
            raise self._denied(f"Borg would take repository '{url}' for another: it may hold no braces, a path no ':'")
        if not any(fnmatchcase(url, glob) for glob in self._policy.write_repositories):
            raise self._denied(f"repository '{url}' may not be written", option="write_repositories", value=url)

    def _retention(self, options: Mapping[str, Node]) -> None:
        if "prune" not in self.job.actions and not any(self._text(options.get(name)) for name in _KEEP):
            return
        counts = [self._count(options.get(name)) for name in _KEEP_COUNTS]
        within = _WITHIN.fullmatch(self._text(options.get("keep_within")))
        days = int(within[1]) * _WITHIN_DAYS[within[2]] if within else 0
        kept = sum(counts)
        if any(count < 0 for count in counts) or kept >= self._policy.minimum_kept or days >= self._policy.minimum_kept:
            return
        raise PolicyDenied(
            f"backup '{self.job.backup}' would keep {kept} archives for certain (weeks, months and years do not "
            f"count), and this machine wants at least {self._policy.minimum_kept}: keep_daily would say so",
            allow=f"policy.minimum_kept = {kept}",
        )

    def _count(self, value: Node | None) -> int:
        text = self._text(value)
        return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else 0

    # --- Reading and refusing -----------------------------------------------------------------------------------------

    def _parse(self, file: ManagedFile) -> dict[str, Node]:
        try:
            return read_options(file)
        except ValueError as error:
            raise self._denied(f"its configuration {error}") from None

    @contextmanager
    def _denying(self) -> Iterator[None]:
        """Say of which backup it is that a text may not be."""
        try:
            yield
        except Denied as error:
            raise self._denied(str(error), option="environment" * bool(error.variable), value=error.variable) from None

    def _denied(self, what: str, *, option: str = "", value: str = "") -> PolicyDenied:
        allow = ""
        if option:
            values = (*getattr(self._policy, option), value)
            allow = f"policy.{option} = [{', '.join(_toml(one) for one in values)}]"
        return PolicyDenied(f"backup '{self.job.backup}' is not allowed here: {what}", allow=allow)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


def _toml(text: str) -> str:
    return json.dumps(text)
