"""What each answer of Telegram asks for, and which failures are known to have delivered nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aioresponses import aioresponses
from hypothesis import given
from hypothesis import strategies as st

from chatwoot_relay.markup import Html
from chatwoot_relay.models import (
    OUTCOME_LABELS,
    Ambiguous,
    Dead,
    Fix,
    Moved,
    Operator,
    Outcome,
    Repair,
    Retry,
    Sent,
    WaitBot,
    WaitChat,
)
from chatwoot_relay.telegram import MAX_REPLY, Answer, Telegram, classify, message, open_session

TOKEN = "1:secret"
OK = {"ok": True, "result": {"message_id": 7}}


def said(code: int, description: str, **parameters: Any) -> Answer:
    return Answer(code, {"ok": False, "error_code": code, "description": description, "parameters": parameters})


# --- one answer, one outcome ---

TABLE: list[tuple[Answer | Retry | Ambiguous, Outcome]] = [
    (Answer(200, OK), Sent(7)),
    (Answer(200, {"ok": True, "result": True}), Sent(None)),
    (Answer(200, {"ok": True, "result": {"message_id": "7"}}), Sent(None)),
    (Answer(200, {"ok": False}), Sent(None)),
    (Answer(200, None), Sent(None)),
    (said(429, "Too Many Requests: retry after 5", retry_after=5), WaitChat(5, "Too Many Requests: retry after 5")),
    (said(429, "Too Many Requests: global", retry_after=9), WaitBot(9, "Too Many Requests: global")),
    (Answer(429, None, {"Retry-After": "12"}), WaitChat(12, "HTTP 429")),
    (Answer(429, {"parameters": []}), WaitChat(5, "HTTP 429")),
    (said(429, "x", retry_after=10**9), WaitChat(365 * 86400, "x")),
    (said(429, "x", retry_after=10**400), WaitChat(5, "x")),
    (said(429, "x", retry_after="soon"), WaitChat(5, "x")),
    (said(429, "x", retry_after=-3), WaitChat(5, "x")),
    (said(500, "Internal Server Error"), Retry("Internal Server Error", heard=True)),
    (Answer(502, None), Retry("HTTP 502", heard=True)),
    (Answer(503, None), Retry("HTTP 503", heard=True)),
    (Answer(504, None), Retry("HTTP 504", heard=True)),
    (Answer(302, None), Retry("HTTP 302", heard=True)),
    (Answer(407, None), Retry("HTTP 407", heard=True)),
    (Retry("refused"), Retry("refused")),
    (Ambiguous("reset"), Ambiguous("reset")),
    (said(400, "Bad Request: can't parse entities: <"), Repair(Fix.PLAIN, "Bad Request: can't parse entities: <")),
    (said(400, "Bad Request: message is too long"), Repair(Fix.SHORTER, "Bad Request: message is too long")),
    (said(400, "Bad Request: text is too long"), Repair(Fix.SHORTER, "Bad Request: text is too long")),
    (said(400, "message thread not found"), Repair(Fix.NO_THREAD, "message thread not found")),
    (said(400, "TOPIC_CLOSED"), Repair(Fix.NO_THREAD, "TOPIC_CLOSED")),
    (said(400, "TOPIC_DELETED"), Repair(Fix.NO_THREAD, "TOPIC_DELETED")),
    (said(400, "message to be replied not found"), Repair(Fix.NO_REPLY, "message to be replied not found")),
    (
        said(400, "inline keyboard button URL 'x' is invalid: Wrong HTTP URL"),
        Repair(Fix.NO_BUTTON, "inline keyboard button URL 'x' is invalid: Wrong HTTP URL"),
    ),
    (said(400, "BUTTON_URL_INVALID"), Repair(Fix.NO_BUTTON, "BUTTON_URL_INVALID")),
    (said(400, "upgraded", migrate_to_chat_id=-1009), Moved(-1009, "upgraded")),
    (said(400, "upgraded", migrate_to_chat_id="x"), Dead("upgraded")),
    (said(400, "message is not modified"), Sent(None)),
    (said(400, "Bad Request: chat not found"), Operator("chat", "Bad Request: chat not found")),
    (said(400, "not enough rights to send text"), Operator("chat", "not enough rights to send text")),
    (
        said(400, "need administrator rights in the channel"),
        Operator("chat", "need administrator rights in the channel"),
    ),
    (said(400, "CHAT_WRITE_FORBIDDEN"), Operator("chat", "CHAT_WRITE_FORBIDDEN")),
    (said(401, "Unauthorized"), Operator("bot", "Unauthorized")),
    (said(404, "Not Found"), Operator("bot", "Not Found")),
    (Answer(404, None), Operator("bot", "HTTP 404")),
    (said(403, "Forbidden: bot was blocked by the user"), Operator("chat", "Forbidden: bot was blocked by the user")),
    (said(403, "Forbidden: bot was kicked"), Operator("chat", "Forbidden: bot was kicked")),
    (said(403, "Forbidden: user is deactivated"), Operator("chat", "Forbidden: user is deactivated")),
    (said(400, "Bad Request: something new"), Dead("Bad Request: something new")),
    (Answer(413, None), Dead("HTTP 413")),
]


@pytest.mark.parametrize(("result", "outcome"), TABLE, ids=lambda value: str(value)[:60])
def test_every_answer_asks_for_one_thing(result: Answer | Retry | Ambiguous, outcome: Outcome) -> None:
    """By status and parameters first, by the words of the description second."""
    assert classify(result) == outcome
    assert outcome.label in OUTCOME_LABELS


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)
bodies = st.none() | st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("ok", "result", "description", "parameters", "error_code"), json_values)
) | st.fixed_dictionaries(
    {"parameters": st.dictionaries(st.sampled_from(["retry_after", "migrate_to_chat_id"]), json_values)}
)  # fmt: skip


@given(st.integers(100, 999), bodies, st.dictionaries(st.just("Retry-After"), st.text(max_size=5)))
def test_whatever_is_answered_is_decided(status: int, body: dict[str, Any] | None, headers: dict[str, str]) -> None:
    """The closed set holds for lies too; only a 2xx counts as told; words fit a log line."""
    outcome = classify(Answer(status, body, headers))
    assert outcome.label in OUTCOME_LABELS
    if 200 <= status < 300:
        assert isinstance(outcome, Sent)
    reason = getattr(outcome, "reason", "")
    assert reason.isprintable()
    assert reason.isascii()
    assert len(reason) <= 200
    if isinstance(outcome, WaitChat | WaitBot):
        assert 0 < outcome.seconds <= 365 * 86400


# --- what is sent ---


def test_what_is_absent_is_left_out() -> None:
    """Telegram reads null as a word; General is a topic that must not be named."""
    body = message(Html("<b>x</b>"), chat_id="-1001", thread_id=1)
    assert body == {
        "chat_id": -1001, "text": "<b>x</b>", "parse_mode": "HTML", "link_preview_options": {"is_disabled": True},
    }  # fmt: skip
    whole = message(Html("x"), chat_id="@team", thread_id=5, silent=True, reply_to=9)
    assert (whole["chat_id"], whole["message_thread_id"], whole["disable_notification"]) == ("@team", 5, True)
    assert whole["reply_parameters"] == {"message_id": 9, "allow_sending_without_reply": True}
    every = frozenset(Fix)
    bare = message(Html("<b>a &lt; b</b>"), chat_id="1", thread_id=5, reply_to=9, without=every)
    assert bare == {"chat_id": 1, "text": "a < b", "link_preview_options": {"is_disabled": True}}


# --- the client ---


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


async def test_a_call_is_posted_as_json_under_the_token(session: aiohttp.ClientSession) -> None:
    """Never in a query, and never shown."""
    telegram = Telegram(session, api_url="https://api.telegram.org", token=TOKEN)
    url = f"https://api.telegram.org/bot{TOKEN}/sendMessage"
    with aioresponses(passthrough=["http://127.0.0.1"]) as mocked:
        mocked.post(url, payload=OK)
        mocked.post(url, status=429, payload={"description": "slow"}, headers={"Retry-After": "3"})
        mocked.post(url, status=500, body="<html>")
        mocked.post(url, status=200, body="<html>")
        first = await telegram.call("sendMessage", {"text": "x"})
        assert isinstance(first, Answer)
        assert (first.status, first.body) == (200, OK)
        assert classify(await telegram.call("sendMessage")) == WaitChat(3, "slow")
        assert classify(await telegram.call("sendMessage")) == Retry("HTTP 500", heard=True)
        assert classify(await telegram.call("sendMessage")) == Sent(None)
        (sent,) = [call for key, calls in mocked.requests.items() for call in calls[:1]]
    assert json.loads(sent.kwargs["data"].decode()) == {"text": "x"}
    assert sent.kwargs["allow_redirects"] is False
    assert "secret" not in repr(telegram)


@pytest.mark.parametrize("error", [ValueError, RuntimeError])
async def test_a_bug_is_not_taken_for_a_failure_of_the_network(session: aiohttp.ClientSession, error: type) -> None:
    """What is no fault of the network ends the sender; it is not retried for ever."""
    telegram = Telegram(session, api_url="https://api.telegram.org", token=TOKEN)
    with aioresponses() as mocked:
        mocked.post(re.compile(".*"), exception=error("bug"))
        with pytest.raises(error):
            await telegram.call("getMe")


Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    await reader.readexactly(int(length[1]) if length else 0)


def answering(raw: bytes, *, then: str = "close") -> Behaviour:
    """Read the request, write so much, then close or hang."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(raw)
        await writer.drain()
        if then == "hang":
            await asyncio.Event().wait()

    return behave


