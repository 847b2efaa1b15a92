"""The fault matrix on a real process: killed, stopped, deployed, starved of disk and descriptors, told lies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import attrs
import pytest
from aiohttp import web
from faults import FaultyTelegram, Script, refusal
from relay_process import ALERTS, CHAT, HEALTH, HOME, PATIENCE, TEST, WEBHOOK, Answer, House, RelayProcess, alert

from chatwoot_relay.errors import OutboxUnavailable
from chatwoot_relay.handlers import RELAY
from chatwoot_relay.outbox import Store
from chatwoot_relay.schema import open_database
from chatwoot_relay.server import VITAL, build
from chatwoot_relay.settings import load

MARK = re.compile(r"\bmark(\d+)e\b")
REPEAT = "🔁 May be a repeat"
HTML = Script(status=502, body=b"<html><h1>502 Bad Gateway</h1></html>")
MAX_IN_FLIGHT = 16


@pytest.fixture
def telegram(home: House) -> FaultyTelegram:
    assert isinstance(home.telegram, FaultyTelegram)
    return home.telegram


def copies(telegram: FaultyTelegram) -> Counter[int]:
    """How often each mark was told."""
    return Counter(int(found[1]) for text in telegram.told if (found := MARK.search(text)))


@attrs.define(kw_only=True, eq=False)
class Load:
    """Clients that post one marked alert after the other, each over a connection of its own."""

    relay: RelayProcess
    accepted: set[int] = attrs.field(factory=set)
    refused: list[str] = attrs.field(factory=list)
    conversations: int = 10_000  # marks share them where there are fewer
    _next: int = 0
    _tasks: list[asyncio.Task[None]] = attrs.field(factory=list)
    _changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while True:
            mark, self._next = self._next, self._next + 1
            body = alert(message=f"mark{mark}e", conversation_id=mark % self.conversations + 1)
            try:
                async with session.post(self.relay.base + ALERTS, json=body) as answer:
                    if answer.status in (200, 202):
                        self.accepted.add(mark)
                    else:
                        self.refused.append(f"{answer.status} {await answer.text()}")
            except aiohttp.ClientError as error:
                self.refused.append(repr(error))
                await asyncio.sleep(0.01)  # nobody listens at the moment
            self._changed.set()

    @contextlib.asynccontextmanager
    async def going(self, clients: int = 4) -> AsyncIterator[None]:
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            tasks = [asyncio.create_task(self._client(session)) for _ in range(clients)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                for result in await asyncio.gather(*tasks, return_exceptions=True):
                    assert isinstance(result, asyncio.CancelledError), result

    async def until_accepted(self, more: int) -> None:
        """Until so many more are accepted."""
        wanted = len(self.accepted) + more
        async with asyncio.timeout(PATIENCE):
            while len(self.accepted) < wanted:
                self._changed.clear()
                await self._changed.wait()


async def until_told(telegram: FaultyTelegram, marks: set[int]) -> None:
    await telegram.until(lambda: marks <= copies(telegram).keys(), seconds=PATIENCE)


# --- ends and beginnings ---


async def test_kill_at_any_instant_loses_nothing(home: House, telegram: FaultyTelegram) -> None:
    """What was answered 2xx is told; twice only what was in flight at a kill, and marked; the file stays whole."""
    relay = await home.relay()
    load = Load(relay=relay)
    kills = 4
    async with load.going():
        for number in range(kills):
            await load.until_accepted(20 + 7 * number)
            await relay.kill()
            await relay.start()
        await load.until_accepted(10)
    await until_told(telegram, load.accepted)
    told = copies(telegram)
    assert sum(told.values()) - len(told) <= MAX_IN_FLIGHT * kills
    for mark in [mark for mark, count in told.items() if count > 1]:
        texts = [text for text in telegram.told if f"mark{mark}e" in text]
        assert all(REPEAT in text for text in texts[1:])
    assert await relay.stop() == 0
    with contextlib.closing(sqlite3.connect(relay.folder / "outbox.db")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_sigterm_under_load_loses_nothing_and_repeats_nothing(home: House, telegram: FaultyTelegram) -> None:
    """Exit 0 within ten seconds; what it said yes to is told by it or by the next one, once."""
    relay = await home.relay()
    load = Load(relay=relay)
    async with load.going():
        for _ in range(2):
            await load.until_accepted(40)
            async with asyncio.timeout(10):
                assert await relay.stop() == 0
            await relay.start()
    await until_told(telegram, load.accepted)
    assert set(copies(telegram).values()) == {1}
    assert not any(REPEAT in text for text in telegram.told)


async def test_who_comes_while_a_stop_waits_for_a_send_is_answered_at_once(
    home: House, telegram: FaultyTelegram
) -> None:
    """Chatwoot gives up after five seconds, and a send in flight has eight."""
    relay, hangs = await home.relay(RELAY_REPLY_TIMEOUT="0.1"), asyncio.Event()
    telegram.script(Script(until=hangs))
    assert (await relay.alert(message="mark0e")).status == 202
    await telegram.until(lambda: len(telegram.calls) > 0)
    ending = asyncio.create_task(relay.stop())
    await relay.logged("relay.stopping")
    answered = await relay.alert(message="mark1e")
    assert (answered.status, ending.done()) == (202, False)
    hangs.set()
    assert await ending == 0
    await relay.start()
    await until_told(telegram, {0, 1})


@attrs.define(kw_only=True, eq=False)
class Activated(RelayProcess):
    """A relay that gets its socket handed over as systemd does it."""

    listener: socket.socket

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        handed = self.listener.fileno()
        script = f'exec 3<&{handed}; exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@"'
        return await asyncio.create_subprocess_exec(
            "bash", "-c", script, "bash", sys.executable, "-m", "chatwoot_relay", "serve",
            cwd=self.folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME), **self.settings},
            pass_fds=(handed,), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT, limit=2**20,
        )  # fmt: skip


async def test_a_deploy_with_a_handed_over_socket_refuses_nobody(home: House, telegram: FaultyTelegram) -> None:
    """Who comes between the old process and the new waits in the socket; who is inside is answered."""
    model = await home.relay(start=False)
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        relay = Activated(folder=model.folder, settings=model.settings, listener=listener)
        try:
            await relay.start()
            load = Load(relay=relay)
            async with load.going():
                for _ in range(3):
                    await load.until_accepted(30)
                    assert await relay.stop() == 0
                    await relay.start()
                await load.until_accepted(30)
            await until_told(telegram, load.accepted)
            assert load.refused == []
            assert set(copies(telegram).values()) == {1}
        finally:
            await relay.close()


async def test_a_part_that_dies_ends_the_whole(home: House, telegram: FaultyTelegram, tmp_path: Path) -> None:
    """A relay whose outbox or sender is gone must not look alive; and nobody waits for what will not come."""
    model = await home.relay(start=False)
    settings = load({**model.settings, "RELAY_DATABASE": str(tmp_path / "outbox.db")}, directory=tmp_path)
    app = build(settings)
    runner = web.AppRunner(app)
    await runner.setup()
    outbox = app[RELAY].outbox
    with pytest.raises(OutboxUnavailable):
        await outbox.do(lambda store: sys.exit("a bug"))
    ended, _ = await asyncio.wait(app[VITAL], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    assert SystemExit in [type(part.exception()) for part in ended]
    async with asyncio.timeout(PATIENCE):
        await runner.cleanup()


# --- Telegram ---


async def test_an_outage_is_told_afterwards_in_order(home: House, telegram: FaultyTelegram) -> None:
    """nginx's HTML for every call; each alert is answered 202, and a few calls a second at most ask meanwhile."""
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.2")
    telegram.down = HTML
    for mark in range(12):
        answer = await relay.alert(message=f"mark{mark}e", conversation_id=mark % 3 + 1)
        assert answer.status == 202
    await relay.logged("bot.held")
    assert (await relay.get(HEALTH)).json["status"] == "degraded"
    seen = len(telegram.calls)
    await telegram.until(lambda: len(telegram.calls) >= seen + 2)
    assert telegram.calls[-1].at - telegram.calls[-2].at > 0.4
    assert {call.method for call in list(telegram.calls)[seen:]} == {"getMe"}
    telegram.forget()
    await until_told(telegram, set(range(12)))
    told = [int(found[1]) for text in telegram.told if (found := MARK.search(text))]
    assert [[mark for mark in told if mark % 3 == lane] for lane in range(3)] == [
        list(range(lane, 12, 3)) for lane in range(3)
    ]
    assert not any(REPEAT in text for text in telegram.told)


