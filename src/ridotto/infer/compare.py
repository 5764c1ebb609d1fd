"""Compare: is a secret z at least zero? Bits of a public number against bits of a dealt one, in two rounds or none.

Known: a public number t and a secret R that the dealer knows, with z = t - R mod 2^k and |z| < 2^(k-1). The sign of z
is bit k - 1 of t - R:   sign = t_{k-1} XOR R_{k-1} XOR [t mod 2^(k-1) < R mod 2^(k-1)].

There are two forms. With form "fss" each party evaluates a key: no round, but 416 bytes of key for k = 33 to both
parties, and a walk through a tree for each comparison, see `fss`. What follows is form "boolean".

The lower k - 1 = 4 D bits are cut into D digits. [x] is a pair of XOR shares; 64 comparisons travel in each word.

    offline  dealer: [R_{k-1}], and for every digit of R all 15 products of its bits; masks for the steps below,
             and the products of masks that occur together
    [1]      local: [less_i] and [equal_i] of each digit: polynomials in dealt products with public coefficients
    [2]      round: the digits form two groups, top and bottom. Open equal_i and less_i, masked
             local: [less] of each group = XOR_i less_i PRODUCT_{j > i} equal_j, and [equal] of the top group
    [3]      round: open equal_top and less_bottom, masked
             local: [less] = less_top XOR equal_top less_bottom;  [z >= 0] = NOT sign

Per comparison with k = 33: 15 bits a direction in two rounds. Errors: none. Each opened bit is masked by a fresh
uniform bit. Source: digits and tree: Rathee et al., "CrypTFlow2", CCS 2020; the products of many masked bits in one
round: Ohata and Nuida, "Communication-Efficient (Client-Aided) Secure Two-Party Protocols and Its Application", FC
2020, and Patra et al., "ABY2.0", USENIX Security 2021. We differ in having a dealer share the products of the bits of
R, so that [1] is free.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ridotto.infer import fss
from ridotto.infer.kernels import active, loops
from ridotto.infer.kernels.plain import Side, Words, constant_plane, words_of
from ridotto.infer.products import deal_products, prepare_products
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Rounds

Form: TypeAlias = Literal["boolean", "fss"]
"""How bits are compared: boolean takes two rounds and little else, fss no round and more of everything else."""


@dataclass(frozen=True)
class Comparison:
    """Fix the sizes of a batch of comparisons.

    count: how many. compared_bits: k = 4 D + 1, D = 2 to 8.
    """

    count: int
    compared_bits: int
    form: Form = "boolean"

    @property
    def words(self) -> int:
        """Return how many words a plane has."""
        return words_of(self.count)

    @property
    def top(self) -> int:
        """Return how many digits the top group has, 1 to 4."""
        return self.digits - self.bottom

    @property
    def bottom(self) -> int:
        """Return how many digits the bottom group has, 1 to 4."""
        return self.digits // 2

    @property
    def digits(self) -> int:
        """Return D."""
        return (self.compared_bits - 1) // 4


@dataclass(frozen=True, repr=False)
class CompareKeys:
    """Hold one party's keys of a batch of comparisons of form "fss"."""

    seeds: Words
    corrections: Words


@dataclass(frozen=True, repr=False)
class CompareShares:
    """Hold one party's material of a batch of comparisons of form "boolean"."""

    bits: Words
    sign: Words
    masks: tuple[Words, Words, Words]
    tables: tuple[Words, Words, Words]


def deal_compare(dealing: Dealing, size: Comparison, secrets: Words) -> None:
    """Dealer: write the material for comparisons with `secrets`, (count,), of which the lowest k bits matter."""
    if size.form == "fss":
        flat, low = secrets.reshape(-1), size.compared_bits - 1
        fss.deal_keys(dealing, flat, low, flat >> np.uint64(low) & fss.ONE)
        return
    planes = active().transpose_bits(secrets.reshape(-1), size.compared_bits)
    dealing.share_bits(active().monomials(planes[:-1]))
    dealing.share_bits(planes[-1])
    deal_products(dealing, size.words, group_sets(size.top, size.top), size.top + size.top - 1)
    deal_products(dealing, size.words, group_sets(size.bottom, size.bottom - 1), 2 * size.bottom - 2)
    deal_products(dealing, size.words, (1, 2, 3), 2)


