"""A Telegram of one's own that speaks the Bot API's JSON, for the demo and the tests. Calls nobody, keeps nothing."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
from aiohttp import web

from .entities import Entity, Unparsable, parse_html
from .markup import units

TOKEN = "123456:built-in"  # noqa: S105 - opens nothing but this fake
Payload = dict[str, Any]
Method = Callable[[Payload], Any]
KEPT = 1000  # messages; the oldest go
_LIVE = re.compile(  # what Telegram makes live by itself; near enough for a picture
    r"(?P<email>[\w.+-]+@[\w-]+(?:\.[\w-]+)+)|(?P<url>https?://[^\s<>]+[^\s<>.,;:!?'\"])"
    r"|(?<!\w)(?P<mention>@[A-Za-z0-9_]{4,32})\b|(?<!\w)(?P<hashtag>#\d*[^\W\d]\w*)"
    r"|(?<![\w/<>])(?P<bot_command>/[A-Za-z0-9_]{1,64})(?![\w/<>])"
)


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
        self.body = {"ok": False, "error_code": code, "description": description}
        if parameters:
            self.body["parameters"] = parameters


@attrs.define(kw_only=True, eq=False)
class FakeTelegram:
    """A bot, and what it said in its chats. Any chat is its own."""

    token: str = TOKEN
    messages: deque[Message] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    version: int = 0  # grows with every call done
    _last_id: int = 0
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def change(self) -> None:
        """Wait for the next call to be done, or a touch."""
        await self._changed.wait()

    @property
    def app(self) -> web.Application:
        """A new Application that serves this bot."""
        app = web.Application()
        app.router.add_route("*", "/bot{token}/{method}", self.serve)
        return app

    @asynccontextmanager
    async def serving(self, *, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
        """Serve on a port; yields the base URL."""
        runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield f"http://{host}:{runner.addresses[0][1]}"
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

    def touch(self) -> None:
        """Have everybody who waits for a change look again."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def do(self, token: str, method: str, payload: Payload) -> tuple[int, Payload]:
        """Do what is asked; the status and the answer."""
        try:
            if token != self.token:
                raise Complaint("Unauthorized", 401) if ":" in token else Complaint("Not Found", 404)
            known = self.methods().get(method)
            if known is None:
                raise Complaint("Not Found: method not found", 404)
            return 200, {"ok": True, "result": known(payload)}
        except Complaint as complaint:
            return complaint.code, complaint.body
        finally:
            self.touch()

    def methods(self) -> dict[str, Method]:
        """What it can be asked, by the Bot API's names."""
        return {"getMe": self.get_me, "sendMessage": self.send_message}

    def get_me(self, payload: Payload) -> Payload:
        return {"id": 123456, "is_bot": True, "first_name": "Relay", "username": "chatwoot_relay_bot"}

    def send_message(self, payload: Payload) -> Payload:
        text, entities = _text(payload)
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
        return _as_json(message)


def _text(payload: Payload) -> tuple[str, tuple[Entity, ...]]:
    """The text and entities that the chat shows."""
    raw, mode = str(payload.get("text", "")), payload.get("parse_mode", "")
    if len(raw.encode(errors="surrogatepass")) > 32768:
        raise Complaint("Bad Request: text is too long")
    if any("\ud800" <= character <= "\udfff" for character in raw):
        raise Complaint("Bad Request: text must be encoded in UTF-8")
    if mode not in ("", "HTML"):
        raise Complaint("Bad Request: unsupported parse_mode")
    try:
        text, entities = parse_html(raw) if mode else (raw, ())
    except Unparsable as complaint:
        raise Complaint(f"Bad Request: can't parse entities: {complaint}") from None
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


def chat_json(chat: str) -> Payload:
    """The Bot API's Chat object."""
    named = {"username": chat[1:]} if chat.startswith("@") else {}
    return {"id": -1001 if named else int(chat), "type": "supergroup", "title": "Support", **named}


def _as_json(message: Message) -> Payload:
    """The Bot API's Message object."""
    entities = [attrs.asdict(entity, filter=lambda _, value: value is not None) for entity in message.entities]
    thread = {} if message.thread_id is None else {"message_thread_id": message.thread_id, "is_topic_message": True}
    whole = {"message_id": message.message_id, "date": int(message.at), "chat": chat_json(message.chat_id)}
    return {**whole, "text": message.text, **thread, **({"entities": entities} if entities else {})}
