"""From a public plan to the steps that everybody runs: parties and dealer compile the same plan to the same steps."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import msgspec

from ridotto.errors import PlanError
from ridotto.infer.approximations import EXPONENTIAL, GELU, SIGMOID, SOFTMAX_LIMIT, TANH, Spline
from ridotto.infer.argmax import CLASS_LIMIT, Argmax
from ridotto.infer.average_pool import AveragePool
from ridotto.infer.compare import Form
from ridotto.infer.ends import Flatten, Logits, Rescale, SealOutput, TakeInput, TakeSealed
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import (
    WIRE_LIMIT,
    Architecture,
    AvgPool2d,
    Conv2d,
    Gelu,
    Layer,
    Linear,
    MaxPool2d,
    Sigmoid,
    Tanh,
)
from ridotto.infer.graph import Flatten as FlattenLayer
from ridotto.infer.graph import Relu as ReluLayer
from ridotto.infer.graph import Softmax as SoftmaxLayer
from ridotto.infer.kernels.plain import Side
from ridotto.infer.linear import MaskedProduct
from ridotto.infer.max_pool import MaxPool
from ridotto.infer.relu import Relu
from ridotto.infer.ring import Geometry
from ridotto.infer.smooth import Smooth
from ridotto.infer.softmax import Softmax
from ridotto.infer.streams import Dealing, Material
from ridotto.infer.wires import Masks, ModelShares, Narrow, Prepared, Rounds, Step, Wire

Output = Literal["class", "logits"]
"""What the client learns: the class of each example and nothing else, or all outputs."""

Security = Literal["semi-honest", "malicious"]
"""Against whom a query holds: parties that follow the protocol, or one party that does what it likes."""

SPLINES: dict[type[Layer], Spline] = {Sigmoid: SIGMOID, Tanh: TANH, Gelu: GELU}
"""The tables of the layers that are one spline."""

DOMAIN = b"ridotto/1 infer plan\x00"
"""What stands before an encoded plan when it is hashed."""

SEALED_LIMIT = 1 << 22
"""Most words of a wire, and of a model, with tags: each takes some hundred bytes."""

BATCH_LIMIT = 1 << 16
"""Most examples of one query."""


class Plan(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Hold every choice of a query, all public: parties and dealer must agree on it to the last byte.

    architecture: of the model. fixed: how numbers are encoded. batch: examples in a query. output: what is revealed.
    comparison: in which form bits are compared, see `fss_choice`. security: against what, see `authenticated`.
    """

    FORMAT: ClassVar[int] = 1

    architecture: Architecture
    fixed: Fixed
    batch: Annotated[int, msgspec.Meta(ge=1, le=BATCH_LIMIT)]
    output: Output
    comparison: Form = "boolean"
    security: Security = "semi-honest"

    def digest(self) -> bytes:
        """Return SHA-256 of the domain, the format and the canonical encoding, 32 bytes."""
        return hashlib.sha256(DOMAIN + msgspec.msgpack.encode((self.FORMAT, self))).digest()


@dataclass(frozen=True)
class Program:
    """Run a plan's steps, in order."""

    plan: Plan
    steps: tuple[Step, ...]

    def deal(self, dealing: Dealing, masks: Masks) -> None:
        """Dealer: write the material of one session. masks: of the model's weights."""
        wire: Wire = Narrow(dealing.random(0))
        for step in self.steps:
            wire = step.deal(dealing, wire, masks)

    def prepare(self, material: Material, model: ModelShares) -> list[Prepared]:
        """Party, offline: read the material of one session to its end.

        Raises PeerProtocolError, naming the dealer, if it is not of exactly the right size.
        """
        wire: Wire = Narrow(material.random(0))
        prepared = []
        for step in self.steps:
            part, wire = step.prepare(material, wire, model)
            prepared.append(part)
        material.close()
        return prepared

    def run(self, first: Side, prepared: list[Prepared], value: object) -> Rounds:
        """Party, online: from its share of the input to its share of the output. Uses `prepared` up."""
        current = value
        for step in self.steps:
            # Forgotten before it is used: no error, and no second call, can meet it again.
            part = prepared.pop(0)
            current = yield from step.run(first, part, current)  # type: ignore[arg-type]
        return current  # type: ignore[return-value]


def compile_plan(plan: Plan) -> Program:
    """Return the program of a plan.

    Raises PlanError, naming the layer, if it can't be computed: too many classes, a softmax that does not fit.
    """
    return Program(plan, tuple(_Compiler(plan).steps()))


