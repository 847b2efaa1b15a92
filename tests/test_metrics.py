"""Metrics: what Prometheus reads, by its conventions, in series that nobody outside can multiply."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from chatwoot_relay import __version__
from chatwoot_relay.metrics import Metrics, Standing
from chatwoot_relay.models import OUTCOME_LABELS, Rank


def standing() -> Standing:
    return Standing(
        accepted=17,
        queue={"pending": 3, "sending": 1, "sent": 10, "dead": 2, "expired": 1},
        oldest=12.5,
        holds={"chat": 41.0, "bot": 0.0},
        operator={"chat": True, "bot": False},
    )


def samples(metrics: Metrics) -> dict[str, float]:
    """Each series as ``name{label=value,…}``, without our prefix."""
    page, _ = metrics.render()
    return {
        sample.name.removeprefix("chatwoot_relay_")
        + "".join(sorted(f"{{{key}={value}}}" for key, value in sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_what_happened_is_counted() -> None:
    """The numbers an operator's alert rules are made of."""
    metrics = Metrics(standing)
    for _ in range(2):
        metrics.request(route="/api/v1/chatwoot/alerts", status=200, seconds=0.02)
    metrics.accepted("alert")
    metrics.ignored("duplicate")
    metrics.attempted("sent", seconds=0.2)
    metrics.delivered("sent", rank=Rank.HIGH, now=1000.0)
    metrics.delivered("dead", rank=Rank.PLAIN, now=2000.0)
    found = samples(metrics)
    assert found["requests_total{route=/api/v1/chatwoot/alerts}{status=200}"] == 2
    assert found["request_duration_seconds_count{route=/api/v1/chatwoot/alerts}"] == 2
    assert found["accepted_total{kind=alert}"] == 1
    assert found["ignored_total{reason=duplicate}"] == 1
    assert found["attempts_total{outcome=sent}"] == 1
    assert found["telegram_duration_seconds_sum"] == 0.2
    assert found["deliveries_total{outcome=sent}{severity=high}"] == 1
    assert found["deliveries_total{outcome=dead}{severity=plain}"] == 1
    assert found["last_sent_timestamp_seconds"] == 1000


def test_how_things_stand_is_asked_when_the_page_is() -> None:
    """A gauge that is set now and then would be wrong in between."""
    found = samples(Metrics(standing))
    assert found["queue_deliveries{state=pending}"] == 3
    assert found["outbox_accepted_total"] == 17
    assert found["oldest_pending_seconds"] == 12.5
    assert found["hold_seconds{scope=chat}"] == 41
    assert (found["operator_needed{scope=chat}"], found["operator_needed{scope=bot}"]) == (1, 0)


def test_every_outcome_is_there_from_the_start() -> None:
    """rate() misses the first event of a series that begins with it."""
    found = samples(Metrics(standing))
    assert [label for label in OUTCOME_LABELS if found.get(f"attempts_total{{outcome={label}}}") != 0] == []
    assert found["deliveries_total{outcome=dead}{severity=critical}"] == 0
    assert [key for key in found if key.startswith("build_info") and __version__ in key] != []
    assert "process_resident_memory_bytes" in found


def test_names_follow_the_conventions() -> None:
    """One prefix, base units, counters in _total; no _created doubles."""
    page, content_type = Metrics(standing).render()
    names = re.findall(r"^# TYPE (\S+) (\S+)", page.decode(), re.MULTILINE)
    ours = [(name, kind) for name, kind in names if not name.startswith("process_")]
    assert [name for name, _ in ours if not name.startswith("chatwoot_relay_")] == []
    assert [name for name, kind in ours if kind == "counter" and not name.endswith("_total")] == []
    assert [name for name, _ in ours if name.endswith("_created")] == []
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"


def test_two_can_live_in_one_process() -> None:
    """No global registry: tests and the demo make several."""
    first, second = Metrics(standing), Metrics(standing)
    first.accepted("alert")
    assert "accepted_total{kind=alert}" not in samples(second)
