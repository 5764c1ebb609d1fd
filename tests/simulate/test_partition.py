"""Partitions: every example once, the skew that was asked for, the same cut for the same seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import Rng, insecure_seeded_rng
from ridotto.errors import DataError
from ridotto.simulate.partition import Indices, by_key, dirichlet, iid, quantity_skew, shards

LABELS = np.arange(600) % 10

CUTS: dict[str, Callable[[Rng], list[Indices]]] = {
    "iid": lambda rng: iid(600, 7, rng),
    "dirichlet": lambda rng: dirichlet(LABELS, 7, 0.3, rng),
    "shards": lambda rng: shards(LABELS, 7, 2, rng),
    "quantity_skew alpha": lambda rng: quantity_skew(600, 7, rng, alpha=0.5),
    "quantity_skew sigma": lambda rng: quantity_skew(600, 7, rng, sigma=1.5),
}


def everything_once(parts: list[Indices], examples: int) -> None:
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(examples))
    assert all(part.dtype == np.int64 and np.all(np.diff(part) > 0) for part in parts)


@pytest.mark.parametrize("name", CUTS)
def test_same_seed_same_cut_and_another_seed_another_cut(name: str) -> None:
    first, again, other = (CUTS[name](insecure_seeded_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@given(st.integers(1, 20), st.integers(0, 200), st.integers(0, 9), st.data())
def test_every_example_has_exactly_one_client(clients: int, spare: int, seed: int, data: st.DataObject) -> None:
    examples = 2 * clients + spare
    alpha = data.draw(st.sampled_from([1e-3, 0.1, 1.0, 1e6]))
    sigma = data.draw(st.sampled_from([0.0, 1.0, 50.0]))
    labels = np.arange(examples) % 3
    parts = [
        iid(examples, clients, insecure_seeded_rng(seed)),
        dirichlet(labels, clients, alpha, insecure_seeded_rng(seed), min_examples=2),
        shards(labels, clients, 2, insecure_seeded_rng(seed)),
        quantity_skew(examples, clients, insecure_seeded_rng(seed), alpha=alpha, min_examples=2),
        quantity_skew(examples, clients, insecure_seeded_rng(seed), sigma=sigma, min_examples=2),
    ]
    for cut in parts:
        assert len(cut) == clients
        everything_once(cut, examples)
        assert min(map(len, cut)) >= 2


@given(st.lists(st.sampled_from(["anna", "bea", "carla"]), min_size=1, max_size=30))
def test_by_key_gives_each_key_its_client_in_order(keys: list[str]) -> None:
    parts = by_key(keys)
    everything_once(parts, len(keys))
    assert [{keys[i] for i in part} for part in parts] == [{key} for key in sorted(set(keys))]


def test_by_key_on_numbers_a_reader_can_check() -> None:
    assert [part.tolist() for part in by_key([30, 10, 30, 20])] == [[1], [3], [0, 2]]


def test_iid_sizes_differ_by_at_most_one() -> None:
    assert sorted(map(len, iid(10, 3, insecure_seeded_rng(0)))) == [3, 3, 4]


def test_shards_hold_few_labels_and_equal_counts() -> None:
    # 600 examples in 20 shards of 30; each label fills exactly two shards, so two shards show at most two labels.
    parts = shards(LABELS, 10, 2, insecure_seeded_rng(3))
    assert [len(part) for part in parts] == [60] * 10
    assert max(len(np.unique(LABELS[part])) for part in parts) <= 2


def test_small_alpha_skews_labels_and_large_alpha_does_not() -> None:
    def largest_share(alpha: float) -> float:
        parts = dirichlet(LABELS, 5, alpha, insecure_seeded_rng(4), min_examples=20)
        return float(np.mean([np.bincount(LABELS[part], minlength=10).max() / len(part) for part in parts]))

    # With 10 equally frequent labels the largest share is at least 0.1, and near it when the cut is even.
    assert largest_share(1e5) < 0.12
    assert largest_share(0.1) > 0.25


def test_dirichlet_fills_gaps_where_drawing_again_would_never_end() -> None:
    parts = dirichlet(np.arange(1797) % 10, 100, 0.01, insecure_seeded_rng(5), min_examples=10)
    everything_once(parts, 1797)
    assert min(map(len, parts)) >= 10


def test_quantity_skew_follows_its_parameters() -> None:
    even = [len(part) for part in quantity_skew(600, 6, insecure_seeded_rng(6), sigma=0.0)]
    uneven = [len(part) for part in quantity_skew(600, 6, insecure_seeded_rng(6), sigma=2.0)]
    assert even == [100] * 6
    assert max(uneven) > 5 * min(uneven)


@pytest.mark.parametrize(
    ("cut", "sentence"),
    [
        (lambda rng: iid(3, 4, rng), "3 examples are too few for 4 clients"),
        (lambda rng: iid(0, 1, rng), "0 examples are too few"),
        (lambda rng: iid(3, 0, rng), "clients must be at least 1"),
        (lambda rng: dirichlet(LABELS, 7, 0.0, rng), "alpha must be a number above 0"),
        (lambda rng: dirichlet(LABELS, 7, float("nan"), rng), "alpha must be a number above 0"),
        (lambda rng: dirichlet(LABELS, 7, 1.0, rng, min_examples=100), "too few for 7 clients with at least 100"),
        (lambda rng: dirichlet(LABELS, 7, 1.0, rng, min_examples=-1), "min_examples must be at least 0"),
        (lambda rng: dirichlet(np.zeros((3, 2)), 2, 1.0, rng), r"labels must have shape \(examples,\)"),
        (lambda rng: shards(LABELS, 7, 0, rng), "shards_per_client must be at least 1"),
        (lambda rng: shards(LABELS, 400, 2, rng), "600 examples are too few for 400 clients with at least 2"),
        (lambda rng: quantity_skew(600, 7, rng), "exactly one of alpha"),
        (lambda rng: quantity_skew(600, 7, rng, alpha=1.0, sigma=1.0), "exactly one of alpha"),
        (lambda rng: quantity_skew(600, 7, rng, alpha=-1.0), "alpha must be a number above 0"),
        (lambda rng: quantity_skew(600, 7, rng, sigma=-1.0), "sigma must be a number of at least 0"),
        (lambda rng: by_key([]), "there are no keys"),
    ],
)
def test_refuses_what_cannot_be_cut(cut: Callable[[Rng], list[Indices]], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        cut(insecure_seeded_rng(0))
