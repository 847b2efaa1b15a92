"""What the sender does with every outcome: on a clock of the test's, so that hours of waiting take no time."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import structlog
from virtual import Bench, Call, FakeClock, Result, bench, refused

from chatwoot_relay.errors import OutboxUnavailable
from chatwoot_relay.events import Decision, Memory
from chatwoot_relay.models import Alert, Ambiguous, Dead, Notice, Operator, Rank, Retry, Sent
from chatwoot_relay.outbox import Store
from chatwoot_relay.pacing import CHAT_BURST
from chatwoot_relay.sender import Destination
from chatwoot_relay.telegram import Answer

DOWN = Retry("ClientConnectorError (Connection refused)")
LOST = Ambiguous("ServerDisconnectedError")
HOUR = 3600.0


def flood(seconds: int) -> Answer:
    return refused(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Bench]:
    """One chat, unpaced."""
    async with bench(tmp_path) as made:
        yield made


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Bench]:
    """Three chats, unpaced."""
    async with bench(tmp_path, chats={"team": "-1", "other": "-2", "third": "-3"}) as made:
        yield made


# --- told ---


async def test_an_alert_is_told_once_and_settled(one: Bench) -> None:
    """And where Telegram's answer was no JSON it is told all the same, its id unknown."""
    one.line.next(Answer(200, None))
    await one.owe("first")
    await one.owe("second")
    assert one.messages == ["first", "second"]
    shown = [await one.show(id) for id in ("first", "second")]
    assert [(s["state"], s["chat_id"], s["telegram_message_id"]) for s in shown] == [
        ("sent", "-1001", None), ("sent", "-1001", 1),
    ]  # fmt: skip


async def test_what_waited_says_how_late_it_is(one: Bench) -> None:
    """Only from a minute on; the age is that of the alert, not of the attempt."""
    one.line.next(flood(330), flood(30))
    await one.owe("late")
    await one.wait(400)
    assert "⏱ 6 min late" in one.line.told[0].text
    await one.owe("now")
    assert "late" not in one.line.told[1].text.replace("now", "")


async def test_a_notice_replies_to_the_alert_of_its_episode(one: Bench) -> None:
    """In the chat that it was told in, and silently where it says so."""

    async def receive(id: str, content: Alert | Notice, *, opens: bool) -> None:
        decision = Decision(memory=Memory(), keys=(id,), opens=opens)
        now = one.outbox.now()
        await one.do(
            lambda store: store.receive(
                lambda memory, repeated: (decision, content), key="7:3", happening=id, transport=(), id=id,
                destination="team", conversation="1", now=now,
            )
        )  # fmt: skip

    await receive("a", Alert(severity="high", reason="X", conversation_id=1, message="help"), opens=True)
    await receive("b", Notice(event="x", headline="Taken", silent=True), opens=False)
    alert, notice = one.line.told
    assert "reply_parameters" not in alert.payload
    assert notice.payload["reply_parameters"] == {"message_id": 1, "allow_sending_without_reply": True}
    assert notice.payload["disable_notification"] is True


# --- Telegram's waits ---


@pytest.mark.parametrize("seconds", [1, 30, 283])
async def test_a_wait_is_obeyed_to_the_second(one: Bench, seconds: int) -> None:
    """Sending inside it makes it worse; sending long after it makes the alert late."""
    one.line.next(flood(seconds))
    start = one.clock.now
    await one.owe("a")
    await one.owe("b", severity="critical")
    await one.wait(seconds + 2)
    assert len(one.line.sends) == 3
    assert all(start + seconds <= call.at <= start + seconds + 1 for call in one.line.sends[1:])


async def test_one_chat_waits_and_the_other_does_not(two: Bench) -> None:
    """283 s in one chat cost the other nothing."""
    two.line.next(flood(283), chat="-1")
    await two.owe("held")
    for number in range(5):
        await two.owe(f"free{number}", destination="other")
        await two.wait(50)
    assert two.messages == ["free0", "free1", "free2", "free3", "free4"]
    assert [call.chat for call in two.line.sends].count("-1") == 1
    assert "holds the chat for 33 s" in str(two.sender.trouble())
    await two.wait(34)
    assert two.messages[-1] == "held"
    assert two.sender.trouble() is None


async def test_several_chats_told_to_wait_hold_the_bot(two: Bench) -> None:
    """Then it is the bot that sends too much."""
    two.line.next(flood(60), chat="-1")
    two.line.next(flood(20), chat="-2")
    await two.owe("a")
    await two.owe("b", destination="other")
    await two.owe("c", destination="third")
    await two.wait(19.9)
    assert two.messages == []
    await two.wait(2)
    assert sorted(two.messages) == ["b", "c"]
    await two.wait(40)
    assert two.messages[-1] == "a"


async def test_a_global_wait_holds_every_chat(two: Bench) -> None:
    """Telegram says so in words."""
    two.line.next(refused(429, "Too Many Requests: global limit", retry_after=10))
    await two.owe("a")
    await two.owe("b", destination="other")
    await two.wait(9.9)
    assert len(two.line.sends) == 1
    await two.wait(1)
    assert sorted(two.messages) == ["a", "b"]


