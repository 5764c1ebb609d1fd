"""scikit-learn: the only module that imports it.

Two families of estimators: linear ones keep `coef_` and `intercept_`, neural networks lists `coefs_` and
`intercepts_`. These are the vector. Everything else an estimator keeps (step counters, an optimiser's moments, loss
curves) stays local.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ridotto.core.rng import Rng, numpy_generator
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import ConfigError, DataError, MissingExtraError
from ridotto.learn.examples import pair, rows
from ridotto.learn.trainer import LocalResult, finished

try:
    from sklearn.base import clone, is_classifier
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
except ModuleNotFoundError as error:
    raise MissingExtraError("scikit-learn", "sklearn") from error

DIGITS_MAXIMUM = 16
"""The largest pixel of scikit-learn's handwritten digits."""


class SklearnModel:
    """Adapt a scikit-learn estimator that has parameters: its coefficients <-> one vector.

    Raises DataError if the estimator has none yet, saying how to give it some, or never will.
    """

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator
        self._layout = Layout.of(_parameters(estimator))

    @property
    def layout(self) -> Layout:
        """Name and shape every coefficient array, as the estimator names it."""
        return self._layout

    def read(self) -> Vector:
        """Return a copy of the coefficients. Raises DataError if one is not finite or a shape has changed."""
        vector = self._layout.flatten(_parameters(self._estimator))
        require_finite(vector, self._layout)
        return vector

    def write(self, vector: Vector) -> None:
        """Put `vector` into the estimator, in place. Raises DataError if the length does not fit."""
        values = self._layout.unflatten(vector)
        for name, array in _parameters(self._estimator).items():
            if isinstance(array, np.ndarray):
                np.copyto(array, values[name])
            else:
                # Some linear regressors keep a bare number as their intercept, which can only be replaced.
                setattr(self._estimator, name, float(values[name]))


class SklearnTrainer:
    """Train an estimator with `partial_fit` on pairs (x, y): SGDClassifier, SGDRegressor, Perceptron, MLPClassifier...

    estimator: cloned; whether it was fitted does not matter. classes: all labels, in any order, for a classifier; None
    for a regressor. features: numbers in an example. epochs: calls of `partial_fit`, each of which is one pass.

    Linear estimators start from zero. Networks start from Glorot's uniform distribution, as scikit-learn draws it,
    with the estimator's random_state as the seed. No data are looked at. Learning-rate schedules and the moments of
    Adam start anew in every round. Metrics are measured after training: accuracy, and the log loss where the estimator
    gives probabilities, for classifiers; the mean squared error as loss for regressors. Training shuffles by the `rng`
    given to `train`.
    Raises ConfigError if epochs < 1 or features < 1, classes do not fit the kind of estimator, a network has no integer
    random_state, or an option has no meaning here (average, early_stopping); DataError if the estimator can't be used.
    """

    def __init__(self, estimator: Any, classes: Sequence[Any] | None, features: int, *, epochs: int = 1) -> None:
        _require_usable(estimator, classes, features, epochs)
        self._classes = None if classes is None else np.unique(np.asarray(classes))
        self._features = features
        self._epochs = epochs
        self._template = self._untrained(estimator)
        self._model = SklearnModel(self._template)
        self._initial = self._model.read()

    @property
    def layout(self) -> Layout:
        """Name and shape every coefficient array, as the estimator names it."""
        return self._model.layout

    def initial(self) -> Vector:
        """Return zeros for a linear estimator, the weights that random_state determines for a network."""
        return self._initial.copy()

    def train(self, vector: Vector, data: Any, rng: Rng) -> LocalResult:
        """Call `partial_fit` once an epoch, from `vector`. Raises DataError as `Trainer.train` says."""
        x, y = self._examples(data)
        estimator = self._loaded(vector)
        generator = numpy_generator(rng)
        for _ in range(self._epochs):
            # A new number for every epoch: with one number, each epoch would go through the data in the same order.
            if "random_state" in estimator.get_params():
                estimator.set_params(random_state=int(generator.integers(2**31)))
            try:
                estimator.partial_fit(x, y)
            except ValueError as error:
                raise DataError(f"{type(estimator).__name__} refuses the data: {error}") from error
        trained = SklearnModel(estimator).read()
        return finished(self.layout, trained, len(x), self._metrics(estimator, x, y))

    def evaluate(self, vector: Vector, data: Any) -> Mapping[str, float]:
        """Return the metrics named above. Raises DataError as `Trainer.evaluate` says."""
        x, y = self._examples(data)
        return self._metrics(self._loaded(vector), x, y)

    def _loaded(self, vector: Vector) -> Any:
        require_finite(vector, self.layout)
        estimator = copy.deepcopy(self._template)
        SklearnModel(estimator).write(vector)
        return estimator

    def _examples(self, data: Any) -> tuple[NDArray[np.float32], NDArray[Any]]:
        x, y = pair(data)
        x, y = rows(x, self._features), np.asarray(y)
        if not np.isfinite(x).all():
            raise DataError("x holds NaN or infinite numbers, which scikit-learn does not take")
        if y.ndim != 1:
            raise DataError(f"y must hold one value an example, not shape {y.shape}")
        if self._classes is not None and not np.isin(y, self._classes).all():
            unknown = np.setdiff1d(y, self._classes)[:3].tolist()
            raise DataError(f"y holds labels that are not among the {len(self._classes)} classes: {unknown}")
        return x, y

    def _metrics(self, estimator: Any, x: NDArray[np.float32], y: NDArray[Any]) -> dict[str, float]:
        if self._classes is None:
            return {"loss": float(np.mean((estimator.predict(x) - y) ** 2, dtype=np.float64))}
        metrics = {"accuracy": float(np.mean(estimator.predict(x) == y))}
        # hasattr, because SGDClassifier has predict_proba for some losses only.
        if hasattr(estimator, "predict_proba"):
            metrics["loss"] = float(log_loss(y, estimator.predict_proba(x), labels=self._classes))
        return metrics

    def _untrained(self, estimator: Any) -> Any:
        """Let scikit-learn allocate everything on invented examples, then overwrite it with the starting point."""
        template = clone(estimator)
        labels = np.zeros(2) if self._classes is None else self._classes
        x = np.zeros((len(labels), self._features), np.float32)
        template.partial_fit(x, labels, **({} if self._classes is None else {"classes": self._classes}))
        # Adam's moments remember the invented examples; without this attribute partial_fit makes a new optimiser.
        vars(template).pop("_optimizer", None)
        if "t_" in vars(template):
            # The step counter drives the schedules of the learning rate; these are scikit-learn's own first values.
            template.t_ = 0 if hasattr(template, "coefs_") else 1.0
        if not hasattr(template, "coefs_") and not hasattr(template, "coef_"):
            raise DataError(f"{type(estimator).__name__} can't be trained here: it keeps neither coef_ nor coefs_")
        _start(template)
        return template


def digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the 1,797 handwritten digits that scikit-learn ships: nothing is downloaded.

    Returns x, float32, shape (1797, 64), pixels in 0 .. 1, and y, int64, shape (1797,), 0 to 9.
    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI repository, 1998 (test set).
    """
    bunch = load_digits()
    return (bunch.data / DIGITS_MAXIMUM).astype(np.float32), bunch.target.astype(np.int64)


def _parameters(estimator: Any) -> dict[str, Any]:
    """Return the live arrays of coefficients by name; an intercept may be a bare number."""
    if hasattr(estimator, "coefs_"):
        named = {f"coefs_.{i}": array for i, array in enumerate(estimator.coefs_)}
        return named | {f"intercepts_.{i}": array for i, array in enumerate(estimator.intercepts_)}
    if hasattr(estimator, "coef_") and hasattr(estimator, "intercept_"):
        return {"coef_": estimator.coef_, "intercept_": estimator.intercept_}
    name = type(estimator).__name__
    if hasattr(estimator, "partial_fit"):
        call = "partial_fit(x, y, classes=all_labels)" if is_classifier(estimator) else "partial_fit(x, y)"
        raise DataError(f"{name} has no coefficients yet: call {call} once on a few examples before the first round")
    raise DataError(f"{name} has no coef_ or coefs_: fit it first if it is a linear model; others can't be averaged")


def _start(template: Any) -> None:
    """Overwrite the coefficients with the starting point: zeros, or for a network Glorot's uniform distribution.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS
    2010, equation 16; factor 2 instead of 6 for logistic units and the same bound for biases, as scikit-learn does.
    """
    if not hasattr(template, "coefs_"):
        template.coef_[...] = 0
        template.intercept_[...] = 0
        return
    generator = np.random.Generator(np.random.PCG64(template.random_state))
    factor = 2 if template.activation == "logistic" else 6
    for weight, bias in zip(template.coefs_, template.intercepts_, strict=True):
        bound = np.sqrt(factor / sum(weight.shape))
        weight[...] = generator.uniform(-bound, bound, weight.shape)
        bias[...] = generator.uniform(-bound, bound, bias.shape)


def _require_usable(estimator: Any, classes: Sequence[Any] | None, features: int, epochs: int) -> None:
    name = type(estimator).__name__
    if not hasattr(estimator, "partial_fit") or not hasattr(estimator, "get_params"):
        raise DataError(f"{name} has no partial_fit: use SGDClassifier, SGDRegressor, Perceptron or an MLP estimator")
    if features < 1 or epochs < 1:
        raise ConfigError(f"features and epochs must be at least 1, not {features} and {epochs}")
    if is_classifier(estimator) != (classes is not None):
        raise ConfigError(f"{name}: classes must be all participants' labels for a classifier, None for a regressor")
    if classes is not None and len(set(classes)) < 2:
        raise ConfigError(f"{name}: at least two classes are needed, not {list(classes)}")
    options = estimator.get_params()
    for option in ("average", "early_stopping"):
        # An average over steps and a validation set both live longer than one round's partial_fit.
        if options.get(option):
            raise ConfigError(f"{name}: {option} has no meaning in a round of training; set it to False")
    if "hidden_layer_sizes" in options and not isinstance(options["random_state"], int):
        raise ConfigError(f"{name}: give an integer random_state; it determines the initial weights")
