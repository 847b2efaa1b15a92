"""What tests of the running relay share."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aioresponses.core
import pytest
from aiohttp import ClientResponse
from hypothesis import settings
from relay_process import RELAY_TOKEN, WEBHOOK_SECRET, House, RelayProcess, house

settings.register_profile("ours", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("ours")

if "stream_writer" in inspect.signature(ClientResponse).parameters:

    class _Response(ClientResponse):
        """What aioresponses 0.7.9 makes lacks an argument that aiohttp 3.14 asks for."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("stream_writer", Mock(output_size=0))
            super().__init__(*args, **kwargs)

    aioresponses.core.ClientResponse = _Response  # type: ignore[misc]


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[House]:
    """A Telegram that can be told to misbehave, for relays that the test itself starts, kills and restarts."""
    async with house(tmp_path) as made:
        yield made


@pytest.fixture(scope="session")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """A well-behaved Telegram for :func:`relay`."""
    async with house(tmp_path_factory.mktemp("town")) as made:
        yield made


@pytest.fixture(scope="session")
async def relay(town: House) -> RelayProcess:
    """One relay, with a token and a secret, that many tests ask; none may end it, fill it or have it held."""
    return await town.relay(RELAY_TOKEN=RELAY_TOKEN, CHATWOOT_WEBHOOK_SECRET=WEBHOOK_SECRET)
