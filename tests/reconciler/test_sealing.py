"""``seal`` and ``reseal`` on real files: who can read what afterwards, and what of a person's file has changed."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from reconciler.cli import main
from schema.envelope import ClientIdentity, EscrowIdentity
from schema.errors import TrustError

WEB, DB, NEW = (ClientIdentity.generate() for _ in range(3))
ESCROW = EscrowIdentity.generate()

SECRET = """\
# The passwords of the shop.   Ask Ada before changing them.
apiVersion: borgmatic.director/v1
kind: Secret
metadata:
  name: shop        # used by backups/shop.yaml

  labels: {team: "web"}
spec:
  # Whoever is on call has the private half.
  escrow: {oncall: %s}

  clients: [db]  # and whoever refers to it
"""


def client(name: str, identity: ClientIdentity | None) -> str:
    key = f"{{publicKey: {identity.public.text}}}" if identity else "{}"
    return f"apiVersion: borgmatic.director/v1\nkind: Client\nmetadata: {{name: {name}}}\nspec: {key}\n"


@dataclass
class Source:
    folder: Path

    def write(self, path: str, text: str) -> Path:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode())
        return file

    def director(self, command: str, *arguments: object, value: bytes = b"") -> Result:
        done = CliRunner().invoke(main, [command, str(self.folder), *map(str, arguments)], input=value)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.output
        return done

    def sealed(self, path: str, key: str, *, index: int = 0) -> dict[str, dict[str, str]]:
        documents = list(YAML(typ="safe").load_all((self.folder / path).read_text(encoding="utf-8")))
        values: dict[str, dict[str, dict[str, str]]] = documents[index]["spec"]["values"]
        return values[key]

    def key_file(self, identity: EscrowIdentity) -> Path:
        return self.write("../escrow.key", identity.to_text())


@pytest.fixture
def source(tmp_path: Path) -> Source:
    made = Source(tmp_path / "source")
    made.write("clients/web.yaml", client("web", WEB))
    made.write("clients/db.yaml", client("db", DB))
    made.write("secrets/shop.yaml", SECRET % ESCROW.public)
    made.write(
        "backups/shop.yaml",
        """\
apiVersion: borgmatic.director/v1
kind: Repository
metadata: {name: nas}
spec: {url: /srv/borg, encryption: {mode: none}}
---
apiVersion: borgmatic.director/v1
kind: Backup
metadata: {name: shop}
spec:
  clients: [web]
  repositories: [nas]
  borgmatic:
    source_directories: [/srv]
    keep_daily: 7
    mariadb_databases: [{name: shop, password: "{secret shop password}"}]
