"""The contract's answers, row by row, on the real process."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import sqlite3
import time
from collections.abc import Mapping
from typing import Any

import pytest
from faults import FaultyTelegram, Script, refusal
from relay_process import ALERTS, HEALTH, JSON, TEST, WEBHOOK, Answer, House, RelayProcess, alert, new_id
from relay_process import RELAY_TOKEN as TOKEN
from relay_process import WEBHOOK_SECRET as SECRET

from chatwoot_relay.faketelegram import TOKEN as BOT_TOKEN

BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(b"chatwoot:" + TOKEN.encode()).decode()}
WRONG = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": TOKEN},
    {"Authorization": "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()},
    {"Authorization": "Basic !!!"},
    {"Authorization": "Bearer t\xf6ken"},
]


def event(**members: Any) -> dict[str, Any]:
    """The simple shape of a customer's message in a new conversation."""
    return {
        "event": "message_created",
        "conversation": {"id": new_id(), "status": "open"},
        "sender": {"name": "Jane Roe", "email": "jane@example.com"},
        "message": {"content": "Is anybody there?", "created_at": "2025-01-19T18:30:00Z"},
        "account": {"id": 1, "name": "Acme"},
        **members,
    }


def signed(body: bytes, *, secret: str = SECRET, age: float = 0, **headers: str) -> dict[str, str]:
    """The headers of Chatwoot's signature."""
    stamp = str(int(time.time() - age))
    mac = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return {**JSON, "X-Chatwoot-Timestamp": stamp, "X-Chatwoot-Signature": f"sha256={mac}", **headers}


def check_problem(answered: Answer, status: int) -> dict[str, Any]:
    """It is a problem as RFC 9457 has it, with the members of the older shape, and betrays nothing."""
    assert answered.status == status, (answered.status, answered.raw)
    assert answered.headers["Content-Type"].startswith("application/problem+json")
    body: dict[str, Any] = answered.json
    assert (body["status"], body["success"]) == (status, False)
    assert {"type", "title", "detail", "message"} <= body.keys()
    assert all(body[name] and isinstance(body[name], str) for name in ("type", "title", "detail", "message"))
    assert answered.headers["X-Request-ID"]
    for secret in (TOKEN, SECRET, "Traceback", ".py"):
        assert secret not in answered.raw.decode()
    return body


# --- /alerts: what is accepted ---


async def test_a_told_alert_is_answered_200(relay: RelayProcess, town: House) -> None:
    """The common answer, and no other key in it."""
    answered = await relay.alert(conversation_id=(number := new_id()))
    assert answered.status == 200
    assert answered.json == {
        "success": True,
        "message": "Alert forwarded to Telegram",
        "telegram_message_id": town.telegram.messages[-1].message_id,
        "conversation_id": number,
    }
    assert answered.headers["X-Request-ID"]
    assert answered.headers["X-Delivery-ID"]
    assert len(town.told(number)) == 1


@pytest.mark.parametrize(
    ("given", "number"),
    [(1, 1), ("42", 42), (2**63 - 1, 2**63 - 1), (str(2**63 - 1), 2**63 - 1), (12345.0, 12345)],
)
async def test_the_answer_has_the_conversations_number(relay: RelayProcess, given: Any, number: int) -> None:
    """Whether it came as a number or as its digits."""
    answered = await relay.alert(conversation_id=given)
    assert (answered.status, answered.json["conversation_id"]) == (200, number)


@pytest.mark.parametrize(
    "members",
    [
        dict.fromkeys(("customer_name", "customer_email", "timestamp", "chatwoot_url", "additional_info")),
        {"surplus": {"a": [1]}, "left_out": 7, "event": "x"},
        {"severity": "whatever"},
        {"additional_info": {}},
        {"additional_info": {"": "", "nested": {"a": [None]}}},
        {"message": "x" * 900_000},
    ],
    ids=["nulls", "unknown members", "unknown severity", "no info", "odd info", "long"],
)
async def test_a_lenient_reading_accepts(relay: RelayProcess, members: dict[str, Any]) -> None:
    """What is not wrong is not refused: an alert lost for its form is a customer lost."""
    assert (await relay.alert(**members)).status == 200


@pytest.mark.parametrize(
    "kind",
    [None, "application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json"],
)
async def test_json_is_taken_under_any_of_its_names(relay: RelayProcess, kind: str | None) -> None:
    """No Content-Type at all is taken as JSON."""
    headers = BEARER if kind is None else {**BEARER, "Content-Type": kind}
    assert (await relay.post(ALERTS, alert(), headers=headers)).status == 200


