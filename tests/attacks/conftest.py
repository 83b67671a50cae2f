"""A gateway, machines that knock at it, a client with its director: the scenes of the attacks and of their twins."""

from __future__ import annotations

from tests.client.conftest import fleet
from tests.reconciler.conftest import empty_store, house, me, other

__all__ = ["empty_store", "fleet", "house", "me", "other"]
