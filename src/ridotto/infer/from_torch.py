"""Models of PyTorch: an `nn.Module` that torch.fx can trace becomes a graph.

The module is copied, set to eval mode and traced; a batch of examples then tells the shape of everything. What is
traced may be an `nn.Sequential`, nested modules, or a `forward` that calls modules, functions (`F.relu`) and methods
(`x.view(len(x), -1)`): all become the same layers. Batch normalisation is folded, dropout is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ridotto.errors import DataError, MissingExtraError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.calls import pool, refuse_logarithm, reshape, simple, skip
from ridotto.infer.graph import (
    SUPPORTED,
    AvgPool2d,
    Gelu,
    Graph,
    MaxPool2d,
    Relu,
    Shape,
    Sigmoid,
    Softmax,
    Tanh,
)

try:
    import torch
    from torch import fx, nn
    from torch.fx.passes.shape_prop import ShapeProp
    from torch.nn import functional
except ModuleNotFoundError as error:
    raise MissingExtraError("torch", "torch") from error


def from_torch(module: Any, example: ArrayLike) -> Graph:
    """Turn a module into a graph; the module stays as it is.

    example: a batch of inputs, shape (batch, *input shape), tensor or array; only its shape matters.
    Raises DataError if it is no module, can't be traced, has branches, or has a layer that is not supported, by name.
    """
    if not isinstance(module, nn.Module):
        raise DataError(f"{type(module).__name__} is no torch.nn.Module")
    model = copy.deepcopy(module).cpu().float().eval()
    # A layer by itself would be traced into its insides.
    model = nn.Sequential(model) if type(model) in MODULES else model
    x = torch.as_tensor(example).detach().cpu().float()
    with torch.no_grad():
        try:
            model(x)
        except Exception as error:
            raise DataError(
                f"an example of shape {tuple(x.shape)} does not pass through the module: {error}"
            ) from error
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:
            raise DataError(f"torch.fx can't trace this module, does it branch on values? {error}") from error
        traced.graph.eliminate_dead_code()
        ShapeProp(traced).propagate(x)
    return _graph(traced, tuple(x.shape[1:]))


@dataclass(frozen=True)
class _Call:
    """One step of the trace: what is called, by what name, with which options, from which shape to which."""

    name: str
    title: str
    module: Any
    options: Mapping[str, Any]
    before: Shape
    after: Shape

    def refuse(self, why: str) -> DataError:
        return DataError(f"layer {self.name} ({self.title}): {why}")

    def pair(self, option: str, default: Any = None) -> tuple[int, int]:
        """Return an option that is one number or two."""
        value = self.options.get(option, default)
        value = default if value is None else value
        first, second = (value, value) if isinstance(value, int) else value if len(value) == 2 else (*value, *value)
        return (int(first), int(second))


def _graph(traced: Any, input_shape: Shape) -> Graph:
    builder = GraphBuilder()
    current: Any = None
    for node in traced.graph.nodes:
        if node.op == "output":
            if node.args[0] is not current:
                raise DataError("the module returns something else than its last layer's output")
        elif node.op == "placeholder":
            if current is not None:
                raise DataError(f"the module takes a second input, {node.name}; one is supported")
            current = node
        elif node.op != "get_attr" and _shape(node) is not None:
            call = _call(traced, node)
            tensors = [source for source in node.all_input_nodes if _shape(source) is not None]
            if tensors != [current]:
                names = ", ".join(source.name for source in tensors)
                raise call.refuse(f"takes {names or 'nothing'}, expected the output before it alone: no branches")
            handler = HANDLERS.get(call.title)
            if handler is None:
                raise call.refuse(f"is not supported; supported are {SUPPORTED}")
            handler(builder, call)
            current = node
    return builder.build(input_shape)


def _shape(node: Any) -> Shape | None:
    """Return the shape of a node's tensor with the batch, or None if it is no tensor (a size, say)."""
    meta = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def _call(traced: Any, node: Any) -> _Call:
    if node.op == "call_module":
        module = traced.get_submodule(node.target)
        # By exact type: a subclass of ReLU may do anything.
        title, name = MODULES.get(type(module), type(module).__name__), node.target
        options = vars(module)
    else:
        module, name = None, node.name
        title = node.target if node.op == "call_method" else FUNCTIONS.get(node.target, node.target.__name__)
        options = {**dict(zip(POSITIONAL.get(title, ()), node.args[1:], strict=False)), **node.kwargs}
    source = node.all_input_nodes[0] if node.all_input_nodes else node
    return _Call(name, title, module, options, (_shape(source) or ())[1:], (_shape(node) or ())[1:])


def _linear(builder: GraphBuilder, call: _Call) -> None:
    builder.linear(call.name, _array(call.module.weight), _array(call.module.bias))


