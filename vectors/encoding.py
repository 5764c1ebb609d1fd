"""Vectors of the way from real numbers to packed integers and back: fixed point, lanes, dense and sparse streams."""

from __future__ import annotations

from functools import partial

import numpy as np

from ridotto.core.fixedpoint import FixedPoint, container
from ridotto.core.packing import pack, unpack
from ridotto.core.sparse_packing import pack_shorter, unpack_either
from ridotto.secagg.lanes import Lanes
from vectors.crypto import refused
from vectors.numbers import decimal

WIDTHS = (8, 9, 12, 16, 20, 21, 28, 31, 32, 33, 42, 53, 63, 64)


def build() -> dict[str, object]:
    """Return everything that is in encoding.json."""
    return {
        "page": "docs/protocols/encoding.md",
        "packing": [packing(bits, count) for bits in WIDTHS for count in (0, 1, 7)],
        "packing_refusals": packing_refusals(),
        "sparse": sparse(),
        "sparse_refusals": sparse_refusals(),
        "fixed_point": [encoded(fixed, weight) for fixed, weight in FIXED],
        "fixed_point_sums": [decoded(fixed) for fixed, _ in FIXED],
        "fixed_point_refusals": fixed_point_refusals(),
        "lanes": [lanes(*case) for case in LANES],
        "lanes_refusals": lanes_refusals(),
    }


