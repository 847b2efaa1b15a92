"""The outbox's one thread, one connection and one lock, with group commit. Refuses a second process on the file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import math
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import structlog

from .clock import Clock
from .errors import NotOurDatabase, OutboxUnavailable, Taken
from .journal import Journal, Told
from .models import Delivery, new_id
from .outbox import Accepted, Arrival, Died, Store, Tally
from .rescue import SUFFIXES, beside, is_emptied, put_in_place, rescue
from .schema import Damaged, demand_ours, open_database

T = TypeVar("T")
log = structlog.get_logger()

MAX_BATCH = 512
GATHER = 0.003  # seconds at most in which the loop may bring more before the thread is woken
COMPANY = 0.01  # seconds that a mark in the journal may wait for another's commit
FREE_DISK = 64 * 1024 * 1024
LOOKS = 0.1  # seconds between looks at how much disk is free
ONE_DAY = 86400.0
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SAID = ("JSON", "decode to UTF-8", "no such ", "has no column", "unsupported file format")  # of rows, of the schema

_Answer = Callable[[Any, BaseException | None], None]  # called on the loop: what came of it, or why nothing did
_Outcome = tuple[_Answer, Any, BaseException | None]
Claims = tuple[list[Delivery], list[Died]]
_Verb = Callable[[Store, Sequence[Any]], Sequence[Any]]


@attrs.define(eq=False)  # not frozen, which would take twice as long to make
class _Item:
    """Work for the thread. All of a batch that name the same verb are done in one call of it, but for those alone."""

    verb: _Verb
    argument: Any
    answer: _Answer


def _answer(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if not future.done():
        future.set_result(result) if error is None else future.set_exception(error)


def _alone(store: Store, runs: Sequence[Callable[[Store], Any]]) -> list[Any]:
    return [run(store) for run in runs]


@attrs.define(eq=False)
class Place:
    """The sender's claim that waits until there is something to claim; served with the very commit that accepts it."""

    take: Callable[[Claims], None]  # called once, on the loop, with what was claimed
    run: Callable[[Store], Claims] | None = None
    served: bool = False


class Lock:
    """The file beside the database that says who has it."""

    def __init__(self, database: Path) -> None:
        path = beside(database, ".lock")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(self._fd, 20).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise Taken(
                f"{database} is in use by process {holder}; two relays must not share an outbox. "
                "Stop the other one, or give this one its own RELAY_DATABASE."
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._fd)


