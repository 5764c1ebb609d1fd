"""What a trainer and a model adapter must offer, and the way from a user's object to its adapter.

A `Trainer` is for those who hand training over (simulation, `ridotto join`): vector in, trained vector out. It keeps
nothing from one call to the next, so one trainer serves any number of clients in any order.

A `Model` is for those who keep their own training loop (`ridotto.rounds(url, model, ...)`): it reads the parameters of
a live object and writes new ones into it.

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


def adapt(model: object) -> Model:
    """Return the adapter for a user's model object.

    model: a torch module, a fitted scikit-learn estimator, or a dict or tree of NumPy or JAX arrays. The library is
    recognised by the names of the object's base classes, so none is imported for an object of another.
    Raises DataError naming the type and the supported ones.

    >>> import numpy as np
    >>> model = {"weight": np.zeros((3, 2), np.float32)}
    >>> adapt(model).write(np.ones(6, np.float32))
    >>> float(model["weight"].sum())
    6.0
    """
    bases = {f"{base.__module__}.{base.__qualname__}" for base in type(model).__mro__}
    if "torch.nn.modules.module.Module" in bases:
        from ridotto.learn.torch_trainer import TorchModel

        return TorchModel(model)
    if "sklearn.base.BaseEstimator" in bases:
        from ridotto.learn.sklearn_trainer import SklearnModel

        return SklearnModel(model)
    if isinstance(model, (dict, list)):
        from ridotto.learn.numpy_trainer import TreeModel

        return TreeModel(model)
    raise DataError(
        f"a model of type {type(model).__module__}.{type(model).__qualname__} is not supported: give a torch module, "
        "a scikit-learn estimator, or a dict or list (nested as you like) of NumPy or JAX arrays"
    )


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
