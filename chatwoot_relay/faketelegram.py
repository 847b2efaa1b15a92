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

from .entities import Entity, Unparsable, parse_html, utf16_length

TOKEN = "123456:built-in"  # noqa: S105 - opens nothing but this fake
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
    edited: bool = False


@attrs.frozen(kw_only=True)
class Call:
    """A request that was read whole."""

    method: str
    payload: dict[str, Any]
    at: float  # monotonic


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
    """A bot, its chats and what was said there. Its attributes say what it knows and refuses."""

    token: str = TOKEN
    chats: set[str] | None = None  # the ids it knows; None: any
    threads: set[int] | None = None  # the topics of its chats; None: no forum
    refusals: dict[str, Complaint] = attrs.field(factory=dict)  # chat id → the answer to whatever is wanted there
    moved: dict[str, int] = attrs.field(factory=dict)  # group id → the supergroup that it became
    member: dict[str, Any] = attrs.field(factory=lambda: {"status": "administrator"})
    updates: list[dict[str, Any]] = attrs.field(factory=list)
    webhook_url: str = ""
    messages: deque[Message] = attrs.field(factory=lambda: deque(maxlen=KEPT))
    calls: deque[Call] = attrs.field(factory=lambda: deque(maxlen=100 * KEPT))
    version: int = 0  # grows with every call read and done
    _last_id: int = 0
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    @property
    def told(self) -> list[str]:
        """The texts in the chats, oldest first."""
        return [message.text for message in self.messages]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10) -> None:
        """Wait until *condition* holds; it is looked at after every call. TimeoutError if it does not in time."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self.change()

    async def change(self) -> None:
        """Wait for the next call to be done."""
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

    async def read(self, request: web.Request) -> dict[str, Any]:
        """What is asked, as Telegram reads it: a null is the word "null"."""
        raw = await request.read()
        given = json.loads(raw) if raw else dict(request.query)
        payload = {name: "null" if value is None else value for name, value in given.items()}
        self.calls.append(Call(method=request.match_info["method"], payload=payload, at=time.monotonic()))
        self._tell()
        return payload

    def _tell(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def do(self, token: str, method: str, payload: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Do what is asked; the status and the answer."""
        try:
            if token != self.token:
                raise Complaint("Unauthorized", 401) if ":" in token else Complaint("Not Found", 404)
            known = _METHODS.get(method)
            if known is None:
                raise Complaint("Not Found: method not found", 404)
            return 200, {"ok": True, "result": known(self, payload)}
        except Complaint as complaint:
            return complaint.code, complaint.body
        finally:
            self._tell()

    def _chat(self, payload: dict[str, Any]) -> str:
        chat = str(payload.get("chat_id", ""))
        if not chat:
            raise Complaint("Bad Request: chat_id is empty")
        if chat in self.refusals:
            raise self.refusals[chat]
        if chat in self.moved:
            told = "Bad Request: group chat was upgraded to a supergroup chat"
            raise Complaint(told, migrate_to_chat_id=self.moved[chat])
        if self.chats is not None and chat not in self.chats:
            raise Complaint("Bad Request: chat not found")
        return chat

    def _find(self, payload: dict[str, Any], what: str) -> Message:
        chat, wanted = self._chat(payload), payload.get("message_id")
        for message in self.messages:
            if (message.chat_id, message.message_id) == (chat, wanted):
                return message
        raise Complaint(f"Bad Request: message to {what} not found")

    def send_message(self, payload: dict[str, Any]) -> dict[str, Any]:
        chat, thread, reply = self._chat(payload), payload.get("message_thread_id"), payload.get("reply_parameters")
        if thread is not None and self.threads is not None and thread not in self.threads:
            raise Complaint("Bad Request: message thread not found")
        if reply and not any((m.chat_id, m.message_id) == (chat, reply.get("message_id")) for m in self.messages):
            if not reply.get("allow_sending_without_reply"):
                raise Complaint("Bad Request: message to be replied not found")
            reply = None
        text, entities = _text(payload)
        self._last_id += 1
        message = Message(
            message_id=self._last_id,
            chat_id=chat,
            thread_id=None if self.threads is None else thread,
            text=text,
            entities=entities,
            html=str(payload["text"]),
            silent=payload.get("disable_notification") is True,
            reply_to=reply["message_id"] if reply else None,
            at=time.time(),
        )
        self.messages.append(message)
        return _as_json(message)

    def edit_message(self, payload: dict[str, Any]) -> dict[str, Any]:
        message = self._find(payload, "edit")
        text, entities = _text(payload)
        if (text, entities) == (message.text, message.entities):
            raise Complaint("Bad Request: message is not modified")
        message.text, message.entities, message.html, message.edited = text, entities, str(payload["text"]), True
        return _as_json(message)

    def delete_message(self, payload: dict[str, Any]) -> bool:
        self.messages.remove(self._find(payload, "delete"))
        return True

    def get_me(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"id": 123456, "is_bot": True, "first_name": "Relay", "username": "chatwoot_relay_bot"}

    def get_chat(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {**_chat_json(self._chat(payload)), **({} if self.threads is None else {"is_forum": True})}

    def get_chat_member(self, payload: dict[str, Any]) -> dict[str, Any]:
        self._chat(payload)
        return {"user": self.get_me({}), **self.member}

    def get_updates(self, payload: dict[str, Any]) -> list[dict[str, Any]]:
        if self.webhook_url:
            raise Complaint("Conflict: can't use getUpdates method while webhook is active", 409)
        return self.updates

    def get_webhook_info(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {"url": self.webhook_url, "has_custom_certificate": False, "pending_update_count": len(self.updates)}


_METHODS: dict[str, Callable[[FakeTelegram, dict[str, Any]], Any]] = {
    "sendMessage": FakeTelegram.send_message,
    "editMessageText": FakeTelegram.edit_message,
    "deleteMessage": FakeTelegram.delete_message,
    "getMe": FakeTelegram.get_me,
    "getChat": FakeTelegram.get_chat,
    "getChatMember": FakeTelegram.get_chat_member,
    "getUpdates": FakeTelegram.get_updates,
    "getWebhookInfo": FakeTelegram.get_webhook_info,
}


def _text(payload: dict[str, Any]) -> tuple[str, tuple[Entity, ...]]:
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
        begin = utf16_length(text[: found.start()])
        if not any(entity.offset <= begin < entity.offset + entity.length for entity in taken):
            live.append(Entity(str(found.lastgroup), begin, utf16_length(found[0])))
    return text, (*entities, *live)[:100]


def _chat_json(chat: str) -> dict[str, Any]:
    named = {"username": chat[1:]} if chat.startswith("@") else {}
    return {"id": -1001 if named else int(chat), "type": "supergroup", "title": "Support", **named}


def _as_json(message: Message) -> dict[str, Any]:
    """The Bot API's Message object."""
    entities = [attrs.asdict(entity, filter=lambda _, value: value is not None) for entity in message.entities]
    thread = {} if message.thread_id is None else {"message_thread_id": message.thread_id, "is_topic_message": True}
    whole = {"message_id": message.message_id, "date": int(message.at), "chat": _chat_json(message.chat_id)}
    return {**whole, "text": message.text, **thread, **({"entities": entities} if entities else {})}
