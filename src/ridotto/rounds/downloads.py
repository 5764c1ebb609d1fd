"""Small downloads: the next model is what its quantised difference from the last one says (`learn.compress.delta`).

Server and participants must have the same bits, so the federation goes on with the rounded model. What rounding lost is
kept and added to the next model before that is rounded: in the long run nothing is lost.

Rounding needs no secret. Its random numbers follow from the digest of the old model, so that a run repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ridotto.core.rng import SecretRng
from ridotto.core.vector import Layout, Vector, require_finite
from ridotto.learn.compress.delta import delta_size, encode_delta
from ridotto.learn.strategy import State

LOST_STATE = "download.lost"
"""The name, in `Vault.state`, of what rounding lost: float32, shape (d,)."""


@dataclass(frozen=True)
class NextModel:
    """Hold what a round's model is rounded to. delta: its bytes, None where nothing is rounded. state: to be kept."""

    model: Vector = field(repr=False)
    delta: bytes | None = field(default=None, repr=False)
    state: State = field(default_factory=dict, repr=False)


def rounded(old: Vector, old_digest: bytes, new: Vector, state: State, bits: int | None, layout: Layout) -> NextModel:
    """Return the model that the federation goes on with.

    old: what participants hold; old_digest: of its file, 32 bytes. new: what the round made of it. state: a `Vault`'s.
    bits: of an entry of the difference; None for the new model as it is.
    Raises DataError, naming the parameter, if the new model is not finite.
    """
    if bits is None:
        return NextModel(new)
    require_finite(new, layout)
    lost = state.get(LOST_STATE)
    wanted = new if lost is None else new + lost
    delta = encode_delta(old, wanted, bits, SecretRng(old_digest).child("download"))
    return NextModel(delta.model, delta.data, {LOST_STATE: wanted - delta.model})


def most_deltas(whole_bytes: int, parameters: int, bits: int | None) -> int:
    """Return how many deltas in a row are together shorter than the whole model; who is further behind fetches that.

    whole_bytes: size of the model's file.
    """
    return 0 if bits is None else (whole_bytes - 1) // delta_size(parameters, bits)
