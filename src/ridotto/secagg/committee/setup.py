"""What a `committee` session needs besides the session: a committee in slots, and perhaps its noise."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import msgspec

from ridotto.core.packing import packed_size
from ridotto.core.wire import digest
from ridotto.crypto.prg import SEED_BYTES
from ridotto.errors import PlanError
from ridotto.secagg.committee_roles.roster import Roster, check_apart
from ridotto.secagg.committee_roles.seals import Seal, overhead_bytes
from ridotto.secagg.session import LARGEST_SIGMA, Session, session_id

CONTEXT_DOMAIN = b"ridotto/1 committee\x00"
"""Names the algorithms: X25519, HKDF-SHA256, AES-128-GCM, AES-128-CTR, Ed25519, SHA-256, Merkle trees of RFC 6962; with
another seal than "x25519", the layout names that."""

LEAST_HONEST = 2
"""A sum over one honest contribution is that contribution."""


class CommitteeFailure(StrEnum):
    """Say in one stable word why a sum was not opened; `session.FailureCode` has the words that all protocols share."""

    SLOT_LOST = "SLOT_LOST"
    """Too few replicas of a slot answered."""

    REPLICA_DISAGREE = "REPLICA_DISAGREE"
    """Replicas of a slot released different sums, and nothing tells which is right."""


def deal(roster: Roster, slots: int) -> tuple[int, ...]:
    """Return the slot of every seat, as the beacon deals them: by lowest SHA-256, one slot after the other.

    Raises PlanError if there are more slots than members.
    """
    if not 1 <= slots <= len(roster.members):
        raise PlanError(f"a committee of {len(roster.members)} has no {slots} slots")
    seats = range(len(roster.members))
    order = sorted(seats, key=lambda seat: _rank(roster, seat))
    place = {seat: number % slots for number, seat in enumerate(order)}
    return tuple(place[seat] for seat in seats)


@dataclass(frozen=True)
class CommitteeSetup:
    """Fix everything about one `committee` session.

    slots: the slot of every seat, from 0. Every participant masks its vector once for each slot; the seats of one slot
    are replicas, who hold the same seeds. tail: the last so many elements of a vector get no noise (check lanes and
    values). sigma: standard deviation of the noise that the honest slots add to the sum together, in units of the
    elements; 0 for none. Whether the sum with it fits its ring is the caller's to plan. seal: what keys of parcels are
    derived from.
    Raises PlanError if not every slot has a seat, so many may be corrupt that one could sit in every slot, the minimum
    is not above the session's corrupt by two, or somebody is participant and member at once.
    """

    session: Session
    roster: Roster
    slots: tuple[int, ...]
    tail: int
    sigma: float = 0.0
    seal: Seal = "x25519"

    def __post_init__(self) -> None:
        check_apart(self.session, self.roster)
        seats = len(self.roster.members)
        if len(self.slots) != seats or self.count > seats or set(self.slots) != set(range(self.count)):
            raise PlanError("every seat has a slot, and every slot from 0 on has a seat")
        if not self.roster.corrupt < self.count:
            raise PlanError(
                f"{self.roster.corrupt} corrupt members could sit in all of {self.count} slots: one must be left"
            )
        if self.session.minimum < self.session.corrupt + LEAST_HONEST:
            raise PlanError(
                f"a minimum of {self.session.minimum} with {self.session.corrupt} corrupt leaves fewer than "
                f"{LEAST_HONEST} honest contributions in a sum"
            )
        if not (0 <= self.tail <= self.session.length and 0 <= self.sigma <= LARGEST_SIGMA):
            raise PlanError(f"a tail of {self.tail} and noise of {self.sigma} do not fit the session")

    @property
    def count(self) -> int:
        """Return J, the number of slots."""
        return max(self.slots, default=-1) + 1

    @cached_property
    def replicas(self) -> tuple[tuple[int, ...], ...]:
        """Return the seats of every slot."""
        return tuple(
            tuple(seat for seat, other in enumerate(self.slots) if other == slot) for slot in range(self.count)
        )

    def majority(self, slot: int) -> int:
        """Return how many replicas of a slot must acknowledge one set: more than half.

        An honest replica acknowledges one set per session. So a slot of honest replicas never releases for two, whether
        or not they can hear each other.
        """
        return len(self.replicas[slot]) // 2 + 1

    @property
    def needed(self) -> int:
        """Return the fewest members that a book can have: a majority of every slot."""
        return sum(self.majority(slot) for slot in range(self.count))

    @property
    def slot_sigma(self) -> float:
        """Return the noise of each slot, such that the slots without a corrupt replica add `sigma` together."""
        return self.sigma / math.sqrt(self.count - self.roster.corrupt)

    @property
    def size(self) -> int:
        """Return the bytes of a packed vector."""
        return packed_size(self.session.length, self.session.bits)

    @property
    def parcel_bytes(self) -> int:
        """Return the bytes of a seed, sealed."""
        return SEED_BYTES + overhead_bytes(self.seal)

    @cached_property
    def sid(self) -> bytes:
        """Return the session's id, which every message bears."""
        return session_id(self.session)

    @cached_property
    def layout(self) -> bytes:
        """Return the encoding of everything that the session does not say itself."""
        said = (self.roster, self.slots, self.tail, float(self.sigma))
        return msgspec.msgpack.encode(said if self.seal == "x25519" else (*said, self.seal))

    @cached_property
    def context(self) -> bytes:
        """Return what every key, mask, seal and signature is bound to: a hash of sid, committee and noise, 32 bytes."""
        return digest(CONTEXT_DOMAIN + self.sid + self.layout)


def _rank(roster: Roster, seat: int) -> bytes:
    key = roster.members[seat].key
    return hashlib.sha256(b"ridotto/1 slots\x00" + roster.pool + roster.beacon + key).digest()
