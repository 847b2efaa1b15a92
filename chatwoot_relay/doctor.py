"""A self-check that says what is wrong and what to do about it. Changes nothing, and sends nothing unasked."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import fcntl
import json
import os
import shutil
import sqlite3
import struct
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import attrs
import click

from . import settings as configuration
from .chats import Bot, Unusable, open_bot, printable, said, title
from .chatwoot import KNOWN_EVENTS
from .control import ask
from .errors import ConfigurationError, RelayError
from .kinds import is_loopback
from .outbox import APPLICATION_ID, SCHEMA_VERSION
from .settings import Settings
from .telegram import GENERAL_TOPIC, Answer

SIGNS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
SMALLEST_DISK = 64 * 1024 * 1024  # bytes; the outbox refuses below
SKEW_REFUSED, SKEW_TOLD = 300.0, 30.0  # seconds
PATIENCE = 5.0  # seconds for the running service
SIGNATURES = {  # why the running service refused one, and which mistake that looks like
    "malformed": (
        "its headers are not Chatwoot's",
        "let the proxy pass X-Chatwoot-Signature and -Timestamp on as they are",
    ),
    "stale": ("its time was over 5 minutes off", "compare `date -u` here and on Chatwoot's machine; turn NTP on"),
    "mismatch": (
        "another secret, or a body changed on its way",
        "each webhook, agent bot and API inbox has its own secret: list them all; no proxy may rewrite the body",
    ),
}


@attrs.frozen
class Finding:
    """What one check found. *verdict* is "ok", "warn" or "fail"."""

    name: str
    verdict: str
    what: str
    todo: str = ""


# --- What can be seen from here ---


def check_names(environ: Mapping[str, str], directory: Path) -> Iterator[Finding]:
    """A mistyped name is why another is missing."""
    for warning in configuration.unknown(environ, directory=directory):
        yield Finding("settings", "warn", warning, "correct or remove it")


def check_settings(settings: Settings) -> Iterator[Finding]:
    for name in configuration.unknown_events(settings, KNOWN_EVENTS):
        what = f"RELAY_EVENTS has {name}, which Chatwoot never sends"
        yield Finding("settings", "warn", what, "correct or remove it")
    yield Finding("settings", "ok", "complete and well-formed")
    opened = configuration.open_routes(settings)
    public = not is_loopback(settings.relay_host)
    for route in opened:
        what, _, todo = route.partition(": ")
        where = "from other machines" if public else "on loopback; a proxy may publish it"
        yield Finding("access", "warn", f"{what} ({where})", todo)
    if not opened:
        yield Finding("access", "ok", "nobody posts without a secret")


def check_links(settings: Settings) -> Finding:
    """Telegram makes no link of a host without a dot."""
    if settings.chatwoot_url is None:
        return Finding("links", "warn", "no base for links", "set CHATWOOT_URL=https://… as people open the dashboard")
    parts = urlsplit(settings.chatwoot_url)
    name = parts.hostname or ""
    if "." not in name and not is_address(name):
        return Finding(
            "links", "fail", f"Telegram makes no link of the host {name}", "set CHATWOOT_URL to its public name"
        )
    if parts.path:
        return Finding("links", "warn", f"CHATWOOT_URL has a path: {parts.path}", "give the part before /app alone")
    return Finding("links", "ok", settings.chatwoot_url)


def is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def check_outbox(path: Path, *, state: str = "") -> Finding:
    """Look at the file without touching it: its owner may be running. systemd makes *state* when it starts us."""
    folder = path.parent
    if not folder.is_dir():
        if folder == Path(state):
            return Finding("outbox", "ok", f"{path} will be made at the first start")
        return Finding("outbox", "fail", f"there is no directory {folder}", "make it, or set RELAY_DATABASE")
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("outbox", "fail", f"{folder} is not writable", "run as the service's user, or mend its owner")
    if shutil.disk_usage(folder).free < SMALLEST_DISK:
        return Finding("outbox", "fail", "less than 64 MiB of disk are free: alerts are refused", "make room")
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return Finding("outbox", "ok", f"{path} will be made at the first start")
    except OSError as error:
        return Finding("outbox", "fail", f"{path} cannot be read: {error.strerror}", "mend its owner and mode")
    if not head:
        return Finding("outbox", "ok", f"{path} is empty, and will be filled at the first start")
    version, application = struct.unpack_from(">I4xI", head.ljust(100, b"\0"), 60)
    if not head.startswith(b"SQLite format 3\0") or application != APPLICATION_ID:
        return Finding(
            "outbox", "fail", f"{path} is another program's", "set RELAY_DATABASE to a file of ours or a new one"
        )
    if not os.access(path, os.W_OK):
        return Finding("outbox", "fail", f"{path} is not writable", "run as the service's user, or mend its owner")
    if version > SCHEMA_VERSION:
        return Finding("outbox", "fail", f"{path} is of a newer version", "upgrade chatwoot-relay again")
    if path.stat().st_mode & 0o077:
        return Finding("outbox", "warn", f"others may read {path}", f"chmod 600 {path}")
    if is_locked(path) or has_log(path):  # in use, or to be recovered at the start: not to be judged from outside
        return Finding("outbox", "ok", f"{path} is ours and in use")
    if not is_sound(path):
        return Finding(
            "outbox", "fail", f"{path} is damaged", "start the service: it moves it aside and saves what it can"
        )
    return Finding("outbox", "ok", f"{path} is ours and sound")


def is_locked(path: Path) -> bool:
    """Whether a process holds the outbox's lock."""
    with contextlib.suppress(OSError), path.with_name(path.name + ".lock").open("rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False


async def running_status(path: Path) -> dict[str, Any] | None:
    """What the service on this outbox says of itself; None where none answers."""
    try:
        async with asyncio.timeout(PATIENCE):
            status = await ask(path, "status")
            return {**status, "dead": dict(await ask(path, "tally")).get("dead")}
    except (aiohttp.ClientError, RelayError, OSError, ValueError, TypeError):
        return None


def check_service(status: Mapping[str, Any] | None) -> Iterator[Finding]:
    if status is None:
        yield Finding("service", "warn", "not running here", "systemctl start chatwoot-relay, or chatwoot-relay serve")
        return
    trouble = status.get("detail")
    if trouble:
        yield Finding("service", "fail", f"{status.get('status')}: {trouble}", "mend that; it goes on by itself")
    else:
        yield Finding("service", "ok", f"running: {status.get('describe', 'healthy')}")
    if dead := status["dead"]:
        todo = "`chatwoot-relay outbox list --state dead` says why; `outbox redrive` tells them"
        yield Finding("service", "warn", f"{dead} dead letters", todo)
    refused = status.get("signature_refusals") or {}
    for verdict, (what, todo) in SIGNATURES.items():
        if count := refused.get(verdict):
            yield Finding("signature", "fail", f"{count} refused: {what}", todo)


# --- What Telegram says ---


async def check_telegram(settings: Settings, bot: Bot, *, send: bool, now: float) -> AsyncIterator[Finding]:
    """Token, clock, chat, rights, topic, in the order in which one needs the other."""
    try:
        answer = await bot.ask("getMe")
        yield check_clock(answer.headers.get("Date", ""), now=now)
        me = (answer.body or {}).get("result")
        if not isinstance(me, dict):
            yield Finding(
                "token", "fail", f"Telegram refuses the token: {said(answer)}", "copy it whole from @BotFather: /mybots"
            )
            return
        name = printable(str(me.get("username")))
        yield Finding("token", "ok", f"@{name}")
        yield check_webhook(await bot.result("getWebhookInfo") or {})
        answer = await bot.ask("getChat", chat_id=settings.telegram_chat_id)
        chat = (answer.body or {}).get("result")
        if not isinstance(chat, dict):
            yield await explain_chat(settings, bot, answer, name=name)
            return
        yield Finding("chat", "ok", f"{title(chat)} ({chat.get('type')})")
        if chat.get("type") != "private":
            yield await check_rights(bot, chat, me)
        yield check_thread(settings.telegram_thread_id, chat)
        if send:
            yield await check_send(settings, bot)
    except Unusable as why:
        host = urlsplit(settings.telegram_api_url).netloc
        todo = f"try `curl -I {settings.telegram_api_url}`: name server, firewall, proxy?"
        yield Finding("telegram", "fail", f"{host}: {why}", todo)


def check_clock(date: str, *, now: float) -> Finding:
    """Telegram's clock is right: signatures more than five minutes off are refused."""
    told = email.utils.parsedate_tz(date)
    if told is None:
        return Finding("clock", "ok", "not compared: the answer has no date")
    skew = now - email.utils.mktime_tz(told)
    if abs(skew) < SKEW_TOLD:
        return Finding("clock", "ok", "right")
    verdict = "fail" if abs(skew) >= SKEW_REFUSED else "warn"
    return Finding("clock", verdict, f"{abs(skew):.0f} s {'fast' if skew > 0 else 'slow'}", "timedatectl set-ntp true")


def check_webhook(info: Mapping[str, Any]) -> Finding:
    """A bot has one owner of its updates; sending works beside it."""
    url = str(info.get("url") or "")
    if not url:
        return Finding("bot", "ok", "no other program has a webhook on it")
    host = printable(urlsplit(url).netloc)
    if "/webhooks/telegram" in url:
        what = f"this bot is a Telegram inbox of Chatwoot at {host}: customers write to it"
        return Finding("bot", "warn", what, "make a bot of its own for alerts: /newbot at @BotFather")
    return Finding("bot", "warn", f"{host} reads what is written to this bot", "make a bot of its own for alerts")


async def explain_chat(settings: Settings, bot: Bot, answer: Answer, *, name: str) -> Finding:
    """Which of the usual mistakes makes Telegram not know the chat."""
    chat, words = settings.telegram_chat_id, said(answer)
    moved = ((answer.body or {}).get("parameters") or {}).get("migrate_to_chat_id")
    if moved:
        return Finding("chat", "warn", "the group became a supergroup", f"set TELEGRAM_CHAT_ID={moved}")
    if answer.status == 403:
        return Finding("chat", "fail", words, f"put @{name} into the chat again, or unblock it")
    if isinstance(chat, int):
        digits = str(abs(chat))
        meant = [f"-{digits}", f"-100{digits}"] if chat > 0 else [f"-100{digits}", digits]
        for guess in meant:
            if found := await bot.result("getChat", chat_id=int(guess)):
                what = f"{chat} is unknown, {guess} is “{title(found)}”"
                return Finding("chat", "fail", what, f"set TELEGRAM_CHAT_ID={guess}")
        if chat > 0:
            todo = f"the person opens https://t.me/{name} and presses Start; a group's id begins with a minus"
            return Finding("chat", "fail", words, todo)
        return Finding("chat", "fail", words, f"add @{name} to the group, then `chatwoot-relay chats` tells its id")
    return Finding("chat", "fail", words, f"@names are public groups and channels only; is @{name} in it?")


async def check_rights(bot: Bot, chat: Mapping[str, Any], me: Mapping[str, Any]) -> Finding:
    """Whether the bot may write there. Privacy mode does not matter: it limits what a bot reads."""
    answer = await bot.ask("getChatMember", chat_id=chat["id"], user_id=me.get("id"))
    member = (answer.body or {}).get("result")
    name = printable(str(me.get("username")))
    if not isinstance(member, dict):
        return Finding("rights", "fail", said(answer), f"add @{name} to the chat")
    status = str(member.get("status"))
    if chat.get("type") == "channel":
        if status == "administrator" and member.get("can_post_messages", True):
            return Finding("rights", "ok", "administrator of the channel")
        return Finding("rights", "fail", f"{status}, may not post", f"make @{name} an admin who may post messages")
    if status in ("left", "kicked"):
        return Finding("rights", "fail", f"the bot is not in the group ({status})", f"add @{name} to it")
    everyone = chat.get("permissions") or {}
    muted = status == "restricted" and member.get("can_send_messages") is False
    if muted or (status == "member" and everyone.get("can_send_messages") is False):
        return Finding("rights", "fail", f"{status}, may not write", f"let @{name} write, or make it an admin")
    return Finding("rights", "ok", f"{status}, may write")


def check_thread(thread: int | None, chat: Mapping[str, Any]) -> Finding:
    """Only a message proves that a topic exists."""
    if not chat.get("is_forum"):
        if thread is None:
            return Finding("thread", "ok", "the chat has no topics")
        return Finding("thread", "warn", "the chat has no topics", "remove TELEGRAM_THREAD_ID")
    if thread is None or thread == GENERAL_TOPIC:
        return Finding("thread", "ok", "the topic General")
    return Finding("thread", "ok", f"topic {thread}, which `doctor --send` proves")


async def check_send(settings: Settings, bot: Bot) -> Finding:
    """The only proof: a silent message that goes at once."""
    thread = settings.telegram_thread_id
    topic = {} if thread in (None, GENERAL_TOPIC) else {"message_thread_id": thread}
    text = "chatwoot-relay doctor: a test, gone in a moment"
    answer = await bot.ask(
        "sendMessage", chat_id=settings.telegram_chat_id, text=text, disable_notification=True, **topic
    )
    message = (answer.body or {}).get("result")
    if not isinstance(message, dict):
        words = said(answer)
        todo = "mend what Telegram says, and run it again"
        if "thread" in words or "TOPIC" in words:
            todo = "`chatwoot-relay chats` lists topics; General needs no TELEGRAM_THREAD_ID"
        return Finding("send", "fail", words, todo)
    gone = await bot.ask("deleteMessage", chat_id=settings.telegram_chat_id, message_id=message.get("message_id"))
    left = "" if gone.status == 200 else "; it may not delete it, so delete it by hand"
    return Finding("send", "ok", f"a silent message arrived{left}")


# --- The command ---


async def examine(environ: Mapping[str, str], *, directory: Path, send: bool, now: float) -> list[Finding]:
    """Everything that can be found out, in the order in which to mend it."""
    found = [*check_names(environ, directory)]
    try:
        settings = configuration.load(environ, directory=directory)
    except ConfigurationError as error:
        return found + [Finding("settings", "fail", *complaint.split(": ", 1)) for complaint in error.complaints]
    path, state = settings.relay_database, environ.get("STATE_DIRECTORY", "").split(":")[0]
    found += [*check_settings(settings), check_links(settings), check_outbox(path, state=state)]
    found += check_service(await running_status(path))
    async with open_bot(settings) as bot:
        found += [finding async for finding in check_telegram(settings, bot, send=send, now=now)]
    return found


def report(findings: Iterable[Finding], *, width: int = 80, fancy: bool = True) -> str:
    """A line for each finding and one for what to do. Without *fancy* for terminals that know ASCII only."""
    lines = []
    for finding in findings:
        sign, colour = SIGNS[finding.verdict]
        mark, arrow = (sign, "→ ") if fancy else (f"{finding.verdict:<4}", "> ")
        indent = " " * (len(mark) + 11)
        first, *more = textwrap.wrap(finding.what, width - len(indent), break_on_hyphens=False)
        lines.append(f"{click.style(mark, fg=colour)} {finding.name:<9} {first}")
        lines += [indent + line for line in more]
        lines += textwrap.wrap(
            finding.todo, width, initial_indent=indent + arrow, subsequent_indent=indent + "  ", break_on_hyphens=False
        )
    return "\n".join(lines)


def to_json(findings: Iterable[Finding]) -> str:
    """The same for machines."""
    found = list(findings)
    return json.dumps({"ok": is_well(found), "checks": [attrs.asdict(each) for each in found]}, indent=2)


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether nothing failed; a warning is no failure."""
    return all(finding.verdict != "fail" for finding in findings)


def run_doctor(environ: Mapping[str, str], *, directory: Path, send: bool, as_json: bool) -> int:
    """`chatwoot-relay doctor`; its exit code."""
    findings = asyncio.run(examine(environ, directory=directory, send=send, now=time.time()))
    if as_json:
        click.echo(to_json(findings))
    else:
        width = min(100, max(40, shutil.get_terminal_size().columns))
        fancy = "utf" in (sys.stdout.encoding or "").lower()
        click.echo(report(findings, width=width, fancy=fancy), color=False if environ.get("NO_COLOR") else None)
    return 0 if is_well(findings) else 1
