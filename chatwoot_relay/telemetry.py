"""Log lines, in one form for journald, files and people. Lets no secret through, and no line that another wrote."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast
from urllib.parse import quote

import structlog
from msgspec.json import encode
from structlog.typing import EventDict, Processor, WrappedLogger

from .errors import RelayError

PRIORITIES = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>", "critical": b"<2>"}
FRAMES = 6  # of ours, the innermost, are told of an exception
FLUSH_AFTER = 0.02  # seconds that a line may wait for company
LONGEST_TEXT = 1000  # characters of one value; what is longer is no fact any more
SHORTEST_SECRET = 4  # masking a shorter one would garble every line
SHAPES = r"(/bot(?=[0-9]+:)|token=|Bearer |Basic )[^\s\"']+"  # of secrets that are not ours
# What could end, colour or reorder a line.
FORGERY = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
HOME = str(Path(__file__).parent)


def set_up_logs(
    *,
    level: str,
    form: str,
    secrets: Iterable[str],
    stream: BinaryIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """Send every line of this process, the libraries' too, to *stream* (stderr) in one form.

    *form* is "json", "console" or "auto". *secrets* are masked wherever they turn up.
    """
    file = stream or sys.stderr.buffer
    terminal = file.isatty()
    render: list[Processor] = [to_journal if is_journal(file, environ.get("JOURNAL_STREAM", "")) else to_json]
    if form == "console" or (form == "auto" and terminal):
        render = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", key="time"),
            structlog.dev.ConsoleRenderer(
                colors=terminal and not environ.get("NO_COLOR"), timestamp_key="time", sort_keys=False
            ),
            lambda logger, method, line: cast(str, line).encode(),
        ]
    structlog.configure(
        processors=[Clean(secrets, detailed=level == "debug"), *render],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=Forgiving(file),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        handlers=[Libraries()], level=max(logging.INFO, logging.getLevelName(level.upper())), force=True
    )
    logging.captureWarnings(True)
    sys.excepthook = process_crashed
    threading.excepthook = lambda args: process_crashed(args.exc_type, args.exc_value, args.exc_traceback)


def is_journal(file: BinaryIO, journal_stream: str) -> bool:
    """Whether *file* is the very stream to journald that ``$JOURNAL_STREAM`` names by device and inode."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, ValueError):  # ValueError: no descriptor, as io.UnsupportedOperation
        return False
    return journal_stream == f"{status.st_dev}:{status.st_ino}"


def to_json(logger: WrappedLogger, method: str, facts: EventDict) -> bytes:
    """A JSON object, first what every line has: when, how bad, what happened."""
    now = time.time()
    stamp = f"{_second(int(now))}.{int(now % 1 * 1000):03}Z"
    return encode({"time": stamp, "level": method, "event": facts.pop("event"), **facts})


@functools.lru_cache(maxsize=1)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))


def to_journal(logger: WrappedLogger, method: str, facts: EventDict) -> bytes:
    """The same for journald, which knows the time, with the priority that ``journalctl -p err`` looks for."""
    return PRIORITIES[method] + encode({"level": method, "event": facts.pop("event"), **facts})


def process_crashed(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    """Tell what ends the process or a thread in our form, for Python's own would show every line of it."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        structlog.get_logger().critical("process.crashed", exc_info=(kind, error, trace))


class Forgiving:
    """structlog's logger, onto a stream whose reader may go away: a line that nobody can read must not stop an alert.

    Where a loop runs, the lines of a moment are written together: a call of the system for each is dear.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._due: asyncio.TimerHandle | None = None

    def __call__(self, *_: object) -> Forgiving:
        return self

    def write(self, line: bytes) -> None:
        try:
            self._file.write(line + b"\n")
            loop = asyncio.get_running_loop()
            self._due = self._due or loop.call_later(FLUSH_AFTER, self._flush)
        except RuntimeError:  # no loop here
            self._flush()
        except (OSError, ValueError):  # ValueError: closed
            pass

    debug = info = warning = error = critical = write

    def _flush(self) -> None:
        self._due = None
        with contextlib.suppress(OSError, ValueError):
            self._file.flush()


class Libraries(logging.Handler):
    """Brings what aiohttp, asyncio and the rest have to say into our form."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            said = record.getMessage()
        except Exception:  # arguments that do not fit must not fail who logs
            said = str(record.msg)
        level = min(50, record.levelno // 10 * 10)  # libraries may have levels of their own
        structlog.get_logger().log(level, "library.logged", library=record.name, said=said, exc_info=record.exc_info)


class Clean:
    """Shortens exceptions, masks secrets and takes the sting out of control characters, in every value."""

    def __init__(self, secrets: Iterable[str], *, detailed: bool) -> None:
        self._detailed = detailed
        known = {form for secret in secrets if len(secret) >= SHORTEST_SECRET for form in (secret, quote(secret, ""))}
        self._shortest = min([LONGEST_TEXT, *map(len, known)])
        self._secret = re.compile("|".join([*map(re.escape, sorted(known, key=len, reverse=True)), SHAPES]))
        self._recent = functools.lru_cache(maxsize=512)(self.text)  # most values come again and again

    def __call__(self, logger: WrappedLogger, method: str, facts: EventDict) -> EventDict:
        if "exc_info" in facts:
            facts.update(self.fault(facts.pop("exc_info")))
        for key, value in facts.items():
            kind = type(value)
            if kind is str:
                if not value.isalnum() or len(value) >= self._shortest:  # else no secret fits in, and it forges nothing
                    facts[key] = self._recent(value) if len(value) < 100 else self.text(value)
            elif value is not None and kind is not float:
                facts[key] = self.value(value)
        return facts

    def fault(self, found: object) -> dict[str, object]:
        """An exception's type, its words where they cannot be a customer's, its cause, and where in our code it was."""
        if found is True:
            found = sys.exc_info()
        error = found[1] if isinstance(found, tuple) else found
        if not isinstance(error, BaseException):
            return {}
        cause = error.__cause__ or error.__context__
        told: dict[str, object] = {"error": self.words(error), "where": where(error)}
        return {**told, "cause": self.words(cause)} if cause else told

    def words(self, error: BaseException) -> str:
        """Only machinery's own complaints are quoted; a ValueError, say, may hold what a customer wrote."""
        sqlite = any(base.__module__ == "sqlite3" for base in type(error).__mro__)
        machinery = isinstance(error, OSError | RelayError) or sqlite
        return f"{type(error).__name__}: {error}" if self._detailed or machinery else type(error).__name__

    def value(self, value: object) -> object:
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63):
            return value
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        return self.text(str(value))

    def text(self, text: str) -> str:
        text = self._secret.sub(lambda found: (found[1] or "") + "***", text)
        if not text.isprintable():
            text = FORGERY.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
        return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"


def where(error: BaseException) -> list[str]:
    """Our own innermost frames, outermost first; of a stranger's exception its last frame."""
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    own = [found for found in frames if found[0].co_filename.startswith(HOME)] or frames[-1:]
    return [f"{Path(code.co_filename).name}:{line} {code.co_name}" for code, line in own[-FRAMES:]]
