"""Compression in a plan: which orders and partners make sense, and that sums decode to what was meant."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.vector import Layout
from ridotto.errors import LocalProtocolError, PlanError
from ridotto.privacy.noise.words import Words
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.compression import (
    CountSketch,
    ErrorFeedback,
    LowRank,
    Quantize,
    Rotate,
    Sample,
    Ternary,
    TopK,
)
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.encoding import Encoding
from ridotto.rounds.noise import noise_of
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Algorithm, DistributedGaussian, Ideal, Plan, Risk
from ridotto.rounds.private import PrivacyAccount, calibrated

SEED = bytes(range(32))
IDEAL: dict[str, Any] = {"protocol": Ideal(), "i_know": (Risk.NO_PROTECTION,)}
D = 600
LAYOUT = Layout.of({"weight": np.zeros((20, 29), np.float32), "bias": np.zeros(20, np.float32)})
NOISE = DistributedGaussian(noise_multiplier=1.0, delta=1e-6)


def plan(*compress: Any, **changes: Any) -> Plan:
    return Plan(**({"cohort": 20, "compress": list(compress), "max_examples": 1} | changes))


def updates(count: int = 20, norm: float = 0.9) -> np.ndarray:
    found = np.random.default_rng(2).normal(size=(count, D))
    return (found / np.linalg.norm(found, axis=1, keepdims=True) * norm).astype(np.float32)


def mean_of(pipeline: Pipeline, rows: np.ndarray, seed: bytes = SEED) -> np.ndarray:
    secret = insecure_seeded_rng(3)
    total = np.zeros(pipeline.length, np.uint64)
    for place, row in enumerate(rows):
        words = Words(secret.child("words", place).bytes(32)) if pipeline.noise else None
        total += pipeline.encode(row, 1, {}, SeededDice(secret.child(place)), words=words, seed=seed)
    return pipeline.decode(
        total.astype(pipeline.encode(rows[0], 1, {}, SeededDice(secret), None, words, seed).dtype), seed
    ).mean


@pytest.mark.parametrize(
    ("compress", "changes", "why"),
    [
        ([Quantize(bits=10)], {"clip": 1.0}, "Quantize needs Rotate before it"),
        ([Rotate(), Quantize(bits=10)], {}, "Quantize needs a clip"),
        ([Rotate(), Quantize(bits=10), Sample(0.5)], {"clip": 1.0}, "Quantize comes after all other compression"),
        ([Rotate(), Quantize(bits=10)], {"clip": 1.0, "bits": 16}, "bits = 16, and Quantize 10"),
        ([Rotate(), Rotate()], {}, "Rotate is in the plan's compress twice"),
        ([Rotate(), LowRank(2)], {}, "LowRank comes first"),
        ([ErrorFeedback()], {}, "has no error to feed back"),
        ([Sample(0.5), ErrorFeedback()], {}, "is unbiased, so it lengthens vectors"),
        ([TopK(0.1)], {}, "TopK and Ternary don't add up under masks"),
        ([TopK(0.1), Rotate()], IDEAL, "top_k comes last in a chain; rotate follows it"),
        ([TopK(0.1)], IDEAL | {"clip": 1.0, "dp": NOISE}, "which entries TopK or Ternary send is not hidden"),
        ([Sample(0.5, scaled=False), ErrorFeedback()], {"clip": 1.0, "dp": NOISE}, "leave it out of plans with dp"),
        ([Sample(0.5)], {"algorithm": Algorithm(name="scaffold")}, "scaffold sums more than updates"),
        ("rotate", {}, "compress is a list such as"),
        ([Rotate], {}, "compress is a list such as"),
    ],
)
def test_refuses_what_makes_no_sense(compress: Any, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        Plan(**({"cohort": 20, "compress": compress, "max_examples": 1} | changes))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Sample(0.0), "fraction must be a number above 0 and at most 1, not 0.0"),
        (lambda: Sample(math.nan), "fraction must be"),
        (lambda: CountSketch(rows=0, columns=10), "rows must be a whole number from 1 to 100"),
        (lambda: LowRank(0), "rank must be a whole number from 1"),
        (lambda: TopK(2.0), "fraction must be"),
        (lambda: Quantize(bits=7), "ring_bits must be a whole number from 8 to 64"),
        (lambda: Quantize(bits=8, alignment=2.0), "alignment is at most 1"),
        (lambda: Quantize(bits=8, reach=-1.0), "reach must be a number above 0"),
    ],
)
def test_refuses_numbers_out_of_range(make: Any, why: str) -> None:
    with pytest.raises(PlanError, match=why):
        make()


def test_a_plan_travels_and_keeps_its_ring() -> None:
    made = plan(Rotate(), Sample(0.25), Quantize(bits=10), clip=1.0)
    assert made.bits == 10
    again = msgspec.msgpack.decode(made.encode(), type=Plan)
    assert again == made
    assert again.fingerprint() == made.fingerprint()


def test_a_quarter_in_ten_bits_is_a_twelfth_of_float32() -> None:
    d = 1_000_000
    pipeline = Pipeline(plan(Rotate(), Sample(0.25), Quantize(bits=10), clip=1.0), d)
    assert 4 * d / (pipeline.length * 10 / 8) > 12.7
    pipeline = Pipeline(plan(Rotate(), Sample(0.25), Quantize(bits=8), clip=1.0), d)
    assert 4 * d / pipeline.length > 15.9


@pytest.mark.parametrize(
    ("compress", "largest"),
    [
        ((Rotate(),), 1e-5),
        ((Rotate(), Quantize(bits=16)), 1e-3),
        ((Rotate(), Quantize(bits=10)), 0.05),
        ((LowRank(29),), 1e-5),
    ],
)
def test_sums_decode_to_the_mean(compress: tuple[Any, ...], largest: float) -> None:
    pipeline = Pipeline(plan(*compress, clip=1.0), LAYOUT)
    rows = updates()
    error = mean_of(pipeline, rows) - rows.mean(axis=0)
    assert np.linalg.norm(error) < largest * np.linalg.norm(rows.mean(axis=0)) + largest / 10


@pytest.mark.parametrize(
    "compress",
    [(Sample(0.5),), (Rotate(), Sample(0.5)), (Rotate(), Sample(0.5), Quantize(bits=10)), (LowRank(10),)],
)
def test_is_unbiased_over_seeds(compress: tuple[Any, ...]) -> None:
    pipeline = Pipeline(plan(*compress, clip=1.0), LAYOUT)
    rows = updates(4)
    found = np.array([mean_of(pipeline, rows, bytes([run] * 32)) for run in range(150)], np.float64)
    deviation = found.std(axis=0, ddof=1) / math.sqrt(len(found)) + 1e-6
    z = (found.mean(axis=0) - rows.mean(axis=0)) / deviation
    # 600 t-statistics: the mean of their squares is 1.01 +- 0.06, and it is tested at six deviations.
    assert 0.6 < float(np.mean(z**2)) < 1.45


def test_needs_the_seed_that_all_share() -> None:
    pipeline = Pipeline(plan(Sample(0.5)), D)
    with pytest.raises(LocalProtocolError, match="needs the seed that all participants share"):
        pipeline.encode(updates(1)[0], 1, {}, SeededDice(insecure_seeded_rng(1)))


def test_low_rank_needs_the_layout() -> None:
    with pytest.raises(PlanError, match="needs the model's layout"):
        Pipeline(plan(LowRank(2)), D)


def test_units_do_not_depend_on_the_clip() -> None:
    made = plan(Rotate(), Sample(0.5), Quantize(bits=12), clip=AdaptiveClip(norm=1.0), dp=NOISE)
    events = {noise_of(made.clipped_at(norm), D).event for norm in (1e-6, 0.3, 1.0, 7.7, 1e9)}
    assert len(events) == 1
    assert Encoding(made.clipped_at(7.7), D).units == Encoding(made, D).units


def test_noise_hides_what_a_compressed_update_usually_is() -> None:
    whole, half = (noise_of(plan(*parts, clip=1.0, dp=NOISE), D) for parts in ((), (Rotate(), Sample(0.25))))
    assert whole.bound == 1.0
    assert half.bound == pytest.approx(0.5, rel=1e-3)
    assert half.event.noise_multiplier == pytest.approx(whole.event.noise_multiplier, rel=1e-6)


def test_a_compressed_update_is_never_longer_than_its_bound() -> None:
    # All of it in one entry, which a seed may pick: longer than usual by far, and cut.
    made = plan(Sample(0.25), clip=1.0, dp=DistributedGaussian(noise_multiplier=1e-3, delta=1e-6))
    pipeline = Pipeline(made, 8)
    spike = np.zeros(8, np.float32)
    spike[3] = 1.0
    seeds = [bytes([run] * 32) for run in range(40)]
    means = [mean_of(pipeline, spike[None], seed) for seed in seeds]
    longest = max(float(np.linalg.norm(mean)) for mean in means)
    assert 1.9 < longest < 2.1  # scaled by 4 when decoded: 0.5 before


def test_the_bit_of_an_adaptive_clip_is_read_off_a_small_ring() -> None:
    clip = AdaptiveClip(norm=1.0)
    noise = DistributedGaussian(noise_multiplier=0.5, delta=1e-6)
    made = plan(Rotate(), Quantize(bits=10), clip=clip, dp=noise, cohort=100, minimum=80)
    pipeline = Pipeline(made, D)
    assert pipeline.encoding.copies == 100
    secret = insecure_seeded_rng(4)
    for within in (0, 30, 70, 100):
        total = np.zeros(pipeline.length, np.uint16)
        for place in range(100):
            row = updates(1, 0.5 if place < within else 5.0)[0]
            words = Words(secret.child(within, place).bytes(32))
            total += pipeline.encode(row, 1, {}, SeededDice(secret), words=words, seed=SEED)
        # Noise has a deviation of at most 5 * sqrt(100 / 68) participants; six of them.
        assert abs(pipeline.decode(total, SEED).clipped - (100 - within)) < 37


@pytest.mark.parametrize("compress", [(Sample(0.25, scaled=False),), (LowRank(2, scaled=False),)])
def test_error_feedback_loses_nothing_in_the_long_run(compress: tuple[Any, ...]) -> None:
    pipeline = Pipeline(plan(*compress, ErrorFeedback()), LAYOUT)
    update, kept, total = updates(1)[0], None, np.zeros(D)
    for number in range(200):
        seed = number.to_bytes(32, "big")
        whole, kept = pipeline.feed_back(update, kept, seed)
        total += mean_of(pipeline, whole[None], seed)
    # What was sent in all is what there was, less what is kept now.
    assert np.allclose(total + kept, 200 * update, atol=0.02)
    assert np.linalg.norm(total / 200 - update) < 0.2 * np.linalg.norm(update)


def test_error_feedback_goes_with_codecs_that_draw_nothing() -> None:
    pipeline = Pipeline(plan(TopK(0.1), ErrorFeedback(), **IDEAL), D)
    whole, kept = pipeline.feed_back(updates(1)[0], None, SEED)
    assert np.count_nonzero(whole - kept) == 60
    with pytest.raises(PlanError, match="is unbiased"):
        plan(Ternary(), ErrorFeedback(), **IDEAL)


def test_error_feedback_goes_with_small_rings_and_rules() -> None:
    made = plan(LowRank(2, scaled=False), ErrorFeedback(), clip=1.0)
    assert math.isfinite(Pipeline(made, LAYOUT).encoding.clip)
    made = plan(Rotate(), Sample(0.25, scaled=False), Quantize(bits=10), ErrorFeedback(), clip=1.0)
    pipeline = Pipeline(made, D)
    whole, kept = pipeline.feed_back(updates(1)[0], None, SEED)
    assert np.allclose(mean_of(pipeline, whole[None]), whole - kept, atol=0.02)


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_a_huge_update_is_clipped_like_any_other(bits: int) -> None:
    noise = DistributedGaussian(noise_multiplier=0.01 if bits > 8 else 0.5, delta=1e-6)
    compress = [Rotate(), Quantize(bits=8)] if bits == 8 else []
    made = plan(*compress, clip=AdaptiveClip(norm=1.0), dp=noise, bits=bits, cohort=20)
    pipeline, words = Pipeline(made, D), Words(bytes(32))
    update = np.full(D, 3e38, np.float32)
    with np.errstate(all="raise"):
        encoded = pipeline.encode(update, 1, {}, SeededDice(insecure_seeded_rng(1)), words=words, seed=SEED)
    assert np.linalg.norm(pipeline.decode(encoded, SEED).mean) < (1.2 if bits > 8 else 20)


def test_calibration_counts_the_entries_of_the_bit() -> None:
    made = plan(Rotate(), Sample(0.25), Quantize(bits=12), clip=AdaptiveClip(norm=1.0), cohort=100, minimum=90,
                dp=DistributedGaussian(epsilon=8.0, delta=1e-3))  # fmt: skip
    found = calibrated(made, 30, D)
    account = PrivacyAccount(found, D, planned=30)
    assert account.fits(30)
    assert not account.fits(31)


def test_calibration_says_when_an_adaptive_clip_is_in_the_way() -> None:
    made = plan(clip=AdaptiveClip(norm=1.0), cohort=20, dp=DistributedGaussian(epsilon=1.0, delta=1e-3))
    with pytest.raises(PlanError, match="epsilon 1 takes more noise than 2 times the clip, the most that the bits"):
        calibrated(made, 50, D)
