"""Find which holders' values do not lie on the polynomials that the others' lie on.

All rows of a packed sharing have the same holders, so whoever lies is wrong at the same place of every row. The rows
are therefore mixed into one by random factors, one word is decoded, and every row is checked at the places that
remain. The factors are drawn from a hash of all values, so nobody can choose values whose errors cancel; where that
happens all the same (with probability about 2^-31 for each liar), the check fails and other factors are drawn.

Source: Gao, "A New Algorithm for Decoding Reed-Solomon Codes", 2003, algorithm 1. Mixing: the usual batching argument.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ridotto.crypto.shamir import PRIME, ShareError

ATTEMPTS = 4
"""Each fails with probability at most 2^-25 for 64 liars, so all of them never do."""

Polynomial = list[int]
"""Coefficients mod p, from the constant one up, without zeros at the end."""


def wrong_points(points: Sequence[int], words: NDArray[np.uint64], needed: int) -> tuple[int, ...]:
    """Return the points whose values do not fit, sorted.

    points: distinct, in [1, p). words: values below p, shape (points, rows). needed: that many right values make a
    polynomial (its degree is needed - 1). At most (points - needed) / 2 may be wrong.
    Raises ShareError if no polynomial fits all but so many.
    """
    for attempt in range(ATTEMPTS):
        mixed = _mix(words, attempt)
        polynomial = _decode(points, mixed, needed)
        if polynomial is None:
            break
        wrong = {point for point, value in zip(points, mixed, strict=True) if _at(polynomial, point) != value}
        right = [index for index, point in enumerate(points) if point not in wrong]
        if len(wrong) <= (len(points) - needed) // 2 and _all_rows_fit(points, words, right, needed):
            return tuple(sorted(wrong))
    raise ShareError(
        f"the replies of {len(points)} do not fit together, nor do those of any {needed} and half the rest"
    )


def lagrange(source: Sequence[int], target: Sequence[int]) -> list[list[int]]:
    """Return the matrix that takes values at `source` to values at `target`, mod p, shape (target, source).

    Points are distinct within `source`, and none of `target` is in it.
    """
    below = [_product([x - other for other in source if other != x]) for x in source]
    inverses = [pow(value, -1, PRIME) for value in below]
    matrix = []
    for y in target:
        whole = _product([y - x for x in source])
        matrix.append([whole * inv * pow(y - x, -1, PRIME) % PRIME for x, inv in zip(source, inverses, strict=True)])
    return matrix


def _product(factors: Sequence[int]) -> int:
    result = 1
    for factor in factors:
        result = result * factor % PRIME
    return result


def _mix(words: NDArray[np.uint64], attempt: int) -> list[int]:
    """Return one combination of all rows, of factors that a hash of all values decides."""
    rows = words.shape[1]
    seed = b"ridotto/1 mix" + bytes([attempt]) + words.astype("<u4").tobytes()
    factors = np.frombuffer(hashlib.shake_128(seed).digest(4 * rows), "<u4").astype(np.uint64) % np.uint64(PRIME)
    products = (words * factors) % np.uint64(PRIME)
    return [int(value) for value in products.sum(axis=1) % np.uint64(PRIME)]


def _all_rows_fit(points: Sequence[int], words: NDArray[np.uint64], right: list[int], needed: int) -> bool:
    """Tell whether, of every row, the values at the places `right` lie on one polynomial."""
    base, rest = right[:needed], right[needed:]
    if not rest:
        return True
    matrix = lagrange([points[index] for index in base], [points[index] for index in rest])
    for weights, index in zip(matrix, rest, strict=True):
        products = (words[base] * np.array(weights, np.uint64)[:, np.newaxis]) % np.uint64(PRIME)
        if np.any(products.sum(axis=0) % np.uint64(PRIME) != words[index]):
            return False
    return True


def _decode(points: Sequence[int], values: Sequence[int], needed: int) -> Polynomial | None:
    """Return the polynomial of degree below `needed` that most values lie on, or None if there is none."""
    vanishing: Polynomial = [1]
    for point in points:
        vanishing = _times(vanishing, [-point % PRIME, 1])
    older, newer = vanishing, _interpolate(points, values)
    older_factor, newer_factor = [], [1]  # type: tuple[Polynomial, Polynomial]
    # Stop at the first remainder of degree below (replies + needed) / 2.
    while 2 * (len(newer) - 1) >= len(points) + needed:
        quotient, remainder = _divide(older, newer)
        older, newer = newer, remainder
        older_factor, newer_factor = newer_factor, _minus(older_factor, _times(quotient, newer_factor))
    polynomial, remainder = _divide(newer, newer_factor)
    return None if remainder or len(polynomial) > needed else polynomial


def _interpolate(points: Sequence[int], values: Sequence[int]) -> Polynomial:
    """Return the polynomial of least degree through all points, by Newton's divided differences."""
    table = list(values)
    for level in range(1, len(points)):
        for index in range(len(points) - 1, level - 1, -1):
            gap = pow(points[index] - points[index - level], -1, PRIME)
            table[index] = (table[index] - table[index - 1]) * gap % PRIME
    result: Polynomial = []
    for index in range(len(points) - 1, -1, -1):
        result = _minus(_times(result, [-points[index] % PRIME, 1]), [-table[index] % PRIME])
    return result


def _at(polynomial: Polynomial, point: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * point + coefficient) % PRIME
    return value


def _trimmed(polynomial: Polynomial) -> Polynomial:
    while polynomial and not polynomial[-1]:
        polynomial.pop()
    return polynomial


def _minus(one: Polynomial, other: Polynomial) -> Polynomial:
    length = max(len(one), len(other))
    left, right = one + [0] * (length - len(one)), other + [0] * (length - len(other))
    return _trimmed([(a - b) % PRIME for a, b in zip(left, right, strict=True)])


def _times(one: Polynomial, other: Polynomial) -> Polynomial:
    result = [0] * max(0, len(one) + len(other) - 1)
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            result[i + j] = (result[i + j] + a * b) % PRIME
    return _trimmed(result)


def _divide(one: Polynomial, other: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Return quotient and remainder. other: not zero."""
    rest, leading = list(one), pow(other[-1], -1, PRIME)
    quotient = [0] * max(0, len(one) - len(other) + 1)
    for shift in range(len(quotient) - 1, -1, -1):
        factor = rest[shift + len(other) - 1] * leading % PRIME
        quotient[shift] = factor
        for index, coefficient in enumerate(other):
            rest[shift + index] = (rest[shift + index] - factor * coefficient) % PRIME
    return _trimmed(quotient), _trimmed(rest)
