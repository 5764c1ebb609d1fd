"""From opened sums to one mean update: added up, or (for a robust rule) one by one, with those left out that can't be.

What a group's mean may be, honest members only: as long as the clip, and what rounding and noise add to that. The check
is of the mean as it travelled, before it is decompressed: what a liar added is seen there, whichever way it lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ridotto.core.fixedpoint import IntVector
from ridotto.core.vector import Vector
from ridotto.errors import DataError
from ridotto.learn.robust.groups import deviation_of, exceeding, honest_limit
from ridotto.privacy.noise.words import Words
from ridotto.rounds.pipeline import Pipeline, RoundSum
from ridotto.rounds.plan import CentralGaussian, Committee
from ridotto.rounds.totals import add_up

FALSE_ALARM = 2.0**-40
"""Probability that an honest group is left out because noise and rounding made its mean too long."""

SHORT_WEIGHT = "its weight is not what its members count for"

WordsFor = Callable[[int], Words | None]
"""Number of a sum -> secret words for the coordinator's noise on it; None without such noise."""


@dataclass(frozen=True)
class Combined:
    """Hold what a round's sums make together. excluded: number of a sum -> why it was left out."""

    sum: RoundSum
    excluded: Mapping[int, str]


def added_up(
    pipeline: Pipeline, totals: Sequence[IntVector], words: WordsFor, seed: bytes, expected: float | None
) -> Combined:
    """Decode the sum of all totals. Raises DataError as `Pipeline.decode`."""
    return Combined(pipeline.decode(pipeline.add_central_noise(add_up(totals), words(0)), seed, expected), {})


def by_rule(
    pipeline: Pipeline, totals: Sequence[IntVector], words: WordsFor, seed: bytes, root: Vector | None
) -> Combined:
    """Decode every total by itself and combine the means by the plan's rule.

    Groups count by their members, never by the weight that they claim. root: the server's own update, for a rule that
    needs one. Raises DataError if too few sums are there or left, or as `Rule.combine` does.
    """
    robust = pipeline.plan.robust
    if robust is None:
        raise DataError("the plan has no robust rule")
    if len(totals) < pipeline.plan.fewest_sums:
        raise DataError(
            f"TOO_FEW: {len(totals)} sums were opened, and the promise of {robust.build().name} is for at least "
            f"{pipeline.plan.fewest_sums}"
        )
    found: dict[int, str] = {}
    sums: list[RoundSum | None] = []
    for number, total in enumerate(totals):
        try:
            sums.append(pipeline.decode(pipeline.add_central_noise(total, words(number)), seed))
        except DataError as error:
            # Lanes that make no sense are a lie like any other, and cost its group only.
            sums.append(None)
            found[number] = str(error)
    if not robust.individual or pipeline.plan.clip is not None:
        found |= _too_long(pipeline, sums)
    nothing = np.zeros(pipeline.parameters, np.float32)
    means = np.stack([nothing if part is None else part.mean for part in sums])
    weights = np.array([1 if part is None else part.participants for part in sums], np.float64)
    combined = robust.build().combine(means, weights, root, found)
    # What a rule chose among honest sums, such as one of Krum's, is no fewer than were there to choose from.
    heard = [part for number, part in enumerate(sums) if part is not None and number not in found]
    participants = sum(part.participants for part in heard)
    if participants < pipeline.plan.quorum:
        raise DataError(
            f"TOO_FEW: {participants} contributions are left after {len(found)} sums were found to be lies, "
            f"{pipeline.plan.quorum} are needed"
        )
    return Combined(_joined(heard, combined.mean, participants), combined.reasons)


def _too_long(pipeline: Pipeline, sums: Sequence[RoundSum | None]) -> dict[int, str]:
    """Return the sums that honest members can't have made, and why."""
    there = [(number, part) for number, part in enumerate(sums) if part is not None]
    if not there:
        return {}
    limits = [_limit(pipeline, part) for _, part in there]
    longer = exceeding(np.stack([part.encoded for _, part in there]), limits)
    found = {there[place][0]: why for place, why in longer.items()}
    # Everybody counts once in plans with a rule; another weight would choose its own limit.
    return {number: SHORT_WEIGHT for number, part in there if part.examples != part.participants} | found


def _limit(pipeline: Pipeline, part: RoundSum) -> float:
    """Return how long the mean of so many honest members may be: by their number, never by what they claim."""
    encoding, noise = pipeline.encoding, pipeline.noise
    unit = encoding.fixed.resolution / part.participants
    spread = 0.0
    if noise is not None:
        spread = noise.sigma * math.sqrt(_draws(pipeline, part)) * unit
    deviation = deviation_of(part.participants, unit, spread)
    return honest_limit(encoding.clip, encoding.compressed, deviation, FALSE_ALARM)


def _draws(pipeline: Pipeline, part: RoundSum) -> int:
    """Return how many draws of noise are on a sum."""
    protocol, dp = pipeline.plan.protocol, pipeline.plan.dp
    if isinstance(dp, CentralGaussian):
        return 1
    return protocol.slots if isinstance(protocol, Committee) and dp is not None and dp.seated else part.participants


def _joined(parts: Sequence[RoundSum], mean: Vector, participants: int) -> RoundSum:
    """Return the sums that count as one, with the rule's mean."""
    examples = sum(part.examples for part in parts)
    clipped = [part.clipped for part in parts if part.clipped is not None]
    first = parts[0]
    return replace(
        first,
        mean=mean,
        examples=examples,
        participants=participants,
        metrics={name: sum(part.metrics[name] * part.examples for part in parts) / examples for name in first.metrics},
        saturated=sum(part.saturated for part in parts),
        clipped=sum(clipped) if clipped else None,
    )
