"""`oneshot`: one message per participant, and a committee whose work does not depend on the vectors' length.

    participant              coordinator                committee member
                                                   <-   MemberKey: a fresh key, signed
                        <-   MemberBook            ->
    Contribution: the
    ciphertext, a share
    of its key sealed
    for each member     ->   adds it up, forgets it
                             Parcels               ->   opens, checks, keeps the shares
                                                   <-   Checked: whose did not open
                             takes those out again
                             Included              ->   the final set
                                                   <-   Ack: its Merkle root, signed, once
                             Acks                  ->   checks that a quorum acknowledged the same
                                                   <-   Release: the sum of the shares, once
                             finds wrong releases, puts the sum of the keys together, opens the
                             sum with it and checks that the noise is that of the contributions

The vector is encrypted with ring-LWE under a key of the participant's own (`crypto.lattice.kahe`); the key is shared
among the committee (`crypto.lattice.packed_shamir`). Whoever has the sum of the shares has the sum of the keys, which
opens the sum of the ciphertexts and nothing else. No participant is needed after its one message, so those who leave
before it cost nothing and none can leave after it.

Source: Karthikeyan, Polychroniadou, "OPA: One-shot Private Aggregation with Single Client Interaction and its
Applications to Federated Learning", 2024, for one message and a committee; Bell et al., "ACORN", USENIX Security 2023,
for the encryption; Bonawitz et al., CCS 2017, for what is signed. Where we differ: ring-LWE and packed Shamir; X25519
keys that live for one session; the committee acknowledges one root before anybody releases; wrong releases are
corrected and the noise is checked. docs/protocols/oneshot.md has the messages byte by byte and what this does not
protect against. Nobody outside the project has reviewed it.

In reading order: `setup.py`, `messages.py`, `binding.py`, `participant.py`, `member.py`, `coordinator.py`,
`release.py` (its last step), `tasks.py` and `ciphersum.py` (large vectors).
"""

from __future__ import annotations

from ridotto.secagg.oneshot.coordinator import OneshotCoordinator
from ridotto.secagg.oneshot.member import OneshotMember
from ridotto.secagg.oneshot.participant import OneshotParticipant
from ridotto.secagg.oneshot.setup import OneshotSetup

__all__ = ["OneshotCoordinator", "OneshotMember", "OneshotParticipant", "OneshotSetup"]
