"""The Bot API: one session, and one pure function that says what an answer asks for. Refuses to decide when."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
from collections.abc import Mapping
from typing import Any

import aiohttp
import attrs
import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

from .markup import Html, plain
from .models import (
    MAX_ID,
    Ambiguous,
    Dead,
    Fix,
    Moved,
    Operator,
    Outcome,
    Repair,
    Retry,
    Sent,
    WaitBot,
    WaitChat,
)

SEND_TIMEOUT = 30.0  # the server itself sleeps through flood waits of up to 8 s: slow is not failed
CONNECT_TIMEOUT = 8.0
MAX_REPLY = 64 * 1024
LONGEST_WAIT = 365 * 86400.0  # obeyed as asked, but for what no number should be
IDLE = 15.0  # shorter than Telegram's own, so that a request seldom meets a connection that was just closed
GENERAL_TOPIC = 1


@attrs.frozen
class Answer:
    """An HTTP answer: its status, the JSON object in it, or None where there was no readable one."""

    status: int
    body: Mapping[str, Any] | None
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


# What Telegram says when it means: mend the message. In the order in which they are looked for, lower case.
_REPAIRS = (
    ("can't parse entities", Fix.PLAIN),
    ("message is too long", Fix.SHORTER),
    ("text is too long", Fix.SHORTER),
    ("message thread not found", Fix.NO_THREAD),
    ("topic_closed", Fix.NO_THREAD),
    ("topic_deleted", Fix.NO_THREAD),
    ("message to be replied not found", Fix.NO_REPLY),
    ("message to reply not found", Fix.NO_REPLY),
    ("replied message not found", Fix.NO_REPLY),
    ("inline keyboard button url", Fix.NO_BUTTON),
    ("button_url_invalid", Fix.NO_BUTTON),
)
# What it says when only the operator can mend it.
_OPERATOR = (
    "chat not found", "not enough rights", "need administrator rights", "chat_write_forbidden",
    "have no rights to send", "chat_restricted", "chat_admin_required", "peer_id_invalid",
)  # fmt: skip


def classify(result: Answer | Retry | Ambiguous) -> Outcome:
    """What came of a send, by status and parameters first, by the words of the description second."""
    if not isinstance(result, Answer):
        return result
    status, body = result.status, result.body
    if 200 <= status < 300:
        return _told(body)
    said = _said(body) or f"HTTP {status}"
    words = said.lower()
    parameters = body.get("parameters") if body is not None else None
    parameters = parameters if isinstance(parameters, Mapping) else {}
    if status == 429:
        wait = _seconds(parameters.get("retry_after")) or _seconds(result.headers.get("Retry-After")) or 5.0
        return WaitBot(wait, said) if "global" in words else WaitChat(wait, said)
    if status >= 500 or 300 <= status < 400 or status == 408:
        return Retry(said, heard=True)
    moved = parameters.get("migrate_to_chat_id")
    if status == 400 and isinstance(moved, int) and not isinstance(moved, bool):
        return Moved(moved, said)
    if status == 400 and "message is not modified" in words:
        return Sent(None)
    if status in (401, 404):
        return Operator("bot", said)
    if status == 403 or any(w in words for w in _OPERATOR):
        return Operator("chat", said)
    if status == 400:
        for phrase, fix in _REPAIRS:
            if phrase in words:
                return Repair(fix, said)
    # What no Telegram says comes from something in between, which may be mended; age ends it if not.
    return Dead(said) if status in (400, 413) else Retry(said, heard=True)


def _told(body: Mapping[str, Any] | None) -> Outcome:
    result = body.get("result") if body is not None else None
    number = result.get("message_id") if isinstance(result, Mapping) else None
    known = isinstance(number, int) and not isinstance(number, bool) and 0 < number <= MAX_ID
    return Sent(number if known else None)


def _said(body: Mapping[str, Any] | None) -> str:
    """Telegram's own words, made fit for a log line and a problem; a server between us may repeat the URL."""
    said = body.get("description") if body is not None else None
    if not isinstance(said, str):
        return ""
    return re.sub(r"bot\d+:[\w-]+", "bot***", re.sub(r"[^\x20-\x7e]", "?", said))[:200]


def _seconds(value: object) -> float | None:
    try:
        wait = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return min(wait, LONGEST_WAIT) if wait >= 0 else None


