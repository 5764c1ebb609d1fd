"""What importers do with a call of their framework where all frameworks mean the same by it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from ridotto.errors import DataError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import AvgPool2d, Flatten, MaxPool2d, Relu, Shape, Sigmoid, Tanh


class Call(Protocol):
    """Say of one step of a model what it is called, and from which shape to which it leads, without the batch."""

    @property
    def name(self) -> str:
        """Return the name that the framework gives it."""

    @property
    def before(self) -> Shape:
        """Return the shape of what goes in."""

    @property
    def after(self) -> Shape | None:
        """Return the shape of what comes out."""

    def refuse(self, why: str) -> DataError:
        """Return the error that names this step."""


Handler = Callable[[GraphBuilder, Call], None]
"""Makes a layer of a call, or raises DataError."""


def reshape(builder: GraphBuilder, call: Call) -> None:
    """Flatten, or do nothing to what is flat."""
    if call.after == call.before:
        return
    if call.after != (math.prod(call.before),):
        raise call.refuse(f"turns {call.before} into {call.after}; only flattening is supported")
    builder.add(Flatten(builder.name(call.name)))


def pool(
    builder: GraphBuilder,
    call: Call,
    kind: type[AvgPool2d | MaxPool2d],
    kernel: tuple[int, int],
    stride: tuple[int, int],
) -> None:
    """Take the largest or the mean of windows that lie inside the image."""
    layer = kind(builder.name(call.name), kernel, stride)
    if layer.output_shape(call.before) != call.after:
        raise call.refuse("windows that reach over the edge (ceil_mode) are not supported")
    builder.add(layer)


def simple(kind: type[Relu | Sigmoid | Tanh]) -> Handler:
    """Return what adds a layer that has nothing but a name."""
    return lambda builder, call: builder.add(kind(builder.name(call.name)))


def skip(builder: GraphBuilder, call: Call) -> None:
    """Leave out what does nothing when a model is used."""


def refuse_logarithm(builder: GraphBuilder, call: Call) -> None:
    """Refuse the logarithm of a softmax."""
    raise call.refuse("is not supported: leave it out, the largest output stays the largest, or take Softmax")
