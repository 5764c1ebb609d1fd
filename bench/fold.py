"""The coordinator's addition of packed masked vectors."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.measure import Bar, Line, Lines, in_turn
from ridotto.core.fixedpoint import container
from ridotto.core.packing import pack
from ridotto.core.vector import Field, Layout
from ridotto.rounds.plan import Plan
from ridotto.rounds.vault import Vault

PACKED_BYTES = 4_000_000


def make_vault(plan: Plan, length: int) -> Vault:
    return Vault(plan, Layout((Field("w", (length,), "float32"),)), np.zeros(length, np.float32))


def lines(quick: bool) -> Lines:
    total, other = (np.ones(PACKED_BYTES // 4, np.uint32) for _ in range(2))
    for bits in (32, 24, 20, 16):
        plan = Plan(cohort=10, bits=bits, value_range=0.1, max_examples=100)
        vault = make_vault(plan, PACKED_BYTES * 8 // bits)
        values = np.random.default_rng(1).integers(0, 2**bits, vault.pipeline.length, dtype=np.uint64)
        packed = pack(values.astype(container(bits)), bits)
        times = in_turn(
            partial(vault.fold, b"s", packed),
            partial(np.add, total, other, out=total),
            repeats=21 if quick else 51,
        )
        yield Line(
            what=f"fold: 4 MB of {bits}-bit elements into a sum",
            ours=len(packed) / times.ours / 1e9,
            floor=PACKED_BYTES / times.floor / 1e9,
            wall=times.wall,
            unit="GB/s",
            bar=Bar("at least", 1.0),
            notes=("floor: np.add of the same bytes as uint32",) if bits == 32 else (),
        )
