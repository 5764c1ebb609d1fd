"""Encoding into a sum: the bits of encoding one by one and adding up, and errors that name the client."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.core.vector import Field, Layout
from ridotto.crypto.prg import DitherStream
from ridotto.errors import DataError
from ridotto.learn.trainer import BatchDataError
from ridotto.rounds import accumulate as accumulate_module
from ridotto.rounds.accumulate import GROUP_ELEMENTS, Accumulator
from ridotto.rounds.dice import RankedDice, stride
from ridotto.rounds.pipeline import Pipeline
from tests.rounds.federation import make_plan

STREAM = DitherStream(bytes(range(32)))


def make_pipeline(parameters: int = 5, cohort: int = 20, **changes: Any) -> Pipeline:
    return Pipeline(make_plan(cohort, **changes), parameters)


def make_block(
    pipeline: Pipeline, clients: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Draw updates of very different norms, examples on both sides of the limit, and metrics beyond their bounds."""
    generator = np.random.default_rng(clients)
    spread = 10.0 ** generator.uniform(-3, 1, (clients, 1))
    updates = (generator.standard_normal((clients, pipeline.parameters)) * spread * scale).astype(np.float32)
    examples = generator.integers(1, 2 * pipeline.plan.max_examples, clients)
    metrics = {name: generator.normal(0, 1.5 * bound, clients) for name, bound in pipeline.plan.metrics.items()}
    return updates, examples, metrics


def words_of(pipeline: Pipeline, begin: int, clients: int) -> np.ndarray:
    step = stride(pipeline.parameters)
    return STREAM.words(begin * step, clients * step).reshape(clients, step)


