"""What was told is known after a kill, before the database knows it; and nothing else is taken for told."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwoot_relay.journal import SLOTS, Journal, Told
from chatwoot_relay.writer import Outbox

HOME = Path(__file__).parent.parent
INT64 = st.integers(0, 2**63 - 1)


def reopened(path: Path, journal: Journal) -> list[Told]:
    journal.close()
    after = Journal(path)
    found = after.read()
    after.clear()
    after.close()
    return found


@given(seq=INT64, now=st.floats(0, 1e11), message_id=st.none() | INT64, number=st.integers(-(10**14), 10**14))
def test_what_is_noted_is_read_by_the_next(
    tmp_path_factory: pytest.TempPathFactory, seq: int, now: float, message_id: int | None, number: int
) -> None:
    """As it was, whatever Telegram's numbers are; once, for the database has it then."""
    path = tmp_path_factory.mktemp("journal") / "told"
    journal, told = Journal(path), Told(seq, now, str(number), message_id)
    assert journal.note(told)
    assert reopened(path, journal) == [told]
    assert reopened(path, Journal(path)) == []


def test_it_never_overwrites_what_the_database_lacks(tmp_path: Path) -> None:
    """Full, it says so, and whoever asked waits for the commit instead; what the database has makes room."""
    path = tmp_path / "told"
    journal = Journal(path)
    all = [Told(seq, 1.0, "-1", seq) for seq in range(SLOTS + 1)]
    assert [journal.note(told) for told in all] == [True] * SLOTS + [False]
    journal.forget(7)
    journal.forget(7)
    assert [journal.note(all[-1]), journal.note(Told(999, 1.0, "-1", 1))] == [True, False]
    assert sorted(told.seq for told in reopened(path, journal)) == sorted({*range(SLOTS + 1)} - {7})


def test_a_chat_that_does_not_fit_is_not_noted(tmp_path: Path) -> None:
    """Cut short it would name another chat."""
    assert not Journal(tmp_path / "told").note(Told(1, 1.0, "@" + "x" * 40, 1))


def test_rubble_is_no_note(tmp_path: Path) -> None:
    """A file that is torn, foreign or of another length says nothing."""
    path = tmp_path / "told"
    journal = Journal(path)
    for seq in (1, 2):
        journal.note(Told(seq, 1.0, "-1", seq))
    journal.close()
    raw = bytearray(path.read_bytes())
    raw[-68 + 3] ^= 1
    path.write_bytes(raw)
    assert [told.seq for told in reopened(path, Journal(path))] in ([1], [2])
    path.write_bytes(b"a diary")
    assert reopened(path, Journal(path)) == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from chatwoot_relay.journal import Told
from chatwoot_relay.models import Alert
from chatwoot_relay.outbox import Arrival
from chatwoot_relay.writer import Outbox
async def main(path):
    outbox = Outbox(Path(path)); outbox.open()
    now = outbox.now()
    for id in ("told", "flying"):
        alert = Alert(severity="high", reason="X", conversation_id=1, message="x")
        await outbox.enqueue(Arrival(alert, id, "team", id, now))
    claimed, _ = await outbox.do(lambda store: store.claim({"team": 2}, now=now, max_age=1e9))
    told = Told(claimed[0].seq, outbox.now(), "-1", 5)
    assert outbox.journal.note(told)
    outbox.told(told, lambda *_: None)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main(sys.argv[1]))
"""


async def test_a_kill_before_the_commit_forgets_nothing(tmp_path: Path) -> None:
    """Whoever was answered 200 sees no second copy; what was in flight is owed still, as perhaps told."""
    path = tmp_path / "outbox.db"
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(path)], cwd=HOME, check=False)
    assert done.returncode == -signal.SIGKILL
    outbox = Outbox(path)
    outbox.open()
    rows = {row["id"]: row for row in await outbox.do(lambda store: store.newest(state=None, limit=9))}
    assert (rows["told"]["state"], rows["told"]["telegram_message_id"]) == ("sent", 5)
    shown = await outbox.do(lambda store: store.show("flying"))
    assert shown is not None
    assert (shown["state"], shown["ambiguous"]) == ("pending", 1)
    await outbox.close()


FULL = """
import asyncio, os, resource, sys
from pathlib import Path
from chatwoot_relay.writer import Outbox
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1] + "-wal"), resource.RLIM_INFINITY))
async def main(): Outbox(Path(sys.argv[1])).open()
asyncio.run(main())
"""


async def test_what_could_not_be_marked_at_one_start_is_known_to_the_next(tmp_path: Path) -> None:
    """The journal is emptied once the database has it, not before: the disk may be full just then."""
    path = tmp_path / "outbox.db"
    for code in (KILLED, FULL):
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code, str(path)], cwd=HOME, check=False, capture_output=True
        )
        assert done.returncode != 0
    outbox = Outbox(path)
    outbox.open()
    states = {row["id"]: row["state"] for row in await outbox.do(lambda store: store.newest(state=None, limit=9))}
    assert states == {"told": "sent", "flying": "pending"}
    await outbox.close()


async def test_a_journal_of_another_databases_days_tells_nothing(tmp_path: Path) -> None:
    """Its places may be named again once that database was taken away; an alert must not be lost over it."""
    path = tmp_path / "outbox.db"
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", KILLED, str(path)], cwd=HOME, check=False)
    (tmp_path / "outbox.db.told").unlink()
    leftover = Journal(tmp_path / "outbox.db.told")
    for seq in (1, 2):
        leftover.note(Told(seq, time.time() - 3600, "-1", 5))
    leftover.close()
    outbox = Outbox(path)
    outbox.open()
    assert {row["state"] for row in await outbox.do(lambda store: store.newest(state=None, limit=9))} == {"pending"}
    await outbox.close()
