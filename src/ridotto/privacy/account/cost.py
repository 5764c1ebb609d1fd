"""Answer what events cost: epsilon at a delta, or delta at an epsilon, by the best valid accountant for what they are.

    exact   Gaussian sums only: they compose to one, whose curve is known (Balle & Wang 2018)
    basic   one release of a mechanism that is epsilon-DP; several: at most the sum
    pld     Gaussian, Poisson-sampled Gaussian and epsilon-DP releases: privacy loss distributions
    rdp     everything, by adding Rényi curves up

Whether the library is installed never changes a number: where its answer could be better, it is needed. It is not
asked where Rényi curves already say that nothing is protected (epsilon beyond `PLD_LIMIT`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ridotto.privacy import closed_form
from ridotto.privacy.account import library
from ridotto.privacy.account.library import Items
from ridotto.privacy.account.resolve import NOT_POISSON, Resolved, resolve
from ridotto.privacy.closed_form import Curve
from ridotto.privacy.event import (
    DiscreteGaussianEvent,
    Event,
    GaussianEvent,
    PureEvent,
    Relation,
    Sampled,
    Sampling,
    SkellamEvent,
    ZcdpEvent,
    check_delta,
    check_epsilon,
)

PLD_LIMIT = 100.0
"""Beyond this epsilon, e^100 to 1, the tight number is as worthless as the loose one, and takes seconds to work out."""

ORDERS = np.union1d(1 + np.geomspace(0.02, 1e9, 6001), np.arange(2.0, 1025.0))
"""Where closed forms are evaluated: so densely that the best order costs less than 1e-6 more than the best real one,
and at whole orders, because some curves are known only there."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what something costs, and how we know.

    epsilon, delta: infinite and 1 if nothing is protected. method: "exact", "basic", "pld", "rdp" or "none". notes:
    sentences on what was not credited, and why.
    """

    epsilon: float
    delta: float
    relation: Relation
    method: str
    notes: tuple[str, ...] = ()


def cost(event: Event, delta: float, relation: Relation = Relation.ADD_OR_REMOVE) -> Cost:
    """Work out the epsilon of an event at a delta, with the method and what is not credited.

    Raises PlanError if delta is no probability, or something in the event was proved for a relation that does not imply
    this one; MissingExtraError if the number takes dp-accounting.
    """
    return cost_of(resolve(event, relation), delta)


def epsilon(event: Event, delta: float, relation: Relation = Relation.ADD_OR_REMOVE) -> float:
    """Return the epsilon of an event at a delta, see `cost`; infinite if something in it is not protected."""
    return cost(event, delta, relation).epsilon


def delta(event: Event, epsilon: float, relation: Relation = Relation.ADD_OR_REMOVE) -> float:
    """Return the delta of an event at an epsilon: 1 if something in it is not protected.

    Raises as `cost` does; PlanError also if epsilon is not above 0.
    """
    check_epsilon(epsilon)
    spent = resolve(event, relation)
    if not spent.private:
        return 1.0
    return min(1.0, spent.delta + _delta(tuple(spent.counts.items()), relation, epsilon))


def cost_of(spent: Resolved, delta: float) -> Cost:
    """Work out the epsilon of what events came to, see `cost`."""
    check_delta(delta)
    items = tuple(spent.counts.items())
    # What approximate mechanisms fail with by themselves is taken off first (Kairouz, Oh & Viswanath 2015, thm 3.1).
    rest = delta - spent.delta
    if not spent.private or rest <= 0:
        number, method = math.inf, "none"
    else:
        number, method = _epsilon(items, spent.relation, rest)
    notes = dict(spent.notes)
    if _loses_sampling(items, spent.relation):
        notes[NOT_POISSON] = None
    return Cost(number, delta, spent.relation, method, tuple(notes))


@lru_cache(maxsize=4096)
def _epsilon(items: Items, relation: Relation, delta: float) -> tuple[float, str]:
    if not items:
        return 0.0, "exact"
    if (z := _all_gaussian(items)) is not None:
        return closed_form.gaussian_epsilon(z, delta), "exact"
    basic = _all_pure(items)
    if len(items) == items[0][1] == 1 and math.isfinite(basic):
        return basic, "basic"
    found = [(closed_form.rdp_epsilon(*_curve(items, relation), delta), "rdp"), (basic, "basic")]
    if _has_pld(items) and found[0][0] <= PLD_LIMIT:
        found.append((library.pld_epsilon(items, relation is Relation.REPLACE_ONE, delta), "pld"))
    return min(found)


@lru_cache(maxsize=64)
def _delta(items: Items, relation: Relation, epsilon: float) -> float:
    if not items:
        return 0.0
    if (z := _all_gaussian(items)) is not None:
        return closed_form.gaussian_delta(z, epsilon)
    if _all_pure(items) <= epsilon:
        return 0.0
    orders, curve = _curve(items, relation)
    found = [closed_form.rdp_delta(orders, curve, epsilon)]
    if _has_pld(items) and closed_form.rdp_epsilon(orders, curve, 1e-15) <= 10 * PLD_LIMIT:
        found.append(library.pld_delta(items, relation is Relation.REPLACE_ONE, epsilon))
    return min(found)


def _all_gaussian(items: Items) -> float | None:
    """Return the noise multiplier of the whole if nothing but unsampled Gaussian sums is in it."""
    noise: dict[float, int] = {}
    for event, times in items:
        if not isinstance(event, GaussianEvent):
            return None
        noise[event.noise_multiplier] = times
    return closed_form.compose_gaussians(noise)


def _all_pure(items: Items) -> float:
    """Return the sum of all epsilons if nothing but epsilon-DP releases is in it, else infinity."""
    return math.fsum(times * _pure(event) for event, times in items)


def _pure(event: Event) -> float:
    return event.epsilon if isinstance(event, PureEvent) else math.inf


def _has_pld(items: Items) -> bool:
    return len(items) <= library.MOST_EVENTS and all(
        isinstance(event, GaussianEvent | PureEvent)
        or (isinstance(event, Sampled) and event.sampling is Sampling.POISSON)
        for event, _ in items
    )


def _loses_sampling(items: Items, relation: Relation) -> bool:
    poisson = any(isinstance(event, Sampled) and event.sampling is Sampling.POISSON for event, _ in items)
    return poisson and relation is Relation.REPLACE_ONE and not _has_pld(items)


def _curve(items: Items, relation: Relation) -> tuple[Curve, Curve]:
    """Add Rényi curves up, at the library's orders if one of them is the library's."""
    sampled = any(isinstance(event, Sampled) for event, _ in items)
    orders = library.orders() if sampled else ORDERS
    total = np.zeros_like(orders)
    for event, times in items:
        total += times * _one_curve(event, orders, relation)
    return orders, total


def _one_curve(event: Event, orders: Curve, relation: Relation) -> Curve:
    match event:
        case GaussianEvent(noise_multiplier=z):
            return closed_form.gaussian_rdp(orders, z)
        case DiscreteGaussianEvent(sensitivity=sensitivity, sigma_local=sigma, contributions=n, dimension=d):
            return closed_form.discrete_gaussian_rdp(orders, sensitivity, sigma, n, d)
        case SkellamEvent(l1=l1, l2=l2, variance=variance):
            return closed_form.skellam_rdp(orders, l1, l2, variance)
        case PureEvent(epsilon=epsilon):
            return closed_form.pure_rdp(orders, epsilon)
        case ZcdpEvent(rho=rho):
            return orders * rho
        case Sampled(event=GaussianEvent(noise_multiplier=z), sampling=Sampling.POISSON) if (
            relation is Relation.REPLACE_ONE
        ):
            # No curve is known here; without credit, replacing moves the sum by twice the clip.
            return closed_form.gaussian_rdp(orders, z / 2)
        case Sampled(event=GaussianEvent(noise_multiplier=z)):
            # A sample never costs more than everybody; the library's bound for fixed sizes can be above that.
            return np.minimum(library.sampled_curve(event), closed_form.gaussian_rdp(orders, z))
        case _:
            raise AssertionError(event)
