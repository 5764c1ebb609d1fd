"""Play rounds of PET in one process: a coordinator's machine, participants of ours, and time as a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ridotto.core.machine import Effect, Publish
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import SigningKey
from ridotto.secagg.xaynet.client import XaynetParticipant
from ridotto.secagg.xaynet.machine import XaynetCoordinator
from ridotto.secagg.xaynet.settings import PhaseLimits, XaynetSettings
from ridotto.secagg.xaynet.sortition import Role


def make_settings(summers: int = 1, updaters: int = 3, **changes: Any) -> XaynetSettings:
    """Phases that end as soon as so many have answered, and give up after 10 seconds."""
    defaults: dict[str, Any] = {
        "length": 4,
        "sum_chance": 0.4,
        "update_chance": 1.0,
        "sum": PhaseLimits(least=summers, most=summers, min_s=0, max_s=10),
        "update": PhaseLimits(least=min(updaters, 3), most=updaters, min_s=5, max_s=10),
        "sum2": PhaseLimits(least=1, most=summers, min_s=5, max_s=10),
    }
    return XaynetSettings(**(defaults | changes))


@dataclass
class World:
    """A coordinator, and as many summers and updaters as it waits for, found by trying keys."""

    settings: XaynetSettings
    seed: int = 1
    most_bytes: int = 0
    now: float = 0.0
    effects: list[Effect] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = insecure_seeded_rng(self.seed)
        self.machine = XaynetCoordinator(self.settings, self.rng.child("coordinator"), rounds=3)
        self.effects += self.machine.start(self.now)
        self.cast()

    def cast(self) -> None:
        """Choose who plays what in the round that has begun."""
        self.summers: list[XaynetParticipant] = []
        self.updaters: list[XaynetParticipant] = []
        number = 0
        while len(self.summers) < self.settings.sum.most or len(self.updaters) < self.settings.update.most:
            rng = self.rng.child("participant", number)
            number += 1
            one = XaynetParticipant(SigningKey.generate(rng), rng, most_bytes=self.most_bytes)
            role = one.begin(self.machine.parameters)
            if role is Role.SUM and len(self.summers) < self.settings.sum.most:
                self.summers.append(one)
            if role is Role.UPDATE and len(self.updaters) < self.settings.update.most:
                self.updaters.append(one)

    def send(self, boxes: Sequence[bytes]) -> None:
        for box in boxes:
            self.effects += self.machine.receive(box, self.now)

    def sum(self) -> None:
        for one in self.summers:
            self.send(one.sum_boxes())

    def update(self, models: Sequence[Sequence[float]], scalars: Sequence[Fraction | float] | None = None) -> None:
        sums = self.machine.sums
        assert sums is not None
        for one, model, scalar in zip(self.updaters, models, scalars or [1] * len(models), strict=True):
            self.send(one.update_boxes(sums, model, scalar))

    def sum2(self) -> None:
        boxes = []
        for one in self.summers:
            seeds = self.machine.seeds_for(one.public)
            assert seeds is not None
            boxes += one.sum2_boxes(seeds)
        self.send(boxes)

    def published(self, kind: type) -> list[Any]:
        return [
            effect.record for effect in self.effects if isinstance(effect, Publish) and isinstance(effect.record, kind)
        ]
