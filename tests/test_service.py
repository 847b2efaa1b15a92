"""What systemd sees of the relay: readiness, status, signs of life, and a port that outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from faults import FaultyTelegram, Script
from relay_process import ALERTS, HOME, House, alert

from chatwoot_relay.clock import Clock
from chatwoot_relay.faketelegram import TOKEN
from chatwoot_relay.protocol import Runner
from chatwoot_relay.server import stop_listening

PATIENCE = 15.0


class Systemd(asyncio.DatagramProtocol):
    """The other end of ``$NOTIFY_SOCKET``."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._news = asyncio.Event()

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard += data.decode().splitlines()
        self._news.set()
        self._news = asyncio.Event()

    async def hears(self, line: str, *, after: int = 0) -> None:
        """Wait until that was said, not counting the first *after* lines."""
        async with asyncio.timeout(PATIENCE):
            while line not in self.heard[after:]:
                await self._news.wait()


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[tuple[Systemd, str]]:
    address = str(tmp_path / "notify")
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    channel.bind(address)
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Systemd, sock=channel)
    yield protocol, address
    transport.close()


async def test_systemd_hears_of_readiness_trouble_life_and_the_end(home: House, systemd: tuple[Systemd, str]) -> None:
    """READY=1 only once it listens; STATUS in words; WATCHDOG while all is well; STOPPING at the end."""
    heard, address = systemd
    telegram = home.telegram
    assert isinstance(telegram, FaultyTelegram)
    relay = await home.relay(NOTIFY_SOCKET=address, WATCHDOG_USEC="1000000", RELAY_REPLY_TIMEOUT="0")
    await heard.hears("READY=1")
    await heard.hears("WATCHDOG=1")
    await heard.hears("STATUS=nothing queued")
    telegram.down = Script(status=401, body=b'{"ok":false,"error_code":401,"description":"Unauthorized"}')
    await relay.alert()
    async with asyncio.timeout(PATIENCE):
        while not any(line.startswith("STATUS=1 queued, ") for line in heard.heard):
            await heard.hears("WATCHDOG=1", after=len(heard.heard))
    assert await relay.stop() == 0
    await heard.hears("STOPPING=1")


PLACE = """
import os, sys
os.dup2(int(sys.argv.pop(1)), 3)  # where systemd puts it
os.environ |= {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())}
from chatwoot_relay.cli import main
main(["serve"])
"""


@contextlib.asynccontextmanager
async def activated(
    listener: socket.socket, folder: Path, url: str, **environ: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A relay that inherits its port."""
    passed = fcntl.fcntl(listener.fileno(), fcntl.F_DUPFD, 100)
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PLACE,
            str(passed),
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(HOME),
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "TELEGRAM_CHAT_ID": "-1001",
                "TELEGRAM_API_URL": url,
                "RELAY_RATE_LIMIT": "off",
                "RELAY_PACING": "off",
                "RELAY_PORT": "1",  # would fail
                **environ,
            },
            pass_fds=[passed],
            stderr=asyncio.subprocess.DEVNULL,
        )
    finally:
        os.close(passed)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_deploy_refuses_nobody(home: House, tmp_path: Path) -> None:
    """The port outlives the process: who comes in between waits a moment, and is told 2xx."""
    folder = tmp_path / "activated"
    folder.mkdir()
    answers: list[int] = []
    over = asyncio.Event()

    async def keep_posting(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            while not over.is_set():
                async with session.post(url + ALERTS, json=alert()) as answer:
                    answers.append(answer.status)

    async def answered(count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(answers) < count:
                await home.telegram.changed.wait()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        clients = [asyncio.create_task(keep_posting(url)) for _ in range(4)]
        try:
            for round_ in range(1, 4):
                async with activated(listener, folder, home.url) as process:
                    await answered(20 * round_)
                    process.terminate()
                    async with asyncio.timeout(PATIENCE):
                        assert await process.wait() == 0
            async with activated(listener, folder, home.url):
                await answered(len(answers) + 20)
                over.set()
                async with asyncio.timeout(PATIENCE):
                    await asyncio.gather(*clients)
        finally:
            for client in clients:
                client.cancel()
    assert set(answers) <= {200, 202}


@pytest.mark.parametrize("environ", [{"RELAY_TOKEN": "s3cret"}, {"RELAY_ALLOW_ANONYMOUS": "yes"}, {}])
async def test_an_inherited_public_port_needs_a_token(
    home: House, tmp_path: Path, systemd: tuple[Systemd, str], environ: dict[str, str]
) -> None:
    """systemd's ListenStream= says then who can reach it, and RELAY_HOST says nothing."""
    heard, address = systemd
    with socket.create_server(("0.0.0.0", 0)) as listener:
        async with activated(listener, tmp_path, home.url, NOTIFY_SOCKET=address, **environ) as process:
            if environ:
                await heard.hears("READY=1")
            else:
                async with asyncio.timeout(PATIENCE):
                    assert await process.wait() == 78


async def test_an_inherited_unix_socket_is_nobody_elses(
    home: House, tmp_path: Path, systemd: tuple[Systemd, str]
) -> None:
    """A proxy on this machine alone reaches it."""
    heard, address = systemd
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "http"))
        async with activated(listener, tmp_path, home.url, NOTIFY_SOCKET=address):
            await heard.hears("READY=1")


class Listener(socket.socket):
    """Begins what *accepted* says in the very turn of the loop in which a connection is accepted."""

    accepted: Callable[[], object] = staticmethod(lambda: None)

    def accept(self) -> tuple[socket.socket, object]:
        connection = super().accept()
        self.accepted()
        return connection


async def test_who_is_accepted_in_the_moment_of_a_stop_is_answered() -> None:
    """asyncio makes a connection of it a turn later, and drops it where the server is closed by then."""

    async def hello(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = Runner(app)
    await runner.setup()
    with Listener() as listener:
        listener.bind(("127.0.0.1", 0))
        site = web.SockSite(runner, listener, backlog=16)
        await site.start()
        stopping: list[asyncio.Task[None]] = []

        def stop() -> None:
            stopping.append(asyncio.create_task(stop_listening([site], [listener], clock=Clock())))

        listener.accepted = stop
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert b"hello" in await reader.read()
        writer.close()
        await asyncio.gather(*stopping)
    await runner.cleanup()


async def test_a_directory_is_no_database(home: House) -> None:
    """The setting names a file; many programs' name a folder."""
    relay = await home.relay(start=False, RELAY_DATABASE="outbox")
    (relay.folder / "outbox").mkdir()
    ended, told = await relay.run("serve")
    assert (ended, "RELAY_DATABASE: outbox is no regular file; name one" in told) == (78, True), told


@pytest.mark.parametrize(
    ("environ", "code", "reason", "todo"),
    [
        (
            {"RELAY_HOST": "192.0.2.1", "RELAY_TOKEN": "s3cret"},
            78,
            "192.0.2.1 is no address of this machine",
            "RELAY_HOST",
        ),
        ({"RELAY_DATABASE": "/nonexistent/outbox.db"}, 78, "No such file or directory", "set RELAY_DATABASE"),
        (
            {"RELAY_DATABASE": "/sys/outbox.db"},
            1,
            "opened at /sys/outbox.db",
            "make /sys a directory that we may write",
        ),
    ],
)
async def test_what_keeps_it_from_starting_is_told_with_what_to_do(
    home: House, environ: dict[str, str], code: int, reason: str, todo: str
) -> None:
    """The journal's last line is what the operator reads."""
    relay = await home.relay(start=False, **environ)
    ended, told = await relay.run("serve")
    assert (ended, reason in told, todo in told) == (code, True, True), told
