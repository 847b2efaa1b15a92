"""What Telegram is sent for an alert or a notice: wording and layout. Every input gives a text that fits."""

from __future__ import annotations

import json
import re
from typing import Any, overload
from urllib.parse import urlsplit

import attrs
import msgspec

from .markup import LIMIT, Html, block, escape, is_blank, line, short, short_line, text_of, units
from .models import Alert, Content, Notice

MESSAGE_LIMIT = 500
NOTICE_MESSAGE_LIMIT = 300
SHORTER = 100
HEADLINE_LIMIT = 160
LINE_LIMIT = 100
LABEL_LIMIT = 40
REASON_LIMIT = 200
INFO_LINES = 20
FACT_LINES = 16
URL_LIMIT = 2000
URL_MARKUP = 6000  # bytes; the whole markup may have 32,768
RESERVE = 200  # UTF-16 units kept free for headings, marks and blank lines

ICONS = {"low": "🟢", "medium": "🟡", "high": "🟠", "critical": "🔴"}
UNKNOWN_ICON = "⚠️"

_COMPACT = msgspec.json.Encoder(decimal_format="number")  # a number that no float holds is a number all the same

# A link that needs no closer look: nothing in it that could end it early, or that readers of URLs differ about.
_USUAL_LINK = re.compile(r"https?://[a-z0-9.-]{1,255}(?::[0-9]{1,5})?/[a-z0-9_/.-]{0,999}", re.IGNORECASE | re.ASCII)


@attrs.frozen(kw_only=True)
class Links:
    """Where conversations are seen when an alert brings no link of its own."""

    base: str | None = None  # https://app.chatwoot.com
    account: int | None = None

    def to(self, conversation_id: int | None) -> str | None:
        """The dashboard's address of a conversation, or None where a part of it is unknown."""
        if self.base is None or self.account is None or conversation_id is None:
            return None
        return f"{self.base}/app/accounts/{self.account}/conversations/{conversation_id}"


def render(
    content: Content, *, links: Links | None = None, late: float = 0.0, repeat: bool = False, shorter: bool = False
) -> Html:
    """The text of *content*. *late* is its age in seconds, *repeat* says that an earlier attempt's fate is unknown.

    *shorter* leaves out what can be spared, for a Telegram that finds the whole too long. Always parses, and never
    has more than 4096 UTF-16 units.
    """
    made = links.to(content.conversation_id) if links else None
    if isinstance(content, Alert):
        blocks = _alert(content, made, SHORTER if shorter else MESSAGE_LIMIT)
        if content.additional_info and not shorter:
            blocks.append(_info(content.additional_info, content.left_out, beside=blocks))
    else:
        blocks = _notice(content, made, SHORTER if shorter else NOTICE_MESSAGE_LIMIT)
    if late > 60:
        blocks.append(f"⏱ {_age(late)} late")
    if repeat:
        blocks.append("🔁 May be a repeat")
    return Html("\n\n".join(filter(None, blocks)))


def _fitting(rows: list[str], beside: list[str]) -> list[str]:
    """As many of *rows*, from the first, as have room beside those blocks."""
    room, shown = LIMIT - RESERVE, list[str]()
    if 2 * len("\n".join((*beside, *rows))) < room:  # markup and all, were every letter two units
        return rows
    room -= sum(units(text_of(block)) for block in beside)
    for row in rows:
        room -= units(text_of(row)) + 1
        if room < 0:
            break
        shown.append(row)
    return shown


def _alert(alert: Alert, link: str | None, limit: int) -> list[str]:
    word = short_line(alert.severity, LINE_LIMIT)
    severity = line(word.upper(), 3 * LINE_LIMIT)  # a letter has up to three capitals
    facts = _labelled(
        ("Reason", line(alert.reason, REASON_LIMIT)),
        ("Conversation ID", f"#{alert.conversation_id}"),
        ("Customer", line(alert.customer_name or "", LINE_LIMIT)),
        ("Email", line(alert.customer_email or "", LINE_LIMIT)),
    )
    return [
        f"<b>{ICONS.get(word.lower(), UNKNOWN_ICON)} CHATWOOT ALERT - {severity}</b>",
        "\n".join(facts),
        _message(alert.message, limit),
        *_labelled(("Time", line(alert.timestamp or "", LINE_LIMIT))),
        _link(alert.chatwoot_url, link),
    ]


