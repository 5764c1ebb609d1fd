"""The inner loops on tags: the plain ones, with a word for each public bit and whole numbers for words.

An additive tag is a Python integer (arrays of dtype object), a tag of a bit is a word; see `infer.macs`. What is public
stays uint64. So a protocol runs on tags as it runs on shares, and this module stands where `active()` does.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ridotto.infer.kernels import plain
from ridotto.infer.kernels.plain import Side, Words, select_narrow, select_pair, select_wide, truncated

__all__ = [
    "digits",
    "fold",
    "fold_group",
    "matmul",
    "pack",
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
    """Return left @ right. One of the two is public, the other has dtype object."""
    product: NDArray[Any] = left.astype(object) @ right.astype(object)
    return product
