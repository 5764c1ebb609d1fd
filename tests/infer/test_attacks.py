"""Wrong sizes, sessions, rounds, plans, repeats: refused by the name of who sent them, and nothing is revealed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto import infer
from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError, UnreachableError
from ridotto.infer.messages import (
    Answer,
    Begin,
    Dealt,
    Hello,
    ModelSeed,
    Opening,
    Prepare,
    Ready,
    ShareInput,
    ShareModel,
)
from ridotto.infer.party import Limits, Party
from tests.infer.models import dense, inputs

GRAPH = dense(8, 6, 3)
ID = b"i" * 32
OTHER = b"o" * 32
CLIENT, PEER, DEALER = "client", "party-1", "dealer"

Change = Callable[[Any], Iterable[Message]]


class Tap:
    """Change messages of one kind from one sender, from the moment it is armed."""

    def __init__(self, kind: type[Message], sender: str, change: Change) -> None:
        self.kind, self.sender, self.change = kind, sender, change
        self.armed = False
        self.answers = 0

    def __call__(self, sender: str, to: str, message: Message) -> Iterable[Message]:
        self.answers += self.armed and isinstance(message, Answer)
        if self.armed and sender == self.sender and isinstance(message, self.kind):
            return self.change(message)
        return (message,)


def changed(**fields: Any) -> Change:
    return lambda message: (msgspec.structs.replace(message, **fields),)


def cut(message: Any) -> Iterable[Message]:
    return (msgspec.structs.replace(message, values=message.values[:-8]),)


def longer(message: Any) -> Iterable[Message]:
    return (msgspec.structs.replace(message, values=memoryview(bytes(message.values) + bytes(8))),)


def twice(message: Any) -> Iterable[Message]:
    return (message, message)


ATTACKS = [
    (Opening, PEER, cut, "party-1: round 0 has 120 bytes, expected 128"),
    (Opening, PEER, longer, "party-1: round 0 has 136 bytes, expected 128"),
    (Opening, PEER, twice, "party-1: sends round 0, expected round 1|party-1: sends round 0 twice"),
    (Opening, PEER, changed(round=1), "party-1: sends round 1, expected round 0"),
    (Opening, PEER, changed(session=OTHER), "party-1: opens in a session that is not known here"),
    (Hello, PEER, changed(plan=OTHER), "party-1: has another plan: 6f6f6f6f6f6f6f6f"),
    (Hello, PEER, twice, "party-1: says hello twice"),
    (Hello, PEER, changed(walk=OTHER), "party-1: read other material: 6f6f6f6f6f6f6f6f"),
    (Dealt, DEALER, changed(plan=OTHER), "dealer: dealt for another plan"),
    (Dealt, DEALER, changed(walk=OTHER), "dealer: dealt material in another order, or of other sizes"),
    (Dealt, DEALER, twice, "dealer: deals twice for a session"),
    (Answer, PEER, cut, "party-1: answer has 0 bytes, expected 8"),
    (Answer, PEER, twice, None),
    (Begin, CLIENT, twice, "client: begins a session that is not"),
    (Begin, CLIENT, changed(tensor=OTHER), "client: begins with an input that is not known"),
    (Prepare, CLIENT, changed(batch=3), "has another plan|with an input of shape"),
    (ShareInput, CLIENT, changed(shape=(2, 9)), "client: share of the input has"),
]


@pytest.mark.parametrize(("kind", "sender", "change", "why"), ATTACKS)
def test_refused_by_name(kind: type[Message], sender: str, change: Change, why: str | None) -> None:
    tap = Tap(kind, sender, change)
    with infer.local(tap=tap) as world:
        secret_model = world.share(GRAPH)
        tap.armed = True
        if why is None:
            assert secret_model.predict(inputs(GRAPH, 2)).shape == (2,)
            return
        with pytest.raises(PeerProtocolError, match=why):
            secret_model.predict(inputs(GRAPH, 2))
        if kind is not Answer:
            assert tap.answers == 0


@pytest.mark.parametrize("change", [cut, longer])
def test_material_of_the_wrong_size_names_the_dealer(change: Change) -> None:
    tap = Tap(Dealt, DEALER, lambda message: change(message) if message.values.nbytes else (message,))
    with infer.local(tap=tap) as world:
        secret_model = world.share(GRAPH)
        tap.armed = True
        with pytest.raises(PeerProtocolError, match=r"dealer: .* words of material"):
            secret_model.predict(inputs(GRAPH, 2))
        assert tap.answers == 0


@pytest.mark.parametrize("kind", [Opening, Hello, Dealt, Ready])
def test_a_lost_message_ends_without_an_answer(kind: type[Message]) -> None:
    tap = Tap(kind, DEALER if kind is Dealt else PEER, lambda _: ())
    with infer.local(tap=tap) as world:
        secret_model = world.share(GRAPH)
        tap.armed = True
        with pytest.raises(UnreachableError):
            secret_model.predict(inputs(GRAPH, 2))
        assert tap.answers <= (2 if kind is Ready else 0)


def test_tampered_openings_change_a_result_and_nothing_else() -> None:
    """What semi-honest means: this is not noticed. The machines still end in order."""
    tap = Tap(Opening, PEER, lambda message: (msgspec.structs.replace(message, values=flipped(message.values)),))
    with infer.local(tap=tap) as world:
        secret_model = world.share(GRAPH)
        tap.armed = True
        assert secret_model.predict(inputs(GRAPH, 2)).shape == (2,)


def flipped(values: memoryview) -> memoryview:
    return memoryview(bytes(255 - byte for byte in values))


def party(**limits: Any) -> Party:
    return Party(first=True, peer=PEER, dealer=DEALER, clients=(CLIENT,), limits=Limits(**limits))


def test_strangers_and_misplaced_messages_are_refused() -> None:
    machine = party()
    for sender, message, why in [
        ("mallory", Hello(ID, ID, ID), "mallory: is not known here"),
        (PEER, ModelSeed(ID, ID), "party-1: sends a ModelSeed, which is not for its peer"),
        (DEALER, Hello(ID, ID, ID), "dealer: sends a Hello, which is not for a party"),
        (CLIENT, Hello(ID, ID, ID), "client: sends a Hello, which is not for a party"),
        (CLIENT, ShareModel(ID, b"nonsense", infer.Fixed(), ID, memoryview(b"")), "client: malformed model"),
        (
            CLIENT,
            ShareInput(ID, (1, 2), None, memoryview(bytes(16))),
            "client: shares its input as the other party must get it",
        ),
        (CLIENT, ShareInput(ID, (2**40, 2), ID, memoryview(b"")), "client: shares its input of 2199023255552 words"),
        (CLIENT, ShareInput(ID, (1, 2), ID, memoryview(bytes(16))), "both as a seed and as words"),
    ]:
        with pytest.raises(PeerProtocolError, match=why):
            machine.receive(sender, message, 0.0)


def test_what_lies_here_is_bounded() -> None:
    machine = party(models=1, inputs=1, sessions=2)
    machine.receive(DEALER, ModelSeed(ID, ID), 0.0)
    with pytest.raises(PeerProtocolError, match="dealer: asks for one model more than the 1 kept here"):
        machine.receive(DEALER, ModelSeed(OTHER, ID), 0.0)
    machine.receive(CLIENT, ShareInput(ID, (1, 2), ID, memoryview(b"")), 0.0)
    with pytest.raises(PeerProtocolError, match="client: shares one input more than the 1"):
        machine.receive(CLIENT, ShareInput(OTHER, (1, 2), ID, memoryview(b"")), 0.0)
    for name in (b"a" * 32, b"b" * 32):
        machine.receive(PEER, Hello(name, ID, ID), 0.0)
    with pytest.raises(PeerProtocolError, match="party-1: asks for one session more than the 2 kept here"):
        machine.receive(PEER, Hello(b"c" * 32, ID, ID), 0.0)


def test_nothing_is_kept_for_longer_than_the_limit() -> None:
    machine = party(sessions=1, wait_s=5.0)
    machine.receive(PEER, Hello(ID, ID, ID), 0.0)
    assert machine.expire(4.9) == []
    machine.expire(5.0)
    machine.receive(PEER, Hello(OTHER, ID, ID), 5.0)


def test_material_is_gone_before_it_is_used() -> None:
    """Stop the computation anywhere: what has been taken is no longer there, so nothing can use it a second time."""
    from ridotto.core.rng import insecure_seeded_rng
    from ridotto.infer.fixed import Fixed
    from ridotto.infer.program import Plan, compile_plan
    from tests.infer.two_parties import deal, share_model

    program = compile_plan(Plan(GRAPH.architecture, Fixed(), 2, "class"))
    masks, shares = share_model(GRAPH, Fixed(), insecure_seeded_rng(1))
    zero, _ = deal(insecure_seeded_rng(2), lambda dealing: program.deal(dealing, masks))
    prepared = program.prepare(zero, shares[0])
    half = program.run(True, prepared, np.zeros((2, 8), np.uint64))
    next(half)
    assert len(prepared) == len(program.steps) - 1
    half.close()
    with pytest.raises((KeyError, IndexError, ValueError)):
        list(program.run(True, prepared, np.zeros((2, 8), np.uint64)))


def test_a_dealer_that_leaves_spoils_only_what_it_has_not_dealt() -> None:
    machines: list[Party] = []
    with infer.local() as world:
        secret_model = world.share(GRAPH)
        secret_model.prepare(2)
        machines = [world._link._machines[name] for name in ("party-0", "party-1")]  # type: ignore[attr-defined]
        for machine in machines:
            assert machine.lose(DEALER, "gone") == []
        assert secret_model.predict(inputs(GRAPH, 2)).shape == (2,)
        secret_model.prepare(2)
        (failed,) = machines[0].lose(PEER, "gone")
        assert failed.message.blame == PEER  # type: ignore[union-attr]
        with pytest.raises(PeerProtocolError, match="begins a session that is not known here"):
            secret_model.predict(inputs(GRAPH, 2))


def test_a_party_that_restarts_knows_no_material() -> None:
    """A crash between the offline work and the query: nothing was on disk, so nothing can be used a second time."""
    with infer.local() as world:
        secret_model = world.share(GRAPH)
        secret_x = world.share(inputs(GRAPH, 2))
        secret_model.prepare(2)
        fresh = Party(first=True, peer=PEER, dealer=DEALER, clients=(CLIENT,))
        world._link._machines["party-0"] = fresh  # type: ignore[attr-defined]
        with pytest.raises(PeerProtocolError, match="begins a session that is not known here"):
            secret_model(secret_x).argmax().reveal()
