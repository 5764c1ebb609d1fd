"""What machines of `committee` ask their drivers to do, besides `secagg.tasks.Fold` and `committee_roles.tasks.Settle`.

`SumMasks` is a member's; `masks.sum_masks` carries it out. The others are the coordinator's; `masks.MaskedSum` does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.core.wire import Bytes32, Message


@dataclass(frozen=True, slots=True)
class SlotNoise:
    """Ask for noise of this standard deviation on the first `entries` elements, determined by the seed."""

    seed: bytes = field(repr=False)
    sigma: float
    entries: int


@dataclass(frozen=True, slots=True)
class SumMasks:
    """Expand these seeds and add them up. Answered with `Summed`. Takes about half a second for 1,000 x 1,000,000.

    context: salt of the masks. length, bits: of the vectors.
    """

    sid: bytes
    context: bytes
    seeds: tuple[bytes, ...] = field(repr=False)
    length: int
    bits: int
    noise: SlotNoise | None = None


class Summed(Message, frozen=True):
    """Bring a packed sum of masks to the member's machine. Never leaves the process that made it."""

    sid: Bytes32
    packed: bytes

    def __repr__(self) -> str:
        return f"Summed({len(self.packed)} bytes)"


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep the attachment of the message just received, the masks of a slot, under its SHA-256."""

    sid: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class Unmask:
    """Subtract these kept sums of masks from the sum of session `sid`, and read its lanes.

    Answered with `secagg.tasks.Opened`. A sum is opened once. digests: one per slot.
    """

    sid: bytes
    digests: tuple[bytes, ...]
