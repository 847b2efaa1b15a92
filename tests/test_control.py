"""The `outbox` commands, on a running relay and on one at rest."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
import stat
import time
from contextlib import closing
from datetime import datetime
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


async def test_a_backup_of_a_running_relay_can_be_started_from(home: House, tmp_path: Path) -> None:
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
    twice = await asyncio.gather(*(relay.run("outbox", "backup", str(tmp_path / name)) for name in "ab"))
    assert [code for code, _ in twice] == [0, 0]
    await relay.kill()
    for file in relay.folder.glob("outbox.db*"):
        file.unlink()
    shutil.copy(copy, relay.folder / "outbox.db")
    telegram.forget()
    await relay.start()
    await telegram.until(lambda: bool(telegram.told))
    assert ["before" in text for text in telegram.told] == [True]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_relay_at_rest_can_be_backed_up(home: House, tmp_path: Path, killed: bool) -> None:
    """Before an upgrade it may be stopped already, or have died. A backup onto the outbox itself would empty it."""
    relay = await home.relay()
    await relay.alert()
    refused = await relay.run("outbox", "backup", "outbox.db")
    await (relay.kill() if killed else relay.stop())
    assert await relay.run("outbox", "backup", "outbox.db") == refused
    assert (refused[0], "is the outbox itself" in refused[1]) == (1, True)
    code, _ = await relay.run("outbox", "backup", str(tmp_path / "copy.db"))
    assert code == 0
    with closing(sqlite3.connect(tmp_path / "copy.db")) as db:
        assert db.execute("SELECT count(*) FROM deliveries").fetchone() == (1,)
    await relay.start()
    assert (await listed(relay))["tally"]["accepted"] == 1  # type: ignore[index]


async def test_a_backup_that_cannot_be_made_says_why_and_what_to_do(home: House, tmp_path: Path) -> None:
    """A bare errno helps nobody before an upgrade. What was to be replaced stays where there is nothing to copy."""
    relay = await home.relay(start=False)
    kept = tmp_path / "kept.db"
    kept.write_text("older")
    code, told = await relay.run("outbox", "backup", str(kept))
    assert (code, "no outbox at" in told, "set RELAY_DATABASE" in told) == (1, True, True)
    with closing(sqlite3.connect(relay.folder / "outbox.db")) as db:
        db.execute("CREATE TABLE theirs (x)")
    code, told = await relay.run("outbox", "backup", str(kept))
    assert (code, "another program's" in told) == (78, True)
    (relay.folder / "outbox.db").unlink()
    await relay.start()
    code, told = await relay.run("outbox", "backup", "/nope/b.db")
    assert (code, told) == (
        1,
        "chatwoot-relay: /nope/b.db cannot be written: No such file or directory; "
        "make /nope a directory that we may write to, or name another file\n",
    )
    assert kept.read_text() == "older"


async def test_a_delivery_is_shown_with_times_that_people_read(home: House) -> None:
    """A program gets the numbers, as `list --json` has them."""
    relay = await home.relay()
    before = time.time()
    shown = (await relay.alert()).headers["X-Delivery-ID"]
    _, told = await relay.run("outbox", "show", shown, "--json")
    row = json.loads(told)
    assert before - 1 < row["accepted_at"] < time.time() + 1
    _, told = await relay.run("outbox", "show", shown)
    read = json.loads(told)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", read["accepted_at"])
    for was, now in [(row["accepted_at"], read["accepted_at"]), (row["history"][0][0], read["history"][0][0])]:
        assert abs(datetime.fromisoformat(now).timestamp() - was) < 0.001
    assert read["history"][0][1] == row["history"][0][1] == "sent"


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
