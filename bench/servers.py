"""Processes that are measured from outside: started, asked, weighed, ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HOME = Path(__file__).parent.parent
HEALTH = b"GET /api/v1/chatwoot/health HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
# As `python -m`, but without what the tests bring along: structlog imports rich wherever it finds it.
MODULE = """\
import runpy, sys
sys.modules["rich"] = None
del sys.argv[0]
runpy.run_module(sys.argv[0], {}, "__main__", True)
"""
TICK = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Server:
    """``python -m MODULE …`` with nothing but *settings* around it, in a folder of its own."""

    def __init__(
        self,
        *command: str,
        settings: dict[str, str] | None = None,
        port: int | None = None,
        folder: Path | None = None,
    ) -> None:
        self.port = port or free_port()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="bench-"))
        settings = {"RELAY_PORT": str(self.port), **(settings or {})}
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.started = time.perf_counter()
            self.process = subprocess.Popen(
                [sys.executable, "-c", MODULE, *(word.replace("PORT", str(self.port)) for word in command)],
                cwd=self.folder,
                env={"PYTHONPATH": str(HOME), "PATH": os.environ["PATH"], **settings},
                stdout=log,
                stderr=log,
            )

    def wait(self, *, seconds: float = 20.0) -> float:
        """Until it takes connections; the seconds since it was started."""
        return self._until(lambda: socket.create_connection(("127.0.0.1", self.port), timeout=5).close(), seconds)

    def healthy(self, *, seconds: float = 20.0) -> float:
        """Until its first good answer; the seconds since it was started."""

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(HEALTH)
                if b" 200 " not in connection.recv(100):
                    raise ConnectionError("not healthy yet")

        return self._until(ask, seconds)

    def _until(self, attempt: Any, seconds: float) -> float:
        while True:
            try:
                attempt()
                return time.perf_counter() - self.started
            except OSError:
                if self.process.poll() is not None or time.perf_counter() - self.started > seconds:
                    raise RuntimeError(f"it did not start:\n{self.log.read_text('utf-8', 'replace')[-2000:]}") from None
                time.sleep(0.002)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> float:
        """MB of memory it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def settle(self, *, seconds: float = 60.0) -> None:
        """Until it is idle again, so that it does not work off its last round in another's."""
        end, before = time.perf_counter() + seconds, self.cpu()
        while time.perf_counter() < end:
            time.sleep(0.25)
            now = self.cpu()
            if now - before <= 0.02:
                return
            before = now

    def end(self, *, how: int = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(15)


def relay(telegram: str, *, port: int | None = None, folder: Path | None = None, **settings: str) -> Server:
    """The relay, telling the Telegram at that address as fast as it can."""
    return Server(
        "chatwoot_relay", "serve",
        settings={
            "TELEGRAM_BOT_TOKEN": "123456789:AAFbenchbenchbenchbenchbenchbenchbe",
            "TELEGRAM_CHAT_ID": "1",
            "TELEGRAM_API_URL": telegram,
            "RELAY_PACING": "off",
            "RELAY_RATE_LIMIT": "off",
            **settings,
        },
        port=port,
        folder=folder,
    )  # fmt: skip


def load(server: Server, **how: Any) -> dict[str, Any]:
    """Have the load generator run beside it."""
    words = json.dumps({"port": server.port, **how})
    done = subprocess.run(
        [sys.executable, "-m", "bench.load", words], cwd=HOME, capture_output=True, check=False, timeout=900
    )
    if done.returncode:
        raise RuntimeError(done.stderr.decode("utf-8", "replace"))
    result: dict[str, Any] = json.loads(done.stdout)
    return result
