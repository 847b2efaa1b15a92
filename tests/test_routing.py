"""Which events are told: one waiting episode makes one alert, in whatever order and number its events come."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import attrs
import pytest
from chatwoot_samples import NAMES, Relay, document, fixture
from hypothesis import given, settings
from hypothesis import strategies as st

from chatwoot_relay import routing
from chatwoot_relay.events import Ignored, What
from chatwoot_relay.models import Notice

CREATED = document("conversation_created--webwidget")
OPEN = document("conversation_status_changed--pending-to-open-handoff")
MESSAGE = document("message_created--incoming-text")
REPLY = document("message_created--outgoing-agent-reply")
ANNA = {"id": 11, "name": "Anna Petrova", "type": "user"}
BORIS = {"id": 12, "name": "Boris Ivanov", "type": "user"}


@attrs.define
class Chatwoot:
    """A conversation as Chatwoot tells it: every event shows the state when it is made."""

    status: str = "pending"
    assignee: dict[str, Any] | None = None
    priority: str | None = None
    at: float = 1_795_365_500.0
    newest: int = 0
    last: dict[str, Any] | None = None

    def later(self, seconds: float = 1.0) -> None:
        self.at += seconds if self.at else 0.0

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(json.dumps(OPEN))
        del state["event"], state["changed_attributes"]
        state |= {"status": self.status, "priority": self.priority, "updated_at": self.at}
        state["messages"] = [self.last] if self.last else []
        state["meta"] |= {"assignee": self.assignee, "assignee_type": "User" if self.assignee else None}
        return state

    def event(self, name: str, **changes: tuple[object, object]) -> dict[str, Any]:
        listed = [{key: {"previous_value": old, "current_value": new}} for key, (old, new) in changes.items()]
        times = {"updated_at": {"previous_value": self.at - 1, "current_value": self.at}}
        extra = {"changed_attributes": [*listed, times]} if changes else {}
        return self._state() | {"event": name} | extra

    def message(
        self, content: str, *, by: dict[str, Any] | None = None, kind: str = "incoming", **more: Any
    ) -> dict[str, Any]:
        self.newest += 1
        body: dict[str, Any] = json.loads(json.dumps(REPLY if by else MESSAGE))
        number, kinds = 1000 + self.newest, {"incoming": 0, "outgoing": 1, "template": 3}
        if not more.get("private"):
            inner = {"id": number, "content": content, "message_type": kinds[kind], "created_at": int(self.at)}
            self.last = inner | {"sender": by or {"id": 643, "type": "contact"}}
        body |= {"id": number, "content": content, "message_type": kind, "created_at": self.at, "sender": by} | more
        if not by:
            body["sender"] = {"id": 643, "name": "Karl Müller"}
        return body | {"conversation": self._state()}

    # what happens to a conversation, as the events that Chatwoot sends of it

    def write(self, content: str = "help", *, bot: bool = False) -> list[dict[str, Any]]:
        """The customer writes; a resolved or snoozed conversation turns open, or the bot's where it has one."""
        self.later()
        before, events = self.status, list[dict[str, Any]]()
        if before in ("resolved", "snoozed"):
            self.status = "pending" if bot else "open"
        message = self.message(content)
        if before != self.status:
            events += [
                self.event("conversation_status_changed"),
                self.event("conversation_updated", status=(before, self.status)),
            ]
        return [*events, message, self.event("conversation_updated", waiting_since=(None, self.at))]

    def create(self) -> list[dict[str, Any]]:
        message = self.message("hello")
        return [self.event("conversation_created"), message, {"event": "contact_created", "id": 643, "name": "Karl"}]

    def hand_over(self) -> list[dict[str, Any]]:
        self.later()
        self.status = "open"
        copies = [self.event("conversation_opened"), self.event("conversation_status_changed")]
        for copy in copies:
            copy["updated_at"] += 0.0000005
        noise = self.event("conversation_updated", waiting_since=(None, self.at))
        twin = self.event("conversation_updated", status=("pending", "open"))
        return [noise, self.event("conversation_status_changed"), twin, *copies]

    def hand_over_assigned(self) -> list[dict[str, Any]]:
        """With automatic assignment no status event is sent."""
        self.later()
        self.status, self.assignee = "open", ANNA
        return [self.event("conversation_updated", assignee_id=(None, 11))]

    def take(self, person: dict[str, Any] = ANNA) -> list[dict[str, Any]]:
        self.later()
        before, self.assignee = self.assignee, person
        return [self.event("conversation_updated", assignee_id=(before and before["id"], person["id"]))]

    def release(self) -> list[dict[str, Any]]:
        self.later()
        before, self.assignee = self.assignee, None
        return [self.event("conversation_updated", assignee_id=(before and before["id"], None))]

    def answer(self, person: dict[str, Any] = ANNA) -> list[dict[str, Any]]:
        self.later()
        reply = self.message("on it", by=person, kind="outgoing")
        return [reply, self.event("conversation_updated", first_reply_created_at=(None, "x"), waiting_since=(1, None))]

    def turn(self, status: str) -> list[dict[str, Any]]:
        self.later()
        before, self.status = self.status, status
        events = [
            self.event("conversation_status_changed"),
            self.event("conversation_updated", status=(before, status)),
        ]
        return [*events, self.event("conversation_resolved")] if status == "resolved" else events


