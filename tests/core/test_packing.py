"""Bit streams: equal to one made bit by bit, one encoding per vector, no copy where none is needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.core.packing import pack, packed_size, unpack
from ridotto.errors import DataError, PlanError

WIDTHS = range(8, 65)


def pack_slowly(values: np.ndarray, bits: int) -> bytes:
    """Write every bit of every element where the definition puts it: the clear version."""
    stream = [value >> place & 1 for value in values.tolist() for place in range(bits)]
    return np.packbits(np.array(stream, np.uint8), bitorder="little").tobytes()


def random_values(bits: int, length: int, seed: int = 0) -> np.ndarray:
    words = np.random.default_rng(seed).integers(0, 2**64, length, dtype=np.uint64)
    return (words >> np.uint64(64 - bits)).astype(container(bits))


def test_packs_by_hand():
    # 0xABC and 0x123 in 12 bits: low byte BC, then A below the 3 of the next, then 12.
    assert bytes(pack(np.array([0xABC, 0x123], np.uint16), 12)) == bytes([0xBC, 0x3A, 0x12])
    # One element of 9 bits takes two bytes; seven bits are padding.
    assert bytes(pack(np.array([0x1FF], np.uint16), 9)) == b"\xff\x01"


@pytest.mark.parametrize("bits", WIDTHS)
def test_equals_the_definition_and_comes_back(bits):
    for length in (0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 130):
        values = random_values(bits, length)
        data = pack(values, bits)
        assert bytes(data) == pack_slowly(values, bits)
        assert len(data) == packed_size(length, bits)
        back = unpack(data, bits, length)
        assert back.dtype == container(bits)
        np.testing.assert_array_equal(back, values)


@pytest.mark.parametrize("bits", [9, 12, 20, 21, 24, 31, 33, 40, 63])
def test_many_chunks_come_back(bits):
    values = random_values(bits, 200_003)
    np.testing.assert_array_equal(unpack(pack(values, bits), bits, values.size), values)


@given(st.data(), st.sampled_from(WIDTHS))
def test_every_vector_comes_back(data, bits):
    values = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=80))
    array = np.array(values, container(bits))
    assert unpack(bytes(pack(array, bits)), bits, len(values)).tolist() == values


@given(st.binary(max_size=60), st.sampled_from(WIDTHS), st.integers(0, 40))
@settings(max_examples=200)
def test_every_stream_that_is_accepted_is_the_only_one(data, bits, length):
    try:
        values = unpack(data, bits, length)
    except DataError:
        return
    assert bytes(pack(values, bits)) == data


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_native_widths_are_views(bits):
    values = random_values(bits, 5)
    data = pack(values, bits)
    assert np.shares_memory(np.frombuffer(data, np.uint8), values)
    back = unpack(memoryview(bytes(data)), bits, 5)
    assert not back.flags.owndata
    assert not back.flags.writeable
    shifted = memoryview(b"header!" + bytes(data))[7:]
    np.testing.assert_array_equal(unpack(shifted, bits, 5), values)


def test_views_of_arrays_with_strides_are_packed_by_value():
    values = random_values(32, 10)[::2]
    assert bytes(pack(values, 32)) == values.tobytes()
    values = random_values(20, 10)[::-1]
    assert bytes(pack(values, 20)) == pack_slowly(values, 20)


@pytest.mark.parametrize("size", [0, 4, 6, 8])
def test_unpack_refuses_wrong_sizes(size):
    with pytest.raises(DataError, match=f"take 5 bytes, not {size}"):
        unpack(bytes(size), 20, 2)


@pytest.mark.parametrize("bit", [4, 7])
def test_unpack_refuses_padding_that_is_not_zero(bit):
    with pytest.raises(DataError, match="padding"):
        unpack(bytes([0, 0, 1 << bit]), 20, 1)


def test_unpack_refuses_a_negative_length():
    with pytest.raises(DataError, match="-1 elements"):
        unpack(b"", 20, -1)


def test_pack_refuses_values_that_do_not_fit():
    with pytest.raises(DataError, match="more than 20 bits"):
        pack(np.array([0, 1 << 20], np.uint32), 20)


@pytest.mark.parametrize("values", [np.zeros(1, np.uint64), np.zeros(1, np.int32), np.zeros((1, 1), np.uint32)])
def test_pack_refuses_another_container(values):
    with pytest.raises(DataError, match="vector of uint32"):
        pack(values, 20)


@pytest.mark.parametrize("bits", [0, 7, 65])
def test_refuses_widths_out_of_range(bits):
    with pytest.raises(PlanError):
        pack(np.zeros(1, np.uint8), bits)
    with pytest.raises(PlanError):
        unpack(b"", bits, 0)
