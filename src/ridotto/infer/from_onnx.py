"""Models in ONNX: a file, its bytes or a `ModelProto` becomes a graph, where it is a chain of supported operators.

Shapes come from ONNX's own shape inference; a file may leave the batch open, and no other size. Nodes that only compute
a shape (Shape, Gather, Concat before a Reshape, as exporters write `x.view(len(x), -1)`) are stepped over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ridotto.errors import DataError, MissingExtraError
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.calls import pool, refuse_logarithm, reshape, simple, skip
from ridotto.infer.graph import AvgPool2d, Gelu, Graph, MaxPool2d, Relu, Shape, Sigmoid, Softmax, Tanh

try:
    import onnx
    from onnx import numpy_helper, shape_inference
except ModuleNotFoundError as error:
    raise MissingExtraError("onnx", "onnx") from error

AFFINE = ("Add", "Sub", "Mul", "Div")
"""Operators that are affine if one of their two inputs is constant."""

OPEN_BATCH = 251
"""The batch with which shapes are inferred if a file leaves it open: no model has this number in it by chance."""


def from_onnx(model: Any) -> Graph:
    """Turn a model into a graph.

    model: a path, the bytes of a file, or an `onnx.ModelProto`.
    Raises DataError if it can't be read, has branches, or has an operator that is not supported, by its name.
    """
    proto = _inferred(_read(model))
    try:
        # Numbers that are damaged become NaN or infinite, and are refused as such with the layer's name.
        with np.errstate(all="ignore"):
            return _graph(proto)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        # Fields of a wrong type or length: neither protobuf nor ONNX's shape inference looks at all of them.
        raise DataError(f"this ONNX model is damaged: {error}") from error


def _graph(proto: Any) -> Graph:
    reader = _Reader(proto)
    builder = GraphBuilder()
    for index, node in enumerate(proto.graph.node):
        reader.step(builder, index, node)
    if [output.name for output in proto.graph.output] != [reader.current]:
        raise DataError("the ONNX model has another output than its last operator's")
    return builder.build(reader.input_shape)


def _read(model: Any) -> Any:
    try:
        match model:
            case onnx.ModelProto():
                return model
            case bytes():
                return onnx.load_from_string(model)
            case str() | Path():
                return onnx.load(model)
    except Exception as error:
        raise DataError(f"this is not a readable ONNX model: {error}") from error
    raise DataError(f"{type(model).__name__} is no ONNX model: expected a path, bytes or a ModelProto")


def _inferred(proto: Any) -> Any:
    """Return a copy that knows the shape of every tensor, for a batch of OPEN_BATCH if the file leaves it open."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    constant = {tensor.name for tensor in copy.graph.initializer}
    for value in (value for value in copy.graph.input if value.name not in constant):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions and not dimensions[0].dim_value:
            dimensions[0].dim_value = OPEN_BATCH
    # What the file says about other tensors may speak of another batch.
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        return shape_inference.infer_shapes(copy, data_prop=True)
    except Exception as error:
        raise DataError(f"ONNX can't infer the shapes of this model: {error}") from error


@dataclass(frozen=True)
class _Call:
    """One operator: its name and type, its attributes, its constant inputs by position, and the shapes around it."""

    name: str
    kind: str
    attributes: dict[str, Any]
    constants: dict[int, Any]
    before: Shape
    after: Shape | None

    def refuse(self, why: str) -> DataError:
        return DataError(f"layer {self.name} ({self.kind}): {why}")

    def constant(self, position: int) -> Any:
        if position not in self.constants:
            raise self.refuse(f"input {position} is not constant")
        return np.asarray(self.constants[position], np.float64)

    def pair(self, name: str, default: tuple[int, int]) -> tuple[int, int]:
        value = tuple(int(number) for number in self.attributes.get(name, default))
        if len(value) != 2:
            raise self.refuse(f"{name} is {value}: only two dimensions are supported")
        return (value[0], value[1])


