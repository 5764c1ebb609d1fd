"""Robust by size: nobody's update may be longer than it should be.

These rules do not look at directions. What they give is a bound on how far one liar can move the mean, not a result
close to the honest one whatever happens: many liars that agree, each within the bound, still move it far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import DataError
from ridotto.learn.robust.rule import Chosen, Rows, Rule, require_above, weighted_mean

TOO_LONG = "its update is longer than the bound"
MUCH_TOO_LONG = "its update is much longer than the median one"

ROUNDING = 1.0 - 2.0**-22
"""Scale by this much less than exactly: it outweighs rounding entries to float32 (2^-24)."""

SLACK = 1.0 + 2.0**-22
"""Honest participants clip to the bound; a rounding error above it is no lie."""


def mean() -> Rule:
    """Average by weight whatever is given: for groups, after `groups.exceeding` has left out those that are too long.

    Breakdown point: none; each liar moves the mean by as much as its group may be long, times its share of the weight.
    """
    promise = "One liar moves the mean by no more than its group's share of the weight times twice the largest norm."
    return Rule("mean", False, _one_honest, lambda rows: Chosen(weighted_mean(rows), {}), promise)


def norm_bound(bound: float) -> Rule:
    """Scale every longer update down to an l2 norm of `bound`, and average by weight.

    bound: > 0. Breakdown point: none in the usual sense; each liar moves the mean by at most
    2 * bound * its weight / summed weight (see `groups.influence`), and f of them by f times that.
    It needs no individual updates *if participants do it themselves*, as a plan's `clip` has them do: under masks
    the bound holds for honest participants only, because nobody sees whether a liar has clipped.
    Raises PlanError if bound is no number above 0.
    Source: Sun et al., "Can You Really Backdoor Federated Learning?", 2019, section 4 (norm thresholding).
    """
    limit = require_above("norm_bound", "bound", bound)

    def choose(rows: Rows) -> Chosen:
        norms = np.sqrt(rows.squares())
        factors = np.where(norms <= limit, 1.0, limit / np.maximum(norms, limit) * ROUNDING)
        return Chosen(rows.mean(rows.weights / rows.weights.sum() * factors), {})

    promise = f"One liar moves the mean by at most {2 * limit:g} times its share of the weight."
    return Rule("norm_bound", False, _one_honest, choose, promise)


def norm_filter(bound: float) -> Rule:
    """Leave out every update whose l2 norm is above `bound`, and average the others by weight.

    bound: > 0; at least what honest participants clip to. Breakdown point: as `norm_bound`.
    Raises PlanError if bound is no number above 0. Combining raises DataError if every update is longer.
    Source: the threshold of Sun et al. 2019, section 4, used to refuse instead of to scale.
    """
    limit = require_above("norm_filter", "bound", bound)

    def choose(rows: Rows) -> Chosen:
        return _keep(rows, np.sqrt(rows.squares()) <= limit * SLACK, TOO_LONG)

    promise = f"One liar moves the mean by at most {2 * limit:g} times its share of the weight."
    return Rule("norm_filter", True, _one_honest, choose, promise)


def relative_norm_filter(factor: float) -> Rule:
    """Leave out every update whose l2 norm is above `factor` times the median norm, and average the others by weight.

    factor: > 1. Heads are counted for the median. Breakdown point of the limit: 1/2; with n >= 2f + 1 it is at most
    `factor` times the longest honest norm, and at least `factor` times the shortest: with 1 < factor an honest update
    that is much longer than the others is left out too.
    Raises PlanError if factor is no number above 1.
    Source: the threshold of Sun et al. 2019, section 4, taken from the median norm of the round.
    """
    times = require_above("relative_norm_filter", "factor", factor, floor=1.0)

    def choose(rows: Rows) -> Chosen:
        norms = np.sqrt(rows.squares())
        return _keep(rows, norms <= times * float(np.median(norms)) * SLACK, MUCH_TOO_LONG)

    promise = f"No update counts that is longer than {times:g} times the longest honest one, with a minority of liars."
    return Rule("relative_norm_filter", True, lambda attackers: 2 * attackers + 1, choose, promise)


def _one_honest(attackers: int) -> int:
    return attackers + 1


def _keep(rows: Rows, good: NDArray[np.bool_], why: str) -> Chosen:
    dropped = {int(place): why for place in np.flatnonzero(~good)}
    if not dropped:
        return Chosen(weighted_mean(rows), {})
    if len(dropped) == rows.count:
        raise DataError(f"nothing is left to combine: of every participant, {why}")
    return Chosen(rows.mean_of(np.flatnonzero(good)), dropped)
