"""The client's side of authenticated queries: seal models and inputs, and compare both answers.

    with AuthenticatedWorld.of(infer.local()) as world:
        model = world.share(graph)
        model.predict(images)

The same verbs as of a `World`, one security mode further: a party that deviates makes a query fail by its name, and
learns and spoils nothing. What it costs is in docs/protocols/inference.md.

An input stays with the client until a query begins, which sends it masked for that query alone. Both parties send the
masked output: if they differ, one of the two lies to the client, who can't tell which, and gets nothing.
"""

from __future__ import annotations

import time
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ridotto.core.rng import Rng
from ridotto.errors import DataError, PeerProtocolError
from ridotto.infer.authenticated import seal_row
from ridotto.infer.calibrate import to_encode
from ridotto.infer.compare import Form
from ridotto.infer.ends import channels_last
from ridotto.infer.fixed import Fixed
from ridotto.infer.fss_choice import Choice
from ridotto.infer.kernels.plain import Words
from ridotto.infer.mail import Link
from ridotto.infer.messages import Answer, BeginSealed, NewModel, Prepare, Ready, ShareModel, buffer
from ridotto.infer.model import encode_parameters
from ridotto.infer.program import Output, Plan, compile_plan
from ridotto.infer.streams import SEED_BYTES, Stream
from ridotto.infer.world import NAME_BYTES, SecretInput, SecretModel, World


class AuthenticatedWorld(World):
    """Be a client of parties one of which may deviate. See `World`; models and inputs are not shared with one."""

    def __init__(self, link: Link, rng: Rng | None = None) -> None:
        super().__init__(link, rng)
        self._held: dict[bytes, Words] = {}
        self._seals: dict[bytes, tuple[Stream, Output]] = {}
        self._masks: dict[bytes, tuple[Stream, Output]] = {}

    @classmethod
    def of(cls, world: World) -> Self:
        """Take over the connections of a world, which is not used any more then."""
        return cls(world._link, world._rng)

    def share_model(
        self,
        model: Any,
        *,
        examples: ArrayLike | None = None,
        fixed: Fixed | None = None,
        comparison: Choice = "boolean",
    ) -> SecretModel:
        """Seal a model; parameters and errors as of `World.share_model`.

        comparison: "fss" is refused, since keys have no tags.
        """
        graph, fixed = to_encode(model, examples, fixed)
        form: Form = "fss" if comparison == "fss" else "boolean"
        compile_plan(Plan(graph.architecture, fixed, 1, "logits", form, "malicious"))
        name, seal = self._rng.bytes(NAME_BYTES), self._rng.bytes(SEED_BYTES)
        row, encoded = seal_row(encode_parameters(graph, fixed), seal, name), graph.architecture.encode()
        self._mail.open(name)
        self._mail.send(self._link.dealer, NewModel(name, encoded, fixed, seal))
        for party in self._link.parties:
            self._mail.send(party, ShareModel(name, encoded, fixed, None, buffer(row), sealed=True))
        self._mail.collect(name, Ready)
        self._mail.close(name)
        return SecretModel(self, name, graph.architecture, fixed, "boolean")

    def share_input(self, values: ArrayLike, *, fixed: Fixed | None = None) -> SecretInput:
        """Keep a batch of inputs here, encoded; parameters and errors as of `World.share_input`."""
        fixed, array = fixed or Fixed(), np.asarray(values)
        check_input(array)
        name = self._rng.bytes(NAME_BYTES)
        self._held[name] = channels_last(fixed.encode(array, "input"))
        return SecretInput(self, name, array.shape, fixed)

    def ask(self, model: SecretModel, batch: int, output: Output) -> bytes:
        """Have one session dealt and prepared, without waiting for it; return its name."""
        session, seal = self._rng.bytes(NAME_BYTES), self._rng.bytes(SEED_BYTES)
        self._seals[session] = Stream(seal, session, "sealed"), output
        self._mail.open(session)
        self._mail.send(self._link.dealer, Prepare(session, model.name, batch, output, seal=seal))
        for party in self._link.parties:
            self._mail.send(party, Prepare(session, model.name, batch, output))
        return session

    def stale(self, session: bytes) -> bool:
        """Say whether a session that nobody waited for has come to nothing."""
        gone = super().stale(session)
        if gone:
            self._seals.pop(session, None)
        return gone

    def run(self, session: bytes, secret: SecretInput) -> tuple[list[Answer], float]:
        """Compute with this input, masked for this session; return both answers and how long that took, in seconds."""
        begin = time.perf_counter()
        # The mask is gone before it is used: no second input can meet it.
        stream, output = self._seals.pop(session)
        words = self._held.get(secret.name)
        if words is None:
            raise DataError("this input was forgotten")
        sealed = words + stream.words(*words.shape)
        for party in self._link.parties:
            self._mail.send(party, BeginSealed(session, buffer(sealed)))
        answers = self._mail.collect(session, Answer)
        self._mail.close(session)
        self._masks[session] = stream, output
        return answers, time.perf_counter() - begin

    def open(self, answers: list[Answer], count: int) -> tuple[Words, Words]:
        """Return the masked output and its mask, as two shares.

        Raises PeerProtocolError on an answer of another size, and if the parties say different things.
        """
        zero, one = super().open(answers, count)
        stream, output = self._masks.pop(answers[0].session)
        if not np.array_equal(zero, one):
            raise PeerProtocolError(" or ".join(self._link.parties), "lies: the two answer differently")
        mask = stream.words(count)
        return zero, mask if output == "class" else np.uint64(0) - mask

    def forget(self, item: bytes) -> None:
        """Forget an input here, or have everybody forget a model."""
        if self._held.pop(item, None) is None:
            super().forget(item)


def check_input(array: NDArray[Any]) -> None:
    """Raise DataError if this is no batch of inputs."""
    if array.dtype.kind not in "fiub" or array.ndim not in {2, 4} or not len(array):
        raise DataError(
            "inputs are numbers of shape (batch, features) or (batch, channels, height, width), "
            f"not {array.dtype} {array.shape}"
        )