def prepare_compare(material: Material, size: Comparison) -> CompareShares | CompareKeys:
    """Party: read its shares."""
    if size.form == "fss":
        return CompareKeys(*fss.prepare_keys(material, size.count, size.compared_bits - 1))
    bits, sign = material.share_bits(size.digits, 15, size.words), material.share_bits(size.words)
    top = prepare_products(material, size.words, group_sets(size.top, size.top), 2 * size.top - 1)
    bottom = prepare_products(material, size.words, group_sets(size.bottom, size.bottom - 1), 2 * size.bottom - 2)
    last = prepare_products(material, size.words, (1, 2, 3), 2)
    return CompareShares(bits, sign, (top[0], bottom[0], last[0]), (top[1], bottom[1], last[1]))


def compare(first: Side, size: Comparison, shares: CompareShares | CompareKeys, public: Words) -> Rounds:
    """Party: return an XOR share of [z >= 0], one plane. public: t, (count,), of which the lowest k bits matter."""
    if isinstance(shares, CompareKeys):
        yield from ()
        return _evaluated(first, size, shares, public.reshape(-1))
    module = loops(first)
    planes = module.transpose_bits(public.reshape(-1), size.compared_bits)
    # [1]
    less, equal = module.digits(planes[:-1], shares.bits, first)
    cut = size.bottom
    top = np.concatenate([equal[cut:][::-1], less[cut:-1][::-1]]) ^ shares.masks[0]
    bottom = np.concatenate([equal[1:cut][::-1], less[: cut - 1][::-1]]) ^ shares.masks[1]
    # [2]
    mine = np.concatenate([top, bottom])
    opened = mine ^ (yield mine)
    top, bottom = opened[: len(top)], opened[len(top) :]
    less_top = module.fold_group(top, shares.tables[0], less[-1], size.top, first)
    equal_top = module.fold(top[: size.top], shares.tables[0][: (1 << size.top) - 1], first)
    less_bottom = module.fold_group(bottom, shares.tables[1], less[cut - 1], cut - 1, first)
    # [3]
    mine = np.stack([equal_top, less_bottom]) ^ shares.masks[2]
    opened = mine ^ (yield mine)
    sign: Words = less_top ^ module.fold(opened, shares.tables[2], first) ^ shares.sign
    return sign ^ constant_plane(first, ~planes[-1])


def _evaluated(first: Side, size: Comparison, keys: CompareKeys, public: Words) -> Words:
    low = size.compared_bits - 1
    share = fss.evaluate(first is True, (keys.seeds, keys.corrections), public, low)
    if first is True:
        share ^= ~(public >> np.uint64(low)) & fss.ONE
    padded = np.zeros(size.words * 64, np.uint8)
    padded[: size.count] = share
    plane: Words = np.packbits(padded, bitorder="little").view(np.uint64)
    return plane


def group_sets(digits: int, equals: int) -> tuple[int, ...]:
    """List the products of masks that a group of digits needs, as sets of masks, in the order of the table.

    Mask j < equals is that of the j-th equality from the top; mask equals + c that of the lower "less" c, which meets
    the first c + 1 equalities. See `kernels.plain.fold_group`.
    """
    sets = list(range(1, 1 << equals))
    for c in range(digits - 1):
        sets += [1 << (equals + c) | subset for subset in range(1 << (c + 1))]
    return tuple(sets)


def opened_bit(first: Side, share: Words, mask: Words) -> Rounds:
    """Party: open a plane, masked by a dealt random plane. Both get the masked plane."""
    mine = share ^ mask
    return mine ^ (yield mine)