def packing(bits: int, count: int) -> dict[str, object]:
    """Return a packed vector whose elements use all bits, the first of them all ones."""
    values = [((1 << bits) - 1) // (place + 1) for place in range(count)]
    packed = bytes(pack(np.array(values, container(bits)), bits))
    return {"bits": bits, "values": decimal(values, bits), "packed": packed.hex()}


def packing_refusals() -> list[dict[str, object]]:
    """Return streams that are of no vector."""
    cases = {
        "a byte too few": (12, 3, bytes(4)),
        "a byte too many": (12, 3, bytes(6)),
        "a padding bit": (12, 3, bytes(4) + b"\x10"),
        "the highest padding bit": (21, 1, b"\x00\x00\x80"),
        "bytes of an empty vector": (8, 0, b"\x00"),
    }
    return [
        {
            "name": name,
            "bits": bits,
            "length": length,
            "packed": data.hex(),
            "why": refused(partial(unpack, data, bits, length)),
        }
        for name, (bits, length, data) in cases.items()
    ]


def sparse() -> list[dict[str, object]]:
    """Return vectors in the shorter of their forms. nonzero: [place, element]."""
    cases: list[tuple[int, int, list[tuple[int, int]]]] = [
        (16, 1000, [(1, 7), (2, 8), (999, 9)]),
        (32, 40, []),
        (21, 300, [(place, place + 1) for place in range(0, 300, 3)]),
        (28, 257, [(256, 2**28 - 1)]),
        (64, 70, [(0, 2**64 - 1), (69, 1)]),
        (8, 12, [(3, 1)]),
        (8, 10, [(3, 1)]),
        (20, 8, [(place, 1) for place in range(8)]),
    ]
    rows: list[dict[str, object]] = []
    for bits, length, nonzero in cases:
        vector = np.zeros(length, container(bits))
        for place, element in nonzero:
            vector[place] = element
        packed = bytes(pack_shorter(vector, bits))
        elements = decimal((element for _, element in nonzero), bits)
        shown = [[place, element] for (place, _), element in zip(nonzero, elements, strict=True)]
        rows.append({"bits": bits, "length": length, "nonzero": shown, "packed": packed.hex()})
    return rows


def sparse_refusals() -> list[dict[str, object]]:
    """Return bytes that are neither form of a vector of 1,000 elements of 16 bits, nor of one of 300 of 21 bits."""
    places = bytes.fromhex("06000000000000000108703e07000800 0900".replace(" ", ""))
    bitmap = bytes.fromhex(str(sparse()[2]["packed"]))
    cases = {
        "a byte too few": (16, 1000, places[:-1]),
        "a byte too many": (16, 1000, places + b"\x00"),
        "shorter than its head": (16, 1000, places[:7]),
        "more elements than there is room for": (16, 1000, (2**63).to_bytes(8, "little")),
        "the other form": (16, 1000, b"\x07" + places[1:]),
        "a longer form": (16, 1000, b"\x07" + bytes(7) + b"\x06" + bytes(123) + b"\x80" + places[-6:]),
        "places that do not ascend": (16, 1000, places[:8] + bytes.fromhex("0204703e") + places[12:]),
        "a place twice": (16, 1000, places[:8] + bytes.fromhex("0104703e") + places[12:]),
        "a place beyond the last": (16, 1000, places[:8] + bytes.fromhex("0108803e") + places[12:]),
        "a bit behind the places": (16, 1000, places[:8] + bytes.fromhex("0108707e") + places[12:]),
        "an element that is zero": (16, 1000, places[:12] + b"\x00\x00" + places[14:]),
        "a bit more than there are elements": (21, 300, bitmap[:8] + bytes([bitmap[8] | 2]) + bitmap[9:]),
        "a bit behind the last element": (21, 300, _moved_bit(bitmap)),
        "a padding bit": (21, 300, bitmap[:-1] + bytes([bitmap[-1] | 0x80])),
    }
    return [
        {
            "name": name,
            "bits": bits,
            "length": length,
            "packed": data.hex(),
            "why": refused(partial(unpack_either, data, bits, length)),
        }
        for name, (bits, length, data) in cases.items()
    ]


def _moved_bit(bitmap: bytes) -> bytes:
    """Clear the first flag of 300 and set one behind the last, so that their number stays."""
    changed = bytearray(bitmap)
    changed[8] &= 0xFE
    changed[8 + 37] |= 0x80
    return bytes(changed)


FIXED: tuple[tuple[FixedPoint, int], ...] = (
    (FixedPoint(32, 4.0, 5, 10_000), 10_000),
    (FixedPoint(32, 4.0, 5, 10_000), 5_000),
    (FixedPoint(8, 1.0, 3), 1),
    (FixedPoint(21, 0.1, 100, 7), 3),
    (FixedPoint(28, 1000.0, 1024, 3), 1),
    (FixedPoint(64, 4.0, 2), 1),
    (FixedPoint(42, 1e-30, 10), 1),
    (FixedPoint(16, 2.0, 10, 3, units=1000.5), 2),
)
"""Parameters, and the weight of the participant whose vector is encoded."""

VALUES = (
    (0.0, 0),
    (-0.0, 0),
    (1.0, 0),
    (-1.0, 2**31),
    (0.1, 2**31),
    (-0.1, 2**31 - 1),
    (3.9999998, 2**32 - 1),
    (-4.0, 2**32 - 1),
    (1e-7, 2**32 - 1),
    (-1e-7, 1),
    (1e30, 0),
    (-1e30, 2**32 - 1),
    (2.0**-149, 2**32 - 1),
    (0.3333333, 123456789),
    (0.0007560044759884477, 2129208624),
)
"""Entries of a vector, each with its word of dither. The last one tells x * (weight * units) from (x * weight) * units,
where 1.0 is 1000.5 units."""


def encoded(fixed: FixedPoint, weight: int) -> dict[str, object]:
    """Return what fixed point makes of the values."""
    values = np.array([value for value, _ in VALUES], np.float32)
    dither = np.array([word for _, word in VALUES], np.uint32)
    integers, saturated = fixed.encode(values, weight, dither)
    return {
        **parameters_of(fixed),
        "weight": weight,
        "values": values.tolist(),
        "dither": dither.tolist(),
        "integers": decimal(integers, fixed.bits),
        "saturated": saturated,
    }


def parameters_of(fixed: FixedPoint) -> dict[str, object]:
    """Return parameters and what follows from them."""
    chosen = {"fraction_bits": fixed.fraction_bits} if fixed.units is None else {"units": fixed.units}
    return {
        "bits": fixed.bits,
        "bound": fixed.bound,
        "participants": fixed.participants,
        "max_weight": fixed.max_weight,
        **chosen,
        "limit": decimal([fixed.limit], fixed.bits)[0],
    }


def decoded(fixed: FixedPoint) -> dict[str, object]:
    """Return the mean that a sum stands for: its smallest, its largest and small elements."""
    largest = fixed.participants * fixed.limit
    sums = [0, 1, -1, fixed.limit, -fixed.limit, min(largest, 2 ** (fixed.bits - 1) - 1)]
    total = np.array([value % 2**fixed.bits for value in sums], container(fixed.bits))
    weight = max(1, fixed.participants * fixed.max_weight * 2 // 3)
    return {
        **parameters_of(fixed),
        "sum": decimal(total, fixed.bits),
        "total_weight": weight,
        "mean": fixed.decode(total, weight).tolist(),
    }


def fixed_point_refusals() -> list[dict[str, object]]:
    """Return parameters that leave no room."""
    cases: dict[str, tuple[int, float, int, int]] = {
        "too many participants": (8, 1.0, 128, 1),
        "too large a bound": (16, 40_000.0, 1, 1),
        "too narrow a ring": (7, 1.0, 1, 1),
        "too wide a ring": (65, 1.0, 1, 1),
        "no bound": (32, 0.0, 1, 1),
        "no participants": (32, 1.0, 0, 1),
        "no weight": (32, 1.0, 1, 0),
    }
    return [
        {
            "name": name,
            "bits": bits,
            "bound": bound,
            "participants": participants,
            "max_weight": weight,
            "why": refused(partial(FixedPoint, bits, bound, participants, weight)),
        }
        for name, (bits, bound, participants, weight) in cases.items()
    ]


LANES: tuple[tuple[int, int, tuple[int, ...], tuple[int, ...]], ...] = (
    (32, 10, (10_000, 1), (600, 1)),
    (8, 3, (600, 0), (599, 0)),
    (12, 7, (10_000, 2**20), (10_000, 1)),
    (21, 100, (), ()),
    (28, 1024, (2**31,), (2**31,)),
    (64, 1000, (2**40,), (2**40,)),
)
"""Width, participants, capacities, and the values of one participant."""


def lanes(bits: int, participants: int, capacities: tuple[int, ...], values: tuple[int, ...]) -> dict[str, object]:
    """Return one participant's lanes, and what the sum over all participants with the same values says."""
    layout = Lanes(bits, participants, capacities)
    written = layout.write(values)
    total = (np.multiply(written, written.dtype.type(participants))) & written.dtype.type((1 << bits) - 1)
    return {
        "bits": bits,
        "participants": participants,
        "capacities": list(capacities),
        "limb_bits": layout.limb_bits,
        "zeros": layout.zeros,
        "limbs": list(layout.limbs),
        "values": list(values),
        "lanes": decimal(written, bits),
        "sum": decimal(total, bits),
        "values_of_the_sum": list(layout.read(total).values),
    }


def lanes_refusals() -> list[dict[str, object]]:
    """Return lanes that can't be."""
    return [
        {
            "name": "more participants than an element can count",
            "bits": 8,
            "participants": 256,
            "why": refused(partial(Lanes, 8, 256, ())),
        },
        {
            "name": "a value above its capacity",
            "bits": 32,
            "participants": 3,
            "capacities": [10],
            "values": [11],
            "why": refused(lambda: Lanes(32, 3, (10,)).write([11])),
        },
    ]
