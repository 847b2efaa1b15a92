"""What a setting's text means. Refuses by ValueError, which says what was expected and never what was found."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TypeVar
from urllib.parse import urlsplit

import attrs

T = TypeVar("T")
LONGEST = 3650 * 86400.0  # seconds; a longer duration is a typing error
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PERIODS = {"second": 1, "minute": 60, "hour": 3600}


@attrs.frozen(repr=False)
class Secret:
    """A string that shows itself only when asked."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__


@attrs.frozen
class Rate:
    """So many (*limit*) in any stretch of so many *seconds*."""

    limit: int
    seconds: int


def bot_token(text: str) -> Secret:
    if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+(/test)?", text):
        raise ValueError("is not a bot token: it looks like 123456789:AAF… , copy it whole from @BotFather")
    return Secret(text)


def secrets(text: str) -> tuple[Secret, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(parts):
        raise ValueError("has an empty part: separate several secrets by single commas")
    return tuple(map(Secret, parts))


def chat_id(text: str) -> int | str:
    if re.fullmatch(r"-?[0-9]{1,19}", text) and int(text):
        return int(text)
    if re.fullmatch(r"@[A-Za-z][A-Za-z0-9_]{2,63}", text):
        return text
    if "t.me/" in text:
        raise ValueError("is a link: write @name of a public channel or group, or a number from `chatwoot-relay chats`")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{2,63}", text):
        raise ValueError("is a bare name: put an @ before it")
    raise ValueError("is neither a numeric id nor @channel: `chatwoot-relay chats` lists what the bot has seen")


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


def url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a broken [address]
        good = False
    if not good or re.search(r"\s", text):
        raise ValueError("is not a URL: it begins with http:// or https:// and names a host")
    if parts.username is not None or re.search(r"[?#]|/bot[0-9]+:", text):
        raise ValueError("has a password, a token, a ? or a # in it: give the base URL alone")
    return text.rstrip("/")


def host(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    if not re.fullmatch(r"[0-9A-Za-z._-]+|[0-9A-Fa-f:.]+(%[\w.-]+)?", bare, re.ASCII):
        raise ValueError("is not an address or host name: 127.0.0.1 for this machine alone, 0.0.0.0 or :: for all")
    return bare


def words(meanings: dict[str, T], complaint: str = "") -> Callable[[str], T]:
    def parse(text: str) -> T:
        if text.lower() not in meanings:
            raise ValueError(complaint or f"is none of {', '.join(meanings)}")
        return meanings[text.lower()]

    return parse


def one_of(*known: str) -> Callable[[str], str]:
    return words({word: word for word in known})


YES, NO = ("yes", "on", "true", "1"), ("no", "off", "false", "0")
yes_no = words(dict.fromkeys(YES, True) | dict.fromkeys(NO, False), "is neither on nor off")
pacing = words({"telegram": True, "off": False})


def duration(low: float, high: float = LONGEST) -> Callable[[str], float]:
    def parse(text: str) -> float:
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([smhd]?)", text.lower())
        if found is None:
            raise ValueError("is not a duration: write 90s, 15m, 72h, 7d or seconds")
        seconds = float(found[1]) * UNITS[found[2]]
        if not low <= seconds <= high:
            raise ValueError(f"is outside of {low:.0f} to {high:.0f} seconds")
        return seconds

    return parse


def rate(text: str) -> Rate | None:
    if text.lower() == "off":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8}) ?/ ?(second|minute|hour)", text.lower())
    if found is None:
        raise ValueError("is not a rate: write 100/minute (or second, hour), or off")
    return Rate(int(found[1]), PERIODS[found[2]])


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    if text.lower() in ("off", "none"):
        return ()
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError:
        raise ValueError("is not a list of addresses or networks: 127.0.0.1,10.0.0.0/8 for example, or off") from None


def events(text: str) -> frozenset[str]:
    names = frozenset(part.strip().lower() for part in text.split(","))
    if not all(re.fullmatch(r"[a-z][a-z0-9_.]*", name) for name in names):
        raise ValueError("is none of useful, all, handoff, nor event names separated by commas")
    return names


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listener on *address*."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address.lower() == "localhost"
