"""What a party sees of a query looks the same for any two inputs: uniform bits.

Every bit that a party receives is masked afresh in each query. For two very different inputs we count ones at every
place of all that it receives, over many queries, and compare the two samples with each other and with a fair coin by
chi-square, all places together. Shares are uniform whatever they open, so what both open is counted as well: words as
sums, planes by XOR, and each as the other, too; masked values are uniform under both.
False alarms: each of the 30 statistics is too large with probability 1e-6 if the protocol is right; seeds are fixed, so
a run that passes always passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.infer.fixed import Fixed
from tests.infer.models import dense, inputs, tiny_images
from tests.infer.sealed_parties import Sealed
from tests.infer.two_parties import classify

QUERIES = 60
GRAPH = tiny_images()
SMALL = dense(2, 2, 2)
BATCH = 64
"""Fills every word of every plane, so that all bits of all messages are masked ones."""

FALSE_ALARM_SIGMAS = 4.9
"""A normal variable is further out than this with probability 1e-6."""


def counts(x: Any, seed: int, form: str) -> list[Any]:
    """Count ones at each place of what each party receives in all rounds, and of what both open, over all queries.

    Of authenticated queries only what is received: their last rounds open nothing.
    """
    total: list[Any] = [0, 0, 0, 0] if form != "malicious" else [0, 0]
    sealed = Sealed(SMALL, Fixed(), insecure_seeded_rng(1)) if form == "malicious" else None
    for query in range(QUERIES):
        views: tuple[list[Any], list[Any]] = ([], [])
        if sealed is None:
            classify(GRAPH, x, "class", insecure_seeded_rng(seed + query), Fixed(), views, form)
        else:
            sealed.query(x, "class", str(seed + query), views=views)
        one, zero = (np.concatenate([message.reshape(-1) for message in view]) for view in views)
        seen = (one, zero, zero + one, zero ^ one) if form != "malicious" else (one, zero)
        for place, words in enumerate(seen):
            total[place] = total[place] + np.unpackbits(words.view(np.uint8)).astype(np.int64)
    return total


def compare(a: np.ndarray, b: np.ndarray) -> None:
    """Hold both samples to a fair coin, and to each other."""
    assert from_fair(a) < FALSE_ALARM_SIGMAS
    assert from_fair(b) < FALSE_ALARM_SIGMAS
    assert normal(float(((a - b) ** 2 / (QUERIES / 2)).sum()), a.size) < FALSE_ALARM_SIGMAS


def from_fair(count: np.ndarray) -> float:
    """Return how far counts are from those of a fair coin."""
    return normal(float(((count - QUERIES / 2) ** 2 / (QUERIES / 4)).sum()), count.size)


def normal(chi_square: float, degrees: int) -> float:
    """Return about how many standard deviations a chi-square value is from its mean (Wilson and Hilferty 1931)."""
    return float(((chi_square / degrees) ** (1 / 3) - 1 + 2 / (9 * degrees)) / np.sqrt(2 / (9 * degrees)))


@pytest.mark.parametrize("form", ["boolean", "fss"])
def test_views_on_two_inputs_have_the_same_distribution(form: str) -> None:
    zeros, large = np.zeros((BATCH, 1, 6, 6), np.float32), 50 * np.abs(inputs(GRAPH, BATCH))
    for a, b in zip(counts(zeros, 0, form), counts(large, QUERIES, form), strict=True):
        assert a.size == b.size > 100_000
        compare(a, b)


def test_views_of_authenticated_queries_have_the_same_distribution() -> None:
    """Openings, their upper halves, commitments and nonces."""
    zeros, large = np.zeros((BATCH, 2), np.float32), 50 * np.abs(inputs(SMALL, BATCH))
    for a, b in zip(counts(zeros, 0, "malicious"), counts(large, QUERIES, "malicious"), strict=True):
        assert a.size == b.size > 50_000
        compare(a, b)


def test_the_check_sees_one_word_in_a_thousand_that_is_not_masked() -> None:
    rng = insecure_seeded_rng(1)
    count = np.zeros(64_000, np.int64)
    for _ in range(QUERIES):
        words = np.frombuffer(rng.bytes(8000), np.uint64).copy()
        words[7] = 12345
        count += np.unpackbits(words.view(np.uint8))
    assert from_fair(count) > FALSE_ALARM_SIGMAS
