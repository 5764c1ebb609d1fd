"""What client, parties and dealer say to each other, in the order in which it is said.

    once a model    client -> dealer    NewModel       shape of the model
                    client -> party     ShareModel     its share of the parameters
                    dealer -> party     ModelSeed      its share of the masks of the weights; DealtModel if sealed
                    party <-> party     Hello, Opening masked weights
                    party -> client     Ready
    once an input   client -> party     ShareInput     its share of the numbers
    each query      client -> all       Prepare        which plan
                    dealer -> party     Dealt          seed and corrections
                    party <-> party     Hello          digests of plan and material: compared before anything else
                    party -> client     Ready          offline work is done
                    client -> party     Begin          which input; BeginSealed with the masked input itself
                    party <-> party     Opening        one a round
                    party -> client     Answer         its share of the output
    at any time     client -> party     Forget
                    all -> client       Failed         who is to blame, and why

`values` are words of 64 bits, little-endian. Sessions, models and inputs are named by 32 random bytes.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from ridotto.core.wire import Bytes32, Count, Message, Name, Text
from ridotto.errors import PeerProtocolError
from ridotto.infer.compare import Form
from ridotto.infer.fixed import Fixed
from ridotto.infer.kernels.plain import Words
from ridotto.infer.program import BATCH_LIMIT, Output
from ridotto.infer.streams import WORD_BYTES

GOODBYE = bytes(32)
"""The session of a `Failed` that speaks of everything: the connection ends with it."""

Encoded = Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
"""An architecture's canonical encoding: a layer takes some tens of bytes, and there are at most 1,000."""

Batch = Annotated[int, msgspec.Meta(ge=1, le=BATCH_LIMIT)]

Seed = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class NewModel(Message, frozen=True, tag=True):
    """Client to dealer: a model of this shape will be shared. seal: of its masks, if it is sealed (`authenticated`)."""

    model: Bytes32
    architecture: Encoded
    fixed: Fixed
    seal: Seed | None = None


class ShareModel(Message, frozen=True, tag=True):
    """Client to party: its share of the parameters, as a seed (party 0) or as words (party 1); the other is empty.

    sealed: whether these are masked parameters instead, the same words for both parties.
    """

    model: Bytes32
    architecture: Encoded
    fixed: Fixed
    seed: Seed | None
    values: memoryview
    sealed: bool = False


class ModelSeed(Message, frozen=True, tag=True):
    """Dealer to party: its stream of the masks of a model's weights."""

    model: Bytes32
    seed: Seed


class DealtModel(Message, frozen=True, tag=True):
    """Dealer to party: shares of the keys and of the masks of a sealed model, with tags. walk: as in `Dealt`."""

    model: Bytes32
    walk: Bytes32
    seed: Seed
    values: memoryview


class ShareInput(Message, frozen=True, tag=True):
    """Client to party: its share of an input of this shape (with the batch, channels last), as a seed or as words."""

    tensor: Bytes32
    shape: Annotated[tuple[Count, ...], msgspec.Meta(min_length=2, max_length=4)]
    seed: Seed | None
    values: memoryview


class Prepare(Message, frozen=True, tag=True):
    """Client to all: make everything ready for one query of this plan.

    seal: of the masks of input and output, for the dealer alone, if the model is sealed.
    """

    session: Bytes32
    model: Bytes32
    batch: Batch
    output: Output
    comparison: Form = "boolean"
    seal: Seed | None = None


class Dealt(Message, frozen=True, tag=True):
    """Dealer to party: one session's material.

    plan: digest of the plan it was dealt for. walk: digest of all requests of the dealing, see `streams`.
    """

    session: Bytes32
    plan: Bytes32
    walk: Bytes32
    seed: Seed
    values: memoryview


class Hello(Message, frozen=True, tag=True):
    """Party to party: the plan's digest here, and that of all material read for it.

    Nothing else is sent before both are seen to be equal. Of a model, walk is that of an empty reading.
    """

    session: Bytes32
    plan: Bytes32
    walk: Bytes32


class Ready(Message, frozen=True, tag=True):
    """Party to client: the model is loaded, or the session waits for its input."""

    session: Bytes32


class Begin(Message, frozen=True, tag=True):
    """Client to party: compute with this input now."""

    session: Bytes32
    tensor: Bytes32


class BeginSealed(Message, frozen=True, tag=True):
    """Client to party: compute with this masked input now, the same words for both parties."""

    session: Bytes32
    values: memoryview


class Opening(Message, frozen=True, tag=True):
    """Party to party: its shares of what is opened in this round."""

    session: Bytes32
    round: Count
    values: memoryview


class Answer(Message, frozen=True, tag=True):
    """Party to client: its share of the output. rounds, sent: how many, and how many bytes it sent to its peer.

    round_trip_s: the least time from sending a round to the peer's answer to it; 0 if there were fewer than two rounds.
    """

    session: Bytes32
    rounds: Count
    sent: Count
    values: memoryview
    round_trip_s: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0


class Forget(Message, frozen=True, tag=True):
    """Client to party or dealer: a model, an input or a session is no longer needed."""

    item: Bytes32


class Failed(Message, frozen=True, tag=True):
    """Anyone to client: this model or session has come to nothing, through whose fault and why."""

    session: Bytes32
    blame: Name
    why: Text


INFER_MESSAGES: tuple[type[Message], ...] = (
    NewModel,
    ShareModel,
    ModelSeed,
    DealtModel,
    ShareInput,
    Prepare,
    Dealt,
    Hello,
    Ready,
    Begin,
    BeginSealed,
    Opening,
    Answer,
    Forget,
    Failed,
)
"""The whole conversation."""


def buffer(words: Words | None) -> memoryview:
    """Return words as they are sent; nothing for None."""
    if words is None:
        return memoryview(b"")
    return np.ascontiguousarray(words, "<u8").reshape(-1).view(np.uint8).data


def words_from(values: memoryview, count: int, peer: str, what: str) -> Words:
    """Return received words, (count,). Raises PeerProtocolError, naming the sender, if there are more or fewer."""
    if values.nbytes != count * WORD_BYTES:
        raise PeerProtocolError(peer, f"{what} has {values.nbytes} bytes, expected {count * WORD_BYTES}")
    return np.frombuffer(values, "<u8").astype(np.uint64, copy=False)
