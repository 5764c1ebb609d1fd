"""Messages as bytes on a connection, without copying what is large.

    version (1 byte, 0x01) | length of the header (4 bytes) | length of the values (8 bytes) | header | values

Little-endian. The header is MessagePack, as in `core.wire`; `values` of a message stand behind it instead of in it.
There is no digest: TLS authenticates every byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import msgspec

from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.infer.messages import INFER_MESSAGES

VERSION = 1
PREFIX = struct.Struct("<BIQ")

HEADER_LIMIT = 2 << 20
"""Largest header: an architecture of 1,000 layers fits many times."""

VALUES_LIMIT = 8 << 30
"""Largest values: a billion words. Memory is taken as they are announced, by parties that are known by name only."""

SMALL_BYTES = 1 << 14
"""Up to one record of TLS, a message is sent in one piece."""

NOTHING = memoryview(b"")

_ENCODER = msgspec.msgpack.Encoder()
_UNION: Any = INFER_MESSAGES[0]
for _kind in INFER_MESSAGES[1:]:
    _UNION = _UNION | _kind
_DECODER: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(_UNION)


def encode(message: Message) -> list[memoryview]:
    """Return the pieces of a message's frame, in order; the values are not copied unless they are small."""
    values: memoryview = getattr(message, "values", NOTHING)
    header = _ENCODER.encode(msgspec.structs.replace(message, values=NOTHING) if values.nbytes else message)
    start = PREFIX.pack(VERSION, len(header), values.nbytes) + header
    if values.nbytes <= SMALL_BYTES:
        return [memoryview(start + values)]
    return [memoryview(start), values]


class Reader:
    """Cut what arrives from one peer into messages.

    A driver asks for `space`, fills some of it and says how much: large values arrive where they will stay.
    """

    def __init__(self, peer: str, room: int = 1 << 18) -> None:
        self._peer = peer
        self._buffer = bytearray(room)
        self._filled = 0
        self._message: Message | None = None
        self._values = NOTHING
        self._values_filled = 0

    def space(self) -> memoryview:
        """Return where to put the next bytes; never empty."""
        if self._message is not None:
            return self._values[self._values_filled :]
        if self._filled == len(self._buffer):
            # A header that is larger than the room: its length was checked. A new buffer, since views hold the old one.
            self._buffer = self._buffer + bytes(len(self._buffer))
        return memoryview(self._buffer)[self._filled :]

    def filled(self, count: int) -> Iterator[Message]:
        """Take note that so many bytes were put there; yield the messages that are complete.

        Raises PeerProtocolError, naming the peer, on anything that is not a frame of this version.
        """
        if self._message is not None:
            self._values_filled += count
            if self._values_filled == self._values.nbytes:
                yield self._complete()
            return
        self._filled += count
        place = 0
        while (end := self._next(place)) is not None:
            place = end
            if self._values_filled < self._values.nbytes:
                break
            yield self._complete()
        self._buffer[: self._filled - place] = self._buffer[place : self._filled]
        self._filled -= place

    def _next(self, place: int) -> int | None:
        """Read a header at `place` and as much of its values as is here; return where to go on, None if too early."""
        if self._filled - place < PREFIX.size:
            return None
        version, length, size = PREFIX.unpack_from(self._buffer, place)
        if version != VERSION:
            raise PeerProtocolError(self._peer, f"speaks version {version} of the protocol, this side {VERSION}")
        if length > HEADER_LIMIT or size > VALUES_LIMIT:
            raise PeerProtocolError(
                self._peer, f"announces {length} and {size} bytes, at most {HEADER_LIMIT} and {VALUES_LIMIT} are taken"
            )
        start = place + PREFIX.size + length
        if self._filled < start:
            return None
        self._message = self._decode(bytes(self._buffer[place + PREFIX.size : start]), size)
        here = min(size, self._filled - start)
        self._values = memoryview(bytearray(size))
        self._values[:here] = memoryview(self._buffer)[start : start + here]
        self._values_filled = here
        return int(start + here)

    def _decode(self, header: bytes, size: int) -> Message:
        try:
            message = _DECODER.decode(header)
        except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise PeerProtocolError(self._peer, f"malformed message: {error}") from error
        inside: memoryview | None = getattr(message, "values", None)
        if (inside is None and size) or (inside is not None and inside.nbytes):
            raise PeerProtocolError(self._peer, f"values of a {type(message).__name__} are not where they belong")
        return message

    def _complete(self) -> Message:
        message, values = self._message, self._values
        assert message is not None, "a header was read before its values"  # noqa: S101
        self._message, self._values, self._values_filled = None, NOTHING, 0
        return msgspec.structs.replace(message, values=values) if values.nbytes else message