def alone(name: str, *modes: str) -> str:
    return Relay(events=frozenset(modes)).say(document(name))


# --- The table ---


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_alone_is_told_as_the_manifest_says(name: str) -> None:
    """``notify`` and ``optional`` are told by default, ``ignore`` is not; under ``all`` a twin alone is no twin."""
    assert alone(name, "useful").startswith("ignored") == (fixture(name)["default"] == "ignore")
    assert not alone(name, "all").startswith("ignored")


# What happens to a sample under useful, handoff and all; one word where it is the same thrice.
TABLE = """
conversation_status_changed--pending-to-open-handoff
    alert: handed over
message_created--incoming-text
    alert: unattended
conversation_created--webwidget
    alert: new conversation
message_created--incoming-status-pending-bot-handles
    ignored: the bot has it | ignored: the bot has it | told: customer wrote to the bot
conversation_updated--assignee-set
    silent: taken | silent: taken | told: taken
conversation_updated--assignee-changed
    silent: reassigned | silent: reassigned | told: reassigned
conversation_status_changed--resolved-by-agent
    silent: resolved | silent: resolved | told: resolved
conversation_status_changed--snoozed-until
    silent: snoozed | silent: snoozed | told: snoozed
conversation_updated--priority-urgent
    told: urgent | ignored: not selected | told: urgent
message_updated--send-failed
    told: send failed | ignored: not selected | told: send failed
message_updated--email-collected
    told: e-mail left | ignored: not selected | told: e-mail left
message_created--private-note-mention
    told: mentioned | ignored: not selected | told: mentioned
conversation_updated--label-added
    told: labelled | ignored: not selected | told: labelled
conversation_updated--team-set
    told: team set | ignored: not selected | told: team set
automation_event.conversation_updated--unsigned
    told: other
macro.executed--unsigned
    told: other
message_created--outgoing-agent-reply
    ignored: sent by us | ignored: sent by us | silent: agent wrote
message_created--outgoing-agent-bot
    ignored: sent by us | ignored: sent by us | silent: bot wrote
message_created--template-csat
    ignored: sent by us | ignored: sent by us | silent: automatic message
message_created--private-note
    ignored: private note | ignored: private note | silent: note
conversation_typing_on--contact
    ignored: noise | ignored: noise | silent: noise
contact_updated--renamed
    ignored: noise | ignored: noise | silent: noise
webwidget_triggered--new-visitor
    ignored: noise | ignored: noise | silent: noise
inbox_created--api-channel-leaks-secrets
    ignored: noise | ignored: noise | silent: noise
message_updated--delivered-noise
    ignored: noise | ignored: noise | silent: noise
conversation_updated--waiting-since-noise
    ignored: noise | ignored: noise | silent: noise
"""


@pytest.mark.parametrize(("name", "row"), re.findall(r"^(\S+)\n +(.+)$", TABLE, re.MULTILINE))
def test_the_table_holds(name: str, row: str) -> None:
    """Users read it in the documentation and choose by it."""
    expected = row.split(" | ") if "|" in row else [row] * 3
    assert [alone(name, mode) for mode in ("useful", "handoff", "all")] == expected


def test_a_named_event_is_told_as_under_all_and_no_other_is() -> None:
    """Names are for those who know what they want."""
    assert alone("conversation_typing_on--contact", "conversation_typing_on") == "silent: noise"
    assert alone("message_created--outgoing-agent-reply", "message_created") == "silent: agent wrote"
    assert alone("message_created--incoming-text", "message_created") == "alert: unattended"
    assert alone("conversation_updated--assignee-set", "conversation_updated") == "told: taken"
    assert alone("conversation_updated--assignee-set", "message_created") == "ignored: not selected"
    assert alone("contact_created--basic", "message_created") == "ignored: not selected"
    assert alone("macro.executed--unsigned", "message_created") == "ignored: not selected"


def test_a_word_and_names_add_up() -> None:
    """``handoff,contact_created`` is more than ``handoff``; the louder of two counts."""
    assert alone("contact_created--basic", "handoff", "contact_created") == "silent: noise"
    assert alone("conversation_updated--assignee-set", "handoff", "conversation_updated") == "told: taken"
    assert alone("conversation_updated--assignee-set", "handoff", "contact_created") == "silent: taken"


def test_every_reason_is_of_the_closed_list() -> None:
    """It is a metric's label, and explained in the manual."""
    assert {str(reason) for reason in Ignored} == {
        "duplicate", "already told", "noise", "the bot has it", "sent by us", "private note", "not selected",
    }  # fmt: skip
    assert set(routing._ROWS) == set(What)
    manual = (Path(__file__).parent.parent / "docs" / "chatwoot.md").read_text("utf-8")
    assert [reason for reason in Ignored if f"| `{reason}` |" not in manual] == []


# --- An episode ---


def story(relay: Relay, *batches: list[dict[str, Any]]) -> list[str]:
    """What was told, of all that came."""
    said = [relay.say(body) for body in itertools.chain(*batches)]
    return [what for what in said if not what.startswith("ignored")]


