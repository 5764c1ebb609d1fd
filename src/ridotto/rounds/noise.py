"""How much noise a plan with differential privacy puts where, in units of its ring, and what that is as an event.

    clipped, compressed update -> rounded at random, l2 norm at most D2 -> + one share (distributed) -> masked
    opened sum     -> + noise (central)                                                 -> decoded

Neighbouring relation: whatever the accountant asks for; D2 is what one participant's absence or zeroing moves a sum by.

Why an integer sum is counted as a Gaussian one. Let s^2 be the variance of a discrete Gaussian, and t^2 = 4.5. Take a
real Gaussian of variance s^2 - t^2 around an integer and round it at random, to k with probability proportional to
exp(-(k - g)^2 / 2 t^2). What comes out is the discrete Gaussian of variance s^2 around that integer, up to a factor of
1 + e in every probability, |e| < 2^-120 (Poisson summation: the normalising sum over k is constant in g up to
2 exp(-2 pi^2 t^2)). So adding a discrete Gaussian to integers is a post-processing of adding a real Gaussian of
variance s^2 - t^2, and whatever is known of Gaussians holds, on samples too. A sum of n discrete Gaussians of sigma
>= 4 has the probabilities of one of variance n sigma^2 up to a factor of exp(tau), tau < n * 10^-67. Both errors stay
below 2^-85 for a vector of 2^30 entries; the sampler's own distance (2^-66 an entry) is larger, and no concern either,
see docs/privacy-mechanisms.md. Coarser shares are counted by the theorem of Kairouz, Liu & Steinke with its tau.
Source: Peikert, "An Efficient and Parallel Gaussian Sampler for Lattices", CRYPTO 2010, theorem 3.1; Kairouz, Liu,
Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation", ICML 2021,
theorem 1 and its lemma on sums.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ridotto.core.vector import Layout
from ridotto.errors import PlanError
from ridotto.privacy.event import DiscreteGaussianEvent, GaussianEvent
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.ring import honest_participants, local_sigma
from ridotto.privacy.noise.rounding import rounded_norm_bound
from ridotto.rounds.encoding import Encoding
from ridotto.rounds.headroom import check_share
from ridotto.rounds.plan import Plan

SMOOTH = 4.5
"""t^2: what the variance of a real Gaussian is short of the discrete one's."""

FINE_SIGMA = 4.0
"""From this sigma of a share on, a sum of shares is one discrete Gaussian: tau is below n * 10^-67."""

NOT_CALIBRATED = (
    "the plan says which epsilon may be spent, and not yet how much noise that takes: give noise_multiplier, or let "
    "ridotto.simulate or rounds.private.calibrated work it out for a number of rounds"
)


@dataclass(frozen=True)
class RoundNoise:
    """Hold the noise of one opened sum. Nothing here is secret.

    scale: units of the ring per 1. bound: the largest l2 norm of what is rounded. sensitivity: D2, the largest l2 norm
    of a rounded contribution, in units. sigma: of one draw, in units. shares: honest draws that are in an opened sum at
    least; 1 if the coordinator adds the noise. dimension: entries that are rounded.
    Sensitivity and sigma do not depend on the clip, so rounds with an adaptive one cost alike.
    """

    scale: float
    bound: float
    sensitivity: float
    sigma: float
    shares: int
    dimension: int

    @property
    def source(self) -> DiscreteGaussian:
        """Return what noise is drawn from."""
        return DiscreteGaussian(self.sigma)

    @property
    def event(self) -> GaussianEvent | DiscreteGaussianEvent:
        """Return what one opened sum is to an accountant (see the top of this file)."""
        if self.sigma < FINE_SIGMA:
            return DiscreteGaussianEvent(self.sensitivity, self.sigma, self.shares, self.dimension)
        variance = self.shares * self.sigma**2 - SMOOTH
        # Rounded down by more than float64 can be off.
        return GaussianEvent(math.sqrt(variance) / self.sensitivity * (1 - 2.0**-48))


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
    sigma = local_sigma(plan.dp.noise_multiplier * units, shares)
    check_share(plan.bits, sigma)
    sensitivity = rounded_norm_bound(units, encoding.entries)
    return RoundNoise(units / encoding.bound, encoding.bound, sensitivity, sigma, shares, encoding.entries)
