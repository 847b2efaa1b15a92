"""An alert reads to the letter as promised, and every input gives a text that Telegram parses and that fits."""

from __future__ import annotations

import html
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from judge import live, parsed

from chatwoot_relay import door, render
from chatwoot_relay.markup import is_blank, plain, units
from chatwoot_relay.models import Alert, Notice
from chatwoot_relay.render import Links, trim

SAMPLES = sorted((Path(__file__).parent / "samples" / "alerts").glob("*.json"))
LEAST = Alert(severity="high", reason="WHY", conversation_id=12345, message="Help")


def shown(content: Alert | Notice, **how: Any) -> str:
    """The text that the chat shows."""
    return parsed(render.render(content, **how))[0]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.stem)
def test_every_sample_reads_to_the_letter(sample: Path) -> None:
    """The text is a promise: people filter and search by it."""
    alert = door.read_alert(door.parse(sample.read_bytes()))
    assert shown(alert) == sample.with_suffix(".txt").read_text().removesuffix("\n")
    assert shown(trim(alert)) == shown(alert)


# --- whatever comes in ---

HOSTILE = st.one_of(
    st.text(st.one_of(st.characters(), st.sampled_from("@/#<>&\"'{}\n\u202e\u0301👨\u200d\ud800a1 ")), max_size=60),
    st.builds(
        lambda piece, times: piece * times,
        st.sampled_from([
            "@name ", "/a ", "##a", '"', "'", "&", "<b>", "\u0301", "👨\u200d👩\u200d👧", "𝕳", "\n", " ", "\x00",
            "\u202e", "ΐ", "ﷺ", "{", "https://ex.com/@name1#a ", "http://a.b/", "\ud800", "x", "日本",
        ]),
        st.sampled_from([1, 2, 50, 99, 300, 501, 2500]),
    ),
)  # fmt: skip
MAYBE = st.none() | HOSTILE
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=6,
)
ALERTS = st.builds(
    Alert,
    severity=HOSTILE, reason=HOSTILE, conversation_id=st.integers(1, 2**63 - 1), message=HOSTILE,
    customer_name=MAYBE, customer_email=MAYBE, timestamp=MAYBE, chatwoot_url=MAYBE,
    additional_info=st.none() | st.dictionaries(HOSTILE, JSON_VALUES, max_size=30), left_out=st.integers(0, 9),
)  # fmt: skip
NOTICES = st.builds(
    Notice,
    event=HOSTILE, headline=HOSTILE, facts=st.lists(st.tuples(HOSTILE, HOSTILE), max_size=30).map(tuple),
    message=MAYBE, url=MAYBE, conversation_id=st.none() | st.integers(1, 2**63 - 1), silent=st.booleans(),
)  # fmt: skip
HOW = st.fixed_dictionaries({
    "late": st.sampled_from([0.0, 61.0, 1e9]),
    "repeat": st.booleans(),
    "shorter": st.booleans(),
    "links": st.sampled_from([Links(), Links(base="https://desk.example", account=3)]),
})  # fmt: skip
HUGE = "𝕳" * 3000
WORST = Alert(
    severity=HUGE, reason=HUGE, conversation_id=2**63 - 1, message=HUGE, customer_name=HUGE, customer_email=HUGE,
    timestamp=HUGE, chatwoot_url=HUGE, additional_info={f"{n}{HUGE}": HUGE for n in range(30)}, left_out=9,
)  # fmt: skip
QUOTES = attrs.evolve(
    WORST, chatwoot_url="http://a.b/" + '"' * 985, additional_info={f"{n}" + "'" * 99: "'" * 999 for n in range(30)},
    **dict.fromkeys(("severity", "reason", "message", "customer_name", "customer_email", "timestamp"), "'" * 999),
)  # fmt: skip
WORST_NOTICE = Notice(event=HUGE, headline=HUGE, facts=((HUGE, HUGE),) * 30, message=HUGE, url=HUGE)
FULL_HOW = {"late": 1e9, "repeat": True, "shorter": False, "links": Links()}


