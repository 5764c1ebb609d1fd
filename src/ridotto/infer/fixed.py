"""Numbers in the ring of 64-bit words: fixed point, its head-room, and two additive shares.

A real x is the word round(x 2^f) mod 2^64. Layers multiply two such numbers, so a product has 2 f fractional bits until
it is truncated to f. Comparisons look at the lowest k bits only. Both set how large a number may be:

    |x| < 2^(k-2-f)    so that the difference of two numbers, with its sign, fits k bits
    k - 2 + f <= 61    so that a product of such size, plus the offset 2^62 of truncation, stays below 2^63

Nothing wraps in secret: inputs are checked as they are encoded, wires by calibration before a model is shared.
Source: SecureML, Mohassel and Zhang, IEEE S&P 2017, section IV-C, for the encoding.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.core.rng import Rng
from ridotto.errors import DataError, PlanError
from ridotto.infer.kernels.plain import Words
from ridotto.infer.streams import SEED_BYTES, Stream

OFFSET = 1 << 62
"""What is added to a product before it is masked: makes it positive, so that truncation can round down."""


class Fixed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Say how numbers are encoded; part of the plan, so both parties and the dealer agree.

    fraction_bits: f, 4 to 20. compared_bits: k, 4 D + 1 for D digits of 4 bits, D = 2 to 8.
    Raises PlanError if the two do not go together.
    """

    fraction_bits: Annotated[int, msgspec.Meta(ge=4, le=20)] = 14
    compared_bits: Annotated[int, msgspec.Meta(ge=9, le=33)] = 33

    def __post_init__(self) -> None:
        f, k = self.fraction_bits, self.compared_bits
        if not 4 <= f <= 20:
            raise PlanError(f"{f} fractional bits, expected 4 to 20")
        if k % 4 != 1 or not 9 <= k <= 33:
            raise PlanError(f"{k} compared bits, expected 9, 13, 17, .. 33: digits of 4 bits and a sign")
        if k - 2 - f < 1:
            raise PlanError(f"{k} compared bits leave no room for numbers with {f} fractional bits")

    @property
    def limit(self) -> float:
        """Return 2^(k-2-f): every input, and every wire, is smaller in magnitude."""
        return float(2.0 ** (self.compared_bits - 2 - self.fraction_bits))

    def encode(self, values: ArrayLike, what: str, scale: int = 1) -> Words:
        """Return `values` as words with scale * f fractional bits, ties to even.

        what: names them in the error, such as "input" or a layer.
        Raises DataError if one is not finite or not below `limit`.
        """
        reals = np.asarray(values, np.float64)
        largest = float(np.abs(reals).max(initial=0.0))
        # Asked this way round, a NaN is refused too.
        if not largest < self.limit:
            raise DataError(f"{what}: a number of magnitude {largest:.6g} does not fit below {self.limit:g}")
        words: Words = np.rint(np.ldexp(reals, scale * self.fraction_bits)).astype(np.int64).view(np.uint64)
        return words

    def decode(self, words: Words) -> NDArray[np.float64]:
        """Return words with f fractional bits as real numbers."""
        reals: NDArray[np.float64] = np.ldexp(words.view(np.int64).astype(np.float64), -self.fraction_bits)
        return reals


def share(words: Words, rng: Rng, session: bytes, label: str) -> tuple[bytes, Words]:
    """Split words into two additive shares: a seed for party 0, words for party 1; either alone is uniform.

    Party 0 expands its seed with `expand`. session, label: what the seed is for; a seed is drawn for each call.
    """
    seed = rng.bytes(SEED_BYTES)
    return seed, words - expand(seed, session, label, words.shape)


def expand(seed: bytes, session: bytes, label: str, shape: tuple[int, ...]) -> Words:
    """Return party 0's share of what `share` split."""
    return Stream(seed, session, label).words(*shape)
