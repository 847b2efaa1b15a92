"""The outbox loses nothing, tells in order, counts right, and finds what it looks for without reading everything."""

from __future__ import annotations

import gc
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from chatwoot_relay.errors import NotOurDatabase, OutboxUnavailable
from chatwoot_relay.events import Decision, Memory, What
from chatwoot_relay.events import Ignored as Reason
from chatwoot_relay.housekeeping import announce
from chatwoot_relay.journal import Told
from chatwoot_relay.models import Alert, Content, Delivery, Notice, Rank
from chatwoot_relay.outbox import (
    DEAD_KEPT,
    MAX_AMBIGUOUS,
    RECENT,
    SPARE_PAGES,
    STEP,
    Accepted,
    Arrival,
    Conflict,
    Ignored,
    Store,
)
from chatwoot_relay.rescue import adopt, salvage
from chatwoot_relay.schema import SCHEMA, SCHEMA_VERSION, open_database, pack, unpack

DAY = 86400.0
SEVERITIES = ("critical", "high", "medium", "low")


def an_alert(severity: str = "high", conversation: int = 1, message: str = "Where is it?") -> Alert:
    return Alert(severity=severity, reason="X", conversation_id=conversation, message=message)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    db = open_database(tmp_path / "outbox.db")
    db.execute("PRAGMA synchronous=OFF")  # nothing is cut off here
    yield Store(db)
    db.close()


def owe(
    store: Store, id: str, *, severity: str = "high", conversation: str = "1", destination: str = "team", now: float = 0
) -> Accepted:
    return store.enqueue(
        an_alert(severity), id=id, destination=destination, conversation=conversation, now=now, memory=None
    )


def claim(store: Store, count: int = 1, *, now: float = 1.0, max_age: float = 1e9, **more: Any) -> list[Delivery]:
    return store.claim({"team": count}, now=now, max_age=max_age, **more)[0]


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.id for delivery in deliveries]


# --- the machine: whatever happens in whatever order ---


class Owed:
    """What the machine knows of a delivery: the truth that the store has to agree with."""

    def __init__(self, seq: int, conversation: str, rank: int, born: float) -> None:
        self.seq = seq
        self.conversation = conversation
        self.rank = rank
        self.born = born
        self.state = "pending"
        self.due = 0.0
        self.ambiguous = 0
        self.settled = 0.0


