from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.core.vector import Vector
from ridotto.errors import DataError, PlanError
from ridotto.learn.compress.delta import (
    HEAD,
    Delta,
    apply_delta,
    delta_size,
    encode_delta,
    model_digest,
    split_deltas,
)
from tests.learn.compress.helpers import LIMIT, normal, own, vector


def pair(length: int, seed: int = 1) -> tuple[Vector, Vector]:
    old = normal(length, seed)
    return old, old + normal(length, seed + 1, scale=0.01)


def changed(delta: Delta, place: int, value: int) -> bytes:
    data = bytearray(delta.data)
    data[place] = value
    return bytes(data)


@given(st.integers(1, 3000), st.integers(2, 16), st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_participant_and_server_arrive_at_the_same_bits(length: int, bits: int, seed: int) -> None:
    old, new = pair(length, seed)
    delta = encode_delta(old, new, bits, own(seed))
    assert apply_delta(old, delta.data).tobytes() == delta.model.tobytes()
    assert len(delta.data) == delta_size(length, bits)
    assert delta.data[16:48] == model_digest(old)


def test_deltas_stand_one_behind_the_other() -> None:
    old, new = pair(100)
    first, second = encode_delta(old, new, 3, own()).data, encode_delta(new, old, 16, own()).data
    assert list(split_deltas(first + second)) == [first, second]
    assert list(split_deltas(b"")) == []
    for wrong in (first + second[:-1], first + b"x", b"\x00" * 100):
        with pytest.raises(DataError):
            list(split_deltas(wrong))
    huge = bytearray(first)
    huge[8:16] = b"\xff" * 8
    with pytest.raises(DataError, match="are left"):
        list(split_deltas(huge))


def test_a_small_delta_by_hand() -> None:
    # The largest change is 3, and with 3 bits L = 3: the step is 1.
    old, new = vector(10.0, 10.0, 10.0), vector(13.0, 9.0, 10.0)
    delta = encode_delta(old, new, 3, own())
    assert delta.model.tolist() == new.tolist()
    # Codes 6, 2, 3, three bits each from the lowest: 110 | 010 | 011 gives 6 + 2 * 8 + 3 * 64 = 214.
    assert delta.data[HEAD.size :] == np.float32(1).tobytes() + bytes([214, 0])


def test_a_million_entries_of_4_bits_take_an_eighth_of_float32() -> None:
    assert delta_size(1_000_000, 4) == 500_000 + 4 * 977 + 80
    assert 4_000_000 / delta_size(1_000_000, 4) > 7.9


@pytest.mark.parametrize("bits", [2, 4, 8, 12])
def test_the_error_is_below_a_step_of_the_block(bits: int) -> None:
    old, new = pair(5000)
    error = np.abs(encode_delta(old, new, bits, own()).model - new).reshape(-1, 1000)
    assert error.max() <= np.abs(new - old).max() / (2 ** (bits - 1) - 1) + 1e-6


@pytest.mark.parametrize("size", [100_000, pytest.param(10_000_000, marks=pytest.mark.slow)])
def test_rounding_is_unbiased(size: int) -> None:
    # Around zero, where adding to the old model rounds nothing away. Errors are at most a step, 0.01 * 5 / 7.
    old, new = np.zeros(size, np.float32), normal(size, scale=0.01)
    error = (encode_delta(old, new, 4, own()).model - new).astype(np.float64)
    assert abs(error.mean()) < LIMIT * error.std() / math.sqrt(size)
    along = error * np.sign(new)
    assert abs(along.mean()) < LIMIT * along.std() / math.sqrt(size)


def test_what_was_lost_can_be_sent_the_next_time() -> None:
    # 20 rounds: with the rest carried over, the model that participants hold stays within one step of the real one.
    held = real = normal(100)
    for round_number in range(20):
        real = real + normal(100, round_number, scale=0.01)
        held = encode_delta(held, real, 3, own(round_number)).model
    assert np.abs(held - real).max() < 0.05


def test_a_model_that_did_not_change_stays_as_it_is() -> None:
    old = normal(2000)
    assert encode_delta(old, old, 4, own()).model.tobytes() == old.tobytes()


def test_refuses_a_delta_for_another_model() -> None:
    old, new = pair(100)
    delta, other = encode_delta(old, new, 4, own()), old.copy()
    other[0] = np.nextafter(other[0], np.float32(9))
    with pytest.raises(DataError, match="fetch the whole model instead"):
        apply_delta(other, delta.data)
    with pytest.raises(DataError, match="fetch the whole model instead"):
        apply_delta(old[:50], delta.data)


def test_refuses_malformed_bytes() -> None:
    old, new = pair(1025)
    delta = encode_delta(old, new, 3, own())
    with pytest.raises(DataError, match="begins with 80 bytes, found 10"):
        apply_delta(old, delta.data[:10])
    for place, value in ((0, 0), (4, 2), (5, 1), (5, 17), (6, 1), (7, 1)):
        with pytest.raises(DataError, match="no delta of this version"):
            apply_delta(old, changed(delta, place, value))
    for data in (delta.data[:-1], delta.data + b"\x00", changed(delta, 5, 4)):
        with pytest.raises(DataError, match="a delta of 1025 entries of"):
            apply_delta(old, data)
    with pytest.raises(DataError, match="padding"):
        apply_delta(old, changed(delta, len(delta.data) - 1, delta.data[-1] | 0x80))
    with pytest.raises(DataError, match="beyond the last one"):
        apply_delta(old, changed(delta, HEAD.size + 8, 0xFF))
    with pytest.raises(DataError, match="not a finite number"):
        apply_delta(old, delta.data[: HEAD.size] + np.float32(np.nan).tobytes() + delta.data[HEAD.size + 4 :])
    with pytest.raises(DataError, match="NaN or infinite"):
        apply_delta(old, delta.data[: HEAD.size] + np.float32(3e38).tobytes() + delta.data[HEAD.size + 4 :])


def test_refuses_a_delta_that_leads_elsewhere() -> None:
    old, new = pair(100)
    delta = encode_delta(old, new, 8, own())
    place = len(delta.data) - 1
    with pytest.raises(DataError, match="leads to another model"):
        apply_delta(old, changed(delta, place, delta.data[place] ^ 1))


@given(st.binary(max_size=200))
def test_only_data_errors_leave_the_decoder(data: bytes) -> None:
    with pytest.raises(DataError):
        apply_delta(np.zeros(10, np.float32), data)
    with pytest.raises(DataError):
        apply_delta(np.zeros(10, np.float32), b"rdlt\x01\x04\x00\x00" + data)


def test_refuses_models_and_bits_that_do_not_fit() -> None:
    old = normal(10)
    for bits in (1, 17, 3.5):
        with pytest.raises(PlanError, match="bits must be a whole number from 2 to 16"):
            encode_delta(old, old, bits, own())
    with pytest.raises(DataError, match="vectors of one shape"):
        encode_delta(old, normal(11), 4, own())
    with pytest.raises(DataError, match="vectors of one shape"):
        encode_delta(old[:0], old[:0], 4, own())
    with pytest.raises(DataError, match="NaN or infinite"):
        encode_delta(old, np.full(10, np.nan, np.float32), 4, own())
    with pytest.raises(DataError, match="NaN or infinite"):
        encode_delta(np.full(10, -3e38, np.float32), np.full(10, 3e38, np.float32), 4, own())
