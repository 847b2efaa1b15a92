"""The HTTP interface, declared once: routes, shapes and answers; the server serves them and the document tells them."""

from __future__ import annotations

import functools
import http
from typing import Annotated, Any, Literal

import attrs
import msgspec
from msgspec import UNSET, Meta, UnsetType

from . import __version__
from .models import MAX_ID, Alert

TAG = "Chatwoot Integration"
YES = Meta(extra_json_schema={"const": True})
NO = Meta(extra_json_schema={"const": False})
Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class AlertAnswer:
    """The alert is told, or safely on disk."""

    success: Annotated[bool, YES]
    message: Literal["Alert forwarded to Telegram", "Alert queued for Telegram"]
    telegram_message_id: Annotated[int | None, Meta(description="null until Telegram has confirmed it")]
    conversation_id: Annotated[int, Meta(ge=1, le=MAX_ID)]


@attrs.frozen(kw_only=True)
class WebhookAnswer:
    """The event is told, safely on disk, or nothing that a person needs to hear."""

    success: Annotated[bool, YES]
    message: Annotated[str, Meta(pattern=r"^Webhook (forwarded to Telegram|queued for Telegram|ignored: \S.*)$")]
    event: Annotated[str, Meta(description="as it was sent")]


@attrs.frozen(kw_only=True)
class TestAnswer:
    """The test alert stands in the chat."""

    success: Annotated[bool, YES]
    message: Literal["Test alert sent to Telegram"]
    telegram_message_id: int | None


@attrs.frozen(kw_only=True)
class Health:
    """Whether it accepts, and whether Telegram takes it."""

    status: Literal["healthy", "degraded", "failing"]
    service: Literal["chatwoot-integration"]
    timestamp: Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
    detail: str | UnsetType = UNSET


@attrs.frozen(kw_only=True)
class FieldError:
    """One thing wrong with a body."""

    path: Annotated[str, Meta(examples=["$.conversation_id"])]
    message: str


@attrs.frozen(kw_only=True)
class Problem:
    """What went wrong (RFC 9457); `success` and `message` are for those who know the older shape."""

    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    success: Annotated[bool, NO]
    message: str
    errors: Annotated[list[FieldError] | UnsetType, Meta(description="every error of the body at once")] = UNSET
    delivery_id: Annotated[str | UnsetType, Meta(description="the dead letter")] = UNSET


@attrs.frozen(kw_only=True)
class Answer:
    """One answer of a route."""

    status: int
    meaning: str
    shape: str = "Problem"
    examples: dict[str, Json] = attrs.field(factory=dict)
    headers: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Route:
    """One route. *name* is its handler's and the document's operation id."""

    method: str
    path: str
    name: str
    summary: str
    description: str = ""
    answers: tuple[Answer, ...]
    takes: tuple[str, ...] = ()  # the shapes of its body
    examples: dict[str, Json] = attrs.field(factory=dict)  # of its body
    parameters: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()


# --- Examples and answers ---

ALERT: Json = {
    "severity": "high",
    "reason": "NEGATIVE_SENTIMENT",
    "conversation_id": 12345,
    "customer_name": "John Doe",
    "customer_email": "john@example.com",
    "message": "THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???",
    "timestamp": "2025-01-19T18:30:00Z",
    "chatwoot_url": "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    "additional_info": {"user_id": "user_123", "order_id": "order_456"},
}
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


def _good(status: int, meaning: str, shape: str, *headers: str, **examples: Json) -> Answer:
    return Answer(status=status, meaning=meaning, shape=shape, examples=examples, headers=headers)


def _bad(status: int, meaning: str, detail: str, *headers: str, **more: Any) -> Answer:
    title = http.HTTPStatus(status).phrase
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail, "success": False}
    examples = {"problem": {**problem, "message": detail, **more}}
    return Answer(status=status, meaning=meaning, examples=examples, headers=headers)