async def test_a_byte_order_mark_is_no_obstacle(relay: RelayProcess) -> None:
    """Some shells write one."""
    assert (await relay.post(ALERTS, b"\xef\xbb\xbf" + json.dumps(alert()).encode())).status == 200


# --- who is let in ---


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK, TEST])
@pytest.mark.parametrize("way", ["bearer", "lower", "basic", "query"])
async def test_the_token_opens_the_door_in_each_of_its_forms(relay: RelayProcess, path: str, way: str) -> None:
    """Automation rules can only put it into the URL."""
    headers = {"bearer": BEARER, "lower": {"Authorization": f"bearer {TOKEN}"}, "basic": BASIC, "query": {}}[way]
    query = f"?a=b&token={TOKEN}" if way == "query" else ""
    body = None if path == TEST else alert() if path == ALERTS else event()
    assert (await relay.post(path + query, body, headers={**JSON, **headers})).status == 200


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK, TEST])
@pytest.mark.parametrize("headers", WRONG)
async def test_without_the_token_nobody_enters(relay: RelayProcess, path: str, headers: dict[str, str]) -> None:
    """Nor with half of it, nor with bytes that are no ASCII."""
    body = event() if path == WEBHOOK else alert()
    answered = await relay.post(path, body, headers={**JSON, **headers})
    check_problem(answered, 401)
    assert "Bearer" in answered.headers["WWW-Authenticate"]


async def test_a_signature_that_is_wrong_is_told_so_on_either_route(relay: RelayProcess) -> None:
    """People point Chatwoot's webhook at both; advice about a token would mislead them."""
    body = json.dumps(event()).encode()
    for path in (ALERTS, WEBHOOK):
        answered = await relay.post(path, body, headers={**JSON, **signed(body, secret="another")})
        assert "the signature does not match" in check_problem(answered, 401)["detail"]


async def test_a_token_in_a_url_reaches_no_log(home: House) -> None:
    """Logs are read and kept by others."""
    relay = await home.relay(RELAY_TOKEN=TOKEN, CHATWOOT_WEBHOOK_SECRET=SECRET, RELAY_LOG_LEVEL="debug")
    for path in (ALERTS, WEBHOOK, TEST, HEALTH, "/nothing", f"/{TOKEN}"):
        for query in (f"?token={TOKEN}", f"?token={TOKEN[:-1]}%{ord(TOKEN[-1]):02x}", f"?x={TOKEN}"):
            await relay.post(path + query, alert(message="hunter2"), headers=JSON)
    await relay.post(ALERTS, alert(message="hunter2"), headers={**JSON, **BASIC})
    await relay.send(f"GET /?token={TOKEN} HTTP/9.9\r\n\r\n".encode())
    await relay.logged("request.handled", status=401)
    assert await relay.stop() == 0
    for secret in (TOKEN, TOKEN[:-1], SECRET, BASIC["Authorization"][6:], BOT_TOKEN, "hunter2"):
        assert secret not in relay.log


# --- /alerts: what is refused, and in which order ---


@pytest.mark.parametrize(
    ("members", "paths"),
    [
        ({"severity": ...}, ["$.severity"]),
        ({"reason": ...}, ["$.reason"]),
        ({"conversation_id": ...}, ["$.conversation_id"]),
        ({"message": ...}, ["$.message"]),
        (dict.fromkeys(("severity", "reason", "conversation_id", "message"), ...),
         ["$.conversation_id", "$.message", "$.reason", "$.severity"]),
        ({"message": "  \n\t"}, ["$.message"]),
        ({"reason": ""}, ["$.reason"]),
        ({"message": 5, "reason": [], "customer_name": {}, "timestamp": 1, "additional_info": "x"},
         ["$.additional_info", "$.customer_name", "$.message", "$.reason", "$.timestamp"]),
        ({"customer_email": True, "chatwoot_url": 1.5, "severity": None},
         ["$.chatwoot_url", "$.customer_email", "$.severity"]),
        *[({"conversation_id": wrong}, ["$.conversation_id"])
          for wrong in (0, -1, 2**63, 1.5, True, False, None, "", "0", "-1", "1.0", "١٢", "1_0", " 7", "abc", [], {},
                        str(2**63), 10**30, 1e300)],
    ],
)  # fmt: skip
async def test_a_wrong_shape_is_answered_422_with_every_error(
    relay: RelayProcess, members: dict[str, Any], paths: list[str]
) -> None:
    """Each names its place, so that a sender is mended in one go."""
    body = check_problem(await relay.alert(**members), 422)
    assert sorted(error["path"] for error in body["errors"]) == paths
    assert all(error["message"] for error in body["errors"])


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true", b"[[{}]]"])
async def test_json_that_is_no_object_is_a_wrong_shape(relay: RelayProcess, body: bytes) -> None:
    """It is JSON, so the shape is what is wrong."""
    assert check_problem(await relay.post(ALERTS, body), 422)["errors"]


