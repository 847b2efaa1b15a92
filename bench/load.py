"""The load: alerts over kept connections, in a process of its own.

``python -m bench.load '{"port": 8080, "connections": 64, "seconds": 3}'`` prints what came of it as JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

EVENT = Path(__file__).parent.parent / "tests" / "samples" / "chatwoot" / "message_created--incoming-text.json"
ALERTS = "/api/v1/chatwoot/alerts"
ALERT = {
    "severity": "high",
    "reason": "NEGATIVE_SENTIMENT",
    "conversation_id": 12345,
    "message": "THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT??? mark-0",
    "customer_name": "John Doe",
    "customer_email": "john@example.com",
    "timestamp": "2025-01-19T18:30:00Z",
    "chatwoot_url": "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    "additional_info": {"user_id": "user_123", "order_id": "order_456"},
}
SEND = {"chat_id": 1, "text": "x" * 300, "parse_mode": "HTML"}


def post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def alert(number: int) -> bytes:
    """Every alert is about another conversation, for those of one are told one after the other."""
    words = f"{ALERT['message']}".replace("mark-0", f"mark-{number}")
    return post(ALERTS, json.dumps({**ALERT, "conversation_id": number, "message": words}).encode())


def event() -> bytes:
    """A typical event as Chatwoot sends it."""
    body = json.dumps(json.loads(EVENT.read_text("utf-8"))).encode()
    head = (
        "POST /api/v1/chatwoot/webhook HTTP/1.1\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
        f"X-Chatwoot-Delivery: 00000000-0000-4000-8000-000000000000\r\nX-Chatwoot-Timestamp: {int(time.time())}\r\n"
        f"X-Chatwoot-Signature: sha256={'0' * 64}\r\nUser-Agent: rest-client/2.1.0\r\n"
        f"Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3\r\nHost: bench\r\nContent-Length: {len(body)}"
        "\r\n\r\n"
    )
    return head.encode() + body


class Client(asyncio.Protocol):
    """One connection, one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""
        self.answer: asyncio.Future[int] | None = None

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(self.buffer) >= end + 4 + length and self.answer is not None and not self.answer.done():
            self.answer.set_result(int(head[9:12]))
            self.buffer = b""

    def connection_lost(self, exc: Exception | None) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(exc or ConnectionResetError())

    async def ask(self, request: bytes, *, timeout: float = 30.0) -> int:
        """The answer's status."""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(timeout):
            return await self.answer


async def connect(port: int) -> Client:
    _, client = await asyncio.get_running_loop().create_connection(Client, "127.0.0.1", port)
    return client


async def run(
    *,
    port: int,
    connections: int = 16,
    seconds: float = 3.0,
    count: int | None = None,
    rate: float | None = None,
    first: int = 1,
    kind: str = "alert",
    kept: bool = True,
) -> dict[str, Any]:
    """As fast as answers come, or *rate* a second, for *seconds* or *count* requests.

    Where connections are not *kept*, each request has one of its own.
    """
    numbers = itertools.count(first)
    took: list[float] = []
    statuses: Counter[int] = Counter()
    clients = [await connect(port) for _ in range(connections)]
    fixed = event() if kind == "event" else post("/bot1:x/sendMessage", json.dumps(SEND).encode())
    started = time.perf_counter()
    end = started + (600.0 if count is not None else seconds)

    async def one(client: Client) -> None:
        number = next(numbers)
        request = alert(number) if kind == "alert" else fixed
        begun = time.perf_counter()
        statuses[await client.ask(request)] += 1
        took.append(time.perf_counter() - begun)

    async def steady(client: Client) -> None:
        while time.perf_counter() < end and (count is None or len(took) < count):
            await one(client)
            if not kept:
                client.transport.close()
                client = await connect(port)
        client.transport.close()

    async def paced() -> None:
        assert rate is not None
        free, tasks = list(clients), set[asyncio.Task[None]]()

        async def use(client: Client) -> None:
            await one(client)
            free.append(client)

        for turn in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + turn / rate - time.perf_counter()))
            tasks.add(asyncio.create_task(use(free.pop())))
        await asyncio.gather(*tasks)

    await (paced() if rate is not None else asyncio.gather(*map(steady, clients)))
    elapsed = time.perf_counter() - started
    for client in clients:
        client.transport.close()
    return {
        "count": len(took),
        "rate": len(took) / elapsed,
        "median_ms": statistics.median(took) * 1000,
        "p99_ms": sorted(took)[int(len(took) * 0.99)] * 1000,
        "statuses": statuses,
        "next": next(numbers),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(**json.loads(sys.argv[1])))))
