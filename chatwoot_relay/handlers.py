"""The routes and the middleware that turns every error into a problem. Rules live elsewhere; here is who asks whom."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from math import isinf
from typing import Any

import attrs
import msgspec
import structlog
from aiohttp import hdrs, web
from structlog.typing import FilteringBoundLogger

from . import chatwoot, notices, routing
from .clock import Clock
from .door import LARGE_ALERT, MAX_ALERT, Door, Entry, parse, read_alert
from .errors import OutboxUnavailable, Refused
from .events import Decision, Event, Memory
from .markup import short_line
from .metrics import Metrics
from .models import Alert, Ambiguous, Content, Dead, Operator, Outcome, Rank, Retry, Sent, WaitBot, WaitChat, new_id
from .openapi import openapi
from .outbox import Accepted, Arrival, Conflict, Ignored
from .pages import Page, docs_page, redoc_page
from .protocol import problem, sign
from .render import trim
from .sender import Sender
from .settings import Settings
from .signature import Verdict
from .waiters import Waiter
from .writer import Outbox

log = structlog.get_logger()

TEAM = "team"  # the one destination there is; deliveries name it, settings say which chat it is
RETRY_AFTER = "3"
KEY_LIMIT = 255
UNREFUSED = ("maybe told", "too old", "it could not", "unreadable")  # why else something becomes a dead letter
FEW = 40  # more than the limits let through in any reply timeout
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SAID = {404: "There is nothing here.", 405: "This address does not take that method.", 413: "The body is too large."}
TEST_PATIENCE = 3.0  # seconds at least, for a test tells the truth
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@attrs.define(kw_only=True)
class Relay:
    """What the handlers work with."""

    settings: Settings
    clock: Clock
    door: Door
    outbox: Outbox
    sender: Sender
    metrics: Metrics
    log: FilteringBoundLogger = attrs.field(factory=lambda: structlog.get_logger().bind())  # to bind each time is dear
    stopping: bool = False  # answer what is in flight, accept no more
    draining: bool = False  # tell clients to go elsewhere

    def demand_open(self) -> None:
        """Raises OutboxUnavailable once it is stopping."""
        if self.stopping:
            raise OutboxUnavailable("the relay is stopping")


RELAY = web.AppKey("RELAY", Relay)


# --- answers ---


def reply(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    line = msgspec.json.format(msgspec.json.encode(body), indent=0)  # for who reads it, or greps
    return web.Response(status=status, body=line, content_type="application/json", headers=headers)


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error a problem, every request one line in the log and one tick in the metrics."""
    relay = request.app[RELAY]
    started = relay.clock.monotonic()
    given = request.headers.get("X-Request-ID", "")
    request_id = given if REQUEST_ID.fullmatch(given) else new_id()
    detail: str | None = None
    try:
        response = await handler(request)
    except Exception as error:
        refused = _refused(error, request_id)
        detail = refused.detail
        members = {"errors": [attrs.asdict(each) for each in refused.errors]} if refused.errors else {}
        response = problem(refused.status, detail, **members)
        response.headers.update(refused.headers)
        if refused.close:
            response.force_close()
    sign(response, request_id)
    if relay.draining:
        response.force_close()
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else "other"
    took = relay.clock.monotonic() - started
    relay.metrics.request(route=route, status=response.status, seconds=took)
    quiet = request.method in ("GET", "HEAD") and response.status < 400
    (relay.log.debug if quiet else relay.log.info)(
        "request.handled",
        request=request_id,
        method=request.method if request.method.isalpha() else "?",
        route=route,
        status=response.status,
        ms=round(took * 1000, 1),
        client=relay.door.client(request),
        delivery=response.headers.get("X-Delivery-ID"),
        detail=detail,
    )
    return response


def _refused(error: Exception, request_id: str) -> Refused:
    """What is told of whatever a handler raised."""
    match error:
        case Refused():
            return error
        case OutboxUnavailable():
            return Refused(503, f"Nothing was accepted: {error}.", headers={"Retry-After": RETRY_AFTER})
        case web.HTTPException():
            allow = {name: value for name, value in error.headers.items() if name == "Allow"}
            return Refused(error.status, SAID.get(error.status, f"{error.reason}."), headers=allow)
        case _:
            log.exception("request.crashed", request=request_id)
            return Refused(500, f"Something went wrong on our side; the log has more under {request_id}.")


