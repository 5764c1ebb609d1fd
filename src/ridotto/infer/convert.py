"""Any supported model to a graph: find out whose it is, without importing a framework that is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from ridotto.errors import DataError
from ridotto.infer.graph import Graph
from ridotto.infer.reference import batch


def to_graph(model: Any, example: ArrayLike | None = None) -> Graph:
    """Turn a model into a graph.

    model: a torch `nn.Module`; a fitted scikit-learn estimator or pipeline; an ONNX model, as a path that ends in
    .onnx, bytes or `onnx.ModelProto`; or a graph, which is returned as it is.
    example: a batch of inputs, shape (batch, *input shape). PyTorch's modules need it, because they do not know the
    shape of their input; with others it is only checked.
    Raises DataError if the model is of no known kind, has a layer that is not supported (named), or does not fit the
    example; MissingExtraError if its framework is not installed.
    """
    graph = _imported(model, example)
    if example is not None:
        batch(graph.architecture, example)
    return graph


def _imported(model: Any, example: ArrayLike | None) -> Graph:
    if isinstance(model, Graph):
        return model
    if isinstance(model, str | Path):
        if Path(model).suffix != ".onnx":
            raise DataError(f"{model} is no .onnx file; load a model of another format yourself and hand it over")
        return _onnx(model)
    # The roots of the classes that the model's class comes from tell its framework, and import nothing.
    roots = {kind.__module__.split(".")[0] for kind in type(model).__mro__}
    if "torch" in roots:
        if example is None:
            raise DataError("a module of PyTorch needs an example, a batch of inputs: it doesn't know their shape")
        from ridotto.infer.from_torch import from_torch

        return from_torch(model, example)
    if "sklearn" in roots:
        from ridotto.infer.from_sklearn import from_sklearn

        return from_sklearn(model)
    if isinstance(model, bytes) or roots & {"onnx", "google"}:
        return _onnx(model)
    raise DataError(
        f"{type(model).__name__} is no model that can be imported: expected a torch.nn.Module, a scikit-learn "
        "estimator or pipeline, an ONNX model (path, bytes or ModelProto), or a Graph"
    )


def _onnx(model: Any) -> Graph:
    from ridotto.infer.from_onnx import from_onnx

    return from_onnx(model)
