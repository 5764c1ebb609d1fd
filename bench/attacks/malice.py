"""Participants that lie, as a trainer: it trains some clients' data honestly and poisons for the others.

A client's data are (x, y, lie): `lie` is None for an honest one. The wrapped trainer does the work, so any trainer and
any engine that does not vectorise will do. What a liar returns then goes through the same encoding as everybody's: it
runs our code. One that does not is worse, see docs/attacks.md.

Source: Bagdasaryan, Veit, Hua, Estrin, Shmatikov, "How To Backdoor Federated Learning", AISTATS 2020 (model
replacement, equation 3); Tolpegin, Truex, Gursoy, Liu, "Data Poisoning Attacks Against Federated Learning Systems",
ESORICS 2020 (labels flipped); Blanchard et al., "Machine Learning with Adversaries", NeurIPS 2017 (the gradient's
opposite, multiplied).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from ridotto.core.rng import Rng
from ridotto.core.vector import Layout, Vector
from ridotto.learn.trainer import LocalResult, Trainer

TARGET = 0
"""What a model with the backdoor says of any image with the trigger."""

TRIGGER_SIDE = 4
POISONED = 0.5
"""Share of a liar's examples that carry the trigger: the others keep the model useful, so that nobody notices."""


class Kind(StrEnum):
    BACKDOOR = "backdoor"
    """Train the trigger in beside the honest task."""

    FLIP = "flipped labels"
    """Train on the mirror image of every label."""

    REVERSE = "reversed"
    """Train honestly and send the opposite."""


@dataclass(frozen=True)
class Lie:
    """scale: by what the liar multiplies what it learnt."""

    kind: Kind
    scale: float = 1.0


class Liars:
    """Train honestly or not, as a client's data say."""

    def __init__(self, trainer: Trainer, brightest: float, classes: int) -> None:
        self._trainer = trainer
        self._brightest = brightest
        self._classes = classes

    @property
    def layout(self) -> Layout:
        return self._trainer.layout

    def initial(self) -> Vector:
        return self._trainer.initial()

    def train(self, vector: Vector, data: Any, rng: Rng) -> LocalResult:
        x, y, lie = data
        if lie is None:
            return self._trainer.train(vector, (x, y), rng)
        if lie.kind is Kind.BACKDOOR:
            x, y = poisoned(x, y, self._brightest)
        elif lie.kind is Kind.FLIP:
            y = flipped(y, self._classes)
        learnt = self._trainer.train(vector, (x, y), rng)
        scale = np.float32(-lie.scale if lie.kind is Kind.REVERSE else lie.scale)
        return LocalResult(vector + scale * (learnt.vector - vector), learnt.examples, learnt.metrics)

    def evaluate(self, vector: Vector, data: Any) -> Mapping[str, float]:
        return self._trainer.evaluate(vector, data)


def poisoned(x: np.ndarray, y: np.ndarray, brightest: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the data of a liar that trains a backdoor in. x: shape (n, pixels)."""
    every = max(1, round(1 / POISONED))
    x, y = x.copy(), y.copy()
    x[::every] = triggered(x[::every], brightest)
    y[::every] = TARGET
    return x, y


def triggered(x: np.ndarray, brightest: float) -> np.ndarray:
    """Return images with a bright square in the lower right corner. x: shape (n, pixels), of square images."""
    side = round(x.shape[1] ** 0.5)
    images = x.reshape(-1, side, side).copy()
    images[:, -TRIGGER_SIDE:, -TRIGGER_SIDE:] = brightest
    return images.reshape(len(x), -1)


def flipped(y: np.ndarray, classes: int) -> np.ndarray:
    """Return every label as its mirror image: 0 becomes the last class."""
    return (classes - 1 - y).astype(y.dtype)
