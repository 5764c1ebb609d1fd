"""A graph in plain NumPy, twice: in float32, and in integers as the encrypted computation rounds.

`forward` is what a framework would answer. `fixed_forward` computes with integers of f fractional bits: inputs and
weights are rounded to multiples of 2^-f, biases to multiples of 2^-2f, a product has 2f fractional bits and is
truncated to f by rounding down. The encrypted computation is compared with it: there, each truncation rounds down or
up, so that the two differ by a few units in the last place and no more.

Nothing here is secret-shared: this is what the owner of a model runs at home, and what tests compare with.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import DataError, PlanError
from ridotto.infer import approximations
from ridotto.infer.approximations import COEFFICIENT_BITS, SPLINES, Spline
from ridotto.infer.graph import (
    Architecture,
    AvgPool2d,
    Conv2d,
    Flatten,
    Floats,
    Gelu,
    Graph,
    Layer,
    Linear,
    MaxPool2d,
    Relu,
    Sigmoid,
    Softmax,
    Tanh,
)

Integers = NDArray[np.int64]
"""Fixed-point numbers: int64, value times 2^f."""

Values = NDArray[Any]
"""float32 or int64: linear layers and pools are the same in both."""

RING_BITS = 62
"""Magnitudes stay below 2^62: a ring of 2^64, a sign and the offset that truncation adds."""


def forward(graph: Graph, inputs: ArrayLike) -> Floats:
    """Return the model's answers: float32, shape (batch, *output shape).

    inputs: shape (batch, *input shape). Raises DataError if they are of another shape or not finite.
    """
    *_, (_, answers) = trace(graph, inputs)
    return answers


def trace(graph: Graph, inputs: ArrayLike) -> Iterator[tuple[Layer, Floats]]:
    """Yield each layer with its output, float32, in order. Raises DataError as `forward` does."""
    values = batch(graph.architecture, inputs)
    for layer in graph.architecture.layers:
        values = _float_step(graph, layer, values)
        yield layer, values


def fixed_forward(graph: Graph, inputs: ArrayLike, fraction_bits: int) -> Integers:
    """Return the answers as the encrypted computation rounds them: int64 times 2^-f, shape (batch, *output shape).

    Raises DataError as `forward` does or if a number does not fit, PlanError if approximated layers need more bits.
    """
    values = encode(batch(graph.architecture, inputs), fraction_bits)
    for layer in graph.architecture.layers:
        values = _fixed_step(graph, layer, values, fraction_bits)
    return values


def batch(architecture: Architecture, inputs: ArrayLike) -> Floats:
    """Return inputs as float32 of shape (batch, *input shape). Raises DataError if they don't fit or aren't finite."""
    values = np.asarray(inputs)
    if values.dtype.kind not in "fiub":
        raise DataError(f"inputs are numbers, not {values.dtype}")
    if values.shape[1:] != architecture.input_shape or not len(values):
        raise DataError(
            f"inputs have shape {values.shape}, expected (batch, {', '.join(map(str, architecture.input_shape))})"
        )
    floats = values.astype(np.float32)
    if not np.isfinite(floats).all():
        raise DataError("an input is not finite")
    return floats


def encode(values: ArrayLike, fraction_bits: int) -> Integers:
    """Round to multiples of 2^-f, ties to even: int64. Raises DataError if one does not fit into the ring."""
    scaled = np.rint(np.ldexp(np.asarray(values, np.float64), fraction_bits))
    if not (np.abs(scaled) < 2.0**RING_BITS).all():
        raise DataError(
            f"a number is not below 2^{RING_BITS - fraction_bits} in magnitude: it does not fit into the ring"
        )
    return scaled.astype(np.int64)


def decode(values: Integers, fraction_bits: int) -> Floats:
    """Turn fixed point into float32."""
    return np.ldexp(values.astype(np.float64), -fraction_bits).astype(np.float32)


def _float_step(graph: Graph, layer: Layer, x: Floats) -> Floats:
    y: Values
    match layer:
        case Linear() | Conv2d():
            weights = graph.parameters[layer.name]
            y = _linear(layer, weights.weight, weights.bias, x)
        case AvgPool2d():
            y = windows(x, layer.kernel, layer.stride).mean(axis=(-2, -1), dtype=np.float32)
        case MaxPool2d() | Flatten() | Relu():
            y = _either_step(layer, x)
        case Sigmoid():
            y = approximations.exact_sigmoid(x)
        case Tanh():
            y = np.tanh(x)
        case Gelu():
            y = approximations.exact_gelu(x)
        case Softmax():
            y = approximations.exact_softmax(x)
    return np.asarray(y, np.float32)


def _fixed_step(graph: Graph, layer: Layer, x: Integers, f: int) -> Integers:
    y: Values
    match layer:
        case Linear() | Conv2d():
            weights = graph.parameters[layer.name]
            y = _linear(layer, encode(weights.weight, f), encode(weights.bias, 2 * f), x) >> f
        case AvgPool2d():
            y = windows(x, layer.kernel, layer.stride).sum(axis=(-2, -1))
            y = y * round(2**f / math.prod(layer.kernel)) >> f
        case MaxPool2d() | Flatten() | Relu():
            y = _either_step(layer, x)
        case Sigmoid() | Tanh() | Gelu():
            y = fixed_spline(SPLINES[type(layer)], x, f)
        case Softmax():
            y = _fixed_softmax(layer, x, f)
    return y


def fixed_spline(spline: Spline, x: Integers, fraction_bits: int) -> Integers:
    """Evaluate a spline in integers, f fractional bits in and out, with one truncation at the end.

    Raises PlanError if f is too small for the spline's breakpoints.
    """
    start, slope, turns = spline.integers(fraction_bits)
    total = start + slope * x
    for knot, turn in turns:
        total += turn * np.maximum(x - knot, 0)
    return total >> COEFFICIENT_BITS


def _fixed_softmax(layer: Softmax, x: Integers, f: int) -> Integers:
    if x.shape[-1] > approximations.SOFTMAX_LIMIT:
        raise PlanError(str(layer.refuse(f"{x.shape[-1]} features, at most {approximations.SOFTMAX_LIMIT}")))
    powers = fixed_spline(approximations.EXPONENTIAL, x - x.max(axis=-1, keepdims=True), f)
    inverse = fixed_spline(approximations.RECIPROCAL, powers.sum(axis=-1, keepdims=True), f)
    return powers * inverse >> f


def _either_step(layer: MaxPool2d | Flatten | Relu, x: Values) -> Values:
    match layer:
        case MaxPool2d():
            largest: Values = windows(x, layer.kernel, layer.stride).max(axis=(-2, -1))
            return largest
        case Flatten():
            return x.reshape(len(x), -1)
        case Relu():
            return np.maximum(x, 0)


def _linear(layer: Linear | Conv2d, weight: Values, bias: Values, x: Values) -> Values:
    if isinstance(layer, Linear):
        return x @ weight.T + bias
    (rows, columns), groups = layer.padding, layer.groups
    padded = np.pad(x, ((0, 0), (0, 0), (rows, rows), (columns, columns)))
    view = windows(padded, layer.kernel, layer.stride).transpose(0, 2, 3, 1, 4, 5)
    count, height, width = view.shape[:3]
    # One matrix product a group: (groups, positions, patch) times (groups, patch, outputs / groups).
    patches = view.reshape(count * height * width, groups, -1).transpose(1, 0, 2)
    kernels = weight.reshape(groups, layer.outputs // groups, -1).transpose(0, 2, 1)
    product = (patches @ kernels).transpose(1, 0, 2).reshape(count, height, width, layer.outputs)
    return (product + bias).transpose(0, 3, 1, 2)


def windows(x: Values, kernel: tuple[int, int], stride: tuple[int, int]) -> Values:
    """View images (batch, channels, height, width) as windows: (batch, channels, rows, columns, *kernel)."""
    view: Values = sliding_window_view(x, kernel, axis=(2, 3))
    return view[:, :, :: stride[0], :: stride[1]]
