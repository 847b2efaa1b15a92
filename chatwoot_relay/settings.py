"""What the operator set, from one declaration. Refuses with every complaint at once, and never repeats a value."""

# ruff: noqa: RUF009 - a default made by a call is the point of the declaration; every one is immutable

from __future__ import annotations

import contextlib
import difflib
import io
import re
import textwrap
from collections.abc import Callable, Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from dotenv.parser import parse_stream

from .errors import ConfigurationError

T = TypeVar("T")
LARGEST_FILE = 64 * 1024  # bytes of a file that holds one value
LONGEST = 3650 * 86400.0  # seconds; a longer duration is a typing error
UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PERIODS = {"second": 1, "minute": 60, "hour": 3600}
EVENT_WORDS = frozenset({"useful", "all", "handoff"})
EXPOSED = (
    "RELAY_TOKEN is missing: other machines reach the port (RELAY_HOST, or the socket), so set a shared secret "
    "(openssl rand -hex 32), or RELAY_ALLOW_ANONYMOUS=yes to let anyone post"
)
Sources = list[tuple[str, Mapping[str, str | Path | None]]]  # where it is, and what it sets; the first counts


# --- What a text means. Each raises ValueError that says what was expected, and never what was found ---


@attrs.frozen(repr=False)
class Secret:
    """A string that shows itself only when asked."""

    _value: str

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "***"


@attrs.frozen
class Rate:
    """So many (*limit*) in any stretch of so many *seconds*."""

    limit: int
    seconds: int


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


def whole(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


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


def bot_token(text: str) -> Secret:
    if not re.fullmatch(r"[0-9]+:[A-Za-z0-9_-]+(/test)?", text):
        raise ValueError("is not a bot token: it looks like 123456789:AAF… , copy it whole from @BotFather")
    return Secret(text)


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


def url(text: str) -> str:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is no number, a broken [address]
        good = False
    if not good or re.search(r"\s", text):
        raise ValueError("is not a URL: it begins with http:// or https:// and names a host")
    if parts.username is not None or re.search(r"[?#]|/bot([0-9]+:|/*$)", text):
        raise ValueError("has a password, a token, /bot, a ? or a # in it: give the base URL alone")
    return text.rstrip("/")


def secrets(text: str) -> tuple[Secret, ...]:
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(parts):
        raise ValueError("has an empty part: separate several secrets by single commas")
    return tuple(map(Secret, parts))


def host(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    try:
        if not re.fullmatch(r"[0-9A-Za-z._-]*[A-Za-z][0-9A-Za-z._-]*", bare):  # no name, so an address
            ip_address(bare)
    except ValueError:
        known = "127.0.0.1 for this machine alone, 0.0.0.0 or :: for all"
        raise ValueError(f"is not an address or host name without a port: {known}") from None
    return bare


def database(text: str | Path) -> Path:
    """One file has one path, for its lock stands beside it."""
    path = Path(text)
    try:
        return path.resolve() if path.is_symlink() else path
    except (OSError, RuntimeError):  # RuntimeError: a link that leads to itself
        raise ValueError("is no path that can be followed: name a file") from None


def rate(text: str) -> Rate | None:
    if text.lower() == "off":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8}) ?/ ?(second|minute|hour)", text.lower())
    if found is None:
        raise ValueError("is not a rate: write 100/minute (or second, hour), or off")
    return Rate(int(found[1]), PERIODS[found[2]])


def events(text: str) -> frozenset[str]:
    names = frozenset(part.strip().lower() for part in text.split(","))
    if not all(re.fullmatch(r"[a-z][a-z0-9_.]*", name) for name in names):
        raise ValueError("is none of useful, all, handoff, nor event names separated by commas")
    return names


def networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    if text.lower() in ("off", "none"):
        return ()
    try:
        return tuple(ip_network(part.strip(), strict=False) for part in text.split(","))
    except ValueError:
        raise ValueError("is not a list of addresses or networks: 127.0.0.1,10.0.0.0/8 for example, or off") from None


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach a listener on *address*."""
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address.lower() == "localhost"


# --- The declaration: the attribute in capitals is the variable's name ---


def setting(parse: Callable[[str], Any], default: str | None, meaning: str, *, shown: str | None = None) -> Any:
    """A field. *default* is text as the operator would write it; *shown* says it better where it is not the whole."""
    metadata = {"parse": parse, "meaning": meaning, "default": shown or default or ""}
    return attrs.field(default=None if default is None else parse(default), metadata=metadata)


def required(parse: Callable[[str], Any], unset: object, meaning: str) -> Any:
    """A field that must be set; *unset* stands in it where a command does not read it."""
    return attrs.field(default=unset, metadata={"parse": parse, "meaning": meaning, "default": "required"})


@attrs.frozen(kw_only=True)
class Settings:
    """Everything that can be set. Each attribute is the variable of the same name in capitals."""

    # fmt: off
    telegram_bot_token: Secret = required(bot_token, Secret(""), "the bot's token, from @BotFather")
    telegram_chat_id: int | str = required(chat_id, 0,
        "the chat's numeric id (`chatwoot-relay chats` lists them) or `@channel`")
    telegram_thread_id: int | None = setting(whole(1, 2**63 - 1), None, "topic of a forum group")
    telegram_api_url: str = setting(url, "https://api.telegram.org",
        "Bot API server; a local one of your own, for example")
    chatwoot_url: str | None = setting(url, None,
        "base of the dashboard, for links: `https://app.chatwoot.com` for example")
    chatwoot_account_id: int | None = setting(whole(1, 2**63 - 1), None,
        "for payloads that carry no account (Chatwoot before 4.14.2)")
    chatwoot_webhook_secret: tuple[Secret, ...] = setting(secrets, "",
        "signing secret of Chatwoot's webhook; several are separated by commas")
    relay_token: Secret | None = setting(Secret, None, "shared secret of those who post alerts")
    relay_host: str = setting(host, "127.0.0.1",
        "where to listen; beyond loopback it refuses to start without `RELAY_TOKEN`")
    relay_port: int = setting(whole(0, 65535), "8080", "port to listen on; 0 takes any free one")
    relay_allow_anonymous: bool = setting(yes_no, "no",
        "`yes` listens beyond loopback even without `RELAY_TOKEN`")
    relay_database: Path = setting(database, "outbox.db",
        "the outbox", shown="`$STATE_DIRECTORY/outbox.db`, else `./outbox.db`")
    relay_reply_timeout: float = setting(duration(0, 4), "3",
        "how long a request waits for Telegram before it is answered 202; at most 4 s, for Chatwoot gives up at 5")
    relay_rate_limit: Rate | None = setting(rate, "100/minute",
        "alerts from one client: `N/second`, `/minute`, `/hour`, or `off`")
    relay_trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(networks, "127.0.0.1,::1",
        "addresses or networks whose `X-Forwarded-For` is believed; `off` for none")
    relay_events: frozenset[str] = setting(events, "useful",
        "Chatwoot events to forward: `useful`, `all`, `handoff`, or names separated by commas")
    relay_pacing: bool = setting(pacing, "telegram",
        "keep under Telegram's limits; `off` for a Bot API server of your own and for benchmarks")
    relay_max_age: float = setting(duration(1), "72h",
        "what could not be told in so much time, holds not counted, becomes a dead letter")
    relay_retention: float = setting(duration(1), "7d",
        "how long delivered alerts are kept (repeats, duplicates, threads); dead letters 90 days")
    relay_log_level: str = setting(one_of("debug", "info", "warning", "error"), "info",
        "`debug`, `info`, `warning` or `error`")
    relay_log_format: str = setting(one_of("auto", "json", "console"), "auto",
        "`json`, `console`, or `auto`: JSON when not on a terminal")
    relay_docs: bool = setting(yes_no, "on", "`/docs`, `/redoc` and `/openapi.json`")
    relay_docs_assets: str = setting(url, "https://cdn.jsdelivr.net/npm",
        "base URL of Swagger UI's and Redoc's files, for a copy of your own")
    # fmt: on


FIELDS: tuple[attrs.Attribute[Any], ...] = attrs.fields(Settings)
NAMES = tuple(field.name.upper() for field in FIELDS)
ROWS = [(field.name.upper(), field.metadata["default"], field.metadata["meaning"]) for field in FIELDS]


# --- Loading ---


def load(environ: Mapping[str, str], *, directory: Path, only: Collection[str] | None = None) -> Settings:
    """Read every setting, or *only* those attributes; raise ConfigurationError with all that is wrong.

    Of one name the first counts: environment, NAME_FILE, $CREDENTIALS_DIRECTORY/NAME, ``.env`` in *directory*, default.
    """
    complaints: list[str] = []

    def attempt(read: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
        try:
            return read(*given)
        except ValueError as error:
            complaints.extend(map(str, error.args))
            return {}

    credentials = attempt(read_credentials, environ.get("CREDENTIALS_DIRECTORY", ""))
    sources: Sources = [("", environ), (" in $CREDENTIALS_DIRECTORY", credentials)]
    sources.append((" in .env", attempt(read_dotenv, directory)))
    blind = bool(complaints)  # what seems to be missing may be there
    state = Path(environ.get("STATE_DIRECTORY", "").split(":")[0])
    values = attempt(lambda: {"relay_database": database(state / "outbox.db")})
    for field in FIELDS:
        if only is None or field.name in only:
            values |= attempt(find, field, sources)
    told = any(complaint.startswith("RELAY_TOKEN") for complaint in complaints)
    guarded = values.get("relay_token") or values.get("relay_allow_anonymous") or told
    if only is None and not guarded and not is_loopback(values.get("relay_host", "::1")):
        complaints.append(EXPOSED)
    if complaints:
        raise ConfigurationError(*(told for told in complaints if not (blind and " is missing: " in told)))
    return Settings(**values)


def find(field: attrs.Attribute[Any], sources: Sources) -> dict[str, Any]:
    """The field's value, if it is set. An empty variable is not; an empty file is a complaint."""
    name, about = field.name.upper(), field.metadata
    for where, source in sources:
        for key, words in ((name, ""), (f"{name}_FILE", " names a file that")):
            given = source.get(key) or ""
            if not (text := str(given).strip()):
                continue
            try:
                if words or isinstance(given, Path):
                    text = read_file(Path(text))
                if re.search("[\x00-\x1f\x7f\ud800-\udfff]", text):  # a surrogate was a byte that is no UTF-8
                    raise ValueError("has a line break or another control character in it, or is not UTF-8")
                return {field.name: about["parse"](text)}
            except ValueError as error:
                raise ValueError(f"{key}{where}{words} {error}") from None
    if about["default"] == "required":
        raise ValueError(f"{name} is missing: set it to {about['meaning'].replace('`', '')}")
    return {}


