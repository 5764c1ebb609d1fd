"""Take the largest of each window: a tournament, four rounds a level, all windows at once.

A wide wire's level and a narrow one's differ only in what is known of z:

    offline  dealer: material of a comparison with R_1 - R_0; rho and its products; a fresh mask r for each winner
    [1]-[3]  two rounds: [b] = [z_1 >= z_0], see `compare`: public t_1 - t_0 against the secret R_1 - R_0
    [4]      round: open b^ = b XOR rho
    [5]      local: [z_0 + b (z_1 - z_0)], see `relu`
    [6]      round: open it + r, a narrow wire

A value without an opponent goes on: as it is on a narrow wire, truncated and masked afresh in [6] on a wide one.
Source: the tournament is Rathee et al.'s, "CrypTFlow2", CCS 2020; comparing masked wires as in `compare`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ridotto.infer.compare import Comparison, Form, compare, deal_compare, opened_bit, prepare_compare
from ridotto.infer.kernels import loops
from ridotto.infer.kernels.plain import LOW_63, Side, Words, constant
from ridotto.infer.relu import deal_choice, prepare_choice
from ridotto.infer.ring import Pair, windows
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Masks, ModelShares, Narrow, Prepared, Rounds, Wide, Wire


@dataclass(frozen=True)
class MaxPool:
    """Reduce windows of a wire of shape (batch, rows, columns, channels). output: the result's shape, same order."""

    output: tuple[int, ...]
    kernel: Pair
    stride: Pair
    compared_bits: int
    form: Form = "boolean"

    def deal(self, dealing: Dealing, wire: Wire, masks: Masks) -> Narrow:
        """Dealer: all levels, one after the other."""
        if isinstance(wire, Wide):
            r = self._deal_wide(dealing, self._players(wire.a), self._players(wire.b))
        else:
            r = self._players(wire.r)
        while len(r) > 1:
            pairs, size = _pairs(r), self._size(len(r) // 2)
            difference = (pairs[1] - pairs[0]).reshape(-1)
            deal_compare(dealing, size, difference)
            deal_choice(dealing, size, [difference])
            r = np.concatenate([dealing.random(*pairs[0].shape), r[2 * len(pairs[0]) :]])
        return Narrow(r[0].reshape(self.output))

    def prepare(self, material: Material, wire: Wire, model: ModelShares) -> tuple[Prepared, Narrow]:
        """Party: read all levels."""
        parts: list[Prepared] = []
        shift = None
        if isinstance(wire, Wide):
            shift = wire.shift
            level, r = self._prepare_wide(material, self._players(wire.a), self._players(wire.b))
            parts.append(level)
        else:
            r = self._players(wire.r)
        while len(r) > 1:
            level, r = self._prepare_narrow(material, r)
            parts.append(level)
        return Prepared({"levels": parts, "shift": shift}), Narrow(r[0].reshape(self.output))

    def run(self, first: Side, prepared: Prepared, value: Words) -> Rounds:
        """Party: level after level, until one player a window is left."""
        players, shift = self._players(value), prepared.take("shift")
        for level in prepared.take("levels"):
            if shift is not None:
                players = yield from self._run_wide(first, level, players, shift)
                shift = None
            else:
                players = yield from self._run_narrow(first, level, players)
        return np.asarray(players[0].reshape(self.output), np.uint64)

    def _players(self, values: Words) -> Words:
        """Return (places in a window, windows)."""
        return np.stack([place.reshape(-1) for place in windows(values, self.kernel, self.stride)])

    def _size(self, pairs: int) -> Comparison:
        return Comparison(pairs * math.prod(self.output), self.compared_bits, self.form)

    def _deal_wide(self, dealing: Dealing, a: Words, b: Words) -> Words:
        size, pairs = self._size(len(a) // 2), (_pairs(a), _pairs(b))
        if size.count:
            difference = (pairs[0][1] - pairs[0][0]).reshape(-1)
            deal_compare(dealing, size, difference)
            deal_choice(dealing, size, [difference, *pairs[1]])
        return dealing.random(-(-len(a) // 2), a.shape[1])

    def _prepare_wide(self, material: Material, a: Words, b: Words) -> tuple[Prepared, Words]:
        size, pairs = self._size(len(a) // 2), (_pairs(a), _pairs(b))
        parts: dict[str, Any] = {"alone": (a[2 * len(pairs[0][0]) :], b[2 * len(pairs[0][0]) :])}
        if size.count:
            parts["compare"] = prepare_compare(material, size)
            parts["rho"], choice = prepare_choice(material, size, 3)
            order = (pairs[0][0], pairs[1][0], pairs[0][1], pairs[1][1])
            parts["select"] = (*(np.ascontiguousarray(part).reshape(-1) for part in order), *choice)
        parts["mask"] = r = material.random(-(-len(a) // 2), a.shape[1])
        return Prepared(parts), r

    def _run_wide(self, first: Side, level: Prepared, y: Words, shift: int) -> Generator[Words, Words, Words]:
        size, mask, alone = self._size(len(y) // 2), level.take("mask"), level.take("alone")
        mine: Words = np.empty_like(mask)
        if size.count:
            y0, y1 = (np.ascontiguousarray(part).reshape(-1) for part in _pairs(y))
            f = np.uint64(shift)
            public = ((y1 & LOW_63) >> f) - ((y0 & LOW_63) >> f)
            share = yield from compare(first, size, level.take("compare"), public)
            bits = yield from opened_bit(first, share, level.take("rho"))
            base = mask[: len(y) // 2].reshape(-1)
            won = loops(first).select_pair(y0, y1, bits, level.take("select"), base, shift, first)
            mine[: len(y) // 2] = won.reshape(-1, y.shape[1])
        if len(y) % 2:
            mine[-1] = mask[-1] + loops(first).truncated(y[-1], alone[0][-1], alone[1][-1], shift, first)
        return mine + (yield mine)

    def _prepare_narrow(self, material: Material, r: Words) -> tuple[Prepared, Words]:
        pairs, size = _pairs(r), self._size(len(r) // 2)
        parts: dict[str, Any] = {"compare": prepare_compare(material, size)}
        parts["rho"], choice = prepare_choice(material, size, 1)
        fresh = material.random(*pairs[0].shape)
        parts["select"] = ((pairs[1] - pairs[0]).reshape(-1), *choice, (fresh - pairs[0]).reshape(-1))
        return Prepared(parts), np.concatenate([fresh, r[2 * len(fresh) :]])

    def _run_narrow(self, first: Side, level: Prepared, x: Words) -> Generator[Words, Words, Words]:
        x0, x1 = _pairs(x)
        difference, size = (x1 - x0).reshape(-1), self._size(len(x) // 2)
        share = yield from compare(first, size, level.take("compare"), difference)
        bits = yield from opened_bit(first, share, level.take("rho"))
        mine: Words = loops(first).select_narrow(difference, bits, *level.take("select"), first).reshape(x0.shape)
        mine += constant(first, x0)
        return np.concatenate([(mine + (yield mine)), x[2 * len(x0) :]])


def _pairs(players: Words) -> tuple[Words, Words]:
    """Return the first and the second of each pair."""
    end = len(players) // 2 * 2
    return players[0:end:2], players[1:end:2]
