"""What was done to somebody's data, as frozen facts.

Mechanisms emit events, accountants read them, and neither imports the other. An event says what was released and how
noisy it was; it never says what that costs. Costs depend on the question, and part of the question is the neighbouring
relation: which two worlds an adversary must not be able to tell apart.

    add-or-remove   one unit's data is added to the population, or removed from it
    zero-out        one unit contributes nothing, and everybody else takes part exactly as before
    replace-one     one unit's data is replaced by anybody else's

The unit is whatever a contribution was clipped for: a participant with all that it has (ridotto's rounds), or one
example. The rounds of ridotto publish how many contributions a sum holds, so "zero-out" is what they can promise
without further assumptions; see docs/privacy-accounting.md.

What may never change, because events lie in records that are read again years later: the meaning of a field, a default,
and the tag of an event. New mechanisms get new events.

Source of the idea: dp_accounting, `dp_event.py` (google/differential-privacy).
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TypeAlias

import msgspec

from ridotto.errors import PlanError

__all__ = [
    "ApproximateEvent",
    "Budget",
    "Composed",
    "DiscreteGaussianEvent",
    "Event",
    "GaussianEvent",
    "MatrixGaussianEvent",
    "NoPrivacyEvent",
    "PureEvent",
    "Relation",
    "Repeated",
    "Sampled",
    "Sampling",
    "SkellamEvent",
    "ZcdpEvent",
    "check_delta",
    "check_epsilon",
    "split_noise",
]

LARGEST = 1e300
"""No parameter of a mechanism is larger; beyond, float64 has no room left to square it in."""


class Relation(StrEnum):
    """Name the two worlds that must look alike (see the top of this file)."""

    ADD_OR_REMOVE = "add-or-remove"
    ZERO_OUT = "zero-out"
    REPLACE_ONE = "replace-one"


class Sampling(StrEnum):
    """Name how the units of a round were chosen. Only a draw whose distribution is known, and hidden, amplifies."""

    NONE = "none"
    """Everybody takes part, or may."""

    POISSON = "poisson"
    """Every unit by itself, with the same probability, anew in every round."""

    FIXED_SIZE = "fixed-size-without-replacement"
    """A uniformly random set of the same size in every round, out of a population of known size."""

    UNCONTROLLED = "uncontrolled"
    """Whoever was there: devices come and go, the coordinator takes those that ask. Nobody knows the distribution."""


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """Stand above all events: immutable, hashable, and safe to store (`msgspec.json`, `msgspec.msgpack`)."""


class GaussianEvent(Fact, frozen=True, tag="gaussian"):
    """Record a sum of vectors to which Gaussian noise was added.

    noise_multiplier: standard deviation of the noise over the largest l2 norm of one unit's contribution (z); 0 is no
    privacy. Under replace-one the sum can move by twice that norm, which the accountant takes into account.
    Source: Dwork & Roth, "The Algorithmic Foundations of Differential Privacy", 2014, theorem A.1 (the mechanism).
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", 0.0)


class MatrixGaussianEvent(Fact, frozen=True, tag="matrix-gaussian"):
    """Record a training run with correlated Gaussian noise (DP-FTRL): spend it before the rounds that it is about.

    noise_multiplier: standard deviation of the independent noise, before it is correlated, over the largest l2 norm of
    one contribution. sensitivity: of the encoder matrix for contributions of norm 1, over all the rounds that one unit
    takes part in (sqrt(k) times the column norm for k participations at least one band apart). An event of one column
    norm, spent k times, is the same: squares add up.
    Neighbouring relation: zero-out, or replace-one at twice the distance; it needs no assumption on sampling, but the
    participation pattern must be enforced.
    Source: Denisov et al., "Improved Differential Privacy for SGD via Optimal Private Linear Operators on Adaptive
    Streams", NeurIPS 2022, theorem 2.1; Choquette-Choo et al., "(Amplified) Banded Matrix Factorization", NeurIPS 2023.
    """

    noise_multiplier: float
    sensitivity: float

    def __post_init__(self) -> None:
        _number(self, "noise_multiplier", 0.0)
        _number(self, "sensitivity", 0.0, strict=True)