def _notice(notice: Notice, link: str | None, limit: int) -> list[str]:
    headline = f"<b>{line(notice.headline, HEADLINE_LIMIT) or '🔔'}</b>"
    rest = [_message(notice.message or "", limit), _link(notice.url, link)]
    facts = [(line(label, LABEL_LIMIT), line(value, LINE_LIMIT)) for label, value in notice.facts[:FACT_LINES]]
    return [headline, "\n".join(_fitting(_labelled(*facts), [headline, *rest])), *rest]


def _labelled(*pairs: tuple[str, str]) -> list[str]:
    return [f"<b>{label}:</b> {value}" for label, value in pairs if not is_blank(value)]


def _message(message: str, limit: int) -> str:
    text = block(message, limit)
    return f"<b>Message:</b>\n{text}" if not is_blank(text) else ""


def _link(given: str | None, made: str | None) -> str:
    """The link where it may be live, else its text: as code, in which nothing is live."""
    url = short_line(given or "", URL_LIMIT) or made
    if url and (_USUAL_LINK.fullmatch(url) or _is_web(url)):
        return f'🔗 <a href="{escape(url)}">View in Chatwoot</a>'
    return f"🔗 <code>{line(url, LINE_LIMIT)}</code>" if url else ""


def _is_web(url: str) -> bool:
    """Whether a link may be live: http or https, a host, and nothing in it that could end it early."""
    if len(url) > URL_LIMIT or len(escape(url).encode()) > URL_MARKUP or url.split() != [url]:
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _info(info: dict[str, Any], left_out: int, *, beside: list[str]) -> str:
    told, rest = _told(info)
    rows = [f"  • {line(key, LABEL_LIMIT)}: {line(value, LINE_LIMIT)}" for key, value in told]
    shown = _fitting(rows, beside)
    rest += left_out + len(rows) - len(shown)
    if rest:
        shown.append(f"  … and {rest} more")
    return "\n".join(["<b>Additional Info:</b>", *shown]) if shown else ""


def _told(info: dict[str, Any]) -> tuple[list[tuple[str, str]], int]:
    """The first members of additional_info that are not blank, spelt; and how many more there are."""
    told, rest = list[tuple[str, str]](), 0
    for key, value in info.items():
        if isinstance(value, str) and is_blank(value):
            continue
        if len(told) < INFO_LINES:
            told.append((key, spell(value)))
        else:
            rest += 1
    return told, rest


def spell(value: object) -> str:
    """A value of additional_info: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    try:
        return _COMPACT.encode(value).decode()
    except UnicodeEncodeError:  # a lone surrogate within, which is replaced when the line is cleaned
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


# --- what the outbox keeps ---


@overload
def trim(content: Alert) -> Alert: ...
@overload
def trim(content: Content) -> Content: ...
def trim(content: Content) -> Content:
    """The same without what is never shown, so that a row in the outbox stays small; it renders to the same text."""
    return _trim_alert(content) if isinstance(content, Alert) else _trim_notice(content)


def _trim_alert(alert: Alert) -> Alert:
    kept: dict[str, Any] = {}
    told, rest = _told(alert.additional_info or {})
    for name, value in told:
        key = short_line(name, LABEL_LIMIT)
        while key in kept:
            key += " "  # two that are one when cut; a space at the end is never shown
        kept[key] = short_line(value, LINE_LIMIT)
    return Alert(
        severity=short_line(alert.severity, LINE_LIMIT),
        reason=short_line(alert.reason, REASON_LIMIT),
        conversation_id=alert.conversation_id,
        message=short(alert.message, MESSAGE_LIMIT),
        customer_name=_maybe(alert.customer_name, LINE_LIMIT),
        customer_email=_maybe(alert.customer_email, LINE_LIMIT),
        timestamp=_maybe(alert.timestamp, LINE_LIMIT),
        chatwoot_url=_maybe(alert.chatwoot_url, URL_LIMIT),
        additional_info=kept or None,
        left_out=alert.left_out + rest if kept else 0,
    )


def _trim_notice(notice: Notice) -> Notice:
    return Notice(
        event=short_line(notice.event, LINE_LIMIT),
        headline=short_line(notice.headline, HEADLINE_LIMIT),
        facts=tuple(
            (short_line(label, LABEL_LIMIT), short_line(value, LINE_LIMIT))
            for label, value in notice.facts[:FACT_LINES]
        ),
        message=None if notice.message is None else short(notice.message, NOTICE_MESSAGE_LIMIT),
        url=_maybe(notice.url, URL_LIMIT),
        conversation_id=notice.conversation_id,
        silent=notice.silent,
    )


def _maybe(text: str | None, limit: int) -> str | None:
    return None if text is None else short_line(text, limit)