def message(
    html: Html,
    *,
    chat_id: str,
    thread_id: int | None = None,
    silent: bool = False,
    reply_to: int | None = None,
    without: frozenset[Fix] = frozenset(),
) -> dict[str, Any]:
    """The body of ``sendMessage``. What is absent is left out, for Telegram reads null as a word."""
    body: dict[str, Any] = {"chat_id": int(chat_id) if re.fullmatch(r"-?\d+", chat_id) else chat_id}
    if Fix.PLAIN in without:
        body["text"] = plain(html)
    else:
        body |= {"text": str(html), "parse_mode": "HTML"}
    body["link_preview_options"] = {"is_disabled": True}
    if thread_id is not None and thread_id != GENERAL_TOPIC and Fix.NO_THREAD not in without:
        body["message_thread_id"] = thread_id
    if silent:
        body["disable_notification"] = True
    if reply_to is not None and Fix.NO_REPLY not in without:
        body["reply_parameters"] = {"message_id": reply_to, "allow_sending_without_reply": True}
    return body


class Telegram:
    """One bot and the one ClientSession of the process. Never raises for what the network or Telegram does."""

    def __init__(self, session: aiohttp.ClientSession, *, api_url: str, token: str) -> None:
        self._session = session
        self._base = f"{api_url}/bot{token}/"

    def __repr__(self) -> str:
        return "Telegram(***)"

    async def call(
        self,
        method: str,
        payload: Mapping[str, Any] | None = None,
        *,
        timeout: float = 10.0,
        connected: asyncio.Event | None = None,
    ) -> Answer | Retry | Ambiguous:
        """One method of the Bot API. *connected* is set once it goes before whatever is called from then on.

        Retry where nothing was written; Ambiguous where the answer never came whole: it may have been heeded.
        """
        body = _Body(payload or {}, connected or asyncio.Event())
        try:
            async with self._session.post(
                self._base + method, data=body, timeout=_limits(timeout), allow_redirects=False
            ) as response:
                return await self._read(response)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Retry(_name(error))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return Ambiguous(_name(error)) if body.sent else Retry(_name(error))

    async def _read(self, response: aiohttp.ClientResponse) -> Answer | Retry:
        """A 2xx means heeded even where its body breaks off; anything else unreadable says what its status says."""
        try:
            raw = await response.content.read(MAX_REPLY)
            while len(raw) < MAX_REPLY and not response.content.at_eof():
                raw += await response.content.read(MAX_REPLY - len(raw))
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            if response.status == 400:  # what it asks for broke off
                return Retry(f"HTTP 400, {_name(error)}")
            body = None
        if not isinstance(body, dict):
            body = None
        return Answer(response.status, body, response.headers)


def _name(error: BaseException) -> str:
    """An error without its text: aiohttp's texts hold the URL, and with it the token."""
    cause = getattr(error, "os_error", None) or error.__cause__
    words = type(error).__name__
    if not isinstance(cause, OSError) or cause.errno is None:
        return words
    # asyncio's own words hold the address; a resolver's errors have negative numbers and words of their own.
    return f"{words} ({os.strerror(cause.errno) if cause.errno > 0 else cause.strerror})"


@functools.cache
def _limits(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=min(CONNECT_TIMEOUT, seconds))


class _Body(aiohttp.BytesPayload):
    """JSON that knows when it is written: its head goes with it, and nothing has left us before."""

    def __init__(self, value: Mapping[str, Any], connected: asyncio.Event) -> None:
        super().__init__(msgspec.json.encode(value), content_type="application/json")
        self.sent = False
        self.connected = connected

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        self.sent = True
        self.connected.set()  # at the latest, whoever else calls us
        await super().write_with_length(writer, content_length)


class _Request(aiohttp.ClientRequest):
    """A request that says when it has its connection: what has one already is written in the order of the calls."""

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        if isinstance(self.body, _Body):
            self.body.connected.set()
        return await super().send(conn)


def open_session() -> aiohttp.ClientSession:
    """The session that the whole process shares."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=IDLE, ttl_dns_cache=60),
        headers={"User-Agent": "chatwoot-relay", "Accept-Encoding": "identity"},  # one way less for a 200 to break
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
        request_class=_Request,
    )
