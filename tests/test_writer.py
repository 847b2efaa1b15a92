"""One thread, one connection, one lock: what is answered is on disk, and nothing of one harms another."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from virtual import FakeClock

from chatwoot_relay.errors import NotOurDatabase, OutboxUnavailable, Taken
from chatwoot_relay.housekeeping import announce
from chatwoot_relay.journal import Told
from chatwoot_relay.models import Alert, Delivery
from chatwoot_relay.outbox import Accepted, Arrival, Store
from chatwoot_relay.schema import open_database
from chatwoot_relay.writer import MAX_BATCH, Outbox, Place

DAY = 86400.0
HOME = Path(__file__).parent.parent


@contextlib.asynccontextmanager
async def opened(folder: Path, *, clock: FakeClock | None = None, name: str = "outbox.db") -> AsyncIterator[Outbox]:
    outbox = Outbox(folder / name, clock=clock or FakeClock())
    outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


async def owe(outbox: Outbox, id: str, message: str = "x", *, conversation: Any = "1") -> Accepted:
    alert = Alert(severity="high", reason="X", conversation_id=1, message=message)
    now = outbox.now()
    return await outbox.enqueue(Arrival(alert, id, "team", conversation, now))


async def claim(outbox: Outbox, count: int = 9) -> list[Delivery]:
    now = outbox.now()
    return await outbox.do(lambda store: store.claim({"team": count}, now=now, max_age=1e9)[0])


async def blocked(outbox: Outbox) -> threading.Event:
    """Keep the thread busy until the event is set; what is handed in meanwhile makes one batch."""
    begun, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def block(store: Store) -> None:
        loop.call_soon_threadsafe(begun.set)
        go.wait(10)

    waiting = asyncio.create_task(outbox.do(block))
    await begun.wait()
    assert not waiting.done()
    return go


# --- commits ---


async def test_what_waits_is_committed_together(tmp_path: Path) -> None:
    """One sync for all who come while the last one runs: 200 alerts do not cost 200 syncs."""
    async with opened(tmp_path) as outbox:
        commits = 0

        def count(statement: str) -> None:
            nonlocal commits
            commits += statement == "COMMIT"

        await outbox.do(lambda store: store.db.set_trace_callback(count))
        go = await blocked(outbox)
        tasks = [asyncio.create_task(owe(outbox, str(number))) for number in range(MAX_BATCH + 10)]
        await asyncio.sleep(0)
        before = commits
        go.set()
        await asyncio.gather(*tasks)
        assert commits - before <= 4
        assert (outbox.tally.accepted, outbox.tally.pending) == (MAX_BATCH + 10, MAX_BATCH + 10)


@pytest.mark.parametrize(
    ("poison", "error"),
    [("\ud800", UnicodeEncodeError), (2**70, OverflowError), (object(), sqlite3.Error), ("1", sqlite3.IntegrityError)],
)
async def test_a_poisoned_item_harms_no_other(tmp_path: Path, poison: Any, error: type) -> None:
    """Neither a lone surrogate nor a number beyond 64 bits is an sqlite3.Error; the thread survives both."""
    async with opened(tmp_path) as outbox:
        await owe(outbox, "known")
        go = await blocked(outbox)
        alert = Alert(severity="high", reason="X", conversation_id=1, message="x")
        id = "known" if poison == "1" else "poisoned"

        def half(store: Store) -> None:
            store.remember("half", 1)
            store.enqueue(alert, id=id, destination="team", conversation=poison, now=0)

        tasks = [
            asyncio.create_task(owe(outbox, "before")),
            asyncio.create_task(outbox.do(half)),
            asyncio.create_task(owe(outbox, "after")),
        ]
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[1], error)
        assert [isinstance(result, Accepted) for result in results] == [True, False, True]
        assert await outbox.do(lambda store: store.fact("half")) is None, "undone as a whole"
        assert outbox.tally.accepted == 3


async def test_a_dead_thread_leaves_nobody_waiting(tmp_path: Path) -> None:
    """The process ends over it; until then every request is refused, not kept for ever."""
    outbox = Outbox(tmp_path / "outbox.db", clock=FakeClock())
    outbox.open()
    go = await blocked(outbox)
    tasks = [asyncio.create_task(outbox.do(lambda store: sys.exit("a bug"))), asyncio.create_task(owe(outbox, "a"))]
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(SystemExit):
        await outbox.dead
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(result, OutboxUnavailable)
    with pytest.raises(OutboxUnavailable, match="died"):
        await owe(outbox, "b")
    await outbox.close()


async def test_what_one_took_back_is_not_taken_for_known(tmp_path: Path) -> None:
    """An event that could not be accepted has seen no account; the next of another account is not alone."""
    async with opened(tmp_path) as outbox:

        def receive(store: Store) -> None:
            store._is_sole("7")
            raise OutboxUnavailable("the queue is full")

        go = await blocked(outbox)
        asked = [asyncio.create_task(outbox.do(receive)), asyncio.create_task(owe(outbox, "a"))]
        await asyncio.sleep(0)
        go.set()
        refused, accepted = await asyncio.gather(*asked, return_exceptions=True)
        assert (str(refused), accepted) == ("the queue is full", Accepted(id="a"))
        assert await outbox.do(lambda store: (store._is_sole("8"), store.fact("account"))) == (True, 8.0)


async def test_a_claim_that_fails_is_a_bug_that_ends_it(tmp_path: Path) -> None:
    """Tried again with every batch, it would hold up everyone for ever."""
    outbox = Outbox(tmp_path / "outbox.db", clock=FakeClock())
    outbox.open()
    await owe(outbox, "a")
    outbox.park(Place(print), lambda store: {}["a bug"])
    with pytest.raises(KeyError, match="a bug"):
        await outbox.dead
    await outbox.close()


async def test_what_waits_to_claim_is_served_with_the_commit_that_accepts(tmp_path: Path) -> None:
    """One sync from accepting to sending, not two; taken back, it claims nothing."""
    async with opened(tmp_path) as outbox:

        def work(store: Store) -> Any:
            return store.claim({"team": 1}, now=outbox.now(), max_age=1e9)

        taken: list[Any] = []
        standing = Place(taken.append)
        outbox.park(standing, work)
        await outbox.do(lambda store: None)
        assert taken == []
        await owe(outbox, "a")
        assert [delivery.id for delivery in taken[0][0]] == ["a"]
        outbox.park(standing, work)  # served already: it must not claim again
        await owe(outbox, "b", conversation="2")
        other = Place(taken.append)
        outbox.park(other, work)
        outbox.park(other, None)
        await owe(outbox, "c", conversation="3")
        assert (len(taken), outbox.tally.sending) == (1, 1)


async def test_what_came_while_no_claim_stood_is_claimed_by_the_next(tmp_path: Path) -> None:
    """Nothing else may come for an hour."""
    async with opened(tmp_path) as outbox:
        await owe(outbox, "a")
        taken: asyncio.Queue[Any] = asyncio.Queue()
        place = Place(taken.put_nowait)
        outbox.park(place, lambda store: store.claim({"team": 1}, now=outbox.now(), max_age=1e9))
        assert [delivery.id for delivery in (await taken.get())[0]] == ["a"]


# --- who may open it ---


async def test_a_second_one_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    """Two on one file would tell everything twice, and may harm an older SQLite's log."""
    async with opened(tmp_path):
        with pytest.raises(Taken, match=str(os.getpid())):
            Outbox(tmp_path / "outbox.db", clock=FakeClock()).open()
    async with opened(tmp_path) as outbox:
        await owe(outbox, "a")