async def test_a_wait_that_telegram_asks_for_is_obeyed(home: House, telegram: FaultyTelegram) -> None:
    """Nothing inside it, over a restart too; whoever posts meanwhile is answered at once."""
    relay = await home.relay()
    telegram.script(refusal(429, "Too Many Requests: retry after 3", retry_after=3))
    assert (await relay.alert(message="mark1e")).status == 202
    assert (await relay.alert(message="mark2e")).status == 202
    await relay.restart()
    assert "holds the chat" in (await relay.get(HEALTH)).json["detail"]
    await until_told(telegram, {1, 2})
    first, second, *_ = (call.at for call in telegram.calls if call.method == "sendMessage")
    assert second - first >= 3


BROKEN = [
    # what happens, whether Telegram took it all the same, the answer, how often it is told in the end
    (Script(fault="reset unread"), 202, 1),
    (Script(fault="close unread"), 202, 1),
    (Script(fault="reset", deliver=True), 202, 2),
    (Script(fault="close", deliver=True), 202, 2),
    (Script(fault="close"), 202, 1),
    (Script(fault="half", deliver=True), 200, 1),
    (Script(body=b"<html>OK</html>", deliver=True), 200, 1),
    (Script(body=b"[1]", deliver=True), 200, 1),
    (refusal(500, "Internal Server Error"), 202, 1),
    (Script(status=504, body=b""), 202, 1),
]


