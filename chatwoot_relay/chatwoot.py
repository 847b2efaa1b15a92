"""Chatwoot's shapes, here and nowhere else: a body becomes an Event, whatever its fields hold.

A field that is null or of another type is as if it were missing. Only fields named here are ever read, so that the
secrets in payloads (contact tokens, channel records) go no further; e-mail addresses are taken of contacts alone.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from .events import Attachment, Change, Event, Message, Person, Role, message_key
from .markup import sane, short
from .models import MAX_ID

MAX_TEXT = 2000  # code points of a message that are kept; fewer are shown
MAX_WORD = 300  # of anything else
MAX_ITEMS = 20  # labels, attachments, changes, answers
YEAR_3000 = 32_503_680_000

# Every event that Chatwoot v4.15 sends
KNOWN_EVENTS = frozenset({
    "conversation_created", "conversation_status_changed", "conversation_updated", "conversation_opened",
    "conversation_resolved", "conversation_typing_on", "conversation_typing_off", "message_created", "message_updated",
    "contact_created", "contact_updated", "webwidget_triggered", "inbox_created", "inbox_updated", "macro.executed",
    "automation_event.conversation_created", "automation_event.conversation_updated",
    "automation_event.conversation_opened", "automation_event.conversation_resolved",
    "automation_event.message_created",
})  # fmt: skip
_MENTION = re.compile(r"\[@([^\]\n]{1,100})\]\(mention://[a-z]{1,20}/[^)\s]{0,200}\)")
_MESSAGE_KINDS: dict[object, str] = {0: "incoming", 1: "outgoing", 2: "activity", 3: "template"}
_MESSAGE_KINDS |= {kind: kind for kind in _MESSAGE_KINDS.values()}
_OURS = frozenset({"outgoing", "template"})
_CONTACT, _PERSON, _BOT = Role
_ROLES = {"user": _PERSON, "contact": _CONTACT, "": _CONTACT}
_MATTERING = frozenset({"status", "priority", "assignee_id", "team_id", "label_list", "updated_at"})
_NATIVE = frozenset({"id", "content", "message_type", "status"})  # what Chatwoot's own have, one or the other
_ABOUT_CONVERSATIONS = ("conversation_", "automation_event.", "macro.")
_CONVERSATION = frozenset({"status", "messages", "meta"})  # what tells one from another thing with an id
_SAID_BY_NAME = {"conversation_opened": "open", "conversation_resolved": "resolved"}
_CHANNELS = {
    "WebWidget": "website chat", "Api": "API", "Email": "e-mail", "FacebookPage": "Facebook", "TwilioSms": "Twilio",
    "TwitterProfile": "Twitter", "Whatsapp": "WhatsApp", "Sms": "SMS", "Line": "LINE", "Tiktok": "TikTok",
}  # fmt: skip


# --- One value of whatever type; of another than it should have, it is empty ---


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    """The first of many."""
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def _text(value: object, limit: int = MAX_WORD) -> str:
    """A string with what is shown of it at most; cleaned before it is cut, so that nothing invisible fills it."""
    if not isinstance(value, str):
        return ""
    if len(value) > limit:
        value = short(value[: 64 * limit], limit)[:limit]
    return value if value.isascii() else sane(value)


def _words(value: object) -> tuple[str, ...]:
    words = [word for word in map(_text, _list(value)) if word]
    if isinstance(value, list) and len(value) > MAX_ITEMS:
        words.append(f"… and {len(value) - MAX_ITEMS} more")
    return tuple(words)


def _id(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    return value if type(value) is int and 0 < value <= MAX_ID else 0


def _moment(value: Any) -> tuple[float, str]:
    """Unix seconds of a number or an ISO string, and the same for people: as it came when it came as text."""
    seconds = value
    if isinstance(value, str) and 10 <= len(value) <= 40:
        try:
            parsed = datetime.datetime.fromisoformat(value)
            seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    if type(seconds) not in (int, float) or not 0 < seconds < YEAR_3000:
        return 0.0, ""
    if isinstance(value, str):
        return seconds, value
    return float(seconds), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


# --- The nouns ---


def _person(wire: dict[str, Any], kind: str = "", *, ours: bool = False) -> Person | None:
    """Somebody of a type: User, contact (or none), agent_bot, AgentBot, captain_assistant, Captain::Assistant, …

    *ours* says that a contact it is not: without a known type it is neither a person of ours, nor an address to show.
    """
    if not wire:
        return None
    role = _ROLES.get(kind.lower(), _BOT)
    role = _BOT if ours and role is _CONTACT else role
    number, name, email = _id(wire.get("id")), _text(wire.get("name")).strip(), ""
    if role is _CONTACT:
        name = name or _text(wire.get("identifier")).strip() or _text(wire.get("phone_number")).strip()
        email = _text(wire.get("email")).strip()
    return Person(role=role, id=number, name=name, email=email) if number or name or email else None


def _attachment(entry: object) -> Attachment:
    wire = _object(entry)
    name = _text(wire.get("fallback_title"))
    if not name:
        try:
            name = _text(unquote(urlsplit(_text(wire.get("data_url"))).path.rpartition("/")[2]))
        except ValueError:  # no URL at all
            name = ""
    return Attachment(kind=_text(wire.get("file_type")), name=name)


def _message(wire: dict[str, Any]) -> Message:
    kind, sender, more = wire.get("message_type"), _object(wire.get("sender")), _object(wire.get("content_attributes"))
    kind = _MESSAGE_KINDS.get(kind, "") if type(kind) in (int, str) else ""
    whose = _text(sender.get("type")) or _text(wire.get("sender_type"))
    at, timestamp = _moment(wire.get("created_at"))
    message = Message(
        id=_id(wire.get("id")),
        kind=kind,
        text=_text(wire.get("content"), MAX_TEXT),
        private=wire.get("private") is True,
        content_type=_text(wire.get("content_type")),
        sender=_person(sender, whose, ours=kind in _OURS or (kind != "incoming" and "type" in sender and not whose)),
        at=at,
        timestamp=timestamp,
        attachments=tuple(map(_attachment, _list(wire.get("attachments")))),
        automatic="campaign" if _object(wire.get("additional_attributes")).get("campaign_id") else "",
    )
    if more:
        _complete(message, more)
    if "mention://" in message.text:
        message.mentions = tuple(found[1] for found in _MENTION.finditer(message.text))[:MAX_ITEMS]
        message.text = _MENTION.sub(r"@\1", message.text)
    return message


def _complete(message: Message, more: dict[str, Any]) -> None:
    """What became of it, an e-mail's subject and text, and what the customer gave: stars, feedback, answers."""
    mail, submitted = _object(more.get("email")), more.get("submitted_values")
    written, survey = _object(mail.get("text_content")), _object(_object(submitted).get("csat_survey_response"))
    message.text = message.text or _text(written.get("reply"), MAX_TEXT) or _text(written.get("full"), MAX_TEXT)
    message.subject = _text(mail.get("subject"))
    message.automatic = "automation rule" if more.get("automation_rule_id") else message.automatic
    message.unsupported = more.get("is_unsupported") is True
    message.deleted = more.get("deleted") is True
    message.error = _text(more.get("external_error"))
    message.left_email = _text(more.get("submitted_email"))
    rating = _id(survey.get("rating"))
    message.rating = rating if rating <= 5 else 0
    message.feedback = _text(survey.get("feedback_message"), MAX_TEXT)
    for entry in map(_object, _list(submitted)):
        if chosen := _text(entry.get("title")) or _text(entry.get("value")):
            message.answers += ((_text(entry.get("label")) or _text(entry.get("name")), chosen),)