@pytest.mark.parametrize(
    "body", [None, b"", b"   ", b"{", b"{'a': 1}", b"severity=high", b'{"a": NaN}', b'{"a": "\xff"}', b"\xff\xfe{\x00"]
)
@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
async def test_what_is_no_json_is_answered_400(relay: RelayProcess, path: str, body: bytes | None) -> None:
    """A missing body too."""
    check_problem(await relay.post(path, body), 400)


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "\xe4"},
        {**JSON, "Content-Encoding": "gzip"},
        {**JSON, "Content-Encoding": "identity"},
    ],
)
async def test_what_is_not_called_json_is_answered_415(relay: RelayProcess, path: str, headers: dict[str, str]) -> None:
    """A body that is encoded is never unpacked."""
    check_problem(await relay.post(path, alert(), headers={**BEARER, **headers}), 415)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/api/v1/chatwoot", 404),
        ("POST", ALERTS + "/", 404),
        ("POST", "/" + ALERTS, 404),
        ("POST", ALERTS.upper(), 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%00", 404),
        ("GET", "/favicon.ico", 404),
        ("GET", ALERTS, 405),
        ("PUT", WEBHOOK, 405),
        ("DELETE", TEST, 405),
        ("POST", HEALTH, 405),
        ("OPTIONS", ALERTS, 405),
        ("PATCH", "/metrics", 405),
        ("POST", "/docs", 405),
        ("TRACE", "/", 404),
    ],
)
async def test_other_paths_and_methods_are_problems(relay: RelayProcess, method: str, path: str, status: int) -> None:
    """Never a page of HTML, never a redirect: senders follow neither."""
    answered = await relay.request(method, path)
    check_problem(answered, status)
    if status == 405:
        assert "POST" in answered.headers["Allow"] or "GET" in answered.headers["Allow"]


async def test_a_body_of_more_than_1_mib_is_answered_413(relay: RelayProcess) -> None:
    """An alert has no more to say; exactly 1 MiB still passes."""
    document = json.dumps(alert()).encode()
    assert (await relay.post(ALERTS, document + b" " * (2**20 - len(document)))).status == 200
    check_problem(await relay.post(ALERTS, document + b" " * (2**20 + 1 - len(document))), 413)


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
async def test_a_body_of_more_than_10_mib_is_answered_413(relay: RelayProcess, path: str) -> None:
    """Whoever sends it, before its credentials are looked at."""
    body = json.dumps(event()).encode().ljust(10 * 2**20 + 1)
    check_problem(await relay.post(path, body, headers={"Content-Type": "text/plain"}), 413)


ORDER: list[tuple[int, dict[str, Any]]] = [
    (413, {"body": b"{" + b" " * (10 * 2**20)}),
    (415, {"headers": {"Content-Type": "text/plain"}}),
    (401, {"headers": {"Authorization": "Bearer wrong"}}),
    (400, {"body": b"{"}),
    (422, {"body": b"{}"}),
]


async def test_an_alert_too_large_is_told_so_before_its_type_is(relay: RelayProcess) -> None:
    """What is no JSON is no event either, and 1 MiB is all there is room for."""
    check_problem(await relay.post(ALERTS, b" " * (2**20 + 1), headers={"Content-Type": "text/plain"}), 413)
    check_problem(await relay.post(WEBHOOK, b" " * (2**20 + 1), headers={"Content-Type": "text/plain"}), 415)


@pytest.mark.parametrize("first", range(len(ORDER)))
async def test_of_several_faults_the_first_in_order_is_told(relay: RelayProcess, first: int) -> None:
    """404 and 405 before size, size before type, type before credentials, credentials before the body."""
    headers: dict[str, str] = {**JSON, **BEARER}
    body = b"{}"
    for _, fault in reversed(ORDER[first:]):
        headers.update(fault.get("headers", {}))
        body = fault.get("body", body)
    check_problem(await relay.post(ALERTS, body, headers=headers), ORDER[first][0])
    check_problem(await relay.request("PUT", ALERTS, b"{", headers=headers), 405)
    check_problem(await relay.post("/nothing", b"{", headers=headers), 404)


