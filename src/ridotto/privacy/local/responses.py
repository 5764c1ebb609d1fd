"""Randomised responses: one value of a small set, from a participant who trusts nobody, and frequencies from many.

Three mechanisms for local epsilon-differential privacy (pure, delta = 0): any two values of one participant give every
report with probabilities that differ by a factor of at most e^epsilon. Trusted for it: the participant's own device.

- `BinaryResponse`: yes or no. Warner's.
- `KaryResponse`: one of k values; best while k is below about e^epsilon + 2.
- `HadamardResponse`: one of many values; its error hardly depends on k, and a report has log2(k) bits.

Each has `epsilon`, `respond` on the device, `estimate` and `variance` for who collects. Coins are exact: a coin's
probability is t / 2^64 with t rounded to the side of more privacy, so that the ratio is at most e^epsilon and not about
that; estimates are made with t / 2^64, so they are unbiased as well.

Source: Warner, "Randomized Response", JASA 1965; Kairouz, Bonawitz, Ramage, "Discrete Distribution Estimation under
Local Privacy", ICML 2016; Acharya, Sun, Zhang, "Hadamard Response", AISTATS 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import DataError, PlanError
from ridotto.privacy.noise.words import WORD_BITS, Words

WHOLE = 1 << WORD_BITS

MIN_EPSILON, MAX_EPSILON = 2.0**-32, 700.0
"""Below, a coin of 64 bits is too coarse for a precise estimate; above, e^epsilon has no float64. Far from any use."""

MAX_VALUES = 1 << 30

DIGITS = 400
"""Decimal digits of e^epsilon: enough for its integer part (305) and 64 bits of fraction."""

Values = NDArray[np.int64]
"""One integer of every participant: a value of 0 to k - 1, or a report. Shape (participants,)."""


def check_epsilon(epsilon: float) -> None:
    """Raise PlanError if this is no epsilon of a local mechanism: 2^-32 to 700."""
    if not MIN_EPSILON <= epsilon <= MAX_EPSILON:
        raise PlanError(f"a local epsilon is above 0 (2^-32 at least, 700 at most), not {epsilon}")


def exponential(epsilon: float) -> Decimal:
    """Return e^epsilon, to 400 digits."""
    return Context(prec=DIGITS).exp(Decimal(epsilon))


def scaled_exponential(epsilon: float) -> int:
    """Return 2^64 e^epsilon, rounded down."""
    return int(Context(prec=DIGITS).multiply(exponential(epsilon), Decimal(WHOLE)))


@lru_cache(maxsize=256)
def truth_threshold(epsilon: float) -> int:
    """Return the largest t with t / (2^64 - t) <= e^epsilon, at most 2^64 - 1: the coin that tells the truth."""
    # t is the largest integer with t (1 + e^epsilon) <= 2^64 e^epsilon. With 2^64 e^epsilon rounded down to E, the
    # largest with t (2^64 + E) <= 2^64 E is that or smaller.
    power = scaled_exponential(epsilon)
    return min(WHOLE * power // (WHOLE + power), WHOLE - 1)


@dataclass(frozen=True)
class BinaryResponse:
    """Answer yes or no: the truth with probability e^epsilon / (1 + e^epsilon), else the opposite.

    epsilon: of each answer. Raises PlanError if it is out of range.
    """

    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    @cached_property
    def _truth(self) -> int:
        return truth_threshold(self.epsilon)

    @property
    def truth(self) -> float:
        """Return the probability that an answer is the truth."""
        return self._truth / WHOLE

    def respond(self, values: ArrayLike, words: Words) -> Values:
        """Return a report, 0 or 1, for each value, 0 or 1. Takes 64 bits for each."""
        true = _checked(values, 2, "value")
        lies = ~words.events("binary response", self._truth, true.size)
        return true ^ lies.astype(np.int64)

    def estimate(self, reports: ArrayLike) -> float:
        """Return the unbiased estimate of the share of ones; with few reports it may lie outside 0 to 1."""
        found = _checked(reports, 2, "report", empty=False)
        return (float(found.mean()) - (WHOLE - self._truth) / WHOLE) / self._contrast

    def variance(self, participants: int, share: float = 0.5) -> float:
        """Return the variance of the estimate; it is the same for every share of ones."""
        truth = self._truth / WHOLE
        return truth * (1 - truth) / (participants * self._contrast**2)

    @property
    def _contrast(self) -> float:
        return (2 * self._truth - WHOLE) / WHOLE


@dataclass(frozen=True)
class KaryResponse:
    """Answer one of k values: the truth with some probability, else any of the k, the truth among them.

    epsilon: of each answer. values: k, 2 to 2^30.
    The truth is kept with probability g = (e^epsilon - 1) / (e^epsilon + k - 1), rounded down.
    Raises PlanError if a number is out of range.
    """

    epsilon: float
    values: int

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        _check_values(self.values)

    @cached_property
    def _kept(self) -> int:
        power = scaled_exponential(self.epsilon)
        return min(WHOLE * (power - WHOLE) // (power + (self.values - 1) * WHOLE), WHOLE - 1)

    @property
    def _rates(self) -> tuple[float, float, float]:
        """Return the probabilities of a value's own report and of another one, and their difference."""
        other = (WHOLE - self._kept) / WHOLE / self.values
        return self._kept / WHOLE + other, other, self._kept / WHOLE

    def respond(self, values: ArrayLike, words: Words) -> Values:
        """Return a report, 0 to k - 1, for each value, 0 to k - 1."""
        true = _checked(values, self.values, "value")
        kept = words.events("kary response", self._kept, true.size)
        return np.where(kept, true, words.below("kary response/any", self.values, true.size))

    def estimate(self, reports: ArrayLike) -> NDArray[np.float64]:
        """Return unbiased estimates of the share of every value, float64, shape (k,); they add up to 1."""
        found = _checked(reports, self.values, "report", empty=False)
        shares = np.bincount(found, minlength=self.values) / found.size
        _, other, contrast = self._rates
        estimates: NDArray[np.float64] = (shares - other) / contrast
        return estimates

    def variance(self, participants: int, share: float = 0.0) -> float:
        """Return the variance of the estimate of a value that this share of the participants has."""
        own, other, contrast = self._rates
        return (share * own * (1 - own) + (1 - share) * other * (1 - other)) / (participants * contrast**2)