class Outbox:
    """What the two sides of the relay know of each other. ``await outbox.do(f)`` returns once f's work is on disk."""

    def __init__(self, path: Path, *, clock: Clock | None = None, max_pending: int | None = None) -> None:
        self.path = path
        self.clock = clock or Clock()
        self.fault: str | None = None  # why nothing can be written
        self.tally = Tally(0, 0, 0, 0, 0, 0)
        self.oldest: float | None = None  # when the oldest that is owed was born
        self.damaged: str | None = None  # where a damaged predecessor was set aside
        self._max_pending = max_pending
        self._base = 0.0
        self._queue: queue.SimpleQueue[list[_Item] | None] = queue.SimpleQueue()
        self._waiting: list[_Item] = []  # for the thread, at the end of this turn of the loop
        self._standing: Place | None = None
        self._unclaimed = True  # whether something may be there to claim that no claim was tried for
        self._thread: threading.Thread | None = None
        self._newest = 0  # the last id
        self._own = int(new_id()[:2], 16)  # in each of them, should the clock come by here in another process again
        self._soon = False  # whether what waits goes to the thread at the end of this turn
        self._later: asyncio.TimerHandle | None = None  # when else
        self._low: str | None = None
        self._looked = float("-inf")  # when the disk was looked at
        self._asked: set[_Answer] = set()  # whom the thread owes an answer

    # --- the loop's side ---

    def open(self) -> None:
        """Take the lock, open or make the file, recover. Raises Taken, NotOurDatabase, OSError, sqlite3.Error."""
        self._loop = asyncio.get_running_loop()
        self.dead: asyncio.Future[None] = self._loop.create_future()
        self._base = self.clock.wall() - self.clock.monotonic()
        with contextlib.suppress(Damaged):
            demand_ours(self.path)
        lock = beside(self.path, ".lock")
        known = lock.exists()
        self._lock = Lock(self.path)
        try:
            self.damaged = put_in_place(self.path, wall=self.clock.wall())
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._store = self._open(known)
            self.journal = Journal(beside(self.path, ".told"))
            self._recover()
            for suffix in SUFFIXES:  # ours, as is known only now; the file may have been there before
                with contextlib.suppress(FileNotFoundError):
                    beside(self.path, suffix).chmod(0o600)
        except BaseException:
            if not known:  # the lock says that the file is ours, and it may not be
                lock.unlink()
            self._lock.release()
            raise
        self._thread = threading.Thread(target=self._serve, name="outbox", daemon=True)
        self._thread.start()

    def now(self) -> float:
        """The outbox's clock: goes with the monotonic one; across a restart with the wall's, one day at most."""
        return self._base + self.clock.monotonic()

    def new_id(self) -> str:
        """A public id for a delivery. They grow, so that their index is written at its end, however large it is."""
        self._newest = max(self._newest + 1, int(self.clock.wall() * 1e6) << 8 | self._own)
        return f"{self._newest:016x}"

    async def do(self, run: Callable[[Store], T]) -> T:
        """Run *run* on the store; returns after its commit. Raises OutboxUnavailable when it is not on disk."""
        result: T = await self._ask(_alone, run)
        return result

    async def enqueue(self, arrival: Arrival) -> Accepted:
        """:meth:`Store.enqueue`, with all others that come at the same moment."""
        accepted: Accepted = await self._ask(Store.enqueue_all, arrival)
        return accepted

    def told(self, told: Told, marked: Callable[[None, BaseException | None], None]) -> None:
        """:meth:`Store.told_all` of what the journal has; with another's commit where nobody waits behind it."""
        self._hand_over(_Item(Store.told_all, told, marked), lazy=not self.tally.pending)

    def _ask(self, verb: _Verb, argument: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        self._hand_over(_Item(verb, argument, functools.partial(_answer, future)))
        return future

    def _hand_over(self, item: _Item, *, lazy: bool = False) -> None:
        """What comes in one turn of the loop goes to the thread together: a commit for each would be dear."""
        if self.dead.done():
            item.answer(None, OutboxUnavailable("the outbox's thread has died"))
            return
        self._asked.add(item.answer)
        self._waiting.append(item)
        if not lazy and not self._soon:
            self._soon = True
            self._loop.call_soon(self._gather, 0, self._loop.time() + GATHER)
        elif lazy and self._later is None:
            self._later = self._loop.call_later(COMPANY, self._put)

    def park(self, place: Place, run: Callable[[Store], Claims] | None, *, try_it: bool = False) -> None:
        """(Re)place what the standing claim claims, or with None take it back.

        It is tried with what comes next; at once where *try_it*, or where something came while no claim stood.
        """
        place.run, self._standing = run, place
        if run is not None and (try_it or self._unclaimed):  # the thread does it in the other order: none is missed
            self._put()

    def _gather(self, before: int, until: float) -> None:
        """Hand over once a turn of the loop brings no more."""
        if len(self._waiting) > before and self._loop.time() < until:
            self._loop.call_soon(self._gather, len(self._waiting), until)
        else:
            self._put()

    def _put(self) -> None:
        self._soon = False
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._queue.put(self._waiting)
        self._waiting = []

    def _resolve(self, outcomes: list[_Outcome]) -> None:
        self._asked.difference_update([outcome[0] for outcome in outcomes])
        for answer, result, error in outcomes:
            answer(result, error)

    def refusal(self) -> str | None:
        """Why nothing can be accepted right now, or None."""
        if self.fault is not None:
            return self.fault
        if self._low is not None:
            return self._low
        if self.tally.pending >= self._store.max_pending:
            return "the queue is full"
        return None

    async def close(self) -> None:
        """Finish what was handed in, then close the file."""
        if self._thread is not None:
            self._put()
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._store.db.close()
            self.journal.close()
            self._lock.release()
            self._thread = None

    # --- the thread's side ---

    def _open(self, known: bool) -> Store:
        try:
            if known and is_emptied(self.path):
                raise Damaged("the file is empty, and its log is not")
            store = self._store_on(open_database(self.path))
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not _is_damage(error):
                raise
            if not (known or self.path.suffix in (".db", ".sqlite", ".sqlite3")):
                raise NotOurDatabase(
                    f"RELAY_DATABASE: {self.path} is not a database; name a file that is ours or does not exist yet"
                ) from None
            store = self._replace(error)
        self._anchor(store)
        return store

    def _recover(self) -> None:
        try:
            self._store.recover(now=self.now(), told=self.journal.read())
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            if not _is_damage(error):
                raise
            self._store.db.close()
            self._store = self._replace(error)
            self._store.recover(now=self.now(), told=self.journal.read())
        self.journal.clear()
        self.tally = self._store.tally()

    def _store_on(self, db: sqlite3.Connection) -> Store:
        store = Store(db, **({} if self._max_pending is None else {"max_pending": self._max_pending}))
        store.wall = self.clock.wall
        return store

    def _replace(self, error: Exception) -> Store:
        """Go on with what can still be read of a damaged file."""
        rescued, last = rescue(self.path, now=self.now(), wall=self.clock.wall())
        self.damaged = put_in_place(self.path, wall=self.clock.wall())
        log.critical("outbox.damaged", set_aside=self.damaged, error=_words(error), rescued=rescued)
        store = self._store_on(open_database(self.path))
        store.last = last
        return store

    def _anchor(self, store: Store) -> None:
        """Continue the outbox's clock where the last process left it."""
        wall, (then, at) = self.clock.wall(), store.lived()
        start = wall if then is None or at is None else at + min(max(wall - then, 0.0), ONE_DAY)
        self._base = start - self.clock.monotonic()

    def _serve(self) -> None:
        try:
            while self._batch():
                pass
        except BaseException as error:
            log.critical("outbox.died", error=repr(error))
            self._loop.call_soon_threadsafe(self._bury, error)

    def _bury(self, error: BaseException) -> None:
        """The thread has died, and with it the process will; nobody is to wait for it."""
        self.dead.set_exception(error)
        words = "the outbox's thread has died"
        self._resolve([(answer, None, OutboxUnavailable(words)) for answer in self._asked])

    def _batch(self) -> bool:
        """Everything that waits, in one transaction and one sync. False once it is to end."""
        items: list[_Item] = []
        entries = self._queue.get()
        with contextlib.suppress(queue.Empty):
            while entries is not None:
                items += entries
                if len(items) >= MAX_BATCH:
                    break
                entries = self._queue.get_nowait()
        if items or self._claim()[1] is not None:
            self._transact(items)
        return entries is not None

    def _claim(self) -> tuple[Place | None, Callable[[Store], Claims] | None]:
        """The claim that stands and may be served; the loop may put another in its place at any moment."""
        self._unclaimed = True
        place = self._standing
        run = None if place is None or place.served else place.run
        self._unclaimed = run is None
        return place, run

    def _transact(self, items: list[_Item]) -> None:
        outcomes: list[_Outcome] = []
        claims: Claims | None = None
        db, place = self._store.db, None
        try:
            changes = db.total_changes
            if not 0 <= self.clock.monotonic() - self._looked < LOOKS:
                self._looked, self._low = self.clock.monotonic(), disk_is_low(self.path.parent)
            self._store.full = self._low
            db.execute("BEGIN IMMEDIATE")
            outcomes = self._all(items)
            place, run = self._claim()
            if run is not None:
                claims = run(self._store)
            if changed := db.total_changes != changes:
                tally, oldest = self._store.live(wall=self.clock.wall(), at=self.now())
            db.execute("COMMIT")
            if changed:
                self.tally, self.oldest = tally, oldest
                if self.fault is not None:
                    log.info("outbox.recovered", after=self.fault)
                    self.fault = None
        except (sqlite3.Error, UnicodeDecodeError) as error:
            self._give_up(error)
            self._unclaimed = True
            words = f"the outbox cannot be written: {_words(error)}"
            outcomes = [(item.answer, None, OutboxUnavailable(words)) for item in items]
            claims = None
        if place is not None and claims is not None and any(claims):
            place.served = True
            take = place.take
            outcomes.append((lambda claims, _: take(claims), claims, None))
        if outcomes:
            self._loop.call_soon_threadsafe(self._resolve, outcomes)

    def _all(self, items: list[_Item]) -> list[_Outcome]:
        """The work of every item. If it fails, all is done again, each apart: what is wrong with one harms no other."""
        groups: dict[Any, list[_Item]] = {}
        for item in items:
            groups.setdefault(item if item.verb is _alone else item.verb, []).append(item)
        outcomes: list[_Outcome] = []
        try:
            for group in groups.values():
                results = group[0].verb(self._store, [item.argument for item in group])
                outcomes += [(item.answer, result, None) for item, result in zip(group, results, strict=True)]
        except Exception:  # whatever it was, it comes again for the one that it belongs to
            self._store.undo()
            self._store.db.execute("BEGIN IMMEDIATE")
            outcomes = [self._apart(item) for item in items]
        return outcomes

    def _apart(self, item: _Item) -> _Outcome:
        db = self._store.db
        db.execute("SAVEPOINT item")
        result, failed = None, None
        try:
            (result,) = item.verb(self._store, [item.argument])
        except Exception as error:
            foreign = isinstance(error, sqlite3.DatabaseError) and _is_damage(error)
            if isinstance(error, sqlite3.OperationalError) or foreign or not db.in_transaction:
                raise  # it is not this item's own
            failed = error
            self._store.undo("TO item")
        db.execute("RELEASE item")
        return item.answer, result, failed

    def _give_up(self, error: Exception) -> None:
        self._store.undo()
        if _is_damage(error):
            self._store.db.close()
            self._store = self._replace(error)
            return
        if self.fault is None:
            log.error("outbox.unwritable", error=_words(error))
        self.fault = f"the outbox cannot be written: {_words(error)}"


def disk_is_low(folder: Path) -> str | None:
    """In words, where too little is free to mark what was told. On a very small disk a tenth of it has to do."""
    disk = os.statvfs(folder)
    needed = min(FREE_DISK, disk.f_blocks * disk.f_frsize // 10)
    low = disk.f_bavail * disk.f_frsize < needed
    return f"less than {math.ceil(needed / 2**20)} MiB of disk are free" if low else None


def _is_damage(error: Exception) -> bool:
    """Whether the file is not as we wrote it: SQLite sees it in pages, its JSON functions and Python in our rows."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    said = isinstance(error, sqlite3.DatabaseError) and any(words in str(error) for words in _SAID)
    return code in _DAMAGED or said or isinstance(error, UnicodeDecodeError)


def _words(error: Exception) -> str:
    """SQLite's own, but for those that quote a row."""
    return "a text in it is no UTF-8" if "UTF-8" in str(error) or isinstance(error, UnicodeDecodeError) else str(error)
