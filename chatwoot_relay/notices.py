"""Every told event in words for people: an Alert where a human is needed, else a Notice. It decides nothing."""

from __future__ import annotations

from .events import Attachment, Decision, Event, Message, Person, Role, What
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
_KINDS = {
    "image": "🖼 Image",
    "audio": "🎤 Audio",
    "video": "🎬 Video",
    "file": "📎 File",
    "location": "📍 Location",
    "contact": "👤 Contact",
    "share": "🔗 Share",
    "story_mention": "🔗 Story mention",
    "fallback": "📎 Attachment",
}
_ASKED = {
    "input_csat": "asks for a rating",
    "input_email": "asks for an e-mail address",
    "input_select": "asks to choose",
    "form": "sends a form",
    "cards": "sends cards",
    "article": "sends articles",
}


def word(event: Event, decision: Decision) -> Content:
    """What a person is told of *event*, of which ``decision.what`` happened."""
    what = decision.what or What.UNKNOWN
    if what in _REASONS and event.conversation_id is not None:
        return _alert(event, what, decision.said, wrote=decision.wrote)
    headline, changed, message = _told(event, what, decision)
    return Notice(
        event=event.name,
        headline=_cut(headline, MAX_HEADLINE),
        facts=_facts(event, what, changed),
        message=message or None,
        url=event.url,
        conversation_id=event.conversation_id,
        silent=decision.silent,
    )


# --- Small words ---


def _cut(text: str, limit: int) -> str:
    """One clean line of at most *limit* code points."""
    return cut(" ".join(clean(text[: 4 * limit + 200]).split()), max(limit - 1, 1))


def _name(person: Person | None, otherwise: str) -> str:
    if person is None:
        return otherwise
    return _cut(person.name or person.email, MAX_NAME) or otherwise


def _customer(event: Event) -> str:
    return _name(event.contact, "Customer")


def _sender(message: Message) -> str:
    role = message.sender.role if message.sender else Role.BOT
    return _name(message.sender, {Role.PERSON: "An agent", Role.CONTACT: "Customer"}.get(role, "Automatic message"))


def _attachments(attachments: tuple[Attachment, ...]) -> str:
    words = []
    for attachment in attachments:
        kind = _KINDS.get(attachment.kind, "📎 Attachment")
        words.append(f"{kind}: {_cut(attachment.name, 100)}" if attachment.name.strip() else kind)
    return ", ".join(words)


def _body(message: Message | None) -> str:
    """What a message says, attachments in words where there is no text."""
    if message is None:
        return ""
    if message.text.strip():
        return message.text
    if message.attachments:
        return _attachments(message.attachments)
    return "Unsupported message: open it in Chatwoot" if message.unsupported else ""


def _snippet(text: str) -> str:
    return _cut(text, MAX_SNIPPET)


def _says(who: str, text: str) -> str:
    """``who: text``, the text cut to what the line has left."""
    snippet = _cut(text, min(MAX_SNIPPET, MAX_HEADLINE - 2 - len(who)))
    return f"{who}: {snippet}" if snippet else who


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if hours < 1:
        return f"{minutes} min"
    if days < 1:
        return f"{hours} h {minutes % 60} min" if minutes % 60 else f"{hours} h"
    return f"{days} d {hours % 24} h" if hours % 24 else f"{days} d"


