"""``python -m bench.soak``: killed again and again under load; what was accepted is compared with what was told.

Every alert carries a mark. After each kill -9 the relay is started again on the same outbox; at the end all of it must
have been told, and told twice only what was being sent at a kill.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import signal
import sqlite3
import time
from collections import Counter

from .load import Client, alert, connect
from .servers import Server, free_port, relay
from .telegram import Bot

IN_FLIGHT = 16  # sends at a time, as the sender has it


async def post(port: int, numbers: itertools.count[int], accepted: set[int], asked: set[int]) -> None:
    """Alerts over one connection until it breaks."""
    client: Client | None = None
    try:
        client = await connect(port)
        while True:
            number = next(numbers)
            asked.add(number)
            if await client.ask(alert(number)) in (200, 202):
                accepted.add(number)
    except OSError:  # killed
        pass
    finally:
        if client is not None:
            client.transport.close()


async def soak(*, kills: int, connections: int, longest: float, patience: float) -> bool:
    bot = await asyncio.get_running_loop().create_server(Bot, "127.0.0.1", 0)
    telegram = f"http://127.0.0.1:{bot.sockets[0].getsockname()[1]}"
    numbers, accepted, asked = itertools.count(1), set[int](), set[int]()
    port, starts = free_port(), list[float]()
    server: Server | None = None
    folder = None
    try:
        for life in range(kills + 1):
            server = relay(telegram, port=port, folder=folder)
            folder = server.folder
            starts.append(await asyncio.to_thread(server.healthy))
            if life == kills:
                break
            posting = [asyncio.create_task(post(port, numbers, accepted, asked)) for _ in range(connections)]
            await asyncio.sleep(random.uniform(0.05, longest))
            await asyncio.to_thread(server.end, how=signal.SIGKILL)
            await asyncio.gather(*posting)
            print(f"killed {life + 1}: {len(accepted)} accepted, {len(Bot.told)} told", flush=True)
        end = time.monotonic() + patience
        while time.monotonic() < end and accepted - told().keys():
            await asyncio.sleep(0.2)
        await asyncio.to_thread(server.end)
    finally:
        if server is not None and server.process.poll() is None:
            server.process.kill()
        bot.close()
    counts = told()
    lost, strange = accepted - counts.keys(), counts.keys() - asked
    extra = sum(count - 1 for count in counts.values())
    with sqlite3.connect(folder / "outbox.db") as db:
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
        accepted_in_all, *others = db.execute(
            "SELECT accepted, pending, sending, sent, dead, expired FROM tally"
        ).fetchone()
    balanced = accepted_in_all == sum(others)
    print(f"{len(accepted)} accepted, {len(lost)} lost, {extra} extra copies in {kills} kills, {len(strange)} unasked")
    print(f"database: {whole}; accounts {'balance' if balanced else f'do not balance: {accepted_in_all}, {others}'}")
    print(f"ready again after {max(starts):.2f} s at most")
    return not lost and not strange and extra <= kills * IN_FLIGHT and whole == "ok" and balanced


def told() -> Counter[int]:
    return Counter({int(mark.removeprefix(b"mark-")): count for mark, count in Bot.told.items()})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--longest", type=float, default=2.0, help="seconds that it lives at most")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds until all must be told")
    good = asyncio.run(soak(**vars(parser.parse_args())))
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
