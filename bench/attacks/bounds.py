"""Lower bounds on epsilon from what an attack achieved.

one_run_bound     from many canaries in one run of the mechanism: holds however they depend on each other
rates_bound       from true and false positive rates of independent trials, by Clopper and Pearson's intervals

Source: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023, theorem 5.2; Clopper,
Pearson, "The Use of Confidence or Fiducial Limits", Biometrika 1934; Jagielski, Ullman, Oprea, "Auditing Differentially
Private Machine Learning", NeurIPS 2020, for the step from rates to epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np

LARGEST_EPSILON = 50.0
"""No attack with fewer than e^50 trials can show more."""


def binomial(trials: int, probability: float) -> np.ndarray:
    """Return the probability of 0, 1, ..., `trials` successes, float64, shape (trials + 1,)."""
    if probability in (0.0, 1.0):
        certain = np.zeros(trials + 1)
        certain[trials if probability else 0] = 1.0
        return certain
    k = np.arange(trials + 1)
    found: np.ndarray = np.exp(log_ways(trials) + k * math.log(probability) + (trials - k) * math.log1p(-probability))
    return found


@cache
def log_ways(trials: int) -> np.ndarray:
    """Return the logarithms of the binomial coefficients of `trials`, shape (trials + 1,)."""
    factorials = np.array([math.lgamma(n + 1) for n in range(trials + 1)])
    found: np.ndarray = factorials[-1] - factorials - factorials[::-1]
    return found


def one_run_p_value(canaries: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """Return how probable so many right guesses or more are, if the mechanism is (epsilon, delta)-private.

    canaries (m): each in or out by a fair coin of its own. guesses (r): how many were guessed; the others were left
    open. right (v): correct ones.
    """
    found = binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    beta = float(found[right:].sum())
    # P[v > W >= v - i] / i, for i = 1, 2, ...
    below = np.cumsum(found[:right][::-1])
    steps = np.arange(1, right + 1)
    alpha = float((below / steps)[:canaries].max()) if right else 0.0
    return min(1.0, beta + 2 * canaries * delta * alpha)


def one_run_bound(canaries: int, guesses: int, right: int, delta: float, confidence: float = 0.95) -> float:
    """Return the largest epsilon that is refuted: a lower bound on the true one, wrong with 1 - confidence at most."""

    def refuted(epsilon: float) -> bool:
        return one_run_p_value(canaries, guesses, right, epsilon, delta) <= 1 - confidence

    return largest(refuted)


def interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a probability: each end is wrong with (1 - confidence) / 2 at most."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else 1 - _rate(trials - successes, trials, tail)
    return low, 1.0 if successes == trials else _rate(successes, trials, tail)


def rates_bound(true: tuple[int, int], false: tuple[int, int], delta: float, confidence: float = 0.95) -> float:
    """Return a lower bound on epsilon from (positives, trials) among members, and among those who are none.

    TPR <= exp(epsilon) FPR + delta, and the same for the negatives. Trials must be independent of each other.
    """
    true_low, false_high = interval(*true, confidence)[0], interval(*false, confidence)[1]
    ratios = ((true_low - delta) / false_high, (1 - false_high - delta) / (1 - true_low))
    return max([0.0, *(math.log(ratio) for ratio in ratios if ratio > 0)])


def largest(holds: Callable[[float], bool]) -> float:
    """Return the largest epsilon for which something holds that stops to hold once; 0 if it never does."""
    low, high = 0.0, LARGEST_EPSILON
    if not holds(low):
        return 0.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _rate(successes: int, trials: int, tail: float) -> float:
    """Return the rate at which so few successes, or fewer, have the probability `tail`."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        few = float(binomial(trials, middle)[: successes + 1].sum())
        low, high = (middle, high) if few > tail else (low, middle)
    return high
