"""What a simulation may claim about privacy: how its cohorts are drawn, as an accountant needs to know it.

In a simulation noise and draws follow from the seed, which is in the script: whoever has it can take the noise off. The
numbers are those of a federation whose participants draw their noise from their own operating systems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.core.vector import Layout
from ridotto.errors import ConfigError
from ridotto.privacy.event import Sampling
from ridotto.rounds.plan import Plan
from ridotto.rounds.private import EVERYBODY, Draw, PrivacyAccount, calibrated, with_noise
from ridotto.rounds.settings import BandedGaussian
from ridotto.simulate.checkpoint import Checkpoint
from ridotto.simulate.clients import ClientId, Cohort
from ridotto.simulate.pace import Buffered
from ridotto.simulate.sampling import Cyclic
from ridotto.simulate.timing import Timing

NO_CREDIT = "No sampling is credited: {why}."
WEIGHTED = "clients are drawn with different weights, and nothing is known of that draw"
CYCLIC = "groups of clients take turns"
SHARES = "with noise in shares, the noise of a sum tells how many took part, and Poisson samples must hide that"
SEATED = "a committee knows how many are in the sum that it opens, and Poisson samples must hide that"
COUNTS = "means of groups and of metrics are divided by how many took part, and Poisson samples must hide that"
UNKNOWN = "the sampler does not say how it draws"
SCHEDULED = "a schedule says who is in which round"
DEVICES = "devices come and go, and nobody knows the distribution of who is there"


def draw_of(
    sampler: Any,
    schedule: Sequence[Sequence[ClientId]] | None,
    timing: Timing | None,
    plan: Plan,
    population: int,
) -> Draw:
    """Say how the plan's cohort is drawn out of `population` clients; what is not known earns no credit.

    sampler: says it by its `subsampling`. schedule, timing: decide in its place if there are any.
    """
    if isinstance(plan.dp, BandedGaussian):
        return _spaced_draw(plan.dp, sampler, schedule, timing)
    if schedule is not None or timing is not None:
        return Draw(why=NO_CREDIT.format(why=SCHEDULED if timing is None else DEVICES))
    cohort = plan.cohort
    match getattr(sampler, "subsampling", ""):
        case "uniform-without-replacement" if cohort >= population:
            return EVERYBODY
        case "uniform-without-replacement":
            return Draw(Sampling.FIXED_SIZE, size=cohort, population=population)
        case "poisson" if plan.dp is not None and plan.dp.shared:
            return Draw(why=NO_CREDIT.format(why=SHARES))
        case "poisson" if plan.dp is not None and plan.dp.seated:
            return Draw(why=NO_CREDIT.format(why=SEATED))
        case "poisson" if plan.robust is not None or plan.metrics:
            return Draw(why=NO_CREDIT.format(why=COUNTS))
        case "poisson" if getattr(sampler, "rate", None) is not None:
            return EVERYBODY if sampler.rate >= 1 else Draw(Sampling.POISSON, rate=sampler.rate)
        case "weighted-without-replacement":
            return Draw(why=NO_CREDIT.format(why=WEIGHTED))
        case "cyclic":
            return Draw(why=NO_CREDIT.format(why=CYCLIC))
        case _:
            return Draw(why=NO_CREDIT.format(why=UNKNOWN))


def _spaced_draw(
    dp: BandedGaussian, sampler: Any, schedule: Sequence[Sequence[ClientId]] | None, timing: Timing | None
) -> Draw:
    """Say whether clients are kept apart: by a schedule or by groups that take turns. `kept_apart` looks at each."""
    turns = isinstance(sampler, Cyclic) and sampler.turn == 1
    if timing is None and (schedule is not None or turns):
        return Draw(spaced=(dp.participations, dp.separation))
    return Draw()


def kept_apart(plan: Plan, cohorts: Callable[[int], Cohort], population: int, rounds: int) -> Callable[[int], Cohort]:
    """Return the same cohorts, and make sure that nobody takes part more often or earlier again than the noise allows.

    A client that is asked counts, whatever becomes of its round. Raises ConfigError at once if one of the rounds would
    break that, and again in that round, should a sampler not do what it did before.
    """
    dp = plan.dp
    if not isinstance(dp, BandedGaussian):
        return cohorts
    _Attendance(dp, cohorts, population).of(rounds)
    return _Attendance(dp, cohorts, population).of


class _Attendance:
    """Count who was in which round. Rounds before the one that is asked for, as in a resumed simulation, count too."""

    def __init__(self, dp: BandedGaussian, cohorts: Callable[[int], Cohort], population: int) -> None:
        self._dp, self._cohorts = dp, cohorts
        self._times = np.zeros(population, np.int64)
        self._last = np.full(population, -dp.separation, np.int64)
        self._done = 0
        self._cohort: Cohort = ()

    def of(self, number: int) -> Cohort:
        """Return the cohort of a round. Raises ConfigError if somebody must not be in it."""
        while self._done < number:
            self._done += 1
            self._cohort = self._cohorts(self._done)
            self._admit(self._done, np.asarray(self._cohort, np.int64))
        return self._cohort

    def _admit(self, number: int, cohort: NDArray[np.int64]) -> None:
        dp = self._dp
        early = (self._times[cohort] > 0) & (number - self._last[cohort] < dp.separation)
        wrong = np.flatnonzero(early | (self._times[cohort] >= dp.participations))
        if wrong.size:
            position = int(cohort[wrong[0]])
            raise ConfigError(
                f"round {number} asks the client at position {position}, which was in {self._times[position]} rounds "
                f"before, the last one {self._last[position]}: the noise is for at most {dp.participations}, "
                f"{dp.separation} or more apart"
            )
        self._times[cohort] += 1
        self._last[cohort] = number


def expected_in_mean(draw: Draw, population: int) -> float | None:
    """Return by what sums are divided where the number that took part must not show: with Poisson samples."""
    return None if draw.rate is None else draw.rate * population


def settled(plan: Plan, before: Checkpoint | None, rounds: int, size: int | Layout, draw: Draw) -> Plan:
    """Return the plan with its noise worked out: for these rounds, or as it was when the simulation began.

    Raises as `calibrated` does.
    """
    if plan.dp is None or plan.dp.noise_multiplier is not None:
        return plan
    if before is not None:
        noise = msgspec.msgpack.decode(before.plan, type=Plan).dp
        # Whether the rest of the plan is the same is checked where everything is.
        return plan if noise is None or noise.noise_multiplier is None else with_noise(plan, noise.noise_multiplier)
    return calibrated(plan, rounds, size, draw)


def account_of(
    plan: Plan, before: Checkpoint | None, rounds: int, size: int | Layout, draw: Draw, timing: Timing | None
) -> PrivacyAccount | None:
    """Open a simulation's account, or go on with the one of a checkpoint; None without differential privacy.

    Raises PlanError if not even one round fits into the budget, MissingExtraError if numbers take dp-accounting,
    ConfigError for an asynchronous pace, or a checkpoint that does not say what its rounds spent.
    """
    if plan.dp is None:
        return None
    if timing is not None and isinstance(timing.pace, Buffered):
        raise ConfigError(
            "an asynchronous pace may have a client in one sum twice, and noise hides it once: take another pace, or "
            "leave dp out of the plan"
        )
    if before is None:
        return PrivacyAccount(plan, size, draw, rounds)
    account = PrivacyAccount(plan, size, draw, rounds, before.spent, before.rounds)
    if not account.consistent:
        raise ConfigError(
            f"the checkpoint has {before.rounds} rounds, and not the privacy of so many: it can't be resumed, because "
            "what was spent is not known"
        )
    return account
