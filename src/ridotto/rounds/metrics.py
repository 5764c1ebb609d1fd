"""Metrics of a plan as whole numbers in lanes: exactly, or under differential privacy as one random bit each.

A metric m in [-B, B], a mean over a participant's examples, travels as `round((m + B) / 2B * 2^20) * weight`, so its
weighted mean comes out of two sums and nobody's own value is ever in clear.

Under differential privacy a participant rounds (m + B) / 2B at random to 0 or 1 and answers with that bit by
randomised response. The answer is epsilon-private by itself, whoever sees it: any two values of the metric give either
answer with probabilities that differ by a factor of at most e^epsilon. The mean is unbiased, so with few participants
it may lie outside [-B, B]; its deviation is about B / (tanh(epsilon / 2) sqrt(n)).
Source: Duchi, Jordan, Wainwright, "Local Privacy and Statistical Minimax Rates", FOCS 2013, section on means in one
dimension; Warner, "Randomized Response", JASA 1965.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ridotto.errors import DataError
from ridotto.privacy.local.responses import WHOLE, BinaryResponse
from ridotto.privacy.noise.words import Words

METRIC_STEPS = 1 << 20
"""Resolution of a metric: its range is cut into this many steps."""


def missing_metric(name: str, found: Iterable[str]) -> str:
    """Return what to tell whose training did not report a metric that the plan asks for."""
    return f"the plan asks for metric {name!r}; training reported {', '.join(sorted(found)) or 'none'}"


def steps_of(name: str, metrics: Mapping[str, float], bound: float) -> int:
    """Return a metric in steps, 0 to 2^20. Raises DataError if it is missing or no number."""
    return round(_share(name, metrics, bound) * METRIC_STEPS)


def from_steps(steps: int, weight: int, bound: float) -> float:
    """Return the weighted mean of a metric from the sum of steps times weights."""
    return (2 * steps / weight / METRIC_STEPS - 1) * bound


def answer_of(name: str, metrics: Mapping[str, float], bound: float, epsilon: float, words: Words) -> int:
    """Return a private answer, 0 or 1. words: secret, of this participant and attempt alone.

    Raises DataError as `steps_of` does.
    """
    own = words.child("metric", name)
    bit = own.events("rounding", round(_share(name, metrics, bound) * WHOLE), 1)
    return int(BinaryResponse(epsilon).respond(bit, own)[0])


def from_answers(ones: int, count: int, bound: float, epsilon: float) -> float:
    """Return the unbiased mean of a metric from how many of `count` answers were 1."""
    truth = BinaryResponse(epsilon).truth
    return (2 * (ones / count - (1 - truth)) / (2 * truth - 1) - 1) * bound


def _share(name: str, metrics: Mapping[str, float], bound: float) -> float:
    if name not in metrics:
        raise DataError(missing_metric(name, metrics))
    value = float(metrics[name])
    if not math.isfinite(value):
        raise DataError(f"metric {name!r} is {value}")
    return (min(max(value, -bound), bound) + bound) / (2 * bound)
