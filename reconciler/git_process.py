"""The ``git`` program, for what crosses the network: run without a shell, in an environment of its own, and bounded.

``source`` calls this. Nothing a person has set up for Git on this machine takes part: no configuration, hook, prompt,
agent or helper. Credentials reach git by a helper that reads the environment, so that they stand on no command line, in
no URL and in no file of ours. A server that hangs costs the time limit, and then the whole process group ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import shlex
import shutil
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from schema.errors import DirectorError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_KEEP_BYTES = 256 * 1024
"""Of what git prints, the end is kept: a hostile server may print for ever."""

_SECONDS_TO_END = 2.0
"""How long a process group may take to end by itself before it is killed."""

_SECONDS_ALONE = 2 * _SECONDS_TO_END
"""How long after its time limit a git is ended whose director was killed, and cannot end it any more."""

_PASSED_ON = (
    "PATH",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
)

# A constant: git runs it by sh, which expands the two variables inside double quotes, whatever they hold.
_CREDENTIAL_HELPER = (
    """!printf 'username=%s\\npassword=%s\\n' "$DIRECTOR_SOURCE_USERNAME" "$DIRECTOR_SOURCE_PASSWORD" #"""
)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach one server. ``password`` and ``username`` are for https, the key and the host keys for ssh."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    ssh_key: Path | None = None
    known_hosts: Path | None = None


class Printed(NamedTuple):
    output: str
    errors: str


class GitFailed(Exception):
    """Git ended with an error; ``output`` is what it printed, without the password. ``explain`` makes words of it."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output


def environment(access: Access, *, home: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return everything git and its children get to know. ``home`` is an empty folder of ours."""
    result = {name: inherited[name] for name in _PASSED_ON if name in inherited}
    result |= {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home),
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": "https:ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        "SSH_ASKPASS": "",
        "SSH_ASKPASS_REQUIRE": "never",
        "GIT_SSH_VARIANT": "ssh",
        "GIT_SSH_COMMAND": ssh_command(access),
    }
    configuration = [
        ("core.hooksPath", os.devnull),
        ("credential.helper", ""),
        ("gc.autoDetach", "false"),
        ("maintenance.autoDetach", "false"),
        ("http.lowSpeedLimit", "1"),
        ("http.lowSpeedTime", "60"),
    ]
    if access.ca_file is not None:
        configuration.append(("http.sslCAInfo", str(access.ca_file)))
    if access.password:
        # Bound to this server: after a redirect to another one, git asks nobody.
        server = re.match(r"https://(?:[^/@]*@)?([^/]+)", access.url)
        configuration.append((f"credential.https://{server[1] if server else ''}.helper", _CREDENTIAL_HELPER))
        result |= {"DIRECTOR_SOURCE_USERNAME": access.username, "DIRECTOR_SOURCE_PASSWORD": access.password}
    result["GIT_CONFIG_COUNT"] = str(len(configuration))
    for number, (key, value) in enumerate(configuration):
        result |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return result


def ssh_command(access: Access) -> str:
    """Return ``GIT_SSH_COMMAND``. Git runs it by sh, so every word is quoted.

    Host keys are always checked. Without a key file or known hosts, those of the director's user are taken; never an
    agent, a configuration file or a password.
    """
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "UpdateHostKeys": "no",
        "ClearAllForwardings": "yes",
        "IdentityAgent": "none",
        "ConnectTimeout": "20",
        "ServerAliveInterval": "20",
    }
    if access.known_hosts is not None:
        options |= {"UserKnownHostsFile": _ssh_path(access.known_hosts), "GlobalKnownHostsFile": "none"}
    if access.ssh_key is not None:
        options |= {"IdentitiesOnly": "yes", "IdentityFile": _ssh_path(access.ssh_key)}
    words = ["ssh", "-F", "none"]
    for name, value in options.items():
        words += ["-o", f"{name}={value}"]
    return shlex.join(words)


