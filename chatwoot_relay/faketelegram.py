"""A Telegram of one's own that speaks the Bot API's JSON, for the demo and the tests. Calls nobody, keeps nothing.

Of HTML it reads only what we write, and makes of it what Telegram makes.
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
from urllib.parse import urlsplit

import attrs
from aiohttp import web

from .markup import units

TOKEN = "123456:built-in"  # noqa: S105 - opens nothing but this fake
KEPT = 1000  # messages; the oldest go
Payload = dict[str, Any]
Method = Callable[[Payload], Any]

_TYPES = {"b": "bold", "code": "code", "a": "text_link"}
_MARK = re.compile(r'<(?P<tag>b|code|a)(?: href="(?P<url>[^"<>]*)")?>(?P<inside>[^<]*)</(?P=tag)>|$')
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

    def methods(self) -> dict[str, Method]:
        """What it can be asked, by the Bot API's names."""
        return {"getMe": self.get_me, "sendMessage": self.send_message}

    def show(self, payload: Payload) -> tuple[str, tuple[Entity, ...]]:
        """What the chat shows of a message."""
        return shown(payload["text"])

    def get_me(self, payload: Payload) -> Payload:
        return {"id": 123456, "is_bot": True, "first_name": "Relay", "username": "chatwoot_relay_bot"}

    def send_message(self, payload: Payload) -> Payload:
        text, entities = self.show(payload)
        self._last_id += 1
        message = Message(
            message_id=self._last_id,
            chat_id=str(payload.get("chat_id")),
            text=text,
            entities=entities,
            html=str(payload["text"]),
            silent=payload.get("disable_notification") is True,
            reply_to=payload.get("reply_parameters", {}).get("message_id"),
            at=time.time(),
        )
        self.messages.append(message)
        answer = {"message_id": message.message_id, "date": int(message.at), "chat": chat_json(message.chat_id)}
        if (thread := payload.get("message_thread_id")) is not None:
            answer |= {"message_thread_id": thread, "is_topic_message": True}
        if entities:
            answer["entities"] = [attrs.asdict(one, filter=lambda _, value: value is not None) for one in entities]
        return {**answer, "text": text}


def chat_json(chat: str) -> Payload:
    """The Bot API's Chat object."""
    named = {"username": chat[1:]} if chat.startswith("@") else {}
    return {"id": -1001 if named else int(chat), "type": "supergroup", "title": "Support", **named}


def shown(markup: str) -> tuple[str, tuple[Entity, ...]]:
    """The text and entities that Telegram makes of our own *markup*; a link to a host without a dot leaves its text."""
    text, entities, done = "", list[Entity](), 0
    for mark in _MARK.finditer(markup):
        text += html.unescape(markup[done : mark.start()])
        inside, url, done = html.unescape(mark["inside"] or ""), html.unescape(mark["url"] or "") or None, mark.end()
        if inside and (url is None or re.search(r"[.:]", urlsplit(url).hostname or "")):
            entities.append(Entity(_TYPES[mark["tag"]], units(text), units(inside), url))
        text += inside
    for found in _LIVE.finditer(text):
        begin = units(text[: found.start()])
        if not any(one.type != "bold" and one.offset <= begin < one.offset + one.length for one in entities):
            entities.append(Entity(str(found.lastgroup), begin, units(found[0])))
    return text, tuple(entities)
