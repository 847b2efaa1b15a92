"""What is measured without a socket: the outbox under a backlog, and the work that an event is."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chatwoot_relay import chatwoot, door, notices, routing
from chatwoot_relay.journal import Told
from chatwoot_relay.models import Alert, Delivery
from chatwoot_relay.outbox import Store
from chatwoot_relay.render import render, trim
from chatwoot_relay.schema import open_database
from chatwoot_relay.signature import verify

from .load import ALERT, EVENT

BATCH = 32


def an_alert(number: int) -> Alert:
    return trim(door.read_alert({**ALERT, "conversation_id": number}))


def _put(store: Store, number: int) -> None:
    # Conversations of one time have numbers of one length, as ours here.
    lane = str(10_000_000 + number)
    store.enqueue(an_alert(1), id=f"{number:016x}", destination="team", conversation=lane, now=float(number))


def _commit(store: Store, work: Callable[[], Any]) -> float:
    """Seconds that a transaction took, its sync included."""
    begun = time.perf_counter()
    store.db.execute("BEGIN IMMEDIATE")
    work()
    store.db.execute("COMMIT")
    return time.perf_counter() - begun


class Backlog:
    """An outbox behind which so many wait, and what one more costs it."""

    def __init__(self, folder: Path, pending: int) -> None:
        self.store = Store(open_database(folder / f"{pending}.db"), max_pending=10_000_000)
        self.number = 0
        self.accepts, self.claims, self.settles = list[float](), list[float](), list[float]()
        while self.number < pending:
            _commit(self.store, lambda: self._accept(min(20_000, pending - self.number)))

    def turn(self) -> None:
        """A commit that accepts some, one that claims as many, and one that settles them."""
        now = float(self.number)
        self.accepts.append(_commit(self.store, lambda: self._accept(BATCH)) / BATCH * 1e6)
        claimed = list[Delivery]()
        self.claims.append(_commit(self.store, lambda: claimed.extend(self._claim(now))) / BATCH * 1e6)
        told = [Told(delivery.seq, now, "1", 1) for delivery in claimed]
        self.settles.append(_commit(self.store, lambda: self.store.told_all(told)) / BATCH * 1e6)

    def _accept(self, count: int) -> None:
        for _ in range(count):
            self.number += 1
            _put(self.store, self.number)

    def _claim(self, now: float) -> list[Delivery]:
        return self.store.claim({"team": BATCH}, now=now, max_age=1e12)[0]


def backlogs(sizes: tuple[int, ...], *, turns: int) -> dict[int, tuple[float, float, float]]:
    """Microseconds to accept, to claim and to settle one delivery behind each many; turn by turn among them."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        found = {pending: Backlog(Path(folder), pending) for pending in sizes}
        for _ in range(turns):
            for one in found.values():
                one.turn()
        for one in found.values():
            one.store.db.close()
    middle = statistics.median
    return {n: (middle(one.accepts), middle(one.claims), middle(one.settles)) for n, one in found.items()}


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
