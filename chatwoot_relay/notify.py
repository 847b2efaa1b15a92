"""What systemd and we tell each other: readiness, status, watchdog, sockets. Does nothing where there is no systemd."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, MutableMapping

FIRST_INHERITED = 3  # sd_listen_fds(3): descriptors begin after stderr


def notify(*lines: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send *lines* ("READY=1", "STATUS=…") to ``$NOTIFY_SOCKET``, see sd_notify(3). A deaf listener stops nothing."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    text = "\n".join(line.replace("\n", " ") for line in lines)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.setblocking(False)
        channel.sendto(text.encode(errors="replace"), os.fsencode(address.replace("@", "\0", address[0] == "@")))


def watchdog_interval(*, environ: Mapping[str, str] = os.environ, pid: int | None = None) -> float | None:
    """Seconds between two signs of life: half of what sd_watchdog_enabled(3) allows; None where none are asked."""
    ours = str(os.getpid() if pid is None else pid)
    allowed = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", ours) != ours or not (allowed.isascii() and allowed.isdigit() and int(allowed)):
        return None
    return int(allowed) / 2_000_000


def inherited_sockets(*, environ: MutableMapping[str, str] = os.environ, pid: int | None = None) -> list[socket.socket]:
    """The listening sockets that systemd opened for us, see sd_listen_fds(3). A second call has none: they are ours."""
    meant, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid() if pid is None else pid) or not (count.isascii() and count.isdigit()):
        return []
    sockets = []
    for descriptor in range(FIRST_INHERITED, FIRST_INHERITED + int(count)):
        os.set_inheritable(descriptor, False)
        inherited = socket.socket(fileno=descriptor)
        inherited.setblocking(False)
        sockets.append(inherited)
    return sockets
