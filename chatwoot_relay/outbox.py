"""The outbox's SQL: durable deliveries, their order, what is remembered. Synchronous; knows no threads, no clocks.

Every function runs inside a transaction that its caller commits. Times are seconds on the outbox's own clock, which
runs with the monotonic one and never jumps; ``accepted_at`` alone is the wall clock's, for people.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import msgspec

from .errors import OutboxUnavailable
from .events import Decision, Memory
from .events import Ignored as Reason
from .models import Content, Delivery, Notice, Rank, rank_of
from .schema import pack, recall, unpack

MAX_PENDING = 100_000
MAX_AMBIGUOUS = 3
DEAD_KEPT = 90 * 86400.0
REPLAYS_KEPT = 900.0  # longer than a signature is good for, both ways
MEMORY_KEPT = 90 * 86400.0
MAX_MEMORIES = 200_000
HISTORY_KEPT = 20
SPARE_PAGES = 1024  # of 4 KiB, kept for the next rows
STEP = 200  # rows that housekeeping takes at a time, so that nobody waits for it


@attrs.frozen(kw_only=True)
class Accepted:
    """What became of something handed in. *fresh* is False for the repeat of one that is known."""

    id: str
    state: str = "pending"
    message_id: int | None = None
    reason: str | None = None
    fresh: bool = True
    ahead: int = 0  # ready conversations that go first, 20 at most


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


@attrs.frozen(kw_only=True)
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
    "pending": "WHERE state IN ('pending', 'sending')",
    "sent": "WHERE state = 'sent'",
    "dead": "WHERE state = 'dead'",
}


# Each statement gives up the interpreter's lock and has to win it back from the loop's thread: whatever is done for
# every delivery is one statement, its triggers do the rest.
_ENQUEUE = """\
INSERT INTO deliveries (id, state, destination, conversation, memory, rank, content, accepted_at, born, since, held)
SELECT :id, 'pending', :destination, :conversation, :memory, :rank, :content, :wall, :now, :now,
    coalesce((SELECT seconds FROM held WHERE destination = :destination), 0)
WHERE (SELECT value FROM counters WHERE name = 'pending') < :most
RETURNING (
    SELECT count(*) FROM (
        SELECT 1 FROM lanes WHERE destination = :destination AND busy = 0 AND due = 0 AND rank <= :rank
        AND conversation <> :conversation LIMIT 20
    )
) + (
    SELECT count(*) FROM (
        SELECT 1 FROM deliveries
        WHERE destination = :destination AND conversation = :conversation AND state = 'pending' LIMIT 21
    )
) - 1
"""
_DELIVERY = """\
SELECT d.seq, d.conversation, d.id, d.content, d.rank, d.accepted_at, d.attempts, d.ambiguous, d.born, d.since, d.held,
    a.chat_id, a.message_id
FROM {} CROSS JOIN deliveries d ON d.seq = heads.head
LEFT JOIN conversations c ON c.key = d.memory LEFT JOIN deliveries a ON a.id = c.alert
ORDER BY heads.rank, heads.head
"""
_HEAD = _DELIVERY.format("(SELECT ? AS head, 0 AS rank) heads")
_HEADS = _DELIVERY.format(
    "(SELECT rank, head FROM lanes WHERE destination = ? AND busy = 0 AND due = 0 ORDER BY rank, head LIMIT ?) heads"
)
_NOTE = f"""\
UPDATE deliveries SET reason = :reason, history = json_insert(
        CASE WHEN json_array_length(history) < {HISTORY_KEPT} THEN history ELSE json_remove(history, '$[0]') END,
        '$[#]', json_array(:wall, :outcome, :reason)
    )
