"""Products of many secret bits in one round: masks, and the shares of what sets of masks multiply to.

To multiply secret bits b_j the parties open b_j XOR m_j with fresh masks m_j. Then PRODUCT b_j is a polynomial in the
m_j with public coefficients, and the parties have shares of all products of masks that occur in it.

    offline  dealer: masks m_j (random bits, for which nothing is sent); products of two and more masks (shared)
    online   round: open all b_j XOR m_j
             local: `kernels.fold`

Source: Ohata and Nuida, "Communication-Efficient (Client-Aided) Secure Two-Party Protocols and Its Application", FC
2020.
"""

from __future__ import annotations

import numpy as np

from ridotto.infer.kernels import loops
from ridotto.infer.kernels.plain import Side, Words
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Rounds

FAN_IN = 4
"""Most bits that are multiplied in one round: with 4, 11 products are sent; with 8, it would be 247."""


def deal_products(dealing: Dealing, words: int, sets: tuple[int, ...], masks: int) -> None:
    """Dealer: write masks, and shares of the products of `sets` of them that have two or more. words: of a plane."""
    secret = dealing.random_bits(masks, words)
    several = [subset for subset in sets if subset & (subset - 1)]
    products = np.empty((len(several), words), np.uint64)
    for place, subset in enumerate(several):
        np.bitwise_and.reduce(secret[[j for j in range(masks) if subset >> j & 1]], axis=0, out=products[place])
    # All at once: parties ask for them at once, and streams answer large requests in their own way.
    dealing.share_bits(products)


def prepare_products(material: Material, words: int, sets: tuple[int, ...], masks: int) -> tuple[Words, Words]:
    """Party: return its shares of the masks, (masks, words), and of all `sets`, (number of sets, words)."""
    mine = material.random_bits(masks, words)
    table = np.empty((len(sets), mine.shape[1]), np.uint64)
    products = [place for place, subset in enumerate(sets) if subset & (subset - 1)]
    table[products] = material.share_bits(len(products), words)
    for place, subset in enumerate(sets):
        if not subset & (subset - 1):
            table[place] = mine[subset.bit_length() - 1]
    return mine, table


def levels(count: int) -> list[tuple[int, ...]]:
    """Plan the product of `count` bits: the sizes of the groups of each round, until one bit is left."""
    plan = []
    while count > 1:
        groups = -(-count // FAN_IN)
        plan.append(tuple(count // groups + (i < count % groups) for i in range(groups)))
        count = groups
    return plan


def deal_product(dealing: Dealing, words: int, count: int) -> None:
    """Dealer: write the material for one product of `count` planes."""
    for groups in levels(count):
        for size in groups:
            deal_products(dealing, words, tuple(range(1, 1 << size)), size)


def prepare_product(material: Material, words: int, count: int) -> list[list[tuple[Words, Words]]]:
    """Party: read it."""
    return [
        [prepare_products(material, words, tuple(range(1, 1 << size)), size) for size in groups]
        for groups in levels(count)
    ]


def product(first: Side, shares: list[list[tuple[Words, Words]]], planes: Words) -> Rounds:
    """Party: return an XOR share of the product (AND) of all planes. planes: XOR shares, (count, words)."""
    for groups in shares:
        mine = planes ^ np.concatenate([masks for masks, _ in groups])
        opened = mine ^ (yield mine)
        results, place = [], 0
        for masks, table in groups:
            results.append(loops(first).fold(opened[place : place + len(masks)], table, first))
            place += len(masks)
        planes = np.stack(results)
    total: Words = planes[0]
    return total