async def test_a_client_over_its_limit_is_answered_429(home: House) -> None:
    """It is told its limit, and when to come again; only what passed 401 counts, and 429 comes before 400 and 422."""
    relay = await home.relay(RELAY_TOKEN=TOKEN, RELAY_RATE_LIMIT="3/hour")
    for _ in range(5):
        check_problem(await relay.post(ALERTS, alert(), headers=JSON), 401)
        check_problem(await relay.post(ALERTS, alert(), headers={**BEARER, "Content-Type": "text/plain"}), 415)
    first = await relay.alert()
    assert first.status == 200
    assert (first.headers["RateLimit-Limit"], first.headers["RateLimit-Remaining"]) == ("3", "2")
    check_problem(await relay.post(ALERTS, b"{"), 400)
    assert (await relay.post(TEST)).status == 200
    for refused in (
        await relay.alert(), await relay.post(ALERTS, b"{"), await relay.post(ALERTS, {}), await relay.post(TEST),
    ):  # fmt: skip
        check_problem(refused, 429)
        assert 0 < int(refused.headers["Retry-After"]) <= 3600
        assert refused.headers["RateLimit-Remaining"] == "0"
        assert refused.headers["RateLimit"]
    check_problem(await relay.post(ALERTS, alert(), headers=JSON), 401)
    assert (await relay.post(WEBHOOK, event())).status == 200
    assert (await relay.post(ALERTS, event())).status == 200, "a native event is never limited"


def hop(address: str) -> dict[str, str]:
    return {**JSON, "X-Forwarded-For": address}


async def test_a_forwarded_address_is_believed_of_trusted_proxies(home: House) -> None:
    """Clients behind one proxy have a limit each; the left end of the header is anybody's invention."""
    relay = await home.relay(RELAY_RATE_LIMIT="1/hour", RELAY_TRUSTED_PROXIES="127.0.0.0/8,10.0.0.0/8")
    for address, status in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        ("198.51.100.7, 203.0.113.1", 429),
        ("203.0.113.2", 200),
        ("203.0.113.3, 10.1.2.3", 200),
        ("203.0.113.3:4711", 429),
        ("[2001:db8::1]:443", 200),
        ("2001:db8::1", 429),
        ("nonsense\xff", 200),
    ]:
        assert (await relay.post(ALERTS, alert(), headers=hop(address))).status == status, address


async def test_a_forwarded_address_is_not_believed_of_others(home: House) -> None:
    """Else every request could come from a new client."""
    relay = await home.relay(RELAY_RATE_LIMIT="1/hour", RELAY_TRUSTED_PROXIES="192.0.2.1")
    answers = [await relay.post(ALERTS, alert(), headers=hop(f"203.0.113.{n}")) for n in range(3)]
    assert [answered.status for answered in answers] == [200, 429, 429]


# --- /alerts: what Telegram does ---


async def test_what_telegram_refuses_for_good_is_answered_502(home: House) -> None:
    """It is kept as a dead letter under the delivery's id."""
    telegram = faulty(home)
    relay = await home.relay()
    telegram.script(refusal(400, "Bad Request: something nobody has heard of"))
    answered = await relay.alert()
    body = check_problem(answered, 502)
    assert body["delivery_id"] == answered.headers["X-Delivery-ID"]
    code, told = await relay.run("outbox", "list", "--state", "dead")
    assert code == 0
    assert body["delivery_id"] in told
    assert (await relay.alert()).status == 200


async def test_an_answer_that_cannot_be_read_is_a_success_without_a_number(home: House) -> None:
    """Telegram said 200, so it has it."""
    telegram = faulty(home)
    relay = await home.relay()
    telegram.script(Script(body=b"<html>", deliver=True))
    answered = await relay.alert(conversation_id=5)
    assert (answered.status, answered.json["telegram_message_id"]) == (200, None)
    assert answered.json["message"] == "Alert forwarded to Telegram"
    assert len(home.told(5)) == 1


def faulty(home: House) -> FaultyTelegram:
    assert isinstance(home.telegram, FaultyTelegram)
    return home.telegram


async def test_what_is_held_is_answered_202_at_once(home: House) -> None:
    """A request never waits for what cannot come in time: these would wait a minute, were each to wait at all."""
    telegram = faulty(home)
    relay = await home.relay(RELAY_REPLY_TIMEOUT="4", RELAY_TOKEN=TOKEN)
    telegram.script(refusal(429, "Too Many Requests: retry after 100", retry_after=100))
    for number in range(1, 16):
        answered = await relay.alert(conversation_id=number)
        assert answered.status == 202
        assert answered.headers["X-Delivery-ID"]
        assert answered.json == {
            "success": True,
            "message": "Alert queued for Telegram",
            "telegram_message_id": None,
            "conversation_id": number,
        }
    answered = await relay.post(WEBHOOK, event())
    assert (answered.status, answered.json["message"]) == (202, "Webhook queued for Telegram")
    check_problem(await relay.post(TEST), 504)
    health = await relay.get(HEALTH)
    assert (health.status, health.json["status"]) == (200, "degraded")
    assert health.json["detail"]
    assert telegram.told == []


