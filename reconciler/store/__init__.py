"""The store: what was observed or issued, in SQLite. The only place that writes it; ``web_readonly.reader`` reads."""

from reconciler.store.changes import EVERYTHING, Changes
from reconciler.store.facade import Store
from reconciler.store.trim import Retention
from reconciler.store.trust import PendingKey, Revocation

__all__ = ["EVERYTHING", "Changes", "PendingKey", "Retention", "Revocation", "Store"]
