"""The requests that wait for a delivery's outcome. Refuses to let one wait for what cannot come in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from .models import Outcome


@attrs.define(eq=False)
class Waiter:
    """A request that waits for its delivery's outcome; None means: not in time."""

    _waiting: dict[str, list[Waiter]]
    _id: str
    deadline: float
    future: asyncio.Future[Outcome | None] = attrs.field(factory=asyncio.Future)

    def __enter__(self) -> asyncio.Future[Outcome | None]:
        self._waiting.setdefault(self._id, []).append(self)
        return self.future

    def __exit__(self, *_: object) -> None:
        waiters = self._waiting[self._id]
        waiters.remove(self)
        if not waiters:
            del self._waiting[self._id]


class Waiters:
    """Who waits for which delivery, by its id. *now* is the clock that deadlines are on."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._waiting: dict[str, list[Waiter]] = {}

    def watch(self, id: str, *, patience: float) -> Waiter:
        """For ``with``: the outcome of that delivery if it comes within *patience* seconds, else None."""
        return Waiter(self._waiting, id, self._now() + patience)

    async def wait(self, future: asyncio.Future[Outcome | None], seconds: float) -> Outcome | None:
        """What a watched future becomes within so many seconds, else None."""
        if not future.done():
            timer = asyncio.get_running_loop().call_later(seconds, _expire, future)
            try:
                await future
            finally:
                timer.cancel()
        return future.result()

    def finish(self, id: str, outcome: Outcome) -> None:
        """This is what came of it."""
        for waiter in self._waiting.get(id, ()):
            if not waiter.future.done():
                waiter.future.set_result(outcome)

    def release(self, until: float, *, only: str | None = None) -> None:
        """Those whose deadline comes before *until* need not wait for it."""
        for id, waiters in self._waiting.items():
            if only is None or id == only:
                for waiter in waiters:
                    if waiter.deadline < until and not waiter.future.done():
                        waiter.future.set_result(None)


def _expire(future: asyncio.Future[Outcome | None]) -> None:
    if not future.done():
        future.set_result(None)
