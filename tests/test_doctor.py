"""`doctor`: every usual mistake is recognised, and comes with what to do."""

from __future__ import annotations

import asyncio
import email.utils
import fcntl
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pytest
from aiohttp import web
from faults import FaultyTelegram, Script, refusal

from chatwoot_relay import doctor
from chatwoot_relay.doctor import Finding
from chatwoot_relay.faketelegram import TOKEN, Complaint
from chatwoot_relay.schema import APPLICATION_ID, SCHEMA_VERSION

NOW = 1_800_000_000.0


async def examine(
    telegram: FaultyTelegram, tmp_path: Path, *, send: bool = False, now: float = NOW, **environ: str
) -> list[Finding]:
    async with telegram.serving() as url:
        given = {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_CHAT_ID": "-1001",
            "TELEGRAM_API_URL": url,
            "CHATWOOT_URL": "https://chat.example.com",
            "RELAY_TOKEN": "s3cret-of-16-and-more",
            "RELAY_DATABASE": str(tmp_path / "outbox.db"),
        }
        return await doctor.examine(given | environ, directory=tmp_path, send=send, now=now)


def verdicts(findings: list[Finding]) -> dict[str, str]:
    return {finding.name: finding.verdict for finding in findings}


def only(findings: list[Finding], name: str) -> Finding:
    (finding,) = [each for each in findings if each.name == name]
    return finding


def answer(result: Any, **headers: str) -> Script:
    return Script(body=json.dumps({"ok": True, "result": result}).encode(), headers=headers)


async def test_a_good_installation_is_all_ticks(tmp_path: Path) -> None:
    """And nothing was said in the chat."""
    telegram = FaultyTelegram()
    found = await examine(telegram, tmp_path)
    assert verdicts(found) == {
        "settings": "ok",
        "access": "ok",
        "links": "ok",
        "outbox": "ok",
        "service": "warn",
        "clock": "fail",  # the test's now is made up
        "token": "ok",
        "bot": "ok",
        "chat": "ok",
        "rights": "ok",
        "thread": "ok",
    }
    assert telegram.told == []
    assert {call.method for call in telegram.calls} == {"getMe", "getWebhookInfo", "getChat", "getChatMember"}


async def test_wrong_settings_are_all_told(tmp_path: Path) -> None:
    """With the same words as at the start of the service."""
    found = await examine(FaultyTelegram(), tmp_path, TELEGRAM_CHAT_ID="team", RELAY_PORT="x")
    assert [(each.name, each.verdict) for each in found] == [("settings", "fail")] * 2
    assert (found[0].what, found[0].todo) == ("TELEGRAM_CHAT_ID is a bare name", "put an @ before it")


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RELAY_TOKEN": ""}, ["/api/v1/chatwoot/alerts", "/api/v1/chatwoot/webhook"]),
        ({"RELAY_TOKEN": "", "CHATWOOT_WEBHOOK_SECRET": "x"}, ["/api/v1/chatwoot/alerts"]),
        (
            {"RELAY_TOKEN": "", "RELAY_HOST": "0.0.0.0", "RELAY_ALLOW_ANONYMOUS": "yes"},
            ["/api/v1/chatwoot/alerts", "/api/v1/chatwoot/webhook"],
        ),
    ],
)
async def test_open_routes_are_named(tmp_path: Path, environ: dict[str, str], expected: list[str]) -> None:
    """A proxy may publish what listens on loopback."""
    found = [each for each in await examine(FaultyTelegram(), tmp_path, **environ) if each.name == "access"]
    assert [each.what.split(",")[0].split(" ")[0] for each in found] == expected
    assert {each.verdict for each in found} == {"warn"}
    assert all("other machines" in each.what for each in found) == ("RELAY_HOST" in environ)


async def test_a_short_token_is_a_warning_that_does_not_show_it(tmp_path: Path) -> None:
    """It is accepted, for it is the operator's choice; only who runs doctor learns that it is weak."""
    found = await examine(FaultyTelegram(), tmp_path, RELAY_TOKEN="0123456789abcde")
    (weak,) = [each for each in found if each.verdict == "warn" and each.name == "access"]
    assert ("fewer than 16 characters" in weak.what, "openssl rand -hex 32" in weak.todo) == (True, True)
    assert "0123456789" not in str(found)
    found = await examine(FaultyTelegram(), tmp_path, RELAY_TOKEN="0123456789abcdef")
    assert only(found, "access").verdict == "ok"