async def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    """It holds customers' words; also where the file was there before, more open."""
    (tmp_path / "outbox.db").touch(mode=0o644)
    old = os.umask(0)
    try:
        async with opened(tmp_path) as outbox:
            await owe(outbox, "a")
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(
        ["outbox.db", "outbox.db-wal", "outbox.db-shm", "outbox.db.lock", "outbox.db.told"], 0o600
    )


@pytest.mark.parametrize("kind", ["foreign", "newer", "text"])
async def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    """However often it is tried: the first try must not make it look like ours to the second."""
    path = tmp_path / "precious"
    if kind == "text":
        path.write_text("a diary\n" * 1000)
    elif kind == "newer":
        db = open_database(path)
        db.execute("PRAGMA user_version = 99")
        db.close()
    else:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.execute("CREATE TABLE theirs (x)")
    path.chmod(0o640)
    before = path.read_bytes()
    for _ in range(3):
        with pytest.raises(NotOurDatabase, match="RELAY_DATABASE"):
            Outbox(path, clock=FakeClock()).open()
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.endswith(("-wal", "-shm"))) == ["precious"]


# --- damage ---


async def fill(folder: Path, count: int) -> None:
    async with opened(folder) as outbox:
        for number in range(count):
            await owe(outbox, str(number), "x" * 3000, conversation=str(number))
        first = (await claim(outbox, 1))[0]
        now = outbox.now()
        await outbox.do(lambda store: store.told_all([Told(first.seq, now, "-1", 1)]))


