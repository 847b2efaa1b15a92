"""What strangers may send: a clear refusal or a close, never a crash or a hang, and the next request works."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from relay_process import ALERTS, HEALTH, JSON, RELAY_TOKEN, TEST, WEBHOOK, House, RelayProcess, alert, new_id

from chatwoot_relay.protocol import HEAD_TIMEOUT, MAX_CONNECTIONS

HEADER = f"Authorization: Bearer {RELAY_TOKEN}\r\nContent-Type: application/json\r\n".encode()
VALUES: list[Any] = [
    None, True, False, 0, -1, 1.5, 2**63, -(2**80), 10**4000, 1e308, "", " ", "\x00", "\ud800", "\u202e", "x" * 5000,
    [], [None], [[]], {}, {"a": None}, {"": {"": []}}, "12", "null",
]  # fmt: skip
FIELDS = (
    "severity", "reason", "conversation_id", "message", "customer_name", "customer_email", "timestamp", "chatwoot_url",
    "additional_info",
)  # fmt: skip


@pytest.fixture(autouse=True)
async def unharmed(relay: RelayProcess) -> AsyncIterator[None]:
    """After every attack the next alert is told, nothing of ours has failed, and memory is what it was."""
    seen = len(relay.lines)
    yield
    assert (await relay.alert(conversation_id=(number := new_id()))).status == 200
    await relay.logged("delivery.attempted", after=seen, outcome="sent")
    assert relay.process is not None
    for line in relay.lines[seen:]:
        assert line["event"] not in ("request.crashed", "library.logged", "relay.failed"), json.dumps(line)
        assert line.get("status", 0) < 500, (line, number)
    status = Path(f"/proc/{relay.process.pid}/status").read_text()
    peak = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert peak is not None
    assert int(peak[1]) < 300 * 1024


def statuses(received: bytes) -> list[int]:
    """The statuses of all answers on a connection; each is ours."""
    found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]
    heads = [head.lower() for head in re.findall(rb"HTTP/1\.[01] (?:[45]\d\d) .*?\r\n\r\n", received, re.DOTALL)]
    for head in heads:
        assert b"application/problem+json" in head, head
        assert b"x-request-id" in head, head
    return found


def post(body: bytes, *headers: bytes, path: str = ALERTS) -> bytes:
    """A whole request as bytes."""
    lines = b"".join(header + b"\r\n" for header in headers)
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%s%s%s\r\n%s" % (path.encode(), HEADER, length, lines, body)


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


CLOSE = b"Connection: close"
TE = b"Transfer-Encoding: chunked"


# --- bodies ---


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
async def test_a_body_of_100_mb_is_refused_unread(relay: RelayProcess, path: str) -> None:
    """Its length is enough to say no."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: 100000000\r\n\r\n" % (path.encode(), HEADER)
    assert statuses(await relay.send(head, answers=1)) == [413]
    assert statuses(await relay.send(head, *[b" " * 2**20] * 100, answers=1)) in (
        [413],
        [],
    )  # [] where the reset overtook it


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
async def test_a_body_without_a_length_is_read_to_the_limit_only(relay: RelayProcess, path: str) -> None:
    """Chunks say nothing of what is to come."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n\r\n" % (path.encode(), HEADER, TE)
    assert statuses(await relay.send(head, *[b"100000\r\n" + b" " * 2**20 + b"\r\n"] * 100, answers=1)) in ([413], [])


@pytest.mark.parametrize("path", ["/nothing", TEST, HEALTH])
async def test_a_large_body_where_none_is_read_harms_nobody(relay: RelayProcess, path: str) -> None:
    """404, 405 and /test never look at a body."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n" % path.encode()
    found = statuses(await relay.send(head, *[b" " * 2**20] * 100, answers=1))
    assert found in ([404], [405], [401], [])


