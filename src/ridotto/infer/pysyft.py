"""Share tensors and models with PySyft's old verbs, for those who know them.

    alice, bob, dealer = world.workers()
    x = infer.tensor(images).fix_prec().share(alice, bob, crypto_provider=dealer)
    w = infer.tensor(weights).fix_prec().share(alice, bob, crypto_provider=dealer)
    (x @ w + bias).relu().get().float_prec()
    model = infer.module(torch_model, examples=images).fix_prec().share(alice, bob, crypto_provider=dealer)
    model(x).argmax().get().float_prec()

A shared tensor is an expression: nothing leaves this process before `get`, which shares what it is made of, has the
parties compute, and reveals the value of this expression and of nothing before it. What can be computed is a chain:
sums, differences, products with public numbers and with matrices (public or shared), then ReLU, then such a thing
again; at the end a class. What has no protocol (the product of two shared tensors element by element, sums of what
lies before and behind a ReLU) is refused by name. Matrices may be multiplied here, before they are shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.errors import ConfigError, DataError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Graph, Relu

if TYPE_CHECKING:
    from ridotto.infer.world import SecretModel, World

Reals: TypeAlias = NDArray[np.float64]
"""float64, of any shape."""

VERBS = ("+", "-", "* (public)", "@", "relu", "argmax", "get")
"""What a shared tensor can do."""


class UnsupportedError(DataError, AttributeError):
    """Refuse what there is no protocol for."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} has no protocol here; shared tensors can do: {', '.join(VERBS)}")


@dataclass(frozen=True)
class Worker:
    """Name a party or the dealer of a world."""

    world: World = field(repr=False)
    name: str


def tensor(values: ArrayLike) -> Plain:
    """Return numbers as a tensor that can be fixed and shared: one row an example, shape (examples, features)."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim != 2 or not array.size:
        raise DataError(f"a tensor to share has numbers, one row an example, not {array.dtype} of shape {array.shape}")
    return Plain(array.astype(np.float64))


def module(model: Any, examples: ArrayLike | None = None) -> PlainModule:
    """Return a model that can be fixed and shared: whatever `World.share_model` takes, with its examples."""
    return PlainModule(model, examples)


@dataclass(frozen=True, repr=False)
class Plain:
    """Hold numbers that nobody else has seen. values: float64, (examples, features)."""

    values: Reals

    def fix_prec(self, fraction_bits: int = 14) -> FixedTensor:
        """Round to multiples of 2^-fraction_bits. Raises DataError if a number is too large."""
        fixed = Fixed(fraction_bits)
        return FixedTensor(fixed.decode(fixed.encode(self.values, "tensor")), fixed)

    fix_precision = fix_prec


@dataclass(frozen=True, repr=False)
class FixedTensor:
    """Hold rounded numbers (or classes) in the clear: about to be shared, or just revealed."""

    values: NDArray[Any]
    fixed: Fixed

    def share(self, zero: Worker, one: Worker, *, crypto_provider: Worker) -> SharedTensor:
        """Name who will compute with it. Raises ConfigError if they are not both parties and dealer of one world."""
        world = _world(zero, one, crypto_provider)
        eye = np.eye(self.values.shape[1])
        return SharedTensor(world, self.fixed, (self.values,), (), eye, np.zeros(len(eye)))

    def float_prec(self) -> NDArray[Any]:
        """Return the numbers, float64; or the classes, int64."""
        return self.values

    float_precision = float_prec


@dataclass(frozen=True)
class PlainModule:
    """Hold a model that nobody else has seen."""

    model: Any = field(repr=False)
    examples: ArrayLike | None = field(repr=False)
    fixed: Fixed = field(default_factory=Fixed)

    def fix_prec(self, fraction_bits: int = 14) -> PlainModule:
        """Say with how many fractional bits it will be shared."""
        return PlainModule(self.model, self.examples, Fixed(fraction_bits))

    fix_precision = fix_prec

    def share(self, zero: Worker, one: Worker, *, crypto_provider: Worker) -> SharedModule:
        """Share the model now. Raises as `World.share_model` does, ConfigError if these are not of one world."""
        world = _world(zero, one, crypto_provider)
        return SharedModule(world.share_model(self.model, examples=self.examples, fixed=self.fixed))


@dataclass(frozen=True)
class SharedModule:
    """Stand for a model of which both parties have a share."""

    secret: SecretModel

    def __call__(self, x: SharedTensor) -> Result:
        """Say what is to be computed. x: a tensor as it was shared. Raises DataError for the result of something."""
        if x.layers or len(x.leaves) != 1 or not np.array_equal(x.factor, np.eye(len(x.factor))) or x.shift.any():
            raise UnsupportedError("a model on the result of another computation")
        return Result(self.secret, x.leaves[0])


@dataclass(frozen=True)
class Result:
    """Stand for what a model computes of a tensor."""

    secret: SecretModel
    values: Reals = field(repr=False)
    classes: bool = False

    def argmax(self, dim: int = 1) -> Result:
        """Ask for the class of each row: what tells least."""
        _rows(dim)
        return Result(self.secret, self.values, True)

    def get(self) -> FixedTensor:
        """Compute and reveal."""
        shape = self.secret.architecture.input_shape
        x = self.secret.world.share_input(self.values.reshape(len(self.values), *shape), fixed=self.secret.fixed)
        asked = self.secret(x)
        found = asked.argmax().reveal() if self.classes else asked.reveal()
        x.forget()
        return FixedTensor(found, self.secret.fixed)

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse everything else by name."""
        _refuse(name)


