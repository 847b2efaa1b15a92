"""Chatwoot's shapes, here and nowhere else: a body becomes an Event, whatever its fields hold.

Only fields named here are ever read, so that the secrets in payloads (contact tokens, channel records) go no further;
e-mail addresses are taken over from contacts alone.
"""

from __future__ import annotations

import datetime
import hashlib
import re
from typing import Any, NewType
from urllib.parse import unquote, urlsplit

import attrs
import cattrs
import cattrs.gen
import msgspec

from .events import Attachment, Change, Event, Message, Person, Role
from .markup import short
from .models import MAX_ID

MAX_TEXT = 2000  # code points of a message that are kept; fewer are shown
MAX_WORD = 300  # of anything else
MAX_ITEMS = 20  # labels, attachments, changes, answers

_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MENTION = re.compile(r"\[@([^\]\n]{1,100})\]\(mention://[a-z]{1,20}/[^)\s]{0,200}\)")
_MESSAGE_KINDS: dict[object, str] = {0: "incoming", 1: "outgoing", 2: "activity", 3: "template"}
_MESSAGE_KINDS |= {kind: kind for kind in _MESSAGE_KINDS.values()}
_CHANNELS = {
    "Channel::WebWidget": "website chat",
    "Channel::Api": "API",
    "Channel::Email": "e-mail",
    "Channel::FacebookPage": "Facebook",
    "Channel::TwitterProfile": "Twitter",
    "Channel::TwilioSms": "Twilio",
    "Channel::Whatsapp": "WhatsApp",
    "Channel::Sms": "SMS",
    "Channel::Line": "LINE",
    "Channel::Tiktok": "TikTok",
}


# Every event that Chatwoot v4.15 sends, beside automation_event.*
KNOWN_EVENTS = frozenset({
    "conversation_created", "conversation_status_changed", "conversation_updated", "conversation_opened",
    "conversation_resolved", "conversation_typing_on", "conversation_typing_off", "message_created", "message_updated",
    "contact_created", "contact_updated", "webwidget_triggered", "inbox_created", "inbox_updated", "macro.executed",
})  # fmt: skip


# --- The wire: what we read of a payload. A field that is missing, null or of another type takes its default ---


LongText = NewType("LongText", str)


@attrs.frozen
class WirePerson:
    id: int = 0
    name: str = ""
    email: str = ""
    type: str = ""
    identifier: str = ""
    phone_number: str = ""


@attrs.frozen
class WireNamed:
    id: int = 0
    name: str = ""


@attrs.frozen
class WireAttachment:
    file_type: str = ""
    data_url: str = ""
    fallback_title: str = ""


@attrs.frozen
class WireContent:
    deleted: bool = False
    is_unsupported: bool = False
    external_error: str = ""
    submitted_email: str = ""
    submitted_values: Any = None
    automation_rule_id: Any = None
    email: Any = None


@attrs.frozen
class WireExtra:
    mail_subject: str = ""
    campaign_id: Any = None


@attrs.frozen
class WireMessage:
    id: int = 0
    content: LongText = LongText("")
    message_type: Any = None
    private: bool = False
    content_type: str = ""
    created_at: Any = None
    account_id: int = 0
    sender_type: str = ""
    sender: WirePerson = WirePerson()
    content_attributes: WireContent = WireContent()
    additional_attributes: WireExtra = WireExtra()
    attachments: tuple[WireAttachment, ...] = ()


@attrs.frozen
class WireMeta:
    sender: WirePerson = WirePerson()
    assignee: WirePerson = WirePerson()
    assignee_type: str = ""
    team: WireNamed = WireNamed()


@attrs.frozen
class WireConversation:
    id: Any = None
    status: str = ""
    channel: str = ""
    priority: str = ""
    snoozed_until: Any = None
    updated_at: Any = None
    labels: Any = None
    messages: tuple[WireMessage, ...] = ()
    meta: WireMeta | None = None  # None tells "not said" from "nobody"
    account: WireNamed = WireNamed()
    additional_attributes: WireExtra = WireExtra()


