"""A model as one flat float32 vector, and the way back to its named arrays.

Trainers speak of named arrays (a state dict, a tree of parameters); everything below them speaks of one vector.
A `Layout` is the dictionary between the two: it depends on names, shapes and dtypes only, so two parties that
hold the same model derive the same layout.

Trees (nested dicts, lists and tuples, as JAX and many training loops keep their parameters) are named arrays once
`tree_leaves` has given each leaf its path: {"layer": [{"weight": w}]} has the leaf "layer/0/weight".
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import DataError

Vector = NDArray[np.float32]
"""A model or an update, flat: float32, shape (length,)."""

Array = NDArray[Any]
"""One parameter of a model, with its own shape and dtype."""

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""Dtypes of parameters, by name. Integers, booleans and complex numbers have no meaningful float32 average."""

NAME_LIMIT = 512
"""Longest name of a parameter, in characters: deep trees stay below it, hostile files do not."""

ELEMENT_LIMIT = 1 << 48
"""Most elements of a parameter, empty dimensions left out: NumPy refuses shapes near a machine word's end."""

DIMENSION_LIMIT = 32
"""Most dimensions of a parameter. NumPy 1 stops here, NumPy 2 at 64."""

ROOT = "parameters"
"""The name of the only leaf of a tree that is a bare array."""


@dataclass(frozen=True)
class Field:
    """One named array of a model: its name, shape and dtype name (one of FLOATS).

    Raises DataError if one of them is not usable.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        # Names end up in messages and files; unprintable ones could forge a line of a log.
        if not 1 <= len(self.name) <= NAME_LIMIT or not self.name.isprintable():
            raise DataError(
                f"{self.name[:NAME_LIMIT]!r} can't name a parameter: 1 to {NAME_LIMIT} printable characters"
            )
        if self.dtype not in FLOATS:
            raise DataError(f"parameter {self.name!r} is {self.dtype}, it must be one of {', '.join(sorted(FLOATS))}")
        if len(self.shape) > DIMENSION_LIMIT or any(size < 0 for size in self.shape):
            raise DataError(f"parameter {self.name!r} has an impossible shape")
        if math.prod(size for size in self.shape if size) > ELEMENT_LIMIT:
            raise DataError(f"parameter {self.name!r} is larger than {ELEMENT_LIMIT} elements")

    @cached_property
    def length(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The order, names, shapes and dtypes of a model's arrays: what turns them into one vector and back.

    Raises DataError if two fields have the same name.
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise DataError(f"two parameters are named {name!r}")
            seen.add(name)

    @classmethod
    def of(cls, arrays: Mapping[str, ArrayLike]) -> Layout:
        """Describe named arrays, in the mapping's order.

        Raises DataError, naming the parameter, if one is not made of floating-point numbers.
        """
        return cls(tuple(_field(name, array) for name, array in arrays.items()))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names in order."""
        return tuple(field.name for field in self.fields)

    @cached_property
    def length(self) -> int:
        """Return the number of elements of the vector."""
        return sum(field.length for field in self.fields)

    def flatten(self, arrays: Mapping[str, ArrayLike]) -> Vector:
        """Copy named arrays into one new float32 vector.

        Numbers too large for float32 become infinite, which `require_finite` reports.
        Raises DataError, naming the parameter, if one is missing, unknown, of another shape or not floating-point.
        """
        self._check_names(arrays)
        vector = np.empty(self.length, np.float32)
        for field, target in self._parts(vector):
            array = np.asarray(arrays[field.name])
            if array.shape != field.shape:
                raise DataError(f"parameter {field.name!r} has shape {array.shape}, expected {field.shape}")
            _field(field.name, array)
            with np.errstate(over="ignore"):
                np.copyto(target, array, casting="unsafe")
        return vector

    def unflatten(self, vector: Vector) -> dict[str, NDArray[np.float32]]:
        """Return named arrays that are views of `vector`: float32, with their shapes, nothing copied.

        Raises DataError if the vector does not fit.
        """
        self.check(vector)
        return {field.name: part for field, part in self._parts(vector)}

    def check(self, vector: Vector) -> None:
        """Refuse a vector of another dtype or length with DataError."""
        if vector.dtype != np.float32 or vector.shape != (self.length,):
            expected = f"float32 of shape ({self.length},)"
            raise DataError(f"the vector is {vector.dtype} of shape {vector.shape}, expected {expected}")

    def _parts(self, vector: Vector) -> Iterator[tuple[Field, NDArray[np.float32]]]:
        start = 0
        for field in self.fields:
            yield field, vector[start : start + field.length].reshape(field.shape)
            start += field.length

    def _check_names(self, arrays: Mapping[str, ArrayLike]) -> None:
        for name in self.names:
            if name not in arrays:
                raise DataError(f"parameter {name!r} is missing")
        if len(arrays) != len(self.names):
            unknown = next(name for name in arrays if name not in self.names)
            raise DataError(f"parameter {unknown!r} does not belong to this model")


