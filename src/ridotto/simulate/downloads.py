"""Who holds which model in a simulation, and what a client's download of the newest one takes.

Without `download_bits` in the plan, everybody fetches the whole model in every round. With it, clients keep the last
model that they had: who has the newest one fetches nothing, who is a few rounds behind the deltas of those rounds, and
everybody else the whole model, as over a network.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.learn.compress.delta import delta_size
from ridotto.rounds.vault import Vault
from ridotto.simulate.outcome import require_rounds

NOTHING = -1
"""The version of who has no model yet."""


class _Memory(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Keep which client holds which version, of those that a delta leads on from. Arrays are int64, little-endian."""

    version: int
    positions: bytes
    held: bytes


class Downloads:
    """Count downloads. vault: has the model. population: clients in all."""

    def __init__(self, vault: Vault, population: int) -> None:
        self._vault = vault
        self._bits = vault.plan.download_bits
        self._version = 0
        self._digest = vault.model_digest
        self._held = np.full(0 if self._bits is None else population, NOTHING, np.int64)

    def sizes(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the bytes that each of these clients would fetch now, int64, shape (n,)."""
        self._look()
        whole = len(self._vault.model_bytes)
        if self._bits is None:
            return np.full(len(positions), whole, np.int64)
        held = self._held[positions]
        behind = self._version - held
        near = (held != NOTHING) & (behind <= self._vault.most_deltas)
        return np.where(near, behind * delta_size(self._vault.layout.length, self._bits), whole)

    def fetch(self, positions: NDArray[np.int64]) -> int:
        """Let these clients fetch the newest model; return the bytes of all of them together."""
        total = int(self.sizes(positions).sum())
        if self._bits is not None:
            self._held[positions] = self._version
        return total

    @property
    def memory(self) -> bytes:
        """Return what a checkpoint must hold beside the model."""
        if self._bits is None:
            return b""
        self._look()
        recent = self._version - self._held <= self._vault.most_deltas
        positions = np.flatnonzero(recent & (self._held != NOTHING))
        of_each = self._held[positions]
        return msgspec.msgpack.encode(
            _Memory(self._version, positions.astype("<i8").tobytes(), of_each.astype("<i8").tobytes())
        )

    def recall(self, memory: bytes) -> None:
        """Go on from a checkpoint. Raises ConfigError for one of an asynchronous simulation."""
        if self._bits is None:
            require_rounds(memory)
            return
        found = msgspec.msgpack.decode(memory, type=_Memory)
        self._version, self._digest = found.version, self._vault.model_digest
        self._held[:] = NOTHING
        self._held[np.frombuffer(found.positions, "<i8")] = np.frombuffer(found.held, "<i8")

    def _look(self) -> None:
        """Take note of a new model."""
        if self._vault.model_digest != self._digest:
            self._version, self._digest = self._version + 1, self._vault.model_digest