async def test_what_a_kill_interrupts_is_told_after_the_restart(home: House) -> None:
    """An accepted alert is on disk before its answer, and held or not it comes through."""
    telegram = faulty(home)
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0")
    telegram.down = Script(status=500)
    accepted = [await relay.alert(message=f"marker-{number}-") for number in range(5)]
    assert [answered.status for answered in accepted] == [202] * 5
    await relay.kill()
    telegram.forget()
    await relay.start()
    await telegram.until(lambda: len(telegram.messages) >= 5)
    for number in range(5):
        assert sum(f"marker-{number}-" in text for text in telegram.told) == 1


# --- Idempotency-Key ---


async def keyed(relay: RelayProcess, body: Mapping[str, Any] | bytes, key: str) -> Answer:
    return await relay.post(ALERTS, body, headers={**JSON, **relay.credentials, "Idempotency-Key": key})


async def test_a_repeated_post_is_one_alert(home: House) -> None:
    """While it is queued the repeat is told so; once told, the repeat has its number; across a restart too."""
    telegram = faulty(home)
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.2")
    telegram.down = Script(status=500)
    body = alert()
    first, second = await keyed(relay, body, "k1"), await keyed(relay, body, "k1")
    assert (first.status, second.status) == (202, 202)
    assert first.headers["X-Delivery-ID"] == second.headers["X-Delivery-ID"]
    check_problem(await keyed(relay, {**body, "message": "another"}, "k1"), 409)
    telegram.forget()
    await telegram.until(lambda: len(telegram.messages) == 1)
    await relay.logged("delivery.attempted", outcome="sent")
    third = await keyed(relay, body, "k1")
    assert (third.status, third.json["telegram_message_id"]) == (200, telegram.messages[0].message_id)
    assert third.headers["X-Delivery-ID"] == first.headers["X-Delivery-ID"]
    await relay.restart()
    fourth = await keyed(relay, body, "k1")
    assert (fourth.status, fourth.json) == (200, third.json)
    check_problem(await keyed(relay, {**body, "surplus": 1}, "k1"), 409)
    assert (await keyed(relay, body, "k2")).status == 200
    assert len(telegram.messages) == 2


async def test_a_key_belongs_to_a_body_not_to_its_spelling(relay: RelayProcess, town: House) -> None:
    """Members in another order say the same; a refused body uses up no key."""
    body, key = alert(), f"key {new_id()} \xfc"
    check_problem(await keyed(relay, {**body, "message": ""}, key), 422)
    one = await keyed(relay, body, key)
    two = await keyed(relay, json.dumps(dict(reversed(body.items())), indent=2).encode(), key)
    assert (one.status, one.json) == (two.status, two.json)
    assert len(town.told(body["conversation_id"])) == 1


async def test_a_repeat_of_what_died_says_so_again(home: House) -> None:
    """Each repeat gets the answer as it stands by then."""
    telegram = faulty(home)
    relay = await home.relay()
    telegram.script(refusal(400, "Bad Request: something nobody has heard of"))
    body = alert()
    one, two = await keyed(relay, body, "k"), await keyed(relay, body, "k")
    assert check_problem(one, 502)["delivery_id"] == check_problem(two, 502)["delivery_id"]
    assert two.json["detail"].startswith("Telegram refused it for good: Bad Request: ")


async def test_a_repeat_of_what_may_have_been_told_does_not_say_that_it_was_refused(home: House) -> None:
    """Whoever posts it again would tell it twice."""
    relay, body = await home.relay(RELAY_REPLY_TIMEOUT="0.1"), alert()
    telegram = faulty(home)
    telegram.down = Script(status=500)
    assert (await keyed(relay, body, "k")).status == 202
    await relay.stop()
    with contextlib.closing(sqlite3.connect(relay.folder / "outbox.db")) as db:
        db.execute("UPDATE deliveries SET state = 'sending', due = NULL, ambiguous = 2")
        db.commit()
    await relay.start()
    detail = check_problem(await keyed(relay, body, "k"), 502)["detail"]
    assert detail == "It is kept as a dead letter: maybe told: stopped in the middle of a send"


async def test_two_keys_are_none(relay: RelayProcess) -> None:
    """Nobody knows which of them counts."""
    body = json.dumps(alert()).encode()
    head = f"POST {ALERTS} HTTP/1.1\r\nHost: x\r\nAuthorization: {BEARER['Authorization']}\r\n"
    keys = f"Idempotency-Key: a\r\nIdempotency-Key: b\r\nContent-Length: {len(body)}\r\n\r\n"
    assert (await relay.send((head + keys).encode() + body, answers=1)).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("key", "status"), [("k" * 255, 200), ("k" * 256, 400), ("", 200), ("  ", 200)])
