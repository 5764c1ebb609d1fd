"""From a float32 update to integers, and on to what one participant sends."""

from __future__ import annotations

import numpy as np

from bench.floor import raw_mask, repeat
from bench.masks import SID, make_masks
from bench.measure import Bar, Line, Lines, in_turn
from ridotto.core.packing import pack
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.crypto.prg import DitherStream, add_masks
from ridotto.rounds.accumulate import Accumulator
from ridotto.rounds.dice import SeededDice, stride
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Plan

LENGTH = 1_000_000
NEIGHBOURS = 99
BLOCKS = (64, 7_850), (4, 159_010)
"""Clients of a block and parameters: logistic regression and a small perceptron on images of 784 pixels."""


def make_update(length: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 0.01, length).astype(np.float32)


def lines(quick: bool) -> Lines:
    update, scratch, dice = make_update(LENGTH), np.empty(LENGTH, np.float32), SeededDice(insecure_seeded_rng(1))
    clipping = Pipeline(Plan(cohort=100, clip=1.0), LENGTH)
    times = in_turn(
        lambda: clipping.encode(update, 600, {}, dice),
        lambda: np.multiply(update, np.float32(0.5), out=scratch),
        repeats=21 if quick else 51,
    )
    yield Line(
        what="encode: check, clip, dither, round, lanes, d = 1,000,000",
        ours=times.ours * 1e3,
        floor=times.floor * 1e3,
        wall=times.wall,
        unit="ms",
        bar=Bar("ratio", 10.0),
        notes=("floor: one pass, np.multiply with an output",),
    )
    for clients, length in BLOCKS:
        yield block_line(clients, length, repeats=21 if quick else 51)
    masks, floor = make_masks(NEIGHBOURS + 1), raw_mask(LENGTH)

    def prepare() -> bytes:
        vector = clipping.encode(update, 600, {}, dice)
        add_masks(vector, masks, SID)
        return digest(pack(vector, 32))

    times = in_turn(prepare, lambda: repeat(len(masks), floor), repeats=3 if quick else 9)
    yield Line(
        what="one participant: encode, 99 + 1 masks, pack, hash, d = 1,000,000",
        ours=times.ours * 1e3,
        floor=times.floor * 1e3,
        wall=times.wall,
        unit="ms",
    )


def block_line(clients: int, length: int, repeats: int) -> Line:
    """Time a block of updates that a simulation adds to its sum, per client; the words are drawn before."""
    updates, scratch = make_update(clients * length).reshape(clients, length), np.empty((clients, length), np.float32)
    examples = np.full(clients, 600)
    words = DitherStream(bytes(32)).words(0, clients * stride(length)).reshape(clients, -1)
    accumulator = Accumulator(Pipeline(Plan(cohort=1000, clip=1.0), length))
    times = in_turn(
        lambda: accumulator.add(updates, examples, {}, words),
        lambda: np.multiply(updates, np.float32(0.5), out=scratch),
        repeats,
    )
    return Line(
        what=f"add {clients} updates to a sum, per client, d = {length:,}",
        ours=times.ours * 1e3 / clients,
        floor=times.floor * 1e3 / clients,
        wall=times.wall,
        unit="ms",
        notes=("check, clip, round, lanes; floor: one pass, np.multiply with an output",),
    )
