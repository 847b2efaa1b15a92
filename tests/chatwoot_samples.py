"""What Chatwoot's own code sent, and an outbox made of two dicts. As a program it writes the expected texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import msgspec

from chatwoot_relay import chatwoot, notices, routing
from chatwoot_relay.events import Decision, Event, Memory
from chatwoot_relay.models import Alert, Content
from chatwoot_relay.render import render

HERE = Path(__file__).parent / "samples"
CHATWOOT = HERE / "chatwoot"
EXPECTED = HERE / "notices"
MANIFEST = json.loads((CHATWOOT / "manifest.json").read_text("utf-8"))
NAMES = [entry["file"].removesuffix(".json") for entry in MANIFEST["fixtures"]]
DASHBOARD = "https://app.chatwoot.com"
FALLBACK_ACCOUNT = 9


def fixture(name: str) -> dict[str, Any]:
    """What the manifest says of a sample."""
    found: dict[str, Any] = next(entry for entry in MANIFEST["fixtures"] if entry["file"] == name + ".json")
    return found


def document(name: str) -> dict[str, Any]:
    """A fresh copy of a sample's body."""
    loaded: dict[str, Any] = json.loads((CHATWOOT / f"{name}.json").read_text("utf-8"))
    return loaded


def raw(name: str) -> tuple[dict[str, str], bytes]:
    """The exact headers and bytes."""
    headers = json.loads((CHATWOOT / "raw" / f"{name}.headers.json").read_text("utf-8"))
    return headers, (CHATWOOT / "raw" / f"{name}.body").read_bytes()


def read(body: dict[str, Any]) -> Event:
    return chatwoot.read_event(body, base_url=DASHBOARD, account_id=FALLBACK_ACCOUNT)


@attrs.define
class Relay:
    """What the outbox does with events, without the disk; memory goes through JSON as it does there."""

    events: frozenset[str] = frozenset({"useful"})
    memories: dict[str, bytes] = attrs.Factory(dict)
    keys: set[str] = attrs.Factory(set)
    told: list[Content] = attrs.Factory(list)
    now: float = 1_795_365_600.0

    def receive(self, body: dict[str, Any]) -> Decision:
        event = read(body)
        stored = self.memories.get(event.conversation)
        memory = None if stored is None else msgspec.json.decode(stored, type=Memory)
        decision = routing.decide(event, memory, events=self.events, now=self.now, repeated=event.key in self.keys)
        if decision.memory is not None:
            self.memories[event.conversation] = msgspec.json.encode(decision.memory)
        if decision.what is not None:
            self.keys.update(decision.keys)
            self.told.append(notices.word(event, decision))
        return decision

    def say(self, body: dict[str, Any]) -> str:
        """What became of it, in one word for a test to compare."""
        decision = self.receive(body)
        if decision.what is None:
            return f"ignored: {decision.ignored}"
        content = self.told[-1]
        kind = "alert" if isinstance(content, Alert) else "silent" if content.silent else "told"
        return f"{kind}: {decision.what}"

    @property
    def alerts(self) -> list[Alert]:
        return [content for content in self.told if isinstance(content, Alert)]


def expected(name: str) -> str:
    """A sample alone on a fresh outbox: what Telegram is sent by default, and where everything is told."""
    parts, before = [], ""
    for mode in ("useful", "all"):
        relay = Relay(events=frozenset({mode}))
        what = relay.say(document(name))
        text = "".join(str(render(content)) for content in relay.told)
        parts.append(f"=== {mode}: {what}\n" + ("(the same)" if text and text == before else text) + "\n")
        before = text
    return "\n".join(parts).rstrip() + "\n"


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for sample in NAMES:
        (EXPECTED / f"{sample}.txt").write_text(expected(sample), "utf-8")