def _changed(value: object) -> str:
    if type(value) in (int, float):
        return str(value) if abs(value) <= MAX_ID else ""  # type: ignore[arg-type]
    return _text(value)


def _change(name: str, value: object) -> Change:
    """Of a list, such as label_list, what was added."""
    before, after = map(_object(value).get, ("previous_value", "current_value"))
    if isinstance(after, list):
        old = {item for item in before if isinstance(item, str)} if isinstance(before, list) else set()
        after = ", ".join(_words([item for item in after if isinstance(item, str) and item not in old]))
    return Change(name=_text(name), before=_changed(before), after=_changed(after))


def _changes(value: object) -> tuple[Change, ...]:
    """changed_attributes: a list of objects with one member each, null, or anything."""
    entries = value if isinstance(value, list) else []
    items = [item for entry in entries if isinstance(entry, dict) for item in entry.items()]
    if len(items) > MAX_ITEMS:
        items.sort(key=lambda item: item[0] not in _MATTERING)
    return tuple(_change(*item) for item in items[:MAX_ITEMS])


def _changed_at(moment: str) -> float:
    try:
        return _moment(float(moment))[0]
    except ValueError:
        return _moment(moment)[0]


# --- Keys: what tells one thing from the next ---


def _hashed(prefix: str, data: bytes) -> str:
    return prefix + hashlib.sha256(data).hexdigest()


def _content_key(kind: str, account_id: int, number: int, content: object) -> str | None:
    """Tells a change that was told: the same thing, changed to the same."""
    if not number:
        return None
    try:
        data = msgspec.json.encode(content, order="deterministic")
    except (ValueError, TypeError, RecursionError):  # lone surrogates, integers beyond 64 bits, nesting
        data = repr(content).encode("utf-8", "backslashreplace")
    return _hashed(f"{kind}:{account_id}:{number}:", data)


def delivery_key(delivery_id: str) -> str:
    """Tells Chatwoot's repeats of one delivery (``X-Chatwoot-Delivery``)."""
    return _hashed("delivery:", delivery_id.encode("utf-8", "surrogatepass"))


