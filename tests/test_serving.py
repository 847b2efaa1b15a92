"""Starting it, stopping it, and what it says when it will not start: on the real process."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest
from relay_process import HEALTH, RELAY_TOKEN, House, RelayProcess, alert, new_id

from chatwoot_relay.faketelegram import TOKEN


async def refused(relay: RelayProcess, code: int) -> str:
    """It does not start; what it says."""
    found, told = await relay.run("serve")
    assert found == code, told
    assert "Traceback" not in told
    return told


async def test_every_complaint_is_made_at_once_and_repeats_no_secret(home: House) -> None:
    """An operator mends them in one go, and pastes what is said into a ticket. 78: systemd does not try again."""
    relay = await home.relay(
        start=False, TELEGRAM_BOT_TOKEN="my secret token", TELEGRAM_CHAT_ID="Support Team", RELAY_PORT="eighty",
        RELAY_REPLY_TIMEOUT="5", RELAY_RATE_LIMIT="often", TELEGRAM_API_URL="https://u:hunter2@x.example",
        CHATWOOT_WEBHOOK_SECRET="hunter3,,", RELAY_HOST="0.0.0.0", RELAY_PACING="fast", RELAY_RETENTION="a week",
    )  # fmt: skip
    told = await refused(relay, 78)
    for name in (
        "TELEGRAM_BOT_TOKEN", "TELEGRAM_CHAT_ID", "RELAY_PORT", "RELAY_REPLY_TIMEOUT", "RELAY_RATE_LIMIT",
        "TELEGRAM_API_URL", "CHATWOOT_WEBHOOK_SECRET", "RELAY_TOKEN", "RELAY_PACING", "RELAY_RETENTION",
    ):  # fmt: skip
        assert name in told
    for secret in ("my secret token", "hunter"):
        assert secret not in told


async def test_what_is_required_is_asked_for(home: House) -> None:
    """Without token and chat there is nobody to tell."""
    relay = await home.relay(start=False)
    del relay.settings["TELEGRAM_BOT_TOKEN"], relay.settings["TELEGRAM_CHAT_ID"]
    told = await refused(relay, 78)
    assert "TELEGRAM_BOT_TOKEN" in told
    assert "TELEGRAM_CHAT_ID" in told


async def test_beyond_loopback_it_wants_a_token_or_a_word(home: House) -> None:
    """Nobody opens a chat to the world by a slip; whoever means it says so."""
    relay = await home.relay(start=False, RELAY_HOST="0.0.0.0")
    assert "RELAY_TOKEN" in await refused(relay, 78)
    await relay.start(RELAY_ALLOW_ANONYMOUS="yes")
    relay.base = relay.base.replace("0.0.0.0", "127.0.0.1")
    assert (await relay.alert()).status == 200
    await relay.restart(RELAY_ALLOW_ANONYMOUS="no", RELAY_TOKEN=RELAY_TOKEN, RELAY_HOST="::")


async def test_open_routes_are_named_at_start(home: House) -> None:
    """On loopback too: a proxy may publish them."""
    relay = await home.relay()
    warned = " ".join(line["what"] for line in relay.lines if line["event"] == "relay.open")
    assert "/api/v1/chatwoot/alerts" in warned
    assert "/api/v1/chatwoot/webhook" in warned
    await relay.kill()
    relay.lines.clear()
    await relay.start(CHATWOOT_WEBHOOK_SECRET="x")
    warned = " ".join(line["what"] for line in relay.lines if line["event"] == "relay.open")
    assert "/api/v1/chatwoot/alerts" in warned
    assert "/api/v1/chatwoot/webhook" not in warned
    await relay.kill()
    relay.lines.clear()
    await relay.start(RELAY_TOKEN="x")
    assert not [line for line in relay.lines if line["event"] == "relay.open"]


async def test_a_second_relay_on_the_same_outbox_is_refused(home: House) -> None:
    """Two would tell everything twice. 75: another try may succeed."""
    relay = await home.relay()
    told = await refused(relay, 75)
    assert str(relay.process.pid if relay.process else "") in told
    assert "RELAY_DATABASE" in told
    assert (await relay.alert()).status == 200


async def test_a_port_in_use_is_named(home: House) -> None:
    """75, and who has it."""
    relay = await home.relay()
    other = await home.relay(start=False, RELAY_PORT=str(relay.port))
    told = await refused(other, 75)
    assert str(relay.port) in told
    assert "RELAY_PORT" in told


@pytest.mark.parametrize("kind", ["foreign", "newer", "text"])
async def test_a_file_that_is_not_ours_is_not_touched(home: House, kind: str) -> None:
    """A wrong RELAY_DATABASE must not cost another program its data."""
    relay = await home.relay(start=False, RELAY_DATABASE="theirs.db" if kind != "text" else "notes.txt")
    file = relay.folder / relay.settings["RELAY_DATABASE"]
    if kind == "text":
        file.write_text("not a database, yet dear to somebody\n" * 100)
    else:
        if kind == "newer":
            await relay.start()
            await relay.stop()
        db = sqlite3.connect(file)
        db.executescript(
            "PRAGMA user_version=9999" if kind == "newer" else "CREATE TABLE theirs (a); PRAGMA user_version=3"
        )
        db.close()
    before = file.read_bytes()
    told = await refused(relay, 78)
    assert "RELAY_DATABASE" in told
    assert file.read_bytes() == before


async def test_anything_else_ends_with_1(home: House) -> None:
    """A folder that may not be written is no setting that is wrong, nor held by another."""
    relay = await home.relay(start=False, RELAY_DATABASE="/sys/outbox.db")
    assert "/sys" in await refused(relay, 1)


async def test_secrets_come_from_files_and_the_environment_counts_first(home: House, tmp_path: Path) -> None:
    """systemd's credentials, Docker's secrets, a .env for trying it out."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "TELEGRAM_BOT_TOKEN").write_text(TOKEN + "\n")
    (credentials / "RELAY_TOKEN").write_text("of-credentials")
    (tmp_path / "token").write_text("of-a-file\n")
    relay = await home.relay(
        start=False, CREDENTIALS_DIRECTORY=str(credentials), RELAY_TOKEN_FILE=str(tmp_path / "token")
    )
    del relay.settings["TELEGRAM_BOT_TOKEN"]
    (relay.folder / ".env").write_text("RELAY_TOKEN=of-dotenv\nRELAY_DOCS=off\nTELEGRAM_BOT_TOKEN=1:wrong\n")
    await relay.start()
    assert (await relay.get("/docs")).status == 404
    for token, status in [("of-a-file", 200), ("of-credentials", 401), ("of-dotenv", 401)]:
        headers = {"Authorization": f"Bearer {token}"}
        assert (await relay.post("/api/v1/chatwoot/alerts", alert(), headers=headers)).status == status
    await relay.restart(RELAY_TOKEN="of-the-environment")
    assert (await relay.alert()).status == 200