@pytest.mark.parametrize("path", [ALERTS, WEBHOOK])
@pytest.mark.parametrize(
    "body",
    [b"[" * 100_000, b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[{" * 500_000],
    ids=["open", "arrays", "objects", "mixed"],
)
async def test_absurd_nesting_is_answered_400(relay: RelayProcess, path: str, body: bytes) -> None:
    """A reader that follows every bracket runs out of stack."""
    assert (await relay.post(path, body)).status == 400


@pytest.mark.parametrize("opening", [("[", "]"), ('{"a":', "}")])
async def test_no_depth_of_nesting_is_a_crash(relay: RelayProcess, opening: tuple[str, str]) -> None:
    """What one reader still takes another, deeper in the stack, may not: of every depth around the limit."""
    begin, end = opening
    for depth in [50, 100, 200, 400, *range(850, 1030, 3)]:
        nested = begin * depth + "1" + end * depth
        body = b'{"additional_info":{"k":%s},%s' % (nested.encode(), json.dumps(alert()).encode()[1:])
        headers = {**JSON, **relay.credentials, "Idempotency-Key": f"depth {depth} {new_id()}"}
        assert (await relay.post(ALERTS, body, headers=headers)).status in (200, 400), depth
        body = b'{"event":"message_created","conversation":{"id":%d,"x":%s}}' % (new_id(), nested.encode())
        assert (await relay.post(WEBHOOK, body)).status in (200, 400), depth


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "nan", "undefined", "0x10", "01", "+1", "1.", ".5"])
async def test_words_that_json_does_not_know_are_answered_400(relay: RelayProcess, word: str) -> None:
    """Python's reader would take the first three."""
    body = json.dumps(alert())[:-1] + f', "additional_info": {{"a": {word}}}}}'
    assert (await relay.post(ALERTS, body.encode())).status == 400


async def test_the_last_of_duplicate_members_counts(relay: RelayProcess) -> None:
    """As with every common reader of JSON."""
    number = new_id()
    body = json.dumps(alert(conversation_id=1))[:-1] + f', "conversation_id": {number}}}'
    answered = await relay.post(ALERTS, body.encode())
    assert (answered.status, answered.json["conversation_id"]) == (200, number)


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xfe\xff"]
)
async def test_what_is_no_utf_8_is_answered_400(relay: RelayProcess, raw: bytes) -> None:
    """Overlong, surrogates, beyond Unicode, cut short."""
    body = json.dumps(alert(message="MARK")).encode().replace(b"MARK", b"a" + raw + b"b")
    assert (await relay.post(ALERTS, body)).status == 400


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "-1e999", "1e-999", "0." + "1" * 5000])
async def test_a_number_of_any_size_is_json(relay: RelayProcess, number: str) -> None:
    """RFC 8259 sets no limit: as an identifier it is wrong, as information it is told, elsewhere it is ignored."""
    body = json.dumps(alert())
    within = body[:-1] + f', "additional_info": {{"n": {number}}}, "surplus": {number}}}'
    assert (await relay.post(ALERTS, within.encode())).status == 200
    keyed = {**JSON, **relay.credentials, "Idempotency-Key": f"{number[:9]} {new_id()}"}
    assert (await relay.post(ALERTS, within.encode(), headers=keyed)).status == 200
    wrong = body[:-1] + f', "conversation_id": {number}}}'
    assert (await relay.post(ALERTS, wrong.encode())).status == 422
    event = f'{{"event": "message_created", "conversation": {{"id": {number}}}, "account": {{"id": {number}}}}}'
    assert (await relay.post(WEBHOOK, event.encode())).status == 200


@pytest.mark.parametrize("field", FIELDS)
async def test_no_value_of_any_field_is_a_crash(relay: RelayProcess, field: str) -> None:
    """Each kind of value in each place is told or refused, alone and with a key."""
    for value in VALUES:
        body = alert(**{field: value})
        answered = await relay.post(ALERTS, number_safe(body))
        assert answered.status in (200, 422), (value, answered.raw)
        if answered.status == 422:
            assert [error["path"] for error in answered.json["errors"]] == [f"$.{field}"]


def number_safe(document: Any) -> bytes:
    """JSON with numbers that Python itself will not write."""
    return re.sub(r'"HUGE"', "9" * 5000, json.dumps(_replaced(document))).encode()


