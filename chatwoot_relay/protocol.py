"""aiohttp's server with the time limits and bounds it lacks. Refuses slow heads and a crowd of idle connections."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from .models import new_id

MAX_CONNECTIONS = 200
HEAD_TIMEOUT = 10.0
LIMITS: dict[str, float] = {
    "head_timeout": HEAD_TIMEOUT,  # seconds for a request's head, from the connection or the first byte after a pause
    "keepalive_timeout": 75.0,
    "lingering_time": 5.0,  # in which the rest of a refused body is thrown away, so that its sender can read why
    "max_connections": MAX_CONNECTIONS,
}


def problem(status: int, detail: str, **members: Any) -> web.Response:
    """An error as RFC 9457 has it, with ``success`` and ``message`` for those who know the older shape."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **members,
        "success": False,
        "message": detail,
    }
    response = web.Response(status=status, body=json.dumps(body).encode(), content_type="application/problem+json")
    sign(response, new_id())
    return response


def sign(response: web.StreamResponse, request_id: str) -> None:
    """Give an answer the headers that every answer has."""
    response.headers["X-Request-ID"] = request_id
    response.headers[hdrs.SERVER] = "chatwoot-relay"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_asked", "_head_timeout", "_head_timer")

    def __init__(self, manager: web.Server, *, head_timeout: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._head_timeout = head_timeout
        self._head_timer: asyncio.TimerHandle | None = None
        self._asked = False  # ever

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._asked = self._asked or bool(self._messages)
        if not self.idle:
            self._stop_timer()
        elif self._head_timer is None:  # a head that came whole needs none
            self._expect_head()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio's own shape; aiohttp's says None
        """Who has asked and will ask no more is answered all the same, and then the connection closes."""
        if self.idle or self.receiving:
            return False
        self.close()
        return True

    @property
    def idle(self) -> bool:
        """Whether it waits for a request's head; not while aiohttp takes one from its queue to a task."""
        return not self._messages and (self._waiter is not None or not self._asked)

    @property
    def receiving(self) -> bool:
        """Whether it waits for the rest of a request's body."""
        return self._current_request is not None and not self._current_request.content.is_eof()

    def _expect_head(self) -> None:
        self._head_timer = self._loop.call_later(self._head_timeout, self._head_is_late)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.idle:
            self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What HTTP itself forbids, and what escaped every middleware, in our own form."""
        if status == 500:
            self.log_exception("unhandled", exc_info=exc)
        detail = "The request is not valid HTTP." if status == 400 else "Something went wrong on our side."
        response = problem(status, detail)
        response.force_close()
        return response


class Server(web.Server):
    """Makes connections, and closes the oldest that is idle, or else slow with its body, when there are too many."""

    def __init__(self, handler: Any, *, max_connections: int, **options: Any) -> None:
        super().__init__(handler, **options)
        self._max_connections = max_connections

    def __call__(self) -> RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        if len(self._connections) <= self._max_connections:
            return
        others = [  # oldest first, and none that was closed in this very turn of the loop
            c for c in self._connections if isinstance(c, Connection) and c.transport is not None and c is not handler
        ]
        if len(others) >= self._max_connections:
            spare = next((c for c in others if c.idle), None) or next((c for c in others if c.receiving), None)
            if spare is None:
                full = problem(503, "too many connections")
                body = full.text or ""  # of ASCII
                headers = {**full.headers, "Retry-After": 3, "Connection": "close", "Content-Length": len(body)}
                lines = ["HTTP/1.1 503 Service Unavailable", *(f"{name}: {value}" for name, value in headers.items())]
                transport.write("\r\n".join([*lines, "", body]).encode("ascii"))
            (spare or handler).force_close()


class Runner(web.AppRunner):
    """An application on our server; *limits* other than LIMITS are for tests and small machines."""

    def __init__(self, app: web.Application, **limits: float) -> None:
        options: dict[str, Any] = {**LIMITS, **limits, "max_line_size": 8190, "max_field_size": 8190}
        options["auto_decompress"] = False  # bodies are refused encoded, and never unpacked
        super().__init__(app, access_log=None, shutdown_timeout=0.3, **options)

    async def _make_server(self) -> web.Server:
        await super()._make_server()  # starts the application; the server that it makes is not ours
        return Server(self._handle, request_factory=self._make_request, **self._kwargs)

    def _make_request(self, message: Any, *others: Any) -> web.Request:
        """The host of an absolute target may be none that can be decoded, which concerns nobody here."""
        try:
            return self._app._make_request(message, *others)
        except ValueError:
            return self._app._make_request(message._replace(url=message.url.relative()), *others)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        """What fails before any middleware is reached, an expectation that we cannot meet, is a problem too."""
        try:
            return await self._app._handle(request)
        except web.HTTPException as error:
            return problem(error.status, f"{error.reason}.")
