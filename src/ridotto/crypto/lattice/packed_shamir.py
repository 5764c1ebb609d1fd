"""Share the 4,096 coefficients of a key among a committee, many secrets to one polynomial.

The field is the integers mod p = 2^31 - 1. The key is cut into rows of `pack` (rho) coefficients; a row is one
polynomial of degree t + pack - 1 that takes the coefficients at the points -1, ..., -pack and t random values at C + 1,
..., C + t. Member m, of 1..C, gets the value of every row at m: with pack = 21, 196 words of 32 bits, 784 bytes,
however long the vectors are that the key encrypts.

Any t shares are independent of the key. Any t + pack shares give it. Shares add: the sum of the shares of many keys is
a share of the sum of the keys, and that sum is small (54 for each) against p. Replies more than t + pack show wrong
ones, and half of the surplus can be wrong and still be found (`decoding`).

Source: Franklin, Yung, "Communication Complexity of Secure Computation", STOC 1992, section 3, for packed sharing;
Shamir, "How to Share a Secret", CACM 22(11), 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.machine import Buffer
from ridotto.crypto.lattice.decoding import lagrange, wrong_points
from ridotto.crypto.lattice.parameters import DEGREE
from ridotto.crypto.lattice.samplers import stream
from ridotto.crypto.shamir import PRIME, ShareError
from ridotto.errors import LocalProtocolError, PlanError

LARGEST_COMMITTEE = 1024

CHUNK_TERMS = 64
"""Products of 31 by 16 bits that float64 adds up exactly: 2^31 * 2^16 * 64 = 2^53."""

Row = NDArray[np.uint64]
"""Elements of the field, each below p."""

Key = NDArray[np.int64]


@dataclass(frozen=True)
class Sharing:
    """Say how keys are shared: among `members` (C), hidden from any `corrupt` (t), `pack` (rho) secrets a polynomial.

    Raises PlanError unless 1 <= t, 1 <= rho and t + rho <= C <= 1,024.
    """

    members: int
    corrupt: int
    pack: int

    def __post_init__(self) -> None:
        if not (self.corrupt >= 1 and self.pack >= 1 and self.needed <= self.members <= LARGEST_COMMITTEE):
            raise PlanError(
                f"a committee of {self.members} can't hide from {self.corrupt} what {self.corrupt} + {self.pack} open"
            )

    @property
    def needed(self) -> int:
        """Return how many right replies open a key: t + rho."""
        return self.corrupt + self.pack

    @property
    def rows(self) -> int:
        """Return the number of polynomials."""
        return -(-DEGREE // self.pack)

    @property
    def share_bytes(self) -> int:
        """Return the size of one member's share."""
        return 4 * self.rows

    def correctable(self, replies: int) -> int:
        """Return how many of so many replies may be wrong and are found: half of what is not needed."""
        return max(0, (replies - self.needed) // 2)


def share_key(key: Key, sharing: Sharing, seed: bytes) -> list[bytes]:
    """Return the shares of members 1..C, `sharing.share_bytes` each.

    key: signed coefficients, shape (4096,). seed: 32 secret bytes, for this key alone.
    Raises LocalProtocolError if the key has another shape.
    """
    if key.shape != (DEGREE,):
        raise LocalProtocolError(f"a key has {DEGREE} coefficients, not {key.shape}")
    secrets = np.zeros(sharing.rows * sharing.pack, np.int64)
    secrets[:DEGREE] = key
    values = np.empty((sharing.needed, sharing.rows), np.uint64)
    values[: sharing.pack] = (secrets % PRIME).astype(np.uint64).reshape(sharing.rows, sharing.pack).T
    values[sharing.pack :] = _uniform(seed, sharing.corrupt * sharing.rows).reshape(sharing.corrupt, sharing.rows)
    shares = _matmul(_sharing_matrix(sharing), values).astype("<u4")
    return [row.tobytes() for row in shares]


class ShareSum:
    """Add up the shares that one member was sent."""

    def __init__(self, sharing: Sharing) -> None:
        self._sharing = sharing
        self._total: Row = np.zeros(sharing.rows, np.uint64)

    def add(self, share: Buffer) -> None:
        """Add one share. Raises ShareError if it is malformed."""
        self._total += parse_share(share, self._sharing)

    def to_bytes(self) -> bytes:
        """Return the sum, a share of the sum of the keys."""
        return (self._total % np.uint64(PRIME)).astype("<u4").tobytes()


def parse_share(share: Buffer, sharing: Sharing) -> Row:
    """Return a share's words. Raises ShareError if its size is wrong or a word is not below p."""
    if len(share) != sharing.share_bytes:
        raise ShareError(f"a share has {sharing.share_bytes} bytes, not {len(share)}")
    words = np.frombuffer(share, "<u4")
    if words.max() >= PRIME:
        raise ShareError("a share is not reduced mod 2^31 - 1")
    return words.astype(np.uint64)


def recover_key(replies: Mapping[int, Buffer], sharing: Sharing) -> tuple[Key, tuple[int, ...]]:
    """Return the key (or sum of keys) that the replies share, int64, and whose replies do not fit, sorted.

    replies: by member, 1..C. At most `sharing.correctable(len(replies))` of them may be wrong. With more of them the
    result can be another key: whoever opens a sum with it checks the noise.
    Raises ShareError if they share no key, and LocalProtocolError if there are fewer than needed.
    """
    points = sorted(replies)
    if len(points) < sharing.needed:
        raise LocalProtocolError(f"{len(points)} shares are fewer than the {sharing.needed} that are needed")
    if points[0] < 1 or points[-1] > sharing.members:
        raise LocalProtocolError(f"members are 1 to {sharing.members}")
    words = np.stack([parse_share(replies[point], sharing) for point in points])
    wrong = wrong_points(points, words, sharing.needed)
    right = [index for index, point in enumerate(points) if point not in wrong][: sharing.needed]
    source = tuple(points[index] for index in right)
    secrets = _matmul(_matrix(source, tuple(PRIME - place for place in _places(sharing))), words[right])
    key = secrets.T.reshape(-1).astype(np.int64)
    key[key > PRIME // 2] -= PRIME
    if np.any(key[DEGREE:]):
        raise ShareError("the shares do not share a key")
    return key[:DEGREE], wrong


def _places(sharing: Sharing) -> range:
    return range(1, sharing.pack + 1)


@lru_cache(maxsize=8)
def _sharing_matrix(sharing: Sharing) -> Row:
    """Return what turns (secrets, random values) into the members' shares, shape (C, t + rho)."""
    random_points = range(sharing.members + 1, sharing.members + sharing.corrupt + 1)
    source = (*(PRIME - place for place in _places(sharing)), *random_points)
    return _matrix(source, tuple(range(1, sharing.members + 1)))


@lru_cache(maxsize=32)
def _matrix(source: tuple[int, ...], target: tuple[int, ...]) -> Row:
    """Return what turns values at `source` into values at `target`, shape (target, source)."""
    return np.array(lagrange(source, target), np.uint64)


def _uniform(seed: bytes, count: int) -> Row:
    """Draw uniform field elements: 31 bits each, those that are p itself left out."""
    drawn = count
    while True:
        words = stream(seed, "share", drawn, np.uint32) & np.uint32(PRIME)
        kept = words[words != PRIME]
        if len(kept) >= count:
            elements: Row = kept[:count].astype(np.uint64)
            return elements
        drawn += 64


def _matmul(left: Row, right: Row) -> Row:
    """Multiply two matrices over the field exactly, shapes (n, k) and (k, m), by float64 products of 31 by 16 bits."""
    total = np.zeros((left.shape[0], right.shape[1]), np.uint64)
    for begin in range(0, left.shape[1], CHUNK_TERMS):
        part = left[:, begin : begin + CHUNK_TERMS].astype(np.float64)
        rows = right[begin : begin + CHUNK_TERMS]
        low = (part @ (rows & np.uint64(0xFFFF)).astype(np.float64)).astype(np.uint64)
        high = (part @ (rows >> np.uint64(16)).astype(np.float64)).astype(np.uint64)
        total += (low + ((high % np.uint64(PRIME)) << np.uint64(16))) % np.uint64(PRIME)
    reduced: Row = total % np.uint64(PRIME)
    return reduced