def _replaced(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**4000:
        return "HUGE"
    return {k: _replaced(v) for k, v in value.items()} if isinstance(value, dict) else value


async def test_null_in_every_field_is_answered_422(relay: RelayProcess) -> None:
    """Only the required ones are wrong."""
    answered = await relay.post(ALERTS, dict.fromkeys(FIELDS))
    assert answered.status == 422
    assert {error["path"] for error in answered.json["errors"]} == {
        "$.severity", "$.reason", "$.conversation_id", "$.message",
    }  # fmt: skip


EVENT: dict[str, Any] = {
    "event": "message_created",
    "id": 5,
    "message_type": "incoming",
    "content": "Hello",
    "content_type": "text",
    "content_attributes": {"email": {"subject": "x"}},
    "created_at": "2025-01-19T18:30:00.000Z",
    "private": False,
    "account": {"id": 3, "name": "Acme"},
    "inbox": {"id": 1, "name": "Website"},
    "sender": {"id": 7, "name": "Jane", "email": "jane@example.com", "type": "contact"},
    "attachments": [{"file_type": "image", "data_url": "https://x.example/a.png"}],
    "changed_attributes": [{"status": {"previous_value": "pending", "current_value": "open"}}],
    "conversation": {
        "id": 1042,
        "status": "open",
        "channel": "Channel::WebWidget",
        "labels": ["vip"],
        "priority": "urgent",
        "messages": [{"id": 5, "content": "Hello", "message_type": 0}],
        "meta": {"sender": {"name": "Jane"}, "assignee": {"id": 1, "name": "Ann", "type": "user"}, "team": {"id": 1}},
        "contact_inbox": {"id": 1},
        "timestamp": 1737311400,
    },
}
NAMES = ("message_created", "message_updated", "conversation_created", "conversation_updated",
         "conversation_status_changed", "contact_updated", "macro.executed", "odd")  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value in a document."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [*([path] if path else []), *(place for key, item in items for place in places(item, (*path, key)))]


@pytest.mark.parametrize("name", NAMES)
async def test_no_value_anywhere_in_an_event_is_a_crash(relay: RelayProcess, name: str) -> None:
    """A Chatwoot of tomorrow may put anything anywhere; a seeded choice of all pairs of place and value."""
    roll = random.Random(name)
    everywhere = [place for place in places(EVENT) if place != ("event",)]
    for place in roll.sample(everywhere, 30):
        document = json.loads(json.dumps({**EVENT, "event": name}))
        target = document
        for step in place[:-1]:
            target = target[step]
        target[place[-1]] = roll.choice(VALUES)
        if place[:2] != ("conversation", "id"):
            document["conversation"] = (
                {**document["conversation"], "id": new_id()}
                if isinstance(document["conversation"], dict)
                else document["conversation"]
            )
        answered = await relay.post(WEBHOOK, number_safe(document).replace(b"9" * 5000, b"99"))
        assert answered.status == 200, (place, answered.raw)


async def test_a_bomb_is_not_unpacked(relay: RelayProcess) -> None:
    """A few kilobytes that would become a gigabyte."""
    bomb = gzip.compress(b" " * 10_000_000)
    for encoding in ("gzip", "deflate", "br", "zstd", "identity", "x", "gzip, gzip", ""):
        headers = {**JSON, **relay.credentials, "Content-Encoding": encoding}
        assert (await relay.post(ALERTS, bomb, headers=headers)).status == 415, encoding


async def test_a_body_of_a_million_small_values_costs_no_memory(relay: RelayProcess) -> None:
    """Ten megabytes of JSON can become a gigabyte of objects."""
    for body in (b"[" + b"[]," * 3_000_000 + b"[]]", b'{"event":"x","a":[' + b"{}," * 3_000_000 + b"{}]}"):
        assert (await relay.post(WEBHOOK, body)).status in (200, 400)


async def test_many_large_bodies_at_once_are_parsed_one_at_a_time(relay: RelayProcess) -> None:
    """A dozen senders of the worst that is allowed: some are asked to come again, none makes memory grow."""
    worst = b'{"event":"worst","a":[' + b"{}," * 290_000 + b"{}]}"
    worst = worst.ljust(9_000_000)
    answers = await asyncio.gather(*[relay.post(WEBHOOK, worst) for _ in range(12)])
    assert {answered.status for answered in answers} <= {200, 429}
    assert 200 in {answered.status for answered in answers}


# --- HTTP itself ---


async def test_chunks_are_a_body(relay: RelayProcess) -> None:
    """Proxies pass bodies on in chunks."""
    body = json.dumps(alert()).encode()
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n%s\r\n\r\n" % (ALERTS.encode(), HEADER, TE, CLOSE)
    assert statuses(await relay.send(head + chunked(body[:10], body[10:11], body[11:]))) == [200]


async def test_pipelined_requests_are_answered_in_order(relay: RelayProcess) -> None:
    """Each has its own answer."""
    numbers = [new_id() for _ in range(3)]
    bodies = [json.dumps(alert(conversation_id=number)).encode() for number in numbers]
    received = await relay.send(post(bodies[0]) + post(b"{") + post(bodies[1]) + post(bodies[2], CLOSE))
    assert statuses(received) == [200, 400, 200, 200]
    assert [int(found) for found in re.findall(rb'"conversation_id": (\d+)', received)] == numbers


SMUGGLED = post(b"{}", CLOSE, path="/smuggled")
FORMS = {
    "length and chunks": [b"Content-Length: 4", TE],
    "chunks and length": [TE, b"Content-Length: 4"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "a list of lengths": [b"Content-Length: 5, 6"],
    "a negative length": [b"Content-Length: -5"],
    "a signed length": [b"Content-Length: +5"],
    "a hexadecimal length": [b"Content-Length: 0x5"],
    "an Arabic length": ["Content-Length: ٥".encode()],
    "a huge length": [b"Content-Length: " + b"9" * 30],
    "no length at all": [b"Content-Length:"],
    "an unknown coding": [b"Transfer-Encoding: xchunked"],
    "chunks not last": [b"Transfer-Encoding: chunked, gzip"],
    "chunks twice": [b"Transfer-Encoding: chunked, chunked"],
    "two codings": [TE, b"Transfer-Encoding: identity"],
    "a blank before the colon": [b"Transfer-Encoding : chunked"],
    "a folded line": [b"X-A: b", b" Transfer-Encoding: chunked"],
    "a NUL": [b"X-A: b\x00c"],
    "a bare return": [b"X-A: b\rTransfer-Encoding: chunked"],
    "no name": [b": x"],
    "no colon": [b"abc"],
    "a name of odd signs": [b"X(A): b"],
}


@pytest.mark.parametrize("form", FORMS)
async def test_a_smuggled_request_is_never_served(relay: RelayProcess, form: str) -> None:
    """Where two readers could disagree on a request's end there is one answer, a refusal, and the end."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s" % (ALERTS.encode(), HEADER)
    head += b"".join(line + b"\r\n" for line in FORMS[form]) + b"\r\n"
    assert statuses(await relay.send(head + b"0\r\n\r\n" + SMUGGLED)) == [400]


@pytest.mark.parametrize(
    "chunks",
    [b"zz\r\nabc\r\n0\r\n\r\n", b"-1\r\n\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffffff\r\nabc", b"0x2\r\n{}\r\n",
     b"2\r\n{}0\r\n\r\n", b"2;" + b"x" * 100_000 + b"\r\n{}\r\n0\r\n\r\n"],
)  # fmt: skip
async def test_broken_chunks_are_answered_400(relay: RelayProcess, chunks: bytes) -> None:
    """A body that ends nowhere is not guessed at."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\n%s%s\r\n%s\r\n\r\n" % (ALERTS.encode(), HEADER, TE, CLOSE)
    assert statuses(await relay.send(head + chunks)) in ([400], [422])


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n\r\n\r\nfoo\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        bytes(range(256)) * 100,
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: b\r\n" % n for n in range(20_000)) + b"\r\n",
    ],
    ids=["words", "short", "9.9", "2.0", "lower case", "HTTP/2", "unknown", "TLS", "bytes", "bad target", "long target",
         "long header", "a header often", "many headers"],
)  # fmt: skip
async def test_what_is_no_http_is_answered_400_and_closed(relay: RelayProcess, raw: bytes) -> None:
    """By a problem, for that too is an error of ours to explain; a reset may overtake it where much was unread."""
    assert statuses(await relay.send(raw)) in ([400], [404], [])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (b"GET http://other.example" + HEALTH.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [200]),
        (b"GET " + HEALTH.encode() + b" HTTP/1.0\r\n\r\n", [200]),
        (b"GET " + HEALTH.encode() + b" HTTP/1.1\r\nConnection: close\r\n\r\n", [400]),
        (b"GET " + HEALTH.encode() + b" HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n", [200]),
        (b"GET /%ff%fe%00?%ff=%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [400]),
        (b"GET //evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (b"GET /\\evil HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", [404]),
        (
            b"GET " + HEALTH.encode() + b" HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n"
            b"Connection: Upgrade, close\r\n\r\n",
            [200],
        ),
    ],
    ids=["star", "connect", "absolute", "1.0", "no host", "odd host", "quoted", "odd bytes", "slashes", "backslash",
         "upgrade"],
)  # fmt: skip
async def test_rare_forms_of_a_request_have_an_answer(relay: RelayProcess, raw: bytes, expected: list[int]) -> None:
    """They are HTTP, if seldom seen."""
    assert statuses(await relay.send(raw)) == expected