""",
    )
    return made


def added(before: str, after: str) -> tuple[list[str], list[str]]:
    changes = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    return [one[2:] for one in changes if one[0] == "+"], [one[2:] for one in changes if one[0] == "-"]


def test_a_value_is_sealed_to_those_the_secret_names_and_those_who_use_it_and_to_escrow(source: Source) -> None:
    done = source.director("seal", "shop", "password", value=b"correct horse\n")
    assert done.exit_code == 0, done.output
    assert "sealed 'password' of secret 'shop' to db, web, escrow oncall" in done.output
    assert "correct horse" not in done.output
    sealed = source.sealed("secrets/shop.yaml", "password")
    assert sorted(sealed["clients"]) == ["db", "web"]
    opened = WEB.open_sealed(sealed["clients"]["web"], secret="shop", key="password", client="web")
    assert opened == b"correct horse"
    assert ESCROW.open_sealed(sealed["escrow"]["oncall"], secret="shop", key="password") == b"correct horse"
    with pytest.raises(TrustError):
        DB.open_sealed(sealed["clients"]["web"], secret="shop", key="password", client="web")


def test_the_sealed_source_validates(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"x")
    done = source.director("validate")
    assert done.exit_code == 0, done.output


def test_comments_and_layout_of_the_file_stay_as_they_were(source: Source) -> None:
    file = source.folder / "secrets" / "shop.yaml"
    before = file.read_text()
    source.director("seal", "shop", "password", value=b"x")
    new, gone = added(before, file.read_text())
    assert gone == []
    assert [line.strip().split(":")[0] for line in new] == [
        "values", "password", "clients", "db", "web", "escrow", "oncall",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "---\n# first\n" + SECRET % ESCROW.public,
        (SECRET % ESCROW.public).replace("\n", "\r\n"),
        (SECRET % ESCROW.public).replace("clients: [db]", "clients:\n  - db"),
        (SECRET % ESCROW.public).replace("clients: [db]", "clients:\n    -   db"),
        (SECRET % ESCROW.public).replace("\n  ", "\n    "),
        (SECRET % ESCROW.public) + "...\n",
        "# a comment\n\n---\n" + SECRET % ESCROW.public,
    ],
)
def test_a_person_s_habits_are_kept(source: Source, text: str) -> None:
    file = source.write("secrets/shop.yaml", text)
    assert source.director("seal", "shop", "password", value=b"x").exit_code == 0
    after = file.read_bytes().decode()
    assert ("\r\n" in text) == ("\r\n" in after)
    _, gone = added(text.removesuffix("...\n"), after)
    assert gone == []
    assert source.director("validate").exit_code == 0


def test_other_documents_of_the_file_are_left_alone(source: Source) -> None:
    (source.folder / "secrets" / "shop.yaml").unlink()
    before = client("new", NEW) + "---\n" + SECRET % ESCROW.public + "--- # and another\n" + client("old", None)
    file = source.write("all.yaml", before)
    assert source.director("seal", "shop", "password", value=b"x").exit_code == 0
    new, gone = added(before, file.read_text())
    assert gone == []
    assert len(new) == 7
    assert sorted(source.sealed("all.yaml", "password", index=1)["clients"]) == ["db", "web"]


def test_sealing_again_replaces_the_value(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"first")
    source.director("seal", "shop", "password", value=b"second")
    sealed = source.sealed("secrets/shop.yaml", "password")["clients"]["web"]
    assert WEB.open_sealed(sealed, secret="shop", key="password", client="web") == b"second"


def test_a_second_value_stands_beside_the_first(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"1")
    before = source.sealed("secrets/shop.yaml", "password")
    source.director("seal", "shop", "other", value=b"2")
    assert source.sealed("secrets/shop.yaml", "password") == before
    assert sorted(source.sealed("secrets/shop.yaml", "other")["clients"]) == ["db"]


def test_a_secret_that_is_not_there_yet_gets_a_file_of_its_own(source: Source) -> None:
    done = source.director("seal", "fresh", "token", "--client", "web", value=b"x")
    assert done.exit_code == 0, done.output
    assert sorted(source.sealed("secrets/fresh.yaml", "token")["clients"]) == ["web"]
    assert source.director("validate").exit_code == 1  # only because 'shop' is not sealed yet
    assert "fresh" not in source.director("validate").output


def test_a_file_that_holds_something_else_is_not_overwritten(source: Source) -> None:
    file = source.write("secrets/fresh.yaml", client("new", NEW))
    done = source.director("seal", "fresh", "token", "--client", "web", value=b"x")
    assert (done.exit_code, "holds no Secret named 'fresh'" in done.output) == (2, True)
    assert file.read_text() == client("new", NEW)


def test_a_value_from_a_file_is_taken_byte_for_byte(source: Source) -> None:
    file = source.write("../value", "a\n\n")
    source.director("seal", "shop", "password", "--from-file", file)
    sealed = source.sealed("secrets/shop.yaml", "password")["clients"]["web"]
    assert WEB.open_sealed(sealed, secret="shop", key="password", client="web") == b"a\n\n"


@pytest.mark.parametrize(
    "arguments, value, message",
    [
        (["shop", "password"], b"", "the value is empty"),
        (["shop", "password"], b"\n", "the value is empty"),
        (["shop", "password"], b"x" * 70_000, "the value is larger than 64 KiB"),
        (["shop", "password", "--from-file", "/dev/zero"], b"", "the value is larger than 64 KiB"),
        (["shop", "password", "--from-file", "/"], b"", "cannot use /: Is a directory"),
        (["../etc", "password"], b"x", "'../etc' cannot be the name of a Secret"),
        (["Shop", "password"], b"x", "'Shop' cannot be the name of a Secret"),
        (["shop", "a/b"], b"x", "'a/b' cannot be the name of a value"),
        (["shop", "--", "--password"], b"x", "'--password' cannot be the name of a value"),
        (["shop", "password", "--client", "wbe"], b"x", "there is no client 'wbe'; the source has: db, web"),
        (["fresh", "password"], b"x", "no client needs value 'password' of secret 'fresh'"),
    ],
)
def test_what_cannot_be_sealed_changes_nothing(
    source: Source, arguments: list[str], value: bytes, message: str
) -> None:
    before = {path: path.read_bytes() for path in source.folder.rglob("*.yaml")}
    done = source.director("seal", *arguments, value=value)
    assert done.exit_code == 2
    assert message in done.output
    assert {path: path.read_bytes() for path in source.folder.rglob("*.yaml")} == before


def test_a_client_without_a_key_is_named_with_what_to_do(source: Source) -> None:
    source.write("clients/db.yaml", client("db", None))
    done = source.director("seal", "shop", "password", value=b"x")
    assert done.exit_code == 2
    assert "client 'db' has no publicKey in " in done.output
    assert "run `director-client fingerprint` on db" in done.output


def test_an_invalid_source_is_refused_before_anything_is_asked(source: Source) -> None:
    source.write("broken.yaml", "kind: [")
    done = source.director("seal", "shop", "password", value=b"x")
    assert (done.exit_code, "broken.yaml:2:1: error: cannot read the YAML" in done.output) == (2, True)


def test_reseal_gives_a_new_client_what_it_needs_and_leaves_the_rest_byte_for_byte(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"correct horse")
    file = source.folder / "secrets" / "shop.yaml"
    source.write("clients/new.yaml", client("new", NEW))
    source.write("secrets/shop.yaml", file.read_text().replace("clients: [db]", "clients: [db, new]"))
    before = file.read_text()
    done = source.director("reseal", "--escrow-key-file", source.key_file(ESCROW))
    assert (done.exit_code, done.output) == (0, "sealed 'password' of secret 'shop' to new\n")
    new, gone = added(before, file.read_text())
    assert (len(new), gone) == (1, [])
    sealed = source.sealed("secrets/shop.yaml", "password")["clients"]["new"]
    assert NEW.open_sealed(sealed, secret="shop", key="password", client="new") == b"correct horse"
    again = source.director("reseal", "--escrow-key-file", source.key_file(ESCROW))
    assert (again.exit_code, "nothing to do" in again.output) == (0, True)


def test_reseal_all_serves_a_client_whose_key_was_replaced(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"correct horse")
    source.write("clients/web.yaml", client("web", NEW))
    key = source.key_file(ESCROW)
    assert "nothing to do" in source.director("reseal", "--escrow-key-file", key).output
    done = source.director("reseal", "shop", "--escrow-key-file", key, "--all")
    assert done.output == "sealed 'password' of secret 'shop' to db, web\n"
    sealed = source.sealed("secrets/shop.yaml", "password")["clients"]["web"]
    assert NEW.open_sealed(sealed, secret="shop", key="password", client="web") == b"correct horse"


def test_reseal_with_another_escrow_key_says_who_stays_without(source: Source) -> None:
    source.director("seal", "shop", "password", value=b"x")
    before = (source.folder / "secrets" / "shop.yaml").read_bytes()
    done = source.director("reseal", "--escrow-key-file", source.key_file(EscrowIdentity.generate()), "--all")
    assert done.exit_code == 1
    assert "'password' of secret 'shop' has no copy for this escrow key: db, web cannot read it" in done.output
    assert (source.folder / "secrets" / "shop.yaml").read_bytes() == before


@pytest.mark.parametrize(
    "text",
    ["", "no key", WEB.public.text, ESCROW.public, "\x00" * 9000],
    ids=["nothing", "words", "a client's key", "the public half", "NUL bytes"],  # keys are random: no part of a name
)
def test_what_is_no_escrow_key_is_refused(source: Source, text: str) -> None:
    source.director("seal", "shop", "password", value=b"x")
    done = source.director("reseal", "--escrow-key-file", source.write("../bad.key", text), "--all")
    assert done.exit_code == 2
    assert "error: " in done.output


def test_reseal_of_an_unknown_secret_names_those_that_are_there(source: Source) -> None:
    done = source.director("reseal", "shpo", "--escrow-key-file", source.key_file(ESCROW))
    assert (done.exit_code, "there is no Secret 'shpo'; the source has: shop" in done.output) == (2, True)


def test_an_escrow_key_is_made_for_us_alone_and_never_overwritten(source: Source, tmp_path: Path) -> None:
    file = tmp_path / "made.key"
    done = CliRunner().invoke(main, ["escrow-key", str(file)])
    assert done.exit_code == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert EscrowIdentity.from_text(file.read_text()).public in done.stdout
    assert file.read_text().strip() not in done.output
    before = file.read_bytes()
    again = CliRunner().invoke(main, ["escrow-key", str(file)])
    assert (again.exit_code, "keys are never overwritten" in again.output) == (2, True)
    assert file.read_bytes() == before
