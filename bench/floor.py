"""The floors: the least that the same bytes can cost with the same libraries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bench.measure import timed

CHUNK_BYTES = 1 << 18
"""The keystream is made and added in pieces that stay in a core's L2 cache: the fastest of 64 KiB to 4 MiB."""


def raw_mask(length: int) -> Callable[[], None]:
    """Return the floor of one mask: raw AES-128-CTR keystream, and one addition of the same bytes (uint32)."""
    total = np.zeros(length, np.uint32)
    zeros = bytes(CHUNK_BYTES)
    buffer = np.empty(CHUNK_BYTES, np.uint8)
    algorithm = algorithms.AES(bytes(range(16)))
    step = CHUNK_BYTES // 4

    def add_one() -> None:
        fill = Cipher(algorithm, modes.CTR(bytes(16))).encryptor().update_into
        for begin in range(0, length, step):
            part = total[begin : begin + step]
            fill(memoryview(zeros)[: part.nbytes], buffer.data[: part.nbytes])
            np.add(part, buffer[: part.nbytes].view(np.uint32), out=part)

    return add_one


def mask_seconds(length: int, samples: int = 15) -> list[float]:
    """Return CPU seconds of the floor of one mask, several times, each over at least some milliseconds."""
    task, times = raw_mask(length), max(1, 8_000_000 // length)
    task()
    return [timed(task, times)[0] for _ in range(samples)]


def repeat(times: int, task: Callable[[], None]) -> None:
    for _ in range(times):
        task()