async def test_a_key_has_its_bounds(relay: RelayProcess, key: str, status: int) -> None:
    """An empty one is none."""
    key = key and key[:-8] + f"{new_id():>8}"[-8:] if len(key) > 8 else key
    assert (await keyed(relay, alert(), key)).status == status
    if status == 400:
        check_problem(await keyed(relay, {}, key), 400)


async def test_simultaneous_repeats_are_one_alert_with_one_answer(home: House) -> None:
    """A sender that retries too early, twenty times over, while Telegram thinks."""
    telegram, patience = faulty(home), asyncio.Event()
    relay = await home.relay(RELAY_REPLY_TIMEOUT="4")
    telegram.script(Script(until=patience))
    body = alert()
    posts = [asyncio.create_task(keyed(relay, body, "k")) for _ in range(20)]
    await telegram.until(lambda: len(telegram.calls) > 0)
    patience.set()
    answers = await asyncio.gather(*posts)
    assert {answered.status for answered in answers} == {200}
    assert len({answered.raw for answered in answers}) == 1
    assert len({answered.headers["X-Delivery-ID"] for answered in answers}) == 1
    assert len(telegram.messages) == 1


async def test_simultaneous_alerts_have_an_answer_each(relay: RelayProcess, town: House) -> None:
    """Nobody gets another's number."""
    bodies = [alert() for _ in range(100)]
    answers = await asyncio.gather(*[relay.post(ALERTS, body) for body in bodies])
    for body, answered in zip(bodies, answers, strict=True):
        assert answered.status == 200
        assert answered.json["conversation_id"] == body["conversation_id"]
        (text,) = [m.text for m in town.telegram.messages if m.message_id == answered.json["telegram_message_id"]]
        assert f"#{body['conversation_id']}\n" in text
    assert len({answered.headers["X-Delivery-ID"] for answered in answers}) == 100


async def test_alerts_of_one_conversation_are_told_in_order(relay: RelayProcess, town: House) -> None:
    """A story told backwards is another story."""
    number = new_id()
    for place in range(10):
        assert (await relay.alert(conversation_id=number, message=f"part {place}")).status == 200
    assert [text.rpartition("part ")[2] for text in town.told(number)] == [str(place) for place in range(10)]


# --- native events on /alerts ---


async def test_a_native_event_on_alerts_is_an_event(relay: RelayProcess, town: House) -> None:
    """People point Chatwoot's webhook settings here: a signature opens the door, and the answer is the webhook's."""
    body = json.dumps(event(conversation={"id": (number := new_id()), "status": "open"})).encode()
    answered = await relay.post(ALERTS, body, headers=signed(body))
    assert answered.status == 200
    assert answered.json == {"success": True, "message": "Webhook forwarded to Telegram", "event": "message_created"}
    assert len(town.told(number)) == 1
    large = json.dumps(event(surplus="x" * 1_800_000)).encode()
    assert (await relay.post(ALERTS, large, headers=signed(large))).status == 200
    check_problem(await relay.post(ALERTS, {"event": 5}), 400)
    check_problem(await relay.post(ALERTS, event(), headers=JSON), 401)


async def test_a_signature_is_no_token(relay: RelayProcess) -> None:
    """It opens the door; an alert behind it needs the token all the same."""
    body = json.dumps(alert()).encode()
    check_problem(await relay.post(ALERTS, body, headers=signed(body)), 401)


# --- /webhook ---


async def test_an_event_is_told_and_answered_200(relay: RelayProcess, town: House) -> None:
    """By a signature alone, as Chatwoot itself posts it."""
    body = json.dumps(event(conversation={"id": (number := new_id()), "status": "open"})).encode()
    answered = await relay.post(WEBHOOK, body, headers=signed(body))
    assert answered.status == 200
    assert answered.json == {"success": True, "message": "Webhook forwarded to Telegram", "event": "message_created"}
    assert answered.headers["X-Delivery-ID"]
    assert len(town.told(number)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"X-Chatwoot-Signature": "sha256=" + "0" * 64},
        {"X-Chatwoot-Signature": "0" * 64},
        {"X-Chatwoot-Signature": "\xe9"},
        {"X-Chatwoot-Signature": ""},
        {"X-Chatwoot-Timestamp": "1"},
        {"X-Chatwoot-Timestamp": "١٧"},
        {"X-Chatwoot-Timestamp": "\xff"},
        {"X-Chatwoot-Timestamp": "9" * 400},
    ],
)
async def test_a_wrong_signature_is_answered_401(relay: RelayProcess, change: dict[str, str]) -> None:
    """Whatever bytes are in its headers."""
    body = json.dumps(event()).encode()
    check_problem(await relay.post(WEBHOOK, body, headers={**signed(body), **change}), 401)