async def test_a_mistyped_variable_is_named(tmp_path: Path) -> None:
    """It is ignored in silence otherwise; where its namesake is missing most of all."""
    for environ in ({}, {"RELAY_PORT": "x"}):
        found = await examine(FaultyTelegram(), tmp_path, RELAY_TOKN="hunter2", **environ)
        assert "do you mean RELAY_TOKEN?" in found[0].what
        assert "hunter2" not in str(found)


async def test_an_event_that_chatwoot_never_sends_is_named(tmp_path: Path) -> None:
    """A mistyped one forwards nothing."""
    found = await examine(FaultyTelegram(), tmp_path, RELAY_EVENTS="useful,mesage_created")
    assert found[0].what == "RELAY_EVENTS has mesage_created, which Chatwoot never sends"
    assert found[0].todo == "write message_created"


async def test_a_dotenv_that_others_may_read_is_a_warning(tmp_path: Path) -> None:
    """The token in it lets anybody write in the team's name."""
    (tmp_path / ".env").write_text("RELAY_DOCS=off\n")
    for mode, verdicts in ((0o644, ["warn", "ok"]), (0o600, ["ok"])):
        (tmp_path / ".env").chmod(mode)
        found = await examine(FaultyTelegram(), tmp_path)
        assert [finding.verdict for finding in found if finding.name == "settings"] == verdicts


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("", "warn"),
        ("http://chatwoot:3000", "fail"),
        ("http://localhost", "fail"),
        ("https://chat.example.com/app/accounts/1", "warn"),
        ("https://chat.example.com", "ok"),
        ("http://10.0.0.7:3000", "ok"),
        ("http://[fd00::1]:3000", "ok"),
    ],
)
async def test_the_link_base_is_one_that_telegram_links(tmp_path: Path, url: str, verdict: str) -> None:
    """It drops links to hosts without a dot in silence; addresses pass."""
    assert only(await examine(FaultyTelegram(), tmp_path, CHATWOOT_URL=url), "links").verdict == verdict


# --- the outbox ---


def make_outbox(path: Path, *, application: int = APPLICATION_ID, version: int = SCHEMA_VERSION) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(
            f"PRAGMA application_id={application}; PRAGMA user_version={version};"
            "CREATE TABLE t (x); WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n LIMIT 5000)"
            " INSERT INTO t SELECT x FROM n; CREATE INDEX i ON t (x);"
        )
    path.chmod(0o600)


def test_a_sound_outbox_is_left_as_it_is(tmp_path: Path) -> None:
    """Its owner may start at any moment: nothing is written, no lock stays."""
    path = tmp_path / "outbox.db"
    make_outbox(path)
    before = path.read_bytes()
    assert doctor.check_outbox(path) == Finding("ok", "outbox", f"{path} is ours and sound")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["outbox.db"])


def test_an_outbox_in_use_is_not_judged_from_outside(tmp_path: Path) -> None:
    """A second reader of a database in use is unsafe on older SQLite."""
    path = tmp_path / "outbox.db"
    make_outbox(path)
    with (tmp_path / "outbox.db.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "in use" in doctor.check_outbox(path).what
    assert "sound" in doctor.check_outbox(path).what
    (tmp_path / "outbox.db-wal").write_bytes(b"x")
    assert "in use" in doctor.check_outbox(path).what


def test_each_fault_of_an_outbox_is_told_apart(tmp_path: Path) -> None:
    """Another program's file must not be taken, a newer one's not be opened, a damaged one not be trusted."""
    path = tmp_path / "outbox.db"
    assert "will be made" in doctor.check_outbox(path).what
    path.touch()
    assert doctor.check_outbox(path).verdict == "ok"
    path.write_text("a diary")
    assert "not a database" in doctor.check_outbox(path).what
    path.unlink()
    make_outbox(path, application=1)
    assert "another program's" in doctor.check_outbox(path).what
    path.unlink()
    make_outbox(path, version=SCHEMA_VERSION + 1)
    assert "newer chatwoot-relay" in doctor.check_outbox(path).what
    path.unlink()
    make_outbox(path)
    path.chmod(0o644)
    assert doctor.check_outbox(path).verdict == "warn"
    path.chmod(0o600)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * 8192 + whole[16384:])
    assert "damaged" in doctor.check_outbox(path).what
    path.write_bytes(whole[:5000])
    assert "damaged" in doctor.check_outbox(path).what
    gone = tmp_path / "gone"
    assert "no directory" in doctor.check_outbox(gone / "outbox.db", state="/var/lib/other").what
    assert "will be made" in doctor.check_outbox(gone / "outbox.db", state=str(gone)).what
    assert "cannot be read" in doctor.check_outbox(make_directory(tmp_path / "folder.db")).what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_what_is_not_ours_to_write_is_told(tmp_path: Path) -> None:
    """It was once started by another user; the service would not start."""
    path = tmp_path / "outbox.db"
    make_outbox(path)
    path.chmod(0o400)
    assert doctor.check_outbox(path).what == f"{path} is not writable"
    tmp_path.chmod(0o500)
    assert doctor.check_outbox(path).what == f"{tmp_path} is not writable"
    tmp_path.chmod(0o700)