def _plain(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _until(timestamp: str) -> str:
    """``2026-11-24 09:00 UTC`` of Chatwoot's ISO time; anything else as it came."""
    if len(timestamp) >= 17 and timestamp[10] == "T" and timestamp.endswith("Z"):
        return f"{timestamp[:10]} {timestamp[11:16]} UTC"
    return timestamp


# --- Alerts ---


def _alert(event: Event, what: What, said: Message | None, *, wrote: bool) -> Alert:
    reason = (wrote and _WROTE_AGAIN.get(what)) or _REASONS[what]
    subject = event.subject or (said.subject if said else "")
    info = {
        "inbox": event.inbox,
        "channel": event.channel,
        "subject": subject,
        "attachments": _attachments(said.attachments) if said and said.text.strip() else "",
        "assigned to": _name(event.assignee, ""),
        "team": event.team,
        "labels": ", ".join(event.labels),
        "told by": _plain(event.name) if event.name.startswith("automation_event.") else "",
    }
    timestamp = said.timestamp if said else ""
    return Alert(
        severity=_SEVERITIES.get(event.priority, "medium"),
        reason=reason,
        conversation_id=event.conversation_id or 0,
        message=_body(said),
        customer_name=(event.contact and event.contact.name) or None,
        customer_email=(event.contact and event.contact.email) or None,
        timestamp=timestamp or event.timestamp or None,
        chatwoot_url=event.url,
        additional_info={label: value for label, value in info.items() if value} or None,
    )


# --- Notices ---


def _facts(event: Event, what: What, changed: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """The labelled lines: where, who, what changed; blank ones are left out."""
    message = event.message
    sender = message.sender if message and what is not What.SIMPLE else None
    if what is What.SIMPLE:
        sender = event.actor
    person = sender or event.contact
    facts = [
        ("Event", event.name if what in (What.SIMPLE, What.UNKNOWN) else ""),
        ("Conversation", f"#{event.conversation_id}" if event.conversation_id else ""),
        ("Status", event.status),
        ("From", person.name if person else ""),
        ("Customer", event.contact.name if event.contact and sender and sender.role is not Role.CONTACT else ""),
        ("Email", (person.email if person else "") or (event.contact.email if event.contact else "")),
        ("Inbox", event.inbox),
        ("Channel", event.channel if not event.inbox else ""),
        ("Assigned to", _name(event.assignee, "")),
        ("Priority", event.priority),
        ("Account", event.account_name if what in (What.SIMPLE, What.UNKNOWN) else ""),
        ("Subject", (event.subject or (message.subject if message else "")) if message else ""),
        ("Attachments", _attachments(message.attachments) if message and message.text.strip() else ""),
        *changed,
    ]
    return tuple((label, value) for label, value in facts if value.strip())


def _told(event: Event, what: What, decision: Decision) -> tuple[str, tuple[tuple[str, str], ...], str]:
    """The headline, the lines about what changed, and the words of the message."""
    customer = _customer(event)
    message = event.message or Message()
    body = _body(event.message)
    sender = _sender(message)
    holder = _name(event.assignee, "Somebody")
    names = tuple(change.name for change in event.changes if change.name != "updated_at")
    changes = (("Changed", ", ".join(_plain(name) for name in names)),)
    match what:
        case What.CUSTOMER_WROTE | What.UNATTENDED:
            return _says(f"💬 {customer}", body), (), body
        case What.WROTE_TO_BOT:
            return _says(f"🤖 {customer} to the bot", body), (), body
        case What.TAKEN:
            return f"🙋 {holder} took {customer}'s conversation", (), ""
        case What.REASSIGNED:
            return f"🔁 {holder} now has {customer}'s conversation", (), ""
        case What.UNASSIGNED:
            return f"↩️ Nobody has {customer}'s conversation now", (("Assigned to", "nobody"),), ""
        case What.ANSWERED:
            after = duration(decision.waited) if decision.waited is not None else ""
            answered = f"✅ {sender} answered {customer}" + (f" after {after}" if after else "")
            return _says(answered, body), (("Answered after", after),), body
        case What.RESOLVED:
            return f"✅ Resolved: {customer}", (), ""
        case What.SNOOZED:
            until = _until(event.snoozed_until)
            return f"💤 Snoozed: {customer}" + (f", until {until}" if until else ""), (("Snoozed until", until),), ""
        case What.URGENT:
            return f"🚩 URGENT: {customer}", (), ""
        case What.SEND_FAILED:
            reason = ("Reason", message.error)
            return _says(f"⚠️ Not delivered to {customer}", message.error), (reason,), body
        case What.RATED:
            stars = "⭐" * message.rating
            rated = f"{stars or '⭐'} {customer} rated" + (f" {message.rating} of 5" if message.rating else "")
            return _says(rated, message.feedback), (("Rating", stars),), message.feedback
        case What.EMAIL_LEFT:
            return (
                f"📧 {customer} left an e-mail address: {message.left_email}",
                (("Email left", message.left_email),),
                "",
            )
        case What.CHOSE:
            answers = tuple((label or "Answer", value) for label, value in message.answers)
            chosen = ", ".join(value for _, value in message.answers)
            return _says(f"☑️ {customer} answered", chosen), (("Question", _snippet(message.text)), *answers), ""
        case What.MENTIONED:
            return (
                _says(f"📝 {sender} mentions {', '.join(message.mentions)}", body),
                (("Private note", "mention"),),
                body,
            )
        case What.LABELLED:
            labels = ", ".join(event.labels)
            return _says(f"🏷 Labels of {customer}", labels), (("Labels", labels),), ""
        case What.TEAM_SET:
            return f"👥 {customer} is now with team {event.team or '?'}", (("Team", event.team),), ""
        case What.AUTOMATION:
            rule = _plain(event.name.removeprefix("automation_event."))
            body = _body(event.last) if event.name.endswith("message_created") else ""
            return _says(f"⚙️ Automation rule, {rule}: {customer}", body), _state(event), body
        case What.MACRO:
            return f"⚙️ Macro: {customer}", _state(event), ""
        case What.SIMPLE:
            who = _name(event.actor, "")
            about = f"🔔 {_plain(event.name)}" + (f": {who}" if who else "")
            return _says(about, body), (("Time", message.timestamp),), body
        case What.AGENT_WROTE:
            return _says(f"💬 {sender} → {customer}", body), (), body
        case What.BOT_WROTE:
            asks = _ASKED.get(message.asks, "")
            return _says(f"🤖 {sender} → {customer}", asks if asks and asks.endswith("cards") else body), (), body
        case What.AUTOMATIC:
            source = {"automation rule": "Automation rule", "campaign": "Campaign"}.get(message.automatic, "")
            asks = _ASKED.get(message.asks, "")
            who = source or (f"Chatwoot {asks}" if asks else "Automatic message")
            return _says(f"⚙️ {who} → {customer}", body), (("Sent by", source),), body
        case What.NOTE:
            return _says(f"📝 Private note of {sender}", body), (("Private note", "yes"),), body
        case What.CREATED:
            body = _body(event.last) if event.last and event.last.kind == "incoming" else ""
            return _says(f"🆕 New conversation, {event.status}: {customer}", body), (), body
        case What.PARKED:
            return f"🤖 Back with the bot: {customer}", (), ""
        case What.MESSAGE_CHANGED:
            done = "was deleted" if message.deleted else "was changed"
            return (
                _says(f"✏️ A message {done}: {customer}", "" if message.deleted else body),
                (),
                "" if message.deleted else body,
            )
        case What.CHANGED if event.message is None:
            return _says(f"🔹 Conversation changed: {customer}", ", ".join(map(_plain, names))), changes, ""
        case What.TYPING:
            done = "is typing" if event.name.endswith("_on") else "stopped typing"
            return f"✍️ {_name(event.actor, 'Somebody')} {done}", (("Customer", customer),), ""
        case What.CONTACT:
            return f"👤 {_plain(event.name).capitalize()}: {customer}", changes, ""
        case What.WIDGET:
            return f"👀 {customer} opened the chat widget", (), ""
        case What.INBOX:
            return f"📥 {_plain(event.name).capitalize()}", (), ""
        case _:
            who = _name(event.contact or message.sender, "")
            return _says(f"🔔 {_plain(event.name)}" + (f": {who}" if who else ""), body), _state(event), body


def _state(event: Event) -> tuple[tuple[str, str], ...]:
    """How a conversation stands, for what somebody asked to hear of it."""
    return ("Team", event.team), ("Labels", ", ".join(event.labels))
