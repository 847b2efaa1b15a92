"""Telegram's HTML: clean, cut, guard and escape text from outside. Refuses to know what the text is about."""

from __future__ import annotations

import html
import re
import unicodedata

import regex

READ = 100_000  # code points of a value that are looked at, whatever its length
ELLIPSIS = "…"
WORD_JOINER = "\u2060"


class Html(str):
    """A whole text that Telegram parses; every value inside went through :func:`line`, :func:`block` or an escape."""

    __slots__ = ()


_SPECIAL = re.compile("[&<>\"']")


def escape(text: str) -> str:
    """Text as Telegram's HTML shows it, letter for letter."""
    return html.escape(text) if _SPECIAL.search(text) else text


# Telegram drops or turns these into spaces when it sends; done here so that what we count is what is shown.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
_BIDI = re.compile(r"[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]")
_BREAKS = re.compile(r"\r\n?|[\u2028\u2029]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_UNCLEAN = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def sane(text: str) -> str:
    """The same without lone surrogates, which no UTF-8 can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def clean(text: str) -> str:
    """Without control and bidi characters or lone surrogates: what Telegram shows, save for :func:`cut`'s NFC."""
    text = text[:READ]
    if not _UNCLEAN.search(text):
        return text
    return _SURROGATE.sub("\ufffd", _CONTROL.sub(" ", _BIDI.sub("", _BREAKS.sub("\n", text))))


_GRAPHEME = regex.compile(r"\X")
_BETWEEN = regex.compile(r"(?r)(?<=\p{GCB=Other})(?=\p{GCB=Other})")  # the last place where one surely ends


def cut(text: str, limit: int) -> str:
    """NFC of clean text: at most *limit* code points and an ellipsis, cut back to a whole grapheme.

    A grapheme that fills the limit by itself is cut through. Normalising is quadratic in a run of combining marks, so
    no more than can matter is read: four code points before for each after covers every script's decompositions.
    """
    if len(text) <= limit and text.isascii():
        return text
    text = unicodedata.normalize("NFC", text[: 4 * limit + 64])
    if len(text) <= limit or text[limit:] == ELLIPSIS:  # short enough, or cut before
        return text
    text = text[: limit + 1]
    sure = _BETWEEN.search(text)
    *_, last = _GRAPHEME.finditer(text, sure.start() if sure else 0)
    return text[: last.start() or limit] + ELLIPSIS


_UNSEEN = regex.compile(r"[\s\p{Default_Ignorable_Code_Point}\u2800]*")  # the last is Braille's empty cell


def is_blank(text: str) -> bool:
    """Whether nothing of it would be seen in one line."""
    first = text[:1]
    return not (first.isascii() and first.isalnum()) and _UNSEEN.fullmatch(clean(text)) is not None


def _head(text: str, limit: int) -> str:
    """Clean text, as much as can be shown; where something goes of its beginning, what follows may come to be seen."""
    head = text[: 4 * limit + 64]
    shown = clean(head)
    return shown if len(shown.strip()) == len(head) else clean(text)


def short(text: str, limit: int) -> str:
    """A value that may run over lines, as :func:`block` shows it but no markup yet. The same for what it made."""
    return cut(_head(text, limit), limit)


def short_line(text: str, limit: int) -> str:
    """A value for one line, as :func:`line` shows it but no markup yet. The same for what it made."""
    if len(text) <= limit and text.isascii() and text.isprintable():
        return text.strip()
    return cut(_head(text, limit).replace("\n", " ").strip(), limit)


# Most values have no more than these: nothing to clean, to guard or to escape.
_NOTABLE = re.compile(r"[^ !$%(-.0-;=?A-~]")


def block(text: str, limit: int) -> str:
    """A value that may run over lines: cleaned, cut, guarded, escaped."""
    if len(text) <= limit and not _NOTABLE.search(text):
        return text
    return escape(guard(short(text, limit)))


def line(text: str, limit: int) -> str:
    """The same for one line, without line breaks. Blank when nothing is left to see."""
    if len(text) <= limit and not _NOTABLE.search(text):
        return text.strip()
    return escape(guard(short_line(text, limit)))


# What Telegram would make live: @name pings a member, /command a bot, #tag is a search; found as TDLib finds them. A
# link is left whole: what looks so inside it is not live, and a joiner there would break it when it is copied.
_LIVE = regex.compile(
    r"""
    (?P<link> (?i:
        (?: (?<=(?:^|[\s<>"])[^\s<>"./$#@]{0,40}) (?<![a-z\d+-])(?:https?|ftp)://(?:[\p{L}\p{Nd}._~%+-]+@)?
            (?: (?:SUB\.)*LABEL\.(?:[a-z]{2,63}|\p{L}{2,15}) | (?:1?[0-9]?[0-9]\.){3}1?[0-9]?[0-9] )
          | (?: (?<![^\s<>"]) | (?<=(?<!\S)[(\[']) ) (?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?:TLD) )
        (?::[1-5]?[1-9]\d{1,3})?
        [/?\#][^\s<>"«»\u2000-\u200b\u200e\u200f\u2016-\u206f]* ) )
    | (?<![\p{L}\p{N}_]) @ (?=(?:[A-Za-z0-9_]{4,32}|(?i:gif|nft|pic|ufc|vid))(?![\p{L}\p{N}_]))
    | (?<![\p{L}\p{N}_/<>]) / (?=[A-Za-z0-9_]{1,64}+(?:@[A-Za-z0-9_]{3,32}+|(?!@))(?![\p{L}\p{N}_/<>]))
    | (?<![HASH]) \# (?=(?:(?!\p{L})[HASH]){0,255}+\p{L})(?![HASH]*+(?:(?<=[\p{L}\p{N}_])@[A-Za-z0-9_]{3,32}+)?+\#)
    """.replace("SUB", r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?|(?![a-z0-9_-]+\.)[\p{L}\p{Nd}]{1,15})")
    .replace("LABEL", r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?|(?![a-z0-9_-]+\.)[\p{L}\p{Nd}]{1,15})")
    .replace("HASH", r"\p{L}\p{Nd}_\xb7\u200c\u0d80-\u0dff")
    .replace(
        "TLD",  # without a scheme Telegram goes by its own list of names; these are on it
        "com|org|net|info|biz|edu|gov|io|ai|app|dev|me|tv|co|shop|store|online|site|xyz|eu|de|uk|fr|es|it|nl|be|ch|at|pl|"
        "pt|ru|ua|us|ca|mx|br|ar|cl|in|id|jp|cn|kr|au|nz|za|tr|se|no|dk|fi|cz|gr|hu|ro|il|ae|sg|my|th|vn|ph|pk",
    ),
    regex.VERBOSE,
)
# No more than a name, a command or a tag must have: a text without it is left alone for a fraction of the price. What
# is no ASCII may be a letter, for regex knows newer scripts than re.
_MAYBE = re.compile(
    r"[@/#](?:(?<=@)(?<![A-Z0-9_]@)[A-Z0-9_]|(?<=/)(?<![A-Z0-9_/<>]/)[A-Z0-9_]|(?<=#)[\w\xb7\u200c]*(?:[^\W\d_]|[^\x00-\x7f]))",
    re.IGNORECASE,
)
_CLOSING = {")": "(", "]": "[", "}": "{"}


def guard(text: str) -> str:
    """The same text, in which no name, command or tag is live: a U+2060 stands behind each sign that would make one."""
    if not ("@" in text or "/" in text or "#" in text) or not _MAYBE.search(text):
        return text
    parts, done = [], 0
    while found := _LIVE.search(text, done):
        end = found.start() + _linked(found["link"]) if found["link"] else found.end()
        parts += [text[done:end], "" if found["link"] else WORD_JOINER]
        done = end
    return "".join(parts) + text[done:]


def _linked(link: str) -> int:
    """How much of it is a link to Telegram: all before a bracket that it closes and did not open."""
    for place, sign in enumerate(link):
        if sign in _CLOSING and link.count(sign, 0, place + 1) > link.count(_CLOSING[sign], 0, place):
            return place
    return len(link)


LIMIT = 4096  # of a message, in UTF-16 units: staying within it satisfies every reading of Telegram's rule
_TAG = re.compile(r"<[^>]*>")


def units(text: str) -> int:
    """Length in UTF-16 code units."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def text_of(markup: str) -> str:
    """What Telegram shows of our own markup."""
    return html.unescape(_TAG.sub("", markup))


def plain(markup: Html) -> str:
    """The text behind our own markup, links written out where they fit: for a Telegram that cannot parse it."""
    spelt = text_of(re.sub(r'<a href="([^"]*)">([^<]*)</a>', r"\2: \1", markup))
    return spelt if units(spelt) <= LIMIT else text_of(markup)