class OutboxMachine(RuleBasedStateMachine):
    """Any order of verbs; after each, the store says what a list in memory says."""

    keys = Bundle("keys")
    flying = Bundle("flying")

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)

    @initialize()
    def open(self) -> None:
        self.db.executescript(SCHEMA)
        self.store = Store(self.db, max_pending=30)
        self.now = 1000.0
        self.known: dict[str, Owed] = {}
        self.keyed: dict[str, tuple[str, str]] = {}
        self.happened: set[str] = set()
        self.accepted = self.expired = self.names = 0

    def teardown(self) -> None:
        self.db.close()

    # --- taking in ---

    def name(self) -> str:
        self.names += 1
        return f"{self.names:016x}"

    def took(self, id: str, conversation: str, content: Content) -> None:
        seq = self.db.execute("SELECT seq FROM deliveries WHERE id = ?", (id,)).fetchone()[0]
        rank = Rank.PLAIN if isinstance(content, Notice) else Rank(SEVERITIES.index(content.severity))
        owed = Owed(seq, conversation, rank, self.now)
        fellows = [o for o in self.known.values() if o.conversation == conversation and o.state == "pending"]
        owed.due = max([o.due for o in fellows], default=0.0)
        self.known[id] = owed
        self.accepted += 1

    def full(self) -> bool:
        return sum(owed.state == "pending" for owed in self.known.values()) >= 30

    @rule(conversation=st.sampled_from("abc"), severity=st.sampled_from(SEVERITIES))
    def enqueue(self, conversation: str, severity: str) -> None:
        id, content = self.name(), an_alert(severity)
        try:
            self.store.enqueue(content, id=id, destination="team", conversation=conversation, now=self.now)
        except OutboxUnavailable:
            assert self.full()
            return
        self.took(id, conversation, content)

    @rule(key=st.sampled_from("kl"), digest=st.sampled_from("xy"))
    def enqueue_once(self, key: str, digest: str) -> None:
        id, content = self.name(), an_alert()
        try:
            answer = self.store.enqueue_once(Arrival(content, id, "team", "a", self.now), key=key, digest=digest)
        except OutboxUnavailable:
            assert self.full()
            return
        if key not in self.keyed:
            assert isinstance(answer, Accepted)
            assert answer.fresh
            self.keyed[key] = (id, digest)
            self.took(id, "a", content)
        elif self.keyed[key][1] != digest:
            assert answer == Conflict()
        else:
            assert isinstance(answer, Accepted)
            assert (answer.id, answer.fresh) == (self.keyed[key][0], False)
            if answer.id in self.known:
                assert answer.state == self.known[answer.id].state

    @rule(happening=st.sampled_from("pqr"), told=st.booleans())
    def receive(self, happening: str, told: bool) -> None:
        id, content = self.name(), Notice(event="message_created", headline="Anna: hello")

        def decide(memory: Memory | None, repeated: bool) -> tuple[Decision, Content | None]:
            assert repeated == (happening in self.happened)
            quiet = repeated or not told
            return Decision(
                memory=memory, what=None, ignored="noise" if quiet else None, keys=(happening,), opens=not quiet
            ), None if quiet else content

        try:
            answer = self.store.receive(
                decide, key="7:3", happening=happening, transport=(f"posting {id}",), id=id,
                destination="team", conversation="b", now=self.now,
            )  # fmt: skip
        except OutboxUnavailable:
            assert self.full()
            return
        if isinstance(answer, Ignored):
            return
        self.happened.add(happening)
        self.took(id, "b", content)

    # --- sending ---

    @rule(
        target=flying, count=st.integers(1, 4), fair=st.sampled_from([None, 100.0]), age=st.sampled_from([300.0, 1e9])
    )
    def claim(self, count: int, fair: float | None, age: float) -> Any:
        busy = {owed.conversation for owed in self.known.values() if owed.state == "sending"}
        claimed, died = self.store.claim({"team": count}, now=self.now, max_age=age, fair=fair)
        for dead in died:
            self.known[dead.id].state, self.known[dead.id].settled = "dead", self.now
            assert self.now - self.known[dead.id].born > age
        assert len(claimed) <= count
        for delivery in claimed:
            owed = self.known[delivery.id]
            first = min(
                (o for o in self.known.values() if o.state == "pending" and o.conversation == owed.conversation),
                key=lambda o: o.seq,
            )
            assert owed is first, "order within the conversation"
            assert owed.conversation not in busy, "one in flight for each conversation"
            assert owed.due <= self.now, "never early"
            busy.add(owed.conversation)
            owed.state = "sending"
        ready = {o.conversation for o in self.known.values() if o.state == "pending"} - busy
        waits = {o.conversation for o in self.known.values() if o.state == "pending" and o.due > self.now}
        assert len(claimed) == count or not ready - waits, "nobody who may go is left behind"
        if fair is None and not died and claimed:
            left = [self.rank(c) for c in ready - waits]
            assert all(self.rank(d.conversation, with_sending=True) <= rank for d in claimed for rank in left)
        return multiple(*ids(claimed))

    def rank(self, conversation: str, with_sending: bool = False) -> int:
        states = ("pending", "sending") if with_sending else ("pending",)
        return min(o.rank for o in self.known.values() if o.conversation == conversation and o.state in states)

    @rule(id=consumes(flying))
    def told(self, id: str) -> None:
        self.settle(id, "sent", lambda o: self.store.told_all([Told(o.seq, self.now, "-1", 7)]))

    @rule(id=consumes(flying))
    def bury(self, id: str) -> None:
        self.settle(id, "dead", lambda o: self.store.bury(o.seq, now=self.now, reason="refused"))

    @rule(id=consumes(flying))
    def release(self, id: str) -> None:
        self.settle(id, "pending", lambda o: self.store.release(o.seq))

    @rule(id=consumes(flying), wait=st.sampled_from([0.0, 5.0, 500.0]))
    def again(self, id: str, wait: float) -> None:
        due = self.now + wait if wait else 0.0
        self.settle(id, "pending", lambda o: self.store.again(o.seq, due=due, now=self.now, reason="5xx"), due)

    @rule(id=consumes(flying))
    def lost(self, id: str) -> None:
        owed = self.known[id]
        if owed.state != "sending":
            return
        died = self.store.again(owed.seq, due=0.0, now=self.now, reason="reset", ambiguous=True)
        owed.ambiguous += 1
        assert died == (owed.ambiguous >= MAX_AMBIGUOUS)
        self.turn(owed, "dead" if died else "pending", 0.0)

    def settle(self, id: str, state: str, settle: Any, due: float = 0.0) -> None:
        owed = self.known.get(id)
        if owed is not None and owed.state == "sending":  # a crash may have taken it back
            settle(owed)
            self.turn(owed, state, due)

    def turn(self, owed: Owed, state: str, due: float) -> None:
        owed.state, owed.settled = state, self.now
        for other in self.known.values():
            if other.conversation == owed.conversation:
                other.due = due

    @rule()
    def crash(self) -> None:
        self.store.recover(now=self.now)
        for owed in self.known.values():
            owed.due = 0.0
            if owed.state == "sending":
                owed.ambiguous += 1
                self.turn(owed, "dead" if owed.ambiguous >= MAX_AMBIGUOUS else "pending", 0.0)

    # --- keeping ---

    @rule(every=st.booleans(), data=st.data())
    def redrive(self, every: bool, data: st.DataObject) -> None:
        dead = [id for id, owed in self.known.items() if owed.state == "dead"]
        some = None if every else data.draw(st.lists(st.sampled_from(sorted(self.known) or ["?"]), unique=True))
        redriven = self.store.redrive(some, now=self.now)
        assert set(redriven) == set(dead) & set(dead if some is None else some)
        for id in redriven:
            owed = self.known[id]
            owed.born, owed.ambiguous, owed.state = self.now, min(owed.ambiguous, 1), "pending"
            fellows = [o for o in self.known.values() if o.conversation == owed.conversation and o is not owed]
            owed.due = max([o.due for o in fellows if o.state in ("pending", "sending")], default=0.0)
            (seq,) = self.db.execute("SELECT seq FROM deliveries WHERE id = ?", (id,)).fetchone()
            assert seq > max(o.seq for o in self.known.values()), "behind all that were there"
            owed.seq = seq

    @rule()
    def expire(self) -> None:
        while self.store.expire(now=self.now, retention=DAY):
            pass
        for id, owed in list(self.known.items()):
            kept = {"sent": DAY, "dead": DEAD_KEPT}.get(owed.state)
            if kept is not None and owed.settled < self.now - kept:
                del self.known[id]
                self.expired += 1
        left = {row[0] for row in self.db.execute("SELECT key FROM seen")}
        self.keyed = {key: known for key, known in self.keyed.items() if key in left}
        self.happened &= left

    @rule(seconds=st.sampled_from([1.0, 10.0, 200.0, DAY, 100 * DAY]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    # --- what always holds ---

    @invariant()
    def nothing_is_lost(self) -> None:
        rows = dict(self.db.execute("SELECT id, state FROM deliveries"))
        assert rows == {id: owed.state for id, owed in self.known.items()}

    @invariant()
    def the_tally_is_true(self) -> None:
        tally = self.store.tally()
        assert (tally.accepted, tally.expired) == (self.accepted, self.expired)
        assert tally.accepted == tally.sent + tally.pending + tally.sending + tally.dead + tally.expired
        for state in ("pending", "sending", "sent", "dead"):
            assert getattr(tally, state) == sum(owed.state == state for owed in self.known.values())

    @invariant()
    def the_head_of_each_queue_has_its_turn(self) -> None:
        heads = {
            conversation: (turn, seq, due is None)
            for conversation, turn, seq, due in self.db.execute(
                "SELECT conversation, turn, seq, due FROM deliveries WHERE turn IS NOT NULL"
            )
        }
        assert len(heads) == self.db.execute("SELECT count(turn) FROM deliveries").fetchone()[0]
        for conversation in {owed.conversation for owed in self.known.values()}:
            pending = [o for o in self.known.values() if o.conversation == conversation and o.state == "pending"]
            sending = [o for o in self.known.values() if o.conversation == conversation and o.state == "sending"]
            assert len(sending) <= 1
            if not pending and not sending:
                assert conversation not in heads
                continue
            owed = pending + sending
            assert heads[conversation] == (min(o.rank for o in owed), min(o.seq for o in owed), bool(sending))


OutboxMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOutboxMachine = OutboxMachine.TestCase


# --- order ---


def test_the_most_urgent_conversation_goes_first_and_each_in_order(store: Store) -> None:
    """A conversation ranks by its most urgent delivery, yet its older, milder ones are told before that one."""
    owe(store, "plain", severity="low", conversation="1")
    owe(store, "mild", severity="low", conversation="2")
    owe(store, "urgent", severity="critical", conversation="2")
    owe(store, "high", severity="high", conversation="3")
    order = []
    while claimed := claim(store):
        order += ids(claimed)
        store.told_all([Told(claimed[0].seq, 2, "-1", 1)])
    assert order == ["mild", "urgent", "high", "plain"]


def test_the_low_is_not_starved_by_an_older_or_newer_crowd(store: Store) -> None:
    """On a fair turn goes what has waited too long behind more urgent ones, even behind those that came before it."""
    for number in range(3):
        owe(store, f"old {number}", severity="critical", conversation=f"c{number}", now=0)
    owe(store, "low", severity="low", conversation="l", now=1)
    owe(store, "lower", severity="low", conversation="m", now=2)
    assert ids(claim(store, now=481, fair=480)) == ["old 0"], "not long enough yet"
    assert ids(claim(store, 2, now=482, fair=480)) == ["low", "old 1"], "one on each fair turn"


def test_what_backs_off_is_not_claimed_before_it_is_due(store: Store) -> None:
    """And it holds up no other conversation meanwhile."""
    owe(store, "a", conversation="1")
    owe(store, "b", conversation="2", severity="low")
    first = claim(store)[0]
    store.again(first.seq, due=10.0, now=1, reason="5xx")
    assert ids(claim(store, 2, now=9.9)) == ["b"]
    assert ids(claim(store, 2, now=10.0)) == ["a"]
    assert store.show("a")["attempts"] == 2  # type: ignore[index]


def test_destinations_are_claimed_for_each_by_its_own_permits(store: Store) -> None:
    """A chat that may not be sent to costs the others nothing."""
    owe(store, "here")
    owe(store, "there", destination="other")
    claimed, _ = store.claim({"other": 5}, now=1, max_age=1e9)
    assert ids(claimed) == ["there"]


# --- ages ---


def test_held_time_makes_nobody_older(store: Store) -> None:
    """RELAY_MAX_AGE counts without the time in which the chat or the bot was held: on disk, or known to the sender."""
    owe(store, "a", now=0)
    store.were_held(now=1, seconds={"team": 500.0})
    owe(store, "b", now=500, conversation="2")
    claimed, died = store.claim({"team": 5}, now=1590, max_age=100, held={"team": 1490.0})
    assert (ids(claimed), died) == (["a", "b"], [])


def test_the_too_old_die_and_the_next_goes_on(store: Store) -> None:
    """With their reason, counted, and redrivable: a redrive begins a new age."""
    owe(store, "old", now=0)
    owe(store, "young", now=150)
    claimed, died = store.claim({"team": 1}, now=201, max_age=100)
    assert ([d.id for d in died], ids(claimed)) == (["old"], ["young"])
    assert "RELAY_MAX_AGE" in died[0].reason
    store.told_all([Told(claimed[0].seq, 201, "-1", 1)])
    assert store.redrive(["old", "young", "none"], now=300) == ["old"]
    assert ids(claim(store, now=399, max_age=100)) == ["old"]


def test_a_backlog_that_became_too_old_dies_by_steps(store: Store) -> None:
    """One transaction with a hundred thousand funerals would hold up everyone who is accepted."""
    for number in range(STEP + 1):
        owe(store, str(number), conversation=str(number))
    assert [len(store.claim({"team": 1}, now=200, max_age=100)[1]) for _ in range(3)] == [STEP, 1, 0]


def test_a_row_that_cannot_be_read_is_buried_alone(store: Store) -> None:
    """A damaged or future row must not stop the sender."""
    owe(store, "bad")
    owe(store, "good")
    store.db.execute("UPDATE deliveries SET content = x'7b' WHERE id = 'bad'")
    store = Store(store.db)  # of a process that did not write them
    claimed, died = store.claim({"team": 1}, now=1, max_age=1e9)
    assert (ids(claimed), [d.reason for d in died]) == (["good"], ["unreadable in the outbox"])


# --- tests, repeats, replies ---


def test_a_test_that_was_not_told_is_forgotten(store: Store) -> None:
    """It is not told later: neither by a withdrawal nor after a crash."""
    where: dict[str, Any] = {"destination": "team", "conversation": "test", "rank": Rank.TEST, "now": 0}
    owe(store, "alert", severity="critical")
    store.enqueue(an_alert(), id="t1", **where)
    assert ids(claim(store)) == ["t1"]
    store.withdraw_test("t1")  # being sent: its settling forgets it
    store.enqueue(an_alert(), id="t2", **where)
    store.withdraw_test("t2")
    store.enqueue(an_alert(), id="t3", **where)
    store.recover(now=1)
    assert [row["id"] for row in store.newest(state=None, limit=9)] == ["alert"]
    assert ids(claim(store)) == ["alert"]


def test_a_test_that_could_not_be_withdrawn_is_not_told_either(store: Store) -> None:
    """The disk was full when its time was up, and its caller has been told that it was not sent."""
    where: dict[str, Any] = {"destination": "team", "conversation": "test", "rank": Rank.TEST, "now": 0}
    store.enqueue(an_alert(), id="t", **where)
    owe(store, "alert", now=9)
    assert ids(claim(store, 2, now=9)) == ["alert"]
    assert store.status("t") is None


def test_a_notice_replies_to_the_alert_that_opened_its_episode(store: Store) -> None:
    """Once that has been told; before, there is nothing to reply to."""

    def receive(id: str, *, opens: bool) -> None:
        content: Content = an_alert() if opens else Notice(event="x", headline="x")
        decision = Decision(memory=Memory(), what=None, ignored=None, keys=(id,), opens=opens)
        store.receive(
            lambda memory, repeated: (decision, content), key="7:3", happening=id, transport=(), id=id,
            destination="team", conversation="1", now=0,
        )  # fmt: skip

    receive("alert", opens=True)
    receive("notice", opens=False)
    first = claim(store)[0]
    assert first.reply_to is None
    store.told_all([Told(first.seq, 1, "-5", 77)])
    assert claim(store)[0].reply_to == ("-5", 77)


def test_an_account_that_an_event_leaves_out_is_no_other(store: Store) -> None:
    """Before 4.14.2 some events of a conversation say their account and some do not: its memory is one."""
    met: list[str] = []

    def receive(key: str, status: str) -> None:
        def decide(memory: Memory | None, repeated: bool) -> tuple[Decision, Content | None]:
            met.append(memory.status if memory else "")
            return Decision(ignored=Reason.NOISE, memory=Memory(status=status)), None

        store.receive(
            decide, key=key, happening=None, transport=(), id=status, destination="team", conversation="7", now=0
        )

    receive("7:0", "a")
    receive("7:3", "b")  # the only account there is
    receive("7:0", "c")
    receive("70:0", "d")  # another conversation
    receive("8:3", "e")
    receive("8:0", "f")
    assert met == ["", "a", "b", "", "", "e"]
    met.clear()
    receive("8:4", "g")  # another account: from now on nobody knows which
    receive("70:4", "h")
    receive("8:0", "i")
    receive("8:3", "j")
    assert met == ["", "", "", "f"]


def test_what_an_event_without_an_account_told_is_known_to_one_that_says_it(store: Store) -> None:
    """Before 4.14.2: a new conversation and its first message are one alert; with two accounts nobody knows."""

    def receive(key: str, happening: str) -> bool:
        def decide(memory: Memory | None, repeated: bool) -> tuple[Decision, Content | None]:
            known.append(repeated)
            return Decision(what=What.NEW, memory=Memory(status="open"), keys=(happening,)), Notice(
                event="x", headline="x"
            )

        known: list[bool] = []
        store.receive(
            decide, key=key, happening=happening, transport=(), id=f"{key} {happening}", destination="team",
            conversation="7", now=0,
        )  # fmt: skip
        return known[0]

    assert not receive("1:3", "message:3:3")
    assert not receive("7:0", "message:0:3")
    assert receive("7:3", "message:3:3")
    assert not receive("7:3", "message:3:4")
    assert not receive("8:0", "message:0:8")
    assert not receive("9:4", "message:4:9")  # another account
    assert not receive("8:3", "message:3:8")


def test_a_repeat_is_answered_as_the_first_stands_by_then(store: Store) -> None:
    """Queued, then told: the same id, and nothing is owed twice. Once it is no longer kept, it is news."""
    states = []
    for number in range(3):
        answer = store.enqueue_once(Arrival(an_alert(), str(number), "team", "1", number), key="k", digest="d")
        assert isinstance(answer, Accepted)
        states.append((answer.id, answer.state, answer.message_id, answer.fresh))
        for delivery in claim(store):
            store.told_all([Told(delivery.seq, 1, "-1", 5)])
        if number == 1:
            store.db.execute("DELETE FROM deliveries")
    assert states == [("0", "pending", None, True), ("0", "sent", 5, False), ("2", "pending", None, True)]


def test_whoever_waits_knows_how_many_go_before_it(store: Store) -> None:
    """Of its own conversation and of others: whoever cannot be told in time is answered at once."""
    ahead = []
    for number, conversation in enumerate(["1", "1", "1", "2", "1"]):
        where: dict[str, Any] = {"destination": "team", "conversation": conversation, "now": 0}
        store.enqueue(an_alert(), id=str(number), **where)
        ahead.append(store.ahead(str(number)))
    assert ahead == [0, 1, 2, 1, 4]
    claim(store)
    assert (store.ahead("0"), store.ahead("1")) == (0, 1), "what is being sent goes before nobody any more"


def test_a_copy_of_what_was_told_is_no_news_to_a_later_state(store: Store) -> None:
    """It changed nothing when it came; replayed after the conversation was resolved, it must not open it again."""
    decision = Decision(ignored=Reason.ALREADY_TOLD)
    answers = [
        store.receive(
            lambda memory, repeated: (decision, None), key="7:3", happening=None, transport=("signed",), id="a",
            destination="team", conversation="1", now=0,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert answers == [Ignored("already told"), Ignored("duplicate")]


def test_a_short_retention_forgets_no_replay(store: Store) -> None:
    """A signature is good for five minutes, however short delivered alerts are kept."""
    store.enqueue_once(Arrival(an_alert(), "a", "team", "1", 0), key="k", digest="d")
    while store.expire(now=600, retention=1):
        pass
    again = store.enqueue_once(Arrival(an_alert(), "b", "team", "1", 600), key="k", digest="other")
    assert isinstance(again, Conflict)


def test_all_dead_letters_are_redriven_by_steps(store: Store) -> None:
    """Nobody waits for a thousand of them."""
    for number in range(STEP + 5):
        store.enqueue(an_alert(), id=str(number), destination="team", conversation=str(number), now=0)
    for delivery in claim(store, STEP + 5):
        store.bury(delivery.seq, now=0, reason="no")
    steps = [len(store.redrive(None, now=1)) for _ in range(3)]
    assert steps == [STEP, 5, 0]


def test_a_posting_that_came_before_is_a_duplicate(store: Store) -> None:
    """Whatever it tells; also where nobody had to hear it, if something was learned from it."""

    def receive(content: Content | None) -> Accepted | Ignored:
        decision = Decision(memory=Memory(status="open"), ignored=None if content else "noise")
        return store.receive(
            lambda memory, repeated: (decision, content), key="7:3", happening=None, transport=("posting",), id="a",
            destination="team", conversation="1", now=0,
        )  # fmt: skip

    assert receive(None) == Ignored("noise")
    assert receive(an_alert()) == Ignored("duplicate")
    assert store.tally().accepted == 0


def test_deaths_are_announced_once_an_hour(store: Store) -> None:
    """The team hears that something died, not each time something does."""
    for number in range(3):
        owe(store, str(number), conversation=str(number))
        store.bury(claim(store)[0].seq, now=1, reason="refused")
    announced = [announce(store, id=f"n{now}", destination="team", now=now) for now in (1.0, 2.0)]
    owe(store, "late", now=3)
    lane = store.db.execute("SELECT seq FROM deliveries WHERE id = 'late'").fetchone()[0]
    store.bury(lane, now=3, reason="refused")
    announced += [announce(store, id=f"n{now}", destination="team", now=now) for now in (3600.9, 3601.0)]
    assert announced == [True, False, False, True]
    shown = store.show("n1.0")
    assert shown is not None
    assert "3 messages" in shown["content"]["notice"]["headline"]


# --- holds, moves, facts ---


def test_holds_and_moves_outlive_the_process(store: Store) -> None:
    """A restart inside Telegram's wait must not send; a moved group is found at once."""
    store.hold("-1", until=50, reason="429")
    store.hold("", until=20, reason="429")
    store.move("-1", "-1001")
    assert store.holds(now=30) == {"-1": (50, "429"), "": (20, "429")}, "that one counts as time held"
    assert store.holds(now=30) == {"-1": (50, "429")}
    assert store.moves() == {"-1": "-1001"}


def test_what_was_told_a_moment_ago_is_known_to_the_next_life(store: Store) -> None:
    """A restart must not forget how much of Telegram's window is spent."""
    for number in range(3):
        owe(store, str(number))
        store.told_all([Told(claim(store)[0].seq, 10.0 * number, "-1", number)])
    assert store.recently_told(since=5, now=20) == [("-1", 10.0), ("-1", 20.0)]


def test_a_clock_that_was_set_back_holds_up_nothing(store: Store) -> None:
    """When an answer was lost is on the wall clock; what seems to come yet was now at the latest."""
    owe(store, "a")
    store.wall = lambda: 90_000.0
    store.again(claim(store)[0].seq, due=0, now=10, reason="reset", ambiguous=True)
    store.wall = lambda: 3_600.0
    assert store.recently_told(since=5, now=20) == [("team", 20.0)]


# --- rollbacks ---


def test_what_a_rollback_undoes_is_not_remembered(store: Store) -> None:
    """On a full disk a delivery becomes due, and no commit says so: it must be found due once more."""
    owe(store, "a", now=0)
    store.again(claim(store)[0].seq, due=5, now=1, reason="5xx")
    store.db.execute("BEGIN")
    store.were_held(now=1, seconds={"team": 100.0})
    assert ids(claim(store, now=6)) == ["a"]
    store.undo()
    assert store.held() == {}
    assert ids(claim(store, now=6)) == ["a"]


def test_what_is_refused_is_not_kept(store: Store) -> None:
    """A full queue must not fill the memory with what it refuses."""
    store.max_pending = 0
    refused = []
    for number in range(3 * RECENT):
        alert = an_alert()
        refused.append(weakref.ref(alert))
        with pytest.raises(OutboxUnavailable):
            store.enqueue(alert, id=str(number), destination="team", conversation="1", now=0)
    del alert
    gc.collect()
    assert sum(one() is not None for one in refused) <= RECENT + 1


# --- keeping ---


def test_a_full_queue_takes_no_more_and_says_so(store: Store) -> None:
    """Before memory or the disk is full; what is there stays."""
    store.max_pending = 2
    owe(store, "1")
    owe(store, "2")
    with pytest.raises(OutboxUnavailable, match="queue is full"):
        owe(store, "3")
    store.full, store.max_pending = "no disk", 10
    with pytest.raises(OutboxUnavailable, match="disk"):
        owe(store, "4")
    assert store.tally().accepted == 2


def test_forgetting_goes_by_small_steps_and_gives_room_back(tmp_path: Path) -> None:
    """A week's rows at once would hold up everyone; and a disk that a burst has filled is free again afterwards."""
    db = open_database(tmp_path / "outbox.db")
    store = Store(db)
    db.execute("BEGIN")
    for number in range(2 * STEP + 10):
        content = an_alert(message="x" * 20_000)
        store.enqueue(content, id=str(number), destination="team", conversation=str(number), now=0)
    while claimed := claim(store, 500):
        for delivery in claimed:
            store.told_all([Told(delivery.seq, 1, "-1", 1)])
    db.execute("COMMIT")
    before = db.execute("PRAGMA page_count").fetchone()[0]
    steps = [store.expire(now=DAY * 8, retention=DAY * 7) for _ in range(4)]
    assert steps == [STEP, STEP, 10, 0]
    while db.execute("PRAGMA freelist_count").fetchone()[0] > SPARE_PAGES:
        store.expire(now=DAY * 8, retention=DAY * 7)
    assert db.execute("PRAGMA page_count").fetchone()[0] < SPARE_PAGES + 100 < before
    db.close()


def test_content_is_read_tolerantly_by_another_version() -> None:
    """More members or fewer than we know: what can be told is told."""
    whole = pack(an_alert())
    assert unpack(whole) == an_alert()
    assert unpack(whole.replace(b'"v":1', b'"v":9').replace(b'"reason"', b'"new":[1],"reason"')) == an_alert()
    assert unpack(b'{"v":2,"digest":{}}') is None
    assert unpack(b"\xff") is None


def test_a_file_of_another_program_or_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    """Writing into somebody else's database is worse than not to start."""
    foreign, newer = tmp_path / "foreign.db", tmp_path / "newer.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    ours = open_database(newer)
    ours.execute("PRAGMA user_version = 99")
    ours.close()
    before = foreign.read_bytes()
    with pytest.raises(NotOurDatabase, match="another program"):
        open_database(foreign)
    with pytest.raises(NotOurDatabase, match="newer"):
        open_database(newer)
    assert foreign.read_bytes() == before


@pytest.mark.parametrize("kind", ["foreign", "newer"])
def test_a_log_that_is_not_ours_is_left_alone_too(tmp_path: Path, kind: str) -> None:
    """Its owner died a moment ago: what SQLite would fold into the file is not ours to fold."""
    path, log = tmp_path / "theirs.db", tmp_path / "theirs.db-wal"
    db = sqlite3.connect(path) if kind == "foreign" else open_database(path)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE theirs (x)" if kind == "foreign" else "PRAGMA user_version = 99")
    db.commit()
    left = path.read_bytes(), log.read_bytes()
    db.close()
    path.write_bytes(left[0])
    log.write_bytes(left[1])
    with pytest.raises(NotOurDatabase, match="another program" if kind == "foreign" else "newer"):
        open_database(path)
    assert (path.read_bytes(), log.read_bytes()) == left


def test_a_log_of_ours_counts(tmp_path: Path) -> None:
    """Killed before the file had anything of it: the log alone says whose it is, and what is owed."""
    path, log = tmp_path / "ours.db", tmp_path / "ours.db-wal"
    db = open_database(path)
    owe(Store(db), "waits")
    db.commit()
    left = path.read_bytes(), log.read_bytes()
    db.close()
    path.write_bytes(left[0])
    log.write_bytes(left[1] + b"\0" * 999)  # and what else a crash may leave behind it
    with closing(open_database(path)) as again:
        assert Store(again).tally().pending == 1


@pytest.mark.parametrize("page", [bytes(4096), b"\x07" * 4096, b"SQLite format 3\0" + b"\x07" * 4080, None])
@pytest.mark.parametrize("kind", ["torn", "old", "not committed"])
def test_what_a_power_failure_tore_says_nothing(tmp_path: Path, page: bytes | None, kind: str) -> None:
    """SQLite passes over it by its sums: the file is whole, and ours. Nor counts what an earlier log left behind."""
    path, log = tmp_path / "ours.db", tmp_path / "ours.db-wal"
    db = open_database(path)
    owe(Store(db), "waits")
    left = path.read_bytes(), log.read_bytes()
    db.close()
    if page is None:  # a newer version's, which would count were it committed in this very log
        page = left[0][:60] + (99 if kind != "torn" else SCHEMA_VERSION).to_bytes(4) + left[0][64:4096]
    salts = bytes(8) if kind == "old" else left[1][16:24]
    commit = (0 if kind == "not committed" else 9).to_bytes(4)
    path.write_bytes(left[0])
    log.write_bytes(left[1] + (1).to_bytes(4) + commit + salts + bytes(8) + page)
    with closing(open_database(path)) as again:
        assert Store(again).tally().pending == 1


def test_what_is_rescued_keeps_its_place_and_can_settle(tmp_path: Path) -> None:
    """A send in flight settles by its place: in the new file that must be the same delivery or none, never another."""
    old = open_database(tmp_path / "old.db")
    store = Store(old)
    for id in ("told", "flying", "waits"):
        owe(store, id, conversation=id)
    told, flying = claim(store, 2)
    store.told_all([Told(told.seq, 1, "-1", 1)])
    old.close()
    rows, others = salvage(tmp_path / "old.db")
    new = open_database(tmp_path / "new.db")
    store = Store(new)
    store.last = adopt(store, [*rows, (9, *[None] * 11)], others, now=5, wall=1.7e9)
    assert [(row["id"], row["attempts"]) for row in store.newest(state="pending", limit=9)] == [
        ("waits", 0), ("flying", 1),
    ]  # fmt: skip
    owe(store, "fresh", conversation="fresh")
    store.told_all([Told(told.seq, 6, "-1", 1)])
    assert not store.again(told.seq, due=0, now=6, reason="reset", ambiguous=True)
    store.release(told.seq)
    store.told_all([Told(flying.seq, 6, "-1", 2)])
    assert ids(claim(store, 5)) == ["waits", "fresh"]
    assert store.tally().sent == 1
    new.close()


# --- what a look-up costs ---


def plan(store: Store, verb: Any) -> list[str]:
    """How SQLite goes about every statement of *verb*."""
    statements: list[str] = []
    store.db.set_trace_callback(statements.append)
    try:
        verb()
    finally:
        store.db.set_trace_callback(None)
    steps = []
    for statement in {s for s in statements if s.startswith(("SELECT", "UPDATE", "INSERT", "DELETE"))}:
        steps += [row[3] for row in store.db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    return steps


@pytest.mark.parametrize(
    "verb",
    [
        "enqueue",
        "claim",
        "told",
        "again",
        "release",
        "status",
        "list dead",
        "redrive",
        "holds",
        "expire",
        "recover",
        "ahead",
    ],
)
def test_no_verb_reads_the_whole_outbox(store: Store, verb: str) -> None:
    """With a million rows, taking one in and sending one must cost what it costs with ten."""
    for number in range(9):
        owe(store, str(number), conversation=str(number % 4), severity=SEVERITIES[number % 4])
    flying = claim(store, 2)
    verbs = {
        "enqueue": lambda: owe(store, "x"),
        "claim": lambda: claim(store, 3, fair=0.1, now=9),
        "told": lambda: store.told_all([Told(flying[0].seq, 1, "-1", 1)]),
        "again": lambda: store.again(flying[0].seq, due=5, now=1, reason="x", ambiguous=True),
        "release": lambda: store.release(flying[0].seq),
        "status": lambda: (store.status("1"), store.show("1"), store.tally()),
        "list dead": lambda: (store.newest(state="dead", limit=9), store.newest(state="pending", limit=9)),
        "redrive": lambda: (store.redrive(None, now=1), store.redrive(["1"], now=1)),
        "holds": lambda: (
            store.recently_told(since=1, now=1),
            store.withdraw_test("1"),
            store.were_held(now=1, seconds={"team": 1.0}),
        ),
        "expire": lambda: store.expire(now=1e9, retention=1),
        "recover": lambda: store.recover(now=1),
        "ahead": lambda: (store.ahead("1"), store.live(wall=1, at=1)),
    }
    steps = plan(store, verbs[verb])
    assert steps
    # Few rows by their nature, one row by a LIMIT, or once at the start.
    small = [
        "SCAN tally",
        "SCAN holds",
        "SCAN held",
        "SCAN conversations",
        "SCAN (subquery",
        "SCAN CONSTANT",
        "SCAN heads",
    ]
    small += ["SCAN json_each", "SCAN 6 CONSTANT ROWS"]  # the deliveries of one claim; the ranks
    scans = [step for step in steps if step.startswith("SCAN") and not step.startswith(tuple(small))]
    assert [step for step in scans if " USING " not in step] == []