class _Reader:
    """Walk along the chain: which tensor is the current wire, and what is constant."""

    def __init__(self, proto: Any) -> None:
        graph = proto.graph
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        inputs = [value for value in graph.input if value.name not in self._constants]
        if len(inputs) != 1:
            raise DataError(f"the ONNX model takes {len(inputs)} inputs; one is supported")
        self._shapes = {value.name: _shape(value) for value in (*inputs, *graph.value_info, *graph.output)}
        self.current: str = inputs[0].name
        shape = self._shapes[self.current]
        if not shape or None in shape[1:]:
            raise DataError(f"the ONNX model leaves its input's shape open: {shape}; only the batch may be")
        self.input_shape = tuple(int(size) for size in shape[1:] if size is not None)
        self._aside: set[str] = set()

    def step(self, builder: GraphBuilder, index: int, node: Any) -> None:
        """Add what one node does to the graph."""
        inputs = [name for name in node.input if name]
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant" and "value" in attributes:
            self._constants[node.output[0]] = numpy_helper.to_array(attributes["value"])
            return
        if node.op_type == "Shape" or all(name in self._constants or name in self._aside for name in inputs):
            self._aside.update(node.output)
            return
        before = self._shapes[self.current]
        after = self._shapes.get(node.output[0])
        call = _Call(
            node.name or f"{node.op_type}_{index}",
            node.op_type,
            attributes,
            {position: self._constants[name] for position, name in enumerate(node.input) if name in self._constants},
            tuple(size or 0 for size in before[1:]),
            None if after is None or None in after else tuple(size or 0 for size in after[1:]),
        )
        moving = [name for name in inputs if name not in self._constants and name not in self._aside]
        if moving != [self.current]:
            raise call.refuse(f"takes {', '.join(moving)}, expected the output before it alone: no branches")
        if node.op_type not in HANDLERS:
            raise call.refuse(f"is not supported; supported are {', '.join(sorted(HANDLERS))}")
        if call.after is None or after is None:
            raise call.refuse("ONNX can't tell the shape of its output")
        if after[0] != before[0]:
            raise call.refuse(f"turns a batch of {before[0]} into {after[0]}")
        HANDLERS[node.op_type](builder, call)
        self.current = node.output[0]


def _shape(value: Any) -> tuple[int | None, ...]:
    dimensions = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else None for size in dimensions)


def _gemm(builder: GraphBuilder, call: _Call) -> None:
    if call.attributes.get("transA", 0):
        raise call.refuse("transA is not supported")
    weight = call.constant(1) * call.attributes.get("alpha", 1.0)
    weight = weight if call.attributes.get("transB", 0) else weight.T
    bias = call.constant(2) * call.attributes.get("beta", 1.0) if 2 in call.constants else 0.0
    builder.linear(call.name, weight, np.broadcast_to(np.squeeze(bias), len(weight)))


def _matmul(builder: GraphBuilder, call: _Call) -> None:
    weight = call.constant(1)
    if weight.ndim != 2:
        raise call.refuse(f"a weight of shape {weight.shape} is no matrix")
    builder.linear(call.name, weight.T)


def _conv(builder: GraphBuilder, call: _Call) -> None:
    weight = call.constant(1)
    if weight.ndim != 4:
        raise call.refuse(f"a weight of shape {weight.shape}: only two dimensions are supported")
    if call.pair("dilations", (1, 1)) != (1, 1):
        raise call.refuse("dilation is not supported")
    stride, padding = call.pair("strides", (1, 1)), _padding(call, weight.shape[2:])
    bias = call.constant(2) if 2 in call.constants else None
    builder.conv2d(call.name, weight, bias, stride=stride, padding=padding, groups=call.attributes.get("group", 1))


