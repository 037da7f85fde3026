"""What the caller of a stream has been sent, kept so that another engine can go on with it.

The pieces are kept as they went out, the very same objects, and every few kilobytes only their text is. Only calls that may be gone
on with have one of these, and all together keep no more than `KEPT_BYTES`, requests included: what does not fit is not gone on with.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock.wire.written import Written

KEPT_BYTES = 67_108_864
FOLD_BYTES = 8_192
"""Pieces are kept whole up to this."""
TEXT_BYTES = 1_048_576
"""Longest text of one call."""


class Room:
    """The memory of all of them."""

    __slots__ = ("left",)

    def __init__(self, size: int = KEPT_BYTES) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        if size > self.left:
            return False
        self.left -= size
        return True


class Emitted:
    """Stands before the caller: `send` passes on, and keeps."""

    __slots__ = ("_pieces", "_room", "_send", "_size", "_taken", "_written")

    def __init__(self, send: Callable[[bytes], None], room: Room, taken: int) -> None:
        """`taken` bytes of the room are given back in the end."""
        self._send, self._room, self._taken = send, room, taken
        self._pieces: list[bytes] = []
        self._size = 0
        self._written: Written | None = Written()

    def send(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size > FOLD_BYTES:
            self._fold()
        self._send(data)

    def written(self) -> Written | None:
        """All of it; None when it was too much to keep."""
        self._fold()
        return self._written

    def close(self) -> None:
        self._room.left += self._taken
        self._taken, self._pieces, self._written = 0, [], None

    def _fold(self) -> None:
        written = self._written
        if written is not None:
            before = written.size
            written.add(b"".join(self._pieces))
            grown = written.size - before
            if written.size > TEXT_BYTES or not written.exact or not self._room.take(grown):
                self.close()
            else:
                self._taken += grown
        self._pieces, self._size = [], 0
