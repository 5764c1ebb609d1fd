"""Graphs and thresholds: against brute force, exact integers and the numbers that are known for large federations."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import PlanError
from ridotto.secagg import graph
from ridotto.secagg.graph import (
    complete_holders,
    complete_threshold,
    sparse_holders,
    sparse_is_safe,
    sparse_parameters,
)


def exact_tail(population: int, marked: int, drawn: int, at_least: int) -> Fraction:
    """P[X >= at_least] for X hypergeometric, in exact integers: the reference for `_tails`."""
    hits = range(max(at_least, 0), drawn + 1)
    ways = sum(math.comb(marked, hit) * math.comb(population - marked, drawn - hit) for hit in hits)
    return Fraction(ways, math.comb(population, drawn))


def exact_parameters(n: int, corrupt: int, drop_out: int) -> tuple[int, int] | None:
    """Search as the docstring of `sparse_parameters` says, in exact integers."""
    for degree in range(2, n, 2):
        for threshold in range(degree // 2 + 1, degree + 1):
            if n * exact_tail(n - 1, corrupt, degree, 2 * threshold - degree) < Fraction(1, 2**40):
                loss = n * exact_tail(n - 1, drop_out, degree, degree - threshold + 1)
                if loss < Fraction(1, 2**30):
                    return degree, threshold
                break
    return None


# --- complete graph ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "corrupt", "threshold"), [(2, 0, 2), (3, 0, 2), (5, 0, 3), (5, 1, 4), (10, 1, 6), (128, 12, 71)]
)
def test_complete_threshold(present: int, corrupt: int, threshold: int) -> None:
    assert complete_threshold(present, corrupt) == threshold


@pytest.mark.parametrize("present", range(1, 40))
def test_complete_threshold_keeps_both_secrets_apart_and_is_the_smallest_that_does(present: int) -> None:
    """Honest holders reveal one of the two shares, corrupt ones both: g + c shares at most, and two secrets need 2t."""
    for corrupt in range(present):
        threshold = complete_threshold(present, corrupt)
        assert 2 * threshold > present + corrupt
        assert 2 * (threshold - 1) <= present + corrupt
        assert threshold <= present


def test_complete_holders_are_everyone_themselves_included() -> None:
    assert complete_holders([4, 1, 2]) == {4: (1, 2, 4), 1: (1, 2, 4), 2: (1, 2, 4)}


# --- sparse graph: shape ----------------------------------------------------------------------------------------


@given(
    present=st.sets(st.integers(0, 9999), min_size=3, max_size=40),
    half=st.integers(1, 19),
    seed=st.binary(min_size=32, max_size=32),
)
def test_sparse_graph_is_regular_mutual_and_without_loops(present: set[int], half: int, seed: bytes) -> None:
    degree = min(2 * half, (len(present) - 1) // 2 * 2)
    holders = sparse_holders(sorted(present), degree, seed)
    assert set(holders) == present
    for owner, neighbours in holders.items():
        assert len(set(neighbours)) == degree
        assert owner not in neighbours
        assert list(neighbours) == sorted(neighbours)
        assert all(owner in holders[neighbour] for neighbour in neighbours)


def test_sparse_graph_depends_on_the_seed_and_not_on_the_order() -> None:
    present = list(range(20))
    assert sparse_holders(present, 4, b"a" * 32) == sparse_holders(present[::-1], 4, b"a" * 32)
    assert sparse_holders(present, 4, b"a" * 32) != sparse_holders(present, 4, b"b" * 32)


@pytest.mark.parametrize("degree", [0, 1, 3, 10, 12, -2])
def test_sparse_graph_refuses_a_degree_that_does_not_fit(degree: int) -> None:
    with pytest.raises(PlanError, match="needs an even degree below that"):
        sparse_holders(range(10), degree, b"s" * 32)


# --- sparse graph: parameters -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "corrupt", "drop_out", "expected"),
    [
        (10_000, 500, 500, (74, 51)),
        (10_000, 1_000, 1_000, (144, 98)),
        (10_000, 1_000, 2_000, (332, 209)),
        (1_000_000, 50_000, 50_000, (86, 59)),
        (1_000_000, 100_000, 100_000, (168, 114)),
    ],
)
def test_parameters_of_large_federations(n: int, corrupt: int, drop_out: int, expected: tuple[int, int]) -> None:
    """Table of docs/protocols/pairwise.md."""
    assert sparse_parameters(n, corrupt, drop_out) == expected


@pytest.mark.parametrize(
    ("n", "corrupt", "drop_out"),
    [(60, 0, 3), (60, 3, 3), (100, 5, 5), (150, 8, 8), (200, 20, 20), (40, 2, 12), (1_000, 50, 50)],
)
def test_parameters_agree_with_exact_integers(n: int, corrupt: int, drop_out: int) -> None:
    expected = exact_parameters(n, corrupt, drop_out)
    if expected is None:
        with pytest.raises(PlanError, match="use the complete graph"):
            sparse_parameters(n, corrupt, drop_out)
    else:
        assert sparse_parameters(n, corrupt, drop_out) == expected


@given(
    population=st.integers(1, 60),
    marked=st.integers(0, 60),
    drawn=st.integers(0, 60),
)
def test_tails_agree_with_exact_integers(population: int, marked: int, drawn: int) -> None:
    marked, drawn = min(marked, population), min(drawn, population)
    tails = graph._tails(population, marked, drawn)
    for at_least in range(drawn + 2):
        exact = exact_tail(population, marked, drawn, at_least)
        if exact == 0:
            assert tails[at_least] == -math.inf
        else:
            assert tails[at_least] == pytest.approx(math.log2(exact), abs=1e-9)


def test_chosen_parameters_are_safe_and_one_less_is_not() -> None:
    degree, threshold = sparse_parameters(1_000, 50, 50)
    assert sparse_is_safe(1_000, 50, degree, threshold)
    assert not sparse_is_safe(1_000, 50, degree, threshold - 1)
    assert not sparse_is_safe(1_000, 500, degree, threshold)


def test_nobody_is_corrupt_and_nobody_leaves() -> None:
    assert sparse_parameters(100, 0, 0) == (2, 2)


def test_one_corrupt_and_one_leaving_among_ten() -> None:
    """k = 4, t = 3: two corrupt neighbours would be needed, and two that leave; there is one of each."""
    assert sparse_parameters(10, 1, 1) == (4, 3)


@pytest.mark.parametrize(("n", "corrupt", "drop_out"), [(10, 3, 3), (10_000, 4_900, 4_900), (2, 0, 0)])
def test_refuses_what_no_graph_tolerates_and_soon(n: int, corrupt: int, drop_out: int) -> None:
    """A hostile plan may ask for this; the search once took hours."""
    started = process_time()
    with pytest.raises(PlanError, match=f"no sparse graph over {n} tolerates"):
        sparse_parameters(n, corrupt, drop_out)
    assert process_time() - started < 30


def test_both_secrets_stay_apart_for_every_split_of_a_small_neighbourhood() -> None:
    """The 2t - k rule by brute force: k = 6, t = 5, so up to 2t - k - 1 = 3 corrupt holders can't open both."""
    degree, threshold = 6, 5
    for corrupt in range(degree + 1):
        honest = degree - corrupt
        possible = any(
            seeds + corrupt >= threshold and honest - seeds + corrupt >= threshold for seeds in range(honest + 1)
        )
        assert possible == (corrupt >= 2 * threshold - degree)
    assert all(2 * t - k > 0 for k, t in itertools.product((6,), (4, 5, 6)))