# --- routes ---


async def receive_alert(request: web.Request) -> web.Response:
    """``POST /api/v1/chatwoot/alerts``: an alert, or a native event that was pointed here."""
    relay = request.app[RELAY]
    entry = await relay.door.read(request, at_most=MAX_ALERT)
    if entry.signature is not Verdict.VALID:
        relay.door.demand_token(entry.token, entry.signature)
    try:
        document, refused = parse(entry.body), None
    except Refused as error:
        document, refused = None, error
    if isinstance(document, dict) and "event" in document and "severity" not in document:
        event, transport = _event(relay, entry, document), entry.transport
        del entry, document  # may be large: not kept while Telegram is waited for
        return await _deliver_event(relay, event, transport)
    if len(entry.body) > MAX_ALERT:
        raise Refused(413, LARGE_ALERT)
    relay.door.demand_token(entry.token)
    limits = relay.door.count(relay.door.client(request))
    if refused is not None:
        raise refused
    key, *others = map(str.strip, request.headers.getall("Idempotency-Key", [""]))
    if len(key) > KEY_LIMIT or others:
        raise Refused(400, f"There is one Idempotency-Key at most, of at most {KEY_LIMIT} characters.")
    alert = trim(read_alert(document))
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest() if key else ""
    del entry, document
    response = await _deliver_alert(relay, alert, key, digest)
    response.headers.update(limits)
    return response


async def _deliver_alert(relay: Relay, alert: Alert, key: str, digest: str) -> web.Response:
    relay.demand_open()
    delivery_id, lane = relay.outbox.new_id(), str(alert.conversation_id)
    arrival = Arrival(alert, delivery_id, TEAM, lane, relay.outbox.now())
    with relay.sender.waiters.watch(delivery_id, patience=relay.settings.relay_reply_timeout) as waiter:
        if key:
            known = "key:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
            accepted = await relay.outbox.do(lambda store: store.enqueue_once(arrival, key=known, digest=digest))
        else:
            accepted = await relay.outbox.enqueue(arrival)
        if isinstance(accepted, Conflict):
            raise Refused(409, "This Idempotency-Key was used before with another body.")
        if accepted.fresh:
            relay.metrics.accepted("alert")
            outcome = await _outcome(relay, waiter, accepted)
        else:
            outcome = await _standing(relay, accepted)
    return _tell_alert(accepted.id, alert.conversation_id, outcome)


def _tell_alert(delivery_id: str, conversation_id: int, outcome: Outcome | None) -> web.Response:
    if isinstance(outcome, Dead):
        refused = not outcome.reason.startswith(UNREFUSED)
        why = "Telegram refused it for good" if refused else "It is kept as a dead letter"
        response = problem(502, f"{why}: {outcome.reason}", delivery_id=delivery_id)
        response.headers["X-Delivery-ID"] = delivery_id
        return response
    sent = isinstance(outcome, Sent)
    body = {
        "success": True,
        "message": "Alert forwarded to Telegram" if sent else "Alert queued for Telegram",
        "telegram_message_id": outcome.message_id if isinstance(outcome, Sent) else None,
        "conversation_id": conversation_id,
    }
    return reply(200 if sent else 202, body, {"X-Delivery-ID": delivery_id})


async def _outcome(relay: Relay, waiter: Waiter, accepted: Accepted) -> Outcome | None:
    """What came of a delivery, if it can come within the reply timeout; else None, at once where it cannot."""
    patience = relay.settings.relay_reply_timeout
    if not waiter.future.done():
        at_worst = relay.sender.delay(TEAM, ahead=min(relay.outbox.tally.pending, FEW))
        if relay.draining or at_worst > patience:
            if relay.draining or isinf(at_worst) or relay.sender.delay(TEAM) > patience:
                return None
            ahead = await relay.outbox.do(lambda store: store.ahead(accepted.id))
            if not waiter.future.done() and relay.sender.delay(TEAM, ahead=ahead) > patience:
                return None
    return await waiter.outcome()