class _Compiler:
    """Walk through the layers; `wide` says whether the wire at hand still has 2 f fractional bits."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._f = plan.fixed.fraction_bits
        self._k = plan.fixed.compared_bits
        self._steps: list[Step] = []
        self._wide = False
        self._malicious = plan.security == "malicious"

    def steps(self) -> list[Step]:
        architecture = self._plan.architecture
        largest = self._plan.batch * max(math.prod(shape) for shape in architecture.wires)
        limit = SEALED_LIMIT if self._malicious else WIRE_LIMIT
        if largest > limit:
            raise PlanError(f"{self._plan.batch} examples make a wire of {largest} words, at most {limit}")
        if self._malicious and self._plan.comparison != "boolean":
            raise PlanError("there are no tags of keys: malicious security goes with boolean comparisons")
        take = TakeSealed if self._malicious else TakeInput
        self._steps = [take(self._wire(architecture.input_shape))]
        shape = architecture.input_shape
        for layer in _needed(architecture.layers, self._plan.output):
            output = layer.output_shape(shape)
            self._add(layer, self._wire(output))
            shape = output
        self._finish(shape)
        return self._steps

    def _wire(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a wire as it is computed: with the batch, and channels last."""
        batch = self._plan.batch
        return (batch, shape[1], shape[2], shape[0]) if len(shape) == 3 else (batch, *shape)

    def _add(self, layer: Layer, output: tuple[int, ...]) -> None:
        match layer:
            case Linear():
                self._narrow()
                self._steps.append(MaskedProduct(layer.name, output, None, self._f))
                self._wide = True
            case Conv2d():
                self._narrow()
                geometry = Geometry(layer.kernel, layer.stride, layer.padding)
                self._steps.append(MaskedProduct(layer.name, output, geometry, self._f))
                self._wide = True
            case AvgPool2d():
                self._narrow()
                self._steps.append(AveragePool(output, layer.kernel, layer.stride, self._f))
                self._wide = True
            case MaxPool2d():
                self._steps.append(MaxPool(output, layer.kernel, layer.stride, self._k, self._plan.comparison))
                self._wide = False
            case ReluLayer():
                self._steps.append(Relu(output, self._k, self._plan.comparison))
                self._wide = False
            case FlattenLayer():
                self._steps.append(Flatten())
            case Sigmoid() | Tanh() | Gelu():
                self._narrow()
                start, slope, turns = SPLINES[type(layer)].integers(self._f)
                self._steps.append(Smooth(output, self._k, start, slope, tuple(turns), self._plan.comparison))
                self._wide = True
            case SoftmaxLayer():
                self._narrow()
                self._steps.append(self._softmax(layer, output[-1]))
                self._wide = True

    def _softmax(self, layer: SoftmaxLayer, features: int) -> Softmax:
        if features > SOFTMAX_LIMIT:
            raise PlanError(str(layer.refuse(f"{features} features, at most {SOFTMAX_LIMIT}")))
        # Sums of exponentials are compared with breakpoints, and differences with those of exp.
        if self._plan.fixed.limit < (room := max(features, EXPONENTIAL.reach)):
            why = f"{self._k} compared bits hold numbers below {self._plan.fixed.limit:g}, but it needs {room:g}"
            raise PlanError(str(layer.refuse(why)))
        return Softmax(self._plan.batch, features, self._f, self._k, self._plan.comparison)

    def _narrow(self) -> None:
        if self._wide:
            self._steps.append(Rescale())
            self._wide = False

    def _finish(self, shape: tuple[int, ...]) -> None:
        if self._plan.output == "logits":
            self._steps.append(Logits())
            if self._malicious:
                self._steps.append(SealOutput((self._plan.batch, *shape), bits=False))
            return
        if len(shape) != 1 or not 2 <= shape[0] <= CLASS_LIMIT:
            raise PlanError(
                f"the class of an output of shape {shape} can't be taken, only of 2 to {CLASS_LIMIT} numbers; "
                "ask for the logits"
            )
        argmax = Argmax(self._plan.batch, shape[0], self._k, self._plan.comparison)
        self._steps.append(argmax)
        if self._malicious:
            self._steps.append(SealOutput((argmax.words,), bits=True))


def _needed(layers: tuple[Layer, ...], output: Output) -> list[Layer]:
    """Put each ReLU behind the max-pool that follows it: the same result, with a part of the comparisons.

    For the class, leave a softmax at the end out: it does not change which number is largest.
    """
    ordered = list(layers)
    if output == "class" and isinstance(ordered[-1], SoftmaxLayer):
        ordered.pop()
    for place in range(len(ordered) - 1):
        if isinstance(ordered[place], ReluLayer) and isinstance(ordered[place + 1], MaxPool2d):
            ordered[place], ordered[place + 1] = ordered[place + 1], ordered[place]
    return ordered
