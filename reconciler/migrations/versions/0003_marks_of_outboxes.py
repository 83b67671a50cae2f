"""By what the newest stored report of an outbox is known, so that two machines with one outbox are told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column; empty is what nobody is measured by."""
    op.add_column("outboxes", sa.Column("mark", sa.String(length=128), nullable=False, server_default=""))
