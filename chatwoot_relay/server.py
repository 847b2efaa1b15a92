"""The composition root: what the relay is made of, in which order it starts and stops. Refuses to know any rule."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import attrs
import structlog
from aiohttp import web

from . import __version__, handlers
from .chatwoot import KNOWN_EVENTS
from .clock import Clock
from .control import open_outbox, serve_control
from .door import Door
from .errors import ConfigurationError, RelayError, Taken
from .handlers import RELAY, TEAM, Relay, standing
from .holds import BOT
from .housekeeping import keep
from .metrics import Metrics, Standing
from .notify import inherited_sockets, notify, watchdog_interval
from .openapi import ROUTES
from .pacing import Pace
from .protocol import MAX_CONNECTIONS, Runner
from .render import Links
from .sender import Destination, Sender
from .settings import EXPOSED, Settings, is_loopback, open_routes, unknown_events
from .telegram import Telegram, open_session

log = structlog.get_logger()

BACKLOG = 1024
AT_ONCE = 16  # connections taken before any of them is looked at
OURS = 64  # descriptors for all but clients: files, Telegram, what was just taken
VITAL: web.AppKey[list[asyncio.Future[Any]]] = web.AppKey("VITAL")  # parts that the relay cannot do without
SWITCH = 0.0001  # seconds that the outbox's thread waits for each step beside a busy loop; Python's own are 5 ms
DRAIN = 1.0  # seconds for what was accepted to be heard
GRACE = 8.0  # seconds for sends in flight


def build(settings: Settings) -> web.Application:
    """The application: its routes, and the outbox, Telegram and sender that are born and buried with it."""
    clock = Clock()
    app = web.Application(middlewares=[handlers.answer], client_max_size=0)
    for route in ROUTES:
        if settings.relay_docs or route.name != "tell_openapi":
            add = app.router.add_get if route.method == "GET" else app.router.add_post
            add(route.path, getattr(handlers, route.name))
    if settings.relay_docs:
        app.router.add_get("/docs", handlers.show_docs)
        app.router.add_get("/redoc", handlers.show_redoc)

    async def parts(app: web.Application) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            outbox = open_outbox(settings.relay_database, clock=clock)
            stack.push_async_callback(outbox.close)
            session = await stack.enter_async_context(open_session())
            relay: Relay
            metrics = Metrics(lambda: _numbers(relay))
            team = Destination(chat_id=str(settings.telegram_chat_id), thread_id=settings.telegram_thread_id)
            sender = Sender(
                outbox,
                Telegram(session, api_url=settings.telegram_api_url, token=settings.telegram_bot_token.reveal()),
                destinations={TEAM: team},
                clock=clock,
                pace=Pace(enabled=settings.relay_pacing),
                links=Links(base=settings.chatwoot_url, account=settings.chatwoot_account_id),
                metrics=metrics,
                max_age=settings.relay_max_age,
            )
            door = Door(settings, clock)
            relay = Relay(settings=settings, clock=clock, door=door, outbox=outbox, sender=sender, metrics=metrics)
            app[RELAY] = relay
            housekeeping = keep(
                outbox, clock=clock, retention=settings.relay_retention, destination=TEAM, beat=_heart(relay)
            )
            running, keeping = asyncio.create_task(sender.run()), asyncio.create_task(housekeeping)
            app[VITAL] = [outbox.dead, running, keeping]
            await stack.enter_async_context(serve_control(outbox, lambda: _status(relay)))
            yield
            await sender.stop(grace=0.0 if relay.stopping else GRACE)
            keeping.cancel()
            await asyncio.wait({running}, timeout=0.5)  # it puts back what it claimed, if the disk lets it
            running.cancel()
            await asyncio.gather(running, keeping, return_exceptions=True)

    app.cleanup_ctx.append(parts)
    return app


def _heart(relay: Relay) -> Callable[[], None]:
    """Once a second: the watchdog is fed if loop *and* sender have moved, and STATUS says how things stand."""
    interval = watchdog_interval()
    turns, fed, told = -1, 0.0, ""

    def beat() -> None:
        nonlocal turns, fed, told
        now = relay.clock.monotonic()
        if interval is not None and relay.sender.turns != turns and now - fed >= min(interval, 5.0):
            turns, fed = relay.sender.turns, now
            notify("WATCHDOG=1")
        relay.sender.poke()
        if (status := describe(relay)) != told:
            told = status
            notify(f"STATUS={status}")

    return beat


def describe(relay: Relay) -> str:
    """What it is doing, in words: "3 queued, Telegram holds the chat for 41 s"."""
    tally = relay.outbox.tally
    queued = tally.pending + tally.sending
    words = [f"{queued} queued" if queued else "nothing queued"]
    if tally.dead:
        words.append(f"{tally.dead} dead")
    trouble = standing(relay)[1]
    return ", ".join([*words, trouble] if trouble else words)


def _numbers(relay: Relay) -> Standing:
    now, tally, oldest = relay.outbox.now(), relay.outbox.tally, relay.outbox.oldest
    left, act = {"chat": 0.0, "bot": 0.0}, {"chat": False, "bot": False}
    for key, hold in relay.sender.holds.items():
        scope = "bot" if key == BOT else "chat"
        left[scope] = max(left[scope], 0.0 if hold.until is None else hold.until - now)
        act[scope] = act[scope] or hold.operator
    return Standing(
        accepted=tally.accepted,
        queue={name: count for name, count in attrs.asdict(tally).items() if name != "accepted"},
        oldest=0.0 if oldest is None else max(0.0, now - oldest),
        holds=left,
        operator=act,
    )


def _status(relay: Relay) -> dict[str, Any]:
    """What `doctor` asks of a running service."""
    status, detail = standing(relay)
    return {
        "status": status,
        "detail": detail,
        "describe": describe(relay),
        "signature_refusals": relay.door.refusals,
    }


# --- running ---


async def run(
    settings: Settings, *, ready: Callable[[str], None] | None = None, app: web.Application | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; raises what made it fail. *ready* is called with the URL once it listens."""
    stop = asyncio.Event()
    sys.setswitchinterval(SWITCH)
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    sockets = inherited_sockets() or [_listen(settings.relay_host, settings.relay_port)]
    if not settings.relay_token and not settings.relay_allow_anonymous and any(map(_is_public, sockets)):
        raise ConfigurationError(EXPOSED)  # an inherited socket is not where RELAY_HOST says
    app = app or build(settings)
    runner = Runner(app, max_connections=_most_connections())
    try:
        await runner.setup()
        sites = [web.SockSite(runner, sock, backlog=AT_ONCE) for sock in sockets]
        for site, sock in zip(sites, sockets, strict=True):
            await site.start()
            sock.listen(BACKLOG)  # may wait, though fewer are taken at once
        addresses = [_address(sock) for sock in sockets]
        for warning in open_routes(settings):
            log.warning("relay.open", what=warning)
        for event, todo in unknown_events(settings, KNOWN_EVENTS):
            log.warning("settings.unknown_event", name=event, setting="RELAY_EVENTS", do=todo)
        log.info(
            "relay.started",
            version=__version__,
            listening=addresses,
            database=str(settings.relay_database),
            pid=os.getpid(),
        )
        notify("READY=1")
        if ready is not None:
            ready(addresses[0])
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait([stopped, *app[VITAL]], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        notify("STOPPING=1", "STATUS=stopping")
        for part in app[VITAL]:
            if part.done():
                log.critical("relay.failed", exc_info=part.exception())
                part.result()
        await _drain(app[RELAY], sites, sockets)
    finally:
        await runner.cleanup()
        if VITAL in app:  # it was running
            log.info("relay.stopped")


async def _drain(relay: Relay, sites: list[web.SockSite], sockets: list[socket.socket]) -> None:
    """Finish what is in flight, close our copy of the listener, answer what was accepted; aiohttp's way cuts it off."""
    log.info("relay.stopping", queued=relay.outbox.tally.pending)
    relay.draining = True
    sending = asyncio.create_task(relay.sender.stop(grace=GRACE))
    relay.sender.waiters.release(float("inf"))  # every request that waits is answered now
    await asyncio.wait({sending}, timeout=GRACE - DRAIN)  # who comes meanwhile has a 202; a successor comes only then
    await stop_listening(sites, sockets, clock=relay.clock)
    await relay.clock.sleep(DRAIN)
    relay.stopping = True
    await sending


async def stop_listening(sites: list[web.SockSite], sockets: list[socket.socket], *, clock: Clock) -> None:
    """Close the listeners. What asyncio has accepted becomes a connection first, for a closed server drops it."""
    for sock in sockets:
        asyncio.get_running_loop().remove_reader(sock)
    await clock.sleep(0)
    for site in sites:
        await site.stop()


def _most_connections() -> int:
    """As many as there are descriptors for: who comes then costs an idle one, and accepting never fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(MAX_CONNECTIONS, max(AT_ONCE, hard - OURS)) if hard != resource.RLIM_INFINITY else MAX_CONNECTIONS


def _is_public(sock: socket.socket) -> bool:
    """Whether other machines may reach it."""
    return sock.family != socket.AF_UNIX and not is_loopback(str(sock.getsockname()[0]))


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises Taken where another program has the port, RelayError where it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=False)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            told = f"port {port} on {host} is in use (`ss -ltnp` shows by whom); stop that program or set RELAY_PORT"
            raise Taken(told) from None
        reason = (error.strerror or "").partition(" (while")[0]
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise ConfigurationError(f"RELAY_HOST: {host} is no address of this machine: {reason}") from None
        todo = "ports below 1024 are root's: set RELAY_PORT" if error.errno == errno.EACCES else "try again"
        raise RelayError(f"cannot listen on {host}, port {port}: {reason}; {todo}") from None


def _address(sock: socket.socket) -> str:
    name = sock.getsockname()
    if isinstance(name, tuple):
        return f"http://[{name[0]}]:{name[1]}" if ":" in name[0] else f"http://{name[0]}:{name[1]}"
    return f"unix:{name}"
