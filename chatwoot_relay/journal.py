"""What Telegram has and the database does not say yet, kept where a killed process leaves it. Syncs nothing."""

from __future__ import annotations

import contextlib
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
    """A small file: what is noted there outlives the process, in the system's memory, though not a power failure.

    So a request is answered when Telegram has taken its message, and a crash in the moment before the database says
    so makes no second copy.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(self._file, 0o600)
        self._free = list(range(SLOTS))
        self._used: dict[int, int] = {}

    def read(self) -> list[Told]:
        """What the last process noted, whether or not the database had it in time."""
        found, raw = [], os.pread(self._file, SLOTS * _SLOT, 0)
        for begin in range(0, len(raw), _SLOT):
            record, checksum = raw[begin : begin + _RECORD.size], raw[begin + _RECORD.size : begin + _SLOT]
            if any(record) and checksum == _checksum(record):
                seq, now, message_id, chat_id = _RECORD.unpack(record)
                found.append(Told(seq, now, chat_id.rstrip(b"\0").decode(), message_id if message_id >= 0 else None))
        return found

    def clear(self) -> None:
        """The database has it all. The room is taken now, so that notes find it on a full disk too."""
        with contextlib.suppress(OSError):
            os.pwrite(self._file, bytes(SLOTS * _SLOT), 0)

    def note(self, told: Told) -> bool:
        """Note it; False where there is no room."""
        chat_id = told.chat_id.encode()
        if not self._free or len(chat_id) > 40:
            return False
        slot = self._free.pop()
        raw = _RECORD.pack(told.seq, told.now, -1 if told.message_id is None else told.message_id, chat_id)
        try:
            os.pwrite(self._file, raw + _checksum(raw), slot * _SLOT)  # torn, its checksum says so
        except OSError:
            self._free.append(slot)
            return False
        self._used[told.seq] = slot
        return True

    def forget(self, seq: int) -> None:
        """The database has it: its slot is another's."""
        if (slot := self._used.pop(seq, None)) is not None:
            self._free.append(slot)

    def close(self) -> None:
        os.close(self._file)


def _checksum(raw: bytes) -> bytes:
    return zlib.crc32(raw).to_bytes(4, "little")
