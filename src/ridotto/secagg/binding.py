"""What signatures and commitments of `pairwise` say, byte by byte.

Every statement begins with the sid, so none means anything in another session. Integers are 4 bytes, big-endian.
docs/protocols/pairwise.md repeats this page for other implementations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from enum import Enum

from ridotto.secagg.messages import KeyEntry

KEYS_CONTEXT = "pairwise keys"
CONSISTENCY_CONTEXT = "pairwise consistency"
"""Contexts of the two kinds of signature; `crypto.seal` separates domains by them."""

MASK_LABEL = "pairwise mask"
BOX_LABEL = "pairwise box"
"""Labels under which the two key agreements of a pair are derived."""


class Secret(Enum):
    """Tell a participant's two shared secrets apart."""

    SEED = b"seed"
    MASK_KEY = b"mask key"


def number(value: int) -> bytes:
    """Encode an index."""
    return value.to_bytes(4, "big")


def keys_statement(sid: bytes, member: int, exchange: bytes, mask: bytes) -> bytes:
    """Say: in this session, this member's keys are these two."""
    return sid + number(member) + exchange + mask


def book_root(sid: bytes, entries: Iterable[KeyEntry]) -> bytes:
    """Hash the key book that was shown: who is in it, with which keys."""
    statements = b"".join(keys_statement(sid, entry.member, entry.exchange, entry.mask) for entry in entries)
    return hashlib.sha256(b"book\x00" + sid + statements).digest()


def survivors_statement(sid: bytes, book: bytes, included: Iterable[int]) -> bytes:
    """Say: after this key book, exactly these members' vectors are in the sum."""
    return sid + book + b"".join(number(index) for index in included)


def pair_info(one: int, other: int) -> bytes:
    """Name a pair, the same from both ends."""
    return number(min(one, other)) + number(max(one, other))


def box_context(sid: bytes, book: bytes, owner: int, holder: int) -> bytes:
    """Bind a sealed box to its session, key book, owner and holder."""
    return sid + book + number(owner) + number(holder)


def commit_share(sid: bytes, owner: int, holder: int, secret: Secret, share: bytes) -> bytes:
    """Commit to one share. A share is 9 uniform limbs, so the hash hides it and binds its owner to it."""
    return hashlib.sha256(b"share\x00" + sid + number(owner) + number(holder) + secret.value + share).digest()


def commit_seed(sid: bytes, owner: int, seed: bytes) -> bytes:
    """Commit to a self-mask seed of 32 random bytes."""
    return hashlib.sha256(b"seed\x00" + sid + number(owner) + seed).digest()
