"""Whole models between two parties against plain integer arithmetic: a unit in the last place a truncation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PlanError
from ridotto.infer import reference
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import AvgPool2d, Flatten, Gelu, MaxPool2d, Relu, Sigmoid, Softmax, Tanh
from ridotto.infer.kernels import without_numba
from ridotto.infer.program import Plan, compile_plan
from tests.infer.two_parties import classify

FIXED = Fixed()


def weights(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(0, 0.5, shape)


def dense(*sizes: int) -> Any:
    builder = GraphBuilder()
    for i, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        if i:
            builder.add(Relu(f"relu{i}"))
        builder.linear(f"dense{i}", weights(outputs, inputs), weights(outputs))
    return builder.build((sizes[0],))


def images(*, pool: Any, conv: dict[str, Any], before: bool = False) -> Any:
    builder = GraphBuilder()
    groups = conv.get("groups", 1)
    builder.conv2d("conv", weights(6, 4 // groups, 3, 2), weights(6), **conv)
    if before:
        builder.add(Relu("relu"))
    builder.add(pool)
    builder.add(Flatten("flatten"))
    return builder.build((4, 9, 8))


def inputs(graph: Any, count: int) -> Any:
    return np.random.default_rng(count).normal(0, 1, (count, *graph.architecture.input_shape)).astype(np.float32)


MODELS = {
    "one layer": dense(5, 3),
    "three layers": dense(20, 16, 12, 10),
    "max-pool": images(pool=MaxPool2d("pool", (2, 2), (2, 2)), conv={}, before=True),
    "odd windows that overlap": images(pool=MaxPool2d("pool", (3, 1), (2, 1)), conv={"stride": (1, 2)}),
    "windows of nine": images(pool=MaxPool2d("pool", (3, 3), (2, 2)), conv={"padding": (1, 1)}),
    "average": images(pool=AvgPool2d("pool", (3, 2), (2, 2)), conv={"groups": 2}, before=True),
    "average of a wide wire": images(
        pool=AvgPool2d("pool", (2, 2), (1, 2)), conv={"stride": (2, 1), "padding": (0, 2)}
    ),
}


@pytest.mark.parametrize("form", ["boolean", "fss"])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("count", [1, 7])
def test_logits(name: str, count: int, form: str) -> None:
    graph = MODELS[name]
    x = inputs(graph, count)
    found = classify(graph, x, "logits", insecure_seeded_rng(count), FIXED, form=form)
    expected = reference.fixed_forward(graph, x, 14)
    # Every truncation is off by at most one unit; weights of at most 2 and 20 terms carry it on.
    assert np.abs(found - expected).max() <= 40, name
    assert np.abs(found - expected).max() <= 2 or "three" in name or "average" in name


@pytest.mark.parametrize("count", [1, 3, 70])
def test_classes(count: int) -> None:
    graph = MODELS["three layers"]
    x = inputs(graph, count)
    expected = reference.fixed_forward(graph, x, 14)
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 80
    found = classify(graph, x, "class", insecure_seeded_rng(count), FIXED)
    np.testing.assert_array_equal(found[clear], expected.argmax(axis=1)[clear])
    assert clear.mean() > 0.8


def test_the_numpy_loops_give_the_same_bits() -> None:
    for name in ("three layers", "max-pool", "average"):
        graph = MODELS[name]
        x = inputs(graph, 3)
        views: tuple[list[Any], list[Any]] = ([], [])
        plain_views: tuple[list[Any], list[Any]] = ([], [])
        found = classify(graph, x, "logits", insecure_seeded_rng(5), FIXED, views)
        with without_numba():
            again = classify(graph, x, "logits", insecure_seeded_rng(5), FIXED, plain_views)
        np.testing.assert_array_equal(found, again)
        for mine, plain in zip(views[0] + views[1], plain_views[0] + plain_views[1], strict=True):
            np.testing.assert_array_equal(mine, plain)


def test_truncation_never_fails_at_the_edge_of_its_range() -> None:
    """Products just below 2^62, where truncating shares without a dealer fails for one in four."""
    fixed = Fixed(14, 33)
    builder = GraphBuilder()
    builder.linear("dense", [[2.0**16, 2.0**16]], [0.0])
    graph = builder.build((2,))
    x = np.full((4000, 2), 2.0**16, np.float32) * np.array([1, -1], np.float32)[np.arange(4000) % 2, None]
    found = classify(graph, x, "logits", insecure_seeded_rng(1), fixed)
    expected = reference.fixed_forward(graph, x, 14)
    assert np.isin(found - expected, [0, 1]).all()


def test_other_encodings() -> None:
    graph = MODELS["three layers"]
    x = inputs(graph, 5)
    for f, k in ((8, 25), (12, 29), (16, 33)):
        found = classify(graph, x, "logits", insecure_seeded_rng(f), Fixed(f, k))
        assert np.abs(found - reference.fixed_forward(graph, x, f)).max() <= 40


@pytest.mark.parametrize("layer", [Sigmoid("smooth"), Tanh("smooth"), Gelu("smooth")])
@pytest.mark.parametrize("last", [True, False])
def test_smooth_functions(layer: Any, last: bool) -> None:
    builder = GraphBuilder()
    builder.linear("dense", [[1.0]], [0.0])
    builder.add(layer)
    if not last:
        builder.linear("after", [[1.0]], [0.0])
    graph = builder.build((1,))
    x = np.linspace(-9, 9, 301, dtype=np.float32).reshape(-1, 1)
    found = classify(graph, x, "logits", insecure_seeded_rng(1), FIXED)
    assert np.abs(found - reference.fixed_forward(graph, x, 14)).max() <= 4
    assert np.abs(found * 2.0**-14 - reference.forward(graph, x)).max() < 2**-9 + 4 * 2**-14


def test_a_softmax_at_the_end_does_not_change_the_class() -> None:
    builder = GraphBuilder()
    builder.linear("dense", weights(5, 4), weights(5))
    builder.add(Softmax("soft"))
    graph = builder.build((4,))
    x = inputs(graph, 20)
    found = classify(graph, x, "class", insecure_seeded_rng(1), FIXED)
    np.testing.assert_array_equal(found, reference.forward(graph, x).argmax(axis=1))


def test_refuses_the_class_of_an_image() -> None:
    builder = GraphBuilder()
    builder.conv2d("conv", weights(2, 1, 3, 3))
    with pytest.raises(PlanError, match="class of an output of shape"):
        compile_plan(Plan(builder.build((1, 5, 5)).architecture, FIXED, 1, "class"))


def test_so_many_examples_that_requests_are_large() -> None:
    """Streams answer large requests in another way: small and large ones in one model."""
    builder = GraphBuilder()
    builder.conv2d("conv", weights(8, 1, 3, 3), weights(8))
    builder.add(Relu("relu"))
    builder.add(MaxPool2d("pool", (2, 2), (2, 2)))
    builder.add(Tanh("tanh"))
    builder.add(AvgPool2d("mean", (2, 2), (2, 2)))
    builder.add(Flatten("flatten"))
    builder.linear("dense", weights(10, 72), weights(10))
    graph = builder.build((1, 14, 14))
    x = inputs(graph, 120)
    expected = reference.fixed_forward(graph, x, 14)
    found = classify(graph, x, "logits", insecure_seeded_rng(1), FIXED)
    assert np.abs(found - expected).max() <= 150
    ordered = np.sort(expected, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 300
    classes = classify(graph, x, "class", insecure_seeded_rng(1), FIXED)
    np.testing.assert_array_equal(classes[clear], expected.argmax(axis=1)[clear])


def test_refuses_more_examples_than_fit() -> None:
    with pytest.raises(PlanError, match="65536 examples make a wire of 335544320 words"):
        compile_plan(Plan(dense(5120, 2).architecture, FIXED, 65536, "logits"))


def test_a_plan_is_named_by_all_of_it() -> None:
    graph = MODELS["one layer"]
    plans = [
        Plan(graph.architecture, FIXED, 1, "class"),
        Plan(graph.architecture, FIXED, 2, "class"),
        Plan(graph.architecture, FIXED, 1, "logits"),
        Plan(graph.architecture, FIXED, 1, "logits", "fss"),
        Plan(graph.architecture, Fixed(12, 33), 1, "class"),
        Plan(MODELS["three layers"].architecture, FIXED, 1, "class"),
    ]
    assert len({plan.digest() for plan in plans}) == len(plans)


@pytest.mark.parametrize(("form", "rounds"), [("boolean", 16), ("fss", 10)])
def test_rounds_of_the_reference_model(form: str, rounds: int) -> None:
    """784-128-128-10 with the class as output; at most 20 are promised."""
    graph = dense(784, 128, 128, 10)
    x = inputs(graph, 1)
    views: tuple[list[Any], list[Any]] = ([], [])
    found = classify(graph, x, "class", insecure_seeded_rng(1), FIXED, views, form)
    assert len(views[0]) == rounds
    assert found == reference.forward(graph, x).argmax()


@pytest.mark.parametrize("name", ["three layers", "windows of nine"])
def test_both_forms_of_comparison_give_the_same_classes(name: str) -> None:
    graph = MODELS[name]
    x = inputs(graph, 3)
    found = [classify(graph, x, "logits", insecure_seeded_rng(8), FIXED, form=form) for form in ("boolean", "fss")]
    # Masks differ, so truncations may round the other way; comparisons may not.
    assert np.abs(found[0] - found[1]).max() <= 40