@pytest.mark.parametrize("lost_first", [False, True])
async def test_a_wait_is_shortened_by_nothing(two: Bench, lost_first: bool) -> None:
    """A reset beside it asks for a probe, and a probe that succeeds must not end Telegram's wait."""
    loop = asyncio.get_running_loop()
    flying: list[asyncio.Future[Result]] = [loop.create_future(), loop.create_future()]
    two.line.next(*flying)
    await two.owe("a")
    await two.owe("b", destination="other")
    start = two.clock.now
    results: list[Result] = [refused(429, "Too Many Requests: global", retry_after=283), LOST]
    for place in (1, 0) if lost_first else (0, 1):
        flying[place].set_result(results[place])
        await two.settle()
    await two.wait(300)
    assert sorted(two.messages) == ["a", "b"]
    assert min(call.at for call in two.line.told) >= start + 283


async def test_of_two_waits_the_longer_counts(one: Bench) -> None:
    """Two were in flight, and the second answer names the shorter one."""
    loop = asyncio.get_running_loop()
    flying: list[asyncio.Future[Result]] = [loop.create_future(), loop.create_future()]
    one.line.next(*flying)
    await one.owe("a")
    await one.owe("b")
    start = one.clock.now
    for answer, seconds in zip(flying, (283, 30), strict=True):
        answer.set_result(flood(seconds))
        await one.settle()
    await one.wait(300)
    assert sorted(one.messages) == ["a", "b"]
    assert min(call.at for call in one.line.told) >= start + 283


async def test_what_was_claimed_beside_a_wait_is_put_back_unsent(one: Bench) -> None:
    """Claimed in the same moment as the one that is told to wait: no attempt, no mark; and a test is not kept."""
    test = Alert(severity="medium", reason="TEST_ALERT", conversation_id=1, message="t")
    alerts = [Alert(severity="high", reason="X", conversation_id=n, message=f"m{n}") for n in range(3)]

    def owe_all(store: Store) -> None:
        for number, alert in enumerate(alerts):
            store.enqueue(alert, id=f"m{number}", destination="team", conversation=str(number), now=one.outbox.now())
        store.enqueue(test, id="t", destination="team", conversation="test", rank=Rank.PLAIN, now=one.outbox.now())
        store.db.execute("UPDATE deliveries SET rank = -1 WHERE id = 't'")

    one.line.next(flood(30))
    await one.do(owe_all)
    assert [(await one.show(f"m{n}"))["attempts"] for n in range(3)] == [1, 0, 0]
    assert await one.do(lambda store: store.show("t")) is None
    await one.wait(31)
    assert sorted(one.messages) == ["m0", "m1", "m2"]
    assert not any("🔁" in call.text for call in one.line.told)


async def test_a_wait_outlives_a_restart(tmp_path: Path) -> None:
    """Telegram has not forgotten it either."""
    clock = FakeClock()
    async with bench(tmp_path, clock=clock) as first:
        first.line.next(flood(283))
        await first.owe("a")
        await first.wait(100)
    async with bench(tmp_path, clock=clock) as second:
        await second.wait(182)
        assert second.line.calls == []
        await second.wait(3)
        assert second.messages == ["a"]


@pytest.mark.parametrize("jump", [86400.0, -86400.0])
async def test_a_jump_of_the_wall_clock_changes_nothing(one: Bench, jump: float) -> None:
    """Neither early, nor late, nor lost, nor a mark that it were a day late."""
    one.line.next(flood(283))
    await one.owe("a")
    one.clock.jumped = jump
    await one.owe("b")
    await one.wait(282)
    assert one.messages == []
    await one.wait(2)
    assert one.messages == ["a", "b"]
    assert all("late" in call.text and "4 min late" in call.text for call in one.line.told)


# --- failures that pass ---


async def test_three_that_fail_hold_the_bot_and_a_probe_frees_it(one: Bench) -> None:
    """An outage is asked about gently; what is owed does not storm at it."""
    one.line.answer = lambda call: DOWN
    for number in range(20):
        await one.owe(f"a{number}", conversation=number + 1)
    await one.wait(HOUR)
    by_second: dict[int, int] = {}
    for call in one.line.calls:
        by_second[int(call.at)] = by_second.get(int(call.at), 0) + 1
    assert max(list(by_second.values())[5:]) <= 3
    assert len(one.line.sends) <= 20
    assert {call.timeout for call in one.line.calls if call.method == "getMe"} == {5.0}
    one.line.answer = lambda call: None
    back = one.clock.now
    await one.wait(60)
    assert sorted(one.messages) == sorted(f"a{n}" for n in range(20))
    assert one.line.told[0].at <= back + 40


async def test_what_failed_comes_back_within_forty_seconds(one: Bench) -> None:
    """Even one alone, that no other's failing turns into an outage."""
    one.line.answer = lambda call: refused(502, "Bad Gateway")
    await one.owe("a")
    await one.wait(HOUR)
    one.line.answer = lambda call: None
    back = one.clock.now
    await one.wait(40)
    assert one.messages == ["a"]
    assert one.line.told[0].at <= back + 40
    assert "🔁" not in one.line.told[0].text


