"""schemathesis throws hundreds of requests at a real process and finds no answer that the document does not know."""

from __future__ import annotations

import asyncio
import sys

import pytest
from faults import Script, refusal
from relay_process import TEST, House


@pytest.mark.parametrize("state", ["open", "closed", "refused", "down"])
async def test_no_answer_is_unknown_to_the_document(home: House, state: str) -> None:
    """A client made from the document must understand whatever comes, on good days and on bad ones."""
    settings: dict[str, str] = {}
    headers: list[str] = []
    excluded = ["positive_data_acceptance"]  # whether a text is blank is decided after cleaning, which no pattern says
    match state:
        case "closed":
            settings = {"RELAY_TOKEN": "t0ken", "CHATWOOT_WEBHOOK_SECRET": "s3cret"}
            headers = ["-H", "Authorization: Bearer t0ken"]
        case "refused":
            home.telegram.down = refusal(400, "Bad Request: wrong something")
            excluded += ["not_a_server_error"]  # 502 and 504 are the promised answers
        case "down":
            home.telegram.down = Script(status=502, body=b"<html>")
            settings = {"RELAY_REPLY_TIMEOUT": "0.1"}
            excluded += ["not_a_server_error"]
    relay = await home.relay(**settings)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{relay.base}/openapi.json", *headers),
        *("--phases", "examples,coverage,fuzzing", "--max-time", "8", "--generation-deterministic"),
        *("--request-timeout", "10", "--suppress-health-check", "all", "--exclude-checks", ",".join(excluded)),
        *("--continue-on-failure", "--no-color"),
        cwd=relay.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    if state == "closed":
        assert (await relay.post(TEST, headers={})).status == 401
    assert await relay.stop() == 0
    assert "request.crashed" not in relay.log
