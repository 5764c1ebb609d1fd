"""Add up packed vectors and open the sum, as a coordinator's driver does for `ideal` and `pairwise`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.core.sparse_packing import unpack_either
from ridotto.core.wire import Message
from ridotto.crypto.prg import Mask, add_masks
from ridotto.secagg.lanes import Lanes
from ridotto.secagg.session import Session
from ridotto.secagg.tasks import Fold, Open, Opened


class OpenedSum:
    """Hold the running sum of one session. masks: what was taken off it, once it is open."""

    def __init__(self, session: Session, lanes: Lanes) -> None:
        self.masks: tuple[Mask, ...] = ()
        self.total = np.zeros(session.length, container(session.bits))
        self._session = session
        self._lanes = lanes

    def perform(self, owner: str, task: Any, attachment: Buffer | None) -> Message | None:
        """Carry out a task of the coordinator's machine."""
        match task:
            case Fold():
                self.total += unpack_either(attachment or b"", self._session.bits, self._session.length)
            case Open():
                self.masks = task.masks
                add_masks(self.total, task.masks, task.sid)
                self.total = reduced(self.total, self._session.bits)
                read = self._lanes.read(self.total[-self._lanes.size :])
                return Opened(task.sid, read.count, read.zero)
        return None


def reduced(vector: IntVector, bits: int) -> IntVector:
    """Return a vector mod 2^bits."""
    return vector & vector.dtype.type((1 << bits) - 1)
