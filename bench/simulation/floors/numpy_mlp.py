"""The floor of W1 MLP in NumPy: one step is six products and a few passes over small arrays.

The second layer is one matrix (classes, hidden + 1), bias last; the hidden activations have a column of ones for it.
(For the first layer this loses: rows of 785 numbers make the products a tenth slower.) Scores are (classes, examples):
passes over long rows are faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bench.simulation.floors.workers import Train
from bench.simulation.workloads import Data, Parts, Workload, batch_order


def views(flat: np.ndarray, task: Workload) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first weight (784, 200), the first bias (200,) and the second layer (10, 201)."""
    inputs, hidden, classes = task.dense
    cut = inputs * hidden
    weight, bias, second = flat[:cut], flat[cut : cut + hidden], flat[cut + hidden :]
    return weight.reshape(inputs, hidden), bias, second.reshape(classes, hidden + 1)


def initial(task: Workload) -> np.ndarray:
    inputs, hidden, classes = task.dense
    flat = task.initial()
    cut = inputs * hidden + hidden
    weight, bias = flat[cut:-classes].reshape(classes, hidden), flat[-classes:, None]
    return np.concatenate([flat[:cut], np.hstack([weight, bias]).ravel()])


def make(data: Data, parts: Parts, task: Workload) -> Train:
    inputs, hidden, classes = task.dense
    size, rate = task.batch_size, task.learning_rate
    vector, gradient = (np.empty(inputs * hidden + hidden + (hidden + 1) * classes, np.float32) for _ in range(2))
    (weight, bias, second), (d_weight, d_bias, d_second) = views(vector, task), views(gradient, task)
    batch, wide = np.empty((size, inputs), np.float32), np.ones((size, hidden + 1), np.float32)
    delta_hidden, positive = np.empty((size, hidden), np.float32), np.empty((size, hidden), bool)
    targets = one_hot(data, task)
    back = second[:, :hidden]

    def step(rows: np.ndarray) -> None:
        count = len(rows)
        x, h1, h = batch[:count], wide[:count], wide[:count, :hidden]
        dh, p = delta_hidden[:count], positive[:count]
        np.take(data.x, rows, axis=0, out=x, mode="clip")
        np.matmul(x, weight, out=h)
        np.add(h, bias, out=h)
        np.maximum(h, 0, out=h)
        z = np.matmul(second, h1.T)
        softmax_delta(z, targets[rows].T, rate / count)
        np.matmul(z, h1, out=d_second)
        np.matmul(z.T, back, out=dh)
        np.greater(h, 0, out=p)
        np.multiply(dh, p, out=dh)
        np.matmul(x.T, dh, out=d_weight)
        np.add.reduce(dh, axis=0, out=d_bias)
        np.subtract(vector, gradient, out=vector)

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        examples = 0
        total[:] = 0
        for client in clients:
            order = parts.start(client) + batch_order(number, client, task.examples)
            vector[:] = model
            for start in range(0, len(order), size):
                step(order[start : start + size])
            np.multiply(vector, np.float32(len(order)), out=vector)
            np.add(total, vector, out=total)
            examples += len(order)
        return examples

    return train


def one_hot(data: Data, task: Workload) -> np.ndarray:
    rows: np.ndarray = np.eye(task.dense[-1], dtype=np.float32)[data.y]
    return rows


def softmax_delta(z: np.ndarray, target: np.ndarray, scale: float) -> None:
    """Turn scores, shape (classes, examples), into `scale` times the derivative of the cross-entropy by them, in place.

    target: one-hot labels, of the same shape.
    """
    np.subtract(z, np.maximum.reduce(z, axis=0), out=z)
    np.exp(z, out=z)
    np.divide(z, np.add.reduce(z, axis=0), out=z)
    np.subtract(z, target, out=z)
    np.multiply(z, np.float32(scale), out=z)


def accuracy(model: np.ndarray, data: Data, task: Workload) -> float:
    weight, bias, second = views(model, task)
    x, y = data.test
    hidden = np.maximum(x @ weight + bias, 0)
    return float(np.mean((hidden @ second[:, :-1].T + second[:, -1]).argmax(axis=1) == y))
