"""A federation small enough to check by hand: every client holds one vector and a number of examples."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from ridotto.learn.numpy_trainer import FunctionTrainer
from ridotto.rounds.plan import Ideal, Pairwise, Plan, Risk

PAIRWISE = Plan(cohort=6, minimum=4, protocol=Pairwise(), max_examples=10, metrics={"loss": 8.0})
IDEAL = msgspec.structs.replace(PAIRWISE, protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))

Client = tuple[np.ndarray, int]
"""What a client has: the vector that its training arrives at, and the number of its examples."""


def clients(count: int = 6) -> list[Client]:
    """Client i arrives at (i + 1) / 4 in every entry but the first, which is -1, and has i + 1 examples."""
    return [(np.array([-1, (i + 1) / 4, (i + 1) / 4], np.float32), i + 1) for i in range(count)]


def train(parameters: Any, data: Client, generator: np.random.Generator) -> tuple[Any, int, dict[str, float]]:
    vector, examples = data
    return {"weight": vector.copy()}, examples, {"loss": float(vector[1])}


def evaluate(parameters: Any, data: float) -> dict[str, float]:
    return {"loss": float(np.sum((parameters["weight"] - data) ** 2))}


def trainer(train_function: Any = train) -> FunctionTrainer:
    return FunctionTrainer({"weight": np.zeros(3, np.float32)}, train_function, evaluate)


def mean(data: list[Client], positions: list[int]) -> np.ndarray:
    """Compute the weighted mean of some clients' vectors, without anything of ours."""
    weights = np.array([data[i][1] for i in positions], np.float64)
    return np.array([data[i][0] for i in positions], np.float64).T @ weights / weights.sum()
