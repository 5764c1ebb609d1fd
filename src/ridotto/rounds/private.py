"""What the rounds of a plan cost in privacy: which event a round is, what is spent, and when there is none further.

Unit: a participant with all that it has. Neighbouring relation: zero-out (it contributes nothing, and everybody else
takes part as before), because rounds publish how many took part; replace-one for local mechanisms, or where the plan
says so. A uniform sample of a fixed size is known to amplify under replace-one only: both relations are counted then,
and what is said is the smaller epsilon with its relation. Both statements are true at any time. Whose trust:
`Plan.trust`.

A round is charged whatever becomes of it: once participants were asked, somebody may have seen a noisy sum. Banded
noise is charged for participations: as many as one participant can have had so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from ridotto.core.vector import Layout
from ridotto.errors import LocalProtocolError, PlanError
from ridotto.privacy.account import Accountant, Cost, calibrate, cost
from ridotto.privacy.event import Budget, Composed, Event, PureEvent, Relation, Repeated, Sampled, Sampling
from ridotto.privacy.statement import PrivacyStatement, Unit
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.noise import noise_of
from ridotto.rounds.plan import Plan
from ridotto.rounds.risks import mechanism_of, metric_words
from ridotto.rounds.settings import BandedGaussian, Mechanism, PrivUnit

NO_DP = "the plan has no dp: give it ridotto.DistributedGaussian or CentralGaussian, in a file a table [plan.dp]"

UNSPACED = (
    "banded-gaussian needs somebody to keep every participant to {k} rounds at most, {s} or more apart, and nobody "
    "does that here: simulate it with a schedule or ridotto.sampling.Cyclic, or take another mechanism"
)

OWN_DEVICE = "No sampling is credited: what a participant sends is private by itself, for one that is in every round."
NO_SAMPLE = "No sampling is assumed or credited: nobody is in more than {k} rounds, nor in two less than {s} apart."
NO_CREDIT, NOT_CREDITED = "No credit for sampling: ", "No sampling is credited: "

MOST_ROUNDS = 1_000_000
"""Beyond, nobody asks how long a budget lasts."""

COUNTED = (Sampling.POISSON, Sampling.FIXED_SIZE)
"""Draws that amplify, against those who don't learn who was drawn."""


@dataclass(frozen=True)
class Draw:
    """Say how the participants of every round are chosen.

    sampling, rate, size, population: as in `privacy.event.Sampled`. why: a sentence that says why nothing is credited,
    for draws without a known distribution. spaced: (k, s) if whoever runs the rounds makes sure that nobody takes part
    in more than k of them, or in two that are less than s apart.
    """

    sampling: Sampling = Sampling.NONE
    rate: float | None = None
    size: int | None = None
    population: int | None = None
    why: str = "No sampling is credited: everybody is taken to be in every round."
    spaced: tuple[int, int] | None = None

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


def relations_of(plan: Plan, draw: Draw) -> tuple[Relation, ...]:
    """Return the neighbouring relations that rounds are counted under; the smallest epsilon of theirs is said."""
    if plan.dp is not None and plan.dp.local:
        return (Relation.REPLACE_ONE,)
    asked = getattr(plan.dp, "relation", None)
    if asked is not None:
        return (Relation(asked),)
    if draw.sampling is Sampling.FIXED_SIZE:
        return (Relation.ZERO_OUT, Relation.REPLACE_ONE)
    return (Relation.ZERO_OUT,)


def draw_for(plan: Plan, draw: Draw) -> Draw:
    """Return what a plan's mechanism makes of a draw: some know of no sampling.

    Raises PlanError if the mechanism needs participants to be kept apart, and nobody does.
    """
    if plan.dp is not None and plan.dp.local:
        return Draw(why=OWN_DEVICE)
    if isinstance(plan.dp, BandedGaussian):
        k, s = plan.dp.participations, plan.dp.separation
        if draw.spaced is None or draw.spaced[0] > k or (k > 1 and draw.spaced[1] < s):
            raise PlanError(UNSPACED.format(k=k, s=s))
        return Draw(why=NO_SAMPLE.format(k=k, s=s), spaced=draw.spaced)
    return draw


def round_event(plan: Plan, size: int | Layout, draw: Draw = EVERYBODY) -> Event:
    """Return what one round is to an accountant; every opened session has the whole noise, and each unit is in one.

    size: d, or the model's layout. Raises PlanError for a plan without differential privacy or whose noise is not
    calibrated yet, or that needs participants to be kept apart.
    """
    noise = noise_of(plan, size)
    if noise is None or plan.dp is None:
        raise PlanError(NO_DP)
    event = draw_for(plan, draw).of(noise.event)
    if plan.dp.metrics_epsilon is None:
        return event
    # An answer is private by itself, so no sampling is credited for it, and none is lost for the sum.
    answer = PureEvent(plan.dp.metrics_epsilon, Relation.REPLACE_ONE)
    return Composed((event, Repeated(answer, len(plan.metrics))))


