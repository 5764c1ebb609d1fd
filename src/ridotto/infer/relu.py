"""ReLU: z where z is at least zero, and zero elsewhere, in four rounds.

    offline  dealer: material of the comparison; a random bit rho as additive shares and as a plane; its products with
             the secrets of the input wire; a fresh mask r of the output
    [1]-[3]  two rounds: [b] = [z >= 0], see `compare`
    [4]      round: open b^ = b XOR rho
    [5]      local: b = rho where b^ = 0 and 1 - rho where it is 1; z = public part + [secret part]; so [b z] is a
             public combination of [rho], [rho secret], [secret]
    [6]      round: open b z + r, a narrow wire

From a wide wire, truncation rides along: z is y >> f.
Source: bit injection of Patra et al., "ABY2.0", USENIX Security 2021; the dealt products replace its OTs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridotto.infer.compare import Comparison, Form, compare, deal_compare, opened_bit, prepare_compare
from ridotto.infer.kernels import active, loops
from ridotto.infer.kernels.plain import LOW_63, Side, Words
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Masks, ModelShares, Narrow, Prepared, Rounds, Wide, Wire


@dataclass(frozen=True)
class Relu:
    """Rectify a wire of this shape, wide or narrow, into a narrow one."""

    shape: tuple[int, ...]
    compared_bits: int
    form: Form = "boolean"

    @property
    def comparison(self) -> Comparison:
        """Return the size of its comparison: one an element."""
        return Comparison(math.prod(self.shape), self.compared_bits, self.form)

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Narrow:
        """Dealer: everything under "offline"."""
        secrets = [wire.a, wire.b] if isinstance(wire, Wide) else [wire.r]
        deal_compare(dealing, self.comparison, secrets[0])
        deal_choice(dealing, self.comparison, secrets)
        return Narrow(dealing.random(*self.shape))

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Narrow]:
        """Party: read it."""
        secrets = (wire.a, wire.b) if isinstance(wire, Wide) else (wire.r,)
        size = self.comparison
        shift = wire.shift if isinstance(wire, Wide) else None
        parts: dict[str, Any] = {"compare": prepare_compare(material, size), "shift": shift}
        parts["rho"], choice = prepare_choice(material, size, len(secrets))
        parts["select"] = (*(secret.reshape(-1) for secret in secrets), *choice)
        output = Narrow(material.random(*self.shape))
        return Prepared(parts | {"mask": output.r}), output

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: [1] to [6]."""
        shift, flat = prepared.take("shift"), np.ascontiguousarray(value).reshape(-1)
        public = flat if shift is None else (flat & LOW_63) >> np.uint64(shift)
        share = yield from compare(first, self.comparison, prepared.take("compare"), public)
        bits = yield from opened_bit(first, share, prepared.take("rho"))
        base, material = prepared.take("mask").reshape(-1), prepared.take("select")
        mine: Words
        if shift is None:
            mine = loops(first).select_narrow(flat, bits, *material, base, first)
        else:
            mine = loops(first).select_wide(flat, bits, material, base, shift, first)
        return (mine + (yield mine)).reshape(self.shape)


def deal_choice(dealing: Dealing, size: Comparison, secrets: list[Words]) -> None:
    """Dealer: draw a random bit rho for each comparison; share it and its products with `secrets`."""
    plane = dealing.random_bits(size.words)
    rho = active().unpack(plane, size.count)
    dealing.share(rho)
    for secret in secrets:
        dealing.share(rho * secret.reshape(-1))


def prepare_choice(material: Material, size: Comparison, secrets: int) -> tuple[Words, tuple[Words, ...]]:
    """Party: return its share of rho as a plane, and additive shares of rho and its products with so many secrets."""
    return material.random_bits(size.words), tuple(material.share(size.count) for _ in range(1 + secrets))
