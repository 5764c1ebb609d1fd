"""Robust rules over opened sums: who is left out, what a liar gains, and when the round fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.core.fixedpoint import container
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Layout
from ridotto.errors import ConfigError, DataError, PlanError
from ridotto.privacy.noise.words import Words
from ridotto.rounds.compression import Quantize, Rotate, Sample
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import CentralGaussian, DistributedGaussian, Ideal, Pairwise, Plan, Risk
from ridotto.rounds.robustness import BucketedMedian, NormBound, Robust
from ridotto.rounds.vault import Vault

D, GROUPS, MEMBERS = 50, 5, 4
SEED = bytes(32)
LAYOUT = Layout.of({"weight": np.zeros(D, np.float32)})
HONEST = np.random.default_rng(1).normal(0, 0.05, (GROUPS * MEMBERS, D)).astype(np.float32) + np.float32(0.01)


def plan(robust: Any, **changes: Any) -> Plan:
    settings = {"clip": 1.0, "max_examples": 1, "robust": robust, "i_know": (Risk.SMALL_COHORT,)}
    return Plan(**({"cohort": GROUPS * MEMBERS} | settings | changes))


def sums(made: Plan, lies: dict[int, np.ndarray] | None = None) -> dict[bytes, np.ndarray]:
    """Return every group's sum; lies: member -> what it adds to its group's sum on top, integers of the ring."""
    pipeline, secret, found = Pipeline(made, D), insecure_seeded_rng(2), {}
    size = 1 if made.individual else MEMBERS
    for group in range(len(HONEST) // size):
        total = np.zeros(pipeline.length, container(made.bits))
        for member in range(group * size, (group + 1) * size):
            words = Words(secret.child(member).bytes(32)) if pipeline.noise else None
            total += pipeline.encode(HONEST[member], 1, {}, SeededDice(secret), words=words, seed=SEED)
            if lies and member in lies:
                total[: len(lies[member])] += lies[member].astype(total.dtype)
        found[bytes([group])] = total
    return found


def vault(made: Plan, **options: Any) -> Vault:
    noise = insecure_seeded_rng if isinstance(made.dp, CentralGaussian) else None
    return Vault(made, LAYOUT, np.zeros(D, np.float32), noise=noise, **options)


def applied(
    made: Plan, lies: dict[int, np.ndarray] | None = None, **options: Any
) -> tuple[np.ndarray, dict[bytes, str]]:
    """Return the mean update, and which groups were left out."""
    keeper = vault(made, **options)
    told = keeper.apply_totals(sums(made, lies), 1, SEED)
    return keeper.model, told.excluded


FLIP = np.full(D, 1 << 31, np.uint64)


def group_means(individual: bool = False) -> np.ndarray:
    return HONEST if individual else HONEST.reshape(GROUPS, MEMBERS, D).mean(axis=1)


def test_without_lies_means_are_means_and_medians_medians() -> None:
    mean, excluded = applied(plan(NormBound(GROUPS)))
    assert np.allclose(mean, HONEST.mean(axis=0), atol=1e-6)
    assert not excluded
    median, _ = applied(plan(BucketedMedian(GROUPS)))
    assert np.allclose(median, np.median(group_means(), axis=0), atol=1e-6)


@pytest.mark.parametrize("robust", [NormBound(GROUPS), BucketedMedian(GROUPS)])
@pytest.mark.parametrize(
    "lie", [FLIP, np.arange(D, dtype=np.uint64) << 27, np.full(D, (1 << 32) - (1 << 29), np.uint64)]
)
def test_a_group_that_is_too_long_is_left_out(robust: Any, lie: np.ndarray) -> None:
    model, excluded = applied(plan(robust), {6: lie})
    assert excluded == {b"\x01": "its sum is longer than honest participants can make it"}
    others = np.delete(group_means(), 1, axis=0)
    expected = others.mean(axis=0) if isinstance(robust, NormBound) else np.median(others, axis=0)
    assert np.allclose(model, expected, atol=1e-6)


def test_whatever_a_liar_adds_its_group_is_within_the_limit_or_out() -> None:
    generator = np.random.default_rng(3)
    for _ in range(50):
        lie = generator.integers(1 << 32, size=D, dtype=np.uint64)
        model, _ = applied(plan(NormBound(GROUPS)), {0: lie})
        assert np.linalg.norm(model) < 1.001


def test_a_weight_that_is_no_number_of_members_is_a_lie() -> None:
    made = plan(NormBound(GROUPS))
    pipeline = Pipeline(made, D)
    lie = np.zeros(pipeline.length, np.uint64)
    lie[pipeline.entries + 1 + pipeline.lanes.zeros] = 1 << 32 - 1  # the weight's first limb, less by one
    lie[pipeline.entries + 1 + pipeline.lanes.zeros] = (1 << 32) - 1
    _, excluded = applied(made, {2: lie})
    assert list(excluded) == [b"\x00"]
    assert "weight" in excluded[b"\x00"]


def test_a_majority_of_dirty_groups_fails_the_round_and_changes_nothing() -> None:
    keeper = vault(plan(BucketedMedian(GROUPS)))
    with pytest.raises(DataError, match="3 of 5 updates are excluded, and median withstands 2"):
        keeper.apply_totals(sums(keeper.plan, {0: FLIP, 4: FLIP, 8: FLIP}), 1, SEED)
    assert not keeper.model.any()


@pytest.mark.parametrize("dp", [DistributedGaussian, CentralGaussian])
def test_noise_does_not_make_honest_groups_liars(dp: Any) -> None:
    made = plan(NormBound(GROUPS), dp=dp(noise_multiplier=2.0, delta=1e-6))
    _, excluded = applied(made)
    assert not excluded
    _, excluded = applied(made, {0: FLIP})
    assert list(excluded) == [b"\x00"]


def test_groups_are_checked_as_they_travelled() -> None:
    made = plan(NormBound(GROUPS), compress=[Rotate(), Quantize(bits=12)])
    model, excluded = applied(made)
    assert np.allclose(model, HONEST.mean(axis=0), atol=0.01)
    assert not excluded
    _, excluded = applied(made, {0: np.full(D, 1 << 11, np.uint64)})
    assert list(excluded) == [b"\x00"]


INDIVIDUAL: dict[str, Any] = {"protocol": Ideal(), "i_know": (Risk.NO_PROTECTION,)}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("median", {}), ("trimmed_mean", {"attackers": 3}), ("krum", {"attackers": 3}), ("multi_krum", {"attackers": 3}),
     ("bulyan", {"attackers": 3}), ("geometric_median", {}), ("relative_norm_filter", {"factor": 2.0})],
)  # fmt: skip
def test_every_rule_works_on_individual_updates(name: str, parameters: dict[str, float]) -> None:
    made = plan(Robust(name, parameters), **INDIVIDUAL)
    lies = {place: np.full(D, 1 << 24, np.uint64) for place in (1, 5, 9)}
    model, _ = applied(made, lies)
    honest = np.delete(HONEST, list(lies), axis=0)
    assert np.abs(model - honest.mean(axis=0)).max() < 0.15


def test_fltrust_follows_the_root() -> None:
    made = plan(Robust("fltrust"), **INDIVIDUAL)
    with pytest.raises(ConfigError, match="fltrust compares with an update of the server's own: it needs data"):
        vault(made)
    root = HONEST.mean(axis=0)
    model, _ = applied(made, root=lambda model, number: root)
    assert np.linalg.norm(model) <= np.linalg.norm(root) * 1.001
    assert float(model @ root) > 0


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: plan(Robust("krum", {"attackers": 1})), "krum over individual updates needs to see them, and masks"),
        (lambda: plan(BucketedMedian(GROUPS), clip=None), "groups need a clip"),
        (lambda: plan(BucketedMedian(21)), "a cohort of 20 can't be dealt into 21 groups"),
        (lambda: plan(Robust("krum", {"attackers": 2}, GROUPS)), "krum against 2 attackers needs at least 7"),
        (lambda: plan(Robust("best")), "there is no robust rule 'best'"),
        (lambda: BucketedMedian(-1), "groups are 0 .* to 10000, not -1"),
        (lambda: plan(BucketedMedian(20), protocol=Pairwise(corrupt=0.0)), "masks need two"),
    ],
)
def test_refuses_rules_that_can_not_hold(make: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make()


def test_the_plan_says_which_guarantee_holds() -> None:
    said = plan(BucketedMedian(GROUPS)).protection()
    assert "Against liars: median over the means of 5 groups, 1 of which may be lies." in said
    assert "in 16% of the rounds some group has more than the 1 corrupt members" in said


@pytest.mark.parametrize("robust", [BucketedMedian(GROUPS), Robust("trimmed_mean", {"attackers": 1}, GROUPS)])
def test_too_few_groups_fail_the_round_and_nothing_else(robust: Any) -> None:
    keeper = vault(plan(robust))
    assert keeper.plan.fewest_sums == 4
    some = dict(list(sums(keeper.plan).items())[:3])
    with pytest.raises(DataError, match=r"TOO_FEW: 3 sums were opened, and the promise .* is for at least 4"):
        keeper.apply_totals(some, 1, SEED)


def test_nobody_chooses_its_own_limit_by_the_weight_it_claims() -> None:
    with pytest.raises(PlanError, match="counts heads, because a liar claims any weight: say max_examples = 1"):
        plan(NormBound(GROUPS), max_examples=100)


def test_what_compression_stretches_is_bounded_too() -> None:
    made = plan(NormBound(GROUPS), compress=[Sample(0.25)])
    generator = np.random.default_rng(5)
    for _ in range(20):
        lie = generator.integers(1 << 32, size=13, dtype=np.uint64)
        model, _ = applied(made, {0: lie})
        # A group within the clip of a quarter's usual length, decompressed: C sqrt(1 / fraction) at the most.
        assert np.linalg.norm(model) <= 2.05


def test_a_mean_of_single_updates_needs_a_clip() -> None:
    with pytest.raises(PlanError, match="bounded by the clip alone"):
        plan(NormBound(0), clip=None, **INDIVIDUAL)


def test_sessions_are_the_groups() -> None:
    made = plan(BucketedMedian(GROUPS))
    assert (made.sessions_of(20), made.largest_session, made.least) == (5, 4, 3)
    assert made.cohort_of(14) == 0
    assert made.cohort_of(16) == 16
    alone = plan(Robust("median"), **INDIVIDUAL)
    assert (alone.sessions_of(20), alone.least, alone.quorum) == (20, 1, 14)
    assert alone.cohort_of(13) == 0
