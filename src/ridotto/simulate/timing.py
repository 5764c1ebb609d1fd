"""When things happen in virtual time: who is there, how long each takes, and when a round closes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import SecretRng, numpy_generator
from ridotto.errors import ConfigError
from ridotto.rounds.plan import Plan
from ridotto.simulate.clients import Clients, draw
from ridotto.simulate.costs import ROUND_TRIPS
from ridotto.simulate.devices import Fleet, times
from ridotto.simulate.pace import RETRY_S, Buffered, Closing, OverSelected, Synchronous, close, goal

LONGEST_WAIT_S = 7 * 86400.0
"""How long a round waits for enough clients to be there before the simulation gives up."""


@dataclass(frozen=True)
class Timing:
    """Give clients devices and rounds a pace. rng: all randomness of the simulation."""

    fleet: Fleet
    pace: Synchronous | OverSelected | Buffered
    plan: Plan
    clients: Clients
    rng: SecretRng

    def gather(self, number: int, now_s: float) -> tuple[NDArray[np.int64], float]:
        """Return who is asked in a round, drawn among the clients that are there, and when there were enough.

        Raises ConfigError if for a week of virtual time there are never enough.
        """
        everybody = np.arange(len(self.clients), dtype=np.int64)
        waited = 0.0
        while waited <= LONGEST_WAIT_S:
            there = np.flatnonzero(self.fleet.available(everybody, now_s + waited, self.rng))
            count = self.plan.cohort_of(len(there))
            if count:
                generator = numpy_generator(self.rng.child("cohort", number))
                return there[draw(len(there), count, generator)], now_s + waited
            waited += RETRY_S
        raise ConfigError(
            f"round {number}: for a week of virtual time there were never {self.plan.least} clients there at once; "
            "take more clients, or a fleet that is there more often"
        )

    def close(
        self, number: int, positions: NDArray[np.int64], bytes_down: float | NDArray[np.float64], bytes_up: float
    ) -> Closing:
        """Decide when a round closes and who has reported by then. bytes_down, bytes_up: of each member."""
        if isinstance(self.pace, Buffered):
            raise ConfigError("a buffer has no rounds that close")
        finish_s = self.durations(positions, bytes_down, bytes_up)
        left = self.fleet.leaves(positions, number, self.rng)
        wanted = min(goal(self.pace, self.plan), len(positions))
        return close(self.pace, finish_s, left, goal=wanted, minimum=self.plan.least, timeout_s=self.plan.train_s)

    def durations(
        self, positions: NDArray[np.int64], bytes_down: float | NDArray[np.float64], bytes_up: float
    ) -> NDArray[np.float64]:
        """Return how many virtual seconds each client takes to receive the model, train and report, shape (n,)."""
        devices = self.fleet.of(positions, self.rng)
        examples = self.clients.sizes[positions]
        trips = ROUND_TRIPS[self.plan.protocol_name]
        return times(devices, examples, 1.0, bytes_down, bytes_up, trips)
