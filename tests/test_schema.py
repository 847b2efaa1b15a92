"""schemathesis throws thousands of requests at a real process and finds no answer that the document does not know."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from faults import FaultyTelegram, Script, refusal

import chatwoot_relay
from chatwoot_relay.faketelegram import TOKEN

FOUND_NOTHING = 0


@asynccontextmanager
async def relay(folder: Path, **settings: str) -> AsyncIterator[str]:
    """`chatwoot-relay serve` as a process; yields its base URL."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    package = str(Path(chatwoot_relay.__file__).parents[1])
    environ = {
        **kept,
        "PYTHONPATH": package,
        "TELEGRAM_BOT_TOKEN": TOKEN,
        "TELEGRAM_CHAT_ID": "-100",
        "RELAY_PORT": "0",
        "RELAY_RATE_LIMIT": "off",
        "RELAY_PACING": "off",
        "RELAY_LOG_FORMAT": "json",
        **settings,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chatwoot_relay", "serve", cwd=folder, env=environ, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    line = b""
    while b"relay.started" not in line:
        line = await process.stderr.readline()
        assert line, "the relay did not start"
    url = line.decode().partition('"listening":["')[2].partition('"')[0]
    log = asyncio.create_task(process.stderr.read())
    try:
        yield url
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        assert b"request.crashed" not in await log


@pytest.mark.parametrize("state", ["open", "closed", "refused", "down"])
async def test_no_answer_is_unknown_to_the_document(tmp_path: Path, state: str) -> None:
    """A client made from the document must understand whatever comes, on good days and on bad ones."""
    telegram = FaultyTelegram()
    settings, headers = {}, []
    excluded = ["positive_data_acceptance"]  # whether a text is blank is decided after cleaning, which no pattern says
    match state:
        case "closed":
            settings = {"RELAY_TOKEN": "t0ken", "CHATWOOT_WEBHOOK_SECRET": "s3cret"}
            headers = ["-H", "Authorization: Bearer t0ken"]
        case "refused":
            telegram.down = refusal(400, "Bad Request: wrong something")
            excluded += ["not_a_server_error"]  # 502 and 504 are the promised answers
        case "down":
            telegram.down = Script(status=502, body=b"<html>")
            excluded += ["not_a_server_error"]
            settings = {"RELAY_REPLY_TIMEOUT": "0.1"}
    async with telegram.serving() as api, relay(tmp_path, TELEGRAM_API_URL=api, **settings) as url:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", *headers),
            *("--phases", "examples,coverage,fuzzing", "--max-time", "8", "--generation-deterministic"),
            *("--request-timeout", "10", "--suppress-health-check", "all"),
            *("--exclude-checks", ",".join(excluded), "--continue-on-failure", "--no-color"),
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        if state == "closed":
            assert await asyncio.to_thread(status, f"{url}/api/v1/chatwoot/test") == 401
    assert process.returncode == FOUND_NOTHING, told.decode()


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="POST")) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
