"""A self-check that says what is wrong and what to do about it. Changes nothing, and sends nothing unasked."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import fcntl
import os
import sqlite3
import textwrap
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import attrs
import click

from . import settings as configuration
from .chats import Bot, Busy, Reply, Unusable, open_bot, printable, title
from .chatwoot import KNOWN_EVENTS
from .control import ask
from .errors import ConfigurationError, NotOurDatabase, RelayError
from .markup import Html
from .schema import Damaged, demand_ours
from .settings import Settings, is_loopback
from .telegram import GENERAL_TOPIC, message
from .writer import disk_is_low

SIGNS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}
SKEW_REFUSED, SKEW_TOLD = 300.0, 30.0  # seconds
PATIENCE = 5.0  # seconds for the running service
SHORT = 16  # characters of a token
SIGNATURES = (  # why the running service refused one, which mistake that looks like, and what to do
    ("malformed", "its headers are not Chatwoot's", "let the proxy pass X-Chatwoot-Signature and -Timestamp unchanged"),
    ("stale", "its time was over 5 minutes off", "compare `date -u` here and on Chatwoot's machine; turn NTP on"),
    ("mismatch", "another secret, or a body changed on its way", "list the secrets of all webhooks, agent bots and API "
     "inboxes, for each has its own; no proxy may rewrite the body"),
)  # fmt: skip


@attrs.frozen
class Finding:
    """What one check found, and what to do about it."""

    verdict: str  # of SIGNS
    name: str
    what: str
    todo: str = ""


ok, warn, fail = partial(Finding, "ok"), partial(Finding, "warn"), partial(Finding, "fail")


# --- What can be seen from here ---


def check_settings(settings: Settings) -> Iterator[Finding]:
    for name, todo in configuration.unknown_events(settings, KNOWN_EVENTS):
        yield warn("settings", f"RELAY_EVENTS has {name}, which Chatwoot never sends", todo)
    yield ok("settings", "complete and well-formed")
    where = "on loopback; a proxy may publish it" if is_loopback(settings.relay_host) else "from other machines"
    opened = configuration.open_routes(settings)
    for what, _, todo in (route.partition(": ") for route in opened):
        yield warn("access", f"{what} ({where})", todo)
    if not opened:
        yield ok("access", "nobody posts without a secret")
    if settings.relay_token and len(settings.relay_token.reveal()) < SHORT:
        what = f"RELAY_TOKEN has fewer than {SHORT} characters: it can be guessed"
        yield warn("access", what, "set a new one, here and at all who post: openssl rand -hex 32")


def check_links(settings: Settings) -> Finding:
    """Telegram makes no link of a host without a dot, but for an address."""
    if settings.chatwoot_url is None:
        return warn("links", "no base for links", "set CHATWOOT_URL=https://… as people open the dashboard")
    host, path = str(urlsplit(settings.chatwoot_url).hostname), urlsplit(settings.chatwoot_url).path
    if "." not in host and ":" not in host:
        return fail("links", f"Telegram makes no link of the host {host}", "set CHATWOOT_URL to its public name")
    if path:
        return warn("links", f"CHATWOOT_URL has a path: {path}", "give the part before /app alone")
    return ok("links", settings.chatwoot_url)


def check_outbox(path: Path, *, state: str = "") -> Finding:
    """Look at the file without touching it: its owner may be running. systemd makes *state* when it starts us."""
    folder = path.parent
    if not folder.is_dir():
        if folder == Path(state):
            return ok("outbox", f"{path} will be made at the first start")
        return fail("outbox", f"there is no directory {folder}", "make it, or set RELAY_DATABASE")
    for place, mode in ((folder, os.W_OK | os.X_OK), (path, os.W_OK)):
        if not os.access(place, mode) and place.exists():
            return fail("outbox", f"{place} is not writable", "run as the service's user, or mend its owner")
    if lacking := disk_is_low(folder):
        return fail("outbox", f"{lacking}: alerts are refused", "make room")
    try:
        if not demand_ours(path):
            return ok("outbox", f"{path} will be made at the first start")
    except OSError as error:
        return fail("outbox", f"{path} cannot be read: {error.strerror}", "mend its owner and mode")
    except NotOurDatabase as error:
        what, _, todo = str(error).removeprefix("RELAY_DATABASE: ").partition("; ")
        return fail("outbox", what, todo)
    except Damaged as error:
        return fail("outbox", f"{path}: {error}", "set RELAY_DATABASE to a file of ours or a new one")
    if path.stat().st_mode & 0o077:
        return warn("outbox", f"others may read {path}", f"chmod 600 {path}")
    if is_in_use(path):
        return ok("outbox", f"{path} is ours and in use")
    if not is_sound(path):
        return fail("outbox", f"{path} is damaged", "start the service: it moves it aside and saves what it can")
    return ok("outbox", f"{path} is ours and sound")


def is_in_use(path: Path) -> bool:
    """Whether a process holds it, or will have to recover it at its start: it cannot be judged from outside."""
    log, lock = path.with_name(path.name + "-wal"), path.with_name(path.name + ".lock")
    if log.exists() and log.stat().st_size > 0:
        return True
    try:
        with lock.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False


def is_sound(path: Path) -> bool:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error:
        return False


async def check_service(path: Path) -> AsyncIterator[Finding]:
    """What the service on this outbox says of itself."""
    try:
        async with asyncio.timeout(PATIENCE):
            status, tally = dict(await ask(path, "status")), dict(await ask(path, "tally"))
    except (RelayError, TimeoutError):
        yield fail("service", "it runs, and does not answer", "journalctl -u chatwoot-relay says why; restart it")
        return
    except (aiohttp.ClientError, OSError, ValueError, TypeError):
        yield warn("service", "not running here", "systemctl start chatwoot-relay, or chatwoot-relay serve")
        return
    if trouble := status.get("detail"):
        todo = "wait where it says how long, else mend it; a changed setting needs a restart"
        yield fail("service", f"{status.get('status')}: {trouble}", todo)
    else:
        yield ok("service", f"running: {status.get('describe', 'healthy')}")
    if dead := tally.get("dead"):
        todo = "`chatwoot-relay outbox list --state dead` says why; `outbox redrive --all` sends them again"
        yield warn("service", f"{dead} dead letter{'s' if dead > 1 else ''}", todo)
    refused = status.get("signature_refusals") or {}
    for verdict, what, todo in SIGNATURES:
        if count := refused.get(verdict):
            yield fail("signature", f"{count} refused: {what}", todo)


# --- What Telegram says ---


async def check_telegram(settings: Settings, bot: Bot, *, send: bool, now: float) -> AsyncIterator[Finding]:
    """Token, clock, chat, rights, topic, in the order in which one needs the other."""
    try:
        reply = await bot.ask("getMe")
        yield check_clock(reply.date, now=now)
        if (me := reply.result) is None:
            todo = "copy it whole from @BotFather: /mybots"
            yield fail("token", f"Telegram refuses the token: {reply.words}", todo)
            return
        name = printable(str(me.get("username")))
        yield ok("token", f"@{name}")
        yield check_webhook((await bot.ask("getWebhookInfo")).result or {})
        reply = await bot.ask("getChat", chat_id=settings.telegram_chat_id)
        if (chat := reply.result) is None:
            yield await explain_chat(settings.telegram_chat_id, bot, reply, name=name)
            return
        yield ok("chat", f"{title(chat)} ({chat.get('type')})")
        if chat.get("type") != "private":
            reply = await bot.ask("getChatMember", chat_id=settings.telegram_chat_id, user_id=me.get("id"))
            yield check_rights(reply, chat, name=name)
        yield check_thread(settings.telegram_thread_id, chat)
        if send:
            yield await check_send(settings, bot, name=name)
    except Unusable as why:
        host = urlsplit(settings.telegram_api_url).netloc
        todo = f"try `curl -I {settings.telegram_api_url}`: name server, firewall, proxy?"
        yield fail("telegram", f"{host}: {why}", "run it again then" if isinstance(why, Busy) else todo)


def check_clock(date: str, *, now: float) -> Finding:
    """Telegram's clock is right: signatures more than five minutes off are refused."""
    told = email.utils.parsedate_tz(date)
    if told is None:
        return ok("clock", "not compared: the answer has no date")
    skew = now - email.utils.mktime_tz(told)
    if abs(skew) < SKEW_TOLD:
        return ok("clock", "right")
    judge = fail if abs(skew) >= SKEW_REFUSED else warn
    return judge("clock", f"{abs(skew):.0f} s {'fast' if skew > 0 else 'slow'}", "timedatectl set-ntp true")


