"""What a round asks a participant to do, as its training loop sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.core.machine import COORDINATOR
from ridotto.core.rng import Rng
from ridotto.core.vector import Vector
from ridotto.errors import PeerProtocolError
from ridotto.learn.trainer import Correction
from ridotto.rounds.plan import Plan


@dataclass(frozen=True)
class Task:
    """Ask for training.

    round: from 1. rounds: how many there will be. vector: the received model, float32, shape (d,). rng: for this
    training; the same again if the process dies and the task comes back. correction: bends every local step, where the
    plan's algorithm asks for that.
    """

    round: int
    rounds: int
    vector: Vector = field(repr=False)
    rng: Rng = field(repr=False)
    correction: Correction | None = field(default=None, repr=False)


def correction_of(plan: Plan) -> Correction | None:
    """Return how a plan bends every local step; None if it does not.

    Raises PeerProtocolError for a plan that takes more than the model, gives more than an update, or has participants
    keep something from round to round: no coordinator serves one.
    """
    if plan.feeds_back:
        raise PeerProtocolError(COORDINATOR, "its plan has error feedback, which takes a simulation")
    chosen = plan.algorithm.build()
    if not chosen.plain or chosen.sums != 1 or chosen.stateful:
        raise PeerProtocolError(COORDINATOR, f"its plan's algorithm is {chosen.name}, which takes a simulation")
    return chosen.steer({}, None)
