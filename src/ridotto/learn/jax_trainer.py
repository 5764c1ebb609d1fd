"""JAX: the only module that imports it.

One jitted function takes a step and one takes a measurement; each is compiled once. Batches all have the same shape:
the last one of an epoch is padded and its padding has weight zero. For that the loss is taken per example, by vmap.
The other way, compiling again for every size of a last batch, costs a compilation for every client of another size.
The price: `loss_fn` sees one example at a time, so it must be a mean over examples that do not influence each other,
which rules out batch normalisation and contrastive losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ridotto.core.rng import Rng, numpy_generator
from ridotto.core.vector import Layout, Vector, require_finite, tree_leaves, tree_replace
from ridotto.errors import DataError, MissingExtraError
from ridotto.learn.examples import EVALUATION_BATCH, Schedule, Tally, pair
from ridotto.learn.trainer import LocalResult, finished

try:
    import jax
    import jax.numpy as jnp
except ModuleNotFoundError as error:
    raise MissingExtraError("jax", "jax") from error

LossFunction = Callable[[Any, Any, Any], Any]
"""(parameters, x, y) -> scalar, the mean over the examples of x and y."""

PredictFunction = Callable[[Any, Any], Any]
"""(parameters, x) -> scores, shape (n, classes)."""


class JaxTrainer:
    """Train a dict or list of JAX or NumPy arrays, nested as you like, by plain mini-batch SGD.

    parameters: the initial ones. loss_fn: pure and jittable, the mean over examples. predict: for the accuracy; without
    it there is none. Data are pairs (x, y) of arrays. Training metrics are over the last epoch, each batch measured
    before its step. `loss_fn` is not given a random key, so the same bits twice only need the same `rng`.
    Raises ConfigError if a number is out of range, DataError if there are no parameters.
    """

    def __init__(
        self,
        parameters: Any,
        loss_fn: LossFunction,
        *,
        predict: PredictFunction | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        learning_rate: float = 0.05,
    ) -> None:
        leaves = tree_leaves(parameters)
        self._layout = Layout.of(leaves)
        self._initial = self._layout.flatten(leaves)
        self._template = parameters
        self._dtypes = {name: jnp.asarray(leaf).dtype for name, leaf in leaves.items()}
        self._schedule = Schedule(epochs, batch_size, learning_rate)
        measure = _measurement(loss_fn, predict)
        self._measure = jax.jit(measure)
        self._step = jax.jit(_descent(measure, learning_rate))

    @property
    def layout(self) -> Layout:
        """Name and shape every parameter, in the order of the vector."""
        return self._layout

    def initial(self) -> Vector:
        """Return the parameters that the trainer was made with."""
        return self._initial.copy()

    def train(self, vector: Vector, data: Any, rng: Rng) -> LocalResult:
        """Run the schedule's epochs of SGD from `vector`. Raises DataError as `Trainer.train` says."""
        x, y = _examples(data)
        parameters = self._tree(vector)
        tally = Tally()
        for last, batch in self._schedule.batches(len(x), numpy_generator(rng)):
            padded = _padded(x[batch], y[batch], self._schedule.batch_size)
            parameters, loss, correct = self._call(self._step, parameters, padded)
            if last:
                tally.add(len(batch), loss=loss, accuracy=correct)
        trained = self._layout.flatten(tree_leaves(parameters))
        return finished(self._layout, trained, len(x), tally.means())

    def evaluate(self, vector: Vector, data: Any) -> Mapping[str, float]:
        """Return the mean loss and, with `predict`, the accuracy. Raises DataError as `Trainer.evaluate` says."""
        x, y = _examples(data)
        parameters = self._tree(vector)
        tally = Tally()
        for start in range(0, len(x), EVALUATION_BATCH):
            part = slice(start, start + EVALUATION_BATCH)
            loss, correct = self._call(self._measure, parameters, _padded(x[part], y[part], EVALUATION_BATCH))
            tally.add(len(x[part]), loss=loss, accuracy=correct)
        return tally.means()

    def _tree(self, vector: Vector) -> Any:
        require_finite(vector, self._layout)
        # JAX may share memory with a NumPy array; the copy keeps the caller's vector its own.
        arrays = self._layout.unflatten(np.array(vector))
        leaves = {name: jnp.asarray(array, self._dtypes[name]) for name, array in arrays.items()}
        return tree_replace(self._template, leaves)

    def _call(self, function: Callable[..., Any], parameters: Any, padded: tuple[Any, Any, Any]) -> Any:
        try:
            return function(parameters, *padded)
        except (TypeError, ValueError) as error:
            shapes = f"x of shape {padded[0].shape} and y of shape {padded[1].shape}"
            raise DataError(f"loss_fn or predict refuses a batch with {shapes}: {error}") from error


def _measurement(loss_fn: LossFunction, predict: PredictFunction | None) -> Callable[..., tuple[Any, Any]]:
    """Return (parameters, x, y, weight) -> (sum of the losses, number correct or None), over weight 1 only."""

    def measure(parameters: Any, x: Any, y: Any, weight: Any) -> tuple[Any, Any]:
        def example_loss(x_one: Any, y_one: Any) -> Any:
            return loss_fn(parameters, x_one[None], y_one[None])

        loss = jnp.sum(jax.vmap(example_loss)(x, y) * weight)
        if predict is None:
            return loss, None
        return loss, jnp.sum((jnp.argmax(predict(parameters, x), axis=-1) == y) * weight)

    return measure


def _descent(measure: Callable[..., tuple[Any, Any]], learning_rate: float) -> Callable[..., tuple[Any, Any, Any]]:
    """Return (parameters, x, y, weight) -> (parameters after a step on the mean loss, `measure` before it)."""

    def step(parameters: Any, x: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
        (loss, correct), gradient = jax.value_and_grad(measure, has_aux=True)(parameters, x, y, weight)
        rate = learning_rate / jnp.sum(weight)
        # Half-precision parameters keep their dtype; without the cast they would be promoted and compiled again.
        stepped = jax.tree.map(lambda p, g: (p - rate * g).astype(p.dtype), parameters, gradient)
        return stepped, loss, correct

    return step


def _examples(data: Any) -> tuple[Any, Any]:
    # Batches are cut in NumPy: indexing JAX arrays one batch at a time would compile and copy for every size.
    x, y = (np.asarray(part) for part in pair(data))
    return x, y


def _padded(x: Any, y: Any, size: int) -> tuple[Any, Any, Any]:
    """Repeat the first example until there are `size`; return x, y and weights, 1 for real examples and 0 for others.

    A real example is repeated, rather than zeros added, because a loss may be infinite at zero and 0 * inf is NaN.
    """
    indices = np.zeros(size, np.intp)
    indices[: len(x)] = np.arange(len(x))
    return x[indices], y[indices], (np.arange(size) < len(x)).astype(np.float32)
