"""Check what a committee signed about one set, and say what follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import Bytes32, Part, digest
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError, PlanError, ProtocolError
from ridotto.rounds.receipt import CommitteeSignatures, SumReceipt
from ridotto.secagg.committee import CommitteeSetup
from ridotto.secagg.committee import binding as committee_binding
from ridotto.secagg.committee import drawn as committee_drawn
from ridotto.secagg.committee import setup as committee_setup
from ridotto.secagg.committee_roles.agreement import ack_statement, check_ack
from ridotto.secagg.committee_roles.messages import LARGEST_COMMITTEE, PER_SEAT, Seat
from ridotto.secagg.committee_roles.roster import Roster, strictly_sorted
from ridotto.secagg.committee_roles.seals import Seal
from ridotto.secagg.oneshot import OneshotSetup
from ridotto.secagg.oneshot import binding as oneshot_binding
from ridotto.secagg.oneshot import drawn as oneshot_drawn
from ridotto.secagg.oneshot import setup as oneshot_setup
from ridotto.secagg.session import CommitteeSession, Member, Session

SeatName = Annotated[str, msgspec.Meta(max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]*(/member)?\Z")]
"""A member's name: one that nobody can be enrolled under, where it is a participant's seat."""


class _Seat(Part, frozen=True):
    name: SeatName
    key: Bytes32


class _Members(Part, frozen=True):
    """Read a roster whose seats may be participants'."""

    members: Annotated[tuple[_Seat, ...], PER_SEAT]
    corrupt: Annotated[int, msgspec.Meta(ge=1, lt=LARGEST_COMMITTEE)]
    pool: Bytes32
    beacon: Bytes32

    def roster(self) -> Roster:
        return Roster(tuple(Member(seat.name, seat.key) for seat in self.members), self.corrupt, self.pool, self.beacon)


class _CommitteeLayout(Part, frozen=True):
    members: _Members
    slots: Annotated[tuple[Seat, ...], PER_SEAT]
    tail: int
    sigma: float
    seal: Seal = "x25519"


class _OneshotLayout(Part, frozen=True):
    members: _Members
    pack: int
    tail: int
    seal: Seal = "x25519"


_COMMITTEE = msgspec.msgpack.Decoder(_CommitteeLayout)
_ONESHOT = msgspec.msgpack.Decoder(_OneshotLayout)


@dataclass(frozen=True)
class Rule:
    """Say how a protocol's committee agrees: what its context hashes, and which seats decide together.

    groups: of which each needs so many acknowledgements. unless: what would have to be true for two sets to be opened.
    """

    domain: bytes
    release_context: str
    roster: Roster
    groups: tuple[tuple[tuple[int, ...], int], ...]
    unless: str


def committee_sentences(receipt: SumReceipt) -> list[str]:
    """Check all signatures of a sum's committee; return what they prove.

    Raises PeerProtocolError, blaming the coordinator, if anything does not hold.
    """
    signed = receipt.committee
    if signed is None:
        return []
    rule = _rule(receipt.protocol, signed.layout)
    context = digest(rule.domain + bytes.fromhex(receipt.sid) + signed.layout)
    root = bytes.fromhex(receipt.root)
    _check_acks(rule, signed, ack_statement(context, signed.book, root))
    _check_releases(rule, signed, context + signed.book + root)
    return [
        f"{len(signed.acks)} of its committee of {len(rule.roster.members)} signed that this is the set, "
        f"{sum(needed for _, needed in rule.groups)} had to; no other set of this session was opened, unless "
        f"{rule.unless}.",
        f"{len(signed.releases)} members signed what they released for this set.",
        f"The committee is: {', '.join(member.name for member in rule.roster.members)}. The receipt has their keys, "
        "but does not prove whose they are.",
    ]


