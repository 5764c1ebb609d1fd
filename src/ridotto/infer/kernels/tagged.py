"""The inner loops on tags: the plain ones, with a word for each public bit and whole numbers for words.

An additive tag is a Python integer (arrays of dtype object), a tag of a bit is a word; see `infer.macs`. What is public
stays uint64. So a protocol runs on tags as it runs on shares, and this module stands where `active()` does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.infer.kernels import plain
from ridotto.infer.kernels.plain import (
    LIMB_BITS,
    LIMB_DEPTH,
    Side,
    Words,
    select_narrow,
    select_pair,
    select_wide,
    truncated,
)

FIELD_BITS = 512
"""Where a tag begins. Between openings, numbers of 128 bits meet at most three public factors of 64 bits."""

RING = (1 << 128) - 1
HALF = 1 << (FIELD_BITS - 1)
LIMB = np.uint64((1 << LIMB_BITS) - 1)

LEAST_ROWS = 8
"""From so many rows on, cutting numbers into limbs pays (measured)."""

__all__ = [
    "digits",
    "fold",
    "fold_group",
    "matmul",
    "pack",
    "parts",
    "select_narrow",
    "select_pair",
    "select_wide",
    "split",
    "transpose_bits",
    "truncated",
]


def transpose_bits(values: Words, count: int) -> Words:
    """Return bits of public words as planes; see `plain.transpose_bits`."""
    return plain.transpose_bits(values, count)


def digits(public: Words, shares: Words, side: Side) -> tuple[Words, Words]:
    """Return tags of [public digit < secret digit] and of equality; see `plain.digits`. shares: (D, 15, 64 w)."""
    return plain.digits(plain.expand(public), shares, side)


def fold(opened: Words, table: Words, side: Side) -> Words:
    """Return tags of the product of masked bits; see `plain.fold`. table: (.., 64 w)."""
    return plain.fold(plain.expand(opened), table, side)


def fold_group(opened: Words, table: Words, less: Words, equals: int, side: Side) -> Words:
    """Return tags of [number < secret] of a group of digits; see `plain.fold_group`. table, less: (.., 64 w)."""
    return plain.fold_group(plain.expand(opened), table, less, equals, side)


def split(plane: Words, count: int) -> Words:
    """Return tags of the first `count` bits, one by one."""
    return plane[:count]


def pack(bits: Words) -> Words:
    """Return tags of bits, (.., w * 64), as they are: each bit has its word already."""
    return bits


def matmul(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    """Return left @ right, of values and tags mod 2^128. One of the two is public, the other has dtype object.

    Products of many rows go through float64 BLAS in limbs of 22 bits; of few rows, Python's integers are faster.
    """
    if left.dtype == object:
        turned: NDArray[Any] = matmul(np.ascontiguousarray(right.T), left.T).T
        return turned
    if left.shape[0] < LEAST_ROWS:
        product: NDArray[Any] = left.astype(object) @ right
        return product
    return _in_limbs(left, right)


def parts(tags: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Return shares of the lifted words and of their tags, both mod 2^128, one after the other."""
    flat = tags.reshape(-1).tolist()
    macs = [(tag + HALF) >> FIELD_BITS for tag in flat]
    values = [tag - (mac << FIELD_BITS) & RING for tag, mac in zip(flat, macs, strict=True)]
    return values, [mac & RING for mac in macs]


def _in_limbs(left: Words, right: NDArray[Any]) -> NDArray[Any]:
    """Multiply a public matrix by tags. left: (m, k); right: (k, n)."""
    low = [(left >> np.uint64(LIMB_BITS * i) & LIMB).astype(np.float64) for i in range(3)]
    high = np.stack([_limbs(part) for part in parts(right)])
    # (6, k, values and tags and columns): a product needs the first limbs only, so these lie together.
    high = high.reshape(2, 6, *right.shape).transpose(1, 2, 0, 3).reshape(6, right.shape[0], -1)
    sums = np.zeros((6, left.shape[0], high.shape[2]), np.uint64)
    for start in range(0, left.shape[1], LIMB_DEPTH):
        chunk = slice(start, start + LIMB_DEPTH)
        for i in range(3):
            for j in range(6 - i):
                # Exact: sums of 512 products of two 22-bit limbs. Limbs i and j meet at bit 22 (i + j).
                sums[i + j] += (low[i][:, chunk] @ high[j, chunk]).astype(np.uint64)
    total = sum(part.astype(object) << LIMB_BITS * place for place, part in enumerate(sums)) & RING
    halves = np.split(np.asarray(total), 2, axis=1)
    joined: NDArray[Any] = halves[0] + halves[1] * (1 << FIELD_BITS)
    return joined


def _limbs(numbers: list[int]) -> NDArray[np.float64]:
    """Return 6 limbs of 22 bits of each number below 2^128, (6, count)."""
    words = np.frombuffer(b"".join([number.to_bytes(16, "little") for number in numbers]), "<u8").reshape(-1, 2)
    low, high = words[:, 0].astype(np.uint64), words[:, 1].astype(np.uint64)
    shifted = [low, low >> _bits(22), low >> _bits(44) | high << _bits(20), high >> _bits(2), high >> _bits(24)]
    limbs: NDArray[np.float64] = np.stack([(part & LIMB).astype(np.float64) for part in (*shifted, high >> _bits(46))])
    return limbs


def _bits(count: int) -> np.uint64:
    return np.uint64(count)
