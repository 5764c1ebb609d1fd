"""Named arrays, trees and the flat vector between them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ridotto.core.vector import Field, Layout, require_finite, tree_assign, tree_leaves, tree_replace
from ridotto.errors import DataError

Pair = namedtuple("Pair", "weight bias")  # JAX's states are plain named tuples

ARRAYS = {"b": np.array([[1.0, 2.0], [3.0, 4.0]]), "a": np.float32(5.0), "empty": np.zeros((0, 3), np.float16)}


def test_layout_keeps_the_order_of_the_mapping():
    layout = Layout.of(ARRAYS)
    assert layout.names == ("b", "a", "empty")
    assert layout.fields[0] == Field("b", (2, 2), "float64")
    assert layout.length == 5


def test_flatten_follows_the_layout_not_the_order_given():
    vector = Layout.of(ARRAYS).flatten(dict(reversed(ARRAYS.items())))
    assert vector.dtype == np.float32
    assert vector.tolist() == [1, 2, 3, 4, 5]


def test_unflatten_gives_views_with_shapes():
    layout = Layout.of(ARRAYS)
    vector = np.arange(5, dtype=np.float32)
    parts = layout.unflatten(vector)
    assert {name: part.shape for name, part in parts.items()} == {"b": (2, 2), "a": (), "empty": (0, 3)}
    parts["b"][1, 1] = 9
    assert vector[3] == 9


shapes = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=5)


@given(shapes, st.sampled_from(["float16", "float32", "float64"]))
def test_flatten_and_unflatten_are_inverse(shapes, dtype):
    arrays = {f"p{i}": np.full(shape, i + 0.5, dtype) for i, shape in enumerate(shapes)}
    layout = Layout.of(arrays)
    parts = layout.unflatten(layout.flatten(arrays))
    assert list(parts) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(parts[name], array)


def test_accepts_bfloat16_and_arrays_that_are_not_contiguous():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes comes with JAX, an extra")
    arrays = {"x": np.array([1.5, 2.0], ml_dtypes.bfloat16), "y": np.arange(6.0).reshape(2, 3).T}
    layout = Layout.of(arrays)
    assert layout.fields[0].dtype == "bfloat16"
    assert layout.flatten(arrays).tolist() == [1.5, 2, 0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize("value", [np.arange(3), np.array([True]), np.array([1j]), np.array([None]), "text", [1, 2]])
def test_refuses_arrays_without_a_float_mean(value):
    with pytest.raises(DataError, match="'odd'"):
        Layout.of({"fine": np.zeros(1), "odd": value})
    with pytest.raises(DataError, match="'odd'"):
        Layout((Field("odd", np.shape(value), "float32"),)).flatten({"odd": value})


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.zeros(2)}, "'b' is missing"),
        ({"a": np.zeros(2), "b": np.zeros(1), "c": np.zeros(1)}, "'c' does not belong"),
        ({"a": np.zeros((2, 1)), "b": np.zeros(1)}, r"'a' has shape \(2, 1\), expected \(2,\)"),
    ],
)
def test_flatten_names_what_does_not_fit(arrays, message):
    with pytest.raises(DataError, match=message):
        Layout.of({"a": np.zeros(2), "b": np.zeros(1)}).flatten(arrays)


@pytest.mark.parametrize("vector", [np.zeros(4, np.float32), np.zeros(5), np.zeros((5, 1), np.float32)])
def test_unflatten_refuses_a_vector_of_another_kind(vector):
    with pytest.raises(DataError, match="expected float32 of shape"):
        Layout.of(ARRAYS).unflatten(vector)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("", (1,), "float32"),
        ("line\nbreak", (1,), "float32"),
        ("x" * 513, (1,), "float32"),
        ("a", (-1,), "float32"),
        ("a", (2**40, 2**40), "float32"),
        ("a", (0, 2**63), "float32"),
        ("a", (1,) * 33, "float32"),
        ("a", (1,), "int8"),
    ],
)
def test_refuses_impossible_fields(name, shape, dtype):
    with pytest.raises(DataError):
        Field(name, shape, dtype)


def test_refuses_two_fields_of_one_name():
    with pytest.raises(DataError, match="two parameters are named 'a'"):
        Layout((Field("a", (1,), "float32"), Field("a", (2,), "float32")))


def test_require_finite_accepts_numbers_whose_squares_overflow():
    require_finite(np.full(3, 3e38, np.float32))
    require_finite(np.empty(0, np.float32))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_require_finite_names_the_first_bad_parameter(bad):
    layout = Layout.of({"a": np.zeros(2), "none": np.zeros(0), "b": np.zeros(3), "c": np.zeros(1)})
    vector = np.array([1, 2, 3, bad, bad, bad], np.float32)
    with pytest.raises(DataError, match="parameter 'b' has 2 of 3 elements"):
        require_finite(vector, layout)
    with pytest.raises(DataError, match="the vector has 3 of 6 elements"):
        require_finite(vector)


def test_float64_beyond_float32_is_reported_as_infinite():
    arrays = {"big": np.array([1e300])}
    layout = Layout.of(arrays)
    with pytest.raises(DataError, match="'big' has 1 of 1"):
        require_finite(layout.flatten(arrays), layout)


TREE = {"layer": [{"weight": 1, "bias": 2}, (3,)], "pair": Pair(4, 5), 7: 6, "none": {}}


def test_leaves_are_named_by_their_paths_in_order():
    expected = {"layer/0/weight": 1, "layer/0/bias": 2, "layer/1/0": 3, "pair/0": 4, "pair/1": 5, "7": 6}
    assert list(tree_leaves(TREE).items()) == list(expected.items())


def test_a_bare_array_is_a_tree_of_one_leaf():
    assert tree_leaves(3.0) == {"parameters": 3.0}
    assert tree_replace(3.0, {"parameters": 4.0}) == 4.0


@pytest.mark.parametrize("tree", [{"a/b": 1, "a": {"b": 2}}, {1: 1, "1": 2}])
def test_refuses_leaves_with_one_path(tree):
    with pytest.raises(DataError, match="both named"):
        tree_leaves(tree)


def test_refuses_keys_that_are_no_names():
    with pytest.raises(DataError, match="not float"):
        tree_leaves({"a": {1.5: 1}})


def test_replace_rebuilds_every_kind_of_container():
    tree = {"d": OrderedDict(x=1), "m": MappingProxyType({"y": 2}), "p": Pair(3, (4,)), "l": [5]}
    new = tree_replace(tree, {name: leaf * 10 for name, leaf in tree_leaves(tree).items()})
    assert new == {"d": OrderedDict(x=10), "m": {"y": 20}, "p": Pair(30, (40,)), "l": [50]}
    assert type(new["d"]) is OrderedDict
    assert type(new["m"]) is MappingProxyType
    assert type(new["p"]) is Pair
    assert tree["l"] == [5]
    assert tree["d"]["x"] == 1


def test_assign_writes_arrays_in_place_and_replaces_the_rest():
    weight, inside_tuple = np.zeros(2, np.float16), np.zeros(1)
    tree = {"weight": weight, "scale": 1.0, "fixed": (inside_tuple,), "list": [2.0]}
    tree_assign(tree, {"weight": np.array([1.0, 2.0]), "scale": 3.0, "fixed/0": np.ones(1), "list/0": 4.0})
    assert tree["weight"] is weight
    assert weight.tolist() == [1, 2]
    assert weight.dtype == np.float16
    assert tree["fixed"][0] is inside_tuple
    assert inside_tuple[0] == 1
    assert tree["scale"] == 3.0
    assert tree["list"] == [4.0]


def test_assign_writes_a_bare_array():
    array = np.zeros(2)
    tree_assign(array, {"parameters": np.ones(2)})
    assert array.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("tree", "leaves"),
    [
        ({"a": np.zeros(1), "t": (1.0,)}, {"a": np.ones(1), "t/0": 2.0}),
        ({"a": np.zeros(1), "b": np.zeros(2)}, {"a": np.ones(1), "b": np.ones(3)}),
        ({"a": np.zeros(1), "b": 1.0}, {"a": np.ones(1)}),
        ({"a": np.zeros(1)}, {"a": np.ones(1), "b": np.ones(1)}),
    ],
)
def test_assign_changes_nothing_when_it_refuses(tree, leaves):
    with pytest.raises(DataError):
        tree_assign(tree, leaves)
    assert tree["a"].tolist() == [0]


def test_assign_refuses_a_bare_number():
    with pytest.raises(DataError, match="can't be replaced"):
        tree_assign(1.0, {"parameters": 2.0})


def test_jax_arrays_are_replaced():
    jnp = pytest.importorskip("jax.numpy", reason="JAX is an extra")
    tree = {"dense": {"kernel": jnp.zeros((2, 2), jnp.bfloat16)}}
    leaves = tree_leaves(tree)
    layout = Layout.of(leaves)
    assert layout.fields == (Field("dense/kernel", (2, 2), "bfloat16"),)
    tree_assign(tree, layout.unflatten(layout.flatten(leaves) + np.float32(1)))
    assert np.asarray(tree["dense"]["kernel"]).tolist() == [[1, 1], [1, 1]]
