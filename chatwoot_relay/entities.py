"""What Telegram makes of HTML: the text and entities it shows, or the complaint it answers. Knows no other tags."""

from __future__ import annotations

import re
from typing import NoReturn

import attrs

from .errors import RelayError

_TYPES = {
    "a": "text_link",
    "b": "bold",
    "strong": "bold",
    "i": "italic",
    "em": "italic",
    "u": "underline",
    "ins": "underline",
    "s": "strikethrough",
    "strike": "strikethrough",
    "del": "strikethrough",
    "tg-spoiler": "spoiler",
    "span": "spoiler",
    "blockquote": "blockquote",
    "code": "code",
    "pre": "pre",
}
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"'}
_SPACE = " \t\r\n\v"
_REFERENCE = re.compile(r"(&(?:#x([0-9A-Fa-f]+)|#([0-9]+)|([A-Za-z]+)));?")
_TAG_NAME = re.compile(rf"<([^{_SPACE}>]*)")
_END_TAG = re.compile(rf"</([^{_SPACE}>]*)[{_SPACE}]*>")
_ATTRIBUTE_NAME = re.compile(rf"([^{_SPACE}=>/\"']*)[{_SPACE}]*")
_ATTRIBUTE_VALUE = re.compile(rf"=[{_SPACE}]*(?:\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9.\-]*)(?=[{_SPACE}>]))")
_LINK = re.compile(r"(?:(https?)://)?([^/?#@]*@)?(\[[^]]+\]|[^/?#:@\[\]]+)(?::([0-9]{1,5}))?([/?#].*)?", re.I | re.S)


class Unparsable(RelayError):
    """Telegram would refuse this HTML; the message is its own description of why."""


@attrs.frozen
class Entity:
    """A run of the text that is shown in its own way. Offset and length count UTF-16 units, as Telegram's do."""

    type: str
    offset: int
    length: int
    url: str | None = None
    language: str | None = None


@attrs.frozen
class _Open:
    tag: str
    argument: str
    offset: int  # UTF-16 units before it
    begin: int  # code points before it


def utf16_length(text: str) -> int:
    """How many UTF-16 units *text* takes, which is what Telegram counts in."""
    return len(text) + sum(character > "\uffff" for character in text)


def checked_link(url: str) -> str | None:
    """*url* as Telegram keeps it, or None where it makes no link: another scheme, no host, a host without a dot."""
    match = _LINK.fullmatch(url.strip())
    if match is None:
        return None
    scheme, user, host, port, rest = match.groups(default="")
    if "." not in host.strip(".") and not host.startswith("["):
        return None
    if port and not 0 < int(port) < 65536:
        return None
    rest = rest if rest.startswith("/") else f"/{rest}"
    rest = re.sub(r"[\x00-\x20]", lambda found: f"%{ord(found[0]):02X}", rest)
    return f"{scheme.lower() or 'http'}://{user}{host.lower()}{f':{int(port)}' if port else ''}{rest}"


def parse_html(html: str) -> tuple[str, tuple[Entity, ...]]:
    """The text and entities that Telegram makes of *html*; Unparsable where it would answer 400.

    Follows Telegram's own parser: four named references and numeric ones, a raw ``<`` is fatal,
    an entity around nothing vanishes, a bad link leaves its text.
    """
    text = ""
    units = 0
    opened: list[_Open] = []
    entities: list[Entity] = []
    at = 0
    while at < len(html):
        begin = html.find("<", at)
        plain = _resolve(html[at:] if begin < 0 else html[at:begin])
        text += plain
        units += utf16_length(plain)
        if begin < 0:
            break
        if html.startswith("</", begin):
            last, at = _close(html, begin, opened)
            if units > last.offset:
                _add(entities, last, length=units - last.offset, inside=text[last.begin :])
        else:
            tag, argument, at = _start(html, begin)
            opened.append(_Open(tag, argument, units, len(text)))
    if opened:
        raise Unparsable(f'Can\'t find end tag corresponding to start tag "{opened[-1].tag}"')
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unparsable("Text contains invalid Unicode characters after decoding HTML entities")
    return text, tuple(sorted(entities, key=lambda entity: (entity.offset, -entity.length)))


