"""What the operator set: one declaration, four sources, every complaint at once."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatwoot_relay import settings
from chatwoot_relay.errors import ConfigurationError
from chatwoot_relay.settings import Rate, Secret, Settings

NEEDED = {"TELEGRAM_BOT_TOKEN": "123:abc", "TELEGRAM_CHAT_ID": "-1001"}


def load(tmp_path: Path, **environ: str) -> Settings:
    return settings.load(NEEDED | environ, directory=tmp_path)


def complaints(tmp_path: Path, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, **environ)
    return caught.value.complaints


def test_two_settings_are_enough(tmp_path: Path) -> None:
    """The first start needs a token and a chat; the rest has defaults."""
    assert load(tmp_path) == Settings(telegram_bot_token=Secret("123:abc"), telegram_chat_id=-1001)


def test_defaults_are_the_promised_ones() -> None:
    """Operators read them in the table and rely on them."""
    defaults = Settings(telegram_bot_token=Secret("1:a"), telegram_chat_id="@team")
    assert defaults.telegram_api_url == "https://api.telegram.org"
    assert (defaults.relay_host, defaults.relay_port) == ("127.0.0.1", 8080)
    assert defaults.relay_reply_timeout == 3.0
    assert defaults.relay_rate_limit == Rate(100, 60)
    assert [str(network) for network in defaults.relay_trusted_proxies] == ["127.0.0.1/32", "::1/128"]
    assert defaults.relay_events == {"useful"}
    assert (defaults.relay_max_age, defaults.relay_retention) == (72 * 3600, 7 * 86400)
    assert (defaults.relay_pacing, defaults.relay_docs, defaults.relay_allow_anonymous) == (True, True, False)
    assert (defaults.relay_log_level, defaults.relay_log_format) == ("info", "auto")
    assert defaults.relay_database == Path("outbox.db")
    assert (defaults.relay_token, defaults.chatwoot_webhook_secret, defaults.chatwoot_url) == (None, (), None)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("TELEGRAM_CHAT_ID", "@my_channel", "@my_channel"),
        ("TELEGRAM_CHAT_ID", " 42 ", 42),
        ("TELEGRAM_THREAD_ID", "1", 1),
        ("TELEGRAM_API_URL", "http://127.0.0.1:8081/", "http://127.0.0.1:8081"),
        ("TELEGRAM_API_URL", "http://[::1]:8081", "http://[::1]:8081"),
        ("CHATWOOT_URL", "https://app.chatwoot.com/", "https://app.chatwoot.com"),
        ("CHATWOOT_ACCOUNT_ID", "7", 7),
        ("CHATWOOT_WEBHOOK_SECRET", "one, two", (Secret("one"), Secret("two"))),
        ("RELAY_HOST", "localhost", "localhost"),
        ("RELAY_HOST", "[::1]", "::1"),
        ("RELAY_PORT", "0", 0),
        ("RELAY_REPLY_TIMEOUT", "0", 0.0),
        ("RELAY_REPLY_TIMEOUT", "0.25", 0.25),
        ("RELAY_REPLY_TIMEOUT", "4s", 4.0),
        ("RELAY_RATE_LIMIT", "off", None),
        ("RELAY_RATE_LIMIT", "5/second", Rate(5, 1)),
        ("RELAY_RATE_LIMIT", "1000/Hour", Rate(1000, 3600)),
        ("RELAY_TRUSTED_PROXIES", "10.0.0.7/8", (ipaddress.ip_network("10.0.0.0/8"),)),
        ("RELAY_TRUSTED_PROXIES", "off", ()),
        ("RELAY_EVENTS", "Useful, conversation_created", frozenset({"useful", "conversation_created"})),
        ("RELAY_PACING", "off", False),
        ("RELAY_MAX_AGE", "90s", 90.0),
        ("RELAY_MAX_AGE", "15m", 900.0),
        ("RELAY_MAX_AGE", "72H", 259200.0),
        ("RELAY_RETENTION", "7d", 604800.0),
        ("RELAY_RETENTION", "86400", 86400.0),
        ("RELAY_LOG_LEVEL", "DEBUG", "debug"),
        ("RELAY_LOG_FORMAT", "json", "json"),
        ("RELAY_DOCS", "off", False),
        ("RELAY_DOCS_ASSETS", "https://static.example.com/ui", "https://static.example.com/ui"),
        ("RELAY_DATABASE", "/var/lib/x.db", Path("/var/lib/x.db")),
    ],
)
def test_each_kind_of_value_is_understood(tmp_path: Path, name: str, text: str, value: object) -> None:
    """The forms stand in the table of settings."""
    assert getattr(load(tmp_path, **{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("TELEGRAM_BOT_TOKEN", "hunter2-hunter2", "@BotFather"),
        ("TELEGRAM_BOT_TOKEN", "123:abc def", "@BotFather"),
        ("TELEGRAM_CHAT_ID", "https://t.me/team", "@name"),
        ("TELEGRAM_CHAT_ID", "team", "put an @"),
        ("TELEGRAM_CHAT_ID", "my team", "chatwoot-relay chats"),
        ("TELEGRAM_CHAT_ID", "0", "numeric"),
        ("TELEGRAM_CHAT_ID", "١٢٣", "numeric"),
        ("TELEGRAM_THREAD_ID", "0", "whole number"),
        ("TELEGRAM_THREAD_ID", "1_0", "whole number"),
        ("TELEGRAM_API_URL", "api.telegram.org", "http://"),
        ("TELEGRAM_API_URL", "ftp://api.telegram.org", "http://"),
        ("TELEGRAM_API_URL", "https://", "http://"),
        ("TELEGRAM_API_URL", "https://host:port", "http://"),
        ("TELEGRAM_API_URL", "https://[::1", "http://"),
        ("TELEGRAM_API_URL", "https://a b", "http://"),
        ("TELEGRAM_API_URL", "https://api.telegram.org/bot123:abc", "base URL alone"),
        ("TELEGRAM_API_URL", "https://api.telegram.org/bot/", "base URL alone"),
        ("CHATWOOT_URL", "https://me:hunter2@host", "base URL alone"),
        ("CHATWOOT_URL", "https://host/?a=b", "base URL alone"),
        ("CHATWOOT_URL", "https://host/?", "base URL alone"),
        ("CHATWOOT_URL", "https://host/#", "base URL alone"),
        ("CHATWOOT_ACCOUNT_ID", "-1", "whole number"),
        ("CHATWOOT_WEBHOOK_SECRET", "one,,two", "single commas"),
        ("RELAY_HOST", "http://0.0.0.0", "127.0.0.1"),
        ("RELAY_HOST", "127.0.0.1:80", "without a port"),
        ("RELAY_HOST", "999.1.1.1", "127.0.0.1"),
        ("RELAY_PORT", "65536", "65535"),
        ("RELAY_ALLOW_ANONYMOUS", "perhaps", "on nor off"),
        ("RELAY_REPLY_TIMEOUT", "5", "0 to 4"),
        ("RELAY_REPLY_TIMEOUT", "soon", "90s"),
        ("RELAY_RATE_LIMIT", "100", "100/minute"),
        ("RELAY_RATE_LIMIT", "0/minute", "100/minute"),
        ("RELAY_TRUSTED_PROXIES", "proxy.local", "10.0.0.0/8"),
        ("RELAY_TRUSTED_PROXIES", "10.0.0.1,", "10.0.0.0/8"),
        ("RELAY_EVENTS", "useful,,", "useful, all, handoff"),
        ("RELAY_PACING", "on", "telegram, off"),
        ("RELAY_MAX_AGE", "0", "outside"),
        ("RELAY_MAX_AGE", "99999999d", "outside of 1 to 315360000 seconds"),
        ("RELAY_LOG_LEVEL", "loud", "debug, info"),
        ("RELAY_LOG_FORMAT", "xml", "auto, json"),
        ("RELAY_DOCS", "2", "on nor off"),
        ("RELAY_DATABASE", "a\nb", "control character"),
        ("RELAY_TOKEN", "hunter2\udcff", "not UTF-8"),
    ],
)
def test_a_complaint_names_the_variable_and_the_next_step_but_not_the_value(
    tmp_path: Path, name: str, text: str, hint: str
) -> None:
    """A value may be a secret in the wrong place, so none is ever repeated."""
    (complaint,) = complaints(tmp_path, **{name: text})
    assert complaint.startswith(name)
    assert hint in complaint
    assert "hunter2" not in complaint
    assert "123:abc" not in complaint


def test_all_complaints_come_at_once(tmp_path: Path) -> None:
    """Who sets a service up should not start it five times."""
    with pytest.raises(ConfigurationError) as caught:
        settings.load({"RELAY_PORT": "x", "RELAY_HOST": "0.0.0.0"}, directory=tmp_path)
    assert [complaint.split()[0] for complaint in caught.value.complaints] == [
        "TELEGRAM_BOT_TOKEN",
        "TELEGRAM_CHAT_ID",
        "RELAY_PORT",
        "RELAY_TOKEN",
    ]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "relay.example.com"])
def test_a_public_address_needs_a_token(tmp_path: Path, host: str) -> None:
    """Anyone could write into the team's chat otherwise."""
    (complaint,) = complaints(tmp_path, RELAY_HOST=host)
    assert complaint.startswith("RELAY_TOKEN is missing")
    assert load(tmp_path, RELAY_HOST=host, RELAY_TOKEN="s3cret").relay_host == host
    assert load(tmp_path, RELAY_HOST=host, RELAY_ALLOW_ANONYMOUS="yes").relay_host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LOCALHOST"])
