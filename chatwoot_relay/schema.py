"""What is on disk: the tables, whose file it is, and how a delivery's content is written. Refuses what is not ours."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cattrs import Converter

from .errors import NotOurDatabase
from .events import Memory
from .models import Alert, Content, Notice

APPLICATION_ID = 0x43575254  # "CWRT"
SCHEMA_VERSION = 3
MOST_CHECKED = 128 * 1024 * 1024  # bytes; what a slow disk reads in the time that a start may take
_MAGIC, _OURS = b"SQLite format 3\0", APPLICATION_ID.to_bytes(4)

_LANE = "WHERE destination = new.destination AND conversation = new.conversation AND settled IS NULL"
RANKS = "(VALUES (-1), (0), (1), (2), (3), (4))"  # a look-up for each is quick in any lane, a look at each row is not
_HEAD = f"""\
(SELECT min(head) FROM (SELECT (SELECT min(seq) FROM deliveries {_LANE} AND rank = column1) AS head FROM {RANKS}))\
"""
_URGENT = f"(SELECT min(rank) FROM deliveries {_LANE})"
_JOIN = f"""\
WHEN EXISTS (SELECT 1 FROM deliveries {_LANE} AND seq <> new.seq) BEGIN
    UPDATE deliveries SET turn = NULL WHERE seq = new.seq;
    UPDATE deliveries SET turn = new.rank WHERE seq = {_HEAD} AND turn > new.rank;
END\
"""
_LEAVE = f"""\
AND old.turn IS NOT NULL AND EXISTS (SELECT 1 FROM deliveries {_LANE}) BEGIN
    UPDATE deliveries SET turn = {_URGENT} WHERE seq = {_HEAD};
END\
"""

# Each index is a tree to write for every delivery; these are what no look-up can do without. A conversation's lane is
# its owed deliveries in order; its head alone has a turn.
SCHEMA = f"""
CREATE TABLE deliveries (
    seq INTEGER PRIMARY KEY,              -- the place in the lane; a redrive takes a new one
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'sent', 'dead')),
    destination TEXT NOT NULL,
    conversation TEXT NOT NULL,
    memory TEXT,                          -- key of the conversation's memory
    rank INTEGER NOT NULL,
    turn INTEGER,                         -- of a head: the most urgent rank in its lane
    due REAL DEFAULT 0,                   -- not before then; NULL while it is being sent
    content BLOB NOT NULL,                -- JSON with a version
    accepted_at REAL NOT NULL,            -- wall clock
    born REAL NOT NULL,
    since REAL NOT NULL,                  -- RELAY_MAX_AGE counts from here; a redrive sets it anew
    held REAL NOT NULL,                   -- the destination's held time at birth
    attempts INTEGER NOT NULL DEFAULT 0,
    ambiguous INTEGER NOT NULL DEFAULT 0,
    settled REAL,                         -- when it was told or given up; what has none is owed
    chat_id TEXT,
    message_id INTEGER,
    reason TEXT,
    history TEXT NOT NULL DEFAULT '[]'    -- [wall clock, outcome, reason], the last ones
);
CREATE INDEX deliveries_lane ON deliveries (destination, conversation, rank, seq) WHERE settled IS NULL;
CREATE INDEX deliveries_turn ON deliveries (destination, turn, seq) WHERE due = 0 AND turn IS NOT NULL;
CREATE INDEX deliveries_due ON deliveries (due) WHERE due > 0;
CREATE INDEX deliveries_owed ON deliveries (seq) WHERE settled IS NULL;
CREATE INDEX deliveries_dead ON deliveries (seq) WHERE state = 'dead';
CREATE INDEX deliveries_settled ON deliveries (state, settled) WHERE settled IS NOT NULL;

