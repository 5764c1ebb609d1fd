from __future__ import annotations

import math

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.prg import dither
from ridotto.errors import PlanError
from ridotto.learn.compress.quantize import Likely
from ridotto.learn.compress.rotate import rotate
from tests.learn.compress.helpers import own, shared


@pytest.mark.parametrize("ring", [8, 10, 12])
def test_sums_in_a_likely_ring_wrap_no_more_often_than_promised(ring: int) -> None:
    # 100 participants with one and the same update: the worst case that `alignment=1` stands for.
    length, n = 4096, 100
    likely = Likely(ring, n, 1 / math.sqrt(length), reach=4.0)
    update = np.zeros(length, np.float32)
    update[[7, 100, 2000, 3001]] = 0.5
    steps = rotate().encode(update, shared(), own()).vector / likely.step
    uniform = [dither(insecure_seeded_rng(seed).bytes(32), length) / 2.0**32 for seed in range(n)]
    total = np.sum([np.floor(steps + part) for part in uniform], axis=0)
    wrapped = np.count_nonzero(np.abs(total) >= 2 ** (ring - 1))
    # Of 4,096 entries 2.7 are allowed; four spikes make entries of 0, 1 and 2 deviations, which all fit.
    assert wrapped <= length * 2 * math.exp(-8)
    assert np.abs(total).max() > 2 ** (ring - 1) / 8


def test_the_step_leaves_room_for_rounding_and_noise() -> None:
    likely = Likely(10, 100, entry_deviation=1.0, alignment=0.3, reach=4.0)
    # (alignment * n)^2 * deviation^2 / step^2 + n / 4 = (511 / 4)^2.
    assert (30 / likely.step) ** 2 + 25 == pytest.approx((511 / 4) ** 2)
    assert Likely(10, 100, 1.0, 0.3, 4.0, noise=40.0).step == pytest.approx(likely.step * 50 / 30)


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ({"ring_bits": 7}, "ring_bits must be a whole number from 8 to 64"),
        ({"participants": 0}, "participants must be"),
        ({"entry_deviation": 0.0}, "entry_deviation must be"),
        ({"alignment": 1.5}, "alignment is at most 1"),
        ({"reach": -1.0}, "reach must be"),
        ({"noise": math.nan}, "noise at least 0"),
        ({"participants": 100_000}, "rounding alone needs"),
    ],
)
def test_a_likely_ring_refuses_impossible_numbers(numbers: dict[str, float], why: str) -> None:
    given = {"ring_bits": 8, "participants": 100, "entry_deviation": 1.0} | numbers
    with pytest.raises(PlanError, match=why):
        Likely(**given)
