"""Log lines: one form, nothing secret, nothing forged."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from chatwoot_relay import telemetry
from chatwoot_relay.errors import ConfigurationError
from chatwoot_relay.settings import Secret, Settings

SECRETS = ["123456:AAF-bot-token", "s3cret&more", "abc"]


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """What is set up for a process is taken back after each test."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level, sys.excepthook, threading.excepthook)
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


HOME = Path(__file__).parent.parent


def set_up(stream: io.BytesIO | None = None, *, level: str = "info", form: str = "auto", **environ: str) -> io.BytesIO:
    stream = stream if stream is not None else io.BytesIO()
    telemetry.set_up_logs(level=level, form=form, secrets=SECRETS, stream=stream, environ=environ)
    return stream


def lines(stream: io.BytesIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_a_json_object_with_its_head_first() -> None:
    """Machines read it, and people read its beginning."""
    stream = set_up()
    structlog.get_logger().info("delivery.attempted", attempt=2, wait=3.5, tried=["a"], none=None)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert list(line.items()) == [
        ("level", "info"),
        ("event", "delivery.attempted"),
        ("attempt", 2),
        ("wait", 3.5),
        ("tried", ["a"]),
        ("none", None),
    ]


def test_a_terminal_gets_a_line_for_people() -> None:
    """Who starts it by hand reads along, in colours unless they are not wanted."""
    stream = set_up(Terminal())
    structlog.get_logger().warning("outbox.opened", path="/x.db", why="a b", rows=3)
    assert b"\x1b[33m\x1b[1mwarning" in stream.getvalue()
    stream = set_up(Terminal(), NO_COLOR="1")
    structlog.get_logger().warning("outbox.opened", path="/x.db", why="a b", rows=3)
    line = rb"\d\d:\d\d:\d\d \[warning  \] outbox.opened +path=/x.db why='a b' rows=3\n"
    assert re.fullmatch(line, stream.getvalue())


def test_the_form_can_be_chosen() -> None:
    """A container without a terminal may be read by people all the same, and the other way round."""
    stream = set_up(form="console")
    structlog.get_logger().info("a.b")
    assert stream.getvalue().endswith(b"[info     ] a.b\n")
    stream = set_up(Terminal(), form="json")
    structlog.get_logger().info("a.b")
    assert lines(stream)[0]["event"] == "a.b"


def test_journald_gets_priorities_and_no_time() -> None:
    """`journalctl -p err` works, and it keeps the time by itself."""
    read, write = os.pipe()
    status = os.fstat(write)
    with os.fdopen(read, "rb") as reader:
        with os.fdopen(write, "wb") as stream:
            telemetry.set_up_logs(
                level="debug",
                form="auto",
                secrets=[],
                stream=stream,
                environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"},
            )
            log = structlog.get_logger()
            for level in ("debug", "info", "warning", "error", "critical"):
                getattr(log, level)("a.b")
        assert reader.read().splitlines() == [
            b'<7>{"level":"debug","event":"a.b"}',
            b'<6>{"level":"info","event":"a.b"}',
            b'<4>{"level":"warning","event":"a.b"}',
            b'<3>{"level":"error","event":"a.b"}',
            b'<2>{"level":"critical","event":"a.b"}',
        ]


def test_another_stream_is_not_the_journal() -> None:
    """$JOURNAL_STREAM is inherited by children whose stderr goes elsewhere."""
    stream = set_up(JOURNAL_STREAM="1:2")
    structlog.get_logger().info("a.b")
    assert stream.getvalue().startswith(b'{"time"')


@pytest.mark.parametrize(
    "text",
    [
        "123456:AAF-bot-token",
        "https://api.telegram.org/bot123456:AAF-bot-token/getMe",
        "https://api.telegram.org/bot99:another-token/getMe",
        "POST /api/v1/chatwoot/alerts?token=s3cret%26more&x=1",
        "POST /alerts?token=other-s3cret HTTP/1.1",
        "Authorization: Bearer other-s3cret",
        "Basic b3RoZXItczNjcmV0",
        "s3cret&more",
    ],
)
@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_is_masked_wherever_it_turns_up(form: str, text: str) -> None:
    """Nobody thinks of every place: URLs, headers, errors, nested values, what libraries say."""
    stream = set_up(form=form, level="debug")
    structlog.get_logger().info("a.b", plain=text, nested={text: [(text,)]}, error=ConfigurationError(text))
    logging.getLogger("aiohttp").warning("failed: %s", text)
    try:
        raise OSError(text)
    except OSError:
        structlog.get_logger().exception("a.failed")
    assert not re.search(rb"AAF|another|s3cret|b3RoZX", stream.getvalue())
    assert stream.getvalue().count(b"***") >= 6


def test_a_short_secret_does_not_garble_the_lines() -> None:
    """`abc` as a secret would be found in every other word."""
    stream = set_up()
    structlog.get_logger().info("a.b", word="abcdef")
    assert lines(stream)[0]["word"] == "abcdef"


def test_a_secret_that_looks_like_an_id_is_masked() -> None:
    """Ids are let through unread, which is right only of what is shorter than every secret."""
    stream = io.BytesIO()
    telemetry.set_up_logs(level="info", form="json", secrets=["0123456789abcdef"], stream=stream, environ={})
    structlog.get_logger().info("a.b", near="0123456789abcde", same="0123456789abcdef", within="x0123456789abcdefx")
    assert list(lines(stream)[0].values())[3:] == ["0123456789abcde", "***", "x***x"]


HOSTILE = 'x\n{"event":"forged"}\r\x1b[31m\x00\x7f\x85\x9b1m\u2028\u2029\u202e\u2066\ud800y'


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_value_can_end_or_colour_or_reorder_a_line(form: str) -> None:
    """Newlines, ANSI escapes and bidi controls from a request are shown, not obeyed."""
    stream = set_up(form=form)
    structlog.get_logger().info("a.b", value=HOSTILE, nested=[HOSTILE], key={HOSTILE: 1}, large=2**70)
    logging.getLogger("aiohttp").error(HOSTILE)
    text = stream.getvalue().decode()
    assert len(text.splitlines()) == 2
    assert telemetry.FORGERY.sub("", text.replace("\n", "")) == text.replace("\n", "")


def test_a_long_value_is_cut() -> None:
    """A log line is no place for a body."""
    stream = set_up()
    structlog.get_logger().info("a.b", value="x" * 100_000)
    assert lines(stream)[0]["value"] == "x" * telemetry.LONGEST_TEXT + "…"


def test_values_of_any_kind_can_be_told() -> None:
    """A log line must never be what breaks."""
    stream = set_up()
    settings = Settings(telegram_bot_token=Secret("123456:AAF-bot-token"), telegram_chat_id=1)
    structlog.get_logger().info("a.b", settings=settings, data=b"\xff", big=2**70, nan=float("nan"), members={1})
    (line,) = lines(stream)
    assert line["settings"].startswith("Settings(telegram_bot_token=***")
    assert (line["data"], line["big"], line["nan"], line["members"]) == ("b'\\xff'", str(2**70), None, [1])


def fail(error: BaseException) -> None:
    raise error


def test_an_exception_is_told_by_type_and_place_but_not_with_a_customers_words() -> None:
    """A ValueError's text may be what a customer wrote; at debug it is shown."""
    for level, expected in [("info", "KeyError"), ("debug", "KeyError: 'customer text'")]:
        stream = set_up(level=level)
        try:
            fail(KeyError("customer text"))
        except KeyError:
            structlog.get_logger().error("a.failed", exc_info=True)
        (line,) = lines(stream)
        assert line["error"] == expected
        assert re.fullmatch(r"test_telemetry.py:\d+ fail", line["where"][0])


def test_machinery_is_quoted() -> None:
    """ "Disk full" is what the operator must read."""
    stream = set_up()
    for error in (OSError(28, "No space left on device"), sqlite3.OperationalError("database is locked")):
        structlog.get_logger().error("a.failed", exc_info=error)
    assert [line["error"] for line in lines(stream)] == [
        "OSError: [Errno 28] No space left on device",
        "OperationalError: database is locked",
    ]


def test_our_own_frames_are_told_and_the_cause() -> None:
    """The place in our code matters, not the library's depths below it."""
    stream = set_up()
    try:
        try:
            telemetry.Forgiving(None).write(b"")  # type: ignore[arg-type]
        except AttributeError as cause:
            raise RuntimeError("words") from cause
    except RuntimeError as error:
        structlog.get_logger().error("a.failed", exc_info=error)
        structlog.get_logger().error("a.failed", exc_info=error.__cause__)
    first, second = lines(stream)
    assert (first["error"], first["cause"]) == ("RuntimeError", "AttributeError")
    assert re.fullmatch(r"telemetry.py:\d+ write", second["where"][0])


def test_no_exception_at_hand_is_no_error() -> None:
    """Libraries pass exc_info=True outside of any handler."""
    stream = set_up()
    structlog.get_logger().error("a.failed", exc_info=True)
    structlog.get_logger().error("a.failed", exc_info=False)
    logging.getLogger("x").error("said", exc_info=(None, None, None))
    assert [line for line in lines(stream) if "where" in line] == []


def test_libraries_speak_in_our_form_and_warnings_too() -> None:
    """One stream, one form: a parser must not stumble over aiohttp. A process of its own, for warnings are global."""
    code = """if True:
        import logging, warnings
        from chatwoot_relay.telemetry import set_up_logs
        set_up_logs(level="info", form="json", secrets=[])
        logging.getLogger("aiohttp.server").error("Error handling %s", "request")
        logging.getLogger("asyncio").debug("Using selector")
        warnings.warn("old", DeprecationWarning)
    """
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], cwd=HOME, capture_output=True, check=True)
    first, second = (json.loads(line) for line in done.stderr.splitlines())
    assert (first["event"], first["library"], first["said"]) == (
        "library.logged",
        "aiohttp.server",
        "Error handling request",
    )
    assert second["library"] == "py.warnings"


