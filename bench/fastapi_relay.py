"""The usual way to build it: FastAPI, pydantic, one pooled httpx client, no outbox. What it accepted dies with it.

``python -m bench.fastapi_relay PORT TELEGRAM_URL``. Checks the shape, makes the same text, tells Telegram, answers.
"""

from __future__ import annotations

import contextlib
import html
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, Field

ICONS = {"low": "🟢", "medium": "🟡", "high": "🟠", "critical": "🔴"}


class Alert(BaseModel):
    severity: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]
    conversation_id: Annotated[int, Field(ge=1, le=2**63 - 1)]
    message: Annotated[str, Field(min_length=1)]
    customer_name: str | None = None
    customer_email: str | None = None
    timestamp: str | None = None
    chatwoot_url: str | None = None
    additional_info: dict[str, Any] | None = None


class Answer(BaseModel):
    success: bool
    message: str
    telegram_message_id: int | None
    conversation_id: int


def text(alert: Alert) -> str:
    def row(label: str, value: str | None) -> list[str]:
        return [f"<b>{label}:</b> {html.escape(value)}"] if value else []

    severity = alert.severity.lower()
    blocks = [
        [f"<b>{ICONS.get(severity, '⚠️')} CHATWOOT ALERT - {html.escape(severity.upper())}</b>"],
        [
            *row("Reason", alert.reason),
            *row("Conversation ID", f"#{alert.conversation_id}"),
            *row("Customer", alert.customer_name),
            *row("Email", alert.customer_email),
        ],
        ["<b>Message:</b>", html.escape(alert.message[:500])],
        row("Time", alert.timestamp),
        [f'🔗 <a href="{html.escape(alert.chatwoot_url)}">View in Chatwoot</a>'] if alert.chatwoot_url else [],
    ]
    if alert.additional_info:
        rows = [f"  • {html.escape(key)}: {html.escape(str(value))}" for key, value in alert.additional_info.items()]
        blocks.append(["<b>Additional Info:</b>", *rows])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def build(telegram: str) -> FastAPI:
    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        async with httpx.AsyncClient(base_url=telegram, timeout=10, limits=limits) as client:
            app.state.client = client
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/api/v1/chatwoot/alerts")
    async def receive(alert: Alert) -> Answer:
        body = {"chat_id": 1, "text": text(alert), "parse_mode": "HTML", "link_preview_options": {"is_disabled": True}}
        try:
            response = await app.state.client.post("/bot1:x/sendMessage", json=body)
            response.raise_for_status()
            number = response.json()["result"]["message_id"]
        except httpx.HTTPError:
            raise HTTPException(502, "Telegram did not take it") from None
        return Answer(
            success=True,
            message="Alert forwarded to Telegram",
            telegram_message_id=number,
            conversation_id=alert.conversation_id,
        )

    @app.get("/api/v1/chatwoot/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app


if __name__ == "__main__":
    uvicorn.run(build(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]))