@pytest.mark.parametrize(("script", "status", "times"), BROKEN, ids=lambda value: getattr(value, "fault", None) or None)
async def test_a_broken_answer_costs_at_most_one_marked_copy(
    home: House, telegram: FaultyTelegram, script: Script, status: int, times: int
) -> None:
    """And none where Telegram cannot have it, or said by its status that it has."""
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.1")
    telegram.script(script)
    answer = await relay.alert(message="mark1e")
    assert answer.status == status
    assert answer.json["telegram_message_id"] is None
    await telegram.until(lambda: copies(telegram)[1] == times, seconds=PATIENCE)
    assert (await relay.alert(message="mark2e")).status in (200, 202)
    await until_told(telegram, {2})
    assert copies(telegram)[1] == times
    assert [REPEAT in text for text in telegram.told if "mark1e" in text][1:] == [True] * (times - 1)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ({"TELEGRAM_BOT_TOKEN": "123456:revoked"}, {"TELEGRAM_BOT_TOKEN": "123456:built-in"}),
        ({"TELEGRAM_CHAT_ID": "-42"}, {"TELEGRAM_CHAT_ID": CHAT}),
        ({"TELEGRAM_API_URL": "http://127.0.0.1:9"}, {}),
    ],
    ids=["token", "chat", "address"],
)
async def test_a_wrong_setting_costs_nothing(
    home: House, telegram: FaultyTelegram, wrong: dict[str, str], right: dict[str, str]
) -> None:
    """The queue is kept, the fault is named, and the right setting tells it all after a restart."""
    telegram.chats = {CHAT}
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.1", **wrong)
    for mark in range(3):
        assert (await relay.alert(message=f"mark{mark}e")).status == 202
    health = (await relay.get(HEALTH)).json
    assert health["status"] == "degraded"
    assert not any(secret in str(health) for secret in ("revoked", "built-in"))
    await relay.restart(**{"TELEGRAM_API_URL": home.url, **right})
    await until_told(telegram, {0, 1, 2})
    assert set(copies(telegram).values()) == {1}


