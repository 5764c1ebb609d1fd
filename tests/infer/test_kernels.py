"""The compiled loops give the very bits of the plain ones, and both what they say."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.infer import kernels
from ridotto.infer.kernels import plain

compiled = pytest.importorskip("ridotto.infer.kernels.compiled", exc_type=Exception)

GENERATOR = np.random.default_rng(6)


def words(*shape: int) -> plain.Words:
    return GENERATOR.integers(0, 2**64, shape, dtype=np.uint64)


@pytest.mark.parametrize("shape", [(1, 784, 128), (1, 3, 1), (5, 7, 3), (6, 600, 20), (64, 500, 50), (3, 1030, 17)])
def test_products_wrap_like_integers(shape: tuple[int, int, int]) -> None:
    left, right = words(*shape[:2]), words(*shape[1:])
    expected = left @ right
    np.testing.assert_array_equal(plain.matmul(left, right), expected)
    np.testing.assert_array_equal(compiled.matmul(left, right), expected)


def test_limbs_are_exact_at_their_largest() -> None:
    ones = np.full((8, 1024), 2**64 - 1, np.uint64)
    np.testing.assert_array_equal(plain.matmul(ones, ones.T), np.full((8, 8), 1024, np.uint64))


@pytest.mark.parametrize("count", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("first", [True, False])
def test_the_same_bits_from_all_loops(count: int, first: bool) -> None:
    values, size = words(count), plain.words_of(count)
    planes = plain.transpose_bits(values, 33)
    np.testing.assert_array_equal(compiled.transpose_bits(values, 33), planes)
    np.testing.assert_array_equal(plain.unpack(planes[9], count), values >> np.uint64(9) & np.uint64(1))
    np.testing.assert_array_equal(compiled.unpack(planes[9], count), plain.unpack(planes[9], count))
    calls = [
        ("monomials", (planes[:32],)),
        ("digits", (planes[:32], words(8, 15, size), first)),
        ("fold", (words(4, size), words(15, size), first)),
        ("fold_group", (words(7, size), words(29, size), words(size), 4, first)),
        ("fold_group", (words(6, size), words(21, size), words(size), 3, first)),
        ("fold_group", (words(1, size), words(1, size), words(size), 1, first)),
        ("truncated_public", (words(count), 14)),
        ("truncated", (words(count), words(count), words(count), 14, first)),
        ("select_narrow", (words(count), words(size), *words(4, count), first)),
        ("select_wide", (words(count), words(size), tuple(words(5, count)), words(count), 14, first)),
        ("select_pair", (*words(2, count), words(size), tuple(words(8, count)), words(count), 14, first)),
    ]
    for name, arguments in calls:
        np.testing.assert_array_equal(getattr(compiled, name)(*arguments), getattr(plain, name)(*arguments), name)


def test_digits_compare_all_pairs() -> None:
    """All 256 pairs of digits, the secret one in shares: less and equal are right, without a message."""
    public, secret = (part.reshape(-1).astype(np.uint64) for part in np.mgrid[:16, :16])
    shares = plain.monomials(plain.transpose_bits(secret, 4))
    mine = words(*shares.shape)
    planes = plain.transpose_bits(public, 4)
    zero, one = plain.digits(planes, mine, True), plain.digits(planes, shares ^ mine, False)
    np.testing.assert_array_equal(plain.unpack((zero[0] ^ one[0])[0], 256), public < secret)
    np.testing.assert_array_equal(plain.unpack((zero[1] ^ one[1])[0], 256), public == secret)


def test_the_plain_loops_can_be_asked_for() -> None:
    with kernels.without_numba():
        assert kernels.active() is plain
    assert kernels.active() is compiled