def test_loopback_needs_none(tmp_path: Path, host: str) -> None:
    """Only this machine can reach it."""
    assert settings.is_loopback(load(tmp_path, RELAY_HOST=host).relay_host)


def test_sources_are_asked_in_the_promised_order(tmp_path: Path) -> None:
    """Environment, NAME_FILE, credential, .env (and a file that it names), default."""
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    for name, text in [("by-file", "from-file\n"), ("by-dotenv", "from-dotenv-file")]:
        (tmp_path / name).write_text(text)
    (credentials / "RELAY_TOKEN").write_text("from-credential\n")
    (tmp_path / ".env").write_text(f"RELAY_TOKEN=from-dotenv\nRELAY_TOKEN_FILE={tmp_path / 'by-dotenv'}\n")
    environ = {
        "RELAY_TOKEN": "from-environment",
        "RELAY_TOKEN_FILE": str(tmp_path / "by-file"),
        "CREDENTIALS_DIRECTORY": str(credentials),
    }
    for expected in ["from-environment", "from-file", "from-credential"]:
        token = load(tmp_path, **environ).relay_token
        assert token is not None
        assert token.reveal() == expected
        del environ[next(iter(environ))]
    assert load(tmp_path).relay_token == Secret("from-dotenv")
    (tmp_path / ".env").write_text(f"RELAY_TOKEN=\nRELAY_TOKEN_FILE={tmp_path / 'by-dotenv'}\n")
    assert load(tmp_path).relay_token == Secret("from-dotenv-file")
    (tmp_path / ".env").unlink()
    assert load(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path / "gone")).relay_token is None


