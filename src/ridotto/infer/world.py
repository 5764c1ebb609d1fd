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

import math
import time
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.core.rng import OsRng, Rng
from ridotto.errors import DataError, LocalProtocolError
from ridotto.infer.argmax import classes_of
from ridotto.infer.calibrate import to_encode
from ridotto.infer.compare import Form
from ridotto.infer.ends import channels_last
from ridotto.infer.fixed import Fixed, share
from ridotto.infer.fss_choice import Choice, choose
from ridotto.infer.graph import Architecture
from ridotto.infer.kernels.plain import Words, words_of
from ridotto.infer.mail import Link, Mail
from ridotto.infer.messages import (
    Answer,
    Begin,
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
from ridotto.infer.pool import Pool, Ways
from ridotto.infer.program import Output, Plan, compile_plan
from ridotto.infer.ticket import Ticket

if TYPE_CHECKING:
    from ridotto.infer.pysyft import Worker

NAME_BYTES = 32

Classes = NDArray[np.int64]
"""The class of each example: int64, shape (batch,)."""


@dataclass(frozen=True)
class Stats:
    """Say what a query cost.

    offline_s: from asking until both parties were ready: dealing, sending and preparing; of a session that was kept
    ready, only what was still to wait. online_s: from naming the input until both shares of the answer were here.
    rounds: messages each way between the parties. sent_bytes: what the parties sent to each other, online.
    round_trip_s: the least between the parties that was seen so far, 0 before any was.
    """

    offline_s: float
    online_s: float
    rounds: int
    sent_bytes: int
    round_trip_s: float = 0.0


class World:
    """Hold a client's connection to two parties and a dealer. Use it in a `with` block.

    rng: draws shares and names; with the default one, any number of threads may share and ask at once, each query in
    a session of its own.
    """

    def __init__(self, link: Link, rng: Rng | None = None) -> None:
        self._link, self._mail = link, Mail(link)
        self._rng = rng or OsRng()
        self.round_trip_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of parties and dealer."""
        self._link.close()

    def workers(self) -> tuple[Worker, Worker, Worker]:
        """Return party 0, party 1 and the dealer, for PySyft's verbs (`infer.tensor`)."""
        from ridotto.infer.pysyft import Worker

        zero, one = (Worker(self, name) for name in self._link.parties)
        return zero, one, Worker(self, self._link.dealer)

    def check(self) -> None:
        """Raise if a party or the dealer is known to be gone or to have refused us: models there are lost then."""
        self._mail.sort()
        self._link.check()

    def share(
        self, thing: Any, *, examples: ArrayLike | None = None, fixed: Fixed | None = None, comparison: Choice = "auto"
    ) -> SecretModel | SecretInput:
        """Share a model or an input: an array-like is an input, everything else a model.

        See `share_model` and `share_input`.
        """
        if isinstance(thing, (list, tuple)) or (hasattr(thing, "shape") and hasattr(thing, "dtype")):
            return self.share_input(thing, fixed=fixed)
        return self.share_model(thing, examples=examples, fixed=fixed, comparison=comparison)

    def share_model(
        self, model: Any, *, examples: ArrayLike | None = None, fixed: Fixed | None = None, comparison: Choice = "auto"
    ) -> SecretModel:
        """Share a model: a `Graph`, an `nn.Module` (with examples), an ONNX file, a scikit-learn estimator.

        examples: inputs like those to come, (batch, *input shape): the model is checked on them to leave head-room on
        every wire, and k is chosen (`calibrate`). fixed: take this encoding; the check is against it. With neither,
        the encoding has 33 compared bits, and nothing but weights and inputs is checked. comparison: "boolean" sends
        least, "fss" takes fewer rounds and more material, "auto" takes what is faster at the round-trip time that
        queries so far have seen (`fss_choice`).
        Raises DataError or PlanError, naming the layer, if it does not fit.
        """
        graph, fixed = to_encode(model, examples, fixed)
        # Refused here, with the layer's name, rather than by a party.
        compile_plan(Plan(graph.architecture, fixed, 1, "logits"))
        row = encode_parameters(graph, fixed)
        name = self._rng.bytes(NAME_BYTES)
        encoded = graph.architecture.encode()
        seed, words = share(row, self._rng, name, "model")
        self._mail.open(name)
        self._mail.send(self._link.dealer, NewModel(name, encoded, fixed))
        zero, one = self._link.parties
        self._mail.send(zero, ShareModel(name, encoded, fixed, seed, buffer(None)))
        self._mail.send(one, ShareModel(name, encoded, fixed, None, buffer(words)))
        self._mail.collect(name, Ready)
        self._mail.close(name)
        return SecretModel(self, name, graph.architecture, fixed, comparison)

    def admit(self, ticket: bytes) -> SecretModel:
        """Return the model that a ticket stands for, which another client shared and still keeps there.

        Raises DataError if it is no ticket. A model that is gone is found out with the first query.
        """
        found, architecture = Ticket.decode(ticket)
        return SecretModel(self, found.model, architecture, found.fixed)

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
        self._mail.send(zero, ShareInput(name, words.shape, seed, buffer(None)))
        self._mail.send(one, ShareInput(name, words.shape, None, buffer(rest)))
        return SecretInput(self, name, array.shape, fixed)

    def ask(self, model: SecretModel, batch: int, output: Output) -> bytes:
        """Have one session dealt and prepared, without waiting for it; return its name."""
        session = self._rng.bytes(NAME_BYTES)
        message = Prepare(session, model.name, batch, output, self._form(model, batch, output))
        self._mail.open(session)
        for name in (self._link.dealer, *self._link.parties):
            self._mail.send(name, message)
        return session

    def _form(self, model: SecretModel, batch: int, output: Output) -> Form:
        if model.comparison != "auto":
            return model.comparison
        if not self.round_trip_s:
            return "boolean"
        # To the next power of two: the choice is kept, and not made again for every query.
        return _faster(Plan(model.architecture, model.fixed, batch, output), math.frexp(self.round_trip_s)[1])

    def wait(self, session: bytes) -> None:
        """Wait until a session is ready. Raises PeerProtocolError or UnreachableError, naming whose fault it is."""
        self._mail.collect(session, Ready)

    def stale(self, session: bytes) -> bool:
        """Say whether a session that nobody waited for has come to nothing, as when it was kept for too long."""
        self._mail.sort()
        if not self._mail.failed(session):
            return False
        self._mail.close(session)
        return True

    def run(self, session: bytes, secret: SecretInput) -> tuple[list[Answer], float]:
        """Compute with this input; return both answers, party 0's first, and how long that took, in seconds."""
        begin = time.perf_counter()
        for name in self._link.parties:
            self._mail.send(name, Begin(session, secret.name))
        answers = self._mail.collect(session, Answer)
        self._mail.close(session)
        seconds = time.perf_counter() - begin
        seen = [answer.round_trip_s for answer in answers if answer.round_trip_s > 0]
        self.round_trip_s = min([*seen, *([self.round_trip_s] if self.round_trip_s else [])], default=0.0)
        return answers, seconds

    def forget(self, item: bytes) -> None:
        """Tell everybody that a model or an input is no longer needed."""
        for name in (self._link.dealer, *self._link.parties):
            self._mail.send(name, Forget(item))

    def open(self, answers: list[Answer], count: int) -> tuple[Words, Words]:
        """Return both shares of an output of so many words. Raises PeerProtocolError on an answer of another size."""
        zero, one = (
            words_from(answer.values, count, name, "answer")
            for name, answer in zip(self._link.parties, answers, strict=True)
        )
        return zero, one


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

    stats: what the last query cost, of any thread; None before the first.
    """

    world: World = field(repr=False)
    name: bytes = field(repr=False)
    architecture: Architecture
    fixed: Fixed
    comparison: Choice = "auto"
    stats: Stats | None = None
    _pools: dict[tuple[int, Output], Pool] = field(default_factory=dict, repr=False)

    def __call__(self, secret: SecretInput) -> Computation:
        """Say what is to be computed; nothing happens before something is revealed."""
        return Computation(self, secret)

    def predict(self, inputs: SecretInput | ArrayLike) -> Classes:
        """Return the class of each example: the default, and all that becomes known."""
        secret = inputs if isinstance(inputs, SecretInput) else self.world.share_input(inputs, fixed=self.fixed)
        return self(secret).argmax().reveal()

    def prepare(self, batch: int, output: Output = "class", count: int = 1) -> None:
        """Do the offline work of `count` queries now. Each later query of this batch and output uses one up."""
        for _ in range(count):
            self._pool(batch, output).prepare()

    def keep_ready(self, batch: int, count: int, output: Output = "class") -> None:
        """Keep `count` sessions of this batch and output ready ahead of the queries; 0 ends it.

        Dealer and parties make them between queries: whoever asks then waits for the online part only.
        Raises ConfigError for a count that no pool keeps.
        """
        self._pool(batch, output).keep(count)

    def ticket(self) -> bytes:
        """Return what other clients need to use this model (`World.admit`), and only those who may should get."""
        return Ticket(self.name, self.architecture.encode(), self.fixed).encode()

    def forget(self) -> None:
        """Have parties and dealer delete what they have of it."""
        self.world.forget(self.name)

    def query(self, secret: SecretInput, output: Output) -> list[Answer]:
        """Run one query; return both answers."""
        self._check(secret)
        pool = self._pool(secret.shape[0], output)
        session, offline_s = pool.take()
        answers, online_s = self.world.run(session, secret)
        pool.fill()
        sent = sum(answer.sent for answer in answers)
        self.stats = Stats(offline_s, online_s, answers[0].rounds, sent, self.world.round_trip_s)
        return answers

    def _pool(self, batch: int, output: Output) -> Pool:
        found = self._pools.get((batch, output))
        if found is None:
            ways = Ways(lambda: self.world.ask(self, batch, output), self.world.wait, self.world.stale)
            # Two threads may come here at once: both get the pool that was first.
            found = self._pools.setdefault((batch, output), Pool(ways))
        return found

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


@lru_cache(maxsize=256)
def _faster(plan: Plan, exponent: int) -> Form:
    return choose(plan, math.ldexp(0.75, exponent))
