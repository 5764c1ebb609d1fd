"""What signatures, seals and commitments of `committee` say, byte by byte. `context` is that of `CommitteeSetup`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ridotto.core.wire import digest
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.binding import PARCEL_KEY_BYTES, parcel_info

__all__ = [
    "CONTRIBUTION_CONTEXT",
    "MASK_LABEL",
    "PARCEL_KEY_BYTES",
    "PARCEL_LABEL",
    "RELEASE_CONTEXT",
    "commit_seed",
    "contribution_statement",
    "noise_seed",
    "parcel_info",
    "release_statement",
]

CONTRIBUTION_CONTEXT = "committee contribution"
RELEASE_CONTEXT = "committee release"
"""Contexts of the two kinds of signature; `crypto.seal` separates domains by them."""

PARCEL_LABEL = "committee parcel"
"""Label under which participant and member agree on a parcel's key."""

MASK_LABEL = "committee mask"
"""Label of the streams that masks are."""


def contribution_statement(
    context: bytes, book: bytes, participant: int, public: bytes, vector: bytes, commitments: Sequence[bytes]
) -> bytes:
    """Say: with these members' keys, this participant made this key, these seeds, and the vector with this SHA-256."""
    return context + book + number(participant) + public + vector + b"".join(commitments)


def commit_seed(context: bytes, participant: int, slot: int, seed: bytes) -> bytes:
    """Commit to a slot's seed of 32 random bytes, so that no two replicas can be given different ones."""
    return digest(b"committee seed\x00" + context + number(participant) + number(slot) + seed)


def contribution_digest(vector: bytes, commitments: Sequence[bytes]) -> bytes:
    """Return what stands for a contribution in a set: the vector with this SHA-256, and these seeds.

    Without the seeds, somebody who signs several lists of them for one vector could have every replica of a slot add
    noise of its own, and the mean of what they release would have less of it.
    """
    return digest(b"committee vector\x00" + vector + b"".join(commitments))


def noise_seed(context: bytes, slot: int, root: bytes, seeds: Iterable[bytes]) -> bytes:
    """Return the seed of a slot's noise: known to whoever knows all seeds of the slot, so to its replicas alone.

    seeds: of the set, sorted by participant. While one honest participant is in it, nobody else can predict the noise.
    """
    return digest(b"committee noise\x00" + context + number(slot) + root + b"".join(seeds))


def release_statement(context: bytes, book: bytes, root: bytes, masks: bytes) -> bytes:
    """Say: for this set, the sum of my slot's masks has this SHA-256."""
    return context + book + root + masks
