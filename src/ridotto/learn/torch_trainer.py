"""PyTorch: the only module that imports it.

What becomes part of the vector: every parameter and every floating-point buffer of the state dict, in its order, each
once even where modules share it. So the running statistics of batch normalisation are averaged like parameters.
Integer buffers (how many batches were counted) stay where they are: their average means nothing. Buffers that are not
in the state dict stay local too. Parameters in float16 or bfloat16 are float32 in the vector and rounded when they
are written back.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from ridotto.core.rng import Rng, numpy_generator
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.errors import DataError, MissingExtraError
from ridotto.learn.examples import EVALUATION_BATCH, Schedule, Tally, pair
from ridotto.learn.trainer import LocalResult, finished

try:
    import torch
except ModuleNotFoundError as error:
    raise MissingExtraError("torch", "torch") from error

OptimizerFactory = Callable[[Iterable[torch.nn.Parameter]], torch.optim.Optimizer]
"""Makes a fresh optimiser for one client's training: `lambda parameters: torch.optim.Adam(parameters, lr=1e-3)`."""

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(output of the module, y) -> scalar, the mean over the batch."""


class TorchModel:
    """Adapt a torch module: its floating-point state <-> one vector, on whatever device and in whatever dtype it is.

    Raises DataError if the object is not a module or has no floating-point state.
    """

    def __init__(self, module: Any) -> None:
        if not isinstance(module, torch.nn.Module):
            raise DataError(f"a torch.nn.Module is expected, not {type(module).__name__}")
        self._module = module
        self._layout = Layout.of(self._arrays())

    @property
    def layout(self) -> Layout:
        """Name and shape every parameter and floating-point buffer, as the state dict names them."""
        return self._layout

    def read(self) -> Vector:
        """Return a copy of the state. Raises DataError if a number is not finite or a shape has changed."""
        vector = self._layout.flatten(self._arrays())
        require_finite(vector, self._layout)
        return vector

    def write(self, vector: Vector) -> None:
        """Put `vector` into the module, in place. Raises DataError if the length does not fit."""
        arrays = self._layout.unflatten(np.array(vector, np.float32))
        with torch.no_grad():
            for name, tensor in _floating_state(self._module).items():
                tensor.copy_(torch.from_numpy(arrays[name]))

    def _arrays(self) -> dict[str, Any]:
        state = _floating_state(self._module)
        if not state:
            raise DataError(f"the module {type(self._module).__name__} has no parameters to train")
        return {name: tensor.detach().to("cpu", torch.float32).numpy() for name, tensor in state.items()}


class TorchTrainer:
    """Train a torch module on pairs (x, y) of tensors or arrays, without a DataLoader.

    model: copied, so the caller's module is left alone; its parameters are the initial ones. loss: mean over a batch,
    cross-entropy unless given. optimizer: makes a fresh optimiser for every client, plain SGD with learning_rate
    unless given; learning_rate is unused when it is given. Floating-point x takes the dtype of the module's parameters.
    Training metrics are over the last epoch, each batch measured before its step; accuracy is there where y holds one
    integer an example and the output one score a class.

    The order of the batches, dropout and everything else that draws from torch's global generators follow from the
    `rng` given to `train`; the caller's global generators are left as they were. On a GPU the same bits twice also
    need torch.use_deterministic_algorithms(True).
    Raises ConfigError if a number is out of range, DataError if `model` is not a module with parameters.
    """

    def __init__(
        self,
        model: Any,
        *,
        loss: LossFunction = torch.nn.functional.cross_entropy,
        optimizer: OptimizerFactory | None = None,
        epochs: int = 1,
        batch_size: int = 32,
        learning_rate: float = 0.05,
    ) -> None:
        self._module = copy.deepcopy(model)
        self._state = TorchModel(self._module)
        self._initial = self._state.read()
        self._local = {name: tensor.clone() for name, tensor in _local_buffers(self._module).items()}
        self._loss = loss
        self._schedule = Schedule(epochs, batch_size, learning_rate)
        self._optimizer = optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=learning_rate))

    @property
    def layout(self) -> Layout:
        """Name and shape every parameter and floating-point buffer, as the state dict names them."""
        return self._state.layout

    def initial(self) -> Vector:
        """Return the parameters that the module had when the trainer was made."""
        return self._initial.copy()

    def train(self, vector: Vector, data: Any, rng: Rng) -> LocalResult:
        """Run the schedule's epochs from `vector`. Raises DataError as `Trainer.train` says."""
        x, y = self._examples(data)
        self._load(vector)
        self._module.train()
        optimizer = self._optimizer(self._module.parameters())
        generator = numpy_generator(rng)
        tally = Tally()
        # Drawn after the generator and not from it, so that the batches are those of every other trainer.
        with _seeded(int.from_bytes(rng.bytes(8), "little")):
            for last, batch in self._schedule.batches(len(x), generator):
                indices = torch.from_numpy(batch).to(x.device)
                optimizer.zero_grad()
                output, loss = self._forward(x[indices], y[indices])
                loss.backward()
                optimizer.step()
                if last:
                    _count(tally, output, loss, y[indices])
        # Parameters are checked before the metrics, because their names say more; reading them does it.
        return finished(self.layout, self._state.read(), len(x), tally.means())

    def evaluate(self, vector: Vector, data: Any) -> Mapping[str, float]:
        """Return the mean loss and, for classifiers, the accuracy. Raises DataError as `Trainer.evaluate` says."""
        x, y = self._examples(data)
        self._load(vector)
        self._module.eval()
        tally = Tally()
        with torch.inference_mode():
            for start in range(0, len(x), EVALUATION_BATCH):
                part = slice(start, start + EVALUATION_BATCH)
                _count(tally, *self._forward(x[part], y[part]), y[part])
        return tally.means()

    def _load(self, vector: Vector) -> None:
        """Forget the client before: everything that the module keeps is set anew."""
        require_finite(vector, self.layout)
        self._state.write(vector)
        with torch.no_grad():
            for name, tensor in _local_buffers(self._module).items():
                tensor.copy_(self._local[name])

    def _forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            output = self._module(x)
            return output, self._loss(output, y)
        except (RuntimeError, ValueError, IndexError) as error:
            shapes = f"x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}"
            raise DataError(f"the module or its loss refuses a batch with {shapes}: {error}") from error

    def _examples(self, data: Any) -> tuple[torch.Tensor, torch.Tensor]:
        parameter = next(iter(_floating_state(self._module).values()))
        x, y = (torch.as_tensor(part).to(parameter.device) for part in pair(data))
        x, y = (part.to(parameter.dtype) if part.is_floating_point() else part for part in (x, y))
        # Cross-entropy takes labels as int64 only, and NumPy data often come as uint8 or int32.
        return x, y if y.is_floating_point() else y.long()


def _floating_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the live floating-point tensors of the state dict, each once where several names share it."""
    state: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
            state.setdefault(id(tensor), (name, tensor))
    return dict(state.values())


def _local_buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return the buffers that are not in the vector: integers, and those kept out of the state dict."""
    shared = {id(tensor) for tensor in _floating_state(module).values()}
    return {name: tensor for name, tensor in module.named_buffers() if id(tensor) not in shared}


def _count(tally: Tally, output: torch.Tensor, loss: torch.Tensor, y: torch.Tensor) -> None:
    correct = None
    if y.ndim == 1 and not y.is_floating_point() and output.ndim == 2:
        correct = (output.argmax(dim=1) == y).sum().item()
    tally.add(len(y), loss=loss.item() * len(y), accuracy=correct)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators, which dropout reads, and put them back afterwards."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