def make_directory(path: Path) -> Path:
    path.mkdir()
    return path


# --- the service ---


async def serve_status(path: Path, status: Any, tally: Any = None) -> web.AppRunner:
    """A service's Unix socket that says so."""

    async def tell(request: web.Request) -> web.Response:
        return web.json_response(status if request.match_info["verb"] == "status" else tally)

    app = web.Application()
    app.router.add_post("/{verb}", tell)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    return runner


async def test_a_running_service_tells_what_ails_it(tmp_path: Path) -> None:
    """It knows what no look from outside can see: holds, dead letters, refused signatures."""
    status = {
        "status": "degraded",
        "detail": "Telegram holds the chat for 41 s",
        "signature_refusals": {"mismatch": 4, "stale": 1},
    }
    runner = await serve_status(tmp_path / "outbox.db.sock", status, {"pending": 3, "dead": 2})
    try:
        found = await examine(FaultyTelegram(), tmp_path)
    finally:
        await runner.cleanup()
    told = [(each.name, each.verdict, each.what) for each in found if each.name in ("service", "signature")]
    assert told == [
        ("service", "fail", "degraded: Telegram holds the chat for 41 s"),
        ("service", "warn", "2 dead letters"),
        ("signature", "fail", "1 refused: its time was over 5 minutes off"),
        ("signature", "fail", "4 refused: another secret, or a body changed on its way"),
    ]


async def test_a_healthy_service_is_a_tick(tmp_path: Path) -> None:
    """In its own words."""
    status = {"status": "healthy", "detail": None, "describe": "3 queued"}
    runner = await serve_status(tmp_path / "outbox.db.sock", status, {"dead": 0})
    try:
        found = only(await examine(FaultyTelegram(), tmp_path), "service")
    finally:
        await runner.cleanup()
    assert found == Finding("ok", "service", "running: 3 queued")


@pytest.mark.parametrize("status", [5, [], {}])
async def test_a_stranger_on_the_socket_is_no_service(tmp_path: Path, status: Any) -> None:
    """It must not break the check."""
    runner = await serve_status(tmp_path / "outbox.db.sock", status, [1])
    try:
        assert only(await examine(FaultyTelegram(), tmp_path), "service").what == "not running here"
    finally:
        await runner.cleanup()


# --- Telegram ---


@pytest.mark.parametrize(("token", "said"), [("1:wrong", "Unauthorized")])
async def test_a_wrong_token_is_named(tmp_path: Path, token: str, said: str) -> None:
    """And not repeated."""
    found = await examine(FaultyTelegram(), tmp_path, TELEGRAM_BOT_TOKEN=token)
    assert found[-1] == Finding(
        "fail", "token", f"Telegram refuses the token: {said}", "copy it whole from @BotFather: /mybots"
    )


@pytest.mark.parametrize("code", [429, 500, 502])
async def test_a_telegram_in_trouble_is_no_wrong_token(tmp_path: Path, code: int) -> None:
    """Who believes it makes a new token for nothing."""
    telegram = FaultyTelegram()
    telegram.script(refusal(code, "Some trouble"), method="getMe")
    said = "asks us to wait" if code == 429 else "does not answer"
    assert (await examine(telegram, tmp_path))[-1].what.endswith(f"Telegram {said} (Some trouble)")


