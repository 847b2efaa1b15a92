"""A Telegram for load: answers ``sendMessage`` as fast as a socket can, and counts what it was told.

``python -m bench.telegram PORT`` serves until it is ended. A chat whose id is ``HELD`` is held for a day.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import sys
from collections import Counter
from typing import ClassVar

HELD = b"666"
MARKER = re.compile(rb"mark-[0-9]+")
numbers = itertools.count(1)


class Bot(asyncio.Protocol):
    """One connection. Knows as much HTTP as aiohttp and httpx speak."""

    told: ClassVar[Counter[bytes]] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            found = re.search(rb"content-length: *([0-9]+)", self.buffer[:end], re.IGNORECASE)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self.buffer) < whole:
                return
            body, self.buffer = self.buffer[end + 4 : whole], self.buffer[whole:]
            self.transport.write(self.answer(body))

    def answer(self, body: bytes) -> bytes:
        status, result = b"200 OK", b'{"ok":true,"result":{"message_id":%d}}' % next(numbers)
        if re.search(rb'"chat_id": ?"?%s\b' % HELD, body):
            status = b"429 Too Many Requests"
            result = (
                b'{"ok":false,"error_code":429,"description":"Too Many Requests","parameters":{"retry_after":86400}}'
            )
        else:
            self.told.update(set(MARKER.findall(body)))
        head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % (status, len(result)) + result


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Bot, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