async def test_a_group_that_moved_is_found_after_a_restart(home: House, telegram: FaultyTelegram) -> None:
    """Remembered for good: the old id is not asked again."""
    telegram.moved = {CHAT: -100777}
    relay = await home.relay()
    assert (await relay.alert(message="mark1e")).status == 200
    await relay.restart()
    assert (await relay.alert(message="mark2e")).status == 200
    assert [message.chat_id for message in telegram.messages] == ["-100777"] * 2
    assert [str(call.payload["chat_id"]) for call in telegram.calls] == [CHAT, "-100777", "-100777"]


# --- the machine ---


@attrs.frozen
class Limited:
    """A relay whose process may write no file: what a full quota or a broken disk does to it."""

    folder: Path
    full: Callable[[RelayProcess], None]
    free: Callable[[RelayProcess], None]


def _limit(size: int) -> Callable[[RelayProcess], None]:
    def limit(relay: RelayProcess) -> None:
        assert relay.process is not None
        resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    return limit


def _tmpfs(folder: Path) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0


@pytest.fixture(params=["limit", "tmpfs"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limited]:
    """A disk that can be filled: a small one where we may mount it, else (and also) a limit on the process."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit" or not _tmpfs(folder):
        yield Limited(folder, _limit(0), _limit(resource.RLIM_INFINITY))
        return

    yield Limited(folder, lambda relay: _fill(folder), lambda relay: (folder / "ballast").unlink())
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("trouble", "todo"), [("full", "make room on its disk (`df -h "), ("ro", "have its disk mounted for writing")]
)
@pytest.mark.parametrize("new", [True, False])
async def test_a_start_on_a_disk_that_takes_nothing_says_what_to_do(
    home: House, tmp_path: Path, trouble: str, todo: str, new: bool
) -> None:
    """The journal's last line is what the operator reads; systemd tries again, for room may be made meanwhile."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _tmpfs(folder):
        pytest.skip("needs the right to mount a disk")
    try:
        relay = await home.relay(start=not new, RELAY_DATABASE=str(folder / "outbox.db"))
        if not new:
            await relay.stop()
        if trouble == "full":
            _fill(folder)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        code, told = await relay.run("serve")
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    last = told.splitlines()[-1]
    assert (code, "the outbox cannot be opened at" in last, todo in last) == (1, True, True), told
    assert "Traceback" not in told


def _fill(folder: Path) -> None:
    with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(b"x" * 4096)


async def test_a_full_disk_is_refused_clearly_and_recovered_from(
    home: House, telegram: FaultyTelegram, disk: Limited
) -> None:
    """Every request gets the contract's refusal while it lasts; nothing acknowledged is lost, nothing told twice."""
    relay = await home.relay(RELAY_DATABASE=str(disk.folder / "outbox.db"))
    assert (await relay.alert(message="mark1e")).status == 200
    flying = asyncio.Event()
    telegram.script(Script(until=flying))
    slow = asyncio.create_task(relay.alert(message="mark2e"))
    await telegram.until(lambda: len(telegram.calls) == 2)
    disk.full(relay)
    refused = await relay.alert(message="mark3e")
    assert (refused.status, refused.headers["Content-Type"]) == (503, "application/problem+json")
    assert int(refused.headers["Retry-After"]) > 0
    event = await relay.post(WEBHOOK, {"event": "anything", "message": {"content": "mark4e"}})
    assert (event.status, event.headers["Retry-After"]) == (429, "3")
    assert ((await relay.get(HEALTH)).status, (await relay.get(HEALTH)).json["status"]) == (503, "failing")
    flying.set()
    assert (await slow).status == 200
    disk.free(relay)
    async with asyncio.timeout(PATIENCE):
        while (await relay.get(HEALTH)).status != 200:
            await asyncio.sleep(0.05)
    assert (await relay.alert(message="mark5e")).status == 200
    assert await relay.stop() == 0
    assert copies(telegram) == {1: 1, 2: 1, 5: 1}


async def test_a_corrupt_database_is_set_aside_and_what_it_held_is_rescued(
    home: House, telegram: FaultyTelegram
) -> None:
    """Never a crash loop: a dead relay loses everything. The team hears of it in the chat."""
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.1")
    telegram.down = HTML
    for mark in range(5):
        assert (await relay.alert(message=f"mark{mark}e")).status == 202
    await relay.stop()
    database = relay.folder / "outbox.db"
    damaged = bytearray(database.read_bytes())
    with contextlib.closing(sqlite3.connect(database)) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'seen_at'").fetchone()
    damaged[(root - 1) * 4096 : root * 4096] = b"\xa5" * 4096
    database.write_bytes(damaged)
    telegram.forget()
    await relay.start()
    await until_told(telegram, set(range(5)))
    await telegram.until(lambda: any("database was damaged" in text for text in telegram.told))
    assert (await relay.get(HEALTH)).json["status"] == "degraded"
    assert len(list(relay.folder.glob("outbox.db.corrupt-*"))) >= 1
    await relay.restart()
    assert (await relay.alert(message="mark9e")).status in (200, 202)


async def test_rubble_for_a_database_does_not_keep_it_from_starting(home: House) -> None:
    """Nothing can be rescued of it; the next alert can."""
    relay = await home.relay(start=False)
    (relay.folder / "outbox.db").write_bytes(os.urandom(20_000))
    await relay.start()
    assert (await relay.alert()).status == 200


async def test_a_second_process_refuses_and_says_who_holds_it(home: House) -> None:
    """Two senders on one outbox would tell everything twice."""
    relay = await home.relay()
    assert relay.process is not None
    code, said = await relay.run("serve")
    assert code == 75
    assert str(relay.process.pid) in said
    assert (await relay.alert()).status == 200


async def test_out_of_descriptors_is_survived(home: House, telegram: FaultyTelegram) -> None:
    """Who is connected already is served; the rest wait until somebody goes."""
    relay = await home.relay(RELAY_REPLY_TIMEOUT="0.1")
    assert (await relay.alert(message="mark1e")).status == 200
    assert relay.process is not None
    pid = relay.process.pid
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 3, used + 3))
    crowd = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(20)]
    assert (await relay.alert(message="mark2e")).status in (200, 202)
    for _, writer in crowd:
        writer.close()
    assert (await relay.post(ALERTS, alert(message="mark3e"), headers={"Connection": "close"})).status in (200, 202)
    assert (await relay.get(HEALTH, headers={"Connection": "close"})).status == 200
    await until_told(telegram, {1, 2, 3})


