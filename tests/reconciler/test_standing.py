"""What `director backups` says of one backup."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from reconciler.commands import standing


@pytest.mark.parametrize(
    "changes, shown",
    [
        ({"cron": "30 2 * * *"}, "in 2 h"),
        ({"cron": "30 2 * * *", "suspended": True}, "suspended"),
        ({"cron": "", "nextDue": None}, "by hand"),
        ({"cron": "30 2 * * *", "nextDue": None}, ""),
    ],
)
def test_a_scheduled_backup_whose_client_has_not_said_when_is_not_called_one_by_hand(changes, shown) -> None:
    due = datetime.now(UTC) + timedelta(hours=2, minutes=30)
    row = {"suspended": False, "nextDue": due.isoformat(), "cron": "", **changes}

    assert standing._next(row) == shown
