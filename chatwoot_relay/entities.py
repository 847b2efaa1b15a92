"""What Telegram makes of our own HTML: the text and entities it shows. Refuses all markup that is not ours."""

from __future__ import annotations

import html
import re

import attrs

from .errors import RelayError
from .markup import units

_TYPES = {"b": "bold", "code": "code", "a": "text_link"}
_MARK = re.compile(r'<(?P<tag>b|code|a)(?: href="(?P<url>[^"<>]*)")?>(?P<inside>[^<]*)</(?P=tag)>|$')
_WRONG = re.compile(r"<|&(?!(?:lt|gt|amp|quot|#x27);)|[\ud800-\udfff]")
_SIGN = r"[\w.!$,~*'();&+=-]|%[0-9a-f]{2}|[^\0-\x7f]"
_LINK = re.compile(
    rf"(?:(https?)://)?((?:{_SIGN}|:)*@)?(\[[\da-f:.]*:[\da-f:.]*\]|(?:{_SIGN})+)(?::([0-9]{{1,5}}))?([/?#].*)?",
    re.A | re.I | re.S,
)


class Unparsable(RelayError):
    """We would not send this HTML, and Telegram may refuse it."""


@attrs.frozen
class Entity:
    """A run of the text that is shown in its own way. Offset and length count UTF-16 units, as Telegram's do."""

    type: str
    offset: int
    length: int
    url: str | None = None


def checked_link(url: str) -> str | None:
    """*url* as Telegram keeps it, or None where it makes no link: another scheme, no host, a host without a dot."""
    match = _LINK.fullmatch(url)
    if match is None:
        return None
    scheme, user, host, port, rest = match.groups(default="")
    if ("." not in host and not host.startswith("[")) or host == "." or (port and not 0 < int(port) < 65536):
        return None
    rest = rest if rest.startswith("/") else f"/{rest}"
    rest = re.sub(r"[\x00-\x20]", lambda found: f"%{ord(found[0]):02X}", rest.rstrip(" \t\r\n\v\0"))
    return f"{scheme.lower() or 'http'}://{user}{host.encode().lower().decode()}{f':{int(port)}' if port else ''}{rest}"


def parse_html(markup: str) -> tuple[str, tuple[Entity, ...]]:
    """The text and entities that Telegram makes of *markup*; Unparsable where it is none that :mod:`render` writes.

    Never kinder than Telegram. An entity around nothing vanishes, a bad link leaves its text.
    """
    text, entities, done = "", [], 0
    for mark in _MARK.finditer(markup):
        text += _resolve(markup[done : mark.start()])
        inside, done = _resolve(mark["inside"] or ""), mark.end()
        url = checked_link(_resolve(mark["url"] or "") or inside) if mark["tag"] == "a" else None
        if inside and (url or mark["tag"] != "a"):
            entities.append(Entity(_TYPES[mark["tag"]], units(text), units(inside), url))
        text += inside
    return text, tuple(entities)


def _resolve(text: str) -> str:
    if wrong := _WRONG.search(text):
        raise Unparsable(f"Unsupported start tag or reference at {wrong[0]!r}")
    return html.unescape(text)
