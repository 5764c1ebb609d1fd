"""Integers of `bits` bits as one dense stream of bytes: how masked vectors travel.

The stream is little-endian throughout: element i occupies stream bits [i * bits, (i + 1) * bits), least significant
first, and bit j of the stream is bit j % 8 of byte j // 8. What is left of the last byte is zero. So one vector has
exactly one encoding, and its bytes can be hashed and signed.

Widths that are a container's own (8, 16, 32, 64) are views of the array's memory. For any other width the stream is
cut into blocks of one shape, and the same place of all blocks is handled at once. Packing takes blocks of whole 64-bit
words: `64 / gcd(bits, 64)` elements fill `bits / gcd(bits, 64)` of them. Unpacking takes blocks of whole bytes, and
reads the word that begins at the byte in which an element begins, aligned or not.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.errors import DataError

WORD_BITS = 64

CHUNK_ELEMENTS = 1 << 16
"""Elements shifted at once. Their 64-bit copies (512 KiB) stay in a core's L2 cache; measured best of 2^13 to 2^18."""

REACH_BYTES = WORD_BITS // 8
"""An element begins in its block, and takes at most this many bytes beyond the one in which it begins."""

Words = NDArray[np.uint64]
"""64-bit words of the stream or elements widened to 64 bits, shape (rows, blocks)."""


def packed_size(length: int, bits: int) -> int:
    """Return the number of bytes that `length` elements of `bits` bits take."""
    return (length * bits + 7) // 8


