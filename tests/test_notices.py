"""What people read."""

from __future__ import annotations

from typing import Any

import pytest
from chatwoot_samples import EXPECTED, NAMES, Relay, document, expected, read

from chatwoot_relay import notices, routing
from chatwoot_relay.events import Decision, Event, What
from chatwoot_relay.models import Alert, Content, Notice


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_told_in_the_expected_words(name: str) -> None:
    """The words are reviewed as text files; ``python tests/chatwoot_samples.py`` writes them anew."""
    assert (EXPECTED / f"{name}.txt").read_text("utf-8") == expected(name)


def tell(body: dict[str, Any], *, mode: str = "all") -> Content:
    event = read(body)
    return notices.word(event, routing.decide(event, None, events={mode}, now=0.0))


def headline(body: dict[str, Any], *, mode: str = "all") -> str:
    content = tell(body, mode=mode)
    assert isinstance(content, Notice)
    return content.headline


def facts(body: dict[str, Any]) -> dict[str, str]:
    content = tell(body)
    assert isinstance(content, Notice)
    return dict(content.facts)


def changed(body: dict[str, Any], **changes: tuple[object, object]) -> dict[str, Any]:
    body["changed_attributes"] = [
        {name: {"previous_value": before, "current_value": after}} for name, (before, after) in changes.items()
    ]
    return body


def test_the_simple_shape_tells_all_it_has() -> None:
    """Event, conversation, status, sender with e-mail, and message: the promise of the interface."""
    body = {
        "event": "message_created",
        "conversation": {"id": 12345, "status": "open"},
        "sender": {"name": "John Doe", "email": "john@example.com"},
        "message": {"content": "Where is my payment?", "created_at": "2025-01-19T18:30:00Z"},
        "account": {"id": 1, "name": "Acme"},
    }
    assert tell(body, mode="useful") == Notice(
        event="message_created",
        headline="🔔 message created: John Doe: Where is my payment?",
        facts=(
            ("Event", "message_created"),
            ("Conversation", "#12345"),
            ("Status", "open"),
            ("From", "John Doe"),
            ("Email", "john@example.com"),
            ("Account", "Acme"),
            ("Time", "2025-01-19T18:30:00Z"),
        ),
        message="Where is my payment?",
        url="https://app.chatwoot.com/app/accounts/1/conversations/12345",
        conversation_id=12345,
    )


def test_the_simple_shape_may_lack_everything() -> None:
    """It is made by hand."""
    assert tell({"event": "hello", "conversation": {}}, mode="useful") == Notice(
        event="hello", headline="🔔 hello", facts=(("Event", "hello"),)
    )
    assert headline({"event": "hello", "conversation": {}, "message": "hi"}) == "🔔 hello: hi"
    assert headline({"event": "hello", "message": {"content": "hi", "sender": {"name": "Ann"}}}) == "🔔 hello: Ann: hi"


def test_an_unknown_event_is_told_in_the_general_form() -> None:
    """A newer Chatwoot must not go silent."""
    body = document("conversation_updated--assignee-set") | {"event": "conversation_merged"}
    assert headline(body, mode="useful") == "🔔 conversation merged: Jane Doe"
    assert facts(body)["Event"] == "conversation_merged"
    assert facts(body)["Assigned to"] == "Anna Petrova"


def test_an_unknown_event_about_a_message_tells_the_message() -> None:
    """Its shape says what it is about, whatever its name."""
    body = document("message_created--incoming-text") | {"event": "message_pinned"}
    assert headline(body, mode="useful") == "🔔 message pinned: Jane Doe: Hello, where is my order #4521?"
    assert tell(body, mode="useful").message == "Hello, where is my order #4521?"
    bare = {"event": "shouted", "sender": {"name": "Ann", "email": "ann@x.example"}, "content": "hi"}
    assert headline(bare, mode="useful") == "🔔 shouted: Ann: hi"
    assert facts(bare)["Email"] == "ann@x.example"


def test_stars_and_feedback_are_told() -> None:
    """The customer's verdict, in one line."""
    body = document("message_created--template-csat") | {"event": "message_updated"}
    body["content_attributes"] = {
        "submitted_values": {"csat_survey_response": {"rating": 2, "feedback_message": "Too slow"}}
    }
    content = tell(body, mode="useful")
    assert isinstance(content, Notice)
    assert content.headline == "⭐⭐ Jane Doe rated 2 of 5: Too slow"
    assert ("Rating", "⭐⭐") in content.facts
    assert content.message == "Too slow"


