"""Top-k and ternary: vectors that are mostly zeros, for plans in which the server sees each update.

Which entries are large is different for every participant, and is itself a secret that a mask would have to hide. So
neither works under masks. `encode` gives the vector with its zeros, d entries: sums of them decode as any other's do,
and the zeros are left out on the wire (`core.sparse_packing`).
"""

from __future__ import annotations

import math

import numpy as np

from ridotto.core.rng import SEED_BYTES, Rng
from ridotto.core.vector import Vector
from ridotto.crypto.prg import dither
from ridotto.learn.compress.codec import Codec, Shared, require_fraction


def top_k(fraction: float) -> Codec:
    """Keep the ceil(fraction * d) entries that are largest in magnitude; the first of them where some are equal.

    fraction: above 0, at most 1. Biased: the rest is lost, unless `error_feedback` sends it later.
    Sensitivity is the clip. Raises PlanError for a number out of range.
    Source: Aji, Heafield, "Sparse Communication for Distributed Gradient Descent", EMNLP 2017; Stich, Cordonnier,
    Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    """
    require_fraction("top_k", fraction=fraction)

    def forward(vector: Vector, shared: Shared, own: Rng) -> Vector:
        size, count = np.abs(vector), math.ceil(fraction * len(vector))
        border = np.partition(size, len(size) - count)[len(size) - count]
        kept = size > border
        kept[np.flatnonzero(size == border)[: count - np.count_nonzero(kept)]] = True
        return np.where(kept, vector, np.float32(0))

    return Codec(
        "top_k",
        forward,
        _as_it_is,
        lambda clip, entries: clip,
        linear=False,
        unbiased=fraction == 1,
        final=True,
    )


def ternary() -> Codec:
    """Give every entry as -s, 0 or s with s = max |x|, at random with the entry as its expectation.

    Unbiased. Sensitivity: clip * sqrt(d), since s is at most the norm; a vector as long as that has one large entry
    and bad luck with all others. The paper clips at 2.5 standard deviations and scales by layer; here it is the whole
    vector, and what it was clipped to before.
    Source: Wen et al., "TernGrad: Ternary Gradients to Reduce Communication in Distributed Deep Learning", NeurIPS
    2017.
    """

    def forward(vector: Vector, shared: Shared, own: Rng) -> Vector:
        size = np.abs(vector)
        scale = size.max()
        words = dither(own.bytes(SEED_BYTES), len(vector))
        # |x| / s > u without a division, which float32 would round.
        chosen = words * np.float64(scale) < size * 2.0**32
        return np.where(chosen, np.copysign(scale, vector), np.float32(0))

    return Codec(
        "ternary",
        forward,
        _as_it_is,
        lambda clip, entries: clip * math.sqrt(entries),
        linear=False,
        final=True,
    )


def _as_it_is(mean: Vector, entries: int, shared: Shared) -> Vector:
    return mean.copy()