@attrs.define(kw_only=True, eq=False)
class Starved(RelayProcess):
    """A relay with few descriptors."""

    async def spawn(self, *arguments: str, **settings: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            "bash", "-c", 'ulimit -n 128; exec "$@"', "bash", sys.executable, "-m", "chatwoot_relay", "serve",
            cwd=self.folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME), **self.settings},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
        )  # fmt: skip


async def test_a_crowd_leaves_descriptors_for_who_has_something_to_say(home: House) -> None:
    """However few there are, the newest is served at once, and the log is not flooded."""
    model = await home.relay(start=False)
    relay = Starved(folder=model.folder, settings=model.settings)
    try:
        await relay.start()
        crowd = [await asyncio.open_connection("127.0.0.1", relay.port) for _ in range(300)]
        assert (await relay.alert()).status == 200
        for _, writer in crowd:
            writer.close()
        assert [line for line in relay.lines if line["event"] == "library.logged"] == []
    finally:
        await relay.close()


# --- the order on the wire ---


@attrs.define(kw_only=True, eq=False)
class Traced(RelayProcess):
    """A relay whose system calls are written down."""

    async def spawn(self, *arguments: str) -> asyncio.subprocess.Process:
        strace = shutil.which("strace")
        assert strace is not None, "apt install strace"
        return await asyncio.create_subprocess_exec(
            strace, "-D", "-f", "-qq", "-s", "20", "-o", str(self.folder / "trace"),
            "-e", "trace=fsync,fdatasync,sendto,write,writev,sendmsg",
            sys.executable, "-m", "chatwoot_relay", "serve",
            cwd=self.folder, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME), **self.settings},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
        )  # fmt: skip


