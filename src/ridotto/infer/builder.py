"""How importers put a graph together: layer after layer, with names that are usable and unique.

Affine steps that are not layers of their own (batch normalisation, a scaler's shift and scale) are folded: into the
linear layer before them, else into the one after them, else they become a layer that treats each channel by itself.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import DataError
from ridotto.infer.graph import WEIGHTED, Architecture, Conv2d, Floats, Graph, Layer, Linear, Shape, Weights

Doubles = NDArray[np.float64]
"""float64, of any shape: what is folded is computed in it, and rounded to float32 once, at the end."""


class GraphBuilder:
    """Put a graph together, one layer after the other, as importers meet them.

    Names are cleaned (what a name may not hold becomes _) and made unique by a number at the end.
    """

    def __init__(self) -> None:
        self._layers: list[Layer] = []
        self._parameters: dict[str, tuple[Doubles, Doubles]] = {}
        self._names: set[str] = set()
        self._pending: tuple[str, Doubles, Doubles, bool] | None = None

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
        self._settle()
        self._layers.append(layer)

    def linear(self, name: str, weight: ArrayLike, bias: ArrayLike | None = None) -> None:
        """Append a linear layer. weight: (outputs, inputs); bias: (outputs,), zeros if left out."""
        w = np.asarray(weight, np.float64)
        name = self.name(name)
        if w.ndim != 2 or 0 in w.shape:
            raise DataError(f"layer {name} (Linear): a weight of shape {w.shape} is no matrix")
        layer = Linear(name, w.shape[1], w.shape[0])
        b = _bias(layer, bias)
        if self._pending is not None and self._pending[1].shape == (w.shape[1],):
            _, factor, shift, _ = self._pending
            w, b = w * factor, b + w @ shift
            self._pending = None
        self._append(layer, w, b)

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
        w = np.asarray(weight, np.float64)
        name = self.name(name)
        if w.ndim != 4 or 0 in w.shape:
            raise DataError(f"layer {name} (Conv2d): a weight of shape {w.shape} is not of two dimensions")
        kernel = (w.shape[2], w.shape[3])
        layer = Conv2d(name, w.shape[1] * groups, w.shape[0], kernel, stride, padding, groups)
        self._append(layer, w, _bias(layer, bias))

    def affine(self, name: str, factor: ArrayLike, shift: ArrayLike, *, image: bool) -> None:
        """Multiply each channel (or feature) by a factor and add a shift, folded into a neighbour where one is linear.

        factor, shift: shape (channels,). image: whether the wire here is (channels, height, width).
        """
        a, c = np.asarray(factor, np.float64), np.asarray(shift, np.float64)
        if self._pending is not None and self._pending[1].shape == a.shape:
            first, factor_before, shift_before, _ = self._pending
            self._pending = (first, a * factor_before, a * shift_before + c, image)
            return
        last = self._layers[-1] if self._layers and self._pending is None else None
        if isinstance(last, WEIGHTED):
            if last.bias_shape != a.shape:
                raise DataError(f"layer {name}: {a.size} channels after {last.name}, which has {last.outputs}")
            weight, bias = self._parameters[last.name]
            shape = (-1,) + (1,) * (weight.ndim - 1)
            self._parameters[last.name] = (weight * a.reshape(shape), bias * a + c)
            return
        self._settle()
        self._pending = (name, a, c, image)

    def build(self, input_shape: Shape) -> Graph:
        """Return the graph. input_shape: one example's. Raises DataError, naming the layer, if a shape does not fit."""
        self._settle()
        architecture = Architecture(tuple(input_shape), tuple(self._layers))
        weights = {name: Weights(_frozen(weight), _frozen(bias)) for name, (weight, bias) in self._parameters.items()}
        return Graph(architecture, weights)

    def _settle(self) -> None:
        """Make a layer of an affine step that no neighbour can take in."""
        if self._pending is None:
            return
        name, factor, shift, image = self._pending
        self._pending = None
        if image:
            self.conv2d(name, factor.reshape(-1, 1, 1, 1), shift, groups=factor.size)
        else:
            self.linear(name, np.diag(factor), shift)

    def _append(self, layer: Linear | Conv2d, weight: Doubles, bias: Doubles) -> None:
        self._settle()
        self._layers.append(layer)
        self._parameters[layer.name] = (weight, bias)


def _bias(layer: Linear | Conv2d, bias: ArrayLike | None) -> Doubles:
    return np.zeros(layer.bias_shape) if bias is None else np.asarray(bias, np.float64)


def _frozen(values: ArrayLike) -> Floats:
    # What is too large for float32 becomes infinite, and is refused with the layer's name.
    with np.errstate(over="ignore"):
        copy = np.array(values, np.float32, order="C")
    copy.setflags(write=False)
    return copy
