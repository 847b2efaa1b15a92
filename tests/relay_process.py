"""The relay as a process of its own, run from outside as its users run it: started, killed, started again."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from faults import FaultyTelegram

from chatwoot_relay.faketelegram import TOKEN

HOME = Path(__file__).parent.parent
PATIENCE = 15.0  # seconds for whatever is waited for; a test that needs them has failed
CHAT = "-1001234"
RELAY_TOKEN = "relay-token-of-the-tests"
WEBHOOK_SECRET = "webhook-secret-of-the-tests"
ALERTS = "/api/v1/chatwoot/alerts"
WEBHOOK = "/api/v1/chatwoot/webhook"
TEST = "/api/v1/chatwoot/test"
HEALTH = "/api/v1/chatwoot/health"
JSON = {"Content-Type": "application/json"}
_numbers = itertools.count(1000 * os.getpid())


def new_id() -> int:
    """A conversation that no other test of this run speaks of."""
    return next(_numbers)


def alert(**members: Any) -> dict[str, Any]:
    """An alert of a new conversation; a member that is given as ``...`` is left out."""
    whole = {
        "severity": "high",
        "reason": "NEGATIVE_SENTIMENT",
        "conversation_id": new_id(),
        "message": "Where is my payment?",
        **members,
    }
    return {name: value for name, value in whole.items() if value is not ...}


@attrs.frozen(kw_only=True)
class Answer:
    """What came back to a request."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