@attrs.frozen
class WireRoot:
    """What stands beside the conversation or the message."""

    account: WireNamed = WireNamed()
    inbox: WireNamed = WireNamed()
    user: WirePerson = WirePerson()
    contact: WirePerson = WirePerson()
    changed_attributes: Any = None


def _text(value: object, limit: int) -> str:
    """A string with what is shown of it at most; cleaned before it is cut, so that nothing invisible fills it."""
    if not isinstance(value, str):
        return ""
    if len(value) > limit:
        value = short(value[: 64 * limit], limit)[:limit]
    return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)


def _word(value: object, _: object = None) -> str:
    return _text(value, MAX_WORD)


def _id(value: object, _: object = None) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 19:
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_ID else 0


def _tolerant_converter() -> cattrs.Converter:
    """A converter that never complains: what does not fit becomes the default."""
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(str, _word)
    converter.register_structure_hook(LongText, lambda value, _: _text(value, MAX_TEXT))
    converter.register_structure_hook(int, _id)
    converter.register_structure_hook(bool, lambda value, _: value is True)

    def of_class(cls: type) -> Any:
        read: Any = cattrs.gen.make_dict_structure_fn(
            cls, converter, _cattrs_detailed_validation=False, _cattrs_forbid_extra_keys=False
        )
        default = cls()
        return lambda value, _: read(value, cls) if isinstance(value, dict) else default

    def of_list(kind: Any) -> Any:
        limit = 1 if kind == tuple[WireMessage, ...] else MAX_ITEMS
        item = kind.__args__[0]
        read = converter.get_structure_hook(item)
        return lambda value, _: tuple([read(entry, item) for entry in value[:limit]]) if type(value) is list else ()

    converter.register_structure_hook_factory(attrs.has, of_class)
    converter.register_structure_hook_factory(lambda kind: getattr(kind, "__origin__", None) is tuple, of_list)
    converter.register_structure_hook(
        WireMeta | None, lambda value, _: converter.structure(value, WireMeta) if isinstance(value, dict) else None
    )
    return converter


_CONVERTER = _tolerant_converter()
_read = _CONVERTER.structure  # makes its functions when they are first needed: at the start that would be 20 ms


# --- From the wire to the nouns ---


def _moment(value: object) -> float:
    """Unix seconds of a number or an ISO string; 0 for anything else."""
    if isinstance(value, str) and 10 <= len(value) <= 40:
        try:
            parsed = datetime.datetime.fromisoformat(value)
            if parsed.tzinfo is None:
                parsed = parsed.replace(tzinfo=datetime.UTC)
            value = parsed.timestamp()
        except (ValueError, OverflowError):
            return 0.0
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 32_503_680_000:  # year 3000
        return float(value)
    return 0.0