@settings(max_examples=60)
@given(ALERTS | NOTICES, HOW)
@example(WORST, FULL_HOW)
@example(QUOTES, FULL_HOW)
@example(WORST_NOTICE, FULL_HOW)
@example(Notice(event="", headline=" "), FULL_HOW)
def test_whatever_comes_in_parses_fits_and_calls_nobody(content: Alert | Notice, how: dict[str, Any]) -> None:
    """One text that Telegram refuses is a customer who waits for nothing."""
    markup = render.render(content, **how)
    text, marks = parsed(markup)
    assert text.strip()
    assert units(text) <= 4096
    assert units(plain(markup)) <= 4096
    assert len(markup.encode()) <= 32768
    assert len(marks) <= 100
    assert not [found for found in live(text) if found[0] in ("Mention", "BotCommand", "Hashtag")]
    assert {kind for kind, _, _ in marks} <= {"Bold", "TextUrl", "Code"}


@settings(max_examples=60)
@given(ALERTS | NOTICES, HOW)
@example(WORST, FULL_HOW)
@example(attrs.evolve(LEAST, additional_info={"k" * 50 + str(n): n for n in range(25)}), FULL_HOW)
def test_what_is_kept_renders_to_the_same_text_and_is_small(content: Alert | Notice, how: dict[str, Any]) -> None:
    """The outbox keeps what can be shown and no more: memory and disk do not follow a body's size."""
    kept = trim(content)
    assert render.render(kept, **how) == render.render(content, **how)
    assert trim(kept) == kept
    assert len(msgspec.json.encode(kept)) < 60_000


# --- the message ---


def message_of(message: str) -> str:
    return shown(attrs.evolve(LEAST, message=message)).partition("\n\nMessage:\n")[2]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("a" * 500, "a" * 500),
        ("a" * 501, "a" * 500 + "…"),
        ("a" * 499 + "🙂🙂", "a" * 499 + "🙂…"),
        ("a" * 499 + "🇩🇪", "a" * 499 + "…"),
        ("a" * 498 + "👍🏽!", "a" * 498 + "👍🏽…"),
        ("a" * 499 + "👍🏽!", "a" * 499 + "…"),
        ("e\u0301" * 501, "é" * 500 + "…"),
        ("\u202e" * 3000 + "a" * 500, "a" * 500),
        ("z" + "\u0301" * 700, ("ź" + "\u0301" * 699)[:500] + "…"),
        ("a" * 10 + "z" + "\u0308" * 700, "a" * 10 + "…"),
        ("a" * 500 + "…", "a" * 500 + "…"),
        ("a" * 500 + "\n", "a" * 500 + "…"),
    ],
)
def test_a_message_is_cut_at_500_code_points_after_cleaning(written: str, told: str) -> None:
    """Back to a whole grapheme; through one only where it fills the limit by itself."""
    assert message_of(written) == told


def test_a_notices_message_is_cut_at_300() -> None:
    """Plain events are many: their texts are shorter."""
    notice = Notice(event="message_created", headline="💬 Jane", message="x" * 301)
    assert shown(notice) == "💬 Jane\n\nMessage:\n" + "x" * 300 + "…"


def test_a_notice_tells_its_lines_in_order_and_no_blank_one() -> None:
    """The first line is the push preview; what is unknown is left out."""
    notice = Notice(
        event="message_created", headline="💬 Jane: hi", facts=(("Status", "open"), ("From", " "), ("Inbox", "Web")),
        message="hi", url="https://desk.example/1",
    )  # fmt: skip
    assert shown(notice) == "💬 Jane: hi\n\nStatus: open\nInbox: Web\n\nMessage:\nhi\n\n🔗 View in Chatwoot"


# --- additional_info ---


def info_of(info: dict[str, Any], **members: Any) -> list[str]:
    text = shown(attrs.evolve(LEAST, additional_info=info, **members))
    assert shown(trim(attrs.evolve(LEAST, additional_info=info, **members))) == text
    return text.partition("\n\nAdditional Info:\n")[2].splitlines()


