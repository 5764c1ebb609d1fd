"""Payloads in pieces: order, sizes and how much is held."""

from __future__ import annotations

import pytest

from ridotto.errors import PeerProtocolError
from ridotto.secagg.xaynet.chunks import Chunks
from ridotto.secagg.xaynet.wire import Chunk, Tag

WHOLE = bytes(range(200))


def piece(index: int, begin: int, end: int, *, message_id: int = 1, last: bool = False) -> Chunk:
    return Chunk(index, message_id, last, memoryview(WHOLE)[begin:end])


def test_pieces_in_order_make_the_payload() -> None:
    chunks = Chunks(1000)
    assert chunks.take("p0", Tag.UPDATE, piece(0, 0, 130), 200) is None
    assert chunks.take("p1", Tag.UPDATE, piece(0, 0, 199, message_id=1), 200) is None
    assert chunks.take("p0", Tag.UPDATE, piece(1, 130, 131), 200) is None
    assert chunks.held_bytes == 131 + 199
    assert bytes(chunks.take("p0", Tag.UPDATE, piece(2, 131, 200, last=True), 200) or b"") == WHOLE
    assert chunks.held_bytes == 199
    chunks.clear()
    assert chunks.held_bytes == 0


@pytest.mark.parametrize(
    ("chunk", "why"),
    [
        (piece(2, 130, 140), "piece 2 of its message is not the next one"),
        (piece(1, 130, 140, message_id=2), "not the next one"),
        (piece(1, 130, 140, last=True), "don't add up to 200"),
        (piece(1, 130, 200), "don't add up"),
        (piece(1, 99, 200), "don't add up"),
        (piece(0, 0, 127), "does not hold the proof"),
    ],
)
def test_refuses_pieces_out_of_order_and_of_wrong_sizes(chunk: Chunk, why: str) -> None:
    chunks = Chunks(1000)
    chunks.take("p0", Tag.UPDATE, piece(0, 0, 130), 200)
    with pytest.raises(PeerProtocolError, match=why) as caught:
        chunks.take("p0", Tag.UPDATE, chunk, 200)
    assert caught.value.peer == "p0"
    assert bytes(chunks.take("p0", Tag.UPDATE, piece(1, 130, 200, last=True), 200) or b"") == WHOLE


def test_refuses_a_later_piece_of_a_stranger() -> None:
    with pytest.raises(PeerProtocolError, match="not the next one"):
        Chunks(1000).take("p0", Tag.SUM2, piece(1, 0, 130), 200)


def test_a_first_piece_begins_anew() -> None:
    chunks = Chunks(150)
    chunks.take("p0", Tag.SUM, piece(0, 0, 130, message_id=1), 200)
    chunks.take("p0", Tag.SUM, piece(0, 0, 140, message_id=2), 200)
    assert chunks.held_bytes == 140


def test_holds_no_more_than_its_limit() -> None:
    chunks = Chunks(300)
    chunks.take("p0", Tag.UPDATE, piece(0, 0, 190), 200)
    with pytest.raises(PeerProtocolError, match="too many unfinished") as caught:
        chunks.take("p1", Tag.UPDATE, piece(0, 0, 130), 200)
    assert caught.value.peer == "p1"
    assert chunks.held_bytes == 190
    chunks.forget("p1")
    chunks.forget("p0")
    assert chunks.held_bytes == 0
