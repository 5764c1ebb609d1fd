"""Numbers that a plan may hold, whatever its other choices are, and what its algorithm asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ridotto.errors import PlanError
from ridotto.rounds.clipping import AdaptiveClip, Clip, check_norm
from ridotto.rounds.protocol_settings import Seated
from ridotto.rounds.settings import Algorithm, Ideal, Optimiser, Pairwise

if TYPE_CHECKING:
    from ridotto.rounds.plan import Plan

LARGEST_METRIC = 1e6
LONGEST_METRIC_NAME = 64
LARGEST_RANGE = 2.0**52
"""Largest `value_range`: what an element can hold at most, see `core.fixedpoint`."""


def check_parts(plan: Plan) -> None:
    """Refuse parts that no plan is without, and that are something else. Raises PlanError."""
    kinds: dict[str, Any] = {"protocol": Ideal | Pairwise | Seated, "algorithm": Algorithm, "optimiser": Optimiser}
    for name, kind in kinds.items():
        value = getattr(plan, name)
        if not isinstance(value, kind):
            raise PlanError(f"{name} is one of the objects that docs/configuration.md lists, not {value!r}")


def check_numbers(plan: Plan) -> None:
    """Refuse numbers out of range. Raises PlanError."""
    for name in ("join_s", "train_s", "phase_s"):
        if not 0 < getattr(plan, name) <= 7 * 86400:
            raise PlanError(f"{name} is above 0 and at most a week, not {getattr(plan, name)}")
    if not 0 < plan.value_range <= LARGEST_RANGE:
        raise PlanError(f"value_range is above 0 and at most 2^52, not {plan.value_range}")
    if isinstance(plan.clip, float):
        check_norm(plan.clip)
    elif not isinstance(plan.clip, Clip | AdaptiveClip | None):
        raise PlanError(f"clip is a number, ridotto.Clip or ridotto.AdaptiveClip, not {plan.clip!r}")
    for name, bound in plan.metrics.items():
        # Names come back in records and on screens; unprintable ones could forge a line there.
        if not 1 <= len(name) <= LONGEST_METRIC_NAME or not name.isprintable():
            raise PlanError(f"a metric's name has 1 to {LONGEST_METRIC_NAME} printable characters, not {name[:80]!r}")
        if not 0 < bound <= LARGEST_METRIC:
            raise PlanError(f"the bound of metric {name!r} is above 0 and at most {LARGEST_METRIC:g}, not {bound}")
    if not 1 <= plan.max_examples <= 2**31:
        raise PlanError(f"max_examples is 1 to 2^31, not {plan.max_examples}")


def check_algorithm(plan: Plan) -> None:
    """Refuse an algorithm whose needs the plan does not meet. Raises PlanError."""
    chosen, step = plan.algorithm.build(), plan.optimiser.build()
    for name in chosen.metrics:
        if name not in plan.metrics:
            raise PlanError(
                f"{chosen.name} needs the mean of {name} over the participants: add metrics = {{ {name} = BOUND }} "
                "to the plan, with a BOUND that no participant exceeds"
            )
    if chosen.fixed_step and (step.name != "fedavg" or plan.optimiser.parameters.get("learning_rate", 1.0) != 1):
        raise PlanError(
            f"{chosen.name} says itself where the next model is, so its optimiser is fedavg with learning_rate 1; "
            f"found {step.name} with {plan.optimiser.parameters or 'its defaults'}"
        )
