"""The client's side: share models and inputs with the two parties, ask for answers, put them together.

    world.share(model)        a SecretModel: its parameters are shared; `world` could forget them now
    world.share(images)       a SecretInput
    model.predict(secret)     the class of each example: what is revealed unless somebody asks for more
    model(secret)             a Computation: `.argmax().reveal()` for classes, `.reveal()` for the logits

Whoever holds both shares holds the value: a world is run by the client, on the client's machine. It draws shares from
the operating system. Logits tell about the model what classes do not: enough of them give a copy of it (Tramèr et al.,
"Stealing Machine Learning Models via Prediction APIs", USENIX Security 2016). So they come only when asked for.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.core.rng import OsRng, Rng
from ridotto.core.wire import Message
from ridotto.errors import DataError, LocalProtocolError, PeerProtocolError
from ridotto.infer.argmax import classes_of
from ridotto.infer.calibrate import calibrate
from ridotto.infer.ends import channels_last
from ridotto.infer.fixed import Fixed, share
from ridotto.infer.graph import Architecture, Graph
from ridotto.infer.kernels.plain import Words, words_of
from ridotto.infer.messages import (
    GOODBYE,
    Answer,
    Begin,
    Failed,
    Forget,
    NewModel,
    Prepare,
    Ready,
    ShareInput,
    ShareModel,
    buffer,
    words_from,
)
from ridotto.infer.model import encode_parameters
from ridotto.infer.program import Output, Plan, compile_plan

NAME_BYTES = 32

Classes = NDArray[np.int64]
"""The class of each example: int64, shape (batch,)."""


class Link(Protocol):
    """Carry a client's messages. parties: names of party 0 and 1. dealer: its name."""

    parties: tuple[str, str]
    dealer: str

    def send(self, to: str, message: Message) -> None:
        """Deliver a message, some time."""

    def receive(self) -> tuple[str, Message]:
        """Wait for the next message; return its authenticated sender too. Raises UnreachableError if none can come."""

    def close(self) -> None:
        """Let go of everybody."""


@dataclass(frozen=True)
class Stats:
    """Say what a query cost.

    offline_s: from asking until both parties were ready: dealing, sending and preparing. online_s: from naming the
    input until both shares of the answer were here. rounds: messages each way between the parties. sent_bytes: what
    the parties sent to each other, both together, online.
    """

    offline_s: float
    online_s: float
    rounds: int
    sent_bytes: int