@pytest.mark.strace
async def test_no_answer_is_written_before_its_commit_is_on_the_disk(home: House, telegram: FaultyTelegram) -> None:
    """kill -9 does not test this: without the sync every kill loop passes, and a power cut loses what was promised."""
    telegram.script(refusal(429, "Too Many Requests: retry after 600", retry_after=600))
    model = await home.relay(start=False)
    relay = Traced(folder=model.folder, settings=model.settings)
    try:
        await relay.start()
        answers: list[Answer] = [await relay.alert() for _ in range(20)]
        assert {answer.status for answer in answers} == {202}
        await relay.kill()
    finally:
        await relay.close()
    synced, order = 0, []
    for line in (model.folder / "trace").read_text().splitlines():
        if re.search(r"(fdatasync|fsync)(\(.*| resumed>.*)\)\s+= 0", line):
            synced += 1
        elif "HTTP/1.1 202" in line:
            order.append(synced)
            synced = 0
    assert len(order) == 20
    assert min(order) >= 1


@pytest.mark.strace
async def test_a_first_start_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    """Killed with its tables written and not yet committed: SQLite takes them back, so they are made at the next."""
    strace, path = shutil.which("strace"), tmp_path / "outbox.db"
    assert strace is not None, "apt install strace"
    script = "import sys, pathlib; from chatwoot_relay import schema; schema.open_database(pathlib.Path(sys.argv[1]))"
    killed = await asyncio.create_subprocess_exec(
        strace, "-f", "-qq", "-o", str(tmp_path / "trace"), "-P", f"{path}-journal", "-e", "trace=unlink,unlinkat",
        "-e", "inject=unlink,unlinkat:error=EIO:signal=KILL:when=2", sys.executable, "-c", script, str(path),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(HOME)},
    )  # fmt: skip
    assert await killed.wait() == -signal.SIGKILL
    assert Path(f"{path}-journal").stat().st_size > 0
    with contextlib.closing(open_database(path)) as db:
        assert Store(db).tally().accepted == 0


async def test_a_test_says_whether_telegram_spoke(home: House) -> None:
    """502 with Telegram's words and what to do; 504 where it said nothing, and no address of ours in it."""
    relay = await home.relay()
    home.telegram.script(refusal(500, "Internal Server Error"))
    spoke = await relay.post(TEST)
    assert (spoke.status, "Internal Server Error" in spoke.json["detail"]) == (502, True)
    lonely = await home.relay(TELEGRAM_API_URL="http://127.0.0.1:9")
    silent = await lonely.post(TEST)
    assert silent.status == 504
    assert "127.0.0.1" not in silent.json["detail"]


async def test_one_alert_in_an_outage_makes_health_degraded(home: House) -> None:
    """No streak is needed to see that Telegram is not taking it."""
    relay = await home.relay(TELEGRAM_API_URL="http://127.0.0.1:9", RELAY_REPLY_TIMEOUT="1")
    assert (await relay.alert()).status == 202
    health = await relay.get(HEALTH)
    assert (health.status, health.json["status"]) == (200, "degraded")