async def test_the_outbox_lies_where_systemd_wants_it_and_is_ours_alone(home: House, tmp_path: Path) -> None:
    """It holds customers' words: 0600."""
    relay = await home.relay(STATE_DIRECTORY=str(tmp_path))
    assert (await relay.alert()).status == 200
    assert stat.S_IMODE((tmp_path / "outbox.db").stat().st_mode) == 0o600
    assert not (relay.folder / "outbox.db").exists()


async def test_it_stops_when_asked_and_says_so(home: House) -> None:
    """SIGTERM is the ordinary end: exit code 0."""
    relay = await home.relay()
    assert (await relay.get(HEALTH)).status == 200
    assert await relay.stop() == 0
    assert relay.lines[-1]["event"] == "relay.stopped"


@pytest.mark.parametrize("arguments", [("openapi",), ("--help",), ("serve", "--help"), ("render", "payload.json")])
async def test_some_commands_need_no_settings(home: House, arguments: tuple[str, ...]) -> None:
    """They say what could be set, and show what would be sent."""
    relay = await home.relay(start=False)
    relay.settings.clear()
    (relay.folder / "payload.json").write_text(json.dumps(alert(conversation_id=(number := new_id()))))
    code, told = await relay.run(*arguments)
    assert code == 0
    expected = {
        "openapi": '"3.1',
        "--help": "demo",
        "serve": "RELAY_RETENTION",
        "render": f"Conversation ID: #{number}",
    }
    assert expected[arguments[0]] in told
