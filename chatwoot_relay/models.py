"""The nouns. They know nothing of JSON, HTTP or SQL, and do nothing."""

from __future__ import annotations

import enum
import random
from typing import Annotated, Any

import attrs
from msgspec import Meta

MAX_ID = 2**63 - 1


@attrs.frozen(kw_only=True)
class Alert:
    """What a person should hear: somebody waits for a human.

    The field names and annotations are the public JSON shape of ``POST /api/v1/chatwoot/alerts``:
    the door checks against them and the OpenAPI document is made from them.
    """

    severity: Annotated[
        str,
        Meta(
            pattern=r"\S",
            description="`low`, `medium`, `high` or `critical`, in any case. Another word is told too, behind ⚠️.",
            examples=["high"],
        ),
    ]
    reason: Annotated[str, Meta(pattern=r"\S", description="Why a human is needed.", examples=["NEGATIVE_SENTIMENT"])]
    conversation_id: Annotated[
        int, Meta(ge=1, le=MAX_ID, description="The number in the dashboard's URL.", examples=[12345])
    ]
    message: Annotated[
        str,
        Meta(
            pattern=r"\S",
            description="What the customer wrote. The first 500 characters are told.",
            examples=["THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???"],
        ),
    ]
    customer_name: Annotated[str | None, Meta(examples=["John Doe"])] = None
    customer_email: Annotated[str | None, Meta(examples=["john@example.com"])] = None
    timestamp: Annotated[str | None, Meta(description="Told as it came.", examples=["2025-01-19T18:30:00Z"])] = None
    chatwoot_url: Annotated[
        str | None,
        Meta(
            description="Link to the conversation; http and https become live.",
            examples=["https://app.chatwoot.com/app/accounts/1/conversations/12345"],
        ),
    ] = None
    additional_info: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Anything else worth a line each.", examples=[{"user_id": "user_123", "order_id": "order_456"}]
        ),
    ] = None
    left_out: int = 0  # members of additional_info that were not kept; ours, not part of the public shape


@attrs.frozen(kw_only=True)
class Notice:
    """A plain event, told in words: a push preview, labelled lines, the message, the link."""

    event: str  # Chatwoot's own name for it
    headline: str  # the push preview: who and what; plain text, its icon included
    facts: tuple[tuple[str, str], ...] = ()  # (label, value), in order; blank values are left out
    message: str | None = None  # whole; render cuts it
    url: str | None = None
    conversation_id: int | None = None
    silent: bool = False  # told without a sound


Content = Alert | Notice


def new_id() -> str:
    """A public id. Nobody gains by guessing one, so no call of the system is made for it."""
    return f"{random.getrandbits(64):016x}"


class Rank(enum.IntEnum):
    """Which delivery goes first; smaller is sooner."""

    TEST = -1
    CRITICAL = 0
    HIGH = 1
    MEDIUM = 2
    LOW = 3
    PLAIN = 4


def rank_of(content: Content) -> Rank:
    """An alert ranks by its severity (an unknown word as medium), a plain event last."""
    if isinstance(content, Notice):
        return Rank.PLAIN
    return {"critical": Rank.CRITICAL, "high": Rank.HIGH, "low": Rank.LOW}.get(
        content.severity.strip().lower(), Rank.MEDIUM
    )


@attrs.frozen(kw_only=True)
class Delivery:
    """One alert or notice owed to one chat, as claimed from the outbox."""

    seq: int  # place in the outbox; grows
    id: str  # public
    destination: str  # a name; the chat id behind it is looked up when sending
    conversation: str  # order is kept within it
    content: Content
    rank: int
    accepted_at: float  # wall clock, seconds
    born: float  # the outbox's clock, seconds
    attempt: int  # counts this one
    ambiguous: int = 0  # earlier attempts whose fate is unknown
    reply_to: tuple[str, int] | None = None  # (chat id, message id) of the alert it belongs to


# --- What came of an attempt: a closed set; `label` is also the metric's label ---


class Fix(enum.StrEnum):
    """How to mend a message that Telegram refused for its form."""

    PLAIN = "plain"  # without parse_mode
    NO_THREAD = "no_thread"
    NO_REPLY = "no_reply"
    NO_BUTTON = "no_button"
    SHORTER = "shorter"


@attrs.frozen
class Sent:
    """Telegram has it; the id is None where its answer was unreadable."""

    message_id: int | None

    @property
    def label(self) -> str:
        return "sent" if self.message_id is not None else "sent_unknown"


@attrs.frozen
class WaitChat:
    """Nothing to this chat for so many seconds; nothing was delivered."""

    seconds: float
    reason: str
    label = "wait_chat"


@attrs.frozen
class WaitBot:
    """Nothing from this bot for so many seconds; nothing was delivered."""

    seconds: float
    reason: str
    label = "wait_bot"


@attrs.frozen
class Retry:
    """Nothing was delivered; try this delivery again later. *heard* says that Telegram answered at all."""

    reason: str
    heard: bool = False
    label = "retry"


@attrs.frozen
class Ambiguous:
    """It may have been delivered: the answer was lost after the request was written."""

    reason: str
    label = "ambiguous"


@attrs.frozen
class Repair:
    """Refused for its form: mend it so and send once more."""

    fix: Fix
    reason: str
    label = "repair"


@attrs.frozen
class Moved:
    """The group became a supergroup: send there, and remember it for good."""

    chat_id: int
    reason: str
    label = "moved"


@attrs.frozen
class Operator:
    """Only the operator can mend it. *scope* is what is held meanwhile: "chat" or "bot"."""

    scope: str
    reason: str
    label = "operator"


@attrs.frozen
class Dead:
    """Refused for good."""

    reason: str
    label = "dead"


Outcome = Sent | WaitChat | WaitBot | Retry | Ambiguous | Repair | Moved | Operator | Dead
OUTCOME_LABELS = (
    "sent", "sent_unknown", "wait_chat", "wait_bot", "retry", "ambiguous", "repair", "moved", "operator", "dead",
)  # fmt: skip
