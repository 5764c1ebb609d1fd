"""Read the ChaCha20 stream of a seed: the generator of masks that other implementations fixed, not our own choice.

The stream is that of the original cipher: the seed is the key, a 64-bit block counter begins at 0, and the 64-bit nonce
is 0. OpenSSL takes counter and nonce as one 16-byte value. For masks of our own protocols use `crypto.prg`.

Source: Bernstein, "ChaCha, a variant of Salsa20", 2008; Rust's `rand_chacha::ChaCha20Rng` gives the same bytes.
"""

from __future__ import annotations

from typing import final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from ridotto.errors import LocalProtocolError

SEED_BYTES = 32
_COUNTER_AND_NONCE = bytes(16)

PIECE_BYTES = 1 << 18
"""Most that one `fill` writes: it and what is made of it stay in the second cache of a core."""

# Untouched pages all map to one page of zeros, so this costs address space and hardly any cache.
_ZEROS = memoryview(bytes(PIECE_BYTES))


@final
class ChaCha20Stream:
    """Give the stream of `seed` (32 secret bytes) piece by piece.

    Raises LocalProtocolError if the seed has another length.
    """

    __slots__ = ("_update_into",)

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        encryptor = Cipher(algorithms.ChaCha20(seed, _COUNTER_AND_NONCE), None).encryptor()
        self._update_into = encryptor.update_into

    def fill(self, buffer: memoryview) -> None:
        """Write the next bytes of the stream into all of `buffer`, at most `PIECE_BYTES`.

        Raises LocalProtocolError if the buffer is longer.
        """
        if len(buffer) > PIECE_BYTES:
            raise LocalProtocolError(f"a piece of a stream has at most {PIECE_BYTES} bytes, not {len(buffer)}")
        self._update_into(_ZEROS[: len(buffer)], buffer)
