"""The JAX trainer: padding, dtypes, determinism, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import DataError

jax = pytest.importorskip("jax", reason="JAX is an extra")
jnp = jax.numpy

from ridotto.learn.jax_trainer import JaxTrainer  # noqa: E402


def squared_error(parameters: Any, x: Any, y: Any) -> Any:
    return jnp.mean((x @ parameters["weight"] - y) ** 2)


def line(**options: Any) -> JaxTrainer:
    return JaxTrainer({"weight": jnp.zeros(1)}, squared_error, **options)


def test_a_ragged_batch_by_hand() -> None:
    # x = 1 for both examples, y = (2, 4), weight 0: the mean gradient is -2 * (2 + 4) / 2 = -6, so the weight becomes
    # 0.1 * 6 = 0.6, although the batch has room for 32. The mean loss was (4 + 16) / 2 = 10.
    data = np.ones((2, 1), np.float32), np.array([2.0, 4.0], np.float32)
    trainer = line(learning_rate=0.1)
    result = trainer.train(trainer.initial(), data, insecure_seeded_rng(0))
    assert_allclose(result.vector, [0.6], rtol=1e-6)
    assert result.metrics == pytest.approx({"loss": 10.0})
    assert trainer.evaluate(result.vector, data) == pytest.approx({"loss": (1.4**2 + 3.4**2) / 2})


def test_padding_does_not_bring_nan_where_the_loss_is_infinite_at_zero() -> None:
    trainer = JaxTrainer({"weight": jnp.ones(1)}, lambda p, x, y: jnp.mean(p["weight"] * jnp.log(x[:, 0])))
    data = np.full((3, 1), np.e, np.float32), np.zeros(3, np.int64)
    result = trainer.train(trainer.initial(), data, insecure_seeded_rng(0))
    assert_allclose(result.vector, [0.95], rtol=1e-6)


def test_clients_of_every_size_share_one_compilation() -> None:
    compiled = []

    def counting_loss(parameters: Any, x: Any, y: Any) -> Any:
        # Python code in a jitted function runs once for each compilation.
        compiled.append(x.shape)
        return squared_error(parameters, x, y)

    trainer = JaxTrainer({"weight": jnp.zeros(1)}, counting_loss, batch_size=4)
    first_size = None
    for size in range(1, 10):
        data = np.ones((size, 1), np.float32), np.ones(size, np.float32)
        trainer.train(trainer.initial(), data, insecure_seeded_rng(0))
        first_size = first_size or len(compiled)
    assert len(compiled) == first_size


def test_keeps_the_dtype_of_half_precision_and_the_structure_of_the_tree() -> None:
    seen = []

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        seen.append(parameters["layers"][0].dtype)
        return jnp.mean(x @ parameters["layers"][0].astype(jnp.float32) - y)

    trainer = JaxTrainer({"layers": [jnp.zeros(2, jnp.bfloat16)]}, loss)
    data = np.ones((40, 2), np.float32), np.ones(40, np.float32)
    result = trainer.train(trainer.initial(), data, insecure_seeded_rng(0))
    assert set(seen) == {jnp.dtype(jnp.bfloat16)}
    assert result.vector.dtype == np.float32
    assert trainer.layout.names == ("layers/0",)


def test_same_seed_same_bits_and_the_received_vector_is_left_alone() -> None:
    generator = np.random.default_rng(0)
    data = generator.standard_normal((50, 1)).astype(np.float32), generator.standard_normal(50).astype(np.float32)
    trainer = line(batch_size=8, epochs=2)
    start = trainer.initial()
    first, again, other = (trainer.train(start, data, insecure_seeded_rng(seed)).vector for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert_array_equal(start, [0.0])


def test_refuses_data_that_do_not_fit() -> None:
    trainer = line()
    x, y = np.ones((4, 1), np.float32), np.ones(4, np.float32)
    for wrong, sentence in [
        ((x[:0], y[:0]), "there are no examples"),
        ((x, y[:3]), "same number of examples"),
        ((np.ones((4, 3), np.float32), y), r"refuses a batch with x of shape \(32, 3\)"),
        ((x * np.nan, y), "weight"),
    ]:
        with pytest.raises(DataError, match=sentence):
            trainer.train(trainer.initial(), wrong, insecure_seeded_rng(0))
    with pytest.raises(DataError, match="weight"):
        trainer.evaluate(np.array([np.inf], np.float32), (x, y))
