"""From an update to integers and back, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import SEED_BYTES, insecure_seeded_rng
from ridotto.core.vector import Field, Layout
from ridotto.crypto.prg import DitherStream, dither
from ridotto.errors import DataError
from ridotto.rounds.dice import RankedDice, SeededDice, stride
from ridotto.rounds.metrics import METRIC_STEPS
from ridotto.rounds.pipeline import BLOCK_ELEMENTS, Pipeline
from ridotto.rounds.plan import Pairwise, Plan, Risk
from tests.rounds.federation import make_plan


def dice(seed: int) -> SeededDice:
    return SeededDice(insecure_seeded_rng(seed))


def make_pipeline(parameters: int = 5, cohort: int = 3, **changes: object) -> Pipeline:
    return Pipeline(make_plan(cohort, **changes), parameters)  # type: ignore[arg-type]


def ramp(scale: float = 1.0) -> np.ndarray:
    return (np.arange(5) - 2).astype(np.float32) * np.float32(scale)


def test_layout_of_a_summed_vector() -> None:
    """32 bits, 3 participants: 1 count, 2 zeros, weight, cut off, and one metric of 2^20 * 10^4 in two limbs."""
    pipeline = make_pipeline()
    assert pipeline.lanes.capacities == (10_000, 5, METRIC_STEPS * 10_000)
    assert pipeline.lanes.limb_bits == 30
    assert pipeline.lanes.limbs == (1, 1, 2)
    assert pipeline.length == 5 + 1 + 2 + 1 + 1 + 2


def test_one_participant_round_trip() -> None:
    pipeline = make_pipeline()
    vector = pipeline.encode(ramp(0.5), 40, {"loss": 2.5, "ignored": 1.0}, dice(1))
    sums = pipeline.read_lanes(vector)
    assert (sums.count, sums.zero) == (1, True)
    # (2.5 + 10) / 20 of 2^20 steps, times the weight.
    assert sums.values == (40, 0, round(0.625 * 2**20) * 40)
    result = pipeline.decode(vector)
    assert (result.participants, result.examples, result.saturated) == (1, 40, 0)
    assert result.metrics == {"loss": pytest.approx(2.5, abs=1e-5)}
    np.testing.assert_allclose(result.mean, ramp(0.5), atol=1e-4)


def test_means_are_weighted() -> None:
    """(1 * 10 + 4 * 30) / 40 = 3.25, for an entry and for a metric."""
    pipeline = make_pipeline(parameters=1)
    total = pipeline.encode(np.ones(1, np.float32), 10, {"loss": 1.0}, dice(1))
    total = total + pipeline.encode(np.full(1, 4, np.float32), 30, {"loss": 4.0}, dice(2))
    result = pipeline.decode(total)
    assert result.mean[0] == pytest.approx(3.25, abs=1e-3)
    assert result.metrics["loss"] == pytest.approx(3.25, abs=1e-4)
    assert (result.participants, result.examples) == (2, 40)


def test_entries_beyond_the_range_are_cut_off_and_counted() -> None:
    pipeline = make_pipeline(value_range=1.0)
    result = pipeline.decode(pipeline.encode(ramp(), 10_000, {"loss": 0.0}, dice(1)))
    assert result.saturated == 2
    np.testing.assert_allclose(result.mean, [-1, -1, 0, 1, 1], atol=1e-5)


def test_updates_are_clipped_to_the_norm() -> None:
    """The norm of -2 .. 2 is sqrt(10)."""
    pipeline = make_pipeline(clip=1.0)
    result = pipeline.decode(pipeline.encode(ramp(), 10_000, {"loss": 0.0}, dice(1)))
    np.testing.assert_allclose(result.mean, ramp() / np.sqrt(10), atol=1e-5)


def test_more_examples_than_the_limit_count_as_the_limit() -> None:
    pipeline = make_pipeline(max_examples=100)
    assert pipeline.decode(pipeline.encode(ramp(), 10**6, {"loss": 0.0}, dice(1))).examples == 100


@pytest.mark.parametrize(("value", "shown"), [(50.0, 10.0), (-50.0, -10.0), (10.0, 10.0), (-10.0, -10.0), (0.0, 0.0)])
def test_metrics_stay_in_their_range(value: float, shown: float) -> None:
    pipeline = make_pipeline()
    result = pipeline.decode(pipeline.encode(ramp(), 7, {"loss": value}, dice(1)))
    assert result.metrics["loss"] == pytest.approx(shown, abs=1e-4)


def test_metrics_are_ordered_by_name_whatever_the_plan_says() -> None:
    one = make_pipeline(metrics={"b": 1.0, "a": 100.0})
    other = make_pipeline(metrics={"a": 100.0, "b": 1.0})
    metrics = {"a": 50.0, "b": -1.0}
    vectors = [pipeline.encode(ramp(), 7, metrics, dice(1)) for pipeline in (one, other)]
    np.testing.assert_array_equal(*vectors)
    assert one.decode(vectors[0]).metrics == pytest.approx(metrics, abs=1e-3)


@pytest.mark.parametrize(
    ("update", "examples", "metrics", "why"),
    [
        (np.zeros(4, np.float32), 1, {"loss": 0.0}, r"the update has shape \(4,\), the model 5 parameters"),
        (np.zeros(5, np.float32), 0, {"loss": 0.0}, "no examples to train on"),
        (np.full(5, np.nan, np.float32), 1, {"loss": 0.0}, "parameter 'w' has 5 of 5 elements that are NaN"),
        (np.full(5, np.inf, np.float32), 1, {"loss": 0.0}, "NaN or infinite"),
        (np.zeros(5, np.float32), 1, {"acc": 0.0}, "the plan asks for metric 'loss'; training reported acc"),
        (np.zeros(5, np.float32), 1, {}, "training reported none"),
        (np.zeros(5, np.float32), 1, {"loss": float("inf")}, "metric 'loss' is inf"),
    ],
)
def test_refuses_an_update_that_does_not_fit(
    update: np.ndarray, examples: int, metrics: dict[str, float], why: str
) -> None:
    layout = Layout((Field("w", (5,), "float32"),))
    with pytest.raises(DataError, match=why):
        make_pipeline().encode(update, examples, metrics, dice(1), layout)


def test_same_arguments_same_bytes_and_other_dice_other_bytes() -> None:
    pipeline = make_pipeline(200)
    update = np.full(200, 0.1234567, np.float32)
    one, two, other = (pipeline.encode(update, 7, {"loss": 1.0}, dice(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_seeded_dice_are_a_new_stream_at_every_call() -> None:
    rng, cast = insecure_seeded_rng(1), dice(1)
    for count in (3, 0, 5):
        assert cast.words(count).tolist() == dither(rng.bytes(SEED_BYTES), count).tolist()


def test_ranked_dice_are_the_ranks_own_words_of_the_stream() -> None:
    """5 parameters take 8 words, two blocks of the cipher: rank 3 begins at word 24."""
    assert [stride(parameters) for parameters in (1, 4, 5, 7_850)] == [4, 4, 8, 7_852]
    stream = DitherStream(bytes(32))
    cast = RankedDice(stream, 3, 5)
    assert [*cast.words(3), *cast.words(2)] == stream.words(24, 5).tolist()


def test_long_updates_use_up_one_run_of_words() -> None:
    parameters = BLOCK_ELEMENTS + 10
    pipeline = make_pipeline(parameters, value_range=1.0)
    update = np.full(parameters, 0.1234567, np.float32)
    found = pipeline.encode(update, 7, {"loss": 1.0}, RankedDice(DitherStream(bytes(32)), 1, parameters))
    words = DitherStream(bytes(32)).words(stride(parameters), parameters)
    assert np.array_equal(found[:parameters], pipeline.encoding.fixed.encode(update, 7, words)[0])


@given(
    bits=st.integers(12, 64),
    updates=st.lists(
        st.tuples(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), st.integers(1, 100)),
        min_size=1,
        max_size=6,
    ),
)
def test_the_decoded_mean_is_within_one_unit_per_participant(bits: int, updates: list[tuple[list[float], int]]) -> None:
    plan = Plan(
        cohort=max(3, len(updates)),
        bits=bits,
        value_range=1.0,
        max_examples=100,
        minimum=2,
        protocol=Pairwise(corrupt=0.0),
        i_know=(Risk.SMALL_COHORT,),
    )
    pipeline = Pipeline(plan, 3)
    vectors = [
        pipeline.encode(np.array(values, np.float32), examples, {}, dice(i))
        for i, (values, examples) in enumerate(updates)
    ]
    total = sum(vectors[1:], vectors[0])
    result = pipeline.decode(total)
    weight = sum(examples for _, examples in updates)
    expected = sum(np.array(values) * examples for values, examples in updates) / weight
    unit = Pipeline(plan, 1).encoding.fixed.resolution * 100 / weight
    assert result.examples == weight
    assert result.participants == len(updates)
    np.testing.assert_allclose(result.mean, expected, atol=len(updates) * unit + 1e-6)