async def test_a_refusal_without_words_is_told_by_its_number(tmp_path: Path) -> None:
    """Nothing to wrap must not break the report."""
    telegram = FaultyTelegram()
    telegram.script(refusal(401, ""), method="getMe")
    assert "HTTP 401" in doctor.report(await examine(telegram, tmp_path))


async def test_without_a_network_all_else_is_still_checked(tmp_path: Path) -> None:
    """What can be seen from here is seen, and the token stays out of the words."""
    found = await examine(FaultyTelegram(), tmp_path, TELEGRAM_API_URL="http://127.0.0.1:1")
    assert verdicts(found)["outbox"] == "ok"
    assert found[-1].what.startswith("127.0.0.1:1: Telegram does not answer (ClientConnectorError")
    assert "curl -I http://127.0.0.1:1" in found[-1].todo
    assert TOKEN not in str(found)


async def test_a_proxy_that_answers_for_telegram_is_named(tmp_path: Path) -> None:
    """A captive portal says 200 and HTML."""
    telegram = FaultyTelegram()
    telegram.script(Script(body=b"<html>please log in"), method="getMe")
    assert "HTTP 200 without JSON" in (await examine(telegram, tmp_path))[-1].what


@pytest.mark.parametrize(
    ("skew", "verdict", "what"),
    [
        (0, "ok", "right"),
        (-31, "warn", "31 s slow"),
        (301, "fail", "301 s fast"),
        (None, "ok", "not compared: the answer has no date"),
    ],
)
def test_a_wrong_clock_is_seen_by_telegrams(skew: float | None, verdict: str, what: str) -> None:
    """Signatures more than five minutes off are refused, and nobody thinks of the clock."""
    date = "" if skew is None else email.utils.formatdate(NOW - skew, usegmt=True)
    finding = doctor.check_clock(date, now=NOW)
    assert (finding.verdict, finding.what) == (verdict, what)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://chat.example.com/webhooks/telegram/123:abc", "Telegram inbox of Chatwoot at chat.example.com"),
        ("https://n8n.example.com/hook?token=s3cret", "n8n.example.com reads"),
    ],
)
async def test_a_bot_that_another_program_owns_is_named(tmp_path: Path, url: str, words: str) -> None:
    """Sharing the token of Chatwoot's Telegram inbox puts alerts among customers. Its URL holds a token."""
    telegram = FaultyTelegram(webhook_url=url)
    finding = only(await examine(telegram, tmp_path), "bot")
    assert (finding.verdict, words in finding.what) == ("warn", True)
    assert "s3cret" not in str(finding)
    assert "123:abc" not in str(finding)


@pytest.mark.parametrize(
    ("chat", "known", "todo"),
    [
        ("1234", "-1234", "set TELEGRAM_CHAT_ID=-1234"),
        ("1234", "-1001234", "set TELEGRAM_CHAT_ID=-1001234"),
        ("-1234", "-1001234", "set TELEGRAM_CHAT_ID=-1001234"),
        ("-1234", "1234", "set TELEGRAM_CHAT_ID=1234"),
        ("1234", "-99", "the person opens https://t.me/chatwoot_relay_bot and presses Start"),
        ("-1234", "-99", "add @chatwoot_relay_bot to the group"),
        ("@team", "-99", "@names are public groups and channels only"),
    ],
)
async def test_the_usual_mistakes_in_a_chat_id_are_recognised(tmp_path: Path, chat: str, known: str, todo: str) -> None:
    """People lose the minus or the -100; a person has to press Start first."""
    finding = only(await examine(FaultyTelegram(chats={known}), tmp_path, TELEGRAM_CHAT_ID=chat), "chat")
    assert finding.verdict == "fail"
    assert finding.todo.startswith(todo)


async def test_a_bot_that_was_thrown_out_is_told_so(tmp_path: Path) -> None:
    """The queue waits for it."""
    kicked = Complaint("Forbidden: bot was kicked from the supergroup chat", 403)
    finding = only(await examine(FaultyTelegram(refusals={"-1001": kicked}), tmp_path), "chat")
    assert (finding.what, finding.todo.split(",")[0]) == (
        "bot was kicked from the supergroup chat",
        "put @chatwoot_relay_bot into the chat again",
    )


