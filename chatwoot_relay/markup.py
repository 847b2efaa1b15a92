"""Telegram's HTML: clean, cut, guard and escape text from outside. Refuses to know what the text is about."""

from __future__ import annotations

import html
import re
import unicodedata

import regex

ELLIPSIS = "…"
WORD_JOINER = "\u2060"


class Html(str):
    """Markup that Telegram parses; every value inside has been escaped."""

    __slots__ = ()


def escape(text: str) -> Html:
    """Text as Telegram's HTML shows it, letter for letter."""
    return Html(html.escape(text))


def fill(template: str, /, **values: object) -> Html:
    """Fill *template*, escaping every value that is not Html; one pass, so braces in a value stay text."""
    return Html(template.format_map({k: v if isinstance(v, Html) else escape(str(v)) for k, v in values.items()}))


# Telegram drops or turns these into spaces when it sends; done here so that what we count is what is shown.
_CONTROL = re.compile(r"[\x00-\x08\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def sane(text: str) -> str:
    """The same without lone surrogates, which no UTF-8 can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def clean(text: str, *, limit: int) -> str:
    """NFC text without control and bidi characters or lone surrogates; enough of it to be cut at *limit*.

    Normalising is quadratic in a run of combining marks, so no more than can matter is read: four code points
    before for each after covers every script's decompositions.
    """
    if text.isascii() and text.isprintable():
        return text[: 4 * limit + 64]
    text = _BIDI.sub("", _BREAKS.sub("\n", text))[: 4 * limit + 64]
    return unicodedata.normalize("NFC", _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text)))


def cut(text: str, limit: int) -> str:
    """At most *limit* code points and an ellipsis, cut back to a whole grapheme (through one that fills the limit)."""
    if len(text) <= limit:
        return text
    at = limit
    if not (text[limit - 1 : limit + 1].isascii() and text[limit - 1 : limit + 1] != "\r\n"):
        *_, last = regex.finditer(r"\X", text[: limit + 1])
        if last.end() > limit:
            at = last.start() or limit
    return text[:at] + ELLIPSIS


# What Telegram would make live: @name pings a member, /command a bot, #tag is a search. A link is left whole: the
# tag inside it is not live, and a joiner there would break it when copied. Found as TDLib finds them.
_LIVE = re.compile(
    r"(?P<link>\bhttps?://[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{2,}(?::\d{1,5})?(?:[/?#][A-Za-z0-9\-._~/%+=&?@#]*)?)"
    r"|(?<!\w)@(?=[A-Za-z])"
    r"|(?<![\w/<>])/(?=[A-Za-z0-9_]{1,64}(?:@\w*)?(?![\w/<>]))"
    r"|(?<![\w·])#(?=\w*[^\W\d_])",
    re.IGNORECASE,
)


def guard(text: str) -> str:
    """The same text, in which no name, command or tag is live: a U+2060 stands behind each sign that would make one."""
    if "@" not in text and "/" not in text and "#" not in text:
        return text
    return _LIVE.sub(lambda m: m[0] if m["link"] else m[0] + WORD_JOINER, text)


def line(value: str, limit: int) -> str:
    """A value for one line: cleaned, without line breaks, cut, guarded. Blank when nothing is left to see."""
    return guard(cut(clean(value, limit=limit).replace("\n", " ").strip(), limit))


def block(value: str, limit: int) -> str:
    """A value that may run over lines: cleaned, cut, guarded."""
    return guard(cut(clean(value, limit=limit), limit))


def units(text: str) -> int:
    """Length in UTF-16 code units; staying within 4096 of them satisfies every reading of Telegram's limit."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


_TAG = re.compile(r"<[^>]*>")


def plain(markup: Html) -> str:
    """The text behind our own markup, links written out: for a Telegram that cannot parse what we made."""
    spelt = re.sub(r'<a href="([^"]*)">([^<]*)</a>', r"\2: \1", markup)
    return html.unescape(_TAG.sub("", spelt))
