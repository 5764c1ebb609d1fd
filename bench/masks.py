"""Expanding pairwise masks and adding them to a vector."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.floor import raw_mask, repeat
from bench.measure import Bar, Line, Lines, in_turn
from ridotto.crypto.prg import Mask, add_masks

SID = b"s" * 32
MASKS = 100


def make_masks(count: int = MASKS) -> list[Mask]:
    return [Mask(index.to_bytes(32, "big"), 1 if index % 2 else -1) for index in range(count)]


def lines(quick: bool) -> Lines:
    for length, repeats in ((10_000, 41), (100_000, 21), (1_000_000, 7 if quick else 15)):
        ours = partial(add_masks, np.zeros(length, np.uint32), make_masks(), SID)
        times = in_turn(ours, partial(repeat, MASKS, raw_mask(length)), repeats)
        yield Line(
            what=f"mask: expand and add one, d = {length:,}",
            ours=times.ours / MASKS * 1e3,
            floor=times.floor / MASKS * 1e3,
            wall=times.wall / MASKS,
            unit="ms",
            bar=Bar("ratio", 1.3) if length == 1_000_000 else None,
        )
