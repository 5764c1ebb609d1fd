"""Run both halves of a sealed query in one thread, with somebody who may change what a party says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ridotto.core.rng import SecretRng
from ridotto.infer import authenticated
from ridotto.infer.argmax import classes_of
from ridotto.infer.ends import channels_last
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Graph
from ridotto.infer.kernels.plain import Words, words_of
from ridotto.infer.macs import TagDealing, TagMaterial
from ridotto.infer.model import encode_parameters
from ridotto.infer.program import Plan, compile_plan
from ridotto.infer.streams import Stream
from tests.infer.two_parties import SESSION

MODEL = b"m" * 32
Change = Callable[[int, int, Words], Words]
"""Sender's place, round and message -> what arrives."""


def read(dealing: TagDealing, party: int) -> TagMaterial:
    return TagMaterial(dealing.seeds[party], dealing.session, dealing.messages()[party], first=party == 0)


class Sealed:
    """A model that is shared once, and queries of it."""

    def __init__(self, graph: Graph, fixed: Fixed, rng: SecretRng) -> None:
        self.graph, self.fixed, self.rng = graph, fixed, rng
        seed = rng.child("seal").bytes(32)
        dealing = TagDealing(rng.child("model"), MODEL, None, seed)
        self.keys, self.masks = authenticated.deal_model(dealing, graph.architecture)
        row = authenticated.seal_row(encode_parameters(graph, fixed), seed, MODEL)
        self.models = [authenticated.load_sealed(read(dealing, i), graph.architecture, row) for i in range(2)]

    def query(
        self,
        x: Any,
        output: Any,
        name: str = "q",
        change: Change | None = None,
        views: Any = None,
        *,
        another_input: bool = False,
    ) -> Any:
        """Return int64 logits or classes. Raises what a party raises."""
        results, stream = self._run(x, output, name, change, views, another_input=another_input)
        for result in results:
            if isinstance(result, Exception):
                raise result
        np.testing.assert_array_equal(results[0], results[1])
        if output == "logits":
            return (results[0] - stream.words(*results[0].shape)).view(np.int64)
        classes = self.graph.architecture.output_shape[0]
        return classes_of(results[0] ^ stream.words(words_of(classes * len(x))), len(x), classes)

    def outcomes(self, x: Any, output: Any, change: Change) -> list[Any]:
        """Return how each party's half ended: its masked output, or its error."""
        return self._run(x, output, "q", change, None)[0]

    def _run(
        self, x: Any, output: Any, name: str, change: Change | None, views: Any, *, another_input: bool = False
    ) -> tuple[list[Any], Stream]:
        plan = Plan(self.graph.architecture, self.fixed, len(x), output, security="malicious")
        program, rng = compile_plan(plan), self.rng.child(name)
        seal = rng.bytes(32)
        dealing = TagDealing(rng, SESSION, self.keys, seal)
        authenticated.deal(dealing, program, self.masks)
        materials = [read(dealing, i) for i in range(2)]
        sessions = [authenticated.prepare(materials[i], program, self.models[i]) for i in range(2)]
        assert materials[0].walk.digest() == materials[1].walk.digest() == dealing.walk.digest()
        stream = Stream(seal, SESSION, "sealed")
        words = channels_last(self.fixed.encode(x, "input"))
        sealed = words + stream.words(*words.shape)
        told = [sealed, sealed + np.uint64(another_input)]
        halves = [authenticated.run(program, self.models[i], sessions[i], told[i], f"party-{1 - i}") for i in range(2)]
        return drive(halves, change, views), stream


def drive(halves: list[Any], change: Change | None, views: Any) -> list[Any]:
    """Return each half's result, or the error with which it ended."""
    results: list[Any] = [None, None]
    received: list[Any] = [None, None]
    number = 0
    while any(result is None for result in results):
        sent: list[Any] = [None, None]
        for i, half in enumerate(halves):
            if results[i] is None:
                try:
                    sent[i] = half.send(received[i]).copy()
                except StopIteration as stop:
                    results[i] = stop.value
                except Exception as error:
                    results[i] = error
        if any(part is None for part in sent):
            continue
        arrived = [sent[i] if change is None else change(i, number, sent[i].copy()) for i in range(2)]
        received, number = arrived[::-1], number + 1
        if views is not None:
            views[0].append(received[0])
            views[1].append(received[1])
    return results
