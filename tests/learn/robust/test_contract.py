"""What holds for every rule: the registry, refusals, who is excluded, and symmetries."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridotto.errors import DataError, PlanError
from ridotto.learn.robust import RULES, Rule, rule
from ridotto.learn.robust.rule import NO_WEIGHT, NOT_FINITE
from tests.learn.robust.attacks import honest_updates

F = 2
PARAMETERS: dict[str, dict[str, float]] = {
    "trimmed_mean": {"attackers": F},
    "krum": {"attackers": F},
    "multi_krum": {"attackers": F},
    "bulyan": {"attackers": F},
    "norm_bound": {"bound": 3.0},
    "norm_filter": {"bound": 30.0},
    "relative_norm_filter": {"factor": 2.0},
}
SHIFTABLE = ("median", "trimmed_mean", "krum", "multi_krum", "bulyan", "geometric_median")
N, D = 13, 700
HONEST = honest_updates(N, D)
ROOT = honest_updates(1, D, seed=9)[0] + HONEST[0]


def make(name: str) -> Rule:
    return rule(name, **PARAMETERS.get(name, {}))


def combine(name: str, rows: np.ndarray, weights: np.ndarray | None = None):
    return make(name).combine(rows, np.ones(len(rows)) if weights is None else weights, ROOT)


def test_knows_eleven_rules() -> None:
    assert RULES == (
        "mean",
        "median",
        "trimmed_mean",
        "krum",
        "multi_krum",
        "bulyan",
        "geometric_median",
        "norm_bound",
        "norm_filter",
        "relative_norm_filter",
        "fltrust",
    )


@pytest.mark.parametrize(
    ("name", "parameters", "why"),
    [
        ("sum", {}, "there is no robust rule 'sum'; the known ones are mean, median, trimmed_mean, krum"),
        ("krum", {}, "krum needs attackers, which has no default; its parameters are attackers"),
        ("median", {"attackers": 1}, "median has no parameter 'attackers'; it has none"),
        ("krum", {"f": 1}, "krum has no parameter 'f'; its parameters are attackers"),
        ("krum", {"attackers": 1.5}, "krum: attackers must be a whole number of at least 0, not 1.5"),
        ("krum", {"attackers": -1}, "whole number of at least 0, not -1"),
        ("krum", {"attackers": True}, "not True"),
        ("bulyan", {"attackers": "2"}, "not '2'"),
        ("bulyan", {"attackers": 10**400}, "bulyan: attackers must be a whole number"),
        ("trimmed_mean", {"attackers": math.nan}, "not nan"),
        ("multi_krum", {"attackers": 1, "selected": 0}, "selected must be a whole number of at least 1, not 0"),
        ("norm_bound", {"bound": 0.0}, "norm_bound: bound must be a number above 0, not 0.0"),
        ("norm_filter", {"bound": math.inf}, "norm_filter: bound must be a number above 0, not inf"),
        ("relative_norm_filter", {"factor": 1}, "factor must be a number above 1, not 1"),
        ("geometric_median", {"smoothing": 0}, "smoothing must be a number above 0, not 0"),
    ],
)
def test_refuses_with_a_reason(name: str, parameters: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        rule(name, **parameters)


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("median", 5),
        ("trimmed_mean", 5),
        ("krum", 7),
        ("multi_krum", 7),
        ("bulyan", 11),
        ("geometric_median", 5),
        ("norm_bound", 3),
        ("norm_filter", 3),
        ("relative_norm_filter", 5),
        ("fltrust", 3),
    ],
)
def test_says_how_many_it_needs_against_two_and_refuses_fewer(name: str, least: int) -> None:
    chosen = make(name)
    assert chosen.least(F) == least
    assert chosen.withstands(least) == F
    assert np.isfinite(combine(name, HONEST[:least]).mean).all()
    if chosen.attackers is None:
        assert chosen.withstands(least - 1) == F - 1
        return
    with pytest.raises(PlanError, match=rf"{name} against 2 attackers needs at least {least} participants, not "):
        combine(name, HONEST[: least - 1])


def test_multi_krum_needs_enough_to_select_from() -> None:
    chosen = rule("multi_krum", attackers=1, selected=4)
    assert chosen.least(1) == 7
    with pytest.raises(PlanError, match="needs at least 7 participants, not 6"):
        chosen.combine(HONEST[:6], np.ones(6))


def test_only_means_go_without_individual_updates_and_only_fltrust_has_a_root() -> None:
    assert [name for name in RULES if not make(name).individual] == ["mean", "norm_bound"]
    assert [name for name in RULES if make(name).rooted] == ["fltrust"]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
def test_excludes_what_is_not_finite_by_name_as_if_it_had_never_come(name: str, poison: float) -> None:
    rows = HONEST.copy()
    rows[4, 123] = poison
    rows[9, -1] = poison
    result = combine(name, rows)
    assert result.reasons[4] == result.reasons[9] == NOT_FINITE
    assert not result.kept[[4, 9]].any()
    assert np.isfinite(result.mean).all()
    # The two liars were found, so what is left is trusted as by a rule against none.
    rest = rule(name, **{**PARAMETERS.get(name, {}), **({"attackers": 0} if make(name).attackers else {})})
    alone = rest.combine(np.delete(rows, [4, 9], axis=0), np.ones(N - 2), ROOT)
    assert_array_equal(result.mean, alone.mean)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("weight", [math.nan, math.inf, 0.0, -1.0])
def test_excludes_whose_weight_is_none(name: str, weight: float) -> None:
    weights = np.ones(N)
    weights[3] = weight
    result = combine(name, HONEST, weights)
    assert result.reasons[3] == NO_WEIGHT
    assert np.isfinite(result.mean).all()


@pytest.mark.parametrize("name", RULES)
def test_refuses_to_go_on_with_more_lies_than_it_withstands(name: str) -> None:
    chosen, rows = make(name), HONEST.copy()
    found = chosen.withstands(N) + 1
    rows[:found, 0] = math.nan
    with pytest.raises(DataError, match=rf"{found} of 13 updates are excluded, and {name} withstands {found - 1} atta"):
        combine(name, rows)


@pytest.mark.parametrize("name", RULES)
def test_large_but_finite_values_raise_nothing(name: str) -> None:
    rows = HONEST.copy()
    rows[5] = np.finfo(np.float32).max
    rows[6] = -np.finfo(np.float32).max
    assert np.isfinite(combine(name, rows).mean).all()


@pytest.mark.parametrize("name", RULES)
def test_the_result_has_every_row_kept_or_a_reason_and_leaves_the_updates_alone(name: str) -> None:
    rows = HONEST.copy()
    rows[2] *= -20
    before = rows.copy()
    result = combine(name, rows)
    assert result.mean.dtype == np.float32
    assert result.mean.shape == (D,)
    assert set(np.flatnonzero(~result.kept)) == set(result.reasons)
    assert_array_equal(rows, before)
    assert not any(character.isdigit() for why in result.reasons.values() for character in why)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_participants_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(4)
    order, weights = rng.permutation(N), rng.uniform(1, 2, N)
    straight, mixed = combine(name, HONEST, weights), combine(name, HONEST[order], weights[order])
    assert_allclose(mixed.mean, straight.mean, rtol=1e-5, atol=1e-6)
    assert_array_equal(mixed.kept, straight.kept[order])


@pytest.mark.parametrize("name", SHIFTABLE)
def test_moves_with_the_updates(name: str) -> None:
    shift = np.random.default_rng(3).normal(size=D).astype(np.float32)
    assert_allclose(combine(name, HONEST + shift).mean, combine(name, HONEST).mean + shift, atol=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_equal_updates_give_that_update(name: str) -> None:
    same = np.tile(HONEST[0] / 2, (N, 1))
    root = HONEST[0] / 2
    assert_allclose(make(name).combine(same, np.arange(1.0, N + 1), root).mean, root, rtol=1e-5)


@pytest.mark.parametrize(
    ("rows", "weights", "why"),
    [
        (HONEST.astype(np.float64), np.ones(N), r"updates are float32 of shape \(n, d\), not float64"),
        (HONEST[0], np.ones(N), "not float32 of shape"),
        (HONEST[:0], np.ones(0), "not float32 of shape"),
        (HONEST[:, :0], np.ones(N), "not float32 of shape"),
        (HONEST, np.ones(N - 1), r"weights are float64 of shape \(13,\), not float64 of shape \(12,\)"),
        (HONEST, np.ones(N, np.float32), "not float32 of shape"),
    ],
)
def test_refuses_shapes_that_do_not_fit(rows: np.ndarray, weights: np.ndarray, why: str) -> None:
    with pytest.raises(DataError, match=why):
        make("median").combine(rows, weights)


@pytest.mark.parametrize(
    ("root", "why"),
    [
        (None, r"fltrust needs the server's own update, float32 of shape \(700,\), not none"),
        (ROOT[:-1], "not float32 of shape"),
        (ROOT * np.float32(math.nan), "the server's own update has a NaN"),
        (ROOT * np.float32(0), "must have a length above 0"),
        (np.full(D, np.finfo(np.float32).max), "that float32 can hold"),
        (-ROOT, "no update points the way of the server's own"),
    ],
)
def test_fltrust_needs_a_root(root: np.ndarray | None, why: str) -> None:
    with pytest.raises(DataError, match=why):
        rule("fltrust").combine(HONEST, np.ones(N), root)


def test_fltrust_does_not_trust_an_update_of_zeros() -> None:
    rows = HONEST.copy()
    rows[1] = 0
    assert list(combine("fltrust", rows).reasons) == [1]


def test_norm_filter_refuses_when_nobody_is_left() -> None:
    with pytest.raises(DataError, match="nothing is left to combine: of every participant, its update is longer"):
        rule("norm_filter", bound=1e-3).combine(HONEST, np.ones(N))


def test_rows_found_before_are_excluded_with_their_reason() -> None:
    result = make("krum").combine(HONEST, np.ones(N), excluded={7: "its sum is too long"})
    assert result.reasons[7] == "its sum is too long"
