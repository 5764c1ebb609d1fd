"""The transform against direct evaluation and against products of big integers, and its compiled twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.rng import insecure_seeded_rng, numpy_generator
from ridotto.crypto.lattice import kernels, ntt
from ridotto.crypto.lattice.parameters import DEGREE, FIELDS, PRIMES, Prime

SLOT = 16  # bytes per coefficient of a product: 4096 * 2^96 is below 2^128


def elements(prime: Prime, count: int, seed: int = 1) -> np.ndarray:
    random = numpy_generator(insecure_seeded_rng(seed))
    return random.integers(0, prime.value, (count, DEGREE), dtype=np.uint64)


def as_integer(element: np.ndarray) -> int:
    return int.from_bytes(b"".join(int(value).to_bytes(SLOT, "little") for value in element), "little")


def product(one: np.ndarray, other: np.ndarray, prime: Prime) -> list[int]:
    """Multiply mod X^4096 + 1 by one product of two huge integers."""
    raw = (as_integer(one) * as_integer(other)).to_bytes(2 * SLOT * DEGREE, "little")
    terms = [int.from_bytes(raw[i : i + SLOT], "little") for i in range(0, len(raw), SLOT)]
    return [(low - high) % prime.value for low, high in zip(terms[:DEGREE], terms[DEGREE:], strict=True)]


@pytest.mark.parametrize("prime", FIELDS)
def test_the_primes_split_the_ring(prime: Prime) -> None:
    assert prime.value < 2**48
    assert prime.value % (2 * DEGREE) == 1
    assert all(pow(base, prime.value - 1, prime.value) == 1 for base in (2, 3, 5, 7, 11, 13))
    assert pow(prime.root, DEGREE, prime.value) == prime.value - 1


def test_the_modulus_is_the_specified_one() -> None:
    assert PRIMES == (281474976694273, 281474976636929)


@pytest.mark.parametrize("prime", FIELDS)
@given(one=st.integers(0, 2**50 - 1), factor=st.integers(0, 2**48 - 1))
def test_products_are_exact(prime: Prime, one: int, factor: int) -> None:
    one, factor = min(one, 4 * prime.value - 1), factor % prime.value
    word = np.array([factor], np.uint64)
    found = prime.times(np.array([one], np.uint64), word, prime.ratio(word))
    assert int(found[0]) == one * factor % prime.value


@pytest.mark.parametrize("prime", FIELDS)
def test_products_are_exact_where_the_quotient_is_nearly_whole(prime: Prime) -> None:
    """The products closest to a multiple of q, from both sides, and the largest operands there are."""
    factors = [1, 2, 3, prime.value - 1, prime.value - 2, (prime.value + 1) // 2, prime.root]
    for factor in factors:
        inverse = pow(factor, -1, prime.value)
        values = [(k * inverse) % prime.value + j * prime.value for k in range(-20, 21) for j in range(4)]
        word = np.array([factor], np.uint64)
        found = prime.times(np.array(values, np.uint64), word, prime.ratio(word))
        assert found.tolist() == [value * factor % prime.value for value in values]


@pytest.mark.parametrize("prime", FIELDS)
def test_the_transform_evaluates_at_the_roots(prime: Prime) -> None:
    element = elements(prime, 2)[1]
    values = ntt.transform(element, prime)
    for place in (0, 1, 2, 777, 4095):
        root = pow(prime.root, 2 * int(f"{place:012b}"[::-1], 2) + 1, prime.value)
        expected = 0
        for coefficient in reversed(element.tolist()):
            expected = (expected * root + coefficient) % prime.value
        assert int(values[place]) == expected


@pytest.mark.parametrize("prime", FIELDS)
def test_inverse_undoes_transform(prime: Prime) -> None:
    found = elements(prime, 3)
    np.testing.assert_array_equal(ntt.inverse(ntt.transform(found, prime), prime), found)


@pytest.mark.parametrize("prime", FIELDS)
def test_multiply_is_the_product_of_the_ring(prime: Prime) -> None:
    one, other = elements(prime, 2)
    one[:3], other[-3:] = prime.value - 1, prime.value - 1
    key = ntt.transform(other, prime)
    found = ntt.multiply(ntt.transform(one, prime)[np.newaxis], key, prime.ratio(key), prime)
    assert found[0].tolist() == product(one, other, prime)


@pytest.mark.parametrize("prime", FIELDS)
def test_the_compiled_product_has_the_same_bits(prime: Prime) -> None:
    values = np.concatenate([elements(prime, 9), np.full((1, DEGREE), prime.value - 1, np.uint64)])
    for key in (values[3].copy(), values[9].copy(), np.zeros(DEGREE, np.uint64)):
        expected = ntt.multiply(values, key, prime.ratio(key), prime)
        np.testing.assert_array_equal(kernels.multiply(values, key, prime.ratio(key), prime), expected)
