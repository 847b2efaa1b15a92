"""The task that empties the outbox: claims, sends, settles. Refuses to lose a delivery, or to send one too early."""

from __future__ import annotations

import asyncio
import functools
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_never

import attrs
import structlog

from .clock import Clock
from .errors import OutboxUnavailable
from .holds import BOT, Hold, Holds
from .journal import Told
from .metrics import Metrics
from .models import (
    Ambiguous,
    Dead,
    Delivery,
    Fix,
    Moved,
    Notice,
    Operator,
    Outcome,
    Rank,
    Repair,
    Retry,
    Sent,
    WaitBot,
    WaitChat,
)
from .outbox import Store
from .pacing import Pace, backoff
from .render import Links, render
from .telegram import SEND_TIMEOUT, Answer, Telegram, classify, message
from .waiters import Waiters
from .writer import Claims, Outbox, Place

log = structlog.get_logger()

MAX_IN_FLIGHT = 16
STREAK = 3  # failures in a row, on different deliveries, that hold the bot
OPERATOR_PROBE = 25.0  # seconds between looks at whether the operator has mended it
PROBE_TIMEOUT = 5.0
LOST_PAUSE = 5.0  # seconds after an answer that was lost: three tries outlast a moment in which Telegram drops all
FAIR_AGE = 480.0  # what has waited so long has every fourth turn, whatever its severity
FAIR_TURN = 4
MAX_REPAIRS = 6
KEEP_HELD = 10.0  # seconds of a hold that a crash may forget


@attrs.frozen(kw_only=True)
class Destination:
    """A chat, and the topic in it."""

    chat_id: str
    thread_id: int | None = None