def test_feedback_without_stars_is_told() -> None:
    """Some surveys ask for words only."""
    body = document("message_created--template-csat") | {"event": "message_updated"}
    body["content_attributes"] = {"submitted_values": {"csat_survey_response": {"feedback_message": "Thanks"}}}
    assert headline(body, mode="useful") == "⭐ Jane Doe rated: Thanks"


def test_a_choice_is_told_with_its_question() -> None:
    """The answer alone means little."""
    body = document("message_created--outgoing-bot-input-select") | {"event": "message_updated"}
    body["content_attributes"]["submitted_values"] = [{"title": "Refund", "value": "refund"}]
    assert headline(body, mode="useful") == "☑️ Karl Müller answered: Refund"
    assert facts(body)["Question"] == "What is it about?"
    assert facts(body)["Answer"] == "Refund"


def test_a_form_is_told_field_by_field() -> None:
    """Each value under its name."""
    body = document("message_created--outgoing-bot-input-select") | {"event": "message_updated"}
    body["content_attributes"] = {"submitted_values": [{"name": "phone", "value": "123"}, {"name": "empty"}, "noise"]}
    assert facts(body)["phone"] == "123"


def test_an_alert_has_the_priority_as_its_severity() -> None:
    """Urgent ones are told first."""
    body = document("conversation_status_changed--pending-to-open-handoff")
    severities = {"urgent": "critical", "high": "high", "medium": "medium", "low": "low", None: "medium"}
    for priority, severity in severities.items():
        content = tell(body | {"priority": priority}, mode="useful")
        assert isinstance(content, Alert)
        assert content.severity == severity


def test_an_alert_tells_what_helps() -> None:
    """Who has it, which team, which labels, and what hangs on the message."""
    body = document("message_created--incoming-attachments-text-plus-two")
    body["conversation"]["labels"] = ["vip", "billing"]
    body["conversation"]["meta"]["team"] = {"id": 2, "name": "billing"}
    body["conversation"]["additional_attributes"] = {"mail_subject": "Invoice"}
    content = tell(body, mode="useful")
    assert isinstance(content, Alert)
    assert content.additional_info == {
        "inbox": "Shop Website",
        "channel": "website chat",
        "subject": "Invoice",
        "attachments": "📎 File: invoice & receipt <final>.pdf, 🖼 Image: photo.jpg",
        "team": "billing",
        "labels": "vip, billing",
    }


def test_an_alert_that_a_rule_brought_says_so() -> None:
    """The admin sees that the rule works."""
    relay = Relay()
    relay.receive(document("conversation_created--bot-inbox-pending"))
    body = document("conversation_updated--handoff-waiting-since-noise")
    del body["changed_attributes"]
    assert relay.say(body | {"event": "automation_event.conversation_updated"}) == "alert: handed over"
    assert relay.alerts[0].additional_info == {
        "channel": "website chat",
        "told by": "automation event conversation updated",
    }


def test_what_chatwoot_cannot_show_is_said_to_be_there() -> None:
    """An empty message would look like a fault of ours."""
    body = document("message_created--incoming-attachment-image-content-null")
    del body["attachments"]
    body["content_attributes"] = {"is_unsupported": True}
    assert tell(body, mode="useful").message == "Unsupported message: open it in Chatwoot"


def test_attachments_are_told_by_kind_and_name() -> None:
    """The name stands in the URL alone."""
    body = document("message_created--incoming-status-pending-bot-handles") | {"content": None}
    body["attachments"] = [
        {"file_type": "audio", "data_url": "https://x.example/voice%20note.ogg"},
        {"file_type": "video", "data_url": "http://[broken"},
        {"file_type": "new_kind", "data_url": ""},
        {"file_type": "location", "fallback_title": "Red Square"},
    ]
    told = "🎤 Audio: voice note.ogg, 🎬 Video, 📎 Attachment, 📍 Location: Red Square"
    assert tell(body).message == told


def test_a_customers_nameless_e_mail_serves_as_a_name() -> None:
    """Somebody wrote; a blank would not say who."""
    body = document("message_created--incoming-status-pending-bot-handles")
    body["conversation"]["meta"]["sender"] = {"id": 1, "name": " ", "email": "who@x.example"}
    assert headline(body) == "🤖 who@x.example to the bot: It is still broken!"


