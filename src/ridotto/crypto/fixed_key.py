"""Hash blocks of 128 bits with AES under one public key: what trees of seeds are grown with.

    H(x) = AES_K(x) XOR x        K: the first 16 bytes of SHA-256("ridotto/1 fixed-key AES")

The key is public and always the same, so that no key schedule is paid for each seed. If AES under a fixed key is a
random permutation, then H of distinct inputs that nobody can guess looks like independent uniform blocks. It is no hash
for inputs that an attacker chooses.
Source: Guo, Katz, Wang and Yu, "Efficient and Secure Multiparty Computation from Fixed-Key Block Ciphers", IEEE S&P
2020; Matyas, Meyer and Oseas, "Generating strong one-way functions with cryptographic algorithm", 1985.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from ridotto.errors import LocalProtocolError

KEY = hashlib.sha256(b"ridotto/1 fixed-key AES").digest()[:16]
TAIL_BYTES = 15
"""How many bytes more than its input a block cipher's `update_into` wants room for."""


def hash_blocks(blocks: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return H of each block. blocks: uint64, shape (n, 2), little-endian words, C-contiguous.

    Raises LocalProtocolError for another shape.
    """
    if blocks.ndim != 2 or blocks.shape[1] != 2 or blocks.dtype != np.uint64:
        raise LocalProtocolError(f"blocks are uint64 of shape (n, 2), not {blocks.dtype} {blocks.shape}")
    source = np.ascontiguousarray(blocks.astype("<u8", copy=False))
    room = np.empty(source.nbytes + TAIL_BYTES, np.uint8)
    encryptor = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()  # noqa: S305 - one block each, as a permutation
    encryptor.update_into(source.reshape(-1).view(np.uint8).data, room.data)
    out: NDArray[np.uint64] = room[: source.nbytes].view("<u8").astype(np.uint64, copy=False).reshape(source.shape)
    out ^= blocks
    return out
