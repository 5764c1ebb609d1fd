"""The sums of a modelled round: one of everybody, or one for each group that a robust rule looks at.

Who is in which group follows from the round's nonce, as in the real protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector
from ridotto.core.rng import SecretRng
from ridotto.core.vector import Vector
from ridotto.learn.robust.groups import group_of
from ridotto.rounds.vault import Vault
from ridotto.simulate.clients import Clients
from ridotto.simulate.job import Engine, round_job, round_nonce


@dataclass(frozen=True)
class Sums:
    """Hold what engines made of a round: as `Answer`, with a total for each session that a rule looks at.

    count: clients in the totals.
    """

    totals: Mapping[bytes, IntVector] = field(repr=False)
    dropped: Mapping[int, str]
    kept: Mapping[int, Vector] = field(repr=False)
    train_s: float
    sparse_bytes: int
    count: int


def name_of_sum(session: int) -> bytes:
    """Return what a session's sum is called where there are no sids."""
    return session.to_bytes(4, "big")


class RoundSums:
    """Have an engine train a round's clients and add their updates up. kept, drop: as in `DirectRounds`."""

    def __init__(
        self, vault: Vault, engine: Engine, clients: Clients, rng: SecretRng, kept: dict[int, Vector], drop: bool
    ) -> None:
        self._vault = vault
        self._engine = engine
        self._clients = clients
        self._rng = rng
        self._kept = kept
        self._drop = drop

    def sessions(self, number: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the session of every rank: int64, shape (members,)."""
        plan, members = self._vault.plan, len(positions)
        count = plan.sessions_of(members)
        if plan.robust is None or plan.individual:
            return np.arange(members) % count
        names = [self._clients.names[int(position)] for position in positions]
        group = group_of(names, round_nonce(self._rng, number), count)
        return np.array([group[name] for name in names], np.int64)

    def places(self, number: int, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return for every rank where it would stand if sessions were dealt in turn: int64, shape (members,)."""
        session = self.sessions(number, positions)
        count, places = self._vault.plan.sessions_of(len(positions)), np.empty(len(positions), np.int64)
        for own in range(count):
            ranks = np.flatnonzero(session == own)
            places[ranks] = own + count * np.arange(len(ranks))
        return places

    def of(self, number: int, positions: NDArray[np.int64], ranks: NDArray[np.int64]) -> Sums:
        """Train the clients with these ranks and add them up. positions: of everybody that was asked.

        Raises as `Engine.sum` says.
        """
        if self._vault.plan.robust is None:
            return self._one(number, positions, ranks, b"", copy=False)
        session = self.sessions(number, positions)
        parts = [
            self._one(number, positions, ranks[session[ranks] == own], name_of_sum(int(own)), copy=True)
            for own in np.unique(session[ranks])
        ]
        return Sums(
            totals={name: total for part in parts for name, total in part.totals.items()},
            dropped={position: why for part in parts for position, why in part.dropped.items()},
            kept={position: vector for part in parts for position, vector in part.kept.items()},
            train_s=sum(part.train_s for part in parts),
            sparse_bytes=sum(part.sparse_bytes for part in parts),
            count=sum(part.count for part in parts),
        )

    def _one(
        self, number: int, positions: NDArray[np.int64], ranks: NDArray[np.int64], name: bytes, *, copy: bool
    ) -> Sums:
        nonce = round_nonce(self._rng, number)
        job = round_job(self._vault, number, positions, ranks, self._kept, self._drop, nonce)
        answer = self._engine.sum(job)
        # The total is the engine's own memory, and its next job is written there.
        total = answer.total.copy() if copy else answer.total
        count = len(ranks) - len(answer.dropped)
        return Sums({name: total}, answer.dropped, answer.kept, answer.train_s, answer.sparse_bytes, count)
