"""Comparisons are right for every pair of edges, and the products of many bits for every pattern."""

from __future__ import annotations

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.infer.compare import Comparison, Form, compare, deal_compare, prepare_compare
from ridotto.infer.kernels import without_numba
from ridotto.infer.kernels.plain import transpose_bits, unpack, words_of
from ridotto.infer.products import deal_product, levels, prepare_product, product
from tests.infer.two_parties import deal, run_both

FORMS: tuple[Form, ...] = ("boolean", "fss")


def signs(t: np.ndarray, secret: np.ndarray, k: int, form: Form = "boolean") -> np.ndarray:
    """Compare between two parties; return [t - secret >= 0] and check the rounds."""
    size = Comparison(t.size, k, form)
    materials = deal(insecure_seeded_rng(k), lambda dealing: deal_compare(dealing, size, secret))
    shares = [prepare_compare(material, size) for material in materials]
    materials[1].close()
    zero, one, rounds = run_both(compare(True, size, shares[0], t), compare(False, size, shares[1], t))
    assert rounds == (2 if form == "boolean" else 0)
    return unpack(zero ^ one, t.size)


@pytest.mark.parametrize("k", [9, 13, 17, 21, 25, 29, 33])
@pytest.mark.parametrize("form", FORMS)
def test_edges(k: int, form: Form) -> None:
    """z and the mask at every power of two, one more and one less: borrows through all digits."""
    powers = np.array([2**i + d for i in range(k - 1) for d in (-1, 0, 1)])
    z = np.unique(np.concatenate([powers, -powers]))
    z = z[np.abs(z) < 2 ** (k - 1)]
    masks = np.array([0, 1, 2**64 - 1, 2**63, *((2**i + d) % 2**64 for i in range(k) for d in (-1, 1))], np.uint64)
    grid_z, grid_mask = np.repeat(z, masks.size), np.tile(masks, z.size)
    t = grid_z.astype(np.uint64) + grid_mask
    np.testing.assert_array_equal(signs(t, grid_mask, k, form), grid_z >= 0)


@pytest.mark.parametrize("form", FORMS)
def test_all_pairs_of_eight_bits(form: Form) -> None:
    z, mask = (part.reshape(-1) for part in np.mgrid[-256:256, 0:512])
    mask = mask.astype(np.uint64)
    np.testing.assert_array_equal(
        signs(z.astype(np.uint64) + mask, mask, 9, form)[np.abs(z) < 256], (z >= 0)[np.abs(z) < 256]
    )


def test_more_than_a_stream_answers_at_once() -> None:
    """So many that each kind of request is a large one, for which streams take another road."""
    mask = np.random.default_rng(3).integers(0, 2**64, 2_200_000, dtype=np.uint64)
    z = np.random.default_rng(4).integers(-(2**31), 2**31, mask.size)
    np.testing.assert_array_equal(signs(z.astype(np.uint64) + mask, mask, 33), z >= 0)


def test_without_numba() -> None:
    z = np.array([-5, -1, 0, 1, 5] * 30)
    mask = np.random.default_rng(1).integers(0, 2**64, z.size, dtype=np.uint64)
    with without_numba():
        np.testing.assert_array_equal(signs(z.astype(np.uint64) + mask, mask, 33), z >= 0)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 9])
def test_products_of_bits(count: int) -> None:
    patterns = np.arange(1 << count, dtype=np.uint64)
    planes, words = transpose_bits(patterns, count), words_of(patterns.size)
    mine = np.random.default_rng(2).integers(0, 2**64, planes.shape, dtype=np.uint64)
    materials = deal(insecure_seeded_rng(3), lambda dealing: deal_product(dealing, words, count))
    shares = [prepare_product(material, words, count) for material in materials]
    zero, one, rounds = run_both(product(True, shares[0], mine), product(False, shares[1], planes ^ mine))
    np.testing.assert_array_equal(unpack(zero ^ one, patterns.size), patterns == (1 << count) - 1)
    assert rounds == len(levels(count)) == (1 if count <= 4 else 2)