def test_a_handoff_is_one_alert_and_then_how_it_went_on() -> None:
    """The bot hands over, Anna takes it, answers and resolves: nothing is told twice."""
    room, relay = Chatwoot(), Relay()
    created, bots = room.create(), room.message("ok", by={"type": "agent_bot", "name": "Bot"}, kind="outgoing")
    assert story(relay, created, [bots], room.hand_over()) == ["alert: handed over"]
    alert = relay.alerts[0]
    assert (alert.reason, alert.message) == ("Handed over by the bot", "hello")
    room.later(124)
    assert story(relay, room.take(), room.answer(), room.turn("resolved")) == [
        "silent: taken", "silent: answered", "silent: resolved",
    ]  # fmt: skip
    answered = relay.told[2]
    assert isinstance(answered, Notice)
    assert answered.headline == "✅ Anna Petrova answered Karl Müller after 2 min: on it"


def test_a_handoff_with_automatic_assignment_is_found() -> None:
    """chatwoot#9277: no status event at all; being assigned by a rule is not being taken."""
    room, relay = Chatwoot(), Relay()
    assert story(relay, room.create(), room.hand_over_assigned()) == ["alert: handed over"]
    assert relay.alerts[0].additional_info == {"channel": "website chat", "assigned to": "Anna Petrova"}
    room.later()
    again = room.event("conversation_updated", assignee_id=(None, 11))
    assert relay.say(again) == "ignored: already told"
    assert story(relay, room.write()) == ["told: customer wrote"]
    assert story(relay, room.answer()) == ["silent: answered"]
    assert story(relay, room.write()) == ["told: customer wrote"]


def test_a_handoff_with_automatic_assignment_is_found_where_the_conversation_was_first_seen_open() -> None:
    """Its own event alone says from what it turned: other jobs ran after it, or the relay is new."""
    for first in ("nothing", "its message", "noise", "its message, then the older state"):
        room, relay = Chatwoot(), Relay(events=frozenset({"handoff"}))
        created, *_ = room.create()
        noise = room.event("conversation_updated", waiting_since=(None, 1)) | {"status": "open"}
        room.hand_over_assigned()
        seen = {"nothing": [], "noise": [noise]}.get(first, [room.message("hello")])
        turned = room.event("conversation_updated", status=("pending", "open"), assignee_id=(None, 11))
        older = [created] if "older" in first else []
        assert story(relay, seen, older, [turned, turned]) == ["alert: handed over"], first
        assert story(relay, room.write()) == []


def test_a_conversation_known_as_open_that_turns_open_is_an_alert() -> None:
    """What it was meanwhile was never heard of; nothing was told of it yet."""
    room, relay = Chatwoot(status="open"), Relay()
    assert relay.say(room.event("conversation_updated", label_list=([], ["x"]))) == "told: labelled"
    room.later(1200)
    twin = room.event("conversation_updated", status=("pending", "open"))
    assert story(relay, [twin], room.hand_over()) == ["alert: handed over"]


def test_any_event_may_bring_the_news_that_the_bot_gave_up() -> None:
    """Even an agent's typing, a note, a rule or an event we do not know."""
    for name in ("conversation_typing_on", "message_updated", "automation_event.message_created", "brand_new"):
        room, relay = Chatwoot(), Relay()
        story(relay, room.create())
        room.later()
        room.status = "open"
        body = room.event("x") | {"event": name}
        if name == "conversation_typing_on":
            body = {"event": name, "user": ANNA, "conversation": room.event("x")}
        if name == "message_updated":
            body = room.message("note", by=ANNA, kind="outgoing", private=True) | {"event": name}
        assert relay.say(body) == "alert: handed over"
        assert story(relay, room.hand_over()) == []


def test_noise_about_a_conversation_never_seen_opens_nothing() -> None:
    """A relay that was just installed would else alert for every open conversation."""
    room, relay = Chatwoot(status="open"), Relay()
    assert relay.say(room.event("conversation_updated", waiting_since=(None, 1))) == "ignored: noise"
    assert relay.say(room.event("conversation_updated", status=("pending", "open"))) == "ignored: noise"
    assert relay.say(room.event("conversation_status_changed")) == "alert: opened"


def test_a_copy_of_an_opening_is_ignored_even_when_it_was_taken_meanwhile() -> None:
    """A bot's copy may come late: it was told."""
    room, relay = Chatwoot(), Relay()
    story(relay, room.create())
    *events, late = room.hand_over()
    story(relay, events, room.take(), room.answer())
    assert relay.say(late) == "ignored: already told"


@pytest.mark.parametrize("status", ["pending", "resolved", "snoozed"])
def test_a_copy_of_an_opening_that_comes_after_its_end_opens_nothing(status: str) -> None:
    """It is older than the end; what opens next is news, however soon."""
    room, relay = Chatwoot(), Relay(events=frozenset({"handoff"}))
    story(relay, room.create())
    opening, *copies = room.hand_over()[1:]
    ends = ["silent: " + status] if status != "pending" else []
    assert story(relay, [opening], room.answer(), room.turn(status)) == [
        "alert: handed over",
        "silent: answered",
        *ends,
    ]
    assert [relay.say(copy) for copy in copies[1:]] == ["ignored: already told"] * 2
    assert len(story(relay, room.turn("open"))) == 1