async def _standing(relay: Relay, accepted: Accepted) -> Outcome | None:
    """How a delivery that was accepted before stands by now, waiting for it as for a new one."""
    with relay.sender.waiters.watch(accepted.id, patience=relay.settings.relay_reply_timeout) as waiter:
        state = await relay.outbox.do(lambda store: store.status(accepted.id)) or accepted
        if state.state == "sent":
            return Sent(state.message_id)
        if state.state == "dead":
            return Dead(state.reason or "unknown")
        return await _outcome(relay, waiter, state)


async def receive_webhook(request: web.Request) -> web.Response:
    """``POST /api/v1/chatwoot/webhook``: any Chatwoot event."""
    relay = request.app[RELAY]
    with _for_chatwoot():
        entry = await relay.door.read(request)
    relay.door.demand_any(entry)
    event, transport = _event(relay, entry, parse(entry.body)), entry.transport
    del entry  # may be large: not kept while Telegram is waited for
    return await _deliver_event(relay, event, transport)


def _event(relay: Relay, entry: Entry, document: Any) -> Event:
    """The event in a document. Raises Refused 401, 400."""
    relay.door.demand_any(entry)
    if not isinstance(document, dict):
        raise Refused(400, "The body is no JSON object.")
    if not isinstance(document.get("event"), str):
        raise Refused(
            400,
            "The body has no `event` that is a string; an alert, which has none, belongs to /api/v1/chatwoot/alerts.",
        )
    settings = relay.settings
    return chatwoot.read_event(document, base_url=settings.chatwoot_url, account_id=settings.chatwoot_account_id)


async def _deliver_event(relay: Relay, event: Event, transport: tuple[str, ...]) -> web.Response:
    settings, wall, delivery_id = relay.settings, relay.clock.wall(), relay.outbox.new_id()

    def decide(memory: Memory | None, repeated: bool) -> tuple[Decision, Content | None]:
        decision = routing.decide(event, memory, events=settings.relay_events, now=wall, repeated=repeated)
        return decision, None if decision.what is None else trim(notices.word(event, decision))

    known = event.conversation_id is not None
    with _for_chatwoot(), relay.sender.waiters.watch(delivery_id, patience=settings.relay_reply_timeout) as waiter:
        relay.demand_open()
        accepted = await relay.outbox.do(
            lambda store: store.receive(
                decide,
                key=event.conversation if known else None,
                happening=event.key,
                transport=transport,
                id=delivery_id,
                destination=TEAM,
                conversation=str(event.conversation_id) if known else short_line(f"event {event.name}", 100),
                now=relay.outbox.now(),
            )
        )
        if isinstance(accepted, Ignored):
            relay.metrics.ignored(accepted.reason)
            message = f"Webhook ignored: {accepted.reason}"
            return reply(200, {"success": True, "message": message, "event": event.name})
        relay.metrics.accepted("webhook")
        outcome = await _outcome(relay, waiter, accepted)
    sent = isinstance(outcome, Sent)
    message = "Webhook forwarded to Telegram" if sent else "Webhook queued for Telegram"
    body = {"success": True, "message": message, "event": event.name}
    return reply(200 if sent else 202, body, {"X-Delivery-ID": delivery_id})


@contextlib.contextmanager
def _for_chatwoot() -> Iterator[None]:
    """What cannot be accepted is 429 to it: the only temporary refusal that any of its senders tries again."""
    try:
        yield
    except OutboxUnavailable as unavailable:
        raise Refused(429, f"Nothing was accepted: {unavailable}.", headers={"Retry-After": RETRY_AFTER}) from None


