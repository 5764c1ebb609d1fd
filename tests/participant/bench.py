"""What the tests of the driver share: one participant on a bench with a fake coordinator."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ridotto.core.vector import Layout, Vector
from ridotto.learn.trainer import LocalResult
from ridotto.participant.client import Client
from ridotto.participant.events import Summary
from ridotto.participant.join import run
from ridotto.participant.loop import Participation
from ridotto.participant.state import StateFile
from ridotto.rounds.policy import Policy
from tests.participant.fake import LAYOUT, ME, POLICY, URL, FakeCoordinator, key


class SameRng:
    """Give the same seed for every attempt, so that two runs can be compared bit for bit."""

    def bytes(self, length: int) -> bytes:
        return b"s" * length


@dataclass
class Bench:
    """Everything that one participant under test needs."""

    folder: Path
    fake: FakeCoordinator = field(default_factory=FakeCoordinator)
    layout: Layout = LAYOUT
    policy: Policy = POLICY
    name: str = ME

    def client(self, **options: Any) -> Client:
        settings = {"clock": self.fake.clock.clock(), "transport": self.fake.transport()} | options
        return Client(URL, key(ME), **settings)

    def state(self) -> StateFile:
        return StateFile(self.folder, URL, self.name, key(ME).public)

    def participation(self, client: Client, state: StateFile, **options: Any) -> Participation:
        settings = {"rng": SameRng(), "clock": self.fake.clock.clock()} | options
        return Participation(client, self.name, key(ME), self.policy, state, self.layout, **settings)


def expected_model(layout: Layout, rounds: int, mine: float, steps: tuple[float, ...] = (1.0, 2.0, 3.0)) -> Vector:
    """Compute what FedAvg of equal weights gives when everyone moves every entry by a fixed step, from zero."""
    mean = (mine + sum(steps)) / (1 + len(steps))
    return np.full(layout.length, rounds * mean, np.float32)


class StepTrainer:
    """Move every entry by `step`, on 10 examples."""

    def __init__(self, step: float = 4.0, layout: Layout = LAYOUT) -> None:
        self.step, self._layout, self.calls = step, layout, 0

    @property
    def layout(self):
        return self._layout

    def initial(self):
        return np.zeros(self._layout.length, np.float32)

    def train(self, vector, data, rng):
        self.calls += 1
        return LocalResult(vector + np.float32(self.step), 10, {"loss": 0.5})

    def evaluate(self, vector, data):
        return {}


def take_part(bench: Bench, trainer: StepTrainer | None = None, **options) -> Summary:
    with bench.client(**options.pop("client", {})) as client, bench.state() as state:
        participation = bench.participation(client, state, **options)
        participation.start()
        return run(participation, trainer or StepTrainer(), None)