def test_a_message_from_before_the_end_opens_nothing_though_nobody_waited() -> None:
    """Else the next opening would pass for its copy."""
    room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
    story(relay, room.create(), room.answer(), room.take())
    late = room.write()[0]
    assert story(relay, room.turn("snoozed"), [late]) == ["silent: snoozed"]
    assert story(relay, room.turn("open")) == ["alert: snooze over"]


def test_an_answer_that_comes_late_hides_nobody_who_wrote_after_it() -> None:
    """Under `handoff` the words after it were not told; under `useful` they were."""
    for mode, told in (("handoff", ["alert: unattended"]), ("useful", ["told: customer wrote", "silent: answered"])):
        room, relay = Chatwoot(status="open"), Relay(events=frozenset({mode}))
        story(relay, room.create())
        answer, after = room.answer()[0], room.write("still broken")[0]
        assert story(relay, [after, answer]) == told
    relay = Relay(events=frozenset({"handoff"}))
    room = Chatwoot(status="open")
    story(relay, room.create())
    answer, after = room.answer()[0], room.write("still broken")[0]
    story(relay, [after, answer])
    assert relay.alerts[-1].message == "still broken"
    assert story(relay, [answer], room.write("hello?"), room.answer(), room.write()) == [
        "silent: answered", "alert: unattended",
    ]  # fmt: skip


@pytest.mark.parametrize("status", ["pending", "resolved"])
def test_an_answer_that_comes_late_opens_nothing_that_the_bot_has_or_that_is_over(status: str) -> None:
    """It would hide the next opening; and nobody waits."""
    room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
    story(relay, room.create())
    ended = room.turn(status)
    answer = room.answer()[0]
    room.later()
    after = room.message("still broken")
    assert story(relay, ended, [after, answer]) == [
        *(["silent: resolved"] if status == "resolved" else []),
        "silent: answered",
    ]
    room.later(20)
    assert len(story(relay, room.turn("open"))) == 1


def test_two_late_answers_are_one_more_alert() -> None:
    """The words after them are the same."""
    room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
    story(relay, room.create())
    first, second, after = room.answer()[0], room.answer()[0], room.write("still broken")[0]
    assert [what for what in story(relay, [after, second, first]) if "alert" in what] == ["alert: unattended"]


def test_an_answer_that_comes_late_to_a_conversation_that_somebody_has_is_an_answer() -> None:
    """The words after it are somebody's."""
    room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
    story(relay, room.create(), room.take())
    answer, after = room.answer()[0], room.write("still broken")[0]
    assert story(relay, [after, answer]) == ["silent: answered"]


def test_a_new_conversation_and_its_first_message_are_one_in_either_order() -> None:
    """Both say the same thing."""
    for order in (1, -1):
        relay, first = (
            Relay(),
            [document("conversation_created--webwidget"), document("message_created--incoming-text")],
        )
        said = [relay.say(body) for body in first[::order]]
        assert said[0].startswith("alert")
        assert said[1] == ("ignored: duplicate" if order == 1 else "ignored: already told")


def test_a_new_conversation_without_words_lets_the_first_ones_be_told() -> None:
    """The alert showed none."""
    room, relay = Chatwoot(status="open"), Relay()
    assert relay.say(room.event("conversation_created")) == "alert: new conversation"
    assert story(relay, room.write()) == ["told: customer wrote"]


def test_a_conversation_is_created_once() -> None:
    """A late copy after it was resolved is no new one."""
    room, relay = Chatwoot(status="open"), Relay()
    created, *_ = room.create()
    assert story(relay, [created], room.turn("resolved")) == ["alert: new conversation", "silent: resolved"]
    assert relay.say(created) == "ignored: duplicate"


def test_a_conversation_that_is_over_when_it_is_said_to_be_created_is_told_so_once() -> None:
    """The job ran late; the status event that follows says the same."""
    for status, what in (("resolved", "silent: resolved"), ("snoozed", "silent: snoozed")):
        room, relay = Chatwoot(status="open"), Relay()
        created, *_ = room.create()
        created["status"] = status
        assert story(relay, [created], room.turn(status)) == [what]


def test_what_happens_without_a_conversation_is_told_once_too() -> None:
    """A job that ran again brings another delivery id and the same body; the bot's copy of a new conversation too."""
    for name in ("conversation_created--bot-inbox-pending", "contact_created", "webwidget_triggered"):
        (sample,) = [each for each in NAMES if each.startswith(name)]
        relay = Relay(events=frozenset({"all"}))
        assert relay.say(document(sample)).startswith("silent")
        assert relay.say(document(sample)) == "ignored: duplicate"
    relay = Relay(events=frozenset({"all"}))
    for changed in ([], [{"name": {"previous_value": "Karl", "current_value": "Carl"}}]):
        body = document("contact_updated--renamed") | {"changed_attributes": changed}
        assert relay.say(body) == "silent: noise"