class World:
    """Hold a client's connection to two parties and a dealer. Use it in a `with` block.

    rng: draws shares and names. One thread at a time.
    """

    def __init__(self, link: Link, rng: Rng | None = None) -> None:
        self._link = link
        self._rng = rng or OsRng()
        self._arrived: deque[tuple[str, Message]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of parties and dealer."""
        self._link.close()

    def share(
        self, thing: Any, *, examples: ArrayLike | None = None, fixed: Fixed | None = None
    ) -> SecretModel | SecretInput:
        """Share a model or an input: an array-like is an input, everything else a model.

        See `share_model` and `share_input`.
        """
        if isinstance(thing, (list, tuple)) or (hasattr(thing, "shape") and hasattr(thing, "dtype")):
            return self.share_input(thing, fixed=fixed)
        return self.share_model(thing, examples=examples, fixed=fixed)

    def share_model(self, model: Any, *, examples: ArrayLike | None = None, fixed: Fixed | None = None) -> SecretModel:
        """Share a model: a `Graph`, an `nn.Module` (with examples), an ONNX file, a scikit-learn estimator.

        examples: inputs like those to come, (batch, *input shape): the model is checked on them to leave head-room on
        every wire, and k is chosen (`calibrate`). fixed: take this encoding; the check is against it. With neither,
        the encoding has 33 compared bits, and nothing but weights and inputs is checked.
        Raises DataError or PlanError, naming the layer, if it does not fit.
        """
        graph = graph_of(model, examples)
        if examples is not None:
            bits = None if fixed is None else fixed.compared_bits
            fraction = (fixed or Fixed()).fraction_bits
            fixed = calibrate(graph, examples, fraction_bits=fraction, compared_bits=bits).fixed
        fixed = fixed or Fixed()
        # Refused here, with the layer's name, rather than by a party.
        compile_plan(Plan(graph.architecture, fixed, 1, "logits"))
        row = encode_parameters(graph, fixed)
        name = self._rng.bytes(NAME_BYTES)
        encoded = graph.architecture.encode()
        seed, words = share(row, self._rng, name, "model")
        self._link.send(self._link.dealer, NewModel(name, encoded, fixed))
        zero, one = self._link.parties
        self._link.send(zero, ShareModel(name, encoded, fixed, seed, buffer(None)))
        self._link.send(one, ShareModel(name, encoded, fixed, None, buffer(words)))
        self._collect(name, Ready)
        return SecretModel(self, name, graph.architecture, fixed)

    def share_input(self, values: ArrayLike, *, fixed: Fixed | None = None) -> SecretInput:
        """Share a batch of inputs, (batch, features) or (batch, channels, height, width).

        fixed: the model's, if that is not the default: only its fractional bits matter here.
        Raises DataError if a number does not fit.
        """
        fixed = fixed or Fixed()
        array = np.asarray(values)
        if array.dtype.kind not in "fiub" or array.ndim not in {2, 4} or not len(array):
            raise DataError(
                f"inputs are numbers of shape (batch, features) or (batch, channels, height, width), "
                f"not {array.dtype} {array.shape}"
            )
        words = channels_last(fixed.encode(array, "input"))
        name = self._rng.bytes(NAME_BYTES)
        seed, rest = share(words, self._rng, name, "input")
        zero, one = self._link.parties
        self._link.send(zero, ShareInput(name, words.shape, seed, buffer(None)))
        self._link.send(one, ShareInput(name, words.shape, None, buffer(rest)))
        return SecretInput(self, name, array.shape, fixed)

    def prepare(self, model: SecretModel, batch: int, output: Output) -> tuple[bytes, float]:
        """Have one session dealt and prepared; return its name and how long that took, in seconds."""
        begin = time.perf_counter()
        session = self._rng.bytes(NAME_BYTES)
        message = Prepare(session, model.name, batch, output)
        for name in (self._link.dealer, *self._link.parties):
            self._link.send(name, message)
        self._collect(session, Ready)
        return session, time.perf_counter() - begin

    def run(self, session: bytes, secret: SecretInput) -> tuple[list[Answer], float]:
        """Compute with this input; return both answers, party 0's first, and how long that took, in seconds."""
        begin = time.perf_counter()
        for name in self._link.parties:
            self._link.send(name, Begin(session, secret.name))
        answers = self._collect(session, Answer)
        return answers, time.perf_counter() - begin

    def forget(self, item: bytes) -> None:
        """Tell everybody that a model or an input is no longer needed."""
        for name in (self._link.dealer, *self._link.parties):
            self._link.send(name, Forget(item))

    def open(self, answers: list[Answer], count: int) -> tuple[Words, Words]:
        """Return both shares of an output of so many words. Raises PeerProtocolError on an answer of another size."""
        zero, one = (
            words_from(answer.values, count, name, "answer")
            for name, answer in zip(self._link.parties, answers, strict=True)
        )
        return zero, one

    def _collect(self, name: bytes, kind: type[Any]) -> list[Any]:
        """Wait for one message of this kind about `name` from each party, and return them in their order."""
        found: dict[str, Any] = {}
        while len(found) < len(self._link.parties):
            sender, message = self._link.receive()
            if getattr(message, "session", None) not in {name, GOODBYE}:
                # What is left of a session that failed: the other party's word on it.
                continue
            if isinstance(message, Failed):
                raise PeerProtocolError(message.blame, f"{message.why} (says {sender})")
            if not isinstance(message, kind) or sender not in self._link.parties or sender in found:
                raise PeerProtocolError(sender, f"sends a {type(message).__name__}, expected a {kind.__name__}")
            found[sender] = message
        return [found[party] for party in self._link.parties]


@dataclass(frozen=True)
class SecretInput:
    """Stand for an input of which each party has a share. shape: (batch, ..), as it was given."""

    world: World = field(repr=False)
    name: bytes = field(repr=False)
    shape: tuple[int, ...]
    fixed: Fixed

    def forget(self) -> None:
        """Have the parties delete their shares."""
        self.world.forget(self.name)


@dataclass
class SecretModel:
    """Stand for a model of which each party has a share.

    stats: what the last query cost, None before the first.
    """

    world: World = field(repr=False)
    name: bytes = field(repr=False)
    architecture: Architecture
    fixed: Fixed
    stats: Stats | None = None
    _ready: dict[tuple[int, Output], deque[tuple[bytes, float]]] = field(default_factory=dict, repr=False)

    def __call__(self, secret: SecretInput) -> Computation:
        """Say what is to be computed; nothing happens before something is revealed."""
        return Computation(self, secret)

    def predict(self, inputs: SecretInput | ArrayLike) -> Classes:
        """Return the class of each example: the default, and all that becomes known."""
        secret = inputs if isinstance(inputs, SecretInput) else self.world.share_input(inputs, fixed=self.fixed)
        return self(secret).argmax().reveal()

    def prepare(self, batch: int, output: Output = "class", count: int = 1) -> None:
        """Do the offline work of `count` queries ahead. Each later query of this batch and output uses one up."""
        for _ in range(count):
            self._ready.setdefault((batch, output), deque()).append(self.world.prepare(self, batch, output))

    def forget(self) -> None:
        """Have parties and dealer delete what they have of it."""
        self.world.forget(self.name)

    def query(self, secret: SecretInput, output: Output) -> list[Answer]:
        """Run one query; return both answers."""
        self._check(secret)
        ready = self._ready.get((secret.shape[0], output))
        session, offline_s = ready.popleft() if ready else self.world.prepare(self, secret.shape[0], output)
        answers, online_s = self.world.run(session, secret)
        sent = sum(answer.sent for answer in answers)
        self.stats = Stats(offline_s, online_s, answers[0].rounds, sent)
        return answers

    def _check(self, secret: SecretInput) -> None:
        if secret.world is not self.world:
            raise LocalProtocolError("model and input were shared in different worlds")
        if secret.shape[1:] != tuple(self.architecture.input_shape):
            raise DataError(
                f"the model expects inputs of shape (batch, {', '.join(map(str, self.architecture.input_shape))}), "
                f"these are {secret.shape}"
            )
        if secret.fixed.fraction_bits != self.fixed.fraction_bits or secret.fixed.limit > self.fixed.limit:
            raise DataError(
                f"the input was shared with {secret.fixed.fraction_bits} fractional and {secret.fixed.compared_bits} "
                f"compared bits, the model has {self.fixed.fraction_bits} and {self.fixed.compared_bits}: "
                "share it with fixed=model.fixed"
            )


@dataclass(frozen=True)
class Computation:
    """Stand for a model's logits on an input, not yet computed."""

    model: SecretModel
    secret: SecretInput

    def argmax(self) -> Classification:
        """Ask for the classes instead."""
        return Classification(self.model, self.secret)

    def reveal(self) -> NDArray[np.float64]:
        """Compute, and return the logits, float64, (batch, *output shape): more than a class tells."""
        shape = (self.secret.shape[0], *self.model.architecture.output_shape)
        zero, one = self.model.world.open(self.model.query(self.secret, "logits"), int(np.prod(shape)))
        return self.model.fixed.decode(zero + one).reshape(shape)


@dataclass(frozen=True)
class Classification:
    """Stand for a model's classes on an input, not yet computed."""

    model: SecretModel
    secret: SecretInput

    def reveal(self) -> Classes:
        """Compute, and return the class of each example; nothing else becomes known."""
        batch, classes = self.secret.shape[0], self.model.architecture.output_shape[0]
        answers = self.model.query(self.secret, "class")
        zero, one = self.model.world.open(answers, words_of(batch * classes))
        return classes_of(zero ^ one, batch, classes)


Framework = Literal["torch", "onnx", "sklearn"]


def graph_of(model: Any, examples: ArrayLike | None = None) -> Graph:
    """Return a model as a graph, whatever it comes as. Raises DataError if it is nothing that can be imported."""
    if isinstance(model, Graph):
        return model
    importer = _importer(model)
    if importer is None:
        raise DataError(
            f"{type(model).__name__} is no model that can be shared: expected a Graph, an nn.Module, an ONNX file or a "
            "scikit-learn estimator"
        )
    return importer(model, examples)


def _importer(model: Any) -> Callable[[Any, Any], Graph] | None:
    """Find who can read a model, by the packages its class comes from, without loading any."""
    packages = {base.__module__.split(".")[0] for base in type(model).__mro__}
    if "torch" in packages:
        return _from_torch
    if "sklearn" in packages:
        return _from_sklearn
    if "onnx" in packages or isinstance(model, bytes) or str(model).endswith(".onnx"):
        return _from_onnx
    return None


def _from_torch(model: Any, examples: ArrayLike | None) -> Graph:
    from ridotto.infer.from_torch import from_torch

    if examples is None:
        raise DataError("an nn.Module does not say what its inputs look like: share it with examples=inputs[:64]")
    return from_torch(model, examples)


def _from_sklearn(model: Any, _examples: ArrayLike | None) -> Graph:
    from ridotto.infer.from_sklearn import from_sklearn

    return from_sklearn(model)


def _from_onnx(model: Any, _examples: ArrayLike | None) -> Graph:
    from ridotto.infer.from_onnx import from_onnx

    return from_onnx(model)
