"""Put payloads together that come in several messages, without letting anyone fill the memory.

A participant's pieces come in order, one payload at a time; a first piece (index 0) begins anew. The first one must
hold the signatures that prove the task, so that nothing is kept of somebody who has none. What all unfinished
payloads together may hold is limited, and they are forgotten when the phase ends. The original keeps pieces of
anybody, in any order, for ever.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.crypto.sodium import SIGNATURE_BYTES
from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.wire import Chunk, Tag

SIGNATURES_BYTES = {Tag.SUM: SIGNATURE_BYTES, Tag.UPDATE: 2 * SIGNATURE_BYTES, Tag.SUM2: SIGNATURE_BYTES}
"""How much of a payload proves the task."""


@dataclass
class _Unfinished:
    """Hold what has come of one payload. pieces: how many."""

    message_id: int
    pieces: int = 0
    data: bytearray = field(default_factory=bytearray, repr=False)


class Chunks:
    """Keep unfinished payloads, at most one a participant and `limit_bytes` of all."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._unfinished: dict[str, _Unfinished] = {}

    @property
    def held_bytes(self) -> int:
        """Return the bytes of all unfinished payloads."""
        return self._held_bytes

    def take(self, peer: str, tag: Tag, chunk: Chunk, expected_bytes: int) -> memoryview | None:
        """Add a piece, and return the payload once it is whole.

        expected_bytes: length of the whole payload. The caller has checked that a first piece is from somebody with
        this task (`SIGNATURES_BYTES` of it are enough to tell).
        Raises PeerProtocolError if the piece is not the next one, too short to prove a task, beyond the expected
        length, the last one before it, or beyond what is kept of all.
        """
        known = self._unfinished.get(peer)
        if chunk.index == 0:
            if len(chunk.data) < SIGNATURES_BYTES[tag]:
                raise PeerProtocolError(peer, "the first piece of its message does not hold the proof of its task")
            begun = _Unfinished(chunk.message_id)
        elif known is None or (known.message_id, known.pieces) != (chunk.message_id, chunk.index):
            raise PeerProtocolError(peer, f"piece {chunk.index} of its message is not the next one")
        else:
            begun = known
        whole = len(begun.data) + len(chunk.data)
        if whole > expected_bytes or chunk.last != (whole == expected_bytes):
            raise PeerProtocolError(peer, f"the pieces of its message don't add up to {expected_bytes} bytes")
        given_up = len(known.data) if known is not None and begun is not known else 0
        if self._held_bytes - given_up + len(chunk.data) > self._limit_bytes:
            raise PeerProtocolError(peer, "too many unfinished messages wait at once: send it again later")
        self._held_bytes += len(chunk.data) - given_up
        begun.data += chunk.data
        begun.pieces += 1
        self._unfinished[peer] = begun
        if not chunk.last:
            return None
        self.forget(peer)
        return memoryview(begun.data)

    def forget(self, peer: str) -> None:
        """Drop what has come of a participant's payload."""
        begun = self._unfinished.pop(peer, None)
        self._held_bytes -= len(begun.data) if begun is not None else 0

    def clear(self) -> None:
        """Drop everything: the phase is over."""
        self._unfinished.clear()
        self._held_bytes = 0