async def test_order_is_kept_through_an_outage(one: Bench) -> None:
    """Within each conversation, whatever failed how often."""
    count = 0

    def sometimes(call: Call) -> Result | None:
        nonlocal count
        count += 1
        return None if count % 3 == 0 else refused(500, "Internal Server Error")

    one.line.answer = sometimes
    for number in range(12):
        await one.owe(f"a{number}", conversation=number % 3 + 1)
    await one.wait(HOUR)
    assert len(one.messages) == 12
    for lane in range(3):
        told = [int(m[1:]) for m in one.messages if int(m[1:]) % 3 == lane]
        assert told == sorted(told)


async def test_ones_own_failure_holds_nobody_else(one: Bench) -> None:
    """Three alerts that Telegram stumbles over, the most urgent ones, and an outage between: the others are told."""
    one.line.answer = lambda call: refused(500, "Internal Server Error") if "poison" in call.text else None
    for number in range(3):
        await one.owe(f"poison{number}", severity="critical")
    await one.wait(60)
    one.line.answer, poisoned = lambda call: DOWN, one.line.answer
    await one.owe("behind1", severity="low")
    await one.wait(120)
    one.line.answer = poisoned
    await one.wait(60)
    for number in range(2, 6):
        await one.owe(f"behind{number}", severity="low")
        await one.wait(60)
    assert one.messages == [f"behind{number}" for number in range(1, 6)]


