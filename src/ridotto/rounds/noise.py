"""How much noise a plan with differential privacy puts where, in units of its ring, and what that is as an event.

    clipped, compressed update -> rounded at random, l2 norm at most D2 -> + noise (distributed, local) -> masked
    masks of a sum -> + noise (committee), taken off with them
    opened sum     -> + noise (central, banded)                                                         -> decoded

Neighbouring relation: whatever the accountant asks for; D2 is what one participant's absence or zeroing moves a sum by.
A local mechanism's sum is one contribution, which under replace-one moves by 2 D2: the distance of any two updates.

Why an integer sum is counted as a Gaussian one. Let s^2 be the variance of a discrete Gaussian, and t^2 = 4.5. Take a
real Gaussian of variance s^2 - t^2 around an integer and round it at random, to k with probability proportional to
exp(-(k - g)^2 / 2 t^2). What comes out is the discrete Gaussian of variance s^2 around that integer, up to a factor of
1 + e in every probability, |e| < 2^-120 (Poisson summation: the normalising sum over k is constant in g up to
2 exp(-2 pi^2 t^2)). So adding a discrete Gaussian to integers is a post-processing of adding a real Gaussian of
variance s^2 - t^2, and whatever is known of Gaussians holds, on samples too. A sum of n discrete Gaussians of sigma
>= 2.5 has the probabilities of one of variance n sigma^2 up to a factor of exp(tau), tau < 10^-25, also where each is
around a number instead of an integer. Both errors stay below 2^-52 for a vector of 2^30 entries; the sampler's own
distance (2^-66 an entry) is larger, and no concern either, see docs/privacy-mechanisms.md. Coarser shares are counted
by the theorem of Kairouz, Liu & Steinke with its tau. Source: Peikert, "An Efficient and Parallel Gaussian Sampler for
Lattices", CRYPTO 2010, theorem 3.1; Kairouz, Liu, Steinke, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation", ICML 2021, theorem 1 and its lemma on sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ridotto.core.fixedpoint import IntVector
from ridotto.core.vector import Layout
from ridotto.errors import PlanError
from ridotto.privacy.closed_form import rounded_l1
from ridotto.privacy.event import (
    DiscreteGaussianEvent,
    GaussianEvent,
    MatrixGaussianEvent,
    PureEvent,
    Relation,
    SkellamEvent,
)
from ridotto.privacy.noise.banded import GRID_BITS, BandedNoise, column_norm
from ridotto.privacy.noise.centred import GRID, needs_centres
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.ring import IntegerNoise, honest_participants, local_sigma
from ridotto.privacy.noise.rounding import rounded_norm_bound
from ridotto.privacy.noise.skellam import Skellam
from ridotto.privacy.noise.words import Words
from ridotto.rounds.encoding import Encoding
from ridotto.rounds.mechanisms import check_noise
from ridotto.rounds.plan import Plan
from ridotto.rounds.settings import BandedGaussian, DistributedGaussian, DistributedSkellam, Mechanism, PrivUnit

SMOOTH = 4.5
"""t^2: what the variance of a real Gaussian is short of the discrete one's."""

FINE_SIGMA = 2.5
"""From this sigma of a share on, a sum of shares is one discrete Gaussian: tau is below 10^-25."""

FINE_ALONE = 12.0
"""The same for local noise, which nobody else's helps and no sampling: below, t^2 costs more than the theorem does."""

BELOW = 1 - 2.0**-48
"""A noise multiplier is rounded down by more than float64 can be off."""

WORTH = 1.001
"""Rounding that lengthens a clipped update by more is done within the noise: slower, and there is less to hide."""

NOT_CALIBRATED = (
    "the plan says which epsilon may be spent, and not yet how much noise that takes: give noise_multiplier, or let "
    "ridotto.simulate or rounds.private.calibrated work it out for a number of rounds"
)

NoiseEvent = GaussianEvent | DiscreteGaussianEvent | SkellamEvent | MatrixGaussianEvent | PureEvent
"""What a round of some mechanism is to an accountant."""