@pytest.mark.parametrize("count", [1, 19, 20, 21, 100, 5000])
def test_a_long_list_says_exactly_how_much_more_there_is(count: int) -> None:
    """Nothing is left out in silence."""
    lines = info_of({f"key_{n}": f"value_{n}" for n in range(count)})
    assert lines[:20] == [f"  • key_{n}: value_{n}" for n in range(min(count, 20))]
    assert lines[20:] == ([f"  … and {count - 20} more"] if count > 20 else [])


def test_blank_members_are_neither_told_nor_counted() -> None:
    """A line whose value is blank is left out, before the list is cut."""
    blank = {f"blank_{n}": " \u202e\n" for n in range(30)}
    assert info_of({**blank, "a": "b"}) == ["  • a: b"]
    assert info_of(blank) == []
    many = {f"k{n}": n for n in range(25)}
    assert info_of({**blank, **many, "": ""})[-1] == "  … and 5 more"


@pytest.mark.parametrize("unseen", ["\u200b\u2060\u00ad\ufeff", "\u3164", "\u2800", "\ufe0f", "\U000e0020"])
def test_what_is_not_seen_is_blank(unseen: str) -> None:
    """A label with nothing behind it looks like a fault of ours."""
    assert info_of({"a": unseen}) == []
    alert = Alert(severity="low", reason="R", conversation_id=1, message="m", customer_name=unseen)
    assert "Customer" not in render.render(alert)
    assert is_blank(unseen)
    assert not is_blank(unseen + "\u0301.")


def test_members_whose_names_are_the_same_when_cut_are_all_told() -> None:
    """A long common prefix must not hide a value."""
    lines = info_of({"k" * 60 + str(n): n for n in range(4)})
    assert lines == [f"  • {'k' * 40}…: {n}" for n in range(4)]


def test_a_list_ends_where_the_text_is_full_and_counts_the_rest() -> None:
    """Emoji are two units each: twenty full lines of them do not fit."""
    lines = info_of({f"{n}": "🙂" * 200 for n in range(30)}, message="🙂" * 500)
    assert 5 < len(lines) < 20
    assert lines[-1] == f"  … and {30 - (len(lines) - 1)} more"


def test_what_was_left_out_before_is_still_counted() -> None:
    """The outbox keeps twenty members and the number of the others."""
    kept = trim(trim(attrs.evolve(LEAST, additional_info={f"k{n}": n for n in range(50)})))
    assert kept.left_out == 30
    assert len(kept.additional_info or ()) == 20


@pytest.mark.parametrize("depth", [100, door.MAX_DEPTH - 2])
def test_a_value_nested_as_deep_as_the_door_allows_is_told(depth: int) -> None:
    """It is silly, and no reason to lose a customer."""
    body = b'{"severity":"low","reason":"r","conversation_id":1,"message":"m","additional_info":{"a":%s%s}}'
    alert = door.read_alert(door.parse(body % (b"[" * depth, b"]" * depth)))
    assert shown(alert).endswith("  • a: " + "[" * 100 + ("…" if depth > 50 else ""))


# --- the link ---


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)", "ftp://x.example/y", "tg://user?id=1", "www.example.com/1", "data:text/html,x", "http://",
        "https:///x", "http://a b.example/", "http://x.example/\ny", "http://[::1", "mailto:a@b.example", "x",
        "http://x.example/" + "a" * 2000, "http://x.example/" + '"' * 1200,
    ],
)  # fmt: skip
def test_what_is_no_link_of_the_web_is_shown_and_not_live(url: str) -> None:
    """It may help to see it; it must not be tapped."""
    text, marks = parsed(render.render(attrs.evolve(LEAST, chatwoot_url=url)))
    told = " ".join(url.split())
    told = told if len(told) <= 100 else told[:100] + "…"
    assert text.endswith("\n\n🔗 " + told)
    assert [(kind, words) for kind, words, _ in marks if kind != "Bold"] == [("Code", told)]


