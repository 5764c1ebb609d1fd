"""What `ridotto infer` reads and writes: models, examples and results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ridotto.errors import ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from ridotto.infer.graph import Graph

INPUTS = ("x", "x_test", "images")
LABELS = ("y", "y_test", "labels")
"""Names of arrays in .npz files, the first that is there."""

EXAMPLE_SIZES = (784, 128, 128, 10)
"""The network that is measured where no model is given."""


def read_examples(path: Path) -> tuple[NDArray[np.float32], NDArray[Any] | None]:
    """Return examples, (count, ...), and their classes if the file has some.

    Bytes are taken for pixels and divided by 255; images of two dimensions get one channel.
    Raises DataError if the file is no array of numbers.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        arrays = dict(loaded) if path.suffix == ".npz" else {"x": loaded}
    except (OSError, ValueError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"{path} can't be read as .npy or .npz: {why}") from error
    x = next((arrays[name] for name in INPUTS if name in arrays), None)
    if x is None:
        raise DataError(
            f"{path} has the arrays {', '.join(arrays) or 'none'}, expected one named {' or '.join(INPUTS)}"
        )
    if x.dtype.kind not in "fiub" or x.ndim < 2 or not len(x):
        raise DataError(f"{path} has {x.dtype} of shape {x.shape}, expected numbers, one row or image an example")
    y = next((arrays[name] for name in LABELS if name in arrays), None)
    if y is not None and y.shape != (len(x),):
        raise DataError(f"{path} has {len(x)} examples and classes of shape {y.shape}")
    x = x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x.astype(np.float32)
    return (x[:, None] if x.ndim == 3 else x), y


def fit(x: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return examples in the shape that a model wants, if they hold so many numbers; otherwise as they are."""
    return x.reshape(len(x), *shape) if x[0].size == np.prod(shape) else x


def read_graph(path: Path, program: str | None, x: NDArray[np.float32] | None) -> Graph:
    """Read a model. program: what makes the object that a .safetensors file holds the numbers of. x: examples.

    Raises DataError or ConfigError if that can't be done.
    """
    from ridotto.infer.convert import to_graph
    from ridotto.infer.from_tensors import from_tensors

    if not path.is_file():
        raise ConfigError(f"there is no model {path}")
    if path.suffix == ".onnx":
        return to_graph(path)
    if path.suffix != ".safetensors":
        raise DataError(f"{path} is neither .safetensors nor .onnx; save or export the model as one of them")
    return from_tensors(path) if program is None else _from_program(path, program, x)


def example_model() -> Graph:
    """Return a network with random weights: what it costs does not depend on them."""
    from ridotto.infer.from_tensors import dense_graph
    from ridotto.learn.numpy_trainer import NumpyTrainer

    trainer = NumpyTrainer(EXAMPLE_SIZES, seed=1)
    return dense_graph(trainer.initial(), trainer.layout)


def random_examples(graph: Graph, count: int) -> NDArray[np.float32]:
    """Return random numbers in 0 .. 1 in the shape of a model's inputs."""
    return np.random.default_rng(1).random((count, *graph.architecture.input_shape), np.float32)


def save_array(path: Path, values: NDArray[Any]) -> None:
    """Write an array as .npy. Raises StorageError if that can't be done."""
    try:
        np.save(path, values)
    except OSError as error:
        raise StorageError(f"the result can't be saved as {path}: {error.strerror or error}") from error


def _from_program(path: Path, program: str, x: NDArray[np.float32] | None) -> Graph:
    from ridotto.infer.convert import to_graph
    from ridotto.infer.from_tensors import dense_graph, read_tensors
    from ridotto.learn.adapt import adapt
    from ridotto.tasks import Task, _program

    vector, layout = read_tensors(path)
    model = _program(program, Path())()
    if isinstance(model, Task):
        if model.trainer.layout != layout:
            raise DataError(f"{path} holds another model than the one that {program} trains")
        return dense_graph(vector, layout)
    adapter = adapt(model)
    if adapter.layout != layout:
        raise DataError(f"{path} holds another model than the one that {program} makes: names or shapes differ")
    adapter.write(vector)
    return to_graph(model, x)
