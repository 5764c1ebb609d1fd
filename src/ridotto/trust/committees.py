"""Check what a committee signed about one set, and say what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from ridotto.core.machine import COORDINATOR
from ridotto.core.wire import digest
from ridotto.crypto.seal import verify
from ridotto.errors import PeerProtocolError, PlanError, ProtocolError
from ridotto.secagg.committee import binding as committee_binding
from ridotto.secagg.committee import setup as committee_setup
from ridotto.secagg.committee_roles.agreement import ack_statement, check_ack
from ridotto.secagg.committee_roles.roster import Roster, strictly_sorted
from ridotto.secagg.oneshot import binding as oneshot_binding
from ridotto.secagg.oneshot import setup as oneshot_setup
from ridotto.trust.receipt import CommitteeSignatures, SumReceipt

CommitteeLayout = tuple[Roster, tuple[int, ...], int, float]
OneshotLayout = tuple[Roster, int, int]


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


def _rule(protocol: str, layout: bytes) -> Rule:
    try:
        if protocol == "oneshot":
            return _oneshot_rule(msgspec.msgpack.decode(layout, type=OneshotLayout)[0])
        if protocol == "committee":
            return _committee_rule(*msgspec.msgpack.decode(layout, type=CommitteeLayout)[:2])
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
