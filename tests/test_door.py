"""The one door: any bytes become a value or a refusal, and nobody gets in who may not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
from decimal import Decimal
from typing import Any

import attrs
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from chatwoot_relay import door
from chatwoot_relay.clock import Clock
from chatwoot_relay.door import Door, Entry, parse, read_alert
from chatwoot_relay.errors import Complaint, OutboxUnavailable, Refused
from chatwoot_relay.models import MAX_ID, Alert
from chatwoot_relay.settings import Rate, Secret, Settings
from chatwoot_relay.signature import Verdict

LEAST: dict[str, Any] = {"severity": "high", "reason": "WHY", "conversation_id": 12345, "message": "Help"}


class OwnClock(Clock):
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.offset = 1.7e9

    def wall(self) -> float:
        return self.at + self.offset

    def monotonic(self) -> float:
        return self.at


def a_door(clock: Clock | None = None, **settings: Any) -> Door:
    return Door(Settings(telegram_bot_token=Secret("1:a"), telegram_chat_id=1, **settings), clock or OwnClock())


def a_request(*headers: tuple[str, str], peer: str = "127.0.0.1", path: str = "/") -> Any:
    request = make_mocked_request("POST", path, headers=CIMultiDict(headers))
    return request.clone(remote=peer)


def outcome(act: Any, *args: Any) -> Any:
    """What it returns, or the refusal that it raises."""
    try:
        return act(*args)
    except Refused as refused:
        return refused


# --- parse ---


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'"\\ud800"', "\ud800"),
        (b'{"\\udfff": "\\ud83d"}', {"\udfff": "\ud83d"}),
        (b"\xef\xbb\xbf{}", {}),
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'\xef\xbb\xbf{"a": 1, "a": 2}', {"a": 2}),
        (b" \t\r\n1 ", 1),
        (b"-0", 0),
        (b"1e2", 100.0),
        (b"1e-400", 0.0),
        (b"1e400", Decimal("1e400")),
        (b"[-1e400]", [Decimal("-1e400")]),
        (b"18446744073709551616", 2**64),
        (b"1" * 5000, Decimal("1" * 5000)),
        (b"null", None),
        (b'"\xf4\x8f\xbf\xbf"', "\U0010ffff"),
        (b'"\\u0000"', "\0"),
    ],
)
def test_all_that_json_allows_is_read(body: bytes, value: Any) -> None:
    """RFC 8259 bounds neither numbers nor surrogates; a sender who is within it is served."""
    assert parse(body) == value


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "empty"), (b" \n", "empty"), (b"NaN", "not JSON"), (b"[Infinity]", "not JSON"), (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"), (b"{} {}", "not JSON"), (b'"\n"', "not JSON"), (b"01", "not JSON"),
        (b"{", "not JSON"), (b"1e" + b"9" * 50, "not JSON"), (b'"\xff"', "not UTF-8"), (b'"\xed\xa0\x80"', "not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"), (b"[" * 100_000, "nested"), (b'{"a":' * 100_000, "nested"),
        (b"[" * 501 + b"]" * 501, "nested"), (b'{"a":' * 501 + b"1" + b"}" * 501, "nested"),
        (b"[" + b"1," * 1_000_000 + b"1]", "too many"), (b'"' + b'\\",' * 1_000_000, "not JSON"),
        (b"[" + b'"",' * 1_000_000 + b"1]", "too many"),
    ],
)  # fmt: skip
def test_what_json_forbids_is_a_clear_400(body: bytes, why: str) -> None:
    """Never a crash, never a hang, and the sender learns which fault it is."""
    with pytest.raises(Refused, match=why) as refused:
        parse(body)
    assert refused.value.status == 400


@pytest.mark.parametrize("words", ["a,b", '{"a":[1,2]},', '\\",'])
def test_signs_in_a_text_are_no_values(words: str) -> None:
    """A pasted table is one value, however many commas it has."""
    assert parse(json.dumps([words * 700_000]).encode()) == [words * 700_000]


def test_five_hundred_levels_are_allowed() -> None:
    """The bound is one number, on every Python."""
    assert isinstance(parse(b"[" * 500 + b"]" * 500), list)
    assert parse(b'"' + b"[" * 600 + b'"') == "[" * 600


@given(
    st.binary(max_size=60)
    | st.text(st.sampled_from('[]{}",:0123456789eE+-.\\ud8ntrfals '), max_size=40).map(str.encode)
)
def test_any_bytes_are_a_value_or_a_refusal(body: bytes) -> None:
    """The standard library judges: what both read is the same, and nothing else comes out."""
    value = outcome(parse, body)
    if isinstance(value, Refused):
        assert value.status == 400
        return
    assert value == json.loads(body.decode("utf-8-sig"), parse_float=lambda d: parse(d.encode()))


# --- read_alert ---

WRONG: dict[str, list[Any]] = {
    "severity": [None, 1, True, 1.5, [], {}, "", " \n", ...],
    "reason": [None, 1, True, [], {}, "", "\t", Decimal("1e400"), ...],
    "conversation_id": [
        None, True, False, 0, -1, 1.5, MAX_ID + 1, "", "0", "012", "1 ", "+1", "1e3", "١٢", "1_0",
        "12345678901234567890", "9" * 5000, [], {}, Decimal("1e400"), ...,
    ],
    "message": [None, 1, True, [], {}, "", " \r\n\t", ...],
    "customer_name": [1, False, [], {}],
    "customer_email": [1, True, [], {}],
    "timestamp": [1737311400, 1.5, True, [], {}],
    "chatwoot_url": [1, True, [], {}],
    "additional_info": [1, True, [], "text", [["a", 1]]],
}  # fmt: skip
EACH = [pytest.param(name, value, id=f"{name}-{str(value)[:20]}") for name, values in WRONG.items() for value in values]


def complaints(document: Any) -> dict[str, str]:
    with pytest.raises(Refused) as refused:
        read_alert(document)
    assert refused.value.status == 422
    return {complaint.path: complaint.message for complaint in refused.value.errors}


@pytest.mark.parametrize(("name", "value"), EACH)
def test_every_wrong_member_is_named(name: str, value: Any) -> None:
    """Nothing is guessed: null is no "None", 7.9 no 7, true no 1."""
    found = complaints({key: it for key, it in {**LEAST, name: value}.items() if it is not ...})
    assert list(found) == [f"$.{name}"]
    assert found[f"$.{name}"]
    assert "9" * 100 not in found[f"$.{name}"]


def test_every_complaint_comes_at_once() -> None:
    """One round trip mends them all."""
    found = complaints({name: values[0] for name, values in WRONG.items()})
    assert list(found) == [f"$.{name}" for name in WRONG]
    assert complaints({}) == {f"$.{name}": "is required" for name in LEAST}


@pytest.mark.parametrize("document", [None, [], "x", 1, 1.5, True, [LEAST]])
def test_what_is_no_object_is_no_alert(document: Any) -> None:
    """JSON, yet not ours."""
    assert complaints(document) == {"$": "expected an object"}


@pytest.mark.parametrize(
    ("given_id", "number"),
    [(1, 1), (MAX_ID, MAX_ID), ("1", 1), (str(MAX_ID), MAX_ID), (12345.0, 12345), (1e3, 1000)],
)
def test_a_conversation_is_a_whole_number_or_its_digits(given_id: Any, number: int) -> None:
    """JSON has one kind of number, and some senders quote theirs."""
    assert read_alert({**LEAST, "conversation_id": given_id}).conversation_id == number


def test_null_is_absent_and_the_unknown_ignored() -> None:
    """Senders grow members that we do not know; our own inner one cannot be set from outside."""
    optional = ("customer_name", "customer_email", "timestamp", "chatwoot_url", "additional_info")
    assert read_alert({**LEAST, **dict.fromkeys(optional), "left_out": 7, "x": {"y": 1}}) == Alert(**LEAST)


def test_lone_surrogates_are_replaced_wherever_they_stand() -> None:
    """No UTF-8 holds them; one in a name must not cost the alert."""
    alert = read_alert({**LEAST, "message": "a\ud800", "customer_name": "\udfff"})
    assert (alert.message, alert.customer_name) == ("a\ufffd", "\ufffd")


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([field.name for field in attrs.fields(Alert)]), JSONS) | JSONS)
@example({**LEAST, "conversation_id": float("inf")})
def test_any_value_is_an_alert_or_a_refusal(document: Any) -> None:
    """The door raises nothing else."""
    found = outcome(read_alert, document)
    if isinstance(found, Refused):
        assert found.status == 422
        assert found.errors
        assert all(isinstance(each, Complaint) and each.path.startswith("$") for each in found.errors)
    else:
        assert isinstance(found, Alert)


# --- who may enter ---

BODY = b'{"event": "x"}'
TOKEN, SECRET = "let-me-in", "whsec"


def signed(at: int, *, secret: str = SECRET, body: bytes = BODY) -> list[tuple[str, str]]:
    mac = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return [("X-Chatwoot-Signature", f"sha256={mac}"), ("X-Chatwoot-Timestamp", str(at))]


def entry(**proof: Any) -> Entry:
    return Entry(**{"body": BODY, "token": False, "signature": Verdict.MISSING, "transport": (), **proof})


def refused_with(act: Any, *args: Any) -> int | None:
    found = outcome(act, *args)
    if not isinstance(found, Refused):
        return None
    assert "WWW-Authenticate" in found.headers
    return found.status


@pytest.mark.parametrize(
    ("settings", "open_to"),
    [
        ({}, {"nobody", "signature", "token", "both"}),
        ({"relay_token": Secret(TOKEN)}, {"token", "both"}),
        ({"chatwoot_webhook_secret": (Secret(SECRET),)}, {"signature", "both"}),
        ({"relay_token": Secret(TOKEN), "chatwoot_webhook_secret": (Secret(SECRET),)}, {"signature", "token", "both"}),
    ],
    ids=["open", "token", "secret", "both"],
)
def test_the_webhook_opens_to_any_proof_that_is_configured(settings: dict[str, Any], open_to: set[str]) -> None:
    """Automation rules cannot sign and old Chatwoots do not: the token is their way."""
    valid = Verdict.VALID if "chatwoot_webhook_secret" in settings else Verdict.MISSING
    token = "relay_token" in settings
    shows = {
        "nobody": entry(),
        "signature": entry(signature=valid),
        "token": entry(token=token),
        "both": entry(token=token, signature=valid),
    }
    ours = a_door(**settings)
    assert {who for who, shown in shows.items() if refused_with(ours.demand_any, shown) is None} == open_to
    for wrong in (Verdict.MALFORMED, Verdict.STALE, Verdict.MISMATCH):
        assert refused_with(ours.demand_any, entry(signature=wrong)) == (401 if settings else None)


def test_an_alert_needs_the_token_where_one_is_set() -> None:
    """A signature is Chatwoot's, and Chatwoot posts no alerts."""
    assert refused_with(a_door().demand_token, False) is None
    ours = a_door(relay_token=Secret(TOKEN))
    assert refused_with(ours.demand_token, False) == 401
    assert refused_with(ours.demand_token, True) is None


