"""The whole relay without a token: a Telegram built in, a story told to it, and a page on which the chat is seen.

Touches no outbox of yours and calls nobody. Everything a customer wrote reaches the page as text, never as HTML.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import tempfile
import time
import webbrowser
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
from aiohttp import ClientSession, web

from . import server
from .clock import Clock
from .faketelegram import TOKEN, FakeTelegram, Message
from .kinds import is_loopback
from .settings import Settings, load
from .telemetry import set_up_logs

PASSED = ("RELAY_HOST", "RELAY_PORT")
SHOWN = 100  # messages on the page
FIELDS = ("message_id", "text", "silent", "reply_to", "at")
PULSE = 15.0  # seconds between signs of life to a page that has nothing new to see
ACCOUNT = {"id": 1, "name": "Acme Support"}


# --- Running ---


def run_demo(environ: Mapping[str, str], *, open_browser: bool = False) -> None:
    """Run until SIGINT or SIGTERM; of *environ* only PASSED counts. Raises Taken or ConfigurationError."""
    set_up_logs(level="error", form="auto", secrets=())
    asyncio.run(_run(environ, open_browser=open_browser))


async def _run(environ: Mapping[str, str], *, open_browser: bool) -> None:
    telegram = FakeTelegram()
    with tempfile.TemporaryDirectory(prefix="chatwoot-relay-demo-") as folder:
        async with telegram.serving() as api:
            settings = _settings(environ, api, Path(folder))
            app = server.build(settings)
            add_page(app, telegram)
            telling: list[asyncio.Task[None]] = []

            def ready(addresses: list[str]) -> None:
                base = addresses[0].replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
                print(_banner(base, api, public=not is_loopback(settings.relay_host)), flush=True)
                telling.append(asyncio.create_task(_tell(base)))
                if open_browser:
                    webbrowser.open(base)

            await server.run(settings, app=app, ready=ready)
            await asyncio.gather(*telling, return_exceptions=True)


def _settings(environ: Mapping[str, str], api: str, folder: Path) -> Settings:
    values = {
        "TELEGRAM_BOT_TOKEN": TOKEN,
        "TELEGRAM_CHAT_ID": "-1001234567890",
        "TELEGRAM_API_URL": api,
        "CHATWOOT_URL": "https://app.chatwoot.com",
        "CHATWOOT_ACCOUNT_ID": str(ACCOUNT["id"]),
        "RELAY_DATABASE": str(folder / "outbox.db"),
        "RELAY_ALLOW_ANONYMOUS": "yes",  # nothing here is worth a token, and loopback is the default
        "RELAY_PACING": "off",  # there is nobody to be gentle to
    }
    return load({**values, **{name: environ[name] for name in PASSED if name in environ}}, directory=folder)


def _banner(base: str, api: str, *, public: bool) -> str:
    alert = {"severity": "high", "reason": "REQUESTED_HUMAN", "conversation_id": 4521, "message": "A person, please!"}
    event = {"event": "message_created", "conversation": {"id": 4521}, "message": {"content": "Is anybody there?"}}
    curl = f"curl {base}/api/v1/chatwoot/%s -H 'Content-Type: application/json' \\\n    -d '%s'"
    warning = "\nAnybody who reaches this machine can read and post here.\n" if public else ""
    return f"""
The relay runs, with a Telegram built in ({api}).
No token is used, no other machine is asked, nothing is kept.
{warning}
  The chat, live    {base}/
  The API           {base}/docs
  Health            {base}/api/v1/chatwoot/health

Raise an alert:

  {curl % ("alerts", json.dumps(alert))}

Post an event, as Chatwoot would:

  {curl % ("webhook", json.dumps(event))}

Ctrl+C ends it."""


async def _tell(base: str) -> None:
    async with ClientSession() as session:
        for route, body in story(Clock().wall()):
            async with session.post(f"{base}/api/v1/chatwoot/{route}", json=body) as answer:
                answer.raise_for_status()


# --- The story ---


def story(now: float) -> list[tuple[str, dict[str, Any]]]:
    """What is posted, in order: (route, body). The events have the shape in which Chatwoot sends them."""
    dispute = {
        "severity": "high",
        "reason": "NEGATIVE_SENTIMENT",
        "conversation_id": 12345,
        "customer_name": "John Doe",
        "customer_email": "john@example.com",
        "message": "THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???",
        "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 200)),
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
    karl = {"id": 643, "name": "Karl Müller", "email": "karl@customer.example", "type": "contact"}
    anna = {"id": 11, "name": "Anna Petrova", "email": "anna@acme.example", "type": "user"}

    def conversation(at: float, status: str, assignee: dict[str, Any] | None = None) -> dict[str, Any]:
        kind = "User" if assignee else None
        return {
            "id": 1045,
            "status": status,
            "inbox_id": 22,
            "channel": "Channel::WebWidget",
            "messages": [],
            "meta": {"sender": karl, "assignee": assignee, "assignee_type": kind, "team": None},
            "priority": None,
            "created_at": int(now - 180),
            "updated_at": at,
            "account": ACCOUNT,
        }

    def turned(at: float, status: str, assignee: dict[str, Any] | None = None) -> dict[str, Any]:
        whole = conversation(at, status, assignee)
        return {**whole, "event": "conversation_status_changed", "changed_attributes": None}

    def said(at: float, number: int, sender: dict[str, Any], content: str, where: dict[str, Any]) -> dict[str, Any]:
        return {
            "event": "message_created",
            "id": number,
            "content": content,
            "message_type": "outgoing" if sender is anna else "incoming",
            "private": False,
            "created_at": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(at)),
            "sender": sender if sender is anna else {name: sender[name] for name in ("id", "name", "email")},
            "inbox": {"id": 22, "name": "Shop website"},
            "account": ACCOUNT,
            "conversation": where,
        }

    taken = {
        "event": "conversation_updated",
        "changed_attributes": [{"assignee_id": {"previous_value": None, "current_value": 11}}],
    }
    with_bot, open_, with_anna = (
        conversation(now - 180, "pending"),
        conversation(now - 90, "open"),
        conversation(now - 20, "open", anna),
    )
    return [
        ("alerts", dispute),
        ("webhook", said(now - 180, 88101, karl, "My parcel says delivered, but it is not here.", with_bot)),
        ("webhook", turned(now - 150, "open")),
        ("webhook", said(now - 90, 88102, karl, "Hello? Is this a bot? I want a person.", open_)),
        ("webhook", {**conversation(now - 30, "open", anna), **taken}),
        ("webhook", said(now - 20, 88103, anna, "Hi Karl, Anna here. I'm looking into it.", with_anna)),
        ("webhook", turned(now, "resolved", anna)),
        ("alerts", outage),
    ]


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
        with contextlib.suppress(ConnectionError):  # the page was closed
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