def test_who_is_unknown_has_a_word() -> None:
    """Tolerance must not show as a hole in the text."""
    body = document("message_created--outgoing-agent-reply")
    body["sender"], body["conversation"]["meta"]["sender"] = {"id": 11, "type": "user"}, None
    assert headline(body) == "💬 An agent → Customer: Hi Jane! Let me check **order 4521** for you."
    body = document("conversation_updated--assignee-set")
    body["meta"]["assignee"]["name"] = None
    assert headline(body) == "🙋 Somebody took Jane Doe's conversation"


def test_a_conversation_that_nobody_has_any_more_is_told() -> None:
    """It may wait unnoticed."""
    body = changed(document("conversation_updated--assignee-set"), assignee_id=(11, None))
    body["meta"]["assignee"] = None
    assert headline(body, mode="useful") == "↩️ Nobody has Jane Doe's conversation now"


def test_several_changes_in_one_event_are_all_told() -> None:
    """The headline has room for one; who reads on sees the others."""
    body = document("conversation_updated--label-added")
    body["meta"]["team"] = {"id": 2, "name": "billing team"}
    body["priority"] = "urgent"
    body = changed(body, priority=(None, "urgent"), label_list=([], ["billing", "vip"]), team_id=(None, 2))
    assert headline(body).startswith("🚩 URGENT")
    assert {"Priority": "urgent", "Team": "billing team", "Labels": "billing, vip"}.items() <= facts(body).items()


def test_words_of_rules_and_campaigns_are_not_an_agents() -> None:
    """They must not look as if somebody had answered."""
    body = document("message_created--outgoing-agent-reply")
    body["content_attributes"] = {"automation_rule_id": 5}
    assert headline(body).startswith("⚙️ Automation rule → Jane Doe: Hi Jane!")
    assert facts(body)["Sent by"] == "Automation rule"
    body = document("message_created--outgoing-agent-reply")
    body["additional_attributes"] = {"campaign_id": 5}
    assert headline(body).startswith("⚙️ Campaign → Jane Doe: Hi Jane!")


def test_an_e_mail_is_told_with_its_subject() -> None:
    """And with its text when Chatwoot's own field is empty."""
    body = document("message_created--outgoing-email-agent-reply")
    assert facts(body)["Subject"] == body["conversation"]["additional_attributes"]["mail_subject"]
    assert tell(body | {"content": None}).message == "Hello Peter,\n\nfixed."


def test_a_changed_message_is_told_only_where_everything_is() -> None:
    """Receipts look the same."""
    assert (
        headline(document("message_updated--delivered-noise")) == "✏️ A message was changed: Jane Doe: Black Friday -30%"
    )


def test_automation_of_a_message_tells_the_message() -> None:
    """The rule was made to hear of it."""
    body = document("automation_event.conversation_updated--unsigned") | {"event": "automation_event.message_created"}
    assert headline(body, mode="useful").startswith("⚙️ Automation rule, message created: Jane Doe: Actually")
    assert tell(body, mode="useful").message == "Actually one more question"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (3600, "1 h"), (3900, "1 h 5 min"),
        (86400, "1 d"), (200000, "2 d 7 h"),
    ],
)  # fmt: skip
def test_durations_read_like_speech(seconds: float, words: str) -> None:
    """Nobody counts seconds by the thousand."""
    assert notices.duration(seconds) == words


def test_a_snooze_without_an_end_or_with_an_odd_one_is_told() -> None:
    """Snoozed until the next reply has no time."""
    body = document("conversation_status_changed--snoozed-until")
    assert headline(body | {"snoozed_until": None}) == "💤 Snoozed: Jane Doe"
    assert headline(body | {"snoozed_until": "2026-11-24"}) == "💤 Snoozed: Jane Doe, until 2026-11-24"


def test_names_and_snippets_stay_within_a_push() -> None:
    """A phone shows about eighty characters; a long name must not push out who it is about."""
    body = document("message_created--incoming-status-pending-bot-handles") | {"content": "word " * 1000}
    body["conversation"]["meta"]["sender"]["name"] = "A very long name " * 20
    line = headline(body)
    assert len(line) <= 80
    assert line.startswith("🤖 A very long name A very long name A ver… to the bot: word")
    assert "\n" not in headline(body | {"content": "a\n\nb\u2028c\rd"})


def test_a_decision_without_words_is_told_in_the_general_form() -> None:
    """word() has an answer for whatever it is asked."""
    assert notices.word(Event(name="x"), Decision()).headline == "🔔 x"  # type: ignore[union-attr]
    told = notices.word(Event(name="x"), Decision(what=What.OPENED))
    assert isinstance(told, Notice)
