"""What a coordinator publishes about a session with a committee: its faults, and what proves which set was opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridotto.core.wire import Bytes32, Part, Signature
from ridotto.secagg.committee_roles.messages import Seat, SeatVote
from ridotto.secagg.committee_roles.roster import Roster


@dataclass(frozen=True, slots=True)
class MemberFaults:
    """Show which members of a committee did not do their part, and how. Published at the end of a session."""

    sid: bytes
    faults: tuple[tuple[str, str], ...]


class SignedRelease(Part, frozen=True):
    """Repeat what one member signed when it released: the SHA-256 of what it released."""

    seat: Seat
    digest: Bytes32
    signature: Signature


@dataclass(frozen=True, slots=True)
class Evidence:
    """Prove which set a committee released for. Published at the end of a session whose sum was opened.

    context, book: what all signatures are over, besides the root. digests: participant -> SHA-256 of its contribution;
    `agreement.set_root` of it is the root. acks, releases: those that came and held, sorted by seat.
    """

    protocol: str
    sid: bytes
    context: bytes
    book: bytes
    digests: Mapping[int, bytes]
    roster: Roster
    acks: tuple[SeatVote, ...]
    releases: tuple[SignedRelease, ...]
