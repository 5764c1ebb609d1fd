"""Function secret sharing: keys with which each party alone gets an XOR share of [x < R] for a public x.

A distributed comparison function, n = 8 to 32 bits, R known to the dealer. A key is a seed of 128 bits, of each party's
own, and corrections that both parties have: 16 bytes for each of n - 7 levels and 16 for the leaf, 416 for n = 32.

A tree of seeds of depth n - 7; the path of R's upper bits is special. Each party has a block at every node: a seed s, a
bit t and a bit v. Off R's path both have the same s and t; on it, seeds are independent and t_0 XOR t_1 = 1.

    dealer   for each level, with a = R's bit there (keep: child a, lose: the other):
    [1]      the children's blocks are H(s), H(s XOR 1), see `crypto.fixed_key`; their lowest bits give t and v
    [2]      seed correction: the XOR of both parties' losing seeds, so that off the path they become equal
    [3]      bits correction: makes the losing t equal and the keeping t different; and for v: the sum of all v on the
             way to the losing child becomes [a = 1], because whatever turns left there is smaller than R
    [4]      on the path go down to the keeping child, corrected where t = 1
             leaf: H(s XOR 2), 128 bits for the 128 numbers below; corrected to [number < R's lowest 7 bits]
    party    [5]      the same walk along x: one H a level; its share is the XOR of all v, and of one bit of the leaf

Either key alone is a seed and corrections that are masked by blocks of the other seed: uniform, if AES under a fixed
key is a random permutation. Three bits of each seed carry t, v and nothing, so a seed has 125.
Source: Boyle, Chandran, Gilboa, Gupta, Ishai, Kumar and Rathee, "Function Secret Sharing for Mixed-Mode and Fixed-Point
Secure Computation", Eurocrypt 2021, section 3 (distributed comparison functions); early termination: Boyle, Gilboa and
Ishai, "Function Secret Sharing: Improvements and Extensions", CCS 2016. We differ in children H(s) and
H(s XOR 1) under one fixed key, so that a party hashes once a level.
"""

from __future__ import annotations

import numpy as np

from ridotto.crypto.fixed_key import hash_blocks
from ridotto.infer.kernels.plain import Words
from ridotto.infer.streams import Dealing, Material

LEAF_BITS = 7
"""A leaf is a block of 128 bits: one for each value of the lowest 7 bits."""

ONE = np.uint64(1)
TWO = np.uint64(2)
SEED = np.array([0xFFFFFFFFFFFFFFF8, 0xFFFFFFFFFFFFFFFF], np.uint64)
"""Which bits of a block are the seed; bit 0 is t, bit 1 is v, bit 2 is zero."""

HALF = np.uint64(63)


def levels(bits: int) -> int:
    """Return the depth of the tree for numbers of so many bits, at least 8."""
    return bits - LEAF_BITS


def key_words(count: int, bits: int) -> int:
    """Return how many words the dealer says to each party for `count` comparisons."""
    return 2 * count * (levels(bits) + 1)


def deal_keys(dealing: Dealing, secrets: Words, bits: int, flips: Words) -> None:
    """Dealer: write keys for [x < R] XOR flip. secrets: R in the lowest `bits` bits, (count,). flips: 0 or 1, (count,).

    The flip is where the sum of all v starts: it costs nothing.
    """
    count = secrets.size
    seeds = [seed & SEED for seed in dealing.own(count, 2)]
    # Party 0 starts with t = 0, party 1 with t = 1: the root is on every path.
    turned = [np.zeros(count, np.uint64), np.ones(count, np.uint64)]
    total = flips
    key = np.empty((levels(bits) + 1, count, 2), np.uint64)
    for level in range(levels(bits)):
        bit = secrets >> np.uint64(bits - 1 - level) & ONE
        total = _deal_level(key[level], seeds, turned, total, bit)
    key[-1] = _leaf_pattern(secrets & np.uint64(2**LEAF_BITS - 1), total)
    key[-1] ^= hash_blocks(_tweaked(seeds[0], TWO)) ^ hash_blocks(_tweaked(seeds[1], TWO))
    dealing.publish(key)


