"""What the rounds of a plan cost in privacy: which event a round is, what is spent, and when there is none further.

Unit: a participant with all that it has. Neighbouring relation: zero-out (it contributes nothing, and everybody else
takes part as before), because rounds publish how many took part; replace-one where a uniform sample of a fixed size is
credited, because nothing is known of it under another relation. Whose trust: `Plan.trust`.

A round is charged whatever becomes of it: once participants were asked, somebody may have seen a noisy sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ridotto.core.vector import Layout
from ridotto.errors import LocalProtocolError, PlanError
from ridotto.privacy.account import Accountant, Cost, calibrate, cost
from ridotto.privacy.event import Budget, Event, Relation, Repeated, Sampled, Sampling
from ridotto.privacy.statement import PrivacyStatement, Unit
from ridotto.rounds.clipping import LARGEST_DEVIATION, AdaptiveClip
from ridotto.rounds.noise import noise_of
from ridotto.rounds.plan import CentralGaussian, Plan

NO_DP = "the plan has no dp: give it ridotto.DistributedGaussian or CentralGaussian, in a file a table [plan.dp]"

MOST_ROUNDS = 1_000_000
"""Beyond, nobody asks how long a budget lasts."""

COUNTED = (Sampling.POISSON, Sampling.FIXED_SIZE)
"""Draws that amplify, against those who don't learn who was drawn."""


@dataclass(frozen=True)
class Draw:
    """Say how the participants of every round are chosen.

    sampling, rate, size, population: as in `privacy.event.Sampled`. why: a sentence that says why nothing is credited,
    for draws without a known distribution.
    """

    sampling: Sampling = Sampling.NONE
    rate: float | None = None
    size: int | None = None
    population: int | None = None
    why: str = "No sampling is credited: everybody is taken to be in every round."

    @property
    def relation(self) -> Relation:
        """Return the neighbouring relation under which rounds with this draw are counted."""
        return Relation.REPLACE_ONE if self.sampling is Sampling.FIXED_SIZE else Relation.ZERO_OUT

    def of(self, event: Event) -> Event:
        """Return the event on a sample that was drawn like this."""
        if self.sampling not in COUNTED:
            return event
        return Sampled(event, self.sampling, self.rate, self.size, self.population)

    def __str__(self) -> str:
        if self.sampling is Sampling.POISSON:
            how = f"every participant joins a round by itself with probability {self.rate:g}"
        elif self.sampling is Sampling.FIXED_SIZE:
            how = f"a round draws {self.size} of {self.population} participants uniformly"
        else:
            return self.why
        hidden = "who was drawn or how many" if self.sampling is Sampling.POISSON else "who was drawn"
        return f"Sampling is credited: {how}, against those who see the models and don't learn {hidden}."


EVERYBODY = Draw()


def round_event(plan: Plan, size: int | Layout, draw: Draw = EVERYBODY) -> Event:
    """Return what one round is to an accountant; every opened session has the whole noise, and each unit is in one.

    size: d, or the model's layout. Raises PlanError for a plan without differential privacy or whose noise is not
    calibrated yet.
    """
    noise = noise_of(plan, size)
    if noise is None:
        raise PlanError(NO_DP)
    return draw.of(noise.event)


def calibrated(plan: Plan, rounds: int, size: int | Layout, draw: Draw = EVERYBODY) -> Plan:
    """Return the plan with as much noise as its epsilon takes over so many rounds, and not more.

    A plan with a noise multiplier, or without differential privacy, comes back as it is. size: d, or the model's
    layout. Raises PlanError if no noise is enough, or the ring has no room for it; MissingExtraError if the number
    takes dp-accounting.
    """
    if plan.dp is None or plan.dp.noise_multiplier is not None or plan.dp.epsilon is None:
        return plan
    loose = _with_loose_bits(plan)

    def event(noise: float) -> Event:
        return Repeated(round_event(with_noise(loose, noise), size, draw), rounds)

    return with_noise(plan, calibrate(plan.dp.epsilon, plan.dp.delta, event, draw.relation))


def _with_loose_bits(plan: Plan) -> Plan:
    """Let the bits of an adaptive clip get any noise while it is searched for: their weight is no part of the cost."""
    if not isinstance(plan.clip, AdaptiveClip):
        return plan
    return msgspec.structs.replace(plan, clip=msgspec.structs.replace(plan.clip, deviation=LARGEST_DEVIATION))


def with_noise(plan: Plan, noise_multiplier: float) -> Plan:
    """Return a plan with differential privacy with another noise multiplier."""
    if plan.dp is None:
        raise PlanError(NO_DP)
    return msgspec.structs.replace(plan, dp=msgspec.structs.replace(plan.dp, noise_multiplier=noise_multiplier))


def with_epsilon(plan: Plan, epsilon: float) -> Plan:
    """Return a plan with differential privacy whose noise is yet to be worked out, for this epsilon."""
    if plan.dp is None:
        raise PlanError(NO_DP)
    return msgspec.structs.replace(plan, dp=msgspec.structs.replace(plan.dp, noise_multiplier=None, epsilon=epsilon))


