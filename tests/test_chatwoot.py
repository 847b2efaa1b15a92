"""Chatwoot's shapes: whatever a body holds becomes an event, and nothing secret comes along."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from chatwoot_samples import DASHBOARD, NAMES, Relay, document, fixture, read
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatwoot_relay import chatwoot
from chatwoot_relay.events import Attachment, Memory, Person, Role, message_key
from chatwoot_relay.models import Notice
from chatwoot_relay.render import render


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_reads_as_its_facts_say(name: str) -> None:
    """The manifest was written from Chatwoot's own code."""
    facts = fixture(name)["facts"]
    event = read(document(name))
    assert event.name == facts["event"]
    assert event.account_id == (facts["account_id"] or 9)
    assert event.conversation_id == facts.get("conversation_display_id")
    assert event.status == facts.get("status", "")
    if "assignee" in facts:
        assert (event.assignee.name if event.assignee else None) == facts["assignee"]
        assert (event.assignee is not None and event.assignee.role is Role.BOT) == (
            facts["assignee_type"] == "AgentBot"
        )
        assert (event.team or None, event.priority or None) == (facts["team"], facts["priority"])
        assert list(event.labels) == facts["labels"]
    if "url_path" in facts:
        assert event.url == DASHBOARD + facts["url_path"]
    if "message_id" in facts:
        assert event.message is not None
        assert event.message.id == facts["message_id"]
        assert event.message.kind == facts["message_type"]
        assert event.message.private == facts["private"]
        assert (event.message.text == "") == facts["content_is_null"]
        assert event.inbox == facts["inbox_name"]
        assert [attachment.kind for attachment in event.message.attachments] == facts["attachments"]
        roles = {"contact": Role.CONTACT, "user": Role.PERSON, "agent_bot": Role.BOT}
        sender = event.message.sender
        assert (sender.role if sender else None) == roles.get(facts["sender_type"])
    if facts.get("changed") is not None:
        assert sorted(change.name for change in event.changes) == sorted(facts["changed"])


@pytest.mark.parametrize("name", NAMES)
def test_no_secret_and_no_agents_address_comes_along(name: str) -> None:
    """What is not read cannot be told, logged or stored."""
    body = document(name)
    for place in (body, body.get("conversation") or {}):
        assignee = (place.get("meta") or {}).get("assignee")
        if assignee:
            assignee["email"] = "anna@acme.example"
    relay = Relay(events=frozenset({"all"}))
    relay.receive(body)
    kept = [repr(read(body)), repr(relay.told), *map(repr, relay.memories.values()), *relay.keys]
    for secret in _secrets(body):
        assert not [text for text in kept if secret in text]


def _secrets(value: object, name: str = "") -> list[str]:
    """Every value of a telling name, everything of a channel's record, every address of our own people."""
    if isinstance(value, dict):
        of_us = value.get("type") == "user"
        inner = [_secrets(entry, name if name == "channel" else key) for key, entry in value.items()]
        return [secret for found in inner for secret in found] + (
            [value["email"]] if of_us and value.get("email") else []
        )
    if isinstance(value, list):
        return [secret for entry in value for secret in _secrets(entry, name)]
    telling = ("pubsub_token", "hmac_token", "secret", "webhook_url", "identifier_hash", "channel", "created_at_ip")
    if isinstance(value, str) and len(value) > 5 and name in telling and not value.startswith("Channel::"):
        return [value]
    return []


def test_the_samples_do_hold_secrets() -> None:
    """Otherwise the test above would prove nothing."""
    body = document("inbox_created--api-channel-leaks-secrets")
    assert body["channel"]["hmac_token"] in _secrets(body)
    assert document("message_created--incoming-text")["conversation"]["contact_inbox"]["pubsub_token"] in _secrets(
        document("message_created--incoming-text")
    )


# --- Whatever a field holds ---

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, -1, 2**63, 10**400, float("inf"), float("nan"), 1e308, -0.0]),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["open", "pending", "resolved", "incoming", "user", "2026-11-22T16:38:16Z", "0001-01-01", "{b}", "<b>"]
    ),
    st.sampled_from(["", "\ud800", "\u202e\u202d", "a\nb\x1b[0m", "9" * 30, "x" * 9000, "9999-12-31T23:59:59+00:00"]),
    st.recursive(
        st.none() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=6,
    ),
)


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path and path != ("event",) else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [inner for key, entry in entries for inner in _paths(entry, (*path, key))]


