"""The HTTP interface, declared once: routes, shapes and answers; the server serves them and the document tells them."""

from __future__ import annotations

import functools
import http
from typing import Any

import attrs
import msgspec

from . import __version__
from .models import MAX_ID, Alert

TAG = "Chatwoot Integration"
Json = dict[str, Any]


@attrs.frozen
class Route:
    """One route. *name* is its handler's, *operation* what OpenAPI tells of it."""

    method: str
    path: str
    name: str
    operation: Json


# --- Shapes ---


def _shape(told: str, *optional: str, **properties: Json) -> Json:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": told, "properties": properties, "required": required}


def _alert() -> Json:
    """What the door takes as an alert: the members of Alert that have an example; the others are ours."""
    _, schemas = msgspec.json.schema_components((Alert,))
    alert: Json = schemas["Alert"]
    public = {name: told for name, told in alert["properties"].items() if "examples" in told}
    digits = {"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "description": "its digits"}
    told = {name: public["conversation_id"][name] for name in ("description", "examples")}
    public["conversation_id"] = {**told, "anyOf": [NUMBER, digits]}
    return {**alert, "description": alert["description"].partition("\n")[0], "properties": public}


TEXT: Json = {"type": "string"}
YES, NO = ({"type": "boolean", "const": value} for value in (True, False))
MESSAGE_ID = {"type": ["integer", "null"], "description": "null where Telegram has not confirmed it"}
COMPLAINT = _shape("One thing wrong with a body.", path={**TEXT, "examples": ["$.conversation_id"]}, message=TEXT)
NUMBER = {"type": "integer", "minimum": 1, "maximum": MAX_ID}
SHAPES: dict[str, Json] = {
    "Alert": _alert(),
    "AlertAnswer": _shape(
        "The alert is told, or safely on disk.",
        success=YES,
        message={"enum": ["Alert forwarded to Telegram", "Alert queued for Telegram"]},
        telegram_message_id=MESSAGE_ID,
        conversation_id=NUMBER,
    ),
    "Event": _shape(
        "An event as Chatwoot sends it, or the simple shape of the example; told as far as understood.",
        event={**TEXT, "examples": ["message_created"]},
    ),
    "Health": _shape(
        "Whether it accepts, and whether Telegram takes it.",
        "detail",
        status={"enum": ["healthy", "degraded", "failing"]},
        service={"const": "chatwoot-integration"},
        timestamp={**TEXT, "format": "date-time"},
        detail=TEXT,
    ),
    "Problem": _shape(
        "What went wrong (RFC 9457); `success` and `message` are for those who know the older shape.",
        "errors",
        "delivery_id",
        type=TEXT,
        title=TEXT,
        status={"type": "integer", "minimum": 400, "maximum": 599},
        detail=TEXT,
        success=NO,
        message=TEXT,
        errors={"type": "array", "items": COMPLAINT, "description": "every error of the body at once"},
        delivery_id={**TEXT, "description": "the dead letter"},
    ),
    "TestAnswer": _shape(
        "The test alert stands in the chat.",
        success=YES,
        message={"const": "Test alert sent to Telegram"},
        telegram_message_id=MESSAGE_ID,
    ),
    "WebhookAnswer": _shape(
        "The event is told, safely on disk, or nothing that a person needs to hear.",
        success=YES,
        message={**TEXT, "pattern": r"^Webhook (forwarded to Telegram|queued for Telegram|ignored: \S.*)$"},
        event={**TEXT, "description": "as it was sent"},
    ),
}
HEADERS: dict[str, tuple[str, str]] = {
    "X-Request-ID": ("string", "This request's name in the relay's log."),
    "X-Delivery-ID": ("string", "The delivery's name in the outbox; absent where nothing is owed."),
    "Retry-After": ("integer", "Seconds."),
    "RateLimit": ("string", "What is left of the limit, and in how many seconds it is whole again."),
    "RateLimit-Policy": ("string", "The limit and its window in seconds."),
    "WWW-Authenticate": ("string", "How to present the token."),
}

# --- Examples and answers ---

ALERT: Json = {name: told["examples"][0] for name, told in SHAPES["Alert"]["properties"].items()}
EVENT = {
    "event": "message_created",
    "conversation": {"id": 12345, "status": "open"},
    "sender": {"name": "John Doe", "email": "john@example.com"},
    "message": {"content": "Hello, I need help", "created_at": "2025-01-19T18:30:00Z"},
    "account": {"id": 1, "name": "My Company"},
}
SENT = {"success": True, "message": "Alert forwarded to Telegram", "telegram_message_id": 789, "conversation_id": 12345}
QUEUED = {**SENT, "message": "Alert queued for Telegram", "telegram_message_id": None}
TOLD = {"success": True, "message": "Webhook forwarded to Telegram", "event": "message_created"}
TOLD_LATER = {**TOLD, "message": "Webhook queued for Telegram"}
IGNORED = {**TOLD, "message": "Webhook ignored: duplicate"}
TESTED = {"success": True, "message": "Test alert sent to Telegram", "telegram_message_id": 123}
HEALTHY = {"status": "healthy", "service": "chatwoot-integration", "timestamp": "2025-01-19T18:30:00.123Z"}
DEGRADED = {**HEALTHY, "status": "degraded", "detail": "Telegram holds the chat for 12 s more."}
FAILING = {**HEALTHY, "status": "failing", "detail": "The outbox cannot be written: the disk is full."}


def _content(kind: str, names: str, examples: Json) -> Json:
    references = [{"$ref": f"#/components/schemas/{name}"} for name in names.split()]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {kind: {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}}


def _answer(status: int, meaning: str, content: Json, *headers: str) -> Json:
    told = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *headers)}
    return {str(status): {"description": meaning, "headers": told, "content": content}}


