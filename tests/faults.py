"""The built-in Telegram with faults: each made at the socket, one for each script, first in, first used."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import attrs
from aiohttp import web
from judge import verdict

from chatwoot_relay.faketelegram import Complaint, Entity, FakeTelegram, Method, Payload, chat_json, shown
from chatwoot_relay.markup import escape


@attrs.frozen(kw_only=True)
class Call:
    """A request that was read whole."""

    method: str
    payload: Payload
    at: float  # monotonic


@attrs.frozen(kw_only=True)
class Script:
    """How to treat a call. With a status, body or fault of its own it is not done, unless it is to be delivered."""

    status: int = 200
    body: bytes | None = None  # None: what Telegram would say
    headers: dict[str, str] = attrs.field(factory=dict)
    deliver: bool = False  # done at once, whatever is answered
    until: asyncio.Event | None = None  # not answered before
    fault: str = ""  # "reset unread", "close unread", "reset", "close", "hang", "half", "drip"

    @property
    def well(self) -> bool:
        """Whether the call is done as Telegram does it, if perhaps late."""
        return self.status == 200 and self.body is None and not self.fault


def refusal(code: int, description: str, **parameters: Any) -> Script:
    """An ordinary error of the Bot API."""
    return Script(status=code, body=json.dumps(Complaint(description, code, **parameters).body).encode())


@attrs.define(kw_only=True, eq=False)
class FaultyTelegram(FakeTelegram):
    """A FakeTelegram that knows whom it serves, and treats calls as it is told to. Its attributes break and mend it."""

    chats: set[str] | None = None  # the ids it knows; None: any
    threads: set[int] | None = None  # the topics of its chats; None: no forum
    refusals: dict[str, Complaint] = attrs.field(factory=dict)  # chat id → the answer to whatever is wanted there
    moved: dict[str, int] = attrs.field(factory=dict)  # group id → the supergroup that it became
    member: Payload = attrs.field(factory=lambda: {"status": "administrator"})
    updates: list[Payload] = attrs.field(factory=list)
    webhook_url: str = ""
    calls: list[Call] = attrs.field(factory=list)
    down: Script | None = None  # how every call is treated, until it is None again
    _scripts: list[tuple[str, str | None, Script]] = attrs.field(factory=list)

    @property
    def told(self) -> list[str]:
        """The texts in the chats, oldest first."""
        return [message.text for message in self.messages]

    async def until(self, condition: Callable[[], bool], *, seconds: float = 10) -> None:
        """Wait until *condition* holds; it is looked at after every call. TimeoutError if it does not in time."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self.changed.wait()

    async def read(self, request: web.Request) -> Payload:
        payload = await super().read(request)
        self.calls.append(Call(method=request.match_info["method"], payload=payload, at=time.monotonic()))
        self.touch()
        return payload

    def script(
        self, *scripts: Script, method: str = "sendMessage", chat: int | str | None = None, times: int = 1
    ) -> None:
        """Treat the next calls of *method* (to *chat*) so, one after the other, *times* over."""
        self._scripts += [(method, None if chat is None else str(chat), script) for script in scripts] * times

    def forget(self) -> None:
        """Treat every call well again."""
        self._scripts.clear()
        self.down = None

    # --- what it can be asked ---

    def show(self, payload: Payload) -> tuple[str, tuple[Entity, ...]]:
        """Never kinder than Telegram: its own parser judges every text."""
        raw, mode = str(payload.get("text", "")), payload.get("parse_mode", "")
        if len(raw.encode(errors="surrogatepass")) > 32768:
            raise Complaint("Bad Request: text is too long")
        if any("\ud800" <= character <= "\udfff" for character in raw):
            raise Complaint("Bad Request: text must be encoded in UTF-8")
        if mode not in ("", "HTML"):
            raise Complaint("Bad Request: unsupported parse_mode")
        if mode and (said := verdict(raw))["@type"] == "error":
            raise Complaint(f"Bad Request: {said['message'].replace('Can', 'can', 1)}")
        text, entities = shown(raw if mode else escape(raw))
        text = re.sub(r"[\x00-\x09\x0b-\x1f]", " ", text).rstrip()
        if not text.strip():
            raise Complaint("Bad Request: text must be non-empty")
        if len(text) > 4096:
            raise Complaint("Bad Request: message is too long")
        return text, entities

    def methods(self) -> dict[str, Method]:
        return {
            **super().methods(),
            "deleteMessage": self.delete_message,
            "getChat": self.get_chat,
            "getChatMember": self.get_chat_member,
            "getUpdates": self.get_updates,
            "getWebhookInfo": self.get_webhook_info,
        }

    def send_message(self, payload: Payload) -> Payload:
        payload = {**payload}  # what was asked stays as it was
        chat, thread, reply = self._chat(payload), payload.get("message_thread_id"), payload.get("reply_parameters")
        if self.threads is None:
            payload.pop("message_thread_id", None)  # ignored where there are no topics
        elif thread is not None and thread not in self.threads:
            raise Complaint("Bad Request: message thread not found")
        if reply and not any((m.chat_id, m.message_id) == (chat, reply.get("message_id")) for m in self.messages):
            if not reply.get("allow_sending_without_reply"):
                raise Complaint("Bad Request: message to be replied not found")
            del payload["reply_parameters"]
        return super().send_message(payload)

    def delete_message(self, payload: Payload) -> bool:
        which = self._chat(payload), payload.get("message_id")
        for message in self.messages:
            if (message.chat_id, message.message_id) == which:
                self.messages.remove(message)
                return True
        raise Complaint("Bad Request: message to delete not found")

    def get_chat(self, payload: Payload) -> Payload:
        return {**chat_json(self._chat(payload)), **({} if self.threads is None else {"is_forum": True})}

    def get_chat_member(self, payload: Payload) -> Payload:
        self._chat(payload)
        return {"user": self.get_me({}), **self.member}

    def get_updates(self, payload: Payload) -> list[Payload]:
        if self.webhook_url:
            raise Complaint("Conflict: can't use getUpdates method while webhook is active", 409)
        return self.updates

    def get_webhook_info(self, payload: Payload) -> Payload:
        return {"url": self.webhook_url, "has_custom_certificate": False, "pending_update_count": len(self.updates)}

    def _chat(self, payload: Payload) -> str:
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

    # --- how a call is treated ---

    async def serve(self, request: web.Request) -> web.StreamResponse:
        token, method = request.match_info["token"], request.match_info["method"]
        first = self.down or next((script for name, _, script in self._scripts if name == method), Script())
        if first.fault.endswith("unread"):
            self._take(method, None)
            return _hang_up(request, first.fault)
        payload = await self.read(request)
        script = self._take(method, str(payload.get("chat_id")))
        code, answer = script.status, {"ok": False, "error_code": script.status, "description": "scripted"}
        if script.deliver:
            code, answer = self.do(token, method, payload)
        if script.until is not None:
            await script.until.wait()
        if script.well and not script.deliver:
            code, answer = self.do(token, method, payload)
        body = json.dumps(answer).encode() if script.body is None else script.body
        match script.fault:
            case "reset" | "close":
                return _hang_up(request, script.fault)
            case "hang":
                await asyncio.Event().wait()
            case "half" | "drip":
                return await _spoil(request, body, script.fault)
        status = code if script.status == 200 else script.status
        return web.Response(status=status, body=body, headers={"Content-Type": "application/json", **script.headers})

    def _take(self, method: str, chat: str | None) -> Script:
        """Use up the first script that is meant for this call."""
        for place, (name, only, script) in enumerate(self._scripts):
            if name == method and only in (None, chat) and self.down is None:
                del self._scripts[place]
                return script
        return self.down or Script()


def _hang_up(request: web.Request, fault: str) -> web.Response:
    """End the connection without an answer: a reset (RST) or a plain close."""
    assert request.transport is not None
    if fault.startswith("reset"):
        linger = struct.pack("ii", 1, 0)
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.transport.abort()
    return web.Response()  # goes nowhere


async def _spoil(request: web.Request, body: bytes, fault: str) -> web.StreamResponse:
    """Answer half a body and close, or a byte now and then for ever."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(body))})
    if fault == "drip":
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while fault == "drip":
        await response.write(b" ")
        await asyncio.sleep(0.05)
    await response.write(body[: len(body) // 2])
    return _hang_up(request, "close")
