"""The source over a real network protocol: ssh by the tests' own sshd, https by git's own http-backend."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import fcntl
import os
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from reconciler import ssh
from reconciler.source import Source, SourceSettings
from schema.errors import TerminalError, TransientError
from tests.e2e.sshd import SSHServer, make_key, sshd
from tests.git_repository import GitRepository


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SSHServer]:
    with sshd(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def work(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "work")


@pytest.fixture
def origin(tmp_path: Path) -> GitRepository:
    return GitRepository(tmp_path / "origin with space.git", bare=True)


@pytest.fixture
def revision(work: GitRepository, origin: GitRepository) -> str:
    work.write("fleet/client.yaml", "kind: Client\n")
    revision = work.commit("first")
    work.push(origin.directory)
    return revision


def open_source(server: SSHServer, origin: GitRepository, **changes: Any) -> Source:
    settings = {
        "url": server.url(str(origin.directory).replace(" ", "%20")),
        "ssh_key": server.client_key_path,
        "known_hosts": server.known_hosts,
    }
    return Source(
        SourceSettings.model_validate(settings | changes), state_directory=origin.directory.parent / "state of director"
    )


def clone_of(source: Source) -> Path:
    [clone] = (source._clone.parent).glob("*.git")
    return clone


async def all_have_ended(source: Source) -> None:
    """Wait for git and its ssh: they inherit the clone's lock, and one that were left would hold it for ever."""
    with source._clone.with_suffix(".lock").open("rb") as lock:
        await asyncio.wait_for(asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX), 20)


# --- ssh ---


async def test_a_branch_is_fetched_over_ssh_and_followed(server, work, origin, revision):
    source = open_source(server, origin, path="fleet")
    assert await source.fetch() == revision
    assert [file.path for file in source.files(revision).files] == ["fleet/client.yaml"]
    work.write("fleet/other.yaml", "kind: Client\n")
    second = work.commit("second")
    work.push(origin.directory)
    assert await source.fetch() == second
    assert source.is_descendant(second, of=revision)
    assert [commit.subject for commit in source.log(revision, second)] == ["second"]
    assert [source.resolve(text) for text in ("main", "HEAD", revision[:12])] == [second, second, revision]
    assert not (clone_of(source) / "shallow").exists()


async def test_a_restarted_director_reads_from_its_clone_before_it_fetches(server, origin, revision):
    await open_source(server, origin).fetch()
    assert len(open_source(server, origin).files(revision).files) == 1


async def test_a_force_push_is_seen_as_rewritten_history(server, work, origin, revision):
    source = open_source(server, origin)
    old = work.commit("second")
    work.push(origin.directory)
    assert await source.fetch() == old
    work.reset(revision)
    new = work.commit("instead")
    work.push(origin.directory, force=True)
    assert await source.fetch() == new
    assert not source.is_descendant(new, of=old)
    assert source.is_descendant(new, of=revision)


async def test_a_branch_can_become_a_folder_of_branches(server, work, origin, revision):
    work.push(origin.directory, "HEAD:refs/heads/team")
    assert await open_source(server, origin, branch="team").fetch() == revision
    work.push(origin.directory, ":refs/heads/team")
    work.push(origin.directory, "HEAD:refs/heads/team/main")
    assert await open_source(server, origin, branch="team/main").fetch() == revision


async def test_an_empty_repository_says_so(server, origin):
    with pytest.raises(TerminalError, match="is empty: no branch has a commit yet"):
        await open_source(server, origin).fetch()


async def test_a_vanished_branch_is_named_beside_those_that_are_there(server, work, origin, revision):
    source = open_source(server, origin)
    await source.fetch()
    work.push(origin.directory, "HEAD:refs/heads/mainline")
    origin.git("update-ref", "-d", "refs/heads/main")
    with pytest.raises(TerminalError, match="has no branch 'main'; its branches are: mainline"):
        await source.fetch()
    work.push(origin.directory)
    assert await source.fetch() == revision


async def test_a_missing_repository_is_named(server, origin):
    nowhere = GitRepository(origin.directory.parent / "x")
    source = open_source(server, nowhere, url=server.url("/nowhere.git"))
    with pytest.raises(TerminalError, match="there is no Git repository at"):
        await source.fetch()


async def test_a_key_that_the_server_does_not_know_is_refused(server, origin, revision, tmp_path):
    make_key(tmp_path / "other_key")
    with pytest.raises(TerminalError, match="refused our credentials") as caught:
        await open_source(server, origin, ssh_key=tmp_path / "other_key").fetch()
    assert "public key" in caught.value.hint


