"""Read a dense classifier from the safetensors file that ridotto writes of it.

A file of tensors does not say which functions stand between them. Of `NumpyTrainer`'s files it is known: layers named
`layer1.weight`, `layer1.bias`, `layer2.weight` and so on, with ReLU between; hidden weights have the shape (inputs,
outputs), the last one (classes, inputs).
"""

from __future__ import annotations

from pathlib import Path

from ridotto.core.tensors import read_model
from ridotto.core.vector import Layout, Vector
from ridotto.errors import DataError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import Graph, Relu


def from_tensors(path: Path) -> Graph:
    """Return the graph of a file that was saved with a `NumpyTrainer`. Raises DataError if it is of another model."""
    return dense_graph(*read_tensors(path))


def read_tensors(path: Path) -> tuple[Vector, Layout]:
    """Read a model's file, as `core.tensors.read_model` does. Raises DataError if it can't be read."""
    try:
        return read_model(path.read_bytes())
    except OSError as error:
        raise DataError(f"the model {path} can't be read: {error.strerror or error}") from error


def dense_graph(vector: Vector, layout: Layout) -> Graph:
    """Return the graph of a `NumpyTrainer`'s model. Raises DataError if names or shapes are not of one."""
    arrays = layout.unflatten(vector)
    count = len(arrays) // 2
    if not count or list(arrays) != [f"layer{n}.{part}" for n in range(1, count + 1) for part in ("weight", "bias")]:
        raise DataError(
            f"a model with the parameters {', '.join(list(arrays)[:4])}.. does not say by itself what is computed: "
            "name a program that makes it, as file.py:function"
        )
    builder = GraphBuilder()
    for number in range(1, count + 1):
        weight, bias = arrays[f"layer{number}.weight"], arrays[f"layer{number}.bias"]
        if number > 1:
            builder.add(Relu(builder.name(f"relu{number - 1}")))
        builder.linear(f"layer{number}", weight if number == count else weight.T, bias)
    first = arrays["layer1.weight"].shape
    if len(first) != 2:
        raise DataError(f"layer1.weight has the shape {first}, expected a matrix")
    return builder.build((first[1] if count == 1 else first[0],))