def _iso(value: object, moment: float) -> str:
    """A moment for people: as it came when it came as text."""
    if not moment or isinstance(value, str):
        return value if moment and isinstance(value, str) else ""
    return datetime.datetime.fromtimestamp(int(moment), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _words(value: object) -> tuple[str, ...]:
    """The strings of a list, the first of many."""
    if not isinstance(value, list):
        return ()
    words = tuple(word for word in (_word(entry) for entry in value[:MAX_ITEMS]) if word)
    return (*words, f"… and {len(value) - MAX_ITEMS} more") if len(value) > MAX_ITEMS else words


def _role(kind: str) -> Role:
    match kind.lower().rpartition("::")[2]:
        case "user":
            return Role.PERSON
        case "" | "contact":
            return Role.CONTACT
        case _:  # agent_bot, AgentBot, captain_assistant, Captain::Assistant, …
            return Role.BOT


def _person(wire: WirePerson, role: Role) -> Person | None:
    name = wire.name.strip()
    if role is not Role.CONTACT:
        return Person(role=role, id=wire.id, name=name) if wire.id or name else None
    name = name or wire.identifier.strip() or wire.phone_number.strip()
    if not (wire.id or name or wire.email):
        return None
    return Person(role=role, id=wire.id, name=name, email=wire.email.strip())


def _attachment(wire: WireAttachment) -> Attachment:
    name = wire.fallback_title
    if not name and wire.data_url:
        try:
            name = _word(unquote(urlsplit(wire.data_url).path.rpartition("/")[2]))
        except ValueError:  # no URL at all
            name = ""
    return Attachment(kind=wire.file_type, name=name)


def _submitted(values: object) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Stars, feedback and answers that the customer gave; of input_csat, input_select and form."""
    if isinstance(values, dict):
        survey = values.get("csat_survey_response")
        if not isinstance(survey, dict):
            return 0, "", ()
        rating = _id(survey.get("rating"))
        return rating if rating <= 5 else 0, _text(survey.get("feedback_message"), MAX_TEXT), ()
    answers = []
    for entry in values[:MAX_ITEMS] if isinstance(values, list) else ():
        if isinstance(entry, dict):
            chosen = _word(entry.get("title")) or _word(entry.get("value"))
            if chosen:
                answers.append((_word(entry.get("label")) or _word(entry.get("name")), chosen))
    return 0, "", tuple(answers)


def _mail(value: object) -> tuple[str, str]:
    """An e-mail's subject, and its text for where the message itself has none."""
    mail = value if isinstance(value, dict) else {}
    text = mail.get("text_content")
    parts = text if isinstance(text, dict) else {}
    return _word(mail.get("subject")), _text(parts.get("reply"), MAX_TEXT) or _text(parts.get("full"), MAX_TEXT)


def _message(wire: WireMessage) -> Message:
    kind = _MESSAGE_KINDS.get(wire.message_type, "") if type(wire.message_type) in (int, str) else ""
    role = _role(wire.sender.type or wire.sender_type)
    if kind in ("outgoing", "template") and role is Role.CONTACT:
        role = Role.BOT  # a sender of unknown kind on our side: neither an answer, nor an address to show
    content = wire.content_attributes
    subject, mail = _mail(content.email)
    rating, feedback, answers = _submitted(content.submitted_values)
    moment = _moment(wire.created_at)
    automatic = "campaign" if wire.additional_attributes.campaign_id else ""
    automatic = "automation rule" if content.automation_rule_id else automatic
    text = wire.content or mail
    mentions = tuple(found.group(1) for found in _MENTION.finditer(text))[:MAX_ITEMS] if "mention://" in text else ()
    return Message(
        id=wire.id,
        kind=kind,
        text=_MENTION.sub(r"@\1", text) if mentions else text,
        private=wire.private,
        asks=wire.content_type if wire.content_type not in ("text", "incoming_email", "") else "",
        sender=_person(wire.sender, role),
        at=moment,
        timestamp=_iso(wire.created_at, moment),
        attachments=tuple(_attachment(entry) for entry in wire.attachments),
        subject=subject,
        automatic=automatic,
        unsupported=content.is_unsupported,
        deleted=content.deleted,
        error=content.external_error,
        rating=rating,
        feedback=feedback,
        left_email=content.submitted_email,
        answers=answers,
        mentions=mentions,
    )


def _changed(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_words(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value) if abs(value) <= MAX_ID else ""
    return _word(value)


def _changes(value: object) -> tuple[Change, ...]:
    """changed_attributes: a list of objects with one member each, null, or anything."""
    found = []
    for entry in value[:MAX_ITEMS] if isinstance(value, list) else ():
        if isinstance(entry, dict):
            for name, change in list(entry.items())[:MAX_ITEMS]:
                both = change if isinstance(change, dict) else {}
                before, after = _changed(both.get("previous_value")), _changed(both.get("current_value"))
                found.append(Change(name=_word(name), before=before, after=after))
    return tuple(found[:MAX_ITEMS])


def _hashed(prefix: str, data: bytes) -> str:
    return prefix + hashlib.sha256(data).hexdigest()


def message_key(account_id: int, message_id: int) -> str | None:
    """Tells a message that was told, whatever delivery or conversation brought it."""
    return f"message:{account_id}:{message_id}" if message_id else None


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


def _is_simple(document: dict[str, Any], name: str) -> bool:
    """Whether it is the simple shape: a conversation beside a message or alone, where Chatwoot has neither."""
    if name.startswith(("conversation_typing_", "contact_", "inbox_", "webwidget_")):
        return False
    if isinstance(document.get("message"), dict):
        return True
    native = "id" in document or "content" in document or "message_type" in document or "status" in document
    return not native and isinstance(document.get("conversation"), dict)


def read_event(document: dict[str, Any], *, base_url: str | None, account_id: int | None) -> Event:
    """Read a webhook's body. Never raises on a dict whose ``event`` is a string.

    *base_url* is the dashboard's (no trailing slash), for the link; *account_id* is for payloads that carry none.
    """
    name = _word(document["event"])
    if name.startswith(("contact_", "inbox_", "webwidget_")):
        return _read_other(document, name, account_id)
    root: WireRoot = _read(document, WireRoot)
    simple = _is_simple(document, name)
    inner = document.get("conversation")
    about_message = name in ("message_created", "message_updated") and not simple
    nested = simple or about_message or name.startswith("conversation_typing_") or "status" not in document
    if nested and isinstance(inner, dict):
        conversation: WireConversation = _read(inner, WireConversation)
    else:
        conversation = _read({} if about_message else document, WireConversation)
    meta = conversation.meta or WireMeta()
    last = conversation.messages[0] if conversation.messages else WireMessage()
    account = root.account.id or conversation.account.id or last.account_id or account_id or 0
    number = _id(conversation.id) or None
    message, key, changes = None, None, _changes(root.changed_attributes)
    actor = _person(root.user, _role(root.user.type))
    if simple:
        actor = _person(_read(document.get("sender"), WirePerson), Role.CONTACT)
        body: WireMessage = _read(document.get("message"), WireMessage)
        message = attrs.evolve(_message(body), sender=actor)
    elif about_message:
        message = _message(_read(document, WireMessage))
        if name == "message_created":
            key = message_key(account, message.id)
        else:
            content = (document.get("content"), document.get("content_attributes"))
            key = _content_key("updated", account, message.id, content)
    elif name == "conversation_updated" and any(change.name == "updated_at" for change in changes):
        key = _content_key("changed", account, number, root.changed_attributes)  # its times tell one from the next
    status = conversation.status
    if not status and not simple:
        status = {"conversation_opened": "open", "conversation_resolved": "resolved"}.get(name, "")
    assignee_role = _role(meta.assignee_type or meta.assignee.type or "user")
    contact = _person(meta.sender, Role.CONTACT)
    if contact is None and message is not None and message.kind == "incoming":
        contact = message.sender
    moment = _moment(conversation.updated_at)
    return Event(
        name=name,
        simple=simple,
        account_id=account,
        account_name=root.account.name,
        conversation_id=number,
        status=status,
        updated_at=moment,
        timestamp=_iso(conversation.updated_at, moment),
        contact=contact,
        actor=actor,
        assignee=_person(meta.assignee, assignee_role),
        assignee_known=conversation.meta is not None,
        team=meta.team.name,
        labels=_words(conversation.labels),
        priority=conversation.priority,
        inbox=root.inbox.name,
        channel=_CHANNELS.get(conversation.channel, conversation.channel.removeprefix("Channel::")),
        subject=conversation.additional_attributes.mail_subject,
        snoozed_until=_iso(conversation.snoozed_until, _moment(conversation.snoozed_until)),
        changes=changes,
        message=message,
        last=_message(last) if conversation.messages else None,
        url=f"{base_url}/app/accounts/{account}/conversations/{number}" if base_url and account and number else None,
        key=key,
        last_key=message_key(account, last.id),
    )


def _read_other(document: dict[str, Any], name: str, account_id: int | None) -> Event:
    """Events about no conversation. Of an inbox nothing is read but its account: the rest is settings and secrets."""
    root: WireRoot = _read(document, WireRoot)
    contact = None
    if name.startswith("contact_"):
        contact = _person(_read(document, WirePerson), Role.CONTACT)
    elif name.startswith("webwidget_"):
        contact = _person(root.contact, Role.CONTACT)
    return Event(
        name=name,
        account_id=root.account.id or account_id or 0,
        account_name=root.account.name,
        contact=contact,
        inbox="" if name.startswith("inbox_") else root.inbox.name,
        changes=_changes(root.changed_attributes) if name.startswith("contact_") else (),
    )