def test_an_empty_variable_is_not_set(tmp_path: Path) -> None:
    """Compose files and units pass empty ones on."""
    (tmp_path / ".env").write_text("RELAY_PORT=\nRELAY_DOCS\n")
    assert load(tmp_path, RELAY_TOKEN="", RELAY_PORT=" ", RELAY_TOKEN_FILE="") == load(tmp_path)


def test_dollar_signs_in_dotenv_stay(tmp_path: Path) -> None:
    """A generated secret may hold ${…}; expanding it would change the secret in silence."""
    (tmp_path / ".env").write_text("RELAY_TOKEN='a${HOME}b'\n")
    assert load(tmp_path).relay_token == Secret("a${HOME}b")


def test_a_file_that_cannot_be_used_is_a_complaint(tmp_path: Path) -> None:
    """A secret was meant: going on without it would open a door."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_text("x" * (settings.LARGEST_FILE + 1))
    for path, reason in [("gone", "cannot be read"), ("empty", "empty"), ("latin", "UTF-8"), ("large", "too large")]:
        (complaint,) = complaints(tmp_path, RELAY_HOST="0.0.0.0", RELAY_TOKEN_FILE=str(tmp_path / path))
        assert complaint.startswith("RELAY_TOKEN_FILE")
        assert reason in complaint


def test_a_broken_credential_is_a_complaint(tmp_path: Path) -> None:
    """The same holds for systemd's credentials."""
    (tmp_path / "RELAY_TOKEN").write_text("")
    (complaint,) = complaints(tmp_path, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert complaint.startswith("RELAY_TOKEN in $CREDENTIALS_DIRECTORY")
    (complaint, *_) = complaints(tmp_path, CREDENTIALS_DIRECTORY="x" * 5000)
    assert "cannot be read" in complaint


def test_an_unreadable_dotenv_is_a_complaint(tmp_path: Path) -> None:
    """Half of the settings would be missing otherwise, for no visible reason."""
    (tmp_path / ".env").write_bytes(b"RELAY_PORT=\xff")
    (complaint,) = complaints(tmp_path)
    assert complaint == ".env in the working directory cannot be read: make it UTF-8"
    assert settings.unknown({}, directory=tmp_path) == []


def test_what_an_unreadable_dotenv_may_hold_is_not_called_missing(tmp_path: Path) -> None:
    """One mistake is one complaint; another mistake beside it is told all the same."""
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigurationError) as complaint:
        settings.load({"RELAY_HOST": "0.0.0.0", "RELAY_PORT": "x"}, directory=tmp_path)
    first, second = complaint.value.complaints
    assert first == ".env in the working directory cannot be read (Is a directory): check its owner"
    assert second.startswith("RELAY_PORT ")


