"""Where randomness comes from.

Two kinds and no third:

- `Rng`: bytes for keys, seeds, shares, nonces and rounding. `OsRng` asks the operating system. `SecretRng`
  stretches 32 secret bytes from the operating system, so that a party that is killed can be resumed and repeats
  itself bit for bit. `insecure_seeded_rng` is for simulations and tests and says so. `crypto.kem.encapsulate` alone
  draws from the operating system by itself, because the library takes no randomness there: a task of drivers.
- `numpy_generator(rng)`: NumPy's generator for shuffling and sampling of data. It must never touch a key, a mask
  or noise that somebody's privacy rests on.
"""

from __future__ import annotations

import hashlib
import os
from typing import Protocol

import numpy as np

from ridotto.errors import LocalProtocolError

SEED_BYTES = 32
BLOCK_BYTES = 64


class Rng(Protocol):
    """Draw random bytes."""

    def bytes(self, length: int) -> bytes:
        """Return `length` bytes."""


class OsRng:
    """Draw from the operating system."""

    def bytes(self, length: int) -> bytes:
        """Return `length` bytes."""
        return os.urandom(length)


class SecretRng:
    """Stretch a secret seed: BLAKE2b keyed by the seed, over a counter. Same seed, same bytes.

    seed: 32 bytes. As strong as the seed is secret: whoever knows it knows everything drawn here. `child(label)`
    gives an independent stream, so that two parts of a program never share one.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LocalProtocolError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._seed = seed
        self._counter = 0

    def __repr__(self) -> str:
        return "SecretRng(...)"

    def bytes(self, length: int) -> bytes:
        """Return the next `length` bytes of the stream."""
        blocks = []
        for _ in range(-(-length // BLOCK_BYTES)):
            blocks.append(
                hashlib.blake2b(self._counter.to_bytes(8, "little"), key=self._seed, person=b"stream").digest()
            )
            self._counter += 1
        return b"".join(blocks)[:length]

    def child(self, *labels: str | int) -> SecretRng:
        """Return an independent stream that depends on the seed and the labels only, not on what was drawn."""
        label = "\x1f".join(str(part) for part in labels).encode()
        return SecretRng(hashlib.blake2b(label, key=self._seed, person=b"child", digest_size=SEED_BYTES).digest())


def insecure_seeded_rng(seed: int) -> SecretRng:
    """Return a stream that a small number determines: for simulations and tests only, where anyone may know it."""
    return SecretRng(hashlib.blake2b(str(seed).encode(), person=b"insecure", digest_size=SEED_BYTES).digest())


def numpy_generator(rng: Rng) -> np.random.Generator:
    """Return a NumPy generator seeded from `rng`, for shuffling data; never for keys, masks or privacy noise."""
    return np.random.Generator(np.random.PCG64(int.from_bytes(rng.bytes(16), "little")))