class Sender:
    """Everything that leaves for Telegram leaves here."""

    def __init__(
        self,
        outbox: Outbox,
        telegram: Telegram,
        *,
        destinations: Mapping[str, Destination],
        clock: Clock,
        pace: Pace,
        links: Links,
        metrics: Metrics,
        max_age: float,
        roll: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._telegram = telegram
        self._destinations = destinations
        self._clock = clock
        self._pace = pace
        self._links = links
        self._metrics = metrics
        self._max_age = max_age
        self._roll = roll
        self._moves: dict[str, str] = {}
        self._chats = {name: destination.chat_id for name, destination in destinations.items()}
        self.holds = Holds(chats=self._chats, changed=self._held_otherwise)
        self._in_flight: dict[asyncio.Task[None], str] = {}
        self.waiters = Waiters(outbox.now)
        self._streak: set[str] = set()  # deliveries that failed since the last success
        self._failed = ""  # what was said of the last of them
        self._outage = 0  # probes and holds since the last success: how far probing has backed off
        self._dues: list[float] = []
        self._place = Place(self._take)
        self._claims = 0
        self._parked = 0  # how many the claim that stands may take
        self._try = True  # whether there may be something to claim already
        self._left: list[Delivery] = []  # claimed and never begun, for it is stopping
        self._coming = Counter[str]()  # by chat, those that were begun and that the pace does not know of yet
        self._connected: asyncio.Event | None = None  # whether what was begun last has its connection
        self._kept = 0.0  # when the seconds held were last put on disk
        self._keeping: asyncio.Task[None] | None = None
        self.turns = 0  # of the task: the watchdog sees by it that it lives
        self._changed = asyncio.Event()
        self._stopping = False
        self._error: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self.warning: str | None = None  # something the operator should mend although messages go out

    # --- what requests ask ---

    def delay(self, destination: str, *, ahead: int = 0) -> float:
        """Seconds until a delivery with *ahead* others before it may be sent; infinite while held without an end."""
        now, chat = self._outbox.now(), self.chat_of(destination)
        return max(self.holds.wait(chat, now), self._pace.earliest(chat, now, ahead) - now)

    def dare(self, destination: str) -> None:
        """Let one delivery try whether the operator has mended what holds this destination."""
        self.holds.dare(self.chat_of(destination))

    def trouble(self) -> str | None:
        """Why Telegram is not taking messages, or what the operator should mend; None when all is well."""
        failing = f"Telegram is not taking messages: {self._failed}" if self._streak else None
        return self.holds.trouble(self._outbox.now()) or failing or self.warning

    def chat_of(self, destination: str) -> str:
        """The chat id behind a destination's name, followed through its moves."""
        return self._chats[destination]

    def _move(self, moves: Mapping[str, str]) -> None:
        self._moves.update(moves)
        for name, destination in self._destinations.items():
            chat = destination.chat_id
            for _ in range(10):
                chat = self._moves.get(chat, chat)
            self._chats[name] = chat

    # --- the task ---

    async def run(self) -> None:
        """Send until :meth:`stop`. Never returns by itself; a failure of its own ends the process."""
        await self._remember()
        timer: asyncio.Task[None] | None = None
        while not self._stopping:
            self.turns += 1
            permits, wait = self._permits()
            self._parked = sum(permits.values())
            self._outbox.park(self._place, self._claim(permits), try_it=self._try)
            self._try = self._try and not permits
            timer = None if wait is None else self._spawn(self._clock.sleep(wait))
            if timer is not None:
                timer.add_done_callback(self._nudge)
            await self._changed.wait()
            self._changed.clear()
            if timer is not None:
                timer.cancel()
            if self._error is not None:
                raise self._error
        self._outbox.park(self._place, None)
        await self._mark(lambda store: None)  # the thread has heard it by now
        for delivery in self._left:
            await self._release(delivery)

    def _take(self, claims: Claims) -> None:
        """Begin what was claimed."""
        claimed, died = claims
        self._place = Place(self._take)
        self._claims += 1
        self._try = self._try or self._outbox.tally.pending > 0  # more than it could take, it may be
        for delivery in claimed:
            self._begin(delivery)
        for dead in died:
            self._died(dead.id, rank=dead.rank, reason=dead.reason)
        self._changed.set()

    async def stop(self, *, grace: float) -> None:
        """Claim no more; give the sends in flight *grace* seconds; requests that wait are answered as it stands."""
        self._stopping = True
        self._changed.set()
        if self._in_flight:
            await asyncio.wait(set(self._in_flight), timeout=grace)
        for task in (*self._in_flight, *self._tasks):
            task.cancel()
        await asyncio.gather(*self._in_flight, *self._tasks, return_exceptions=True)

    def poke(self) -> None:
        """Have a turn, for something may be different, and if only to show that it can."""
        self._try = True
        self._changed.set()

    async def _remember(self) -> None:
        """Holds that outlive a restart, moves, and what was told in the last minute."""
        now = self._outbox.now()
        found = await self._mark(
            lambda store: (
                store.holds(now=now),
                store.held(),
                store.fact("held_at"),
                store.moves(),
                store.recently_told(since=now - 61, now=now),
            )
        )
        if found is None:
            return  # it is stopping already
        holds, held, held_at, moves, told = found
        self._move(moves)
        self._kept = now
        self.holds.remember(holds, held, since=now if held_at is None else held_at, now=now)
        for chat, at in told:
            self._pace.note(self._chats.get(chat, chat), at)

    def _permits(self) -> tuple[dict[str, int], float | None]:
        """How many may be claimed now for each destination, and in how many seconds that changes by itself."""
        now = self._outbox.now()
        self.holds.count(now)
        self.holds.end(now)
        if self.holds and now - self._kept >= KEEP_HELD:
            self._keep_held()
        moments = list(self.holds.ends())
        self._dues = [due for due in self._dues if due > now]
        moments += self._dues
        permits: dict[str, int] = {}
        for name in self._destinations:
            chat = self.chat_of(name)
            slots = MAX_IN_FLIGHT - len(self._in_flight)
            if self.holds.on(chat):
                slots = 0 if self.holds.bar(chat) or name in self._in_flight.values() else 1
            if self._outage:  # Telegram was away and has not proved itself yet
                slots = min(slots, 1 - len(self._in_flight))
            count = 0
            while count < slots:
                earliest = self._pace.earliest(chat, now, count + self._coming[chat])
                if earliest > now:
                    moments.append(earliest)
                    break
                count += 1
            if count:
                permits[name] = count
        wait = min(moments) - now if moments else None
        return permits, None if wait is None else max(wait, 0.001)

    def _claim(self, permits: Mapping[str, int]) -> Callable[[Store], Claims] | None:
        if not permits:
            return None
        fair = FAIR_AGE if self._claims % FAIR_TURN == FAIR_TURN - 1 else None
        max_age, held = self._max_age, dict(self.holds.seconds)

        def claim(store: Store) -> Claims:
            return store.claim(permits, now=self._outbox.now(), max_age=max_age, fair=fair, held=held)

        return claim

    def _begin(self, delivery: Delivery) -> None:
        """Start a send, unless it may not be made any more."""
        if self._stopping:
            self._left.append(delivery)
        else:
            before, self._connected = self._connected, asyncio.Event()
            chat = self.chat_of(delivery.destination)
            self._coming[chat] += 1
            task = asyncio.create_task(self._deliver(delivery, chat, before, self._connected))
            self._in_flight[task] = delivery.destination
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        del self._in_flight[task]
        free = MAX_IN_FLIGHT - len(self._in_flight)
        if free >= 2 * self._parked or self._dues or self.holds or self._outage:
            self._changed.set()  # else the claim that stands will do for now
        self._check(task)

    async def _release(self, delivery: Delivery) -> None:
        test = delivery.rank == Rank.TEST  # which is not told later
        self.poke()
        await self._mark(lambda store: store.withdraw(delivery.seq) if test else store.release(delivery.seq))

    async def _deliver(
        self, delivery: Delivery, chat: str, before: asyncio.Event | None, connected: asyncio.Event
    ) -> None:
        try:
            try:
                if before is not None:  # so that sends arrive in the order they were claimed in
                    await before.wait()
            finally:
                self._coming[chat] -= 1
            started = self._clock.monotonic()
            outcome, chat = await self._attempt(delivery, connected)
        except asyncio.CancelledError:
            if not connected.is_set():  # nothing left us: it is no repeat when it is told
                await self._release(delivery)
            raise
        finally:
            connected.set()
        if outcome is None:
            await self._release(delivery)
        else:
            await self._settle(delivery, outcome, chat, self._clock.monotonic() - started)

    async def _attempt(self, delivery: Delivery, connected: asyncio.Event) -> tuple[Outcome | None, str]:
        """One try, mended on the spot as often as Telegram asks; None where it may not be made yet, or mended.

        And the chat that it was made in, for another try may find that the group has moved.
        """
        destination = self._destinations[delivery.destination]
        fixes: set[Fix] = set()
        test = delivery.rank == Rank.TEST
        for tries in range(MAX_REPAIRS):
            chat = self.chat_of(delivery.destination)
            while (wait := self._pace.earliest(chat, now := self._outbox.now()) - now) > 0:
                if not tries:  # it waited for others to be on the wire, and is claimed again when it may go
                    return None, chat
                await self._clock.sleep(wait)
                chat = self.chat_of(delivery.destination)
            if self.holds.bar(chat):
                return None, chat
            replies = delivery.reply_to is not None and delivery.reply_to[0] == chat
            try:
                html = render(
                    delivery.content,
                    links=self._links,
                    late=0.0 if test else self._outbox.now() - delivery.born,
                    repeat=delivery.ambiguous > 0,
                    shorter=Fix.SHORTER in fixes,
                )
            except Exception:  # a bug of ours: those behind it are told all the same
                log.exception("delivery.unrenderable", delivery=delivery.id)
                return Dead("it could not be rendered; please report this"), chat
            body = message(
                html,
                chat_id=chat,
                thread_id=destination.thread_id,
                silent=isinstance(delivery.content, Notice) and delivery.content.silent,
                reply_to=delivery.reply_to[1] if delivery.reply_to and replies else None,
                without=frozenset(fixes),
            )
            self._pace.note(chat, self._outbox.now())
            started = self._clock.monotonic()
            answer = await self._telegram.call("sendMessage", body, timeout=SEND_TIMEOUT, connected=connected)
            outcome = classify(answer)
            took = self._clock.monotonic() - started
            self._metrics.attempted(outcome.label, seconds=took)
            log.info(
                "delivery.attempted",
                delivery=delivery.id,
                attempt=delivery.attempt,
                outcome=outcome.label,
                seconds=round(took, 3),
                **_facts(outcome),
            )
            match outcome:
                case Moved(new):
                    if str(new) == chat:
                        return Dead("Telegram moves the chat in a circle"), chat
                    await self._follow(chat, str(new))
                case Repair(fix, reason):
                    if fix in fixes:
                        return Dead(reason), chat
                    fixes.add(fix)
                    if fix is Fix.NO_THREAD:
                        self.warning = "TELEGRAM_THREAD_ID: the topic is gone or closed; told without it"
                    log.warning("delivery.repaired", delivery=delivery.id, fix=fix, reason=reason)
                case _:
                    if isinstance(outcome, Sent) and "message_thread_id" in body:
                        self.warning = None
                    return outcome, chat
        return Dead("still refused after every repair"), chat

    async def _follow(self, old: str, new: str) -> None:
        log.warning("chat.moved", old=old, new=new, do="set TELEGRAM_CHAT_ID to the new id")
        self._move({old: new})
        if old in self.holds:
            self.holds.lift(old, now=self._outbox.now())
        await self._mark(lambda store: store.move(old, new))

    async def _settle(self, delivery: Delivery, outcome: Outcome, sent_to: str, took: float) -> None:
        now, seq = self._outbox.now(), delivery.seq
        chat = self.chat_of(delivery.destination)
        test = delivery.rank == Rank.TEST
        if test and not isinstance(outcome, Sent):
            self.waiters.finish(delivery.id, outcome)  # before a hold sends everyone away who waits
            await self._mark(lambda store: store.withdraw(seq))  # and what follows settles nothing
        match outcome:
            case Sent(message_id):
                self._well(sent_to)
                self._metrics.delivered("sent", rank=delivery.rank, now=self._clock.wall())
                told = Told(seq, now, sent_to, message_id)
                # Whoever has a 200 will not see the message again after a crash.
                if self._outbox.journal.note(told):
                    self._outbox.told(told, functools.partial(self._marked, told))
                else:
                    try:
                        await self._outbox.do(lambda store: store.told_all([told]))
                    except OutboxUnavailable as error:
                        self._marked(told, None, error)
                self.waiters.finish(delivery.id, outcome)
            case Dead(reason):
                if not test:
                    await self._mark(lambda store: store.bury(seq, now=now, reason=reason))
                    self._died(delivery.id, rank=delivery.rank, reason=reason)
            case Repair() | Moved():
                raise AssertionError("an attempt ends with neither")
            case WaitChat() | WaitBot():
                bot = isinstance(outcome, WaitBot) or self.holds.waited_for_another(chat)
                await self._wait(BOT if bot else chat, outcome)
                await self._again(delivery, due=0.0, reason=outcome.reason)
            case Operator(scope, reason):
                self._hold(BOT if scope == "bot" else chat, Hold(reason=reason, since=now, operator=True))
                await self._again(delivery, due=0.0, reason=reason)
            case Retry() if test:
                pass  # nothing behind it would ever prove that Telegram is well again
            case Retry(reason):
                due = now + backoff(delivery.attempt, self._roll)
                self._dues.append(due)
                self._streak.add(delivery.id)
                self._failed = reason
                if len(self._streak) >= STREAK:
                    self._hold(BOT, Hold(reason=reason, since=now))
                else:
                    self.waiters.release(due, only=delivery.id)
                await self._again(delivery, due=due, reason=reason)
            case Ambiguous(reason):
                self._hold(BOT, Hold(reason=reason, since=now, pause=LOST_PAUSE, spent=took))
                if await self._mark(lambda store: store.again(seq, due=0.0, now=now, reason=reason, ambiguous=True)):
                    self._died(delivery.id, rank=delivery.rank, reason=f"maybe told: {reason}")
            case _:
                assert_never(outcome)

    async def _again(self, delivery: Delivery, *, due: float, reason: str) -> None:
        now = self._outbox.now()
        await self._mark(lambda store: store.again(delivery.seq, due=due, now=now, reason=reason))

    def _died(self, id: str, *, rank: int, reason: str) -> None:
        self._metrics.delivered("dead", rank=rank, now=self._clock.wall())
        log.error("delivery.died", delivery=id, reason=reason, do=f"chatwoot-relay outbox show {id}")
        self.waiters.finish(id, Dead(reason))

    async def _mark(self, mark: Callable[[Store], Any]) -> Any:
        """Put on disk what happened. Retried until it is there: the mark, never the send."""
        while True:
            try:
                return await self._outbox.do(mark)
            except OutboxUnavailable:
                if self._stopping:
                    return None  # what was told is in the journal, what was not is repeated, marked
                await self._clock.sleep(1.0)

    def _marked(self, told: Told, _: None, error: BaseException | None) -> None:
        if error is not None:
            self._spawn(self._mark_late(told))
        else:
            self._outbox.journal.forget(told.seq)

    async def _mark_late(self, told: Told) -> None:
        if await self._mark(lambda store: store.told_all([told])) is not None:  # else it is stopping, and noted still
            self._outbox.journal.forget(told.seq)

    # --- holds ---

    def _hold(self, key: str, hold: Hold) -> float | None:
        """Until when it is held now; requests need not wait for it, and a probe ends it where nothing else does."""
        fresh = self.holds.begin(key, hold, now=self._outbox.now())
        self.waiters.release(float("inf") if hold.until is None else hold.until)
        if hold.until is None and fresh:
            self._spawn(self._probe(key, hold.since))
        return hold.until

    async def _wait(self, key: str, outcome: WaitChat | WaitBot) -> None:
        """Hold it for as long as Telegram asks, a restart or not."""
        now, reason = self._outbox.now(), outcome.reason
        until = now + outcome.seconds + 0.5 * self._roll()
        until = self._hold(key, Hold(reason=reason, since=now, until=until)) or until
        await self._mark(lambda store: store.hold(key, until=until, reason=reason))

    async def _probe(self, key: str, since: float) -> None:
        """Ask, gently, until Telegram answers again or the operator has mended it; asking is no attempt."""
        while (hold := self.holds.probed(key, since)) is not None:
            self._outage += key == BOT
            wait = max(hold.pause, backoff(self._outage, self._roll) - hold.spent)
            hold.pause, hold.spent = 0.5, 0.0
            await self._clock.sleep(OPERATOR_PROBE if hold.operator else wait)
            if key == BOT:
                result = await self._telegram.call("getMe", timeout=PROBE_TIMEOUT)
            else:
                result = await self._telegram.call("getChat", {"chat_id": key}, timeout=PROBE_TIMEOUT)
            hold = self.holds.probed(key, since)
            if hold is None:
                return
            outcome = classify(result)
            if isinstance(outcome, WaitChat | WaitBot):  # the send after it shows what else is the matter
                await self._wait(key, outcome)
                return
            well = isinstance(result, Answer) and result.status == 200
            if key != BOT:
                # Only a send proves that the bot may write there; without one waiting, being seen is enough.
                hold.trial = well or not isinstance(outcome, Operator | Retry | Ambiguous)
                if well and not self._outbox.tally.pending:
                    self.holds.lift(key, now=self._outbox.now())
            elif well:
                self._streak.clear()  # those that fail by themselves must not hold the bot again at once
                self.holds.lift(key, now=self._outbox.now())
            elif isinstance(outcome, Operator) and not hold.operator:
                self._hold(BOT, Hold(reason=outcome.reason, since=hold.since, operator=True))
            self.poke()

    def _well(self, chat: str) -> None:
        """A send succeeded: nothing is the matter any longer."""
        self._streak.clear()
        self._outage = 0
        self.holds.well(chat, now=self._outbox.now())

    def _held_otherwise(self) -> None:
        self._keep_held()
        self.poke()

    def _keep_held(self) -> None:
        self._kept = self._outbox.now()
        if self._keeping is None or self._keeping.done():
            self._keeping = self._spawn(  # the time first: what is counted meanwhile is counted again, never lost
                self._mark(lambda store: store.were_held(now=self.holds.counted, seconds=dict(self.holds.seconds)))
            )

    # --- small things ---

    def _nudge(self, done: asyncio.Future[Any]) -> None:
        if not done.cancelled():  # a turn cancels its timer: were that a reason for a turn, there would be no end
            self.poke()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._check)
        return task

    def _check(self, task: asyncio.Task[Any]) -> None:
        """A task that failed for a reason of ours ends the sender, and with it the process: never silently missing."""
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()
            self._changed.set()


def _facts(outcome: Outcome) -> dict[str, Any]:
    """What a log line says of an outcome, beside its label."""
    facts = {name: getattr(outcome, name, None) for name in ("reason", "message_id", "scope")}
    return {name: fact for name, fact in facts.items() if fact is not None}
