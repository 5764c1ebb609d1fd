"""Who shares masks with whom, and how many shares open a secret.

Complete graph (Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017):
everyone with everyone, in sessions of at most 128.

Sparse graph (Bell et al., "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead", CCS 2020,
"SecAgg+"): a Harary graph of degree k over a permutation that nobody knows before the keys are fixed.
Its limits: the parameters hold against a coordinator that lies to each neighbourhood, with drop-outs that happen
at random. They do *not* hold against one that chooses whom to drop after it has seen the graph; that needs the far
larger k of Bell et al., section 4. Nor against one that tries many key books with keys of its corrupt members until
the permutation suits it: 2^-40 is the chance per try. Hence the complete graph is the default, and a plan for a
sparse one has to say that it knows (`Risk.SPARSE_GRAPH`).

All tails are those of the hypergeometric distribution, by logarithms of the gamma function; they are compared with
thresholds 10 orders of magnitude away from where rounding could matter. The plan of a hostile coordinator is searched
too, so the search has to end soon even where there is no such graph: all tails of one degree come out of one pass.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import PlanError

SECURITY_BITS = 40
"""P[some participant's neighbourhood is corrupt enough to open both of its secrets] < 2^-40 (Bell et al.'s sigma)."""

CORRECTNESS_BITS = 30
"""P[some participant's secret can't be opened because too many neighbours left] < 2^-30 (Bell et al.'s eta)."""


def complete_threshold(present: int, corrupt: int) -> int:
    """Return t for a complete graph: `floor((present + corrupt) / 2) + 1`, of `present` holders, the owner included.

    present: participants in the key book. corrupt: how many of them may be corrupt. Two disjoint groups of honest
    holders of t - corrupt each do not exist then, so no secret pair of one participant can be opened.
    Source: Bonawitz et al., section 6 (active adversaries); derivation in docs/protocols/pairwise.md.
    """
    return (present + corrupt) // 2 + 1


def complete_holders(present: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Return for each participant who holds its shares: everyone, itself included."""
    everyone = tuple(sorted(present))
    return dict.fromkeys(everyone, everyone)


def sparse_holders(present: Sequence[int], degree: int, seed: bytes) -> dict[int, tuple[int, ...]]:
    """Return for each participant its `degree` neighbours in a Harary graph over a permutation drawn from `seed`.

    present: indices, more than `degree` of them. degree: even. seed: fixed only after everybody's keys are.
    Raises PlanError if the degree is odd or too large.
    """
    if degree % 2 or not 0 < degree < len(present):
        raise PlanError(f"a sparse graph over {len(present)} needs an even degree below that, not {degree}")
    circle = sorted(present, key=lambda index: hashlib.sha256(seed + index.to_bytes(4, "big")).digest())
    steps = [step for step in range(-degree // 2, degree // 2 + 1) if step]
    return {
        owner: tuple(sorted(circle[(place + step) % len(circle)] for step in steps))
        for place, owner in enumerate(circle)
    }


@lru_cache(maxsize=1024)
def sparse_parameters(participants: int, corrupt: int, drop_out: int) -> tuple[int, int]:
    """Return the smallest even degree k, and a threshold t, for a sparse graph.

    participants: n. corrupt, drop_out: how many of them are corrupt and leave at random. For n participants at once,
    a coordinator that lies per neighbourhood can open both secrets of one of them with probability below 2^-40
    (2t - k rule), and a secret can't be opened with probability below 2^-30.
    Raises PlanError if there is no such graph: the federation is too small for one.
    Source: the tails of Bell et al., section 3, with the 2t - k rule of docs/protocols/pairwise.md.
    """
    for degree in range(2, participants, 2):
        threshold = _safe_threshold(participants, corrupt, degree)
        if threshold <= degree and _loss(participants, drop_out, degree, threshold) < -CORRECTNESS_BITS:
            return degree, threshold
    raise PlanError(
        f"no sparse graph over {participants} tolerates {corrupt} corrupt and {drop_out} leaving: "
        "use the complete graph"
    )


def sparse_is_safe(participants: int, corrupt: int, degree: int, threshold: int) -> bool:
    """Tell whether (degree, threshold) keeps both secrets of everyone apart with probability 1 - 2^-40."""
    return threshold >= _safe_threshold(participants, corrupt, degree)


def _safe_threshold(participants: int, corrupt: int, degree: int) -> int:
    """Return the smallest t such that P[some neighbourhood has >= 2t - k corrupt] < 2^-40."""
    tails = _tails(participants - 1, corrupt, degree) + math.log2(participants)
    for threshold in range(degree // 2 + 1, degree + 1):
        if tails[2 * threshold - degree] < -SECURITY_BITS:
            return threshold
    return degree + 1


def _loss(participants: int, drop_out: int, degree: int, threshold: int) -> float:
    """Return log2 P[some participant has more than degree - threshold neighbours that left]."""
    tails = _tails(participants - 1, drop_out, degree)
    return float(tails[degree - threshold + 1]) + math.log2(participants)


def _tails(population: int, marked: int, drawn: int) -> NDArray[np.float64]:
    """Return log2 P[X >= j] for X hypergeometric, for every j from 0 to `drawn` + 1; -inf where it is impossible."""
    logs = _log_factorials(population)
    low, high = max(0, drawn - (population - marked)), min(drawn, marked)
    hits = np.arange(low, high + 1)
    ways = logs[marked] - logs[hits] - logs[marked - hits]
    ways += logs[population - marked] - logs[drawn - hits] - logs[population - marked - drawn + hits]
    ways -= logs[population] - logs[drawn] - logs[population - drawn]
    tails = np.full(drawn + 2, -np.inf)
    tails[low : high + 1] = np.logaddexp.accumulate(ways[::-1])[::-1]
    tails[:low] = tails[low]
    return tails / math.log(2)


@lru_cache(maxsize=4)
def _log_factorials(largest: int) -> NDArray[np.float64]:
    return np.array([math.lgamma(n + 1) for n in range(largest + 1)])
