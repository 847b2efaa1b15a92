"""systemd's protocols, against a real datagram socket and descriptors that a process really inherits."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from chatwoot_relay.notify import inherited_sockets, notify, watchdog_interval


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_hears_what_we_say(tmp_path: Path, abstract: bool) -> None:
    """Services run with sockets in the file system, user managers and containers with abstract ones."""
    address = f"@chatwoot-relay-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address.replace("@", "\0"))
        notify("READY=1", "STATUS=3 queued,\nTelegram holds the chat for 41 s", environ={"NOTIFY_SOCKET": address})
        assert systemd.recv(4096) == b"READY=1\nSTATUS=3 queued, Telegram holds the chat for 41 s"


@pytest.mark.parametrize(
    "address", [None, "", "vsock:2:1", "/nonexistent/notify", "@nobody-listens-here", "@\udcff", "/" + "x" * 200]
)
def test_a_missing_or_deaf_listener_stops_nothing(address: str | None) -> None:
    """Started by hand there is none; a closed one is no reason to stop telling alerts."""
    notify("READY=1", environ={} if address is None else {"NOTIFY_SOCKET": address})


def test_a_full_listener_is_not_waited_for(tmp_path: Path) -> None:
    """systemd itself may hang; the loop must not."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        for _ in range(2000):
            notify("WATCHDOG=1", environ={"NOTIFY_SOCKET": str(tmp_path / "notify")})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "²"}, None),
    ],
)
def test_a_sign_of_life_comes_twice_as_often_as_asked(environ: dict[str, str], expected: float | None) -> None:
    """sd_watchdog_enabled(3) recommends half; another process's watchdog is not ours."""
    assert watchdog_interval(environ=environ, pid=7) == expected


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "8", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}]
)
def test_sockets_for_another_process_are_left_alone(environ: dict[str, str]) -> None:
    """An inherited environment is no inherited socket."""
    assert inherited_sockets(environ=environ, pid=7) == []
    assert environ == {}


CHILD = """
import json, os, sys
for place, passed in enumerate(sys.argv[1:], start=3):  # where systemd puts them
    os.dup2(int(passed), place)
os.environ["LISTEN_PID"] = str(os.getpid())
from chatwoot_relay.notify import inherited_sockets
sockets = inherited_sockets()
print(json.dumps({
    "ports": [each.getsockname()[1] for each in sockets],
    "blocking": [each.getblocking() for each in sockets],
    "inheritable": [each.get_inheritable() for each in sockets],
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
    "again": inherited_sockets(),
}))
"""


def test_a_process_takes_over_the_sockets_that_it_inherits() -> None:
    """This is how a deploy refuses nobody: the socket outlives the process."""
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        passed = [fcntl.fcntl(each, fcntl.F_DUPFD, 100) for each in (first.fileno(), second.fileno())]
        try:
            done = subprocess.run(
                [sys.executable, "-c", CHILD, *map(str, passed)],
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b"},
                pass_fds=passed,
                capture_output=True,
                text=True,
                check=True,
            )
        finally:
            for each in passed:
                os.close(each)
        assert json.loads(done.stdout) == {
            "ports": [first.getsockname()[1], second.getsockname()[1]],
            "blocking": [False, False],
            "inheritable": [False, False],
            "left": [],
            "again": [],
        }
