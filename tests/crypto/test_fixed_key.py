"""The hash of blocks is AES under the public key, XOR the block, each block for itself."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ridotto.crypto.fixed_key import hash_blocks
from ridotto.errors import LocalProtocolError


def test_each_block_for_itself() -> None:
    blocks = np.arange(10, dtype=np.uint64).reshape(5, 2) * np.uint64(0x0123456789ABCDEF)
    cipher = Cipher(algorithms.AES(hashlib.sha256(b"ridotto/1 fixed-key AES").digest()[:16]), modes.ECB())
    for block, found in zip(blocks, hash_blocks(blocks), strict=True):
        encryptor = cipher.encryptor()
        expected = encryptor.update(block.astype("<u8").tobytes())
        assert bytes(a ^ b for a, b in zip(expected, block.astype("<u8").tobytes(), strict=True)) == found.tobytes()


def test_leaves_its_input_as_it_is() -> None:
    blocks = np.ones((3, 2), np.uint64)
    hash_blocks(blocks)
    np.testing.assert_array_equal(blocks, 1)
    assert hash_blocks(blocks[:0]).shape == (0, 2)


def test_refuses_other_shapes() -> None:
    for blocks in (np.zeros(2, np.uint64), np.zeros((2, 3), np.uint64), np.zeros((2, 2), np.int64)):
        with pytest.raises(LocalProtocolError, match="blocks are uint64 of shape"):
            hash_blocks(blocks)
