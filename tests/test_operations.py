"""The operator's documentation: what it names exists, and what exists it names."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import chatwoot_relay
from chatwoot_relay.metrics import Metrics, Standing
from chatwoot_relay.models import OUTCOME_LABELS

HOME = Path(__file__).parent.parent
OPERATIONS = (HOME / "docs" / "operations.md").read_text()
RULES = (HOME / "docs" / "alert-rules.yml").read_text()


def standing() -> Standing:
    return Standing(accepted=0, queue={"pending": 0}, oldest=0, holds={"chat": 0}, operator={"chat": False})


def our_metrics() -> set[str]:
    """Names as they stand in the page of a fresh relay, and as queries use them."""
    metrics = Metrics(standing)
    metrics.request(route="/x", status=200, seconds=0)
    metrics.accepted("alert")
    metrics.ignored("duplicate")
    page = metrics.render()[0].decode()
    families = text_string_to_metric_families(page)
    return {
        re.sub(r"_(bucket|count|sum)$", "", sample.name)
        for family in families
        for sample in family.samples
        if sample.name.startswith("chatwoot_relay_")
    }


def rows(heading: str) -> list[str]:
    """The first cells of the table below *heading*."""
    table = OPERATIONS.split(f"### {heading}\n")[1].split("\n#")[0]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| `")]


def events_in_the_code() -> set[str]:
    """Every event that a logger is called with, wherever in its first argument it stands."""
    found = set()
    for path in Path(chatwoot_relay.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.search(r"\blog\b|get_logger", ast.unparse(node.func)):
                for argument in node.args:
                    for part in ast.walk(argument):
                        if isinstance(part, ast.Constant) and re.fullmatch(r"[a-z]+\.[a-z_]+", str(part.value)):
                            found.add(str(part.value))
    return found


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    """Dashboards are built from this table."""
    documented = {name.strip("`") for name in rows("Metrics")} - {"process_…"}
    assert documented == our_metrics()
    assert [label for label in OUTCOME_LABELS if f"`{label}`" not in OPERATIONS] == []


def test_alert_rules_use_metrics_that_exist() -> None:
    """A rule on a renamed metric never fires, in silence."""
    used = set(re.findall(r"chatwoot_relay_[a-z_]+", RULES))
    assert used - our_metrics() == set()


def test_every_log_event_is_documented_and_every_documented_one_exists() -> None:
    """Who reads a log at night looks the word up here."""
    documented = {event for cell in rows("Log events") for event in re.findall(r"`([a-z]+\.[a-z_]+)`", cell)}
    assert documented == events_in_the_code()


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_takes_the_snippet(tmp_path: Path) -> None:
    """It is pasted as it stands; only certificate and places are this test's."""
    (snippet,) = re.findall(r"(?s)```nginx\n(.*?)```", OPERATIONS)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=relay.example.com"
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *request.split(), *files], check=True, capture_output=True)
    snippet = re.sub(r"/etc/letsencrypt/\S+fullchain\.pem", str(certificate), snippet)
    snippet = re.sub(r"/etc/letsencrypt/\S+privkey\.pem", str(key), snippet)
    snippet = snippet.replace("/var/log/nginx", str(tmp_path)).replace("listen 443", "listen 8443")
    snippet = snippet.replace("listen [::]:443", "listen [::]:8443")
    main = tmp_path / "nginx.conf"
    main.write_text(f"pid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\nhttp {{\n{snippet}\n}}\n")
    checked = subprocess.run(["nginx", "-t", "-c", str(main)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
