"""Sigmoid, tanh and GELU: continuous functions of straight pieces, in four rounds whatever their number.

f(x) ~ a + s x + SUM_j c_j relu(x - t_j) with public whole numbers a, s, c_j, t_j (`infer.approximations`, with the
bounds of the error). All breakpoints are compared at once.

    offline  dealer: for each breakpoint the material of a comparison with r, rho_j and rho_j r; the output's mask
    [1]-[3]  two rounds: [b_j] = [x >= t_j] for all j, see `compare`: public x^ - t_j against the secret r
    [4]      round: open b_j XOR rho_j
    [5]      local: [b_j (x - t_j)], see `relu`; [y] = a + s [x] + SUM_j c_j [b_j (x - t_j)], 14 more fractional bits
    [6]      round: open y + r_y, a wide wire

Source: splines between two parties: Mohassel and Zhang, "SecureML", IEEE S&P 2017, section IV-D; ours have more pieces.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridotto.infer.approximations import COEFFICIENT_BITS
from ridotto.infer.compare import Comparison, Form, compare, deal_compare, opened_bit, prepare_compare
from ridotto.infer.kernels import loops
from ridotto.infer.kernels.plain import Side, Words, constant
from ridotto.infer.relu import deal_choice, prepare_choice
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
class Smooth:
    """Apply a spline to a narrow wire of this shape.

    start: a, 14 + f fractional bits. slope: s, 14. turns: (t_j, c_j), f and 14 fractional bits.
    """

    shape: tuple[int, ...]
    compared_bits: int
    start: int
    slope: int
    turns: tuple[tuple[int, int], ...]
    form: Form = "boolean"

    @property
    def comparison(self) -> Comparison:
        """Return the size of its comparisons: one a breakpoint and element."""
        return Comparison(len(self.turns) * math.prod(self.shape), self.compared_bits, self.form)

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wide:
        """Dealer: everything under "offline"."""
        secrets = self._for_each_turn(narrow(wire).r)
        deal_compare(dealing, self.comparison, secrets)
        deal_choice(dealing, self.comparison, [secrets])
        return deal_wide(dealing, dealing.random(*self.shape), COEFFICIENT_BITS)

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wide]:
        """Party: read it; what of y depends on masks alone is added up now."""
        r, size = narrow(wire).r, self.comparison
        parts: dict[str, Any] = {"compare": prepare_compare(material, size)}
        parts["rho"], choice = prepare_choice(material, size, 1)
        parts["select"] = (self._for_each_turn(r), *choice)
        parts["mask"] = material.random(*self.shape) - _word(self.slope) * r + offset(material.first)
        return Prepared(parts), prepare_wide(material, self.shape, COEFFICIENT_BITS)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] to [6]."""
        knots = np.array([_word(knot) for knot, _ in self.turns])
        public = (value.reshape(1, -1) - knots[:, np.newaxis]).reshape(-1)
        share = yield from compare(first, self.comparison, prepared.take("compare"), public)
        bits = yield from opened_bit(first, share, prepared.take("rho"))
        nothing = np.zeros_like(prepared.parts["mask"], shape=public.shape)
        chosen = loops(first).select_narrow(public, bits, *prepared.take("select"), nothing, first)
        factors = np.array([_word(turn) for _, turn in self.turns])
        total = (factors[:, np.newaxis] * chosen.reshape(len(self.turns), -1)).sum(axis=0)
        mine: Words = prepared.take("mask") + total.reshape(self.shape)
        mine += constant(first, _word(self.slope) * value + _word(self.start))
        return mine + (yield mine)

    def _for_each_turn(self, values: Words) -> Words:
        return np.tile(values.reshape(-1), len(self.turns))


def _word(number: int) -> np.uint64:
    return np.uint64(number % (1 << 64))
