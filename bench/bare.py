"""The least that aiohttp can do with an alert, or an event: read it, answer. ``python -m bench.bare PORT``"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web


async def alert(request: web.Request) -> web.Response:
    document = await request.json()
    return web.json_response(
        {
            "success": True,
            "message": "Alert queued for Telegram",
            "telegram_message_id": None,
            "conversation_id": document["conversation_id"],
        },
        status=202,
    )


async def event(request: web.Request) -> web.Response:
    """aiohttp's own part of a webhook: the bytes are here, an answer goes out."""
    await request.read()
    return web.json_response({"success": True, "message": "Webhook queued for Telegram", "event": "message_created"})


async def health(request: web.Request) -> web.Response:
    return web.json_response({"status": "healthy"})


async def serve(port: int) -> None:
    app = web.Application()
    app.router.add_post("/api/v1/chatwoot/alerts", alert)
    app.router.add_post("/api/v1/chatwoot/webhook", event)
    app.router.add_get("/api/v1/chatwoot/health", health)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
