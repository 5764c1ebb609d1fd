"""What replicas of one slot owe each other: a majority that agrees, and one sum."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ridotto.core.machine import COORDINATOR
from ridotto.errors import PeerProtocolError, RoundFailedError
from ridotto.secagg.committee.setup import CommitteeFailure, CommitteeSetup
from ridotto.secagg.committee_roles.agreement import check_ack
from ridotto.secagg.committee_roles.complaints import Verdict, settle
from ridotto.secagg.committee_roles.messages import Acks, MemberBook
from ridotto.secagg.committee_roles.roster import strictly_sorted


def short_slot(setup: CommitteeSetup, seats: Collection[int], released: bool = False) -> int | None:
    """Return the first slot of which too few are among `seats`, None if there is none.

    released: one of each slot is enough, because a majority agreed before.
    """
    for slot, replicas in enumerate(setup.replicas):
        if len(set(replicas) & set(seats)) < (1 if released else setup.majority(slot)):
            return slot
    return None


def check_replicas(setup: CommitteeSetup, book: MemberBook) -> None:
    """Return if a book has a majority of every slot. Raises PeerProtocolError, blaming the coordinator, if not."""
    slot = short_slot(setup, [entry.seat for entry in book.entries])
    if slot is not None:
        raise PeerProtocolError(COORDINATOR, f"its book has no majority of slot {slot}")


def check_slot_acks(setup: CommitteeSetup, slot: int, acks: Acks, statement: bytes) -> None:
    """Return if a majority of a slot's replicas acknowledged this set; verifying stops there.

    Raises PeerProtocolError, blaming the coordinator, if not.
    """
    if not strictly_sorted((vote.seat for vote in acks.votes), len(setup.roster.members)):
        raise PeerProtocolError(COORDINATOR, "its acknowledgements are not sorted by seat")
    votes = [vote for vote in acks.votes if vote.seat in setup.replicas[slot]]
    needed = setup.majority(slot)
    if len(votes) < needed:
        raise PeerProtocolError(COORDINATOR, f"{len(votes)} of slot {slot} acknowledged its set, {needed} are needed")
    for vote in votes[:needed]:
        check_ack(setup.roster, vote.seat, statement, vote.signature, COORDINATOR)


def settle_slots(setup: CommitteeSetup, complaints: Mapping[int, Collection[int]]) -> Verdict:
    """Decide about all complaints, such that a majority of every slot is left.

    complaints: seat -> participants it complains about.
    """
    corrupt = setup.roster.corrupt
    at_fault = settle(complaints, corrupt, len(complaints)).at_fault
    dropped, aside = set(at_fault), set[int]()
    for slot, replicas in enumerate(setup.replicas):
        own = {seat: set(complaints[seat]) - at_fault for seat in replicas if seat in complaints}
        verdict = settle(own, corrupt, setup.majority(slot))
        dropped |= verdict.dropped
        aside |= verdict.aside
    return Verdict(frozenset(dropped), at_fault, frozenset(aside))


def agreed_masks(setup: CommitteeSetup, released: Mapping[int, bytes]) -> tuple[tuple[bytes, ...], frozenset[int]]:
    """Return the masks of every slot, by their SHA-256, and the seats that released others.

    released: seat -> SHA-256 of what it released, at least one of every slot. Replicas of a slot have the same seeds,
    which their participants committed to, so honest ones release the same bytes. Where they differ, the only one that
    more than t of them released is right.
    Raises RoundFailedError(REPLICA_DISAGREE) if there is no such one.
    """
    chosen, wrong = [], set[int]()
    for slot, replicas in enumerate(setup.replicas):
        seats: dict[bytes, list[int]] = {}
        for seat in replicas:
            if seat in released:
                seats.setdefault(released[seat], []).append(seat)
        right = list(seats) if len(seats) == 1 else [one for one in seats if len(seats[one]) > setup.roster.corrupt]
        if len(right) != 1:
            reason = f"the replicas of slot {slot} released {len(seats)} different sums of the same masks"
            raise RoundFailedError(CommitteeFailure.REPLICA_DISAGREE, reason)
        chosen.append(right[0])
        wrong |= {seat for one, found in seats.items() if one != right[0] for seat in found}
    return tuple(chosen), frozenset(wrong)