def test_the_complaint_names_the_source(tmp_path: Path) -> None:
    """Where to mend it."""
    (tmp_path / ".env").write_text("RELAY_PORT=x\n")
    (complaint,) = complaints(tmp_path)
    assert complaint.startswith("RELAY_PORT in .env")


def test_the_state_directory_holds_the_outbox(tmp_path: Path) -> None:
    """systemd names one or several; a path that was set wins."""
    assert load(tmp_path, STATE_DIRECTORY="/var/lib/a:/var/lib/b").relay_database == Path("/var/lib/a/outbox.db")
    assert load(tmp_path, STATE_DIRECTORY="/var/lib/a", RELAY_DATABASE="/x.db").relay_database == Path("/x.db")


def test_a_command_may_ask_for_a_few_settings_only(tmp_path: Path) -> None:
    """`outbox list` needs no token, and a wrong port is not its business."""
    environ = {"RELAY_PORT": "x", "RELAY_HOST": "0.0.0.0", "STATE_DIRECTORY": "/s"}
    found = settings.load(environ, directory=tmp_path, only={"relay_database"})
    assert found.relay_database == Path("/s/outbox.db")
    assert (found.telegram_bot_token.reveal(), found.telegram_chat_id) == ("", 0)


def test_a_secret_shows_itself_to_nobody(tmp_path: Path) -> None:
    """Settings end up in reprs, logs and tracebacks."""
    found = load(tmp_path, RELAY_TOKEN="hunter2", CHATWOOT_WEBHOOK_SECRET="hunter3")
    assert not re.search("hunter|123:abc", f"{found!r} {found} {found.relay_token} {found.chatwoot_webhook_secret}")


