"""A sender on a clock that the test drives, before a Telegram that says what the test wants: hours pass at once."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from chatwoot_relay.clock import Clock
from chatwoot_relay.housekeeping import keep
from chatwoot_relay.metrics import Metrics, Standing
from chatwoot_relay.models import Alert, Ambiguous, Retry
from chatwoot_relay.outbox import Store
from chatwoot_relay.pacing import Pace
from chatwoot_relay.render import Links
from chatwoot_relay.sender import Destination, Sender
from chatwoot_relay.telegram import Answer
from chatwoot_relay.writer import Outbox

Result = Answer | Retry | Ambiguous
EPOCH = 1_700_000_000.0


class FakeClock(Clock):
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.jumped = 0.0  # by how much somebody has set the wall clock
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    def wall(self) -> float:
        return EPOCH + self.now + self.jumped

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        sleeper = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self.now + seconds, next(self._count), sleeper))
        await sleeper

    def next(self) -> float | None:
        """When the next sleeper wakes."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    def go(self, to: float) -> None:
        """It is so late now; whoever slept until then wakes."""
        self.now = max(self.now, to)
        while (at := self.next()) is not None and at <= self.now:
            heapq.heappop(self._sleepers)[2].set_result(None)


def refused(code: int, description: str, **parameters: Any) -> Answer:
    """An error of the Bot API."""
    body = {"ok": False, "error_code": code, "description": description, "parameters": parameters}
    return Answer(code, body)


@attrs.frozen(kw_only=True)
class Call:
    """What was asked of Telegram, when."""

    method: str
    payload: dict[str, Any]
    at: float
    timeout: float

    @property
    def chat(self) -> str:
        return str(self.payload.get("chat_id"))

    @property
    def text(self) -> str:
        return str(self.payload.get("text"))


class Line:
    """Stands where the client of the Bot API does."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._scripted: list[tuple[str | None, Result | asyncio.Future[Result] | Exception]] = []
        self._ids = itertools.count(1)
        self.calls: list[Call] = []
        self.told: list[Call] = []
        self.answer: Callable[[Call], Result | None] = lambda call: None  # None: well
        self.connected = asyncio.Event()  # until then nothing gets onto the wire
        self.connected.set()

    def next(self, *results: Result | asyncio.Future[Result] | Exception, chat: str | None = None) -> None:
        """The next sends (to *chat*) end so, one after the other; a future is one that hangs until it is set."""
        self._scripted += [(chat, result) for result in results]

    @property
    def sends(self) -> list[Call]:
        return [call for call in self.calls if call.method == "sendMessage"]

    async def call(
        self,
        method: str,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        connected: asyncio.Event | None = None,
    ) -> Result:
        await self.connected.wait()
        call = Call(method=method, payload=dict(payload or {}), at=self._clock.now, timeout=timeout)
        self.calls.append(call)
        if connected is not None:
            connected.set()
        result: Any = None
        if method == "sendMessage":
            for place, (chat, scripted) in enumerate(self._scripted):
                if chat in (None, call.chat):
                    del self._scripted[place]
                    result = scripted
                    break
        if isinstance(result, Exception):
            raise result
        if isinstance(result, asyncio.Future):
            result = await result
        result = result or self.answer(call)
        if result is None:
            result = Answer(200, {"ok": True, "result": {"message_id": next(self._ids)}})
        if method == "sendMessage" and isinstance(result, Answer) and result.status == 200:
            self.told.append(call)
        return result


@attrs.define(kw_only=True, eq=False)
class Bench:
    """An outbox, a sender and what they talk to."""

    clock: FakeClock
    line: Line
    outbox: Outbox
    sender: Sender
    running: asyncio.Task[None]

    async def owe(
        self, message: str, *, conversation: int | None = None, severity: str = "high", destination: str = "team"
    ) -> str:
        """Owe an alert; its id, which is its message too."""
        alert = Alert(severity=severity, reason="X", conversation_id=conversation or 1, message=message)
        lane = message if conversation is None else str(conversation)
        now = self.outbox.now()
        await self.outbox.do(
            lambda store: store.enqueue(alert, id=message, destination=destination, conversation=lane, now=now)
        )
        await self.settle()
        return message

    async def settle(self) -> None:
        """Return when nothing moves any more by itself."""
        quiet = 0
        before: Any = None
        while quiet < 3:
            for _ in range(4):
                await asyncio.sleep(0)
            with contextlib.suppress(Exception):
                await self.outbox.do(lambda store: None)
            state = (self.sender.turns, len(self.line.calls), self.outbox.tally, self.clock.next())
            quiet = quiet + 1 if state == before else 0
            before = state

    async def wait(self, seconds: float) -> None:
        """So much time passes, and everything happens at its moment."""
        end = self.clock.now + seconds
        await self.settle()
        while (at := self.clock.next()) is not None and at <= end:
            self.clock.go(at)
            await self.settle()
        self.clock.go(end)
        await self.settle()

    async def show(self, id: str) -> dict[str, Any]:
        row = await self.outbox.do(lambda store: store.show(id))
        assert row is not None
        return row

    async def state(self, id: str) -> str:
        return str((await self.show(id))["state"])

    async def do(self, work: Callable[[Store], Any]) -> Any:
        result = await self.outbox.do(work)
        await self.settle()
        return result

    @property
    def messages(self) -> list[str]:
        """What was told, in order: the word after "Message:"."""
        return [call.text.split("Message:")[1].replace("</b>", "").split()[0] for call in self.line.told]


@contextlib.asynccontextmanager
async def bench(
    folder: Path,
    *,
    clock: FakeClock | None = None,
    chats: Mapping[str, str | Destination] | None = None,
    paced: bool = False,
    max_age: float = 72 * 3600,
    roll: Callable[[], float] = lambda: 0.99,
    housekeeping: bool = False,
) -> AsyncIterator[Bench]:
    """A running sender. *chats* are destinations and their chats."""
    clock = clock or FakeClock()
    line = Line(clock)
    outbox = Outbox(folder / "outbox.db", clock=clock)
    outbox.open()
    chats = chats or {"team": "-1001"}
    sender = Sender(
        outbox,
        line,  # type: ignore[arg-type]
        destinations={n: c if isinstance(c, Destination) else Destination(chat_id=c) for n, c in chats.items()},
        clock=clock,
        pace=Pace(enabled=paced),
        links=Links(),
        metrics=Metrics(lambda: Standing(accepted=0, queue={}, oldest=0, holds={}, operator={})),
        max_age=max_age,
        roll=roll,
    )
    running = asyncio.create_task(sender.run())
    keeping = (
        [asyncio.create_task(keep(outbox, clock=clock, retention=7 * 86400, destination="team", beat=sender.poke))]
        if housekeeping
        else []
    )
    made = Bench(clock=clock, line=line, outbox=outbox, sender=sender, running=running)
    try:
        await made.settle()
        yield made
    finally:
        await sender.stop(grace=0)
        for task in keeping:
            task.cancel()
        await asyncio.wait({running, *keeping}, timeout=2)
        running.cancel()
        await asyncio.gather(running, *keeping, return_exceptions=True)
        await outbox.close()
