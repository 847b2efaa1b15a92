"""What Telegram has and the database does not say yet, kept where a killed process leaves it. Syncs nothing."""

from __future__ import annotations

import errno
import mmap
import os
import struct
import zlib
from pathlib import Path

import attrs

SLOTS = 256
_RECORD = struct.Struct("<qdq40s")
_SLOT = _RECORD.size + 4  # and its checksum


@attrs.frozen
class Told:
    """Telegram has it: the delivery's place in the outbox, when (the outbox's clock), where, and the message's id."""

    seq: int
    now: float
    chat_id: str
    message_id: int | None


class Journal:
    """A small file in shared memory: what is noted there outlives the process, though not a power failure.

    So a request is answered when Telegram has taken its message, and a crash in the moment before the database says
    so makes no second copy.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(descriptor, 0o600)
            size = SLOTS * _SLOT
            # Written back, so that no place is without room on the disk: that would end the process at a note.
            if os.pwrite(descriptor, os.pread(descriptor, size, 0).ljust(size, b"\0"), 0) < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._map = mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
        self._free = list(range(SLOTS))
        self._used: dict[int, int] = {}

    def read(self) -> list[Told]:
        """What the last process noted, whether or not the database had it in time."""
        found = []
        for slot in range(SLOTS):
            raw = self._map[slot * _SLOT : (slot + 1) * _SLOT]
            if any(raw) and raw[_RECORD.size :] == _checksum(raw[: _RECORD.size]):
                seq, now, message_id, chat_id = _RECORD.unpack_from(raw)
                found.append(Told(seq, now, chat_id.rstrip(b"\0").decode(), message_id if message_id >= 0 else None))
        return found

    def clear(self) -> None:
        """The database has it all."""
        self._map[:] = bytes(len(self._map))

    def note(self, told: Told) -> bool:
        """Note it; False where there is no room."""
        chat_id = told.chat_id.encode()
        if not self._free or len(chat_id) > 40:
            return False
        slot = self._used[told.seq] = self._free.pop()
        raw = _RECORD.pack(told.seq, told.now, -1 if told.message_id is None else told.message_id, chat_id)
        self._map[slot * _SLOT : (slot + 1) * _SLOT] = raw + _checksum(raw)
        return True

    def forget(self, seq: int) -> None:
        """The database has it: its slot is another's."""
        if (slot := self._used.pop(seq, None)) is not None:
            self._free.append(slot)

    def close(self) -> None:
        self._map.close()


def _checksum(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "little")
