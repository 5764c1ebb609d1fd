"""What a coordinator publishes about a session with a committee: its faults, and what proves which set was opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridotto.core.wire import Bytes32, Part, Signature
from ridotto.secagg.committee_roles.messages import Seat, SeatVote


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

    layout: what the session's context hashes besides its id: the committee and how vectors lie. book: root of its keys.
    digests: participant -> SHA-256 of its contribution; `agreement.set_root` of it is the root. acks, releases: those
    that came and held, sorted by seat. Signatures are over context, book and root; releases' over their digest as well.
    """

    protocol: str
    sid: bytes
    layout: bytes
    book: bytes
    digests: Mapping[int, bytes]
    acks: tuple[SeatVote, ...]
    releases: tuple[SignedRelease, ...]
