"""What is trained, on what and by whom: the same for ridotto and for the floors. NumPy only.

    w1-mlp      100 clients x 600 digits, two shards of the sorted labels each (McMahan et al. 2017); 10 a round, one
                epoch of batches of 32, SGD 0.05, 20 rounds; 784-200-10
    w1-cnn      the same with conv 16x5x5, relu, pool, conv 32x5x5, relu, pool, 512-128-10
    w3          logistic regression; 1,000 clients x 60, 10 a round, one epoch of batches of 10, SGD 0.03, 100 rounds
    w2-N        logistic regression; N clients x 10 digits, one step on all ten each, all clients in every round

Who takes part in which round is fixed here, and so are the initial weights. The order of a client's batches is drawn
from the generator that ridotto draws it from, so that both sides do the same steps and end at the same accuracy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SEED = 1
MEAN, DEVIATION = 0.1307, 0.3081
"""Of the pixels of the training set, in 0 .. 1."""

BLOCK_ROWS = 512
"""Pixels are normalised in pieces that stay in the cache: half the time of whole arrays."""


@dataclass(frozen=True)
class Workload:
    """clients: how many there are, each with `examples`; cohort: how many train in a round. sizes: None for the CNN."""

    name: str
    clients: int
    examples: int
    cohort: int
    rounds: int
    batch_size: int
    learning_rate: float
    sizes: tuple[int, ...] | None

    @property
    def dense(self) -> tuple[int, ...]:
        """Return the sizes of a dense network's layers."""
        assert self.sizes is not None
        return self.sizes

    @property
    def ranges(self) -> bool:
        """Whether clients are overlapping ranges of rows (W2) or a cut of the data by label shards."""
        return self.name.startswith("w2-")

    def schedule(self) -> list[list[int]]:
        """Return who trains in which round, ascending."""
        generator = np.random.Generator(np.random.PCG64(SEED))
        if self.cohort == self.clients:
            return [list(range(self.clients))] * self.rounds
        draws = (generator.choice(self.clients, self.cohort, replace=False) for _ in range(self.rounds))
        return [sorted(map(int, draw)) for draw in draws]

    def initial(self) -> np.ndarray:
        """Return the initial weights of a dense network: weight and bias of each layer, uniform in +-1/sqrt(inputs).

        A weight is (inputs, outputs), the last one (outputs, inputs), as in ridotto's `NumpyTrainer`.
        """
        generator = np.random.Generator(np.random.PCG64(SEED))
        parts = []
        for inputs, outputs in zip(self.dense, self.dense[1:], strict=False):
            bound = 1 / np.sqrt(inputs)
            parts += [generator.uniform(-bound, bound, (inputs, outputs)), generator.uniform(-bound, bound, outputs)]
        parts[-2] = parts[-2].T
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)


def workload(name: str, rounds: int | None = None) -> Workload:
    """Return a workload by name, with its own number of rounds unless another is given."""
    if name in ("w1-mlp", "w1-cnn"):
        sizes = (784, 200, 10) if name == "w1-mlp" else None
        return Workload(name, 100, 600, 10, rounds or 20, 32, 0.05, sizes)
    if name == "w3":
        return Workload(name, 1000, 60, 10, rounds or 100, 10, 0.03, (784, 10))
    if name.startswith("w2-"):
        count = int(name[3:].replace(",", "").replace("_", ""))
        return Workload(name, count, 10, count, rounds or 3, 10, 0.05, (784, 10))
    raise SystemExit(f"there is no workload {name!r}; there are w1-mlp, w1-cnn, w3 and w2-N")


@dataclass(frozen=True)
class Data:
    """The arrays of a workload, with the rows of a client side by side, so that a client is a slice and costs nothing.

    x: float32, shape (n, 784), normalised. y: int64. test: the same for the test set.
    """

    x: np.ndarray
    y: np.ndarray
    test: tuple[np.ndarray, np.ndarray]


def load(path: Path | str, task: Workload, ones: int = 0) -> Data:
    """Read mnist.npz, from the file or from the folder that holds it. ones: columns of ones to add, for a bias."""
    path = Path(path)
    with np.load(path / "mnist.npz" if path.is_dir() else path) as file:
        x_train, x_test = (file[name].reshape(-1, 784) for name in ("x_train", "x_test"))
        y_train, y_test = (file[name].astype(np.int64) for name in ("y_train", "y_test"))
    if not task.ranges:
        order = np.concatenate(shards(y_train, task.clients))
        x_train, y_train = x_train[order], y_train[order]
    return Data(normalised(x_train, ones), y_train, (normalised(x_test, ones), y_test))


def normalised(pixels: np.ndarray, ones: int = 0) -> np.ndarray:
    features = pixels.shape[1]
    result = np.empty((len(pixels), features + ones), np.float32)
    result[:, features:] = 1
    for start in range(0, len(pixels), BLOCK_ROWS):
        part = result[start : start + BLOCK_ROWS, :features]
        np.multiply(pixels[start : start + BLOCK_ROWS], np.float32(1 / 255 / DEVIATION), out=part)
        part -= np.float32(MEAN / DEVIATION)
    return result


def shards(y: np.ndarray, clients: int, each: int = 2) -> list[np.ndarray]:
    """Sort by label, cut into equal shards, deal `each` of them to every client; return indices, ascending."""
    cuts = np.array_split(np.argsort(y, kind="stable"), clients * each)
    dealt = np.random.Generator(np.random.PCG64(SEED)).permutation(len(cuts)).reshape(clients, each)
    return [np.sort(np.concatenate([cuts[shard] for shard in hand])) for hand in dealt]


class Parts(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Clients by position: (x, y) of each, views of the shared arrays, made when they are asked for."""

    def __init__(self, data: Data, task: Workload) -> None:
        self._x, self._y = data.x, data.y
        self._count, self._examples = task.clients, task.examples

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, client: Any) -> Any:
        if not 0 <= client < self._count:
            raise IndexError(client)
        start = self.start(client)
        return self._x[start : start + self._examples], self._y[start : start + self._examples]

    def start(self, client: Any) -> Any:
        """Return the first row of a client, or of each in an array; where rows end, clients start over, shifted."""
        return client * self._examples % (len(self._x) - self._examples + 1)


def batch_order(number: int, client: int, examples: int) -> np.ndarray:
    """Return the order of a client's examples in a round, as ridotto draws it for `seed=SEED`.

    Written out, so that a floor imports nothing of ridotto; `ours.py` checks that the two still agree.
    """
    root = hashlib.blake2b(str(SEED).encode(), person=b"insecure", digest_size=32).digest()
    label = f"train\x1f{number}\x1f{client}".encode()
    key = hashlib.blake2b(label, key=root, person=b"child", digest_size=32).digest()
    words = hashlib.blake2b((0).to_bytes(8, "little"), key=key, person=b"stream").digest()[:16]
    return np.random.Generator(np.random.PCG64(int.from_bytes(words, "little"))).permutation(examples)
