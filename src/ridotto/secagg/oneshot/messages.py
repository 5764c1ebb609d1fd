"""The messages of `oneshot` that carry its ciphertexts and shares, in sending order. Others: `committee_roles`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ridotto.core.wire import Attached, Bytes32, Message, Part, Signature
from ridotto.crypto.kem import KEM_CIPHERTEXT_BYTES
from ridotto.secagg.committee_roles.messages import COMMITTEE_MESSAGES, PER_SEAT
from ridotto.secagg.messages import PER_MEMBER, Index

LARGEST_SHARE = 4 * 4096
"""A share of one word per coefficient of the key, where a polynomial holds one."""

Share = Annotated[bytes, msgspec.Meta(min_length=4, max_length=LARGEST_SHARE)]

Sealed = Annotated[bytes, msgspec.Meta(min_length=20, max_length=LARGEST_SHARE + 16 + KEM_CIPHERTEXT_BYTES)]
"""A share and a tag, sealed for one member; before them an ML-KEM ciphertext, where the session says so."""


class Contribution(Attached, frozen=True):
    """Participant: bring the ciphertext, and the shares of its key.

    book: root of the members' keys that it saw. public: X25519 key made for this message. signature: over all of it
    except the parcels, which are bound to it by their seals. parcels: one per entry of the book, in its order.
    """

    sid: Bytes32 = b""
    book: Bytes32 = b""
    public: Bytes32 = b""
    signature: Signature = b""
    parcels: Annotated[tuple[Sealed, ...], PER_SEAT] = ()


class Parcel(Part, frozen=True):
    """Carry one participant's share to one member, with what was signed about it."""

    participant: Index
    digest: Bytes32
    public: Bytes32
    signature: Signature
    sealed: Sealed

    @property
    def contribution(self) -> bytes:
        """Return what stands for it in a set: the ciphertext."""
        return self.digest


class Parcels(Message, frozen=True):
    """Coordinator: deliver the parcels that are meant for one member, sorted by participant."""

    sid: Bytes32
    parcels: Annotated[tuple[Parcel, ...], PER_MEMBER]


class Release(Message, frozen=True):
    """Member: release the sum of its shares over the acknowledged set, signed."""

    sid: Bytes32
    root: Bytes32
    share: Share
    signature: Signature

    def __repr__(self) -> str:
        return f"Release({len(self.share)} bytes)"


ONESHOT_MESSAGES = (*COMMITTEE_MESSAGES, Contribution, Parcels, Release)
"""Everything that participants, members and coordinator say in `oneshot`."""
