"""Frames arrive in any pieces; what is no frame is refused by name."""

from __future__ import annotations

import msgspec
import pytest

from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError
from ridotto.infer.frames import PREFIX, Reader, encode
from ridotto.infer.messages import Hello, Opening, Ready

ID = b"i" * 32
LARGE = Opening(ID, 3, memoryview(bytes(range(256)) * 400))
SMALL = Opening(ID, 4, memoryview(bytes(16)))
MESSAGES: list[Message] = [Hello(ID, ID, ID), LARGE, SMALL, Ready(ID), Opening(ID, 5, memoryview(b"")), LARGE, LARGE]


def read(data: bytes, step: int, room: int = 1 << 18) -> list[Message]:
    reader, found, place = Reader("bob", room), [], 0
    while place < len(data):
        space = reader.space()
        size = min(step, len(space), len(data) - place)
        space[:size] = data[place : place + size]
        found += list(reader.filled(size))
        place += size
    return found


@pytest.mark.parametrize("step", [1, 7, 16384, 1 << 20])
@pytest.mark.parametrize("room", [64, 1 << 18])
def test_round_trip_in_pieces(step: int, room: int) -> None:
    data = b"".join(bytes(piece) for message in MESSAGES for piece in encode(message))
    assert read(data, step, room) == MESSAGES


def test_large_values_are_not_copied() -> None:
    start, values = encode(LARGE)
    assert values is LARGE.values
    assert len(start) < 64
    assert len(encode(SMALL)) == 1


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x02" + bytes(12), "bob: speaks version 2 of the protocol, this side 1"),
        (PREFIX.pack(1, 1 << 30, 0), "bob: announces 1073741824 and 0 bytes"),
        (PREFIX.pack(1, 1, 1 << 60) + b"x", "bob: announces 1 and"),
        (PREFIX.pack(1, 1, 0) + b"x", "bob: malformed message"),
        (PREFIX.pack(1, 0, 0), "bob: malformed message"),
        (
            bytes(encode(Ready(ID))[0]).replace(PREFIX.pack(1, 41, 0), PREFIX.pack(1, 41, 8)) + bytes(8),
            "values of a Ready",
        ),
    ],
)
def test_refuses_what_is_no_frame(data: bytes, why: str) -> None:
    with pytest.raises(PeerProtocolError, match=why):
        read(data, 1 << 20)


def test_refuses_values_inside_of_the_header() -> None:
    header = msgspec.msgpack.encode(SMALL)
    with pytest.raises(PeerProtocolError, match="values of a Opening are not where they belong"):
        read(PREFIX.pack(1, len(header), 0) + header, 1 << 20)