def test_a_line_of_dotenv_that_cannot_be_read_is_a_complaint(tmp_path: Path) -> None:
    """Were it skipped, the relay would run without the token that stands there."""
    (tmp_path / ".env").write_text('RELAY_DOCS=off\nRELAY_TOKEN: hunter2\n\nCHATWOOT_WEBHOOK_SECRET="hunter3\n')
    with pytest.raises(ConfigurationError) as complaint:
        load(tmp_path)
    assert complaint.value.complaints == (
        "RELAY_TOKEN in .env, line 2, cannot be read: write NAME=value",
        "CHATWOOT_WEBHOOK_SECRET in .env, line 4, cannot be read: write NAME=value",
    )


def test_a_database_whose_path_cannot_be_followed_is_a_complaint(tmp_path: Path) -> None:
    """No traceback: a link in a circle, a name that is too long."""
    (tmp_path / "loop").symlink_to("loop")
    for name in (str(tmp_path / "loop"), "x" * 5000):
        with pytest.raises(ConfigurationError, match="RELAY_DATABASE is no path"):
            load(tmp_path, RELAY_DATABASE=name)


def test_open_routes_are_named(tmp_path: Path) -> None:
    """A proxy may publish what listens on loopback."""
    assert [line.split()[0] for line in settings.open_routes(load(tmp_path))] == [
        "/api/v1/chatwoot/alerts",
        "/api/v1/chatwoot/webhook",
    ]
    assert len(settings.open_routes(load(tmp_path, CHATWOOT_WEBHOOK_SECRET="s"))) == 1
    assert settings.open_routes(load(tmp_path, RELAY_TOKEN="s")) == []


def test_event_names_that_nobody_sends_are_named(tmp_path: Path) -> None:
    """A mistyped name forwards nothing, and silence looks like peace."""
    found = load(tmp_path, RELAY_EVENTS="usefull,conversation_updatd,message_created")
    assert settings.unknown_events(found, {"message_created"}) == [
        ("conversation_updatd", "correct or remove it"),
        ("usefull", "write useful"),
    ]


def test_mistyped_variables_are_named(tmp_path: Path) -> None:
    """RELAY_TOKN would leave the door open in silence; others' variables are none of our business."""
    (tmp_path / ".env").write_text("TELEGRAM_CHATID=1\n")
    environ = {"RELAY_TOKN": "x", "RELAY_COLOUR": "x", "CHATWOOT_DB": "x", "RELAY_TOKEN_FILE": "x", "PATH": "x"}
    assert settings.unknown(environ, directory=tmp_path) == [
        "RELAY_COLOUR is no setting of ours",
        "RELAY_TOKN is no setting of ours: do you mean RELAY_TOKEN?",
        "TELEGRAM_CHATID is no setting of ours: do you mean TELEGRAM_CHAT_ID?",
    ]


def test_help_names_every_setting_and_fits_a_terminal() -> None:
    """One declaration: no text can forget a row. 80 columns are what people have."""
    assert [name for name in settings.NAMES if name not in settings.help_text()] == []
    assert [line for line in settings.help_text().splitlines() if len(line) > 79] == []


@given(st.sampled_from(settings.NAMES), st.text(min_size=1))
def test_no_text_is_more_than_a_complaint(name: str, text: str) -> None:
    """Whatever stands in a variable, the answer is a value or a complaint that begins with its name."""
    told: tuple[str, ...] = ()
    try:
        settings.load(NEEDED | {name: text}, directory=Path("/nonexistent"))
    except ConfigurationError as error:
        told = error.complaints
    assert [complaint for complaint in told if not complaint.startswith((name, "RELAY_TOKEN"))] == []