def read_file(path: Path) -> str:
    """The one value in the file at *path*."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        text = raw.decode("utf-8-sig").strip()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): check path and owner") from None
    except ValueError:
        raise ValueError("is not UTF-8 text") from None
    if not text or len(raw) > LARGEST_FILE:
        raise ValueError(f"is {'too large' if text else 'empty'}: put the value into it")
    return text


def read_credentials(folder: str) -> dict[str, Path]:
    """The files that systemd gives us."""
    try:
        return {path.name: path for path in Path(folder).iterdir()} if folder and Path(folder).is_dir() else {}
    except OSError as error:
        raise ValueError(f"$CREDENTIALS_DIRECTORY cannot be read ({error.strerror}): check its owner") from None


def read_dotenv(directory: Path) -> dict[str, str | None]:
    """What ``.env`` in *directory* sets; nothing where there is none. No ``${…}`` is expanded: secrets may hold it."""
    try:
        text = (directory / ".env").read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f".env in the working directory cannot be read ({error.strerror}): check its owner") from None
    except ValueError:
        raise ValueError(".env in the working directory cannot be read: make it UTF-8") from None
    bindings, unread = list(parse_stream(io.StringIO(text))), []
    for found in bindings:
        if found.error:
            begin, name = re.findall(r"^(\s*)(?:export\s+)?(\w*)", found.original.string)[0]
            line = found.original.line + begin.count("\n")
            what = f"{name} in" if name in NAMES else "A line of"  # another word may be half a secret
            unread.append(f"{what} .env, line {line}, cannot be read: write NAME=value")
    if unread:
        raise ValueError(*unread)
    return {found.key: found.value for found in bindings if found.key}


# --- What is allowed, yet worth a warning ---


def open_routes(settings: Settings) -> list[str]:
    """What anyone may use who reaches the port; on loopback too, for a proxy may publish it."""
    if settings.relay_token:
        return []
    told = ["/api/v1/chatwoot/alerts and /api/v1/chatwoot/test are open to anyone: set RELAY_TOKEN"]
    if not settings.chatwoot_webhook_secret:
        told.append("/api/v1/chatwoot/webhook is open to anyone: set CHATWOOT_WEBHOOK_SECRET or RELAY_TOKEN")
    return told


def unknown_events(settings: Settings, known: Collection[str]) -> list[tuple[str, str]]:
    """Names in RELAY_EVENTS that Chatwoot, as we know it, never sends; and what to do about each."""
    words = sorted(EVENT_WORDS.union(known))
    close = {
        name: difflib.get_close_matches(name, words, n=1) for name in sorted(settings.relay_events.difference(words))
    }
    return [(name, f"write {guess[0]}" if guess else "correct or remove it") for name, guess in close.items()]


def unknown(environ: Mapping[str, str], *, directory: Path) -> list[str]:
    """Warnings for variables that look like a mistyped one of ours, here or in ``.env``."""
    names = {*environ}
    with contextlib.suppress(ValueError):  # load complains of it
        names |= {*read_dotenv(directory)}
    ours = [*NAMES, *(f"{name}_FILE" for name in NAMES)]
    told = []
    for name in sorted(names.difference(ours)):
        if name.startswith(("RELAY_", "TELEGRAM_", "CHATWOOT_")):
            close = difflib.get_close_matches(name, ours, n=1, cutoff=0.85)
            if close or name.startswith("RELAY_"):
                told.append(f"{name} is no setting of ours" + "".join(f": do you mean {guess}?" for guess in close))
    return told


def help_text() -> str:
    """All settings for a terminal of 80 columns."""
    lines = []
    for name, default, meaning in ROWS:
        lines.append(f"{name}  [{default}]" if default else name)
        lines += textwrap.wrap(meaning, 78, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines).replace("`", "") + "\n"