def _good(status: int, meaning: str, names: str, *headers: str, **examples: Json) -> Json:
    return _answer(status, meaning, _content("application/json", names, examples), *headers)


def _bad(status: int, meaning: str, detail: str, *headers: str, **more: Any) -> Json:
    problem = {"type": "about:blank", "title": http.HTTPStatus(status).phrase, "status": status, "detail": detail}
    example = {**problem, "success": False, "message": detail, **more}
    return _answer(status, meaning, _content("application/problem+json", "Problem", {"problem": example}), *headers)


MISSHAPEN = [{"path": "$.conversation_id", "message": "Expected `int` >= 1"}]
LIMITS = ("RateLimit", "RateLimit-Policy")
TAKEN = ("X-Delivery-ID", *LIMITS)
DEAD = "3f9c0a6b7d21e854"
ON_DISK = "On disk; Telegram has not confirmed it yet."
_400 = _bad(400, "Not JSON, not UTF-8, or nested absurdly.", "The body is not JSON.")
_401 = _bad(401, "No valid credential came.", "This needs the relay's token.", "WWW-Authenticate")
_408 = _bad(408, "The body came too slowly.", "The body did not come in time.")
_409 = _bad(409, "The Idempotency-Key was used before with another body.", "This key belongs to another body.")
_413 = _bad(413, "Larger than is read: 1 MiB, for an event 10 MiB.", "The body is larger than 1 MiB.")
_415 = _bad(415, "Another Content-Type than JSON, or any Content-Encoding.", "The body must be application/json.")
_422 = _bad(422, "The shape is wrong; every error at once.", "The alert has the wrong shape.", errors=MISSHAPEN)
_429 = _bad(429, "Over the rate limit.", "More than 100 requests in a minute.", "Retry-After", *LIMITS)
_500 = _bad(500, "A mistake of the relay's; its log has the request id.", "Something went wrong here.")
_502 = _bad(502, "Telegram refused it for good; it is a dead letter.", "Telegram refused it.", *TAKEN, delivery_id=DEAD)
_503 = _bad(503, "Nothing can be accepted now; come again.", "The outbox cannot be written now.", "Retry-After")
_504 = _bad(504, "Telegram did not answer in time or holds the chat.", "Telegram did not answer in time.", *LIMITS)
_BUSY = _bad(429, "Nothing can be accepted now; come again.", "The outbox cannot be written now.", "Retry-After")
_SAID = _bad(
    502, "What Telegram said, and what to do about it.", "Telegram says: chat not found. Add the bot.", *LIMITS
)
TOKEN = ("bearer", "basic", "query")
EITHER = "AlertAnswer WebhookAnswer"
KEY = "At most 255 characters that make repeated posts one alert; each repeat gets the answer as it stands by then."
SIGNED = {
    "X-Chatwoot-Timestamp": "Unix seconds; part of what is signed, at most 5 minutes off.",
    "X-Chatwoot-Delivery": "Chatwoot's id of this delivery; a repeat is told once.",
}
CREDENTIALS: dict[str, Json] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`RELAY_TOKEN`, where it is set."},
    "basic": {"type": "http", "scheme": "basic", "description": "`RELAY_TOKEN` as the password; any user name."},
    "query": {"type": "apiKey", "in": "query", "name": "token", "description": "`RELAY_TOKEN`; it reaches no log."},
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Chatwoot-Signature",
        "description": "`sha256=` and the hex HMAC-SHA256, under the webhook's secret, of timestamp, dot and raw body.",
    },
}


