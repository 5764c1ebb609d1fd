"""Models of scikit-learn: linear models and multi-layer perceptrons, alone or in a pipeline behind scalers.

Scalers (standard, min-max, max-abs, robust) are folded into the first layer. What comes out are scores, before a final
softmax or logistic function: the class is the index of the largest, in the order of `classes_`. A binary classifier,
which has one score s, gives two, (0, s), so that the rule is the same for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ridotto.errors import DataError, MissingExtraError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import Graph, Relu, Sigmoid, Tanh

try:
    from sklearn import linear_model, neural_network, preprocessing, svm
    from sklearn.base import is_classifier
    from sklearn.pipeline import Pipeline
except ModuleNotFoundError as error:
    raise MissingExtraError("scikit-learn", "sklearn") from error

LINEAR = (
    linear_model.BayesianRidge,
    linear_model.ElasticNet,
    linear_model.ElasticNetCV,
    linear_model.HuberRegressor,
    linear_model.Lasso,
    linear_model.LassoCV,
    linear_model.LinearRegression,
    linear_model.LogisticRegression,
    linear_model.LogisticRegressionCV,
    linear_model.Perceptron,
    linear_model.Ridge,
    linear_model.RidgeCV,
    linear_model.RidgeClassifier,
    linear_model.RidgeClassifierCV,
    linear_model.SGDClassifier,
    linear_model.SGDRegressor,
    svm.LinearSVC,
    svm.LinearSVR,
)
"""Estimators whose scores are coef_ x + intercept_. Generalised linear models apply a link function after it."""

PERCEPTRONS = (neural_network.MLPClassifier, neural_network.MLPRegressor)

ACTIVATIONS: dict[str, type[Relu | Sigmoid | Tanh]] = {"relu": Relu, "logistic": Sigmoid, "tanh": Tanh}
"""scikit-learn's names of activations -> layers. `identity` is none."""

SUPPORTED_ESTIMATORS = (
    f"{', '.join(kind.__name__ for kind in (*LINEAR, *PERCEPTRONS))}, and Pipelines of StandardScaler, MinMaxScaler, "
    "MaxAbsScaler, RobustScaler before one of them"
)


def from_sklearn(estimator: Any) -> Graph:
    """Turn a fitted estimator or pipeline into a graph of its scores.

    Raises DataError if it is not fitted or not supported, naming the step.
    """
    builder = GraphBuilder()
    *scalers, (name, model) = _steps(type(estimator).__name__.lower(), estimator)
    for place, scaler in scalers:
        builder.affine(place, *_scale(place, scaler), image=False)
    if type(model) in LINEAR:
        weight = np.atleast_2d(_fitted(name, model, "coef_"))
        bias = np.broadcast_to(model.intercept_, len(weight))
        builder.linear(name, *_scores(model, weight, bias))
    elif type(model) in PERCEPTRONS:
        _perceptron(builder, name, model)
    else:
        raise _unsupported(name, model)
    first = scalers[0][1] if scalers else model
    return builder.build((int(first.n_features_in_),))


def _steps(name: str, estimator: Any) -> list[tuple[str, Any]]:
    """List the steps of a pipeline, of pipelines inside it too; an estimator is its own only step."""
    if not isinstance(estimator, Pipeline):
        return [(name, estimator)]
    steps = [
        inner
        for place, step in estimator.steps
        if step is not None and not isinstance(step, str)
        for inner in _steps(place, step)
    ]
    if not steps:
        raise DataError(f"step {name} (Pipeline): has no model")
    return steps


def _scale(name: str, scaler: Any) -> tuple[Any, Any]:
    """Return what a scaler multiplies by, and then adds."""
    match scaler:
        case preprocessing.MinMaxScaler():
            if scaler.clip:
                raise DataError(f"step {name} (MinMaxScaler): clip=True is not supported")
            return _fitted(name, scaler, "scale_"), scaler.min_
        case preprocessing.StandardScaler():
            width, center, scale = _fitted(name, scaler, "n_features_in_"), scaler.mean_, scaler.scale_
            center = center if scaler.with_mean else None
        case preprocessing.RobustScaler():
            width, center, scale = _fitted(name, scaler, "n_features_in_"), scaler.center_, scaler.scale_
        case preprocessing.MaxAbsScaler():
            width, center, scale = _fitted(name, scaler, "n_features_in_"), None, scaler.scale_
        case _:
            raise _unsupported(name, scaler)
    factor = np.ones(width) if scale is None else 1 / np.asarray(scale)
    return factor, np.zeros(width) if center is None else -np.asarray(center) * factor


def _perceptron(builder: GraphBuilder, name: str, model: Any) -> None:
    weights = [np.asarray(weight).T for weight in _fitted(name, model, "coefs_")]
    for index, (weight, bias) in enumerate(zip(weights[:-1], model.intercepts_[:-1], strict=True)):
        builder.linear(f"{name}.{index}", weight, bias)
        if model.activation != "identity":
            builder.add(ACTIVATIONS[model.activation](builder.name(f"{name}.{index}.{model.activation}")))
    builder.linear(f"{name}.{len(weights) - 1}", *_scores(model, weights[-1], model.intercepts_[-1]))


def _scores(model: Any, weight: Any, bias: Any) -> tuple[Any, Any]:
    """Return the last layer; a binary classifier's one score s becomes (0, s)."""
    if is_classifier(model) and len(weight) == 1:
        return np.vstack([np.zeros_like(weight), weight]), np.append(0.0, bias)
    return weight, bias


def _fitted(name: str, model: Any, attribute: str) -> Any:
    if not hasattr(model, attribute):
        raise DataError(f"step {name} ({type(model).__name__}): is not fitted; call fit first")
    return getattr(model, attribute)


def _unsupported(name: str, model: Any) -> DataError:
    return DataError(f"step {name} ({type(model).__name__}): is not supported; supported are {SUPPORTED_ESTIMATORS}")
