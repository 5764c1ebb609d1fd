"""Share a 32-byte secret so that `threshold` holders can rebuild it and fewer learn nothing.

The field is the integers mod p = 2^31 - 1. A secret is cut into 9 limbs of 30 bits, little-endian; each limb is the
constant term of its own random polynomial of degree threshold - 1, and a share is the 9 values at the holder's point:
36 bytes, 9 little-endian words of 32 bits.

p is a Mersenne prime, so that x mod p is a shift and an addition, and a product of a field element with 16 bits leaves
room for 2^17 of its kind in a 64-bit word: a matrix product over the field is two plain ones, of the low and the high
16 bits.

The privacy is unconditional against holders of fewer than `threshold` shares. Nothing here detects a holder who lies
about its share: a wrong share gives a wrong secret (or, with luck, one that does not decode). Callers authenticate
shares and check what was rebuilt.

Source: Shamir, "How to Share a Secret", CACM 22(11), 1979.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import Rng
from ridotto.errors import LocalProtocolError, ProtocolError

PRIME = (1 << 31) - 1
SECRET_BYTES = 32
LIMBS = 9
LIMB_BITS = 30
SHARE_BYTES = 4 * LIMBS

MAX_THRESHOLD = 1 << 17
"""More terms could overflow the 64-bit sums of `_matmul`: 2^31 * 2^16 * 2^17 = 2^64."""

Field = NDArray[np.uint64]
"""Elements of the field, each in [0, p)."""


class ShareError(ProtocolError):
    """Refuse a share that is malformed, or shares that belong to no secret.

    index: which secret of a batch (0 for a single one). point: the holder of the malformed share; None if each
    share is well-formed and only together they make no sense.
    """

    def __init__(self, why: str, index: int = 0, point: int | None = None) -> None:
        self.index = index
        self.point = point
        super().__init__(why)


def share(secret: bytes, threshold: int, points: Sequence[int], rng: Rng) -> list[bytes]:
    """Return one share of 36 bytes per point, in the order of the points.

    secret: 32 bytes. threshold: t, from 2 (a share of 1 would be the secret itself) to the number of points.
    points: distinct, each in [1, p); the point 0 would be the secret. rng: must be secret; coefficients are drawn
    uniformly mod p by rejection.
    Raises LocalProtocolError if an argument is outside of these.
    """
    if len(secret) != SECRET_BYTES:
        raise LocalProtocolError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    _check_threshold(threshold)
    if threshold > len(points):
        raise LocalProtocolError(f"{len(points)} points can't reach a threshold of {threshold}")
    _check_points(points)
    coefficients = np.empty((threshold, LIMBS), np.uint64)
    coefficients[0] = _to_limbs(secret)
    coefficients[1:] = _uniform((threshold - 1) * LIMBS, rng).reshape(threshold - 1, LIMBS)
    values = _matmul(_powers(tuple(points), threshold), coefficients)
    return [row.tobytes() for row in values.astype("<u4")]


def reconstruct(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Rebuild the secret of 32 bytes from the shares of the `threshold` lowest points; others are not looked at.

    shares: point -> share.
    Raises LocalProtocolError if there are fewer than `threshold` or a point is impossible, and ShareError if a share
    that is used is malformed or the result is no secret.
    """
    return reconstruct_many([shares], threshold)[0]


def reconstruct_many(batch: Sequence[Mapping[int, bytes]], threshold: int) -> list[bytes]:
    """Rebuild several secrets that were shared among the same points, in their order.

    batch: for each secret, point -> share; the `threshold` lowest points are used and must be the same for all, so that
    Lagrange's weights are computed once.
    Raises as `reconstruct`, and LocalProtocolError if the points differ. A ShareError's `index` names the secret.
    """
    _check_threshold(threshold)
    if not batch:
        return []
    points = tuple(sorted(batch[0])[:threshold])
    if len(points) < threshold:
        raise LocalProtocolError(f"{len(points)} shares are fewer than the threshold of {threshold}")
    _check_points(points)
    if any(tuple(sorted(shares)[:threshold]) != points for shares in batch[1:]):
        raise LocalProtocolError("the secrets of one batch need shares of the same points")
    values = np.stack([_parse(shares, points, index) for index, shares in enumerate(batch)], axis=1)
    limbs = _matmul(_weights(points), values.reshape(threshold, -1)).reshape(len(batch), LIMBS)
    return [_from_limbs(row, index) for index, row in enumerate(limbs.tolist())]


def _check_threshold(threshold: int) -> None:
    if not 2 <= threshold <= MAX_THRESHOLD:
        raise LocalProtocolError(f"a threshold lies between 2 and {MAX_THRESHOLD}, not at {threshold}")


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points):
        raise LocalProtocolError("two holders have the same point")
    if min(points) < 1 or max(points) >= PRIME:
        raise LocalProtocolError(f"a point lies between 1 and {PRIME - 1}")


