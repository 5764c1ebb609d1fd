"""What privacy costs a participant: noise drawn exactly, rounding within a norm, in NumPy and in compiled loops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import numpy as np

from bench.floor import raw_mask
from bench.measure import Bar, Line, Lines, Task, in_turn
from ridotto.core.fixedpoint import CHUNK_ELEMENTS, Rounder
from ridotto.privacy.clip import clip_factor, row_norms
from ridotto.privacy.local.privunit import PrivUnit2
from ridotto.privacy.noise.discrete_gaussian import DiscreteGaussian
from ridotto.privacy.noise.encode import encode_private
from ridotto.privacy.noise.loops import LOOPS, load_kernels
from ridotto.privacy.noise.ring import IntegerNoise, add_noise
from ridotto.privacy.noise.skellam import Skellam
from ridotto.privacy.noise.words import Words

LENGTH = 1_000_000
NOISE_MS = 10.0
ENCODE_MS = 5.0
NOISES: tuple[tuple[str, IntegerNoise], ...] = (
    ("discrete Gaussian, sigma 2", DiscreteGaussian(2.0)),
    ("discrete Gaussian, sigma 20", DiscreteGaussian(20.0)),
    ("discrete Gaussian, sigma 1,000", DiscreteGaussian(1000.0)),
    ("discrete Gaussian, sigma 2^20", DiscreteGaussian(2.0**20)),
    ("Skellam, variance 400", Skellam(400.0)),
    ("Skellam, variance 10^6", Skellam(1e6)),
)
CLIPS = (32, 14), (32, 24), (64, 30)
"""Bits of the ring, and of the clip in its units: 14 are plenty, and a plan takes as many as fit."""
SHARE = DiscreteGaussian(2.0**24 / 10)
"""Of 100 participants whose sum has a noise multiplier of 1, if the clip is 2^24 units."""


def lines(quick: bool) -> Lines:
    repeats = 9 if quick else 31
    yield from engine_lines("NumPy", LOOPS.held(), repeats, promised=False)
    if load_kernels():
        yield from engine_lines("compiled", nullcontext(), repeats, promised=True)
    vector = np.full(LENGTH, 1e-3, np.float32) * np.float32(0.999)
    task = partial(PrivUnit2(8.0, LENGTH, 1.0).randomise, vector, Words(bytes(32)))
    times = in_turn(task, raw_mask(LENGTH // 2), repeats)
    yield Line(what="noise: PrivUnit2, epsilon 8, d = 1,000,000", ours=times.ours * 1e3, wall=times.wall, unit="ms")


def engine_lines(engine: str, loops: AbstractContextManager[None], repeats: int, promised: bool) -> Iterator[Line]:
    """Time rounding and noise in these loops. promised: the bars are for them."""
    total, update = np.zeros(LENGTH, np.uint32), np.sin(np.arange(LENGTH, dtype=np.float32))
    keystream, scratch = raw_mask(LENGTH // 2), np.empty_like(update)
    encode_floor = "floor: one pass, np.multiply with an output"
    noise_floor = "floor: AES keystream of 16 bits for each entry, added"
    with loops:
        one_pass = partial(np.multiply, update, np.float32(0.5), out=scratch)
        for bits, clip_bits in CLIPS:
            yield line(
                f"clip, round, {bits} bits, clip 2^{clip_bits} units, {engine}",
                partial(encode, update, 2.0**clip_bits, bits),
                one_pass,
                repeats,
                Bar("at most", ENCODE_MS) if promised else None,
                encode_floor if clip_bits == CLIPS[0][1] else None,
            )
        yield line(
            f"clip, round, add a share, 32 bits, 2^24 units, {engine}",
            partial(encode, update, 2.0**24, 32, SHARE),
            one_pass,
            repeats,
            Bar("at most", ENCODE_MS + NOISE_MS) if promised else None,
        )
        for name, noise in NOISES:
            yield line(
                f"{name}, {engine}",
                partial(add_noise, total, noise, Words(bytes(32)), out=total),
                keystream,
                repeats,
                Bar("at most", NOISE_MS) if promised else None,
                noise_floor if noise is NOISES[0][1] else None,
            )


def encode(update: np.ndarray, units: float, bits: int, share: IntegerNoise | None = None) -> None:
    """Do what a participant does to an update: norm, clip, dither, round, norm of the integers, noise if there is."""
    norm = row_norms(update[None], Rounder(1, CHUNK_ELEMENTS))[0]
    out = np.empty(LENGTH, f"uint{bits}")
    factor = clip_factor(norm, 1.0)
    encode_private(update, units, 1.0, share, Words(bytes(32)), bits, out, factor=factor, norm=norm)


def line(what: str, ours: Task, floor: Task, repeats: int, bar: Bar | None, note: str | None = None) -> Line:
    times = in_turn(ours, floor, repeats)
    return Line(
        what=f"noise: {what}, d = 1,000,000",
        ours=times.ours * 1e3,
        floor=times.floor * 1e3,
        wall=times.wall,
        unit="ms",
        bar=bar,
        notes=(note,) if note else (),
    )
