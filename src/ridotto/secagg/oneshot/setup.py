"""What a `oneshot` session needs besides the session: a committee, and how vectors and keys are laid out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import msgspec

from ridotto.core.wire import digest
from ridotto.crypto.lattice.fields import Shape
from ridotto.crypto.lattice.packed_shamir import Sharing
from ridotto.errors import PlanError
from ridotto.secagg.committee_roles.roster import Roster, check_apart
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.session import Session, session_id

CONTEXT_DOMAIN = b"ridotto/1 oneshot R96\x00"
"""Names the algorithms: parameter set R96 of `crypto.lattice`, packed Shamir mod 2^31 - 1, X25519, HKDF-SHA256,
AES-128-GCM, Ed25519, SHA-256, Merkle trees of RFC 6962; with another seal than "x25519", the layout names that."""

LEAST_HONEST = 2
"""An opened sum says something about its keys and noises; with two honest contributions the parameters allow for it."""


class OneshotFailure(StrEnum):
    """Say in one stable word why a sum was not opened; `session.FailureCode` has the words that all protocols share."""

    COMMITTEE_SHORT = "COMMITTEE_SHORT"
    """Too few members answered, or too many answered wrongly."""

    NOISE_ANOMALY = "NOISE_ANOMALY"
    """The opened sum's noise is not that of its contributions: some key or ciphertext was not what it should be."""


@dataclass(frozen=True)
class OneshotSetup:
    """Fix everything about one `oneshot` session.

    session: its bits are the width of an element of the sum: signed sums of entries must fit it. roster: the committee.
    pack: rho, secrets of the key in one polynomial; t + rho releases open a sum. tail: the last so many elements of a
    vector are not negative (check lanes and values); their sums may use all bits. seal: what keys of parcels are
    derived from.
    Raises PlanError if the minimum is not above the corrupt by two, the committee can't hold the key, or somebody is
    participant and member at once.
    """

    session: Session
    roster: Roster
    pack: int
    tail: int
    seal: Seal = "x25519"

    def __post_init__(self) -> None:
        check_apart(self.session, self.roster)
        if self.session.minimum < self.session.corrupt + LEAST_HONEST:
            raise PlanError(
                f"a minimum of {self.session.minimum} with {self.session.corrupt} corrupt leaves fewer than "
                f"{LEAST_HONEST} honest contributions in a sum"
            )
        # Both raise PlanError where they can't be.
        _ = self.sharing, self.shape

    @cached_property
    def sharing(self) -> Sharing:
        """Return how keys are shared."""
        return Sharing(len(self.roster.members), self.roster.corrupt, self.pack)

    @cached_property
    def shape(self) -> Shape:
        """Return how vectors lie in ring elements."""
        return Shape(self.session.length, self.session.bits, self.tail, len(self.session.members))

    @cached_property
    def sid(self) -> bytes:
        """Return the session's id, which every message bears."""
        return session_id(self.session)

    @cached_property
    def layout(self) -> bytes:
        """Return the encoding of everything that the session does not say itself."""
        said = (self.roster, self.pack, self.tail)
        return msgspec.msgpack.encode(said if self.seal == "x25519" else (*said, self.seal))

    @cached_property
    def context(self) -> bytes:
        """Return what every key, seal and signature is bound to: a hash of sid, committee and layout, 32 bytes."""
        return digest(CONTEXT_DOMAIN + self.sid + self.layout)

    @property
    def needed(self) -> int:
        """Return how many members must go through to the end: a quorum that agrees, and enough to open."""
        return max(self.roster.quorum, self.sharing.needed)
