"""The contract, row by row, on the real process."""

from __future__ import annotations

from relay_process import House


async def test_an_accepted_alert_is_told_before_and_after_a_kill(home: House) -> None:
    """The common answer is 200, and a killed relay goes on where it was."""
    relay = await home.relay()
    for conversation_id in (7, 8):
        answered = await relay.alert(conversation_id=conversation_id)
        assert answered.status == 200
        assert home.told(conversation_id)
        await relay.restart()
    assert await relay.stop() == 0