@pytest.mark.parametrize("damage", ["rubble", "truncated", "an index", "the last pages"])
async def test_a_damaged_file_is_set_aside_and_rescued_from(tmp_path: Path, damage: str) -> None:
    """What can be read of it is owed still, as young as it was; what cannot is beside, for people to look at."""
    await fill(tmp_path, 20)
    path = tmp_path / "outbox.db"
    raw = bytearray(path.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as db:
        (index,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_owed'").fetchone()
    match damage:
        case "rubble":
            raw[:] = b"\xa5" * len(raw)
        case "truncated":
            del raw[len(raw) // 2 // 4096 * 4096 :]
        case "an index":
            raw[(index - 1) * 4096 : index * 4096] = b"\xa5" * 4096
        case _:
            raw[-3 * 4096 :] = b"\xa5" * (3 * 4096)
    path.write_bytes(raw)
    with structlog.testing.capture_logs() as logs:
        async with opened(tmp_path) as outbox:
            assert outbox.damaged is not None
            assert Path(outbox.damaged).read_bytes() == raw
            rescued = await outbox.do(lambda store: store.newest(state="pending", limit=99))
            if damage == "an index":
                assert len(rescued) == 19
            now = outbox.now()
            claimed, died = await outbox.do(lambda store: store.claim({"team": 99}, now=now, max_age=60))
            assert (len(claimed), died) == (len(rescued), [])
            await owe(outbox, "new")
            assert outbox.tally.accepted == len(rescued) + 1
    assert [line["rescued"] for line in logs if line["event"] == "outbox.damaged"] == [len(rescued)]
    async with opened(tmp_path) as outbox:
        assert outbox.damaged is None


def spoil(path: Path, table: str) -> bytes:
    """Make rubble of one page of the table, or index; what is in the file then."""
    raw = bytearray(path.read_bytes())
    with contextlib.closing(sqlite3.connect(path)) as db:
        (page,) = db.execute("SELECT max(pageno) FROM dbstat WHERE name = ? AND pagetype = 'leaf'", (table,)).fetchone()
    raw[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(raw)
    return bytes(raw)


async def survivors(folder: Path) -> set[str]:
    """What is claimed of a damaged outbox, once that was noticed and what comes is accepted again."""
    async with opened(folder) as outbox:
        claimed: list[Delivery] = []
        with contextlib.suppress(OutboxUnavailable):
            claimed += await claim(outbox, 99)
        await owe(outbox, "new", conversation="new")
        assert outbox.damaged is not None
        claimed += await claim(outbox, 99)
    found = {delivery.id for delivery in claimed}
    assert "new" in found
    return found


async def test_one_bad_page_costs_what_is_on_it(tmp_path: Path) -> None:
    """What lies behind it is owed still; dead letters are kept too."""
    async with opened(tmp_path) as outbox:
        for number in range(300):
            await owe(outbox, str(number), "x" * 300, conversation=str(number))
        died = (await claim(outbox, 1))[0]
        await outbox.do(lambda store: store.bury(died.seq, now=1, reason="refused"))
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as db:
        leaves = db.execute("SELECT pageno FROM dbstat WHERE name = 'deliveries' AND pagetype = 'leaf'").fetchall()
    raw = bytearray((tmp_path / "outbox.db").read_bytes())
    page = leaves[len(leaves) // 2][0]
    raw[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    (tmp_path / "outbox.db").write_bytes(raw)
    async with opened(tmp_path) as outbox:
        assert outbox.tally.pending > 280
        assert (outbox.tally.dead, outbox.tally.accepted) == (1, outbox.tally.pending + 1)
        (dead,) = await outbox.do(lambda store: store.newest(state="dead", limit=9))
        assert (dead["id"], dead["reason"]) == (died.id, "refused")


@pytest.mark.parametrize("when", ["the new one was begun", "it was whole", "the old one was moved"])
async def test_a_rescue_that_was_cut_off_is_finished(tmp_path: Path, when: str) -> None:
    """A kill or a full disk in the middle of it loses nothing, and the team hears of it all the same."""
    await fill(tmp_path, 20)
    path = tmp_path / "outbox.db"
    spoil(path, "deliveries_lane")
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / path.name).write_bytes(path.read_bytes())
    (whole / "outbox.db.lock").touch()
    async with opened(whole) as outbox:
        assert outbox.tally.pending == 19
    if when == "the new one was begun":
        (tmp_path / "outbox.db.part").write_bytes(b"SQLite")
    else:
        (tmp_path / "outbox.db.new").write_bytes((whole / path.name).read_bytes())
    if when == "the old one was moved":
        path.rename(tmp_path / "outbox.db.corrupt-x")
    async with opened(tmp_path) as outbox:
        assert outbox.damaged is not None
        assert outbox.tally.pending == 19
        assert await outbox.do(lambda store: announce(store, id="n", destination="team", now=1))
        assert not await outbox.do(lambda store: announce(store, id="m", destination="team", now=2))
    assert not list(tmp_path.glob("*.new*")) + list(tmp_path.glob("*.part*"))
    assert list(tmp_path.glob("*.corrupt-*"))


async def test_a_rescue_without_room_leaves_the_old_file(tmp_path: Path) -> None:
    """Once there is room, it is done."""
    await fill(tmp_path, 20)
    path = tmp_path / "outbox.db"
    raw = spoil(path, "deliveries_lane")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, hard))
    try:
        with pytest.raises((OSError, sqlite3.Error)):
            Outbox(path, clock=FakeClock()).open()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == raw
    async with opened(tmp_path) as outbox:
        assert outbox.tally.pending == 19


async def test_a_file_that_was_emptied_beside_its_log_is_set_aside(tmp_path: Path) -> None:
    """What was accepted is not in it; nobody must take it for a first start."""
    outbox = Outbox(tmp_path / "outbox.db", clock=FakeClock())
    outbox.open()
    await owe(outbox, "a")
    log = (tmp_path / "outbox.db-wal").read_bytes()
    await outbox.close()
    (tmp_path / "outbox.db").write_bytes(b"")
    (tmp_path / "outbox.db-wal").write_bytes(log)
    async with opened(tmp_path) as outbox:
        assert outbox.damaged is not None
        assert Path(outbox.damaged + "-wal").read_bytes() == log


@pytest.mark.parametrize("where", ["CREATE TABLE seen", "good4pending"])
async def test_a_byte_that_is_no_text_is_damage(tmp_path: Path, where: str) -> None:
    """Python cannot read it: it must neither keep the relay from starting nor stand in every answer."""
    async with opened(tmp_path) as outbox:
        for number in range(9):
            await owe(outbox, f"good{number}", conversation=str(number))
    path = tmp_path / "outbox.db"
    raw = path.read_bytes()
    place = raw.index(where.encode())
    path.write_bytes(raw[:place] + b"\xff" + raw[place + 1 :])
    found = await survivors(tmp_path)
    assert where != "good4pending" or {"good3", "good5"} <= found


async def test_what_is_remembered_is_rescued_too(tmp_path: Path) -> None:
    """Telegram's wait, a group's move, the keys of what was told; a destination that is damaged is the only one."""
    async with opened(tmp_path) as outbox:
        for number in range(9):
            await owe(outbox, str(number), conversation=str(number))
        await outbox.do(lambda store: store.hold("-1", until=9e9, reason="429"))
        await outbox.do(lambda store: store.move("-1", "-2"))
        await outbox.do(lambda store: store.were_held(now=1, seconds={"team": 1e6}))
        once = Arrival(
            Alert(severity="high", reason="X", conversation_id=1, message="x"), "k", "team", "k", outbox.now()
        )
        await outbox.do(lambda store: store.enqueue_once(once, key="key:1", digest="d"))
        await outbox.do(lambda store: store.db.execute("UPDATE deliveries SET destination = 'tea' WHERE id = '4'"))
        await outbox.do(lambda store: store.db.execute("UPDATE deliveries SET content = x'ff' WHERE id = '5'"))
    spoil(tmp_path / "outbox.db", "seen_at")
    async with opened(tmp_path) as outbox:
        assert await outbox.do(lambda store: store.holds(now=1)) == {"-1": (9e9, "429")}
        assert await outbox.do(lambda store: store.moves()) == {"-1": "-2"}
        again = await outbox.do(lambda store: store.enqueue_once(once, key="key:1", digest="d"))
        assert not again.fresh
        assert {"4", "k"} <= {delivery.id for delivery in await claim(outbox, 99)}
        ages = await outbox.do(lambda store: store.db.execute("SELECT DISTINCT held FROM deliveries").fetchall())
        assert ages == [(1e6,)], "what was held before it was rescued makes it no younger"
        assert await outbox.do(lambda store: store.fact("deaths_untold")) == 1
        assert (await outbox.do(lambda store: store.show("5")))["state"] == "dead"
        assert outbox.damaged is not None


async def test_showing_what_cannot_be_read_harms_nothing(tmp_path: Path) -> None:
    """It is a dead letter, shown as it is."""
    async with opened(tmp_path) as outbox:
        await owe(outbox, "a")
        await outbox.do(lambda store: store.db.execute("UPDATE deliveries SET content = x'7bff'"))
    async with opened(tmp_path) as outbox:
        assert await claim(outbox) == []
        shown = await outbox.do(lambda store: store.show("a"))
        assert (shown["state"], shown["content"], outbox.damaged) == ("dead", "{\ufffd", None)


async def test_what_was_set_aside_is_never_overwritten(tmp_path: Path) -> None:
    """It is the only copy of what was not rescued; two rescues may fall into one second."""
    await fill(tmp_path, 3)
    for _ in range(2):
        spoil(tmp_path / "outbox.db", "deliveries_lane")
        async with opened(tmp_path) as outbox:
            assert outbox.damaged is not None
    files = [path for path in tmp_path.glob("*.corrupt-*") if not path.name.endswith(("-wal", "-shm"))]
    assert [path.stat().st_size > 0 for path in files] == [True, True]


async def test_an_index_that_hides_a_delivery_is_damage(tmp_path: Path) -> None:
    """SQLite's quick check does not compare it with its table: the delivery would wait for ever."""
    async with opened(tmp_path) as outbox:
        await owe(outbox, "hidden")
        await owe(outbox, "behind")
        schema = "UPDATE sqlite_master SET sql = replace(sql, 'due = 0', 'due = 9') WHERE name = 'deliveries_turn'"
        await outbox.do(lambda store: store.db.execute("PRAGMA writable_schema=ON"))
        await outbox.do(lambda store: store.db.execute(schema))
        await outbox.do(lambda store: store.db.execute("PRAGMA writable_schema=RESET"))
        await outbox.do(lambda store: store.db.execute("REINDEX deliveries_turn"))
        await outbox.do(lambda store: store.db.execute("PRAGMA writable_schema=ON"))
        await outbox.do(lambda store: store.db.execute(schema.replace("'due = 0', 'due = 9'", "'due = 9', 'due = 0'")))
        await outbox.do(lambda store: store.db.execute("PRAGMA writable_schema=RESET"))
    async with opened(tmp_path) as outbox:
        with pytest.raises(OutboxUnavailable):
            await claim(outbox)
        assert outbox.damaged is not None
        assert [delivery.id for delivery in await claim(outbox)] == ["hidden"]


async def test_damage_met_while_running_is_refused_once_and_replaced(tmp_path: Path) -> None:
    """The request that meets it is told that nothing was accepted; the next one is accepted, the rest rescued."""
    await fill(tmp_path, 20)
    async with opened(tmp_path) as outbox:
        await owe(outbox, "flying", conversation="f")
        flying = next(d for d in await claim(outbox, 99) if d.id == "flying")
        path = tmp_path / "outbox.db"
        await outbox.do(lambda store: store.db.execute("PRAGMA cache_size=0"))
        connection = await outbox.do(lambda store: store.db)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_lane'").fetchone()
        with path.open("r+b") as file:
            file.seek((root - 1) * 4096)
            file.write(b"\xa5" * 4096)
        connection.execute("PRAGMA shrink_memory")
        with pytest.raises(OutboxUnavailable):
            await owe(outbox, "unlucky", conversation="u")
        assert outbox.damaged is not None
        await owe(outbox, "lucky", conversation="l")
        now = outbox.now()
        await outbox.do(lambda store: store.told_all([Told(flying.seq, now, "-1", 1)]))
        states = {row["id"]: row["state"] for row in await outbox.do(lambda s: s.newest(state=None, limit=99))}
        assert states["flying"] == "sent"
        assert "unlucky" not in states
        assert [states[id] for id in ("lucky", "19")] == ["pending", "sending"], "what is in flight is not begun again"


@pytest.mark.parametrize("damage", ["history = '{]'", "id = CAST(id AS BLOB)", "accepted_at = x'00'"])
async def test_damage_inside_a_row_stops_nobody(tmp_path: Path, damage: str) -> None:
    """SQLite's own check sees no flipped bit in a value; the row may be lost, what is behind it must not wait."""
    async with opened(tmp_path) as outbox:
        for id in ("bad", "good"):
            await owe(outbox, id, conversation=id)
        await claim(outbox)
        await outbox.do(lambda store: store.db.execute(f"UPDATE deliveries SET {damage} WHERE id = 'bad'"))
    assert "good" in await survivors(tmp_path)


# --- a disk that is full ---

WRITER = """
import asyncio, resource, sys, warnings
from pathlib import Path
sys.path[:0] = ["tests"]
from chatwoot_relay.writer import Outbox
from chatwoot_relay.errors import OutboxUnavailable
from test_writer import owe
async def main(path):
    outbox = Outbox(Path(path)); outbox.open()
    await owe(outbox, "before")
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    for number in range(3):
        try:
            await owe(outbox, f"full {number}"); print("accepted")
        except OutboxUnavailable as error:
            print("refused")
    print(outbox.refusal() is not None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    await owe(outbox, "after")
    print(outbox.refusal(), outbox.tally.accepted)
    await outbox.close()
asyncio.run(main(sys.argv[1]))
"""


async def test_a_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    """In a process of its own, for the limit is the process's: nothing refused is there afterwards, all else is."""
    path = tmp_path / "outbox.db"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", WRITER, str(path)], cwd=HOME, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if not line.startswith("20")]
    assert lines == ["refused", "refused", "refused", "True", "None 2"]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert [row[0] for row in db.execute("SELECT id FROM deliveries ORDER BY seq")] == ["before", "after"]


def test_no_limit_is_left_behind() -> None:
    """The limit of the test above must not have reached this process."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


async def test_a_database_that_another_has_locked_is_no_damage(tmp_path: Path) -> None:
    """Somebody looks into the file with a tool of his own: refused while he writes, and well again afterwards."""
    async with opened(tmp_path) as outbox:
        await owe(outbox, "a")
        await outbox.do(lambda store: store.db.execute("PRAGMA busy_timeout=1"))
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as nosy:
            nosy.execute("BEGIN IMMEDIATE")
            with pytest.raises(OutboxUnavailable, match="locked"):
                await owe(outbox, "b")
            assert outbox.refusal() is not None
            nosy.execute("ROLLBACK")
        await owe(outbox, "c")
        assert (outbox.refusal(), outbox.damaged, outbox.tally.accepted) == (None, None, 2)


async def test_a_full_queue_is_refused_before_the_body_is_worth_reading(tmp_path: Path) -> None:
    """From memory, without asking the thread."""
    outbox = Outbox(tmp_path / "outbox.db", clock=FakeClock(), max_pending=2)
    outbox.open()
    await owe(outbox, "a")
    assert outbox.refusal() is None
    await owe(outbox, "b")
    assert outbox.refusal() == "the queue is full"
    await claim(outbox, 1)
    assert outbox.refusal() is None
    await outbox.close()


# --- time ---


@pytest.mark.parametrize(
    ("jump", "passed"),
    [(0.0, 50.0), (DAY, DAY), (30 * DAY, DAY), (-DAY, 0.0)],
    ids=["none", "a day", "a month", "back"],
)
async def test_across_a_restart_the_wall_clock_counts_one_day_at_most(
    tmp_path: Path, jump: float, passed: float
) -> None:
    """A clock that was wrong must neither kill a queue by age nor hold it back for ever."""
    before = FakeClock()
    async with opened(tmp_path, clock=before) as outbox:
        await owe(outbox, "a")
        left = outbox.now()
    after = FakeClock()
    after.now = 7.0  # the machine was restarted: its monotonic clock begins anew
    after.jumped = before.wall() - after.wall() + 50.0 + jump
    async with opened(tmp_path, clock=after) as outbox:
        assert outbox.now() - left == pytest.approx(passed, abs=1e-3 if jump else 1e-6) or jump == DAY
        assert 0 <= outbox.now() - left <= DAY
        now = outbox.now()
        claimed, died = await outbox.do(lambda store: store.claim({"team": 1}, now=now, max_age=3 * DAY))
        assert ([delivery.id for delivery in claimed], died) == (["a"], [])


async def test_a_jump_while_it_runs_moves_no_age(tmp_path: Path) -> None:
    """Ages go with the monotonic clock; only what people read has the wall's."""
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as outbox:
        before = outbox.now()
        clock.jumped = -DAY
        assert outbox.now() == before
        await owe(outbox, "a")
        row = await outbox.do(lambda store: store.show("a"))
        assert row is not None
        assert row["accepted_at"] == pytest.approx(clock.wall())
