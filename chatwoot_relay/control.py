"""The outbox for commands: its file opened with advice, and the Unix socket that the service listens on.

Whoever may open the socket may read the outbox and redrive; nothing is sent from here.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from .clock import Clock
from .errors import ConfigurationError, RelayError, Taken
from .outbox import Store
from .writer import Outbox

PATIENCE = 30.0  # seconds without a byte, after which the service is taken for hung
READING: dict[str, Callable[..., Any]] = {"list": Store.newest, "show": Store.show, "tally": Store.counts}
ABSENT = (errno.ENOENT, errno.ENOTDIR)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
SAME = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_IOERR: errno.EIO, sqlite3.SQLITE_READONLY: errno.EROFS}


# --- the file ---


def open_outbox(path: Path, *, clock: Clock | None = None) -> Outbox:
    """The outbox at *path*, open. Raises Taken, ConfigurationError or RelayError, which say what to do."""
    outbox = Outbox(path, clock=clock)
    try:
        if path.exists() and not path.is_file():
            raise ConfigurationError(f"RELAY_DATABASE: {path} is no regular file; name one, or a new file")
        outbox.open()
    except (OSError, sqlite3.Error) as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            raise Taken(f"another program has locked {path}; stop it, or set RELAY_DATABASE") from None
        absent = isinstance(error, OSError) and error.errno in ABSENT
        told = f"the outbox cannot be opened at {path}: {_advice(error, path.parent)}"
        raise (ConfigurationError if absent else RelayError)(told) from None
    return outbox


def _advice(error: OSError | sqlite3.Error, folder: Path) -> str:
    """Why the file cannot be had, and what to do about it."""
    why, code = str(error), SAME.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
    if isinstance(error, OSError):
        why, code = error.strerror or why, error.errno
    todo = f"make {folder} a directory that we may write to"
    if code in FULL:
        todo = f"make room on its disk (`df -h {folder}`)"
    elif code == errno.EROFS:
        todo = f"have its disk mounted for writing (`findmnt -T {folder}`)"
    return f"{why}; {todo}, or set RELAY_DATABASE"


# --- the socket ---


async def perform(database: Path, verb: str, **args: Any) -> Any:
    """Have the running service do it; where none runs, open the file ourselves."""
    with contextlib.suppress(OSError):
        return await ask(database, verb, **args)
    outbox = open_outbox(database)
    try:
        return await _do(outbox, verb, args)
    finally:
        await outbox.close()


async def _do(outbox: Outbox, verb: str, args: dict[str, Any]) -> Any:
    if verb != "redrive":
        return await outbox.do(lambda store: READING[verb](store, **args))
    redriven = list[str]()
    while step := await outbox.do(lambda store: store.redrive(args["ids"], now=outbox.now())):
        redriven += step  # by steps, so that nobody waits for a thousand of them
    return redriven


async def ask(database: Path, verb: str, *, patience: float = PATIENCE, **args: Any) -> Any:
    """Have the running service do it. Raises OSError where none runs, RelayError where it does not do it."""
    limit = aiohttp.ClientTimeout(total=None, sock_read=patience)
    try:
        with _reachable(socket_path(database)) as address:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(address), timeout=limit) as session,
                session.post(f"http://relay/{verb}", json=args) as response,
            ):
                if response.status != 200:
                    raise RelayError(f"the running service could not do it (HTTP {response.status}); its log says why")
                return json.loads(await response.read())
    except aiohttp.ClientConnectorError:
        raise  # nobody is there
    except (aiohttp.ClientError, TimeoutError):
        raise RelayError("the running service does not answer; its log may say why") from None


@contextlib.asynccontextmanager
async def serve_control(outbox: Outbox, status: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Answer commands while it lasts. *status* tells `doctor` how things stand."""

    async def answer(request: web.Request) -> web.Response:
        if (verb := request.match_info["verb"]) == "status":
            return web.json_response(status())
        return web.json_response(await _do(outbox, verb, await request.json()))

    app = web.Application()
    app.router.add_post(f"/{{verb:status|redrive|{'|'.join(READING)}}}", answer)
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
        with contextlib.suppress(OSError):  # a disk may have become read-only
            path.unlink()


def socket_path(database: Path) -> Path:
    return database.with_name(database.name + ".sock")


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """The socket's address; by way of a descriptor where its path is longer than an address may be."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
