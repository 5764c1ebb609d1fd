"""Entries side by side in one coefficient: what fits, and that every field of a sum is read exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.crypto.lattice.fields import Shape, join, message_bits, noise_limit, split
from ridotto.crypto.lattice.parameters import DEGREE, LARGEST_NOISE, MODULUS, SIGMA_NOISE
from ridotto.errors import LocalProtocolError, PlanError


@pytest.mark.parametrize(
    ("contributions", "bits"), [(1, 84), (1024, 84), (1248, 84), (1249, 82), (2**14, 82), (2**16, 80)]
)
def test_messages_leave_room_for_the_noise_of_all(contributions: int, bits: int) -> None:
    assert message_bits(contributions) == bits
    assert 2**bits * (2 * noise_limit(contributions) + 2) <= MODULUS
    assert noise_limit(contributions) >= 9.1 * SIGMA_NOISE * contributions**0.5


def test_one_contribution_fits_the_products_of_the_encryption() -> None:
    """High half plus lifted noise stays below 2^50 (`Prime.times`), and the noise is positive once lifted."""
    for contributions in (1, 1024, 2**16):
        half = message_bits(contributions) // 2
        assert ((LARGEST_NOISE + 128) << half) + 2**half < 2**50


@pytest.mark.parametrize(
    ("bits", "fields", "megabytes"), [(21, 4, 3.047424), (28, 3, 4.030464), (32, 2, 6.045696), (42, 2, 6.045696)]
)
def test_the_packings_of_a_million_entries(bits: int, fields: int, megabytes: float) -> None:
    shape = Shape(1_000_000, bits, 7, 1024)
    assert (shape.fields, shape.size / 1e6) == (fields, megabytes)


@pytest.mark.parametrize(
    ("bits", "tail", "contributions"), [(7, 0, 2), (65, 0, 2), (21, 11, 2), (21, 0, 0), (21, 0, 65537)]
)
def test_impossible_shapes_are_refused(bits: int, tail: int, contributions: int) -> None:
    with pytest.raises(PlanError):
        Shape(10, bits, tail, contributions)


def test_vectors_of_another_shape_are_refused() -> None:
    shape = Shape(10, 21, 2, 5)
    for vector in (np.zeros(9, np.uint32), np.zeros(10, np.uint16), np.zeros((10, 1), np.uint32)):
        with pytest.raises(LocalProtocolError):
            join(vector, shape)


def total_of(halves: list[tuple[np.ndarray, np.ndarray]], shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Add messages as the ring does, as whole numbers, and take all offsets but one off."""
    offset = join(np.zeros(shape.length, container(shape.bits)), shape)
    numbers = np.zeros(shape.coefficients, object)
    for low, high in halves:
        numbers += low.reshape(-1).astype(object) + (high.reshape(-1).astype(object) << shape.half)
    one = offset[0].reshape(-1).astype(object) + (offset[1].reshape(-1).astype(object) << shape.half)
    numbers -= (len(halves) - 1) * one
    mask = 2**shape.half - 1
    low = np.array([number & mask for number in numbers], np.uint64)
    high = np.array([(number >> shape.half) & mask for number in numbers], np.uint64)
    return low, high


@given(
    bits=st.integers(8, 64),
    contributions=st.integers(1, 5),
    length=st.integers(1, 40),
    tail=st.integers(0, 40),
    data=st.data(),
)
@settings(max_examples=40)
def test_sums_of_fields_are_sums_of_entries(
    bits: int, contributions: int, length: int, tail: int, data: st.DataObject
) -> None:
    shape = Shape(length, bits, min(tail, length), contributions)
    head = length - shape.tail
    most, most_tail = (2 ** (bits - 1) - 1) // contributions, (2**bits - 1) // contributions
    rows = []
    for _ in range(contributions):
        signed = data.draw(st.lists(st.integers(-most, most), min_size=head, max_size=head))
        rows.append(signed + data.draw(st.lists(st.integers(0, most_tail), min_size=shape.tail, max_size=shape.tail)))
    dtype = container(bits)
    vectors = [np.array([value % 2**bits for value in row], dtype) for row in rows]
    found = split(*total_of([join(vector, shape) for vector in vectors], shape), shape)
    assert found.tolist() == [sum(column) % 2**bits for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("bits", [8, 21, 28, 32, 42, 64])
def test_parts_joined_are_the_whole_joined(bits: int) -> None:
    shape = Shape(3 * DEGREE * (84 // bits) - 5, bits, 9, 3)
    vector = (np.arange(shape.length, dtype=np.uint64) * np.uint64(2654435761)) & np.uint64(2**bits - 1)
    vector = vector.astype(container(bits))
    low, high = join(vector, shape)
    for index in range(shape.elements):
        part = join(vector, shape, range(index, index + 1))
        np.testing.assert_array_equal(part[0][0], low[index])
        np.testing.assert_array_equal(part[1][0], high[index])
    np.testing.assert_array_equal(split(low, high, shape), vector)
