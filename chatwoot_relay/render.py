"""What Telegram is sent for an alert or a notice: wording and layout. Every input gives a text that fits."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

import attrs

from .markup import Html, block, clean, cut, fill, line, sane, units
from .models import Alert, Content, Notice

TELEGRAM_LIMIT = 4096
MESSAGE_LIMIT = 500
NOTICE_MESSAGE_LIMIT = 300
HEADLINE_LIMIT = 160
LINE_LIMIT = 100
REASON_LIMIT = 200
INFO_LINES = 20
FACT_LINES = 16
URL_LIMIT = 2000

ICONS = {"low": "🟢", "medium": "🟡", "high": "🟠", "critical": "🔴"}
UNKNOWN_ICON = "⚠️"

HEADING = "<b>{icon} CHATWOOT ALERT - {severity}</b>"
LABELLED = "<b>{label}:</b> {value}"
MESSAGE = "<b>Message:</b>\n{message}"
LINK = '🔗 <a href="{url}">View in Chatwoot</a>'
DEAD_LINK = "🔗 <code>{url}</code>"
INFO = "<b>Additional Info:</b>"
INFO_LINE = "  • {label}: {value}"
INFO_MORE = "  … and {count} more"
LATE = "⏱ {age} late"
REPEAT = "🔁 May be a repeat"


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
    links = links or Links()
    limit = 100 if shorter else None
    blocks = _alert(content, links, limit) if isinstance(content, Alert) else _notice(content, links, limit)
    marks = [fill(LATE, age=_age(late))] if late >= 60 else []
    marks += [Html(REPEAT)] if repeat else []
    if isinstance(content, Alert) and content.additional_info and not shorter:
        used = sum(units(b) for b in blocks + marks) + 200
        blocks.append(_info(content.additional_info, content.left_out, room=TELEGRAM_LIMIT - used))
    return Html("\n\n".join(b for b in blocks + marks if b))


def _alert(alert: Alert, links: Links, limit: int | None) -> list[Html]:
    word = alert.severity.strip()
    severity = line(word.upper(), LINE_LIMIT)
    return [
        fill(HEADING, icon=ICONS.get(word.lower(), UNKNOWN_ICON), severity=severity),
        _lines(
            ("Reason", line(alert.reason, REASON_LIMIT)),
            ("Conversation ID", f"#{alert.conversation_id}"),
            ("Customer", line(alert.customer_name or "", LINE_LIMIT)),
            ("Email", line(alert.customer_email or "", LINE_LIMIT)),
        ),
        _message(alert.message, limit or MESSAGE_LIMIT),
        _lines(("Time", line(alert.timestamp or "", LINE_LIMIT))),
        _link(alert.chatwoot_url or links.to(alert.conversation_id)),
    ]


def _notice(notice: Notice, links: Links, limit: int | None) -> list[Html]:
    facts = [(line(label, 40), line(value, LINE_LIMIT)) for label, value in notice.facts[:FACT_LINES]]
    return [
        fill("<b>{headline}</b>", headline=line(notice.headline, HEADLINE_LIMIT)),
        _lines(*facts),
        _message(notice.message or "", limit or NOTICE_MESSAGE_LIMIT),
        _link(notice.url or links.to(notice.conversation_id)),
    ]


def _lines(*pairs: tuple[str, str]) -> Html:
    return Html("\n".join(fill(LABELLED, label=label, value=value) for label, value in pairs if value))


def _message(message: str, limit: int) -> Html:
    text = block(message, limit)
    return fill(MESSAGE, message=text) if text.strip() else Html("")


def _link(url: str | None) -> Html:
    url = clean(url or "", limit=URL_LIMIT).strip()
    if not url:
        return Html("")
    return fill(LINK, url=url) if _is_web(url) else fill(DEAD_LINK, url=cut(url.replace("\n", " "), LINE_LIMIT))


def _is_web(url: str) -> bool:
    """Whether a link may be live: http or https, a host, and nothing in it that could end it early."""
    if len(url) > URL_LIMIT or any(c.isspace() for c in url):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False


def _info(info: dict[str, Any], left_out: int, *, room: int) -> Html:
    shown: list[Html] = []
    rows = [(line(key, 40), line(spell(value), LINE_LIMIT)) for key, value in list(info.items())[:INFO_LINES]]
    rest = max(0, len(info) - INFO_LINES) + left_out
    for number, (label, value) in enumerate(rows):
        if not value:
            continue
        row = fill(INFO_LINE, label=label, value=value)
        room -= units(row)
        if room < 0:
            rest += len(rows) - number
            break
        shown.append(row)
    if rest:
        shown.append(fill(INFO_MORE, count=rest))
    return Html("\n".join([Html(INFO), *shown])) if shown else Html("")


def spell(value: object) -> str:
    """A value of additional_info: a string as it is, anything else as compact JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:  # nested as deep as the reader allowed
        return "{…}" if isinstance(value, dict) else "[…]"


def _age(seconds: float) -> str:
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h" if minutes < 48 * 60 else f"{minutes // 1440} d"


# --- what the outbox keeps ---


def trim(alert: Alert) -> Alert:
    """The same alert without what could never be shown, so that a row in the outbox stays small."""

    def short(text: str, limit: int) -> str:
        return text[: 4 * limit + 64]

    def maybe(text: str | None, limit: int) -> str | None:
        return None if text is None else short(text, limit)

    info = alert.additional_info
    return attrs.evolve(
        alert,
        severity=short(alert.severity, LINE_LIMIT),
        reason=short(alert.reason.strip(), REASON_LIMIT),
        message=_keep(alert.message),
        customer_name=maybe(alert.customer_name, LINE_LIMIT),
        customer_email=maybe(alert.customer_email, LINE_LIMIT),
        timestamp=maybe(alert.timestamp, LINE_LIMIT),
        chatwoot_url=maybe(alert.chatwoot_url, URL_LIMIT),
        additional_info=None if info is None else dict(_short_rows(info)),
        left_out=0 if info is None else max(0, len(info) - INFO_LINES),
    )


def _keep(message: str) -> str:
    """Cleaned already, so that no run of invisible characters pushes the customer's words out of what is kept."""
    return clean(message, limit=MESSAGE_LIMIT)[: MESSAGE_LIMIT + 32] if len(message) > MESSAGE_LIMIT else message


def _short_rows(info: dict[str, Any]) -> Iterable[tuple[str, str]]:
    for key, value in list(info.items())[:INFO_LINES]:
        yield sane(key[:200]), sane(spell(value)[:500])
