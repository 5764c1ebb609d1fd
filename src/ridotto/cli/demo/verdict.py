"""What the demo's model is compared with, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridotto.core.rng import insecure_seeded_rng
from ridotto.tasks import Task, digits

MARGIN = 0.02
"""The federated accuracy may lie this far below the one of pooled data."""


@dataclass(frozen=True)
class Verdict:
    """Hold three accuracies on the same held-out digits, as fractions.

    pooled: of the same network trained on everybody's data, those of the killed included, for as many epochs. alone:
    the mean over participants that each train on their own data only, for as many epochs.
    """

    federated: float
    pooled: float
    alone: float

    @property
    def good(self) -> bool:
        """Return whether the federated model is at most `MARGIN` below the pooled one."""
        return self.federated >= self.pooled - MARGIN - 1e-9


def compare(federated: float, task: Task, seed: int, epochs: int) -> Verdict:
    """Train what the federated model is compared with.

    seed: of the task. epochs: passes over its data that a participant made.
    """
    trainer = digits(clients=len(task.clients), seed=seed, epochs=epochs).trainer

    def accuracy(data: object) -> float:
        result = trainer.train(trainer.initial(), data, insecure_seeded_rng(seed))
        return trainer.evaluate(result.vector, task.test)["accuracy"]

    pooled = tuple(np.concatenate(parts) for parts in zip(*task.clients, strict=True))
    return Verdict(federated, accuracy(pooled), float(np.mean([accuracy(data) for data in task.clients])))
