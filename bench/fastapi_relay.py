"""The usual way to build it: FastAPI, pydantic, one pooled httpx client, no outbox. What it accepted dies with it.

``python -m bench.fastapi_relay PORT TELEGRAM_URL``. For an alert it does what the relay does, but for keeping it: it
checks the shape, makes the same text, tells Telegram, understands its answer, writes the same two log lines, counts the
same numbers, answers with the same headers; and every error is a problem.
"""

from __future__ import annotations

import contextlib
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import structlog
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, StringConstraints

from chatwoot_relay import models
from chatwoot_relay.metrics import Metrics, Standing
from chatwoot_relay.render import render
from chatwoot_relay.telegram import Answer, classify, message
from chatwoot_relay.telemetry import set_up_logs

log = structlog.get_logger()
NOTHING = Standing(accepted=0, queue={}, oldest=0.0, holds={}, operator={})
Shown = Annotated[str, StringConstraints(strict=True, pattern=r"\S")]


class Alert(BaseModel):
    severity: Shown
    reason: Shown
    conversation_id: Annotated[int, Field(ge=1, le=models.MAX_ID)]
    message: Shown
    customer_name: str | None = None
    customer_email: str | None = None
    timestamp: str | None = None
    chatwoot_url: str | None = None
    additional_info: dict[str, Any] | None = None


class Told(BaseModel):
    success: bool
    message: str
    telegram_message_id: int | None
    conversation_id: int


def problem(status: int, detail: str, **more: Any) -> JSONResponse:
    body = {"type": "about:blank", "status": status, "detail": detail, "success": False, "message": detail, **more}
    return JSONResponse(body, status, media_type="application/problem+json")


def build(telegram: str, *, token: str | None = None) -> FastAPI:
    metrics = Metrics(lambda: NOTHING)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=32)
        async with httpx.AsyncClient(base_url=telegram, timeout=10, limits=limits) as client:
            app.state.client = client
            yield

    def authorize(given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]) -> None:
        if token is not None and (given is None or given.credentials != token):
            raise HTTPException(401, "Present the token.")

    app = FastAPI(lifespan=lifespan)

    @app.middleware("http")
    async def tell(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started, request_id = time.monotonic(), request.headers.get("X-Request-ID") or uuid.uuid4().hex
        response = await call_next(request)
        took = time.monotonic() - started
        response.headers["X-Request-ID"] = request_id
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        metrics.request(route=request.url.path, status=response.status_code, seconds=took)
        log.info(
            "request.handled",
            request=request_id,
            method=request.method,
            route=request.url.path,
            status=response.status_code,
            ms=round(took * 1000, 1),
            client=request.client.host if request.client else None,
        )
        return response

    @app.exception_handler(HTTPException)
    async def refuse(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    async def complain(request: Request, error: RequestValidationError) -> Response:
        return problem(422, "The alert's shape is wrong.", errors=[str(one["loc"]) for one in error.errors()])

    @app.post("/api/v1/chatwoot/alerts", dependencies=[Depends(authorize)])
    async def receive(alert: Alert) -> Told:
        html = render(models.Alert(**alert.model_dump()))
        metrics.accepted("alert")
        started = time.monotonic()
        try:
            response = await app.state.client.post("/bot1:x/sendMessage", json=message(html, chat_id="1"))
            outcome = classify(Answer(response.status_code, response.json()))
        except (httpx.HTTPError, ValueError):
            raise HTTPException(502, "Telegram did not take it.") from None
        took = time.monotonic() - started
        metrics.attempted(outcome.label, seconds=took)
        log.info("delivery.attempted", outcome=outcome.label, seconds=round(took, 3))
        if not isinstance(outcome, models.Sent):
            raise HTTPException(502, "Telegram did not take it.")
        metrics.delivered("sent", rank=models.Rank.HIGH, now=time.time())
        return Told(
            success=True,
            message="Alert forwarded to Telegram",
            telegram_message_id=outcome.message_id,
            conversation_id=alert.conversation_id,
        )

    @app.get("/api/v1/chatwoot/health")
    async def health() -> dict[str, str]:
        return {"status": "healthy"}

    return app


if __name__ == "__main__":
    set_up_logs(level="info", form="json", secrets=[])
    uvicorn.run(build(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), access_log=False)
