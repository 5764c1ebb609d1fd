"""Vectors of group elements: integers from 0 up to an order, as NumPy arrays.

Orders up to 2^63 fit uint64, with room for the sum of two; that is the fast road, and the default configuration takes
it. Larger orders are Python integers in an object array: right for all, and some hundred times slower. The dtype
follows from the order, never from the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import LocalProtocolError, PeerProtocolError

Elements = NDArray[Any]
"""Group elements, shape (length,): uint64 if the order is at most 2^63, else object (Python integers)."""

WORD_ORDER = 1 << 63
"""Orders up to here fit uint64."""

WORD_BYTES = 8


def fits_word(order: int) -> bool:
    """Tell whether elements of this order are uint64."""
    return order <= WORD_ORDER


def zeros(length: int, order: int) -> Elements:
    """Return `length` zeros of the group."""
    if fits_word(order):
        return np.zeros(length, np.uint64)
    return from_integers([0] * length, order)


def from_integers(numbers: list[int], order: int) -> Elements:
    """Return numbers from 0 up to `order` as elements. Raises LocalProtocolError if one is outside."""
    if not all(0 <= number < order for number in numbers):
        raise LocalProtocolError(f"an element of a group is from 0 up to its order, {order}")
    if fits_word(order):
        return np.array(numbers, np.uint64)
    found = np.empty(len(numbers), object)
    found[:] = numbers
    return found


def add(total: Elements, more: Elements, order: int) -> None:
    """Add `more` to `total` in place, modulo `order`; both are elements of it."""
    np.add(total, more, out=total)
    if total.dtype == np.uint64:
        fold_once(total, order)
    else:
        np.remainder(total, order, out=total)


def fold_once(total: NDArray[np.uint64], order: int) -> None:
    """Bring numbers below twice the order, at most 2^63, below it, in place."""
    # Where the number is below the order, the difference wraps round 2^64 and is the larger of the two.
    np.minimum(total, total - np.uint64(order), out=total)


def subtract(total: Elements, less: Elements, order: int) -> Elements:
    """Return total - less modulo `order`."""
    if total.dtype == np.uint64:
        found = total + (np.uint64(order) - less)
        fold_once(found, order)
        return found
    return (total - less) % order


def to_bytes(elements: Elements, number_bytes: int) -> bytes:
    """Write elements one after the other, each little-endian in `number_bytes`."""
    if elements.dtype == np.uint64:
        wide = np.zeros((len(elements), max(number_bytes, WORD_BYTES)), np.uint8)
        wide[:, :WORD_BYTES] = elements.astype("<u8").view(np.uint8).reshape(-1, WORD_BYTES)
        return wide[:, :number_bytes].tobytes()
    return b"".join(number.to_bytes(number_bytes, "little") for number in elements.tolist())


def from_bytes(data: memoryview, number_bytes: int, order: int, peer: str) -> Elements:
    """Read what `to_bytes` wrote; the length of `data` is a multiple of `number_bytes`.

    Raises PeerProtocolError, naming `peer`, if a number is not below the order.
    """
    length = len(data) // number_bytes
    if fits_word(order):
        wide = np.zeros((length, WORD_BYTES), np.uint8)
        wide[:, :number_bytes] = np.frombuffer(data, np.uint8).reshape(length, number_bytes)
        found: Elements = wide.view("<u8").reshape(length).astype(np.uint64, copy=False)
    else:
        found = np.empty(length, object)
        found[:] = [int.from_bytes(data[i : i + number_bytes], "little") for i in range(0, len(data), number_bytes)]
    if length and found.max() >= order:
        raise PeerProtocolError(peer, "an element of its vector is not below the order of the group")
    return found
