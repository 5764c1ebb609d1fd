"""The messages between coordinator and committee that do not depend on what the committee holds, in sending order."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ridotto.core.wire import Bytes32, Message, Part, Signature
from ridotto.crypto.kem import KEM_PUBLIC_BYTES
from ridotto.crypto.seal import KEY_BYTES
from ridotto.secagg.messages import PER_MEMBER, Index

LARGEST_COMMITTEE = 1024

Seat = Annotated[int, msgspec.Meta(ge=0, lt=LARGEST_COMMITTEE)]
"""A member's position in the committee."""

PER_SEAT = msgspec.Meta(max_length=LARGEST_COMMITTEE)
"""Limits a list that has at most one element per committee member."""


MemberPublic = Annotated[bytes, msgspec.Meta(min_length=KEY_BYTES, max_length=KEM_PUBLIC_BYTES + KEY_BYTES)]
"""A member's public key; the session says of which size (`seals.public_bytes`)."""


class MemberKey(Message, frozen=True):
    """Member: advertise this session's key, signed with the identity key.

    public: X25519, or ML-KEM-768 || X25519, as the session's `seal` says.
    """

    sid: Bytes32
    public: MemberPublic
    signature: Signature


class MemberEntry(Part, frozen=True):
    """Repeat one member's signed key."""

    seat: Seat
    public: MemberPublic
    signature: Signature


class MemberBook(Message, frozen=True):
    """Coordinator: show the members' keys to everyone, sorted by seat."""

    sid: Bytes32
    entries: Annotated[tuple[MemberEntry, ...], PER_SEAT]


class Checked(Message, frozen=True):
    """Member: name the participants whose parcels did not open or hold nothing usable, sorted."""

    sid: Bytes32
    bad: Annotated[tuple[Index, ...], PER_MEMBER]


class Included(Message, frozen=True):
    """Coordinator: name the participants whose contributions are in the sum, sorted."""

    sid: Bytes32
    participants: Annotated[tuple[Index, ...], PER_MEMBER]


class Ack(Message, frozen=True):
    """Member: sign the root of the one set that it will release for."""

    sid: Bytes32
    root: Bytes32
    signature: Signature


class SeatVote(Part, frozen=True):
    """Repeat one member's signature under the root."""

    seat: Seat
    signature: Signature


class Acks(Message, frozen=True):
    """Coordinator: show who acknowledged, sorted by seat."""

    sid: Bytes32
    votes: Annotated[tuple[SeatVote, ...], PER_SEAT]


COMMITTEE_MESSAGES = (MemberKey, MemberBook, Checked, Included, Ack, Acks)
"""Everything that a committee says and hears, whatever it holds."""
