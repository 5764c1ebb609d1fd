"""Average over windows: a product with a public number, so only one round and nothing to deal but the output's mask.

offline  party: u = [r_y] - w SUM [r_x] (+ 2^62 in party 0), with w = round(2^f / size of a window)
[1]      local: [y^] = u (+ w SUM x^ in party 0)
[2]      round: open y^, a wide wire
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ridotto.infer.kernels.plain import Side, Words, constant
from ridotto.infer.ring import Pair, windows
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import (
    Masks,
    ModelShares,
    Prepared,
    Rounds,
    Wide,
    Wire,
    deal_wide,
    narrow,
    offset,
    prepare_wide,
)


@dataclass(frozen=True)
class AveragePool:
    """Take the mean of each window of a narrow wire. output: (batch, rows, columns, channels)."""

    output: tuple[int, ...]
    kernel: Pair
    stride: Pair
    shift: int

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wide:
        """Dealer: draw the output's mask."""
        return deal_wide(dealing, dealing.random(*self.output), self.shift)

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wide]:
        """Party: make u."""
        u = material.random(*self.output) - self._weighted_sum(narrow(wire).r) + offset(material.first)
        return Prepared({"u": u}), prepare_wide(material, self.output, self.shift)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] and [2]."""
        mine: Words = prepared.take("u") + constant(first, self._weighted_sum(value))
        return mine + (yield mine)

    def _weighted_sum(self, values: Words) -> Words:
        weight = np.uint64(round(2**self.shift / math.prod(self.kernel)))
        total: Words = np.add.reduce(windows(values, self.kernel, self.stride))
        return weight * total
