"""What each mechanism of differential privacy asks of the rest of a plan, and how much of the ring it takes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ridotto.errors import PlanError
from ridotto.learn.algorithms import LocalAlgorithm
from ridotto.privacy.noise.banded import growth
from ridotto.privacy.noise.skellam import MAX_VARIANCE
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.headroom import check_share, most_units, units_with_noise
from ridotto.rounds.protocol_settings import Committee
from ridotto.rounds.settings import BandedGaussian, DistributedSkellam, Mechanism, PrivUnit

if TYPE_CHECKING:
    from ridotto.rounds.plan import Plan

ANSWERS = 1
"""Steps of a metric's lane under differential privacy: one bit."""


def check_private(plan: Plan, dp: Mechanism, chosen: LocalAlgorithm) -> None:
    """Refuse what the mechanism does not cover. Raises PlanError."""
    if plan.clip is None:
        raise PlanError("dp needs a clip: noise hides a participant only if its update has a largest norm")
    if plan.max_examples != 1:
        raise PlanError(
            "dp counts everybody alike: numbers of examples would travel without noise. "
            f"Say max_examples = 1 in the plan; it is {plan.max_examples}"
        )
    if plan.metrics and dp.metrics_epsilon is None:
        raise PlanError(
            f"metrics would travel without noise: leave {', '.join(plan.metrics)} out of a plan with dp, and "
            "measure the model on test data, or say metrics_epsilon in dp, and participants answer with one bit each"
        )
    if dp.metrics_epsilon is not None and not plan.metrics:
        raise PlanError("metrics_epsilon is for plans with metrics, and this one has none")
    if not chosen.plain or chosen.sums != 1:
        raise PlanError(
            f"{chosen.name} sums more than clipped updates, which dp does not cover yet: take fedavg or fedprox"
        )
    if dp.seated and not isinstance(plan.protocol, Committee):
        raise PlanError(
            f"{_name(dp)} is noise that the helpers of committee add, and the protocol is {plan.protocol_name}: take "
            "protocol committee, or distributed-gaussian"
        )
    if isinstance(plan.clip, AdaptiveClip):
        if dp.local or isinstance(dp, BandedGaussian):
            raise PlanError(f"{_name(dp)} needs a clip that stays: give it as a number, or take another mechanism")
        if dp.multiplier:
            plan.clip.bit_weight(dp.multiplier, plan.summed)
    if isinstance(dp, BandedGaussian) and plan.compress:
        raise PlanError(
            "compression mixes entries anew in every round, and noise of banded-gaussian cancels only where the one "
            "of the rounds before is: leave compress out"
        )
    if isinstance(dp, BandedGaussian | PrivUnit) and plan.robust is not None:
        raise PlanError(f"{_name(dp)} does not go with a robust rule yet: leave robust out, or take another mechanism")


def check_room(plan: Plan, dp: Mechanism) -> None:
    """Refuse a ring that has no room for sums with their noise, or none for a share. Raises PlanError."""
    units = min(units_with_noise(plan.bits, plan.summed, plan.multiplier, plan.spread), finest_units(plan))
    check_noise(plan, dp, plan.multiplier * units / math.sqrt(plan.shares))


def check_noise(plan: Plan, dp: Mechanism, sigma: float) -> None:
    """Refuse noise of one draw that the ring is too coarse for. sigma: in units. Raises PlanError."""
    # What is known of Skellam noise holds for any share; of a report, the ring only rounds what is private already.
    if dp.noise_multiplier is not None and not isinstance(dp, DistributedSkellam | PrivUnit):
        check_share(plan.bits, sigma)


def finest_units(plan: Plan) -> float:
    """Return the most units of the ring that the bound of a contribution may be, so that samplers keep up."""
    most = most_units(plan.multiplier)
    if isinstance(plan.dp, DistributedSkellam) and plan.multiplier:
        # A little less: sigma is rounded up.
        most = min(most, math.sqrt(MAX_VARIANCE * plan.shares) / plan.multiplier * (1 - 2.0**-40))
    return most


def spread_of(plan: Plan) -> float:
    """Return the noise on a sum of everybody, over the bound of one contribution."""
    if plan.dp is None:
        return 0.0
    if plan.dp.shared:
        return plan.multiplier * math.sqrt(plan.summed / plan.honest)
    if plan.dp.local:
        return plan.multiplier * math.sqrt(plan.summed)
    if isinstance(plan.protocol, Committee) and plan.dp.seated:
        # Every session's sum has its own noise of every slot, and without a rule all sums are added.
        sums = plan.sessions_of(plan.cohort) if plan.robust is None else 1
        return plan.multiplier * math.sqrt(plan.protocol.slots * sums)
    return plan.multiplier * (growth(plan.dp.bands) if isinstance(plan.dp, BandedGaussian) else 1.0)


def _name(dp: Mechanism) -> str:
    return str(dp.__struct_config__.tag)