async def test_a_group_that_moved_is_followed(tmp_path: Path) -> None:
    """The relay follows by itself; the setting should too."""
    finding = only(await examine(FaultyTelegram(moved={"-1001": -10055}), tmp_path), "chat")
    assert (finding.verdict, finding.todo) == ("warn", "set TELEGRAM_CHAT_ID=-10055")


CHANNEL = {"id": -1001, "type": "channel", "title": "Alerts"}
GROUP = {"id": -1001, "type": "supergroup", "title": "Support"}


@pytest.mark.parametrize(
    ("chat", "member", "verdict"),
    [
        (CHANNEL, {"status": "administrator", "can_post_messages": True}, "ok"),
        (CHANNEL, {"status": "administrator", "can_post_messages": False}, "fail"),
        (CHANNEL, {"status": "member"}, "fail"),
        (GROUP, {"status": "member"}, "ok"),
        (GROUP, {"status": "left"}, "fail"),
        (GROUP, {"status": "kicked"}, "fail"),
        (GROUP, {"status": "restricted", "can_send_messages": False}, "fail"),
        (GROUP, {"status": "restricted", "can_send_messages": True}, "ok"),
        (GROUP, {"status": "restricted", "can_send_messages": True, "is_member": False}, "fail"),
        (GROUP | {"permissions": {"can_send_messages": False}}, {"status": "member"}, "fail"),
        (GROUP | {"permissions": {"can_send_messages": False}}, {"status": "administrator"}, "ok"),
    ],
)
async def test_the_right_to_write_is_checked(
    tmp_path: Path, chat: dict[str, Any], member: dict[str, Any], verdict: str
) -> None:
    """In a channel only an administrator posts; a group may be muted. Privacy mode does not matter for sending."""
    telegram = FaultyTelegram(member=member)
    telegram.script(answer(chat), method="getChat")
    assert only(await examine(telegram, tmp_path), "rights").verdict == verdict


async def test_a_member_that_telegram_will_not_tell_of_is_a_failure(tmp_path: Path) -> None:
    """In a channel a bot that is no admin may not even ask."""
    telegram = FaultyTelegram()
    telegram.script(refusal(400, "Bad Request: CHAT_ADMIN_REQUIRED"), method="getChatMember")
    assert only(await examine(telegram, tmp_path), "rights").what == "CHAT_ADMIN_REQUIRED"


async def test_a_person_needs_no_rights(tmp_path: Path) -> None:
    """Who pressed Start can be written to."""
    telegram = FaultyTelegram()
    telegram.script(answer({"id": 7, "type": "private", "first_name": "Ann\x1b[31m"}), method="getChat")
    found = await examine(telegram, tmp_path, TELEGRAM_CHAT_ID="7")
    assert "rights" not in verdicts(found)
    assert only(found, "chat").what == "Ann?[31m (private)"


@pytest.mark.parametrize(
    ("threads", "thread", "verdict", "words"),
    [
        (None, "", "ok", "no topics"),
        (None, "5", "warn", "no topics"),
        ({5}, "", "ok", "General"),
        ({5}, "1", "ok", "General"),
        ({5}, "5", "ok", "--send"),
    ],
)
async def test_topics_are_understood(
    tmp_path: Path, threads: set[int] | None, thread: str, verdict: str, words: str
) -> None:
    """General is 1 in links and none in calls."""
    finding = only(await examine(FaultyTelegram(threads=threads), tmp_path, TELEGRAM_THREAD_ID=thread), "thread")
    assert (finding.verdict, words in finding.what) == (verdict, True)


async def test_a_message_is_the_only_proof_and_goes_at_once(tmp_path: Path) -> None:
    """Silent, in the right topic, and deleted again."""
    telegram = FaultyTelegram(threads={5})
    found = await examine(telegram, tmp_path, send=True, TELEGRAM_THREAD_ID="5")
    assert only(found, "send") == Finding("ok", "send", "a silent message arrived")
    (sent,) = [call.payload for call in telegram.calls if call.method == "sendMessage"]
    assert (sent["disable_notification"], sent["message_thread_id"]) == (True, 5)
    assert telegram.told == []


async def test_general_is_written_to_without_a_topic(tmp_path: Path) -> None:
    """Telegram does not know the topic 1 when it is asked to send there."""
    found = await examine(FaultyTelegram(threads={5}), tmp_path, send=True, TELEGRAM_THREAD_ID="1")
    assert only(found, "send").verdict == "ok"