SAMPLES = {name: document(name) for name in NAMES if name != "message_created--incoming-very-long"}
PATHS = {name: _paths(body) for name, body in SAMPLES.items()}


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A sample in which some fields are gone or hold something else."""
    name = draw(st.sampled_from(sorted(SAMPLES)))
    body = json.loads(json.dumps(SAMPLES[name]))
    for path in draw(st.lists(st.sampled_from(PATHS[name]), min_size=1, max_size=4)):
        place: Any = body
        try:
            for key in path[:-1]:
                place = place[key]
            if draw(st.booleans()):
                place[path[-1]] = draw(ODD)
            else:
                del place[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # an earlier mutation took the place away
    return body


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    bodies=st.lists(mutated(), min_size=1, max_size=3),
    mode=st.sampled_from(["useful", "handoff", "all", "message_created"]),
)
def test_no_mutation_of_a_sample_is_an_error(bodies: list[dict[str, Any]], mode: str) -> None:
    """Versions add and lack fields; strangers with the token send anything."""
    relay = Relay(events=frozenset({mode}))
    for body in bodies:
        decision = relay.receive(body)
        assert (decision.what is None) != (decision.ignored is None)
    for content in relay.told:
        assert len(render(content)) > 0
        json.dumps(msgspec.to_builtins(content), allow_nan=False, ensure_ascii=False).encode()  # no lone surrogate
        if isinstance(content, Notice):
            assert 0 < len(content.headline) <= 80
            assert "\n" not in content.headline
        else:
            assert 1 <= content.conversation_id < 2**63
    for stored in relay.memories.values():
        msgspec.json.decode(stored, type=Memory)


MEMBERS = ["id", "status", "conversation", "message", "meta", "sender", "account", "labels", "messages", "inbox"]
MEMBERS += ["content", "content_attributes", "changed_attributes"]


@settings(max_examples=100, deadline=None)
@given(
    name=st.text()
    | st.sampled_from(
        ["message_created", "conversation_created", "contact_x", "automation_event.x", "message_updated"]
    ),
    rest=st.dictionaries(st.sampled_from(MEMBERS), ODD),
)
def test_any_object_with_an_event_is_read(name: str, rest: dict[str, Any]) -> None:
    """The door lets every object pass whose event is a string."""
    relay = Relay()
    relay.receive({"event": name, **rest})


# --- One by one ---


def test_ten_thousand_labels_are_a_few_and_a_number() -> None:
    """Each would be a word on a phone."""
    body = document("conversation_updated--label-added")
    body["labels"] = [f"label-{number}" for number in range(10_000)]
    event = read(body)
    assert len(event.labels) == chatwoot.MAX_ITEMS + 1
    assert event.labels[-1] == "… and 9980 more"


@pytest.mark.parametrize("labels", [None, "vip", {"vip": 1}, [None, 1, {}], [[]]])
def test_labels_of_another_shape_are_none(labels: object) -> None:
    """Nothing is guessed."""
    assert read(document("conversation_updated--label-added") | {"labels": labels}).labels == ()


@pytest.mark.parametrize(
    ("given_id", "read_id"),
    [
        (1, 1), ("17", 17), (2**63 - 1, 2**63 - 1), (2**63, None), (0, None), (-1, None), (True, None), (1.0, None),
        ("١٧", None), ("1_7", None), ("9" * 20, None), (None, None), ([1], None),
    ],
)  # fmt: skip
def test_a_conversation_has_a_number_of_the_contract_or_none(given_id: object, read_id: int | None) -> None:
    """A number beyond 64 bits would break the database."""
    event = read(document("conversation_created--webwidget") | {"id": given_id})
    assert event.conversation_id == read_id
    assert (event.url is None) == (read_id is None)


def test_lone_surrogates_are_replaced() -> None:
    """They cannot be written to disk or sent."""
    body = document("message_created--incoming-text") | {"content": "a\ud800b"}
    event = read(body)
    assert event.message is not None
    assert event.message.text == "a\ufffdb"


def test_nothing_invisible_pushes_a_customers_words_out() -> None:
    """What is kept is counted after cleaning."""
    body = document("message_created--incoming-text") | {"content": "\u202e" * 5000 + "help me"}
    event = read(body)
    assert event.message is not None
    assert event.message.text == "help me"


def test_a_long_message_is_kept_as_far_as_it_is_shown() -> None:
    """A row in the outbox stays small."""
    event = read(document("message_created--incoming-very-long"))
    assert event.message is not None
    assert len(event.message.text) == chatwoot.MAX_TEXT


@pytest.mark.parametrize(
    ("moment", "seconds", "timestamp"),
    [
        (1795365496, 1795365496.0, "2026-11-22T16:38:16Z"),
        (1795365496.7, 1795365496.7, "2026-11-22T16:38:16Z"),
        ("2026-11-22T16:38:16.185Z", 1795365496.185, "2026-11-22T16:38:16.185Z"),
        ("2026-11-22 16:38:16", 1795365496.0, "2026-11-22 16:38:16"),
        ("2026-11-22T19:38:16+03:00", 1795365496.0, "2026-11-22T19:38:16+03:00"),
        (0, 0.0, ""),
        (None, 0.0, ""),
        (True, 0.0, ""),
        ("soon, I hope", 0.0, ""),
        ("0001-01-01T00:00:00+23:59", 0.0, ""),
        ("short", 0.0, ""),
        (float("nan"), 0.0, ""),
        (10**400, 0.0, ""),
    ],
)
def test_a_time_is_read_or_left_out(moment: object, seconds: float, timestamp: str) -> None:
    """Chatwoot writes three forms, and 0 for none."""
    event = read(document("message_created--incoming-text") | {"created_at": moment})
    assert event.message is not None
    assert event.message.at == pytest.approx(seconds)
    assert event.message.timestamp == timestamp


def test_the_account_is_found_wherever_a_version_has_it() -> None:
    """Without it there is no link, and two accounts' conversations would share a memory."""
    body = document("conversation_created--webwidget")
    assert read(body).account_id == 3
    del body["account"]
    assert read(body).account_id == 3
    body["messages"] = []
    assert read(body).account_id == 9
    without = chatwoot.read_event(body, base_url=DASHBOARD, account_id=None)
    assert (without.account_id, without.url) == (0, None)
    assert chatwoot.read_event(body, base_url=None, account_id=3).url is None