async def test_a_key_file_that_is_missing_is_named(server, origin, tmp_path):
    with pytest.raises(TerminalError, match="nowhere"):
        await open_source(server, origin, ssh_key=tmp_path / "nowhere").fetch()


async def test_an_unknown_host_key_is_refused(server, origin, revision, tmp_path):
    (tmp_path / "nobody").write_text("")
    with pytest.raises(TerminalError, match="not among the known hosts") as caught:
        await open_source(server, origin, known_hosts=tmp_path / "nobody").fetch()
    assert "ssh-keyscan" in caught.value.hint


async def test_a_changed_host_key_is_refused_and_the_new_one_named(server, origin, revision, tmp_path):
    other = make_key(tmp_path / "other")
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{server.port} {other}\n")
    with pytest.raises(TerminalError, match="is another one than the known one") as caught:
        await open_source(server, origin, known_hosts=tmp_path / "changed").fetch()
    assert server.host_key_fingerprint in caught.value.message


async def test_a_server_that_is_not_there_is_transient(server, origin):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(TransientError, match="cannot reach"):
        await open_source(server, origin, url=f"ssh://{server.user}@127.0.0.1:{port}/x.git").fetch()


async def test_a_server_that_hangs_costs_the_time_limit_and_leaves_no_process(server, origin):
    accepted: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    source = open_source(server, origin, url=f"ssh://x@127.0.0.1:{port}/x.git", fetch_timeout="1s")
    with pytest.raises(TransientError, match="took longer than 1 seconds"):
        await source.fetch()
    await all_have_ended(source)
    for writer in accepted:
        writer.close()
    silent.close()


async def test_a_cancelled_fetch_leaves_no_process(server, origin):
    connected = asyncio.Event()
    accepted: list[asyncio.StreamWriter] = []

    async def say_nothing(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        connected.set()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    source = open_source(server, origin, url=f"ssh://x@127.0.0.1:{port}/x.git")
    fetching = asyncio.ensure_future(source.fetch())
    await connected.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    await all_have_ended(source)
    for writer in accepted:
        writer.close()
    silent.close()


# --- the clone ---


def truncate(file: Path) -> None:
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:20])


def damage_objects(clone: Path) -> None:
    for file in (clone / "objects").rglob("*"):
        if file.is_file():
            truncate(file)


def damage_packs(clone: Path) -> None:
    subprocess.run(["git", f"--git-dir={clone}", "repack", "-adq"], check=True)
    for file in (clone / "objects/pack").glob("*.pack"):
        truncate(file)


def lose_objects(clone: Path) -> None:
    for file in (clone / "objects").rglob("*"):
        if file.is_file():
            file.unlink()


