"""Sums of ciphertexts in a vault: what `oneshot` asks for in place of sums of masked vectors."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.parameters import PRIMES
from ridotto.rounds.kept import Kept, OfSession
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Oneshot, Plan
from ridotto.rounds.protocol_settings import LARGEST_SHARD
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers

SUM_DTYPE = np.dtype(np.uint64)
"""Of running sums: residues mod both primes, one prime after the other; and of opened ones."""


def sum_dtype(plan: Plan) -> np.dtype[np.unsignedinteger[Any]]:
    """Return what running sums of a plan are made of."""
    return SUM_DTYPE if isinstance(plan.protocol, Oneshot) else container(plan.bits)


def shape_of(pipeline: Pipeline) -> Shape:
    """Return how a plan's vectors lie in ring elements; no session is so large that it would change."""
    return Shape(pipeline.length, pipeline.plan.bits, pipeline.lanes.size, LARGEST_SHARD)


class CipherSums:
    """Hold the sums of a round's sessions. sums: running ones, see `vault.Sums`; opened ones take their places."""

    def __init__(self, pipeline: Pipeline, sums: MutableMapping[bytes, IntVector], kept: Kept) -> None:
        self._pipeline = pipeline
        self._shape = shape_of(pipeline)
        self._sums = sums
        self._kept = kept

    def fold(self, sid: bytes, sender: str, ciphertext: Buffer) -> None:
        """Add a ciphertext, and keep it until the set is final."""
        part = self._session(sid)
        part.fold(sender, ciphertext)
        self._store(sid, part)

    def settle(self, task: Settle) -> None:
        """Take out what is not in the final set, and forget all ciphertexts of the session.

        Raises LocalProtocolError if one was not kept.
        """
        part = self._session(task.sid)
        part.settle(task)
        if task.removed:
            self._store(task.sid, part)

    def open(self, task: OpenCiphers) -> Decrypted:
        """Open the sum; its lanes are the answer. Raises DataError if the key has another size."""
        part = self._session(task.sid)
        answer = part.open(task)
        if part.opened is not None:
            self._sums[task.sid] = part.opened.astype(SUM_DTYPE)
        return answer

    def opened(self, sid: bytes) -> IntVector:
        """Return an opened sum, dtype `container(bits)`, shape (length,)."""
        return self._sums[sid].astype(container(self._pipeline.plan.bits))

    def _session(self, sid: bytes) -> SessionSum:
        total = self._sums.get(sid)
        residues = None if total is None else total.reshape(len(PRIMES), self._shape.coefficients)
        return SessionSum(self._shape, self._read_lanes, residues, OfSession(self._kept, sid))

    def _store(self, sid: bytes, part: SessionSum) -> None:
        self._sums[sid] = part.total.reshape(-1)

    def _read_lanes(self, total: IntVector) -> tuple[int, bool]:
        lanes = self._pipeline.read_lanes(total)
        return lanes.count, lanes.zero