WHERE seq = :seq
"""  # noqa: S608
_SETTLE = (
    _NOTE.replace("WHERE", ", state = :state, settled = :settled, chat_id = :chat_id, message_id = :message_id WHERE")
    + "RETURNING destination, conversation"
)
_OWED = "FROM deliveries WHERE destination = :destination AND conversation = :conversation AND state = 'pending'"
_EMPTY_LANE = f"""\
DELETE FROM lanes WHERE destination = :destination AND conversation = :conversation AND NOT EXISTS (SELECT 1 {_OWED})
"""  # noqa: S608
_REFRESH = f"""\
INSERT INTO lanes (destination, conversation, rank, head, due)
SELECT :destination, :conversation, rank, head, :due
FROM (SELECT (SELECT min(rank) {_OWED}) AS rank, (SELECT min(seq) {_OWED}) AS head) WHERE head IS NOT NULL
ON CONFLICT DO UPDATE SET rank = excluded.rank, head = excluded.head, due = excluded.due, busy = 0
"""  # noqa: S608


class Store:
    """The outbox's verbs on one connection. The caller owns the transaction and the thread."""

    def __init__(self, db: sqlite3.Connection, *, max_pending: int = MAX_PENDING) -> None:
        self.db = db
        self.max_pending = max_pending
        self.full = False  # set by the writer: too little disk to accept more
        self.wall: Callable[[], float] = lambda: 0.0  # set by the writer: wall clock, for people

    def recover(self, *, now: float) -> None:
        """After a crash: a send that was in flight may have been told, and is repeated once, marked."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        for seq, rank in db.execute(
            "SELECT seq, rank FROM deliveries WHERE state IN ('pending', 'sending') AND state = 'sending'"
        ).fetchall():
            if rank < 0:
                self.withdraw(seq)
            else:
                self.again(seq, due=0.0, now=now, reason="stopped in the middle of a send", ambiguous=True)
        db.execute("UPDATE lanes SET due = 0, busy = 0 WHERE due <> 0 OR busy <> 0")
        db.execute("DELETE FROM deliveries WHERE rank < 0 AND state IN ('pending', 'sending')")
        db.execute("DELETE FROM lanes WHERE rank < 0")
        db.execute("COMMIT")

    def adopt(self, rows: list[tuple[Any, ...]], *, now: float) -> None:
        """Owe again what was rescued from a damaged file; what an attempt was made for may have been told."""
        db = self.db
        db.execute("BEGIN IMMEDIATE")
        # Sends in flight settle by seq: what is rescued keeps its own, and a new one is none that was ever used.
        db.execute("INSERT INTO sqlite_sequence VALUES ('deliveries', ?)", (int(self.wall() * 1000),))
        for seq, id, destination, conversation, memory, rank, content, accepted_at, attempts in rows:
            if unpack(content) is None:
                continue
            with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError, TypeError):
                db.execute(
                    "INSERT INTO deliveries (seq, id, state, destination, conversation, memory, rank, content,"
                    " accepted_at, born, since, held, attempts, ambiguous)"
                    " VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)",
                    (seq, id, destination, conversation, memory, rank, content, accepted_at, now, now,
                     attempts, min(attempts, 1)),
                )  # fmt: skip
                self._refresh(destination, conversation, 0.0)
        db.execute("COMMIT")

    # --- taking in ---

    def enqueue(
        self,
        content: Content,
        *,
        id: str,
        destination: str,
        conversation: str,
        now: float,
        memory: str | None = None,
        rank: int | None = None,
    ) -> Accepted:
        """One alert or notice is owed from now on. Raises OutboxUnavailable when the queue is full."""
        if self.full:
            raise OutboxUnavailable("less than 64 MiB of disk are free")
        rank = rank_of(content) if rank is None else rank
        row = self.db.execute(
            _ENQUEUE,
            {
                "id": id,
                "destination": destination,
                "conversation": conversation,
                "memory": memory,
                "rank": int(rank),
                "content": pack(content),
                "wall": self.wall(),
                "now": now,
                "most": self.max_pending,
            },
        ).fetchone()
        if row is None:
            raise OutboxUnavailable("the queue is full")
        return Accepted(id=id, ahead=row[0])

    def _join(self, destination: str, conversation: str, rank: int, seq: int | None) -> None:
        """One more in a lane, which stays as busy and as late as it is."""
        self.db.execute(
            "INSERT INTO lanes (destination, conversation, rank, head) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET rank = min(rank, excluded.rank), head = min(head, excluded.head)",
            (destination, conversation, rank, seq),
        )

    def enqueue_once(
        self, content: Content, *, key: str, digest: str, id: str, now: float, **where: Any
    ) -> Accepted | Conflict:
        """The same under an idempotency key: a repeat is answered as the first stands by now."""
        known = self.db.execute("SELECT delivery, digest FROM seen WHERE key = ?", (key,)).fetchone()
        first = None if known is None else self.status(known[0])
        if first is not None:
            return first if known[1] == digest else Conflict()
        accepted = self.enqueue(content, id=id, now=now, **where)
        self.db.execute("DELETE FROM seen WHERE key = ?", (key,))  # of a delivery that is no longer kept
        self._record((key,), id, now, digest)
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
        before = self._memory(key) if key is not None else None
        decision, content = decide(before, happening is not None and self._known((happening,)))
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

    def _memory(self, key: str) -> Memory | None:
        row = self.db.execute("SELECT memory FROM conversations WHERE key = ?", (key,)).fetchone()
        return None if row is None else recall(row[0])

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
        db, claimed, died = self.db, list[Delivery](), list[Died]()
        db.execute("UPDATE lanes SET due = 0 WHERE due > 0 AND due <= ?", (now,))
        for destination, count in permits.items():
            total = max(self._held(destination), (held or {}).get(destination, 0.0))
            overdue = None if fair is None else self._overdue(destination, now - fair)
            while count > 0 and len(died) < STEP:
                wanted = 1 if overdue else count
                rows = self.db.execute(
                    _HEAD if overdue else _HEADS, (overdue,) if overdue else (destination, count)
                ).fetchall()
                overdue = None
                taken: list[Delivery] = []
                for row in rows:
                    (seq, conversation, id, content, rank, accepted_at, attempts, ambiguous, born, since, before,
                     chat_id, message_id) = row  # fmt: skip
                    known, reason = unpack(content), "unreadable in the outbox"
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
                db.execute(
                    "UPDATE deliveries SET state = 'sending', attempts = attempts + 1"
                    " WHERE seq IN (SELECT value FROM json_each(?))",
                    (json.dumps([delivery.seq for delivery in taken]),),
                )
                claimed += taken
                count -= len(taken)
                if len(taken) == len(rows) < wanted or not rows:
                    break
        return claimed, died

    def ready_at(self) -> float:
        """Since or from when there is something to claim; infinity where nothing waits for its moment either."""
        row = self.db.execute(
            "SELECT CASE WHEN EXISTS ("
            "SELECT 1 FROM lanes INDEXED BY lanes_urgent WHERE destination > '' AND busy = 0 AND due = 0)"
            " THEN 0 ELSE (SELECT min(due) FROM lanes WHERE due > 0) END"
        ).fetchone()
        return float("inf") if row[0] is None else float(row[0])

    def _overdue(self, destination: str, before: float) -> int | None:
        """The head of the longest waiting lane behind more urgent ones, if its head was born before then."""
        heads = [
            row[0]
            for rank in Rank
            for row in self.db.execute(
                "SELECT head FROM lanes WHERE destination = ? AND busy = 0 AND due = 0 AND rank = ?"
                " ORDER BY head LIMIT 1",
                (destination, int(rank)),
            )
        ]
        for head in sorted(heads[1:]):
            born = self.db.execute("SELECT born FROM deliveries WHERE seq = ?", (head,)).fetchone()[0]
            return head if born < before else None
        return None

    def oldest_waiting(self) -> float | None:
        """When the oldest that is owed was born."""
        row = self.db.execute(
            "SELECT born FROM deliveries WHERE state IN ('pending', 'sending') ORDER BY seq LIMIT 1"
        ).fetchone()
        return None if row is None else float(row[0])

    def told(self, seq: int, *, now: float, chat_id: str, message_id: int | None) -> None:
        """Settle: Telegram has it."""
        self._settle(seq, "sent", now, "sent", None, chat_id=chat_id, message_id=message_id)

    def bury(self, seq: int, *, now: float, reason: str, outcome: str = "dead") -> None:
        """Settle: a dead letter, kept with its reason."""
        self._settle(seq, "dead", now, outcome, reason)
        self._bump("deaths_untold", 1)

    def again(self, seq: int, *, due: float, now: float, reason: str, ambiguous: bool = False) -> bool:
        """Settle: owed still, not before *due*. An ambiguous attempt too many makes a dead letter, and True."""
        if ambiguous:
            self.db.execute("UPDATE deliveries SET ambiguous = ambiguous + 1 WHERE seq = ?", (seq,))
            row = self.db.execute("SELECT ambiguous FROM deliveries WHERE seq = ?", (seq,)).fetchone()
            if row is not None and row[0] >= MAX_AMBIGUOUS:
                self.bury(seq, now=now, reason=f"maybe told: {reason}", outcome="ambiguous")
                return True
        self._settle(seq, "pending", now, "ambiguous" if ambiguous else "retry", reason, due=due)
        return False

    def release(self, seq: int) -> None:
        """Undo a claim that was never sent."""
        self.db.execute("UPDATE deliveries SET attempts = attempts - 1, state = 'pending' WHERE seq = ?", (seq,))
        self._lane(seq, 0.0)

    def withdraw(self, seq: int) -> None:
        """Forget a delivery: a test that was not told in time is not told later."""
        row = self.db.execute(
            "SELECT d.destination, d.conversation FROM deliveries d LEFT JOIN lanes USING (destination, conversation)"
            " WHERE seq = ? AND (state = 'sending' OR busy = 0)",
            (seq,),
        ).fetchone()
        self.db.execute("DELETE FROM deliveries WHERE seq = ?", (seq,))
        if row is not None:  # else another of the lane is being sent, whose settling refreshes it
            self._refresh(row[0], row[1], 0.0)

    def withdraw_test(self, id: str) -> None:
        """Forget a test by its public id unless it is being sent at this moment; its settling forgets it then."""
        row = self.db.execute("SELECT seq FROM deliveries WHERE id = ? AND state = 'pending'", (id,)).fetchone()
        if row is not None:
            self.withdraw(row[0])

    def _settle(
        self,
        seq: int,
        state: str,
        now: float,
        outcome: str,
        reason: str | None,
        *,
        due: float = 0.0,
        chat_id: str | None = None,
        message_id: int | None = None,
    ) -> None:
        row = self.db.execute(
            _SETTLE,
            {
                "seq": seq,
                "state": state,
                "settled": None if state == "pending" else now,
                "reason": reason,
                "chat_id": chat_id,
                "message_id": message_id,
                "wall": round(self.wall(), 3),
                "outcome": outcome,
            },
        ).fetchone()
        if row is not None:
            self._refresh(row[0], row[1], due)

    def _note(self, seq: int, outcome: str, reason: str | None) -> None:
        self.db.execute(_NOTE, {"seq": seq, "reason": reason, "wall": round(self.wall(), 3), "outcome": outcome})

    def _lane(self, seq: int, due: float) -> None:
        row = self.db.execute("SELECT destination, conversation FROM deliveries WHERE seq = ?", (seq,)).fetchone()
        if row is not None:
            self._refresh(row[0], row[1], due)

    def _refresh(self, destination: str, conversation: str, due: float) -> None:
        values = {"destination": destination, "conversation": conversation, "due": due}
        if not self.db.execute(_EMPTY_LANE, values).rowcount:
            self.db.execute(_REFRESH, values)

    # --- holds, moves, facts ---

    def hold(self, chat_id: str, *, until: float, reason: str) -> None:
        """Nothing to this chat before *until*; "" is the bot. Kept, so that a restart obeys it too."""
        self.db.execute("INSERT OR REPLACE INTO holds VALUES (?, ?, ?)", (chat_id, until, reason))

    def holds(self, *, now: float) -> dict[str, tuple[float, str]]:
        self.db.execute("DELETE FROM holds WHERE until <= ?", (now,))
        return {row[0]: (row[1], row[2]) for row in self.db.execute("SELECT chat_id, until, reason FROM holds")}

    def were_held(self, seconds: Mapping[str, float]) -> None:
        """For how long each destination was held in all: time that does not count for RELAY_MAX_AGE."""
        self.db.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", seconds.items())

    def held(self) -> dict[str, float]:
        return dict(self.db.execute("SELECT destination, seconds FROM held"))

    def _held(self, destination: str) -> float:
        row = self.db.execute("SELECT seconds FROM held WHERE destination = ?", (destination,)).fetchone()
        return 0.0 if row is None else float(row[0])

    def move(self, old: str, new: str) -> None:
        """A group became a supergroup; followed for good."""
        self.db.execute("INSERT OR REPLACE INTO moved VALUES (?, ?)", (old, new))

    def moves(self) -> dict[str, str]:
        return dict(self.db.execute("SELECT old, new FROM moved"))

    def recently_told(self, *, since: float) -> list[tuple[str, float]]:
        """(chat id, time) of what was told since then, so that a restart forgets no limit."""
        return self.db.execute(
            "SELECT chat_id, settled FROM deliveries WHERE state = 'sent' AND settled > ? ORDER BY settled", (since,)
        ).fetchall()

    def fact(self, name: str) -> float | None:
        row = self.db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else float(row[0])

    def remember(self, name: str, value: float) -> None:
        self.db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, value))

    def live(self, *, wall: float, at: float) -> None:
        """How far the clocks had come, for the next process."""
        self.db.execute("INSERT OR REPLACE INTO facts VALUES ('alive_wall', ?), ('alive_at', ?)", (wall, at))

    def _bump(self, name: str, by: float) -> None:
        self.db.execute(
            "INSERT INTO facts VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value", (name, by)
        )

    # --- reading, redriving, keeping ---

    def status(self, id: str) -> Accepted | None:
        row = self.db.execute("SELECT state, message_id, reason FROM deliveries WHERE id = ?", (id,)).fetchone()
        return None if row is None else Accepted(id=id, state=row[0], message_id=row[1], reason=row[2], fresh=False)

    def tally(self) -> Tally:
        return Tally(**json.loads(self.db.execute("SELECT json_group_object(name, value) FROM counters").fetchone()[0]))

    def counts(self) -> dict[str, int]:
        """The tally, as a dict."""
        return attrs.asdict(self.tally())

    def newest(self, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """The newest rows, without their content."""
        where = _WHERE[state]
        rows = self.db.execute(
            "SELECT id, state, rank, conversation, attempts, accepted_at, reason, message_id FROM deliveries"  # noqa: S608
            f" {where} ORDER BY seq DESC LIMIT ?",
            (limit,),
        )
        names = ("id", "state", "rank", "conversation", "attempts", "accepted_at", "reason", "telegram_message_id")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def show(self, id: str) -> dict[str, Any] | None:
        """One row whole, with its content and history."""
        row = self.db.execute(
            "SELECT id, state, destination, conversation, rank, attempts, ambiguous, accepted_at, reason, chat_id,"
            " message_id, history, content FROM deliveries WHERE id = ?",
            (id,),
        ).fetchone()
        if row is None:
            return None
        names = ("id", "state", "destination", "conversation", "rank", "attempts", "ambiguous", "accepted_at", "reason",
                 "chat_id", "telegram_message_id")  # fmt: skip
        return {
            **dict(zip(names, row, strict=False)),
            "history": json.loads(row[11]),
            "content": json.loads(row[12]),
        }

    def redrive(self, ids: Iterable[str] | None, *, now: float) -> list[str]:
        """Dead letters are owed again; where *ids* is None, a step of them all. Returns those that were dead."""
        dead = [
            row
            for id in ([None] if ids is None else ids)
            for row in self.db.execute(
                "SELECT seq, id, destination, conversation, rank FROM deliveries WHERE state = 'dead'"  # noqa: S608
                + (" ORDER BY seq LIMIT ?" if id is None else " AND id = ?"),
                (STEP,) if id is None else (id,),
            ).fetchall()
        ]
        for seq, _, destination, conversation, rank in dead:
            self._note(seq, "redriven", None)
            self.db.execute(
                "UPDATE deliveries SET state = 'pending', settled = NULL, ambiguous = min(ambiguous, 1), since = ?,"
                " held = ? WHERE seq = ?",
                (now, self._held(destination), seq),
            )
            self._join(destination, conversation, rank, seq)
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

    def announce_deaths(self, *, id: str, destination: str, now: float) -> bool:
        """At most once an hour the team hears that something died."""
        count, last = int(self.fact("deaths_untold") or 0), self.fact("deaths_told_at")
        if not count or (last is not None and now - last < 3600):
            return False
        some = "1 message" if count == 1 else f"{count} messages"
        notice = Notice(
            event="relay.dead_letters",
            headline=f"☠️ {some} could not be told",
            facts=(
                ("See", "chatwoot-relay outbox list --state dead"),
                ("Send again", "chatwoot-relay outbox redrive --all"),
            ),
        )
        self.remember("deaths_untold", 0)
        self.remember("deaths_told_at", now)
        self.enqueue(notice, id=id, destination=destination, conversation="relay", now=now)
        return True