class DiscreteGaussianEvent(Fact, frozen=True, tag="discrete-gaussian"):
    """Record an integer sum in which every honest contribution brought its own discrete Gaussian noise.

    sensitivity: largest l2 norm of one unit's integer vector, in grid units, after rounding (D2, see
    `noise.rounding`). sigma_local: parameter of one contribution's noise, in grid units; below 1/2 the
    source promises nothing, and neither do we. contributions: how many noisy contributions of honest parties are in
    the sum at least; 0 is no privacy. dimension: entries of the vector.
    Trusted: that many participants, to add their share and forget it.
    Source: Kairouz, Liu & Steinke, "The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure
    Aggregation", ICML 2021, theorem 1.
    """

    sensitivity: float
    sigma_local: float
    contributions: int
    dimension: int

    def __post_init__(self) -> None:
        _number(self, "sensitivity", 0.0, strict=True)
        _number(self, "sigma_local", 0.0)
        _whole("contributions", self.contributions, 0)
        _whole("dimension", self.dimension, 1)


class SkellamEvent(Fact, frozen=True, tag="skellam"):
    """Record an integer sum with Skellam noise: the difference of two Poisson variables in every entry.

    l1, l2: largest norms of one unit's integer vector, in grid units. variance: of the noise of all honest parties
    together, per entry, in squared grid units; 0 is no privacy.
    Source: Agarwal, Kairouz & Liu, "The Skellam Mechanism for Differentially Private Federated Learning", NeurIPS
    2021.
    """

    l1: float
    l2: float
    variance: float

    def __post_init__(self) -> None:
        _number(self, "l1", 0.0, strict=True)
        _number(self, "l2", 0.0, strict=True)
        _number(self, "variance", 0.0)
        if self.l1 < self.l2 * (1 - 1e-9):
            raise PlanError(f"no vector has an l1 norm below its l2 norm: found l1 {self.l1} and l2 {self.l2}")


class PureEvent(Fact, frozen=True, tag="pure"):
    """Record one release of a mechanism that is epsilon-DP, such as a local randomiser's report.

    epsilon: > 0; something that reveals all is a `NoPrivacyEvent`. relation: the one that epsilon was proved for. A
    local report hides which value was sent (replace-one) and not that one was sent.
    """

    epsilon: float
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        _number(self, "epsilon", 0.0, strict=True)


class ApproximateEvent(Fact, frozen=True, tag="approximate"):
    """Record one release of a mechanism that is (epsilon, delta)-DP, of which nothing more is known.

    epsilon: > 0. delta: above 0, below 1. relation: the one that they were proved for.
    """

    epsilon: float
    delta: float
    relation: Relation = Relation.REPLACE_ONE

    def __post_init__(self) -> None:
        _number(self, "epsilon", 0.0, strict=True)
        _number(self, "delta", 0.0, strict=True)
        check_delta(self.delta)


class ZcdpEvent(Fact, frozen=True, tag="zcdp"):
    """Record one release of a mechanism that is rho-zCDP.

    rho: > 0. relation: the one that rho was proved for.
    Source: Bun & Steinke, "Concentrated Differential Privacy", TCC 2016, definition 1.1.
    """

    rho: float
    relation: Relation = Relation.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        _number(self, "rho", 0.0, strict=True)


class NoPrivacyEvent(Fact, frozen=True, tag="no-privacy"):
    """Record a release that is not protected at all: epsilon is infinite from here on."""


class Sampled(Fact, frozen=True, tag="sampled"):
    """Record an event on a sample of the units.

    event: what was done to the sample. sampling: how it was drawn. rate: for "poisson", above 0 and at most 1. size and
    population: for "fixed-size-without-replacement".
    A sample amplifies privacy only against those who don't learn who is in it, and only if it is drawn anew each time.
    A coordinator that invites the participants knows: against it, the sampling is "uncontrolled".
    """

    event: Event
    sampling: Sampling
    rate: float | None = None
    size: int | None = None
    population: int | None = None

    def __post_init__(self) -> None:
        given = {name for name in ("rate", "size", "population") if getattr(self, name) is not None}
        wanted = {Sampling.POISSON: {"rate"}, Sampling.FIXED_SIZE: {"size", "population"}}.get(self.sampling, set())
        if given != wanted:
            raise PlanError(
                f'sampling "{self.sampling}" takes {_list(wanted)}, and was given {_list(given)}: '
                "say how the sample is drawn, and nothing else"
            )
        if self.rate is not None:
            _number(self, "rate", 0.0, strict=True)
            if self.rate > 1:
                raise PlanError(f"rate is a probability above 0 and at most 1, not {self.rate}")
        if self.size is not None and self.population is not None:
            _whole("size", self.size, 1)
            _whole("population", self.population, self.size)


