"""Whether an event is told, and what is remembered of its conversation. Pure: callers bring memory and time.

One *waiting episode* of a conversation makes one alert. The rules behind the details:

- An opening is never lost, in whatever order events come; a copy of one already told is ignored.
- An older event neither closes an episode nor puts a status back; of status events only those from before its opening.
- Of two messages the one with the greater id was written later, whichever comes first.
- What closed an episode may be lost: a much later event that says it turned open opens another.
- What was not told has not been learnt: an opening that ``RELAY_EVENTS`` leaves out is found by the next event, unless
  somebody took or answered it by then.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet

import attrs

from .events import NO_MESSAGE, Decision, Event, Ignored, Memory, Message, Role, What, message_key

LATER = 60.0  # seconds; an event so much later than the opening is no copy of it
LONG_AFTER = 3600.0  # the same while nobody is known to have taken it: what closed it was lost
MAX_SAID = 500  # code points of the customer's last message that are remembered

_CREATED, _UPDATED = "conversation_created", "conversation_updated"
_STATUS_EVENTS = ("conversation_status_changed", "conversation_opened", "conversation_resolved")
_REMEMBERED = (*_STATUS_EVENTS, _CREATED, _UPDATED, "message_created", "message_updated")
_NOISE = ("conversation_typing_", "contact_", "webwidget_", "inbox_")
_CLOSED = ("pending", "resolved", "snoozed")
_ENDS = {"resolved": What.RESOLVED, "snoozed": What.SNOOZED, "pending": What.PARKED}
_TURNS = {"pending": What.HANDED_OVER, "resolved": What.REOPENED, "snoozed": What.UNSNOOZED}

_WORDS = ("useful", "handoff", "all")
# The table: the words of `RELAY_EVENTS` under which it is told with a sound, and those under which silently.
_ROWS: dict[What, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **dict.fromkeys(What, ((), ("all",))),  # the rest
    **dict.fromkeys((
        What.NEW, What.HANDED_OVER, What.REOPENED, What.UNSNOOZED, What.OPENED, What.UNATTENDED, What.OTHER,
    ), (_WORDS, ())),
    **dict.fromkeys((
        What.TAKEN, What.REASSIGNED, What.UNASSIGNED, What.ANSWERED, What.RESOLVED, What.SNOOZED,
    ), (("all",), ("useful", "handoff"))),
    **dict.fromkeys((
        What.CUSTOMER_WROTE, What.URGENT, What.SEND_FAILED, What.RATED, What.EMAIL_LEFT, What.CHOSE, What.MENTIONED,
        What.LABELLED, What.TEAM_SET,
    ), (("useful", "all"), ())),
    What.WROTE_TO_BOT: (("all",), ()),
    What.TWIN: ((), ()),
}  # fmt: skip
_REASONS = {
    What.TWIN: Ignored.ALREADY_TOLD,
    What.NOTE: Ignored.PRIVATE_NOTE,
    **dict.fromkeys((What.WROTE_TO_BOT, What.PARKED, What.CREATED), Ignored.WITH_BOT),
    **dict.fromkeys((What.AGENT_WROTE, What.BOT_WROTE, What.AUTOMATIC), Ignored.OWN_MESSAGE),
}
_NOTHING = Memory()


def decide(
    event: Event, memory: Memory | None, *, events: AbstractSet[str], now: float, repeated: bool = False
) -> Decision:
    """Decide about *event*; *memory* is what the last Decision about ``event.conversation`` left, None at first.

    *events* are the words and names of ``RELAY_EVENTS``. *repeated* says that ``event.key`` is among the keys
    recorded before. *now* (unix seconds) stands in where Chatwoot says no time.
    """
    known = memory or _NOTHING
    opening = _opening(event, known, repeated=repeated)
    if opening is not None:
        opened = _open(opening, event, known, now=now)
        if _verdict(opening, event, events) is not None:
            return opened
        taken = event.change("assignee_id").after and not event.change("status").name and _holder(event, known)
        over = opened.memory if taken or _replied(event.message) else None
        return Decision(ignored=Ignored.NOT_SELECTED, memory=over and attrs.evolve(over, waiting=False, opened_at=0.0))
    if repeated:
        return Decision(ignored=Ignored.DUPLICATE)
    happenings = _happenings(event, known)
    if What.ANSWERED in happenings and _overtaken(event, known):  # those words would open the next episode
        heard, opens = (_verdict(what, event, events) is not None for what in (What.CUSTOMER_WROTE, What.UNATTENDED))
        if opens and not heard:
            return _open(What.UNATTENDED, event, known, now=now)
    verdicts = ((what, _verdict(what, event, events)) for what in happenings)
    what, silent = next((told for told in verdicts if told[1] is not None), (None, None))
    learnt = _learn(event, memory, what, answers=What.ANSWERED in happenings)
    if what is None:
        return Decision(ignored=_reason(happenings[0], events), memory=learnt)
    at = (event.message and event.message.at) or event.updated_at or now
    waited = at - known.opened_at if what is What.ANSWERED else -1.0
    said = event.last if what is What.CREATED and event.last.by_customer else None
    return Decision(
        what=what,
        silent=bool(silent),
        memory=learnt,
        waited=waited if waited >= 0 else None,
        keys=tuple(filter(None, (event.key, message_key(event.account_id, said)))),
    )


def _verdict(what: What, event: Event, events: AbstractSet[str]) -> bool | None:
    """Told silently (True), with a sound (False), or not at all (None); where several words apply, the loudest."""
    words = {*events, "all"} if event.name in events else events
    loud, silent = _ROWS[what]
    return False if not words.isdisjoint(loud) else True if not words.isdisjoint(silent) else None


def _reason(what: What, events: AbstractSet[str]) -> Ignored:
    told_by_default = any("useful" in words for words in _ROWS[what])
    unselected = what is not What.TWIN and events.isdisjoint(_WORDS)
    return Ignored.NOT_SELECTED if told_by_default or unselected else _REASONS.get(what, Ignored.NOISE)


# --- What happened ---


def _written(event: Event) -> Message | None:
    """What a customer just wrote."""
    return event.message if event.name == "message_created" and event.message and event.message.by_customer else None


def _replied(message: Message | None) -> bool:
    """Whether a person of ours answered: no note, no rule, no campaign, and not one that failed to go out."""
    if message is None or message.sender is None or message.kind != "outgoing":
        return False
    return message.sender.role is Role.PERSON and not (message.private or message.automatic or message.error)


def _overtaken(event: Event, known: Memory) -> bool:
    """Whether the customer wrote after this answer, which came late, to a conversation that nobody has."""
    said = _said(event, known)
    if event.message is None or said is None or event.status != "open" or known.status not in ("", "open"):
        return False
    return 0 < event.message.id < said.id != known.asked and not _holder(event, known)


def _holder(event: Event, known: Memory) -> int:
    """The person who has it, 0 is nobody; an event that does not say leaves it as it was known."""
    if not event.assignee_known:
        return known.assignee
    return event.assignee.id if event.assignee is not None and event.assignee.role is Role.PERSON else 0


def _older(event: Event, known: Memory) -> bool:
    return event.updated_at < known.updated_at


def _opening(event: Event, known: Memory, *, repeated: bool) -> What | None:
    """How a waiting episode opens with this event, if it does."""
    message = _written(event)
    unsaid = message is not None and event.status not in ("open", *_CLOSED)  # who writes is heard all the same
    if event.simple or (known.status or "open" if unsaid else event.status) != "open":
        return None
    told = known.opened_at > 0
    if event.name == _CREATED:
        return None if told else What.NEW
    if event.name in _STATUS_EVENTS:
        late = LONG_AFTER if known.waiting else LATER
        copy = event.updated_at <= known.opened_at + late  # not even when a person has taken it meanwhile
        if known.status in _CLOSED:  # since then
            copy = 0 < event.updated_at < known.updated_at
        return None if told and copy else _turn(event, known)
    if event.change("status").before in _CLOSED and known.status not in _CLOSED and not repeated:
        assigned = event.change("assignee_id").after and not _older(event, known)  # so there is no status event
        news = event.changed_at > (known.opened_at + LATER if told else known.updated_at)
        if (assigned and not told) or (news and known.status):
            return _turn(event, known)
    belated = message is not None and 0 < message.id <= known.closed_message  # of an episode that was told and closed
    bots = known.status == "pending" and not told  # nothing told that an older event could belong to
    news = message is not None and not repeated
    if known.status in _CLOSED and not belated and (news or bots or not _older(event, known)):
        return _turn(event, known)
    if not news or belated or known.waiting or _holder(event, known):
        return None
    return What.UNATTENDED


def _turn(event: Event, known: Memory) -> What:
    by_bot = event.last.sender is not None and event.last.sender.role is Role.BOT
    turn = _TURNS.get(event.change("status").before) or _TURNS.get(known.status)
    return turn or (What.HANDED_OVER if by_bot else What.OPENED)


def _happenings(event: Event, known: Memory) -> list[What]:
    """Everything that this event says, the most important first; at least one thing."""
    if event.name.startswith(_NOISE):
        return [What.NOISE]
    if event.simple or event.name not in _REMEMBERED:
        return [What.OTHER]
    if event.name.startswith("message_"):
        return _of_message(event, known)
    return _of_changes(event, known) if event.name == _UPDATED else [_of_status(event, known)]


def _of_status(event: Event, known: Memory) -> What:
    if event.status == "open":
        return What.TWIN
    if event.name == _CREATED and event.status == "pending":
        return What.CREATED
    if event.status and event.status == known.announced:
        return What.TWIN
    return _ENDS.get(event.status, What.OTHER)  # a conversation may be resolved by the time it is said to be created


def _of_message(event: Event, known: Memory) -> list[What]:
    message = event.message or NO_MESSAGE
    if event.name == "message_updated":
        gave = {
            What.NOISE: message.deleted,
            What.SEND_FAILED: message.error,
            What.RATED: message.rating or message.feedback,
            What.EMAIL_LEFT: message.left_email,
            What.CHOSE: message.answers,
        }
        return [next((what for what, given in gave.items() if given), What.NOISE)]
    if message.by_customer:
        return [What.WROTE_TO_BOT if (event.status or known.status) == "pending" else What.CUSTOMER_WROTE]
    if message.private:
        return [What.MENTIONED, What.NOTE] if message.mentions else [What.NOTE]
    if message.kind != "outgoing":
        return [{"activity": What.NOISE, "template": What.AUTOMATIC}.get(message.kind, What.OTHER)]
    if message.error:
        return [What.SEND_FAILED]
    if _replied(message):
        before = 0 < message.id < known.asked and 0 < message.at < known.opened_at  # not what the alert showed
        first = known.opened_at > 0 and not known.answered and not before
        return [What.ANSWERED if first else What.AGENT_WROTE]
    return [What.AUTOMATIC if message.automatic or message.sender is None else What.BOT_WROTE]


def _of_changes(event: Event, known: Memory) -> list[What]:
    found, twin = [], False
    was_open = "open" in (known.status, known.announced) and known.announced != event.status
    if event.status in ("resolved", "snoozed") and was_open and not _older(event, known):
        found.append(_ENDS[event.status])  # the status event may be late or lost
    elif event.change("status").name and event.status == known.announced:
        twin = True
    priority, holder, team, labels = map(event.change, ("priority", "assignee_id", "team_id", "label_list"))
    if priority.after == "urgent":
        found.append(What.URGENT)
    if holder.after and _holder(event, known):
        if _holder(event, known) == known.assignee_told:
            twin = True
        else:
            found.append(What.REASSIGNED if holder.before else What.TAKEN)
    elif holder.before and not holder.after:
        found.append(What.UNASSIGNED)
    if labels.after:
        found.append(What.LABELLED)
    if team.after:
        found.append(What.TEAM_SET)
    return found or [What.TWIN if twin else What.NOISE]


# --- What is remembered ---


def _open(what: What, event: Event, known: Memory, *, now: float) -> Decision:
    said = _said(event, known)
    keys = tuple(filter(None, {event.key: 1, message_key(event.account_id, said): 1}))
    if event.conversation_id is None:
        return Decision(what=what, said=said, wrote=said is not None, keys=keys)
    holder = known.assignee if _older(event, known) else _holder(event, known)
    answered = _replied(event.message) and not _overtaken(event, known)
    memory = Memory(
        status="open",
        announced="open",
        assignee=holder,
        assignee_told=holder,
        opened_at=event.updated_at or (event.message.at if event.message else 0.0) or now,
        waiting=not answered,
        answered=answered,
        asked=said.id if said else 0,
        closed_message=known.closed_message,
        newest=max(known.newest, _shown(event)),
        updated_at=max(known.updated_at, event.updated_at),
        said=_remembered(said),
    )
    wrote = said is not None and said.id > known.newest
    return Decision(what=what, memory=memory, opens=True, said=said, wrote=wrote, keys=keys)


def _learn(event: Event, memory: Memory | None, told: What | None, *, answers: bool) -> Memory | None:
    """What is known after an event that opens nothing; None when it is what was known before."""
    if event.conversation_id is None or event.simple or event.name not in _REMEMBERED:
        return None
    known, learnt = memory or _NOTHING, attrs.evolve(memory or _NOTHING)
    older, says_status = _older(event, known), event.name in _STATUS_EVENTS
    turns_open = known.status in _CLOSED and event.status == "open"  # that would have been an opening: it is an old one
    before = known.status == "open" and 0 < event.updated_at < known.opened_at  # not what came of the opening
    if event.status in ("open", *_CLOSED) and (not older or (says_status and not before)) and not turns_open:
        learnt.status = event.status
        if says_status or event.name == _CREATED or told in (What.RESOLVED, What.SNOOZED):
            learnt.announced = event.status
    if not older:
        learnt.assignee = _holder(event, known)
    if told in (What.TAKEN, What.REASSIGNED, What.UNASSIGNED):
        learnt.assignee_told = _holder(event, known)
    learnt.answered = known.answered or answers
    learnt.waiting = (
        known.waiting and learnt.status == "open" and not answers and learnt.assignee in (0, known.assignee)
    )
    if answers and event.message:
        learnt.closed_message = event.message.id  # not the newest: it may show what the customer wrote after it
    elif (known.waiting and not learnt.waiting) or (known.status == "open" and learnt.status in _CLOSED):
        learnt.closed_message = _shown(event) or known.newest  # an older event knows better what was written by then
    learnt.said = _remembered(_said(event, known))
    if learnt == memory and not says_status:
        return None  # newer, but with nothing new in it: not worth a write
    learnt.newest, learnt.updated_at = max(known.newest, _shown(event)), max(known.updated_at, event.updated_at)
    return learnt


def _shown(event: Event) -> int:
    """The newest message that the event shows."""
    return max(event.message.id if event.message else 0, event.last.id)


def _said(event: Event, known: Memory) -> Message | None:
    """The customer's newest words, as the event shows or we remember them."""
    written = _written(event) or event.last
    older = known.said and 0 < written.id <= known.said.id
    return written if written.by_customer and not older else known.said


def _remembered(said: Message | None) -> Message | None:
    """What an alert would show of the customer's words."""
    return said and Message(
        id=said.id, kind=said.kind, text=said.text[: MAX_SAID + 1], at=said.at, timestamp=said.timestamp,
        attachments=said.attachments, subject=said.subject, unsupported=said.unsupported, deleted=said.deleted,
    )  # fmt: skip
