"""Agree on one set: a root over who is in it with what, acknowledged once per session by every member."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import Bytes32
from ridotto.crypto.seal import IdentityKey, verify
from ridotto.errors import PeerProtocolError, ProtocolError
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.merkle import merkle_root
from ridotto.secagg.committee_roles.messages import Ack, Acks
from ridotto.secagg.committee_roles.roster import Roster, strictly_sorted

ACK_CONTEXT = "committee set"


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Prove that a member acknowledged two sets in one session: both bear its signature.

    context: of the session and committee; book: root of its keys. Published by the coordinator.
    """

    member: str
    context: Bytes32
    book: Bytes32
    first: Ack
    second: Ack


def set_leaves(digests: Mapping[int, bytes]) -> list[bytes]:
    """Return the leaves of a set: participants in order, each with what stands for its contribution."""
    return [number(participant) + digests[participant] for participant in sorted(digests)]


def set_root(digests: Mapping[int, bytes]) -> bytes:
    """Return the Merkle root of a set. digests: participant -> what stands for its contribution, 32 bytes."""
    return merkle_root(set_leaves(digests))


def ack_statement(context: bytes, book: bytes, root: bytes) -> bytes:
    """Say: with these keys, this is the set that I release for."""
    return context + book + root


def sign_ack(identity: IdentityKey, sid: bytes, context: bytes, book: bytes, root: bytes) -> Ack:
    """Return a member's acknowledgement."""
    return Ack(sid, root, identity.sign(ACK_CONTEXT, ack_statement(context, book, root)))


def check_ack(roster: Roster, seat: int, statement: bytes, signature: bytes, peer: str) -> None:
    """Return if the member at `seat` signed this statement. peer: who showed it. Raises PeerProtocolError if not."""
    member = roster.members[seat]
    try:
        verify(member.key, ACK_CONTEXT, statement, signature)
    except ProtocolError as error:
        raise PeerProtocolError(peer, f"the set as {member.name} acknowledged it bears no valid signature") from error


def check_acks(roster: Roster, acks: Acks, statement: bytes) -> None:
    """Return if a quorum of the committee acknowledged this set; verifying stops there.

    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    if not strictly_sorted((vote.seat for vote in acks.votes), len(roster.members)):
        raise PeerProtocolError(COORDINATOR, "its acknowledgements are not sorted by seat")
    if len(acks.votes) < roster.quorum:
        raise PeerProtocolError(COORDINATOR, f"{len(acks.votes)} acknowledged its set, {roster.quorum} are needed")
    for vote in acks.votes[: roster.quorum]:
        check_ack(roster, vote.seat, statement, vote.signature, COORDINATOR)
