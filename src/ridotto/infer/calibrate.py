"""Does a model fit into fixed point? Measure every wire on examples, before anything is encrypted.

The protocols compare the lowest k bits of numbers with f fractional bits. A comparison, also one of the difference of
two values (max-pool, argmax), is right as long as on every wire

    |y| < 2^(k - 2 - f)

For k = 33 and f = 14 that is 2^17, for k = 25 it is 512. `calibrate` runs the model on examples in float32, keeps the
largest |y| of each wire, takes the smallest k for which a margin above it fits, and refuses a wire that fits none, by
its layer's name. Beside what was measured stands what is certain: bounds from the weights alone that hold for every
input below the limit of inputs, seen or not (interval arithmetic). They are far from tight; where they fit as well,
the calibration is proven.

It also computes the examples in fixed point, as the encrypted computation rounds, and keeps the largest difference.
All of this happens where the owner of the model has it in the clear. The numbers say something about model and
examples, so they stay there; f, k and the limit of inputs are what others need to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import PlanError
from ridotto.infer import approximations
from ridotto.infer.approximations import SPLINES
from ridotto.infer.convert import to_graph
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import (
    WEIGHTED,
    Conv2d,
    Floats,
    Gelu,
    Graph,
    Layer,
    Linear,
    Sigmoid,
    Softmax,
    Tanh,
)
from ridotto.infer.reference import batch, decode, fixed_forward, trace

FRACTION_BITS = 14
"""Fractional bits unless somebody asks for others."""

COMPARED_BITS = (9, 13, 17, 21, 25, 29, 33)
"""How many bits the protocols may compare: digits of 4 and a sign. Fewer are cheaper."""

MARGIN = 2.0
"""How many times larger than on the examples a value may become, unless somebody asks for another margin."""

AT_ONCE = 256
"""Examples that are run at once: windows of convolutions take memory."""

FIXED_EXAMPLES = 64
"""Most examples that are also computed in fixed point: integers are slow in NumPy, and these show the error."""


@dataclass(frozen=True)
class Range:
    """Say how large numbers at one place are.

    place: "input" or a layer, with its kind. what: "input", "output", "inside" (what a layer compares on its way),
    "weight" or "bias". largest: |value| on the examples, at most; for weights and biases exactly. certain: |value|
    that no input below the limit of inputs can exceed.
    """

    place: str
    what: str
    largest: float
    certain: float


@dataclass(frozen=True)
class Calibration:
    """Say that a model fits, and how well.

    fixed: f and k. ranges: of the input, of every layer's output, weight and bias. margin: at least 1. examples: how
    many there were. error: the largest difference between fixed point and float32 on an output. agreement: the share
    of examples whose class (the largest output; the sign of a single one) is the same in both.
    """

    fixed: Fixed
    ranges: tuple[Range, ...]
    margin: float
    examples: int
    error: float
    agreement: float

    @property
    def input_limit(self) -> float:
        """Return the largest |input| that this calibration speaks of: the examples' largest times the margin."""
        return self.ranges[0].largest * self.margin

    @property
    def proven(self) -> bool:
        """Say whether no input up to the limit can bring any wire to the bound."""
        return all(found.certain < self.fixed.limit for found in self.ranges)


def calibrate(
    graph: Graph,
    examples: ArrayLike,
    *,
    fraction_bits: int = FRACTION_BITS,
    compared_bits: int | None = None,
    margin: float = MARGIN,
) -> Calibration:
    """Measure every wire on examples and choose how many bits to compare, or check a given number.

    examples: shape (batch, *input shape), like those that the model will see. margin: at least 1.
    Raises DataError if the examples don't fit the model, PlanError, naming the layer, with the number found and the
    bound, if a wire or a parameter could exceed it.
    """
    if not margin >= 1:
        raise PlanError(f"a margin of {margin}, expected at least 1")
    inputs = batch(graph.architecture, examples)
    pieces = [inputs[start : start + AT_ONCE] for start in range(0, len(inputs), AT_ONCE)]
    ranges = tuple(_joined(found) for found in zip(*(_ranges(graph, piece, margin) for piece in pieces), strict=True))
    widest = Fixed(fraction_bits, COMPARED_BITS[-1] if compared_bits is None else compared_bits)
    narrower = [Fixed(fraction_bits, k) for k in COMPARED_BITS if compared_bits is None and k > fraction_bits + 2]
    fixed = next((choice for choice in narrower if _excess(ranges, choice, margin) is None), widest)
    require(ranges, fixed, margin)
    shown = inputs[:FIXED_EXAMPLES]
    *_, (_, exact) = trace(graph, shown)
    rounded = decode(fixed_forward(graph, shown, fraction_bits), fraction_bits)
    error = float(np.abs(rounded - exact).max())
    return Calibration(fixed, ranges, margin, len(inputs), error, float(np.mean(_classes(rounded) == _classes(exact))))


