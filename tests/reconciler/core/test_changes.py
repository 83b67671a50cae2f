"""What a revision changes for which client, in short."""

from __future__ import annotations

from reconciler.core import changes
from reconciler.core.catalogue import SourceFile
from schema.status import MAX_CHANGED_CLIENTS, ClientChange
from tests.reconciler.core.written import backup, built, client, repository, small

BEFORE = small(client("web-2"), backup("files", clients=["web-1", "web-2"]))


def between(before: list[SourceFile], after: list[SourceFile]) -> changes.Changes:
    return changes.between(built(before), built(after))


def changed_to(*more: SourceFile) -> changes.Changes:
    return between(BEFORE, list({one.path: one for one in (*BEFORE, *more)}.values()))


def test_what_stays_is_not_named():
    assert changed_to() == changes.Changes()


def test_a_new_option_changes_the_backup_on_each_of_its_clients():
    options = {"source_directories": ["/etc", "/srv"], "keep_daily": 7}
    found = changed_to(backup("files", clients=["web-1", "web-2"], borgmatic=options))

    assert found.clients == (
        ClientChange(client="web-1", change="changed", changed=("files",)),
        ClientChange(client="web-2", change="changed", changed=("files",)),
    )
    assert found.summary == "backup files changed on web-1, web-2"


def test_backups_come_and_go():
    found = changed_to(backup("files", clients=["web-2"]), backup("web", clients=["web-1"]))

    assert found.clients == (ClientChange(client="web-1", change="changed", added=("web",), removed=("files",)),)
    assert found.summary == "backup files removed on web-1\nbackup web added on web-1"


def test_clients_come_and_go_with_their_backups():
    found = between(small(), small(client("web-2"), backup("files", clients=["web-2"])))

    assert found.clients == (
        ClientChange(client="web-1", change="changed", removed=("files",)),
        ClientChange(client="web-2", change="added", added=("files",)),
    )
    assert found.summary.startswith("clients added: web-2\n")
    assert between(small(client("web-2")), small()).clients == (ClientChange(client="web-2", change="removed"),)


def test_what_is_beside_the_backups_is_told_apart():
    found = changed_to(client("web-2", suspend=True))

    assert found.clients == (ClientChange(client="web-2", change="changed", others=True),)
    assert found.summary == "settings, host keys or secrets changed on web-2"


def test_another_place_in_git_alone_changes_no_backup():
    moved = [SourceFile("elsewhere.yaml", one.blob, one.data) if "nas" in one.path else one for one in BEFORE]

    assert between(BEFORE, moved) == changes.Changes()


def test_a_change_of_thousands_is_bounded_and_says_how_many():
    names = [f"web-{number:04}" for number in range(MAX_CHANGED_CLIENTS + 50)]
    clients = [client(name, publicKey=None) for name in names]
    before = [*clients, repository(), backup("files", clients=names)]
    after = [*clients, repository(), backup("files", clients=names, schedule=None, timeout="2h")]

    found = between(before, after)

    assert [one.client for one in found.clients] == names[:MAX_CHANGED_CLIENTS]
    assert found.summary == "backup files changed on web-0000, web-0001, web-0002 and 247 more"
