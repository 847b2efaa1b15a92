"""Every told event in words for people: an Alert where a human is needed, else a Notice. It decides nothing."""

from __future__ import annotations

from .events import NO_MESSAGE, Attachment, Decision, Event, Message, Person, Role, What
from .markup import clean, cut
from .models import Alert, Content, Notice

MAX_HEADLINE = 80  # code points: what a phone shows of a push
MAX_SNIPPET = 60
MAX_NAME = 40

_REASONS = {
    What.NEW: "New conversation",
    What.HANDED_OVER: "Handed over by the bot",
    What.REOPENED: "Open again after it was resolved",
    What.UNSNOOZED: "Open again after a snooze",
    What.OPENED: "Conversation was opened",
    What.UNATTENDED: "Customer is waiting, nobody has the conversation",
}
_WROTE_AGAIN = {
    What.REOPENED: "Customer wrote again after it was resolved",
    What.UNSNOOZED: "Customer wrote while it was snoozed",
    What.OPENED: "Customer is waiting in an open conversation",
}
_SEVERITIES = {"urgent": "critical", "high": "high", "low": "low"}

# Before the colon of a headline: by what happened, else by how the event's name begins.
_HEADLINES = {
    What.CUSTOMER_WROTE: "💬 {customer}",
    What.UNATTENDED: "💬 {customer}",
    What.WROTE_TO_BOT: "🤖 {customer} to the bot",
    What.TAKEN: "🙋 {holder} took {customer}'s conversation",
    What.REASSIGNED: "🔁 {holder} now has {customer}'s conversation",
    What.UNASSIGNED: "↩️ Nobody has {customer}'s conversation now",
    What.ANSWERED: "✅ {sender} answered {customer}{after}",
    What.RESOLVED: "✅ Resolved: {customer}",
    What.SNOOZED: "💤 Snoozed: {customer}{until}",
    What.URGENT: "🚩 URGENT: {customer}",
    What.SEND_FAILED: "⚠️ Not delivered to {customer}",
    What.RATED: "⭐{more_stars} {customer} rated{of_five}",
    What.EMAIL_LEFT: "📧 {customer} left an e-mail address",
    What.CHOSE: "☑️ {customer} answered",
    What.MENTIONED: "📝 {sender} mentions {mentioned}",
    What.LABELLED: "🏷 Labels of {customer}",
    What.TEAM_SET: "👥 {customer} is now with team {team}",
    What.AGENT_WROTE: "💬 {sender} → {customer}",
    What.BOT_WROTE: "🤖 {sender} → {customer}",
    What.AUTOMATIC: "⚙️ {source} → {customer}",
    What.NOTE: "📝 Private note of {sender}",
    What.CREATED: "🆕 New conversation, {status}: {customer}",
    What.PARKED: "🤖 Back with the bot: {customer}",
}
_GENERAL = "🔔 {event}{whose}"
_OTHERS = {
    "automation_event.": "⚙️ Automation rule, {rule}: {customer}",
    "macro.": "⚙️ Macro: {customer}",
    "conversation_updated": "🔹 Conversation changed: {customer}",
    "conversation_typing_on": "✍️ {typist} is typing",
    "conversation_typing_off": "✍️ {typist} stopped typing",
    "message_updated": "✏️ A message was {changed}: {customer}",
    "contact_": "👤 {Event}: {customer}",
    "webwidget_": "👀 {customer} opened the chat widget",
    "inbox_": "📥 {Event}",
}
_GIVEN = (What.EMAIL_LEFT, What.CHOSE)  # the message is the question
_ATTACHED = {
    "image": "🖼 Image", "audio": "🎤 Audio", "video": "🎬 Video", "file": "📎 File", "location": "📍 Location",
    "contact": "👤 Contact", "share": "🔗 Share", "story_mention": "🔗 Story mention",
}  # fmt: skip
_TEMPLATES = {
    "input_csat": "Chatwoot asks for a rating",
    "input_email": "Chatwoot asks for an e-mail address",
}