class PrivacyAccount:
    """Keep the account of a training: what was spent, what is left, whether there may be a further round.

    plan: with differential privacy, calibrated. size: d, or the model's layout. planned: rounds in all. spent: of an
    account that this one goes on from (its `spent`). Raises PlanError if not even one round fits into the budget,
    MissingExtraError if numbers take dp-accounting.
    """

    def __init__(
        self,
        plan: Plan,
        size: int | Layout,
        draw: Draw = EVERYBODY,
        planned: int | None = None,
        spent: Iterable[Repeated] = (),
    ) -> None:
        if plan.dp is None:
            raise PlanError(NO_DP)
        self._plan, self._dp, self._draw, self._planned = plan, plan.dp, draw, planned
        self.event = round_event(plan, size, draw)
        self._known = round_event(plan, size)
        self._accountant = Accountant(draw.relation, spent)
        self.rounds = sum(repeated.times for repeated in self._accountant.spent)
        self._budget = None if plan.dp.epsilon is None else Budget(plan.dp.epsilon, plan.dp.delta)
        first = self._accountant.cost_with(self.event, plan.dp.delta).epsilon
        if not self.rounds and not self.fits():
            raise PlanError(
                f"the first round would already spend epsilon {first:.4g} of {self._dp.epsilon:g}: "
                "raise noise_multiplier or epsilon, or leave noise_multiplier out and it is worked out"
            )

    @property
    def delta(self) -> float:
        """Return the delta at which epsilon is counted."""
        return self._dp.delta

    @property
    def spent(self) -> tuple[Repeated, ...]:
        """Return what happened so far, to be stored."""
        return self._accountant.spent

    @property
    def cost(self) -> Cost:
        """Return what was spent so far, with the method and the accountant's notes."""
        return self._accountant.cost(self._dp.delta)

    @property
    def left(self) -> float | None:
        """Return the epsilon that may still be spent; None without a budget."""
        return None if self._budget is None else max(0.0, self._budget.epsilon - self.cost.epsilon)

    def fits(self, more: int = 1) -> bool:
        """Say whether so many more rounds fit into the budget; always, without one."""
        if self._budget is None:
            return True
        return self._accountant.cost_with(self.event, self._budget.delta, more).epsilon <= self._budget.epsilon

    def charge(self) -> None:
        """Spend a round, before anything that came out of it is shown.

        Raises LocalProtocolError if that would overspend: the caller must have looked.
        """
        if not self.fits():
            raise LocalProtocolError("a round was begun that the privacy budget has no room for")
        self._accountant.spend(self.event)
        self.rounds += 1

    def why_stopped(self) -> str:
        """Say why there is no further round."""
        after = self._accountant.cost_with(self.event, self._dp.delta).epsilon
        return (
            f"the privacy budget is spent: epsilon {self.cost.epsilon:.4f} of {self._dp.epsilon:g} after "
            f"{self.rounds} rounds, and one more would make it {after:.4f}"
        )

    def statement(self) -> PrivacyStatement:
        """Say what was spent and everything that it depends on."""
        spent, plan = self.cost, self._plan
        central = isinstance(plan.dp, CentralGaussian)
        return PrivacyStatement(
            epsilon=spent.epsilon,
            delta=self._dp.delta,
            budget=self._dp.epsilon,
            rounds=self.rounds,
            planned_rounds=None if self._planned is None else max(self._planned, self.rounds),
            unit=Unit.PARTICIPANT,
            relation=spent.relation,
            sampling=str(self._draw),
            mechanism="discrete Gaussian noise, "
            + ("added by the coordinator" if central else "a share of it added by every participant"),
            clip=plan.clip_norm,
            noise_multiplier=self._dp.noise_multiplier,
            trust=plan.trust,
            method=spent.method,
            notes=(*spent.notes, *self._without_credit()),
        )

    def _without_credit(self) -> tuple[str, ...]:
        """Say what the same noise costs against somebody who knows who was asked."""
        if self._draw.sampling not in COUNTED or not self.rounds:
            return ()
        known = cost(Repeated(self._known, self.rounds), self._dp.delta, Relation.ZERO_OUT).epsilon
        number = "infinite" if math.isinf(known) else f"{math.ceil(known * 1000) / 1000:g}"
        return (
            f"Against those who know who took part: epsilon {number} ({Relation.ZERO_OUT}), for a participant that was "
            "in every round.",
        )


@dataclass(frozen=True)
class Point:
    """Say what so many rounds cost. known: against those who know who took part, under zero-out."""

    rounds: int
    epsilon: float
    known: float


@dataclass(frozen=True)
class Forecast:
    """Hold what a plan would cost. points: by rounds, the planned ones last. statement: after all of them.

    affordable: how many rounds the budget has room for; None without one.
    """

    points: tuple[Point, ...]
    statement: PrivacyStatement
    affordable: int | None


def forecast(plan: Plan, size: int | Layout, draw: Draw, rounds: int, points: int = 12) -> Forecast:
    """Work out what so many rounds would cost, at about `points` numbers of rounds, without training.

    Raises as `PrivacyAccount` does, but for a budget that one round exceeds.
    """
    # Without the budget an account goes on; with it, the same account says how far it would.
    free = plan if plan.dp is None else msgspec.structs.replace(plan, dp=msgspec.structs.replace(plan.dp, epsilon=None))
    account, ledger = PrivacyAccount(free, size, draw), Accountant(draw.relation)
    delta = account.delta
    event, known = account.event, round_event(plan, size)
    found = [
        Point(
            number,
            ledger.cost_with(event, delta, number).epsilon,
            cost(Repeated(known, number), delta, Relation.ZERO_OUT).epsilon,
        )
        for number in _spread(rounds, points)
    ]
    after = PrivacyAccount(free, size, draw, rounds, (Repeated(event, rounds),)).statement()
    budget = None if plan.dp is None else plan.dp.epsilon
    affordable = None if budget is None else ledger.affordable(event, Budget(budget, delta), MOST_ROUNDS)
    return Forecast(tuple(found), msgspec.structs.replace(after, budget=budget), affordable)


def _spread(rounds: int, points: int) -> list[int]:
    """Return about so many numbers of rounds, from 1 to all of them, closer together where epsilon rises fast."""
    if rounds <= points:
        return list(range(1, rounds + 1))
    return sorted({max(1, round(rounds * (place / points) ** 2)) for place in range(1, points + 1)} | {1})
