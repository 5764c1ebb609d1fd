"""Groups under masks: who is with whom, how many stay clean, what a check of the sums holds, and what nothing holds."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridotto.core.fixedpoint import FixedPoint
from ridotto.errors import DataError, PlanError
from ridotto.learn.robust import Combined, Rule, rule
from ridotto.learn.robust.groups import (
    TOO_LONG,
    at_most_dirty,
    clean_groups,
    deviation_of,
    exceeding,
    group_of,
    group_sizes,
    honest_limit,
    influence,
)
from tests.learn.robust.attacks import ATTACKS, Attack, attacked, honest_updates, replacement

SEED = bytes(range(32))
NAMES = [f"participant-{number}" for number in range(23)]


def test_deals_into_groups_of_nearly_equal_size_whatever_the_order() -> None:
    dealt = group_of(NAMES, SEED, 5)
    assert sorted(Counter(dealt.values()).values()) == [4, 4, 5, 5, 5]
    assert group_of(NAMES[::-1], SEED, 5) == dealt
    assert group_sizes(23, 5) == tuple(Counter(dealt.values())[group] for group in range(5))


def test_another_seed_deals_anew() -> None:
    other = group_of(NAMES, bytes(32), 5)
    assert other != group_of(NAMES, SEED, 5)


def test_the_deal_does_not_change_from_one_release_to_the_next() -> None:
    assert group_of(["a", "b", "c", "d"], SEED, 2) == {"d": 0, "a": 1, "c": 0, "b": 1}


def test_every_pair_is_as_often_together_as_chance_has_it() -> None:
    # 4 of 8 in each of 2 groups: two are together with probability 3/7. 2,000 seeds, deviation 0.011; five of these is
    # a false alarm of 6e-7.
    names = list("abcdefgh")
    together = 0
    for number in range(2000):
        dealt = group_of(names, number.to_bytes(32, "big"), 2)
        together += dealt["a"] == dealt["b"]
    assert abs(together / 2000 - 3 / 7) < 0.055


@pytest.mark.parametrize(
    ("names", "seed", "groups", "why"),
    [
        (["a", "b"], SEED, 3, "2 participants can be dealt into 1 to 2 groups, not 3"),
        (["a", "b"], SEED, 0, "not 0"),
        (["a", "a"], SEED, 1, "two participants have the same name"),
        (["a", "b"], SEED[:31], 1, "the seed of the groups has 31 bytes, it must have 32"),
    ],
)
def test_refuses_groups_that_can_not_be(names: list[str], seed: bytes, groups: int, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        group_of(names, seed, groups)


def test_two_attackers_among_three_pairs() -> None:
    # 15 ways to place 2 among 6: 3 in one group, which leaves two clean; 12 in two, which leaves one.
    assert clean_groups(6, 2, 3) == (0, 12 / 15, 3 / 15, 0)
    assert at_most_dirty(6, 2, 3, 1) == 3 / 15


@pytest.mark.parametrize(
    ("participants", "attackers", "groups"), [(7, 3, 3), (8, 4, 3), (9, 2, 4), (6, 6, 3), (5, 0, 2)]
)
def test_agrees_with_counting_every_placement(participants: int, attackers: int, groups: int) -> None:
    group = [group for group, size in enumerate(group_sizes(participants, groups)) for _ in range(size)]
    ways = Counter(
        groups - len({group[place] for place in places})
        for places in itertools.combinations(range(participants), attackers)
    )
    total = sum(ways.values())
    assert clean_groups(participants, attackers, groups) == tuple(ways[clean] / total for clean in range(groups + 1))


def test_the_probability_that_one_group_is_clean_is_hypergeometric() -> None:
    # The expected number of clean groups is 10 times that of one: C(90, 10) / C(100, 10).
    clean = clean_groups(100, 10, 10)
    expected = 10 * math.comb(90, 10) / math.comb(100, 10)
    assert math.isclose(sum(count * chance for count, chance in enumerate(clean)), expected, rel_tol=1e-12)
    assert math.isclose(sum(clean), 1.0)


def test_as_many_dirty_groups_as_attackers_are_certain() -> None:
    assert at_most_dirty(100, 10, 25, 10) == 1.0
    assert at_most_dirty(100, 10, 25, 9) < 1.0
    assert at_most_dirty(100, 10, 25, 0) == 0.0
    assert at_most_dirty(100, 0, 25, 0) == 1.0
    assert at_most_dirty(10, 10, 5, 5) == 1.0


def test_refuses_impossible_counts() -> None:
    with pytest.raises(PlanError, match="11 of 10 participants can't be attackers"):
        clean_groups(10, 11, 2)
    with pytest.raises(PlanError, match="10 participants can be dealt into 1 to 10 groups, not 11"):
        clean_groups(10, 1, 11)


def combined(means: np.ndarray, by: Rule, limits: list[float]) -> Combined:
    """Combine the means of groups as a round does, those that are too long left out."""
    return by.combine(means, np.ones(len(means)), None, exceeding(means, limits))


def test_leaves_out_a_group_that_is_too_long_and_combines_the_others() -> None:
    means = np.array([[1, 0], [0.6, 0.8], [0, 1], [90, 0], [0.8, 0.6]], np.float32)
    result = combined(means, rule("median"), [1.0] * 5)
    assert result.reasons == {3: TOO_LONG}
    assert_allclose(result.mean, [0.7, 0.7])
    assert_array_equal(result.kept, [True, True, True, False, True])
    # Without the check the median withstands it too, the mean would not.
    assert rule("median").combine(means, np.ones(5)).kept.all()


def test_found_groups_count_as_attackers() -> None:
    means = np.array([[1.0], [2.0], [3.0], [4.0], [1e9]], np.float32)
    # One is trimmed at each end for f = 1; the lie is found, so nothing needs to be trimmed any more.
    assert combined(means, rule("trimmed_mean", attackers=1), [5.0] * 5).mean == 2.5
    means[3] = math.nan
    with pytest.raises(DataError, match="2 of 5 updates are excluded, and trimmed_mean withstands 1 attackers"):
        combined(means, rule("trimmed_mean", attackers=1), [5.0] * 5)


def dealt_means(rows: np.ndarray, groups: int) -> tuple[np.ndarray, dict[str, int]]:
    """What is left of individual updates under masks: the mean of each group; and who is where."""
    dealt = group_of([str(row) for row in range(len(rows))], SEED, groups)
    means = np.zeros((groups, rows.shape[1]))
    sizes = group_sizes(len(rows), groups)
    for name, group in dealt.items():
        means[group] += rows[int(name)].astype(np.float64) / sizes[group]
    return means.astype(np.float32), dealt


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_ten_of_a_hundred_liars_leave_a_median_of_25_groups_within_the_range_of_clean_groups(attack: Attack) -> None:
    honest = honest_updates(90, 300)
    rows, true = attacked(honest, attack, 10)
    means, dealt = dealt_means(rows, 25)
    dirty = {dealt[str(row)] for row in np.flatnonzero(~true)}
    assert len(dirty) <= 10
    clean = means[[group for group in range(25) if group not in dirty]]
    limit = float(np.linalg.norm(honest, axis=1).max())
    for limits in ([1e30] * 25, [limit] * 25):
        result = combined(means, rule("median"), limits)
        assert set(result.reasons) <= dirty
        assert (result.mean >= np.nextafter(clean.min(axis=0), -np.inf)).all()
        assert (result.mean <= np.nextafter(clean.max(axis=0), np.inf)).all()


def test_one_liar_of_a_hundred_replaces_the_model_in_one_sum_and_not_in_groups() -> None:
    honest = honest_updates(99, 300)
    rows, _ = attacked(honest, replacement, 1)
    target = 50.0
    assert abs(rows.mean(axis=0)[0] - target) < 1
    means, _ = dealt_means(rows, 20)
    checked = combined(means, rule("trimmed_mean", attackers=1), [4.5] * 20)
    assert len(checked.reasons) == 1
    assert np.linalg.norm(checked.mean - honest.mean(axis=0)) < 0.2


@pytest.mark.parametrize("limits", [[1.0] * 2, [1.0, 1.0, 0.0], [1.0, 1.0, math.nan]])
def test_refuses_limits_that_are_none(limits: list[float]) -> None:
    with pytest.raises(PlanError, match="3 groups need as many limits above 0"):
        exceeding(np.ones((3, 2), np.float32), limits)


FIXED = FixedPoint(bits=24, bound=1.0, participants=8, max_weight=10)
LENGTH = 3000


def encoded(rng: np.random.Generator, direction: np.ndarray, weight: int) -> np.ndarray:
    words = rng.integers(0, 2**32, LENGTH, dtype=np.uint32)
    return FIXED.encode(direction.astype(np.float32), weight, words)[0]


def worst_group(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Sum of eight honest participants who all send the same update, exactly of length 1: the longest they can be."""
    direction = rng.normal(size=LENGTH)
    direction = (direction / np.linalg.norm(direction) * (1 - 2.0**-22)).astype(np.float32)
    weights = rng.integers(1, 11, 8)
    total = sum((encoded(rng, direction, int(weight)) for weight in weights), np.zeros(LENGTH, np.uint32))
    return total, int(weights.sum())


