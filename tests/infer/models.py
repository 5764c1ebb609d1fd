"""Small models for tests of encrypted inference, and the two that are measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import Flatten, Graph, MaxPool2d, Relu


def weights(*shape: int, scale: float = 0.5) -> Any:
    """Return the same random numbers for the same shape."""
    return np.random.default_rng(shape).normal(0, scale, shape)


def dense(*sizes: int, scale: float = 0.5) -> Graph:
    """Return linear layers with a ReLU between each two."""
    builder = GraphBuilder()
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        if i:
            builder.add(Relu(f"relu{i}"))
        builder.linear(f"dense{i}", weights(outputs, inputs, scale=scale), weights(outputs, scale=scale))
    return builder.build((sizes[0],))


def tiny_images() -> Graph:
    """Return a convolution, a ReLU, a max-pool and a linear layer: every protocol, few numbers."""
    builder = GraphBuilder()
    builder.conv2d("conv", weights(3, 1, 3, 3), weights(3))
    builder.add(Relu("relu"))
    builder.add(MaxPool2d("pool", (2, 2), (2, 2)))
    builder.add(Flatten("flatten"))
    builder.linear("dense", weights(4, 12), weights(4))
    return builder.build((1, 6, 6))


def inputs(graph: Graph, count: int) -> Any:
    """Return the same random inputs for the same model and count, float32."""
    return np.random.default_rng(count).normal(0, 1, (count, *graph.architecture.input_shape)).astype(np.float32)