def word(event: Event, decision: Decision) -> Content:
    """What a person is told of *event*, of which ``decision.what`` happened."""
    what = decision.what or What.OTHER
    if what in _REASONS and event.conversation_id is not None:
        return _alert(event, what, decision)
    message, body = event.message or NO_MESSAGE, _body(event)
    after = duration(decision.waited) if decision.waited is not None else ""
    return Notice(
        event=event.name,
        headline=_headline(event, what, message, body, after),
        facts=tuple([fact for fact in _facts(event, what, message, after) if fact[1].strip()]),
        message=(message.feedback if what is What.RATED else "" if what in _GIVEN else body) or None,
        url=event.url,
        conversation_id=event.conversation_id,
        silent=decision.silent,
    )


# --- Small words ---


def _cut(text: str, limit: int) -> str:
    """One clean line of at most *limit* code points."""
    return cut(" ".join(clean(text[: 4 * limit + 200]).split()), max(limit - 1, 1))


def _name(person: Person | None, otherwise: str = "") -> str:
    return (_cut(person.name or person.email, MAX_NAME) if person else "") or otherwise


def _attachments(attachments: tuple[Attachment, ...]) -> str:
    return ", ".join(
        _ATTACHED.get(one.kind, "📎 Attachment") + (f": {_cut(one.name, 100)}" if one.name.strip() else "")
        for one in attachments
    )


def _says(message: Message) -> str:
    """What a message says, attachments in words where there is no text."""
    missing = "Unsupported message: open it in Chatwoot" if message.unsupported else ""
    said = message.text if message.text.strip() else _attachments(message.attachments) or missing
    return "" if message.deleted else said


