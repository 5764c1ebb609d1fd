"""Check lanes and values behind a vector, on numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.errors import DataError, PlanError
from ridotto.secagg.lanes import Lanes


@pytest.mark.parametrize(
    ("bits", "participants", "limb_bits"),
    [
        (8, 1, 8),  # 1 * 255 <= 255
        (8, 2, 7),  # 2 * 127 = 254 <= 255, and 2 * 255 is too much
        (8, 3, 6),  # 3 * 63 = 189 <= 255, and 3 * 127 is too much
        (8, 127, 1),
        (8, 255, 1),
        (32, 1000, 22),  # 1000 * (2^22 - 1) < 2^32, and 1000 * (2^23 - 1) is too much
    ],
)
def test_limb_bits_are_the_most_that_can_not_wrap(bits: int, participants: int, limb_bits: int) -> None:
    lanes = Lanes(bits, participants, ())
    assert lanes.limb_bits == limb_bits
    assert participants * (2**limb_bits - 1) < 2**bits
    assert participants * (2 ** (limb_bits + 1) - 1) >= 2**bits


@pytest.mark.parametrize(("bits", "zeros"), [(8, 8), (13, 5), (16, 4), (32, 2), (64, 1)])
def test_zero_lanes_have_at_least_64_bits(bits: int, zeros: int) -> None:
    assert Lanes(bits, 2, ()).zeros == zeros
    assert bits * (1 + zeros) >= 72


def test_writes_count_zeros_and_limbs_low_to_high() -> None:
    """600 in a ring of 8 bits over 3 participants: limbs of 6 bits, 600 = 24 + 9 * 64."""
    lanes = Lanes(8, 3, (1000,))
    assert lanes.limbs == (2,)
    assert lanes.size == 1 + 8 + 2
    assert lanes.write([600]).tolist() == [1, *[0] * 8, 24, 9]
    assert lanes.write([600]).dtype == np.uint8


def test_reads_the_sum_of_three() -> None:
    lanes = Lanes(8, 3, (1000, 1))
    total = lanes.write([600, 1]) + lanes.write([1000, 0]) + lanes.write([7, 1])
    sums = lanes.read(total)
    assert (sums.count, sums.zero, sums.values) == (3, True, (1607, 2))


@given(
    bits=st.integers(8, 64),
    values=st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 1)), min_size=1, max_size=9),
)
def test_sums_of_values_come_back_exactly(bits: int, values: list[tuple[int, int]]) -> None:
    lanes = Lanes(bits, len(values), (10**12, 1))
    total = np.zeros(lanes.size, container(bits))
    for value in values:
        total += lanes.write(value)
    total &= np.array((1 << bits) - 1, total.dtype)
    sums = lanes.read(total)
    assert sums.count == len(values)
    assert sums.zero
    assert sums.values == (sum(a for a, _ in values), sum(b for _, b in values))


@pytest.mark.parametrize("lane", range(1, 9))
def test_any_zero_lane_that_is_not_zero_is_seen(lane: int) -> None:
    lanes = Lanes(8, 3, (1,))
    total = lanes.write([1])
    total[lane] = 1
    assert not lanes.read(total).zero


@pytest.mark.parametrize("value", [-1, 1001])
def test_refuses_a_value_beyond_its_capacity(value: int) -> None:
    with pytest.raises(DataError, match=f"a lane holds 0 to 1000, not {value}"):
        Lanes(32, 3, (1000,)).write([value])


def test_a_capacity_of_zero_takes_one_element() -> None:
    assert Lanes(32, 3, (0,)).limbs == (1,)


def test_refuses_more_participants_than_an_element_can_count() -> None:
    with pytest.raises(PlanError, match="elements of 8 bits have no room for sums over 256 participants"):
        Lanes(8, 256, ())