def test_no_meta_is_not_nobody() -> None:
    """An event that does not say who has it must not look as if it were free."""
    body = document("conversation_updated--assignee-set")
    assert read(body).assignee_known
    del body["meta"]
    assert not read(body).assignee_known
    assert read(body).assignee is None


def test_an_assignee_of_an_old_version_is_a_person() -> None:
    """Before bots could be assigned there was no type."""
    body = document("conversation_updated--assignee-set")
    body["meta"]["assignee"] = {"id": 11, "name": "Anna"}
    del body["meta"]["assignee_type"]
    assert read(body).assignee == Person(role=Role.PERSON, id=11, name="Anna")
    body["meta"]["assignee_type"] = "Captain::Assistant"
    assert read(body).assignee == Person(role=Role.BOT, id=11, name="Anna")


def test_a_bots_own_events_say_their_status_by_name() -> None:
    """Should a version leave it out."""
    assert read({"event": "conversation_opened", "id": 1}).status == "open"
    assert read({"event": "conversation_resolved", "id": 1}).status == "resolved"


def test_arrays_where_objects_belong_are_nothing() -> None:
    """A PHP or Ruby middleman turns {} into []."""
    body = document("message_created--incoming-text")
    body |= {"sender": [], "inbox": [], "content_attributes": [], "account": []}
    body["conversation"]["meta"]["assignee"] = []
    event = read(body)
    assert (event.inbox, event.assignee, event.account_id) == ("", None, 3)
    body["conversation"] = []
    assert read(body).conversation_id is None


def test_attachments_that_are_none_are_skipped_over() -> None:
    """An attachment of another type has no name."""
    body = document("message_created--incoming-text") | {"attachments": ["x", None]}
    event = read(body)
    assert event.message is not None
    assert event.message.attachments == (Attachment(kind="", name=""),) * 2