def check_session(receipt: SumReceipt, session: Session) -> None:
    """Return if a sum is one that this session can have come to, opened by the committee that it draws.

    session: whose id the receipt has; from beside the receipt, or as a participant was shown it.
    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    if (session.protocol, session.shard) != (receipt.protocol, receipt.shard):
        raise _refuse(f"session {receipt.sid[:16]} has another protocol or shard than the receipt says")
    if not session.minimum <= receipt.count <= len(session.members):
        raise _refuse(f"session {receipt.sid[:16]} opened a sum of {receipt.count}, below its own minimum or above all")
    if isinstance(session, CommitteeSession):
        check_drawn(receipt, session)


def check_drawn(receipt: SumReceipt, session: CommitteeSession) -> None:
    """Return if a sum's committee is the one that its session draws from its helpers or members.

    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    setups: dict[str, Callable[[Session], OneshotSetup | CommitteeSetup]] = {
        "oneshot": oneshot_drawn.setup_of,
        "committee": committee_drawn.setup_of,
    }
    try:
        layout = setups[receipt.protocol](session).layout if receipt.protocol in setups else None
    except PlanError as error:
        raise _refuse(f"no committee can be drawn from its session: {error}") from error
    if receipt.committee is None or receipt.committee.layout != layout:
        raise _refuse("its committee is not the one that its session draws")


def _rule(protocol: str, layout: bytes) -> Rule:
    try:
        if protocol == "oneshot":
            return _oneshot_rule(_ONESHOT.decode(layout).members.roster())
        if protocol == "committee":
            said = _COMMITTEE.decode(layout)
            return _committee_rule(said.members.roster(), said.slots)
    except (msgspec.MsgspecError, PlanError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise _refuse(f"its committee is malformed: {error}") from error
    raise _refuse(f'protocol "{protocol}" has no committee that this version knows')


def _oneshot_rule(roster: Roster) -> Rule:
    return Rule(
        oneshot_setup.CONTEXT_DOMAIN,
        oneshot_binding.RELEASE_CONTEXT,
        roster,
        ((tuple(range(len(roster.members))), roster.quorum),),
        f"more than {roster.corrupt} members worked with the coordinator",
    )


def _committee_rule(roster: Roster, slots: tuple[int, ...]) -> Rule:
    count = max(slots, default=-1) + 1
    if len(slots) != len(roster.members) or set(slots) != set(range(count)):
        raise PlanError("every seat has a slot, and every slot from 0 on has a seat")
    seats = [tuple(seat for seat, slot in enumerate(slots) if slot == own) for own in range(count)]
    return Rule(
        committee_setup.CONTEXT_DOMAIN,
        committee_binding.RELEASE_CONTEXT,
        roster,
        tuple((own, len(own) // 2 + 1) for own in seats),
        f"in every one of its {count} slots somebody worked with the coordinator",
    )


def _check_acks(rule: Rule, signed: CommitteeSignatures, statement: bytes) -> None:
    seats = [vote.seat for vote in signed.acks]
    if not strictly_sorted(seats, len(rule.roster.members)):
        raise _refuse("its acknowledgements are not sorted by seat")
    for group, needed in rule.groups:
        if len(set(seats) & set(group)) < needed:
            raise _refuse(f"{len(set(seats) & set(group))} acknowledged its set, {needed} are needed")
    for vote in signed.acks:
        check_ack(rule.roster, vote.seat, statement, vote.signature, COORDINATOR)


def _check_releases(rule: Rule, signed: CommitteeSignatures, statement: bytes) -> None:
    if not strictly_sorted((one.seat for one in signed.releases), len(rule.roster.members)):
        raise _refuse("its releases are not sorted by seat")
    for one in signed.releases:
        member = rule.roster.members[one.seat]
        try:
            verify(member.key, rule.release_context, statement + one.digest, one.signature)
        except ProtocolError as error:
            raise _refuse(f"what {member.name} released bears no valid signature") from error


def _refuse(why: str) -> PeerProtocolError:
    return PeerProtocolError(COORDINATOR, why)