def require_finite(vector: Vector, layout: Layout | None = None) -> None:
    """Refuse a vector that has a NaN or an infinity.

    vector: float32, shape (length,). layout: names the parameter in the error.
    Raises DataError with the first such parameter and how many of its elements are not finite.
    """
    # The square of a NaN or an infinity stays one, so a finite sum of squares proves the good case in one fast pass.
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(np.dot(vector, vector)):
            return
    finite = np.isfinite(vector)
    if finite.all():
        return
    parts = [("the vector", finite)]
    if layout is not None:
        layout.check(vector)
        ends = np.cumsum([field.length for field in layout.fields])
        parts = [
            (f"parameter {name!r}", part) for name, part in zip(layout.names, np.split(finite, ends), strict=False)
        ]
    for name, part in parts:
        if not part.all():
            raise DataError(f"{name} has {np.count_nonzero(~part)} of {part.size} elements that are NaN or infinite")


def tree_leaves(tree: Any) -> dict[str, Any]:
    """Name every leaf of nested dicts, lists and tuples by its path, in the order of the containers.

    Example: {"layer": [{"weight": w}]} gives {"layer/0/weight": w}; a bare array is named "parameters".
    Raises DataError if a key is neither a string nor an integer, or if two leaves get the same path.
    """
    leaves: dict[str, Any] = {}
    for path, leaf in _walk(tree, ""):
        if path in leaves:
            raise DataError(f"two leaves of the tree are both named {path!r}: a key contains '/' or is a number")
        leaves[path] = leaf
    return leaves


def tree_replace(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Return a tree of the same structure with other leaves; `tree` itself does not change.

    leaves: one per name of `tree_leaves(tree)`. Raises DataError if one is missing or unknown.
    """
    _check_leaves(tree, leaves)
    return _rebuild(tree, "", lambda path, leaf: leaves[path])


def tree_assign(tree: Any, leaves: Mapping[str, Any]) -> None:
    """Put new leaves into `tree` itself.

    NumPy arrays are written in place and keep their dtype; any other leaf (a JAX array, a number) can't be written
    to and is replaced in the dict or list that holds it.
    Raises DataError, before anything changes, if a name is missing or unknown, if the shape of a NumPy array differs,
    or if a leaf must be replaced in a tuple or another container that can't change.
    """
    _check_leaves(tree, leaves)
    writes = [_write(holder, key, path, leaves[path]) for holder, key, path in _holders(None, None, tree, "")]
    for write in writes:
        write()


def _field(name: str, array: ArrayLike) -> Field:
    found = array if isinstance(array, np.ndarray) else np.asarray(array)
    return Field(name, found.shape, found.dtype.name)


def _children(tree: Any, path: str) -> list[tuple[Any, str, Any]] | None:
    """Return (key, path, child) of a container, or None for a leaf."""
    if isinstance(tree, Mapping):
        items = list(tree.items())
    elif isinstance(tree, list | tuple):
        items = list(enumerate(tree))
    else:
        return None
    for key, _ in items:
        if not isinstance(key, str | int):
            raise DataError(
                f"a tree's keys are strings or integers, not {type(key).__name__} (below {path or 'its root'!r})"
            )
    return [(key, f"{path}/{key}" if path else str(key), child) for key, child in items]


def _walk(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    children = _children(tree, path)
    if children is None:
        yield path or ROOT, tree
        return
    for _, below, child in children:
        yield from _walk(child, below)


def _rebuild(tree: Any, path: str, leaf: Callable[[str, Any], Any]) -> Any:
    children = _children(tree, path)
    if children is None:
        return leaf(path or ROOT, tree)
    rebuilt = {key: _rebuild(child, below, leaf) for key, below, child in children}
    if isinstance(tree, tuple):
        # Named tuples take their elements one by one.
        return type(tree)(*rebuilt.values()) if hasattr(tree, "_fields") else type(tree)(rebuilt.values())
    if not isinstance(tree, dict | list):
        return type(tree)(rebuilt)
    # A shallow copy keeps what a subclass carries besides its items, such as a default factory.
    container = copy.copy(tree)
    for key, child in rebuilt.items():
        container[key] = child
    return container


def _holders(holder: Any, key: Any, tree: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """Yield (container, key, path) of every leaf."""
    children = _children(tree, path)
    if children is None:
        yield ([tree], 0, ROOT) if holder is None and isinstance(tree, np.ndarray) else (holder, key, path or ROOT)
        return
    for below_key, below, child in children:
        yield from _holders(tree, below_key, child, below)


def _write(holder: Any, key: Any, path: str, new: Any) -> Callable[[], None]:
    old = holder[key] if holder is not None else None
    if isinstance(old, np.ndarray):
        array = np.asarray(new)
        if array.shape != old.shape:
            raise DataError(f"parameter {path!r} has shape {array.shape}, expected {old.shape}")
        return lambda: np.copyto(old, array, casting="unsafe")
    if not isinstance(holder, dict | list):
        raise DataError(
            f"parameter {path!r} can't be replaced: a {type(holder).__name__} holds it, not a dict or a list"
        )
    return lambda: holder.__setitem__(key, new)


def _check_leaves(tree: Any, leaves: Mapping[str, Any]) -> None:
    names = tree_leaves(tree)
    for name in names:
        if name not in leaves:
            raise DataError(f"parameter {name!r} is missing")
    for name in leaves:
        if name not in names:
            raise DataError(f"parameter {name!r} does not belong to this tree")
