"""Random messages in random order: out of `receive` come effects or PeerProtocolError, and nothing else."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from ridotto.core.machine import Send, Wake
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError
from ridotto.infer.authenticated import deal_model
from ridotto.infer.dealer import Dealer
from ridotto.infer.fixed import Fixed
from ridotto.infer.macs import TagDealing
from ridotto.infer.messages import (
    Begin,
    BeginSealed,
    Dealt,
    DealtModel,
    Forget,
    Hello,
    ModelSeed,
    NewModel,
    Opening,
    Prepare,
    ShareInput,
    ShareModel,
    buffer,
)
from ridotto.infer.model import row_length
from ridotto.infer.party import Limits, Party
from ridotto.infer.program import Plan, compile_plan
from ridotto.infer.streams import Dealing, Walk
from tests.infer.models import dense

GRAPH = dense(3, 2)
ENCODED = GRAPH.architecture.encode()
IDS = [bytes([i]) * 32 for i in range(3)]
PARTIES = ("party-0", "party-1")
SENDERS = (*PARTIES, "dealer", "client", "client", "client", "mallory")


def message(draw: random.Random) -> Message:
    """Return a message that fits surprisingly often."""
    name, other = draw.choice(IDS), draw.choice(IDS)
    plan = Plan(GRAPH.architecture, Fixed(), draw.choice((1, 2)), draw.choice(("class", "logits")))
    digest = draw.choice((plan.digest(), Plan(GRAPH.architecture, Fixed(), 1, "logits").digest(), other))
    words = buffer(np.zeros(draw.choice((0, 2, 3, 6, 8, 16)), np.uint64))
    seed = draw.choice((None, IDS[0]))
    makers: list[Any] = [
        lambda: NewModel(name, draw.choice((ENCODED, b"x")), Fixed(), draw.choice((None, other))),
        lambda: ShareModel(name, ENCODED, Fixed(), None, words, sealed=True),
        lambda: DealtModel(name, *draw.choice((sealed_model(name, other), (other, other, words)))),
        lambda: BeginSealed(name, words),
        lambda: ShareModel(name, ENCODED, Fixed(), seed, words if seed is None else buffer(None)),
        lambda: ModelSeed(name, other),
        lambda: ShareInput(name, draw.choice(((1, 3), (2, 3), (2, 4))), seed, words if seed is None else buffer(None)),
        lambda: Prepare(name, other, plan.batch, plan.output, seal=draw.choice((None, other))),
        lambda: Dealt(name, digest, draw.choice((walk(plan), other)), other, draw.choice((words, corrections(plan)))),
        lambda: Hello(name, digest, draw.choice((walk(plan), Walk().digest(), other))),
        lambda: Begin(name, other),
        lambda: Opening(name, draw.choice((0, 0, 1, 2)), words),
        lambda: Forget(name),
    ]
    made: Message = draw.choice(makers)()
    return made


def dealt(plan: Plan) -> Dealing:
    dealing = Dealing(insecure_seeded_rng(1), IDS[0])
    masks = {layer.name: np.zeros((1, 3, 2), np.uint64) for layer in GRAPH.architecture.layers}
    compile_plan(plan).deal(dealing, masks)
    return dealing


def corrections(plan: Plan) -> memoryview:
    return buffer(dealt(plan).messages()[1])


def sealed_model(name: bytes, seal: bytes) -> tuple[bytes, bytes, memoryview]:
    dealing = TagDealing(insecure_seeded_rng(1), name, None, seal)
    deal_model(dealing, GRAPH.architecture)
    return dealing.walk.digest(), dealing.seeds[0], buffer(dealing.messages()[1])


def walk(plan: Plan) -> bytes:
    return dealt(plan).walk.digest()


def blamed(machine: Any, sender: str, said: Message, now: float) -> str | None:
    """Let a machine receive; return whom it blames if it refuses. Any other exception is a failure."""
    try:
        effects = machine.receive(sender, said, now)
    except PeerProtocolError as refused:
        return refused.peer
    assert all(isinstance(effect, Send | Wake) for effect in effects)
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("first", [True, False])
def test_parties_answer_or_refuse(seed: int, first: bool) -> None:
    draw = random.Random(seed)
    peer = PARTIES[first]
    machine = Party(first=first, peer=peer, dealer="dealer", clients=("client",), limits=Limits(wait_s=150.0))
    for step in range(300):
        sender = draw.choice(SENDERS)
        assert blamed(machine, sender, message(draw), float(step)) in {None, sender}
        if draw.random() < 0.02:
            machine.lose(sender, "gone")
        if draw.random() < 0.02:
            machine.expire(float(step))


@pytest.mark.parametrize("seed", range(5))
def test_dealers_answer_or_refuse(seed: int) -> None:
    draw = random.Random(seed)
    machine = Dealer(PARTIES, ("client",), insecure_seeded_rng(seed), model_limit=2)
    for _ in range(300):
        sender = draw.choice(SENDERS)
        assert blamed(machine, sender, message(draw), 0.0) in {None, sender}


def test_the_model_of_this_file_has_eight_words() -> None:
    assert row_length(GRAPH.architecture) == 8
