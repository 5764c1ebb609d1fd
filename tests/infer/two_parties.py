"""Run both halves of a protocol in one thread, and models without the machines around them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np

from ridotto.core.rng import SecretRng
from ridotto.infer.argmax import classes_of
from ridotto.infer.ends import channels_last
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Graph
from ridotto.infer.program import Plan, compile_plan
from ridotto.infer.ring import matrix_of
from ridotto.infer.streams import Dealing, Material, Stream
from ridotto.infer.wires import LayerShares

SESSION = b"s" * 32


def run_both(zero: Generator[Any, Any, Any], one: Generator[Any, Any, Any], views: Any = None) -> tuple[Any, Any, int]:
    """Return both results and the number of rounds. views: a pair of lists that gather what each party received."""
    halves, results, sent = (zero, one), [None, None], [None, None]
    received: list[Any] = [None, None]
    rounds = 0
    while True:
        for i, half in enumerate(halves):
            try:
                sent[i] = half.send(received[i]).copy()
            except StopIteration as stop:
                results[i] = stop.value
        if results[0] is not None:
            assert results[1] is not None
            return results[0], results[1], rounds
        assert sent[0].shape == sent[1].shape
        received, rounds = sent[::-1], rounds + 1
        if views is not None:
            views[0].append(received[0])
            views[1].append(received[1])


def deal(rng: SecretRng, write: Any) -> tuple[Material, Material]:
    """Let `write` deal, and return what both parties read."""
    dealing = Dealing(rng, SESSION)
    write(dealing)
    zero, one = dealing.seeds
    said = dealing.messages()
    materials = Material(zero, SESSION, said[0], first=True), Material(one, SESSION, said[1], first=False)
    return materials


def share_model(
    graph: Graph, fixed: Fixed, rng: SecretRng
) -> tuple[dict[str, Any], tuple[dict[str, Any], dict[str, Any]]]:
    """Return the dealer's masks and both parties' shares of a model."""
    masks: dict[str, Any] = {}
    shares: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    stream = Stream(rng.bytes(32), SESSION, "model")
    for layer in graph.architecture.layers:
        if layer.name in graph.parameters:
            parameters, groups = graph.parameters[layer.name], getattr(layer, "groups", 1)
            weight = matrix_of(fixed.encode(parameters.weight, layer.name), groups)
            bias = fixed.encode(parameters.bias, layer.name, 2).reshape(groups, -1)
            masks[layer.name] = stream.words(*weight.shape)
            opened = weight + masks[layer.name]
            first = LayerShares(stream.words(*weight.shape), opened, stream.words(*bias.shape))
            shares[0][layer.name] = first
            shares[1][layer.name] = LayerShares(weight - first.weight, opened, bias - first.bias)
    return masks, shares


def classify(
    graph: Graph, inputs: Any, output: str, rng: SecretRng, fixed: Fixed, views: Any = None, form: Any = "boolean"
) -> Any:
    """Return int64 logits with f fractional bits, or classes, computed between two parties."""
    program = compile_plan(Plan(graph.architecture, fixed, len(inputs), output, form))  # type: ignore[arg-type]
    masks, shares = share_model(graph, fixed, rng.child("model"))
    materials = deal(rng.child("deal"), lambda dealing: program.deal(dealing, masks))
    prepared = [program.prepare(material, own) for material, own in zip(materials, shares, strict=True)]
    words = channels_last(fixed.encode(inputs, "input"))
    mine = Stream(rng.child("input").bytes(32), SESSION, "input").words(*words.shape)
    zero, one, _ = run_both(program.run(True, prepared[0], mine), program.run(False, prepared[1], words - mine), views)
    if output == "logits":
        return (zero + one).view(np.int64)
    return classes_of(zero ^ one, len(inputs), graph.architecture.output_shape[0])
