"""Strategies against their formulas, with the arithmetic written out."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridotto.core.vector import Vector
from ridotto.errors import DataError, PlanError
from ridotto.learn.strategy import STRATEGIES, Strategy, fedadagrad, fedadam, fedavg, fedavgm, fedyogi, strategy

LEARNING_RATE = dict.fromkeys(STRATEGIES, 0.1)


def vector(*numbers: float) -> Vector:
    return np.array(numbers, np.float32)


def run(chosen: Strategy, model: Vector, *updates: Vector) -> Vector:
    state = chosen.init(model)
    for update in updates:
        state, model = chosen.apply(state, model, update)
    return model


def test_fedavg_with_rate_one_gives_the_mean_of_the_trained_models() -> None:
    received, trained = vector(1.0, -2.0), vector(1.5, -3.0)
    assert_array_equal(run(fedavg(), received, trained - received), trained)


def test_fedavg_scales_by_its_rate() -> None:
    # 1 + 0.5 * 4 = 3
    assert_array_equal(run(fedavg(0.5), vector(1.0), vector(4.0)), vector(3.0))


def test_fedavgm_sums_decayed_updates() -> None:
    # m1 = 2, x1 = 1 + 0.5 * 2 = 2;  m2 = 0.5 * 2 + 4 = 5, x2 = 2 + 0.5 * 5 = 4.5
    assert_array_equal(run(fedavgm(0.5, momentum=0.5), vector(1.0), vector(2.0), vector(4.0)), vector(4.5))


def test_fedadagrad_divides_by_the_root_of_the_sum_of_squares() -> None:
    # tau = 1, so v0 = 1.  v1 = 1 + 3 = 4 from Delta^2 = 3: x1 = sqrt(3) / (2 + 1).
    # v2 = 4 + 12 = 16 from Delta^2 = 12: x2 = x1 + sqrt(12) / (4 + 1).
    root3 = 3**0.5
    after = run(fedadagrad(1.0, tau=1.0), vector(0.0), vector(root3), vector(2 * root3))
    assert_allclose(after, [root3 / 3 + 2 * root3 / 5], rtol=1e-6)


def test_fedadam_on_two_steps() -> None:
    # beta1 = 0.5, beta2 = 0.75, tau = 1, v0 = 1, eta = 0.1.
    # Delta = 1: m1 = 0.5, v1 = 0.75 + 0.25 = 1, x1 = 0.1 * 0.5 / (1 + 1) = 0.025.
    # Delta = 5: m2 = 0.25 + 2.5 = 2.75, v2 = 0.75 + 0.25 * 25 = 7, x2 = x1 + 0.1 * 2.75 / (sqrt(7) + 1).
    after = run(fedadam(0.1, beta1=0.5, beta2=0.75, tau=1.0), vector(0.0), vector(1.0), vector(5.0))
    assert_allclose(after, [0.025 + 0.275 / (7**0.5 + 1)], rtol=1e-6)


def test_fedyogi_moves_the_second_moment_towards_the_square_by_a_bounded_step() -> None:
    # beta1 = 0, beta2 = 0.75, tau = 1, v0 = 1, eta = 1.
    # Delta = 4: v0 - 16 < 0, so v1 = 1 + 0.25 * 16 = 5, x1 = 4 / (sqrt(5) + 1).
    # Delta = 2: v1 - 4 > 0, so v2 = 5 - 0.25 * 4 = 4, x2 = x1 + 2 / (2 + 1).
    after = run(fedyogi(1.0, beta1=0.0, beta2=0.75, tau=1.0), vector(0.0), vector(4.0), vector(2.0))
    assert_allclose(after, [4 / (5**0.5 + 1) + 2 / 3], rtol=1e-6)


def test_the_defaults_are_those_of_the_paper() -> None:
    # First step with the defaults: v0 = tau^2 = 1e-6. Adam: m = 0.1 * 0.01, v = 0.99e-6 + 0.01 * 1e-4 = 1.99e-6.
    adam = run(fedadam(0.1), vector(0.0), vector(0.01))
    assert_allclose(adam, [0.1 * 0.001 / (1.99e-6**0.5 + 1e-3)], rtol=1e-5)
    # Yogi: v = 1e-6 + 0.01 * 1e-4 = 2e-6.
    yogi = run(fedyogi(0.1), vector(0.0), vector(0.01))
    assert_allclose(yogi, [0.1 * 0.001 / (2e-6**0.5 + 1e-3)], rtol=1e-5)
    # Adagrad has beta1 = 0: m = 0.01, v = 1e-6 + 1e-4.
    adagrad = run(fedadagrad(0.1), vector(0.0), vector(0.01))
    assert_allclose(adagrad, [0.1 * 0.01 / (1.01e-4**0.5 + 1e-3)], rtol=1e-5)
    # FedAvgM: 0.9 * 1 + 1 = 1.9 on top of 1.
    assert_allclose(run(fedavgm(), vector(0.0), vector(1.0), vector(1.0)), [2.9], rtol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_moves_towards_the_trained_models(name: str) -> None:
    after = run(strategy(name, learning_rate=LEARNING_RATE[name]), vector(0.0, 0.0), vector(0.5, -0.5))
    assert after[0] > 0 > after[1]


@pytest.mark.parametrize("name", STRATEGIES)
def test_leaves_its_arguments_alone_and_stays_float32(name: str) -> None:
    chosen = strategy(name, learning_rate=0.1)
    model, update = vector(1.0, 2.0), vector(0.1, 0.2)
    state = chosen.init(model)
    before = {key: array.copy() for key, array in state.items()}
    new_state, new_model = chosen.apply(state, model, update)
    assert_array_equal(model, vector(1.0, 2.0))
    assert_array_equal(update, vector(0.1, 0.2))
    assert all(np.array_equal(before[key], state[key]) for key in before)
    assert new_model.dtype == np.float32
    assert all(array.dtype == np.float32 and array.shape == (2,) for array in new_state.values())
    assert set(new_state) == set(state)


@pytest.mark.parametrize("name", STRATEGIES)
def test_same_inputs_same_bits(name: str) -> None:
    generator = np.random.default_rng(0)
    model, *updates = generator.standard_normal((4, 1000)).astype(np.float32)
    first, again = (run(strategy(name, learning_rate=0.1), model, *updates) for _ in range(2))
    assert first.tobytes() == again.tobytes()


@pytest.mark.parametrize("name", STRATEGIES)
def test_refuses_an_update_of_another_length(name: str) -> None:
    chosen = strategy(name, learning_rate=0.1)
    model = vector(1.0, 2.0)
    with pytest.raises(DataError, match=r"shape \(1,\), the model \(2,\)"):
        chosen.apply(chosen.init(model), model, vector(1.0))


def test_refuses_an_unknown_name_and_lists_the_known_ones() -> None:
    with pytest.raises(PlanError, match="'fedsgd'; the known ones are fedavg, fedavgm, fedadagrad, fedadam, fedyogi"):
        strategy("fedsgd")


def test_refuses_an_unknown_parameter_and_lists_the_known_ones() -> None:
    with pytest.raises(PlanError, match="no parameter 'beta2'; its parameters are learning_rate, momentum"):
        strategy("fedavgm", beta2=0.9)


def test_refuses_a_missing_parameter() -> None:
    with pytest.raises(PlanError, match="fedadam needs learning_rate"):
        strategy("fedadam")


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("fedavg", {"learning_rate": 0.0}, "learning_rate must be a number above 0, not 0.0"),
        ("fedavg", {"learning_rate": float("inf")}, "learning_rate must be"),
        ("fedavg", {"learning_rate": "fast"}, "learning_rate must be a number above 0, not 'fast'"),
        ("fedavgm", {"momentum": 1.0}, "momentum must be a number of at least 0 and below 1"),
        ("fedadam", {"learning_rate": 0.1, "beta2": 1.0}, "beta2 must be"),
        ("fedyogi", {"learning_rate": 0.1, "beta2": -0.1}, "beta2 must be"),
        ("fedadagrad", {"learning_rate": 0.1, "tau": 0.0}, "tau must be a number above 0"),
        ("fedadagrad", {"learning_rate": 0.1, "beta1": True}, "beta1 must be"),
    ],
)
def test_refuses_numbers_out_of_range(name: str, parameters: dict[str, float], sentence: str) -> None:
    with pytest.raises(PlanError, match=f"{name}: {sentence}"):
        strategy(name, **parameters)
