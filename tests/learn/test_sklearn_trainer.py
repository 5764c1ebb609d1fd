"""The scikit-learn trainer and adapter: starting points, statelessness, the families of estimators, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import ConfigError, DataError
from ridotto.learn.adapt import adapt

pytest.importorskip("sklearn", reason="scikit-learn is an extra")

from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.linear_model import (
    LinearRegression,
    LogisticRegression,
    Perceptron,
    SGDClassifier,
    SGDRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor

from ridotto.learn.sklearn_trainer import SklearnModel, SklearnTrainer, digits

CLASSIFIERS: list[Any] = [
    SGDClassifier(),
    SGDClassifier(loss="log_loss"),
    Perceptron(),
    MLPClassifier(hidden_layer_sizes=(16,), random_state=1, learning_rate_init=0.01),
]
REGRESSORS: list[Any] = [SGDRegressor(), MLPRegressor(hidden_layer_sizes=(8,), random_state=1, solver="sgd")]


def test_digits_are_the_ones_that_scikit_learn_ships() -> None:
    x, y = digits()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((1797, 64), np.float32, (1797,), np.int64)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert y[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=str)
def test_classifiers_learn_the_digits_and_repeat_themselves(estimator: Any) -> None:
    trainer = SklearnTrainer(estimator, range(10), 64, epochs=5)
    start = trainer.initial()
    first = trainer.train(start, digits(), insecure_seeded_rng(1))
    other = trainer.train(start, digits(), insecure_seeded_rng(2))
    again = trainer.train(start, digits(), insecure_seeded_rng(1))
    assert first.vector.tobytes() == again.vector.tobytes() != other.vector.tobytes()
    assert first.examples == 1797
    assert first.metrics["accuracy"] > 0.85
    assert first.metrics == trainer.evaluate(first.vector, digits())
    assert_array_equal(start, trainer.initial())
    assert not hasattr(estimator, "classes_")


@pytest.mark.parametrize("estimator", REGRESSORS, ids=str)
def test_regressors_lower_their_loss(estimator: Any) -> None:
    x = digits()[0][:, 20:23]
    data = x, x @ np.array([1.0, -2.0, 0.5])
    trainer = SklearnTrainer(estimator, None, 3, epochs=5)
    before = trainer.evaluate(trainer.initial(), data)["loss"]
    result = trainer.train(trainer.initial(), data, insecure_seeded_rng(1))
    assert set(result.metrics) == {"loss"}
    assert result.metrics["loss"] < before / 2


@pytest.mark.parametrize("estimator", [SGDClassifier(), Perceptron(), SGDRegressor()], ids=str)
def test_linear_estimators_start_from_zero(estimator: Any) -> None:
    trainer = SklearnTrainer(estimator, None if isinstance(estimator, SGDRegressor) else [0, 1, 2], 4)
    assert not trainer.initial().any()


def test_networks_start_from_glorot_within_its_bound_and_by_their_seed() -> None:
    def start(seed: int, activation: str = "relu") -> Any:
        network = MLPClassifier(hidden_layer_sizes=(8,), random_state=seed, activation=activation)
        trainer = SklearnTrainer(network, [0, 1, 2], 4)
        return trainer.layout.unflatten(trainer.initial())

    # sqrt(6 / (4 inputs + 8 outputs)) = sqrt(0.5); for logistic units sqrt(2 / 12).
    assert 0.4 < np.abs(start(1)["coefs_.0"]).max() <= 0.5**0.5
    assert np.abs(start(1, "logistic")["coefs_.0"]).max() <= (1 / 6) ** 0.5
    assert_array_equal(start(1)["coefs_.0"], start(1)["coefs_.0"])
    assert (start(1)["coefs_.0"] != start(2)["coefs_.0"]).any()


def test_the_first_step_is_the_same_as_without_us() -> None:
    # The invented examples that allocate the estimator must leave no trace: schedules and counters start at the start.
    x, y = digits()
    theirs = SGDClassifier(learning_rate="optimal", shuffle=False).partial_fit(x, y, classes=np.arange(10))
    trainer = SklearnTrainer(SGDClassifier(learning_rate="optimal", shuffle=False), range(10), 64)
    ours = trainer.train(trainer.initial(), (x, y), insecure_seeded_rng(0)).vector
    assert_allclose(ours, SklearnModel(theirs).read(), rtol=1e-5)


def test_labels_may_be_words_and_a_participant_may_lack_some() -> None:
    trainer = SklearnTrainer(SGDClassifier(loss="log_loss"), ["cat", "dog", "eel"], 2)
    data = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array(["cat", "dog"])
    result = trainer.train(trainer.initial(), data, insecure_seeded_rng(0))
    assert set(result.metrics) == {"accuracy", "loss"}
    assert trainer.layout.length == 3 * 2 + 3


@pytest.mark.parametrize(
    "estimator",
    [
        SGDClassifier().fit(np.eye(3), [0, 1, 2]),
        LogisticRegression().fit(np.eye(3), [0, 1, 2]),
        LinearRegression().fit(np.eye(3), [0.0, 1.0, 2.0]),
        LinearRegression(fit_intercept=False).fit(np.eye(3), [0.0, 1.0, 2.0]),
        MLPRegressor(hidden_layer_sizes=(2,), random_state=0).partial_fit(np.eye(3), [0.0, 1.0, 2.0]),
    ],
    ids=str,
)
def test_adapter_reads_and_writes_in_place(estimator: Any) -> None:
    model = adapt(estimator)
    assert isinstance(model, SklearnModel)
    vector = np.arange(model.layout.length, dtype=np.float32) / 8
    before = estimator.predict(np.eye(3)).shape
    model.write(vector)
    assert_array_equal(model.read(), vector)
    assert estimator.predict(np.eye(3)).shape == before


@pytest.mark.parametrize(
    ("estimator", "sentence"),
    [
        (SGDClassifier(), r"SGDClassifier has no coefficients yet: call partial_fit\(x, y, classes=all_labels\) once"),
        (SGDRegressor(), r"SGDRegressor has no coefficients yet: call partial_fit\(x, y\) once"),
        (LogisticRegression(), "LogisticRegression has no coef_ or coefs_: fit it first"),
        (KMeans(), "KMeans has no coef_ or coefs_"),
    ],
)
def test_adapter_says_how_to_initialise_an_estimator(estimator: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        adapt(estimator)


def test_adapter_refuses_nan_and_a_wrong_length() -> None:
    estimator = SGDClassifier().fit(np.eye(3), [0, 1, 2])
    model = adapt(estimator)
    with pytest.raises(DataError, match="expected float32 of shape"):
        model.write(np.zeros(3, np.float32))
    estimator.intercept_[0] = np.nan
    with pytest.raises(DataError, match="intercept_"):
        model.read()


@pytest.mark.parametrize(
    ("estimator", "classes", "features", "error", "sentence"),
    [
        (LogisticRegression(), [0, 1], 2, DataError, "LogisticRegression has no partial_fit"),
        (MiniBatchKMeans(2), None, 2, DataError, "MiniBatchKMeans can't be trained here"),
        (SGDClassifier(), None, 2, ConfigError, "classes must be all participants' labels"),
        (SGDRegressor(), [0, 1], 2, ConfigError, "None for a regressor"),
        (SGDClassifier(), [1, 1], 2, ConfigError, "at least two classes"),
        (SGDClassifier(), [0, 1], 0, ConfigError, "features and epochs must be at least 1"),
        (SGDClassifier(average=True), [0, 1], 2, ConfigError, "average has no meaning"),
        (MLPClassifier(random_state=1, early_stopping=True), [0, 1], 2, ConfigError, "early_stopping has no meaning"),
        (MLPClassifier(), [0, 1], 2, ConfigError, "give an integer random_state"),
        (MLPClassifier(random_state=1, solver="lbfgs"), [0, 1], 2, DataError, "no partial_fit"),
    ],
)
def test_refuses_estimators_and_settings(
    estimator: Any, classes: Any, features: int, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        SklearnTrainer(estimator, classes, features)


def test_refuses_data_that_do_not_fit() -> None:
    trainer = SklearnTrainer(SGDClassifier(), [0, 1], 3)
    x, y = np.ones((4, 3)), np.zeros(4, np.int64)
    for wrong, sentence in [
        ((x[:0], y[:0]), "there are no examples"),
        ((x, y[:3]), "same number of examples"),
        ((x[:, :2], y), "x has 2 features"),
        ((x * np.nan, y), "x holds NaN"),
        ((x, y + 7), r"not among the 2 classes: \[7\]"),
        ((x, y[:, None]), "one value an example"),
    ]:
        with pytest.raises(DataError, match=sentence):
            trainer.train(trainer.initial(), wrong, insecure_seeded_rng(0))
    with pytest.raises(DataError, match="SGDRegressor refuses the data"):
        SklearnTrainer(SGDRegressor(), None, 3).train(np.zeros(4, np.float32), (x, ["a"] * 4), insecure_seeded_rng(0))
    with pytest.raises(DataError, match="coef_"):
        trainer.evaluate(trainer.initial() * np.float32(np.nan), (x, y))
