"""`pairwise`: secure sums by pairwise masks that cancel, tolerant of drop-outs, against a lying coordinator.

    participant u                                 coordinator
    0 PublicKeys: two X25519 keys, signed    ->
                                             <-   KeyBook: everyone's keys            U1 = who is in it
    1 SealedShares: of a self-mask seed b_u
      and of the mask key, for each holder   ->
                                             <-   Delivery: the boxes meant for u     U2 = who shared
    2 Masked: x_u + PRG(b_u)
      + sum over v > u of PRG(s_uv)
      - sum over v < u of PRG(s_uv)          ->   folds it into the sum, forgets it
                                             <-   Survivors: whose vectors are in     U3 = who is in the sum
    3 Consistency: signs the survivor list   ->
                                             <-   Evidence: the signatures
    4 Unmask: its own seed, and per member
      of U2 one share: of b_v if v survived,
      of v's mask key if not; never both     ->   removes what did not cancel, checks the lanes

s_uv is agreed by the mask keys of u and v. The threshold is `graph.complete_threshold` over U1, or the plan's
for a sparse graph.

Source: Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017, figure 4
with the parts for active adversaries. Graph: Bell et al., CCS 2020. Where we differ: signatures are by long-term
identity keys that the roster names, over the sid that hashes plan and model; shares are committed to by hash, so a
forged one is recognised and named when it arrives; what is reconstructed is checked against the signed public key
or the seed's commitment; a survivor reveals its own seed, so its shares are needed only if it leaves between steps
2 and 4; the threshold counts the corrupt explicitly. docs/protocols/pairwise.md has the messages byte by byte,
docs/threats.md what this does and does not protect against.

The two halves are `participant.py` and `coordinator.py`; they would not fit in one file of a readable length.
"""

from __future__ import annotations

from ridotto.secagg.pairwise.coordinator import PairwiseCoordinator
from ridotto.secagg.pairwise.participant import PairwiseParticipant

__all__ = ["PairwiseCoordinator", "PairwiseParticipant"]
