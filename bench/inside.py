"""What is measured without a socket: the outbox under a backlog, and the work that an event is."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatwoot_relay import chatwoot, door, notices, routing
from chatwoot_relay.models import Alert
from chatwoot_relay.outbox import Store, open_database
from chatwoot_relay.render import render, trim
from chatwoot_relay.signature import verify

from .load import ALERT
from .servers import HOME

EVENT = HOME / "tests" / "samples" / "chatwoot" / "message_created--incoming-text.json"
BATCH = 32


def an_alert(number: int) -> Alert:
    return trim(door.read_alert({**ALERT, "conversation_id": number}))


def _put(store: Store, number: int) -> None:
    store.enqueue(an_alert(1), id=secrets.token_hex(8), destination="team", conversation=str(number), now=float(number))


def _commit(store: Store, work: Callable[[], Any]) -> float:
    """Seconds that a transaction took, its sync included."""
    begun = time.perf_counter()
    store.db.execute("BEGIN IMMEDIATE")
    work()
    store.db.execute("COMMIT")
    return time.perf_counter() - begun


def backlog(pending: int, *, turns: int) -> dict[str, float]:
    """Microseconds to accept, and to claim and settle, one delivery behind so many; and how fast it drains."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        store = Store(open_database(Path(folder) / "outbox.db"), max_pending=10_000_000)
        for start in range(0, pending, 20_000):
            _commit(store, lambda s=start: [_put(store, n) for n in range(s, min(s + 20_000, pending))])
        number, left = pending, float(pending)

        def accept() -> None:
            nonlocal number
            for _ in range(BATCH):
                number += 1
                _put(store, number)

        def tell() -> None:
            claimed, _ = store.claim({"team": BATCH}, now=left, max_age=1e12)
            for delivery in claimed:
                store.told(delivery.seq, now=left, chat_id="1", message_id=1)

        accepts, tells = [], []
        for _ in range(turns):
            accepts.append(_commit(store, accept))
            tells.append(_commit(store, tell))
        drain = tells[len(tells) // 2 :]
        store.db.close()
    return {
        "accept": statistics.median(accepts) / BATCH * 1e6,
        "tell": statistics.median(tells) / BATCH * 1e6,
        "drain": BATCH * len(drain) / sum(drain),
    }


def event_work(*, turns: int) -> float:
    """Microseconds of processor time to verify, read, decide and render a typical Chatwoot event."""
    body, secret, stamp = json.dumps(json.loads(EVENT.read_text("utf-8"))).encode(), b"secret", str(int(time.time()))
    signature = "sha256=" + hmac.new(secret, stamp.encode() + b"." + body, hashlib.sha256).hexdigest()

    def work() -> None:
        verify(secrets=[secret], signatures=[signature], timestamps=[stamp], body=body, now=time.time())
        event = chatwoot.read_event(door.parse(body), base_url=None, account_id=None)
        decision = routing.decide(event, None, events=frozenset({"useful"}), now=time.time())
        assert decision.what is not None
        render(notices.word(event, decision))

    return _cost(work, turns)


def alert_work(*, turns: int) -> float:
    """The same of an alert: parse, check, render."""
    body = json.dumps(ALERT).encode()
    return _cost(lambda: render(trim(door.read_alert(door.parse(body)))), turns)


def _cost(work: Callable[[], Any], turns: int) -> float:
    costs = []
    for _ in range(9):
        begun = time.process_time()
        for _ in range(turns):
            work()
        costs.append((time.process_time() - begun) / turns)
    return statistics.median(costs) * 1e6


@functools.cache
def large_event() -> bytes:
    """1.8 MB as they come: one long message, three times in it."""
    document = json.loads(EVENT.read_text("utf-8"))
    words = "the parcel never came; " * 26_000
    document["content"] = words
    for message in document["conversation"]["messages"]:
        message["content"] = message["processed_message_content"] = words
    return json.dumps(document).encode()


async def stall(port: int, *, bodies: int) -> tuple[float, float]:
    """The longest and the median that GET /health took (ms) while large events were posted one after the other."""
    from .load import connect, post
    from .servers import HEALTH

    waits: list[float] = []
    done = asyncio.Event()

    async def ask() -> None:
        client = await connect(port)
        request = HEALTH.replace(b"Connection: close\r\n", b"")
        while not done.is_set():
            begun = time.perf_counter()
            await client.ask(request)
            waits.append((time.perf_counter() - begun) * 1000)
            await asyncio.sleep(0.001)
        client.transport.close()

    async def send() -> None:
        client = await connect(port)
        for number in range(bodies):
            body = large_event().replace(b'"id": 88100', b'"id": %d' % (number + 1)).replace(b"1042", b"%d" % number)
            status = await client.ask(post("/api/v1/chatwoot/webhook", body))
            assert status in (200, 202), status
        client.transport.close()
        done.set()

    await asyncio.gather(ask(), send())
    return max(waits), statistics.median(waits)
