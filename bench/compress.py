"""Compression: milliseconds of every codec at d = 1,000,000, and what it saves and loses on real updates.

The table of ratios trains a perceptron (784, 200, 10) on made-up digits: 100 participants with two classes each, one
round from a model that has seen ten. Errors are relative to the mean update: ||decoded mean - mean|| / ||mean||. An
unbiased codec may have one above 1 and still train, because what it loses is another part every round.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from threadpoolctl import threadpool_limits

from bench.measure import Bar, Line, Lines, Task, in_turn
from ridotto.core.fixedpoint import container
from ridotto.core.packing import packed_size
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.sparse_packing import pack_shorter, unpack_either
from ridotto.core.vector import Layout
from ridotto.learn.compress import Shared
from ridotto.learn.compress.count_sketch import count_sketch
from ridotto.learn.compress.delta import apply_delta, encode_delta
from ridotto.learn.compress.rotate import flattened, rotate
from ridotto.learn.compress.sample import _places, sample
from ridotto.learn.compress.sparse import ternary, top_k
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.rounds.compression import (
    Compression,
    CountSketch,
    LowRank,
    Quantize,
    Rotate,
    Sample,
    Ternary,
    TopK,
    leaves_zeros,
)
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Ideal, Plan, Risk

LENGTH = 1_000_000
PARTICIPANTS = 100
SEED = insecure_seeded_rng(1).bytes(32)
SHARED = Shared(SEED)
OWN = insecure_seeded_rng(2)


def lines(quick: bool) -> Lines:
    with threadpool_limits(1):
        yield from speed(9 if quick else 31)
        yield from losses()


def speed(repeats: int) -> Lines:
    update = np.random.default_rng(1).normal(0, 1e-3, LENGTH).astype(np.float32)
    scratch = np.empty_like(update)

    def line(what: str, task: Task, bar: Bar | None = None) -> Line:
        times = in_turn(task, lambda: np.multiply(update, np.float32(0.5), out=scratch), repeats)
        return Line(what, times.ours * 1e3, "ms", times.floor * 1e3, bar, times.wall, ("floor: one pass, np.multiply",))

    turned, quarter = rotate(), sample(0.25)
    sketch, kept, three = count_sketch(5, 50_000), top_k(0.01), ternary()
    rotated = turned.encode(update, SHARED, OWN).vector
    compress = (Rotate(), Sample(0.25), Quantize(bits=10))
    small = Pipeline(Plan(cohort=PARTICIPANTS, clip=1.0, compress=compress, max_examples=1), LENGTH)
    dice = SeededDice(OWN)

    def sample_anew() -> None:
        _places.cache_clear()
        quarter.encode(update, SHARED, OWN)

    yield line("compress: rotate, d = 1,000,000", lambda: turned.encode(update, SHARED, OWN), Bar("at most", 15.0))
    yield line("compress: rotate back", lambda: turned.decode(rotated, LENGTH, SHARED), Bar("at most", 15.0))
    yield line("compress: sample 25 %, places drawn", sample_anew)
    yield line("compress: sample 25 %, places known", lambda: quarter.encode(update, SHARED, OWN))
    what = "compress: clip, rotate, sample 25 %, encode in 10 bits"
    yield line(what, lambda: small.encode(update, 1, {}, dice, seed=SEED))
    yield line("compress: count sketch, 5 x 50,000", lambda: sketch.encode(update, SHARED, OWN))
    yield line("compress: top-k, 1 %", lambda: kept.encode(update, SHARED, OWN))
    yield line("compress: ternary", lambda: three.encode(update, SHARED, OWN))
    sparse = (kept.encode(update, SHARED, OWN).vector * np.float32(1e6)).astype(np.int32).view(np.uint32)
    packed = pack_shorter(sparse, 32)
    yield line("compress: pack 1 % without zeros", lambda: pack_shorter(sparse, 32))
    yield line("compress: unpack it", lambda: unpack_either(packed, 32, LENGTH))
    delta = encode_delta(update, rotated, 4, OWN)
    yield line("compress: delta of 4 bits", lambda: encode_delta(update, rotated, 4, OWN))
    yield line("compress: apply a delta of 4 bits", lambda: apply_delta(update, delta.data))


def losses() -> Lines:
    """Yield the bytes against float32, with the error of the mean of 100 updates in the notes."""
    model, layout, updates = trained()
    entries, clip = layout.length, float(np.median(np.linalg.norm(updates, axis=1)))
    updates *= np.minimum(1, clip / np.linalg.norm(updates, axis=1))[:, None]
    mean = updates.mean(axis=0)
    aligned = float(np.linalg.norm(mean)) / clip
    for what, plan in uploads(entries, clip):
        size, found = summed(Pipeline(plan, layout), updates)
        error = float(np.linalg.norm(found - mean) / np.linalg.norm(mean))
        note = f"relative error of the mean of {PARTICIPANTS}: {error:.3g}"
        yield Line(f"upload: {what}", 4 * entries / size, "x", notes=(note,))
    yield Line("upload: ||mean update|| / clip", aligned, "", notes=(f"d = {entries:,}, clip {clip:.3g}",))
    for bits in (2, 4, 8):
        delta = encode_delta(model, model + mean, bits, OWN)
        error = float(np.linalg.norm(delta.model - model - mean) / np.linalg.norm(mean))
        note = f"relative error of the change: {error:.3g}"
        yield Line(f"download: delta of {bits} bits", 4 * entries / len(delta.data), "x", notes=(note,))


def summed(pipeline: Pipeline, updates: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the bytes of a participant's vector, on average, and the mean update that a coordinator decodes."""
    bits, total, size = pipeline.plan.bits, np.zeros(pipeline.length, container(pipeline.plan.bits)), 0
    for number, update in enumerate(updates):
        dice = SeededDice(insecure_seeded_rng(number))
        vector = pipeline.encode(update, 1, {}, dice, seed=SEED)
        sparse = leaves_zeros(pipeline.plan.compress)
        size += len(pack_shorter(vector, bits)) if sparse else packed_size(len(vector), bits)
        total += vector
    return size / len(updates), pipeline.decode(total, SEED).mean


