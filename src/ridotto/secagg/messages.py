"""The messages of the secure sums, in sending order.

Members are named by their index in the session's roster. `sid` binds each message to its session. Every list has a
length limit, because a list of a million tiny elements would take many times its bytes in memory.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from ridotto.core.wire import Attached, Bytes32, Message, Part, Signature

LARGEST_GROUP = 10_000
"""Members of one session at most. A complete graph stays at 128 (see `rounds.plan`); the rest is for sparse ones."""

PER_MEMBER = msgspec.Meta(max_length=LARGEST_GROUP)
"""Limits a list that has at most one element per member."""

COMMITMENTS_BYTES = 64
"""What an owner commits to per holder: its share of the seed and its share of the mask key, 32 bytes each."""

Index = Annotated[int, msgspec.Meta(ge=0, lt=LARGEST_GROUP)]
"""A member's position in the roster."""

Share = Annotated[bytes, msgspec.Meta(min_length=36, max_length=36)]
"""A Shamir share of a 32-byte secret."""

SealedBox = Annotated[bytes, msgspec.Meta(min_length=88, max_length=88)]
"""Two shares (72 bytes) and a tag (16), sealed for one holder."""


class Plain(Attached, frozen=True):
    """ideal: bring the packed vector in clear."""

    sid: Bytes32 = b""


class PublicKeys(Message, frozen=True):
    """pairwise, participant: advertise this session's two X25519 keys, signed with the identity key."""

    sid: Bytes32
    exchange: Bytes32
    mask: Bytes32
    signature: Signature


class KeyEntry(Part, frozen=True):
    """Repeat one member's signed keys."""

    member: Index
    exchange: Bytes32
    mask: Bytes32
    signature: Signature


class KeyBook(Message, frozen=True):
    """pairwise, coordinator: show everyone's keys to everyone, sorted by member."""

    sid: Bytes32
    entries: Annotated[tuple[KeyEntry, ...], PER_MEMBER]


class SealedShares(Message, frozen=True):
    """pairwise, participant: hand out sealed shares of its two secrets, and commitments to all of it.

    book: root of the key book this participant saw. seed_commitment: to the self-mask seed. boxes: one per holder
    other than the owner, in holder order. commitments: 64 bytes per holder, the owner included where it is one: to
    the share of the seed, then to the share of the mask key.
    """

    sid: Bytes32
    book: Bytes32
    seed_commitment: Bytes32
    boxes: Annotated[tuple[SealedBox, ...], PER_MEMBER]
    commitments: Annotated[bytes, msgspec.Meta(max_length=COMMITMENTS_BYTES * LARGEST_GROUP)]


class Box(Part, frozen=True):
    """Carry one sealed box to its holder, with what its owner committed to."""

    owner: Index
    sealed: SealedBox
    seed_share: Bytes32
    mask_share: Bytes32


class Delivery(Message, frozen=True):
    """pairwise, coordinator: deliver the boxes that are meant for one holder, sorted by owner."""

    sid: Bytes32
    boxes: Annotated[tuple[Box, ...], PER_MEMBER]


class Masked(Attached, frozen=True):
    """pairwise, participant: bring the masked packed vector."""

    sid: Bytes32 = b""


class Survivors(Message, frozen=True):
    """pairwise, coordinator: say whose vectors are in the sum, sorted."""

    sid: Bytes32
    included: Annotated[tuple[Index, ...], PER_MEMBER]


class Consistency(Message, frozen=True):
    """pairwise, participant: sign the survivor list it was shown."""

    sid: Bytes32
    signature: Signature


class Vote(Part, frozen=True):
    """Repeat one member's signature."""

    member: Index
    signature: Signature


class Evidence(Message, frozen=True):
    """pairwise, coordinator: show who signed, sorted by member."""

    sid: Bytes32
    votes: Annotated[tuple[Vote, ...], PER_MEMBER]


class Revealed(Part, frozen=True):
    """Reveal one share: of the owner's seed if it survived, of its mask key if it did not. Never both."""

    owner: Index
    share: Share


class Unmask(Message, frozen=True):
    """pairwise, participant: reveal its own self-mask seed and one share per member whose shares it holds.

    unopened: owners whose boxes did not open or did not match their commitments.
    """

    sid: Bytes32
    seed: Bytes32
    shares: Annotated[tuple[Revealed, ...], PER_MEMBER]
    unopened: Annotated[tuple[Index, ...], PER_MEMBER]

    def __repr__(self) -> str:
        return f"Unmask({len(self.shares)} shares)"


IDEAL_MESSAGES = (Plain,)
"""Everything that participants and coordinator say in `ideal`."""

PAIRWISE_MESSAGES = (PublicKeys, KeyBook, SealedShares, Delivery, Masked, Survivors, Consistency, Evidence, Unmask)
"""Everything that participants and coordinator say in `pairwise`."""