def _body(event: Event) -> str:
    """The words that an event is about; a new conversation's are the customer's alone."""
    shown = event.name == "automation_event.message_created" or (
        event.name == "conversation_created" and event.last.kind == "incoming"
    )
    return _says(event.message or (event.last if shown else NO_MESSAGE))


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    whole = int(seconds)
    parts = ((whole // 86400, "d"), (whole // 3600 % 24, "h"), (whole // 60 % 60, "min"))
    return " ".join([f"{count} {unit}" for count, unit in parts if count][:2]) or f"{whole} s"


def _plain(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _until(timestamp: str) -> str:
    """``2026-11-24 09:00 UTC`` of Chatwoot's ISO time; anything else as it came."""
    if len(timestamp) >= 17 and timestamp[10] == "T" and timestamp.endswith("Z"):
        return f"{timestamp[:10]} {timestamp[11:16]} UTC"
    return timestamp


# --- Alerts ---


def _alert(event: Event, what: What, decision: Decision) -> Alert:
    said = decision.said or NO_MESSAGE
    info = {
        "inbox": event.inbox,
        "channel": event.channel,
        "subject": event.subject or said.subject,
        "attachments": _attachments(said.attachments) if said.text.strip() else "",
        "assigned to": _name(event.assignee),
        "team": event.team,
        "labels": ", ".join(event.labels),
        "told by": _plain(event.name) if event.name.startswith("automation_event.") else "",
    }
    return Alert(
        severity=_SEVERITIES.get(event.priority, "medium"),
        reason=(decision.wrote and _WROTE_AGAIN.get(what)) or _REASONS[what],
        conversation_id=event.conversation_id or 0,
        message=_says(said),
        customer_name=(event.contact and event.contact.name) or None,
        customer_email=(event.contact and event.contact.email) or None,
        timestamp=said.timestamp or event.timestamp or None,
        chatwoot_url=event.url,
        additional_info={label: value for label, value in info.items() if value} or None,
    )


# --- Notices ---


def _other(event: Event) -> str | None:
    return next((template for prefix, template in _OTHERS.items() if event.name.startswith(prefix)), None)


def _headline(event: Event, what: What, message: Message, body: str, after: str) -> str:
    """Who and what, then after a colon as much of the words as the line has left."""
    template = _GENERAL if event.simple else _HEADLINES.get(what) or _other(event) or _GENERAL
    whose = _name(event.contact or message.sender) if template is _GENERAL else ""
    name, until = _plain(event.name), _until(event.snoozed_until)
    ours = message.sender is not None and message.sender.role is Role.PERSON
    head = template.format(
        customer=_name(event.contact, "Customer"),
        sender=_name(message.sender, "An agent" if ours else "Automatic message"),
        holder=_name(event.assignee, "Somebody"),
        typist=_name(event.actor, "Somebody"),
        whose=f": {whose}" if whose else "",
        after=f" after {after}" if after else "",
        until=f", until {until}" if until else "",
        more_stars="⭐" * (message.rating - 1),
        of_five=f" {message.rating} of 5" if message.rating else "",
        mentioned=", ".join(message.mentions),
        team=event.team or "?",
        source=message.automatic.capitalize() or _TEMPLATES.get(message.content_type, "Automatic message"),
        status=event.status,
        changed="deleted" if message.deleted else "changed",
        rule=name.removeprefix("automation event "),
        event=name,
        Event=name.capitalize(),
    )
    if what is What.NOISE and event.name == "conversation_updated":
        body = _changed(event)
    quoted = {
        What.SEND_FAILED: message.error,
        What.RATED: message.feedback,
        What.EMAIL_LEFT: message.left_email,
        What.CHOSE: ", ".join(value for _, value in message.answers),
        What.LABELLED: ", ".join(event.labels),
    }.get(what, body)
    snippet = _cut(quoted, min(MAX_SNIPPET, MAX_HEADLINE - 2 - len(head)))
    return _cut(f"{head}: {snippet}" if snippet else head, MAX_HEADLINE)


def _changed(event: Event) -> str:
    return ", ".join(_plain(change.name) for change in event.changes if change.name != "updated_at")


def _facts(event: Event, what: What, message: Message, after: str) -> list[tuple[str, str]]:
    """The labelled lines: where, who, what changed."""
    contact, ours = event.contact or Person(role=Role.CONTACT), message.kind in ("outgoing", "template")
    person = message.sender or event.actor or (Person(role=Role.BOT) if ours else contact)
    general = what is What.OTHER and (event.simple or _other(event) is None)
    asked = ("Question", _cut(message.text, MAX_SNIPPET) if message.answers else "")
    return [
        ("Event", event.name if general else ""),
        ("Conversation", f"#{event.conversation_id}" if event.conversation_id else ""),
        ("Status", event.status),
        ("From", person.name),
        ("Customer", contact.name if person.role is not Role.CONTACT else ""),
        ("Email", person.email or contact.email),
        ("Inbox", event.inbox),
        ("Channel", "" if event.inbox else event.channel),
        ("Assigned to", "nobody" if what is What.UNASSIGNED else _name(event.assignee)),
        ("Priority", event.priority),
        ("Account", event.account_name if general else ""),
        ("Subject", (event.subject or message.subject) if event.message else ""),
        ("Attachments", _attachments(message.attachments) if message.text.strip() else ""),
        ("Time", message.timestamp if event.simple else ""),
        ("Answered after", after),
        ("Snoozed until", _until(event.snoozed_until)),
        ("Reason", message.error),
        ("Rating", "⭐" * message.rating),
        ("Email left", message.left_email),
        asked,
        *((label or "Answer", value) for label, value in message.answers),
        ("Sent by", message.automatic.capitalize()),
        ("Private note", "yes" if message.private else ""),
        ("Changed", _changed(event) if what in (What.NOISE, What.OTHER) else ""),
        ("Team", event.team if what is What.OTHER or event.change("team_id").after else ""),
        ("Labels", ", ".join(event.labels) if what is What.OTHER or event.change("label_list").after else ""),
    ]
