"""How many units of a ring a clipped update may take, so that all updates and their noise fit beside each other.

Without noise and without `Quantize` this is `core.fixedpoint`'s business.
"""

from __future__ import annotations

import math

from ridotto.errors import PlanError

NOISE_REACH = 12
"""Deviations of noise that the ring has room for beside the sum: an entry wraps with a probability below 1e-32."""

LEAST_SIGMA = 0.5
"""Kairouz, Liu & Steinke 2021, theorem 1, holds for shares of at least half a unit of the ring."""

LARGEST_UNITS = 2**30
"""Largest clip in units of the ring, times the noise multiplier if that is above 1, under differential privacy: far
finer than any noise, and far below the 2^40 up to which rounding and noise are exact."""


def units_with_noise(bits: int, cohort: int, multiplier: float, spread: float) -> float:
    """Return how many units the largest norm of one contribution is, so that no sum with its noise wraps.

    multiplier: noise on the fewest contributions over that norm. spread: on the whole cohort's, which may be more.
    Raises PlanError if there is not even one.
    """
    # To the ring, noise that reaches as far as k clips is like k more participants.
    room = cohort + math.ceil(NOISE_REACH * spread) + 1
    units = ((1 << (bits - 1)) - 1) // room
    if units < 1:
        raise PlanError(
            f"{bits} bits have no room for {cohort} clipped updates and noise that reaches as far as "
            f"{NOISE_REACH * spread:.4g} of them: take more bits or less noise"
        )
    return float(min(units, most_units(multiplier)))


def most_units(multiplier: float) -> float:
    """Return the most units that a clip may have with so much noise."""
    return LARGEST_UNITS / max(1.0, multiplier)


def check_share(bits: int, share: float) -> None:
    """Refuse shares of noise that are too small for the ring. share: deviation, in units. Raises PlanError."""
    if share < LEAST_SIGMA:
        raise PlanError(
            f"with {bits} bits a share of the noise is {share:.3g} units of the ring, and below {LEAST_SIGMA} nothing "
            "is known to be private: take more bits, or more noise"
        )