def _conv2d(builder: GraphBuilder, call: _Call) -> None:
    kernel, stride = call.pair("kernel_size"), call.pair("stride")
    if call.pair("dilation", 1) != (1, 1):
        raise call.refuse("dilation is not supported")
    if call.options["padding_mode"] != "zeros":
        raise call.refuse(f"padding with {call.options['padding_mode']} is not supported, only with zeros")
    match call.options["padding"]:
        case "valid":
            padding = (0, 0)
        case "same":
            if kernel[0] % 2 == 0 or kernel[1] % 2 == 0:
                raise call.refuse(f"padding of one side only, for a kernel of {kernel}, is not supported")
            padding = (kernel[0] // 2, kernel[1] // 2)
        case _:
            padding = call.pair("padding")
    weight, bias, groups = _array(call.module.weight), _array(call.module.bias), call.options["groups"]
    builder.conv2d(call.name, weight, bias, stride=stride, padding=padding, groups=groups)


def _batch_norm(builder: GraphBuilder, call: _Call) -> None:
    norm = call.module
    if norm.running_mean is None:
        raise call.refuse("keeps no running statistics, so its answer depends on the batch")
    mean, variance = (np.asarray(_array(value), np.float64) for value in (norm.running_mean, norm.running_var))
    factor = 1 / np.sqrt(variance + norm.eps)
    shift = -mean * factor
    if norm.affine:
        factor, shift = (np.asarray(_array(norm.weight), np.float64) * part for part in (factor, shift))
        shift = shift + np.asarray(_array(norm.bias), np.float64)
    builder.affine(call.name, factor, shift, image=len(call.before) == 3)


def _pool(builder: GraphBuilder, call: _Call) -> None:
    kernel = call.pair("kernel_size")
    stride = call.pair("stride", kernel)
    if call.pair("padding", 0) != (0, 0):
        raise call.refuse("padding is not supported")
    if call.pair("dilation", 1) != (1, 1):
        raise call.refuse("dilation is not supported")
    if call.options.get("divisor_override"):
        raise call.refuse("a divisor of its own is not supported")
    kind = AvgPool2d if "avg" in call.title else MaxPool2d
    pool(builder, call, kind, kernel, stride)


def _adaptive_pool(builder: GraphBuilder, call: _Call) -> None:
    (_, height, width), (_, rows, columns) = call.before, call.after
    if height % rows or width % columns:
        raise call.refuse(f"{(height, width)} does not split into {(rows, columns)} equal windows")
    kernel = (height // rows, width // columns)
    kind = AvgPool2d if "avg" in call.title else MaxPool2d
    builder.add(kind(builder.name(call.name), kernel, kernel))


def _gelu(builder: GraphBuilder, call: _Call) -> None:
    if call.options.get("approximate", "none") != "none":
        raise call.refuse("GELU's own approximation by tanh is not supported; GELU() itself differs by at most 0.0005")
    builder.add(Gelu(builder.name(call.name)))


def _softmax(builder: GraphBuilder, call: _Call) -> None:
    if call.options.get("dim") not in {None, 1, -1}:
        raise call.refuse(f"over dimension {call.options['dim']} is not supported, only over the features")
    builder.add(Softmax(builder.name(call.name)))


def _array(tensor: Any) -> Any:
    return None if tensor is None else tensor.detach().numpy()


MODULES = {
    nn.Linear: "linear",
    nn.Conv2d: "conv2d",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.ReLU: "relu",
    nn.MaxPool2d: "max_pool2d",
    nn.AvgPool2d: "avg_pool2d",
    nn.AdaptiveMaxPool2d: "adaptive_max_pool2d",
    nn.AdaptiveAvgPool2d: "adaptive_avg_pool2d",
    nn.Flatten: "flatten",
    nn.Unflatten: "reshape",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.GELU: "gelu",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    nn.Dropout: "dropout",
    nn.Dropout1d: "dropout",
    nn.Dropout2d: "dropout",
    nn.Identity: "identity",
}
"""Modules that are layers -> what to do with them, a key of HANDLERS."""

FUNCTIONS = {
    torch.relu_: "relu",
    torch.max_pool2d: "max_pool2d",
    functional.max_pool2d: "max_pool2d",
    functional.adaptive_max_pool2d: "adaptive_max_pool2d",
    functional.dropout: "dropout",
    functional.dropout2d: "dropout",
}
"""Functions whose own name is not a key of HANDLERS."""

POSITIONAL = {
    "max_pool2d": ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    "avg_pool2d": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "softmax": ("dim",),
    "gelu": ("approximate",),
}
"""Names of what functions and methods take by position, after the input."""

HANDLERS: dict[str, Callable[[GraphBuilder, _Call], None]] = {
    "linear": _linear,
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_max_pool2d": _adaptive_pool,
    "adaptive_avg_pool2d": _adaptive_pool,
    **dict.fromkeys(("flatten", "view", "reshape"), reshape),
    "gelu": _gelu,
    "softmax": _softmax,
    "log_softmax": refuse_logarithm,
    **dict.fromkeys(("relu", "relu_"), simple(Relu)),
    **dict.fromkeys(("sigmoid", "sigmoid_"), simple(Sigmoid)),
    **dict.fromkeys(("tanh", "tanh_"), simple(Tanh)),
    **dict.fromkeys(("dropout", "identity", "contiguous", "clone", "detach"), skip),
}
"""What is called -> how it becomes a layer."""