@dataclass(frozen=True)
class HadamardResponse:
    """Answer one of k values by a column of a Hadamard matrix in which the value's row is +1, or else -1.

    epsilon: of each answer. values: k, 2 to 2^30.
    The matrix is Sylvester's of order K, the least power of two above k; value x has row x + 1, because row 0 says
    nothing. A report is y in 0..K - 1; entry (r, y) is +1 where r AND y has an even number of ones.
    Raises PlanError if a number is out of range.
    """

    epsilon: float
    values: int

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        _check_values(self.values)

    @property
    def order(self) -> int:
        """Return K."""
        return 1 << self.values.bit_length()

    @cached_property
    def _truth(self) -> int:
        return truth_threshold(self.epsilon)

    @property
    def _contrast(self) -> float:
        return (2 * self._truth - WHOLE) / WHOLE

    def respond(self, values: ArrayLike, words: Words) -> Values:
        """Return a report, 0 to K - 1, for each value, 0 to k - 1."""
        rows = _checked(values, self.values, "value") + 1
        columns = words.below("hadamard response", self.order, rows.size)
        wanted = words.events("hadamard response/truth", self._truth, rows.size)
        positive = np.bitwise_count(rows & columns) % 2 == 0
        # Turning the row's lowest one over pairs every column of +1 with one of -1: uniform on either side.
        return np.where(positive == wanted, columns, columns ^ (rows & -rows))

    def estimate(self, reports: ArrayLike) -> NDArray[np.float64]:
        """Return unbiased estimates of the share of every value, float64, shape (k,). Takes K log2(K) additions."""
        found = _checked(reports, self.order, "report", empty=False)
        sums = _hadamard(np.bincount(found, minlength=self.order))
        estimates: NDArray[np.float64] = sums[1 : self.values + 1] / found.size / self._contrast
        return estimates

    def variance(self, participants: int, share: float = 0.0) -> float:
        """Return the variance of the estimate of a value that this share of the participants has."""
        truth = self._truth / WHOLE
        return (share * 4 * truth * (1 - truth) + (1 - share)) / (participants * self._contrast**2)


def _hadamard(counts: Values) -> Values:
    """Multiply by Sylvester's matrix, in integers."""
    step, order = 1, counts.size
    while step < order:
        pairs = counts.reshape(-1, 2, step)
        counts = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(order)
        step *= 2
    return counts


def _check_values(values: int) -> None:
    if not 2 <= values <= MAX_VALUES:
        raise PlanError(f"a response is one of 2 to 2^30 values, not of {values}")


def _checked(values: ArrayLike, bound: int, what: str, empty: bool = True) -> Values:
    """Return integers of 0 to bound - 1, int64, shape (participants,). Raises DataError if they are something else."""
    given = np.asarray(values)
    if given.ndim != 1 or not (np.issubdtype(given.dtype, np.integer) or given.dtype == np.bool_ or not given.size):
        raise DataError(f"{what}s are one row of integers, not {given.dtype} of shape {given.shape}")
    if not given.size and not empty:
        raise DataError(f"nothing can be estimated from no {what}s")
    if given.size and not (given.min() >= 0 and given.max() < bound):
        raise DataError(f"a {what} is 0 to {bound - 1}; found {given.min()} to {given.max()}")
    return given.astype(np.int64)
