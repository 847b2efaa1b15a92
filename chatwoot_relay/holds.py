"""What is held, since when and until when: a chat, or the whole bot. Keeps the account; asks and sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs
import structlog

log = structlog.get_logger()

BOT = ""  # the key of the bot's own hold


@attrs.define(kw_only=True)
class Hold:
    """Nothing is sent meanwhile. *until* is on the outbox's clock; a hold without one ends when a probe succeeds."""

    reason: str
    since: float
    until: float | None = None
    operator: bool = False
    trial: bool = False  # one delivery may try whether it is mended
    pause: float = 0.5  # seconds at least before it is probed first
    spent: float = 0.0  # seconds that the attempt took that it comes from, which its first probe need not wait again


class Holds(dict[str, Hold]):
    """The holds by chat id, and "" for the bot; and for how long each destination was held in all.

    *chats* has each destination's chat of the moment. *changed* is called after whatever changes the account.
    """

    def __init__(self, *, chats: Mapping[str, str], changed: Callable[[], None]) -> None:
        super().__init__()
        self._chats = chats
        self._changed = changed
        self.counted = 0.0  # until when *seconds* was counted
        self.seconds: dict[str, float] = {}  # by destination; time that makes no delivery older

    def remember(
        self, holds: Mapping[str, tuple[float, str]], seconds: Mapping[str, float], *, since: float, now: float
    ) -> None:
        """What outlived a restart: holds with their end and reason, and the seconds held, as counted at *since*."""
        self.counted, self.seconds = since, dict(seconds)
        for key, (until, reason) in holds.items():
            if until > since:
                self[key] = Hold(reason=reason, since=since, until=until)
        for moment in sorted(moment for moment in self.ends() if moment <= now):
            self.end(moment)
        self.count(now)

    # --- what they forbid ---

    def on(self, chat: str) -> list[Hold]:
        """Those that a send to *chat* meets."""
        return [self[key] for key in (BOT, chat) if key in self]

    def bar(self, chat: str) -> bool:
        """Whether a send to *chat* is forbidden."""
        return bool(self) and not all(hold.trial for hold in self.on(chat))

    def wait(self, chat: str, now: float) -> float:
        """Seconds for which it is; infinite where that ends by a probe."""
        barred = [hold for hold in self.on(chat) if not hold.trial]
        return max((float("inf") if hold.until is None else hold.until - now for hold in barred), default=0.0)

    def ends(self) -> Iterable[float]:
        """When holds end by themselves."""
        return [hold.until for hold in self.values() if hold.until is not None]

    def waited_for_another(self, chat: str) -> bool:
        """Whether Telegram has another chat wait: then it means the bot."""
        return any(key not in (BOT, chat) and hold.until and not hold.operator for key, hold in self.items())

    def trouble(self, now: float) -> str | None:
        """The first of them, in words for people."""
        for key, hold in self.items():
            who = "the bot" if key == BOT else "the chat"
            if hold.operator:
                return f"Telegram refuses {who}: {hold.reason}; run chatwoot-relay doctor"
            if hold.until is not None:
                return f"Telegram holds {who} for {max(1, round(hold.until - now))} s"
            return f"Telegram is not answering: {hold.reason}"
        return None

    # --- how they come and go ---

    def begin(self, key: str, hold: Hold, *, now: float) -> bool:
        """Hold it; True where nothing was held there before. *hold* is made to say what holds from now on.

        A wait that Telegram asked for is shortened neither by a probe nor by another wait.
        """
        self.count(now)
        self.end(now)
        known = self.get(key)
        if known is not None:
            hold.since = known.since
            if known.until is not None:
                if hold.until is None:
                    hold.until = known.until  # what else is the matter shows when it is over
                    return False
                hold.until = max(hold.until, known.until)
        self[key] = hold
        if known is None or known.reason != hold.reason:
            seconds = None if hold.until is None else round(hold.until - now, 1)
            facts = {"chat": key or None, "reason": hold.reason, "operator": hold.operator, "seconds": seconds}
            if hold.operator:  # nothing else ends it, so it is an error
                log.error("bot.held" if key == BOT else "chat.held", **facts, do="chatwoot-relay doctor")
            else:
                log.warning("bot.held" if key == BOT else "chat.held", **facts)
        self._changed()
        return known is None

    def probed(self, key: str, since: float) -> Hold | None:
        """The hold that began then, while it ends by a probe."""
        hold = self.get(key)
        return hold if hold is not None and hold.until is None and hold.since == since else None

    def dare(self, chat: str) -> None:
        """Let one delivery try whether the operator has mended it."""
        for hold in self.on(chat):
            hold.trial = hold.trial or hold.operator
        self._changed()

    def lift(self, key: str, *, now: float) -> None:
        """It is over."""
        self.count(now)
        hold = self.pop(key)
        seconds = round(now - hold.since, 1)
        log.info("bot.released" if key == BOT else "chat.released", chat=key or None, seconds=seconds)
        self._changed()

    def end(self, now: float) -> None:
        """Lift those whose time has come."""
        for key in [key for key, hold in self.items() if hold.until is not None and hold.until <= now]:
            self.lift(key, now=now)

    def well(self, chat: str, *, now: float) -> None:
        """A send to *chat* succeeded: what would end by a probe is over."""
        for key in (BOT, chat) if self else ():
            if key in self and self[key].until is None:
                self.lift(key, now=now)

    def count(self, now: float) -> None:
        """Account for the time until now."""
        passed, self.counted = now - self.counted, now
        for name, chat in self._chats.items() if self else ():
            if self.on(chat):
                self.seconds[name] = self.seconds.get(name, 0.0) + passed
