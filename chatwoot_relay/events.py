"""The nouns of a Chatwoot event, and what is remembered of a conversation. They know no JSON and decide nothing.

Made anew with every event, and changed by nobody but their maker: to freeze each field would double what that costs.
"""

from __future__ import annotations

import enum

import attrs


class Role(enum.StrEnum):
    """Which side somebody is on."""

    CONTACT = "contact"
    PERSON = "person"  # one of ours
    BOT = "bot"


@attrs.define(kw_only=True)
class Person:
    """Somebody; e-mail addresses are kept of contacts only."""

    role: Role
    id: int = 0
    name: str = ""
    email: str = ""


@attrs.define(kw_only=True)
class Attachment:
    kind: str  # Chatwoot's word: image, audio, video, file, location, …
    name: str = ""  # of the file or the place


@attrs.define(kw_only=True)
class Message:
    id: int = 0
    kind: str = ""  # incoming, outgoing, template, activity; "" unknown
    text: str = ""
    private: bool = False
    content_type: str = ""  # Chatwoot's word: text, input_csat, …
    sender: Person | None = None
    at: float = 0.0  # unix seconds; 0 unknown
    timestamp: str = ""  # the same for people
    attachments: tuple[Attachment, ...] = ()
    subject: str = ""  # of an e-mail
    automatic: str = ""  # "automation rule", "campaign", or ""
    unsupported: bool = False
    deleted: bool = False
    error: str = ""  # why it was not delivered
    rating: int = 0  # 1 to 5 stars given by the customer; 0 none
    feedback: str = ""
    left_email: str = ""  # given by the customer
    answers: tuple[tuple[str, str], ...] = ()  # (question or "", what the customer chose or filled in)
    mentions: tuple[str, ...] = ()

    @property
    def by_customer(self) -> bool:
        return self.kind == "incoming" and not self.private


NO_MESSAGE = Message()


def message_key(account_id: int, message: Message | None) -> str | None:
    """Tells a message that was told, whatever delivery or conversation brings it."""
    return f"message:{account_id}:{message.id}" if message and message.id else None


@attrs.define(kw_only=True)
class Change:
    """One entry of changed_attributes, as words."""

    name: str
    before: str = ""
    after: str = ""


_NO_CHANGE = Change(name="")


@attrs.define(kw_only=True)
class Event:
    """A Chatwoot webhook, in whatever shape it came; what it lacked is empty."""

    name: str
    simple: bool = False  # came in the simple shape
    account_id: int = 0  # 0 unknown
    account_name: str = ""
    conversation_id: int | None = None
    status: str = ""
    updated_at: float = 0.0  # of the conversation, unix seconds; 0 unknown
    timestamp: str = ""  # the same for people
    contact: Person | None = None
    actor: Person | None = None  # who is typing; the sender of the simple shape
    assignee: Person | None = None
    assignee_known: bool = False  # whether the payload says who has it
    team: str = ""
    labels: tuple[str, ...] = ()
    priority: str = ""
    inbox: str = ""
    channel: str = ""  # in words
    subject: str = ""
    snoozed_until: str = ""
    changes: tuple[Change, ...] = ()
    changed_at: float = 0.0  # when they happened, which may be long before updated_at; 0 unknown
    message: Message | None = None  # what the event is about
    last: Message = NO_MESSAGE  # the conversation's newest public message, as the payload shows it
    url: str | None = None
    key: str | None = None  # tells repeats of one happening, whatever their delivery id

    @property
    def conversation(self) -> str:
        """What memory is kept by; the account is 0 where the event does not say it."""
        return f"{self.conversation_id}:{self.account_id}"

    def change(self, name: str) -> Change:
        """How that changed; of no name where it did not."""
        return next((change for change in self.changes if change.name == name), _NO_CHANGE)


@attrs.define(kw_only=True)
class Memory:
    """What is remembered of a conversation between its events. Times are Chatwoot's own, in unix seconds."""

    status: str = ""  # as last known
    announced: str = ""  # as last said by a status event, or told
    assignee: int = 0  # the person who has it; a bot counts as nobody
    assignee_told: int = 0
    opened_at: float = 0.0  # when the last waiting episode opened; 0: there has been none
    waiting: bool = False  # that episode is still open
    answered: bool = False  # a person answered since it opened
    asked: int = 0  # id of the customer's message that its alert showed
    closed_message: int = 0  # newest message when it closed: an older one belongs to it
    newest: int = 0  # newest message id seen
    updated_at: float = 0.0  # newest state seen
    said: Message | None = None  # the customer's last message


class What(enum.StrEnum):
    """What happened, as far as a person is concerned."""

    # a waiting episode opens
    NEW = "new conversation"
    HANDED_OVER = "handed over"
    REOPENED = "reopened"
    UNSNOOZED = "snooze over"
    OPENED = "opened"
    UNATTENDED = "unattended"
    # the customer
    CUSTOMER_WROTE = "customer wrote"
    WROTE_TO_BOT = "customer wrote to the bot"
    # how it went on
    TAKEN = "taken"
    REASSIGNED = "reassigned"
    UNASSIGNED = "unassigned"
    ANSWERED = "answered"
    RESOLVED = "resolved"
    SNOOZED = "snoozed"
    # worth knowing
    URGENT = "urgent"
    SEND_FAILED = "send failed"
    RATED = "rated"
    EMAIL_LEFT = "e-mail left"
    CHOSE = "chose"
    MENTIONED = "mentioned"
    LABELLED = "labelled"
    TEAM_SET = "team set"
    OTHER = "other"  # a rule's, a macro's or a hand-made event, or one that we do not know
    # the rest
    AGENT_WROTE = "agent wrote"
    BOT_WROTE = "bot wrote"
    AUTOMATIC = "automatic message"
    NOTE = "note"
    CREATED = "created"
    PARKED = "parked"
    NOISE = "noise"
    TWIN = "twin"


class Ignored(enum.StrEnum):
    """Why an event is not told: the whole list. A metric's label and the words of the answer."""

    DUPLICATE = "duplicate"
    ALREADY_TOLD = "already told"
    NOISE = "noise"
    WITH_BOT = "the bot has it"
    OWN_MESSAGE = "sent by us"
    PRIVATE_NOTE = "private note"
    NOT_SELECTED = "not selected"


@attrs.define(kw_only=True)
class Decision:
    """What is to be done about an event; made by ``routing.decide``, put into words by ``notices.word``.

    Exactly one of *what* (tell it) and *ignored* (do not) is set. *memory* is what to remember from now on, None when
    nothing changed. *keys* are to be recorded with what is told, beside the transport's own.
    """

    what: What | None = None
    ignored: Ignored | None = None
    silent: bool = False
    memory: Memory | None = None
    opens: bool = False  # an alert that opens an episode: later notices of the conversation reply to it
    said: Message | None = None  # the customer's words that the alert shows
    wrote: bool = False  # these words are news: they are what opened it
    waited: float | None = None  # seconds until the first answer
    keys: tuple[str, ...] = ()
