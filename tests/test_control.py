"""The `outbox` commands, on a running relay and on one at rest."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import stat
import time
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
    code, told = await relay.run("outbox", "redrive", "nothing")
    assert (code, "not a dead letter: nothing; chatwoot-relay outbox list --state dead has them" in told) == (1, True)
    assert (await relay.run("outbox", "redrive", row["id"], row["id"])) == (0, "1 will be sent again.\n")
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


async def test_a_link_to_the_outbox_is_the_outbox(home: House) -> None:
    """By whatever name: it has one lock, and commands find the service that holds it."""
    relay = await home.relay()
    await relay.alert()
    (relay.folder / "link.db").symlink_to("outbox.db")
    code, told = await relay.run("outbox", "list", RELAY_DATABASE="link.db")
    assert (code, "1 sent" in told) == (0, True)
    code, told = await relay.run("serve", RELAY_DATABASE="link.db", RELAY_PORT="0")
    assert (code, "in use by process" in told) == (75, True)
    code, told = await relay.run("outbox", "list", RELAY_DATABASE="/dev/null")
    assert (code, "no regular file" in told) == (78, True)


async def test_a_service_that_hangs_is_not_said_to_be_absent(home: House) -> None:
    """To start it again would not help."""
    relay = await home.relay()
    assert relay.process is not None
    relay.process.send_signal(signal.SIGSTOP)
    try:
        _, told = await relay.run("doctor", "--json")
    finally:
        relay.process.send_signal(signal.SIGCONT)
    assert "it runs, and does not answer" in told


async def test_a_delivery_is_shown_with_times_that_people_read(home: House) -> None:
    """A program gets the numbers from `list --json`."""
    relay = await home.relay()
    before = time.time()
    shown = (await relay.alert()).headers["X-Delivery-ID"]
    _, told = await relay.run("outbox", "show", shown)
    row = json.loads(told)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["accepted_at"])
    for moment in (row["accepted_at"], row["history"][0][0]):
        assert before - 1 < datetime.fromisoformat(moment).timestamp() < time.time() + 1
    assert row["history"][0][1] == "sent"


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
