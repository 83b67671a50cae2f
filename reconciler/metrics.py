"""The director's numbers for Prometheus. Labels are words of our own, never names of clients: their number is bounded.

Made by ``reconciler.cli``, counted by the gateway and the loop, and served as text by the gateway.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)


class Metrics:
    """One registry: two directors in one process do not share it."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self.connections: Final = Gauge(
            "borgmatic_director_connections", "Live sessions", ["state"], registry=self.registry
        )
        self.handshakes: Final = Counter(
            "borgmatic_director_handshakes",
            "Handshakes by how they ended: accepted, pending, or the refusal's code",
            ["result"],
            registry=self.registry,
        )
        self.ended: Final = Counter(
            "borgmatic_director_sessions_ended",
            "Sessions that the director ended, by the refusal's code",
            ["code"],
            registry=self.registry,
        )
        self.lockouts: Final = Counter(
            "borgmatic_director_lockouts", "Addresses that were locked out", registry=self.registry
        )
        self.locked: Final = Gauge(
            "borgmatic_director_locked_addresses", "Addresses that are locked out now", registry=self.registry
        )
        self.reports: Final = Counter("borgmatic_director_reports", "Reports stored", ["type"], registry=self.registry)
        self.reports_refused: Final = Counter(
            "borgmatic_director_reports_refused", "Reports that could not be read", registry=self.registry
        )
        self.sent: Final = Counter(
            "borgmatic_director_desired_states_sent", "Signed desired states sent", registry=self.registry
        )
        self.publish: Final = Histogram(
            "borgmatic_director_publish_seconds",
            "From the publication of a revision until a client was sent its desired state",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.ingest: Final = Histogram(
            "borgmatic_director_ingest_seconds",
            "From a frame of reports until it was committed",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.reconciles: Final = Counter(
            "borgmatic_director_reconciles", "Reconcile passes by outcome", ["outcome"], registry=self.registry
        )
        self.reconcile: Final = Histogram(
            "borgmatic_director_reconcile_seconds",
            "Duration of reconcile passes",
            buckets=_SECONDS,
            registry=self.registry,
        )

    def reconciled(self, outcome: str, *, seconds: float) -> None:
        """Count one pass of the loop; ``outcome`` is ``reconciler.outcome.Outcome``."""
        self.reconciles.labels(outcome).inc()
        self.reconcile.observe(seconds)


def metrics_text(metrics: Metrics) -> bytes:
    """Return everything in Prometheus' text format (``CONTENT_TYPE``)."""
    return generate_latest(metrics.registry)
