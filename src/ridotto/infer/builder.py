"""How importers put a graph together: layer after layer, with names that are usable and unique."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike

from ridotto.errors import DataError
from ridotto.infer.graph import Architecture, Conv2d, Floats, Graph, Layer, Linear, Shape, Weights


class GraphBuilder:
    """Put a graph together, one layer after the other, as importers meet them.

    Names are cleaned (what a name may not hold becomes _) and made unique by a number at the end.
    """

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._parameters: dict[str, Weights] = {}
        self._names: set[str] = set()

    def name(self, wish: str) -> str:
        """Reserve and return a usable, unused name, as near to `wish` as it can be."""
        clean = re.sub(r"[^A-Za-z0-9._/-]", "_", wish)[:100].lstrip("./-") or "layer"
        name, count = clean, 1
        while name in self._names:
            count += 1
            name = f"{clean}-{count}"
        self._names.add(name)
        return name

    def add(self, layer: Layer) -> None:
        """Append a layer without parameters; its name comes from `name`."""
        self._layers.append(layer)

    def linear(self, name: str, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        """Append a linear layer. weight: (outputs, inputs); bias: (outputs,), zeros if left out."""
        w = np.asarray(weight)
        name = self.name(name)
        if w.ndim != 2 or 0 in w.shape:
            raise DataError(f"layer {name} (Linear): a weight of shape {w.shape} is no matrix")
        self._weighted(Linear(name, w.shape[1], w.shape[0]), w, bias)

    def conv2d(
        self,
        name: str,
        weight: ArrayLike,
        bias: ArrayLike | None = None,
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (0, 0),
        groups: int = 1,
    ) -> None:
        """Append a convolution. weight: (outputs, inputs / groups, height, width); bias: zeros if left out."""
        w = np.asarray(weight)
        name = self.name(name)
        if w.ndim != 4 or 0 in w.shape:
            raise DataError(f"layer {name} (Conv2d): a weight of shape {w.shape} is not of two dimensions")
        kernel = (w.shape[2], w.shape[3])
        self._weighted(Conv2d(name, w.shape[1] * groups, w.shape[0], kernel, stride, padding, groups), w, bias)

    def build(self, input_shape: Shape) -> Graph:
        """Return the graph. input_shape: one example's. Raises DataError, naming the layer, if a shape does not fit."""
        return Graph(Architecture(tuple(input_shape), tuple(self._layers)), self._parameters)

    def _weighted(self, layer: Linear | Conv2d, weight: ArrayLike, bias: ArrayLike | None) -> None:
        self._layers.append(layer)
        b = np.zeros(layer.bias_shape, np.float32) if bias is None else bias
        self._parameters[layer.name] = Weights(_frozen(weight), _frozen(b))


def _frozen(values: ArrayLike) -> Floats:
    copy = np.array(values, np.float32, order="C")
    copy.setflags(write=False)
    return copy