def to_encode(model: Any, examples: ArrayLike | None, fixed: Fixed | None) -> tuple[Graph, Fixed]:
    """Return a model's graph, and the encoding in which it is to be shared.

    examples, fixed: as of `World.share_model`. Raises as `to_graph` and `calibrate` do.
    """
    graph, wished = to_graph(model, examples), fixed or Fixed()
    if examples is None:
        return graph, wished
    bits = None if fixed is None else fixed.compared_bits
    return graph, calibrate(graph, examples, fraction_bits=wished.fraction_bits, compared_bits=bits).fixed


def require(ranges: tuple[Range, ...], fixed: Fixed, margin: float) -> None:
    """Raise PlanError if a number could exceed the bound or all weights of a layer would vanish.

    The message names the layer, the number found, the bound and what can be changed.
    """
    found = _excess(ranges, fixed, margin)
    if found is not None:
        times = f", times the margin of {margin:g}," if found.what in MEASURED else ""
        raise PlanError(
            f"{found.place}: the {found.what} reaches {found.largest:.6g}, which{times} is not below the bound "
            f"{fixed.limit:g} of {fixed.compared_bits} compared bits with {fixed.fraction_bits} fractional ones; "
            f"{_advice(ranges, fixed, margin)}"
        )
    for found in ranges:
        if found.what == "weight" and 0 < found.largest < 2.0 ** -(fixed.fraction_bits + 1):
            raise PlanError(
                f"{found.place}: the largest weight is {found.largest:.3g}, and {fixed.fraction_bits} fractional bits "
                "round all of them to zero; scale the inputs down and the weights up"
            )


def _joined(found: tuple[Range, ...]) -> Range:
    """Return the range at one place over all pieces of the examples; NumPy's maximum lets no NaN disappear."""
    largest, certain = (float(np.max(values)) for values in zip(*((r.largest, r.certain) for r in found), strict=True))
    return Range(found[0].place, found[0].what, largest, certain)


MEASURED = frozenset({"input", "output", "inside"})
"""What depends on inputs, so that unseen ones may exceed it: the margin is for these."""


def _excess(ranges: tuple[Range, ...], fixed: Fixed, margin: float) -> Range | None:
    """Return the first place whose numbers don't stay below the bound."""
    for found in ranges:
        if not found.largest * (margin if found.what in MEASURED else 1) < fixed.limit:
            return found
    return None


def _advice(ranges: tuple[Range, ...], fixed: Fixed, margin: float) -> str:
    for bits in COMPARED_BITS:
        if bits > fixed.compared_bits and _excess(ranges, Fixed(fixed.fraction_bits, bits), margin) is None:
            return f"compare {bits} bits"
    for bits in range(fixed.fraction_bits - 1, 7, -1):
        if _excess(ranges, Fixed(bits, COMPARED_BITS[-1]), margin) is None:
            return f"take {bits} fractional bits with {COMPARED_BITS[-1]} compared ones, or scale the inputs down"
    return "scale inputs and weights down"


def _ranges(graph: Graph, inputs: Floats, margin: float) -> Iterator[Range]:
    largest = _largest(inputs)
    certain = largest * margin
    yield Range("input", "input", largest, certain)
    for layer, values in trace(graph, inputs):
        place = f"layer {layer.name} ({type(layer).__name__})"
        if isinstance(layer, WEIGHTED):
            weights = graph.parameters[layer.name]
            for what, array in (("weight", weights.weight), ("bias", weights.bias)):
                yield Range(place, what, _largest(array), _largest(array))
        for inside in _inside(layer, largest, values):
            yield Range(place, "inside", inside, _inside(layer, certain, values)[0])
        largest, certain = _largest(values), _certain(graph, layer, certain)
        yield Range(place, "output", largest, certain)


def _inside(layer: Layer, before: float, values: Floats) -> list[float]:
    """Return how large what a layer compares becomes: breakpoints of splines, differences and sums in a softmax."""
    if isinstance(layer, Softmax):
        return [max(2 * before, float(values.shape[-1]))]
    spline = SPLINES.get(type(layer))
    return [] if spline is None else [spline.reach]


def _certain(graph: Graph, layer: Layer, before: float) -> float:
    """Return what |output| can't exceed if |input| does not exceed `before`."""
    match layer:
        case Linear() | Conv2d():
            weights = graph.parameters[layer.name]
            sums = np.abs(weights.weight.astype(np.float64)).reshape(layer.outputs, -1).sum(axis=1)
            return float((sums * before + np.abs(weights.bias)).max())
        case Gelu():
            return before + approximations.BOUNDS["GELU"]
        case Sigmoid() | Tanh() | Softmax():
            return 1 + max(approximations.BOUNDS.values())
    return before


def _largest(values: Floats) -> float:
    return float(np.abs(values).max())


def _classes(outputs: Floats) -> NDArray[Any]:
    rows = outputs.reshape(len(outputs), -1)
    return rows[:, 0] > 0 if rows.shape[1] == 1 else rows.argmax(axis=1)