def uploads(entries: int, clip: float) -> Iterator[tuple[str, Plan]]:
    """Yield (name, plan)."""

    def plan(*compress: Compression, bits: int = 32, value_range: float = 4.0) -> Plan:
        return Plan(
            cohort=PARTICIPANTS,
            protocol=Ideal(),
            i_know=(Risk.NO_PROTECTION,),
            clip=clip,
            max_examples=1,
            bits=bits,
            value_range=value_range,
            compress=compress,
        )

    flat = flattened(clip, entries, 1e-3)
    yield "32 bits", plan()
    yield "16 bits", plan(bits=16, value_range=clip)
    for bits in (15, 10):
        yield f"rotate, ring of {bits}, certain", plan(Rotate(), bits=bits, value_range=flat)
    for bits in (10, 8):
        for alignment in (1.0, 0.3):
            quantize = Quantize(bits=bits, alignment=alignment)
            yield f"rotate, quantize to {bits}, alignment {alignment}", plan(Rotate(), quantize)
            what = f"rotate, sample 25 %, quantize to {bits}, alignment {alignment}"
            yield what, plan(Rotate(), Sample(0.25), quantize)
    yield "sample 25 %", plan(Sample(0.25))
    yield "count sketch, 5 x 8,000", plan(CountSketch(rows=5, columns=8000))
    for rank in (4, 16):
        yield f"low rank, {rank}", plan(LowRank(rank))
    yield "top-k, 1 %, no masks", plan(TopK(0.01))
    yield "top-k, 1 %, 16 bits, no masks", plan(TopK(0.01), bits=16, value_range=clip)
    yield "ternary, no masks", plan(Ternary())
    yield "ternary, 16 bits, no masks", plan(Ternary(), bits=16, value_range=clip)


def trained() -> tuple[np.ndarray, Layout, np.ndarray]:
    """Return a model, its layout and the updates of 100 participants with two classes each."""
    generator, trainer = np.random.default_rng(1), NumpyTrainer((784, 200, 10), seed=1, learning_rate=0.05)
    centres = generator.random((10, 784), np.float32)
    model, parts = trainer.initial(), []
    for _ in range(PARTICIPANTS):
        y = generator.choice(generator.choice(10, 2, replace=False), 60)
        x = centres[y] + generator.normal(0, 1.0, (60, 784)).astype(np.float32)
        parts.append((x.astype(np.float32), y))
    for round_number in range(11):
        rng = insecure_seeded_rng(round_number)
        updates = np.stack([trainer.train(model, part, rng).vector - model for part in parts])
        if round_number < 10:
            model = model + updates.mean(axis=0)
    return model, trainer.layout, updates
