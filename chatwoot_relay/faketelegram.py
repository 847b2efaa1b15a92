"""A Telegram of one's own that speaks the Bot API's JSON, for the demo and the tests. Calls nobody, keeps nothing.

Of HTML it takes only what we write, and makes of it what Telegram makes.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from aiohttp import web

from .markup import units

TOKEN = "123456:built-in"  # noqa: S105 - opens nothing but this fake
KEPT = 1000  # messages; the oldest go
Payload = dict[str, Any]
Method = Callable[[Payload], Any]

_TYPES = {"b": "bold", "code": "code", "a": "text_link"}
_MARK = re.compile(r'<(?P<tag>b|code|a)(?: href="(?P<url>[^"<>]*)")?>(?P<inside>[^<]*)</(?P=tag)>|$')
_WRONG = re.compile(r"<|&(?!(?:lt|gt|amp|quot|#x27);)|[\ud800-\udfff]")
_SIGN = r"[\w.!$,~*'();&+=-]|%[0-9a-f]{2}|[^\0-\x7f]"
_LINK = re.compile(
    rf"(?:(https?)://)?((?:{_SIGN}|:)*@)?(\[[\da-f:.]*:[\da-f:.]*\]|(?:{_SIGN})+)(?::([0-9]{{1,5}}))?([/?#].*)?",
    re.A | re.I | re.S,
)
_LIVE = re.compile(  # what Telegram makes live by itself; near enough for a picture
    r"(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)|(?P<url>https?://[^\s<>]+[^\s<>.,;:!?'\"])"
    r"|(?<!\w)(?P<mention>@[A-Za-z0-9_]{4,32})\b|(?<!\w)(?P<hashtag>#\d*[^\W\d]\w*)"
    r"|(?<![\w/<>])(?P<bot_command>/[A-Za-z0-9_]{1,64})(?![\w/<>])"
)


@attrs.frozen
class Entity:
    """A run of the text that is shown in its own way. Offset and length count UTF-16 units, as Telegram's do."""

    type: str
    offset: int
    length: int
    url: str | None = None


@attrs.define(kw_only=True)
class Message:
    """A message as the chat shows it."""

    message_id: int
    chat_id: str
    thread_id: int | None
    text: str
    entities: tuple[Entity, ...]
    html: str  # as it was sent
    silent: bool
    reply_to: int | None
    at: float  # wall clock


class Complaint(Exception):
    """What Telegram says to a call that it refuses."""

    def __init__(self, description: str, code: int = 400, **parameters: Any) -> None:
        super().__init__(description)
        self.code = code
        more = {"parameters": parameters} if parameters else {}
        self.body = {"ok": False, "error_code": code, "description": description, **more}


@attrs.define(kw_only=True, eq=False)
class FakeTelegram:
    """A bot, and what it said in its chats. Any chat is its own."""

    messages: deque[Message] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)  # set by the next call done; then there is a new one
    _last_id: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Serve on a port of this machine; yields the base URL."""
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self.serve)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Answer one call as Telegram does."""
        payload = await self.read(request)
        code, answer = self.do(request.match_info["token"], request.match_info["method"], payload)
        return web.json_response(answer, status=code)

    async def read(self, request: web.Request) -> Payload:
        """What is asked, as Telegram reads it: a null is the word "null"."""
        raw = await request.read()
        given = json.loads(raw) if raw else dict(request.query)
        return {name: "null" if value is None else value for name, value in given.items()}

    def do(self, token: str, method: str, payload: Payload) -> tuple[int, Payload]:
        """Do what is asked; the status and the answer."""
        try:
            if token != TOKEN:
                raise Complaint("Unauthorized", 401) if ":" in token else Complaint("Not Found", 404)
            known = self.methods().get(method)
            if known is None:
                raise Complaint("Not Found: method not found", 404)
            return 200, {"ok": True, "result": known(payload)}
        except Complaint as complaint:
            return complaint.code, complaint.body
        finally:
            self.touch()

    def touch(self) -> None:
        """Have everybody who waits for a change look again."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def change(self) -> None:
        """Wait for the next call to be done, or a touch."""
        await self.changed.wait()

    def methods(self) -> dict[str, Method]:
        """What it can be asked, by the Bot API's names."""
        return {"getMe": self.get_me, "sendMessage": self.send_message}

    def get_me(self, payload: Payload) -> Payload:
        return {"id": 123456, "is_bot": True, "first_name": "Relay", "username": "chatwoot_relay_bot"}

    def send_message(self, payload: Payload) -> Payload:
        text, entities = _shown(payload)
        self._last_id += 1
        message = Message(
            message_id=self._last_id,
            chat_id=str(payload.get("chat_id")),
            thread_id=payload.get("message_thread_id"),
            text=text,
            entities=entities,
            html=str(payload["text"]),
            silent=payload.get("disable_notification") is True,
            reply_to=payload.get("reply_parameters", {}).get("message_id"),
            at=time.time(),
        )
        self.messages.append(message)
        answer = {"message_id": message.message_id, "date": int(message.at), "chat": chat_json(message.chat_id)}
        if message.thread_id is not None:
            answer |= {"message_thread_id": message.thread_id, "is_topic_message": True}
        if entities:
            answer["entities"] = [attrs.asdict(one, filter=lambda _, value: value is not None) for one in entities]
        return {**answer, "text": text}