def charges_after(plan: Plan, rounds: int) -> int:
    """Return how often a round's event is spent in so many rounds: in each, or for banded noise what one can be in."""
    if not isinstance(plan.dp, BandedGaussian):
        return rounds
    return min(plan.dp.participations, -(-rounds // plan.dp.separation))


def calibrated(plan: Plan, rounds: int, size: int | Layout, draw: Draw = EVERYBODY) -> Plan:
    """Return the plan with as much noise as its epsilon takes over so many rounds, and not more.

    A plan with a noise multiplier, or without differential privacy, comes back as it is. size: d, or the model's
    layout. Raises PlanError if no noise is enough, or the ring has no room for it; MissingExtraError if the number
    takes dp-accounting.
    """
    if plan.dp is None or plan.dp.noise_multiplier is not None or plan.dp.epsilon is None:
        return plan
    dp, times, most = plan.dp, charges_after(plan, rounds), _most_noise(plan)

    def event(noise: float) -> Event:
        # With more, the bits of an adaptive clip have no weight; what is found beyond is refused by the plan.
        return Repeated(round_event(with_noise(plan, min(noise, most)), size, draw), times)

    found, refused = [], []
    for relation in relations_of(plan, draw):
        try:
            found.append(calibrate(plan.dp.epsilon, dp.delta, event, relation))
        except PlanError as error:
            refused.append(error)
    if not found and math.isfinite(most):
        raise PlanError(
            f"epsilon {plan.dp.epsilon:g} takes more noise than {most:.4g} times the clip, the most that the bits of "
            "the adaptive clip have room beside: take a larger cohort, a larger deviation, fewer rounds or a clip that "
            "stays"
        ) from refused[0]
    if not found:
        raise refused[0]
    return with_noise(plan, min(found))


def _most_noise(plan: Plan) -> float:
    """Return the largest noise multiplier that the bits of an adaptive clip have room beside; infinite without one."""
    return plan.clip.most_noise(plan.summed) if isinstance(plan.clip, AdaptiveClip) else math.inf


def with_noise(plan: Plan, noise_multiplier: float) -> Plan:
    """Return a plan with differential privacy with another noise multiplier."""
    if plan.dp is None:
        raise PlanError(NO_DP)
    return msgspec.structs.replace(plan, dp=plan.dp.with_noise(noise_multiplier))


def with_epsilon(plan: Plan, epsilon: float) -> Plan:
    """Return a plan with differential privacy whose noise is yet to be worked out, for this epsilon."""
    if plan.dp is None:
        raise PlanError(NO_DP)
    return msgspec.structs.replace(plan, dp=plan.dp.with_epsilon(epsilon))


class PrivacyAccount:
    """Keep the account of a training: what was spent, what is left, whether there may be a further round.

    plan: with differential privacy, calibrated. size: d, or the model's layout. planned: rounds in all. spent, done: of
    an account that this one goes on from (its `spent`, and its `rounds`; None for as many as there are events).
    Raises PlanError if not even one round fits into the budget, MissingExtraError if numbers take dp-accounting.
    """

    def __init__(
        self,
        plan: Plan,
        size: int | Layout,
        draw: Draw = EVERYBODY,
        planned: int | None = None,
        spent: Iterable[Repeated] = (),
        done: int | None = None,
    ) -> None:
        if plan.dp is None:
            raise PlanError(NO_DP)
        self._plan, self._dp, self._planned = plan, plan.dp, planned
        self._draw = draw_for(plan, draw)
        self.event = round_event(plan, size, draw)
        self._known = round_event(plan, size, Draw(spaced=draw.spaced))
        events = tuple(spent)
        self._accountants = [Accountant(relation, events) for relation in relations_of(plan, draw)]
        self._charged = sum(repeated.times for repeated in events)
        self.rounds = self._charged if done is None else done
        self._budget = None if plan.dp.epsilon is None else Budget(plan.dp.epsilon, plan.dp.delta)
        if not self.rounds and not self.fits():
            report = isinstance(plan.dp, PrivUnit)
            change, name = ("lower", "report_epsilon") if report else ("raise", "noise_multiplier")
            raise PlanError(
                f"the first round would already spend epsilon {self.cost_after(1).epsilon:.4g} of "
                f"{self._dp.epsilon:g}: {change} {name} or raise epsilon, or leave {name} out and it is worked out"
            )

    @property
    def delta(self) -> float:
        """Return the delta at which epsilon is counted."""
        return self._dp.delta

    @property
    def spent(self) -> tuple[Repeated, ...]:
        """Return what happened so far, to be stored."""
        return self._accountants[0].spent

    @property
    def consistent(self) -> bool:
        """Tell whether what was spent is what so many rounds spend."""
        return self._charged == charges_after(self._plan, self.rounds)

    @property
    def cost(self) -> Cost:
        """Return what was spent so far, with the method and the accountant's notes."""
        if self._charged:
            return self.cost_after(0)
        relation = self.cost_after(1).relation
        return next(own.cost(self.delta) for own in self._accountants if own.relation is relation)

    @property
    def left(self) -> float | None:
        """Return the epsilon that may still be spent; None without a budget."""
        return None if self._budget is None else max(0.0, self._budget.epsilon - self.cost.epsilon)

    def cost_after(self, more: int) -> Cost:
        """Return what so many more rounds would have cost in all, under the relation that makes it least."""
        times = charges_after(self._plan, self.rounds + more) - self._charged
        if times <= 0:
            return min((own.cost(self.delta) for own in self._accountants), key=_epsilon)
        return min((own.cost_with(self.event, self.delta, times) for own in self._accountants), key=_epsilon)

    def fits(self, more: int = 1) -> bool:
        """Say whether so many more rounds fit into the budget; always, without one."""
        return self._budget is None or self.cost_after(more).epsilon <= self._budget.epsilon

    def charge(self) -> None:
        """Spend a round, before anything that came out of it is shown.

        Raises LocalProtocolError if that would overspend: the caller must have looked.
        """
        if not self.fits():
            raise LocalProtocolError("a round was begun that the privacy budget has no room for")
        self.rounds += 1
        while self._charged < charges_after(self._plan, self.rounds):
            for accountant in self._accountants:
                accountant.spend(self.event)
            self._charged += 1

    def affordable(self, budget: Budget) -> int:
        """Return how many more rounds a budget has room for."""
        times = max(own.affordable(self.event, budget, MOST_ROUNDS) for own in self._accountants)
        if not isinstance(self._dp, BandedGaussian):
            return times
        return MOST_ROUNDS if times >= self._dp.participations else times * self._dp.separation

    def why_stopped(self) -> str:
        """Say why there is no further round."""
        return (
            f"the privacy budget is spent: epsilon {self.cost.epsilon:.4f} of {self._dp.epsilon:g} after "
            f"{self.rounds} rounds, and one more would make it {self.cost_after(1).epsilon:.4f}"
        )

    def statement(self) -> PrivacyStatement:
        """Say what was spent and everything that it depends on."""
        spent, plan = self.cost, self._plan
        lost = [note for note in spent.notes if note.startswith(NO_CREDIT)]
        credited = self._draw.sampling in COUNTED and not lost
        others = [note for note in spent.notes if note not in lost]
        sampling = NOT_CREDITED + lost[0].removeprefix(NO_CREDIT) if lost else str(self._draw)
        adaptive = isinstance(plan.clip, AdaptiveClip)
        return PrivacyStatement(
            epsilon=spent.epsilon,
            delta=self._dp.delta,
            budget=self._dp.epsilon,
            rounds=self.rounds,
            planned_rounds=None if self._planned is None else max(self._planned, self.rounds),
            unit=Unit.PARTICIPANT,
            relation=spent.relation,
            sampling=sampling,
            mechanism=mechanism_of(plan)
            + (", with a clip that follows a quantile and noise that follows it" if adaptive else ""),
            clip=plan.clip_norm,
            noise_multiplier=self._dp.multiplier or None,
            trust=plan.trust,
            method=spent.method,
            notes=(*others, *metric_words(plan), *(self._without_credit() if credited else ())),
        )

    def _without_credit(self) -> tuple[str, ...]:
        """Say what the same noise costs against somebody who knows who was asked."""
        if not self.rounds:
            return ()
        relation = relations_of(self._plan, EVERYBODY)[0]
        known = cost(Repeated(self._known, self._charged), self._dp.delta, relation).epsilon
        number = "infinite" if math.isinf(known) else f"{math.ceil(known * 1000) / 1000:g}"
        return (
            f"Against those who know who took part: epsilon {number} ({relation}), for a participant that was in every "
            "round.",
        )


def _epsilon(found: Cost) -> float:
    return found.epsilon


@dataclass(frozen=True)
class Point:
    """Say what so many rounds cost. known: against those who know who took part, so without credit for sampling."""

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
    free = plan if plan.dp is None else msgspec.structs.replace(plan, dp=_unlimited(plan.dp))
    account = PrivacyAccount(free, size, draw)
    known, relation = round_event(plan, size, Draw(spaced=draw.spaced)), relations_of(plan, EVERYBODY)[0]
    found = [
        Point(
            number,
            account.cost_after(number).epsilon,
            cost(Repeated(known, charges_after(plan, number)), account.delta, relation).epsilon,
        )
        for number in _spread(rounds, points)
    ]
    spent = (Repeated(account.event, charges_after(plan, rounds)),)
    after = PrivacyAccount(free, size, draw, rounds, spent, rounds).statement()
    budget = None if plan.dp is None else plan.dp.epsilon
    affordable = None if budget is None else account.affordable(Budget(budget, account.delta))
    return Forecast(tuple(found), msgspec.structs.replace(after, budget=budget), affordable)


def _unlimited(dp: Mechanism) -> Mechanism:
    return msgspec.structs.replace(dp, epsilon=None)


def _spread(rounds: int, points: int) -> list[int]:
    """Return about so many numbers of rounds, from 1 to all of them, closer together where epsilon rises fast."""
    if rounds <= points:
        return list(range(1, rounds + 1))
    return sorted({max(1, round(rounds * (place / points) ** 2)) for place in range(1, points + 1)} | {1})
