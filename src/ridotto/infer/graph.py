"""A model as encrypted inference sees it: a chain of layers that everybody may know, and secret parameters.

    Architecture   kinds, sizes and order of the layers: public, encoded canonically, named by its digest
    Weights        the weight and bias of one layer: secret, never in a repr or a message
    Graph          both, as the owner of the model holds them

`builder.GraphBuilder` puts a graph together. The computing parties hold an `Architecture` and shares of the weights;
only the owner ever holds a `Graph`. Batch normalisation and scaling are folded into their neighbours at import, dropout
is dropped: neither occurs here. There are no branches: a residual connection is refused at import.

Shapes are those of one example, without the batch: (features,) or (channels, height, width). Names of layers are
unique, because errors speak of layers by their names.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from ridotto.errors import DataError

Floats = NDArray[np.float32]
"""float32, of any shape."""

LAYER_LIMIT = 1000
"""Most layers of an architecture."""

WIRE_LIMIT = 1 << 28
"""Most elements of one example on one wire, and of one weight: 2 GB of 64-bit ring elements."""

Size = Annotated[int, msgspec.Meta(ge=1, le=WIRE_LIMIT)]
"""A number of channels, pixels or features."""

Padding = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
"""Rows or columns of zeros added on both sides."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._/-]*\Z")]
"""A layer's name: letters, digits and . _ / -, as frameworks make them."""

Shape: TypeAlias = tuple[int, ...]
"""The shape of one example on a wire: (features,) or (channels, height, width)."""

DOMAIN = b"ridotto/1 infer architecture\x00"
"""What stands before an encoded architecture when it is hashed."""