def test_a_customer_who_writes_after_the_answer_waits_again() -> None:
    """Nobody has the conversation: the next message may stay unseen for hours."""
    room, relay = Chatwoot(status="open"), Relay()
    assert story(relay, room.create(), room.write()) == ["alert: new conversation", "told: customer wrote"]
    assert story(relay, room.answer(), room.answer()) == ["silent: answered"]
    assert story(relay, room.write(), room.write()) == ["alert: unattended", "told: customer wrote"]
    assert story(relay, room.take(), room.write()) == ["silent: taken", "told: customer wrote"]
    assert story(relay, room.release(), room.write()) == ["silent: unassigned", "alert: unattended"]


def test_who_asked_for_handoffs_hears_no_further_messages() -> None:
    """One alert each, and how it went on."""
    room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
    assert story(relay, room.create(), room.write(), room.answer()) == ["alert: new conversation", "silent: answered"]


def test_a_message_that_was_written_before_the_answer_belongs_to_its_episode() -> None:
    """It comes late; somebody is on it."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    late = room.write("before")
    story(relay, room.answer())
    assert relay.say(late[0]) == "told: customer wrote"
    assert story(relay, room.write("after")) == ["alert: unattended"]


def test_what_a_customer_wrote_after_the_answer_counts_though_the_answers_event_shows_it() -> None:
    """Payloads show the state when the job ran."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    reply, _ = room.answer()
    after = room.write("after")
    reply["conversation"] = after[0]["conversation"]
    assert relay.say(reply) == "silent: answered"
    assert relay.say(after[0]) == "alert: unattended"


def test_an_answer_from_before_the_alert_is_none() -> None:
    """ "Answered after −3 s" would be a lie, and the customer still waits."""
    room, relay = Chatwoot(status="open"), Relay()
    room.message("first")
    reply, _ = room.answer()
    assert story(relay, room.write("second")) == ["alert: unattended"]
    assert relay.say(reply) == "ignored: sent by us"
    assert story(relay, room.write("third")) == ["told: customer wrote"]


def test_what_is_no_answer_does_not_close_an_episode() -> None:
    """Notes, rules, campaigns, bots and replies that failed leave the customer waiting."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    for more in (
        {"private": True},
        {"content_attributes": {"automation_rule_id": 1}},
        {"additional_attributes": {"campaign_id": 1}},
        {"content_attributes": {"external_error": "no route"}},
        {"sender": {"id": 4, "type": "agent_bot"}},
        {"sender": None},
    ):
        relay.say(room.message("x", by=ANNA, kind="outgoing") | more)
    assert story(relay, room.write()) == ["told: customer wrote"]
    assert story(relay, room.answer()) == ["silent: answered"]


def test_a_reopened_conversation_is_an_alert_with_the_new_message_in_any_order() -> None:
    """The status event comes first, or the message, or the twin."""
    for order in itertools.permutations(range(4)):
        room, relay = Chatwoot(status="open", assignee=ANNA), Relay()
        story(relay, room.create(), room.answer(), room.turn("resolved"))
        events = room.write("again")
        assert story(relay, [events[place] for place in order]) == ["alert: reopened"]
        assert relay.alerts[-1].message == "again"
        assert relay.alerts[-1].reason == "Customer wrote again after it was resolved"


def test_a_conversation_that_an_agent_reopens_is_not_said_to_be_written_to() -> None:
    """Its newest message is the customer's, yet an old one."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create(), room.turn("resolved"))
    assert story(relay, room.turn("open")) == ["alert: reopened"]
    assert relay.alerts[-1].reason == "Open again after it was resolved"
    assert relay.alerts[-1].message == "hello"


def test_the_customers_last_words_are_learnt_from_whatever_shows_them() -> None:
    """The message's own event may be lost, and the bot speaks last."""
    room, relay = Chatwoot(status="resolved"), Relay()
    room.message("I want a human")
    story(relay, room.turn("pending"))
    room.message("one moment", by={"type": "agent_bot", "name": "Bot"}, kind="outgoing")
    assert story(relay, room.hand_over()) == ["alert: handed over"]
    assert relay.alerts[0].message == "I want a human"


def test_a_snooze_that_ends_is_an_alert() -> None:
    """It was put off until now."""
    room, relay = Chatwoot(status="open"), Relay()
    assert story(relay, room.create(), room.turn("snoozed")) == ["alert: new conversation", "silent: snoozed"]
    assert story(relay, room.turn("open")) == ["alert: snooze over"]


def test_back_to_the_bot_closes_the_episode() -> None:
    """And the next handoff is another one."""
    room, relay = Chatwoot(), Relay()
    assert story(relay, room.create(), room.hand_over(), room.turn("pending"), room.write()) == ["alert: handed over"]
    assert story(relay, room.hand_over()) == ["alert: handed over"]
    assert relay.alerts[-1].message == "help"


def test_a_lost_resolution_hides_no_second_handoff() -> None:
    """Account webhooks are never repeated; an event long after the opening that says from what it turned is no copy."""
    room, relay = Chatwoot(), Relay()
    story(relay, room.create(), room.hand_over())
    room.turn("resolved")  # lost
    room.later(routing.LATER)
    assert story(relay, room.turn("open")) == ["alert: reopened"]


