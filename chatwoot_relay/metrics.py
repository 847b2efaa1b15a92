"""How much of what, for Prometheus. Refuses labels from outside: no request can add a series."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import prometheus_client
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from . import __version__
from .models import OUTCOME_LABELS, Rank


@attrs.frozen(kw_only=True)
class Standing:
    """How things stand when somebody asks."""

    queue: Mapping[str, int]  # deliveries by state: pending, sending, sent, dead
    oldest: float  # seconds that the oldest pending delivery has waited; 0 where none does
    holds: Mapping[str, float]  # seconds left, by "chat" and "bot"
    operator: Mapping[str, bool]  # whether the operator must act, by "chat" and "bot"


class Metrics:
    """Everything at ``/metrics``; labels come from closed sets."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the page and tell nothing
        self._standing = standing
        self._registry = registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=registry)

        def counter(name: str, meaning: str, *labels: str) -> prometheus_client.Counter:
            return prometheus_client.Counter(f"chatwoot_relay_{name}", meaning, labels, registry=registry)

        self._requests = counter("requests_total", "Requests answered.", "route", "status")
        self._accepted = counter("accepted_total", "Deliveries put on disk.", "kind")
        self._ignored = counter("ignored_total", "Events that nobody had to hear.", "reason")
        self._deliveries = counter("deliveries_total", "Deliveries ended.", "outcome", "severity")
        self._attempts = counter("attempts_total", "Attempts to send.", "outcome")
        self._duration = prometheus_client.Histogram(
            "chatwoot_relay_request_duration_seconds",
            "From a request's head to its answer.",
            ("route",),
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._telegram = prometheus_client.Histogram(
            "chatwoot_relay_telegram_duration_seconds",
            "How long Telegram took to answer an attempt.",
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self._last_sent = prometheus_client.Gauge(
            "chatwoot_relay_last_sent_timestamp_seconds", "When Telegram last took a message.", registry=registry
        )
        prometheus_client.Info("chatwoot_relay_build", "What runs.", registry=registry).info(
            {"version": __version__, "python": ".".join(map(str, sys.version_info[:3]))}
        )
        self._bound: dict[tuple[object, ...], Any] = {}
        for outcome in OUTCOME_LABELS:  # a series that is there from the start: rate() misses its first event otherwise
            self._child(self._attempts, outcome)
        for rank in Rank:
            self._child(self._deliveries, "sent", rank.name.lower())
            self._child(self._deliveries, "dead", rank.name.lower())
        registry.register(self)

    def _child(self, family: Any, *labels: str) -> Any:
        """The series of those labels, found by one look-up: labels() costs a lock and some copies."""
        key = (family, *labels)
        if (child := self._bound.get(key)) is None:
            child = self._bound[key] = family.labels(*labels)
        return child

    def request(self, *, route: str, status: int, seconds: float) -> None:
        """*route* is a template of ours, or "other"."""
        self._child(self._requests, route, str(status)).inc()
        self._child(self._duration, route).observe(seconds)

    def accepted(self, kind: str) -> None:
        """*kind* is "alert", "webhook" or "test"."""
        self._child(self._accepted, kind).inc()

    def ignored(self, reason: str) -> None:
        """*reason* comes from the closed list that the answer has it from."""
        self._child(self._ignored, reason).inc()

    def attempted(self, outcome: str, *, seconds: float) -> None:
        """*outcome* is one of OUTCOME_LABELS."""
        self._child(self._attempts, outcome).inc()
        self._telegram.observe(seconds)

    def delivered(self, outcome: str, *, rank: int, now: float) -> None:
        """A delivery ended as "sent" or "dead" at *now* (wall clock)."""
        self._child(self._deliveries, outcome, Rank(rank).name.lower()).inc()
        if outcome == "sent":
            self._last_sent.set(now)

    def collect(self) -> Iterator[Metric]:
        """What is asked for at the moment of asking. prometheus-client calls it."""
        now = self._standing()
        queue = GaugeMetricFamily("chatwoot_relay_queue_deliveries", "Deliveries in the outbox.", labels=["state"])
        for state, count in now.queue.items():
            queue.add_metric([state], count)
        holds = GaugeMetricFamily("chatwoot_relay_hold_seconds", "How long nothing is sent yet.", labels=["scope"])
        for scope, left in now.holds.items():
            holds.add_metric([scope], left)
        needed = GaugeMetricFamily(
            "chatwoot_relay_operator_needed", "1 where only the operator can mend it.", labels=["scope"]
        )
        for scope, act in now.operator.items():
            needed.add_metric([scope], act)
        oldest = GaugeMetricFamily(
            "chatwoot_relay_oldest_pending_seconds", "Age of the oldest pending delivery.", value=now.oldest
        )
        yield from (queue, oldest, holds, needed)

    def render(self) -> tuple[bytes, str]:
        """The page and its content type."""
        return prometheus_client.generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