@dataclass(frozen=True)
class RoundNoise:
    """Hold the noise of one opened sum. Nothing here is secret.

    scale: units of the ring per 1. bound: the largest l2 norm of what is rounded. sensitivity: D2, the largest l2 norm
    of a rounded contribution, in units. sigma: of one draw, in units; 0 for reports, which need none. shares: honest
    draws that are in an opened sum at least; 1 if the coordinator adds the noise, or a contribution has its own.
    dimension: entries that are rounded. dp: the mechanism; None is as good as any Gaussian one. centred: draws are
    around numbers, so that little is rounded before (`privacy.noise.centred`).
    Sensitivity and sigma do not depend on the clip, so rounds with an adaptive one cost alike.
    """

    scale: float
    bound: float
    sensitivity: float
    sigma: float
    shares: int
    dimension: int
    dp: Mechanism | None = None
    centred: bool = False

    @property
    def source(self) -> IntegerNoise:
        """Return what the noise of one contribution or sum is drawn from."""
        return Skellam(self.sigma**2) if isinstance(self.dp, DistributedSkellam) else DiscreteGaussian(self.sigma)

    @property
    def banded(self) -> BandedNoise | None:
        """Return what draws the noise of round after round; None where rounds have noise of their own."""
        return BandedNoise(self.dp.bands, self.sigma) if isinstance(self.dp, BandedGaussian) else None

    @property
    def event(self) -> NoiseEvent:
        """Return what one opened sum is to an accountant (see the top of this file).

        For banded noise: what one more participation costs, however many rounds are opened.
        """
        match self.dp:
            case PrivUnit(report_epsilon=float(epsilon)):
                return PureEvent(epsilon, Relation.REPLACE_ONE)
            case DistributedSkellam():
                l1 = rounded_l1(self.sensitivity, self.dimension)
                return SkellamEvent(l1, self.sensitivity, self.shares * self.sigma**2 * BELOW)
            case BandedGaussian(bands=bands):
                fine = math.ldexp(self.sigma, GRID_BITS)
                noise = math.ldexp(math.sqrt(fine**2 - SMOOTH), -GRID_BITS) / self.sensitivity * BELOW
                return MatrixGaussianEvent(noise, column_norm(bands))
        if self.sigma < (FINE_ALONE if self.dp is not None and self.dp.local else FINE_SIGMA):
            return DiscreteGaussianEvent(self.sensitivity, self.sigma, self.shares, self.dimension)
        return GaussianEvent(math.sqrt(self.shares * self.sigma**2 - SMOOTH) / self.sensitivity * BELOW)


def noise_of(plan: Plan, size: int | Layout) -> RoundNoise | None:
    """Return the noise of a plan for updates of one size; None if it has no differential privacy.

    size: d, or the model's layout.
    Raises PlanError if the plan only says an epsilon and is not calibrated yet, or has no honest noise, or so little
    that a share is lost in the ring.
    """
    if plan.dp is None:
        return None
    if plan.dp.noise_multiplier is None:
        raise PlanError(NOT_CALIBRATED)
    encoding = Encoding(plan, size)
    units = encoding.units
    if units is None:
        raise PlanError("dp needs a clip")
    shares = honest_participants(plan.least, plan.least - plan.honest) if plan.shares > 1 else plan.shares
    sigma = 0.0 if plan.multiplier == 0 else local_sigma(plan.multiplier * units, shares)
    check_noise(plan, plan.dp, sigma)
    dp, entries = plan.dp, encoding.entries
    sensitivity = rounded_norm_bound(units, entries)
    centred = isinstance(dp, DistributedGaussian) and sensitivity > WORTH * units and needs_centres(sigma)
    if centred:
        sensitivity = rounded_norm_bound(units * GRID, entries) / GRID
    return RoundNoise(units / encoding.bound, encoding.bound, sensitivity, sigma, shares, entries, dp, centred)


def committee_sigma(noise: RoundNoise | None, dp: Mechanism | None) -> float:
    """Return the noise that a session asks of its committee, in units; 0 for none."""
    return 0.0 if noise is None or dp is None or not dp.seated else noise.sigma


def add_committee_noise(elements: IntVector, sigma: float, seed: bytes) -> None:
    """Add the noise of a committee's slot to the elements, in place: the same for all who know its seed.

    sigma: in units. seed: 32 secret bytes. See `secagg.committee.masks.AddNoise`.
    """
    DiscreteGaussian(sigma).add_to(elements, Words(seed))
