"""PySyft's verbs: what they compute, and what they refuse by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ridotto import infer
from ridotto.errors import ConfigError, DataError, RidottoError
from ridotto.infer import reference
from ridotto.infer.pysyft import SharedTensor
from tests.infer.models import dense, inputs

X = np.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
Y = np.array([[0.5, 0.5, 2.0], [-1.0, 1.0, 4.0]])
W = np.array([[1.0, 2.0], [-0.5, 0.25], [3.0, -1.0]])


@pytest.fixture(scope="module")
def world() -> Iterator[infer.World]:
    with infer.local() as found:
        yield found


def shared(world: infer.World, values: np.ndarray[Any, Any], bits: int = 14) -> SharedTensor:
    alice, bob, dealer = world.workers()
    return infer.tensor(values).fix_prec(bits).share(alice, bob, crypto_provider=dealer)


CASES: dict[str, tuple[Callable[[Any, Any, Any], Any], Any]] = {
    "as it is": (lambda x, y, w: x, X),
    "sum": (lambda x, y, w: x + y, X + Y),
    "difference": (lambda x, y, w: x - y, X - Y),
    "public row": (lambda x, y, w: 1 - x + np.array([1, 2, 3]), 2 - X + np.array([0, 1, 2])),
    "public matrix": (lambda x, y, w: Y - x, Y - X),
    "public factor": (lambda x, y, w: -2 * x * np.array([1, 0, 2]) / 4, -X * np.array([0.5, 0, 1])),
    "shared matrix": (lambda x, y, w: x @ w, X @ W),
    "matrix of a sum": (lambda x, y, w: (x + y) @ (2 * w), (X + Y) @ (2 * W)),
    "relu": (lambda x, y, w: x.relu(), np.maximum(X, 0)),
    "two layers": (
        lambda x, y, w: ((x @ w - 1).relu() @ W.T + 0.5).relu(),
        np.maximum(np.maximum(X @ W - 1, 0) @ W.T + 0.5, 0),
    ),
    "twice behind a ReLU": (lambda x, y, w: (h := x.relu()) @ W + h @ W, 2 * np.maximum(X, 0) @ W),
}


@pytest.mark.parametrize("name", CASES)
def test_computes(world: infer.World, name: str) -> None:
    compute, expected = CASES[name]
    found = compute(shared(world, X), shared(world, Y), shared(world, W)).get().float_prec()
    assert np.abs(found - expected).max() < 0.002


def test_a_class_and_nothing_else(world: infer.World) -> None:
    found = (shared(world, X) @ shared(world, W)).argmax(dim=1).get().float_precision()
    assert found.tolist() == (X @ W).argmax(axis=1).tolist()
    assert found.dtype == np.int64


def test_precision_is_as_asked(world: infer.World) -> None:
    fixed = infer.tensor([[1 / 3]]).fix_precision(6)
    assert fixed.float_prec().tolist() == [[21 / 64]]
    assert abs(shared(world, X, 8).relu().get().float_prec() - np.maximum(X, 0)).max() < 0.02


def test_a_model_too(world: infer.World) -> None:
    alice, bob, dealer = world.workers()
    graph = dense(8, 6, 3)
    x = inputs(graph, 4)
    model = infer.module(graph, examples=x).fix_prec().share(alice, bob, crypto_provider=dealer)
    expected = reference.forward(graph, x)
    data = shared(world, x)
    assert np.abs(model(data).get().float_prec() - expected).max() < 0.005
    assert model(data).argmax().get().float_prec().tolist() == expected.argmax(axis=1).tolist()
    with pytest.raises(DataError, match="a model on the result of another computation has no protocol"):
        model(data.relu())


@pytest.mark.parametrize(
    ("compute", "what"),
    [
        (lambda x, y: x * y, "the product of two shared tensors, element by element, has no protocol here"),
        (lambda x, y: x / y, "division by a shared tensor"),
        (lambda x, y: x.softmax(), "softmax has no protocol here; shared tensors can do: .*, relu, argmax"),
        (lambda x, y: x.relu() + y, "one lies behind another ReLU"),
        (lambda x, y: x @ x.relu(), "a matrix product with the result of a ReLU"),
        (lambda x, y: np.eye(2) @ x, "a matrix in front of a shared tensor"),
        (lambda x, y: x.argmax() + 1, "a computation with hidden classes"),
        (lambda x, y: x.argmax(dim=0), "argmax over dimension 0"),
        (lambda x, y: x @ y, r"@: shapes \(2, 3\) and \(2, 3\) do not fit"),
        (lambda x, y: x + np.ones(4), r"\+: shapes \(2, 3\) and \(4,\) do not fit"),
        (lambda x, y: (x @ W) + y, "do not fit"),
        (lambda x, y: (1e4 * x).relu() * 1e4, r"layer result \(Linear\): the output reaches"),
    ],
)
def test_refuses_by_name(world: infer.World, compute: Callable[[Any, Any], Any], what: str) -> None:
    with pytest.raises(RidottoError, match=what):
        compute(shared(world, X), shared(world, Y)).get()


def test_refuses_what_does_not_belong_together(world: infer.World) -> None:
    alice, bob, dealer = world.workers()
    fixed = infer.tensor(X).fix_prec()
    with pytest.raises(ConfigError, match="workers of one world, in order: party-0, party-1, dealer"):
        fixed.share(bob, alice, crypto_provider=dealer)
    with infer.local() as other:
        with pytest.raises(ConfigError, match="workers of one world"):
            fixed.share(alice, other.workers()[1], crypto_provider=dealer)
        with pytest.raises(DataError, match="the same world"):
            shared(world, X) + shared(other, X)
    with pytest.raises(DataError, match="the same precision"):
        shared(world, X) + shared(world, X, 10)
    with pytest.raises(DataError, match="one row an example"):
        infer.tensor([1.0, 2.0])
    with pytest.raises(DataError, match="tensor: a number of magnitude"):
        infer.tensor([[1e9]]).fix_prec()


def test_nothing_is_shown(world: infer.World) -> None:
    x = shared(world, X)
    assert "-2" not in repr(x) + repr(infer.tensor(X)) + repr(x @ W)
    assert not hasattr(x, "__len__")
