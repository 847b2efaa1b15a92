"""What the chat shows of an alert, to the letter, as Telegram's own parser reads what the running relay sent."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from judge import live, parsed, pings
from relay_process import WEBHOOK, House, RelayProcess, new_id

WHOLE: dict[str, Any] = {
    "severity": "high",
    "reason": "NEGATIVE_SENTIMENT",
    "conversation_id": 12345,
    "message": "THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???",
    "customer_name": "John Doe",
    "customer_email": "john@example.com",
    "timestamp": "2025-01-19T18:30:00Z",
    "chatwoot_url": "https://app.chatwoot.com/app/accounts/1/conversations/12345",
    "additional_info": {"user_id": "user_123", "order_id": "order_456"},
}
TEXT = """🟠 CHATWOOT ALERT - HIGH

Reason: NEGATIVE_SENTIMENT
Conversation ID: #12345
Customer: John Doe
Email: john@example.com

Message:
THIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???

Time: 2025-01-19T18:30:00Z

🔗 View in Chatwoot

Additional Info:
  • user_id: user_123
  • order_id: order_456"""


async def sent(relay: RelayProcess, town: House, **members: Any) -> str:
    """Post an alert; the markup that Telegram got."""
    answered = await relay.alert(**members)
    assert answered.status == 200, answered.raw
    (found,) = [m for m in town.telegram.messages if m.message_id == answered.json["telegram_message_id"]]
    return found.html


async def shown(relay: RelayProcess, town: House, **members: Any) -> str:
    """Post an alert; the text that the chat shows."""
    return parsed(await sent(relay, town, **members))[0]


async def message_of(relay: RelayProcess, town: House, message: str) -> str:
    """What the chat shows of a customer's message."""
    return (await shown(relay, town, message=message)).partition("\n\nMessage:\n")[2]


async def test_a_whole_alert_reads_as_promised(relay: RelayProcess, town: House) -> None:
    """The text is the contract, to the letter."""
    assert await shown(relay, town, **WHOLE) == TEXT


async def test_heading_and_labels_are_bold_and_the_link_is_one(relay: RelayProcess, town: House) -> None:
    """People skim by them."""
    _, marks = parsed(await sent(relay, town, **WHOLE))
    bold = [words for kind, words, _ in marks if kind == "Bold"]
    assert bold == [
        "🟠 CHATWOOT ALERT - HIGH", "Reason:", "Conversation ID:", "Customer:", "Email:", "Message:", "Time:",
        "Additional Info:",
    ]  # fmt: skip
    links = [(words, url) for kind, words, url in marks if kind == "TextUrl"]
    assert links == [("View in Chatwoot", WHOLE["chatwoot_url"])]


@pytest.mark.parametrize(
    ("severity", "heading"),
    [
        ("low", "🟢 CHATWOOT ALERT - LOW"),
        ("medium", "🟡 CHATWOOT ALERT - MEDIUM"),
        ("hIgH", "🟠 CHATWOOT ALERT - HIGH"),
        ("CRITICAL", "🔴 CHATWOOT ALERT - CRITICAL"),
        ("urgent", "⚠️ CHATWOOT ALERT - URGENT"),
        ("straße", "⚠️ CHATWOOT ALERT - STRASSE"),
    ],
)
async def test_every_severity_has_its_sign(relay: RelayProcess, town: House, severity: str, heading: str) -> None:
    """An unknown word is told all the same: better a strange heading than a lost customer."""
    assert (await shown(relay, town, severity=severity)).splitlines()[0] == heading


@pytest.mark.parametrize("absent", [None, "", "  ", ...])
async def test_absent_lines_are_left_out_with_their_blank_line(relay: RelayProcess, town: House, absent: Any) -> None:
    """A label without a value tells nobody anything."""
    left_out = dict.fromkeys(("customer_name", "customer_email", "timestamp", "chatwoot_url"), absent)
    given = {**WHOLE, **left_out, "conversation_id": (number := new_id()), "additional_info": {} if absent else None}
    assert await shown(relay, town, **given) == (
        "🟠 CHATWOOT ALERT - HIGH\n\n"
        f"Reason: NEGATIVE_SENTIMENT\nConversation ID: #{number}\n\n"
        "Message:\nTHIS IS RIDICULOUS!!! WHERE IS MY PAYMENT???"
    )


