"""The floors of W3 and W2 in NumPy: logistic regression, one client at a time or many in one computation.

The data have a column of ones, weights are (classes, features + 1) and scores (classes, examples), so that products
and passes go along long rows: two thirds of the time of the other way round. Every client's trained vector is made,
as a federated round needs it for clipping or masking; `product` shows what one gradient of all clients would take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench.simulation.floors.numpy_mlp import one_hot, softmax_delta
from bench.simulation.floors.workers import Train
from bench.simulation.workloads import Data, Parts, Workload, batch_order

CHUNK = 8
"""Clients trained at once: their trained vectors and examples stay in a core's second-level cache."""

Gather = Callable[[int, Sequence[int]], tuple[np.ndarray, np.ndarray]]
"""(number of the round, clients) -> x (steps, clients, size, features + 1) and one-hot y (steps, examples, classes)."""


def initial(task: Workload) -> np.ndarray:
    features, classes = task.dense
    flat = task.initial()
    return np.hstack([flat[:-classes].reshape(classes, features), flat[-classes:, None]]).ravel()


def loop(data: Data, parts: Parts, task: Workload) -> Train:
    """Train one client after the other."""
    features, classes = task.dense
    size, rate = task.batch_size, task.learning_rate
    weight, gradient = (np.empty((classes, features + 1), np.float32) for _ in range(2))
    z, targets = np.empty((classes, size), np.float32), one_hot(data, task)
    buffer = np.empty((task.examples, features + 1), np.float32)
    flat = weight.ravel()
    whole = task.batch_size == task.examples

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        total[:] = 0
        for client in clients:
            first = parts.start(client)
            if whole:
                x, y = data.x[first : first + size], targets[first : first + size]
            else:
                order = first + batch_order(number, client, task.examples)
                x, y = np.take(data.x, order, axis=0, out=buffer, mode="clip"), targets[order]
            flat[:] = model
            for start in range(0, task.examples, size):
                batch = x[start : start + size]
                np.matmul(weight, batch.T, out=z)
                softmax_delta(z, y[start : start + size].T, rate / size)
                np.matmul(z, batch, out=gradient)
                np.subtract(weight, gradient, out=weight)
            np.multiply(flat, np.float32(task.examples), out=flat)
            np.add(total, flat, out=total)
        return len(clients) * task.examples

    return train


def batched(data: Data, parts: Parts, task: Workload) -> Train:
    """Train up to CHUNK clients in one computation."""
    features, classes = task.dense
    size, rate, steps = task.batch_size, task.learning_rate, task.examples // task.batch_size
    chunk = min(CHUNK, task.cohort)
    weights, gradients = (np.empty((chunk, classes, features + 1), np.float32) for _ in range(2))
    examples = np.full(chunk, task.examples, np.float32)
    part = np.empty(classes * (features + 1), np.float32)
    gather = gathering(data, parts, task, chunk)

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        total[:] = 0
        start_weight = model.reshape(classes, features + 1)
        for start in range(0, len(clients), chunk):
            some = clients[start : start + chunk]
            count = len(some)
            w, g = weights[:count], gradients[:count]
            z = np.empty((classes, count * size), np.float32)
            by_client = z.reshape(classes, count, size).swapaxes(0, 1)
            xs, ys = gather(number, some)
            for step in range(steps):
                x = xs[step]
                if step == 0:  # everybody still has the same weights: one product
                    np.matmul(start_weight, x.reshape(count * size, -1).T, out=z)
                else:
                    np.matmul(w, x.swapaxes(1, 2), out=by_client)
                softmax_delta(z, ys[step].T, rate / size)
                np.matmul(by_client, x, out=g)
                np.subtract(w if step else start_weight, g, out=w)
            np.matmul(examples[:count], w.reshape(count, -1), out=part)
            np.add(total, part, out=total)
        return len(clients) * task.examples

    return train


def gathering(data: Data, parts: Parts, task: Workload, chunk: int) -> Gather:
    size, steps, width = task.batch_size, task.examples // task.batch_size, data.x.shape[1]
    buffer, targets = np.empty(chunk * task.examples * width, np.float32), one_hot(data, task)

    def gather(number: int, clients: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        starts, count = parts.start(np.asarray(clients)), len(clients)
        if task.ranges and starts[-1] - starts[0] == (count - 1) * size:  # neighbours: nothing need be copied
            block = slice(starts[0], starts[-1] + size)
            return data.x[block].reshape(1, count, size, width), targets[block][None]
        if task.ranges:
            rows = (starts[:, None] + np.arange(size))[None]
        else:
            orders = [batch_order(number, client, task.examples) for client in clients]
            rows = (starts[:, None] + orders).reshape(count, steps, size).swapaxes(0, 1)
        x = buffer[: rows.size * width].reshape(*rows.shape, width)
        np.take(data.x, rows, axis=0, out=x, mode="clip")
        return x, targets[rows].reshape(steps, count * size, -1)

    return gather


def product(data: Data, parts: Parts, task: Workload) -> Train:
    """Add the gradients of all clients up in one product: one full-batch step only, and no client has a vector."""
    features, classes = task.dense
    size, rate, chunk = task.batch_size, task.learning_rate, 256
    targets = one_hot(data, task)

    def train(model: np.ndarray, number: int, clients: Sequence[int], total: np.ndarray) -> float:
        weight = model.reshape(classes, features + 1)
        np.multiply(model, np.float32(len(clients) * size), out=total)
        for start in range(0, len(clients), chunk):
            starts = parts.start(np.asarray(clients[start : start + chunk]))
            rows = (starts[:, None] + np.arange(size)).ravel()
            x = data.x[rows]
            z = np.matmul(weight, x.T)
            softmax_delta(z, targets[rows].T, rate)
            total -= np.matmul(z, x).ravel()
        return len(clients) * size

    return train


def accuracy(model: np.ndarray, data: Data, task: Workload) -> float:
    x, y = data.test
    return float(np.mean((x @ model.reshape(task.dense[1], -1).T).argmax(axis=1) == y))
