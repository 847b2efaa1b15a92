"""Chatwoot's shapes, here and nowhere else: a body becomes an Event, whatever its fields hold.

A field that is null or of another type is as if it were missing. Only fields named here are ever read, so that the
secrets in payloads (contact tokens, channel records) go no further; e-mail addresses are taken of contacts alone.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any
from urllib.parse import unquote, urlsplit

import attrs
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
_CHANNELS = {
    "WebWidget": "website chat", "Api": "API", "Email": "e-mail", "FacebookPage": "Facebook", "TwilioSms": "Twilio",
    "TwitterProfile": "Twitter", "Whatsapp": "WhatsApp", "Sms": "SMS", "Line": "LINE", "Tiktok": "TikTok",
}  # fmt: skip


# --- One value of whatever type; of another than it should have, it is empty ---


def _object(value: object, *path: str) -> dict[str, Any]:
    """The object at *path* within *value*."""
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    """The first of many."""
    return value[:MAX_ITEMS] if isinstance(value, list) else []


def _text(value: object, limit: int = MAX_TEXT) -> str:
    """A string with what is shown of it at most; cleaned before it is cut, so that nothing invisible fills it."""
    if not isinstance(value, str):
        return ""
    return sane(value if len(value) <= limit else short(value[: 64 * limit], limit)[:limit])


def _word(value: object) -> str:
    return _text(value, MAX_WORD)


def _words(value: object) -> tuple[str, ...]:
    words = [word for word in map(_word, _list(value)) if word]
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
            seconds = parsed.replace(tzinfo=parsed.tzinfo or datetime.UTC).timestamp()
        except (ValueError, OverflowError):
            pass
    if type(seconds) not in (int, float) or not 0 < seconds < YEAR_3000:
        return 0.0, ""
    if isinstance(value, str):
        return seconds, value
    return float(seconds), datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- The nouns ---


def _role(kind: str) -> Role:
    match kind.lower().rpartition("::")[2]:
        case "user":
            return Role.PERSON
        case "" | "contact":
            return Role.CONTACT
        case _:  # agent_bot, AgentBot, captain_assistant, Captain::Assistant, …
            return Role.BOT


def _person(wire: dict[str, Any], role: Role = Role.CONTACT) -> Person | None:
    number, name, email = _id(wire.get("id")), _word(wire.get("name")).strip(), ""
    if role is Role.CONTACT:
        name = name or _word(wire.get("identifier")).strip() or _word(wire.get("phone_number")).strip()
        email = _word(wire.get("email")).strip()
    return Person(role=role, id=number, name=name, email=email) if number or name or email else None


def _attachment(wire: dict[str, Any]) -> Attachment:
    name = _word(wire.get("fallback_title"))
    if not name:
        try:
            name = _word(unquote(urlsplit(_word(wire.get("data_url"))).path.rpartition("/")[2]))
        except ValueError:  # no URL at all
            name = ""
    return Attachment(kind=_word(wire.get("file_type")), name=name)


def _submitted(values: object) -> dict[str, Any]:
    """Stars, feedback and answers that the customer gave; of input_csat, input_select and form."""
    if isinstance(values, dict):
        survey = _object(values, "csat_survey_response")
        rating = _id(survey.get("rating"))
        return {"rating": rating if rating <= 5 else 0, "feedback": _text(survey.get("feedback_message"))}
    answers = (
        (_word(entry.get("label")) or _word(entry.get("name")), _word(entry.get("title")) or _word(entry.get("value")))
        for entry in map(_object, _list(values))
    )
    return {"answers": tuple((question, chosen) for question, chosen in answers if chosen)}


def _message(wire: dict[str, Any]) -> Message:
    kind = wire.get("message_type")
    kind = _MESSAGE_KINDS.get(kind, "") if type(kind) in (int, str) else ""
    sender, more = _object(wire, "sender"), _object(wire, "content_attributes")
    mail = _object(more, "email")
    role = _role(_word(sender.get("type")) or _word(wire.get("sender_type")))
    if kind in ("outgoing", "template") and role is Role.CONTACT:
        role = Role.BOT  # a sender of unknown kind on our side: neither an answer, nor an address to show
    text = _text(wire.get("content"))
    for part in ("reply", "full"):
        text = text or _text(_object(mail, "text_content").get(part))
    mentions = tuple(found[1] for found in _MENTION.finditer(text))[:MAX_ITEMS] if "mention://" in text else ()
    automatic = "campaign" if _object(wire, "additional_attributes").get("campaign_id") else ""
    at, timestamp = _moment(wire.get("created_at"))
    return Message(
        id=_id(wire.get("id")),
        kind=kind,
        text=_MENTION.sub(r"@\1", text) if mentions else text,
        private=wire.get("private") is True,
        content_type=_word(wire.get("content_type")),
        sender=_person(sender, role),
        at=at,
        timestamp=timestamp,
        attachments=tuple(_attachment(_object(entry)) for entry in _list(wire.get("attachments"))),
        subject=_word(mail.get("subject")),
        automatic="automation rule" if more.get("automation_rule_id") else automatic,
        unsupported=more.get("is_unsupported") is True,
        deleted=more.get("deleted") is True,
        error=_word(more.get("external_error")),
        left_email=_word(more.get("submitted_email")),
        mentions=mentions,
        **_submitted(more.get("submitted_values")),
    )


def _changed(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_words(value))
    if type(value) in (int, float):
        return str(value) if abs(value) <= MAX_ID else ""
    return _word(value)


def _changes(value: object) -> tuple[Change, ...]:
    """changed_attributes: a list of objects with one member each, null, or anything."""
    found = []
    for entry in map(_object, _list(value)):
        for name, change in list(entry.items())[:MAX_ITEMS]:
            before, after = (_changed(_object(change).get(part)) for part in ("previous_value", "current_value"))
            found.append(Change(name=_word(name), before=before, after=after))
    return tuple(found[:MAX_ITEMS])


# --- Keys: what tells one thing from the next ---


def _hashed(prefix: str, data: bytes) -> str:
    return prefix + hashlib.sha256(data).hexdigest()


def _content_key(kind: str, account_id: int, number: int | None, content: object) -> str | None:
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


def _is_simple(document: dict[str, Any], name: str) -> bool:
    """Whether it is the simple shape: a conversation beside a message or alone, where Chatwoot has neither."""
    if name.startswith("conversation_typing_"):
        return False
    if isinstance(document.get("message"), dict | str):
        return True
    native = any(member in document for member in ("id", "content", "message_type", "status"))
    return not native and isinstance(document.get("conversation"), dict)


def read_event(document: dict[str, Any], *, base_url: str | None, account_id: int | None) -> Event:
    """Read a webhook's body. Never raises on a dict whose ``event`` is a string.

    *base_url* is the dashboard's (no trailing slash), for the link; *account_id* is for payloads that carry none.
    """
    name = _word(document["event"])
    if name.startswith("inbox_"):  # settings and secrets: no more of it is read
        document = {"account": document.get("account")}
    apart = name.startswith(("contact_", "inbox_", "webwidget_"))  # about no conversation
    simple = not apart and _is_simple(document, name)
    shaped = "content" in document or "message_type" in document  # an event of a newer Chatwoot
    about_message = not (apart or simple) and (shaped or name in ("message_created", "message_updated"))
    inner = document.get("conversation")
    if isinstance(inner, dict) and (simple or about_message or "status" not in document):
        conversation = {} if apart else inner
    else:
        conversation = {} if apart or about_message else document
    meta, messages = _object(conversation, "meta"), _list(conversation.get("messages"))
    last, own = _object(messages[0]) if messages else {}, _object(document, "account")
    accounts = own.get("id"), _object(conversation, "account").get("id"), last.get("account_id"), account_id
    account = next(filter(None, map(_id, accounts)), 0)
    number = _id(conversation.get("id"))
    user, assignee = _object(document, "user"), _object(meta, "assignee")
    actor = _person(user, _role(_word(user.get("type"))))
    message, key, changes = None, None, _changes(document.get("changed_attributes"))
    if simple:
        actor = _person(_object(document, "sender"))
        said = document.get("message")
        message = attrs.evolve(_message({"content": said} if isinstance(said, str) else _object(said)), sender=actor)
    elif about_message:
        message = _message(document)
        if name == "message_created":
            key = message_key(account, message)
        elif name == "message_updated":
            content = (document.get("content"), document.get("content_attributes"))
            key = _content_key("updated", account, message.id, content)
    elif name == "conversation_updated" and any(change.name == "updated_at" for change in changes):
        key = _content_key(
            "changed", account, number, document["changed_attributes"]
        )  # its times tell it from the next
    status = _word(conversation.get("status"))
    if not status and not simple:
        status = {"conversation_opened": "open", "conversation_resolved": "resolved"}.get(name, "")
    contact = _person(
        document if name.startswith("contact_") else _object(meta, "sender") or _object(document, "contact")
    )
    if contact is None and message is not None and message.kind == "incoming":
        contact = message.sender
    channel = _word(conversation.get("channel")).removeprefix("Channel::")
    updated_at, timestamp = _moment(conversation.get("updated_at"))
    return Event(
        name=name,
        simple=simple,
        account_id=account,
        account_name=_word(own.get("name")),
        conversation_id=number or None,
        status=status,
        updated_at=updated_at,
        timestamp=timestamp,
        contact=contact,
        actor=actor,
        assignee=_person(assignee, _role(_word(meta.get("assignee_type")) or _word(assignee.get("type")) or "user")),
        assignee_known=isinstance(conversation.get("meta"), dict),
        team=_word(_object(meta, "team").get("name")),
        labels=_words(conversation.get("labels")),
        priority=_word(conversation.get("priority")),
        inbox=_word(_object(document, "inbox").get("name")),
        channel=_CHANNELS.get(channel, channel),
        subject=_word(_object(conversation, "additional_attributes").get("mail_subject")),
        snoozed_until=_moment(conversation.get("snoozed_until"))[1],
        changes=changes,
        message=message,
        last=_message(last) if messages else None,
        url=f"{base_url}/app/accounts/{account}/conversations/{number}" if base_url and account and number else None,
        key=key,
    )