async def test_what_telegram_says_to_the_message_is_told(tmp_path: Path) -> None:
    """A topic that is gone shows only here."""
    finding = only(await examine(FaultyTelegram(threads={5}), tmp_path, send=True, TELEGRAM_THREAD_ID="6"), "send")
    assert (finding.what, "lists topics" in finding.todo) == ("message thread not found", True)
    telegram = FaultyTelegram()
    telegram.script(refusal(400, "Bad Request: not enough rights to send text messages to the chat"))
    finding = only(await examine(telegram, tmp_path, send=True), "send")
    assert (finding.verdict, finding.todo) == ("fail", "mend what Telegram says, and run it again")


async def test_a_message_that_stays_is_admitted(tmp_path: Path) -> None:
    """The operator may delete it by hand."""
    telegram = FaultyTelegram()
    telegram.script(refusal(400, "Bad Request: message can't be deleted"), method="deleteMessage")
    assert "by hand" in only(await examine(telegram, tmp_path, send=True), "send").what


# --- how it is told ---

FINDINGS = [
    Finding("ok", "settings", "complete and well-formed"),
    Finding(
        "fail", "chat", "chat not found, and these are many words about it " * 3, "set TELEGRAM_CHAT_ID=-1001 " * 6
    ),
    Finding("warn", "clock", "31 s slow", "timedatectl set-ntp true"),
]


def test_the_report_fits_a_terminal_of_80_columns() -> None:
    """One line for what is wrong, one for what to do."""
    text = click.unstyle(doctor.report(FINDINGS))
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert text.splitlines()[0] == "✓ settings  complete and well-formed"
    assert text.splitlines()[-2:] == ["! clock     31 s slow", "            → timedatectl set-ntp true"]


def test_the_report_can_do_without_fancy_signs() -> None:
    """A terminal in the C locale cannot show a tick."""
    text = click.unstyle(doctor.report(FINDINGS, fancy=False))
    assert text.isascii()
    assert text.splitlines()[0] == "ok   settings  complete and well-formed"


# --- the command ---


async def run_command(*arguments: str, **environ: str) -> tuple[int, str]:
    """`chatwoot-relay …` in a process of its own, as a person has it: exit code and output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chatwoot_relay",
        *arguments,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(doctor.__file__).parent.parent), **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_the_command_ends_with_1_where_something_failed(tmp_path: Path) -> None:
    """For scripts; and nothing is coloured that is no terminal."""
    telegram = FaultyTelegram(chats={"-10042"})
    async with telegram.serving() as url:
        environ = {
            "TELEGRAM_BOT_TOKEN": TOKEN,
            "TELEGRAM_CHAT_ID": "-10042",
            "TELEGRAM_API_URL": url,
            "RELAY_DATABASE": str(tmp_path / "outbox.db"),
        }
        code, output = await run_command("doctor", "--send", PYTHONUTF8="1", **environ)
        assert (code, "✓ send      a silent message arrived" in output, "\x1b" in output) == (0, True, False)
        code, output = await run_command("doctor", "--json", **environ | {"TELEGRAM_CHAT_ID": "42"})
        told = json.loads(output)
        assert (code, told["ok"], told["checks"][0]["name"]) == (1, False, "settings")
        code, output = await run_command("doctor", PYTHONIOENCODING="ascii", **environ | {"TELEGRAM_CHAT_ID": "42"})
        assert (code, "fail chat      42 is unknown, -10042 is" in output) == (1, True)


async def test_chats_are_listed_for_who_has_a_token_only(tmp_path: Path) -> None:
    """The chat id is what is looked for; without anybody to ask, no other program's poll is ended."""
    telegram = FaultyTelegram()
    async with telegram.serving() as url:
        environ = {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_API_URL": url}
        code, output = await run_command("chats", **environ)
        assert (code, "press Start" in output) == (1, True)
        assert "getUpdates" not in {call.method for call in telegram.calls}
        telegram.updates = [{"message": {"chat": {"id": 7, "type": "private", "first_name": "Ann"}}}]
        assert await run_command("chats", **environ) == (0, "# Ann (private)\nTELEGRAM_CHAT_ID=7\n")