@dataclass(frozen=True, repr=False)
class SharedTensor:
    """Stand for relu(.. relu(leaves A_1 + b_1) ..) factor + shift, not yet computed.

    leaves: what was shared, side by side, each (examples, features). layers: (A, b) before each ReLU. factor: (features
    of the last wire, features of this tensor). classes: whether the largest of each row is asked for instead.
    """

    world: World
    fixed: Fixed
    leaves: tuple[Reals, ...]
    layers: tuple[tuple[Reals, Reals], ...]
    factor: Reals
    shift: Reals
    classes: bool = False

    __array_ufunc__ = None
    """NumPy leaves operators with a shared tensor to it."""

    @property
    def shape(self) -> tuple[int, int]:
        """Return (examples, features): public."""
        return len(self.leaves[0]), self.factor.shape[1]

    def __add__(self, other: Any) -> SharedTensor:
        """Add a number, a row, a matrix of this shape, or another shared tensor."""
        if isinstance(other, SharedTensor):
            return self._plus(other)
        values = np.asarray(other, np.float64)
        if values.ndim == 2 and values.shape == self.shape and not self.layers:
            return self._plus(FixedTensor(values, self.fixed).share(*self.world.workers()[:2], crypto_provider=self._d))
        return self._with(self.factor, self.shift + self._row(values, "+"))

    __radd__ = __add__

    def __sub__(self, other: Any) -> SharedTensor:
        """Subtract what can be added."""
        return self + (other * -1 if isinstance(other, SharedTensor) else -np.asarray(other, np.float64))

    def __rsub__(self, other: Any) -> SharedTensor:
        """Subtract from what can be added."""
        found: SharedTensor = self * -1 + other
        return found

    def __neg__(self) -> SharedTensor:
        """Return the negative."""
        return self * -1

    def __mul__(self, other: Any) -> SharedTensor:
        """Multiply by a public number, or a public row element by element."""
        if isinstance(other, SharedTensor):
            raise UnsupportedError("the product of two shared tensors, element by element,")
        row = self._row(np.asarray(other, np.float64), "*")
        return self._with(self.factor * row, self.shift * row)

    def __rmul__(self, other: Any) -> SharedTensor:
        """Multiply likewise."""
        found: SharedTensor = self * other
        return found

    def __matmul__(self, other: Any) -> SharedTensor:
        """Multiply by a matrix, (features, new features), public or as it was shared."""
        if isinstance(other, SharedTensor):
            other._require_of(self)
            if other.layers or len(other.leaves) != 1:
                raise UnsupportedError("a matrix product with the result of a ReLU or of several shared tensors")
            matrix = other.leaves[0] @ other.factor + other.shift
        else:
            matrix = np.asarray(other, np.float64)
        if matrix.ndim != 2 or len(matrix) != self.shape[1]:
            raise DataError(f"@: shapes {self.shape} and {matrix.shape} do not fit")
        return self._with(self.factor @ matrix, self.shift @ matrix)

    matmul = __matmul__
    mm = __matmul__

    def __rmatmul__(self, other: Any) -> NoReturn:
        """Refuse: it would add up examples."""
        raise UnsupportedError("a matrix in front of a shared tensor")

    def relu(self) -> SharedTensor:
        """Replace what is negative by zero."""
        self._require_numbers()
        count = self.shape[1]
        layers = (*self.layers, (self.factor, self.shift))
        return SharedTensor(self.world, self.fixed, self.leaves, layers, np.eye(count), np.zeros(count))

    def argmax(self, dim: int = 1) -> SharedTensor:
        """Ask for the place of the largest number of each row, and for nothing else."""
        _rows(dim)
        self._require_numbers()
        return SharedTensor(self.world, self.fixed, self.leaves, self.layers, self.factor, self.shift, True)

    def get(self) -> FixedTensor:
        """Share what this is made of, compute and reveal. Raises DataError or PlanError if numbers grow too large."""
        x = np.concatenate(self.leaves, axis=1)
        secret = self.world.share_model(self._graph(), examples=x, fixed=self.fixed)
        found = Result(secret, x, self.classes).get()
        secret.forget()
        return found

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse everything else by name."""
        _refuse(name)

    def __truediv__(self, other: Any) -> SharedTensor:
        """Divide by a public number or row. Raises UnsupportedError for a shared one."""
        if isinstance(other, SharedTensor):
            raise UnsupportedError("division by a shared tensor")
        return self * (1 / np.asarray(other, np.float64))

    @property
    def _d(self) -> Worker:
        return self.world.workers()[2]

    def _graph(self) -> Graph:
        builder = GraphBuilder()
        for number, (factor, shift) in enumerate(self.layers, 1):
            builder.linear(f"product{number}", factor.T, shift)
            builder.add(Relu(f"relu{number}"))
        builder.linear("result", self.factor.T, self.shift)
        return builder.build((sum(leaf.shape[1] for leaf in self.leaves),))

    def _plus(self, other: SharedTensor) -> SharedTensor:
        other._require_of(self)
        if self.shape != other.shape:
            raise DataError(f"+: shapes {self.shape} and {other.shape} do not fit")
        if self.layers or other.layers:
            same = len(self.layers) == len(other.layers) and all(
                a is c and b is d for (a, b), (c, d) in zip(self.layers, other.layers, strict=True)
            )
            if not same:
                raise UnsupportedError("a sum of tensors of which one lies behind another ReLU")
            return self._with(self.factor + other.factor, self.shift + other.shift)
        factor = np.concatenate([self.factor, other.factor])
        leaves = (*self.leaves, *other.leaves)
        return SharedTensor(self.world, self.fixed, leaves, (), factor, self.shift + other.shift)

    def _with(self, factor: Reals, shift: Reals) -> SharedTensor:
        self._require_numbers()
        return SharedTensor(self.world, self.fixed, self.leaves, self.layers, factor, shift)

    def _row(self, values: Reals, what: str) -> Reals:
        try:
            return np.broadcast_to(values, (self.shape[1],))
        except ValueError as error:
            raise DataError(f"{what}: shapes {self.shape} and {values.shape} do not fit") from error

    def _require_numbers(self) -> None:
        if self.classes:
            raise UnsupportedError("a computation with hidden classes")

    def _require_of(self, other: SharedTensor) -> None:
        self._require_numbers()
        other._require_numbers()
        if self.world is not other.world or self.fixed != other.fixed:
            raise DataError("two shared tensors need the same world and the same precision")


def _world(zero: Worker, one: Worker, dealer: Worker) -> World:
    if (zero, one, dealer) != zero.world.workers():
        names = ", ".join(worker.name for worker in zero.world.workers())
        raise ConfigError(f"share between the workers of one world, in order: {names}; the last is the crypto_provider")
    return zero.world


def _rows(dim: int) -> None:
    if dim not in {1, -1}:
        raise UnsupportedError(f"argmax over dimension {dim}")


def _refuse(name: str) -> NoReturn:
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedError(name)
