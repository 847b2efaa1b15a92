"""The units: systemd itself judges them, offline."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from chatwoot_relay.settings import FIELDS, NAMES

UNITS = Path(__file__).parent.parent / "systemd"
SERVICE = (UNITS / "chatwoot-relay.service").read_text()
SOCKET = (UNITS / "chatwoot-relay.socket").read_text()
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True)


@needs_systemd
def test_the_sandbox_is_tight() -> None:
    """0 is no exposure, 10 is all; a service without any sandbox has 9.6."""
    judged = analyze("security", "--offline=true", UNITS / "chatwoot-relay.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", judged.stdout)
    assert found is not None
    assert float(found[1]) <= 1.5


@needs_systemd
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """A mistyped directive is only a warning at run time. (ExecStart must exist to be verified.)"""
    installed = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", SERVICE)
    (tmp_path / "chatwoot-relay.service").write_text(installed)
    shutil.copy(UNITS / "chatwoot-relay.socket", tmp_path)
    judged = analyze("verify", tmp_path / "chatwoot-relay.service", tmp_path / "chatwoot-relay.socket")
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")


def test_every_secret_can_come_as_a_credential() -> None:
    """What is not loaded here never reaches the service."""
    loaded = re.findall(r"(?m)^LoadCredential=(\w+):chatwoot-relay\.(\w+)$", SERVICE)
    secret = {name for name, field in zip(NAMES, FIELDS, strict=True) if "Secret" in str(field.type)}
    assert {name for name, stored in loaded if name == stored} == secret


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "WatchdogSec=60",
        "Restart=always",
        "RestartPreventExitStatus=78",
        "TimeoutStopSec=15",
        "DynamicUser=yes",
        "StateDirectory=chatwoot-relay",
        "ExecStart=/opt/chatwoot-relay/venv/bin/chatwoot-relay serve",
    ],
)
def test_the_service_keeps_its_bargain_with_systemd(line: str) -> None:
    """Readiness, watchdog, no loop on wrong settings, time to drain."""
    assert line in SERVICE.splitlines()


def test_the_port_is_opened_on_loopback_only() -> None:
    """A proxy publishes it; RELAY_HOST does not count under socket activation."""
    assert re.findall(r"(?m)^ListenStream=(.*)$", SOCKET) == ["127.0.0.1:8080"]


def test_roots_command_has_the_services_settings(tmp_path: Path) -> None:
    """`doctor` typed by root must judge what the service runs with."""
    store, state, program = tmp_path / "credstore", tmp_path / "etc", tmp_path / "program"
    store.mkdir()
    state.mkdir()
    (store / "chatwoot-relay.RELAY_TOKEN").write_text("s3cret")
    program.write_text('#!/bin/sh\necho "$RELAY_TOKEN_FILE $STATE_DIRECTORY $PWD $*"\n')
    program.chmod(0o755)
    script = (UNITS / "chatwoot-relay").read_text()
    for path, here in [
        ("/etc/credstore", store),
        ("cd /etc/chatwoot-relay", f"cd {state}"),
        ("/opt/chatwoot-relay/venv/bin/chatwoot-relay", program),
    ]:
        script = script.replace(path, str(here))
    done = subprocess.run(["sh", "-c", script, "sh", "doctor", "--json"], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        str(store / "chatwoot-relay.RELAY_TOKEN"),
        "/var/lib/chatwoot-relay",
        str(state),
        "doctor",
        "--json",
    ]