async def reset_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


def http(status: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@contextlib.asynccontextmanager
async def behaving(behave: Behaviour) -> AsyncIterator[str]:
    """A server that treats every connection so; its URL."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await behave(reader, writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


WELL = json.dumps(OK).encode()
SOCKETS: list[tuple[str, Behaviour, type, Outcome | type]] = [
    ("an answer", answering(http("200 OK", WELL)), Answer, Sent(7)),
    ("a reset after reading", reset_read, Ambiguous, Ambiguous),
    ("a close after reading", answering(b""), Ambiguous, Ambiguous),
    ("half a head", answering(b"HTTP/1.1 200 OK\r\nContent-"), Ambiguous, Ambiguous),
    ("no HTTP", answering(b"SSH-2.0-OpenSSH\r\n\r\n"), Ambiguous, Ambiguous),
    ("a hang after reading", answering(b"", then="hang"), Ambiguous, Ambiguous),
    ("half a body of 200", answering(http("200 OK", WELL[:9], length=len(WELL))), Answer, Sent(None)),
    ("a hang in the body of 200", answering(http("200 OK", b"{", length=9), then="hang"), Answer, Sent(None)),
    ("a drip", drip, Answer, Sent(None)),
    ("200 with a broken body", answering(http("200 OK", b"<html>")), Answer, Sent(None)),
    ("200 with bad UTF-8", answering(http("200 OK", b'{"a":"\xff"}')), Answer, Sent(None)),
    ("200 with a deep body", answering(http("200 OK", b"[" * 60_000)), Answer, Sent(None)),
    ("200 with a lie of gzip", answering(http("200 OK", b"plain", "Content-Encoding: gzip")), Answer, Sent(None)),
    ("200 with too much", answering(http("200 OK", b" " * MAX_REPLY + WELL)), Answer, Sent(None)),
    ("half a body of 400", answering(http("400 Bad Request", b'{"descr', length=99)), Retry, Retry),
    (
        "half a body of 502",
        answering(http("502 Bad Gateway", b"<ht", length=99)),
        Answer,
        Retry("HTTP 502", heard=True),
    ),
    ("half a body of 429", answering(http("429 X", b"{", "Retry-After: 7", length=9)), Answer, WaitChat(7, "HTTP 429")),
    (
        "a redirect",
        answering(http("302 Found", b"", "Location: http://127.0.0.1:1/")),
        Answer,
        Retry("HTTP 302", heard=True),
    ),
    ("413 without a body", answering(http("413 Too Large", b"")), Answer, Dead("HTTP 413")),
]


@pytest.mark.parametrize(("behave", "kind", "outcome"), [row[1:] for row in SOCKETS], ids=[row[0] for row in SOCKETS])
async def test_whatever_happens_at_the_socket_is_told_apart(
    session: aiohttp.ClientSession, behave: Behaviour, kind: type, outcome: Outcome | type
) -> None:
    """A status is Telegram's word; without one, what was written may have been heeded."""
    connected = asyncio.Event()
    async with behaving(behave) as url:
        result = await Telegram(session, api_url=url, token=TOKEN).call(
            "sendMessage", {"text": "x"}, timeout=0.3, connected=connected
        )
    assert isinstance(result, kind)
    assert connected.is_set()
    if isinstance(outcome, type):
        assert isinstance(classify(result), outcome)
    else:
        assert classify(result) == outcome
    assert "secret" not in repr(result)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


async def test_what_never_connected_was_never_sent(session: aiohttp.ClientSession) -> None:
    """Refused, a name that does not exist, a TLS handshake with something else: tried again, and no repeat."""
    async with behaving(answering(b"no TLS here")) as plain:
        urls = [closed_port(), "http://name.invalid", plain.replace("http:", "https:"), "http://127.0.0.1:1"]
        for url in urls:
            result = await Telegram(session, api_url=url, token=TOKEN).call("sendMessage", {"text": "x"}, timeout=1)
            assert isinstance(result, Retry), (url, result)
            assert isinstance(classify(result), Retry)
            assert "secret" not in repr(result)


async def test_a_connection_that_hangs_was_never_sent(session: aiohttp.ClientSession) -> None:
    """A full backlog answers no SYN."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        crowd = [socket.socket() for _ in range(3)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        result = await Telegram(session, api_url=url, token=TOKEN).call("sendMessage", timeout=0.3)
        for one in crowd:
            one.close()
    assert isinstance(result, Retry)


async def test_a_redirect_is_not_followed(session: aiohttp.ClientSession) -> None:
    """It would carry the token and the customer's words to wherever it points."""
    visits = 0

    async def visited(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal visits
        visits += 1

    async with behaving(visited) as elsewhere:
        redirect = answering(http("307 Temporary Redirect", b"", f"Location: {elsewhere}/"))
        async with behaving(redirect) as url:
            await Telegram(session, api_url=url, token=TOKEN).call("sendMessage", {"text": "x"})
    assert visits == 0
