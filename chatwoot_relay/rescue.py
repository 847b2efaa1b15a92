"""What can be read of a damaged database goes on in a new one. Loses neither, whatever ends the process meanwhile."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

from .outbox import Store
from .schema import aside, open_database, unpack

SUFFIXES = ("", "-wal", "-shm")  # the files of a database
REMEMBERED = ("seen", "conversations", "holds", "held", "moved", "facts")  # beside the deliveries
UNREADABLE = (sqlite3.Error, UnicodeDecodeError)
Row = tuple[Any, ...]


def rescue(path: Path, *, now: float, wall: float) -> tuple[int, int]:
    """Make a new database of what can be read, whole before it is named so; the old one stays where it is.

    Returns how many deliveries are in it, and a place (seq) behind all that were ever used.
    """
    part, (rows, others) = beside(path, ".part"), salvage(path)
    for suffix in SUFFIXES:
        beside(part, suffix).unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.closing(open_database(part)) as db:
        last = adopt(Store(db), rows, others, now=now, wall=wall)
    part.rename(beside(path, ".new"))
    return len(rows), last


def put_in_place(path: Path, *, wall: float) -> str | None:
    """Put a new database that is whole in the place of the damaged one; where that went, None where there is none."""
    new = beside(path, ".new")
    if not new.exists():
        return None
    while (kept := beside(path, f".{aside(wall)}")).exists():
        wall += 1
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            beside(path, suffix).rename(beside(kept, suffix))
    new.rename(path)
    return str(kept)


def salvage(path: Path) -> tuple[list[Row], dict[str, list[Row]]]:
    """What a damaged file says, as far as it can be read: what is owed or dead, row by row, and what is remembered."""
    seqs, rows, others = set[int](), list[Row](), dict[str, list[Row]]()
    if not (path.exists() and path.stat().st_size):
        return rows, others
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.text_factory = functools.partial(str, encoding="utf-8", errors="replace")
        # An index may be whole where its table is not, and the other way round; damage hides what lies behind it.
        owed, dead = "WHERE settled IS NULL", "WHERE state = 'dead'"
        for way in (f"INDEXED BY deliveries_owed {owed}", f"INDEXED BY deliveries_dead {dead}", "NOT INDEXED"):
            for order in ("ASC", "DESC"):
                with contextlib.suppress(*UNREADABLE):
                    for (seq,) in db.execute(f"SELECT seq FROM deliveries {way} ORDER BY seq {order}"):
                        seqs.update([seq] if isinstance(seq, int) else [])
        for seq in sorted(seqs):
            with contextlib.suppress(*UNREADABLE):
                rows += db.execute(
                    "SELECT seq, id, destination, conversation, memory, rank, content, accepted_at, attempts,"
                    " ambiguous, state, reason FROM deliveries WHERE seq = ? AND state <> 'sent' AND rank >= 0",
                    (seq,),
                )
        for table in REMEMBERED:
            others[table] = []
            with contextlib.suppress(*UNREADABLE):
                for row in db.execute(f"SELECT * FROM {table}"):
                    others[table].append(row)
    return rows, others


def adopt(store: Store, rows: list[Row], others: dict[str, list[Row]], *, now: float, wall: float) -> int:
    """Owe again what was rescued, and remember what was; what is being sent is so still. Returns the last place.

    *wall* is when the old file was set aside, of which the team is to hear.
    """
    store.db.execute("BEGIN IMMEDIATE")
    last = int(wall * 1000)  # sends in flight settle by seq: what is rescued keeps its own, what is new has another
    for table, kept in others.items():
        for row in kept:
            with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError):
                store.db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    untold = store.fact("deaths_untold") or 0
    names = Counter(row[2] for row in rows if isinstance(row[2], str)).most_common(1)
    for seq, id, _, conversation, memory, rank, content, accepted_at, attempts, ambiguous, state, reason in rows:
        destination = names[0][0] if names else ""  # there is one; another name is damage
        numbers = (rank, accepted_at, attempts, ambiguous)
        if not (isinstance(id, str) and isinstance(conversation, str)):
            continue
        if not all(isinstance(number, int | float) for number in numbers):
            continue
        with contextlib.suppress(sqlite3.IntegrityError, sqlite3.InterfaceError, TypeError):
            store.db.execute(
                "INSERT INTO deliveries (seq, id, state, destination, conversation, memory, rank, turn, content,"
                " accepted_at, born, since, held, attempts, ambiguous)"
                " VALUES (?, ?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (seq, id, destination, conversation, memory, rank, rank, content, accepted_at, now, now,
                 store.held().get(destination, 0.0), attempts, ambiguous),
            )  # fmt: skip
            last = max(last, seq)
            if state == "dead" or unpack(content) is None:
                store.bury(seq, now=now, reason=str(reason or "unreadable in the outbox"), outcome="rescued")
                untold += state != "dead"  # else it was counted when it died
            elif state == "sending":
                store.db.execute("UPDATE deliveries SET state = 'sending', due = NULL WHERE seq = ?", (seq,))
    store.remember("deaths_untold", untold)
    store.remember("damage_untold", wall)
    store.db.execute("COMMIT")
    return last


def is_emptied(path: Path) -> bool:
    """Whether a log stands beside a file in which nothing is: it was ours, for SQLite makes the file first."""
    sizes = [beside(path, suffix).stat().st_size if beside(path, suffix).exists() else 0 for suffix in ("", "-wal")]
    return not sizes[0] and bool(sizes[1])


def beside(path: Path, suffix: str) -> Path:
    """The file of that name with *suffix* at its end."""
    return path.with_name(path.name + suffix)
