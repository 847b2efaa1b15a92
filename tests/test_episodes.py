"""A customer waits for a human: the whole story on a real process, killed in the middle of it."""

from __future__ import annotations

from typing import Any

import chatwoot_samples as samples
from relay_process import WEBHOOK, Answer, House, RelayProcess, new_id

HANDOFF = "conversation_status_changed--pending-to-open-handoff"


class Conversation:
    """One conversation as Chatwoot tells of it: captured bodies with its number, each a little later than the last."""

    def __init__(self, relay: RelayProcess) -> None:
        self.relay = relay
        self.number = new_id()
        self.at = 1_795_400_000.0
        self.messages = self.number * 100

    async def post(self, name: str, **members: Any) -> str:
        """Post a sample; what was answered, without "Webhook "."""
        body = samples.document(name)
        self.at += 1
        inner = body["conversation"] if isinstance(body.get("conversation"), dict) else body
        inner.update(id=self.number, updated_at=self.at, messages=[])
        if inner is not body:
            self.messages += 1
            body["id"] = self.messages
        for member, value in members.items():
            (inner if member in ("status", "meta") else body)[member] = value
        answer: Answer = await self.relay.post(WEBHOOK, body)
        assert answer.status in (200, 202), answer.raw
        return str(answer.json["message"]).removeprefix("Webhook ").removesuffix(" to Telegram")


async def begin(home: House) -> Conversation:
    return Conversation(await home.relay(RELAY_PACING="off", CHATWOOT_URL="https://app.chatwoot.com"))


async def test_a_handoff_is_one_alert_and_its_end_is_told_in_silence(home: House) -> None:
    """The bot had it, a human is needed; copies say nothing new; who took it, answered and resolved it is told."""
    room = await begin(home)
    assert await room.post("conversation_created--bot-inbox-pending") == "ignored: the bot has it"
    assert await room.post("message_created--agent-bot-incoming") == "ignored: the bot has it"
    assert await room.post(HANDOFF) == "forwarded"
    assert await room.post("conversation_updated--handoff-status-pending-to-open") == "ignored: already told"
    assert await room.post("conversation_opened--agent-bot") == "ignored: already told"
    await room.relay.restart()
    assert await room.post("conversation_status_changed--agent-bot") == "ignored: already told"
    assert await room.post("conversation_updated--assignee-set") == "forwarded"
    assert await room.post("message_created--outgoing-agent-reply") == "forwarded"
    assert await room.post("message_created--outgoing-agent-reply") == "ignored: sent by us"
    assert await room.post("conversation_status_changed--resolved-by-agent") == "forwarded"
    alert, *after = home.telegram.messages
    assert alert.text.startswith("🟡 CHATWOOT ALERT - MEDIUM\n\nReason: Handed over by the bot")
    assert f"/app/accounts/3/conversations/{room.number}" in alert.html
    assert not alert.silent
    assert [(message.silent, message.reply_to) for message in after] == [(True, alert.message_id)] * 3


async def test_a_handoff_without_a_status_event_is_found_even_after_a_kill(home: House) -> None:
    """With automatic assignment Chatwoot sends no status event at all; the last status is remembered on disk."""
    room = await begin(home)
    assert await room.post("message_created--agent-bot-incoming") == "ignored: the bot has it"
    await room.relay.restart()
    assert await room.post("conversation_updated--assignee-set", status="open") == "forwarded"
    assert await room.post("message_created--incoming-text") == "forwarded"
    first, second = home.telegram.messages
    assert "CHATWOOT ALERT" in first.text
    assert "CHATWOOT ALERT" not in second.text


async def test_a_customer_who_comes_back_is_a_new_alert(home: House) -> None:
    """Resolved, then written to again: somebody waits anew. What follows replies to the new alert."""
    room = await begin(home)
    assert await room.post("message_created--incoming-text") == "forwarded"
    assert await room.post("conversation_status_changed--resolved-by-agent") == "forwarded"
    await room.relay.restart()
    assert await room.post("conversation_status_changed--resolved-to-open-by-customer") == "forwarded"
    assert await room.post("conversation_updated--assignee-set") == "forwarded"
    kinds = ["CHATWOOT ALERT" in message.text for message in home.telegram.messages]
    assert kinds == [True, False, True, False]
    again, taken = list(home.telegram.messages)[2:]
    assert taken.reply_to == again.message_id


async def test_handoff_alone_is_told_where_only_handoffs_are_wanted(home: House) -> None:
    """RELAY_EVENTS=handoff: a customer's further message makes no sound, the next waiting does."""
    room = Conversation(await home.relay(RELAY_PACING="off", RELAY_EVENTS="handoff"))
    assert await room.post("message_created--incoming-text") == "forwarded"
    assert await room.post("message_created--incoming-text") == "ignored: not selected"
    assert await room.post("message_created--outgoing-agent-reply") == "forwarded"
    assert await room.post("message_created--incoming-text") == "forwarded"