def chat_json(chat: str) -> Payload:
    """The Bot API's Chat object."""
    named = {"username": chat[1:]} if chat.startswith("@") else {}
    return {"id": -1001 if named else int(chat), "type": "supergroup", "title": "Support", **named}


# --- what the chat shows ---


def _shown(payload: Payload) -> tuple[str, tuple[Entity, ...]]:
    raw, mode = str(payload.get("text", "")), payload.get("parse_mode", "")
    if len(raw.encode(errors="surrogatepass")) > 32768:
        raise Complaint("Bad Request: text is too long")
    if any("\ud800" <= character <= "\udfff" for character in raw):
        raise Complaint("Bad Request: text must be encoded in UTF-8")
    if mode not in ("", "HTML"):
        raise Complaint("Bad Request: unsupported parse_mode")
    text, entities = parse_html(raw) if mode else (raw, ())
    text = re.sub(r"[\x00-\x09\x0b-\x1f]", " ", text).rstrip()
    if not text.strip():
        raise Complaint("Bad Request: text must be non-empty")
    if len(text) > 4096:
        raise Complaint("Bad Request: message is too long")
    taken = [entity for entity in entities if entity.type in ("code", "pre", "text_link")]
    live = []
    for found in _LIVE.finditer(text):
        begin = units(text[: found.start()])
        if not any(entity.offset <= begin < entity.offset + entity.length for entity in taken):
            live.append(Entity(str(found.lastgroup), begin, units(found[0])))
    return text, (*entities, *live)[:100]


def parse_html(markup: str) -> tuple[str, tuple[Entity, ...]]:
    """The text and entities that Telegram makes of *markup*; Complaint where it is none that we write.

    Never kinder than Telegram. An entity around nothing vanishes, a bad link leaves its text.
    """
    text, entities, done = "", [], 0
    for mark in _MARK.finditer(markup):
        text += _resolve(markup[done : mark.start()])
        inside, done = _resolve(mark["inside"] or ""), mark.end()
        url = checked_link(_resolve(mark["url"] or "") or inside) if mark["tag"] == "a" else None
        if inside and (url or mark["tag"] != "a"):
            entities.append(Entity(_TYPES[mark["tag"]], units(text), units(inside), url))
        text += inside
    return text, tuple(entities)


def _resolve(text: str) -> str:
    if wrong := _WRONG.search(text):
        raise Complaint(f"Bad Request: can't parse entities: Unsupported start tag or reference at {wrong[0]!r}")
    return html.unescape(text)


def checked_link(url: str) -> str | None:
    """*url* as Telegram keeps it, or None where it makes no link: another scheme, no host, a host without a dot."""
    match = _LINK.fullmatch(url)
    if match is None:
        return None
    scheme, user, host, port, rest = match.groups(default="")
    if ("." not in host and not host.startswith("[")) or host == "." or (port and not 0 < int(port) < 65536):
        return None
    rest = rest if rest.startswith("/") else f"/{rest}"
    rest = re.sub(r"[\x00-\x20]", lambda found: f"%{ord(found[0]):02X}", rest.rstrip(" \t\r\n\v\0"))
    return f"{scheme.lower() or 'http'}://{user}{host.encode().lower().decode()}{f':{int(port)}' if port else ''}{rest}"
