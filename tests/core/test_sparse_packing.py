from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.fixedpoint import container
from ridotto.core.packing import pack, packed_size
from ridotto.core.sparse_packing import pack_shorter, sparse_size, unpack_either
from ridotto.errors import DataError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocols" / "ideal.md"


def sparse(length: int, count: int, bits: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    values = np.zeros(length, container(bits))
    places = generator.choice(length, count, replace=False)
    values[places] = generator.integers(1, 1 << min(bits, 62), count, dtype=np.uint64).astype(values.dtype)
    return values


def places_form() -> bytes:
    """Return 1,000 elements of 16 bits, of which three are not zero, at places of 10 bits: 8 + 4 + 6 bytes."""
    values = np.zeros(1000, np.uint16)
    values[[1, 2, 999]] = [7, 8, 9]
    return bytes(pack_shorter(values, 16))


def bitmap_form() -> bytes:
    """Return 100 elements of 16 bits, of which 60 are not zero, behind 13 bytes of bits."""
    return bytes(pack_shorter(sparse(100, 60, 16), 16))


def test_bytes_by_hand() -> None:
    places = (1 | 2 << 10 | 999 << 20).to_bytes(4, "little")
    assert places_form() == bytes([6]) + bytes(7) + places + bytes([7, 0, 8, 0, 9, 0])
    assert f"`{places_form().hex(' ')}`" in PAGE.read_text(encoding="utf-8")
    values = np.array([0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0], np.uint16)
    # The same size for two places of 8 bits as for 16 bits: then it is the bits.
    assert bytes(pack_shorter(values, 16)) == bytes([5]) + bytes(7) + bytes([0b10, 0b10]) + bytes([5, 0, 6, 0])


@given(st.integers(1, 2000), st.floats(0, 1), st.integers(8, 64), st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_vectors_come_back_and_the_form_is_the_shorter_one(length: int, part: float, bits: int, seed: int) -> None:
    count = round(part * length)
    values = sparse(length, count, bits, seed)
    data = pack_shorter(values, bits)
    assert len(data) == sparse_size(count, length, bits) <= packed_size(length, bits)
    assert (unpack_either(data, bits, length) == values).all()
    assert (unpack_either(pack(values, bits), bits, length) == values).all()


def test_a_percent_of_a_million_elements_takes_a_hundredth_of_them_with_their_places() -> None:
    assert sparse_size(10_000, 1_000_000, 32) == 8 + 10_000 * (20 + 32) // 8
    assert sparse_size(1_000_000, 1_000_000, 32) == 4_000_000


@pytest.mark.parametrize("cut", [b"", b"\x00" * 7, places_form()[:-1], places_form() + b"\x00", bitmap_form()[:-1]])
def test_refuses_other_sizes(cut: bytes) -> None:
    length = 100 if cut == bitmap_form()[:-1] else 1000
    with pytest.raises(DataError):
        unpack_either(cut, 16, length)


def test_refuses_a_longer_vector() -> None:
    with pytest.raises(DataError, match="take 200 bytes, not 201"):
        unpack_either(bytes(201), 16, 100)


def test_refuses_places_that_do_not_ascend_or_are_beyond() -> None:
    good = places_form()
    for places in ((2, 1, 999), (1, 1, 999), (1, 2, 1000)):
        wrong = sum(place << 10 * number for number, place in enumerate(places)).to_bytes(4, "little")
        with pytest.raises(DataError, match="do not ascend, or are beyond 1000"):
            unpack_either(good[:8] + wrong + good[12:], 16, 1000)


def test_refuses_zeros_among_the_elements_and_bits_in_paddings() -> None:
    good = places_form()
    with pytest.raises(DataError, match="a zero stands among"):
        unpack_either(good[:-2] + bytes(2), 16, 1000)
    with pytest.raises(DataError, match="padding"):
        unpack_either(good[:11] + bytes([good[11] | 0x80]) + good[12:], 16, 1000)
    bits = bitmap_form()
    with pytest.raises(DataError, match="other bits are set"):
        unpack_either(bits[:20] + bytes([bits[20] | 0x80]) + bits[21:], 16, 100)
    with pytest.raises(DataError, match="other bits are set"):
        unpack_either(bits[:8] + bytes(13) + bits[21:], 16, 100)


def test_refuses_the_longer_of_the_two_forms() -> None:
    values = np.zeros(1000, np.uint16)
    values[[1, 2, 999]] = [7, 8, 9]
    longer = (2 * 3 + 1).to_bytes(8, "little") + np.packbits(values != 0, bitorder="little").tobytes()
    with pytest.raises(DataError, match="are not the sparse form"):
        unpack_either(longer + places_form()[12:], 16, 1000)


def test_a_huge_number_takes_no_memory() -> None:
    with pytest.raises(DataError, match="are not the sparse form"):
        unpack_either(b"\xff" * 100, 32, 1000)


@given(st.binary(max_size=70), st.integers(1, 200), st.sampled_from([8, 12, 32]))
@settings(max_examples=200, deadline=None)
def test_only_data_errors_leave_and_what_is_read_is_canonical(data: bytes, length: int, bits: int) -> None:
    try:
        values = unpack_either(data, bits, length)
    except DataError:
        return
    assert data in (bytes(pack_shorter(values, bits)), bytes(pack(values, bits)))
