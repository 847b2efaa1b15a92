"""The Telegram that the other tests believe in refuses what Telegram refuses and breaks as it is told to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from faults import FaultyTelegram, Script, refusal
from tdjson import td_execute

from chatwoot_relay.faketelegram import TOKEN, Complaint


@pytest.fixture
async def fake() -> FaultyTelegram:
    return FaultyTelegram()


@pytest.fixture
async def ask(fake: FaultyTelegram) -> AsyncIterator[Any]:
    async with fake.serving() as url, aiohttp.ClientSession() as session:

        async def call(method: str = "sendMessage", token: str = TOKEN, **payload: Any) -> tuple[int, Any]:
            async with session.post(f"{url}/bot{token}/{method}", json=payload) as answer:
                return answer.status, await answer.json()

        yield call


async def test_a_message_is_shown_and_answered_as_telegram_does(fake: FaultyTelegram, ask: Any) -> None:
    """The relay reads the message id from there; the demo's page shows text, entities and sound."""
    status, answer = await ask(chat_id=-100, text="<b>Hi</b> &lt;you&gt;", parse_mode="HTML", disable_notification=True)
    message = answer["result"]
    assert (status, answer["ok"], message["text"], message["chat"]["id"]) == (200, True, "Hi <you>", -100)
    assert message["entities"] == [{"type": "bold", "offset": 0, "length": 2}]
    assert [(m.message_id, m.text, m.silent) for m in fake.messages] == [(message["message_id"], "Hi <you>", True)]


@pytest.mark.parametrize(
    ("payload", "description"),
    [
        ({"text": "a < b", "parse_mode": "HTML"}, "can't parse entities: Unsupported start tag"),
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": "<b></b>" * 5000, "parse_mode": "HTML"}, "text is too long"),
        ({"text": " \n "}, "text must be non-empty"),
        ({"text": "<b> </b>", "parse_mode": "HTML"}, "text must be non-empty"),
        ({"text": "\ud800"}, "text must be encoded in UTF-8"),
        ({"text": "x", "parse_mode": None}, "unsupported parse_mode"),
        ({"text": "x", "message_thread_id": 1}, "message thread not found"),
        ({"text": "x", "reply_parameters": {"message_id": 99}}, "message to be replied not found"),
        ({"text": "x", "chat_id": -5}, "chat not found"),
        ({"text": "x", "chat_id": -6}, "group chat was upgraded"),
        ({"text": "x", "chat_id": ""}, "chat_id is empty"),
    ],
)
async def test_what_telegram_refuses_is_refused(
    fake: FaultyTelegram, ask: Any, payload: dict[str, Any], description: str
) -> None:
    """A fake that is kinder than Telegram hides the relay's mistakes."""
    fake.chats, fake.threads, fake.moved = {"-100"}, {7}, {"-6": -1007}
    status, answer = await ask(**{"chat_id": -100, **payload})
    assert (status, answer["ok"], fake.told) == (400, False, [])
    assert description in answer["description"]


async def test_a_null_is_the_word_null(fake: FaultyTelegram, ask: Any) -> None:
    """So does Telegram read it; a client that sends nulls must be found out here."""
    await ask(chat_id=-100, text=None)
    assert fake.told == ["null"]


async def test_length_is_counted_after_parsing(fake: FaultyTelegram, ask: Any) -> None:
    """4096 characters of text pass with any markup around them."""
    status, _ = await ask(chat_id=-100, text=f"<b>{'&lt;' * 4096}</b>", parse_mode="HTML")
    assert (status, len(fake.told[0])) == (200, 4096)


async def test_addresses_and_mentions_become_live_except_in_code(fake: FaultyTelegram, ask: Any) -> None:
    """The demo shows what would ping or open in a real chat."""
    await ask(
        chat_id=1,
        text="😀 a@b.de @name /cmd #tag #123 https://x.de/. <code>@name</code> @\u2060name",
        parse_mode="HTML",
    )
    shown = fake.messages[0]
    assert [(e.type, e.offset, e.length) for e in shown.entities] == [
        ("code", 46, 5), ("email", 3, 6), ("mention", 10, 5), ("bot_command", 16, 4), ("hashtag", 21, 4),
        ("url", 31, 13),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "@abcd1", "@abc", "a@abcd", "(@name)", "@name.", "/a", "/cmd.", "a/b", "</b>", "/cmd/", "//start", "#a1",
        "#123", "#123a", "##tag", "a#tag", "#тег", "-#tag", "joe@ex-ample.co.uk,", "https://ex.com/a(b)", "https://ex.com/@john.",
        "@\u2060name", "/\u2060cmd", "#\u2060tag", "<https://ex.com/#foo>", "/cmd-x", "#tag-x",
    ],
)  # fmt: skip
async def test_what_becomes_live_is_what_telegram_makes_live(fake: FaultyTelegram, ask: Any, text: str) -> None:
    """The picture shows whom a customer's words would ping: nobody."""
    await ask(chat_id=1, text=text)
    answer = json.loads(td_execute(json.dumps({"@type": "getTextEntities", "text": text}).encode()))
    names = {"EmailAddress": "email", "BotCommand": "bot_command"}
    kinds = [entity["type"]["@type"].removeprefix("textEntityType") for entity in answer["entities"]]
    judged = [
        (names.get(k, k.lower()), e["offset"], e["length"]) for k, e in zip(kinds, answer["entities"], strict=True)
    ]
    assert [(e.type, e.offset, e.length) for e in fake.messages[0].entities] == judged


