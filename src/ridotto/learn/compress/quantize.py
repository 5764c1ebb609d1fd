"""Quantise: a ring of few bits, and a step for which the sum of rotated vectors fits it nearly always.

What "8 bits" are. What travels under masks is an element of a ring that must hold the *sum* over all n participants,
because a masked integer is as wide as its ring. Two ways to deal with that:

    certain   n L never wraps, L being a participant's largest integer (`core.fixedpoint`). With 100 participants, a
              ring of 10 bits has L = 5, and one of 8 bits L = 1.
    `Likely`  the ring holds sums that are so many standard deviations large. Rotated entries are nearly normal, so it
              wraps rarely, with a step that is a sixth as long (100 participants, alignment 0.3).

A plan that counts bytes should start from the ring. Rounding is unbiased and independent, so what it costs falls with
n: an error per entry of at most step / (2 sqrt(n)) in the mean, and sampling 25 % of the entries costs far more.

Source: Suresh et al., "Distributed Mean Estimation with Limited Communication", ICML 2017, section 2.2 (stochastic
k-level quantisation; here with one step for all, known beforehand); Alistarh et al., "QSGD", NeurIPS 2017; for rings,
Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation",
ICML 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ridotto.core.fixedpoint import MAX_BITS, MIN_BITS
from ridotto.errors import PlanError
from ridotto.learn.compress.codec import require_count, require_positive


@dataclass(frozen=True)
class Likely:
    """Fit the sum of rotated vectors into a ring that it fits with high probability only.

    ring_bits: 8 to 64. participants: n. entry_deviation: standard deviation of an entry of one participant after
    rotation: clip / sqrt(d). alignment: largest l2 norm of the sum as a fraction of n * clip, above 0, at most 1. With
    1 nothing is assumed; updates that are unrelated have 1 / sqrt(n). reach: standard deviations of the sum that fit,
    above 0. noise: standard deviation of the summed privacy noise, in units of `entry_deviation`.
    An entry wraps with a probability of at most 2 exp(-reach^2 / 2), and is then wrong by 2^ring_bits steps, which
    after the rotation back is a little noise on all entries. Raises PlanError for a number out of range.
    Source: Kairouz, Liu, Steinke 2021, choice of the granularity gamma in the experiments; k there is our reach.
    """

    ring_bits: int
    participants: int
    entry_deviation: float
    alignment: float = 1.0
    reach: float = 4.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        require_count("quantize", MIN_BITS, MAX_BITS, ring_bits=self.ring_bits)
        require_count("quantize", 1, 1 << 31, participants=self.participants)
        require_positive("quantize", entry_deviation=self.entry_deviation, alignment=self.alignment, reach=self.reach)
        if self.alignment > 1 or not 0 <= self.noise < math.inf:
            raise PlanError(
                f"quantize: alignment is at most 1 and noise at least 0, not {self.alignment}, {self.noise}"
            )
        if self._rounding >= self._room:
            raise PlanError(
                f"quantize: {self.participants} participants' rounding alone needs {self.reach * self._rounding:.0f} "
                f"units, and a ring of {self.ring_bits} bits has {self.reach * self._room:.0f}; take a wider one"
            )

    @property
    def _room(self) -> float:
        """Return the standard deviation that a sum may have, in steps."""
        return ((1 << (self.ring_bits - 1)) - 1) / self.reach

    @property
    def _rounding(self) -> float:
        """Return the largest standard deviation of n roundings, in steps."""
        return math.sqrt(self.participants) / 2

    @property
    def step(self) -> float:
        """Return the finest step for which the sum's standard deviation, rounding and noise included, fits."""
        signal = math.hypot(self.alignment * self.participants, self.noise) * self.entry_deviation
        return signal / math.sqrt(self._room**2 - self._rounding**2)
