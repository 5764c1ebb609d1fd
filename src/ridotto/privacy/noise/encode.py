"""From an update to what a participant hands to the mask: clip, round within D2, add noise, all in integers.

Neighbouring relation: one participant's update added or removed. Trusted for it: the participant's own device.
Source: Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
Aggregation", ICML 2021, algorithm 1, without its rotation, which belongs to compression.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.privacy.noise.ring import IntegerNoise, check_ring, reduce
from ridotto.privacy.noise.rounding import round_within
from ridotto.privacy.noise.words import Words


def encode_private(
    update: NDArray[np.float32],
    scale: float,
    bound: float,
    source: IntegerNoise | None,
    words: Words,
    bits: int,
    out: IntVector,
    *,
    factor: float = 1.0,
    norm: float | None = None,
) -> None:
    """Scale an update, round it within D2, and add a share of noise, mod 2^bits, into `out`.

    update: float32, shape (d,). scale: units of the ring per 1. bound: > 0, of the l2 norm after clipping; scale *
    bound is below half of the ring. source: of this participant's noise, in units; None if the coordinator adds it.
    words: secret, of this vector alone; they round and make the noise. out: takes the integers, shape (d,), dtype
    `container(bits)`. factor: of clipping, `clip_factor(norm, bound)`. norm: of the update, from `row_norms`, believed;
    None looks for it.
    Guaranteed: before noise, the integers' l2 norm is at most `rounded_norm_bound(scale * bound, d)`.
    Raises PlanError if scale, bound or bits are out of range, DataError if the update is longer than its bound or not
    finite, or shapes do not fit.
    """
    check_ring(out, bits)
    round_within(update, scale, bound, words, out, factor=factor, norm=norm)
    if source is not None:
        source.add_to(out, words)
    reduce(out, bits)