def limit_of(weight: int, false_alarm: float) -> float:
    unit = FIXED.resolution * FIXED.max_weight / weight
    return honest_limit(1.0, LENGTH, deviation_of(8, unit), false_alarm)


def test_honest_groups_stay_below_the_limit() -> None:
    # 200 groups at a false alarm of 1e-9 each: 2e-7 for this test.
    rng = np.random.default_rng(8)
    for _ in range(200):
        total, weight = worst_group(rng)
        mean = FIXED.decode(total & np.uint32(2**24 - 1), weight)
        assert exceeding(mean[None], [limit_of(weight, 1e-9)]) == {}


@pytest.mark.parametrize("pushed", [2**23 - 1, 2**23, 2**24 - 2**20, 2**20])
def test_a_liar_who_uses_the_ring_loses_its_group(pushed: int) -> None:
    rng = np.random.default_rng(9)
    total, weight = worst_group(rng)
    total[:5] += np.uint32(pushed)
    mean = FIXED.decode(total & np.uint32(2**24 - 1), weight)
    assert exceeding(mean[None], [limit_of(weight, 2.0**-40)]) == {0: TOO_LONG}


def test_what_gets_through_the_check_is_within_the_limit_however_it_was_made() -> None:
    # Random elements of the ring: whether they pass or not, what passes is as short as honest means are.
    rng = np.random.default_rng(10)
    passed = 0
    for scale in (2, 2**8, 2**12, 2**16, 2**24):
        total = rng.integers(0, scale, LENGTH, dtype=np.uint32)
        mean, limit = FIXED.decode(total, 40), limit_of(40, 2.0**-40)
        if not exceeding(mean[None], [limit]):
            passed += 1
            assert np.linalg.norm(mean.astype(np.float64)) <= limit * (1 + 1e-6)
    assert 0 < passed < 5


