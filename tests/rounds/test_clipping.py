"""The clips of a plan: what they allow, how they shorten, and how an adaptive one follows a quantile."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Layout
from ridotto.errors import DataError, PlanError
from ridotto.rounds.clipping import AdaptiveClip, Clip, clip_layers, clip_whole
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan

LAYOUT = Layout.of({"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)})


def test_a_number_and_a_flat_clip_are_one_plan() -> None:
    assert Plan(cohort=10, clip=Clip(2)).encode() == Plan(cohort=10, clip=2.0).encode()
    assert Plan(cohort=10, clip=Clip(2.0, per_layer=True)) != Plan(cohort=10, clip=2.0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Clip(0.0), "clip is a norm from 1e-30"),
        (lambda: Clip(math.nan), "clip is a norm"),
        (lambda: Plan(cohort=10, clip="1"), "clip is a number, ridotto.Clip or ridotto.AdaptiveClip, not '1'"),
        (lambda: AdaptiveClip(norm=0.0), "clip is a norm"),
        (lambda: AdaptiveClip(quantile=1.0), "quantile of an adaptive clip is between 0 and 1, not 1.0"),
        (lambda: AdaptiveClip(step=0.0), "step of an adaptive clip is above 0"),
        (lambda: AdaptiveClip(deviation=0.0), "deviation of an adaptive clip is from 0.01"),
        (lambda: AdaptiveClip(norm=10**30), "more than 64 bits"),
    ],
)
def test_refuses_clips_that_can_not_be(make: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make()


def test_shortens_what_is_too_long_and_leaves_the_rest() -> None:
    update = np.array([3, 4, 0], np.float32)
    whole, shortened = clip_whole(update, 1.0)
    assert shortened
    assert np.linalg.norm(whole.astype(np.float64)) <= 1.0
    assert np.allclose(whole, [0.6, 0.8, 0])
    assert clip_whole(update, 5.0).vector is update


def test_layers_are_shortened_by_themselves() -> None:
    update = np.array([0, 0, 0, 0, 0, 9, 0.1, 0], np.float32)
    clipped, shortened = clip_layers(update, 2.0, LAYOUT)
    assert shortened
    assert math.isclose(np.linalg.norm(clipped[:6]), math.sqrt(2), rel_tol=1e-6)
    assert np.array_equal(clipped[6:], update[6:])
    assert np.linalg.norm(clip_layers(np.full(8, 9, np.float32), 2.0, LAYOUT).vector.astype(np.float64)) <= 2.0


def test_a_clip_per_layer_names_what_is_not_finite_and_needs_the_layout() -> None:
    with pytest.raises(DataError, match="bias"):
        clip_layers(np.array([0] * 7 + [math.inf], np.float32), 1.0, LAYOUT)
    with pytest.raises(PlanError, match="needs the model's layout"):
        Pipeline(Plan(cohort=10, clip=Clip(1.0, per_layer=True)), 8)


def test_follows_the_quantile_as_the_paper_says() -> None:
    clip = AdaptiveClip(norm=2.0, quantile=0.5, step=0.2)
    assert clip.after(1.0) == pytest.approx(2.0 * math.exp(-0.1), rel=1e-6)
    assert clip.after(0.0) == pytest.approx(2.0 * math.exp(0.1), rel=1e-6)
    assert clip.after(0.5) == 2.0
    # A liar can put any number into the sum; a step stays a step.
    assert clip.after(1e9) == clip.after(1.0)
    # It stays what a clip may be, as the float32 number that is kept of it.
    for norm in (1e-30, 1e30):
        for within in (0.0, 1.0):
            after = AdaptiveClip(norm=norm).after(within)
            assert AdaptiveClip(norm=float(np.float32(after))).norm == after


@pytest.mark.parametrize(("z", "cohort"), [(0.5, 100), (1.0, 1000), (4.0, 100)])
def test_noise_is_split_as_theorem_1_says(z: float, cohort: int) -> None:
    clip = AdaptiveClip(norm=3.0, deviation=0.05)
    weight = clip.bit_weight(z, cohort)  # s / C
    sigma = z * math.sqrt(1 + weight**2 / 4)  # on every entry, over C
    of_bits = 0.05 * cohort
    assert sigma / weight == pytest.approx(of_bits)
    assert sigma == pytest.approx((z**-2 - (2 * of_bits) ** -2) ** -0.5)


def test_refuses_bits_that_so_few_participants_can_not_have() -> None:
    with pytest.raises(PlanError, match=r"0\.05 of 10 participants on its bits.*allows no less than 0\.1"):
        AdaptiveClip().bit_weight(2.0, 10)


def test_a_lane_counts_who_was_too_long() -> None:
    plan = Plan(cohort=10, clip=AdaptiveClip(norm=1.0), max_examples=5)
    pipeline = Pipeline(plan, 3)
    dice = SeededDice(insecure_seeded_rng(1))
    updates = [np.array([size, 0, 0], np.float32) for size in (0.5, 1.0, 2.0, 3.0)]
    total = sum(pipeline.encode(update, 5, {}, dice) for update in updates)
    found = pipeline.decode(total)
    assert found.clipped == 2
    assert np.allclose(found.mean, [(0.5 + 1 + 1 + 1) / 4, 0, 0], atol=1e-6)


def test_a_plan_of_a_round_is_the_plan_at_its_clip() -> None:
    plan = Plan(cohort=10, clip=AdaptiveClip(norm=1.0))
    assert plan.clipped_at(2.0).clip == msgspec.structs.replace(plan.clip, norm=2.0)
    assert plan.clipped_at(1.0) is plan
    assert Plan(cohort=10, clip=1.0).clipped_at(2.0).clip == 1.0
