"""The command line as a person meets it: help, `render`, pipes and terminals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from relay_process import WEBHOOK, House

from chatwoot_relay.cli import main
from chatwoot_relay.markup import clean

ALERT = {"severity": "high", "reason": "R", "conversation_id": "7", "message": "a <b> & é"}


def run(*arguments: str, given: str = "") -> tuple[int, str]:
    done = CliRunner().invoke(main, arguments, input=given, terminal_width=80)
    return done.exit_code, done.output


@pytest.mark.parametrize("group", [(), ("outbox",)])
def test_no_command_is_told_by_half(group: tuple[str, ...]) -> None:
    """A list of commands that ends in dots helps nobody."""
    code, told = run(*group, "--help")
    assert (code, "..." in told.split("Commands:")[1]) == (0, False)


@pytest.mark.parametrize(
    ("payload", "code", "told"),
    [
        (ALERT, 0, "🟠 CHATWOOT ALERT - HIGH\n\nReason: R\nConversation ID: #7\n\nMessage:\na <b> & é\n"),
        ({"event": "conversation_typing_on"}, 0, "by itself it would not be told (noise).\n✍️ Somebody is typing\n"),
        ({**ALERT, "message": ""}, 1, "$.message: "),
        ("no object", 1, "chatwoot-relay: "),
    ],
)
def test_render_shows_what_a_chat_would_or_what_is_wrong(payload: object, code: int, told: str) -> None:
    """It needs no settings, and a payload is tried before it is posted."""
    done = run("render", "-", given=json.dumps(payload))
    assert (done[0], told in done[1]) == (code, True), done


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"severity": "low",\n  "reason": }', "payload.json, line 2, column 13: The body is not JSON."),
        ("", "payload.json, line 1, column 1: The body is empty."),
        ("[" * 2000 + "]" * 2000, "payload.json: The body is nested too deeply."),
        ('{"message": 5}', "payload.json: The alert's shape is wrong at"),
    ],
)
def test_a_payload_that_cannot_be_read_is_named_with_the_place(tmp_path: Path, text: str, told: str) -> None:
    """Whoever tries a long file by hand looks for one comma."""
    (tmp_path / "payload.json").write_text(text)
    code, said = run("render", str(tmp_path / "payload.json"))
    assert (code, told in said) == (1, True), said


def test_a_reader_that_has_enough_and_a_terminal_without_our_signs_are_no_errors(tmp_path: Path) -> None:
    """`| head` and an old terminal are everyday things."""
    command = [sys.executable, "-m", "chatwoot_relay"]
    poor = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    told = subprocess.run([*command, "render", "-"], input=json.dumps(ALERT).encode(), env=poor, capture_output=True)
    assert (told.returncode, told.stderr, told.stdout[:16]) == (0, b"", b"? CHATWOOT ALERT")
    read, write = os.pipe()
    os.close(read)
    cut = subprocess.run([*command, "openapi"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert cut.stderr == b""


async def test_an_event_cannot_write_to_the_operators_terminal(home: House) -> None:
    """Its name comes from outside, and `outbox list` shows it."""
    relay = await home.relay()
    assert (await relay.post(WEBHOOK, {"event": "x\x1b]0;title\x07\u202e\x9b1m\nforged"})).status == 200
    code, told = await relay.run("outbox", "list")
    assert (code, "event x" in told, told) == (0, True, clean(told))
    assert "\nforged" not in told