MISSHAPEN = [{"path": "$.conversation_id", "message": "Expected `int` >= 1"}]
LIMIT = ("Retry-After", "RateLimit", "RateLimit-Policy")
DEAD = "3f9c0a6b7d21e854"
ON_DISK = "On disk; Telegram has not confirmed it yet."
_400 = _bad(400, "Not JSON, not UTF-8, or nested absurdly.", "The body is not JSON.")
_401 = _bad(401, "No valid credential came.", "This needs the relay's token.", "WWW-Authenticate")
_408 = _bad(408, "The body came too slowly.", "The body did not come in time.")
_409 = _bad(409, "The Idempotency-Key was used before with another body.", "This key belongs to another body.")
_413 = _bad(413, "Larger than is read: 1 MiB, for an event 10 MiB.", "The body is larger than 1 MiB.")
_415 = _bad(415, "Another Content-Type than JSON, or any Content-Encoding.", "The body must be application/json.")
_422 = _bad(422, "The shape is wrong; every error at once.", "The alert has the wrong shape.", errors=MISSHAPEN)
_429 = _bad(429, "Over the rate limit.", "More than 100 requests in a minute.", *LIMIT)
_500 = _bad(500, "A mistake of the relay's; its log has the request id.", "Something went wrong here.")
_502 = _bad(502, "Telegram refused it for good; it is a dead letter.", "Telegram refused it.", delivery_id=DEAD)
_503 = _bad(503, "Nothing can be accepted now; come again.", "The outbox cannot be written now.", "Retry-After")
_504 = _bad(504, "Telegram did not answer in time or holds the chat.", "Telegram did not answer in time.")
_BUSY = _bad(429, "Nothing can be accepted now; come again.", "The outbox cannot be written now.", "Retry-After")
_SAID = _bad(502, "What Telegram said, and what to do about it.", "Telegram says: chat not found. Add the bot to it.")
TOKEN = ("bearer", "basic", "query")
EITHER = "AlertAnswer WebhookAnswer"

ROUTES = (
    Route(
        method="POST",
        path="/api/v1/chatwoot/alerts",
        name="receive_alert",
        summary="Raise an alert",
        description="Tells the chat that a customer needs a human. On disk before it is answered; the answer waits a "
        "moment for Telegram's. A native Chatwoot event is taken here as on the webhook route.",
        takes=("Alert", "Event"),
        examples={"alert": ALERT, "event": EVENT},
        parameters=("Idempotency-Key",),
        credentials=TOKEN,
        answers=(
            _good(200, "Telegram has it.", EITHER, "X-Delivery-ID", alert=SENT, event=TOLD),
            _good(202, ON_DISK, EITHER, "X-Delivery-ID", alert=QUEUED, event=TOLD_LATER),
            *(_400, _401, _408, _409, _413, _415, _422, _429, _500, _502, _503),
        ),
    ),
    Route(
        method="POST",
        path="/api/v1/chatwoot/webhook",
        name="receive_webhook",
        summary="Receive a Chatwoot event",
        description="The target for Chatwoot's webhooks, agent bots, automation rules and macros. Any event is taken; "
        "what nobody needs to hear is ignored. Up to 10 MiB, never rate-limited.",
        takes=("Event",),
        examples={"event": EVENT},
        parameters=("X-Chatwoot-Timestamp", "X-Chatwoot-Delivery"),
        credentials=(*TOKEN, "signature"),
        answers=(
            _good(
                200, "Telegram has it, or it is ignored.", "WebhookAnswer", "X-Delivery-ID", told=TOLD, ignored=IGNORED
            ),
            _good(202, ON_DISK, "WebhookAnswer", "X-Delivery-ID", event=TOLD_LATER),
            *(_400, _401, _408, _413, _415, _BUSY, _500),
        ),
    ),
    Route(
        method="POST",
        path="/api/v1/chatwoot/test",
        name="send_test",
        summary="Send a test alert",
        description="No body. Goes the whole way to the chat and tells the truth about it; it is not told later.",
        credentials=TOKEN,
        answers=(
            _good(200, "It stands in the chat.", "TestAnswer", "X-Delivery-ID", sent=TESTED),
            *(_401, _429, _500, _SAID, _503, _504),
        ),
    ),
    Route(
        method="GET",
        path="/api/v1/chatwoot/health",
        name="tell_health",
        summary="Health",
        description="Never blocks, never touches the network. Degraded: it accepts, but Telegram is not taking it or "
        "the operator must act.",
        answers=(
            _good(200, "It accepts.", "Health", healthy=HEALTHY, degraded=DEGRADED),
            _good(503, "It cannot accept.", "Health", failing=FAILING),
        ),
    ),
    Route(
        method="GET",
        path="/metrics",
        name="tell_metrics",
        summary="Metrics in Prometheus text",
        credentials=TOKEN,
        answers=(_good(200, "The numbers now.", "text/plain"), _401, _500),
    ),
    Route(
        method="GET",
        path="/openapi.json",
        name="tell_openapi",
        summary="This document",
        answers=(_good(200, "OpenAPI 3.1.", "object"), _500),
    ),
)

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
PARAMETERS: dict[str, str] = {
    "Idempotency-Key": "Makes repeated posts one alert; each repeat gets the answer as it stands by then.",
    "X-Chatwoot-Timestamp": "Unix seconds; part of what is signed, at most 5 minutes off.",
    "X-Chatwoot-Delivery": "Chatwoot's id of this delivery; a repeat is told once.",
}
HEADERS: dict[str, tuple[str, str]] = {
    "X-Request-ID": ("string", "This request's name in the relay's log."),
    "X-Delivery-ID": ("string", "The delivery's name in the outbox; absent where nothing is owed."),
    "Retry-After": ("integer", "Seconds."),
    "RateLimit": ("string", "What is left of the limit, and in how many seconds it is whole again."),
    "RateLimit-Policy": ("string", "The limit and its window in seconds."),
    "WWW-Authenticate": ("string", "How to present the token."),
}


