"""The messages of `committee` that carry its vectors and seeds, in sending order. Others: `committee_roles`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ridotto.core.wire import Attached, Bytes32, Message, Part, Signature
from ridotto.crypto.kem import KEM_CIPHERTEXT_BYTES
from ridotto.crypto.prg import SEED_BYTES
from ridotto.crypto.seal import SEAL_OVERHEAD_BYTES
from ridotto.secagg.committee.binding import contribution_digest
from ridotto.secagg.committee_roles.messages import COMMITTEE_MESSAGES, PER_SEAT
from ridotto.secagg.messages import PER_MEMBER, Index

SMALLEST_PARCEL = SEED_BYTES + SEAL_OVERHEAD_BYTES

Sealed = Annotated[bytes, msgspec.Meta(min_length=SMALLEST_PARCEL, max_length=SMALLEST_PARCEL + KEM_CIPHERTEXT_BYTES)]
"""A seed and a tag, sealed for one member; before them an ML-KEM ciphertext, where the session says so."""

Commitments = Annotated[tuple[Bytes32, ...], PER_SEAT]
"""One hash for each slot's seed."""


class MaskedVector(Attached, frozen=True):
    """Participant: bring the masked vector, and the seeds of its masks.

    book: root of the members' keys that it saw. public: X25519 key made for this message. commitments: to the seed of
    every slot. signature: over all of it except the parcels, which are bound to it by their seals. parcels: one per
    entry of the book, in its order.
    """

    sid: Bytes32 = b""
    book: Bytes32 = b""
    public: Bytes32 = b""
    commitments: Commitments = ()
    signature: Signature = b""
    parcels: Annotated[tuple[Sealed, ...], PER_SEAT] = ()

    @property
    def contribution(self) -> bytes:
        """Return what stands for it in a set: vector and seeds."""
        return contribution_digest(self.digest, self.commitments)


class SeedParcel(Part, frozen=True):
    """Carry one participant's seed to one member, with what was signed about it."""

    participant: Index
    digest: Bytes32
    public: Bytes32
    commitments: Commitments
    signature: Signature
    sealed: Sealed

    @property
    def contribution(self) -> bytes:
        """Return what stands for it in a set, as of the message that it was in."""
        return contribution_digest(self.digest, self.commitments)


class SeedParcels(Message, frozen=True):
    """Coordinator: deliver the parcels that are meant for one member, sorted by participant."""

    sid: Bytes32
    parcels: Annotated[tuple[SeedParcel, ...], PER_MEMBER]


class MaskSum(Attached, frozen=True):
    """Member: release the sum of its slot's masks over the acknowledged set, packed, signed."""

    sid: Bytes32 = b""
    root: Bytes32 = b""
    signature: Signature = b""


MASK_MESSAGES = (*COMMITTEE_MESSAGES, MaskedVector, SeedParcels, MaskSum)
"""Everything that participants, members and coordinator say in `committee`."""