def _resolve(text: str) -> str:
    def character(match: re.Match[str]) -> str:
        whole, hexadecimal, decimal, name = match.groups()
        if name:
            return _NAMED.get(name, match[0])
        code = int(hexadecimal, 16) if hexadecimal else int(decimal)
        return chr(code) if len(whole) < 10 and 0 < code < 0x10FFFF else match[0]

    return _REFERENCE.sub(character, text)


def _start(html: str, begin: int) -> tuple[str, str, int]:
    """The tag that starts at *begin*, its argument (a link's address, a language, …), and where it ends."""
    found = _TAG_NAME.match(html, begin)
    assert found is not None
    tag, at, argument = found[1].lower(), found.end(), ""
    if at == len(html):
        _refuse("Unclosed start tag", html, begin)
    if tag not in _TYPES:
        _refuse(f'Unsupported start tag "{tag}"', html, begin)
    while True:
        while html[at : at + 1] and html[at] in _SPACE:
            at += 1
        if html.startswith(">", at):
            break
        name = _ATTRIBUTE_NAME.match(html, at)
        assert name is not None
        if not name[1]:
            _refuse(f'Empty attribute name in the tag "{tag}"', html, begin)
        at, value = name.end(), ""
        if html.startswith("=", at):
            given = _ATTRIBUTE_VALUE.match(html, at)
            if given is None:
                _refuse("Unclosed start tag or unexpected end of name token", html, begin)
            quoted = given[1] if given[1] is not None else given[2]
            value, at = (given[3].lower() if quoted is None else _resolve(quoted)), given.end()
        if at == len(html):
            _refuse("Unclosed start tag", html, begin)
        match tag, name[1]:
            case "a", "href":
                argument = value
            case "code", "class" if value.startswith("language-"):
                argument = value.removeprefix("language-")
            case "span", "class" if value.startswith("tg-"):
                argument = value
            case "blockquote", "expandable":
                argument = "expandable"
    if tag == "span" and argument != "tg-spoiler":
        _refuse('Tag "span" must have class "tg-spoiler"', html, begin)
    return tag, argument, at + 1


def _close(html: str, begin: int, opened: list[_Open]) -> tuple[_Open, int]:
    if not opened:
        _refuse("Unexpected end tag", html, begin)
    found = _END_TAG.match(html, begin)
    if found is None:
        _refuse("Unclosed end tag", html, begin)
    last = opened.pop()
    if found[1].lower() not in ("", last.tag):
        _refuse(f'Unmatched end tag, expected "</{last.tag}>", found "</{found[1]}>"', html, begin)
    return last, found.end()


def _add(entities: list[Entity], last: _Open, *, length: int, inside: str) -> None:
    kind = _TYPES[last.tag]
    if kind == "text_link":
        url = checked_link(last.argument or inside)
        if url is not None:
            entities.append(Entity(kind, last.offset, length, url=url))
        return
    # <pre><code class="language-x"> and its mirror image are one block with a language
    inner = entities[-1] if entities else None
    if (
        kind == "pre"
        and inner
        and inner.language
        and inner == Entity("code", last.offset, length, None, inner.language)
    ):
        entities[-1] = Entity("pre", last.offset, length, language=inner.language)
        return
    if kind == "code" and last.argument and inner == Entity("pre", last.offset, length):
        entities[-1] = Entity("pre", last.offset, length, language=last.argument)
        return
    if kind == "code" and last.argument:
        entities.append(Entity("code", last.offset, length, language=last.argument))
        return
    expandable = "expandable_" if last.argument == "expandable" else ""
    entities.append(Entity(expandable + kind, last.offset, length))


def _refuse(what: str, html: str, begin: int) -> NoReturn:
    raise Unparsable(f"{what} at byte offset {len(html[:begin].encode(errors='surrogatepass'))}")
