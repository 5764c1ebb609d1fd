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
from ridotto.privacy.noise.rounding import clipped_within
from ridotto.privacy.noise.words import Words


def encode_private(
    update: NDArray[np.float32],
    norm: float,
    bound: float,
    scale: float,
    source: IntegerNoise | None,
    words: Words,
    bits: int,
    out: IntVector,
) -> None:
    """Clip an update to `bound`, round it within D2, and add a share of noise, mod 2^bits, into `out`.

    update: float32, shape (d,). norm: of the update, from `row_norms`; it is believed. bound: > 0. scale: units of the
    ring per 1; scale * bound is below half of the ring. source: of this participant's noise, in units; None if the
    coordinator adds it. words: secret, of this vector alone; they round and make the noise. out: takes the integers,
    shape (d,), dtype `container(bits)`.
    Guaranteed: before noise, the integers' l2 norm is at most `rounded_norm_bound(scale * bound, d)`.
    Raises PlanError if scale, bound or bits are out of range, DataError if the norm is not finite or shapes do not fit.
    """
    check_ring(out, bits)
    clipped_within(update, norm, bound, scale, words, out)
    if source is not None:
        source.add_to(out, words)
    reduce(out, bits)