class Step(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Stand above all layers.

    name: unique in its architecture.
    """

    name: Name

    def __post_init__(self) -> None:
        for field in self.__struct_fields__[1:]:
            value = getattr(self, field)
            least = 0 if field == "padding" else 1
            if not all(
                type(size) is int and size >= least for size in (value if isinstance(value, tuple) else (value,))
            ):
                raise self.refuse(f"{field} is {value}, expected whole numbers from {least} on")

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input of `shape`. Raises DataError, naming the layer, if none fits."""
        return shape

    def refuse(self, why: str) -> DataError:
        """Make the error that names this layer."""
        return DataError(f"layer {self.name} ({type(self).__name__}): {why}")


class Linear(Step, frozen=True, tag=True):
    """Multiply by a matrix and add a bias: y = W x + b. W has shape (outputs, inputs), b (outputs,)."""

    inputs: Size
    outputs: Size

    @property
    def weight_shape(self) -> Shape:
        """Return (outputs, inputs)."""
        return (self.outputs, self.inputs)

    @property
    def bias_shape(self) -> Shape:
        """Return (outputs,)."""
        return (self.outputs,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (outputs,); the input must be (inputs,)."""
        if shape != (self.inputs,):
            hint = "; flatten it first" if len(shape) > 1 else ""
            raise self.refuse(f"expects an input of shape ({self.inputs},) and gets {shape}{hint}")
        return (self.outputs,)


class Conv2d(Step, frozen=True, tag=True):
    """Convolve: cross-correlation, as frameworks do it, with zeros around the image.

    W has shape (outputs, inputs / groups, kernel height, kernel width), b (outputs,). kernel, stride, padding: (height,
    width). padding: on both sides. groups: channels are split into this many groups that do not see each other.
    """

    inputs: Size
    outputs: Size
    kernel: tuple[Size, Size]
    stride: tuple[Size, Size] = (1, 1)
    padding: tuple[Padding, Padding] = (0, 0)
    groups: Size = 1

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        if self.inputs % self.groups or self.outputs % self.groups:
            raise self.refuse(f"{self.inputs} and {self.outputs} channels do not split into {self.groups} groups")

    @property
    def weight_shape(self) -> Shape:
        """Return (outputs, inputs / groups, kernel height, kernel width)."""
        return (self.outputs, self.inputs // self.groups, *self.kernel)

    @property
    def bias_shape(self) -> Shape:
        """Return (outputs,)."""
        return (self.outputs,)

    def output_shape(self, shape: Shape) -> Shape:
        """Return (outputs, height, width); the input must be (inputs, any height, any width)."""
        if len(shape) != 3 or shape[0] != self.inputs:
            raise self.refuse(f"expects an input of shape ({self.inputs}, height, width) and gets {shape}")
        return (self.outputs, *_windows(self, shape, self.kernel, self.stride, self.padding))


class MaxPool2d(Step, frozen=True, tag=True):
    """Take the largest of each window, without padding; what does not fill a window is left out."""

    kernel: tuple[Size, Size]
    stride: tuple[Size, Size]

    def output_shape(self, shape: Shape) -> Shape:
        """Return (channels, height, width) of the windows."""
        return _pooled(self, shape, self.kernel, self.stride)


class AvgPool2d(Step, frozen=True, tag=True):
    """Take the mean of each window, without padding; what does not fill a window is left out."""

    kernel: tuple[Size, Size]
    stride: tuple[Size, Size]

    def output_shape(self, shape: Shape) -> Shape:
        """Return (channels, height, width) of the windows."""
        return _pooled(self, shape, self.kernel, self.stride)


class Flatten(Step, frozen=True, tag=True):
    """Lay the elements of an example in a row: channels slowest, columns fastest (C order)."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return (number of elements,)."""
        return (math.prod(shape),)


class Relu(Step, frozen=True, tag=True):
    """Replace what is negative by zero."""


class Sigmoid(Step, frozen=True, tag=True):
    """Apply 1 / (1 + exp(-x)), approximated when encrypted."""


class Tanh(Step, frozen=True, tag=True):
    """Apply the hyperbolic tangent, approximated when encrypted."""


class Gelu(Step, frozen=True, tag=True):
    """Apply x Phi(x), Phi the normal distribution function, approximated when encrypted."""


class Softmax(Step, frozen=True, tag=True):
    """Apply exp(x_i) / sum_j exp(x_j) over the features, approximated when encrypted."""

    def output_shape(self, shape: Shape) -> Shape:
        """Return the input's shape, which must be (features,)."""
        if len(shape) != 1:
            raise self.refuse(f"expects an input of shape (features,) and gets {shape}; flatten it first")
        return shape


Layer: TypeAlias = Linear | Conv2d | MaxPool2d | AvgPool2d | Flatten | Relu | Sigmoid | Tanh | Gelu | Softmax
"""One step of the chain. Those of WEIGHTED have parameters."""

WEIGHTED = (Linear, Conv2d)
"""The layers that have a weight and a bias."""

SUPPORTED = (
    "Linear, Conv2d, BatchNorm1d and BatchNorm2d (folded), Dropout (dropped), ReLU, MaxPool2d, AvgPool2d, "
    "Flatten, Sigmoid, Tanh, GELU, Softmax, Identity"
)
"""What an importer may meet, for messages that refuse something else."""


class Architecture(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Say what a model looks like, without its weights: public, and the same for every party.

    input_shape: one example's, (features,) or (channels, height, width). layers: in order, with unique names.
    Raises DataError, naming the layer, if something does not fit.
    """

    FORMAT: ClassVar[int] = 1

    input_shape: Annotated[tuple[Size, ...], msgspec.Meta(min_length=1, max_length=3)]
    layers: Annotated[tuple[Layer, ...], msgspec.Meta(min_length=1, max_length=LAYER_LIMIT)]

    def __post_init__(self) -> None:
        if len(self.input_shape) not in {1, 3}:
            raise DataError(
                f"a model's input is (features,) or (channels, height, width), not {self.input_shape}; "
                "leave the batch out and give gray images one channel"
            )
        if not self.layers:
            raise DataError("a model needs at least one layer")
        seen: set[str] = set()
        for layer in self.layers:
            if layer.name in seen:
                raise layer.refuse("another layer has the same name")
            seen.add(layer.name)
        _ = self.wires

    @property
    def wires(self) -> tuple[Shape, ...]:
        """Return the shape of every wire: the input's first, then each layer's output."""
        shapes = [tuple(self.input_shape)]
        for layer in self.layers:
            shape = layer.output_shape(shapes[-1])
            largest = max(math.prod(shape), math.prod(layer.weight_shape) if isinstance(layer, WEIGHTED) else 1)
            if largest > WIRE_LIMIT:
                raise layer.refuse(f"{largest} elements, at most {WIRE_LIMIT}")
            shapes.append(shape)
        return tuple(shapes)

    @property
    def output_shape(self) -> Shape:
        """Return the shape of one example's output."""
        return self.wires[-1]

    def encode(self) -> bytes:
        """Return the canonical encoding: the same architecture gives the same bytes, everywhere."""
        return msgspec.msgpack.encode((self.FORMAT, self))

    @classmethod
    def decode(cls, data: bytes) -> Architecture:
        """Read what `encode` wrote. Raises DataError if it is anything else."""
        try:
            version, architecture = msgspec.msgpack.decode(data, type=tuple[int, Architecture])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(f"this is not an architecture: {error}") from error
        if version != cls.FORMAT:
            raise DataError(f"the architecture has format {version}, and this version reads {cls.FORMAT}")
        if architecture.encode() != data:
            raise DataError("this is not an architecture's canonical encoding")
        return architecture

    def digest(self) -> bytes:
        """Return SHA-256 of the domain and the encoding, 32 bytes: equal exactly if the architectures are."""
        return hashlib.sha256(DOMAIN + self.encode()).digest()


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """Hold one layer's parameters: secret.

    weight, bias: finite float32, read-only, C order; shapes as the layer says.
    """

    weight: Floats
    bias: Floats

    def __repr__(self) -> str:
        return f"Weights(weight {self.weight.shape}, bias {self.bias.shape}: secret)"


@dataclass(frozen=True, eq=False)
class Graph:
    """Hold a whole model: what everybody may know, and the parameters, which only the owner has.

    parameters: by layer's name, one for each layer of WEIGHTED and no other; not shown in the repr.
    Raises DataError, naming the layer, if parameters are missing, too many, of another shape or not finite.
    """

    architecture: Architecture
    parameters: Mapping[str, Weights]

    def __post_init__(self) -> None:
        expected = {layer.name for layer in self.architecture.layers if isinstance(layer, WEIGHTED)}
        if strangers := sorted(set(self.parameters) - expected):
            raise DataError(f"parameters for {strangers[0]}, which is no layer with parameters")
        for layer in self.architecture.layers:
            if isinstance(layer, WEIGHTED):
                if layer.name not in self.parameters:
                    raise layer.refuse("has no parameters")
                _check_weights(layer, self.parameters[layer.name])
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def __repr__(self) -> str:
        return f"Graph({self.architecture!r}, parameters: secret)"


def _check_weights(layer: Linear | Conv2d, weights: Weights) -> None:
    for what, array, shape in (
        ("weight", weights.weight, layer.weight_shape),
        ("bias", weights.bias, layer.bias_shape),
    ):
        if array.shape != shape or array.dtype != np.float32:
            raise layer.refuse(f"the {what} is {array.dtype} {array.shape}, expected float32 {shape}")
        if not np.isfinite(array).all():
            raise layer.refuse(f"the {what} is not finite")


def _pooled(layer: MaxPool2d | AvgPool2d, shape: Shape, kernel: tuple[int, int], stride: tuple[int, int]) -> Shape:
    if len(shape) != 3:
        raise layer.refuse(f"expects an input of shape (channels, height, width) and gets {shape}")
    return (shape[0], *_windows(layer, shape, kernel, stride, (0, 0)))


def _windows(
    layer: Step, shape: Shape, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    rows, columns = (
        (size + 2 * pad - width) // step + 1
        for size, width, step, pad in zip(shape[1:], kernel, stride, padding, strict=True)
    )
    if rows < 1 or columns < 1:
        raise layer.refuse(f"windows of {kernel} do not fit into {shape[1:]} with padding {padding}")
    return rows, columns