async def test_an_expectation_is_met_or_refused(relay: RelayProcess) -> None:
    """curl asks before it sends more than a megabyte."""
    body = json.dumps(alert()).encode()
    assert statuses(await relay.send(post(body, b"Expect: 100-continue", CLOSE))) == [100, 200]
    assert statuses(await relay.send(post(body, b"Expect: a miracle", CLOSE))) == [417]


@pytest.mark.parametrize(
    "name",
    ["Authorization", "X-Chatwoot-Signature", "X-Chatwoot-Timestamp", "X-Chatwoot-Delivery", "X-Forwarded-For",
     "X-Request-ID", "Idempotency-Key", "User-Agent", "Cookie", "Accept", "Forwarded", "X-Forwarded-Host"],
)  # fmt: skip
@pytest.mark.parametrize("value", [b"\xff\xfe", "Bearer 日本".encode(), b"Basic \xe4\xf6=", b"sha256=\x80" + b"0" * 63])
async def test_bytes_in_a_header_are_no_crash(relay: RelayProcess, name: str, value: bytes) -> None:
    """Headers may hold any byte; secrets are compared as bytes."""
    line = name.encode() + b": " + value
    for path in (ALERTS, WEBHOOK):
        received = await relay.send(post(json.dumps(alert(event="x")).encode(), line, CLOSE, path=path))
        assert statuses(received) in ([200], [401])


