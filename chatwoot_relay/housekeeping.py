"""What has to be done now and then, by small steps: forget the old, probe a broken disk, tell of deaths and damage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from .clock import Clock
from .errors import OutboxUnavailable
from .models import Notice
from .outbox import Store
from .schema import aside
from .writer import Outbox

BEAT = 1.0
TELL_EVERY = 5  # beats
FORGET_EVERY = 60


async def keep(
    outbox: Outbox, *, clock: Clock, retention: float, destination: str, beat: Callable[[], None] = lambda: None
) -> None:
    """Never returns. *beat* is called once a second or oftener: the process's sign of life."""
    beats = 0
    forgetting = True
    while True:
        beat()
        with contextlib.suppress(OutboxUnavailable):
            if outbox.refusal() is not None:
                await outbox.do(lambda store: store.remember("probed_at", outbox.now()))
            if beats % TELL_EVERY == 0:
                where: dict[str, Any] = {"id": outbox.new_id(), "destination": destination, "now": outbox.now()}
                await outbox.do(partial(announce, **where))
            if forgetting or beats % FORGET_EVERY == 0:
                forgetting = await outbox.do(lambda store: store.expire(now=outbox.now(), retention=retention)) > 0
        beats += 1
        await clock.sleep(0.05 if forgetting else BEAT)


def announce(store: Store, *, id: str, destination: str, now: float) -> bool:
    """The team hears of a damaged file that was set aside, and at most once an hour that something died."""
    if damaged := store.fact("damage_untold"):
        notice = Notice(
            event="relay.database_damaged",
            headline="⚠️ The relay's database was damaged",
            facts=(("Set aside as", f"….{aside(damaged)}"), ("Some alerts", "may be lost, or told twice")),
        )
        store.remember("damage_untold", 0)
    else:
        count, last = int(store.fact("deaths_untold") or 0), store.fact("deaths_told_at")
        if not count or (last is not None and now - last < 3600):
            return False
        some = "1 message" if count == 1 else f"{count} messages"
        notice = Notice(
            event="relay.dead_letters",
            headline=f"☠️ {some} could not be told",
            facts=(
                ("See", "chatwoot-relay outbox list --state dead"),
                ("Send again", "chatwoot-relay outbox redrive --all"),
            ),
        )
        store.remember("deaths_untold", 0)
        store.remember("deaths_told_at", now)
    store.enqueue(notice, id=id, destination=destination, conversation="relay", now=now)
    return True
