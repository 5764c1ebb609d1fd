"""The torch trainer and adapter: the state dict round trip, buffers, dropout, half precision, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import DataError
from ridotto.learn.adapt import adapt

torch = pytest.importorskip("torch", reason="PyTorch is an extra")

from ridotto.learn.torch_trainer import TorchModel, TorchTrainer  # noqa: E402


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)
    )


def data(count: int = 50) -> tuple[Any, Any]:
    generator = np.random.default_rng(1)
    return generator.standard_normal((count, 4)).astype(np.float32), generator.integers(3, size=count)


def test_adapter_writes_parameters_and_running_statistics_in_place() -> None:
    module = network()
    model = adapt(module)
    assert isinstance(model, TorchModel)
    expected = [name for name in module.state_dict() if name != "1.num_batches_tracked"]
    assert list(model.layout.names) == expected
    kept = module[0].weight
    model.write(np.arange(model.layout.length, dtype=np.float32))
    assert module[0].weight is kept
    assert module[0].weight[0].tolist() == [0, 1, 2, 3]
    assert module[1].running_mean[0] == 32 + 8 + 8 + 8
    assert_array_equal(model.read(), np.arange(model.layout.length))


def test_adapter_leaves_the_count_of_batches_local() -> None:
    module = network()
    module(torch.zeros(5, 4))
    adapt(module).write(adapt(network()).read())
    assert module[1].num_batches_tracked == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_adapter_takes_half_precision(dtype: str) -> None:
    module = torch.nn.Linear(2, 1).to(getattr(torch, dtype))
    model = adapt(module)
    model.write(np.array([0.5, 1.5, -2.0], np.float32))
    assert module.weight.dtype == getattr(torch, dtype)
    assert model.read().dtype == np.float32
    assert_array_equal(model.read(), [0.5, 1.5, -2.0])


def test_a_shared_parameter_is_in_the_vector_once() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    module[1].weight = module[0].weight
    assert adapt(module).layout.names == ("0.weight", "0.bias", "1.bias")


def test_adapter_refuses_nan_naming_the_parameter_a_changed_shape_and_a_module_without_parameters() -> None:
    module = network()
    model = adapt(module)
    with pytest.raises(DataError, match="expected float32 of shape"):
        model.write(np.zeros(3, np.float32))
    with torch.no_grad():
        module[4].bias[0] = float("nan")
    with pytest.raises(DataError, match=r"4\.bias"):
        model.read()
    module[4] = torch.nn.Linear(8, 5)
    with pytest.raises(DataError, match=r"4\.weight"):
        model.read()
    with pytest.raises(DataError, match="ReLU has no parameters"):
        adapt(torch.nn.ReLU())
    with pytest.raises(DataError, match=r"torch\.nn\.Module is expected, not int"):
        TorchTrainer(3)


def test_same_seed_same_bits_whoever_trained_before_and_whatever_the_global_seed() -> None:
    trainer = TorchTrainer(network(), epochs=2, batch_size=16)
    torch.manual_seed(1)
    first = trainer.train(trainer.initial(), data(), insecure_seeded_rng(1))
    torch.manual_seed(2)
    other = trainer.train(trainer.initial(), data(), insecure_seeded_rng(2))
    again = trainer.train(trainer.initial(), data(), insecure_seeded_rng(1))
    assert first.vector.tobytes() == again.vector.tobytes() != other.vector.tobytes()
    assert first.metrics == again.metrics


def test_training_leaves_the_callers_module_and_global_generator_alone() -> None:
    module = network()
    before = adapt(module).read()
    trainer = TorchTrainer(module)
    state = torch.random.get_rng_state()
    trainer.train(trainer.initial(), data(), insecure_seeded_rng(1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert_array_equal(before, adapt(module).read())
    assert_array_equal(before, trainer.initial())


def test_integer_and_unsaved_buffers_start_anew_for_every_client() -> None:
    class Counting(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(4, 3)
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
            self.register_buffer("scale", torch.ones(()), persistent=False)

        def forward(self, x: Any) -> Any:
            self.calls += 1
            self.scale /= 2
            return self.linear(x) * self.scale

    trainer = TorchTrainer(Counting(), batch_size=10)
    assert trainer.layout.names == ("linear.weight", "linear.bias")
    runs = [trainer.train(trainer.initial(), data(), insecure_seeded_rng(1)).vector.tobytes() for _ in range(2)]
    assert runs[0] == runs[1]


def test_a_momentum_optimiser_starts_anew_for_every_client() -> None:
    trainer = TorchTrainer(network(), optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.01))
    runs = [trainer.train(trainer.initial(), data(), insecure_seeded_rng(1)).vector.tobytes() for _ in range(2)]
    assert runs[0] == runs[1]


def test_half_precision_and_regression() -> None:
    module = torch.nn.Linear(4, 1).to(torch.bfloat16)
    trainer = TorchTrainer(module, loss=lambda output, y: torch.nn.functional.mse_loss(output[:, 0], y))
    x, _ = data()
    result = trainer.train(trainer.initial(), (x, x[:, 0]), insecure_seeded_rng(0))
    assert set(result.metrics) == {"loss"}
    assert set(trainer.evaluate(result.vector, (x.tolist(), x[:, 0]))) == {"loss"}


def test_evaluation_runs_in_evaluation_mode_over_several_batches() -> None:
    trainer = TorchTrainer(network())
    x, y = data(2500)
    metrics = trainer.evaluate(trainer.initial(), (torch.from_numpy(x), torch.from_numpy(y)))
    module = network().eval()
    with torch.no_grad():
        output = module(torch.from_numpy(x))
    assert metrics["accuracy"] == pytest.approx((output.argmax(1).numpy() == y).mean())
    assert metrics["loss"] == pytest.approx(torch.nn.functional.cross_entropy(output, torch.from_numpy(y)).item())


def test_refuses_data_that_do_not_fit() -> None:
    trainer = TorchTrainer(network())
    x, y = data()
    for wrong, sentence in [
        ((x[:0], y[:0]), "there are no examples"),
        ((x, y[:3]), "same number of examples"),
        ((x[:, :2], y), r"refuses a batch with x of shape \(32, 2\)"),
        ((x, y + 3), "refuses a batch"),
        ((x[:1], y[:1]), "refuses a batch .* more than 1 value per channel"),
        ((x * np.nan, y), r"0\.weight"),
    ]:
        with pytest.raises(DataError, match=sentence):
            trainer.train(trainer.initial(), wrong, insecure_seeded_rng(0))
    with pytest.raises(DataError, match=r"0\.weight"):
        trainer.evaluate(trainer.initial() * np.float32(np.nan), (x, y))