def _padding(call: _Call, kernel: tuple[int, int]) -> tuple[int, int]:
    """Return the zeros on both sides, which must be equal."""
    match call.attributes.get("auto_pad", b"NOTSET"):
        case b"NOTSET":
            top, left, bottom, right = call.attributes.get("pads", (0, 0, 0, 0))
        case b"VALID":
            top = left = bottom = right = 0
        case same:
            strides = call.pair("strides", (1, 1))
            sizes = zip(call.before[1:], (call.after or ())[1:], kernel, strides, strict=True)
            rows, columns = (max((out - 1) * step + width - size, 0) for size, out, width, step in sizes)
            small, large = ((rows // 2, columns // 2), (rows - rows // 2, columns - columns // 2))
            (top, left), (bottom, right) = (small, large) if same == b"SAME_UPPER" else (large, small)
    if (top, left) != (bottom, right):
        raise call.refuse(f"padding of {(top, left)} before and {(bottom, right)} after is not the same")
    return (top, left)


def _pool(builder: GraphBuilder, call: _Call) -> None:
    kernel = call.pair("kernel_shape", (1, 1))
    stride = call.pair("strides", (1, 1))
    if call.pair("dilations", (1, 1)) != (1, 1):
        raise call.refuse("dilation is not supported")
    if _padding(call, kernel) != (0, 0):
        raise call.refuse("padding is not supported")
    kind = AvgPool2d if "Average" in call.kind else MaxPool2d
    pool(builder, call, kind, kernel, stride)


def _global_pool(builder: GraphBuilder, call: _Call) -> None:
    if len(call.before) != 3:
        raise call.refuse(f"expects (channels, height, width) and gets {call.before}")
    kernel = (call.before[1], call.before[2])
    kind = AvgPool2d if "Average" in call.kind else MaxPool2d
    builder.add(kind(builder.name(call.name), kernel, kernel))


def _batch_norm(builder: GraphBuilder, call: _Call) -> None:
    scale, shift, mean, variance = (call.constant(position) for position in range(1, 5))
    if (variance < 0).any():
        raise call.refuse("a variance is negative")
    factor = scale / np.sqrt(variance + call.attributes.get("epsilon", 1e-5))
    builder.affine(call.name, factor, shift - mean * factor, image=len(call.before) == 3)


def _affine(builder: GraphBuilder, call: _Call) -> None:
    position = 1 if 1 in call.constants else 0
    image = len(call.before) == 3
    constant, channels = call.constant(position), call.before[0]
    # One number for all, or one a channel; an array over pixels is neither.
    over_pixels = image and (1, 1, *constant.shape)[-2:] != (1, 1)
    if call.after != call.before or (constant.size != 1 and (constant.size != channels or over_pixels)):
        raise call.refuse(f"a constant of shape {constant.shape} is not one number, and not one a channel")
    values = np.broadcast_to(constant.reshape(-1), channels)
    match call.kind:
        case "Add":
            factor, shift = np.ones(channels), values
        case "Sub":
            sign = 1.0 if position == 1 else -1.0
            factor, shift = np.full(channels, sign), -sign * values
        case "Mul":
            factor, shift = values, np.zeros(channels)
        case _:
            if position == 0:
                raise call.refuse("division by a secret value is not supported")
            if not values.all():
                raise call.refuse("divides by zero")
            factor, shift = 1 / values, np.zeros(channels)
    builder.affine(call.name, factor, shift, image=image)


def _gelu(builder: GraphBuilder, call: _Call) -> None:
    if call.attributes.get("approximate", b"none") != b"none":
        raise call.refuse("its own approximation by tanh is not supported; plain Gelu differs by at most 0.0005")
    builder.add(Gelu(builder.name(call.name)))


def _softmax(builder: GraphBuilder, call: _Call) -> None:
    if len(call.before) != 1 or call.attributes.get("axis", -1) not in {1, -1}:
        raise call.refuse("is supported over the features of a flat wire only")
    builder.add(Softmax(builder.name(call.name)))


HANDLERS: dict[str, Callable[[GraphBuilder, _Call], None]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalMaxPool": _global_pool,
    "GlobalAveragePool": _global_pool,
    "Flatten": reshape,
    "Reshape": reshape,
    "BatchNormalization": _batch_norm,
    **dict.fromkeys(AFFINE, _affine),
    "Relu": simple(Relu),
    "Sigmoid": simple(Sigmoid),
    "Tanh": simple(Tanh),
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LogSoftmax": refuse_logarithm,
    "Identity": skip,
    "Dropout": skip,
}
"""Operator -> how it becomes a layer."""
