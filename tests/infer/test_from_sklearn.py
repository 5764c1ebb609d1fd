"""Estimators of scikit-learn become graphs with the same scores and classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.errors import DataError
from ridotto.infer.calibrate import calibrate
from ridotto.infer.graph import Graph
from ridotto.infer.reference import fixed_forward, forward

pytest.importorskip("sklearn")

from sklearn import linear_model, neural_network, preprocessing, svm
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.tree import DecisionTreeClassifier

from ridotto.infer.from_sklearn import from_sklearn

RNG = np.random.default_rng(1)
X = RNG.normal(size=(60, 5)) * [1, 2, 0.5, 3, 1] + [0, 1, -2, 0.5, 3]
SCORE = X @ RNG.normal(size=(5, 3))
THREE = SCORE.argmax(axis=1) * 10
TWO = np.where(SCORE[:, 0] > np.median(SCORE[:, 0]), "yes", "no")


def kinds(graph: Graph) -> list[str]:
    return [type(layer).__name__ for layer in graph.architecture.layers]


def agree_on_classes(model: Any, labels: Any) -> Graph:
    model.fit(X, labels)
    graph = from_sklearn(model)
    answer = forward(graph, X)
    assert (model.classes_[answer.argmax(axis=1)] == model.predict(X)).all()
    assert graph.architecture.input_shape == (5,)
    return graph


def agree_on_values(model: Any, values: Any) -> Graph:
    graph = from_sklearn(model.fit(X, values))
    expected = np.asarray(model.predict(X)).reshape(len(X), -1)
    assert np.abs(forward(graph, X) - expected).max() < 1e-5
    return graph


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LogisticRegression(),
        linear_model.RidgeClassifier(),
        linear_model.SGDClassifier(random_state=1),
        linear_model.Perceptron(random_state=1),
        svm.LinearSVC(random_state=1, C=0.01, max_iter=10000),
    ],
)
@pytest.mark.parametrize("labels", [TWO, THREE], ids=["two", "three"])
def test_linear_classifiers(model: Any, labels: Any) -> None:
    graph = agree_on_classes(model, labels)
    assert kinds(graph) == ["Linear"]
    answer, expected = forward(graph, X), model.decision_function(X)
    if expected.ndim == 1:
        assert (answer[:, 0] == 0).all()
        expected = np.stack([np.zeros(len(X)), expected], axis=1)
    assert np.abs(answer - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    "model",
    [
        linear_model.LinearRegression(),
        linear_model.Ridge(),
        linear_model.Lasso(0.1),
        linear_model.LinearRegression(fit_intercept=False),
        linear_model.BayesianRidge(),
        svm.LinearSVR(random_state=1, C=0.01, max_iter=10000),
    ],
)
def test_linear_regressors(model: Any) -> None:
    assert kinds(agree_on_values(model, SCORE[:, 1])) == ["Linear"]


def test_several_targets() -> None:
    assert agree_on_values(linear_model.Ridge(), SCORE).architecture.output_shape == (3,)


def mlp(kind: Any, activation: str) -> Any:
    # lbfgs with few steps stops early, but without the warning that others give.
    return kind(
        hidden_layer_sizes=(7, 4), activation=activation, random_state=1, solver="lbfgs", max_iter=2000, tol=1e-2
    )


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
def test_perceptrons(activation: str) -> None:
    hidden = {"relu": ["Relu"], "tanh": ["Tanh"], "logistic": ["Sigmoid"], "identity": []}[activation]
    expected = [*["Linear", *hidden] * 2, "Linear"]
    for labels in (TWO, THREE):
        assert kinds(agree_on_classes(mlp(neural_network.MLPClassifier, activation), labels)) == expected
    values = SCORE[:, :2] / 10
    assert kinds(agree_on_values(mlp(neural_network.MLPRegressor, activation), values)) == expected


@pytest.mark.parametrize("labels", [TWO, THREE], ids=["two", "three"])
def test_scores_of_a_perceptron_become_its_probabilities(labels: Any) -> None:
    model = mlp(neural_network.MLPClassifier, "relu").fit(X, labels)
    scores = forward(from_sklearn(model), X).astype(np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    assert np.abs(powers / powers.sum(axis=1, keepdims=True) - model.predict_proba(X)).max() < 1e-5


@pytest.mark.parametrize(
    "scalers",
    [
        [preprocessing.StandardScaler()],
        [preprocessing.StandardScaler(with_mean=False)],
        [preprocessing.StandardScaler(with_std=False)],
        [preprocessing.MinMaxScaler((-1, 2))],
        [preprocessing.MaxAbsScaler()],
        [preprocessing.RobustScaler()],
        [preprocessing.RobustScaler(with_centering=False, with_scaling=False)],
        ["passthrough", preprocessing.StandardScaler()],
    ],
)
def test_scalers_are_folded_into_the_first_layer(scalers: list[Any]) -> None:
    graph = agree_on_values(make_pipeline(*scalers, linear_model.Ridge()), SCORE)
    assert [layer.name for layer in graph.architecture.layers] == ["ridge"]
    graph = agree_on_classes(make_pipeline(*scalers, mlp(neural_network.MLPClassifier, "relu")), THREE)
    assert kinds(graph) == ["Linear", "Relu", "Linear", "Relu", "Linear"]


def test_two_scalers_and_a_pipeline_inside_a_pipeline() -> None:
    inner = make_pipeline(preprocessing.MinMaxScaler(), preprocessing.StandardScaler())
    graph = agree_on_values(Pipeline([("scale", inner), ("fit", linear_model.Ridge())]), SCORE)
    assert [layer.name for layer in graph.architecture.layers] == ["fit"]


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (
            DecisionTreeClassifier(),
            r"decisiontreeclassifier \(DecisionTreeClassifier\): is not supported; .*Ridge",
        ),
        (linear_model.PoissonRegressor(), r"poissonregressor \(PoissonRegressor\): is not supported"),
        (make_pipeline(PCA(2), linear_model.Ridge()), r"step pca \(PCA\): is not supported"),
        (make_pipeline(preprocessing.MinMaxScaler(clip=True), linear_model.Ridge()), "clip=True"),
        (make_pipeline(preprocessing.StandardScaler()), r"step standardscaler \(StandardScaler\): is not supported"),
    ],
)
def test_refuses_other_estimators_by_name(model: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        from_sklearn(model.fit(X, np.abs(THREE)))


@pytest.mark.parametrize(
    "model",
    [
        linear_model.Ridge(),
        neural_network.MLPClassifier(),
        make_pipeline(preprocessing.StandardScaler(), linear_model.Ridge()),
        make_pipeline(preprocessing.MinMaxScaler(), linear_model.Ridge()),
    ],
)
def test_refuses_what_is_not_fitted(model: Any) -> None:
    with pytest.raises(DataError, match="is not fitted; call fit first"):
        from_sklearn(model)


def test_refuses_an_empty_pipeline() -> None:
    with pytest.raises(DataError, match="has no model"):
        from_sklearn(Pipeline([("nothing", "passthrough")]))


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge:sklearn.exceptions.ConvergenceWarning")
def test_fixed_point_and_approximations_keep_the_classes_of_digits() -> None:
    images, labels = load_digits(return_X_y=True)
    model = neural_network.MLPClassifier((32,), activation="tanh", solver="lbfgs", max_iter=30, random_state=1)
    pipeline = make_pipeline(preprocessing.StandardScaler(), model).fit(images[:1000], labels[:1000])
    graph = from_sklearn(pipeline)
    calibration = calibrate(graph, images[:1000])
    assert calibration.fixed.compared_bits == 25
    classes = fixed_forward(graph, images[1000:], 14).argmax(axis=1)
    # Smooth functions are approximated to within 2^-9, so that a near tie may fall the other way.
    assert np.mean(classes == pipeline.predict(images[1000:])) >= 0.995
