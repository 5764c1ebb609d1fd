"""What fits into fixed point, and what is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.errors import DataError, PlanError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.calibrate import COMPARED_BITS, Calibration, calibrate, to_encode
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import AvgPool2d, Flatten, Gelu, Graph, Layer, MaxPool2d, Relu, Sigmoid, Softmax, Tanh


def two_layers(first: float = 1.0, second: float = 1.0) -> Graph:
    """Make y = second relu(first (a - b)), z = 0."""
    builder = GraphBuilder()
    builder.linear("fc1", [[first, -first]])
    builder.add(Relu(builder.name("relu")))
    builder.linear("fc2", [[second], [0]], [0, 0.25])
    return builder.build((2,))


def found(calibration: Calibration, place: str, what: str) -> tuple[float, float]:
    (one,) = [r for r in calibration.ranges if r.place == place and r.what == what]
    return one.largest, one.certain


def test_measures_every_wire_and_bounds_it() -> None:
    calibration = calibrate(two_layers(2, 3), [[1, 0.5], [0, 1]], margin=2)
    assert found(calibration, "input", "input") == (1, 2)
    # a - b is between -1 and 0.5 on the examples; inputs up to 2 could make it 4, so 8 after the factor 2.
    assert found(calibration, "layer fc1 (Linear)", "output") == (2, 8)
    assert found(calibration, "layer relu (Relu)", "output") == (1, 8)
    assert found(calibration, "layer fc2 (Linear)", "output") == (3, 24)
    assert found(calibration, "layer fc2 (Linear)", "weight") == (3, 3)
    assert found(calibration, "layer fc2 (Linear)", "bias") == (0.25, 0.25)
    assert calibration.input_limit == 2
    assert calibration.examples == 2


def test_the_encoding_of_a_model_is_the_wished_the_measured_or_the_widest() -> None:
    graph, wish = two_layers(), Fixed(10, 29)
    assert to_encode(graph, None, None) == (graph, Fixed())
    assert to_encode(graph, None, wish) == (graph, wish)
    assert to_encode(graph, [[0.5, 0]], None) == (graph, Fixed(14, 17))
    # With both, examples are checked against the wish, which is kept.
    assert to_encode(graph, [[0.5, 0]], wish) == (graph, wish)
    with pytest.raises(PlanError, match="not below the bound"):
        to_encode(graph, [[1e5, 0]], wish)


@pytest.mark.parametrize(
    ("scale", "bits"), [(0.5, 17), (1.0, 21), (15.0, 21), (16.0, 25), (255.0, 25), (256.0, 29), (60000.0, 33)]
)
def test_takes_the_fewest_compared_bits_that_fit(scale: float, bits: int) -> None:
    # The bound is 2 for 17 bits, 32 for 21, 512 for 25, 8192 for 29, 131072 for 33; the margin doubles what is found.
    calibration = calibrate(two_layers(), [[scale, 0]], margin=2)
    assert calibration.fixed == Fixed(14, bits)
    assert bits in COMPARED_BITS


def test_proven_only_if_no_input_can_exceed_the_bound() -> None:
    # The examples cancel, but inputs of opposite sign would not.
    careless = calibrate(two_layers(10), [[4, 4], [4, 3]], compared_bits=21, margin=1)
    assert not careless.proven
    assert calibrate(two_layers(10), [[4, 4], [4, 3]], compared_bits=25, margin=1).proven


def test_certain_bounds_hold_for_random_inputs() -> None:
    rng = np.random.default_rng(1)
    builder = GraphBuilder()
    builder.conv2d("conv", rng.normal(size=(4, 1, 3, 3)), rng.normal(size=4), padding=(1, 1), groups=2)
    layers: list[Layer] = [
        Gelu("gelu"),
        MaxPool2d("max", (2, 2), (2, 2)),
        Tanh("tanh"),
        AvgPool2d("avg", (2, 2), (1, 1)),
    ]
    for layer in [*layers, Flatten("flat")]:
        builder.add(layer)
    builder.linear("fc", rng.normal(size=(5, 4 * 2 * 2)))
    graph = builder.build((2, 6, 6))
    certain = calibrate(graph, np.ones((1, 2, 6, 6)), margin=1)
    seen = calibrate(graph, rng.uniform(-1, 1, size=(500, 2, 6, 6)), margin=1)
    for one, other in zip(certain.ranges, seen.ranges, strict=True):
        assert other.largest <= one.certain


@pytest.mark.parametrize(
    ("graph", "example", "options", "why"),
    [
        (
            two_layers(1, 100),
            [[3, 0]],
            {"compared_bits": 25},
            r"layer fc2 \(Linear\): the output reaches 300, which, times the margin of 2, is not below the bound 512 "
            r"of 25 compared bits with 14 fractional ones; compare 29 bits",
        ),
        (two_layers(1, 600), [[0, 0]], {"compared_bits": 25}, r"fc2 \(Linear\): the weight reaches 600, which is not"),
        (
            two_layers(100, 100),
            [[10, 0]],
            {},
            r"fc2 .* reaches 100000, .* not below the bound 131072 .* take 13 fractional bits with 33",
        ),
        (two_layers(), [[1e30, 0]], {}, r"^input: the input reaches 1e\+30, .* scale inputs and weights down"),
        (two_layers(1e-6, 1), [[1, 0]], {}, r"fc1 .* largest weight is 1e-06, and 14 fractional bits round all"),
    ],
)
def test_refuses_what_could_exceed_by_the_layers_name(
    graph: Graph, example: list[list[float]], options: dict[str, int], why: str
) -> None:
    with pytest.raises(PlanError, match=why):
        calibrate(graph, example, **options)  # type: ignore[arg-type]


def test_a_softmax_needs_room_for_differences_and_its_sum() -> None:
    builder = GraphBuilder()
    builder.add(Softmax("soft"))
    with pytest.raises(PlanError, match=r"layer soft \(Softmax\): the inside reaches 40, .* compare 25 bits"):
        calibrate(builder.build((3,)), [[20, 0, 0]], compared_bits=21, margin=1)
    with pytest.raises(PlanError, match=r"soft \(Softmax\): the inside reaches 100"):
        calibrate(only(Softmax("soft")).build((100,)), np.zeros((1, 100)), compared_bits=21)


def test_a_spline_needs_room_for_its_breakpoints() -> None:
    with pytest.raises(PlanError, match=r"layer s \(Sigmoid\): the inside reaches 8.04"):
        calibrate(only(Sigmoid("s")).build((1,)), [[0.1]], compared_bits=17)


def only(layer: Layer) -> GraphBuilder:
    builder = GraphBuilder()
    builder.add(layer)
    return builder


def test_many_examples_are_measured_in_pieces() -> None:
    x = np.zeros((600, 2))
    x[300], x[599] = [8, 0], [0, 4]
    calibration = calibrate(two_layers(), x, margin=1)
    assert calibration.examples == 600
    assert found(calibration, "input", "input") == (8, 8)
    assert found(calibration, "layer fc1 (Linear)", "output") == (8, 16)


def test_tells_the_error_of_fixed_point() -> None:
    rng = np.random.default_rng(2)
    builder = GraphBuilder()
    builder.linear("fc1", rng.normal(size=(32, 20)) / 4)
    builder.add(Relu(builder.name("relu")))
    builder.linear("fc2", rng.normal(size=(10, 32)) / 4)
    graph, x = builder.build((20,)), rng.normal(size=(100, 20))
    coarse, fine = (calibrate(graph, x, fraction_bits=bits) for bits in (6, 16))
    assert fine.error < 0.001 < coarse.error
    assert fine.agreement == 1
    assert 0.5 < coarse.agreement <= 1


def test_a_single_output_agrees_by_its_sign() -> None:
    builder = GraphBuilder()
    builder.linear("fc", [[1, -1]])
    assert calibrate(builder.build((2,)), [[1, 0], [0, 1]]).agreement == 1


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"margin": 0.5}, "margin of 0.5"),
        ({"margin": float("nan")}, "margin of nan"),
        ({"fraction_bits": 40}, "40 fractional bits"),
        ({"compared_bits": 34}, "34 compared bits"),
        ({"compared_bits": 13}, "no room"),
    ],
)
def test_refuses_impossible_settings(options: dict[str, float], why: str) -> None:
    with pytest.raises(PlanError, match=why):
        calibrate(two_layers(), [[1, 0]], **options)  # type: ignore[arg-type]


def test_refuses_examples_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"shape \(1, 3\), expected \(batch, 2\)"):
        calibrate(two_layers(), [[1, 0, 0]])