def signed_key(timestamp: str, body: bytes) -> str:
    """Tells a replay: the same verified timestamp and body under whatever delivery id."""
    return _hashed(f"signed:{timestamp}:", body)


# --- The event ---


def read_event(document: dict[str, Any], *, base_url: str | None, account_id: int | None) -> Event:
    """Read a webhook's body. Never raises on a dict whose ``event`` is a string.

    *base_url* is the dashboard's (no trailing slash), for the link; *account_id* is for payloads that carry none.
    """
    name = _text(document["event"])
    if name.startswith("inbox_"):  # settings and secrets: no more of it is read
        document = {"account": document.get("account")}
    inner, said = document.get("conversation"), document.get("message")
    apart = name.startswith(("contact_", "inbox_", "webwidget_"))  # about no conversation
    # The simple shape is a conversation beside a message or alone, where Chatwoot has neither; when typing it has.
    simple = isinstance(said, (dict, str)) or (isinstance(inner, dict) and document.keys().isdisjoint(_NATIVE))
    simple = simple and not apart and not name.startswith("conversation_typing_")
    shaped = "content" in document or "message_type" in document  # an event of a newer Chatwoot
    about_message = not (apart or simple) and (shaped or name in ("message_created", "message_updated"))
    if apart:
        conversation = {}
    elif about_message or (isinstance(inner, dict) and (simple or "status" not in document)):
        conversation = _object(inner)
    elif name.startswith(_ABOUT_CONVERSATIONS) or not _CONVERSATION.isdisjoint(document):
        conversation = document
    else:  # another thing, whose id is no conversation's
        conversation = {}
    meta, messages = _object(conversation.get("meta")), _list(conversation.get("messages"))
    newest, own = _object(messages[0] if messages else None), _object(document.get("account"))
    account = _id(own.get("id")) or _id(_object(conversation.get("account")).get("id"))
    account = account or _id(newest.get("account_id")) or _id(account_id)
    number = _id(conversation.get("id"))
    user, assignee = _object(document.get("user")), _object(meta.get("assignee"))
    stranger = _id(user.get("id")) != _id(_object(meta.get("sender")).get("id"))  # to the conversation: one of ours
    actor, message, key = _person(user, _text(user.get("type")), ours=stranger), None, None
    changes = _changes(document.get("changed_attributes"))
    if simple:
        message, sender = _message(_object(said) or {"content": said}), _object(document.get("sender"))
        actor = message.sender = _person(sender, _text(sender.get("type"))) or message.sender
    elif about_message:
        message = _message(document)
        if name == "message_created":
            key = message_key(account, message)
        elif name == "message_updated":
            content = (document.get("content"), document.get("content_attributes"))
            key = _content_key("updated", account, message.id, content)
    elif name == "conversation_created":
        key = _content_key("created", account, number, None)
    elif name in ("contact_created", "webwidget_triggered"):
        key = _content_key(name, account, _id(document.get("id")), document)
    elif name == "conversation_updated" and "updated_at" in [change.name for change in changes]:
        # its times tell it from the next
        key = _content_key("changed", account, number, document["changed_attributes"])
    status = _text(conversation.get("status")) or ("" if simple else _SAID_BY_NAME.get(name, ""))
    contact = _person(
        document if name.startswith("contact_") else _object(meta.get("sender")) or _object(document.get("contact"))
    )
    if contact is None and message is not None and message.kind == "incoming":
        contact = message.sender
    last = message if name == "message_created" and message and message.by_customer else None
    if last is None or last.id != _id(newest.get("id")):  # else it is the same once more
        last = _message(newest)
    channel = _text(conversation.get("channel")).removeprefix("Channel::")
    updated_at, timestamp = _moment(conversation.get("updated_at"))
    changed_at = next((_changed_at(change.after) for change in changes if change.name == "updated_at"), 0.0)
    return Event(
        name=name,
        simple=simple,
        account_id=account,
        account_name=_text(own.get("name")),
        conversation_id=number or None,
        status=status,
        updated_at=updated_at,
        timestamp=timestamp,
        contact=contact,
        actor=actor,
        assignee=_person(assignee, _text(meta.get("assignee_type")) or _text(assignee.get("type")) or "user"),
        assignee_known=isinstance(conversation.get("meta"), dict),
        team=_text(_object(meta.get("team")).get("name")),
        labels=_words(conversation.get("labels")),
        priority=_text(conversation.get("priority")),
        inbox=_text(_object(document.get("inbox")).get("name")),
        channel=_CHANNELS.get(channel, channel),
        subject=_text(_object(conversation.get("additional_attributes")).get("mail_subject")),
        snoozed_until=_moment(conversation.get("snoozed_until"))[1],
        changes=changes,
        changed_at=changed_at or updated_at,
        message=message,
        last=last,
        url=f"{base_url}/app/accounts/{account}/conversations/{number}" if base_url and account and number else None,
        key=key,
    )