class Repeated(Fact, frozen=True, tag="repeated"):
    """Record the same event several times, each possibly chosen after looking at the results before.

    times: at least 1; what never happened needs no event.
    """

    event: Event
    times: int

    def __post_init__(self) -> None:
        _whole("times", self.times, 1)


class Composed(Fact, frozen=True, tag="composed"):
    """Record several events on the same data, each possibly chosen after looking at the results before.

    events: at least one.
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not self.events:
            raise PlanError("a composition has at least one event; what was not released needs none")


Event: TypeAlias = (
    GaussianEvent
    | MatrixGaussianEvent
    | DiscreteGaussianEvent
    | SkellamEvent
    | PureEvent
    | ApproximateEvent
    | ZcdpEvent
    | NoPrivacyEvent
    | Sampled
    | Repeated
    | Composed
)
"""Anything an accountant can be asked about."""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say how much may be spent over a whole training.

    epsilon: > 0. delta: above 0 and below 1; a common choice is well below one over the number of units.
    """

    epsilon: float
    delta: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)


def split_noise(noise_multiplier: float, bit_deviation: float) -> float:
    """Return the noise multiplier for the update, so that update and clipping bit together have `noise_multiplier`.

    noise_multiplier: of the joint release, as a `GaussianEvent` records it (z). bit_deviation: standard deviation of
    the noise on the sum of the bits, each sent as -1/2 or +1/2 (sigma_b). Returns z_delta, a little above z.
    Raises PlanError if the bits alone use up the budget: bit_deviation must be above z / 2.
    Source: Andrew, Thakkar, McMahan & Ramaswamy, "Differentially Private Learning with Adaptive Clipping", NeurIPS
    2021, theorem 1.
    """
    if not (0 < noise_multiplier <= LARGEST and 0 < bit_deviation <= LARGEST):
        raise PlanError(f"noise multiplier and bit deviation are above 0, not {noise_multiplier} and {bit_deviation}")
    ratio = noise_multiplier / (2 * bit_deviation)
    if ratio >= 1:
        raise PlanError(
            f"noise of deviation {bit_deviation} on the clipping bits alone costs more than noise multiplier "
            f"{noise_multiplier} allows: it must be above {noise_multiplier / 2:g}"
        )
    return noise_multiplier / math.sqrt((1 - ratio) * (1 + ratio))


def check_delta(delta: float) -> None:
    """Refuse a delta that is no probability strictly between 0 and 1.

    Raises PlanError.
    """
    if not 0 < delta < 1:
        raise PlanError(f"delta is a probability above 0 and below 1, not {delta}")


def check_epsilon(epsilon: float) -> None:
    """Refuse an epsilon that is not above 0 and finite.

    Raises PlanError.
    """
    if not 0 < epsilon <= LARGEST:
        raise PlanError(f"epsilon is a finite number above 0, not {epsilon}")


def _number(event: Fact, name: str, least: float, *, strict: bool = False) -> None:
    """Check a field and make it a float: 1 and 1.0 are one fact, and must have one encoding."""
    value = getattr(event, name)
    if not (least < value if strict else least <= value) or not value <= LARGEST:
        bound = "above" if strict else "at least"
        raise PlanError(f"{name} is a finite number {bound} {least:g}, not {value}")
    msgspec.structs.force_setattr(event, name, float(value))


def _whole(name: str, value: int, least: int) -> None:
    if not least <= value <= 2**63:
        raise PlanError(f"{name} is a whole number, at least {least} and at most 2^63, not {value}")


def _list(names: set[str]) -> str:
    return " and ".join(sorted(names, reverse=True)) or "no number"