def test_a_late_copy_of_an_opening_is_no_second_one() -> None:
    """Nothing closed the episode, however long ago it opened; once somebody took it, turning open is news."""
    for opening in ("hand_over", "write"):
        room, relay = Chatwoot(status="pending" if opening == "hand_over" else "open"), Relay()
        assert len(story(relay, getattr(room, opening)())) == 1
        room.status = "open"
        room.later(50 * routing.LATER)
        assert story(relay, [room.event("conversation_status_changed"), room.event("conversation_opened")]) == []
        assert story(relay, room.take()) == ["silent: taken"]
        room.later()
        assert story(relay, [room.event("conversation_status_changed")]) == ["alert: opened"]


@pytest.mark.parametrize("status", ["pending", "resolved", "snoozed"])
def test_what_was_before_an_opening_does_not_close_it(status: str) -> None:
    """Order is not guaranteed: the event of the state it was opened from comes last."""
    room, relay = Chatwoot(status=status), Relay()
    room.later()
    before = room.event("conversation_status_changed")
    room.later()
    room.status = "open"
    events = [room.event("conversation_status_changed"), room.event("conversation_updated", status=(status, "open"))]
    assert story(relay, events[:1]) == ["alert: opened"]
    assert "alert" not in relay.say(before)
    assert story(relay, events) == []
    assert story(relay, room.write()) == ["told: customer wrote"]


def test_a_resolution_is_told_once_whatever_tells_it_first() -> None:
    """The status event, its twin and the bot's copy say the same."""
    for order in itertools.permutations(range(3)):
        room, relay = Chatwoot(status="open"), Relay()
        story(relay, room.create())
        events = room.turn("resolved")
        assert story(relay, [events[place] for place in order]) == ["silent: resolved"]


def test_a_resolution_seen_in_a_message_is_still_told() -> None:
    """An agent sends and resolves at once: the message's event shows it first."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    room.status = "resolved"
    assert story(relay, room.answer()) == ["silent: answered", "silent: resolved"]
    assert story(relay, room.turn("resolved")) == []


def test_an_older_event_neither_closes_nor_reopens() -> None:
    """Order is not guaranteed."""
    room, relay = Chatwoot(), Relay()
    room.later()
    older = room.event("conversation_updated", waiting_since=(None, 1))
    taken = room.take()
    room.assignee = None
    story(relay, room.create(), room.hand_over())
    assert relay.say(older) == "ignored: noise"
    assert story(relay, taken, room.write()) == ["silent: taken", "told: customer wrote"]
    late = room.event("conversation_updated", custom_attributes=({}, {}))
    assert story(relay, room.turn("resolved"), [late]) == ["silent: resolved"]


def test_a_status_that_is_confirmed_makes_what_lies_before_it_old() -> None:
    """Else an event from in between would pass for a reopening."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    first = room.turn("resolved")
    room.status = "open"
    room.later()
    between = room.event("conversation_updated", custom_attributes=({}, {}))
    assert story(relay, first, room.turn("resolved"), [between]) == ["silent: resolved"]


def test_a_late_resolution_hides_no_message_from_after_it() -> None:
    """Resolved and written to again at once; the resolution comes last but one."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    resolved, *_ = room.turn("resolved")
    turned, _, message, _ = room.write("again")
    assert story(relay, [turned, resolved, message]) == ["silent: resolved", "alert: reopened"]


def test_a_message_from_before_the_resolution_does_not_reopen() -> None:
    """It is told, for it may not have been read."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    late = room.write("late")[0]
    story(relay, room.turn("resolved"))
    assert relay.say(late) == "told: customer wrote"


def test_a_repeated_change_is_told_once() -> None:
    """A job that ran again sends it under a new delivery id."""
    room, relay = Chatwoot(status="open"), Relay()
    assert story(relay, room.take(), room.take(BORIS)) == ["silent: taken", "silent: reassigned"]
    assert relay.say(room.event("conversation_updated", assignee_id=(11, 12))) == "ignored: duplicate"
    room.later()
    assert relay.say(room.event("conversation_updated", assignee_id=(11, 12))) == "ignored: already told"
    labels = document("conversation_updated--label-added")
    assert [relay.say(labels), relay.say(labels)] == ["told: labelled", "ignored: duplicate"]


def test_a_repeated_message_is_told_once() -> None:
    """Whatever delivery brings it."""
    relay = Relay()
    messages = [document("message_created--incoming-attachment-image-content-null") for _ in range(2)]
    assert [relay.say(body) for body in messages] == ["alert: unattended", "ignored: duplicate"]
    updates = [document("message_updated--send-failed") for _ in range(2)]
    assert [relay.say(body) for body in updates] == ["told: send failed", "ignored: duplicate"]


def test_a_repeated_message_may_still_bring_an_opening() -> None:
    """It shows the state when the job ran again."""
    room, relay = Chatwoot(), Relay(events=frozenset({"all"}))
    message = room.message("hello")
    assert relay.say(message) == "told: customer wrote to the bot"
    room.later()
    room.status = "open"
    assert relay.say(message | {"conversation": room._state()}) == "alert: handed over"


def test_what_is_not_selected_is_not_learnt() -> None:
    """The next event that is selected finds the opening."""
    room, relay = Chatwoot(), Relay(events=frozenset({"message_created"}))
    assert story(relay, room.create(), room.hand_over()) == ["told: customer wrote to the bot"]
    assert story(relay, room.write()) == ["alert: handed over"]


