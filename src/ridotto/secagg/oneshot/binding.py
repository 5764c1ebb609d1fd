"""What signatures and seals of `oneshot` say, byte by byte. `context` is that of `OneshotSetup`."""

from __future__ import annotations

from ridotto.core.wire import digest
from ridotto.secagg.binding import number
from ridotto.secagg.committee_roles.binding import PARCEL_KEY_BYTES, parcel_info

__all__ = [
    "CONTRIBUTION_CONTEXT",
    "PARCEL_KEY_BYTES",
    "PARCEL_LABEL",
    "RELEASE_CONTEXT",
    "contribution_statement",
    "parcel_info",
    "release_statement",
]

CONTRIBUTION_CONTEXT = "oneshot contribution"
RELEASE_CONTEXT = "oneshot release"
"""Contexts of the two kinds of signature; `crypto.seal` separates domains by them."""

PARCEL_LABEL = "oneshot parcel"
"""Label under which participant and member agree on a parcel's key."""


def contribution_statement(context: bytes, book: bytes, participant: int, public: bytes, ciphertext: bytes) -> bytes:
    """Say: with these members' keys, this participant made this key and the ciphertext with this SHA-256."""
    return context + book + number(participant) + public + ciphertext


def release_statement(context: bytes, book: bytes, root: bytes, share: bytes) -> bytes:
    """Say: for this set, this is the sum of my shares."""
    return context + book + root + digest(share)
