"""The bodies that clients read."""

from __future__ import annotations

import struct
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.errors import DataError, PeerProtocolError
from ridotto.secagg.xaynet.bincode import (
    RoundParameters,
    decode_keys,
    decode_model,
    decode_parameters,
    encode_floats,
    encode_keys,
    encode_model,
    encode_parameters,
)
from ridotto.secagg.xaynet.config import Bound, Data, Group, MaskConfig, MaskConfigPair, Models

CONFIGS = MaskConfigPair(MaskConfig(Group.POWER2, Data.F64, Bound.BMAX, Models.M6), MaskConfig())
PARAMETERS = RoundParameters(b"\1" * 32, 0.5, 1.0, b"\2" * 32, CONFIGS, 7)


def test_the_layout_of_parameters() -> None:
    """The variants' places: without a bound is the fifth bound, 10^3 models the first number of models."""
    body = encode_parameters(PARAMETERS)
    size = struct.pack("<Q", 32)
    variants = struct.pack("<8I", 2, 1, 4, 1, 1, 0, 0, 0)
    chances = struct.pack("<dd", 0.5, 1.0)
    assert body == size + b"\1" * 32 + chances + size + b"\2" * 32 + variants + struct.pack("<Q", 7)
    assert len(body) == 136
    assert decode_parameters(body, "coordinator") == PARAMETERS


@pytest.mark.parametrize(
    ("place", "data"),
    [
        (0, b"\x21"),
        (56, b"\x21"),
        (40, struct.pack("<d", 1.5)),
        (48, struct.pack("<d", float("nan"))),
        (96, b"\3"),
        (104, b"\5"),
    ],
)
def test_refuses_parameters_that_do_not_fit(place: int, data: bytes) -> None:
    body = bytearray(encode_parameters(PARAMETERS))
    body[place : place + len(data)] = data
    with pytest.raises(PeerProtocolError) as caught:
        decode_parameters(bytes(body), "coordinator")
    assert caught.value.peer == "coordinator"
    with pytest.raises(PeerProtocolError, match="136 bytes, not 135"):
        decode_parameters(bytes(body[:-1]), "coordinator")


def test_dictionaries() -> None:
    entries = {bytes([i]) * 32: bytes([i]) * 80 for i in range(3)}
    body = encode_keys(entries)
    assert body[:48] == struct.pack("<QQ", 3, 32) + bytes(32)
    assert decode_keys(body, 80, "coordinator") == entries
    assert decode_keys(encode_keys({}), 80, "coordinator") == {}
    twice = struct.pack("<Q", 6) + 2 * body[8:]
    wrong_size = body[:8] + b"\x1f" + body[9:]
    for bad in (b"", body[:-1], body + b"x", twice, wrong_size, b"\xff" * 8 + body[8:]):
        with pytest.raises(PeerProtocolError):
            decode_keys(bad, 80, "coordinator")


def test_the_layout_of_a_model() -> None:
    def number(sign: int, *digits: int) -> bytes:
        return struct.pack(f"<bQ{len(digits)}I", sign, len(digits), *digits)

    body = encode_model([6, 0, 2**32, -3], [-4, 5, 1, 1])
    expected = number(-1, 3) + number(1, 2) + number(0) + number(1, 1) + number(1, 0, 1) + number(1, 1)
    assert body == struct.pack("<Q", 4) + expected + number(-1, 3) + number(1, 1)


@given(st.lists(st.fractions(), max_size=5))
def test_models_are_read_as_written(weights: list[Fraction]) -> None:
    body = encode_model([weight.numerator for weight in weights], [weight.denominator for weight in weights])
    assert decode_model(body, len(weights), "coordinator") == weights


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5))
def test_floats_are_written_exactly(weights: list[float]) -> None:
    assert decode_model(encode_floats(weights), len(weights), "coordinator") == [Fraction(weight) for weight in weights]


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_refuses_floats_that_are_no_numbers(weight: float) -> None:
    with pytest.raises(DataError):
        encode_floats([weight])


@given(st.binary(max_size=60))
def test_only_refusals_come_out_of_decoders(body: bytes) -> None:
    for decode, form in ((decode_model, 1), (decode_keys, 32)):
        with suppress(PeerProtocolError):
            decode(body, form, "coordinator")
    with pytest.raises(PeerProtocolError):
        decode_parameters(body, "coordinator")


def test_refuses_models_that_are_cut_or_strange() -> None:
    body = encode_model([3], [2])
    one = body[8:21]
    zero = struct.pack("<bQ", 0, 0)
    for bad in (
        body[:-1],
        body + b"x",
        body[:8] + one + zero,
        body[:8] + zero + one[:1] + zero[1:],
        body[:8] + b"\2" + body[9:],
    ):
        with pytest.raises(PeerProtocolError):
            decode_model(bad, 1, "coordinator")
    with pytest.raises(PeerProtocolError, match="has not 2 weights"):
        decode_model(body, 2, "coordinator")
    huge = body[:9] + b"\xff" * 8 + body[17:]
    with pytest.raises(PeerProtocolError, match="end before they should"):
        decode_model(huge, 1, "coordinator")
