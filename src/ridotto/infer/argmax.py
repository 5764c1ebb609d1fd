"""Find the largest of n numbers and reveal nothing but its place: all pairs at once, then a product of bits.

    offline  dealer: material of n (n - 1) / 2 comparisons; of the products below
    [1]-[3]  two rounds: [b_ij] = [z_i >= z_j] for all i < j, see `compare`
    [4]      local: i is largest if it wins against all others: b_ij for j > i, NOT b_ji for j < i. Of equals, the first
             wins, as in NumPy
    [5]      one round for up to 4, two for up to 16, three for up to 64 opponents: the product, see `products`

The result is a one-hot row as XOR shares, which go to the client alone. Source: all pairs at once as in Knott et al.,
"CrypTen", NeurIPS 2021; the products of many bits: see `products`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ridotto.infer.compare import Comparison, Form, compare, deal_compare, prepare_compare
from ridotto.infer.kernels import loops
from ridotto.infer.kernels.plain import LOW_63, Side, Words, ones, words_of
from ridotto.infer.products import deal_product, prepare_product, product
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Masks, ModelShares, Prepared, Rounds, Wide, Wire

CLASS_LIMIT = 256
"""All pairs of so many are 32,640 comparisons an example, about a megabyte of material."""


@dataclass(frozen=True)
class Argmax:
    """Find the largest of `classes` in each row of a wire of shape (batch, classes)."""

    batch: int
    classes: int
    compared_bits: int
    form: Form = "boolean"

    @property
    def comparison(self) -> Comparison:
        """Return the size of its comparisons: all pairs of all rows."""
        return Comparison(len(self._pairs()[0]) * self.batch, self.compared_bits, self.form)

    @property
    def words(self) -> int:
        """Return how many words a plane of one bit a class and row has."""
        return words_of(self.classes * self.batch)

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wire:
        """Dealer: everything under "offline"."""
        deal_compare(dealing, self.comparison, self._differences(wire.a if isinstance(wire, Wide) else wire.r))
        deal_product(dealing, self.words, self.classes - 1)
        return wire

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wire]:
        """Party: read it."""
        comparison = prepare_compare(material, self.comparison)
        shares = prepare_product(material, self.words, self.classes - 1)
        shift = wire.shift if isinstance(wire, Wide) else None
        return Prepared({"compare": comparison, "product": shares, "shift": shift}), wire

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] to [5]. Returns one plane: bit `class * batch + row`."""
        shift = prepared.take("shift")
        public = value if shift is None else (value & LOW_63) >> np.uint64(shift)
        share = yield from compare(first, self.comparison, prepared.take("compare"), self._differences(public))
        return (yield from product(first, prepared.take("product"), self._arranged(share, first)))

    def _pairs(self) -> tuple[list[int], list[int]]:
        pairs = list(combinations(range(self.classes), 2))
        return [i for i, _ in pairs], [j for _, j in pairs]

    def _differences(self, values: Words) -> Words:
        """Return z_i - z_j of all pairs: (pairs * batch,), pair by pair."""
        columns, (i, j) = values.T, self._pairs()
        return (columns[i] - columns[j]).reshape(-1)

    def _arranged(self, share: Words, first: Side) -> Words:
        """Return planes (opponents, words): for each class and row, a share of whether it wins against opponent o."""
        n, (i, j), module = self.classes, self._pairs(), loops(first)
        bits = module.split(share, self.comparison.count)
        wins = np.zeros((n, n, self.batch), np.uint64)
        wins[i, j] = bits.reshape(-1, self.batch)
        wins[j, i] = bits.reshape(-1, self.batch) ^ ones(first)
        others = wins[~np.eye(n, dtype=bool)].reshape(n, n - 1, self.batch).transpose(1, 0, 2).reshape(n - 1, -1)
        padded = np.zeros((n - 1, self.words * 64), np.uint64)
        padded[:, : others.shape[1]] = others
        packed: Words = module.pack(padded)
        return packed


def classes_of(plane: Words, batch: int, classes: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return the class of each row, (batch,), from the revealed plane."""
    bits = np.unpackbits(plane.view(np.uint8), bitorder="little", count=batch * classes).reshape(classes, batch)
    return np.asarray(bits.argmax(axis=0), np.int64)
