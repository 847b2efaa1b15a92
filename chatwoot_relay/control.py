"""The Unix socket beside the database: whoever can open it may read the outbox and redrive. Sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from .errors import RelayError
from .writer import Outbox

Verb = Callable[[Outbox, dict[str, Any]], Awaitable[Any]]
PATIENCE = 30.0  # seconds without a byte, after which the service is taken for hung
COPYING = 600.0  # the same while it makes a backup


async def _list(outbox: Outbox, args: dict[str, Any]) -> Any:
    return await outbox.do(lambda store: store.newest(state=args.get("state"), limit=int(args.get("limit", 50))))


async def _show(outbox: Outbox, args: dict[str, Any]) -> Any:
    return await outbox.do(lambda store: store.show(str(args["id"])))


async def _redrive(outbox: Outbox, args: dict[str, Any]) -> Any:
    """By steps, so that nobody waits for a thousand of them."""
    ids, redriven = args.get("ids"), list[str]()
    while step := await outbox.do(lambda store: store.redrive(ids, now=outbox.now())):
        redriven += step
    return redriven


async def _tally(outbox: Outbox, _: dict[str, Any]) -> Any:
    return await outbox.do(lambda store: store.counts())


async def _backup(outbox: Outbox, args: dict[str, Any]) -> Any:
    """A consistent copy at args["path"]. It only reads: a second writer may harm an older SQLite's WAL.

    The outbox's own connection could not: it is always in a transaction, which a copy would wait for without end.
    """

    def copy() -> int:
        target = Path(args["path"])
        os.close(create(target))
        with (
            contextlib.closing(sqlite3.connect(f"{outbox.path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(target)) as db,
        ):
            source.backup(db)
        return target.stat().st_size

    return await asyncio.to_thread(copy)


VERBS: dict[str, Verb] = {"list": _list, "show": _show, "redrive": _redrive, "tally": _tally, "backup": _backup}


def create(path: Path) -> int:
    """A descriptor of the file, empty now and for its owner alone, whatever it was before."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def socket_path(database: Path) -> Path:
    return database.with_name(database.name + ".sock")


@contextlib.contextmanager
def _reachable(path: Path) -> Any:
    """The socket's address; by way of a descriptor where its path is longer than an address may be."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


@contextlib.asynccontextmanager
async def serve_control(outbox: Outbox, status: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer `outbox` commands while it lasts. *status* tells `doctor` how things stand."""

    async def perform(request: web.Request) -> web.StreamResponse:
        verb = request.match_info["verb"]
        if verb == "status":
            return web.json_response(status())
        if verb not in VERBS:
            return web.json_response({"error": "unknown verb"}, status=404)
        args = await request.json()
        if verb != "backup":
            return web.json_response(await VERBS[verb](outbox, args))
        # The caller writes the file, for we may not be allowed to write where it wants it.
        copy = outbox.path.with_name(outbox.path.name + ".backup")
        async with copying:
            try:
                await _backup(outbox, {"path": copy})
                response = web.StreamResponse()
                await response.prepare(request)
                with copy.open("rb") as file:
                    while chunk := file.read(256 * 1024):
                        await response.write(chunk)
                return response
            finally:
                copy.unlink(missing_ok=True)

    copying = asyncio.Lock()  # one copy at a time
    app = web.Application()
    app.router.add_post("/{verb}", perform)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    path = socket_path(outbox.path)
    path.unlink(missing_ok=True)  # we hold the lock: whoever left it is gone
    try:
        with _reachable(path) as address:
            mask = os.umask(0o177)
            try:
                await web.UnixSite(runner, address).start()
            finally:
                os.umask(mask)
        yield
    finally:
        await runner.cleanup()
        path.unlink(missing_ok=True)


async def ask(database: Path, verb: str, *, patience: float | None = None, **args: Any) -> Any:
    """Have the running service do it. Raises OSError where none runs, RelayError where it does not do it."""
    limit = aiohttp.ClientTimeout(total=None, sock_read=patience or (COPYING if verb == "backup" else PATIENCE))
    try:
        with _reachable(socket_path(database)) as address:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(address), timeout=limit) as session,
                session.post(f"http://relay/{verb}", json=args) as response,
            ):
                if response.status != 200:
                    raise RelayError(f"the running service could not do it (HTTP {response.status}); its log says why")
                body = await response.read()
    except aiohttp.ClientConnectorError:
        raise  # nobody is there
    except (aiohttp.ClientError, TimeoutError):
        raise RelayError("the running service does not answer; its log may say why") from None
    return body if verb == "backup" else json.loads(body)
