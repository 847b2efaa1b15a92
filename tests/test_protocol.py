"""What aiohttp's server lacks: slow heads are cut off, a crowd is bounded, and what is no HTTP gets a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web

from chatwoot_relay.protocol import Runner

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Start = Callable[..., Awaitable[Callable[[], Awaitable[Client]]]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server with these limits; what is returned connects to it."""
    async with AsyncExitStack() as stack:

        async def started(handler: Any = None, **limits: Any) -> Callable[[], Awaitable[Client]]:
            async def hello(request: web.Request) -> web.Response:
                return web.Response(text="hello")

            app = web.Application()
            app.router.add_get("/", handler or hello)
            runner = Runner(app, **limits)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()

            async def connect() -> Client:
                reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
                stack.callback(writer.close)
                return reader, writer

            return connect

        yield started


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


async def is_cut_off(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("head", [b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_head_that_does_not_come_is_not_waited_for(start: Start, head: bytes) -> None:
    """aiohttp alone would hold such a connection for ever."""
    reader, writer = await (await start(head_timeout=0.05))()
    writer.write(head)
    assert await is_cut_off(reader)


async def test_a_second_head_is_timed_as_the_first(start: Start) -> None:
    """A client that was quick once may be slow on purpose."""
    reader, writer = await (await start(head_timeout=0.05))()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    writer.write(b"GET / HT")
    assert await is_cut_off(reader)


async def test_a_handler_may_take_longer_than_a_head(start: Start) -> None:
    """Waiting for Telegram is not the client's fault, nor is the pause before its next request."""
    passed = asyncio.Event()

    async def slow(request: web.Request) -> web.Response:
        asyncio.get_running_loop().call_later(0.1, passed.set)
        await passed.wait()
        return web.Response(text="at last")

    reader, writer = await (await start(slow, head_timeout=0.05))()
    for _ in range(2):
        passed.clear()
        writer.write(GET)
        assert (await answer(reader))[2] == b"at last"


async def test_an_idle_connection_is_kept_for_its_time_and_no_longer(start: Start) -> None:
    """aiohttp's own default is about an hour."""
    reader, writer = await (await start(keepalive_timeout=0.05))()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    assert await is_cut_off(reader)


async def test_who_asks_and_hangs_up_his_half_is_answered(start: Start) -> None:
    """As ``nc -N`` does: the request is whole, and nothing more will come."""
    connect = await start()
    reader, writer = await connect()
    writer.write(GET)
    writer.write_eof()
    assert (await answer(reader))[0] == 200
    assert await is_cut_off(reader)
    reader, writer = await connect()
    writer.write_eof()
    assert await is_cut_off(reader)


@pytest.mark.parametrize("host", ["xn--", "xn--a", "[::1"])
async def test_a_host_that_is_none_is_no_crash(start: Start, host: str) -> None:
    """An absolute target's host says nothing to us."""
    reader, writer = await (await start())()
    writer.write(f"GET http://{host}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await answer(reader))[0] in (200, 400)


async def test_a_crowd_costs_the_oldest_idle_connection(start: Start) -> None:
    """Idle connections are cheap to open; they must not keep a working client out."""
    connect = await start(max_connections=2)
    first, second = await connect(), await connect()
    for reader, writer in (first, second):
        writer.write(GET)
        assert (await answer(reader))[0] == 200
    reader, writer = await connect()
    writer.write(GET)
    assert (await answer(reader))[0] == 200
    assert await is_cut_off(first[0])
    second[1].write(GET)
    assert (await answer(second[0]))[0] == 200


async def test_a_crowd_at_work_turns_the_newcomer_away(start: Start) -> None:
    """Nobody who is being served is cut off; who comes too late is told to come back."""
    arrived, go = asyncio.Semaphore(0), asyncio.Event()

    async def busy(request: web.Request) -> web.Response:
        arrived.release()
        await go.wait()
        return web.Response(text="served")

    connect = await start(busy, max_connections=2)
    at_work = [await connect(), await connect()]
    for _, writer in at_work:
        writer.write(GET)
        await arrived.acquire()
    late, _ = await connect()
    status, headers, body = await answer(late)
    assert (status, headers["content-type"], headers["retry-after"]) == (503, "application/problem+json", "3")
    assert headers["x-request-id"]
    assert {"status": 503, "success": False}.items() <= json.loads(body).items()
    assert await is_cut_off(late)
    go.set()
    assert [(await answer(reader))[2] for reader, _ in at_work] == [b"served", b"served"]


@pytest.mark.parametrize(
    "request_",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 9000 + b"\r\n\r\n",
    ],
    ids=["no request", "length", "smuggling", "space", "long line", "long header"],
)
async def test_what_is_no_http_gets_a_problem_and_a_close(start: Start, request_: bytes) -> None:
    """Never HTML, never a traceback; and nothing after it on that connection is believed."""
    reader, writer = await (await start())()
    writer.write(request_ + GET)
    status, headers, body = await answer(reader)
    assert (status, headers["content-type"]) == (400, "application/problem+json")
    assert {"status": 400, "success": False}.items() <= json.loads(body).items()
    assert await is_cut_off(reader)


async def test_an_expectation_that_nobody_can_meet_is_a_problem(start: Start) -> None:
    """aiohttp answers it before any middleware of ours is asked."""
    reader, writer = await (await start())()
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n")
    status, headers, _ = await answer(reader)
    assert (status, headers["content-type"]) == (417, "application/problem+json")