@functools.cache
def openapi() -> Json:
    """The OpenAPI 3.1 document. Callers share it: read only."""
    paths: Json = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
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
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": CREDENTIALS,
            "headers": {
                name: {"description": told, "schema": {"type": kind}} for name, (kind, told) in HEADERS.items()
            },
        },
    }


def _schemas() -> Json:
    classes = (Alert, AlertAnswer, WebhookAnswer, TestAnswer, Health, Problem)
    _, schemas = msgspec.json.schema_components(classes, ref_template="#/components/schemas/{name}")
    for schema in schemas.values():
        schema["description"] = schema["description"].partition("\n")[0]
    public = schemas["Alert"]["properties"]
    for name in [name for name, schema in public.items() if "examples" not in schema]:
        del public[name]  # ours, no member of a body
    number = public["conversation_id"]
    limits = {key: number.pop(key) for key in ("type", "minimum", "maximum")}
    number["anyOf"] = [limits, {"type": "string", "pattern": "^[1-9][0-9]{0,18}$", "description": "its digits"}]
    schemas["Event"] = {
        "title": "Event",
        "description": "An event as Chatwoot sends it, or the simple shape of the example; told as far as understood.",
        "type": "object",
        "properties": {"event": {"type": "string", "examples": ["message_created"]}},
        "required": ["event"],
    }
    return dict(sorted(schemas.items()))


def _operation(route: Route) -> Json:
    operation: Json = {
        "tags": [TAG],
        "operationId": route.name,
        "summary": route.summary,
        "description": route.description,
        "responses": {str(answer.status): _response(answer) for answer in route.answers},
    }
    if route.parameters:
        operation["parameters"] = [
            {"name": name, "in": "header", "description": PARAMETERS[name], "schema": {"type": "string"}}
            for name in route.parameters
        ]
    if route.takes:
        operation["requestBody"] = {
            "required": True,
            "content": _content("application/json", route.takes, route.examples),
        }
    if route.credentials:
        operation["security"] = [*({name: []} for name in route.credentials), {}]
    return operation


def _response(answer: Answer) -> Json:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("X-Request-ID", *answer.headers)}
    response: Json = {"description": answer.meaning, "headers": headers}
    match answer.shape:
        case "text/plain":
            response["content"] = {"text/plain": {"schema": {"type": "string"}}}
        case "object":
            response["content"] = {"application/json": {"schema": {"type": "object"}}}
        case shapes:
            kind = "application/problem+json" if shapes == "Problem" else "application/json"
            response["content"] = _content(kind, tuple(shapes.split()), answer.examples)
    return response


def _content(kind: str, shapes: tuple[str, ...], examples: dict[str, Json]) -> Json:
    references = [{"$ref": f"#/components/schemas/{shape}"} for shape in shapes]
    schema = references[0] if len(references) == 1 else {"anyOf": references}
    return {kind: {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}}
