"""What tests of the running relay share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from relay_process import RELAY_TOKEN, WEBHOOK_SECRET, House, RelayProcess, house


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
