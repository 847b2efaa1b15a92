"""The whole relay without a token: a Telegram built in, a story told to it, and a page on which the chat is seen.

Touches no outbox of yours and calls nobody. Everything a customer wrote reaches the page as text, never as HTML.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import time
from importlib import resources
from typing import Any

import attrs
from aiohttp import web

from .faketelegram import FakeTelegram, Message

SHOWN = 100  # messages on the page
FIELDS = ("message_id", "text", "silent", "reply_to", "at", "edited")
PULSE = 15.0  # seconds between signs of life to a page that has nothing new to see
ACCOUNT = {"id": 1, "name": "Acme Support"}


# --- The story ---


def story(now: float) -> list[tuple[str, dict[str, Any]]]:
    """What is posted, in order: (route, body). The events have the shape in which Chatwoot sends them."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    dispute = {
        "severity": "high",
        "reason": "NEGATIVE_SENTIMENT",
        "conversation_id": 12345,
        "customer_name": "John Doe",
        "customer_email": "john@example.com",
        "message": "THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???",
        "timestamp": stamp,
        "additional_info": {"user_id": "user_123", "order_id": "order_456"},
    }
    outage = {
        "severity": "critical",
        "reason": "CHECKOUT_BROKEN",
        "conversation_id": 1047,
        "customer_name": "Priya Nair",
        "customer_email": "priya@customer.example",
        "message": "Your checkout charges me twice & shows <error 500>. @support please, I need this today.",
        "additional_info": {"cart": "€ 1,249.00", "attempts": 3},
    }
    karl = _conversation(1045, "Karl Müller", "karl@customer.example", now)
    taken = {"assignee": {"id": 11, "name": "Anna Petrova", "type": "user"}, "assignee_type": "User"}
    with_anna = {**karl, "meta": {**karl["meta"], **taken}, "updated_at": now + 2}
    change = [{"assignee_id": {"previous_value": None, "current_value": 11}}]
    contact = {key: value for key, value in karl["meta"]["sender"].items() if key != "type"}
    anna = {"id": 11, "name": "Anna Petrova", "email": "anna@acme.example", "type": "user"}
    return [
        ("alerts", dispute),
        ("webhook", {**karl, "event": "conversation_status_changed", "changed_attributes": None}),
        ("webhook", _message(karl, 88101, "incoming", contact, "My parcel says delivered, but it is not here.", now + 1)),
        ("webhook", {**with_anna, "event": "conversation_updated", "changed_attributes": change}),
        ("webhook", _message(with_anna, 88102, "outgoing", anna, "Hi Karl, Anna here. I'm looking into it.", now + 3)),
        ("alerts", outage),
        ("webhook", {**with_anna, "event": "conversation_status_changed", "status": "resolved", "updated_at": now + 5}),
    ]


def _conversation(number: int, name: str, email: str, now: float) -> dict[str, Any]:
    sender = {"id": 643, "name": name, "email": email, "type": "contact"}
    return {
        "id": number,
        "status": "open",
        "inbox_id": 22,
        "channel": "Channel::WebWidget",
        "messages": [],
        "labels": [],
        "meta": {"sender": sender, "assignee": None, "assignee_type": None, "team": None},
        "priority": None,
        "waiting_since": int(now),
        "created_at": int(now),
        "updated_at": now,
        "account": ACCOUNT,
    }


def _message(
    conversation: dict[str, Any], number: int, kind: str, sender: dict[str, Any], content: str, now: float
) -> dict[str, Any]:
    return {
        "event": "message_created",
        "id": number,
        "content": content,
        "content_type": "text",
        "content_attributes": {},
        "message_type": kind,
        "private": False,
        "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now)),
        "sender": sender,
        "inbox": {"id": 22, "name": "Shop website"},
        "account": ACCOUNT,
        "conversation": conversation,
    }


# --- The page ---


def add_page(app: web.Application, telegram: FakeTelegram) -> None:
    """Add the page and the stream of the chat that it lives on to *app*, which is not yet started."""
    html = resources.files(__package__).joinpath("demo.html").read_text()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {_hash(html, 'style')}",
            f"script-src {_hash(html, 'script')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    stopping = asyncio.Event()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html", headers={"Content-Security-Policy": policy})

    async def chat(request: web.Request) -> web.StreamResponse:
        """Server-sent events: the latest messages, again after every change."""
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        while not stopping.is_set():
            seen = telegram.version
            latest = [_as_json(message) for message in list(telegram.messages)[-SHOWN:]]
            await stream.write(f"data: {json.dumps(latest)}\n\n".encode())
            while telegram.version == seen and not stopping.is_set():
                waits = [asyncio.ensure_future(wait) for wait in (telegram.change(), stopping.wait())]
                await asyncio.wait(waits, timeout=PULSE, return_when=asyncio.FIRST_COMPLETED)
                for wait in waits:
                    wait.cancel()
                await stream.write(b": still here\n\n")
        return stream

    async def stop(app: web.Application) -> None:
        stopping.set()

    app.router.add_get("/", page)
    app.router.add_get("/demo/chat", chat)
    app.on_shutdown.append(stop)


def _hash(html: str, tag: str) -> str:
    inside = re.findall(rf"<{tag}>(.*?)</{tag}>", html, re.S)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in inside)


def _as_json(message: Message) -> dict[str, Any]:
    entities = [attrs.asdict(entity) for entity in message.entities]
    return {**{name: getattr(message, name) for name in FIELDS}, "entities": entities}