def lose_one_file(clone: Path) -> None:
    blob = subprocess.run(
        ["git", f"--git-dir={clone}", "rev-parse", "refs/director/branch:fleet/client.yaml"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    (clone / "objects" / blob[:2] / blob[2:]).unlink()


def damage_the_reference(clone: Path) -> None:
    (clone / "refs/director/branch").write_text("nonsense\n")


def damage_the_head(clone: Path) -> None:
    (clone / "HEAD").write_bytes(b"\x00\x01")


def damage_the_configuration(clone: Path) -> None:
    (clone / "config").write_text("[[[\n")


@pytest.mark.parametrize(
    "damage",
    [
        damage_objects,
        damage_packs,
        lose_objects,
        lose_one_file,
        damage_the_reference,
        damage_the_head,
        damage_the_configuration,
    ],
)
@pytest.mark.parametrize("restarted", [False, True])
async def test_a_damaged_clone_is_replaced_once(server, work, origin, revision, *, damage, restarted):
    source = open_source(server, origin)
    await source.fetch()
    damage(clone_of(source))
    work.write("fleet/other.yaml", "kind: Schedule\n")
    second = work.commit("second")
    work.push(origin.directory)
    if restarted:
        source = open_source(server, origin)
    assert await source.fetch() == second
    assert [file.data for file in source.files(second).files] == [b"kind: Client\n", b"kind: Schedule\n"]
    assert source.is_descendant(second, of=revision)
    if restarted:  # a director that goes on need not read again what it knows
        assert GitRepository(clone_of(source)).attempt("fsck", "--strict").returncode == 0


@pytest.mark.parametrize("damage", [damage_objects, damage_packs, lose_objects, lose_one_file])
async def test_damage_is_found_by_a_restarted_director_without_a_new_commit(server, origin, revision, damage):
    await open_source(server, origin).fetch()
    source = open_source(server, origin)
    damage(clone_of(source))
    assert await source.fetch() == revision
    assert [file.data for file in source.files(revision).files] == [b"kind: Client\n"]


async def test_damage_found_while_reading_is_healed_by_the_next_fetch(server, origin, revision):
    await open_source(server, origin).fetch()
    source = open_source(server, origin)
    damage_objects(clone_of(source))
    with pytest.raises(TransientError, match="the clone of the source is damaged") as caught:
        source.files(revision)
    assert caught.value.hint == "the next fetch clones it anew"
    assert await source.fetch() == revision
    assert len(source.files(revision).files) == 1


async def test_locks_without_an_owner_are_removed(server, work, origin, revision):
    source = open_source(server, origin)
    await source.fetch()
    for name in ("packed-refs.lock", "shallow.lock", "refs/director/branch.lock", "config.lock"):
        (clone_of(source) / name).write_text("")
    second = work.commit("second")
    work.push(origin.directory)
    assert await source.fetch() == second
    assert list(clone_of(source).rglob("*.lock")) == []


async def test_a_clone_that_another_director_uses_is_left_alone(server, origin, revision):
    source, other = open_source(server, origin), open_source(server, origin)
    await source.fetch()
    lock = clone_of(source) / "packed-refs.lock"
    lock.write_text("")
    with other._lock(), pytest.raises(TransientError, match="another director"):
        await source.fetch()
    assert lock.exists()


async def test_a_git_that_outlives_its_director_keeps_the_next_one_out(server, origin, revision):
    source = open_source(server, origin)
    with source._lock() as descriptor:
        orphan = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, pass_fds=(descriptor,))
    with pytest.raises(TransientError, match="a git it left behind"):
        await source.fetch()
    await orphan.communicate(b"")
    assert await source.fetch() == revision


async def test_a_clone_inside_a_work_tree_never_touches_that_one(server, origin, revision, tmp_path):
    outer = GitRepository(tmp_path / "outer")
    source = Source(open_source(server, origin).settings, state_directory=outer.directory / "state")
    await source.fetch()
    damage_the_head(clone_of(source))
    assert await source.fetch() == revision
    assert outer.attempt("rev-parse", "refs/director/branch").returncode != 0


async def test_two_fetches_at_once_take_turns(server, origin, revision):
    source = open_source(server, origin)
    assert await asyncio.gather(*(source.fetch() for _ in range(3))) == [revision] * 3


async def test_a_state_directory_that_cannot_be_written_is_transient(server, origin, tmp_path):
    (tmp_path / "file").write_text("")
    source = Source(open_source(server, origin).settings, state_directory=tmp_path / "file")
    with pytest.raises(TransientError, match="cannot write to the state directory"):
        await source.fetch()


# --- https ---

PASSWORD = "p@ss:w/rd $(touch x) \"'\\ %41 ümläut"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / "certificate.pem", folder / "key.pem"


async def _backend(root: Path, request: web.Request) -> web.Response:
    """Answer as git's own ``http-backend`` does, behind a password."""
    expected = "Basic " + base64.b64encode(f"git:{PASSWORD}".encode()).decode()
    if request.path.startswith("/busy/"):
        return web.Response(status=503)
    if request.headers.get("Authorization") != expected:
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
    process = await asyncio.create_subprocess_exec(
        "git",
        "http-backend",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": request.path,
            "QUERY_STRING": request.query_string,
            "REQUEST_METHOD": request.method,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        },
    )
    answer, _ = await process.communicate(await request.read())
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
    return web.Response(status=int(headers.pop("Status", "200").split()[0]), body=body, headers=headers)


@pytest.fixture
async def https(origin: GitRepository, certificate: tuple[Path, Path]) -> AsyncIterator[str]:
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", partial(_backend, origin.directory.parent))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    yield f"https://localhost:{runner.addresses[0][1]}"
    await runner.cleanup()


def open_https(base: str, origin: GitRepository, certificate: tuple[Path, Path], **changes: Any) -> Source:
    secret = origin.directory.parent / "secret"
    if not secret.exists():
        secret.write_text(f"{PASSWORD}\n")
    settings = {
        "url": f"{base}/{origin.directory.name.replace(' ', '%20')}",
        "token_file": secret,
        "ca_file": certificate[0],
    }
    return Source(SourceSettings.model_validate(settings | changes), state_directory=origin.directory.parent / "state")


async def test_a_branch_is_fetched_over_https_with_a_token(https, work, origin, revision, certificate):
    source = open_https(https, origin, certificate)
    assert await source.fetch() == revision
    assert [file.path for file in source.files(revision).files] == ["fleet/client.yaml"]
    second = work.commit("second")
    work.push(origin.directory)
    assert await source.fetch() == second
    for file in (origin.directory.parent / "state").rglob("*"):
        assert not file.is_file() or PASSWORD.encode() not in file.read_bytes()


