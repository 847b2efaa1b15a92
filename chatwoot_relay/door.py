"""The one door for outside data: read, authenticate, parse, check. Unverified bytes go no further than here."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, get_args, get_origin

import attrs
import msgspec
from aiohttp import hdrs, web
from cattrs import Converter
from cattrs.errors import ClassValidationError
from cattrs.gen import make_dict_structure_fn, override

from .chatwoot import delivery_key, signed_key
from .clock import Clock
from .errors import Complaint, OutboxUnavailable, Refused
from .markup import is_blank, sane
from .models import MAX_ID, Alert
from .pacing import Window
from .settings import Settings
from .signature import DELIVERY_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, Verdict, token_matches, tokens, verify

MAX_ALERT = 1024 * 1024
MAX_BODY = 10 * 1024 * 1024
TOO_LARGE = "The body is larger than 10 MiB."
LARGE_ALERT = "An alert has at most 1 MiB."
MAX_IN_FLIGHT = 32 * 1024 * 1024
SMALL_BODY = 64 * 1024  # is read however much is in flight, so that a few large ones shut nobody out
MAX_DEPTH = 500  # arrays and objects in each other: below what any reader or writer of JSON here would choke on
MAX_VALUES = 600_000  # members and elements in one body; more would cost more memory than a body is worth
BODY_TIMEOUT = 15.0
MAX_CLIENTS = 10_000
SKEW_SHOWN = 600.0  # seconds for which a signature refused for its time is a sign of a wrong clock

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json|text/json", re.IGNORECASE)
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # a last one need not end
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="chatwoot-relay", Basic realm="chatwoot-relay"'}
_HINTS = {
    Verdict.MISSING: "it carries no X-Chatwoot-Signature; what Chatwoot never signs presents RELAY_TOKEN, as ?token=…",
    Verdict.MALFORMED: "the signature's headers are not of Chatwoot's form",
    Verdict.STALE: "the signature is more than five minutes off; compare the clocks",
    Verdict.MISMATCH: "the signature does not match; it is another secret, or something changed the body",
}


@attrs.frozen(kw_only=True)
class Entry:
    """A body that was read, and what its sender proved. Its bytes are read only through :func:`parse`."""

    body: bytes = attrs.field(repr=False)
    token: bool  # presented RELAY_TOKEN
    signature: Verdict
    transport: tuple[str, ...]  # duplicate keys of this very posting


class Door:
    """Reads requests under the limits, and knows the credentials."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._token = settings.relay_token.reveal().encode() if settings.relay_token else None
        self._secrets = tuple(secret.reveal().encode() for secret in settings.chatwoot_webhook_secret)
        self._proxies = settings.relay_trusted_proxies
        self._rate = settings.relay_rate_limit
        self._clock = clock
        self._in_flight = 0
        self._clients: OrderedDict[str, Window] = OrderedDict()
        self._origin = functools.lru_cache(maxsize=256)(self._find_origin)
        self._skewed_at = float("-inf")
        self.body_timeout = BODY_TIMEOUT
        self.refusals: dict[str, int] = {}  # signatures refused, by what was wrong with them

    @property
    def skewed(self) -> bool:
        """Whether a signature of ours was lately refused for its time: a clock is wrong, here or at Chatwoot."""
        return self._clock.monotonic() - self._skewed_at < SKEW_SHOWN

    # --- reading ---

    async def read(self, request: web.Request, *, at_most: int = MAX_BODY) -> Entry:
        """The body and its credentials, within size and time. Raises Refused 408, 413, 415, OutboxUnavailable.

        Of what is no JSON, and so no event, *at_most* so many bytes.
        """
        body, headers = await self._read_body(request), request.headers
        kind = headers.get(hdrs.CONTENT_TYPE, "application/json")
        typed = kind == "application/json" or _JSON.fullmatch(kind.partition(";")[0].strip())
        if not typed or hdrs.CONTENT_ENCODING in headers:
            if len(body) > at_most:
                raise Refused(413, LARGE_ALERT)
            said = "Send the body as it is, without Content-Encoding."
            raise Refused(415, said if typed else "Send JSON: Content-Type: application/json.")
        transport = [delivery_key(value) for value in headers.getall(DELIVERY_HEADER, [])[:1] if value]
        verdict = Verdict.MISSING
        if signatures := headers.getall(SIGNATURE_HEADER, []):
            verdict = self._verify(signatures, timestamps := headers.getall(TIMESTAMP_HEADER, []), body)
            if verdict is Verdict.VALID:
                transport.append(signed_key(str(timestamps[0]), body))
        return Entry(body=body, token=self.has_token(request), signature=verdict, transport=tuple(transport))

    def _verify(self, signatures: Sequence[str], timestamps: Sequence[str], body: bytes) -> Verdict:
        now, verdict = self._clock.wall(), Verdict.MISSING
        if self._secrets:
            verdict = verify(secrets=self._secrets, signatures=signatures, timestamps=timestamps, body=body, now=now)
        if verdict is not Verdict.VALID:
            self.refusals[verdict] = self.refusals.get(verdict, 0) + 1
        if verdict is Verdict.STALE:
            self._skewed_at = self._clock.monotonic()
        return verdict

    async def _read_body(self, request: web.Request) -> bytes:
        content, chunks, size = request.content, list[bytes](), 0
        try:
            if content.is_eof() and content.total_bytes <= SMALL_BODY:  # it is here, and needs no timer and no budget
                return content.read_nowait()
            if (request.content_length or 0) > MAX_BODY:
                raise Refused(413, TOO_LARGE, close=True)
            async with asyncio.timeout(self.body_timeout):
                while chunk := await content.readany():
                    size += len(chunk)
                    self._in_flight += len(chunk)
                    if size > MAX_BODY:
                        raise Refused(413, TOO_LARGE, close=True)
                    if self._in_flight > MAX_IN_FLIGHT and size > SMALL_BODY:
                        raise OutboxUnavailable("too many large bodies at once")
                    chunks.append(chunk)
        except TimeoutError:
            raise Refused(408, f"The body did not arrive within {self.body_timeout:g} s.", close=True) from None
        except web.RequestPayloadError:
            raise Refused(400, "The body is not valid HTTP.", close=True) from None
        except (ConnectionError, RuntimeError):  # aiohttp's words for: lost while we wait, lost before we read
            raise Refused(400, "The client went away in the middle of the body.", close=True) from None
        finally:
            self._in_flight -= size
        return b"".join(chunks)

    # --- who may enter ---

    def has_token(self, request: web.Request) -> bool:
        """Whether RELAY_TOKEN is set and was presented."""
        if self._token is None:
            return False
        authorization = request.headers.getall(hdrs.AUTHORIZATION, ())
        query = request.raw_path.partition("?")[2]
        return token_matches(tokens(authorization=authorization, query=query), self._token)

    def demand_token(self, presented: bool, signature: Verdict = Verdict.MISSING) -> None:
        """Raises Refused 401 where a token is set and was not presented; *signature* came in its place."""
        if self._token is not None and not presented:
            todo = "Present RELAY_TOKEN in Authorization (Bearer, or the password of Basic), or as ?token= in the URL."
            hint = todo if signature is Verdict.MISSING else f"Not let in: {_HINTS[signature]}."
            raise Refused(401, hint, headers=_CHALLENGE)

    def demand_any(self, entry: Entry) -> None:
        """Raises Refused 401 unless a valid signature or the token came, or none is configured."""
        if self._token is None and not self._secrets:
            return
        if not entry.token and entry.signature is not Verdict.VALID:
            hint = _HINTS[entry.signature] if self._secrets else "RELAY_TOKEN was not presented"
            raise Refused(401, f"Not let in: {hint}.", headers=_CHALLENGE)

    def client(self, request: web.Request) -> str:
        """The client's address: the peer's, or what the trusted proxies in front of it say."""
        return self._origin(request.remote or "", *request.headers.getall("X-Forwarded-For", ()))

    def _find_origin(self, address: str, *forwarded: str) -> str:
        hops = [hop.strip() for value in forwarded for hop in value.split(",")]
        while hops and self._trusted(address):
            hop = _address(hops.pop())
            if hop is None:
                break
            address = hop
        return address or "local"

    def _trusted(self, address: str) -> bool:
        known = _parse_address(address)
        if known is None:
            return not address  # a Unix socket has no address, and whoever has it is ours
        return any(known in network for network in self._proxies)

    def count(self, client: str) -> dict[str, str]:
        """One more request of that client. Returns the RateLimit headers; raises Refused 429 over the limit."""
        if self._rate is None:
            return {}
        limit, seconds, now = self._rate.limit, self._rate.seconds, self._clock.monotonic()
        window = self._clients.pop(client, None) or Window(limit, seconds)
        self._clients[client] = window
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        wait = window.earliest(now) - now
        if wait <= 0:
            window.note(now)
        remaining = window.free(now)
        reset = max(1, math.ceil(window.earliest(now, remaining) - now))
        headers = {
            "RateLimit-Policy": f'"alerts";q={limit};w={seconds}',
            "RateLimit": f'"alerts";r={remaining};t={reset}',
            "RateLimit-Limit": str(limit),
            "RateLimit-Remaining": str(remaining),
            "RateLimit-Reset": str(reset),
        }
        if wait > 0:
            headers["Retry-After"] = str(math.ceil(wait))
            raise Refused(429, f"More than {limit} alerts in {seconds} s from one client.", headers=headers)
        return headers


