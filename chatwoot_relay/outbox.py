"""The outbox's SQL: durable deliveries, their order, what is remembered. Synchronous; knows no threads, no clocks.

Every function runs inside a transaction that its caller commits. Times are seconds on the outbox's own clock, which
runs with the monotonic one and never jumps; ``accepted_at`` alone is the wall clock's, for people.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from .errors import OutboxUnavailable
from .events import Decision, Memory
from .events import Ignored as Reason
from .journal import Told
from .models import Content, Delivery, rank_of
from .schema import RANKS, Damaged, pack, recall, unpack

MAX_PENDING = 100_000
MAX_AMBIGUOUS = 3
DEAD_KEPT = 90 * 86400.0
REPLAYS_KEPT = 900.0  # longer than a signature is good for, both ways
MEMORY_KEPT = 90 * 86400.0
MAX_MEMORIES = 200_000
HISTORY_KEPT = 20
SPARE_PAGES = 1024  # of 4 KiB, kept for the next rows
STEP = 200  # rows that housekeeping takes at a time, so that nobody waits for it
TEST_KEPT = 5.0  # seconds after which whoever asked for a test has been told that it was not sent
TOGETHER = 32  # rows that one statement puts in
RECENT = 64  # contents that are claimed as they came, without reading them again


@attrs.frozen(kw_only=True)
class Accepted:
    """What became of something handed in. *fresh* is False for the repeat of one that is known."""

    id: str
    state: str = "pending"
    message_id: int | None = None
    reason: str | None = None
    fresh: bool = True


@attrs.define  # not frozen, which would take twice as long to make
class Arrival:
    """What is owed from now on, and to whom."""

    content: Content
    id: str
    destination: str
    conversation: str
    now: float
    memory: str | None = None
    rank: int | None = None  # where it is another than the content's own


@attrs.frozen
class Ignored:
    """An event that raises nothing, with its reason."""

    reason: str


@attrs.frozen
class Conflict:
    """An idempotency key that was used before with another body."""


@attrs.frozen
class Died:
    """What became too old, or unreadable, before it could be told."""

    id: str
    rank: int
    reason: str


@attrs.frozen
class Tally:
    """Where everything that was accepted is."""

    accepted: int
    pending: int
    sending: int
    sent: int
    dead: int
    expired: int


_WHERE = {  # constants, for only so are the partial indexes used
    None: "",
    "pending": "WHERE settled IS NULL",
    "sent": "WHERE state = 'sent'",
    "dead": "WHERE state = 'dead'",
}


# Each step of a statement gives up the interpreter's lock and has to win it back from the loop's thread: whatever is
# done for every delivery is one step for all of a batch.
@functools.cache
def _arrive(count: int) -> str:
    columns = (
        "seq", "id", "destination", "conversation", "memory", "rank", "turn", "content", "accepted_at", "born", "since",
        "held",
    )  # fmt: skip
    values = ", ".join([f"({', '.join('?' * len(columns))})"] * count)
    return (
        f"INSERT INTO deliveries (state, {', '.join(columns)})"
        f" SELECT 'pending', * FROM (VALUES {values}) WHERE (SELECT pending FROM tally) + {count} <= ?"
    )


_READY = "d.destination = {} AND d.due = 0 AND d.turn IS NOT NULL"
_HEADS = f"""\
SELECT json_group_array(json_array(
    seq, conversation, id, rank, accepted_at, attempts, ambiguous, born, since, held, chat, message
)) FROM (
    SELECT d.*, a.chat_id AS chat, a.message_id AS message FROM deliveries d
    LEFT JOIN conversations c ON c.key = d.memory LEFT JOIN deliveries a ON a.id = c.alert
    WHERE {_READY.format(":destination")} AND d.state = 'pending' %s ORDER BY d.turn, d.seq LIMIT :count
)
"""
_ANY_HEADS, _ONE_HEAD = _HEADS % "", _HEADS % "AND d.seq = :seq"
_OVERDUE = f"""\
WITH heads AS (
    SELECT column1 AS rank, (
        SELECT min(seq) FROM deliveries WHERE destination = :destination AND due = 0 AND turn = column1
    ) AS head FROM {RANKS}
)
SELECT head FROM heads CROSS JOIN deliveries ON seq = head
WHERE heads.rank > (SELECT min(rank) FROM heads WHERE head IS NOT NULL) AND born < :before ORDER BY head LIMIT 1
"""
_AHEAD = f"""\
SELECT (SELECT count(*) FROM (
    SELECT 1 FROM deliveries d
    WHERE {_READY.format("me.destination")} AND d.turn <= me.rank AND d.conversation <> me.conversation LIMIT 20
)) + (SELECT count(*) FROM (
    SELECT 1 FROM deliveries d WHERE d.destination = me.destination AND d.conversation = me.conversation
    AND d.settled IS NULL AND d.state = 'pending' AND d.seq < me.seq LIMIT 20
)) FROM deliveries me WHERE id = :id AND state = 'pending'
"""
_HIDDEN = """\
SELECT 1 FROM tally WHERE pending > 0 AND sending = 0 AND EXISTS (
    SELECT 1 FROM deliveries NOT INDEXED WHERE state = 'pending' AND destination IN (SELECT value FROM json_each(?))
)
"""
_LOST = """\
SELECT destination, min(:now, json_extract(value, '$[0]') - :wall + :now) AS at FROM deliveries, json_each(history)
WHERE %s AND ambiguous > 0 AND json_extract(value, '$[1]') = 'ambiguous' AND at > :since
"""
_COUNTS = "accepted, pending, sending, sent, dead, expired"
_LIVE = f"""\
UPDATE tally SET alive_wall = ?, alive_at = ?
RETURNING {_COUNTS}, (SELECT born FROM deliveries WHERE settled IS NULL ORDER BY seq LIMIT 1)
"""
_HISTORY = f"""\
json_insert(
    CASE WHEN json_array_length(history) < {HISTORY_KEPT} THEN history ELSE json_remove(history, '$[0]') END,
    '$[#]', json_array(:wall, :outcome, :reason)
)\
"""
_SETTLE = f"""\
UPDATE deliveries SET state = :state, settled = :settled, due = :due, reason = :reason,
    turn = CASE WHEN :settled IS NULL THEN turn END, history = {_HISTORY}
