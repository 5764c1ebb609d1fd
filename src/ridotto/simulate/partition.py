"""Cut one data set into the data sets of many clients.

Every function returns one array of indices per client (int64, ascending), and every example is in exactly one of
them. The same `rng` gives the same cut. Nobody's privacy rests on these numbers, so they come from NumPy's generator.

    iid              every client sees the same distribution
    dirichlet        clients differ in how often each label occurs
    shards           clients see few labels each
    quantity_skew    clients differ in how much they have
    by_key           the data say whose they are: a user, a hospital, an author
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.core.rng import Rng, numpy_generator
from ridotto.errors import DataError

Indices = NDArray[np.int64]
"""Which examples one client has: positions in the whole data set, ascending."""


def iid(count_examples: int, clients: int, rng: Rng) -> list[Indices]:
    """Shuffle and deal evenly; sizes differ by at most one.

    Raises DataError if clients < 1 or there are fewer examples than clients.
    """
    _require_enough(count_examples, clients, 1)
    order = numpy_generator(rng).permutation(count_examples)
    return [np.sort(part) for part in np.array_split(order, clients)]


def dirichlet(labels: ArrayLike, clients: int, alpha: float, rng: Rng, min_examples: int = 1) -> list[Indices]:
    """Skew the labels: for each label, draw the clients' shares of its examples from Dirichlet(alpha, ..., alpha).

    labels: shape (n,), any comparable type. alpha: concentration, > 0; large is nearly IID, 0.1 leaves a client with
    few labels. min_examples: every client has at least so many; examples of the largest clients fill the gaps.
    Raises DataError if alpha <= 0 or there are fewer than clients * min_examples examples.
    Source: Hsu et al., "Measuring the Effects of Non-Identical Data Distribution for Federated Visual
    Classification", 2019. There, each client draws a mix of labels and all clients have the same size. Here each
    label draws a mix of clients, so sizes are uneven too, and no example is left over (Yurochkin et al., "Bayesian
    Nonparametric Federated Learning of Neural Networks", ICML 2019, section 4).
    """
    values = _column("labels", labels)
    _require_enough(len(values), clients, min_examples)
    _require_positive("alpha", alpha)
    generator = numpy_generator(rng)
    owner = np.empty(len(values), np.int64)
    for label in np.unique(values):
        members = generator.permutation(np.flatnonzero(values == label))
        sizes = _apportion(len(members), generator.dirichlet(np.full(clients, alpha)))
        owner[members] = np.repeat(np.arange(clients), sizes)
    _fill_gaps(owner, clients, min_examples, generator)
    return [np.flatnonzero(owner == client) for client in range(clients)]


def shards(labels: ArrayLike, clients: int, shards_per_client: int, rng: Rng) -> list[Indices]:
    """Sort by label, cut into equal shards, deal `shards_per_client` of them to each client at random.

    labels: shape (n,). With two shards a client sees about two labels. Shard sizes differ by at most one.
    Raises DataError if a count is below 1 or there are fewer examples than shards.
    Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017,
    section 3 ("pathological non-IID").
    """
    values = _column("labels", labels)
    _require_at_least_one("shards_per_client", shards_per_client)
    _require_enough(len(values), clients, shards_per_client)
    cuts = np.array_split(np.argsort(values, kind="stable"), clients * shards_per_client)
    dealt = numpy_generator(rng).permutation(len(cuts)).reshape(clients, shards_per_client)
    return [np.sort(np.concatenate([cuts[shard] for shard in hand])) for hand in dealt]


def quantity_skew(
    count: int,
    clients: int,
    rng: Rng,
    *,
    alpha: float | None = None,
    sigma: float | None = None,
    min_examples: int = 1,
) -> list[Indices]:
    """Skew the sizes: everybody draws from the same distribution, some much more than others.

    Give exactly one of alpha and sigma. alpha: > 0, shares are Dirichlet(alpha, ..., alpha); small is uneven.
    sigma: >= 0, shares are proportional to exp(sigma * N(0, 1)); large is uneven. Every client has at least
    min_examples, on top of which the rest is shared out.
    Raises DataError if both or none are given, one is out of range, or there are too few examples.
    Source: alpha as in Li et al., "Federated Learning on Non-IID Data Silos", ICDE 2022, section IV (quantity skew);
    log-normal sizes as in Li et al., "Federated Optimization in Heterogeneous Networks", MLSys 2020, section 5.1.
    """
    _require_enough(count, clients, min_examples)
    generator = numpy_generator(rng)
    shares = _shares(clients, alpha, sigma, generator)
    sizes = min_examples + _apportion(count - clients * min_examples, shares)
    order = generator.permutation(count)
    return [np.sort(part) for part in np.split(order, np.cumsum(sizes)[:-1])]


def by_key(keys: ArrayLike) -> list[Indices]:
    """Give each distinct key its own client, in ascending order of the keys.

    keys: shape (n,), any comparable type: a user's name, a hospital's number.
    Raises DataError if there are no keys.
    """
    values = _column("keys", keys)
    if not len(values):
        raise DataError("there are no keys, so there is no client")
    _, owner, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])


def _shares(
    clients: int, alpha: float | None, sigma: float | None, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Draw what fraction of the examples each client gets; the fractions sum to 1."""
    if alpha is not None and sigma is None:
        _require_positive("alpha", alpha)
        return generator.dirichlet(np.full(clients, alpha))
    if sigma is not None and alpha is None:
        if not math.isfinite(sigma) or sigma < 0:
            raise DataError(f"sigma must be a number of at least 0, not {sigma}")
        # The largest exponent is subtracted so that a large sigma can't overflow; the shares stay the same.
        exponents = sigma * generator.standard_normal(clients)
        weights = np.exp(exponents - exponents.max())
        return np.asarray(weights / weights.sum())
    raise DataError("give exactly one of alpha (Dirichlet) and sigma (log-normal)")


def _apportion(total: int, shares: NDArray[np.float64]) -> Indices:
    """Round `total * shares` to integers that sum to `total`, by largest remainders."""
    exact = total * shares
    sizes = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(sizes - exact, kind="stable")
    sizes[by_remainder[: total - int(sizes.sum())]] += 1
    return sizes


def _fill_gaps(owner: Indices, clients: int, min_examples: int, generator: np.random.Generator) -> None:
    """Move random examples of the largest clients to those below `min_examples`, in place.

    The usual way, drawing again until nobody is short, practically never ends for many clients and a small alpha.
    """
    sizes = np.bincount(owner, minlength=clients)
    for poor in np.flatnonzero(sizes < min_examples):
        while sizes[poor] < min_examples:
            rich = int(np.argmax(sizes))
            owner[generator.choice(np.flatnonzero(owner == rich))] = poor
            sizes[rich] -= 1
            sizes[poor] += 1


def _column(name: str, values: ArrayLike) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise DataError(f"{name} must have shape (examples,), not {array.shape}")
    return array


def _require_enough(examples: int, clients: int, each: int) -> None:
    _require_at_least_one("clients", clients)
    if each < 0:
        raise DataError(f"min_examples must be at least 0, not {each}")
    if examples < max(1, clients * each):
        raise DataError(f"{examples} examples are too few for {clients} clients with at least {each} each")


def _require_at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise DataError(f"{name} must be at least 1, not {number}")


def _require_positive(name: str, number: float) -> None:
    if not math.isfinite(number) or number <= 0:
        raise DataError(f"{name} must be a number above 0, not {number}")