def check_webhook(info: Mapping[str, Any]) -> Finding:
    """A bot has one owner of its updates; sending works beside it."""
    url = str(info.get("url") or "")
    if not url:
        return ok("bot", "no other program has a webhook on it")
    what = f"{printable(urlsplit(url).netloc)} reads what is written to this bot"
    if "/webhooks/telegram" in url:
        what = f"this bot is a Telegram inbox of Chatwoot at {printable(urlsplit(url).netloc)}: customers write to it"
    return warn("bot", what, "make a bot of its own for alerts: /newbot at @BotFather")


async def explain_chat(chat: int | str, bot: Bot, reply: Reply, *, name: str) -> Finding:
    """Which of the usual mistakes makes Telegram not know the chat."""
    if moved := (reply.body.get("parameters") or {}).get("migrate_to_chat_id"):
        return warn("chat", "the group became a supergroup", f"set TELEGRAM_CHAT_ID={moved}")
    if reply.status == 403:
        return fail("chat", reply.words, f"put @{name} into the chat again, or unblock it")
    if isinstance(chat, str):
        return fail("chat", reply.words, f"@names are public groups and channels only; is @{name} in it?")
    digits = str(abs(chat))
    for guess in (f"-{digits}", f"-100{digits}") if chat > 0 else (f"-100{digits}", digits):
        if found := (await bot.ask("getChat", chat_id=int(guess))).result:
            return fail("chat", f"{chat} is unknown, {guess} is “{title(found)}”", f"set TELEGRAM_CHAT_ID={guess}")
    todo = f"add @{name} to the group, then `chatwoot-relay chats` tells its id"
    if chat > 0:
        todo = f"the person opens https://t.me/{name} and presses Start; a group's id begins with a minus"
    return fail("chat", reply.words, todo)