def test_ratings_are_one_to_five() -> None:
    """Stars are drawn by this number."""
    body = document("message_created--template-csat") | {"event": "message_updated"}
    for rating, stars in ((1, 1), (5, 5), (6, 0), (0, 0), (10**9, 0), ("x", 0)):
        body["content_attributes"] = {"submitted_values": {"csat_survey_response": {"rating": rating}}}
        event = read(body)
        assert event.message is not None
        assert event.message.rating == stars
    body["content_attributes"] = {"submitted_values": {"other": 1}}
    assert read(body).message.rating == 0  # type: ignore[union-attr]


def test_changes_are_read_from_any_list() -> None:
    """Their order and number are not fixed, and null is common."""
    body = document("conversation_updated--label-added")
    odd = {"b": {"previous_value": True, "current_value": 2.5}}
    body["changed_attributes"] = [None, "x", {"a": 1}, odd, {"c": {"current_value": 10**30}}]
    changes = [(change.name, change.before, change.after) for change in read(body).changes]
    assert changes == [("a", "", ""), ("b", "", "2.5"), ("c", "", "")]
    body["changed_attributes"] = [{str(number): {}} for number in range(10_000)]
    assert len(read(body).changes) == chatwoot.MAX_ITEMS


def test_of_many_changes_those_that_matter_are_read() -> None:
    """However much else a plugin changes at once."""
    body = document("conversation_updated--priority-urgent")
    body["changed_attributes"] = [{f"custom_{number}": {}} for number in range(50)] + body["changed_attributes"]
    assert read(body).change("priority").after == "urgent"


def test_of_labels_those_are_read_that_were_added() -> None:
    """Also among ten thousand; one that was taken away is none that was set."""
    body, many = document("conversation_updated--label-added"), [f"label {number}" for number in range(10_000)]

    def added(before: object, after: object) -> str:
        body["changed_attributes"] = [{"label_list": {"previous_value": before, "current_value": after}}]
        return read(body).change("label_list").after

    assert added(many, [*many, "vip"]) == "vip"
    assert added(many, many[1:]) == ""
    assert added([None, 1, {}], [{}, 2, "vip", []]) == "vip"
    assert added(None, ["vip"]) == "vip"


def test_another_thing_with_an_id_is_no_conversation() -> None:
    """An event of a newer Chatwoot about a label, say: a link to the conversation of that number would be wrong."""
    event = read({"event": "label_created", "id": 5, "title": "vip", "account": {"id": 3}})
    assert (event.conversation_id, event.url) == (None, None)
    assert read({"event": "conversation_merged", "id": 5}).conversation_id == 5


def test_an_agents_address_is_read_in_no_shape() -> None:
    """Whoever is not the customer has none: a typist who is somebody else, a sender who says that he is ours."""
    typing = document("conversation_typing_on--agent")
    typing["user"]["type"] = None
    simple = {"event": "message_created", "conversation": {"id": 5}, "message": {"content": "x"}}
    simple["sender"] = {"name": "Anna", "email": "anna@acme.example", "type": "user"}
    unknown = document("message_created--outgoing-agent-reply") | {"message_type": "new"}
    unknown["sender"] = {"id": 11, "name": "Anna", "email": "anna@acme.example", "type": None}
    for body in (typing, simple, unknown):
        assert "anna@" not in repr(read(body))


def test_every_event_of_the_samples_is_known() -> None:
    """Who names one in RELAY_EVENTS must not be told that nobody sends it; rules have names of their own."""
    assert {document(name)["event"] for name in NAMES} <= chatwoot.KNOWN_EVENTS


# --- Keys ---


def test_the_same_message_has_the_same_key_whatever_brings_it() -> None:
    """A job that ran again sends it under a new delivery id; an alert may have shown it before."""
    body = document("message_created--incoming-text")
    assert read(body).key == "message:3:88100"
    created = read(document("conversation_created--webwidget"))
    assert message_key(3, created.last) == "message:3:88100"
    body["conversation"]["status"] = "resolved"
    assert read(body).key == "message:3:88100"
    assert read(body | {"id": None}).key is None