@pytest.mark.parametrize(
    ("written", "shows"),
    [
        ("a" * 500, "a" * 500),
        ("a" * 501, "a" * 500 + "…"),
        ("é" * 501, "é" * 500 + "…"),
        ("e\u0301" * 500, "é" * 500),
        ("a" * 499 + "👩‍👩‍👧‍👦" + "b", "a" * 499 + "…"),
        ("a" * 498 + "e\u0323\u0301\u0302" + "b", "a" * 498 + "…"),
        ("a" + "\u0301" * 600, ("á" + "\u0301" * 600)[:500] + "…"),
        ("🙂" * 501, "🙂" * 500 + "…"),
    ],
    ids=["500", "501", "accents", "combining", "family", "stacked", "one grapheme", "emoji"],
)
async def test_a_message_is_cut_at_500_characters_and_through_no_grapheme(
    relay: RelayProcess, town: House, written: str, shows: str
) -> None:
    """Half an emoji is another emoji; 500 code points after cleaning is what the contract counts."""
    assert await message_of(relay, town, written) == shows


@pytest.mark.parametrize(
    "written",
    [
        "<b>bold</b> & <a href='https://evil.example'>click</a> &amp; &lt;",
        "</b></i><script>alert(1)</script>",
        "{severity} {message} {0} %s ${TELEGRAM_BOT_TOKEN}",
        "`code` *star* _under_ [a](b) ||spoiler||",
        "&#60;b&#62; &notanentity; &;",
    ],
)
async def test_everything_from_outside_is_text(relay: RelayProcess, town: House, written: str) -> None:
    """Markup, braces and templates in a customer's words are the customer's words."""
    everywhere = {**WHOLE, "reason": written, "message": written, "customer_name": written, "severity": written}
    html = await sent(relay, town, **{**everywhere, "conversation_id": new_id(), "additional_info": {"key": written}})
    text, marks = parsed(html)
    assert text.replace("\u2060", "").count(written) == 4
    assert {kind for kind, _, _ in marks} <= {"Bold", "TextUrl"}
    assert [url for kind, _, url in marks if kind == "TextUrl"] == [WHOLE["chatwoot_url"]]


LIVE = "@everyone hello /start@bot #urgent, (@admin) \n/stop\n#tag"


async def test_a_customers_words_ping_nobody(relay: RelayProcess, town: House) -> None:
    """A stranger must not be able to call a team's members or bots."""
    everywhere: dict[str, Any] = dict.fromkeys(
        ("severity", "reason", "message", "customer_name", "customer_email", "timestamp"), LIVE
    )
    text = await shown(relay, town, **everywhere, additional_info={LIVE: LIVE, "nested": [LIVE]})
    assert pings(text) == []
    assert "@\u2060everyone" in text


@pytest.mark.parametrize(
    "written",
    [
        "mail me: jane.doe@example.com, thanks",
        "see https://example.com/@jane/#top?x=/y&z=#a",
        "1/2 and/or 3 @ 4 # 5 / 6",
        "C# a@ b# #1",
        "plain words",
    ],
)
async def test_the_joiner_goes_nowhere_else(relay: RelayProcess, town: House, written: str) -> None:
    """An address that is copied has to work: a U+2060 stands only where something would be live."""
    assert await message_of(relay, town, written) == written


async def test_an_address_stays_live(relay: RelayProcess, town: House) -> None:
    """A tap on it writes to the customer."""
    assert ("EmailAddress", "john@example.com") in live(await shown(relay, town, **WHOLE))


@pytest.mark.parametrize(
    ("written", "shows"),
    [
        ("a\u202egnp.exe\u2066b\u2069\u200f", "agnp.exeb"),
        ("a\x00b\x1bc\x7fd\x85e", "a b c d e"),
        ("one\r\ntwo\rthree\u2028four", "one\ntwo\nthree\nfour"),
        ("\ud83d lone \udc00", "\ufffd lone \ufffd"),
        ("cafe\u0301", "café"),
        ("👩‍👩‍👧‍👦 کتاب‌ها 日本", "👩‍👩‍👧‍👦 کتاب‌ها 日本"),
    ],
    ids=["bidi", "control", "breaks", "surrogates", "nfc", "joiners"],
)
async def test_a_message_is_cleaned(relay: RelayProcess, town: House, written: str, shows: str) -> None:
    """What could reorder, hide or break the text is taken out; what writes a language stays."""
    assert unicodedata.is_normalized("NFC", shows)
    assert await message_of(relay, town, written) == shows


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "ftp://x.example/y",
        "tg://user?id=1",
        "app.chatwoot.com/1",
        "https://",
        "http://a b/",
        "x",
    ],
)
async def test_a_link_that_is_not_of_the_web_is_text(relay: RelayProcess, town: House, url: str) -> None:
    """It is shown, for it may help; it must not be live."""
    text, marks = parsed(await sent(relay, town, chatwoot_url=url))
    assert url in text
    assert "View in Chatwoot" not in text
    assert not [kind for kind, _, _ in marks if kind == "TextUrl"]