def _ssh_path(path: Path) -> str:
    """Return a path as ssh reads it in an option: quoted for its spaces, with ``%`` doubled."""
    return '"' + str(path).replace("%", "%%") + '"'


async def run(
    *arguments: str,
    environment: Mapping[str, str],
    directory: Path,
    time_limit: float,
    inherit: tuple[int, ...] = (),
) -> Printed:
    """Run ``git ARGUMENTS`` in ``directory`` and return what it prints, also when it succeeds with complaints.

    ``inherit`` are file descriptors that git keeps open: a lock held by one is held until git has really ended.
    Nothing of it outlives a director that was killed for much longer than the time limit.

    Raises:
        GitFailed: git ended with an error.
        TransientError: it took longer than ``time_limit`` seconds, or could not be started.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *_bounded("git", path=environment.get("PATH"), seconds=time_limit + _SECONDS_ALONE),
            *arguments,
            cwd=directory,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=inherit,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise TerminalError("cannot fetch the source: there is no `git` program", hint="install git") from error
    except OSError as error:
        raise TransientError(f"cannot fetch the source: git does not start: {error.strerror}") from error
    if process.stdout is None or process.stderr is None:
        raise RuntimeError("the process was started with both pipes")
    try:
        async with asyncio.timeout(time_limit):
            output, errors, code = await asyncio.gather(_end(process.stdout), _end(process.stderr), process.wait())
    except TimeoutError as error:
        await _end_group(process)
        raise TransientError(
            f"cannot fetch the source: the server took longer than {time_limit:g} seconds",
            hint="the next attempt starts over; a large repository may need a longer fetch timeout",
        ) from error
    except BaseException:
        await _end_group(process)
        raise
    if code != 0:
        secret = environment.get("DIRECTOR_SOURCE_PASSWORD", "")
        raise GitFailed(errors.replace(secret, "***") if secret else errors)
    return Printed(output, errors)


def _bounded(program: str, *, path: str | None, seconds: float) -> list[str]:
    """Return the command that runs ``program`` and ends it, with all it started, after ``seconds``.

    A server that keeps silent would keep a git whose director was killed for ever, and with the lock that it inherited
    every later director out.
    """
    found, timeout = shutil.which(program, path=path), shutil.which("timeout", path=path)
    if found is None:
        raise FileNotFoundError(program)
    return [timeout, "-k", f"{_SECONDS_TO_END:.0f}", f"{math.ceil(seconds)}", found] if timeout else [found]


async def _end(stream: asyncio.StreamReader) -> str:
    """Read to the end of ``stream`` and return its last part."""
    kept = b""
    while chunk := await stream.read(65536):
        kept = (kept + chunk)[-_KEEP_BYTES:]
    return kept.decode("utf-8", "replace")


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End everything that git started. It asks first, so that git removes its lock files."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS_TO_END):
                await process.wait()


# --- What git says, in the user's words -------------------------------------------------------------------------------


def _wrong_credentials(access: Access, _: str) -> DirectorError:
    if access.url.startswith("https:"):
        hint = "check the username, and the password or token in its file; a token needs the right to read"
    else:
        hint = "add the public key of the source's SSH key to the server, with the right to read"
    return TerminalError(f"the server refused our credentials for {access.url}", hint=hint)


def _changed_host_key(access: Access, output: str) -> DirectorError:
    presented = re.search(r"(SHA256:\S+?)\.?\s", output)
    return TerminalError(
        f"the host key of {access.url} is another one than the known one{_now(presented)}",
        hint="somebody may be listening; if the server was rebuilt, replace its line in the known hosts file",
    )


def _unknown_host_key(access: Access, _: str) -> DirectorError:
    return TerminalError(
        f"the host key of {access.url} is not among the known hosts",
        hint="compare `ssh-keyscan HOST` with what its administrator says, and add the line to the known hosts file",
    )


def _now(fingerprint: re.Match[str] | None) -> str:
    return f" (now {fingerprint[1]})" if fingerprint else ""


def _unverified_certificate(access: Access, _: str) -> DirectorError:
    return TerminalError(
        f"the certificate of {access.url} is not trusted",
        hint="set the source's `ca_file` to the certificate authority of that server",
    )


def _not_git(access: Access, _: str) -> DirectorError:
    return TerminalError(
        f"there is no Git repository at {access.url}, or we may not see it",
        hint="check the URL; many servers answer 'not found' when credentials are missing",
    )


def _refused_url(access: Access, _: str) -> DirectorError:
    return TerminalError(f"git does not accept the URL {access.url}", hint="use an absolute path, https:// or ssh://")


def _other_format(access: Access, _: str) -> DirectorError:
    return TerminalError(
        f"the repository at {access.url} has SHA-256 object ids, which clones cannot hold yet",
        hint="put the director beside the repository and give its path, or use a repository with SHA-1",
    )


def _disk_full(_: Access, output: str) -> DirectorError:
    return TransientError(
        f"cannot fetch the source: the disk is full ({_last(output)})",
        hint="free space in the director's state directory; clients go on with what they have",
    )


def _locked(_: Access, output: str) -> DirectorError:
    return TransientError(f"cannot fetch the source: another program holds a lock in the clone ({_last(output)})")


def _unreachable(access: Access, output: str) -> DirectorError:
    return TransientError(
        f"cannot reach {access.url}: {_last(output)}", hint="check the network and the server; we try again"
    )


def _last(output: str) -> str:
    """Return the line that says most: the last ``fatal:`` or ``error:``, else the last one that is not empty."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.match(r"(fatal|error|ssh): ", line)]
    line = (telling or lines or ["git did not say why"])[-1]
    return re.sub(r"^(fatal|error): ", "", line)[:300]