# --- Routes ---


def _route(
    place: str,
    name: str,
    summary: str,
    description: str,
    *answers: Json,
    takes: str = "",
    headers: dict[str, str] | None = None,
    credentials: tuple[str, ...] = (),
) -> Route:
    operation: Json = {"tags": [TAG], "operationId": name, "summary": summary, "description": description}
    operation["parameters"] = [
        {"name": header, "in": "header", "description": why, "schema": TEXT} for header, why in (headers or {}).items()
    ]
    operation["responses"] = {status: told for answer in answers for status, told in answer.items()}
    if takes:
        examples = {shape.lower(): {"Alert": ALERT, "Event": EVENT}[shape] for shape in takes.split()}
        operation["requestBody"] = {"required": True, "content": _content("application/json", takes, examples)}
    if credentials:
        operation["security"] = [*({credential: []} for credential in credentials), {}]
    method, path = place.split()
    return Route(method, path, name, operation)


ROUTES = (
    _route(
        "POST /api/v1/chatwoot/alerts",
        "receive_alert",
        "Raise an alert",
        "Tells the chat that a customer needs a human. On disk before it is answered; the answer waits a moment for "
        "Telegram's. A native Chatwoot event is taken here as on the webhook route.",
        _good(200, "Telegram has it.", EITHER, *TAKEN, alert=SENT, event=TOLD),
        _good(202, ON_DISK, EITHER, *TAKEN, alert=QUEUED, event=TOLD_LATER),
        *(_400, _401, _408, _409, _413, _415, _422, _429, _500, _502, _503),
        takes="Alert Event",
        headers={"Idempotency-Key": KEY, **SIGNED},
        credentials=(*TOKEN, "signature"),
    ),
    _route(
        "POST /api/v1/chatwoot/webhook",
        "receive_webhook",
        "Receive a Chatwoot event",
        "The target for Chatwoot's webhooks, agent bots, automation rules and macros. Any event is taken; what nobody "
        "needs to hear is ignored. Up to 10 MiB, never rate-limited.",
        _good(200, "Telegram has it, or it is ignored.", "WebhookAnswer", "X-Delivery-ID", told=TOLD, ignored=IGNORED),
        _good(202, ON_DISK, "WebhookAnswer", "X-Delivery-ID", event=TOLD_LATER),
        *(_400, _401, _408, _413, _415, _BUSY, _500),
        takes="Event",
        headers=SIGNED,
        credentials=(*TOKEN, "signature"),
    ),
    _route(
        "POST /api/v1/chatwoot/test",
        "send_test",
        "Send a test alert",
        "No body. Goes the whole way to the chat and tells the truth about it; it is not told later.",
        _good(200, "It stands in the chat.", "TestAnswer", *TAKEN, sent=TESTED),
        *(_401, _429, _500, _SAID, _503, _504),
        credentials=TOKEN,
    ),
    _route(
        "GET /api/v1/chatwoot/health",
        "tell_health",
        "Health",
        "Never blocks, never touches the network. Degraded: it accepts, but Telegram is not taking it or the operator "
        "must act.",
        _good(200, "It accepts.", "Health", healthy=HEALTHY, degraded=DEGRADED),
        _good(503, "It cannot accept.", "Health", failing=FAILING),
    ),
    _route(
        "GET /metrics",
        "tell_metrics",
        "Metrics in Prometheus text",
        "For a monitoring system to fetch now and then.",
        _answer(200, "The numbers now.", {"text/plain": {"schema": TEXT}}),
        _500,
    ),
    _route(
        "GET /openapi.json",
        "tell_openapi",
        "This document",
        "Also shown by `/docs` and `/redoc`.",
        _answer(200, "OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}}),
        _500,
    ),
)


@functools.cache
def openapi() -> Json:
    """The OpenAPI 3.1 document. Callers share it: read only."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "chatwoot-relay",
            "version": __version__,
            "summary": "Chatwoot alerts and webhooks, durably relayed to a Telegram chat.",
            "description": "An accepted alert is on disk before it is answered, and is told at least once or kept as a "
            "dead letter. Every error is a problem (RFC 9457); every answer carries `X-Request-ID`. Credentials are "
            "needed where the relay has a token or a secret.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": TAG, "description": "Alerts and events in, Telegram messages out."}],
        "paths": {route.path: {route.method.lower(): route.operation} for route in ROUTES},
        "components": {
            "schemas": SHAPES,
            "securitySchemes": CREDENTIALS,
            "headers": {
                name: {"description": told, "schema": {"type": kind}} for name, (kind, told) in HEADERS.items()
            },
        },
    }
