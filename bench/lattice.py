"""Ring-LWE: encrypting a vector, adding a ciphertext to a sum, sharing a key and putting a sum of keys together."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.measure import Bar, Line, Lines, Task, timed
from ridotto.core.fixedpoint import container
from ridotto.core.wire import digest
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.kahe import CipherSum, encrypt, generate_key
from ridotto.crypto.lattice.loops import Loops, PlainLoops
from ridotto.crypto.lattice.packed_shamir import Sharing, recover_key, share_key
from ridotto.crypto.lattice.samplers import public_elements

SEED = b"s" * 32
SHARING = Sharing(64, 24, 21)
BATCH = 4


def median(task: Task, repeats: int) -> tuple[float, float]:
    """Return CPU and wall seconds of a call: the medians of several, after one that does not count."""
    task()
    times = [timed(task) for _ in range(repeats)]
    return sorted(one[0] for one in times)[repeats // 2], sorted(one[1] for one in times)[repeats // 2]


def line(what: str, task: Task, repeats: int, divisor: int = 1, bar: Bar | None = None) -> Line:
    cpu, wall = median(task, repeats)
    return Line(what=what, ours=cpu / divisor * 1e3, unit="ms", wall=wall / divisor, bar=bar)


def lines(quick: bool) -> Lines:
    repeats = 5 if quick else 15
    loops = Loops()
    loops.load()
    for length, bits in ((100_000, 21), (1_000_000, 21), (1_000_000, 28)):
        shape = Shape(length, bits, 7, 1024)
        what = f"d = {length:,}, {shape.fields} x {bits}"
        public = public_elements(SEED, shape.elements)
        vector = np.zeros(length, container(bits))
        key = generate_key(SEED)
        yield line(f"lattice: public elements, {what}", partial(public_elements, SEED, shape.elements), repeats)
        yield line(f"lattice: encrypt, {what}", partial(encrypt, vector, key, SEED, public, shape, loops), repeats)
        yield line(
            f"lattice: encrypt without numba, {what}",
            partial(encrypt, vector, key, SEED, public, shape, PlainLoops()),
            5,
        )
        yield from fold_lines(what, shape, bytes(encrypt(vector, key, SEED, public, shape, loops)), loops, repeats)
        total = CipherSum(shape, loops=loops)
        total.add(encrypt(vector, key, SEED, public, shape, loops))
        yield line(f"lattice: open the sum, {what}", partial(total.open, key, 1, public), 5)
    yield line("lattice: share a key among 64", partial(share_key, generate_key(SEED), SHARING, SEED), repeats)
    shares = share_key(generate_key(SEED), SHARING, SEED)
    replies = {point: bytes(784) if point < 10 else shares[point - 1] for point in range(1, 65)}
    yield line("lattice: recover a key, 9 of 64 replies wrong", partial(recover_key, replies, SHARING), repeats)


def fold_lines(what: str, shape: Shape, ciphertext: bytes, loops: Loops, repeats: int) -> Lines:
    """Measure ciphertexts that were just hashed, as a coordinator does on receipt.

    The floor adds as many bytes to a sum of their own size, in words of 64 bits.
    """
    fresh = [bytearray(ciphertext) for _ in range(BATCH)]
    total, words = CipherSum(shape, loops=loops), np.zeros(shape.size // 8, np.uint64)
    for count in (1, BATCH):
        batch = fresh[:count]
        ours: list[tuple[float, float]] = []
        floor: list[tuple[float, float]] = []
        for _ in range(repeats + 1):
            for task, times in ((partial(total.add_all, batch), ours), (partial(add_words, words, batch), floor)):
                for one in batch:
                    digest(one)
                times.append(timed(task))
        cpu, wall = (sorted(one[place] for one in ours[1:])[repeats // 2] for place in (0, 1))
        main = count == BATCH and shape.length == 1_000_000 and shape.fields == 4
        yield Line(
            what=f"lattice: fold one ciphertext, {count} at a time, {what}",
            ours=cpu / count * 1e3,
            floor=sorted(one[0] for one in floor[1:])[repeats // 2] / count * 1e3,
            wall=wall / count,
            unit="ms",
            bar=Bar("at most", 0.2) if main else None,
        )


def add_words(words: NDArray[np.uint64], batch: list[bytearray]) -> None:
    for one in batch:
        np.add(words, np.frombuffer(one, np.uint64), out=words)
