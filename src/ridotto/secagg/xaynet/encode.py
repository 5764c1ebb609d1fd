"""Encode a weighted model into its groups, and decode the sum of many into their weighted mean, all in exact ratios.

    s' = min(s, A_u)                          the scalar, at least 0
    element = floor((clamp(s' w, -A_v, A_v) + A_v) E_v)        unit = floor((s' + A_u) E_u)

    n = sum - mask (mod q),   S = n_u / E_u - k A_u,   mean_i = (n_i / E_v - k A_v) / S       for k models

So S is the sum of the scalars, and neither weights nor scalars of one participant show. A is an integer in every
configuration, so A E is one too, and the floor is that of s' w E alone.

Stricter than the original: `unmask` refuses what no k models can sum to, which a wrong mask nearly always gives, and a
sum of scalars of zero, at which the original's coordinator ends.

Source: xaynet 0.11, `mask/masking.rs`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import DataError, LocalProtocolError, RoundFailedError
from ridotto.secagg.xaynet.bincode import encode_model
from ridotto.secagg.xaynet.config import Data, MaskConfig, MaskConfigPair
from ridotto.secagg.xaynet.derive import MaskObject, add_masks
from ridotto.secagg.xaynet.elements import Elements, fits_word, from_integers, subtract

Weights = NDArray[Any] | Sequence[float] | Sequence[int]
"""Weights of a model, shape (length,): floats or integers."""

DOUBT = 2.0**-50
"""Relative error of s' w E in float64: three roundings of at most 2^-53 each, and a reserve."""


class XaynetFailure(StrEnum):
    """Say in one stable word why a round ended without a model."""

    TOO_FEW = "TOO_FEW"
    """Fewer messages of a phase were accepted in its time than it needs."""

    AMBIGUOUS_MASKS = "AMBIGUOUS_MASKS"
    """No mask was sent by more than half of the summers that sent one."""

    IMPOSSIBLE_SUM = "IMPOSSIBLE_SUM"
    """With this mask the sum is one that no models can have: a mask or a seed was wrong."""

    NO_WEIGHT = "NO_WEIGHT"
    """The scalars sum to zero, so there is no mean."""


@dataclass(frozen=True)
class Mean:
    """Hold a weighted mean exactly: weight i is numerators[i] / denominator, not reduced.

    models: how many it is of. scalars: the sum of their scalars, above 0.
    """

    numerators: list[int] = field(repr=False)
    denominator: int
    models: int
    scalars: Fraction

    def to_float32(self) -> NDArray[np.float32]:
        """Return the mean rounded to float64 and then to float32, shape (length,)."""
        return np.array([number / self.denominator for number in self.numerators], np.float64).astype(np.float32)

    def to_fractions(self) -> list[Fraction]:
        """Return the mean exactly."""
        return [Fraction(number, self.denominator) for number in self.numerators]

    def to_body(self) -> bytes:
        """Return the mean exactly, as clients ask for it."""
        return encode_model(self.numerators, repeat(self.denominator, len(self.numerators)))


def mask_model(weights: Weights, scalar: Fraction | float, seed: bytes, configs: MaskConfigPair) -> MaskObject:
    """Encode a model, multiplied with `scalar`, and mask it with the mask of `seed`.

    scalar: at least 0; how much the model counts. seed: 32 fresh secret bytes, used for this model alone.
    Raises DataError if a weight or the scalar is not finite, or the scalar is negative.
    """
    exact = _scalar(scalar, configs.unit)
    unit = math.floor((exact + configs.unit.add_shift) * configs.unit.exp_shift)
    masked = MaskObject(configs, encode_weights(weights, exact, configs.vect), unit % configs.unit.order)
    add_masks(masked, [seed])
    return masked


def encode_weights(weights: Weights, scalar: Fraction, config: MaskConfig) -> Elements:
    """Return floor((clamp(scalar * w, -A, A) + A) E) of every weight, as group elements.

    Where float64 can't tell on which side of an integer a product is, it is computed in integers.
    Raises DataError if a weight is not finite.
    """
    if not fits_word(config.order) or config.data is Data.I64:
        values = weights.tolist() if isinstance(weights, np.ndarray) else list(weights)
        return from_integers([_exact(value, scalar, config) for value in values], config.order)
    reals = np.asarray(weights, np.float64)
    if not np.isfinite(reals).all():
        raise DataError("a weight of the model is not a finite number")
    middle = config.add_shift * config.exp_shift
    with np.errstate(over="ignore"):
        products = np.clip(reals * float(scalar) * config.exp_shift, -4 * middle, 4 * middle)
    spread = np.abs(products) * DOUBT
    low, high = (np.floor(np.clip(products + side, -middle, middle)) for side in (-spread, spread))
    elements = (low.astype(np.int64) + middle).astype(np.uint64)
    # A product that float64 rounds to zero may still be below it.
    doubtful = np.flatnonzero((low != high) | ((products == 0) & (reals != 0)))
    values, places = np.unique(reals[doubtful], return_inverse=True)
    elements[doubtful] = np.array([_exact(value, scalar, config) for value in values.tolist()], np.uint64)[places]
    return elements


def unmask(total: MaskObject, mask: MaskObject, models: int) -> Mean:
    """Take the sum of the masks of `models` models off the sum of these, and return their weighted mean.

    Raises RoundFailedError if the result is none that so many models can have, or their scalars sum to zero, and
    LocalProtocolError if configurations or lengths differ.
    """
    if mask.configs != total.configs or len(mask.vect) != len(total.vect) or models < 1:
        raise LocalProtocolError("this mask is not one of this sum")
    vect, unit = total.configs.vect, total.configs.unit
    numbers = subtract(total.vect, mask.vect, vect.order)
    middle, unit_middle = (models * config.add_shift * config.exp_shift for config in (vect, unit))
    scalars = (total.unit - mask.unit) % unit.order - unit_middle
    if not 0 <= scalars <= unit_middle or (len(numbers) and numbers.max() > 2 * middle):
        raise RoundFailedError(XaynetFailure.IMPOSSIBLE_SUM, f"no {models} models have this sum: a mask was wrong")
    if scalars == 0:
        raise RoundFailedError(XaynetFailure.NO_WEIGHT, "the scalars sum to zero, so there is no mean")
    common = math.gcd(vect.exp_shift, unit.exp_shift)
    factor, denominator = unit.exp_shift // common, scalars * (vect.exp_shift // common)
    numerators = [(number - middle) * factor for number in numbers.tolist()]
    return Mean(numerators, denominator, models, Fraction(scalars, unit.exp_shift))


def _scalar(scalar: Fraction | float, config: MaskConfig) -> Fraction:
    try:
        exact = Fraction(scalar)
    except (OverflowError, ValueError) as error:
        raise DataError("the scalar of the model is not a finite number") from error
    if exact < 0:
        raise DataError("the scalar of the model is negative")
    return min(exact, Fraction(config.add_shift))


def _exact(value: float, scalar: Fraction, config: MaskConfig) -> int:
    try:
        numerator, denominator = value.as_integer_ratio()
    except (OverflowError, ValueError) as error:
        raise DataError("a weight of the model is not a finite number") from error
    middle = config.add_shift * config.exp_shift
    product = scalar.numerator * numerator * config.exp_shift // (scalar.denominator * denominator)
    # Clamping the floor to integers is clamping the product and then taking the floor.
    return min(max(product, -middle), middle) + middle
