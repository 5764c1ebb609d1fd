"""Sums of ciphertexts in a vault: what `oneshot` asks for in place of sums of masked vectors."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.parameters import PRIMES
from ridotto.crypto.seal import SEAL_OVERHEAD_BYTES
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Oneshot, Plan
from ridotto.rounds.protocol_settings import LARGEST_SHARD
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.ciphersum import SessionSum
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers

SUM_DTYPE = np.dtype(np.uint64)
"""Of running sums: residues mod both primes, one prime after the other; and of opened ones."""

PREFIX_BYTES = 5
"""What MessagePack puts before a parcel at most."""


def sum_dtype(plan: Plan) -> np.dtype[np.unsignedinteger[Any]]:
    """Return what running sums of a plan are made of."""
    return SUM_DTYPE if isinstance(plan.protocol, Oneshot) else container(plan.bits)


def shape_of(pipeline: Pipeline) -> Shape:
    """Return how a plan's vectors lie in ring elements; no session is so large that it would change."""
    return Shape(pipeline.length, pipeline.plan.bits, pipeline.lanes.size, LARGEST_SHARD)


def parcels_bytes(plan: Plan) -> int:
    """Return how long the list of sealed shares in a contribution can be; 0 for protocols without."""
    if not isinstance(plan.protocol, Oneshot):
        return 0
    sharing = plan.protocol.sharing(plan.largest_session)
    return sharing.members * (sharing.share_bytes + SEAL_OVERHEAD_BYTES + PREFIX_BYTES)


class Kept(Protocol):
    """Keep ciphertexts until their session's set is final: of a driver with many participants, on disk."""

    def keep(self, sid: bytes, sender: str, ciphertext: Buffer) -> None:
        """Keep a ciphertext of a session."""

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return a ciphertext, None if there is none."""

    def forget(self, sid: bytes) -> None:
        """Forget all of a session."""

    def clear(self) -> None:
        """Forget everything."""


class KeptInMemory:
    """Keep ciphertexts in memory."""

    def __init__(self) -> None:
        self._sessions: dict[bytes, dict[str, Buffer]] = {}

    def keep(self, sid: bytes, sender: str, ciphertext: Buffer) -> None:
        """Keep a ciphertext of a session."""
        self._sessions.setdefault(sid, {})[sender] = ciphertext

    def kept(self, sid: bytes, sender: str) -> Buffer | None:
        """Return a ciphertext, None if there is none."""
        return self._sessions.get(sid, {}).get(sender)

    def forget(self, sid: bytes) -> None:
        """Forget all of a session."""
        self._sessions.pop(sid, None)

    def clear(self) -> None:
        """Forget everything."""
        self._sessions.clear()


@dataclass(frozen=True)
class _OfSession:
    """Keep the ciphertexts of one session."""

    all: Kept
    sid: bytes

    def keep(self, sender: str, ciphertext: Buffer) -> None:
        self.all.keep(self.sid, sender, ciphertext)

    def kept(self, sender: str) -> Buffer | None:
        return self.all.kept(self.sid, sender)

    def forget(self) -> None:
        self.all.forget(self.sid)


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
