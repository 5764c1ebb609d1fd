"""What a trainer and a model adapter must offer.

A `Trainer` is for those who hand training over (simulation, `ridotto join`): vector in, trained vector out. It keeps
nothing from one call to the next, so one trainer serves any number of clients in any order.

A `Model` is for those who keep their own training loop (`ridotto.rounds(url, model, ...)`): it reads the parameters of
a live object and writes new ones into it; `learn.adapt` finds the adapter of an object.

Below both, a model is one float32 vector; the `Layout` says which element belongs to which named parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ridotto.core.rng import Rng
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import DataError


@dataclass(frozen=True)
class LocalResult:
    """Hold what one participant's training gave.

    vector: the trained parameters, float32, shape (length,); not yet the update. examples: how many were trained on,
    >= 1; the weight in the mean. metrics: means over these examples, so that weighted means of them make sense.
    """

    vector: Vector
    examples: int
    metrics: Mapping[str, float]


class Trainer(Protocol):
    """Train and evaluate one kind of model on data that the trainer knows how to read.

    Without state: a call depends on its arguments only, and the same arguments give the same bits on one machine.
    """

    @property
    def layout(self) -> Layout:
        """Name and shape every parameter, in the order of the vector."""

    def initial(self) -> Vector:
        """Return the parameters to start from; the same at every call, and nobody's data have touched them."""

    def train(self, vector: Vector, data: Any, rng: Rng) -> LocalResult:
        """Train from `vector` on `data`, drawing order and noise from `rng`; leave `vector` alone.

        Raises DataError if there are no examples, a shape does not fit, or a parameter is or becomes NaN or infinite.
        """

    def evaluate(self, vector: Vector, data: Any) -> Mapping[str, float]:
        """Return means over the examples of `data`, such as loss and accuracy, and nothing else.

        Raises DataError as `train` does.
        """


class Model(Protocol):
    """Read and write the parameters of a live object as one vector."""

    @property
    def layout(self) -> Layout:
        """Name and shape every parameter, in the order of the vector."""

    def read(self) -> Vector:
        """Return a copy of the parameters. Raises DataError if one is NaN or infinite, or a shape has changed."""

    def write(self, vector: Vector) -> None:
        """Put `vector` into the object, in place. Raises DataError if the length does not fit."""


def finished(layout: Layout, vector: Vector, examples: int, metrics: Mapping[str, float]) -> LocalResult:
    """Check what training gave and wrap it up; every trainer ends with this call.

    Raises DataError naming the parameter or the metric that is NaN or infinite: averaged into a model, one such
    number would destroy everybody's work.
    """
    require_finite(vector, layout)
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise DataError(f"the training {name} is {value}: look for NaN in the data, or lower the learning rate")
    return LocalResult(vector, examples, metrics)
