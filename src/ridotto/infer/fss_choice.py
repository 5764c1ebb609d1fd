"""Choose the form of comparison by the round-trip time between the parties.

Boolean comparisons take two rounds more a batch; keys (`fss`) take longer to evaluate. Both sides of this are measured:

    a round               half a round trip, and ROUND_S to make, carry and take a message
    a boolean comparison  BOOLEAN_S, once the batch is large
    a key                 BATCH_S for a batch, and KEY_S each

The form with the smaller sum over all batches of a query is chosen. Only time with the input at hand counts: keys are
also dealt more slowly, about 3 microseconds each, and each takes 416 bytes to both parties against about 20 to one.
Whoever pays for a query that was not prepared ahead passes `dealt=True`, and that is added.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

from ridotto.infer.argmax import Argmax
from ridotto.infer.compare import Form
from ridotto.infer.max_pool import MaxPool
from ridotto.infer.program import Plan, compile_plan
from ridotto.infer.relu import Relu
from ridotto.infer.smooth import Smooth
from ridotto.infer.softmax import Softmax

Choice: TypeAlias = Form | Literal["auto"]
"""What a user asks for."""

ROUNDS_SAVED = 2
"""A batch of boolean comparisons takes so many rounds, one of keys none."""

# Measured on one core of a server of 2021 and rounded; between machines only their ratio to a round matters.
ROUND_S = 4e-5
BOOLEAN_S = 2e-8
KEY_S = 6e-7
BATCH_S = 4e-4
DEALT_S = 3e-6


def choose(plan: Plan, round_trip_s: float, *, dealt: bool = False) -> Form:
    """Return the faster form for a plan, whatever form it names.

    round_trip_s: between the two parties; `Answer.round_trip_s` tells it after a query. dealt: whether the dealer's
    work counts too.
    Raises PlanError as `compile_plan` does.
    """
    boolean = keys = 0.0
    for count in batches(plan):
        boolean += ROUNDS_SAVED * (round_trip_s / 2 + ROUND_S) + count * BOOLEAN_S
        keys += BATCH_S + count * (KEY_S + (DEALT_S if dealt else 0.0))
    return "fss" if keys < boolean else "boolean"


def batches(plan: Plan) -> list[int]:
    """Return how many comparisons each batch of a plan's program has, in order."""
    return [count for step in compile_plan(plan).steps for count in _batches_of(step)]


def _batches_of(step: object) -> list[int]:
    match step:
        case Relu() | Argmax() | Smooth():
            return [step.comparison.count]
        case Softmax():
            return [count for part in (step.largest, step.powers, step.inverse) for count in _batches_of(part)]
        case MaxPool():
            counts, players = [], math.prod(step.kernel)
            while players > 1:
                counts.append(players // 2 * math.prod(step.output))
                players -= players // 2
            return counts
        case _:
            return []
