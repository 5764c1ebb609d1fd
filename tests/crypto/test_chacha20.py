"""The ChaCha20 stream: known bytes, and pieces that add up to it."""

from __future__ import annotations

import pytest

from ridotto.crypto.chacha20 import PIECE_BYTES, ChaCha20Stream
from ridotto.errors import LocalProtocolError


def read(stream: ChaCha20Stream, size: int) -> bytes:
    buffer = bytearray(size)
    stream.fill(memoryview(buffer))
    return bytes(buffer)


def test_the_stream_of_the_zero_key() -> None:
    """Source: RFC 8439, appendix A.1, test vectors 1 and 2 (blocks 0 and 1; key and nonce are zero)."""
    stream = ChaCha20Stream(bytes(32))
    assert read(stream, 64).hex() == (
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
        "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
    )
    assert read(stream, 64).hex() == (
        "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed"
        "29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
    )


def test_pieces_add_up() -> None:
    whole = read(ChaCha20Stream(b"k" * 32), 1000)
    stream = ChaCha20Stream(b"k" * 32)
    assert b"".join(read(stream, size) for size in (4, 60, 1, 0, 63, 872)) == whole


def test_refuses_other_seeds_and_pieces_that_are_too_long() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        ChaCha20Stream(bytes(31))
    with pytest.raises(LocalProtocolError, match="a piece of a stream"):
        ChaCha20Stream(bytes(32)).fill(memoryview(bytearray(PIECE_BYTES + 1)))