def _parse_address(text: str) -> Any:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _address(hop: str) -> str | None:
    """An address as proxies write it: bare, in brackets, with a port."""
    match = re.fullmatch(r"\[([^\]]*)\](?::\d+)?|([0-9.]+):\d+", hop)
    known = _parse_address((match[1] or match[2]) if match else hop)
    return None if known is None else str(known)


# --- what it says ---


def parse(body: bytes) -> Any:
    """Any JSON that RFC 8259 allows: lone surrogates and numbers of any size too; the last of duplicate keys counts.

    Raises Refused 400.
    """
    if len(body) > MAX_ALERT and _values(body, 0, len(body)) > MAX_VALUES and _has_too_many(body):
        raise Refused(400, "The body has too many values.")
    try:
        value = _decode(body)
    except RecursionError:
        raise Refused(400, "The body is nested too deeply.") from None
    except UnicodeDecodeError:
        raise Refused(400, "The body is not UTF-8.") from None
    except ValueError:
        raise Refused(400, "The body is empty." if not body.strip() else "The body is not JSON.") from None
    if len(body) > MAX_DEPTH and body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deep(value):
        raise Refused(400, "The body is nested too deeply.")
    return value


def _values(body: bytes, begin: int, end: int) -> int:
    """How many members and elements, or more where strings hold commas and brackets."""
    return sum(body.count(sign, begin, end) for sign in (b",", b"[", b"{"))


