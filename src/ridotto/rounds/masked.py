"""Sums of masked vectors in a vault that a committee opens: what `committee` asks for."""

from __future__ import annotations

from collections.abc import MutableMapping

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import Buffer
from ridotto.rounds.kept import Kept, OfSession
from ridotto.rounds.pipeline import Pipeline
from ridotto.secagg.committee.masks import MaskedSum
from ridotto.secagg.committee.tasks import Keep, Unmask
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.tasks import Opened


class MaskedSums:
    """Hold the sums of a round's sessions. sums: running ones, see `vault.Sums`; opened ones take their places."""

    def __init__(self, pipeline: Pipeline, sums: MutableMapping[bytes, IntVector], kept: Kept) -> None:
        self._pipeline = pipeline
        self._sums = sums
        self._kept = kept

    def fold(self, sid: bytes, sender: str, vector: Buffer) -> None:
        """Add a masked vector, and keep it until the set is final."""
        part = self._session(sid)
        part.fold(sender, vector)
        self._sums[sid] = part.total

    def settle(self, task: Settle) -> None:
        """Take out what is not in the final set, and forget all vectors of the session.

        Raises LocalProtocolError if one was not kept.
        """
        part = self._session(task.sid)
        part.settle(task)
        if task.removed:
            self._sums[task.sid] = part.total

    def keep(self, task: Keep, masks: Buffer) -> None:
        """Keep what a slot released."""
        self._session(task.sid).keep(task, masks)

    def open(self, task: Unmask) -> Opened:
        """Take the masks off; the lanes of the sum are the answer. Raises LocalProtocolError if some were not kept."""
        part = self._session(task.sid)
        answer = part.unmask(task)
        self._sums[task.sid] = part.total
        return answer

    def opened(self, sid: bytes) -> IntVector:
        """Return an opened sum, dtype `container(bits)`, shape (length,)."""
        return self._sums[sid]

    def _session(self, sid: bytes) -> MaskedSum:
        pipeline = self._pipeline
        return MaskedSum(
            pipeline.length, pipeline.plan.bits, self._read_lanes, self._sums.get(sid), OfSession(self._kept, sid)
        )

    def _read_lanes(self, total: IntVector) -> tuple[int, bool]:
        lanes = self._pipeline.read_lanes(total)
        return lanes.count, lanes.zero
