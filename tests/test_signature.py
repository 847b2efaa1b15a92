"""Nobody else can post."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest
from chatwoot_samples import MANIFEST, NAMES, fixture, raw
from hypothesis import given
from hypothesis import strategies as st

from chatwoot_relay.signature import (
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    TOLERANCE,
    Verdict,
    token_matches,
    tokens,
    verify,
)

SECRET = b"whsec_of_the_account"
NOW = 1_795_365_496.0
BODY = b'{"event":"message_created","content":"a \\u003c b"}'
SIGNED = [name for name in NAMES if fixture(name)["signed"]]
SECRETS = {kind: secret.encode() for kind, secret in MANIFEST["secrets"].items()}


def sign(body: bytes = BODY, *, timestamp: str = "1795365496", secret: bytes = SECRET) -> str:
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def check(
    signature: str | None = None, timestamp: str | None = "1795365496", *, body: bytes = BODY, now: float = NOW
) -> Verdict:
    return verify(
        secrets=[b"another", SECRET],
        signatures=[sign() if signature is None else signature],
        timestamps=[] if timestamp is None else [timestamp],
        body=body,
        now=now,
    )


@pytest.mark.parametrize("name", SIGNED)
def test_what_chatwoot_signed_verifies_to_the_byte(name: str) -> None:
    """The captured bytes and headers are the proof that we compute what Chatwoot computes."""
    headers, body = raw(name)
    timestamp = headers[TIMESTAMP_HEADER]
    known = SECRETS[fixture(name)["webhook_kind"]]
    given_headers = {"signatures": [headers[SIGNATURE_HEADER]], "timestamps": [timestamp], "now": float(timestamp)}
    assert verify(secrets=[known], body=body, **given_headers) is Verdict.VALID
    assert verify(secrets=list(SECRETS.values()), body=body, **given_headers) is Verdict.VALID
    others = [secret for secret in SECRETS.values() if secret != known]
    assert verify(secrets=others, body=body, **given_headers) is Verdict.MISMATCH
    again = json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode()
    if again != body:
        assert verify(secrets=[known], body=again, **given_headers) is Verdict.MISMATCH


def test_some_samples_do_change_when_serialised_again() -> None:
    """Otherwise the test above would prove nothing about re-serialised bodies."""
    _, body = raw("message_created--incoming-html-markdown-specials")
    assert json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode() != body


@pytest.mark.parametrize("name", [name for name in NAMES if not fixture(name)["signed"] and fixture(name)["emitted"]])
def test_automation_rules_and_macros_come_unsigned(name: str) -> None:
    """Chatwoot never signs them; they need the token."""
    headers, body = raw(name)
    assert SIGNATURE_HEADER not in headers
    assert verify(secrets=[SECRET], signatures=[], timestamps=[], body=body, now=NOW) is Verdict.MISSING


def test_a_signature_holds_five_minutes_both_ways() -> None:
    """Clocks differ; a replay must not work for ever."""
    assert check(now=NOW + TOLERANCE) is Verdict.VALID
    assert check(now=NOW - TOLERANCE) is Verdict.VALID
    assert check(now=NOW + TOLERANCE + 1) is Verdict.STALE
    assert check(now=NOW - TOLERANCE - 1) is Verdict.STALE


def test_a_stranger_cannot_make_the_clock_look_wrong() -> None:
    """STALE makes the relay report a skewed clock: only the holder of a secret can bring it about."""
    assert check("sha256=" + "0" * 64, now=NOW + 10_000) is Verdict.MISMATCH


@pytest.mark.parametrize(
    "timestamp",
    [
        "١٧٩٥٣٦٥٤٩٦", "1_795365496", " 1795365496", "1795365496 ", "+1795365496", "", "1" * 13, "1.5", "-1",
        "1795365496\n", "\udcff",
    ],
)  # fmt: skip
def test_a_timestamp_is_ascii_digits_alone(timestamp: str) -> None:
    """int() would take several of these."""
    assert check(timestamp=timestamp) is Verdict.MALFORMED


@pytest.mark.parametrize(
    "signature",
    [
        "", "sha256=", "sha1=" + "0" * 64, sign()[7:], sign().upper(), sign() + "0", sign()[:-1], " " + sign(),
        "sha256=" + "\udcff" * 64, "\ud800",
    ],
)  # fmt: skip
def test_a_hostile_signature_is_refused_and_never_an_error(signature: str) -> None:
    """Headers hold any byte."""
    assert check(signature) in (Verdict.MALFORMED, Verdict.MISMATCH)


def test_each_header_comes_exactly_once() -> None:
    """With two of them a proxy and we could believe different ones."""
    one = {"secrets": [SECRET], "body": BODY, "now": NOW}
    assert verify(signatures=[sign(), sign()], timestamps=["1795365496"], **one) is Verdict.MALFORMED
    assert verify(signatures=[sign()], timestamps=["1795365496"] * 2, **one) is Verdict.MALFORMED
    assert verify(signatures=[sign()], timestamps=[], **one) is Verdict.MISSING
    assert verify(signatures=[], timestamps=["1795365496"], **one) is Verdict.MISSING


def test_without_secrets_nothing_is_valid() -> None:
    """An empty list must not open the door."""
    assert verify(secrets=[], signatures=[sign()], timestamps=["1795365496"], body=BODY, now=NOW) is Verdict.MISMATCH


@given(body=st.binary(max_size=200), place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_flipped_bit_is_noticed(body: bytes, place: int, bit: int) -> None:
    """Every byte of the body is covered."""
    signature = sign(body)
    assert check(signature, body=body) is Verdict.VALID
    if body:
        changed = bytearray(body)
        changed[place % len(body)] ^= 1 << bit
        assert check(signature, body=bytes(changed)) is Verdict.MISMATCH


@given(signature=st.text(), timestamp=st.text())
def test_no_header_raises(signature: str, timestamp: str) -> None:
    """Whatever they hold, the answer is a verdict."""
    assert check(signature, timestamp) is not Verdict.VALID


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


@pytest.mark.parametrize(
    ("authorization", "query", "found"),
    [
        (["Bearer s3cret"], "", (b"s3cret",)),
        (["bearer  s3cret "], "", (b"s3cret",)),
        ([basic(b"chatwoot:s3cret")], "", (b"s3cret",)),
        ([basic(b":s3:cret")], "", (b"s3:cret",)),
        ([basic(b"no colon")], "", ()),
        (["Basic !!!"], "", ()),
        (["Basic \udcff"], "", ()),
        (["Digest s3cret"], "", ()),
        (["Bearer"], "", ()),
        (["Bearer s3cret", "Bearer s3cret"], "", ()),
        ([], "token=s3cret", (b"s3cret",)),
        ([], "a=b&token=s%33cr%65t&c", (b"s3cret",)),
        ([], "token=a b", (b"a b",)),
        ([], "token=a%2Bb", (b"a+b",)),
        ([], "token=%ff", (b"\xff",)),
        ([], "token=", ()),
        ([], "token", ()),
        ([], "xtoken=s3cret", ()),
        (["Bearer one"], "token=two", (b"one", b"two")),
    ],
)
def test_a_token_is_found_where_chatwoot_can_put_it(authorization: list[str], query: str, found: tuple[bytes]) -> None:
    """Chatwoot knows no custom headers: the URL and Basic are its only ways."""
    assert tokens(authorization=authorization, query=query) == found


@given(authorization=st.lists(st.text(), max_size=2), query=st.text())
def test_no_request_makes_the_search_for_a_token_raise(authorization: list[str], query: str) -> None:
    """The search reads what strangers send."""
    for token in tokens(authorization=authorization, query=query):
        assert token
        assert not token_matches([token], b"0123456789abcdef")


def test_a_token_matches_as_bytes() -> None:
    """A secret may hold any character, and a header any byte."""
    assert token_matches([b"wrong", "пароль".encode()], "пароль".encode())
    assert token_matches(tokens(authorization=["Bearer \udcff"], query=""), b"\xff")
    assert not token_matches([], b"secret")
    assert not token_matches([b"secre", b"secret2"], b"secret")


def test_a_token_with_a_plus_may_be_pasted_as_it_is() -> None:
    """Base64 has them, and nobody escapes what they paste into a webhook's address; a form would mean a space."""
    found = tokens(authorization=[], query="token=abc+def/ghi=")
    assert sorted(found) == [b"abc def/ghi=", b"abc+def/ghi="]
