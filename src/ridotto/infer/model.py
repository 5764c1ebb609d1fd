"""Share a model: the owner's parameters as words, the masks of its weights, and the opening of W + r_W.

All parameters of a model are one row of words, layer after layer: the weight as (groups, inputs, outputs), then the
bias. Masks are another row, of the weights only; each party has an additive share of it in a stream of its own.

    offline  dealer: a seed to each party; r_W is the sum of both streams
    [1]      round: open W^ = W + r_W. Both know W^ for the life of the model, nobody r_W but the dealer
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np

from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import WEIGHTED, Architecture, Graph, Linear, Shape
from ridotto.infer.kernels.plain import Words
from ridotto.infer.ring import matrix_of
from ridotto.infer.streams import Stream
from ridotto.infer.wires import LayerShares, Masks, ModelShares


@dataclass(frozen=True)
class Slot:
    """Say what of a layer lies in the row. weight: (groups, inputs, outputs). bias: its length."""

    name: str
    weight: tuple[int, int, int]
    bias: int

    @property
    def weight_size(self) -> int:
        """Return how many words the weight is."""
        return math.prod(self.weight)

    @property
    def size(self) -> int:
        """Return how many words weight and bias are."""
        return self.weight_size + self.bias


def slots(architecture: Architecture) -> list[Slot]:
    """List the layers with parameters, in order."""
    found = []
    for layer in architecture.layers:
        if isinstance(layer, WEIGHTED):
            groups = 1 if isinstance(layer, Linear) else layer.groups
            inputs = math.prod(layer.weight_shape[1:])
            found.append(Slot(layer.name, (groups, inputs, layer.outputs // groups), layer.outputs))
    return found


def row_length(architecture: Architecture) -> int:
    """Return how many words the parameters are."""
    return sum(slot.size for slot in slots(architecture))


def encode_parameters(graph: Graph, fixed: Fixed) -> Words:
    """Owner: return the parameters as a row of words. Raises DataError, naming the layer, if one does not fit."""
    parts = [np.empty(0, np.uint64)]
    for slot in slots(graph.architecture):
        own = graph.parameters[slot.name]
        weight = fixed.encode(own.weight, f"layer {slot.name}: weight")
        parts.append(matrix_of(weight, slot.weight[0]).reshape(-1))
        parts.append(fixed.encode(own.bias, f"layer {slot.name}: bias", 2))
    return np.concatenate(parts)


def draw_masks(seeds: tuple[bytes, bytes], model: bytes, architecture: Architecture) -> Masks:
    """Dealer: return r_W of each layer."""
    zero, one = (_stream(seed, model) for seed in seeds)
    return {slot.name: zero.words(*slot.weight) + one.words(*slot.weight) for slot in slots(architecture)}


def load(architecture: Architecture, model: bytes, row: Words, seed: bytes) -> Generator[Words, Words, ModelShares]:
    """Party: open the masked weights; return its side of the model. row: its share of the parameters."""
    stream = _stream(seed, model)
    layers = list(_cut(architecture, row))
    mine = np.concatenate([np.empty(0, np.uint64), *(_masked(stream, slot.weight, part) for slot, part, _ in layers)])
    opened = mine + (yield mine)
    shares, place = {}, 0
    for slot, weight, bias in layers:
        end = place + weight.size
        shares[slot.name] = LayerShares(weight, opened[place:end].reshape(weight.shape), bias)
        place = end
    return shares


def _stream(seed: bytes, model: bytes) -> Stream:
    return Stream(seed, model, "weights")


def _masked(stream: Stream, shape: Shape, weight: Words) -> Words:
    return (weight + stream.words(*shape)).reshape(-1)


def _cut(architecture: Architecture, row: Words) -> Iterator[tuple[Slot, Words, Words]]:
    place = 0
    for slot in slots(architecture):
        middle = place + slot.weight_size
        yield slot, row[place:middle].reshape(slot.weight), row[middle : middle + slot.bias]
        place = middle + slot.bias