WHERE seq = :seq
"""
_TOLD = f"""\
UPDATE deliveries SET state = 'sent', settled = at, turn = NULL, due = 0, chat_id = chat, message_id = message,
    reason = NULL, history = {_HISTORY}
FROM (
    SELECT json_extract(value, '$[0]') AS place, json_extract(value, '$[1]') AS at, json_extract(value, '$[2]') AS chat,
        json_extract(value, '$[3]') AS message FROM json_each(:rows)
) WHERE seq = place
"""


class Store:
    """The outbox's verbs on one connection. The caller owns the transaction and the thread."""

    def __init__(self, db: sqlite3.Connection, *, max_pending: int = MAX_PENDING) -> None:
        self.db = db
        self.max_pending = max_pending
        self.full: str | None = None  # set by the writer: why no more can be accepted
        self.wall: Callable[[], float] = lambda: 0.0  # set by the writer: wall clock, for people
        self.last: int = db.execute("SELECT coalesce(max(seq), 0) FROM deliveries").fetchone()[0]
        self._recent: dict[int, Content] = {}
        self._due = 0.0  # when the first of those that back off may go
        self._held: dict[str, float] | None = None  # as on disk
        self._account: float | None = None  # the only one seen, -1 where there were several; as on disk

    def undo(self, to: str = "") -> None:
        """Roll the transaction back, or *to* a savepoint in it, and with it what was known from it."""
        if self.db.in_transaction:
            self.db.execute(f"ROLLBACK {to}")
        self._due, self._held, self._account = 0.0, None, None
        self._recent.clear()

    def recover(self, *, now: float, told: Iterable[Told] = ()) -> None:
        """After a crash: a send that was in flight and is not known as *told* may have been; it is repeated, marked."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        # A journal that was left from another database's days may name the same places, but not the same time.
        flying = "SELECT 1 FROM deliveries WHERE seq = ? AND state = 'sending' AND born <= ?"
        self.told_all([one for one in told if db.execute(flying, (one.seq, one.now)).fetchone()])
        db.execute("DELETE FROM deliveries WHERE settled IS NULL AND rank < 0")
        for (seq,) in db.execute("SELECT seq FROM deliveries WHERE settled IS NULL AND state = 'sending'").fetchall():
            self.again(seq, due=0.0, now=now, reason="stopped in the middle of a send", ambiguous=True)
        db.execute("UPDATE deliveries SET due = 0 WHERE due > 0")
        db.execute("COMMIT")

    # --- taking in ---

    def enqueue(self, content: Content, **where: Any) -> Accepted:
        """One alert or notice is owed from now on; *where* as in Arrival. Raises OutboxUnavailable."""
        return self.enqueue_all([Arrival(content, **where)])[0]

    def enqueue_all(self, arrivals: Sequence[Arrival]) -> list[Accepted]:
        """All of these are owed from now on. Raises OutboxUnavailable where they do not all find room."""
        if self.full is not None:
            raise OutboxUnavailable(self.full)
        wall, held = self.wall(), self.held()
        values: list[Any] = []
        for arrival in arrivals:
            self.last += 1
            content, now = arrival.content, arrival.now
            rank = int(rank_of(content) if arrival.rank is None else arrival.rank)
            self._recent[self.last] = content
            if len(self._recent) > RECENT:
                del self._recent[next(iter(self._recent))]
            values += (
                self.last, arrival.id, arrival.destination, arrival.conversation, arrival.memory, rank, rank,
                pack(content), wall, now, now, held.get(arrival.destination, 0.0),
            )  # fmt: skip
        width = len(values) // len(arrivals)
        for begin in range(0, len(arrivals), TOGETHER):
            some = values[begin * width : (begin + TOGETHER) * width]
            count = len(some) // width
            if self.db.execute(_arrive(count), (*some, self.max_pending)).rowcount != count:
                raise OutboxUnavailable("the queue is full")
        return [Accepted(id=arrival.id) for arrival in arrivals]

    def ahead(self, id: str) -> int:
        """How many go before it: ready conversations, and others in its own; 20 of each at most."""
        row = self.db.execute(_AHEAD, {"id": id}).fetchone()
        return 0 if row is None else int(row[0])

    def enqueue_once(self, arrival: Arrival, *, key: str, digest: str) -> Accepted | Conflict:
        """The same under an idempotency key: a repeat is answered as the first stands by now."""
        known = self.db.execute("SELECT delivery, digest FROM seen WHERE key = ?", (key,)).fetchone()
        first = None if known is None else self.status(known[0])
        if first is not None:
            return first if known[1] == digest else Conflict()
        accepted = self.enqueue_all([arrival])[0]
        self.db.execute("DELETE FROM seen WHERE key = ?", (key,))  # of a delivery that is no longer kept
        self._record((key,), arrival.id, arrival.now, digest)
        return accepted

    def receive(
        self,
        decide: Callable[[Memory | None, bool], tuple[Decision, Content | None]],
        *,
        key: str | None,
        happening: str | None,
        transport: tuple[str, ...],
        id: str,
        destination: str,
        conversation: str,
        now: float,
    ) -> Accepted | Ignored:
        """One Chatwoot event: memory, keys and delivery change together or not at all.

        *transport* are keys of this very posting; *happening* is the key of what it tells, whatever posting brings it.
        *decide* gets the conversation's memory and whether the happening was told before.
        """
        if self._known(transport):
            return Ignored("duplicate")
        before, told = None, {happening} if happening else set()
        if key is not None:
            own, (key, before) = key, self._recall(key)
            own, kept = (f":{one.partition(':')[2]}:" for one in (own, key))
            told |= {one.replace(own, kept, 1) for one in told}  # an event that left its account out may have told it
        decision, content = decide(before, self._known(told))
        changed = key is not None and decision.memory is not None and decision.memory != before
        if changed:
            self.db.execute(
                "INSERT INTO conversations (key, memory, touched) VALUES (?, ?, ?)"
                " ON CONFLICT DO UPDATE SET memory = excluded.memory, touched = excluded.touched",
                (key, msgspec.json.encode(decision.memory), now),
            )
        if content is None:
            if decision.ignored is not Reason.NOISE:  # a copy of what was told must not be news to a later state
                self._record(transport, None, now)
            return Ignored(str(decision.ignored))
        accepted = self.enqueue(content, id=id, destination=destination, conversation=conversation, now=now, memory=key)
        self._record((*transport, *decision.keys), id, now)
        if decision.opens:
            self.db.execute("UPDATE conversations SET alert = ? WHERE key = ?", (id, key))
        return accepted

    def _known(self, keys: Iterable[str]) -> bool:
        return any(self.db.execute("SELECT 1 FROM seen WHERE key = ?", (key,)).fetchone() for key in keys)

    def _record(self, keys: Iterable[str], delivery: str | None, now: float, digest: str | None = None) -> None:
        self.db.executemany(
            "INSERT OR IGNORE INTO seen (key, delivery, digest, at) VALUES (?, ?, ?, ?)",
            [(key, delivery, digest, now) for key in keys],
        )

    def _recall(self, key: str) -> tuple[str, Memory | None]:
        """A conversation's memory, and its key. The account 0 stands for the only one there is, if there is one."""
        number, _, account = key.partition(":")
        alone = self._is_sole(account)
        between = (f"{number}:", f"{number};")
        rows = dict(self.db.execute("SELECT key, memory FROM conversations WHERE key > ? AND key < ?", between))
        if key not in rows and len(rows) == 1 and alone:
            key = next((known for known in rows if "0" in (account, known.partition(":")[2])), key)
        return key, recall(rows[key]) if key in rows else None

    def _is_sole(self, account: str) -> bool:
        """Whether no other account has been seen than this; of two, an event that leaves it out may be either's."""
        if self._account is None:
            self._account = self.fact("account")
        if account != "0" and self._account != float(account):
            self._account = float(account) if self._account is None else -1.0
            self.remember("account", self._account)
        return self._account != -1.0

    # --- sending ---

    def claim(
        self,
        permits: Mapping[str, int],
        *,
        now: float,
        max_age: float,
        fair: float | None = None,
        held: Mapping[str, float] | None = None,
    ) -> tuple[list[Delivery], list[Died]]:
        """Begin attempts: at most so many for each destination, most urgent conversation first.

        With *fair*, first goes one less urgent that has waited so many seconds: the low does not starve.
        *held* is for how long each destination was held in all, where more is known than is on disk.

        Returns the deliveries claimed, attempts counted already, and those that died of age. Not all that are too
        old die at once, so that nobody waits for it.
        """
        claimed, died = list[Delivery](), list[Died]()
        db, found = self.db, False
        if now >= self._due:
            db.execute("UPDATE deliveries SET due = 0 WHERE due > 0 AND due <= ?", (now,))
            self._due = db.execute("SELECT min(due) FROM deliveries WHERE due > 0").fetchone()[0] or float("inf")
        for destination, count in permits.items():
            total = max(self.held().get(destination, 0.0), (held or {}).get(destination, 0.0))
            where: dict[str, Any] = {"destination": destination, "before": now - (fair or 0.0)}
            overdue = None if fair is None else db.execute(_OVERDUE, where).fetchone()
            while count > 0 and len(died) < STEP:
                where |= {"count": count, "seq": overdue and overdue[0]}
                rows = json.loads(db.execute(_ONE_HEAD if overdue else _ANY_HEADS, where).fetchone()[0])
                found = found or bool(rows)
                taken: list[Delivery] = []
                for row in rows:
                    (seq, conversation, id, rank, accepted_at, attempts, ambiguous, born, since, before,
                     chat_id, message_id) = row  # fmt: skip
                    if rank < 0 and born < now - TEST_KEPT:
                        self.withdraw(seq)
                        continue
                    known, reason = self._content(seq), "unreadable in the outbox"
                    if now - since - (total - before) > max_age:
                        known, reason = None, "too old: it could not be said within RELAY_MAX_AGE"
                    if known is None:
                        self.bury(seq, now=now, reason=reason)
                        died.append(Died(id, rank, reason))
                        continue
                    taken.append(
                        Delivery(
                            seq=seq,
                            id=id,
                            destination=destination,
                            conversation=conversation,
                            content=known,
                            rank=rank,
                            accepted_at=accepted_at,
                            born=born,
                            attempt=attempts + 1,
                            ambiguous=ambiguous,
                            reply_to=(chat_id, message_id) if chat_id is not None and message_id is not None else None,
                        )
                    )
                if taken:
                    db.execute(
                        "UPDATE deliveries SET state = 'sending', due = NULL, attempts = attempts + 1"
                        " WHERE seq IN (SELECT value FROM json_each(?))",
                        (json.dumps([delivery.seq for delivery in taken]),),
                    )
                claimed += taken
                wanted, count = 1 if overdue else count, count - len(taken)
                if len(taken) == len(rows) < wanted or not rows:
                    break
                overdue = None
        asked = json.dumps([destination for destination, count in permits.items() if count])
        if not found and self._due == float("inf") and db.execute(_HIDDEN, (asked,)).fetchone():
            raise Damaged("an index lacks what its table has")
        return claimed, died

    def _content(self, seq: int) -> Content | None:
        """What a delivery says; None where it cannot be read."""
        if (content := self._recent.pop(seq, None)) is not None:
            return content
        row = self.db.execute("SELECT content FROM deliveries WHERE seq = ?", (seq,)).fetchone()
        if row is None:
            raise Damaged("an index names what its table lacks")
        return unpack(row[0])

    def told_all(self, all: Sequence[Told]) -> list[None]:
        """Settle: Telegram has all of these."""
        rows = json.dumps([(told.seq, told.now, told.chat_id, told.message_id) for told in all])
        self.db.execute(_TOLD, {"rows": rows, "wall": round(self.wall(), 3), "outcome": "sent", "reason": None})
        return [None] * len(all)

    def bury(self, seq: int, *, now: float, reason: str, outcome: str = "dead") -> None:
        """Settle: a dead letter, kept with its reason."""
        self._settle(seq, "dead", outcome, reason, settled=now)
        self.db.execute(
            "INSERT INTO facts VALUES ('deaths_untold', 1) ON CONFLICT DO UPDATE SET value = value + excluded.value"
        )

    def again(self, seq: int, *, due: float, now: float, reason: str, ambiguous: bool = False) -> bool:
        """Settle: owed still, not before *due*. An ambiguous attempt too many makes a dead letter, and True."""
        if ambiguous:
            row = self.db.execute(
                "UPDATE deliveries SET ambiguous = ambiguous + 1 WHERE seq = ? RETURNING ambiguous", (seq,)
            ).fetchone()
            if row is not None and row[0] >= MAX_AMBIGUOUS:
                self.bury(seq, now=now, reason=f"maybe told: {reason}", outcome="ambiguous")
                return True
        self._settle(seq, "pending", "ambiguous" if ambiguous else "retry", reason, due=due)
        return False

    def release(self, seq: int) -> None:
        """Undo a claim that was never sent."""
        self.db.execute(
            "UPDATE deliveries SET attempts = attempts - 1, state = 'pending', due = 0 WHERE seq = ?", (seq,)
        )

    def withdraw(self, seq: int) -> None:
        """Forget a delivery: a test that was not told in time is not told later."""
        self.db.execute("DELETE FROM deliveries WHERE seq = ?", (seq,))

    def withdraw_test(self, id: str) -> None:
        """Forget a test by its public id unless it is being sent at this moment; its settling forgets it then."""
        self.db.execute("DELETE FROM deliveries WHERE id = ? AND state = 'pending'", (id,))

    def _settle(
        self, seq: int, state: str, outcome: str, reason: str | None, *, due: float = 0.0, settled: float | None = None
    ) -> None:
        self._due = min(self._due, due or self._due)
        values = {"seq": seq, "state": state, "due": due, "settled": settled}
        self.db.execute(_SETTLE, {**values, "wall": round(self.wall(), 3), "outcome": outcome, "reason": reason})

    # --- holds, moves, facts ---

    def hold(self, chat_id: str, *, until: float, reason: str) -> None:
        """Nothing to this chat before *until*; "" is the bot. Kept, so that a restart obeys it too."""
        self.db.execute("INSERT OR REPLACE INTO holds VALUES (?, ?, ?)", (chat_id, until, reason))

    def holds(self, *, now: float) -> dict[str, tuple[float, str]]:
        """Those that stand, and for the last time those that have ended."""
        found = {row[0]: (row[1], row[2]) for row in self.db.execute("SELECT chat_id, until, reason FROM holds")}
        self.db.execute("DELETE FROM holds WHERE until <= ?", (now,))
        return found

    def were_held(self, *, now: float, seconds: Mapping[str, float]) -> None:
        """For how long each destination was held in all: time that does not count for RELAY_MAX_AGE."""
        self._held = None
        self.remember("held_at", now)
        self.db.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", seconds.items())

    def held(self) -> dict[str, float]:
        if self._held is None:
            self._held = dict(self.db.execute("SELECT destination, seconds FROM held"))
        return self._held

    def move(self, old: str, new: str) -> None:
        """A group became a supergroup; followed for good."""
        self.db.execute("INSERT OR REPLACE INTO moved VALUES (?, ?)", (old, new))

    def moves(self) -> dict[str, str]:
        return dict(self.db.execute("SELECT old, new FROM moved"))

    def recently_told(self, *, since: float, now: float) -> list[tuple[str, float]]:
        """(chat id, time) of what was told since then, so that a restart forgets no limit.

        And of what may have been: its destination's name, and when its fate was lost.
        """
        found = list[tuple[str, float]]()
        for query in (
            "SELECT chat_id, settled FROM deliveries WHERE state = 'sent' AND settled > :since",
            _LOST % "settled IS NULL",
            _LOST % "state IN ('sent', 'dead') AND settled > :since",
        ):
            found += self.db.execute(query, {"since": since, "now": now, "wall": self.wall()})
        return sorted(found, key=lambda row: row[1])

    def fact(self, name: str) -> float | None:
        row = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else float(row[0])

    def remember(self, name: str, value: float) -> None:
        self.db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def live(self, *, wall: float, at: float) -> tuple[Tally, float | None]:
        """How far the clocks had come, for the next process. Returns the tally, and when the oldest owed was born."""
        *counts, oldest = self.db.execute(_LIVE, (wall, at)).fetchone()
        return Tally(*counts), oldest

    def lived(self) -> tuple[float | None, float | None]:
        """How far the clocks had come in the last process: the wall's, and the outbox's."""
        wall, at = self.db.execute("SELECT alive_wall, alive_at FROM tally").fetchone()
        return wall, at

    # --- reading, redriving, keeping ---

    def status(self, id: str) -> Accepted | None:
        row = self.db.execute("SELECT state, message_id, reason FROM deliveries WHERE id = ?", (id,)).fetchone()
        return None if row is None else Accepted(id=id, state=row[0], message_id=row[1], reason=row[2], fresh=False)

    def tally(self) -> Tally:
        return Tally(*self.db.execute(f"SELECT {_COUNTS} FROM tally").fetchone())

    def counts(self) -> dict[str, int]:
        """The tally, as a dict."""
        return attrs.asdict(self.tally())

    def newest(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest rows, without their content."""
        columns = "id, state, rank, conversation, attempts, accepted_at, reason, message_id AS telegram_message_id"
        return self._rows(f"SELECT {columns} FROM deliveries {_WHERE[state]} ORDER BY seq DESC LIMIT ?", limit)

    def show(self, id: str) -> dict[str, Any] | None:
        """One row whole, with its content and history."""
        rows = self._rows(
            "SELECT id, state, destination, conversation, rank, attempts, ambiguous, accepted_at, reason, chat_id,"
            " message_id AS telegram_message_id, history, content FROM deliveries WHERE id = ?",
            id,
        )
        for row in rows:
            row["history"] = json.loads(row["history"])
            with contextlib.suppress(ValueError):  # else it is shown as it is
                row["content"] = row["content"].decode("utf-8", "replace")
                row["content"] = json.loads(row["content"])
        return rows[0] if rows else None

    def _rows(self, query: str, value: object) -> list[dict[str, Any]]:
        found = self.db.execute(query, (value,))
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]

    def redrive(self, ids: Iterable[str] | None, *, now: float) -> list[str]:
        """Dead letters are owed again; where *ids* is None, a step of them all. Returns those that were dead."""
        dead = [
            row
            for id in ([None] if ids is None else ids)
            for row in self.db.execute(
                "SELECT seq, id, destination FROM deliveries WHERE state = 'dead'"
                + (" ORDER BY seq LIMIT ?" if id is None else " AND id = ?"),
                (STEP,) if id is None else (id,),
            ).fetchall()
        ]
        for seq, _, destination in dead:
            self.last += 1
            self._settle(seq, "pending", "redriven", None)
            self.db.execute(
                "UPDATE deliveries SET seq = ?, turn = rank, ambiguous = min(ambiguous, 1), since = ?, held = ?"
                " WHERE seq = ?",
                (self.last, now, self.held().get(destination, 0.0), seq),
            )
        return [row[1] for row in dead]

    def expire(self, *, now: float, retention: float) -> int:
        """One small step of forgetting what need not be kept. Returns how many rows went; 0 when there is no more."""
        gone = 0
        for state, kept in (("sent", retention), ("dead", DEAD_KEPT)):
            gone += self.db.execute(
                "DELETE FROM deliveries WHERE seq IN (SELECT seq FROM deliveries WHERE state = ? AND settled < ?"
                " AND settled IS NOT NULL ORDER BY settled LIMIT ?)",
                (state, now - kept, STEP),
            ).rowcount
        gone += self.db.execute(
            "DELETE FROM seen WHERE key IN (SELECT key FROM seen WHERE at < ? ORDER BY at LIMIT ?)",
            (now - max(retention, REPLAYS_KEPT), STEP),
        ).rowcount
        over = self.db.execute("SELECT count(*) FROM conversations").fetchone()[0] - MAX_MEMORIES
        gone += self.db.execute(
            "DELETE FROM conversations WHERE key IN (SELECT key FROM conversations WHERE touched < ? OR ? > 0"
            " ORDER BY touched LIMIT ?)",
            (now - MEMORY_KEPT, over, STEP if over <= 0 else min(STEP, over)),
        ).rowcount
        spare = self.db.execute("PRAGMA freelist_count").fetchone()[0] - SPARE_PAGES
        for _ in range(min(spare, STEP)):  # a burst's room goes back to the disk; sqlite3 steps one page at a time
            self.db.execute("PRAGMA incremental_vacuum(1)")
        return gone
