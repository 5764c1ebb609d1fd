"""The plain forward pass, in floats and in integers."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.errors import DataError, PlanError
from ridotto.infer.approximations import BOUNDS, softmax_error
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import AvgPool2d, Flatten, Gelu, Graph, MaxPool2d, Relu, Sigmoid, Softmax, Tanh
from ridotto.infer.reference import decode, encode, fixed_forward, forward, trace


def lenet(seed: int = 1) -> Graph:
    """Make a small network of convolutions with random weights."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()
    builder.conv2d("conv1", rng.normal(size=(4, 1, 3, 3)) / 3, rng.normal(size=4), padding=(1, 1))
    builder.add(Relu(builder.name("relu1")))
    builder.add(MaxPool2d(builder.name("pool1"), (2, 2), (2, 2)))
    builder.conv2d("conv2", rng.normal(size=(6, 2, 3, 2)) / 4, rng.normal(size=6), stride=(2, 1), groups=2)
    builder.add(AvgPool2d(builder.name("pool2"), (1, 3), (1, 1)))
    builder.add(Flatten(builder.name("flatten")))
    builder.linear("fc", rng.normal(size=(10, 6 * 2 * 2)) / 4, rng.normal(size=10))
    return builder.build((1, 10, 10))


def test_a_linear_layer_by_hand() -> None:
    builder = GraphBuilder()
    builder.linear("fc", [[1, 2], [3, -4]], [0.5, 0])
    builder.add(Relu(builder.name("relu")))
    graph = builder.build((2,))
    assert forward(graph, [[1, 1], [0, 2]]).tolist() == [[3.5, 0], [4.5, 0]]
    assert (fixed_forward(graph, [[1, 1], [0, 2]], 4) / 16).tolist() == [[3.5, 0], [4.5, 0]]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_convolution_is_the_sum_that_defines_it(groups: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 4, 5, 6)).astype(np.float32)
    weight, bias = rng.normal(size=(8, 4 // groups, 3, 2)), rng.normal(size=8)
    builder = GraphBuilder()
    builder.conv2d("conv", weight, bias, stride=(2, 3), padding=(1, 2), groups=groups)
    result = forward(builder.build((4, 5, 6)), x)
    assert result.shape == (2, 8, 3, 3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (2, 2)))
    for image, out, row, column in np.ndindex(*result.shape):
        first = out // (8 // groups) * (4 // groups)
        patch = padded[image, first : first + 4 // groups, 2 * row : 2 * row + 3, 3 * column : 3 * column + 2]
        assert result[image, out, row, column] == pytest.approx((patch * weight[out]).sum() + bias[out], abs=1e-5)


def test_pools_by_hand() -> None:
    x = np.arange(16.0).reshape(1, 1, 4, 4)
    largest, mean = GraphBuilder(), GraphBuilder()
    largest.add(MaxPool2d("pool", (2, 3), (2, 1)))
    mean.add(AvgPool2d("pool", (2, 3), (2, 1)))
    assert forward(largest.build((1, 4, 4)), x).tolist() == [[[[6, 7], [14, 15]]]]
    assert forward(mean.build((1, 4, 4)), x).tolist() == [[[[3, 4], [11, 12]]]]
    # 2^14 / 6 is rounded to 2731: a 16,384th too much for every 6 of the sum at most.
    assert np.abs(decode(fixed_forward(mean.build((1, 4, 4)), x, 14), 14) - [[[[3, 4], [11, 12]]]]).max() < 0.003


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        (Sigmoid("f"), BOUNDS["SIGMOID"]),
        (Tanh("f"), BOUNDS["TANH"]),
        (Gelu("f"), BOUNDS["GELU"]),
        (Softmax("f"), softmax_error(7)),
    ],
)
def test_approximated_layers_are_as_near_as_promised(layer: Sigmoid | Tanh | Gelu | Softmax, error: float) -> None:
    builder = GraphBuilder()
    builder.add(layer)
    graph = builder.build((7,))
    x = np.random.default_rng(3).normal(size=(500, 7)) * 4
    units = 4 * 2.0**-14
    assert np.abs(decode(fixed_forward(graph, x, 14), 14) - forward(graph, x)).max() <= error + units


def test_softmax_in_fixed_point_takes_a_bounded_number_of_features() -> None:
    builder = GraphBuilder()
    builder.add(Softmax("soft"))
    graph = builder.build((129,))
    assert forward(graph, np.zeros((1, 129))).sum() == pytest.approx(1)
    with pytest.raises(PlanError, match=r"soft \(Softmax\): 129 features, at most 128"):
        fixed_forward(graph, np.zeros((1, 129)), 14)


def test_fixed_point_is_near_floats_and_nearer_with_more_bits() -> None:
    graph = lenet()
    x = np.random.default_rng(4).normal(size=(8, 1, 10, 10))
    exact = forward(graph, x)
    errors = [np.abs(decode(fixed_forward(graph, x, bits), bits) - exact).max() for bits in (8, 14, 20)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.002


def test_truncation_rounds_down() -> None:
    builder = GraphBuilder()
    builder.linear("fc", [[0.25], [-0.25]])
    # One unit of 2^-4 times a quarter is a quarter of a unit: 0, and -1 for its opposite.
    assert fixed_forward(builder.build((1,)), [[1 / 16]], 4).tolist() == [[0, -1]]


def test_trace_yields_every_wire() -> None:
    graph = lenet()
    wires = [(layer.name, values.shape[1:]) for layer, values in trace(graph, np.zeros((3, 1, 10, 10)))]
    assert wires == [
        (layer.name, s) for layer, s in zip(graph.architecture.layers, graph.architecture.wires[1:], strict=True)
    ]


@pytest.mark.parametrize(
    ("inputs", "why"),
    [
        (np.zeros((1, 10, 10)), r"shape \(1, 10, 10\), expected \(batch, 1, 10, 10\)"),
        (np.zeros((0, 1, 10, 10)), r"shape \(0, 1, 10, 10\)"),
        (np.full((1, 1, 10, 10), np.nan), "not finite"),
        (np.full((1, 1, 10, 10), "a"), "numbers, not <U1"),
    ],
)
def test_refuses_inputs_that_do_not_fit(inputs: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        forward(lenet(), inputs)  # type: ignore[arg-type]


def test_encoding_rounds_to_the_nearest_and_refuses_what_does_not_fit() -> None:
    assert encode([0.5, 1.3, -1.3, 1 / 32, 3 / 32], 4).tolist() == [8, 21, -21, 0, 2]
    assert decode(encode([0.5, -1.25], 4), 4).tolist() == [0.5, -1.25]
    with pytest.raises(DataError, match=r"below 2\^48 in magnitude"):
        encode([2.0**48], 14)
    with pytest.raises(DataError, match=r"below 2\^48"):
        encode([np.inf], 14)
