"""``python -m bench``: every promise about speed, measured side by side in shuffled rounds, in one table."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import Callable
from typing import Any

import attrs

from . import inside
from .servers import Server, load, relay
from .telegram import HELD

Row = tuple[str, str, str, str]


@attrs.frozen(kw_only=True)
class Size:
    """How much of it. All that a held relay accepts in its rounds has room in its queue of 100,000."""

    rounds: int
    seconds: float
    starts: int
    alerts: int
    backlogs: tuple[int, ...]
    turns: int


FULL = Size(rounds=7, seconds=1.5, starts=11, alerts=20_000, backlogs=(0, 10_000, 100_000, 1_000_000), turns=400)
QUICK = Size(rounds=3, seconds=1.0, starts=5, alerts=3_000, backlogs=(0, 10_000), turns=60)


def spread(values: list[float], form: str = "{:.0f}") -> str:
    low, middle, high = (form.format(f(values)) for f in (min, statistics.median, max))
    return f"{middle} ({low}…{high})"


def verdict(value: float, target: float, *, least: bool, form: str = "{:.2f}") -> str:
    good = value >= target if least else value <= target
    return f"{'≥' if least else '≤'} {form.format(target)} {'✓' if good else '✗ missed'}"


def compared(label: str, ours: list[float], others: list[float], target: float, *, least: bool = True) -> Row:
    """The ratio round by round: what else the machine did in a round slowed both."""
    ratios = [a / b for a, b in zip(ours, others, strict=True)]
    middle = statistics.median(ratios)
    return label, spread(ratios, "{:.2f}"), "", verdict(middle, target, least=least)


def rounds(servers: dict[str, Server], size: Size, measure: Callable[[str, Server], dict[str, Any]]) -> dict[str, Any]:
    """Each server once a round, in another order each time, and only when it is idle."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    for turn in range(size.rounds + 1):
        for name in random.sample(list(servers), len(servers)):
            result = measure(name, servers[name])
            servers[name].settle()
            if turn:  # the first one warms up
                results[name].append(result)
    return results


