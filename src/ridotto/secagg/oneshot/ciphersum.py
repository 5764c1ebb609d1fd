"""Carry out the coordinator's tasks on ciphertexts: what a driver needs for one session."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ridotto.core.fixedpoint import IntVector
from ridotto.core.machine import Buffer
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.kahe import CipherSum, NoiseError
from ridotto.crypto.lattice.loops import LOOPS, Loops
from ridotto.crypto.lattice.parameters import Words
from ridotto.crypto.lattice.samplers import public_elements
from ridotto.errors import DataError, LocalProtocolError
from ridotto.secagg.committee_roles.keeper import InMemory, Keeper
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.oneshot.tasks import Decrypted, OpenCiphers
from ridotto.secagg.tasks import COUNT_LIMIT

ReadLanes = Callable[[IntVector], tuple[int, bool]]
"""Read the count and whether all zero lanes are zero from an opened sum."""


class SessionSum:
    """Hold the running sum of one session.

    shape: of the session's vectors. total: residues, as `CipherSum.total`; None to begin. keeper: of a
    driver with many participants writes to disk. read_lanes: of the opened sum.
    """

    def __init__(
        self,
        shape: Shape,
        read_lanes: ReadLanes,
        total: Words | None = None,
        keeper: Keeper | None = None,
        loops: Loops = LOOPS,
    ) -> None:
        self._shape = shape
        self._read_lanes = read_lanes
        self._ciphers = CipherSum(shape, total, loops)
        self._keeper: Keeper = InMemory() if keeper is None else keeper
        self.opened: IntVector | None = None

    @property
    def total(self) -> Words:
        """Return the residues: what a driver that must survive a kill stores."""
        return self._ciphers.total

    def fold(self, sender: str, ciphertext: Buffer) -> None:
        """Add a ciphertext, and keep it until the set is final. Its size was checked by the session's machine."""
        self._keeper.keep(sender, ciphertext)
        self._ciphers.add(ciphertext)

    def settle(self, task: Settle) -> None:
        """Take out what is not in the final set, and forget all ciphertexts.

        Raises LocalProtocolError if one was not kept.
        """
        for sender, _ in task.removed:
            ciphertext = self._keeper.kept(sender)
            if ciphertext is None:
                raise LocalProtocolError(f"the ciphertext of {sender} was not kept until the set was final")
            self._ciphers.remove(ciphertext)
        self._keeper.forget()

    def open(self, task: OpenCiphers) -> Decrypted:
        """Open the sum; `opened` is the sum of the vectors then, if it is sound.

        Raises DataError if the key has another size, LocalProtocolError if the sum was opened before.
        """
        if self.opened is not None:
            raise LocalProtocolError("a sum is opened once")
        if len(task.key) != 4 * 4096:
            raise DataError(f"a key has {4 * 4096} bytes, not {len(task.key)}")
        key = np.frombuffer(task.key, "<i4").astype(np.int64)
        public = public_elements(task.context, self._shape.elements)
        vector, noise = self._ciphers.open(key, task.contributions, public)
        try:
            noise.check(task.contributions)
        except NoiseError:
            return Decrypted(task.sid, 0, False, False)
        self.opened = vector
        count, zero = self._read_lanes(vector)
        return Decrypted(task.sid, min(count, COUNT_LIMIT), zero, True)
