"""How the house is built: floors, one clock, small files. A fault in it is found here, not in a review."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

HOME = Path(__file__).parent.parent
PACKAGE = HOME / "chatwoot_relay"
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
TREES = {name: ast.parse((PACKAGE / f"{name}.py").read_text()) for name in MODULES}

MOST_LINES = 8250  # of the package: small is a feature
LONGEST_FILE = 650  # the outbox's SQL; most have a third of it

READS_TIME = {
    "clock",
    "telemetry",  # the time of a log line
    "faketelegram",  # it is Telegram, and has its own
}
CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
    "asyncio": {"sleep"},
    "loop": {"time"},
}


def imported(name: str) -> set[str]:
    """Top-level names that a module imports, wherever in it; those of its own house as ``.name``."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            own = "." if node.level else ""
            found |= (
                {own + (node.module or "").partition(".")[0]} if node.module else {own + a.name for a in node.names}
            )
    return found


def floors() -> list[list[str]]:
    """The floors of ``setup.cfg``, the highest first."""
    read = configparser.ConfigParser()
    read.read(HOME / "setup.cfg")
    lines = read["importlinter:contract:floors"]["layers"].split("\n")
    return [[name.strip() for name in line.split("|")] for line in lines if line.strip()]


def test_a_module_imports_only_from_lower_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a module rests on can be read without it; a circle would make one lump of many files."""
    monkeypatch.chdir(HOME)
    assert lint_imports(config_filename="setup.cfg", no_cache=True) == 0


def test_every_module_stands_on_one_floor_and_as_low_as_it_can() -> None:
    """A floor more than needed would allow what the rule is to forbid."""
    stands = {name: number for number, floor in enumerate(reversed(floors())) for name in floor}
    assert sorted(stands) == sorted(set(MODULES) - {"__init__"})
    below = {name: [stands[it[1:]] for it in imported(name) if it[1:] in stands and it[0] == "."] for name in stands}
    assert stands == {name: 1 + max(found, default=-1) for name, found in below.items()}


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_every_module_imports_alone(name: str) -> None:
    """In a fresh interpreter, without a warning: no order of imports is needed, and none does anything."""
    code = f"import chatwoot_relay.{name}" if name != "__init__" else "import chatwoot_relay"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=HOME, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def clock_reads(name: str) -> Iterator[str]:
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            if node.attr in CLOCKS.get(owner, ()):
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in CLOCKS:
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name in CLOCKS[node.module])


def test_one_module_reads_the_clock() -> None:
    """All others are given the time or a Clock: a test may bring its own, and no test waits."""
    assert {name: found for name in MODULES if (found := list(clock_reads(name)))}.keys() == READS_TIME


@pytest.mark.parametrize(
    ("library", "users"),
    [
        (
            "sqlite3",
            {"schema", "outbox", "rescue", "writer", "doctor", "control", "cli"},
        ),  # never handlers, sender or server
        ("cattrs", {"door", "schema"}),
        ("prometheus_client", {"metrics"}),
        ("click", {"cli", "doctor"}),
        ("dotenv", {"settings"}),
        ("random", {"models", "sender"}),
    ],
)
def test_a_library_is_known_to_few(library: str, users: set[str]) -> None:
    """What is known in one place can be replaced there."""
    assert {name for name in MODULES if library in imported(name)} == users


PURE = [
    "models",
    "errors",
    "events",
    "markup",
    "render",
    "notices",
    "routing",
    "pacing",
    "signature",
    "chatwoot",
]


@pytest.mark.parametrize("name", PURE)
def test_a_rule_does_no_input_or_output(name: str) -> None:
    """Rules are read and tested alone: no socket, no file, no loop, no log."""
    assert not imported(name) & {"aiohttp", "asyncio", "os", "socket", "sqlite3", "structlog", "subprocess", "pathlib"}


def test_the_nouns_rest_on_nothing_of_ours() -> None:
    """Everything may import them."""
    for name in ("models", "errors", "events"):
        assert not {found for found in imported(name) if found.startswith(".")}


def test_no_circle_is_hidden_and_nothing_is_printed() -> None:
    """Needing TYPE_CHECKING means that a floor is wrong; a service speaks by its log, a command by click."""
    for name in MODULES:
        names = {node.id for node in ast.walk(TREES[name]) if isinstance(node, ast.Name)}
        assert "TYPE_CHECKING" not in names, name
        assert name == "demo" or "print" not in names, name


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_it_is_for(name: str) -> None:
    """One sentence at least: whoever opens a file learns from its first line whether it is the right one."""
    said = ast.get_docstring(TREES[name]) or ""
    assert said.splitlines()[0].endswith("."), name


def test_the_house_stays_small() -> None:
    """A file splits before it is long, and the whole can be read in a day."""
    lines = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in MODULES}
    assert {name: count for name, count in lines.items() if count > LONGEST_FILE} == {}
    assert sum(lines.values()) < MOST_LINES
