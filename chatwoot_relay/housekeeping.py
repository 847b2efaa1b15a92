"""What has to be done now and then, by small steps: forget the old, probe a broken disk, tell of deaths and damage."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

from .clock import Clock
from .errors import OutboxUnavailable
from .outbox import Store
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
                await outbox.do(partial(Store.announce, **where))
            if forgetting or beats % FORGET_EVERY == 0:
                forgetting = await outbox.do(lambda store: store.expire(now=outbox.now(), retention=retention)) > 0
        beats += 1
        await clock.sleep(0.05 if forgetting else BEAT)