@pytest.mark.parametrize("name", [b"Authorization: Bearer x", b"X-Chatwoot-Signature: x", b"Content-Type: text/plain"])
async def test_a_header_twice_is_no_way_in(relay: RelayProcess, name: bytes) -> None:
    """Which of two counts is a matter of taste, so neither does."""
    bare = post(json.dumps(alert()).encode(), name, name, CLOSE).replace(HEADER, b"")
    assert statuses(await relay.send(bare)) in ([401], [400], [415])


async def test_a_client_that_goes_away_leaves_nothing_behind(relay: RelayProcess, town: House) -> None:
    """In the middle of a head, of a body, and before its answer: what came whole is told all the same."""
    whole = post(json.dumps(alert(conversation_id=(number := new_id()))).encode())
    for cut in (1, 20, len(whole) - 5, len(whole)):
        _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        writer.write(whole[:cut])
        await writer.drain()
        writer.transport.abort()
    await town.telegram.until(lambda: len(town.told(number)) == 1)


async def test_idle_connections_beyond_the_limit_make_room(relay: RelayProcess) -> None:
    """The oldest are closed, also when hundreds come in one turn of the loop; whoever comes with a request is served.

    What is waited for is less than half of the time that a head may take, which would close them all.
    """
    crowd = [asyncio.open_connection("127.0.0.1", relay.port) for _ in range(600)]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(HEAD_TIMEOUT / 2):
        readers = []
        for reader, writer in await asyncio.gather(*crowd):
            stack.callback(writer.close)
            readers.append(asyncio.create_task(reader.read()))
        pending = set(readers)
        while len(pending) > MAX_CONNECTIONS:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        assert (await relay.alert()).status == 200
    await asyncio.gather(*readers, return_exceptions=True)


async def test_clients_that_are_slow_with_their_bodies_make_room(relay: RelayProcess) -> None:
    """A crowd of them would shut everybody out for as long as a body may take."""
    half = post(json.dumps(alert()).encode())[:-5]
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            stack.callback(writer.close)
            writer.write(half)
        for _ in range(5):
            answered = await relay.send(post(json.dumps(alert()).encode(), CLOSE))
            assert statuses(answered) == [200]


async def test_a_few_large_bodies_that_never_end_shut_nobody_out(relay: RelayProcess) -> None:
    """What may be in flight at once is bounded, for the large alone; and to Chatwoot that refusal is 429."""
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n" % WEBHOOK.encode()
    large = json.dumps({"event": "x", "surplus": "x" * 100_000}).encode()
    async with contextlib.AsyncExitStack() as stack:
        for size in (9_990_000, 9_990_000, 9_990_000, 3_530_000):
            _, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            stack.callback(writer.close)
            writer.write(head + b" " * size)
            await writer.drain()
        async with asyncio.timeout(15):
            while (answered := await relay.post(WEBHOOK, large)).status == 200:
                pass  # the others are not read yet
        assert (answered.status, answered.headers["Retry-After"]) == (429, "3")
        assert (await relay.alert(message="x" * 60_000)).status == 200
