"""What the operator set, from one declaration. Refuses with every complaint at once, and never repeats a value."""

# ruff: noqa: RUF009 - a default made by a call is the point of the declaration; every one is immutable

from __future__ import annotations

import contextlib
import difflib
import io
import re
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import attrs
from dotenv import dotenv_values

from . import kinds
from .errors import ConfigurationError
from .kinds import Rate, Secret, is_loopback

LARGEST_FILE = 64 * 1024  # bytes of a file that holds one value
EVENT_WORDS = frozenset({"useful", "all", "handoff"})
EXPOSED = (
    "RELAY_TOKEN is missing: the port is reachable from other machines, so set a shared secret "
    "(openssl rand -hex 32), or RELAY_ALLOW_ANONYMOUS=yes to let anyone post"
)
Sources = list[tuple[str, Mapping[str, str | Path | None]]]  # where it is, and what it sets; the first counts


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
    telegram_bot_token: Secret = required(kinds.bot_token, Secret(""), "the bot's token, from @BotFather")
    telegram_chat_id: int | str = required(kinds.chat_id, 0,
        "the chat's numeric id (`chatwoot-relay chats` lists them) or `@channel`")
    telegram_thread_id: int | None = setting(kinds.whole(1, 2**63 - 1), None, "topic of a forum group")
    telegram_api_url: str = setting(kinds.url, "https://api.telegram.org",
        "Bot API server; a local one of your own, for example")
    chatwoot_url: str | None = setting(kinds.url, None,
        "base of the dashboard, for links: `https://app.chatwoot.com` for example")
    chatwoot_account_id: int | None = setting(kinds.whole(1, 2**63 - 1), None,
        "for payloads that carry no account (Chatwoot before 4.14.2)")
    chatwoot_webhook_secret: tuple[Secret, ...] = setting(kinds.secrets, "",
        "signing secret of Chatwoot's webhook; several are separated by commas")
    relay_token: Secret | None = setting(Secret, None, "shared secret of those who post alerts")
    relay_host: str = setting(kinds.host, "127.0.0.1",
        "where to listen; beyond loopback it refuses to start without `RELAY_TOKEN`")
    relay_port: int = setting(kinds.whole(0, 65535), "8080", "port to listen on; 0 takes any free one")
    relay_allow_anonymous: bool = setting(kinds.yes_no, "no",
        "`yes` listens beyond loopback even without `RELAY_TOKEN`")
    relay_database: Path = setting(Path, "outbox.db",
        "the outbox", shown="`$STATE_DIRECTORY/outbox.db`, else `./outbox.db`")
    relay_reply_timeout: float = setting(kinds.duration(0, 4), "3",
        "how long a request waits for Telegram before it is answered 202; at most 4 s, for Chatwoot gives up at 5")
    relay_rate_limit: Rate | None = setting(kinds.rate, "100/minute",
        "alerts from one client: `N/second`, `/minute`, `/hour`, or `off`")
    relay_trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(kinds.networks, "127.0.0.1,::1",
        "addresses or networks whose `X-Forwarded-For` is believed; `off` for none")
    relay_events: frozenset[str] = setting(kinds.events, "useful",
        "Chatwoot events to forward: `useful`, `all`, `handoff`, or names separated by commas")
    relay_pacing: bool = setting(kinds.pacing, "telegram",
        "keep under Telegram's limits; `off` for a Bot API server of your own and for benchmarks")
    relay_max_age: float = setting(kinds.duration(1), "72h",
        "what could not be told in so much time, holds not counted, becomes a dead letter")
    relay_retention: float = setting(kinds.duration(1), "7d",
        "how long delivered alerts are kept (repeats, duplicates, threads); dead letters 90 days")
    relay_log_level: str = setting(kinds.one_of("debug", "info", "warning", "error"), "info",
        "`debug`, `info`, `warning` or `error`")
    relay_log_format: str = setting(kinds.one_of("auto", "json", "console"), "auto",
        "`json`, `console`, or `auto`: JSON when not on a terminal")
    relay_docs: bool = setting(kinds.yes_no, "on", "`/docs`, `/redoc` and `/openapi.json`")
    relay_docs_assets: str = setting(kinds.url, "https://cdn.jsdelivr.net/npm",
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
    state, complaints = environ.get("STATE_DIRECTORY", "").split(":")[0], list[str]()
    values: dict[str, Any] = {"relay_database": Path(state) / "outbox.db"}

    @contextlib.contextmanager
    def complaining() -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            complaints.append(str(error))

    sources: Sources = [("", environ)]
    with complaining():
        sources.append((" in $CREDENTIALS_DIRECTORY", read_credentials(environ.get("CREDENTIALS_DIRECTORY", ""))))
    with complaining():
        sources.append((" in .env", read_dotenv(directory)))
    for field in FIELDS:
        if only is None or field.name in only:
            with complaining():
                values |= find(field, sources)
    told = any(complaint.startswith("RELAY_TOKEN") for complaint in complaints)
    guarded = values.get("relay_token") or values.get("relay_allow_anonymous") or told
    if only is None and not guarded and not is_loopback(values.get("relay_host", "::1")):
        complaints.append(EXPOSED)
    if complaints:
        raise ConfigurationError(*complaints)
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
        return {path.name: path for path in Path(folder).iterdir()} if folder else {}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ValueError(f"$CREDENTIALS_DIRECTORY cannot be read ({error.strerror}): check its owner") from None


def read_dotenv(directory: Path) -> dict[str, str | None]:
    """What ``.env`` in *directory* sets; nothing where there is none. No ``${…}`` is expanded: secrets may hold it."""
    try:
        text = (directory / ".env").read_text("utf-8-sig")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise ValueError(".env in the working directory cannot be read: make it UTF-8, readable to us") from None
    return dotenv_values(stream=io.StringIO(text), interpolate=False)


# --- What is allowed, yet worth a warning ---


def open_routes(settings: Settings) -> list[str]:
    """What anyone may use who reaches the port; on loopback too, for a proxy may publish it."""
    if settings.relay_token:
        return []
    told = ["/api/v1/chatwoot/alerts, /api/v1/chatwoot/test and /metrics are open to anyone: set RELAY_TOKEN"]
    if not settings.chatwoot_webhook_secret:
        told.append("/api/v1/chatwoot/webhook is open to anyone: set CHATWOOT_WEBHOOK_SECRET or RELAY_TOKEN")
    return told


def unknown_events(settings: Settings, known: Collection[str]) -> list[str]:
    """Names in RELAY_EVENTS that Chatwoot, as we know it, never sends."""
    return sorted(settings.relay_events - EVENT_WORDS - set(known))


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
