"""What is learned, under which split and with which settings. Every number that matters is in this file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import ridotto
from bench.simulation import workloads
from bench.simulation.reference import plays
from ridotto.core.rng import numpy_generator

SPLITS = {"cnn": ("iid", "dirichlet", "shards"), "lstm": ("iid", "role")}

CLIENTS, ALPHA, SHARDS = 100, 0.3, 2
"""Of the digits: clients, concentration of the Dirichlet split, shards a client."""

COHORT = 10

LOCAL: dict[str, dict[str, Any]] = {
    "cnn": {"epochs": 1, "batch_size": 32, "learning_rate": 0.05},
    "lstm": {"epochs": 1, "batch_size": 10, "learning_rate": 4.0},
}
"""Of the LSTM, a step of 16 diverges under the split by role, and 1 takes four times the rounds."""

SMALLER_STEPS = {("cnn", "scaffold"): 0.02}
"""Local steps of an algorithm that takes smaller ones: with 0.05, one of three seeds of SCAFFOLD on shards diverges."""

ROUNDS = {"cnn": 100, "lstm": 200}
TEST_EVERY = {"cnn": 2, "lstm": 5}

ADAPTED = {"cnn": {"learning_rate": 0.01}, "lstm": {"learning_rate": 0.02}}
"""The server's step in FedAdam, on which its result depends most."""

MU = {"cnn": 0.01, "lstm": 0.001}
"""The pull of FedProx; 0.001 is what Li et al. 2020 use for Shakespeare."""

ALGORITHMS = ("fedavg", "fedadam", "fedprox", "scaffold")


@dataclass(frozen=True)
class Task:
    trainer: Any
    clients: Any
    test: tuple[np.ndarray, np.ndarray]


def make_task(task: str, split: str, algorithm: str, seed: int, data: str) -> Task:
    """Return trainer, clients and test set; the seed decides the initial weights and the split."""
    local = LOCAL[task] | {"learning_rate": SMALLER_STEPS.get((task, algorithm), LOCAL[task]["learning_rate"])}
    rng = ridotto.insecure_seeded_rng(seed).child("split")
    if task == "cnn":
        from bench.simulation.models import cnn

        digits = workloads.load(data, workloads.workload("w2-1"))
        own = ridotto.TorchTrainer(cnn(seed), **local)
        return Task(own, ridotto.ClientData((digits.x, digits.y), cut(digits.y, split, rng)), digits.test)
    from bench.simulation.models import CharacterLstm
    from bench.simulation.reference.characters import CharacterTrainer

    text = plays.read(data)
    trainer = CharacterTrainer(CharacterLstm(text.characters, seed=seed), **local)
    x, y = text.x, text.y
    if split == "iid":  # the same sizes, so that only the contents differ
        order = numpy_generator(rng).permutation(len(x))
        x, y = x[order], y[order]
    return Task(trainer, ridotto.ClientData.split((x, y), text.sizes), text.test)


def cut(labels: np.ndarray, split: str, rng: Any) -> list[np.ndarray]:
    if split == "iid":
        return ridotto.partition.iid(len(labels), CLIENTS, rng)
    if split == "dirichlet":
        return ridotto.partition.dirichlet(labels, CLIENTS, ALPHA, rng, min_examples=10)
    return ridotto.partition.shards(labels, CLIENTS, SHARDS, rng)


def make_plan(task: str, algorithm: str) -> Any:
    """Return the plan: masked pairwise, whatever the algorithm sums."""
    choices: Mapping[str, dict[str, Any]] = {
        "fedavg": {},
        "fedadam": {"optimiser": ridotto.Optimiser(name="fedadam", parameters=ADAPTED[task])},
        "fedprox": {"algorithm": ridotto.Algorithm(name="fedprox", parameters={"mu": MU[task]})},
        # In SCAFFOLD's paper all clients count alike. Its control variates are gradients, larger than updates.
        "scaffold": {"algorithm": ridotto.Algorithm(name="scaffold"), "max_examples": 1, "value_range": 64.0},
    }
    return ridotto.Plan(cohort=COHORT, metrics={"loss": 100.0}, **choices[algorithm])
