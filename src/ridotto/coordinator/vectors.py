"""What a participant's vector may look like, checked before its message is accepted.

The machines see a message and not the bytes beside it, and what they accepted has to go into the sum. So whoever sends
bytes that stand for no vector, or for one that has another encoding, is refused by name before the machine is asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.core.machine import Buffer
from ridotto.core.packing import packed_size
from ridotto.core.sparse_packing import unpack_either
from ridotto.core.vector import Layout
from ridotto.errors import DataError, PeerProtocolError
from ridotto.rounds.ciphers import shape_of
from ridotto.rounds.compression import leaves_zeros
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Oneshot, Plan


@dataclass(frozen=True)
class VectorForm:
    """Say how long the vectors of a plan are.

    sparse: they may be shorter, without their zeros. cipher_bytes: size of the ciphertext that stands for one, 0 for
    none; any bytes of that size are one.
    """

    length: int
    bits: int
    sparse: bool
    cipher_bytes: int = 0

    @classmethod
    def of(cls, plan: Plan, layout: Layout) -> VectorForm:
        """Return the form of a plan's vectors for a model."""
        pipeline = Pipeline(plan, layout)
        ciphers = shape_of(pipeline).size if isinstance(plan.protocol, Oneshot) else 0
        return cls(pipeline.length, plan.bits, leaves_zeros(plan.compress), ciphers)

    @property
    def size_bytes(self) -> int:
        """Return the size of a vector; the largest one, if it may be shorter."""
        return self.cipher_bytes or packed_size(self.length, self.bits)

    def check(self, sender: str, attachment: Buffer) -> None:
        """Refuse bytes that are no vector. A size that is wrong for the plan is left to the machine.

        Raises PeerProtocolError.
        """
        if self.cipher_bytes:
            return
        if len(attachment) == self.size_bytes:
            used = self.length * self.bits % 8
            # Who sets the bits of the last byte that a vector does not use would send one vector under two digests.
            if used and memoryview(attachment)[-1] >> used:
                raise PeerProtocolError(sender, "the bits after its vector's last element are not zero")
        elif self.sparse and len(attachment) < self.size_bytes:
            try:
                unpack_either(attachment, self.bits, self.length)
            except DataError as error:
                raise PeerProtocolError(sender, f"its vector without zeros is malformed: {error}") from error
