"""The built-in Telegram with faults: each made at the socket, one for each script, first in, first used."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import attrs
from aiohttp import web

from chatwoot_relay.faketelegram import Complaint, FakeTelegram


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
    """A FakeTelegram that treats calls as it is told to."""

    down: Script | None = None  # how every call is treated, until it is None again
    _scripts: list[tuple[str, str | None, Script]] = attrs.field(factory=list)

    def script(
        self, *scripts: Script, method: str = "sendMessage", chat: int | str | None = None, times: int = 1
    ) -> None:
        """Treat the next calls of *method* (to *chat*) so, one after the other, *times* over."""
        self._scripts += [(method, None if chat is None else str(chat), script) for script in scripts] * times

    def forget(self) -> None:
        """Treat every call well again."""
        self._scripts.clear()
        self.down = None

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
