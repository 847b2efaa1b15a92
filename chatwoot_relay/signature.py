"""Who may post: Chatwoot's signature and the shared token. Compares bytes in constant time and reads no clock."""

from __future__ import annotations

import base64
import binascii
import contextlib
import enum
import hashlib
import hmac
import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

TOLERANCE = 300.0  # seconds, both ways
SIGNATURE_HEADER = "X-Chatwoot-Signature"
TIMESTAMP_HEADER = "X-Chatwoot-Timestamp"
DELIVERY_HEADER = "X-Chatwoot-Delivery"

_TIMESTAMP = re.compile(r"[0-9]{1,12}")  # int() alone would take "١٧", "1_7" and " 17 "
_PREFIX = b"sha256="


class Verdict(enum.StrEnum):
    """What came of checking a signature; everything but VALID is a refusal, and each looks like another mistake."""

    VALID = "valid"
    MISSING = "missing"  # one of the two headers is not there: an old Chatwoot, an automation rule or a macro
    MALFORMED = "malformed"  # a header twice, or not of Chatwoot's form
    STALE = "stale"  # signed with our secret, but at another time: a clock is wrong, or it is a replay
    MISMATCH = "mismatch"  # another secret, or a proxy that changed the body


def _bytes(value: str) -> bytes:
    """The bytes a header came as; no str at all makes it raise."""
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogatepass")


def verify(
    *, secrets: Sequence[bytes], signatures: Sequence[str], timestamps: Sequence[str], body: bytes, now: float
) -> Verdict:
    """Check ``sha256=HMAC(secret, timestamp + "." + raw body)`` under every secret.

    *signatures* and *timestamps* are all values of the two headers, as given. STALE is said of a signature that is
    right only, so that it is evidence of a wrong clock and cannot be provoked by strangers.
    """
    if not signatures or not timestamps:
        return Verdict.MISSING
    if len(signatures) > 1 or len(timestamps) > 1 or not _TIMESTAMP.fullmatch(timestamps[0]):
        return Verdict.MALFORMED
    presented = _bytes(signatures[0])
    if not presented.startswith(_PREFIX) or len(presented) != len(_PREFIX) + 64:
        return Verdict.MALFORMED
    signed = timestamps[0].encode("ascii") + b"."
    valid = False
    for secret in secrets:
        mac = hmac.new(secret, signed, hashlib.sha256)
        mac.update(body)  # not joined first: a body may have 10 MiB
        valid |= hmac.compare_digest(_PREFIX + mac.hexdigest().encode("ascii"), presented)
    if not valid:
        return Verdict.MISMATCH
    return Verdict.VALID if abs(now - int(timestamps[0])) <= TOLERANCE else Verdict.STALE


def token_matches(presented: Sequence[bytes], secret: bytes) -> bool:
    """Whether any of the *presented* tokens is the secret."""
    return any(hmac.compare_digest(token, secret) for token in presented)


def tokens(*, authorization: Sequence[str], query: str) -> tuple[bytes, ...]:
    """The tokens a request presents: ``Bearer``, the password of ``Basic``, and ``?token=`` of the raw query string."""
    found = []
    if len(authorization) == 1:
        scheme, _, value = authorization[0].strip().partition(" ")
        credentials = _bytes(value.strip())
        if scheme.lower() == "bearer":
            found.append(credentials)
        elif scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error):
                found.append(base64.b64decode(credentials, validate=True).partition(b":")[2])
    for part in query.split("&"):
        name, _, value = part.partition("=")
        if name == "token":
            # A base64 token pasted as it is has a plus that forms would read as a space.
            found += [unquote_to_bytes(_bytes(reading)) for reading in {value, value.replace("+", " ")}]
    return tuple(filter(None, found))