async def send_test(request: web.Request) -> web.Response:
    """``POST /api/v1/chatwoot/test``: a test alert goes the whole way, and the answer is the truth about it."""
    relay = request.app[RELAY]
    relay.door.demand_token(relay.door.has_token(request))
    limits = relay.door.count(relay.door.client(request))
    if relay.draining or relay.stopping:  # nothing is sent any more, and it is not told later
        raise OutboxUnavailable("the relay is stopping")
    patience = max(relay.settings.relay_reply_timeout, TEST_PATIENCE)
    relay.sender.dare(TEAM)  # whoever has just mended something wants to know now
    if relay.sender.delay(TEAM) > patience:
        why = relay.sender.trouble() or "Telegram's limits are reached"
        raise Refused(504, f"The test was not sent: {why}.", headers=limits)
    alert = Alert(
        severity="medium",
        reason="TEST_ALERT",
        conversation_id=1,
        message="This is a test. If you can read it, alerts reach this chat.",
        customer_name="Test Customer",
        customer_email="test@example.com",
        timestamp=datetime.fromtimestamp(relay.clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    delivery_id = relay.outbox.new_id()
    with relay.sender.waiters.watch(delivery_id, patience=patience) as waiter:
        await relay.outbox.enqueue(Arrival(alert, delivery_id, TEAM, "test", relay.outbox.now(), rank=Rank.TEST))
        relay.metrics.accepted("test")
        outcome = await waiter.outcome()
    if isinstance(outcome, Sent):
        body = {"success": True, "message": "Test alert sent to Telegram", "telegram_message_id": outcome.message_id}
        return reply(200, body, {**limits, "X-Delivery-ID": delivery_id})
    await relay.outbox.do(lambda store: store.withdraw_test(delivery_id))
    match outcome:
        case Dead(reason) | Operator(_, reason) | Retry(reason, True):
            raise Refused(502, f"Telegram said: {reason}. {_advice(outcome)}", headers=limits)
        case WaitChat(seconds, _) | WaitBot(seconds, _):
            raise Refused(504, f"Telegram holds the chat for {seconds:.0f} s; try again then.", headers=limits)
        case Retry(reason, _):
            raise Refused(504, f"Telegram did not answer ({reason}). {_advice(outcome)}", headers=limits)
        case Ambiguous(reason):
            raise Refused(504, f"Telegram did not answer ({reason}); it may have been told.", headers=limits)
        case _:
            raise Refused(504, f"Telegram did not answer within {patience:g} s.", headers=limits)


def _advice(outcome: Outcome) -> str:
    match outcome:
        case Operator("bot", _):
            return "Check TELEGRAM_BOT_TOKEN, then run chatwoot-relay doctor."
        case Operator(_, _):
            return "Check TELEGRAM_CHAT_ID and the bot's rights there, then run chatwoot-relay doctor."
        case Retry(_):
            return "Telegram cannot be reached or is failing; alerts are kept and told later."
        case _:
            return "Run chatwoot-relay doctor."


async def tell_health(request: web.Request) -> web.Response:
    """``GET /api/v1/chatwoot/health``: from memory alone."""
    relay = request.app[RELAY]
    status, detail = standing(relay)
    now = datetime.fromtimestamp(relay.clock.wall(), UTC)
    stamp = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = {"status": status, "service": "chatwoot-integration", "timestamp": stamp}
    if detail is not None:
        body["detail"] = detail
    return reply(503 if status == "failing" else 200, body)


def standing(relay: Relay) -> tuple[str, str | None]:
    """healthy, degraded or failing; and why."""
    refusal = "the relay is stopping" if relay.stopping else relay.outbox.refusal()
    if refusal is not None:
        return "failing", refusal
    trouble = relay.sender.trouble()
    if trouble is None and relay.outbox.damaged is not None:
        trouble = f"the database was damaged and set aside as {relay.outbox.damaged}"
    if trouble is None and relay.door.skewed:
        trouble = "signatures are refused for their time: a clock is wrong, here or at Chatwoot"
    return ("healthy", None) if trouble is None else ("degraded", trouble)


async def tell_metrics(request: web.Request) -> web.Response:
    """``GET /metrics``."""
    page, kind = request.app[RELAY].metrics.render()
    return web.Response(body=page, headers={hdrs.CONTENT_TYPE: kind})


async def tell_openapi(request: web.Request) -> web.Response:
    """``GET /openapi.json``."""
    return reply(200, openapi())


async def show_docs(request: web.Request) -> web.Response:
    """``GET /docs``: Swagger UI."""
    return _page(docs_page(openapi(), request.app[RELAY].settings.relay_docs_assets))


async def show_redoc(request: web.Request) -> web.Response:
    """``GET /redoc``: ReDoc."""
    return _page(redoc_page(openapi(), request.app[RELAY].settings.relay_docs_assets))


def _page(page: Page) -> web.Response:
    return web.Response(text=page.html, content_type="text/html", headers=page.headers)