@pytest.mark.parametrize("age", [301 + 5, -306, 86400])
async def test_a_stale_signature_is_answered_401(home: House, relay: RelayProcess, age: float) -> None:
    """It is right, and may be a replay."""
    body = json.dumps(event()).encode()
    check_problem(await relay.post(WEBHOOK, body, headers=signed(body, age=age)), 401)


async def test_a_signature_of_another_body_or_secret_is_answered_401(relay: RelayProcess) -> None:
    """A forger has neither."""
    body = json.dumps(event()).encode()
    check_problem(await relay.post(WEBHOOK, body, headers=signed(body, secret="another")), 401)
    check_problem(await relay.post(WEBHOOK, body + b" ", headers=signed(body)), 401)


async def test_any_of_several_secrets_will_do(home: House) -> None:
    """Each webhook and inbox of Chatwoot has its own."""
    relay = await home.relay(CHATWOOT_WEBHOOK_SECRET=f"first, {SECRET}")
    for secret in ("first", SECRET):
        body = json.dumps(event()).encode()
        assert (await relay.post(WEBHOOK, body, headers=signed(body, secret=secret))).status == 200
    check_problem(await relay.post(WEBHOOK, event()), 401)
    assert (await relay.alert()).status == 200, "without RELAY_TOKEN alerts are open"


async def test_a_replay_is_ignored_and_told_once(relay: RelayProcess, town: House) -> None:
    """Same signed timestamp and body, or same delivery id."""
    body = json.dumps(event(conversation={"id": (number := new_id()), "status": "open"})).encode()
    headers = signed(body, **{"X-Chatwoot-Delivery": f"delivery-{number}"})
    assert (await relay.post(WEBHOOK, body, headers=headers)).status == 200
    del headers["X-Chatwoot-Delivery"]
    replayed = await relay.post(WEBHOOK, body, headers=headers)
    other = json.dumps(event(message={"content": "other"})).encode()
    repeated = await relay.post(WEBHOOK, other, headers=signed(other, **{"X-Chatwoot-Delivery": f"delivery-{number}"}))
    for answered in (replayed, repeated):
        assert answered.status == 200
        assert answered.json["message"] == "Webhook ignored: duplicate"
        assert answered.json.keys() == {"success", "message", "event"}
    assert len(town.told(number)) == 1


@pytest.mark.parametrize("body", [{}, [], {"event": None}, {"event": 7}, {"event": ["x"]}, "event", 1, None])
async def test_what_is_no_event_is_answered_400(relay: RelayProcess, body: Any) -> None:
    """A body that is no object, or has no ``event`` string."""
    check_problem(await relay.post(WEBHOOK, json.dumps(body).encode()), 400)


@pytest.mark.parametrize(
    "members",
    [
        {"event": "never_heard_of"},
        {"event": ""},
        {"event": "\ud800"},
        {"event": "x" * 10_000},
        {"conversation": None, "sender": None, "message": None, "account": None},
        {"conversation": {"id": "x" * 100}, "sender": [], "message": 5, "account": "a"},
        {"conversation": {"id": 2**70}, "account": {"id": -(2**70)}},
        {"conversation": [[[]]], "sender": {"name": {"a": 1}}, "message": {"content": ["x"]}},
    ],
)
async def test_an_unknown_shape_is_never_an_error(relay: RelayProcess, members: dict[str, Any]) -> None:
    """It is told as far as it is understood."""
    answered = await relay.post(WEBHOOK, event(**members))
    assert answered.status == 200, answered.raw
    assert answered.json["success"] is True
    assert isinstance(answered.json["event"], str)


async def test_a_webhook_of_10_mib_is_taken(relay: RelayProcess) -> None:
    """Chatwoot puts whole conversations into one."""
    body = json.dumps(event(surplus="x" * 9_000_000)).encode().ljust(10 * 2**20)
    assert (await relay.post(WEBHOOK, body, headers=signed(body))).status == 200


async def test_an_event_that_telegram_refuses_for_good_is_answered_202(home: House) -> None:
    """Chatwoot can do nothing about it; the dead letter has it."""
    telegram = faulty(home)
    relay = await home.relay()
    telegram.script(refusal(400, "Bad Request: something nobody has heard of"))
    answered = await relay.post(WEBHOOK, event())
    assert (answered.status, answered.json["message"]) == (202, "Webhook queued for Telegram")
    _, told = await relay.run("outbox", "list", "--state", "dead")
    assert answered.headers["X-Delivery-ID"] in told