def test_a_library_that_logs_wrongly_is_logged_all_the_same() -> None:
    """Arguments that do not fit, and levels that we do not know, must not fail an alert."""
    stream = set_up()
    logging.getLogger("x").warning("%d of %d", "one")  # noqa: PLE1206
    logging.getLogger("x").log(25, "notice")
    logging.getLogger("x").log(70, "alarm")
    assert [(line["level"], line["said"]) for line in lines(stream)] == [
        ("warning", "%d of %d"),
        ("info", "notice"),
        ("critical", "alarm"),
    ]


def test_what_is_below_the_level_is_not_written() -> None:
    """RELAY_LOG_LEVEL."""
    stream = set_up(level="warning")
    structlog.get_logger().info("a.b")
    logging.getLogger("x").info("said")
    assert stream.getvalue() == b""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_crash_is_one_line() -> None:
    """Python's own traceback shows source lines and values; ours is one line that says where."""
    stream = set_up()
    thread = threading.Thread(target=fail, args=(ValueError("customer text"),))
    thread.start()
    thread.join()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    (line,) = lines(stream)
    assert (line["level"], line["event"], line["error"]) == ("critical", "process.crashed", "ValueError")


def test_a_reader_that_went_away_stops_nothing() -> None:
    """A closed pipe or stream makes no alert fail."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", buffering=0) as stream:
        telemetry.set_up_logs(level="info", form="json", secrets=[], stream=stream, environ={})
        structlog.get_logger().info("a.b")
    structlog.get_logger().info("a.b")
