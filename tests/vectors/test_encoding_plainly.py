"""encoding.json, recomputed in Python's integers and fractions; and what it says is refused, refused."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ridotto.core.fixedpoint import FixedPoint
from ridotto.core.packing import unpack
from ridotto.core.sparse_packing import unpack_either
from ridotto.secagg.lanes import Lanes
from tests.vectors import plain
from tests.vectors.files import check_refusals, integers, load

FILE = load("encoding.json")


def test_packed_vectors() -> None:
    assert {row["bits"] for row in FILE["packing"]} >= {8, 16, 21, 28, 32, 64}
    for row in FILE["packing"]:
        values, data = integers(row["values"]), bytes.fromhex(row["packed"])
        assert plain.packed(values, row["bits"]) == data
        assert unpack(data, row["bits"], len(values)).tolist() == values


def test_packed_vectors_that_are_refused() -> None:
    check_refusals(
        FILE["packing_refusals"], lambda row: unpack(bytes.fromhex(row["packed"]), row["bits"], row["length"])
    )


@pytest.mark.parametrize("row", FILE["sparse"], ids=lambda row: f"{row['length']}x{row['bits']}")
def test_sparse_vectors(row: dict[str, Any]) -> None:
    bits, length, data = row["bits"], row["length"], bytes.fromhex(row["packed"])
    nonzero = {place: int(element) for place, element in row["nonzero"]}
    vector = [nonzero.get(place, 0) for place in range(length)]
    assert unpack_either(data, bits, length).tolist() == vector
    assert data == shortest(vector, bits)
    dense = plain.packed(vector, bits)
    assert unpack_either(dense, bits, length).tolist() == vector


def shortest(vector: list[int], bits: int) -> bytes:
    """The form that the page on `ideal` asks for."""
    places, elements = [i for i, value in enumerate(vector) if value], [value for value in vector if value]
    width = max(8, (len(vector) - 1).bit_length())
    listed, flags = plain.packed(places, width), plain.packed([int(value > 0) for value in vector], 1)
    form = int(len(listed) >= len(flags))
    sparse = (2 * len(places) + form).to_bytes(8, "little") + (listed, flags)[form] + plain.packed(elements, bits)
    dense = plain.packed(vector, bits)
    return sparse if len(sparse) < len(dense) else dense


def test_all_three_forms_are_there() -> None:
    dense = [row for row in FILE["sparse"] if 2 * len(row["packed"]) == 4 * math.ceil(row["length"] * row["bits"] / 8)]
    forms = {bytes.fromhex(row["packed"])[0] % 2 for row in FILE["sparse"] if row not in dense}
    assert len(dense) >= 2
    assert forms == {0, 1}


def test_sparse_vectors_that_are_refused() -> None:
    check_refusals(
        FILE["sparse_refusals"], lambda row: unpack_either(bytes.fromhex(row["packed"]), row["bits"], row["length"])
    )


def units_of(row: dict[str, Any]) -> float:
    """The units that 1 is: of fraction bits, the most for which no sum wraps."""
    if "units" in row:
        return float(row["units"])
    fits = 0
    for f in range(150):
        limit = math.ceil(Fraction(row["bound"]) * 2**f)
        if row["participants"] * limit < 2 ** (row["bits"] - 1) and limit <= 2**52:
            fits = f
    assert row["fraction_bits"] == fits
    return 2.0**fits


@pytest.mark.parametrize("row", FILE["fixed_point"], ids=lambda row: f"{row['bits']}-{row['weight']}")
def test_fixed_point(row: dict[str, Any]) -> None:
    units, limit = units_of(row), int(row["limit"])
    assert limit == math.ceil(Fraction(row["bound"]) * Fraction(units))
    scale, expected, saturated = row["weight"] / row["max_weight"] * units, [], 0
    for value, dither in zip(row["values"], row["dither"], strict=True):
        assert float(np.float32(value)) == value
        real = value * scale
        saturated += abs(real) > limit
        real = min(max(real, -limit), limit)
        expected.append((round(Fraction(real) * 2**32) + dither >> 32) % 2 ** row["bits"])
    assert (integers(row["integers"]), row["saturated"]) == (expected, saturated)


@pytest.mark.parametrize("row", FILE["fixed_point_sums"], ids=lambda row: row["bits"])
def test_the_mean_of_a_sum(row: dict[str, Any]) -> None:
    units, half = units_of(row), 2 ** (row["bits"] - 1)
    for element, mean in zip(integers(row["sum"]), row["mean"], strict=True):
        signed = (element + half) % (2 * half) - half
        exact = Fraction(signed) / Fraction(units) * row["max_weight"] / row["total_weight"]
        assert mean == pytest.approx(float(exact), rel=2**-23, abs=2**-149)


def test_fixed_point_that_is_refused() -> None:
    check_refusals(
        FILE["fixed_point_refusals"],
        lambda row: FixedPoint(row["bits"], row["bound"], row["participants"], row["max_weight"]),
    )


@pytest.mark.parametrize("row", FILE["lanes"], ids=lambda row: row["bits"])
def test_lanes(row: dict[str, Any]) -> None:
    bits, n = row["bits"], row["participants"]
    width = math.floor(math.log2((2**bits - 1) // n + 1)) if bits < 50 else ((2**bits - 1) // n + 1).bit_length() - 1
    limbs = [max(1, math.ceil(capacity.bit_length() / width)) for capacity in row["capacities"]]
    assert (row["limb_bits"], row["limbs"], row["zeros"]) == (width, limbs, math.ceil(64 / bits))
    lanes = [1] + [0] * row["zeros"]
    for value, count in zip(row["values"], limbs, strict=True):
        lanes += [(value >> (width * i)) % 2**width for i in range(count)]
    assert integers(row["lanes"]) == lanes
    assert integers(row["sum"]) == [element * n for element in lanes]
    assert max(integers(row["sum"])) < 2**bits
    assert row["values_of_the_sum"] == [value * n for value in row["values"]]


def test_lanes_that_are_refused() -> None:
    def act(row: dict[str, Any]) -> None:
        lanes = Lanes(row["bits"], row["participants"], tuple(row.get("capacities", ())))
        lanes.write(row.get("values", ()))

    check_refusals(FILE["lanes_refusals"], act)