def test_an_updated_message_is_another_when_its_content_is() -> None:
    """A first rating and a later word are two."""
    body = document("message_updated--email-collected")
    key = read(body).key
    assert key is not None
    body["conversation"]["updated_at"] = 1.0
    assert read(body).key == key
    assert read(body | {"content": "other"}).key != key
    body["content_attributes"]["a"] = 1
    turned = dict(reversed(body["content_attributes"].items()))
    assert read(body).key == read(body | {"content_attributes": turned}).key != key
    assert read(body | {"content_attributes": {}}).key != key
    assert read(body | {"id": 0}).key is None


def test_a_content_that_json_cannot_hold_has_a_key_all_the_same() -> None:
    """Lone surrogates and integers beyond 64 bits are valid JSON for some."""
    body = document("message_updated--email-collected")
    odd = [read(body | {"content_attributes": {"a": value}}).key for value in ("\ud800", 10**30, 10**31)]
    assert None not in odd
    assert len(set(odd)) == 3


def test_one_change_of_a_conversation_has_one_key() -> None:
    """Its times are in it."""
    body = document("conversation_updated--label-added")
    assert read(body).key == read(document("conversation_updated--label-added")).key
    assert read(document("conversation_updated--team-set")).key != read(body).key
    assert read(body | {"changed_attributes": None}).key is None
    without_times = [change for change in body["changed_attributes"] if "updated_at" not in change]
    assert read(body | {"changed_attributes": without_times}).key is None


def test_transport_keys_tell_repeats_and_replays() -> None:
    """The delivery id is not covered by the signature: a replay may carry another."""
    assert chatwoot.delivery_key("a") == chatwoot.delivery_key("a") != chatwoot.delivery_key("b")
    assert len(chatwoot.delivery_key("x" * 10_000)) < 100
    assert chatwoot.delivery_key("\udcff" * 100)
    assert chatwoot.signed_key("1", b"a") == chatwoot.signed_key("1", b"a")
    assert len({chatwoot.signed_key("1", b"a"), chatwoot.signed_key("2", b"a"), chatwoot.signed_key("1", b"b")}) == 3


# --- Which shape ---


@pytest.mark.parametrize(
    ("body", "simple"),
    [
        ({"event": "message_created", "conversation": {"id": 1}, "message": {"content": "x"}}, True),
        ({"event": "conversation_resolved", "conversation": {"id": 1, "status": "resolved"}}, True),
        ({"event": "message_created", "id": 5, "content": "x", "conversation": {"id": 1}}, False),
        ({"event": "message_created", "message_type": "incoming", "conversation": {"id": 1}}, False),
        ({"event": "conversation_typing_on", "conversation": {"id": 1}, "user": {}}, False),
        ({"event": "conversation_created", "id": 1, "status": "open"}, False),
        ({"event": "anything"}, False),
    ],
)
def test_the_simple_shape_is_told_from_chatwoots_own(body: dict[str, Any], simple: bool) -> None:
    """It is told as it is, and remembered by nothing."""
    assert read(body).simple is simple


def test_a_simple_event_leaves_no_memory() -> None:
    """It may be anybody's test; a conversation's episodes are Chatwoot's to tell."""
    relay = Relay()
    body = {"event": "conversation_status_changed", "conversation": {"id": 1, "status": "open"}, "message": {}}
    assert relay.say(body) == "told: other"
    assert relay.memories == {}


def test_a_newer_channel_is_told_by_its_own_name() -> None:
    """A list of names is never complete."""
    assert read(document("conversation_created--webwidget") | {"channel": "Channel::Pigeon"}).channel == "Pigeon"


def test_a_contact_goes_by_what_is_known() -> None:
    """API inboxes have contacts without a name."""
    body = document("conversation_created--api-channel")
    assert read(body).contact == Person(role=Role.CONTACT, id=645, name="user-7781")
    body["meta"]["sender"] = {"phone_number": "+1555"}
    assert read(body).contact == Person(role=Role.CONTACT, name="+1555")
    body["meta"]["sender"] = {}
    assert read(body).contact is None


def test_a_sender_of_unknown_kind_on_our_side_is_no_customer() -> None:
    """Its address must not be shown, and its words are no person's answer."""
    body = document("message_created--outgoing-agent-reply")
    body["sender"] = {"id": 11, "name": "Anna", "email": "anna@acme.example"}
    event = read(body)
    assert event.message is not None
    assert event.message.sender == Person(role=Role.BOT, id=11, name="Anna")