def _has_too_many(body: bytes) -> bool:
    """The same without what strings hold; looks no further than it must, and copies nothing."""
    count = at = 0
    for string in _STRING.finditer(body):
        count += _values(body, at, string.start())
        at = string.end()
        if count > MAX_VALUES:
            return True
    return count + _values(body, at, len(body)) > MAX_VALUES


def _decode(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # not JSON, or a rarity that only the standard library takes
        return json.loads(
            body.decode("utf-8-sig"), parse_constant=_no_constant, parse_int=_any_int, parse_float=_any_float
        )


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        within = (inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer))
        level = [inner for inner in within if isinstance(inner, dict | list)]
    return bool(level)


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _any_int(digits: str) -> int | Decimal:
    """Python refuses to read longer numbers as int."""
    return int(digits) if len(digits) < 4000 else Decimal(digits)


def _any_float(digits: str) -> float | Decimal:
    """1e400 is a number of JSON; as a float it would become infinite, which is none."""
    number = float(digits)
    if math.isfinite(number):
        return number
    try:
        return Decimal(digits)
    except ArithmeticError:  # an exponent that nothing holds
        raise ValueError("a number is too large") from None


# --- the strict converter: stock cattrs would turn null into "None", 7.9 into 7 and True into 1 ---


def _leaf(kind: Any) -> Callable[[Any, Any], Any]:
    """Check a member against its annotation, the very one that the OpenAPI document shows."""

    must_show = bool(kind.__metadata__[0].pattern)
    taken = tuple(get_origin(one) or one for one in get_args(kind.__origin__) or (kind.__origin__,))

    def structure(value: Any, _: Any) -> Any:
        if isinstance(value, str):
            value = sane(value)
            if must_show and is_blank(value):
                raise ValueError("must not be blank")  # nor of what is not seen
        if isinstance(value, taken):  # and a pattern asks for no more than something to see
            return value
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            words = str(error)
            raise ValueError(words[0].lower() + words[1:]) from None

    return structure


def _number(value: Any, _: Any = None) -> int:
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,18}", value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # JSON knows one kind of number: 12345.0 is whole
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_ID:
        raise ValueError("expected a whole number from 1 to 9223372036854775807, or its digits in a string")
    return value


def _make_hook() -> Callable[[Any, Any], Alert]:
    converter = Converter(detailed_validation=True)
    converter.register_structure_hook_factory(
        lambda kind: any(isinstance(arg, msgspec.Meta) for arg in getattr(kind, "__metadata__", ())),
        _leaf,
    )
    return make_dict_structure_fn(
        Alert, converter, left_out=override(omit=True), conversation_id=override(struct_hook=_number)
    )


_structure = _make_hook()


def read_alert(document: Any) -> Alert:
    """An alert from a JSON value. Raises Refused 422 with every complaint at once."""
    if not isinstance(document, dict):
        raise Refused(422, "The body is no JSON object.", errors=(Complaint("$", "expected an object"),))
    try:
        return _structure(document, Alert)
    except ClassValidationError as invalid:
        complaints = tuple(
            Complaint(f"$.{note.name}", "is required" if isinstance(error, KeyError) else str(error))
            for error, note in invalid.group_exceptions()[0]
        )
        places = ", ".join(complaint.path for complaint in complaints)
        raise Refused(422, f"The alert's shape is wrong at {places}.", errors=complaints) from None