@pytest.mark.parametrize(
    "url", ["https://app.example.com/a?b=1&c=2#d", "HTTP://X.example", "http://10.0.0.1:3000/x", "https://x.example/ü'"]
)
def test_a_link_of_the_web_is_the_words_view_in_chatwoot(url: str) -> None:
    """One tap from the phone to the conversation."""
    markup = render.render(attrs.evolve(LEAST, chatwoot_url=url))
    assert html.unescape(re.findall('href="(.*?)"', markup)[0]) == url
    assert [words for kind, words, _ in parsed(markup)[1] if kind == "TextUrl"] == ["View in Chatwoot"]


def test_a_link_is_made_from_the_dashboard_where_both_its_parts_are_known() -> None:
    """Most senders know the number alone; half an address leads nowhere."""
    links = Links(base="https://desk.example", account=3)
    assert 'href="https://desk.example/app/accounts/3/conversations/12345"' in render.render(LEAST, links=links)
    own = attrs.evolve(LEAST, chatwoot_url="https://own.example/1")
    assert 'href="https://own.example/1"' in render.render(own, links=links)
    blank = attrs.evolve(LEAST, chatwoot_url=" \n")
    assert render.render(blank, links=links) == render.render(LEAST, links=links)
    for part in (Links(base="https://desk.example"), Links(account=3)):
        assert "🔗" not in render.render(LEAST, links=part)


# --- marks ---


@pytest.mark.parametrize(
    ("late", "mark"),
    [
        (0, ""), (60, ""), (60.5, "\n\n⏱ 1 min late"),
        (12 * 60 + 59, "\n\n⏱ 12 min late"), (7199, "\n\n⏱ 119 min late"),
        (7200, "\n\n⏱ 2 h late"), (47.9 * 3600, "\n\n⏱ 47 h late"), (72 * 3600, "\n\n⏱ 3 d late"),
    ],
)  # fmt: skip
def test_an_alert_that_is_told_late_says_so(late: float, mark: str) -> None:
    """More than a minute after it was accepted, the customer has gone on waiting."""
    assert shown(LEAST, late=late) == shown(LEAST) + mark


def test_both_marks_follow_at_the_very_end() -> None:
    """After the list too, each behind a blank line."""
    alert = attrs.evolve(LEAST, additional_info={"a": "b"})
    assert shown(alert, late=720, repeat=True).endswith("\n  • a: b\n\n⏱ 12 min late\n\n🔁 May be a repeat")
    assert shown(alert, repeat=True).endswith("\n  • a: b\n\n🔁 May be a repeat")


def test_a_shorter_text_spares_what_can_be_spared() -> None:
    """For a Telegram that finds the whole too long: who, why and where stay."""
    alert = attrs.evolve(LEAST, message="m" * 500, additional_info={"a": "b"}, chatwoot_url="https://x.example/1")
    assert shown(alert, shorter=True) == (
        "🟠 CHATWOOT ALERT - HIGH\n\nReason: WHY\nConversation ID: #12345\n\n"
        f"Message:\n{'m' * 100}…\n\n🔗 View in Chatwoot"
    )


def test_a_number_that_no_float_holds_is_a_number_all_the_same() -> None:
    """No quotes around it."""
    value = {"a": Decimal("1E+400"), "b": [10**30, Decimal("9" * 5000)], "c": "\ud800"}
    assert render.spell({"a": value["a"], "b": value["b"]}) == '{"a":1E+400,"b":[1' + "0" * 30 + "," + "9" * 5000 + "]}"
    assert render.spell([value["c"], 1]) == '["\ud800",1]'


@given(JSON_VALUES)
def test_a_value_is_spelt_as_it_is_or_as_compact_json(value: Any) -> None:
    """What the sender wrote is what the team reads."""
    spelt = render.spell(value)
    assert (spelt if isinstance(value, str) else json.loads(spelt)) == value
