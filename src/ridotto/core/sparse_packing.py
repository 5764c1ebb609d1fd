"""Integers of which most are zero, as bytes that leave the zeros out: for vectors that travel in clear.

    head        uint64, little-endian: 2 * n + form, n elements that are not zero
    form 0      n places, ascending, w bits each, packed; w = max(8, bits of length - 1)
    form 1      a bit for each of the `length` elements, least significant first in its byte, zeros at the end
    elements    the n elements, `bits` bits each, packed

"Packed" is the dense stream of `core.packing`, padded to whole bytes. Form 0 is taken where its places are shorter than
form 1's bits. The sparse form as a whole is taken where it is shorter than the dense one, and only there: so the size
tells which one it is. One vector has one sparse form at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ridotto.core.fixedpoint import IntVector, container
from ridotto.core.machine import Buffer
from ridotto.core.packing import pack, packed_size, unpack
from ridotto.errors import DataError

HEAD_BYTES = 8

PLACES, BITMAP = 0, 1

NARROWEST = 8
"""Bits of a place at least: what `pack` does."""


def sparse_size(count: int, length: int, bits: int) -> int:
    """Return the bytes of `length` elements of `bits` bits of which `count` are not zero, in the shorter form."""
    sparse = HEAD_BYTES + min(_places_size(count, length), _bitmap_size(length)) + packed_size(count, bits)
    return min(sparse, packed_size(length, bits))


def pack_shorter(values: IntVector, bits: int) -> Buffer:
    """Write integers in the sparse form if that is shorter, else in the dense one.

    values: as for `pack`. Returns `sparse_size(...)` bytes, which may be the array's own memory. Raises as `pack` does.
    """
    length, places = len(values), np.flatnonzero(values)
    count = len(places)
    if sparse_size(count, length, bits) == packed_size(length, bits):
        return pack(values, bits)
    form = _form(count, length)
    if form == PLACES:
        width = _width(length)
        where: Buffer = pack(places.astype(container(width)), width)
    else:
        where = np.packbits(values != 0, bitorder="little").tobytes()
    head = (2 * count + form).to_bytes(HEAD_BYTES, "little")
    return b"".join((head, where, pack(values[places], bits)))


def unpack_either(data: Buffer, bits: int, length: int) -> IntVector:
    """Read what `pack_shorter` wrote, or the dense form, which is accepted of any vector.

    Returns dtype `container(bits)`, shape (length,). Memory is O(length), whatever the bytes say.
    Raises DataError if they are neither.
    """
    size = len(data)
    if size >= packed_size(length, bits):
        return unpack(data, bits, length)
    if size < HEAD_BYTES:
        raise DataError(f"a sparse vector begins with {HEAD_BYTES} bytes, found {size}")
    view = memoryview(data)
    head = int.from_bytes(view[:HEAD_BYTES], "little")
    count, form = head >> 1, head & 1
    # Checked first: all that follows may trust the number, and take memory for it.
    if count > length or form != _form(count, length) or size != sparse_size(count, length, bits):
        raise DataError(f"{size} bytes are not the sparse form of {length} elements of which {count} are not zero")
    split = HEAD_BYTES + (_places_size(count, length) if form == PLACES else _bitmap_size(length))
    places = _read_places(view[HEAD_BYTES:split], form, count, length)
    elements = unpack(view[split:], bits, count)
    if not elements.all():
        raise DataError("a zero stands among the elements of a sparse vector")
    values = np.zeros(length, container(bits))
    values[places] = elements
    return values


def _read_places(data: memoryview, form: int, count: int, length: int) -> NDArray[np.integer]:
    if form == BITMAP:
        flags = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
        places = np.flatnonzero(flags)
        if len(places) != count or flags[length:].any():
            raise DataError(f"{count} elements are announced, and other bits are set")
        return places
    found = unpack(data, _width(length), count)
    if count and (int(found[-1]) >= length or not (found[1:] > found[:-1]).all()):
        raise DataError(f"the places of a sparse vector do not ascend, or are beyond {length}")
    return found


def _form(count: int, length: int) -> int:
    return PLACES if _places_size(count, length) < _bitmap_size(length) else BITMAP


def _width(length: int) -> int:
    return max(NARROWEST, (length - 1).bit_length())


def _places_size(count: int, length: int) -> int:
    return packed_size(count, _width(length))


def _bitmap_size(length: int) -> int:
    return packed_size(length, 1)