def check_rights(reply: Reply, chat: Mapping[str, Any], *, name: str) -> Finding:
    """Whether the bot may write there. Privacy mode does not matter: it limits what a bot reads."""
    if (member := reply.result) is None:
        return fail("rights", reply.words, f"add @{name} to the chat")
    status = str(member.get("status"))
    if chat.get("type") == "channel":
        if status == "administrator" and member.get("can_post_messages", True):
            return ok("rights", "administrator of the channel")
        return fail("rights", f"{status}, may not post", f"make @{name} an admin who may post messages")
    rights = {"member": chat.get("permissions") or {}, "restricted": member}.get(status, {})
    gone = status in ("left", "kicked") or member.get("is_member") is False
    if gone or rights.get("can_send_messages") is False:
        return fail("rights", f"{status}, may not write", f"add @{name} and let it write, or make it an admin")
    return ok("rights", f"{status}, may write")


def check_thread(thread: int | None, chat: Mapping[str, Any]) -> Finding:
    """Only a message proves that a topic exists."""
    if thread is not None and not chat.get("is_forum"):
        return warn("thread", "the chat has no topics", "remove TELEGRAM_THREAD_ID")
    general = "the topic General" if chat.get("is_forum") else "the chat has no topics"
    return ok("thread", general if thread in (None, GENERAL_TOPIC) else f"topic {thread}, which `doctor --send` proves")


async def check_send(settings: Settings, bot: Bot, *, name: str) -> Finding:
    """The only proof: a silent message, sent as an alert is, that goes at once."""
    chat, thread = settings.telegram_chat_id, settings.telegram_thread_id
    text = Html("chatwoot-relay doctor: a test, gone in a moment")
    reply = await bot.ask("sendMessage", **message(text, chat_id=str(chat), thread_id=thread, silent=True))
    if reply.status == 403 or reply.body.get("parameters"):
        return await explain_chat(settings.telegram_chat_id, bot, reply, name=name)
    if reply.result is None:
        todo = "mend what Telegram says, and run it again"
        if "thread" in reply.words or "TOPIC" in reply.words:
            todo = "`chatwoot-relay chats` lists topics; General needs no TELEGRAM_THREAD_ID"
        return fail("send", reply.words, todo)
    gone = await bot.ask("deleteMessage", chat_id=chat, message_id=reply.result.get("message_id"))
    left = "" if gone.status == 200 else "; it may not delete it, so delete it by hand"
    return ok("send", f"a silent message arrived{left}")


# --- All of it ---


async def examine(environ: Mapping[str, str], *, directory: Path, send: bool, now: float) -> list[Finding]:
    """Everything that can be found out, in the order in which to mend it."""
    mistyped = configuration.unknown(environ, directory=directory)  # which is why another is missing
    found = [warn("settings", warning, "correct or remove it") for warning in mistyped]
    if (dotenv := directory / ".env").is_file() and dotenv.stat().st_mode & 0o077:
        found.append(warn("settings", "others may read .env, and the secrets in it", "chmod 600 .env"))
    try:
        settings = configuration.load(environ, directory=directory)
    except ConfigurationError as error:
        return found + [fail("settings", *complaint.split(": ", 1)) for complaint in error.complaints]
    path, state = settings.relay_database, environ.get("STATE_DIRECTORY", "").split(":")[0]
    found += [*check_settings(settings), check_links(settings), check_outbox(path, state=state)]
    found += [finding async for finding in check_service(path)]
    async with open_bot(settings) as bot:
        return found + [finding async for finding in check_telegram(settings, bot, send=send, now=now)]


def report(findings: Iterable[Finding], *, width: int = 80, fancy: bool = True) -> str:
    """A line for each finding and one for what to do. Without *fancy* for terminals that know ASCII only."""
    lines = []
    for finding in findings:
        sign, colour = SIGNS[finding.verdict]
        mark, arrow = (sign, "→ ") if fancy else (f"{finding.verdict:<4}", "> ")
        indent = " " * (len(mark) + 11)
        wrap = partial(textwrap.wrap, width=width, break_on_hyphens=False)
        told = wrap(f"{mark} {finding.name:<9} {finding.what}", subsequent_indent=indent)
        told += wrap(finding.todo, initial_indent=indent + arrow, subsequent_indent=indent + "  ")
        lines.append(click.style(mark, fg=colour) + "\n".join(told)[len(mark) :])
    return "\n".join(lines)