@pytest.mark.parametrize(
    ("headers", "path", "right"),
    [
        ([("Authorization", f"Bearer {TOKEN}")], "/", True),
        ([("Authorization", f"bearer  {TOKEN} ")], "/", True),
        ([("Authorization", "Basic " + base64.b64encode(f"any:{TOKEN}".encode()).decode())], "/", True),
        ([], f"/?a=b&token={TOKEN}", True),
        ([], "/?token=let%2Dme%2Din", True),
        ([], "/", False),
        ([("Authorization", "Bearer no")], "/", False),
        ([("Authorization", TOKEN)], "/", False),
        ([("Authorization", f"Bearer {TOKEN}")] * 2, "/", False),
        ([("Authorization", "Basic !!!")], "/", False),
        ([("Authorization", "Bearer ÿ")], "/?token=%ff", False),
        ([], "/?token=", False),
    ],
)
def test_the_token_comes_in_three_ways(headers: list[tuple[str, str]], path: str, right: bool) -> None:
    """A header where one can be set, else the password or the URL."""
    assert a_door(relay_token=Secret(TOKEN)).has_token(a_request(*headers, path=path)) is right
    assert a_door().has_token(a_request(*headers, path=path)) is False


# --- the client's address ---

PROXY = "10.0.0.1"
TRUST = {"relay_trusted_proxies": tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "::1/128", "127.0.0.1/32")))}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
        (PROXY, [], PROXY),
        (PROXY, ["198.51.100.7"], "198.51.100.7"),
        (PROXY, ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        (PROXY, ["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        (PROXY, ["1.1.1.1, 198.51.100.7, 10.2.3.4", "10.9.9.9"], "198.51.100.7"),
        (PROXY, ["10.2.3.4, 10.3.4.5"], "10.2.3.4"),
        (PROXY, ["198.51.100.7:5123"], "198.51.100.7"),
        (PROXY, ["[2001:db8::7]:443"], "2001:db8::7"),
        (PROXY, ["[2001:db8::7]"], "2001:db8::7"),
        (PROXY, ["2001:DB8:0::7"], "2001:db8::7"),
        (PROXY, ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("::ffff:10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("::1", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8::1", ["198.51.100.7"], "2001:db8::1"),
        (PROXY, ["unknown"], PROXY),
        (PROXY, ["198.51.100.7, _hidden"], PROXY),
        (PROXY, ["198.51.100.7, , "], PROXY),
        (PROXY, ["198.51.100.7, <script>"], PROXY),
        (PROXY, ["198.51.100.999"], PROXY),
        ("", ["198.51.100.7"], "198.51.100.7"),
        ("", [], "local"),
    ],
)
def test_forwarded_addresses_are_believed_from_trusted_proxies_only(
    peer: str, forwarded: list[str], client: str
) -> None:
    """From the right, hop by hop: what stands left of the first stranger is that stranger's word."""
    request = a_request(*(("X-Forwarded-For", value) for value in forwarded), peer=peer)
    assert a_door(**TRUST).client(request) == client


def test_nobody_is_believed_where_no_proxy_is_trusted() -> None:
    """RELAY_TRUSTED_PROXIES=off."""
    request = a_request(("X-Forwarded-For", "1.2.3.4"), peer="127.0.0.1")
    assert a_door(relay_trusted_proxies=()).client(request) == "127.0.0.1"


# --- the rate ---


def counted(ours: Door, client: str = "a") -> tuple[bool, dict[str, str]]:
    found = outcome(ours.count, client)
    if not isinstance(found, Refused):
        return True, found
    assert found.status == 429
    return False, found.headers


def test_a_client_has_its_rate_in_any_window() -> None:
    """A moving window: no burst of twice the rate at a minute's edge."""
    clock = OwnClock()
    ours = a_door(clock, relay_rate_limit=Rate(3, 60))
    told = [counted(ours)[1]["RateLimit-Remaining"]]
    clock.at += 50
    told += [counted(ours)[1]["RateLimit-Remaining"] for _ in range(2)]
    assert told == ["2", "1", "0"]
    right, headers = counted(ours)
    assert (right, headers["Retry-After"], headers["RateLimit"]) == (False, "10", '"alerts";r=0;t=10')
    clock.at += 9.75
    assert (counted(ours)[0], counted(ours)[1]["Retry-After"]) == (False, "1")
    clock.at += 0.25
    assert [counted(ours)[0], counted(ours)[0]] == [True, False]
    assert counted(ours)[1]["Retry-After"] == "50"


@given(st.lists(st.integers(0, 25), max_size=60), st.integers(1, 4), st.sampled_from([1, 60]))
def test_the_rate_is_exact_and_retry_after_is_kept(pauses: list[int], limit: int, seconds: int) -> None:
    """Never one more than the rate, never a refusal without need, and who comes back when told is let in."""
    clock = OwnClock()
    ours = a_door(clock, relay_rate_limit=Rate(limit, seconds))
    taken: list[float] = []
    for pause in pauses:
        clock.at += pause / 4
        right, headers = counted(ours)
        assert right is (sum(at > clock.at - seconds for at in taken) < limit)
        assert ("Retry-After" in headers) is not right
        if not right:
            clock.at += int(headers["Retry-After"])
            assert counted(ours)[0]
        taken.append(clock.at)


def test_a_refused_request_does_not_lengthen_the_wait() -> None:
    """Who asks again and again is served as soon as who waits."""
    clock = OwnClock()
    ours = a_door(clock, relay_rate_limit=Rate(1, 60))
    counted(ours)
    for left in range(60, 0, -1):
        right, headers = counted(ours)
        assert (right, headers["Retry-After"]) == (False, str(left))
        clock.at += 1
    assert counted(ours)[0]


def test_one_client_does_not_spend_anothers_rate() -> None:
    """The rate is each client's own."""
    ours = a_door(relay_rate_limit=Rate(1, 60))
    assert [counted(ours, client)[0] for client in ("a", "b", "a")] == [True, True, False]


def test_the_number_of_clients_that_are_remembered_is_bounded() -> None:
    """Memory does not follow an attacker's addresses; who was seen last is remembered."""
    ours = a_door(relay_rate_limit=Rate(1, 60))
    for number in range(door.MAX_CLIENTS + 5):
        counted(ours, str(number))
    assert not counted(ours, str(door.MAX_CLIENTS + 4))[0]
    assert counted(ours, "0")[0]


def test_a_jump_of_the_wall_clock_refuses_nobody() -> None:
    """A day back would else refuse for a day."""
    clock = OwnClock()
    ours = a_door(clock, relay_rate_limit=Rate(2, 60))
    assert counted(ours)[0]
    clock.offset -= 86400
    assert counted(ours)[0]
    assert counted(ours)[1]["Retry-After"] == "60"
    clock.offset += 2 * 86400
    assert counted(ours)[1]["Retry-After"] == "60"


def test_no_rate_is_no_limit() -> None:
    """RELAY_RATE_LIMIT=off says nothing of limits either."""
    assert a_door(relay_rate_limit=None).count("a") == {}


# --- reading ---


class Stream:
    """A body in pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    async def readany(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def is_eof(self) -> bool:
        return False


def a_post(*headers: tuple[str, str], pieces: tuple[bytes, ...] = (BODY,)) -> Any:
    return make_mocked_request("POST", "/", headers=CIMultiDict(headers), payload=Stream(*pieces))


async def test_a_body_and_its_proofs_are_read_together() -> None:
    """Whatever is parsed later was read under the limits and has its sender's proof beside it."""
    clock = OwnClock()
    ours = a_door(clock, relay_token=Secret(TOKEN), chatwoot_webhook_secret=(Secret("old"), Secret(SECRET)))
    now = int(clock.wall())
    read = await ours.read(a_post(*signed(now), ("X-Chatwoot-Delivery", "d-1"), pieces=(BODY[:5], BODY[5:])))
    assert (read.body, read.token, read.signature, len(read.transport)) == (BODY, False, Verdict.VALID, 2)
    stale = await ours.read(a_post(*signed(now - 301), ("Authorization", f"Bearer {TOKEN}")))
    assert (stale.token, stale.signature, stale.transport) == (True, Verdict.STALE, ())
    assert ours.skewed
    clock.at += door.SKEW_SHOWN
    assert not ours.skewed
    forged = await ours.read(a_post(*signed(now, secret="guess")))
    assert forged.signature is Verdict.MISMATCH
    assert ours.refusals == {Verdict.STALE: 1, Verdict.MISMATCH: 1}
    assert SECRET not in repr(read)
    assert "event" not in repr(read)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Content-Type", "application/json")], None),
        ([("Content-Type", "Application/JSON; charset=utf-8")], None),
        ([("Content-Type", "application/cloudevents+json")], None),
        ([], None),
        ([("Content-Type", "text/plain")], 415),
        ([("Content-Type", "application/x-www-form-urlencoded")], 415),
        ([("Content-Type", "")], 415),
        ([("Content-Encoding", "gzip")], 415),
        ([("Content-Encoding", "identity")], 415),
    ],
)
async def test_only_plain_json_is_read(headers: list[tuple[str, str]], status: int | None) -> None:
    """A form or a compressed body is a mistake that is best named."""
    with contextlib.nullcontext() if status is None else pytest.raises(Refused) as refused:
        await a_door().read(a_post(*headers))
    assert (refused and refused.value.status) == status


