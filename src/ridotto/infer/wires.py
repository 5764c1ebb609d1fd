"""What runs between two steps: a public masked value, and the secret mask behind it.

    narrow   x^ = x + r            f fractional bits; r uniform in Z_2^64
    wide     y^ = y + 2^62 + r     2 f fractional bits, just out of a linear layer, not yet truncated

Both are public to the parties and uniform, because r is. The dealer knows r; the parties have shares of it (narrow), or
of what truncation needs of it (wide):

    a = (r mod 2^63) >> f,   b = 2^(63-f) r_63

With y^ = y' + 2^63 y_63 and Y = y + 2^62 in [0, 2^63):  Y = y' - (r mod 2^63) + 2^63 (y_63 XOR r_63), so

    y >> f  =  (y' >> f) - a + 2^(63-f) (y_63 XOR r_63) - 2^(62-f)        or one more

exactly, for every r: a floor of a difference is the difference of floors, or one less. The XOR with a public bit is
b where y_63 = 0 and 2^(63-f) - b where it is 1. There is no failure with small probability, as in truncation of shares
without a dealer (SecureML, section IV-C).

Source of masked wires: Patra et al., "ABY2.0", USENIX Security 2021; of truncation from a dealt mask: Escudero et al.,
"Improved Primitives for MPC over Mixed Arithmetic-Binary Circuits", CRYPTO 2020.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np

from ridotto.errors import LocalProtocolError
from ridotto.infer.fixed import OFFSET
from ridotto.infer.kernels.plain import LOW_63, Side, Words, constant
from ridotto.infer.streams import Dealing, Material

Rounds: TypeAlias = Generator[Words, Words, Words]
"""One party's half of a protocol: yields what it sends in a round, is sent what the other sent (the same shape)."""


@dataclass(frozen=True, repr=False)
class Narrow:
    """Hold the mask of a narrow wire: the dealer its secret, a party its share. r: (batch, *shape)."""

    r: Words


@dataclass(frozen=True, repr=False)
class Wide:
    """Hold what truncation needs of the mask of a wide wire: the dealer secrets, a party shares of them.

    shift: how many bits truncation removes; f above.
    """

    a: Words
    b: Words
    shift: int


Wire: TypeAlias = Narrow | Wide
"""The secret side of a wire."""


@dataclass(repr=False)
class Prepared:
    """Hold what one step of one party needs online, made ahead. Each is used once, and gone after that."""

    parts: dict[str, Any] = field(default_factory=dict)

    def take(self, name: str) -> Any:
        """Return a part and forget it. Raises KeyError if it was taken before: material is one-time."""
        return self.parts.pop(name)


@dataclass(frozen=True, repr=False)
class LayerShares:
    """Hold one party's side of a layer's parameters for the life of a model.

    weight: additive share of W, (groups, inputs, outputs), f fractional bits. opened: the public W + r_W, same shape.
    bias: additive share, (groups, outputs), 2 f fractional bits.
    """

    weight: Words
    opened: Words
    bias: Words


Masks: TypeAlias = Mapping[str, Words]
"""What the dealer keeps of a model: the mask r_W of each layer's weight, by the layer's name."""

ModelShares: TypeAlias = Mapping[str, LayerShares]
"""What a party keeps of a model, by the layer's name."""


class Step(Protocol):
    """One step of a program: both parties' halves and the dealer's. Implementations are frozen and hold shapes only."""

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wire:
        """Dealer: write this step's material, and return the mask of its output."""

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wire]:
        """Party, offline: read the material, and do all work that needs no input."""

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party, online: from the public input to the public output, round by round."""


def narrow(wire: Wire) -> Narrow:
    """Return `wire`, which the program says is narrow."""
    if not isinstance(wire, Narrow):
        raise LocalProtocolError("a program has a rescaling before a step that needs a narrow wire")
    return wire


def wide(wire: Wire) -> Wide:
    """Return `wire`, which the program says is wide."""
    if not isinstance(wire, Wide):
        raise LocalProtocolError("a program rescales wide wires only")
    return wire


def deal_wide(dealing: Dealing, r: Words, shift: int) -> Wide:
    """Dealer: share what truncation by `shift` bits needs of the mask `r` of a wide wire."""
    wide = Wide((r & LOW_63) >> np.uint64(shift), (r >> np.uint64(63)) << np.uint64(63 - shift), shift)
    dealing.share(wide.a)
    dealing.share(wide.b)
    return wide


def prepare_wide(material: Material, shape: tuple[int, ...], shift: int) -> Wide:
    """Party: read its shares of it."""
    return Wide(material.share(*shape), material.share(*shape), shift)


def offset(first: Side) -> Any:
    """Return this side's share of 2^62, which is in every wide wire."""
    return constant(first, np.array([OFFSET], np.uint64))[0]
