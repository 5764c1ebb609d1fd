"""The ends of a program and its joints: take an input in, reorder, truncate, hand logits out.

`TakeInput`: parties hold [x]. Round: open x + r, a narrow wire. Nothing is dealt: r is random.
`TakeSealed`, `SealOutput`: the same ends where the client has masked the input and unmasks the output, see
`authenticated`.
`Rescale`: from wide to narrow. Round: open (y >> f) + r, see `wires`.
`Flatten`: local: channels slowest, as layers behind it expect.
`Logits`: local: [z]. Its shares go to the client alone, who learns z and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ridotto.infer.kernels import loops
from ridotto.infer.kernels.plain import Side, Words, constant
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Masks, ModelShares, Narrow, Prepared, Rounds, Wide, Wire, wide


@dataclass(frozen=True)
class TakeInput:
    """Mask shares of an input of this shape, (batch, ..), channels last."""

    shape: tuple[int, ...]

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Narrow:
        """Dealer: draw the mask."""
        return Narrow(dealing.random(*self.shape))

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Narrow]:
        """Party: read its share."""
        r = material.random(*self.shape)
        return Prepared({"mask": r}), Narrow(r)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: open. value: its share of the input."""
        mine: Words = value.reshape(self.shape) + prepared.take("mask")
        return mine + (yield mine)


@dataclass(frozen=True)
class TakeSealed:
    """Take an input of this shape that the client has masked: x + r is public already, and takes no round."""

    shape: tuple[int, ...]

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Narrow:
        """Dealer: share the client's mask."""
        return Narrow(dealing.sealed(*self.shape))

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Narrow]:
        """Party: read its share."""
        return Prepared(), Narrow(material.share(*self.shape))

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: pass on. value: the masked input."""
        yield from ()
        return value


@dataclass(frozen=True)
class SealOutput:
    """Open an output under a mask that only the client knows. bits: whether it is planes, and not words."""

    shape: tuple[int, ...]
    bits: bool

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wire:
        """Dealer: share the client's mask."""
        if self.bits:
            dealing.sealed_bits(*self.shape)
        else:
            dealing.sealed(*self.shape)
        return wire

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wire]:
        """Party: read its share."""
        read = material.share_bits if self.bits else material.share
        return Prepared({"mask": read(*self.shape)}), wire

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: open. value: its share of the output."""
        mask = prepared.take("mask")
        if self.bits:
            mine: Words = value ^ mask
            return mine ^ (yield mine)
        mine = value + mask
        return mine + (yield mine)


@dataclass(frozen=True)
class Rescale:
    """Truncate a wide wire into a narrow one."""

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Narrow:
        """Dealer: draw the new mask."""
        return Narrow(dealing.random(*wide(wire).a.shape))

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Narrow]:
        """Party: read its share."""
        r = material.random(*wide(wire).a.shape)
        return Prepared({"wire": wire, "mask": r}), Narrow(r)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: truncate, mask, open."""
        mine: Words = prepared.take("mask") + _truncated(prepared.take("wire"), value, first)
        return mine + (yield mine)


@dataclass(frozen=True)
class Flatten:
    """Lay (batch, rows, columns, channels) out as (batch, features), channels slowest."""

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wire:
        """Dealer: reorder the masks."""
        return _flat(wire)

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wire]:
        """Party: reorder their shares."""
        return Prepared(), _flat(wire)

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: reorder the public values; no round."""
        yield from ()
        return channels_first(value).reshape(len(value), -1)


@dataclass(frozen=True)
class Logits:
    """End with an additive share of the outputs, f fractional bits, channels first."""

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Wire:
        """Dealer: nothing."""
        return wire

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Wire]:
        """Party: keep the shares of the last wire."""
        return Prepared({"wire": wire}), wire

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: its share; no round."""
        yield from ()
        wire = prepared.take("wire")
        if isinstance(wire, Wide):
            return channels_first(_truncated(wire, value, first))
        return channels_first(constant(first, value) - wire.r)


def channels_first(values: Words) -> Words:
    """Turn (batch, rows, columns, channels) into (batch, channels, rows, columns); leave other shapes as they are."""
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if values.ndim == 4 else values


def channels_last(values: Words) -> Words:
    """Turn (batch, channels, rows, columns) into (batch, rows, columns, channels); leave other shapes as they are."""
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1)) if values.ndim == 4 else values


def _flat(wire: Wire) -> Wire:
    match wire:
        case Narrow(r):
            return Narrow(channels_first(r).reshape(len(r), -1))
        case Wide(a, b, shift):
            return Wide(channels_first(a).reshape(len(a), -1), channels_first(b).reshape(len(b), -1), shift)


def _truncated(wire: Wide, value: Words, first: Side) -> Words:
    parts = (np.ascontiguousarray(part) for part in (value, wire.a, wire.b))
    share: Words = loops(first).truncated(*parts, wire.shift, first)
    return share