async def test_a_body_over_ten_mebibytes_is_refused_unread_and_read() -> None:
    """By its announcement, and where it announced nothing or lied."""
    ours = a_door()
    announced = a_post(("Content-Length", str(door.MAX_BODY + 1)))
    streamed = a_post(pieces=(b"x" * door.MAX_BODY, b"x"))
    for request in (announced, streamed):
        with pytest.raises(Refused) as refused:
            await ours.read(request)
        assert (refused.value.status, refused.value.close) == (413, True)
    assert len((await ours.read(a_post(pieces=(b"x" * door.MAX_BODY,)))).body) == door.MAX_BODY


async def test_bodies_in_flight_share_a_budget_that_comes_back() -> None:
    """Many large bodies at once must not fill the memory, and the next one is served."""
    ours = a_door()

    class Nested(Stream):
        """While the first is read the others come."""

        async def readany(self) -> bytes:
            piece = await super().readany()
            if piece and not self.pieces:
                others.append(await is_read(self.depth + 1))
            return piece

        depth = 0

    async def is_read(depth: int) -> bool:
        stream = Nested(b"x" * (9 * 1024 * 1024), b"x")
        stream.depth = depth
        try:
            await ours.read(make_mocked_request("POST", "/", payload=stream))
        except OutboxUnavailable:
            return False
        return True

    others: list[bool] = []
    assert await is_read(0)
    assert others == [False, True, True]
    assert await ours.read(a_post())


@pytest.mark.parametrize("member", ["message", "reason", "severity"])
@pytest.mark.parametrize("unseen", ["", " \n", "\x00", "\u202e\u200f", "\u2028\u2029\r\n"])
def test_what_nobody_would_see_is_blank(member: str, unseen: str) -> None:
    """An alert without words tells nobody why a human is needed."""
    body = {"severity": "high", "reason": "R", "conversation_id": 1, "message": "m", member: unseen}
    with pytest.raises(Refused) as refused:
        read_alert(body)
    assert refused.value.errors == (Complaint(f"$.{member}", "must not be blank"),)
