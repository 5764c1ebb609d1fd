"""Model files: the same bytes for the same model, and nothing else is read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from ridotto.core.tensors import read_metadata, read_model, rewrite_model, write_model
from ridotto.core.vector import Field, Layout
from ridotto.errors import DataError

LAYOUT = Layout((Field("z", (2,), "float64"), Field("a", (2, 1), "bfloat16"), Field("m", (), "float32")))
VECTOR = np.array([1, 2, 3, 4, 5], np.float32)
NOTE = json.dumps({"fields": [["z", "float64"], ["a", "bfloat16"], ["m", "float32"]], "metadata": {}})


def model_file(header: object, body: bytes = VECTOR.tobytes()) -> bytes:
    """Frame a header by hand, as an attacker would."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def header(**changes: object) -> dict[str, object]:
    tensors: dict[str, object] = {
        "__metadata__": {"ridotto": NOTE},
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "m": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]},
        "z": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]},
    }
    return tensors | changes


def test_round_trip_keeps_order_shapes_and_dtypes():
    vector, layout = read_model(write_model(VECTOR, LAYOUT))
    assert layout == LAYOUT
    assert vector.tolist() == VECTOR.tolist()
    assert vector.dtype == np.float32
    assert vector.flags.writeable


def test_any_safetensors_reader_opens_the_file():
    arrays = load(write_model(VECTOR, LAYOUT))
    assert {name: array.tolist() for name, array in arrays.items()} == {"z": [1, 2], "a": [[3], [4]], "m": 5}


def test_same_model_gives_same_bytes():
    notes = {str(i): "x" for i in range(8)}
    orders = [list(notes.items()), list(reversed(notes.items()))]
    files = {write_model(VECTOR, LAYOUT, dict(order)) for order in orders for _ in range(9)}
    assert len(files) == 1
    assert read_metadata(files.pop()) == notes


def test_other_numbers_in_a_file_change_nothing_else():
    other = np.array([6, -7, 8, 9, 0.5], np.float32)
    notes = {"by": "somebody"}
    assert rewrite_model(write_model(VECTOR, LAYOUT, notes), other) == write_model(other, LAYOUT, notes)
    foreign = model_file(header())
    again = rewrite_model(foreign, other)
    assert again[: -len(VECTOR.tobytes())] == foreign[: -len(VECTOR.tobytes())]
    assert read_model(again)[0].tolist() == other.tolist()
    with pytest.raises(DataError):
        rewrite_model(foreign, other[:4])


def test_reads_from_any_buffer():
    data = write_model(VECTOR, LAYOUT)
    for buffer in (bytearray(data), memoryview(b"odd" + data)[3:]):
        assert read_model(buffer)[0].tolist() == VECTOR.tolist()


@given(
    st.lists(
        st.tuples(st.text("abc/.é", min_size=1), st.lists(st.integers(0, 3), max_size=3)), unique_by=lambda f: f[0]
    )
)
def test_round_trip_of_any_layout(fields):
    layout = Layout(tuple(Field(name, tuple(shape), "float16") for name, shape in fields))
    vector = np.arange(layout.length, dtype=np.float32)
    read, read_layout = read_model(write_model(vector, layout))
    assert read_layout == layout
    assert read.tolist() == vector.tolist()


def test_write_refuses_what_does_not_fit():
    with pytest.raises(DataError, match="shape"):
        write_model(VECTOR[:4], LAYOUT)
    with pytest.raises(DataError, match="__metadata__"):
        write_model(VECTOR[:1], Layout((Field("__metadata__", (1,), "float32"),)))


def test_the_hand_made_header_is_read():
    assert read_model(model_file(header()))[1] == LAYOUT


F32 = {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\xff" * 8,
        (2**40).to_bytes(8, "little") + b"{}",
        model_file(b"[]"),
        model_file(b"\xff\xfe"),
        model_file(b"[" * 100_000),
        model_file(b'{"a":' * 100_000),
        model_file({}),
        model_file({"__metadata__": {"other": "x"}}),
        model_file(header(__metadata__={"ridotto": "{}"})),
        model_file(header(__metadata__={"ridotto": "NaN"})),
        model_file(header(__metadata__={"ridotto": NOTE.replace("bfloat16", "int8")})),
        model_file(header(__metadata__={"ridotto": NOTE.replace('"m"', '"a"')})),
        model_file(header(__metadata__={"ridotto": NOTE.replace('"metadata"', '"fields": [], "metadata"')})),
        model_file(header(z=F32 | {"dtype": "F64"})),
        model_file(header(z=F32 | {"shape": [3]})),
        model_file(header(z=F32 | {"shape": [-2]})),
        model_file(header(z=F32 | {"shape": [True, 2]})),
        model_file(header(z=F32 | {"shape": [2**62, 2**62, 0]})),
        model_file(header(z=F32 | {"data_offsets": [8, 16]})),
        model_file(header(z=F32 | {"data_offsets": [20, 12]})),
        model_file(header(z=F32 | {"data_offsets": [12, 10**5000 % 7919]})),
        model_file(header(z=F32 | {"extra": 1})),
        model_file(header(extra=F32)),
        model_file(header(), VECTOR.tobytes() + b"\0"),
        model_file(header(), VECTOR.tobytes()[:-1]),
        model_file(json.dumps(header()).replace('"m":', '"z":').encode()),
        model_file(b'{"a":' + b"9" * 10_000 + b"}"),
    ],
    ids=range(29),
)
def test_refuses_malformed_and_hostile_files(data):
    with pytest.raises(DataError):
        read_model(data)
    with pytest.raises(DataError):
        read_metadata(data)


def test_refuses_a_file_that_ridotto_did_not_write():
    with pytest.raises(DataError, match="ridotto did not write it"):
        read_model(save({"a": np.zeros(1, np.float32)}, {"format": "np"}))


GOOD = write_model(VECTOR, LAYOUT)


@given(
    st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=4), st.integers(0, 30)
)
def test_only_data_errors_leave_a_damaged_file(changes, cut):
    data = bytearray(GOOD)
    for place, byte in changes:
        data[place] = byte
    try:
        vector, layout = read_model(data[: len(data) - cut])
    except DataError:
        return
    layout.check(vector)


@given(st.binary(max_size=200))
def test_only_data_errors_leave_random_headers(text):
    with pytest.raises(DataError):
        read_model(model_file(text))