async def test_a_message_can_be_deleted_once(fake: FaultyTelegram, ask: Any) -> None:
    """The doctor deletes what it said."""
    _, sent = await ask(chat_id=1, text="one")
    which = {"chat_id": 1, "message_id": sent["result"]["message_id"]}
    assert (await ask("deleteMessage", **which))[1]["result"] is True
    assert fake.told == []
    assert "not found" in (await ask("deleteMessage", **which))[1]["description"]


async def test_a_wrong_token_opens_nothing(fake: FaultyTelegram, ask: Any) -> None:
    """A revoked token is 401, one that is none 404."""
    assert (await ask("getMe", token="1:x"))[0] == 401
    assert (await ask("getMe", token="x"))[0] == 404
    assert (await ask("nothing"))[0] == 404


async def test_it_tells_of_itself_and_its_chats(fake: FaultyTelegram, ask: Any) -> None:
    """doctor and chats ask this."""
    fake.threads, fake.updates, fake.member = set(), [{"update_id": 1}], {"status": "left"}
    fake.refusals["-3"] = Complaint("Forbidden: bot was kicked from the supergroup chat", 403)
    assert (await ask("getMe"))[1]["result"]["is_bot"] is True
    assert (await ask("getChat", chat_id=-100))[1]["result"]["is_forum"] is True
    assert (await ask("getChat", chat_id="@abc"))[1]["result"]["username"] == "abc"
    assert (await ask("getChatMember", chat_id=-100, user_id=1))[1]["result"]["status"] == "left"
    assert (await ask("getUpdates"))[1]["result"] == [{"update_id": 1}]
    assert (await ask("getChat", chat_id=-3))[0] == 403
    fake.webhook_url = "https://x.de"
    assert (await ask("getUpdates"))[0] == 409
    assert (await ask("getWebhookInfo"))[1]["result"]["url"] == "https://x.de"


async def test_scripts_are_used_in_order_each_by_its_chat(fake: FaultyTelegram, ask: Any) -> None:
    """One of two chats can be held while the other goes on."""
    fake.script(refusal(429, "Too Many Requests: retry after 3", retry_after=3), chat=-1)
    fake.script(Script(status=502, body=b"{}"))
    assert (await ask(chat_id=-2, text="a"))[0] == 502
    assert (await ask(chat_id=-2, text="b"))[0] == 200
    assert (await ask(chat_id=-1, text="c"))[1]["parameters"] == {"retry_after": 3}
    assert (await ask(chat_id=-1, text="d"))[0] == 200
    assert (fake.told, [call.payload["text"] for call in fake.calls]) == (["b", "d"], ["a", "b", "c", "d"])


@pytest.mark.parametrize("fault", ["reset unread", "close unread", "reset", "close", "half"])
@pytest.mark.parametrize("deliver", [False, True])
async def test_a_lost_answer_is_lost_whether_delivered_or_not(
    fake: FaultyTelegram, ask: Any, fault: str, deliver: bool
) -> None:
    """The two are the same to the sender, and only the chat knows the truth."""
    fake.script(Script(fault=fault, deliver=deliver))
    with pytest.raises(aiohttp.ClientError):
        await ask(chat_id=1, text="x")
    assert fake.told == (["x"] if deliver and "unread" not in fault else [])


@pytest.mark.parametrize("fault", ["hang", "drip"])
async def test_an_answer_can_take_for_ever(fake: FaultyTelegram, ask: Any, fault: str) -> None:
    """Only the sender's own limit ends such a call."""
    fake.script(Script(fault=fault, deliver=True))
    call = asyncio.ensure_future(ask(chat_id=1, text="x"))
    await fake.until(lambda: fake.told == ["x"])
    assert not call.done()
    call.cancel()


async def test_an_answer_can_be_held_back(fake: FaultyTelegram, ask: Any) -> None:
    """A slow Telegram is no failed one."""
    let = asyncio.Event()
    fake.script(Script(until=let))
    call = asyncio.ensure_future(ask(chat_id=1, text="x"))
    await fake.until(lambda: len(fake.calls) == 1)
    assert (fake.told, call.done()) == ([], False)
    let.set()
    assert (await call)[0] == 200


async def test_it_stays_down_until_it_is_mended(fake: FaultyTelegram, ask: Any) -> None:
    """An outage answers everything alike, the probe too."""
    fake.down = Script(status=502, body=b'"bad gateway"')
    assert [(await ask("getMe"))[0], (await ask(chat_id=1, text="x"))[0]] == [502, 502]
    fake.forget()
    assert (await ask(chat_id=1, text="x"))[0] == 200
