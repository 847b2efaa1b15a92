"""`chats`: ids ready to paste, and no other program's poll ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults import FaultyTelegram, Script, refusal

from chatwoot_relay import chats
from chatwoot_relay.faketelegram import TOKEN
from chatwoot_relay.settings import Secret, Settings

GROUP = {"id": -1001, "type": "supergroup", "title": "Support"}
UPDATES = [
    {"update_id": 1, "message": {"message_id": 1, "chat": {"id": 7, "type": "private", "first_name": "Ann"}}},
    {"update_id": 2, "my_chat_member": {"chat": {"id": -5, "type": "group", "title": "Old\x1b[31m"}}},
    {
        "update_id": 3,
        "message": {
            "chat": GROUP,
            "message_thread_id": 9,
            "is_topic_message": True,
            "forum_topic_created": {"name": "Alerts"},
        },
    },
    {"update_id": 4, "message": {"chat": GROUP, "message_thread_id": 9, "is_topic_message": True}},
    {"update_id": 5, "message": {"chat": GROUP, "message_thread_id": 4, "is_topic_message": True}},
    {"update_id": 6, "message": {"chat": GROUP, "message_thread_id": 3}},
    {"update_id": 7, "message": {"chat": {"id": "?"}}, "poll": {"id": "1"}},
    "not an update",
]


@pytest.fixture
def telegram() -> FaultyTelegram:
    return FaultyTelegram()


def yes(question: str) -> bool:
    return True


def no(question: str) -> bool:
    return False


async def found(
    telegram: FaultyTelegram, *, confirm: Callable[[str], bool] = no, token: str = TOKEN
) -> list[chats.Place]:
    async with telegram.serving() as url:
        settings = Settings(telegram_bot_token=Secret(token), telegram_chat_id=0, telegram_api_url=url)
        async with chats.open_bot(settings) as bot:
            return await chats.find(bot, confirm=confirm)


def asked(telegram: FaultyTelegram) -> list[dict[str, Any]]:
    return [call.payload for call in telegram.calls if call.method == "getUpdates"]


async def test_chats_and_topics_come_ready_to_paste(telegram: FaultyTelegram) -> None:
    """Ids are what people get wrong; nobody should type one."""
    telegram.updates = UPDATES  # type: ignore[assignment]
    places = await found(telegram)
    assert chats.report(places) == (
        "# Support (supergroup)\nTELEGRAM_CHAT_ID=-1001\n\n"
        "# Support (supergroup), topic 4\nTELEGRAM_CHAT_ID=-1001\nTELEGRAM_THREAD_ID=4\n\n"
        "# Support (supergroup), topic Alerts\nTELEGRAM_CHAT_ID=-1001\nTELEGRAM_THREAD_ID=9\n\n"
        "# Old?[31m (group)\nTELEGRAM_CHAT_ID=-5\n\n"
        "# Ann (private)\nTELEGRAM_CHAT_ID=7"
    )


async def test_nothing_is_confirmed_and_no_filter_is_left_behind(telegram: FaultyTelegram) -> None:
    """An offset would eat another program's updates; allowed_updates would stay set for it."""
    telegram.updates = UPDATES  # type: ignore[assignment]
    await found(telegram)
    assert asked(telegram) == [{"limit": 100}]


async def test_where_another_may_be_polling_it_asks_first(telegram: FaultyTelegram) -> None:
    """An empty queue may be one that somebody empties; asking would end that program's poll."""
    questions: list[str] = []

    def ask(question: str) -> bool:
        questions.append(question)
        return False

    with pytest.raises(chats.Unusable, match="/start@chatwoot_relay_bot"):
        await found(telegram, confirm=ask)
    assert (questions, asked(telegram)) == ([chats.QUESTION], [])


async def test_who_has_seen_nothing_is_told_what_to_do(telegram: FaultyTelegram) -> None:
    """A new bot has seen nothing, and in groups privacy mode hides most of it."""
    with pytest.raises(chats.Unusable, match="add @chatwoot_relay_bot"):
        await found(telegram, confirm=yes)
    assert asked(telegram) == [{"limit": 100}]


async def test_a_webhook_is_named_and_left_alone(telegram: FaultyTelegram) -> None:
    """Its owner alone sees the updates; removing it would break that program."""
    telegram.webhook_url = "https://chat.example.com/webhooks/telegram/1"
    with pytest.raises(chats.Unusable, match="Another program has a webhook"):
        await found(telegram, confirm=yes)
    assert asked(telegram) == []


async def test_another_poller_is_named(telegram: FaultyTelegram) -> None:
    """Telegram answers 409 beside another poller."""
    telegram.script(refusal(409, "Conflict: terminated by other getUpdates request"), method="getUpdates")
    with pytest.raises(chats.Unusable, match="polls this bot"):
        await found(telegram, confirm=yes)


async def test_too_much_at_once_is_asked_for_in_smaller_parts(telegram: FaultyTelegram) -> None:
    """A hundred updates may be more than is read of one answer."""
    telegram.updates = UPDATES  # type: ignore[assignment]
    telegram.script(Script(body=b'{"ok": true, "resu'), method="getUpdates")
    assert len(await found(telegram)) == 5
    assert asked(telegram) == [{"limit": 100}, {"limit": 20}]


async def test_a_telegram_that_makes_no_sense_is_not_asked_for_ever(telegram: FaultyTelegram) -> None:
    """The person waits."""
    telegram.updates = UPDATES  # type: ignore[assignment]
    telegram.script(Script(body=b"<html>"), Script(status=502), Script(status=502), method="getUpdates")
    with pytest.raises(chats.Unusable, match="Try again"):
        await found(telegram)


async def test_a_wrong_token_is_named(telegram: FaultyTelegram) -> None:
    """The first thing to mend."""
    with pytest.raises(chats.Unusable, match="@BotFather"):
        await found(telegram, token="1:wrong")


async def test_no_network_is_named_without_the_token() -> None:
    """Errors of the network hold the URL, and that holds the token."""
    settings = Settings(
        telegram_bot_token=Secret("1:s3cret"), telegram_chat_id=0, telegram_api_url="http://127.0.0.1:1"
    )
    async with chats.open_bot(settings) as bot:
        with pytest.raises(chats.Unusable, match="does not answer") as caught:
            await chats.find(bot, confirm=yes)
    assert "s3cret" not in str(caught.value)