async def test_a_wrong_password_is_refused_without_being_shown(https, origin, revision, certificate, caplog):
    (origin.directory.parent / "secret").write_text("hunter2\n")
    with pytest.raises(TerminalError, match="refused our credentials") as caught:
        await open_https(https, origin, certificate).fetch()
    assert "hunter2" not in f"{caught.value}{caught.value.__cause__!r}{caplog.text}"


async def test_a_rotated_token_needs_no_restart(https, origin, revision, certificate):
    secret = origin.directory.parent / "secret"
    secret.write_text("old\n")
    source = open_https(https, origin, certificate)
    with pytest.raises(TerminalError, match="refused our credentials"):
        await source.fetch()
    secret.write_text(PASSWORD)
    assert await source.fetch() == revision


async def test_without_credentials_nobody_is_asked(https, origin, revision, certificate):
    with pytest.raises(TerminalError, match="refused our credentials"):
        await open_https(https, origin, certificate, token_file=None).fetch()


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"nul\0"])
async def test_a_token_file_of_another_shape_is_named(https, origin, certificate, content):
    (origin.directory.parent / "secret").write_bytes(content)
    with pytest.raises(TerminalError, match="on one line") as caught:
        await open_https(https, origin, certificate).fetch()
    assert "lines" not in caught.value.message


async def test_a_certificate_that_nobody_vouches_for_is_refused(https, origin, revision, certificate):
    with pytest.raises(TerminalError, match="is not trusted") as caught:
        await open_https(https, origin, certificate, ca_file=None).fetch()
    assert "ca_file" in caught.value.hint


async def test_a_repository_that_the_server_does_not_have_is_named(https, origin, certificate):
    with pytest.raises(TerminalError, match="there is no Git repository at"):
        await open_https(https, origin, certificate, url=f"{https}/nowhere.git").fetch()


async def test_a_server_in_trouble_is_transient(https, origin, certificate):
    with pytest.raises(TransientError, match="503"):
        await open_https(https, origin, certificate, url=f"{https}/busy/x.git").fetch()


# --- the way to a Borg repository ---


async def test_host_keys_are_shown_with_their_fingerprints(server):
    [key] = await ssh.host_keys("127.0.0.1", port=server.port)
    assert (key.line, key.fingerprint) == (server.host_key_line, server.host_key_fingerprint)


async def test_a_login_that_works_tells_the_version_of_borg(server):
    found = await ssh.check(server.url("/srv/borg"), key_file=server.client_key_path, known_hosts=server.known_hosts)
    assert found.borg.startswith("borg 1.")


async def test_a_server_without_borg_is_named(server):
    with pytest.raises(TerminalError, match="has no program 'borg9'"):
        await ssh.check(server.url("/x"), key_file=server.client_key_path, known_hosts=server.known_hosts, borg="borg9")


@pytest.mark.parametrize("command, answer", [("borg serve --restrict-to-path /srv/borg", "borg 1."), ("cat", "")])
async def test_a_login_behind_a_forced_command_counts(tmp_path, command, answer):
    with sshd(tmp_path, command=command) as forced:
        found = await ssh.check(forced.url("/x"), key_file=forced.client_key_path, known_hosts=forced.known_hosts)
    assert found.borg[:7] == answer


async def test_a_wrong_key_or_host_key_is_told_apart(server, tmp_path):
    other = make_key(tmp_path / "other")
    with pytest.raises(TerminalError, match="refused the login"):
        await ssh.check(server.url("/x"), key_file=tmp_path / "other", known_hosts=server.known_hosts)
    (tmp_path / "changed").write_text(f"[127.0.0.1]:{server.port} {other}\n")
    with pytest.raises(TerminalError, match=r"host key of .* is not one of those"):
        await ssh.check(server.url("/x"), key_file=server.client_key_path, known_hosts=tmp_path / "changed")
    with pytest.raises(TerminalError, match="cannot use the key"):
        await ssh.check(server.url("/x"), key_file=tmp_path / "changed", known_hosts=server.known_hosts)


async def test_nobody_answering_is_transient(tmp_path):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    (tmp_path / "known").write_text("")
    with pytest.raises(TransientError, match="cannot reach"):
        await ssh.host_keys("127.0.0.1", port=port)
    with pytest.raises(TransientError, match="cannot reach"):
        await ssh.check(f"ssh://x@127.0.0.1:{port}/x", key_file=None, known_hosts=tmp_path / "known")
