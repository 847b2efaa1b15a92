"""The whole relay without a token: a Telegram built in, a story told to it, and a page on which the chat is seen.

Touches no outbox of yours and calls nobody. Everything a customer wrote reaches the page as text, never as HTML.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import attrs
from aiohttp import ClientSession, web

from . import server
from .clock import Clock
from .faketelegram import TOKEN, FakeTelegram
from .openapi import ALERT
from .pages import seal
from .settings import is_loopback, load
from .telemetry import set_up_logs

SHOWN = 100  # messages on the page
PULSE = 15.0  # seconds between signs of life to a page that has nothing new to see
ACCOUNT = {"id": 1, "name": "Acme Support"}
KARL = {"id": 643, "name": "Karl Müller", "email": "karl@customer.example"}
ANNA = {"id": 11, "name": "Anna Petrova", "email": "anna@acme.example", "type": "user"}


# --- Running ---


def run_demo(environ: Mapping[str, str]) -> None:
    """Run until SIGINT or SIGTERM; of all settings only where to listen counts. Raises Taken, ConfigurationError."""
    set_up_logs(level="error", form="auto", secrets=())
    where = load(environ, directory=Path.cwd(), only={"relay_host", "relay_port"})
    asyncio.run(_run(where.relay_host, where.relay_port))


async def _run(host: str, port: int) -> None:
    telegram, telling = FakeTelegram(), list[asyncio.Task[None]]()
    with tempfile.TemporaryDirectory(prefix="chatwoot-relay-demo-") as folder:
        async with telegram.serving() as api:
            values = {
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "TELEGRAM_CHAT_ID": "-1001234567890",
                "TELEGRAM_API_URL": api,
                "CHATWOOT_URL": "https://app.chatwoot.com",
                "CHATWOOT_ACCOUNT_ID": str(ACCOUNT["id"]),
                "RELAY_DATABASE": f"{folder}/outbox.db",
                "RELAY_ALLOW_ANONYMOUS": "yes",  # nothing here is worth a token, and loopback is the default
                "RELAY_PACING": "off",  # there is nobody to be gentle to
                "RELAY_HOST": host,
                "RELAY_PORT": str(port),
            }
            settings = load(values, directory=Path(folder))

            def ready(url: str) -> None:
                base = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
                print(_banner(base, api, public=not is_loopback(settings.relay_host)), flush=True)
                telling.append(asyncio.create_task(_tell(base)))

            app = server.build(settings)
            add_page(app, telegram)
            await server.run(settings, app=app, ready=ready)
            await asyncio.gather(*telling, return_exceptions=True)


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
    """What is posted, in order: (route, body). The events have Chatwoot's shapes, cut to what is told."""

    def stamp(ago: int) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - ago))

    def conversation(ago: int, status: str, assignee: dict[str, Any] | None = None, **event: Any) -> dict[str, Any]:
        kind = "User" if assignee else None
        return {
            "id": 1045,
            "status": status,
            "channel": "Channel::WebWidget",
            "meta": {"sender": {**KARL, "type": "contact"}, "assignee": assignee, "assignee_type": kind},
            "created_at": int(now - 180),
            "updated_at": now - ago,
            "account": ACCOUNT,
            **event,
        }

    def said(ago: int, sender: dict[str, Any], content: str, status: str) -> dict[str, Any]:
        ours = sender is ANNA
        return {
            "event": "message_created",
            "id": 88300 - ago,
            "content": content,
            "message_type": "outgoing" if ours else "incoming",
            "created_at": stamp(ago),
            "sender": sender,
            "inbox": {"id": 22, "name": "Shop website"},
            "account": ACCOUNT,
            "conversation": conversation(ago, status, ANNA if ours else None),
        }

    turned: dict[str, Any] = {"event": "conversation_status_changed", "changed_attributes": None}
    taken = {"assignee_id": {"previous_value": None, "current_value": ANNA["id"]}}
    outage = {
        "severity": "critical",
        "reason": "CHECKOUT_BROKEN",
        "conversation_id": 1047,
        "customer_name": "Priya Nair",
        "customer_email": "priya@customer.example",
        "message": "Your checkout charges me twice & shows <error 500>. @support please, I need this today.",
        "additional_info": {"cart": "€ 1,249.00", "attempts": 3},
    }
    return [
        ("alerts", {**ALERT, "timestamp": stamp(200)}),
        ("webhook", said(180, KARL, "My parcel says delivered, but it is not here.", "pending")),
        ("webhook", conversation(150, "open", **turned)),
        ("webhook", said(90, KARL, "Hello? Is this a bot? I want a person.", "open")),
        ("webhook", conversation(30, "open", ANNA, event="conversation_updated", changed_attributes=[taken])),
        ("webhook", said(20, ANNA, "Hi Karl, Anna here. I'm looking into it.", "open")),
        ("webhook", conversation(0, "resolved", ANNA, **turned)),
        ("alerts", outage),
    ]


# --- The page ---


def add_page(app: web.Application, telegram: FakeTelegram) -> None:
    """Add the page and the stream of the chat that it lives on to *app*, which is not yet started."""
    sealed = seal(resources.files(__package__).joinpath("demo.html").read_text("utf-8"))
    stopping = asyncio.Event()

    async def page(request: web.Request) -> web.Response:
        return web.Response(text=sealed.html, content_type="text/html", headers=sealed.headers)

    async def chat(request: web.Request) -> web.StreamResponse:
        """Server-sent events: the latest messages, again after every change."""
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        await stream.prepare(request)
        with contextlib.suppress(ConnectionError):  # the page was closed
            while not stopping.is_set():
                changed = telegram.changed
                latest = [attrs.asdict(message) for message in list(telegram.messages)[-SHOWN:]]
                await stream.write(f"data: {json.dumps(latest)}\n\n".encode())
                while not changed.is_set():
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(changed.wait(), PULSE)
                    await stream.write(b": still here\n\n")
        return stream

    async def stop(app: web.Application) -> None:
        stopping.set()
        telegram.touch()

    app.router.add_get("/", page)
    app.router.add_get("/demo/chat", chat)
    app.on_shutdown.append(stop)
