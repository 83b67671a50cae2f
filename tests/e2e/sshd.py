"""A real sshd of the tests' own: on a loopback port, with its own host key, and one client key that may log in.

::

    with sshd(tmp_path) as server:
        Repository(url=f"ssh://{server.user}@127.0.0.1:{server.port}/srv/borg", knownHosts=server.host_key_line, …)

It runs as the user of the tests and ends with the ``with`` block. ``command`` forces what every login runs.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
_SECONDS_TO_START = 20


@dataclass(frozen=True, slots=True)
class SSHServer:
    directory: Path
    port: int
    user: str
    host_key_line: str
    """For a known hosts file."""
    host_key_fingerprint: str
    known_hosts: Path
    """Holds ``host_key_line``."""
    client_key_path: Path
    client_public_key: str
    process_id: int

    def url(self, path: Path | str) -> str:
        """Return the ``ssh://`` URL of an absolute path."""
        return f"ssh://{self.user}@{HOST}:{self.port}{path}"

    @property
    def log(self) -> str:
        return (self.directory / "sshd.log").read_text()


def make_key(file: Path) -> str:
    """Make an Ed25519 key without a passphrase at ``file`` and return its public line."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)], check=True, timeout=30
    )
    return file.with_name(f"{file.name}.pub").read_text().strip()


def program() -> str:
    """Return the absolute path of sshd, which it insists on. It stands in sbin, which is not on every user's PATH."""
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin")
    assert found is not None, "sshd is missing: install openssh-server"
    return found


@contextlib.contextmanager
def sshd(directory: Path, *, command: str = "") -> Iterator[SSHServer]:
    """Run an sshd whose files are in ``directory / "sshd"``."""
    home = directory / "sshd"
    home.mkdir(mode=0o700, parents=True)
    host_key = make_key(home / "host_key")
    client_key = make_key(home / "client_key")
    forced = f'command="{command}" ' if command else ""
    (home / "authorized_keys").write_text(f"{forced}{client_key}\n")
    if os.geteuid() == 0:  # compiled in, and made by the service that we do not start
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process, port = _start(home)
    try:
        line = f"[{HOST}]:{port} {' '.join(host_key.split()[:2])}"
        (home / "known_hosts").write_text(f"{line}\n")
        yield SSHServer(
            directory=home,
            port=port,
            user=getpass.getuser(),
            host_key_line=line,
            host_key_fingerprint=_fingerprint(home / "host_key.pub"),
            known_hosts=home / "known_hosts",
            client_key_path=home / "client_key",
            client_public_key=client_key,
            process_id=process.pid,
        )
    finally:
        _stop(process)


def _start(home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start sshd on a free port; on another one when some program takes it between finding and using it."""
    for _ in range(5):
        with socket.create_server((HOST, 0)) as free:
            port: int = free.getsockname()[1]
        (home / "sshd_config").write_text(_configuration(home, port))
        with (home / "sshd.log").open("wb") as log:
            process = subprocess.Popen(
                [program(), "-D", "-e", "-f", str(home / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if _answers(process, port):
            return process, port
        _stop(process)
    raise AssertionError(f"sshd does not start: {(home / 'sshd.log').read_text()}")


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the socket greets with SSH, or the process ends, or too much time has passed."""
    end = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1) as connection:
            if connection.recv(4) == b"SSH-":
                return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
            return False
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _fingerprint(public_key: Path) -> str:
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", str(public_key)], check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.split()[1]


def _configuration(home: Path, port: int) -> str:
    options = {
        "ListenAddress": f"{HOST}:{port}",
        "HostKey": home / "host_key",
        "AuthorizedKeysFile": home / "authorized_keys",
        "PidFile": "none",
        "StrictModes": "no",  # the folders of tests belong to whoever runs them, and may be writable by all
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "PermitUserEnvironment": "no",
        "UseDNS": "no",
        "PrintMotd": "no",
        "PerSourcePenalties": "no",
        "MaxStartups": "100",
        # A login has no PATH but sshd's own: tests find the programs that the tests' own process finds.
        "SetEnv": f'PATH="{os.environ["PATH"]}"',
        "LogLevel": "VERBOSE",
    }
    if not _knows_penalties():
        del options["PerSourcePenalties"]
    return "".join(f"{name} {value}\n" for name, value in options.items())


def _knows_penalties() -> bool:
    """Whether this sshd (9.8 or newer) shuts out addresses that fail to log in, as tests do on purpose."""
    done = subprocess.run(
        [program(), "-T", "-f", os.devnull, "-o", "PerSourcePenalties=no"], capture_output=True, check=False, timeout=30
    )
    return b"Bad configuration option" not in done.stderr
