"""Sums of ciphertexts in a vault: what `oneshot` asks for in place of sums of masked vectors."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.parameters import PRIMES
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.protocol_settings import LARGEST_SHARD
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers

Kept = MutableMapping[tuple[bytes, str], Buffer]
"""Ciphertexts by (sid, sender) until their session's set is final. A driver with many participants hands in a mapping
that writes to disk."""

SUM_DTYPE = np.dtype(np.uint64)
"""Of running sums: residues mod both primes, one prime after the other; and of opened ones."""


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
        return SessionSum(self._shape, self._read_lanes, residues, _OfSession(self._kept, sid))

    def _store(self, sid: bytes, part: SessionSum) -> None:
        self._sums[sid] = part.total.reshape(-1)

    def _read_lanes(self, total: IntVector) -> tuple[int, bool]:
        lanes = self._pipeline.read_lanes(total)
        return lanes.count, lanes.zero


class _OfSession(MutableMapping[str, Buffer]):
    """Show the kept ciphertexts of one session."""

    def __init__(self, kept: Kept, sid: bytes) -> None:
        self._kept = kept
        self._sid = sid

    def __getitem__(self, sender: str) -> Buffer:
        return self._kept[self._sid, sender]

    def __setitem__(self, sender: str, ciphertext: Buffer) -> None:
        self._kept[self._sid, sender] = ciphertext

    def __delitem__(self, sender: str) -> None:
        del self._kept[self._sid, sender]

    def __iter__(self) -> Iterator[str]:
        return iter([sender for sid, sender in self._kept if sid == self._sid])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, sender: object) -> bool:
        return (self._sid, sender) in self._kept
