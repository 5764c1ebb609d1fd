"""Hash a list into one root such that a short proof shows that something is in it.

A leaf is SHA-256(00 || data), an inner node SHA-256(01 || left || right); a list of n splits at the largest power of
two below n; the root of an empty list is SHA-256 of nothing.

Source: RFC 6962, section 2.1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ridotto.errors import LocalProtocolError, PeerProtocolError

HASH_BYTES = 32


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root of a list, 32 bytes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return _leaf(leaves[0])
    split = _split(len(leaves))
    return _node(merkle_root(leaves[:split]), merkle_root(leaves[split:]))


def merkle_proof(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Return the hashes beside the way from leaf `index` to the root, from the leaf up.

    Raises LocalProtocolError if there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise LocalProtocolError(f"there is no leaf {index} among {len(leaves)}")
    if len(leaves) == 1:
        return ()
    split = _split(len(leaves))
    if index < split:
        return (*merkle_proof(leaves[:split], index), merkle_root(leaves[split:]))
    return (*merkle_proof(leaves[split:], index - split), merkle_root(leaves[:split]))


def check_proof(root: bytes, leaf: bytes, index: int, count: int, proof: Sequence[bytes], peer: str) -> None:
    """Return if `leaf` is number `index` of the `count` leaves below `root`.

    peer: who showed the proof. Raises PeerProtocolError if it does not hold.
    """
    if not 0 <= index < count or _climb(leaf, index, count, list(proof)) != root:
        raise PeerProtocolError(peer, "its proof of being in the set does not hold")


def _climb(leaf: bytes, index: int, count: int, proof: list[bytes]) -> bytes | None:
    """Return the root that a proof leads to, or None if its length is wrong."""
    sides = []
    while count > 1:
        split = _split(count)
        left = index < split
        sides.append(left)
        index, count = (index, split) if left else (index - split, count - split)
    if len(sides) != len(proof) or any(len(value) != HASH_BYTES for value in proof):
        return None
    value = _leaf(leaf)
    for left, other in zip(reversed(sides), proof, strict=True):
        value = _node(value, other) if left else _node(other, value)
    return value


def _split(count: int) -> int:
    return 1 << (count - 1).bit_length() - 1


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
