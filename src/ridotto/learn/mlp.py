"""A dense classifier in plain NumPy: forward, backward and the step, written by hand.

    a_0 = x,  a_l = relu(a_{l-1} W_l + b_l),  scores = a_{L-1} W_L + b_L,  loss = softmax cross-entropy

With two sizes there is no hidden layer and this is multinomial logistic regression.

It is fast for one reason: all parameters are one flat vector, all gradients another, and the layers are views into
them. A step allocates nothing of the size of the model, and the update of every layer is one subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.vector import Layout, Vector
from ridotto.errors import ConfigError

Matrix = NDArray[np.float32]
"""Activations, weights or their gradients: float32, two axes."""


@dataclass(frozen=True)
class Mlp:
    """Describe the network: sizes[0] features, then the hidden layers, then sizes[-1] classes.

    Raises ConfigError for fewer than two sizes or a size below 1.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ConfigError(f"sizes must be at least two numbers of at least 1, not {self.sizes}")

    @cached_property
    def layout(self) -> Layout:
        """Name the parameters: `layer1.weight`, shape (inputs, outputs), `layer1.bias`, shape (outputs,), and so on."""
        arrays: dict[str, Any] = {}
        for number, (inputs, outputs) in enumerate(pairwise(self.sizes), 1):
            arrays[f"layer{number}.weight"] = np.zeros((inputs, outputs), np.float32)
            arrays[f"layer{number}.bias"] = np.zeros(outputs, np.float32)
        return Layout.of(arrays)

    def initial(self, seed: int) -> Vector:
        """Draw weights and biases uniformly from +-1/sqrt(inputs), as torch.nn.Linear does; same seed, same bits."""
        generator = np.random.Generator(np.random.PCG64(seed))
        vector = np.empty(self.layout.length, np.float32)
        for weight, bias in self.layers(vector):
            bound = 1 / np.sqrt(len(weight))
            weight[...] = generator.uniform(-bound, bound, weight.shape)
            bias[...] = generator.uniform(-bound, bound, bias.shape)
        return vector

    def layers(self, vector: Vector) -> list[tuple[Matrix, Vector]]:
        """Return (weight, bias) of each layer as views into `vector`."""
        arrays = list(self.layout.unflatten(vector).values())
        return list(zip(arrays[::2], arrays[1::2], strict=True))


class Workspace:
    """Hold the arrays of one training run: parameters, gradients and one batch of activations.

    vector: the parameters, changed in place by `step`. batch_size: the largest batch that will come.
    """

    def __init__(self, mlp: Mlp, vector: Vector, batch_size: int) -> None:
        self.vector = vector
        self._gradient = np.empty_like(vector)
        self._layers = mlp.layers(vector)
        self._gradients = mlp.layers(self._gradient)
        self._activations = [np.empty((batch_size, size), np.float32) for size in mlp.sizes]
        self._deltas = [np.empty((batch_size, size), np.float32) for size in mlp.sizes[1:-1]]

    def measure(self, x: Matrix, y: NDArray[np.intp]) -> tuple[float, int]:
        """Return the sum of the losses over the batch and how many examples are classified correctly.

        x: float32, shape (n, features), n <= batch_size. y: shape (n,). Leaves the class probabilities behind.
        """
        activations = [array[: len(x)] for array in self._activations]
        # The first product reads x itself, and the backward pass wants it in the same place as the other layers.
        activations[0] = x
        for layer, (weight, bias) in enumerate(self._layers):
            scores = activations[layer + 1]
            np.matmul(activations[layer], weight, out=scores)
            scores += bias
            if layer < len(self._layers) - 1:
                np.maximum(scores, 0, out=scores)
        return softmax_cross_entropy(activations[-1], y)

    def gather(self, x: Matrix, indices: NDArray[np.int64]) -> Matrix:
        """Copy the rows of a batch into the workspace and return them."""
        batch = self._activations[0][: len(indices)]
        # Indices come from a permutation, so none is out of range; "clip" spares NumPy a temporary copy.
        return np.take(x, indices, axis=0, out=batch, mode="clip")

    def step(self, x: Matrix, y: NDArray[np.intp], learning_rate: float) -> tuple[float, int]:
        """Take one step of gradient descent on the batch's mean loss; return `measure` as it was before the step."""
        measured = self.measure(x, y)
        count = len(x)
        delta = self._activations[-1][:count]
        delta[np.arange(count), y] -= 1
        # Gradients are linear in delta: scaled here, a few numbers, the whole gradient arrives scaled.
        delta *= learning_rate / count
        for layer in range(len(self._layers) - 1, -1, -1):
            inputs = x if layer == 0 else self._activations[layer][:count]
            weight_gradient, bias_gradient = self._gradients[layer]
            np.matmul(inputs.T, delta, out=weight_gradient)
            np.sum(delta, axis=0, out=bias_gradient)
            if layer:
                previous = self._deltas[layer - 1][:count]
                np.matmul(delta, self._layers[layer][0].T, out=previous)
                # A relu's output is never negative, so its sign is its derivative: 0 or 1.
                previous *= np.sign(inputs, out=inputs)
                delta = previous
        self.vector -= self._gradient
        return measured


def softmax_cross_entropy(scores: Matrix, y: NDArray[np.intp]) -> tuple[float, int]:
    """Turn scores into probabilities in place; return the sum of -log p(label) and the number of correct labels.

    scores: float32, shape (n, classes). y: shape (n,).
    """
    scores -= scores.max(axis=1, keepdims=True)
    label_scores = scores[np.arange(len(y)), y]
    correct = int(np.count_nonzero(scores.argmax(axis=1) == y))
    np.exp(scores, out=scores)
    sums = scores.sum(axis=1, keepdims=True)
    # log(sum) - score stays finite where log(probability) would be the log of an underflowed zero.
    loss = float(np.sum(np.log(sums[:, 0]) - label_scores, dtype=np.float64))
    scores /= sums
    return loss, correct
