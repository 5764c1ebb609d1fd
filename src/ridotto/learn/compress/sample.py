"""Sample: send a random part of the entries, the same for all participants of a round."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import Rng
from ridotto.core.vector import Vector
from ridotto.learn.compress.codec import Codec, Shared, require_fraction


def sample(fraction: float, scaled: bool = True) -> Codec:
    """Send m = ceil(fraction * d) entries, drawn without replacement from the shared seed.

    fraction: above 0, at most 1. scaled: the server multiplies them by d / m, so that the estimate is unbiased over
    the seed, with an error whose expected square is (d / m - 1) ||x||^2. Without, the estimate is the vector with
    most entries set to zero: biased and never longer, for `error_feedback`.
    Sensitivity is the clip: for some seed, all of a vector lies where it is looked at. Scaling comes after the noise.
    Raises PlanError for a number out of range.
    Source: Konečný et al., "Federated Learning: Strategies for Improving Communication Efficiency", 2016, section 3
    (subsampling). There each client has a seed of its own, which sums under masks do not allow.
    """
    require_fraction("sample", fraction=fraction)

    def output(entries: int) -> int:
        return math.ceil(fraction * entries)

    def forward(vector: Vector, shared: Shared, own: Rng) -> Vector:
        return vector[_places(shared, len(vector), output(len(vector)))]

    def backward(mean: Vector, entries: int, shared: Shared) -> Vector:
        restored = np.zeros(entries, np.float32)
        restored[_places(shared, entries, len(mean))] = mean * np.float32(entries / len(mean) if scaled else 1.0)
        return restored

    def usual(clip: float, entries: int) -> float:
        return clip * math.sqrt(output(entries) / entries)

    unbiased = scaled or fraction == 1
    return Codec("sample", forward, backward, lambda clip, entries: clip, output, unbiased=unbiased, usual=usual)


@lru_cache(maxsize=2)  # One round's, for all participants of a simulation.
def _places(shared: Shared, entries: int, count: int) -> NDArray[np.intp]:
    """Return `count` of `entries` places in ascending order, each set of so many equally likely.

    Each place draws a word, and those with the smallest words win. Where words tie at the border, the first places
    win: that makes a place more or less likely by less than d * 2^-32 of its chance.
    """
    words = shared.words("places", entries)
    border = np.partition(words, count - 1)[count - 1]
    places = np.flatnonzero(words <= border)
    if len(places) > count:
        surplus = len(places) - count
        tied = places[words[places] == border][-surplus:]
        places = np.setdiff1d(places, tied, assume_unique=True)
    places.flags.writeable = False
    return places
