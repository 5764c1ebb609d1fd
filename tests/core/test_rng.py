"""Randomness: streams that repeat themselves, children that are independent, and nothing shown in a repr."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import OsRng, SecretRng, insecure_seeded_rng, numpy_generator
from ridotto.errors import LocalProtocolError

SEED = bytes(range(32))


def test_the_stream_is_blake2b_over_a_counter() -> None:
    blocks = [hashlib.blake2b(i.to_bytes(8, "little"), key=SEED, person=b"stream").digest() for i in range(3)]
    assert SecretRng(SEED).bytes(150) == b"".join(blocks)[:150]


def test_each_call_starts_a_new_block() -> None:
    """Two calls never share a block, so what one call returned says nothing about the next."""
    rng = SecretRng(SEED)
    assert rng.bytes(1) == SecretRng(SEED).bytes(64)[:1]
    assert rng.bytes(64) == SecretRng(SEED).bytes(128)[64:]
    assert rng.bytes(0) == b""


@given(lengths=st.lists(st.integers(0, 200), max_size=8))
def test_same_seed_same_calls_same_bytes(lengths: list[int]) -> None:
    one, two = SecretRng(SEED), SecretRng(SEED)
    drawn = [one.bytes(length) for length in lengths]
    assert drawn == [two.bytes(length) for length in lengths]
    assert [len(piece) for piece in drawn] == lengths


def test_a_child_depends_on_labels_only_and_not_on_what_was_drawn() -> None:
    rng = SecretRng(SEED)
    before = rng.child("a", 1).bytes(32)
    rng.bytes(1000)
    assert rng.child("a", 1).bytes(32) == before
    streams = {rng.child(*labels).bytes(32) for labels in ((), ("a",), ("b",), ("a", 1), ("a", 11), (1, "a"), ("a1",))}
    streams |= {SecretRng(SEED).bytes(32), rng.child("a").child("a").bytes(32), rng.child("a", "a").bytes(32)}
    assert len(streams) == 10


def test_a_numeric_label_is_the_same_as_its_digits() -> None:
    assert SecretRng(SEED).child("round", 1).bytes(8) == SecretRng(SEED).child("round", "1").bytes(8)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_refuses_a_seed_of_another_length(length: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"a seed has 32 bytes, not {length}"):
        SecretRng(bytes(length))


def test_the_seed_is_not_in_the_repr() -> None:
    assert repr(SecretRng(SEED)) == "SecretRng(...)"


def test_the_insecure_stream_follows_from_a_number() -> None:
    assert insecure_seeded_rng(7).bytes(32) == insecure_seeded_rng(7).bytes(32)
    assert len({insecure_seeded_rng(seed).bytes(32) for seed in (-1, 0, 1, 10, 2**70)}) == 5


def test_the_operating_system_does_not_repeat_itself() -> None:
    assert OsRng().bytes(32) != OsRng().bytes(32)
    assert len(OsRng().bytes(5)) == 5


def test_numpy_generator_follows_the_stream() -> None:
    one, two = (numpy_generator(SecretRng(SEED)) for _ in range(2))
    np.testing.assert_array_equal(one.permutation(10), two.permutation(10))
    rng = SecretRng(SEED)
    assert numpy_generator(rng).integers(2**62) != numpy_generator(rng).integers(2**62)
