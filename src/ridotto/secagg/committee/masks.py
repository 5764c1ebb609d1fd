"""Carry out the tasks of `committee` on large vectors: what the drivers of a member and of a coordinator need."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.core.packing import pack, unpack
from ridotto.crypto.prg import Mask, add_masks
from ridotto.errors import LocalProtocolError
from ridotto.secagg.committee.binding import MASK_LABEL
from ridotto.secagg.committee.tasks import Keep, SumMasks, Summed, Unmask
from ridotto.secagg.committee_roles.keeper import InMemory, Keeper
from ridotto.secagg.committee_roles.tasks import Settle
from ridotto.secagg.tasks import COUNT_LIMIT, Opened

FOLDED_AT_ONCE = 4
"""Vectors that are added together: the sum, which is as long as each, then goes through the memory once for all."""

CHUNK_ELEMENTS = 1 << 16
"""Elements of the sum that are added to in one go; of 32 bits they take 256 KiB and stay in a core's L2 cache."""

AddNoise = Callable[[IntVector, float, bytes], None]
"""(elements, sigma, seed): add noise to the elements in place, mod 2^w.

The same for the same three on every platform, because replicas must agree bit for bit. With the discrete Gaussian of
`privacy.noise`: `lambda part, sigma, seed: DiscreteGaussian(sigma).add_to(part, Words(seed))`.
"""

ReadLanes = Callable[[IntVector], tuple[int, bool]]
"""Read the count and whether all zero lanes are zero from an opened sum."""


def sum_masks(task: SumMasks, add_noise: AddNoise | None = None, threads: int = 1) -> Summed:
    """Expand and add up the masks of one slot, and add its noise.

    Raises LocalProtocolError if noise is asked for and there is no source of it.
    """
    if task.noise is not None and add_noise is None:
        raise LocalProtocolError("this session's committee adds noise, and its driver has none")
    total = np.zeros(task.length, container(task.bits))
    add_masks(total, [Mask(seed, 1) for seed in task.seeds], task.context, MASK_LABEL, threads)
    if task.noise is not None and add_noise is not None:
        add_noise(total[: task.noise.entries], task.noise.sigma, task.noise.seed)
    reduce(total, task.bits)
    return Summed(task.sid, bytes(pack(total, task.bits)))


def reduce(vector: IntVector, bits: int) -> None:
    """Take every element mod 2^bits, in place."""
    if bits < vector.dtype.itemsize * 8:
        vector &= vector.dtype.type((1 << bits) - 1)


class MaskedSum:
    """Hold the running sum of one session: memory for one vector, and for one per slot once members release.

    length, bits: of the session's vectors. total: shape (length,), container of the bits; None to begin. keeper: of
    vectors until the set is final, and then of what members released until the sum is opened; that of a driver with
    many participants, or one that must survive a kill, writes to disk. read_lanes: of the opened sum.
    """

    def __init__(
        self,
        length: int,
        bits: int,
        read_lanes: ReadLanes,
        total: IntVector | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._length, self._bits = length, bits
        self._read_lanes = read_lanes
        self._keeper: Keeper = InMemory() if keeper is None else keeper
        self._total: IntVector = np.zeros(length, container(bits)) if total is None else total
        self._waiting: list[Buffer] = []
        self.opened: IntVector | None = None

    @property
    def total(self) -> IntVector:
        """Return the sum of all that was folded, shape (length,): what a driver that must survive a kill stores."""
        waiting, self._waiting = [self._vector(one) for one in self._waiting], []
        for begin in range(0, len(self._total), CHUNK_ELEMENTS) if waiting else ():
            part = self._total[begin : begin + CHUNK_ELEMENTS]
            for vector in waiting:
                np.add(part, vector[begin : begin + CHUNK_ELEMENTS], out=part)
        return self._total

    def fold(self, sender: str, attachment: Buffer) -> None:
        """Add a vector, and keep it until the set is final. Its size was checked by the session's machine."""
        self._keeper.keep(sender, attachment)
        self._waiting.append(attachment)
        # Elements of another width are unpacked into memory of their own first, so waiting would only cost room.
        if len(self._waiting) == FOLDED_AT_ONCE or self._bits != self._total.itemsize * 8:
            _ = self.total

    def settle(self, task: Settle) -> None:
        """Take out what is not in the final set, and forget all vectors.

        Raises LocalProtocolError if one was not kept.
        """
        total = self.total
        for sender, _ in task.removed:
            vector = self._keeper.kept(sender)
            if vector is None:
                raise LocalProtocolError(f"the vector of {sender} was not kept until the set was final")
            np.subtract(total, self._vector(vector), out=total)
        self._keeper.forget()

    def keep(self, task: Keep, attachment: Buffer) -> None:
        """Keep what a member released."""
        self._keeper.keep(_released(task.digest), attachment)

    def unmask(self, task: Unmask) -> Opened:
        """Subtract the masks of every slot; `opened` is the sum of the vectors then.

        Raises LocalProtocolError if masks were not kept, or the sum was opened before.
        """
        if self.opened is not None:
            raise LocalProtocolError("a sum is opened once")
        total = self.total
        # All of them first: of a sum from which some were taken off, nothing would be left.
        for masks in [self._masks(digest) for digest in task.digests]:
            np.subtract(total, masks, out=total)
        self._keeper.forget()
        reduce(total, self._bits)
        self.opened = total
        count, zero = self._read_lanes(total)
        return Opened(task.sid, min(count, COUNT_LIMIT), zero)

    def _masks(self, digest: bytes) -> IntVector:
        masks = self._keeper.kept(_released(digest))
        if masks is None:
            raise LocalProtocolError("masks that were released have not been kept")
        return self._vector(masks)

    def _vector(self, attachment: Buffer) -> IntVector:
        """Unpack a vector. Bits that a liar set in the padding are dropped: its message was accepted."""
        used = self._length * self._bits % 8
        if used and memoryview(attachment)[-1] >> used:
            cleared = bytearray(attachment)
            cleared[-1] &= (1 << used) - 1
            attachment = cleared
        return unpack(attachment, self._bits, self._length)


def _released(digest: bytes) -> str:
    """Name the masks of a slot. Nobody is called so: there is a space in it."""
    return f"masks {digest.hex()}"
