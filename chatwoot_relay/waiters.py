"""The requests that wait for a delivery's outcome. Refuses to let one wait for what cannot come in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs

from .models import Outcome


@attrs.define(eq=False)
class Waiter:
    """A request that waits for its delivery's outcome; None means: not in time."""

    _among: Waiters
    _id: str
    deadline: float
    future: asyncio.Future[Outcome | None] = attrs.field(factory=asyncio.Future)

    def __enter__(self) -> Waiter:
        self._among.waiting.setdefault(self._id, []).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        waiters = self._among.waiting[self._id]
        waiters.remove(self)
        if not waiters:
            del self._among.waiting[self._id]

    def end(self, outcome: Outcome | None) -> None:
        if not self.future.done():
            self.future.set_result(outcome)

    async def outcome(self) -> Outcome | None:
        """What came of it, once that is known or the deadline is there."""
        timer = asyncio.get_running_loop().call_later(self.deadline - self._among.now(), self.end, None)
        try:
            return await self.future
        finally:
            timer.cancel()


@attrs.define(eq=False)
class Waiters:
    """Who waits for which delivery, by its id."""

    now: Callable[[], float]  # the clock that deadlines are on
    waiting: dict[str, list[Waiter]] = attrs.field(factory=dict)

    def watch(self, id: str, *, patience: float) -> Waiter:
        """For ``with``: the outcome of that delivery if it comes within *patience* seconds, else None."""
        return Waiter(self, id, self.now() + patience)

    def finish(self, id: str, outcome: Outcome) -> None:
        """This is what came of it."""
        for waiter in self.waiting.get(id, ()):
            waiter.end(outcome)

    def release(self, until: float, *, only: str | None = None) -> None:
        """Those whose deadline comes before *until* need not wait for it."""
        for id, waiters in self.waiting.items():
            if only is None or id == only:
                for waiter in waiters:
                    if waiter.deadline < until:
                        waiter.end(None)
