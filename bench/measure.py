"""What a line of the table is, and how its two times are taken.

Times are CPU seconds of this process (`time.process_time`), so that a neighbour on the machine disturbs them little;
wall time stands beside them. Ours and the floor are measured in turn, so that both see the same clock frequency and
the same caches, and the median of each is reported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

Kind = Literal["ratio", "at most", "at least"]


@dataclass(frozen=True)
class Bar:
    """A promise: ours / floor at most, or ours itself at most or at least, `value`."""

    kind: Kind
    value: float


@dataclass(frozen=True)
class Line:
    """One line of the table.

    ours, floor: medians in `unit`; floor is None where there is nothing to compare with. wall: ours by the clock on
    the wall, seconds. bar: None where a number is shown for information. notes: printed under the line.
    """

    what: str
    ours: float
    unit: str
    floor: float | None = None
    bar: Bar | None = None
    wall: float | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def ratio(self) -> float | None:
        return self.ours / self.floor if self.floor else None

    @property
    def holds(self) -> bool | None:
        if self.bar is None:
            return None
        found = self.ratio if self.bar.kind == "ratio" else self.ours
        assert found is not None
        return found >= self.bar.value if self.bar.kind == "at least" else found <= self.bar.value


@dataclass(frozen=True)
class Times:
    """Medians over several repetitions, in seconds."""

    ours: float
    floor: float
    wall: float


Lines = Iterator[Line]
Task = Callable[[], Any]


def timed(task: Task, times: int = 1) -> tuple[float, float]:
    """Return CPU and wall seconds of one call, over `times` calls in a row."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(times):
        task()
    return (time.process_time() - cpu) / times, (time.perf_counter() - wall) / times


def in_turn(ours: Task, floor: Task, repeats: int, times: int = 1) -> Times:
    """Measure both in turn, `repeats` times, after one of each that does not count."""
    ours(), floor()
    pairs = [(timed(ours, times), timed(floor, times)) for _ in range(repeats)]
    return Times(
        ours=median(mine for (mine, _), _ in pairs),
        floor=median(base for _, (base, _) in pairs),
        wall=median(wall for (_, wall), _ in pairs),
    )