# --- /test ---


async def test_the_test_alert_goes_the_whole_way(relay: RelayProcess, town: House) -> None:
    """It says with what number Telegram has it."""
    answered = await relay.post(TEST)
    assert answered.status == 200
    message = town.telegram.messages[-1]
    assert answered.json == {
        "success": True,
        "message": "Test alert sent to Telegram",
        "telegram_message_id": message.message_id,
    }
    assert "🟡 CHATWOOT ALERT - MEDIUM\n\nReason: TEST_ALERT\n" in message.text
    assert answered.headers["X-Delivery-ID"]


@pytest.mark.parametrize(
    ("code", "said", "do"),
    [(401, "Unauthorized", "TELEGRAM_BOT_TOKEN"), (400, "Bad Request: chat not found", "TELEGRAM_CHAT_ID")],
)
async def test_a_failed_test_says_what_telegram_said(home: House, code: int, said: str, do: str) -> None:
    """And what to do about it; it is not told later, though alerts are."""
    telegram = faulty(home)
    relay = await home.relay()
    telegram.down = refusal(code, said)
    for _ in range(2):  # asked the second time it knows already
        body = check_problem(await relay.post(TEST), 502)
        assert said.rpartition(": ")[2] in body["detail"]
        assert do in body["detail"]
    assert (await relay.get(HEALTH)).json["status"] == "degraded"
    assert (await relay.alert(message="kept")).status == 202
    telegram.forget()
    await relay.restart()
    await telegram.until(lambda: len(telegram.messages) > 0)
    assert (await relay.alert(message="after")).status == 200
    assert not [text for text in telegram.told if "TEST_ALERT" in text]


async def test_a_test_that_telegram_does_not_answer_is_a_504(home: House) -> None:
    """It is not told later."""
    telegram = faulty(home)
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.3")
    telegram.script(Script(fault="hang"))
    check_problem(await relay.post(TEST), 504)


# --- /health, /metrics and the pages ---


async def test_health_is_told_to_anyone(relay: RelayProcess) -> None:
    """Probes have no credentials."""
    answered = await relay.get(HEALTH, headers={})
    assert answered.status == 200
    assert answered.headers["Content-Type"].startswith("application/json")
    body = answered.json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body.pop("timestamp"))
    body.pop("detail", None)  # the stale signatures of other tests make it degraded
    assert body.pop("status") in ("healthy", "degraded")
    assert body == {"service": "chatwoot-integration"}
    assert (await relay.request("HEAD", HEALTH)).status == 200


async def test_health_is_healthy_at_first(home: House) -> None:
    """And nothing but that."""
    relay = await home.relay()
    body = (await relay.get(HEALTH)).json
    assert (body["status"], body.keys()) == ("healthy", {"status", "service", "timestamp"})


async def test_metrics_are_prometheus_text(relay: RelayProcess) -> None:
    """Read by Prometheus as they are."""
    answered = await relay.get("/metrics")
    assert answered.status == 200
    assert answered.headers["Content-Type"].startswith("text/plain")
    assert b"# TYPE " in answered.raw


async def test_the_api_is_documented(relay: RelayProcess) -> None:
    """The document names every route, and pages show it to anyone."""
    answered = await relay.get("/openapi.json", headers={})
    assert answered.status == 200
    assert answered.json["openapi"].startswith("3.1")
    assert {ALERTS, WEBHOOK, TEST, HEALTH} <= answered.json["paths"].keys()
    for path in ("/docs", "/redoc"):
        page = await relay.get(path, headers={})
        assert page.status == 200
        assert page.headers["Content-Type"].startswith("text/html")
        assert "Content-Security-Policy" in page.headers


async def test_the_documentation_can_be_left_out(home: House) -> None:
    """Not everybody wants it public."""
    relay = await home.relay(RELAY_DOCS="off")
    for path in ("/docs", "/redoc", "/openapi.json"):
        check_problem(await relay.get(path), 404)
    assert (await relay.alert()).status == 200


# --- every answer ---


async def test_a_given_request_id_is_kept_where_it_is_sane(relay: RelayProcess) -> None:
    """It follows a request through several logs; it may not forge a line of them."""
    assert (await relay.get(HEALTH, headers={"X-Request-ID": "abc-123"})).headers["X-Request-ID"] == "abc-123"
    for odd in ("a b", "x" * 100, "\xe4", ""):
        assert (await relay.get(HEALTH, headers={"X-Request-ID": odd})).headers["X-Request-ID"] not in (odd, "")