def _parse(shares: Mapping[int, bytes], points: Sequence[int], index: int) -> Field:
    """Return the shares at `points` as field elements, shape (len(points), LIMBS)."""
    for point in points:
        if len(shares[point]) != SHARE_BYTES:
            raise ShareError(f"the share at point {point} has not {SHARE_BYTES} bytes", index, point)
    words = np.frombuffer(b"".join(shares[point] for point in points), "<u4").reshape(len(points), LIMBS)
    bad = np.flatnonzero((words >= PRIME).any(axis=1))
    if bad.size:
        point = points[int(bad[0])]
        raise ShareError(f"the share at point {point} is not reduced mod 2^31 - 1", index, point)
    return words.astype(np.uint64)


def _to_limbs(secret: bytes) -> list[int]:
    number = int.from_bytes(secret, "little")
    return [(number >> (LIMB_BITS * i)) & ((1 << LIMB_BITS) - 1) for i in range(LIMBS)]


def _from_limbs(limbs: Sequence[int], index: int) -> bytes:
    # Honest shares always give limbs of 30 bits and a number of 256. Anything else proves that a share was wrong, and
    # carrying it over into the next limb would hide that.
    number = sum(limb << (LIMB_BITS * i) for i, limb in enumerate(limbs))
    if max(limbs) >> LIMB_BITS or number >> (8 * SECRET_BYTES):
        raise ShareError("the shares do not belong to one secret", index)
    return number.to_bytes(SECRET_BYTES, "little")


def _uniform(count: int, rng: Rng) -> Field:
    """Draw `count` uniform field elements: 31 bits each, and again where they are p itself."""
    values = _random_31_bits(count, rng)
    rejected = np.flatnonzero(values == PRIME)
    while rejected.size:
        values[rejected] = _random_31_bits(rejected.size, rng)
        rejected = rejected[values[rejected] == PRIME]
    return values


def _random_31_bits(count: int, rng: Rng) -> Field:
    return (np.frombuffer(rng.bytes(4 * count), "<u4") & np.uint32(PRIME)).astype(np.uint64)


def _reduce(values: NDArray[np.uint64]) -> Field:
    """Reduce 64-bit numbers mod p. Each fold replaces 2^31 by 1: after two of them at most 2^31 + 3 is left."""
    values = (values & np.uint64(PRIME)) + (values >> np.uint64(31))
    values = (values & np.uint64(PRIME)) + (values >> np.uint64(31))
    return np.where(values >= PRIME, values - np.uint64(PRIME), values)


def _matmul(left: Field, right: Field) -> Field:
    """Multiply two matrices over the field, shapes (n, t) and (t, m), t <= MAX_THRESHOLD."""
    low = _reduce(left @ (right & np.uint64(0xFFFF)))
    high = _reduce(left @ (right >> np.uint64(16)))
    return _reduce(low + (high << np.uint64(16)))


# The two tables depend on public numbers only. A participant shares two secrets among the same points, and a
# coordinator rebuilds one secret per participant from the same holders.


@lru_cache(maxsize=4)
def _powers(points: tuple[int, ...], threshold: int) -> Field:
    """Return points ** (0 .. threshold - 1), shape (len(points), threshold), by doubling."""
    base = np.array(points, np.uint64)[:, np.newaxis]
    powers = np.ones_like(base)
    while powers.shape[1] < threshold:
        powers = np.concatenate([powers, _reduce(powers * base)], axis=1)
        base = _reduce(base * base)
    powers = np.ascontiguousarray(powers[:, :threshold])
    powers.flags.writeable = False
    return powers


@lru_cache(maxsize=64)
def _weights(points: tuple[int, ...]) -> Field:
    """Return Lagrange's weights at zero, shape (1, len(points)): w_i = prod over j != i of x_j / (x_j - x_i)."""
    x = np.array(points, np.uint64)
    differences = _reduce(x[np.newaxis, :] + np.uint64(PRIME) - x[:, np.newaxis])
    np.fill_diagonal(differences, 1)
    numerators = np.tile(x, (len(points), 1))
    np.fill_diagonal(numerators, 1)
    inverses = [pow(int(product), -1, PRIME) for product in _row_products(differences)]
    weights = _reduce(_row_products(numerators) * np.array(inverses, np.uint64))[np.newaxis, :]
    weights.flags.writeable = False
    return weights


def _row_products(matrix: Field) -> Field:
    """Multiply up each row, halving it until one column is left."""
    while (width := matrix.shape[1]) > 1:
        half = width // 2
        product = _reduce(matrix[:, :half] * matrix[:, half : 2 * half])
        matrix = np.concatenate([product, matrix[:, 2 * half :]], axis=1)
    return matrix[:, 0]