def test_an_opening_that_is_not_selected_is_over_once_somebody_took_or_answered_it() -> None:
    """Else a receipt would raise an alert about a conversation that has its human."""
    for ending in ("take", "answer"):
        room, relay = Chatwoot(), Relay(frozenset({"message_updated"}))
        assert story(relay, room.create(), room.hand_over(), getattr(room, ending)()) == []
        receipt = room.message("on it", by=ANNA, kind="outgoing") | {"event": "message_updated"}
        assert relay.say(receipt) == "silent: noise"


def test_an_opening_that_comes_after_its_assignment_is_told() -> None:
    """Order is not guaranteed, and a rule may have assigned it."""
    room, relay = Chatwoot(), Relay(frozenset({"conversation_status_changed"}))
    story(relay, room.create())
    room.later()
    room.status = "open"
    opened = room.event("conversation_status_changed")
    assert story(relay, room.take(), [opened]) == ["alert: opened"]
    twin = Relay(frozenset({"conversation_updated"}))
    room = Chatwoot()
    story(twin, room.create())
    room.later()
    room.status, room.assignee = "open", ANNA
    events = [room.event("conversation_status_changed"), room.event("conversation_updated", status=("pending", "open"))]
    assert story(twin, events) == ["alert: handed over"]


def test_an_opening_that_a_rule_assigned_is_found_by_the_next_event_that_is_named() -> None:
    """To be assigned with the very turn is not to be taken."""
    room, relay = Chatwoot(), Relay(frozenset({"message_created"}))
    story(relay, room.create())
    room.later()
    room.status, room.assignee = "open", ANNA
    story(relay, [room.event("conversation_updated", status=("pending", "open"), assignee_id=(None, 11))])
    assert story(relay, room.write())[0] == "alert: handed over"


def test_a_delayed_twin_of_an_opening_is_none() -> None:
    """Its state is of when the job ran, minutes later; its changes say when it happened."""
    room, relay = Chatwoot(), Relay()
    story(relay, room.create(), room.hand_over())
    twin = room.event("conversation_updated", status=("pending", "open"))
    room.later(2 * routing.LATER)
    assert story(relay, room.take()) == ["silent: taken"]
    assert "alert" not in relay.say(twin | {"updated_at": room.at})


def test_who_waits_since_long_and_is_said_to_have_come_back_is_an_alert() -> None:
    """What closed it was lost, and so may its twin be: Chatwoot sends each once."""
    room, relay = Chatwoot(), Relay()
    story(relay, room.create(), room.hand_over())
    room.later(2 * routing.LONG_AFTER)
    assert story(relay, [room.event("conversation_status_changed")]) == ["alert: opened"]


def test_several_changes_at_once_are_told_by_the_first_that_is_selected() -> None:
    """Urgent and taken: by default the one, for handoffs the other."""
    for mode, told in (("useful", "told: urgent"), ("handoff", "silent: taken")):
        room, relay = Chatwoot(status="open"), Relay(events=frozenset({mode}))
        room.assignee, room.priority = ANNA, "urgent"
        assert relay.say(room.event("conversation_updated", priority=(None, "urgent"), assignee_id=(None, 11))) == told


def test_changes_that_mean_nothing_to_a_person_are_noise() -> None:
    """A label taken away, a team left, a lower priority, a bot assigned."""
    for change in (
        {"label_list": (["a", "b"], ["a"])},
        {"team_id": (2, None)},
        {"priority": ("urgent", "high")},
        {"assignee_agent_bot_id": (None, 4)},
        {"assignee_id": (None, None)},
        {"assignee_id": (None, 11)},  # but somebody else's event shows that nobody has it
    ):
        room = Chatwoot(status="open")
        assert Relay().say(room.event("conversation_updated", **change)) == "ignored: noise"


def test_a_status_that_we_do_not_know_is_told() -> None:
    """A newer Chatwoot may have one."""
    for name in ("conversation_status_changed", "conversation_created"):
        for status in ("escalated", None):
            body = Chatwoot().event(name) | {"status": status}
            assert Relay().say(body) == "told: other"


def test_a_customer_whose_conversation_says_no_status_is_heard() -> None:
    """In every mode: nobody is known to have it. Where it is known who has it, that counts."""
    for status in (None, "on_hold", 0):
        room, relay = Chatwoot(status="open"), Relay(events=frozenset({"handoff"}))
        message = room.message("help")
        message["conversation"]["status"] = status
        assert relay.say(message) == "alert: unattended"
    room, relay = Chatwoot(), Relay()
    story(relay, room.create())
    message = room.message("help")
    del message["conversation"]["status"]
    assert relay.say(message) == "ignored: the bot has it"


def test_a_message_of_unknown_kind_is_told() -> None:
    """It may be the customer's."""
    body = document("message_created--incoming-text") | {"message_type": 7}
    assert Relay().say(body) == "told: other"


def test_without_a_number_a_customer_is_still_heard() -> None:
    """Nothing can be remembered and no alert made, but it is told."""
    body = document("message_created--incoming-text")
    body["conversation"]["id"] = None
    for mode in ("useful", "handoff"):
        relay = Relay(events=frozenset({mode}))
        assert relay.say(body) == "told: unattended"
        assert relay.memories == {}


