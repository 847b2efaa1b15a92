"""How much of what, for Prometheus. Refuses labels from outside: no request can add a series."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import prometheus_client
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from . import __version__
from .models import OUTCOME_LABELS, Rank

ANSWER_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
TELEGRAM_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


@attrs.frozen(kw_only=True)
class Standing:
    """How things stand when somebody asks."""

    accepted: int  # deliveries, since there is this outbox
    queue: Mapping[str, int]  # where they are: pending, sending, sent, dead, expired
    oldest: float  # seconds that the oldest pending delivery has waited; 0 where none does
    holds: Mapping[str, float]  # seconds left, by "chat" and "bot"
    operator: Mapping[str, bool]  # whether the operator must act, by "chat" and "bot"


class Metrics:
    """Everything at ``/metrics``; labels come from closed sets."""

    def __init__(self, standing: Callable[[], Standing]) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the page and tell nothing
        self._standing = standing
        self._registry = prometheus_client.CollectorRegistry()
        self._series = functools.cache(lambda family, *labels: family.labels(*labels))  # which takes a lock and copies
        prometheus_client.ProcessCollector(registry=self._registry)
        self._registry.register(self)
        ours: dict[str, Any] = {"namespace": "chatwoot_relay", "registry": self._registry}
        self._requests = Counter("requests_total", "Requests answered.", ("route", "status"), **ours)
        self._accepted = Counter("accepted_total", "Deliveries put on disk.", ("kind",), **ours)
        self._ignored = Counter("ignored_total", "Events that nobody had to hear.", ("reason",), **ours)
        self._deliveries = Counter("deliveries_total", "Deliveries ended.", ("outcome", "severity"), **ours)
        self._attempts = Counter("attempts_total", "Attempts to send.", ("outcome",), **ours)
        words = "From a request's head to its answer."
        self._duration = Histogram("request_duration_seconds", words, ("route",), buckets=ANSWER_SECONDS, **ours)
        words = "How long Telegram took to answer an attempt."
        self._telegram = Histogram("telegram_duration_seconds", words, buckets=TELEGRAM_SECONDS, **ours)
        self._last_sent = Gauge("last_sent_timestamp_seconds", "When Telegram last took a message.", **ours)
        Info("build", "What runs.", **ours).info({"version": __version__, "python": platform.python_version()})
        for outcome in OUTCOME_LABELS:  # a series that is there from the start: rate() misses its first event otherwise
            self._series(self._attempts, outcome)
        for rank in Rank:
            for outcome in ("sent", "dead"):
                self._series(self._deliveries, outcome, rank.name.lower())

    def request(self, *, route: str, status: int, seconds: float) -> None:
        """*route* is a template of ours, or "other"."""
        self._series(self._requests, route, status).inc()
        self._series(self._duration, route).observe(seconds)

    def accepted(self, kind: str) -> None:
        """*kind* is "alert", "webhook" or "test"."""
        self._series(self._accepted, kind).inc()

    def ignored(self, reason: str) -> None:
        """*reason* comes from the closed list that the answer has it from."""
        self._series(self._ignored, reason).inc()

    def attempted(self, outcome: str, *, seconds: float) -> None:
        """*outcome* is one of OUTCOME_LABELS."""
        self._series(self._attempts, outcome).inc()
        self._telegram.observe(seconds)

    def delivered(self, outcome: str, *, rank: int, now: float) -> None:
        """A delivery ended as "sent" or "dead" at *now* (wall clock)."""
        self._series(self._deliveries, outcome, Rank(rank).name.lower()).inc()
        if outcome == "sent":
            self._last_sent.set(now)

    def collect(self) -> Iterator[Metric]:
        """What is asked for at the moment of asking. prometheus-client calls it."""
        now = self._standing()
        for name, words, label, values in (
            ("queue_deliveries", "Where the deliveries are that the outbox accepted.", "state", now.queue),
            ("hold_seconds", "How long nothing is sent yet.", "scope", now.holds),
            ("operator_needed", "1 where only the operator can mend it.", "scope", now.operator),
        ):
            family = GaugeMetricFamily(f"chatwoot_relay_{name}", words, labels=[label])
            for key, value in values.items():
                family.add_metric([key], value)
            yield family
        words = "Deliveries accepted since there is this outbox: the sum of its states."
        yield CounterMetricFamily("chatwoot_relay_outbox_accepted", words, value=now.accepted)
        words = "Age of the oldest pending delivery."
        yield GaugeMetricFamily("chatwoot_relay_oldest_pending_seconds", words, value=now.oldest)

    def render(self) -> tuple[bytes, str]:
        """The page and its content type."""
        return prometheus_client.generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4