# The first that matches counts: ssh explains itself before git adds what it made of it.
_MEANINGS: tuple[tuple[str, Callable[[Access, str], DirectorError]], ...] = (
    (r"No space left on device|Disk quota exceeded|[Ff]ile too large", _disk_full),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", _changed_host_key),
    (r"host key is known|Host key verification failed", _unknown_host_key),
    # Before "not found", which is also said of names that no server answers to.
    (r"Could not resolve host|Connection (refused|reset|timed out|closed)|unreachable|No route to", _unreachable),
    (r"Authentication failed|could not read (Username|Password)|Permission denied|Access denied", _wrong_credentials),
    (r"URL returned error: 40[13]|Too many authentication failures|Load key .*: ", _wrong_credentials),
    (r"certificate", _unverified_certificate),
    (r"mismatched algorithms", _other_format),
    (r"\.lock': File exists|cannot lock ref|Unable to create '.*\.lock'", _locked),
    (r"not found|does not appear to be a git repository|is this a git repository|URL returned error: 404", _not_git),
    (r"transport '.*' not allowed|strange (host|path)name|URL .* is not valid|bad/illegal format", _refused_url),
)

_DAMAGE = re.compile(
    r"object file .* is empty|is corrupt|corrupted|bad (object|tree|config|ref|signature)|inflate"
    r"|does not point to a valid object|unable to (read|parse|find) (tree|object|commit|sha1|[0-9a-f]{40})"
    r"|missing (blob|tree|commit|necessary)|did not send all necessary objects|file .*/pack/.* (is|cannot|claims|does)"
    r"|invalid (HEAD|object)|not a git repository: '|reference broken|refs/director/"
)


def means_damage(output: str) -> bool:
    """Whether git complains about the objects or references of the clone that it works in, not about the server's."""
    ours = "\n".join(line for line in output.splitlines() if not line.startswith("remote: "))
    return bool(_DAMAGE.search(ours)) and "No space left" not in ours and ".lock'" not in ours


def means_missing_branch(output: str) -> bool:
    """Whether the server answered, and has no such branch."""
    return "couldn't find remote ref" in output


def explain(access: Access, output: str) -> DirectorError:
    """Return what a failure of git means for the person who set up the source."""
    for pattern, meaning in _MEANINGS:
        if re.search(pattern, output):
            return meaning(access, output)
    return _unreachable(access, output)
