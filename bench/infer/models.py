"""The two models that are measured, with random weights: what they compute does not change what they cost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import Flatten, Graph, MaxPool2d, Relu


def mlp() -> Graph:
    """A: 784-128-128-10 with ReLU (SecureML's network A)."""
    builder, sizes = GraphBuilder(), (784, 128, 128, 10)
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        if i:
            builder.add(Relu(f"relu{i}"))
        builder.linear(f"fc{i}", _weights(outputs, inputs), _weights(outputs))
    return builder.build((784,))


def lenet() -> Graph:
    """L: LeNet with 20 and 50 channels, max-pools, and 500 hidden units."""
    builder = GraphBuilder()
    for i, (inputs, outputs) in enumerate(((1, 20), (20, 50)), 1):
        builder.conv2d(f"conv{i}", _weights(outputs, inputs, 5, 5), _weights(outputs))
        builder.add(Relu(f"relu{i}"))
        builder.add(MaxPool2d(f"pool{i}", (2, 2), (2, 2)))
    builder.add(Flatten("flatten"))
    builder.linear("fc1", _weights(500, 800), _weights(500))
    builder.add(Relu("relu3"))
    builder.linear("fc2", _weights(10, 500), _weights(10))
    return builder.build((1, 28, 28))


def inputs(graph: Graph, batch: int) -> Any:
    return np.random.default_rng(batch).random((batch, *graph.architecture.input_shape), np.float32)


def _weights(*shape: int) -> Any:
    fan_in = int(np.prod(shape[1:])) or 1
    return np.random.default_rng(shape).normal(0, fan_in**-0.5, shape)