def test_the_limit_is_the_clip_bound_and_what_rounding_and_noise_add() -> None:
    assert honest_limit(2.0, 100, 0.0) == 2.0
    # 0.1 * (sqrt(100) + sqrt(2 * 8)), with a false alarm of exp(-8).
    assert math.isclose(honest_limit(2.0, 100, 0.1, math.exp(-8)), 2 + 0.1 * 14)
    # Four members: half of sqrt(4) units, which is 0.3; and noise of 0.4.
    assert math.isclose(deviation_of(4, 0.3, noise=0.4), 0.5)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((0.0, 10, 0.1, 0.1), "the clip bound must be a number above 0, not 0.0"),
        ((1.0, 0, 0.1, 0.1), "the length of a model must be at least 1, not 0"),
        ((1.0, 10, -1.0, 0.1), "the deviation must be a number of at least 0, not -1.0"),
        ((1.0, 10, 0.1, 1.0), "the false alarm must be between 0 and 1, not 1.0"),
        ((math.nan, 10, 0.1, 0.5), "not nan"),
    ],
)
def test_refuses_a_limit_of_nonsense(arguments: tuple[Any, ...], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        honest_limit(*arguments)


@pytest.mark.parametrize(
    ("arguments", "why"), [((0, 1.0), "at least 1"), ((1, -1.0), "unit"), ((1, 1.0, -1.0), "noise")]
)
def test_refuses_a_deviation_of_nonsense(arguments: tuple[Any, ...], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        deviation_of(*arguments)


def test_influence_of_one_liar() -> None:
    # C = 1, a liar with 10 of 1,000; its group counts 100 and shows at most 1.5; the ring reaches 4 in 9 entries.
    found = influence(1.0, 10, 1000, group_weight=100, limit=1.5, reach=4.0, length=9)
    assert found.clipped == 0.02
    assert found.group == 0.25
    assert found.ring == 13.0


def test_the_bound_on_a_clipped_liar_is_reached() -> None:
    # Nine honest participants at (1), a liar at (-1), all of weight 1: from 1 the mean moves to 0.8.
    found = influence(1.0, 1, 10, group_weight=1, limit=1.0, reach=1.0, length=1)
    assert math.isclose(1 - (9 - 1) / 10, found.clipped)


def test_the_bound_on_a_liar_under_masks_without_a_check_is_nearly_reached() -> None:
    total, weight = worst_group(np.random.default_rng(11))
    before = FIXED.decode(total & np.uint32(2**24 - 1), weight)
    reach = 2**23 * FIXED.resolution * 10 / weight
    found = influence(1.0, 10, weight, group_weight=weight, limit=1.0, reach=reach, length=LENGTH)
    pushed = FIXED.decode((total + np.uint32(2**23 - 2**21)) & np.uint32(2**24 - 1), weight)
    moved = float(np.linalg.norm(pushed.astype(np.float64) - before))
    assert 0.5 * found.ring < moved < found.ring
    assert moved > 100 * found.clipped


@pytest.mark.parametrize("numbers", [(0.0, 1, 10), (1.0, 0, 10), (1.0, 11, 10), (1.0, 1, math.inf)])
def test_refuses_an_influence_of_nonsense(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(PlanError):
        influence(*numbers, group_weight=1, limit=1.0, reach=1.0, length=1)
