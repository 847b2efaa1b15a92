"""The `outbox` commands, on a running relay and on one at rest."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest
from faults import Script, refusal
from relay_process import House, RelayProcess

from chatwoot_relay.control import ask, socket_path
from chatwoot_relay.errors import RelayError


async def listed(relay: RelayProcess, *arguments: str) -> dict[str, object]:
    code, told = await relay.run("outbox", "list", "--json", *arguments)
    assert code == 0, told
    return json.loads(told)  # type: ignore[no-any-return]


async def test_a_dead_letter_is_seen_explained_and_told_again_while_the_relay_runs(home: House) -> None:
    """The operator mends the cause and redrives; the sender wakes at once."""
    telegram = home.telegram
    relay = await home.relay()
    telegram.script(refusal(400, "Bad Request: something new"))
    assert (await relay.alert(message="marker")).status == 502
    (row,) = (await listed(relay, "--state", "dead"))["deliveries"]  # type: ignore[misc]
    code, told = await relay.run("outbox", "show", row["id"])
    assert (code, "something new" in told, "marker" in told) == (0, True, True)
    code, told = await relay.run("outbox", "list", "--state", "dead")
    assert (code, row["id"] in told, "something new" in told) == (0, True, True)
    assert (await relay.run("outbox", "redrive", row["id"])) == (0, "1 will be sent again.\n")
    await telegram.until(lambda: any("marker" in text for text in telegram.told))


async def test_without_a_running_relay_the_file_itself_is_read(home: House) -> None:
    """What is owed is seen at rest too, and what is redriven there is told after the start."""
    telegram = home.telegram
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0")
    telegram.down = Script(status=500)
    await relay.alert(message="marker")
    await relay.stop()
    assert (await listed(relay))["tally"]["pending"] == 1  # type: ignore[index]
    code, told = await relay.run("outbox", "show", "nothing")
    assert (code, "no delivery nothing" in told) == (1, True)
    telegram.forget()
    await relay.start()
    await telegram.until(lambda: bool(telegram.told))


async def test_a_backup_is_made_by_the_running_relay_and_can_be_started_from(home: House, tmp_path: Path) -> None:
    """It goes on meanwhile; the copy is whole, readable by its owner only, and a relay of its own."""
    telegram = home.telegram
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0")
    telegram.down = Script(status=500)
    await relay.alert(message="before")
    copy = tmp_path / "copy.db"
    copy.write_text("an older one that anybody may read")
    copy.chmod(0o644)
    code, told = await relay.run("outbox", "backup", str(copy))
    assert (code, told) == (0, f"{copy}: {copy.stat().st_size} bytes\n")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(f"{copy.as_uri()}?mode=ro&immutable=1", uri=True)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM deliveries WHERE state = 'pending'").fetchone() == (1,)
    assert (await relay.alert(message="after")).status == 202
    twice = await asyncio.gather(*(ask(relay.folder / "outbox.db", "backup") for _ in range(2)))
    assert [copied[:15] for copied in twice] == [b"SQLite format 3"] * 2
    assert list(relay.folder.glob("*.backup")) == []
    await relay.kill()
    for file in relay.folder.glob("outbox.db*"):
        file.unlink()
    shutil.copy(copy, relay.folder / "outbox.db")
    telegram.forget()
    await relay.start()
    await telegram.until(lambda: bool(telegram.told))
    assert ["before" in text for text in telegram.told] == [True]


async def test_a_relay_at_rest_can_be_backed_up(home: House, tmp_path: Path) -> None:
    """Before an upgrade it may be stopped already. A backup onto the outbox itself would empty it."""
    relay = await home.relay()
    await relay.alert()
    refused = await relay.run("outbox", "backup", "outbox.db")
    await relay.stop()
    assert await relay.run("outbox", "backup", "outbox.db") == refused
    assert (refused[0], "is the outbox itself" in refused[1]) == (1, True)
    code, _ = await relay.run("outbox", "backup", str(tmp_path / "copy.db"))
    assert code == 0
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)


async def test_only_its_owner_reaches_the_outbox(home: House) -> None:
    """The file and the socket hold customers' words."""
    relay = await home.relay()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in relay.folder.iterdir()
        if path.name in ("outbox.db", "outbox.db.sock")
    }
    assert modes == {"outbox.db": 0o600, "outbox.db.sock": 0o600}


@pytest.mark.parametrize("hangs_up", [False, True])
async def test_a_service_that_does_not_answer_is_not_taken_for_none(tmp_path: Path, hangs_up: bool) -> None:
    """Whoever takes it for none goes on to open the file under it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n") if hangs_up else await reader.read()
        writer.close()

    outbox = tmp_path / "outbox.db"
    async with await asyncio.start_unix_server(serve, socket_path(outbox)):
        with pytest.raises(RelayError, match="does not answer"):
            await ask(outbox, "list", patience=0.05)
    with pytest.raises(OSError, match="outbox"):
        await ask(outbox, "list")
