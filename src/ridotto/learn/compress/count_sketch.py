"""Count sketch: add entries up in a few buckets, with random signs, so that large ones stand out of the sum."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import Rng
from ridotto.core.vector import Vector
from ridotto.learn.compress.codec import Codec, Shared, flip, require_count

LARGEST = 1 << 31


def count_sketch(rows: float, columns: float, median: bool = False) -> Codec:
    """Keep `rows` sketches of d entries, each in `columns` buckets: m = rows * columns.

    rows: 1 to 100. columns: 1 to 2^31. In every row each entry has a sign and a bucket, and a bucket is the sum of its
    entries. A row estimates an entry by its bucket, times its sign: unbiased over the seed, with a variance of at most
    ||x||^2 / columns. median: over the rows, which stands up to a few large entries; else their mean, which is linear.
    Both are unbiased, because a row's error is as likely as its negative. The error of a dense vector exceeds the
    vector as soon as d > m: a sketch is for what a few entries dominate, and `top_k` of what is decoded.
    Sensitivity: clip * sqrt(rows * ceil(d / columns)), for a vector that lies in one bucket of each row with the right
    signs; `usual` is clip * sqrt(rows).
    We differ from the source in the hash: columns entries in a row go to all buckets once, turned round by a random
    number of places. Two entries meet with a probability of at most 1 / columns, as with the source's hashes, and no
    bucket gets more than ceil(d / columns), on which the sensitivity rests.
    Raises PlanError for a number out of range.
    Source: Charikar, Chen, Farach-Colton, "Finding Frequent Items in Data Streams", ICALP 2002; for updates, Rothchild
    et al., "FetchSGD", ICML 2020, whose momentum and error feedback inside the sketch, at the server, are not here.
    """
    height = require_count("count_sketch", 1, 100, rows=rows)
    width = require_count("count_sketch", 1, LARGEST, columns=columns)

    def forward(vector: Vector, shared: Shared, own: Rng) -> Vector:
        table = np.zeros((height, width), np.float32)
        for row in range(height):
            signed = flip(vector, shared.signs(f"signs {row}", len(vector)))
            for begin, turn in _blocks(shared, row, len(vector), width):
                block = signed[begin : begin + width]
                kept = min(len(block), width - turn)
                table[row, turn : turn + kept] += block[:kept]
                table[row, : len(block) - kept] += block[kept:]
        return table.reshape(-1)

    def backward(mean: Vector, entries: int, shared: Shared) -> Vector:
        table, found = mean.reshape(height, width), np.empty((height, entries), np.float32)
        for row in range(height):
            for begin, turn in _blocks(shared, row, entries, width):
                block = found[row, begin : begin + width]
                kept = min(len(block), width - turn)
                block[:kept] = table[row, turn : turn + kept]
                block[kept:] = table[row, : len(block) - kept]
            found[row] = flip(found[row], shared.signs(f"signs {row}", entries))
        estimate: NDArray[np.float32] = np.median(found, axis=0) if median else found.mean(axis=0)
        return estimate

    def bound(clip: float, entries: int) -> float:
        return clip * math.sqrt(height * -(-entries // width))

    name = "count_sketch(median)" if median else "count_sketch"

    def usual(clip: float, entries: int) -> float:
        return clip * math.sqrt(height)

    return Codec(name, forward, backward, bound, lambda entries: height * width, usual=usual)


def _blocks(shared: Shared, row: int, entries: int, width: int) -> list[tuple[int, int]]:
    """Return (first entry, bucket of that entry) of every run of `width` entries."""
    begins = range(0, entries, width)
    # 32-bit words mod width are uneven by less than width / 2^32; two words in a row by less than width / 2^64.
    words = shared.words(f"turns {row}", 2 * len(begins)).astype(np.uint64)
    turns = ((words[::2] << np.uint64(32)) | words[1::2]) % np.uint64(width)
    return list(zip(begins, turns.tolist(), strict=True))