CREATE TABLE conversations (
    key TEXT PRIMARY KEY,
    memory BLOB NOT NULL,
    alert TEXT,                           -- id of the delivery that later notices reply to
    touched REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX conversations_touched ON conversations (touched);

CREATE TABLE seen (
    key TEXT PRIMARY KEY,
    delivery TEXT,
    digest TEXT,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX seen_at ON seen (at);

CREATE TABLE holds (chat_id TEXT PRIMARY KEY, until REAL NOT NULL, reason TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE held (destination TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE moved (old TEXT PRIMARY KEY, new TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;

-- accepted = sent + pending + sending + dead + expired, at every instant: no code path can forget to count.
CREATE TABLE tally (accepted, pending, sending, sent, dead, expired, alive_wall, alive_at);
INSERT INTO tally VALUES (0, 0, 0, 0, 0, 0, NULL, NULL);
CREATE TRIGGER deliveries_accepted AFTER INSERT ON deliveries BEGIN
    UPDATE tally SET accepted = accepted + 1, pending = pending + 1;
END;
CREATE TRIGGER deliveries_turned AFTER UPDATE OF state ON deliveries WHEN old.state <> new.state BEGIN
    UPDATE tally SET
        pending = pending + (new.state = 'pending') - (old.state = 'pending'),
        sending = sending + (new.state = 'sending') - (old.state = 'sending'),
        sent = sent + (new.state = 'sent') - (old.state = 'sent'),
        dead = dead + (new.state = 'dead') - (old.state = 'dead');
END;
CREATE TRIGGER deliveries_expired AFTER DELETE ON deliveries BEGIN
    UPDATE tally SET
        expired = expired + 1,
        pending = pending - (old.state = 'pending'),
        sending = sending - (old.state = 'sending'),
        sent = sent - (old.state = 'sent'),
        dead = dead - (old.state = 'dead');
END;

-- Whoever joins a lane stands behind its head, and lends it its urgency. A head that leaves makes room for the next.
CREATE TRIGGER deliveries_joined AFTER INSERT ON deliveries {_JOIN};
CREATE TRIGGER deliveries_redriven AFTER UPDATE OF seq ON deliveries {_JOIN};
CREATE TRIGGER deliveries_left AFTER UPDATE OF settled ON deliveries WHEN new.settled IS NOT NULL {_LEAVE};
CREATE TRIGGER deliveries_withdrawn AFTER DELETE ON deliveries WHEN old.settled IS NULL
{_LEAVE.replace("new.", "old.")};
"""


class Damaged(sqlite3.DatabaseError):
    """What SQLite raises where it stumbles over damage by itself."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def open_database(path: Path) -> sqlite3.Connection:
    """The outbox's connection. Raises NotOurDatabase, or sqlite3.DatabaseError where the file is damaged."""
    demand_ours(path)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0, cached_statements=256)
    try:
        if not db.execute("PRAGMA user_version").fetchone()[0]:  # a first start cut off is taken back by now
            db.executescript(
                f"PRAGMA auto_vacuum=INCREMENTAL; BEGIN IMMEDIATE; {SCHEMA}"
                f"PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={SCHEMA_VERSION}; COMMIT;"
            )
        small = path.stat().st_size < MOST_CHECKED  # a larger one's damage shows where it is read
        if small and db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise Damaged("database disk image is malformed")
        db.executescript(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=OFF;"
            "PRAGMA journal_size_limit=33554432; PRAGMA cache_size=-3072; PRAGMA temp_store=MEMORY;"
        )
    except BaseException:
        db.close()
        raise
    return db


def demand_ours(path: Path) -> bool:
    """Whether the file is an outbox; False where nothing is in it yet. Raises NotOurDatabase, Damaged, OSError.

    Looks at its bytes alone, for SQLite cannot open a file with a log and leave both as they are.
    """
    head = _first_page(path)
    if not head:
        return False
    if not head.startswith(_MAGIC):
        raise Damaged("file is not a database")
    cookie, version, application = (int.from_bytes(head[place : place + 4]) for place in (40, 60, 68))
    if application != APPLICATION_ID:
        if not (cookie or version or application):
            return False
        raise NotOurDatabase(
            f"RELAY_DATABASE: {path} is another program's database; name a file that is ours or does not exist yet"
        )
    if version > SCHEMA_VERSION:
        raise NotOurDatabase(
            f"RELAY_DATABASE: {path} was written by a newer chatwoot-relay (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); upgrade chatwoot-relay again, or name another file"
        )
    if version < SCHEMA_VERSION:
        raise NotOurDatabase(
            f"RELAY_DATABASE: {path} was written before the first release; move it away, or name another file"
        )
    return True


def _first_page(path: Path) -> bytes:
    """How its first page begins, as the file's log has it last (sqlite.org/fileformat2.html).

    What a power failure tore may stand at the log's end; to check its sums would take long. So a log never says of a
    file of ours that it is none.
    """
    head = b""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        head = file.read(100)
    with contextlib.suppress(FileNotFoundError), path.with_name(path.name + "-wal").open("rb") as log:
        begin, found = log.read(32), head
        size, salts = int.from_bytes(begin[8:12]), begin[16:24]
        while (frame := log.read(24)) and frame[8:16] == salts:
            if int.from_bytes(frame[:4]) == 1:
                page = log.read(100)
                log.seek(-len(page), os.SEEK_CUR)
                if page.startswith(_MAGIC) and (head[68:72] != _OURS or page[68:72] == _OURS):
                    found = page
            head = found if any(frame[4:8]) else head  # a commit
            log.seek(size, os.SEEK_CUR)
    return head


def aside(wall: float) -> str:
    """How the name of a file ends that was set aside then."""
    return datetime.fromtimestamp(wall, UTC).strftime("corrupt-%Y%m%dT%H%M%SZ")


# --- a delivery's content on disk: the alert, not its text, so that better wording rescues what is kept ---

_tolerant = Converter(forbid_extra_keys=False)


def pack(content: Content) -> bytes:
    """Versioned JSON. Lone surrogates are gone by now: the door replaced them."""
    return msgspec.json.encode({"v": 1, "alert" if isinstance(content, Alert) else "notice": content})


def unpack(stored: bytes) -> Content | None:
    """The reverse, tolerant of members that other versions add or lack; None where nothing can be read."""
    try:
        document = msgspec.json.decode(stored)
        if "alert" in document:
            return _tolerant.structure(document["alert"], Alert)
        return _tolerant.structure(document["notice"], Notice)
    except Exception:  # a damaged row is buried, it does not stop the sender
        return None


def recall(stored: bytes) -> Memory | None:
    """A conversation's memory. Another version's is as if never seen, which at worst tells once more."""
    try:
        return _tolerant.structure(msgspec.json.decode(stored), Memory)
    except Exception:  # whatever it is, it is not ours
        return None