class Table:
    """What was found, told at once and kept for the end."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(self, *row: str) -> None:
        what, value, more, target = (*row, "", "", "")[:4]
        self.rows.append((what, value, more, target))
        print("  ".join(cell for cell in row if cell), flush=True)

    def show(self) -> None:
        widths = [max(len(row[i]) for row in self.rows) for i in range(4)]
        print(
            "\n" + "\n".join("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in self.rows)
        )


def speed(table: Table, size: Size) -> None:
    telegram = Server("bench.telegram", "PORT")
    telegram.wait()
    held = relay(telegram.url, TELEGRAM_CHAT_ID=HELD.decode())
    at_once, full = relay(telegram.url, RELAY_REPLY_TIMEOUT="0"), relay(telegram.url)
    bare, usual = Server("bench.bare", "PORT"), Server("bench.fastapi_relay", "PORT", telegram.url)
    everything = [telegram, held, at_once, full, bare, usual]
    first = 1

    def measure(name: str, server: Server, **how: Any) -> dict[str, Any]:
        nonlocal first
        before = server.cpu()
        result = load(server, first=first, **how)
        first = result["next"]
        wanted = {"bare": "202", "relay, Telegram held": "202", "relay, not waiting": "202"}.get(name, "200")
        strangers = {status: n for status, n in result["statuses"].items() if status != wanted}
        if strangers and name != "relay, not waiting":  # Telegram may be quicker than the answer
            raise RuntimeError(f"{name} answered {strangers}")
        result["cpu_us"] = (server.cpu() - before) / result["count"] * 1e6
        return result

    try:
        for server in everything[1:]:
            server.healthy()
        load(held, connections=1, count=1, first=10**9)  # so that it knows that it is held
        held.settle()
        servers = {"bare": bare, "relay, Telegram held": held, "relay, not waiting": at_once}
        found = rounds(servers, size, lambda n, s: measure(n, s, connections=64, seconds=size.seconds))
        for name, results in found.items():
            rates, late = [r["rate"] for r in results], [r["p99_ms"] for r in results]
            cost = f"p99 {spread(late)} ms, {statistics.median(r['cpu_us'] for r in results):.0f} µs of processor each"
            table.add(f"accepted/s at 64, {name}", spread(rates), cost)
        ratio = {n: [r["rate"] for r in results] for n, results in found.items()}
        table.add(*compared("  durable accept : bare", ratio["relay, Telegram held"], ratio["bare"], 0.35))
        table.add(*compared("  the same while it tells : bare", ratio["relay, not waiting"], ratio["bare"], 0.0)[:3])

        servers = {"bare": bare, "relay": full, "FastAPI": usual}
        found = rounds(servers, size, lambda n, s: measure(n, s, connections=16, seconds=size.seconds))
        for name, results in found.items():
            rates, late = [r["rate"] for r in results], [r["p99_ms"] for r in results]
            cost = f"p99 {spread(late)} ms, {statistics.median(r['cpu_us'] for r in results):.0f} µs of processor each"
            table.add(f"delivered and answered/s at 16, {name}", spread(rates), cost)
        ratio = {n: [r["rate"] for r in results] for n, results in found.items()}
        table.add(*compared("  relay : bare", ratio["relay"], ratio["bare"], 0.15))
        table.add(*compared("  relay : FastAPI", ratio["relay"], ratio["FastAPI"], 4.5))

        def calm(name: str, server: Server) -> dict[str, Any]:
            if name == "Telegram":
                return load(server, connections=64, seconds=2 * size.seconds, rate=30, kind="send")
            return measure(name, server, connections=64, seconds=2 * size.seconds, rate=30)

        found = rounds({"Telegram": telegram, "relay": full, "FastAPI": usual}, size, calm)
        own = statistics.median(r["median_ms"] for r in found["Telegram"])
        added = {name: [r["median_ms"] - own for r in found[name]] for name in ("relay", "FastAPI")}
        for name, values in added.items():
            table.add(f"added latency at 30/s (ms), {name}", spread(values, "{:.2f}"), f"Telegram's own: {own:.2f}")
        table.add(*compared("  relay : FastAPI", added["relay"], added["FastAPI"], 0.6, least=False))

        typical = list[float]()
        own_us: dict[bool, list[float]] = {True: [], False: []}
        for _ in range(2 * size.rounds):  # each is short, and so is what else the machine does
            typical.append(inside.event_work(turns=100))
            for kept, connections in ((False, 1), (True, 16)):
                how: dict[str, Any] = {"connections": connections, "kind": "event", "kept": kept}
                own_us[kept].append(measure("events", bare, seconds=size.seconds, **how)["cpu_us"])
        table.add("verify, read, decide, render an event (µs)", spread(typical))
        shares = {kept: statistics.median(typical) / statistics.median(values) for kept, values in own_us.items()}
        label = "  share of aiohttp's own, a connection each as Chatwoot posts"
        table.add(label, f"{shares[False]:.2f}", spread(own_us[False]), verdict(shares[False], 1.0, least=False))
        label = "  share of aiohttp's own, 16 kept connections at full speed"
        table.add(label, f"{shares[True]:.2f}", spread(own_us[True]))
        table.add("parse, check, render an alert (µs)", f"{inside.alert_work(turns=200):.0f}")
        worst, usually = asyncio.run(inside.stall(full.port, bodies=5 * size.rounds))
        size_mb = len(inside.large_event()) / 1e6
        label = f"longest stall by {size_mb:.1f} MB bodies (ms)"
        table.add(label, f"{worst:.0f}", f"usual {usually:.1f}", verdict(worst, 50, least=False, form="{:.0f}"))
    finally:
        for server in everything:
            server.end()

    telegram = Server("bench.telegram", "PORT")
    fresh = relay(telegram.url)
    try:
        fresh.healthy()
        begun = fresh.rss()
        load(fresh, connections=16, count=size.alerts, first=first)
        fresh.settle()
        rss = fresh.rss()
        label = f"RSS after {size.alerts} alerts (MB)"
        table.add(label, f"{rss:.1f}", f"at start {begun:.1f}", verdict(rss, 60, least=False, form="{:.0f}"))
    finally:
        fresh.end()
        telegram.end()


def starting(table: Table, size: Size) -> None:
    telegram = Server("bench.telegram", "PORT")
    took: dict[str, list[float]] = {"bare": [], "relay": []}
    for turn in range(size.starts + 1):
        for name in random.sample(list(took), 2):
            server = Server("bench.bare", "PORT") if name == "bare" else relay(telegram.url)
            seconds = server.healthy()
            server.end()
            if turn:
                took[name].append(seconds * 1000)
    telegram.end()
    for name, values in took.items():
        table.add(f"start to first healthy answer (ms), {name}", spread(values))
    table.add(*compared("  relay : bare", took["relay"], took["bare"], 1.5, least=False))


def backlogs(table: Table, size: Size) -> None:
    found = inside.backlogs(size.backlogs, turns=size.turns)
    first = found[size.backlogs[0]]
    for pending, costs in found.items():
        words = "accept {:.0f}, claim {:.0f}, settle {:.0f} µs".format(*costs)
        worst = max(cost / least for cost, least in zip(costs, first, strict=True))
        table.add(f"behind {pending} pending", words, f"{worst:.2f} ×", verdict(worst, 1.5, least=False))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run: less exact")
    parser.add_argument("parts", nargs="*", help="speed, starting, backlogs; all where none is named")
    options = parser.parse_args()
    size, table = QUICK if options.quick else FULL, Table()
    parts = {"speed": speed, "starting": starting, "backlogs": backlogs}
    for name in options.parts or parts:
        parts[name](table, size)
    table.show()


if __name__ == "__main__":
    main()
