"""When the next attempt may be made. Pure arithmetic: callers bring the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# Telegram allows a group 20 sends in any 60 s, a chat about one a second with short bursts, a bot about 30 a second.
# One less and a little longer each, for what we send early reaches it late.
GROUP_WINDOW = (19, 60.5)
CHAT_BURST = 3
CHAT_INTERVAL = 1.0
BOT_WINDOW = (28, 1.0)

BACKOFF_CAP = 30.0


def backoff(attempt: int, roll: Callable[[], float]) -> float:
    """Seconds until try *attempt* + 1: full jitter under 1, 2, 4 … 30 s. *roll* gives a number in [0, 1)."""
    return max(0.2, min(BACKOFF_CAP, 2.0 ** min(attempt - 1, 10)) * roll())


class Window:
    """At most *count* in any *seconds*: a true sliding window."""

    def __init__(self, count: int, seconds: float) -> None:
        self._sends: deque[float] = deque(maxlen=count)
        self._count = count
        self._seconds = seconds

    def note(self, at: float) -> None:
        self._sends.append(at)

    def earliest(self, now: float, after: int = 0) -> float:
        """When one more may go if *after* others go first, each as early as it may."""
        need = len(self._sends) + after - self._count  # which past send has to leave the window first
        if need < 0:
            return now
        turns, place = divmod(need, self._count)
        past = self._sends[place] if place < len(self._sends) else now
        return max(now, past + self._seconds) + turns * self._seconds

    def free(self, now: float) -> int:
        """How many may go at once."""
        while self._sends and self._sends[0] + self._seconds <= now:
            self._sends.popleft()
        return self._count - len(self._sends)


class Bucket:
    """One each *interval* seconds on average, and a small burst."""

    def __init__(self, burst: int, interval: float) -> None:
        self._burst = burst
        self._interval = interval
        self._full_at = float("-inf")  # when the bucket is full again

    def note(self, at: float) -> None:
        self._full_at = max(at, self._full_at) + self._interval

    def earliest(self, now: float, after: int = 0) -> float:
        return max(now, max(now, self._full_at) + (after + 1 - self._burst) * self._interval)


class Pace:
    """When Telegram's limits allow the next send: of one chat (a group's are tighter), and of the bot."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._enabled = enabled
        self._bot = Window(*BOT_WINDOW)
        self._chats: dict[str, list[Window | Bucket]] = {}

    def earliest(self, chat_id: str, now: float, after: int = 0) -> float:
        """When a send to *chat_id* may be made, if *after* others to it go first."""
        return max([now, *(limit.earliest(now, after) for limit in self._limits(chat_id))])

    def note(self, chat_id: str, at: float) -> None:
        """A send to *chat_id* was begun."""
        for limit in self._limits(chat_id):
            limit.note(at)

    def _limits(self, chat_id: str) -> list[Window | Bucket]:
        if not self._enabled:
            return []
        if chat_id not in self._chats:
            self._chats[chat_id] = [self._bot, Bucket(CHAT_BURST, CHAT_INTERVAL)]
            if chat_id.startswith(("-", "@")):  # a group or a channel: people's own ids are positive
                self._chats[chat_id].append(Window(*GROUP_WINDOW))
        return self._chats[chat_id]