def _deal_level(key: Words, seeds: list[Words], turned: list[Words], total: Words, bit: Words) -> Words:
    """Do [1] to [4] for one level: write its correction, move seeds and bits on; return the new sum of v."""
    right = bit.astype(bool)[:, np.newaxis]
    children = [(hash_blocks(seed), hash_blocks(_tweaked(seed, ONE))) for seed in seeds]
    keep = [np.where(right, ones, zeros) for zeros, ones in children]
    lose = [np.where(right, zeros, ones) for zeros, ones in children]
    lost = lose[0] ^ lose[1]
    both = keep[0] ^ keep[1]
    left_turn = (children[0][0] ^ children[1][0])[:, 0] & ONE ^ bit ^ ONE
    right_turn = (children[0][1] ^ children[1][1])[:, 0] & ONE ^ bit
    value = total ^ lost[:, 0] >> ONE & ONE ^ bit
    np.bitwise_and(lost, SEED, out=key)
    key[:, 0] |= left_turn | right_turn << ONE | value << TWO
    for party in range(2):
        own = turned[party]
        seeds[party] = (keep[party] ^ (lost & -own[:, np.newaxis])) & SEED
        turned[party] = keep[party][:, 0] & ONE ^ own & np.where(bit.astype(bool), right_turn, left_turn)
    moved: Words = total ^ both[:, 0] >> ONE & ONE ^ value
    return moved


def prepare_keys(material: Material, count: int, bits: int) -> tuple[Words, Words]:
    """Party: return its seeds, (count, 2), and the corrections, (levels + 1, count, 2)."""
    return material.random(count, 2) & SEED, material.published(levels(bits) + 1, count, 2)


def evaluate(first: bool, keys: tuple[Words, Words], public: Words, bits: int) -> Words:
    """Party: return an XOR share of [x < R] XOR flip, words of 0 or 1, (count,). Takes no round.

    public: x in its lowest `bits` bits, (count,).
    """
    seeds, key = keys
    turned = np.full(public.size, 0 if first else 1, np.uint64)
    share = np.zeros(public.size, np.uint64)
    for level in range(levels(bits)):
        bit = public >> np.uint64(bits - 1 - level) & ONE
        block = hash_blocks(_tweaked(seeds, bit))
        word = key[level, :, 0]
        share ^= block[:, 0] >> ONE ^ turned & word >> TWO
        seeds = (block ^ (key[level] & -turned[:, np.newaxis])) & SEED
        turned = block[:, 0] & ONE ^ turned & word >> bit
        turned &= ONE
    leaf = hash_blocks(_tweaked(seeds, TWO)) ^ (key[-1] & -turned[:, np.newaxis])
    low = public & np.uint64(2**LEAF_BITS - 1)
    half = np.where(low > HALF, leaf[:, 1], leaf[:, 0])
    found: Words = (share ^ half >> (low & HALF)) & ONE
    return found


def _tweaked(seeds: Words, tweak: Words | np.uint64) -> Words:
    """Return a copy with the low word changed: 0 and 1 for the children, 2 for the leaf."""
    changed = seeds.copy()
    changed[:, 0] |= tweak
    return changed


def _leaf_pattern(low: Words, total: Words) -> Words:
    """Return blocks with the bits [number < low] XOR total, (count, 2). low: below 128."""
    # 2^j - 1 has its lowest j bits set; a shift by 64 is none in NumPy, so the full word is taken by hand.
    full = np.uint64(0xFFFFFFFFFFFFFFFF)
    first = np.where(low > HALF, full, (ONE << (low & HALF)) - ONE)
    second = np.where(low > HALF, (ONE << (low & HALF)) - ONE, np.uint64(0))
    pattern: Words = np.stack([first, second], axis=1) ^ (-total)[:, np.newaxis]
    return pattern
