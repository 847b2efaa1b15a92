"""Pacing keeps under Telegram's limits on every schedule, and waits no longer than they ask."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from chatwoot_relay.pacing import BACKOFF_CAP, CHAT_BURST, Pace, backoff

GROUP, PERSON = "-1001", "77"
gaps = st.lists(st.one_of(st.just(0.0), st.floats(0, 3), st.floats(0, 90)), min_size=1, max_size=80)


def within(times: list[float], seconds: float) -> int:
    """The most that fall into any window so long, its end left out."""
    return max(sum(start <= at < start + seconds for at in times) for start in times)


def play(gaps: list[float], chats: list[str]) -> dict[str, list[float]]:
    """Sends that are wanted at those intervals, each made as early as it may be."""
    pace, now, sent = Pace(), 1e9, dict[str, list[float]]()
    for number, gap in enumerate(gaps):
        chat = chats[number % len(chats)]
        now = max(now + gap, pace.earliest(chat, now + gap))
        assert pace.earliest(chat, now) == now, "what may go then may go then"
        pace.note(chat, now)
        sent.setdefault(chat, []).append(now)
    return sent


@given(gaps)
def test_a_group_never_gets_more_than_twenty_in_a_minute(gaps: list[float]) -> None:
    """Telegram's is a true sliding window: any 60 s count, not only each that begins on the minute."""
    times = play(gaps, [GROUP])[GROUP]
    assert within(times, 60) < 20


@given(gaps, st.sampled_from([GROUP, PERSON]))
def test_a_chat_gets_about_one_a_second_after_a_small_burst(gaps: list[float], chat: str) -> None:
    """Short bursts pass at Telegram, long ones do not."""
    times = play(gaps, [chat])[chat]
    for seconds in (0.001, 1, 5, 30):
        assert within(times, seconds) <= CHAT_BURST + seconds


@given(gaps)
def test_the_bot_stays_under_thirty_a_second(gaps: list[float]) -> None:
    """However many chats there are."""
    sent = play(gaps, [str(chat) for chat in range(50)])
    assert within([at for times in sent.values() for at in times], 1) < 30


@given(st.lists(st.floats(0, 30), max_size=30), st.integers(0, 70), st.sampled_from([GROUP, PERSON]))
def test_how_many_may_go_at_once_is_foretold_exactly(gaps: list[float], after: int, chat: str) -> None:
    """So many are claimed. And what is foretold of later ones is never later than the truth, or requests would be
    answered 202 that could have been told in time."""
    pace, now = Pace(), 1e6
    for gap in gaps:
        now = max(now + gap, pace.earliest(chat, now + gap))
        pace.note(chat, now)
    asked, foretold = now, pace.earliest(chat, now, after)
    for _ in range(after):
        now = pace.earliest(chat, now)
        pace.note(chat, now)
    truth = pace.earliest(chat, now)
    assert (foretold == asked) == (truth == asked)
    assert foretold <= truth + 1e-6


def test_the_wait_is_no_longer_than_the_limits_ask() -> None:
    """An outage's alerts are told as fast as Telegram takes them: the twentieth a minute after the first, not later."""
    times = play([0.0] * 20, [GROUP])[GROUP]
    assert [round(b - a, 1) for a, b in pairwise(times)][:4] == [0.0, 0.0, 1.0, 1.0]
    assert times[18] - times[0] == 16.0
    assert times[19] - times[0] == 60.5


def test_one_chat_costs_another_nothing() -> None:
    """Each has its own window."""
    pace = Pace()
    for _ in range(19):
        pace.note(GROUP, 100.0)
    assert (pace.earliest(GROUP, 101.0), pace.earliest(PERSON, 102.0)) == (160.5, 102.0)


def test_a_bot_api_server_of_ones_own_is_not_paced() -> None:
    """RELAY_PACING=off."""
    pace = Pace(enabled=False)
    for _ in range(100):
        pace.note(GROUP, 5.0)
    assert pace.earliest(GROUP, 5.0, 100) == 5.0


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_backoff_is_jittered_and_bounded(attempt: int, roll: float) -> None:
    """Many that failed together do not come back together, nor ever later than the promised half minute."""
    wait = backoff(attempt, lambda: roll)
    assert 0.2 <= wait <= min(BACKOFF_CAP, 2.0 ** min(attempt - 1, 10))
    assert backoff(attempt, lambda: 0.999) >= 0.99 * min(BACKOFF_CAP, 2.0 ** min(attempt - 1, 10))
