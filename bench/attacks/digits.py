"""The digits that attacks work on: MNIST as clients have it in bench/simulation, and pixels as an eye sees them."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np

from bench.simulation.workloads import DEVIATION, MEAN, Data, load, workload

FEATURES, CLASSES, SIDE = 784, 10, 28
CLIENTS = 100

BLACK, WHITE = -MEAN / DEVIATION, (1 - MEAN) / DEVIATION
"""The least and the greatest value of a normalised pixel."""


@cache
def non_iid(path: str) -> Data:
    """Return the digits dealt to 100 clients of 600, two shards of the sorted labels each; a client is a slice."""
    return load(path, workload("w1-mlp"))


@cache
def shuffled(path: str) -> Data:
    """Return the digits in an order in which any range is a fair sample."""
    data = non_iid(path)
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(data.x))
    return dataclasses.replace(data, x=data.x[order], y=data.y[order])