@pytest.mark.parametrize(
    "url",
    ["http://localhost:3000/app/1", 'https://x.example/?a=1&b="2"<c>', "https://bücher.example/ü", "https://[::1]/x"],
)
async def test_a_link_of_the_web_is_live(relay: RelayProcess, town: House, url: str) -> None:
    """http and https are; whatever is in it, it stays one link."""
    text, marks = parsed(await sent(relay, town, chatwoot_url=url))
    assert text.endswith("\n\n🔗 View in Chatwoot")
    assert [words for kind, words, _ in marks if kind == "TextUrl"] in (["View in Chatwoot"], [])


async def test_a_link_is_made_where_the_dashboard_is_known(home: House) -> None:
    """Most senders know the number alone."""
    relay = await home.relay(CHATWOOT_URL="https://desk.example/", CHATWOOT_ACCOUNT_ID="3")
    answered = await relay.alert(conversation_id=77)
    assert answered.status == 200
    _, marks = parsed(home.telegram.messages[-1].html)
    assert ("TextUrl", "View in Chatwoot", "https://desk.example/app/accounts/3/conversations/77") in marks


async def test_additional_info_is_told_as_it_is(relay: RelayProcess, town: House) -> None:
    """Strings as they are, others as compact JSON."""
    info = {"plan": "pro", "seats": 7, "paid": True, "since": None, "tags": ["a", "b"], "who": {"n": "ü"}, "f": 1.5}
    text = await shown(relay, town, additional_info=info)
    assert text.partition("Additional Info:\n")[2] == (
        '  • plan: pro\n  • seats: 7\n  • paid: true\n  • since: null\n  • tags: ["a","b"]\n'
        '  • who: {"n":"ü"}\n  • f: 1.5'
    )


async def test_a_long_list_says_how_much_more_there_is(relay: RelayProcess, town: House) -> None:
    """Nobody reads a hundred lines in a chat, yet nothing is left out in silence."""
    text = await shown(relay, town, additional_info={f"key_{n}": n for n in range(100)})
    lines = text.partition("Additional Info:\n")[2].splitlines()
    assert lines[-1] == f"  … and {100 - (len(lines) - 1)} more"


HUGE = "𝕳" * 1000


async def test_no_input_passes_telegrams_limit(relay: RelayProcess, town: House) -> None:
    """Telegram refuses more than 4096 characters, however they are counted."""
    text = await shown(
        relay, town, severity=HUGE, reason=HUGE, message=HUGE, customer_name=HUGE, customer_email=HUGE, timestamp=HUGE,
        chatwoot_url="https://x.example/" + "&" * 1900, additional_info={f"{n}{HUGE}": HUGE for n in range(30)},
    )  # fmt: skip
    assert len(text.encode("utf-16-le")) // 2 <= 4096
    assert "Additional Info:" in text


async def test_no_preview_of_a_link_is_asked_for(relay: RelayProcess, town: House) -> None:
    """A preview would fetch the dashboard and push the customer's words off the screen."""
    await sent(relay, town, **{**WHOLE, "conversation_id": new_id()})
    assert town.telegram.calls[-1].payload["link_preview_options"] == {"is_disabled": True}


# --- the simple shape of an event ---


async def event(relay: RelayProcess, town: House, **members: Any) -> str:
    document = {
        "event": "message_created",
        "conversation": {"id": new_id(), "status": "open"},
        "sender": {"name": "Jane Roe", "email": "jane@example.com"},
        "message": {"content": "Is anybody there?", "created_at": "2025-01-19T18:30:00Z"},
        "account": {"id": 1, "name": "Acme"},
        **members,
    }
    seen = len(town.telegram.messages)
    answered = await relay.post(WEBHOOK, document)
    assert answered.status == 200, answered.raw
    assert answered.json == {"success": True, "message": "Webhook forwarded to Telegram", "event": document["event"]}
    return parsed(list(town.telegram.messages)[seen].html)[0]


async def test_the_simple_shape_tells_all_it_has(relay: RelayProcess, town: House) -> None:
    """Event, conversation, status, sender with e-mail, and message."""
    number = new_id()
    text = await event(relay, town, conversation={"id": number, "status": "open"})
    first = text.splitlines()[0]
    assert "Jane Roe" in first or "message_created" in first
    for told in (f"#{number}", "open", "Jane Roe", "jane@example.com", "Is anybody there?", "message_created"):
        assert told in text, (told, text)


async def test_an_events_message_is_cut_at_300_characters(relay: RelayProcess, town: House) -> None:
    """Events are many: their texts are shorter."""
    text = await event(relay, town, message={"content": "x" * 301})
    assert "x" * 300 + "…" in text
    assert "x" * 301 not in text


async def test_an_events_words_ping_nobody(relay: RelayProcess, town: House) -> None:
    """As with alerts: every value comes from outside."""
    text = await event(
        relay, town, event="message_created", sender={"name": LIVE, "email": LIVE}, message={"content": LIVE},
        account={"id": 1, "name": LIVE}, conversation={"id": new_id(), "status": LIVE},
    )  # fmt: skip
    assert pings(text) == []
