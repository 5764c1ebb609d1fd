"""Multiply by hidden weights, and convolve: one local product and one round.

[x] is a pair of additive shares, x^ = x + r_x a masked value that both parties know.

    once     a model is shared: parties open W^ = W + r_W; the dealer knows r_W. Kept for the life of the model.
    offline  dealer: [c] = [r_x r_W]; a fresh mask r_y of the output, and what its truncation needs
             party: u = [c] - [r_x] W^ + [b] + [r_y] (+ 2^62 in party 0)
    [1]      local: [y^] = x^ [W] + u, which is x W + b + r_y, because
             x^ W - r_x W^ + r_x r_W = (x^ - r_x) W + r_x (W - W^ + r_W) = x W
    [2]      round: open y^, a wide wire

A convolution is the same product over patches: taking patches is linear. Masks r_x and r_y are fresh in each query; r_W
is not: it masks the same W all the time, and W^ is opened once.
Source: Patra et al., "ABY2.0", USENIX Security 2021 (multiplication with a dealer's correlated masks).
"""

from __future__ import annotations

from dataclasses import dataclass

from ridotto.infer.kernels.plain import Side, Words
from ridotto.infer.ring import Geometry, apply
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
class MaskedProduct:
    """Multiply a narrow wire by a layer's weight and add its bias.

    name: the layer's. output: (batch, *shape of the output, channels last). geometry: None for a plain matrix.
    """

    name: str
    output: tuple[int, ...]
    geometry: Geometry | None
    shift: int

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wide:
        """Dealer: share r_x r_W; draw the output's mask."""
        dealing.share(apply(masks[self.name], narrow(wire).r, self.geometry))
        return deal_wide(dealing, dealing.random(*self.output), self.shift)

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wide]:
        """Party: make u."""
        layer = model[self.name]
        u = material.share(*self.output) - apply(layer.opened, narrow(wire).r, self.geometry)
        u += layer.bias.reshape(-1)
        output = material.random(*self.output)
        u += output
        u += offset(material.first)
        return Prepared({"u": u, "weight": layer.weight}), prepare_wide(material, self.output, self.shift)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] and [2]."""
        mine: Words = apply(prepared.take("weight"), value, self.geometry)
        mine += prepared.take("u")
        return mine + (yield mine)