def test_an_event_that_does_not_say_who_has_it_changes_nothing_about_that() -> None:
    """Silence is not nobody."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create(), room.take())
    room.later()
    message = room.message("hi")
    del message["conversation"]["meta"]
    assert relay.say(message) == "told: customer wrote"


def test_versions_without_times_are_followed_all_the_same() -> None:
    """Older payloads have no updated_at."""
    room, relay = Chatwoot(at=0.0), Relay()
    assert story(relay, room.create(), room.hand_over()) == ["alert: handed over"]
    assert story(relay, room.take(), room.turn("resolved")) == ["silent: taken", "silent: resolved"]


def test_noise_is_not_worth_a_write() -> None:
    """It comes with every message of every customer."""
    room, relay = Chatwoot(status="open"), Relay()
    story(relay, room.create())
    room.later()
    for body in (room.event("conversation_updated", waiting_since=(None, 1)), document("contact_updated--renamed")):
        assert relay.receive(body).memory is None


def test_a_rules_event_leaves_what_is_remembered() -> None:
    """It says nothing that Chatwoot's own events do not."""
    room, relay = Chatwoot(status="open"), Relay()
    assert story(relay, [room.event("automation_event.conversation_updated")]) == ["told: other"]
    assert relay.memories == {}


def test_an_answer_can_be_the_first_sign_that_the_bot_gave_up() -> None:
    """It is told as the opening it is, and nobody waits after it."""
    room, relay = Chatwoot(), Relay()
    story(relay, room.create())
    room.status = "open"
    assert story(relay, room.answer()[:1]) == ["alert: handed over"]
    assert story(relay, room.write()) == ["alert: unattended"]


# --- Any conversation, in any order ---


@attrs.define
class Model:
    """How many alerts there ought to be, in as few words as the rule."""

    status: str
    held: bool = False
    waiting: bool = False
    alerts: int = 0

    def open(self) -> None:
        self.status, self.waiting, self.alerts = "open", True, self.alerts + 1

    def step(self, what: str) -> None:
        match what:
            case "write" if self.status in ("resolved", "snoozed"):
                self.open()
            case "write" if self.status == "open" and not self.waiting and not self.held:
                self.open()
            case "hand_over":
                self.open()
            case "hand_over_assigned":
                self.open()
                self.held = True
            case "take" | "answer":
                self.waiting, self.held = False, self.held or what == "take"
            case "release":
                self.held = False
            case "resolved" | "snoozed" | "pending":
                self.status, self.waiting = what, False


def play(room: Chatwoot, model: Model, what: str) -> list[dict[str, Any]]:
    """One step of a conversation, where Chatwoot allows it."""
    if what.startswith("hand_over") and model.status != "pending":
        return []
    if what == "hand_over_assigned" and model.held:
        return []
    if (what == "take" and model.held) or (what == "release" and not model.held):
        return []
    if what in ("resolved", "snoozed", "pending"):
        if model.status == what:
            return []
        model.step(what)
        return room.turn(what)
    model.step(what)
    events: list[dict[str, Any]] = getattr(room, what)()
    return events


HANDOVERS = ["hand_over", "hand_over_assigned"]
STEPS = st.lists(
    st.sampled_from([*HANDOVERS, "write", "write", "take", "release", "answer", "resolved", "snoozed", "pending"]),
    max_size=14,
)


@settings(max_examples=150, deadline=None)
@given(first=st.sampled_from(["open", "pending"]), steps=STEPS, data=st.data())
def test_each_episode_makes_one_alert_however_its_events_are_shuffled_and_repeated(
    first: str, steps: list[str], data: st.DataObject
) -> None:
    """Jobs run side by side: the events of one step come in any order, some of them twice."""
    room, model, relay = Chatwoot(status=first), Model(first), Relay()
    batch = room.create()
    if first == "open":
        model.open()
    before: list[dict[str, Any]] = []
    for what in [*steps, None]:
        pool = [*batch, *before]
        repeats = data.draw(st.lists(st.sampled_from(pool), max_size=3)) if pool else []
        for body in data.draw(st.permutations([*batch, *repeats])):
            relay.receive(body)
        assert len(relay.alerts) == model.alerts
        before, known = [*before, *batch], model.alerts
        batch = play(room, model, what) if what else []
        if model.alerts > known:  # the words between alone tell an answer from before an opening from one after it
            before = [body for body in before if body.get("message_type") != "outgoing"]


@settings(max_examples=100, deadline=None)
@given(first=st.sampled_from(["open", "pending"]), steps=STEPS, data=st.data())
def test_no_order_of_all_events_loses_every_alert(first: str, steps: list[str], data: st.DataObject) -> None:
    """Whatever comes when: where somebody waited, somebody hears of it."""
    room, model, relay = Chatwoot(status=first), Model(first), Relay()
    events = room.create()
    if first == "open":
        model.open()
    for what in steps:
        events += play(room, model, what)
    for body in data.draw(st.permutations(events)):
        relay.receive(body)
    if any(body["event"] == "conversation_status_changed" and body["status"] == "open" for body in events):
        assert relay.alerts
