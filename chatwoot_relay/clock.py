"""The only place that reads the time or sleeps; tests bring their own."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The machine's clocks. Seconds everywhere."""

    def wall(self) -> float:
        """Unix time: for people, signatures and across restarts; it may jump."""
        return time.time()

    def monotonic(self) -> float:
        """For waits and ages while the process lives; it never jumps."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
