"""Softmax over the features of each example: the largest, exponentials, their sum, its reciprocal, and a product.

With m the largest x_i, e_i ~ exp(x_i - m) and s = SUM e_i, the result is y_i = e_i / s. No difference is above zero and
no sum below e(0) ~ 1, which is where the tables of `infer.approximations` hold; `softmax_error` bounds what they do.
All wires are narrow: x^ = x + r_x.

    [1]  m^: see `max_pool`, with all features of an example in one window; four rounds a level
    [2]  local: x^_i - m^, a wire with the mask r_x - r_m
    [3]  e^: the table of exp, four rounds, see `smooth`; truncated in one more, see `ends.Rescale`
    [4]  local: s^ = SUM e^_i, a wire with the mask SUM r_e
    [5]  v^: the table of 1 / s, four rounds, and truncated in one more
    [6]  round: open y + r_y, a wide wire, with y_i = e_i v a product of two secrets:
         offline  dealer: [r_e r_v], and the output's mask
         local    [e v] = e^ v^ - e^ [r_v] - v^ [r_e] + [r_e r_v], since e = e^ - r_e and v = v^ - r_v

Differences and sums of public masked values are public already: [2] and [4] open nothing. For n features that is
11 + 4 ceil(log2 n) rounds.

Against the same computation in plain integers, `reference.fixed_forward`: each e_i may be a unit in the last place
larger, so s up to n units, and 1 / s up to n smaller; so a probability is off by at most max(n + 1, 4) units of 2^-f.
Source: the order of steps as in Knott et al., "CrypTen", NeurIPS 2021; products of masked wires: Patra et al.,
"ABY2.0", USENIX Security 2021. We differ in the tables, where CrypTen takes limits and Newton's iteration.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from ridotto.infer.approximations import EXPONENTIAL, RECIPROCAL, Spline
from ridotto.infer.compare import Form
from ridotto.infer.ends import Rescale
from ridotto.infer.kernels.plain import Side, Words, constant
from ridotto.infer.max_pool import MaxPool
from ridotto.infer.smooth import Smooth
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import (
    Masks,
    ModelShares,
    Narrow,
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
class Softmax:
    """Normalise each row of a narrow wire of shape (batch, features), at most `SOFTMAX_LIMIT` features."""

    batch: int
    features: int
    fraction_bits: int
    compared_bits: int
    form: Form = "boolean"

    @property
    def largest(self) -> MaxPool:
        """Return step [1]."""
        return MaxPool((self.batch, 1, 1, 1), (1, self.features), (1, 1), self.compared_bits, self.form)

    @property
    def powers(self) -> Smooth:
        """Return the table of [3]."""
        return self._table(EXPONENTIAL, self.features)

    @property
    def inverse(self) -> Smooth:
        """Return the table of [5], without the breakpoints that no sum reaches."""
        # Errors add less than one to a sum of at most 128 exponentials, none of which is above one.
        return self._table(RECIPROCAL.below(self.features + 1), 1)

    @property
    def shape(self) -> tuple[int, int]:
        """Return (batch, features)."""
        return (self.batch, self.features)

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wide:
        """Dealer: the material of all steps, in their order."""
        r = narrow(wire).r
        largest = self.largest.deal(dealing, Narrow(self._window(r)), masks)
        powers = self.powers.deal(dealing, Narrow(r - largest.r.reshape(-1, 1)), masks)
        power = Rescale().deal(dealing, powers, masks)
        inverse = Rescale().deal(dealing, self.inverse.deal(dealing, Narrow(_sum(power.r)), masks), masks)
        dealing.share(power.r * inverse.r)
        return deal_wide(dealing, dealing.random(*self.shape), self.fraction_bits)

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wide]:
        """Party: read it."""
        r, parts = narrow(wire).r, {}
        parts["largest"], largest = self.largest.prepare(material, Narrow(self._window(r)), model)
        differences = Narrow(r - largest.r.reshape(-1, 1))
        parts["powers"], powers = self.powers.prepare(material, differences, model)
        parts["power"], power = Rescale().prepare(material, powers, model)
        parts["inverses"], inverses = self.inverse.prepare(material, Narrow(_sum(power.r)), model)
        parts["inverse"], inverse = Rescale().prepare(material, inverses, model)
        product = material.share(*self.shape)
        base = product + material.random(*self.shape) + offset(material.first)
        parts["product"] = Prepared({"factors": (power.r, inverse.r), "base": base})
        return Prepared(dict(parts)), prepare_wide(material, self.shape, self.fraction_bits)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] to [6]."""
        largest = yield from self.largest.run(first, prepared.take("largest"), self._window(value))
        powers = yield from self.powers.run(first, prepared.take("powers"), value - largest.reshape(-1, 1))
        power = yield from Rescale().run(first, prepared.take("power"), powers)
        inverses = yield from self.inverse.run(first, prepared.take("inverses"), _sum(power))
        inverse = yield from Rescale().run(first, prepared.take("inverse"), inverses)
        return (yield from _multiplied(first, prepared.take("product"), power, inverse))

    def _window(self, values: Words) -> Words:
        """Lay rows out as images of one row each, which a pool takes as one window."""
        return values.reshape(self.batch, 1, self.features, 1)

    def _table(self, spline: Spline, width: int) -> Smooth:
        start, slope, turns = spline.integers(self.fraction_bits)
        return Smooth((self.batch, width), self.compared_bits, start, slope, turns, self.form)


def _sum(values: Words) -> Words:
    """Add rows up, of words or of tags. Returns (batch, 1)."""
    total: Words = np.add.reduce(values, axis=1, keepdims=True)
    return total


def _multiplied(first: Side, prepared: Prepared, power: Words, inverse: Words) -> Generator[Words, Words, Words]:
    """Party: [6]."""
    r_power, r_inverse = prepared.take("factors")
    mine: Words = prepared.take("base") - power * r_inverse - inverse * r_power
    mine += constant(first, power * inverse)
    return mine + (yield mine)