async def test_backoff_is_jittered(tmp_path: Path) -> None:
    """The roll decides under a ceiling of 1, 2, 4 … 30 s."""
    rolls = iter([0.5] * 100)
    async with bench(tmp_path, roll=lambda: next(rolls)) as made:
        made.line.answer = lambda call: refused(500, "x") if call.method == "sendMessage" else None
        await made.owe("a")
        await made.wait(100)
        times = [call.at for call in made.line.sends]
        gaps = [round(b - a, 1) for a, b in pairwise(times)]
        assert gaps[:8] == [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


# --- fates unknown ---


async def test_a_lost_answer_holds_the_bot_asks_and_repeats_marked(one: Bench) -> None:
    """The only case in which something may be told twice: one copy more, and it says so."""
    one.line.next(LOST)
    await one.owe("a")
    await one.owe("b")
    assert (one.messages, one.sender.delay("team")) == ([], float("inf"))
    await one.wait(4.9)
    assert [call.method for call in one.line.calls] == ["sendMessage"]
    await one.wait(0.1)
    assert [call.method for call in one.line.calls] == ["sendMessage", "getMe", "sendMessage", "sendMessage"]
    assert one.messages == ["a", "b"]
    assert ["🔁 May be a repeat" in call.text for call in one.line.told] == [True, False]


async def test_a_lost_answer_waits_until_telegram_is_back(one: Bench) -> None:
    """A repeat into a dead line would only make the next unknown."""
    one.line.answer = lambda call: LOST
    await one.owe("a")
    await one.wait(HOUR)
    assert len(one.line.sends) == 1
    one.line.answer = lambda call: None
    await one.wait(40)
    assert one.messages == ["a"]


async def test_three_lost_answers_take_longer_than_a_moment(one: Bench) -> None:
    """A restart of something between us and Telegram must not make a dead letter."""
    one.line.answer = lambda call: LOST if call.method == "sendMessage" and one.clock.now < began + 9 else None
    began = one.clock.now
    await one.owe("a")
    await one.wait(20)
    assert one.messages == ["a"]


async def test_the_time_that_a_send_hung_counts_as_waited(one: Bench) -> None:
    """However often it did: the first message goes out 40 s after Telegram is back at the latest."""
    for number in range(4):
        hanging = asyncio.get_running_loop().create_future()
        one.line.next(hanging)
        await one.owe(str(number))
        await one.wait(60)
        hanging.set_result(LOST)
        await one.settle()
        sends = len(one.line.sends)
        await one.wait(5)
        assert len(one.line.sends) > sends


async def test_the_third_lost_answer_makes_a_dead_letter(one: Bench) -> None:
    """ "Maybe told", with its history, and redrivable; what is behind it goes on."""
    one.line.next(LOST, LOST, LOST)
    await one.owe("a", conversation=1)
    await one.owe("b", conversation=1)
    await one.wait(60)
    shown = await one.show("a")
    assert (shown["state"], shown["attempts"]) == ("dead", 3)
    assert "maybe told" in shown["reason"]
    assert [entry[1] for entry in shown["history"]] == ["ambiguous"] * 3
    assert one.messages == ["b"]
    await one.do(lambda store: store.redrive(["a"], now=one.outbox.now()))
    assert one.messages == ["b", "a"]


async def test_what_crashes_may_have_told_counts_for_the_limits(tmp_path: Path) -> None:
    """Six of them in a minute would else pass what Telegram allows a group."""
    clock, sends = FakeClock(), 0
    for life in range(6):
        async with bench(tmp_path, clock=clock, paced=True) as one:
            for number in range(6):
                one.line.next(asyncio.get_running_loop().create_future())
                await one.owe(f"{life}.{number}")
            await one.wait(3)
            sends += len(one.line.sends)
    assert sends <= 20


async def test_what_was_in_flight_at_a_crash_is_repeated_marked(tmp_path: Path) -> None:
    """The kill between send and record is a lost answer too."""
    async with bench(tmp_path) as first:
        first.line.next(asyncio.get_running_loop().create_future())
        await first.owe("a")
    async with bench(tmp_path) as second:
        assert second.messages == ["a"]
        assert "🔁 May be a repeat" in second.line.told[0].text


@pytest.mark.parametrize(
    ("trouble", "method", "key"),
    [(LOST, "getMe", None), (refused(403, "Forbidden: bot was kicked from the group chat"), "getChat", "-1001")],
)
async def test_a_wait_that_a_probe_is_told_of_is_obeyed(
    one: Bench, trouble: Result, method: str, key: str | None
) -> None:
    """Telegram counts every call; asking again inside its wait makes it longer."""
    one.line.next(trouble)
    one.line.answer = lambda call: None if call.method != method else flood(40)
    await one.owe("a")
    await one.wait(30)
    (probe,) = [call for call in one.line.calls if call.method == method]
    assert len(one.line.sends) == 1
    one.line.answer = lambda call: None
    await one.wait(60)
    assert one.messages == ["a"]
    assert one.line.told[0].at >= probe.at + 40
    assert not [call for call in one.line.calls if probe.at < call.at < probe.at + 40]
    assert one.sender.trouble() is None


async def test_sends_that_are_mended_together_keep_the_limits(tmp_path: Path) -> None:
    """A topic that is gone, or a group that moves, meets all that are on their way at the same moment."""
    for fault in (
        refused(400, "Bad Request: message thread not found"),
        refused(400, "Bad Request: upgraded", migrate_to_chat_id=-7),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        topic = {"team": Destination(chat_id="-1001", thread_id=5)}
        async with bench(folder, chats=topic, paced=True) as made:
            hanging = [asyncio.get_running_loop().create_future() for _ in range(8)]
            made.line.next(*hanging)
            for number in range(12):
                await made.owe(f"a{number}")
            await made.wait(6)
            for future in hanging:
                future.set_result(fault)
            await made.wait(120)
            assert sorted(made.messages) == sorted(f"a{number}" for number in range(12))
            for chat in ("-1001", "-7"):
                times = [call.at for call in made.line.sends if call.chat == chat]
                for begin, early in enumerate(times):  # a burst, and one a second
                    assert all(at - early > more - CHAT_BURST for more, at in enumerate(times[begin:]))


async def test_a_message_is_known_by_the_chat_that_has_it(one: Bench) -> None:
    """The group moved while another send was on its way to where it was: a reply to it must not meet a stranger."""
    first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
    one.line.next(first, second)
    await one.owe("a")
    await one.owe("b")
    second.set_result(refused(400, "Bad Request: upgraded", migrate_to_chat_id=-7))
    await one.settle()
    first.set_result(Answer(200, {"ok": True, "result": {"message_id": 1002}}))
    await one.settle()
    assert [(await one.show(id))["chat_id"] for id in ("a", "b")] == ["-1001", "-7"]


@pytest.mark.parametrize("away", [400, 700])
async def test_a_wait_that_lasts_while_the_relay_is_down_makes_nothing_older(tmp_path: Path, away: float) -> None:
    """The chat was held all the time, or up to its end."""
    clock = FakeClock()
    async with bench(tmp_path, clock=clock, max_age=300) as first:
        first.line.next(flood(600))
        await first.owe("a")
    clock.go(clock.now + away)
    async with bench(tmp_path, clock=clock, max_age=300) as second:
        await second.wait(700 - away)
        assert second.messages == ["a"]
        assert second.line.told[0].at >= 600


# --- what the operator must mend ---

MISTAKES = [
    (refused(401, "Unauthorized"), "bot"),
    (refused(404, "Not Found"), "bot"),
    (refused(403, "Forbidden: bot was kicked from the supergroup chat"), "chat"),
    (refused(400, "Bad Request: chat not found"), "chat"),
    (refused(400, "Bad Request: not enough rights to send text messages to the chat"), "chat"),
]


@pytest.mark.parametrize(("answer", "scope"), MISTAKES)
async def test_a_mistake_keeps_the_queue_is_named_once_and_ends_when_mended(
    tmp_path: Path, answer: Answer, scope: str
) -> None:
    """Revoked on Friday night, mended on Monday: nothing is lost, nothing too old, and nobody restarts anything."""
    async with bench(tmp_path, max_age=600) as made:
        made.line.answer = lambda call: answer
        with structlog.testing.capture_logs() as logs:
            for number in range(5):
                await made.owe(f"a{number}", conversation=1)
            await made.wait(HOUR)
        held = [line for line in logs if line["event"] in ("bot.held", "chat.held")]
        assert [(line["event"], line["operator"]) for line in held] == [(f"{scope}.held", True)]
        assert (held[0]["log_level"], held[0]["do"]) == ("error", "chatwoot-relay doctor"), "-p err shows it"
        assert str(answer.body and answer.body["description"]) in str(made.sender.trouble())
        assert "doctor" in str(made.sender.trouble())
        assert (made.outbox.tally.pending, made.outbox.tally.dead) == (5, 0)
        assert len(made.line.calls) < HOUR / 20, "gently"
        made.line.answer = lambda call: None
        await made.wait(60)
        assert made.messages == [f"a{number}" for number in range(5)]
        assert made.sender.trouble() is None


async def test_an_outage_that_turns_out_a_mistake_is_named(one: Bench) -> None:
    """The network is back, and meanwhile somebody has revoked the token."""
    one.line.answer = lambda call: DOWN if call.method == "sendMessage" else refused(401, "Unauthorized")
    for number in range(3):
        await one.owe(f"a{number}")
    await one.wait(60)
    assert "Unauthorized; run chatwoot-relay doctor" in str(one.sender.trouble())
    one.line.answer = lambda call: None
    await one.wait(60)
    assert (len(one.messages), one.sender.trouble()) == (3, None)


async def test_a_chat_that_can_be_seen_but_not_written_to_stays_held(one: Bench) -> None:
    """getChat succeeds where the right to write is missing; only a send proves it, one at a time."""
    muted = refused(400, "Bad Request: not enough rights to send text messages to the chat")
    one.line.answer = lambda call: muted if call.method == "sendMessage" else None
    for number in range(5):
        await one.owe(f"a{number}")
    await one.wait(HOUR)
    assert len(one.line.sends) <= 1 + HOUR / 25
    assert (one.outbox.tally.pending, one.outbox.tally.dead) == (5, 0)
    one.line.answer = lambda call: None
    await one.wait(60)
    assert len(one.messages) == 5


async def test_a_mistake_in_one_chat_is_not_the_others(two: Bench) -> None:
    """The bot was kicked from one."""
    two.line.answer = lambda call: refused(403, "Forbidden: bot was kicked") if call.chat == "-1" else None
    await two.owe("a")
    await two.wait(300)
    await two.owe("b", destination="other")
    assert two.messages == ["b"]


async def test_a_hold_ends_by_itself_where_nothing_is_owed(one: Bench) -> None:
    """Else health stayed degraded until the next alert comes."""
    one.line.next(refused(403, "Forbidden: bot was kicked"))
    await one.owe("a")
    await one.do(lambda store: store.bury(1, now=1, reason="by hand"))
    await one.wait(60)
    assert one.sender.trouble() is None


# --- ages ---


@pytest.mark.parametrize("wait", [flood(283), LOST, refused(403, "Forbidden: bot was kicked")])
async def test_held_time_does_not_make_an_alert_too_old(tmp_path: Path, wait: Result) -> None:
    """RELAY_MAX_AGE counts what we dawdled away, not what Telegram or the operator asked for."""
    async with bench(tmp_path, max_age=60) as made:
        made.line.next(wait)
        if isinstance(wait, Ambiguous):
            made.line.answer = lambda call: DOWN if call.method == "getMe" else None
        await made.owe("a")
        await made.owe("b", conversation=7)
        await made.wait(280)
        made.line.answer = lambda call: None
        await made.wait(40)
        assert sorted(made.messages) == ["a", "b"]


async def test_held_time_counts_for_the_next_life_too(tmp_path: Path) -> None:
    """A deploy in the middle of a long hold."""
    clock = FakeClock()
    kicked = refused(403, "Forbidden: bot was kicked")
    async with bench(tmp_path, clock=clock, max_age=60) as first:
        first.line.answer = lambda call: kicked
        await first.owe("a")
        await first.wait(HOUR)
    async with bench(tmp_path, clock=clock, max_age=60) as second:
        await second.wait(1)
        assert second.messages == ["a"]


async def test_what_cannot_be_said_in_time_becomes_a_dead_letter(tmp_path: Path) -> None:
    """By age, not by a count of attempts; whoever waits for it hears so."""
    async with bench(tmp_path, max_age=300) as made:
        made.line.answer = lambda call: (
            refused(500, "x") if call.method == "sendMessage" and "poison" in call.text else None
        )
        await made.owe("poison")
        with made.sender.waiters.watch("poison", patience=1e9) as waiter, structlog.testing.capture_logs() as logs:
            await made.wait(400)
            assert waiter.future.done()
        shown = await made.show("poison")
        assert shown["state"] == "dead"
        assert "RELAY_MAX_AGE" in shown["reason"]
        assert [line["delivery"] for line in logs if line["event"] == "delivery.died"] == ["poison"]


# --- moved, repaired, refused ---


async def test_a_moved_group_is_followed_for_good(tmp_path: Path) -> None:
    """At once, for what is behind it, and after a restart."""
    moved = refused(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-1009)
    async with bench(tmp_path, chats={"team": "-5"}) as first:
        first.line.answer = lambda call: moved if call.chat == "-5" else None
        await first.owe("a")
        await first.owe("b")
        assert [(call.chat, call.text == first.line.sends[0].text) for call in first.line.sends] == [
            ("-5", True), ("-1009", True), ("-1009", False),
        ]  # fmt: skip
    async with bench(tmp_path, chats={"team": "-5"}) as second:
        await second.owe("c")
        assert [call.chat for call in second.line.sends] == ["-1009"]


async def test_a_chat_that_moves_for_ever_is_given_up(one: Bench) -> None:
    """Kept as a dead letter, not asked about for ever."""
    one.line.answer = lambda call: refused(400, "upgraded", migrate_to_chat_id=int(call.chat) - 1)
    await one.owe("a")
    assert (await one.state("a"), len(one.line.sends)) == ("dead", 6)


async def test_a_hold_of_the_chat_that_moved_ends_with_the_move(one: Bench) -> None:
    """The bot was kicked, the group upgraded, the bot taken back: health is well again."""
    one.line.next(refused(403, "Forbidden: bot was kicked"))
    await one.owe("a")
    one.line.answer = lambda call: (
        refused(400, "Bad Request: upgraded", migrate_to_chat_id=-7) if call.chat == "-1001" else None
    )
    await one.wait(60)
    assert (one.messages, one.sender.trouble()) == (["a"], None)


REPAIRS = [
    ("Bad Request: can't parse entities: Unsupported start tag", "parse_mode"),
    ("Bad Request: message thread not found", "message_thread_id"),
    ("Bad Request: TOPIC_CLOSED", "message_thread_id"),
    ("Bad Request: message is too long", ""),
    ("Bad Request: text is too long", ""),
    ("Bad Request: message to be replied not found", ""),
    ("Bad Request: inline keyboard button URL is invalid: Wrong HTTP URL", ""),
]


@pytest.mark.parametrize(("description", "missing"), REPAIRS)
async def test_a_form_that_telegram_refuses_is_repaired_and_told_once(
    tmp_path: Path, description: str, missing: str
) -> None:
    """The alert comes first, its form second."""
    async with bench(tmp_path, chats={"team": Destination(chat_id="-1", thread_id=5)}) as made:
        made.line.next(refused(400, description))
        await made.owe("<a>")
        assert len(made.line.sends) == 2
        assert len(made.line.told) == 1
        assert missing not in made.line.told[0].payload
        assert "<a>" in made.line.told[0].text or "&lt;a&gt;" in made.line.told[0].text


async def test_several_repairs_add_up(one: Bench) -> None:
    """A closed topic and a bad entity in one message."""
    one.line.next(refused(400, "can't parse entities"), refused(400, "message is too long"))
    await one.owe("a")
    assert len(one.line.told) == 1
    assert "parse_mode" not in one.line.told[0].payload


async def test_a_topic_that_is_gone_is_reported_until_it_is_back(tmp_path: Path) -> None:
    """Messages go out without it, and the operator can see why."""
    async with bench(tmp_path, chats={"team": Destination(chat_id="-1", thread_id=5)}) as made:
        gone = refused(400, "Bad Request: message thread not found")
        made.line.answer = lambda call: gone if "message_thread_id" in call.payload else None
        await made.owe("a")
        assert "TELEGRAM_THREAD_ID" in str(made.sender.trouble())
        made.line.answer = lambda call: None
        await made.owe("b")
        assert made.sender.trouble() is None


@pytest.mark.parametrize(
    "answers",
    [
        [refused(400, "Bad Request: text must be non-empty")],
        [refused(413, "Request Entity Too Large")],
        [refused(400, "can't parse entities")] * 2,
        [refused(400, "upgraded", migrate_to_chat_id=-1001)],
    ],
)
async def test_what_is_refused_for_good_is_kept_and_the_next_goes_on(one: Bench, answers: list[Answer]) -> None:
    """A dead letter with Telegram's words; who waits for it is told."""
    one.line.next(*answers)
    with one.sender.waiters.watch("a", patience=1e9) as waiter:
        await one.owe("a", conversation=1)
        await one.owe("b", conversation=1)
        assert isinstance(waiter.future.result(), Dead)
    assert ((await one.show("a"))["state"], one.messages) == ("dead", ["b"])


async def test_the_team_hears_of_deaths_once_an_hour(tmp_path: Path) -> None:
    """In the chat, if the chat works."""
    async with bench(tmp_path, housekeeping=True) as made:
        made.line.answer = lambda call: refused(400, "Bad Request: no") if "poison" in call.text else None
        for number in range(10):
            await made.owe(f"poison{number}")
            await made.wait(500)
        notices = [call for call in made.line.told if "could not be told" in call.text]
        assert len(notices) == 2
        assert notices[1].at - notices[0].at >= HOUR
        assert "1 message could" in notices[0].text


# --- order between conversations ---


@pytest.mark.parametrize("older", [0, 100])
async def test_a_low_alert_waits_at_most_ten_minutes_behind_criticals(tmp_path: Path, older: int) -> None:
    """More criticals than Telegram takes, before it and after it."""
    async with bench(tmp_path, paced=True) as made:
        for number in range(older):
            await made.owe(f"before{number}", severity="critical")
        await made.owe("low", severity="low")
        asked = made.clock.now
        for number in range(200):
            await made.owe(f"critical{number}", severity="critical")
            await made.wait(3)
        assert "low" in made.messages
        assert made.line.told[made.messages.index("low")].at <= asked + 600
        assert made.messages[-1].startswith("critical")


async def test_a_critical_goes_before_what_waits(tmp_path: Path) -> None:
    """Plain and low alerts by the dozen make no critical late by more than one place in the window."""
    async with bench(tmp_path, paced=True) as made:
        for number in range(60):
            await made.owe(f"low{number}", severity="low")
        await made.wait(70)
        await made.owe("critical", severity="critical")
        asked = made.clock.now
        await made.wait(120)
        assert made.line.told[made.messages.index("critical")].at <= asked + 61


async def test_repairs_keep_the_pace_too(tmp_path: Path) -> None:
    """What is sent twice for its form counts twice."""
    async with bench(tmp_path, paced=True) as made:
        made.line.answer = lambda call: refused(400, "can't parse entities") if "parse_mode" in call.payload else None
        for number in range(15):
            await made.owe(f"a{number}")
        await made.wait(59)
        assert len(made.line.sends) < 20
        await made.wait(200)
        assert len(made.messages) == 15


async def test_a_mending_waits_for_a_hold_too(one: Bench) -> None:
    """Telegram had the chat wait while an answer was on its way that asks for a mending: nothing goes early."""
    flying: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    one.line.next(flying, flood(30))
    await one.owe("a")
    await one.owe("b")
    flying.set_result(refused(400, "can't parse entities"))
    await one.wait(29)
    assert len(one.line.sends) == 2
    await one.wait(5)
    assert sorted(one.messages) == ["a", "b"]


async def test_one_failure_is_trouble_until_a_send_succeeds(one: Bench) -> None:
    """A single alert in an outage: no hold yet, but Telegram is not taking it, and health must say so."""
    one.line.answer = lambda call: DOWN
    await one.owe("a")
    assert "not taking messages" in str(one.sender.trouble())
    one.line.answer = lambda call: None
    await one.wait(60)
    assert (one.messages, one.sender.trouble()) == (["a"], None)


async def test_a_redriven_maybe_told_is_marked(one: Bench) -> None:
    """Its earlier attempts' fate is as unknown as before."""
    one.line.next(LOST, LOST, LOST)
    await one.owe("a")
    await one.wait(120)
    assert await one.state("a") == "dead"
    await one.do(lambda store: store.redrive(["a"], now=one.outbox.now()))
    one.sender.poke()
    await one.wait(1)
    assert [call.text.endswith("May be a repeat") for call in one.line.told if "Message:" in call.text] == [True]


async def test_whoever_dares_learns_at_once_whether_it_is_mended(one: Bench) -> None:
    """A test after the repair must not hear what was wrong before it."""
    one.line.next(refused(403, "Forbidden: kicked"))
    await one.owe("a")
    assert one.sender.delay("team") == float("inf")
    one.sender.dare("team")
    assert one.sender.delay("team") == 0.0
    await one.settle()
    assert (one.messages, one.sender.trouble()) == (["a"], None)


# --- those who wait ---


async def test_who_waits_is_sent_away_once_it_cannot_be_in_time(one: Bench) -> None:
    """A held chat's alert is answered as queued at once, not after the whole patience."""
    one.line.next(flood(30))
    with one.sender.waiters.watch("a", patience=3) as waiter:
        await one.owe("a")
        assert waiter.future.result() is None
    assert one.sender.delay("team") > 3


@pytest.mark.parametrize(
    ("answer", "outcome"), [(refused(403, "Forbidden: kicked"), Operator), (DOWN, object), (LOST, object)]
)
async def test_a_test_hears_the_truth_and_is_not_told_later(one: Bench, answer: Result, outcome: type) -> None:
    """Also where that very answer holds the chat or the bot."""
    one.line.next(answer)
    alert = Alert(severity="medium", reason="TEST_ALERT", conversation_id=1, message="t")
    with one.sender.waiters.watch("t", patience=3) as waiter:
        await one.do(
            lambda store: store.enqueue(
                alert, id="t", destination="team", conversation="test", rank=Rank.TEST, now=one.outbox.now()
            )
        )
        assert waiter.future.result() is not None
        assert isinstance(waiter.future.result(), outcome)
    await one.wait(HOUR)
    assert (one.messages, one.outbox.tally.pending) == ([], 0)
    assert one.sender.trouble() is None, "nothing is sent that would prove it well"


# --- broken disks, crashes, ends ---


async def test_a_full_disk_repeats_the_mark_and_never_the_send(one: Bench) -> None:
    """A relay that could not write "sent" once sent one message 1,561 times in four seconds."""
    flying: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    one.line.next(flying)
    await one.owe("a")
    await one.owe("b", conversation=9)
    assert one.messages == ["b"]
    connection = await one.do(lambda store: store.db)
    connection.execute("PRAGMA query_only=ON")
    flying.set_result(Answer(200, {"result": {"message_id": 5}}))
    await one.wait(60)
    with pytest.raises(OutboxUnavailable):
        await one.owe("c")
    assert "cannot be written" in str(one.outbox.refusal())
    assert len(one.line.sends) == 2
    connection.execute("PRAGMA query_only=OFF")
    await one.wait(5)
    assert (len(one.line.sends), await one.state("a")) == (2, "sent")
    assert one.outbox.refusal() is None


async def test_a_fault_of_its_own_ends_the_sender(one: Bench) -> None:
    """And with it the process; it is never silently missing."""
    one.line.next(RuntimeError("a bug"))
    await one.owe("a")
    with pytest.raises(RuntimeError, match="a bug"):
        await one.running


async def test_stopping_gives_what_flies_its_time_and_puts_the_rest_back(tmp_path: Path) -> None:
    """Nothing is lost and nothing marked as a repeat that was never sent."""
    async with bench(tmp_path) as first:
        flying: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        first.line.next(flying)
        await first.owe("a", conversation=1)
        await first.owe("b", conversation=1)
        stopping = asyncio.create_task(first.sender.stop(grace=8))
        await first.settle()
        await first.outbox.do(
            lambda store: store.enqueue(
                Alert(severity="low", reason="X", conversation_id=3, message="c"), id="c", destination="team",
                conversation="c", now=first.outbox.now(),
            )
        )  # fmt: skip
        flying.set_result(Answer(200, {"result": {"message_id": 5}}))
        await stopping
        await first.running
        assert first.messages == ["a"]
    async with bench(tmp_path) as second:
        assert sorted(second.messages) == ["b", "c"]
        assert not any("🔁" in call.text for call in second.line.told)


async def test_waiting_for_work_costs_no_memory(one: Bench) -> None:
    """A turn a second for months: each once left a callback behind."""
    await one.settle()
    before = asyncio.all_tasks()
    for _ in range(50):
        one.sender.poke()
        await one.settle()
    assert len(asyncio.all_tasks() - before) <= 1  # its timer of the moment
    await one.owe("a")
    assert one.messages == ["a"]
    assert one.sender.turns < 60


async def test_outcomes_reach_who_asked(one: Bench) -> None:
    """With Telegram's id for the message."""
    with one.sender.waiters.watch("a", patience=3) as waiter:
        await one.owe("a")
        assert waiter.future.result() == Sent(1)


def test_every_row_of_mistakes_is_an_answer() -> None:
    """A table that pytest skips silently tests nothing."""
    rows: list[Any] = [*MISTAKES, *REPAIRS]
    assert len(rows) == 12


async def test_what_waits_for_the_wire_counts_for_the_pace(tmp_path: Path) -> None:
    """A slow handshake must not let more through at once, when it is done, than the limits allow."""
    async with bench(tmp_path, chats={"team": "5"}, paced=True) as one:
        one.line.connected.clear()
        for number in range(8):
            await one.owe(f"m{number}")
        await one.wait(5)
        one.line.connected.set()
        await one.settle()
        assert len(one.line.told) <= CHAT_BURST + 1  # the one whose handshake it was counted when it began
        await one.wait(20)
        assert one.messages == [f"m{number}" for number in range(8)]
        assert [(await one.show(f"m{number}"))["ambiguous"] for number in range(8)] == [0] * 8


async def test_what_could_not_be_marked_before_a_stop_is_not_told_again(tmp_path: Path) -> None:
    """Its note stays where it is, for nothing else says that it was told; what lands meanwhile has another."""
    clock = FakeClock()
    async with bench(tmp_path, clock=clock) as one:
        first, second = (asyncio.get_running_loop().create_future() for _ in range(2))
        one.line.next(first, second)
        await one.owe("a")
        await one.owe("b")
        await one.do(lambda store: store.db.execute("PRAGMA busy_timeout=1"))
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as nosy:
            nosy.execute("BEGIN IMMEDIATE")
            first.set_result(Answer(200, {"ok": True, "result": {"message_id": 11}}))
            await one.settle()
            stopping = asyncio.create_task(one.sender.stop(grace=5))
            await one.settle()
            clock.go(clock.now + 1)  # once more, and it stops trying
            await one.settle()
            second.set_result(Answer(200, {"ok": True, "result": {"message_id": 12}}))
            await stopping
            await one.settle()
        assert sorted(str(told.message_id) for told in one.outbox.journal.read()) == ["11", "12"]


async def test_it_stops_although_nothing_can_be_written(tmp_path: Path) -> None:
    """What cannot be put back is owed after the restart all the same; systemd would kill what waits for the disk."""
    async with bench(tmp_path) as one:
        one.line.connected.clear()
        await one.owe("a")
        await one.do(lambda store: store.db.execute("PRAGMA busy_timeout=1"))
        with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)) as nosy:
            nosy.execute("BEGIN IMMEDIATE")
            await one.sender.stop(grace=0)
            assert one.outbox.refusal() is not None
