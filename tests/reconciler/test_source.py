"""What the source accepts as settings, reads from plain folders, and makes of git's words. No git is started here."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from pydantic import ValidationError

from reconciler import git_process
from reconciler.source import Files, SourceSettings, read_folder
from schema.errors import TerminalError, TransientError


def paths(files: Files) -> list[str]:
    return [file.path for file in files.files]


# --- plain folders ---


def test_a_single_file_can_be_read(tmp_path):
    (tmp_path / "one.yaml").write_text("x")
    (tmp_path / "two.yaml").write_text("x")
    assert paths(read_folder(tmp_path / "one.yaml")) == ["one.yaml"]
    assert paths(read_folder(tmp_path / "one.yaml", relative_to=tmp_path.parent)) == [f"{tmp_path.name}/one.yaml"]


def test_a_pipe_is_not_waited_for_and_a_folder_named_yaml_is_entered(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "folder.yaml/a.yaml").write_text("x")
    assert paths(read_folder(tmp_path)) == ["folder.yaml/a.yaml"]


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(TerminalError, match="no such file or folder"):
        read_folder(tmp_path / "nope")


# --- settings ---


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"url": "--upload-pack=touch /tmp/x"}, "an absolute path, an https"),
        ({"url": "-x"}, "an absolute path, an https"),
        ({"url": ""}, "an absolute path, an https"),
        ({"url": "/a\nb"}, "an absolute path, an https"),
        ({"url": "ext::sh -c x"}, "an absolute path, an https"),
        ({"url": "ext::sh"}, "remote helper"),
        ({"url": "http://example.org/x.git"}, "cannot be fetched by 'http://'"),
        ({"url": "git://example.org/x.git"}, "cannot be fetched by 'git://'"),
        ({"url": "https://user:hunter2@example.org/x.git"}, "credentials do not belong into a URL"),
        ({"url": "https://ghp_hunter2@example.org/x.git"}, "credentials do not belong into a URL"),
        ({"url": "ssh://-oProxyCommand=x/y"}, "no host"),
        ({"url": "ssh://git@-oProxyCommand=x/y"}, "no host"),
        ({"url": "https:///x"}, "no host"),
        ({"url": "file://host/x"}, "three slashes"),
        ({"url": "/x", "branch": "-x"}, "cannot be the name of a branch"),
        ({"url": "/x", "branch": "a..b"}, "cannot be the name of a branch"),
        ({"url": "/x", "branch": "a b"}, "cannot be the name of a branch"),
        ({"url": "/x", "branch": "a:b"}, "cannot be the name of a branch"),
        ({"url": "/x", "branch": "x.lock"}, "cannot be the name of a branch"),
        ({"url": "/x", "branch": ""}, "cannot be the name of a branch"),
        ({"url": "/x", "path": "/etc"}, "folder of the repository"),
        ({"url": "/x", "path": "a/../../b"}, "folder of the repository"),
        ({"url": "/x", "password_file": "/p"}, "`password_file` is for https"),
        ({"url": "https://h/x", "ssh_key": "/p"}, "`ssh_key` is for ssh"),
        ({"url": "/x", "known_hosts": "/p"}, "`known_hosts` is for ssh"),
        ({"url": "https://h/x", "password_file": "/p", "token_file": "/t"}, "not both"),
        ({"url": "ssh://h/x", "ssh_key": '/a"b'}, "quotation mark"),
    ],
)
def test_settings_that_could_do_harm_or_nothing_are_refused(settings, reason):
    with pytest.raises(ValidationError) as caught:
        SourceSettings.model_validate(settings)
    assert reason in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url, local",
    [
        ("/srv/source.git", Path("/srv/source.git")),
        ("file:///srv/my%20source", Path("/srv/my source")),
        ("relative/path", Path("relative/path")),
        ("git@host:path.git", None),
        ("host:/path.git", None),
        ("ssh://git@host:2222/path.git", None),
        ("https://host/path.git", None),
    ],
)
def test_local_and_remote_are_told_apart_as_git_does(url, local):
    assert SourceSettings(url=url).local == local


# --- what git says ---

HTTPS = git_process.Access(url="https://git.example.org/x.git")


@pytest.mark.parametrize(
    "output, kind, words",
    [
        ("error: file write error: No space left on device\nfatal: unable to write", TransientError, "disk is full"),
        ("fatal: write error: Disk quota exceeded", TransientError, "disk is full"),
        ("fatal: Authentication failed for 'https://git.example.org/x.git/'", TerminalError, "refused our credentials"),
        ("fatal: could not read Username for 'https://h': terminal prompts disabled", TerminalError, "refused our"),
        ("fatal: unable to access 'https://h/': The requested URL returned error: 403", TerminalError, "refused our"),
        ("git@h: Permission denied (publickey).\nfatal: Could not read from remote", TerminalError, "refused our"),
        ("fatal: repository 'https://git.example.org/x.git/' not found", TerminalError, "no Git repository at"),
        ("fatal: unable to access 'https://h/': Could not resolve host: h", TransientError, "cannot reach"),
        ("ssh: Could not resolve hostname h: Name or service not known", TransientError, "cannot reach"),
        ("fatal: unable to access 'https://h/': server certificate verification failed", TerminalError, "certificate"),
        ("fatal: Unable to create '/s/x.git/shallow.lock': File exists.", TransientError, "holds a lock"),
        ("Host key verification failed.\nfatal: Could not read", TerminalError, "not among the known hosts"),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nSHA256:abc.\nHost key verif", TerminalError, "abc"),
        ("fatal: transport 'http' not allowed", TerminalError, "does not accept the URL"),
        ("fatal: something nobody has seen", TransientError, "something nobody has seen"),
        ("", TransientError, "git did not say why"),
    ],
)
def test_what_git_says_becomes_the_users_words(output, kind, words):
    error = git_process.explain(HTTPS, output)
    assert type(error) is kind
    assert words in error.message
    assert error.message[0].islower()
    assert error.hint or kind is TransientError


def test_damage_of_the_server_is_not_taken_for_ours():
    assert git_process.means_damage("fatal: loose object abc (stored in x) is corrupt")
    assert not git_process.means_damage("remote: fatal: bad object abc\nfatal: early EOF")
    assert not git_process.means_damage("fatal: unable to write: No space left on device; pack is corrupt")


def test_git_gets_nothing_of_the_persons_environment(tmp_path):
    inherited = {"PATH": "/bin", "SSH_AUTH_SOCK": "x", "GIT_DIR": "x", "GIT_SSL_NO_VERIFY": "1", "HOME": "/root"}
    environment = git_process.environment(HTTPS, home=tmp_path, inherited=inherited)
    assert environment["HOME"] == str(tmp_path)
    assert not {"SSH_AUTH_SOCK", "GIT_DIR", "GIT_SSL_NO_VERIFY"} & environment.keys()
    assert environment["GIT_ALLOW_PROTOCOL"] == "https:ssh"


def test_paths_of_keys_cannot_break_out_of_the_ssh_command():
    access = git_process.Access(url="ssh://h/x", ssh_key=Path("/a b/$(x)'%d"), known_hosts=Path("/k;y"))
    command = git_process.ssh_command(access)
    words = shlex.split(command)
    assert 'IdentityFile="/a b/$(x)\'%%d"' in words
    assert 'UserKnownHostsFile="/k;y"' in words
    assert "StrictHostKeyChecking=yes" in words