def encode_one_by_one(pipeline: Pipeline, block: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> np.ndarray:
    total = np.zeros(pipeline.length, container(pipeline.plan.bits))
    updates, examples, metrics = block
    for rank, update in enumerate(updates):
        own = {name: float(values[rank]) for name, values in metrics.items()}
        dice = RankedDice(STREAM, rank, pipeline.parameters)
        total += pipeline.encode(update, int(examples[rank]), own, dice)
    return total


def accumulate(pipeline: Pipeline, block: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> np.ndarray:
    accumulator = Accumulator(pipeline)
    accumulator.add(*block, words_of(pipeline, 0, len(block[0])))
    return accumulator.total


def reduced(pipeline: Pipeline, total: np.ndarray) -> list[int]:
    return [int(element) % 2**pipeline.plan.bits for element in total]


@pytest.mark.parametrize("bits", [8, 9, 12, 16, 20, 24, 32, 33, 40, 52, 64])
@pytest.mark.parametrize("changes", [{}, {"clip": 0.5}, {"value_range": 1.0, "metrics": {}}])
def test_equals_the_sum_of_encoded_updates(bits: int, changes: dict[str, Any]) -> None:
    pipeline = make_pipeline(parameters=101, bits=bits, max_examples=50, **changes)
    block = make_block(pipeline, clients=9)
    total = accumulate(pipeline, block)
    assert total.dtype == container(bits)
    assert reduced(pipeline, total) == reduced(pipeline, encode_one_by_one(pipeline, block))


@pytest.mark.parametrize("bits", [16, 32, 52])
@pytest.mark.parametrize("parameters", [7_850, GROUP_ELEMENTS // 2, GROUP_ELEMENTS + 1, 300_001])
@pytest.mark.parametrize("scale", [1e-3, 1.0])
@pytest.mark.parametrize("clip", [None, 1000.0])
def test_equals_the_sum_for_models_of_several_chunks(
    bits: int, parameters: int, scale: float, clip: float | None
) -> None:
    """At scale 1 a client of norm 1000 sits beside one of norm 1: some rows are cut off and some are not."""
    pipeline = make_pipeline(parameters=parameters, bits=bits, value_range=2.0, clip=clip)
    block = make_block(pipeline, clients=5, scale=scale)
    total = accumulate(pipeline, block)
    assert (pipeline.decode(total).saturated > 0) == (scale == 1.0)
    assert reduced(pipeline, total) == reduced(pipeline, encode_one_by_one(pipeline, block))


@given(
    bits=st.integers(8, 64),
    parameters=st.integers(1, 40),
    clients=st.integers(1, 6),
    scale=st.sampled_from([1e-30, 1e-4, 0.1, 1.0, 1e3, 1e30]),
    clip=st.none() | st.floats(1e-3, 10.0),
    value_range=st.sampled_from([0.5, 1.0, 3.0]),
    max_examples=st.sampled_from([1, 3, 1000, 2**31]),
)
def test_equals_the_sum_whatever_the_plan(
    bits: int, parameters: int, clients: int, scale: float, clip: float | None, value_range: float, max_examples: int
) -> None:
    changes = {"bits": bits, "clip": clip, "value_range": value_range, "max_examples": max_examples}
    pipeline = make_pipeline(parameters, cohort=6, **changes)
    block = make_block(pipeline, clients, scale)
    found = reduced(pipeline, accumulate(pipeline, block))
    assert found == reduced(pipeline, encode_one_by_one(pipeline, block))


def test_blocks_add_up_in_a_total_that_was_begun_before() -> None:
    pipeline = make_pipeline(parameters=30, clip=1.0)
    updates, examples, metrics = block = make_block(pipeline, clients=7)
    total = None
    for rows in (slice(4, 7), slice(0, 1), slice(1, 4)):
        accumulator = Accumulator(pipeline, total)
        part = {name: values[rows] for name, values in metrics.items()}
        accumulator.add(updates[rows], examples[rows], part, words_of(pipeline, rows.start, rows.stop - rows.start))
        total = accumulator.total
    assert reduced(pipeline, total) == reduced(pipeline, encode_one_by_one(pipeline, block))


def test_what_is_summed_decodes_to_the_weighted_mean() -> None:
    """(1 * 10 + 4 * 30) / 40 = 3.25, for an entry and for a metric; names that the plan does not know are left out."""
    pipeline = make_pipeline(parameters=1)
    accumulator = Accumulator(pipeline)
    metrics = {"loss": np.array([1.0, 4.0]), "other": np.array([np.nan, 0.0])}
    updates = np.array([[1.0], [4.0]], np.float32)
    accumulator.add(updates, np.array([10, 30]), metrics, words_of(pipeline, 0, 2))
    result = pipeline.decode(accumulator.total)
    assert (result.participants, result.examples, result.saturated) == (2, 40, 0)
    assert result.mean[0] == pytest.approx(3.25, abs=1e-3)
    assert result.metrics == {"loss": pytest.approx(3.25, abs=1e-4)}


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_model_without_parameters_has_lanes_only(clip: float | None) -> None:
    pipeline = make_pipeline(parameters=0, clip=clip)
    block = make_block(pipeline, clients=3)
    assert reduced(pipeline, accumulate(pipeline, block)) == reduced(pipeline, encode_one_by_one(pipeline, block))


def test_an_empty_block_adds_nothing() -> None:
    pipeline = make_pipeline()
    empty = np.zeros((0, 5), np.float32), np.zeros(0, np.int64), {"loss": np.zeros(0)}
    assert not accumulate(pipeline, empty).any()


def wrong(**changes: Any) -> tuple[Any, ...]:
    block = {
        "updates": np.zeros((3, 5), np.float32),
        "examples": np.ones(3, np.int64),
        "metrics": {"loss": np.zeros(3)},
        "words": np.zeros((3, 8), np.uint32),
    }
    return tuple((block | changes).values())


def with_entry(value: float) -> np.ndarray:
    updates = np.zeros((3, 5), np.float32)
    updates[2, 4] = value
    return updates


@pytest.mark.parametrize(
    ("changes", "place", "why"),
    [
        ({"examples": np.array([1, 0, 1])}, 1, "no examples to train on"),
        ({"updates": with_entry(np.nan)}, 2, "parameter 'bias' has 1 of 1 elements that are NaN or infinite"),
        ({"updates": with_entry(-np.inf)}, 2, "parameter 'bias' has 1 of 1 elements that are NaN or infinite"),
        ({"metrics": {"loss": np.array([0, np.nan, np.inf])}}, 1, "metric 'loss' is nan"),
        ({"metrics": {"loss": np.array([0, 0, -np.inf])}}, 2, "metric 'loss' is -inf"),
        ({"metrics": {"acc": np.zeros(3)}}, 0, "the plan asks for metric 'loss'; training reported acc"),
        ({"metrics": {}}, 0, "training reported none"),
    ],
)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_names_the_client_whose_update_does_not_fit(
    changes: dict[str, Any], place: int, why: str, clip: float | None
) -> None:
    layout = Layout((Field("weight", (4,), "float32"), Field("bias", (1,), "float32")))
    accumulator = Accumulator(make_pipeline(clip=clip), layout=layout)
    with pytest.raises(BatchDataError, match=why) as caught:
        accumulator.add(*wrong(**changes))
    assert caught.value.place == place


def test_names_the_place_in_the_block_and_not_in_the_group_that_is_encoded_at_once() -> None:
    pipeline = make_pipeline(parameters=GROUP_ELEMENTS // 2)  # Two at once.
    updates, examples, metrics = make_block(pipeline, clients=5)
    updates[3, 7] = np.nan
    with pytest.raises(BatchDataError, match="the vector has 1 of 32768 elements") as caught:
        accumulate(pipeline, (updates, examples, metrics))
    assert caught.value.place == 3


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"updates": np.zeros((3, 4), np.float32)}, r"updates: float32 of shape \(3, 4\), expected float32"),
        ({"updates": np.zeros((3, 5))}, "updates: float64"),
        ({"examples": np.ones(2, np.int64)}, r"examples: int64 of shape \(2,\)"),
        ({"examples": np.ones(3)}, "examples: float64"),
        ({"metrics": {"loss": np.zeros(4)}}, "metric 'loss': float64 of shape"),
        (
            {"words": np.zeros((3, 5), np.uint32)},
            r"words: uint32 of shape \(3, 5\), expected uint32 of shape \(3, 8\)",
        ),
    ],
)
def test_refuses_a_block_of_another_shape(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(DataError, match=why):
        Accumulator(make_pipeline()).add(*wrong(**changes))


@pytest.mark.parametrize("total", [np.zeros(12, np.uint64), np.zeros(11, np.uint32)])
def test_refuses_a_running_sum_of_another_kind(total: np.ndarray) -> None:
    with pytest.raises(DataError, match=r"the running sum is uint32 of shape \(12,\)"):
        Accumulator(make_pipeline(), total)


@pytest.fixture
def compiled() -> None:
    pytest.importorskip("numba", reason="compiled loops come with the extra speed")


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("bits", [17, 20, 24, 32])
@pytest.mark.parametrize("parameters", [101, 7_850, GROUP_ELEMENTS + 1])
@pytest.mark.parametrize("changes", [{}, {"clip": 0.5}, {"value_range": 0.01}])
def test_compiled_loops_give_the_same_bits(bits: int, parameters: int, changes: dict[str, Any]) -> None:
    pipeline = make_pipeline(parameters=parameters, bits=bits, max_examples=50, **changes)
    block = make_block(pipeline, clients=5)
    quick = Accumulator(pipeline)
    assert quick.load_kernels()
    quick.add(*block, words_of(pipeline, 0, 5))
    np.testing.assert_array_equal(quick.total, accumulate(pipeline, block))


@pytest.mark.usefixtures("compiled")
def test_compiled_loops_are_loaded_once_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = make_pipeline(parameters=5)
    block = make_block(pipeline, clients=3)
    accumulator = Accumulator(pipeline)
    accumulator.add(*block, words_of(pipeline, 0, 3))
    assert accumulator._kernels is None
    monkeypatch.setattr(accumulate_module, "KERNELS_PAY_S", accumulator._spent_s)
    accumulator.add(*block, words_of(pipeline, 3, 3))
    assert accumulator._kernels is not None


@pytest.mark.parametrize("bits", [8, 16, 64])
def test_other_rings_have_no_compiled_loops(bits: int) -> None:
    assert not Accumulator(make_pipeline(bits=bits)).load_kernels()


def test_without_numba_nothing_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("ridotto.core.compile", "ridotto.core.kernels"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    accumulator = Accumulator(make_pipeline())
    assert not accumulator.load_kernels()
    accumulator.add(*make_block(accumulator.pipeline, clients=2), words_of(accumulator.pipeline, 0, 2))