def pack(values: IntVector, bits: int) -> memoryview:
    """Write integers as a dense stream of bits.

    values: dtype `container(bits)`, shape (length,), every value below 2^bits.
    Returns `packed_size(length, bits)` bytes; for 8, 16, 32 and 64 bits they are the array's own memory.
    Raises DataError if the dtype is wrong or a value does not fit, PlanError if bits is not 8 to 64.
    """
    _check_values(values, bits)
    if bits == values.dtype.itemsize * 8:
        return _little_endian(np.ascontiguousarray(values)).view(np.uint8).data
    size, width = packed_size(len(values), bits), bits
    while width < WORD_BITS // 2:
        values, width = _pair(values, width), 2 * width
    block = _block(width)
    stream = np.empty(-(-len(values) // block.elements) * block.words, np.dtype("<u8"))
    for chunk, words in _chunks(len(values), block):
        stream[words].reshape(-1, block.words)[...] = block.join(_rows(values[chunk], block)).T
    return stream.view(np.uint8)[:size].data


def unpack(data: Buffer, bits: int, length: int) -> IntVector:
    """Read `length` integers of `bits` bits back from a dense stream.

    Returns dtype `container(bits)`, shape (length,); for 8, 16, 32 and 64 bits it is a view of `data` (on a
    little-endian machine), read-only where `data` is.
    Raises DataError if `data` has any other size than `packed_size(length, bits)`, or if a padding bit is set: two
    streams for one vector would let a peer send the same update under two hashes.
    """
    dtype = container(bits)
    octets = _check_stream(data, bits, length)
    if bits == dtype.itemsize * 8:
        return octets.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    period, stride = 8 // math.gcd(bits, 8), bits // math.gcd(bits, 8)
    values = np.empty((-(-length // period), period), dtype)
    # A read may reach beyond its block; what would reach beyond the stream is read from a copy with zeros behind it.
    inside = max(0, (len(octets) - REACH_BYTES) // stride)
    _read(octets, bits, values[:inside])
    rest = octets[inside * stride :]
    _read(np.concatenate([rest, np.zeros(stride + REACH_BYTES, np.uint8)]), bits, values[inside:])
    return values.reshape(-1)[:length]


def _read(octets: NDArray[np.uint8], bits: int, out: IntVector) -> None:
    """Fill `out`, shape (blocks, elements of a block), from a stream with REACH_BYTES to spare behind its blocks."""
    blocks, period = out.shape
    stride, step = period * bits // 8, CHUNK_ELEMENTS // period
    for begin in range(0, blocks, step):
        rows = out[begin : begin + step]
        for place in range(period):
            skipped, shift = divmod(place * bits, 8)
            elements = _elements(octets, begin * stride + skipped, stride, len(rows), bits, shift)
            np.copyto(rows[:, place], elements, casting="unsafe")


def _elements(
    octets: NDArray[np.uint8], start: int, stride: int, count: int, bits: int, shift: int
) -> NDArray[np.unsignedinteger[Any]]:
    """Return the elements that begin at bit `shift` of the bytes start, start + stride, ..."""
    word = np.dtype(np.uint32 if shift + bits <= WORD_BITS // 2 else np.uint64)
    view: IntVector = np.ndarray((count,), word.newbyteorder("<"), octets, start, (stride,))
    words = view.astype(word)
    words >>= word.type(shift)
    if shift + bits > WORD_BITS:
        ninth: NDArray[np.uint8] = np.ndarray((count,), np.uint8, octets, start + WORD_BITS // 8, (stride,))
        words |= ninth.astype(np.uint64) << np.uint64(WORD_BITS - shift)
    words &= word.type((1 << bits) - 1)
    return words


@dataclass(frozen=True, slots=True)
class _Block:
    """Where each element of one block lies: the word it starts in, and by how many bits it is shifted there.

    Elements never skip a word, because they are narrower than one; an element that crosses from word q into q + 1 is
    the last to start in q.
    """

    bits: int
    elements: int
    words: int
    start: NDArray[np.intp]  # word in which element i starts, shape (elements,)
    shift: Words  # left shift of element i in that word, shape (elements, 1)
    first: NDArray[np.intp]  # first element that starts in word q, shape (words,)
    crossing: NDArray[np.intp]  # elements that reach into the next word
    carry: Words  # right shift that leaves an element's part in the next word, shape (crossings, 1)

    def join(self, elements: Words) -> Words:
        """Turn elements, shape (elements, blocks), into words, shape (words, blocks). Overwrites nothing."""
        words: Words = np.bitwise_or.reduceat(elements << self.shift, self.first, axis=0)
        words[self.start[self.crossing] + 1] |= elements[self.crossing] >> self.carry
        return words


@lru_cache(maxsize=WORD_BITS)
def _block(bits: int) -> _Block:
    elements, words = WORD_BITS // math.gcd(bits, WORD_BITS), bits // math.gcd(bits, WORD_BITS)
    start, shift = np.divmod(np.arange(elements) * bits, WORD_BITS)
    crossing = np.flatnonzero(shift + bits > WORD_BITS)
    return _Block(
        bits=bits,
        elements=elements,
        words=words,
        start=start,
        shift=shift.astype(np.uint64)[:, None],
        first=np.searchsorted(start, np.arange(words)),
        crossing=crossing,
        carry=(WORD_BITS - shift[crossing]).astype(np.uint64)[:, None],
    )


def _chunks(length: int, block: _Block) -> Iterator[tuple[slice, slice]]:
    """Cut a vector into runs of whole blocks; yield each run's elements and words. The last block may be short."""
    blocks, step = -(-length // block.elements), CHUNK_ELEMENTS // block.elements
    for begin in range(0, blocks, step):
        end = min(begin + step, blocks)
        elements = slice(begin * block.elements, min(end * block.elements, length))
        yield elements, slice(begin * block.words, end * block.words)


def _rows(values: IntVector, block: _Block) -> Words:
    """Return elements as 64-bit words, one row per place in the block, so that each row is shifted by one number."""
    whole = -(-len(values) // block.elements) * block.elements
    if whole != len(values):
        values = np.concatenate([values, np.zeros(whole - len(values), values.dtype)])
    return np.ascontiguousarray(values.reshape(-1, block.elements).T.astype(np.uint64, order="C"))


def _pair(values: IntVector, bits: int) -> Words:
    """Join neighbours into elements of twice the width, at most 64 bits: half as many are left to be placed."""
    if len(values) % 2:
        values = np.append(values, values.dtype.type(0))
    pairs = values[1::2].astype(np.uint64)
    pairs <<= np.uint64(bits)
    pairs |= values[0::2]
    return pairs


def _little_endian(values: IntVector) -> IntVector:
    return values if sys.byteorder == "little" else values.byteswap()


def _check_values(values: IntVector, bits: int) -> None:
    expected = container(bits)
    if values.dtype != expected or values.ndim != 1:
        found = f"{values.dtype} of shape {values.shape}"
        raise DataError(f"integers of {bits} bits are a vector of {expected}, not {found}")
    if bits < expected.itemsize * 8 and len(values) and int(values.max()) >> bits:
        raise DataError(f"a value needs more than {bits} bits: it would run into its neighbour")


def _check_stream(data: Buffer, bits: int, length: int) -> NDArray[np.uint8]:
    if length < 0:
        raise DataError(f"a vector can't have {length} elements")
    octets = np.frombuffer(data, np.uint8) if len(data) else np.empty(0, np.uint8)
    if len(octets) != packed_size(length, bits):
        raise DataError(f"{length} integers of {bits} bits take {packed_size(length, bits)} bytes, not {len(octets)}")
    used = length * bits % 8
    if used and int(octets[-1]) >> used:
        raise DataError(f"the {8 - used} bits after the last integer are padding and must be zero")
    return octets