@attrs.define(kw_only=True, eq=False)
class RelayProcess:
    """``chatwoot-relay serve`` with its own folder; the same folder, so the same outbox, after a restart."""

    folder: Path
    settings: dict[str, str]
    lines: list[dict[str, Any]] = attrs.field(factory=list)  # of the log, of every life
    said: list[str] = attrs.field(factory=list)  # what it wrote that is no JSON
    process: asyncio.subprocess.Process | None = None
    base: str = ""
    _reading: asyncio.Task[None] | None = None
    _news: asyncio.Event = attrs.field(factory=asyncio.Event)
    _session: aiohttp.ClientSession | None = None

    # --- its life ---

    async def spawn(self, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
        """Run the command in its folder with nothing but its settings around it."""
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chatwoot_relay", *(arguments or ("serve",)),
            cwd=self.folder,
            env={**inherited, "PYTHONPATH": str(HOME), **self.settings, **settings},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
        )  # fmt: skip

    async def run(self, *arguments: str, **settings: str) -> tuple[int, str]:
        """Run the command to its end; its exit code and what it said."""
        async with asyncio.timeout(PATIENCE):
            process = await self.spawn(*arguments, **settings)
            told, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, told.decode()

    async def start(self, **settings: str) -> None:
        """Start it, once more or with other *settings*, and wait until it listens."""
        assert self.process is None, "it runs already"
        self.settings.update(settings)
        seen = len(self.lines)
        self.process = await self.spawn()
        self._reading = asyncio.create_task(self._read(self.process))
        started = await self.logged("relay.started", after=seen)
        self.base = started["listening"][0]
        if self._session is None:
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(cookie_jar=jar, connector=aiohttp.TCPConnector(limit=0))

    async def kill(self) -> None:
        """kill -9."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """SIGTERM; the exit code."""
        return await self._end(signal.SIGTERM)

    async def restart(self, **settings: str) -> None:
        """kill -9 and start again."""
        await self.kill()
        await self.start(**settings)

    async def _end(self, name: signal.Signals) -> int:
        assert self.process is not None
        assert self._reading is not None
        if self.process.returncode is None:
            self.process.send_signal(name)
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        self.process = None
        return code

    async def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None:
            await self.kill()
        if self._session is not None:
            await self._session.close()

    # --- its log ---

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.said.append(line.decode(errors="replace"))
            self._tell()
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def logged(self, event: str, *, after: int = 0, **facts: Any) -> dict[str, Any]:
        """Wait for a line of the log that says so, not counting the first *after* lines."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in self.lines[after:]:
                    if line["event"] == event and facts.items() <= line.items():
                        return line
                if self._reading is not None and self._reading.done():
                    raise AssertionError(f"it ended before {event}: {self.said} {self.lines[-5:]}")
                await self._news.wait()

    @property
    def log(self) -> str:
        """All it has written."""
        return "\n".join([*self.said, *(json.dumps(line, ensure_ascii=False) for line in self.lines)])

    # --- requests ---

    @property
    def port(self) -> int:
        return int(self.base.rpartition(":")[2])

    @property
    def credentials(self) -> dict[str, str]:
        """RELAY_TOKEN as a header, where one is set."""
        token = self.settings.get("RELAY_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def request(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> Answer:
        """One request as JSON (bytes go as they are), with *headers* alone where they are given, never following a
        redirect."""
        assert self._session is not None
        given = {**JSON, **self.credentials} if headers is None else dict(headers)
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with self._session.request(
            method, self.base + path, data=data, headers=given, timeout=timeout, allow_redirects=False,
            skip_auto_headers=["Content-Type"], **options,
        ) as response:  # fmt: skip
            return Answer(status=response.status, headers=response.headers.copy(), raw=await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, body, **options)

    async def alert(self, **members: Any) -> Answer:
        """Post an alert; see :func:`alert`."""
        return await self.post(ALERTS, alert(**members))

    async def send(self, *pieces: bytes, answers: int = 0) -> bytes:
        """Write bytes to its port as they are and read until it closes, or has given so many JSON *answers*."""
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                with contextlib.suppress(ConnectionError):
                    for piece in pieces:
                        writer.write(piece)
                        await writer.drain()
                received = b""
                with contextlib.suppress(ConnectionError):
                    while chunk := await reader.read(65536):
                        received += chunk
                        if answers and received.count(b"HTTP/1.") >= answers and received.endswith(b"}"):
                            break
                return received
            finally:
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()


@contextlib.asynccontextmanager
async def relaying(folder: Path, telegram_url: str, **settings: str) -> AsyncIterator[RelayProcess]:
    """A relay before that Telegram, not started yet. Unpaced and unlimited unless *settings* say otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    process = RelayProcess(
        folder=folder,
        settings={
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_CHAT_ID": CHAT,
            "TELEGRAM_API_URL": telegram_url,
            "RELAY_PORT": "0",
            "RELAY_PACING": "off",
            "RELAY_RATE_LIMIT": "off",
            "RELAY_LOG_FORMAT": "json",
            **settings,
        },
    )
    try:
        yield process
    finally:
        await process.close()


Starter = Callable[..., Any]


@attrs.define(kw_only=True, eq=False)
class House:
    """A Telegram and the relays before it; all of them are gone when it is left."""

    folder: Path
    telegram: FaultyTelegram
    url: str
    _stack: contextlib.AsyncExitStack
    _relays: int = 0

    async def relay(self, *, start: bool = True, **settings: str) -> RelayProcess:
        """A relay with a folder of its own, started unless told not to."""
        self._relays += 1
        relay = await self._stack.enter_async_context(
            relaying(self.folder / f"relay-{self._relays}", self.url, **settings)
        )
        if start:
            await relay.start()
        return relay

    def told(self, conversation_id: int) -> list[str]:
        """What the chat was told of a conversation."""
        return [text for text in self.telegram.told if f"#{conversation_id}\n" in text + "\n"]


@contextlib.asynccontextmanager
async def house(folder: Path, telegram: FaultyTelegram | None = None) -> AsyncIterator[House]:
    """Telegram is served in the caller's loop; relays come with :meth:`House.relay`."""
    telegram = telegram or FaultyTelegram()
    async with telegram.serving() as url, contextlib.AsyncExitStack() as stack:
        yield House(folder=folder, telegram=telegram, url=url, stack=stack)
