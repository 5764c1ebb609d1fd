"""`committee`: one message per participant, and slots of replicas that take off the masks of one agreed set.

    participant              coordinator                committee member (a replica of one slot)
                                                   <-   MemberKey: a fresh key, signed
                        <-   MemberBook            ->
    MaskedVector: one mask
    per slot, its seed
    sealed for each of the
    slot's replicas     ->   adds it up
                             SeedParcels           ->   opens, checks, keeps the seeds
                                                   <-   Checked: whose did not open
                             takes those out again
                             Included              ->   the final set
                                                   <-   Ack: its Merkle root, signed, once
                             Acks                  ->   checks that most of its slot acknowledged the same
                                                   <-   MaskSum: the sum of the slot's masks, once
                             compares the replicas of each slot, subtracts one sum per slot

While in one slot nobody works with the coordinator, it learns the sum of the set and nothing else. No participant is
needed after its one message. Of each slot, most replicas must live until they have acknowledged the set, and one after
that. Members may add noise to what they release: the only protocol here in which noise depends on no participant.

Source: the PET protocol of xaynet (2020), for masks whose seeds are sealed for others, repaired: slots, so that one
colluding helper learns nothing; fresh signed keys; one acknowledged set; commitments to seeds, so that replicas can't
be given different ones; whose seeds don't open is dropped by name. Bonawitz et al., CCS 2017, for the masks.
docs/protocols/committee.md has the messages byte by byte and what this does not protect against. Nobody outside the
project has reviewed it.

In reading order: `setup.py`, `messages.py`, `binding.py`, `participant.py`, `member.py`, `replicas.py`,
`coordinator.py`, `tasks.py` and `masks.py` (large vectors).
"""

from __future__ import annotations

from ridotto.secagg.committee.coordinator import CommitteeCoordinator
from ridotto.secagg.committee.member import CommitteeMember
from ridotto.secagg.committee.participant import CommitteeParticipant
from ridotto.secagg.committee.setup import CommitteeSetup

__all__ = ["CommitteeCoordinator", "CommitteeMember", "CommitteeParticipant", "CommitteeSetup"]
