"""Time limits and refusals that take too long, or too much, to provoke on a process: the same parts, in this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from relay_process import ALERTS, HEALTH, TEST, WEBHOOK, alert

from chatwoot_relay.door import parse, read_alert
from chatwoot_relay.errors import Refused
from chatwoot_relay.faketelegram import TOKEN, FakeTelegram
from chatwoot_relay.handlers import RELAY
from chatwoot_relay.protocol import Runner
from chatwoot_relay.server import build
from chatwoot_relay.settings import load

EVENT = {"event": "message_created", "conversation": {"id": 7, "status": "open"}, "message": {"content": "hello"}}


class Served:
    """The application on a port."""

    def __init__(self, app: web.Application, port: int) -> None:
        self.relay, self.port = app[RELAY], port

    async def post(self, path: str, body: Any = None) -> tuple[int, Any, Any]:
        """Status, headers and what is in the JSON."""
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with session.request("GET" if path == HEALTH else "POST", url, json=body) as response:
                return response.status, response.headers, await response.json(content_type=None)

    async def write(self, *pieces: bytes) -> bytes:
        """Write, then wait until the other side closes."""
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                return await reader.read()
            finally:
                writer.close()


@contextlib.asynccontextmanager
async def served(
    folder: Path, *, head_timeout: float = 10, body_timeout: float = 15, **settings: str
) -> AsyncIterator[Served]:
    async with FakeTelegram().serving() as url:
        known = load(
            {
                "TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_CHAT_ID": "7", "TELEGRAM_API_URL": url, "RELAY_PACING": "off",
                "RELAY_DATABASE": str(folder / "outbox.db"), **settings,
            },
            directory=folder,
        )  # fmt: skip
        app = build(known)
        runner = Runner(app, head_timeout=head_timeout, lingering_time=0.05)
        await runner.setup()
        try:
            app[RELAY].door.body_timeout = body_timeout
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield Served(app, runner.addresses[0][1])
        finally:
            await runner.cleanup()


@pytest.mark.parametrize(
    "begun", [b"", b"P", b"POST / HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * 1000]
)
async def test_a_head_that_does_not_come_ends_the_connection(tmp_path: Path, begun: bytes) -> None:
    """Or slow clients would hold connections for ever; aiohttp alone never tires of waiting."""
    async with served(tmp_path, head_timeout=0.05) as relay:
        assert await relay.write(begun) == b""
        assert (await relay.post(ALERTS, alert()))[0] == 200


async def test_the_time_for_a_head_is_for_each_request_of_a_connection(tmp_path: Path) -> None:
    """The second is not cut off because the first was long ago; yet it too has to come."""
    async with served(tmp_path, head_timeout=0.05) as relay, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        for _ in range(2):
            writer.write(f"GET {HEALTH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            await reader.readuntil(b"}")
        writer.write(b"GET / HTT")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
@pytest.mark.parametrize(
    "begun",
    [b"Content-Length: 100\r\n\r\n{", b"Content-Length: 1\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"],
)
async def test_a_body_that_does_not_come_is_answered_408(tmp_path: Path, path: str, begun: bytes) -> None:
    """By a problem, and the connection is over: what would come next could not be told apart."""
    async with served(tmp_path, body_timeout=0.05) as relay:
        received = await relay.write(f"POST {path} HTTP/1.1\r\nHost: x\r\n".encode() + begun)
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in head
        assert json.loads(body)["success"] is False
        assert (await relay.post(ALERTS, alert()))[0] == 200


async def test_the_hurry_of_the_body_comes_before_its_type_and_credentials(tmp_path: Path) -> None:
    """The order of the contract: 408 and 413 before 415 before 401."""
    async with served(tmp_path, body_timeout=0.05, RELAY_TOKEN="secret-of-the-test") as relay:
        head = f"POST {ALERTS} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n\r\n".encode()
        assert (await relay.write(head)).startswith(b"HTTP/1.1 408 ")


async def test_what_cannot_be_accepted_is_refused_to_each_as_it_understands(tmp_path: Path) -> None:
    """503 to those who post alerts; to Chatwoot 429, the only refusal that it ever repeats, wherever it posts."""
    async with served(tmp_path) as relay:
        relay.relay.stopping = True
        for path, body, expected in [
            (ALERTS, alert(), 503), (TEST, None, 503), (WEBHOOK, EVENT, 429), (ALERTS, EVENT, 429),
        ]:  # fmt: skip
            status, headers, told = await relay.post(path, body)
            assert (status, headers["Retry-After"], told["success"]) == (expected, "3", False)
            assert headers["Content-Type"].startswith("application/problem+json")
        status, _, told = await relay.post(HEALTH)
        assert (status, told["status"], told.keys()) == (503, "failing", {"status", "service", "timestamp", "detail"})
        status, _, _ = await relay.post(ALERTS, {**alert(), "message": ""})
        assert status == 422, "a wrong shape is told first"
        relay.relay.stopping = False
        assert (await relay.post(ALERTS, alert()))[0] == 200
        assert (await relay.post(WEBHOOK, EVENT))[0] == 200


# --- any bytes ---


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
)
ALERTS_ALMOST = st.fixed_dictionaries(
    {},
    optional={
        name: JSON_VALUES | st.just(value)
        for name, value in {**alert(), "timestamp": "", "additional_info": {}}.items()
    },
)


def refusal_of(work: Callable[[], Any]) -> Refused | None:
    """How it was refused; any other exception is a failure."""
    try:
        work()
    except Refused as refused:
        return refused
    return None


@given(st.binary() | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    """The door has no third way: another exception would be a crash for a stranger to cause."""
    refused = refusal_of(lambda: parse(body))
    assert refused is None or refused.status == 400


@given(JSON_VALUES | ALERTS_ALMOST)
def test_any_value_is_an_alert_or_a_refusal(document: Any) -> None:
    """Every complaint names its place in the document."""
    refused = refusal_of(lambda: read_alert(document))
    if refused is not None:
        assert refused.status == 422
        assert refused.errors
        assert all(error.path.startswith("$") and error.message for error in refused.errors)
