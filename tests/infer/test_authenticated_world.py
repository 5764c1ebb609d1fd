"""A whole query with machines and client: every message of a party is tampered with, and nothing is revealed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import pytest

from ridotto import infer
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import Message
from ridotto.errors import DataError, PeerProtocolError, PlanError, UnreachableError
from ridotto.infer import reference
from ridotto.infer.authenticated_world import AuthenticatedWorld
from ridotto.infer.messages import Answer, BeginSealed, DealtModel, Hello, NewModel, Opening, Prepare, Ready, ShareModel
from tests.infer.models import dense, inputs, tiny_images
from tests.infer.test_attacks import DEALER, OTHER, Tap, changed, cut, longer, twice

GRAPH = dense(6, 5, 3)
CHECK_ROUNDS = 3
"""Upper halves, commitments, nonces."""

PARTIES = ("party-0", "party-1")


class Flip:
    """Flip a bit of one word of one round, from one party; count answers of the other, which is honest."""

    def __init__(self, sender: str, number: int, place: float, bit: int) -> None:
        self.sender, self.number, self.place, self.bit = sender, number, place, bit
        self.answers = self.rounds = 0

    def __call__(self, sender: str, to: str, message: Message) -> Iterable[Message]:
        self.answers += isinstance(message, Answer) and sender != self.sender
        if isinstance(message, Opening):
            self.rounds = max(self.rounds, message.round + 1)
            if (sender, message.round) == (self.sender, self.number):
                words = np.frombuffer(message.values, np.uint64).copy()
                words[int(self.place * (words.size - 1))] ^= np.uint64(1 << self.bit)
                return (msgspec.structs.replace(message, values=words.view(np.uint8).data),)
        return (message,)


def world(tap: Any = None) -> AuthenticatedWorld:
    return AuthenticatedWorld.of(infer.local(rng=insecure_seeded_rng(1), tap=tap))


@pytest.mark.parametrize("graph", [GRAPH, tiny_images()])
def test_classes_and_logits(graph: infer.Graph) -> None:
    x = inputs(graph, 4)
    expected = reference.forward(graph, x)
    with world() as secure:
        model = secure.share(graph, examples=x)
        np.testing.assert_array_equal(model.predict(x), expected.argmax(axis=1))
        secret = secure.share_input(x, fixed=model.fixed)
        assert np.abs(model(secret).reveal() - expected).max() < 0.01
        model.prepare(4, count=2)
        for _ in range(3):
            np.testing.assert_array_equal(model(secret).argmax().reveal(), expected.argmax(axis=1))
        secret.forget()
        with pytest.raises(DataError, match="forgotten"):
            model(secret).reveal()


def rounds(output: str) -> int:
    tap = Flip("nobody", 0, 0, 0)
    with world(tap) as secure:
        computed = secure.share(GRAPH)(secure.share(inputs(GRAPH, 2)))
        computed.argmax().reveal() if output == "class" else computed.reveal()
    return tap.rounds


@pytest.mark.parametrize("output", ["class", "logits"])
@pytest.mark.parametrize("sender", PARTIES)
def test_every_opening_is_authenticated(sender: str, output: str) -> None:
    """Each round, three places and bits, both parties: the query ends by name, and the honest party is silent."""
    last = rounds(output)
    for number in range(last):
        # Upper halves matter to nobody, but for the tags: their highest bits can be wrong unnoticed.
        highest = 30 if number == last - CHECK_ROUNDS else 63
        for place, bit in ((0.0, highest), (0.5, 20), (1.0, 0)):
            tap = Flip(sender, number, place, bit)
            with world(tap) as secure:
                computed = secure.share(GRAPH)(secure.share(inputs(GRAPH, 2)))
                with pytest.raises(PeerProtocolError, match=r"party-[01]: what it opened does not fit its tags"):
                    computed.argmax().reveal() if output == "class" else computed.reveal()
            assert tap.answers == 0, (number, place)


def zeroed(message: Any) -> Iterable[Message]:
    return (msgspec.structs.replace(message, values=memoryview(bytes(message.values.nbytes))),)


def test_a_wrong_upper_half_that_passes_changes_nothing() -> None:
    x = inputs(GRAPH, 2)
    expected, ended = reference.forward(GRAPH, x).argmax(axis=1), 0
    number = rounds("class") - CHECK_ROUNDS
    for place in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7):
        with world(Flip(PARTIES[0], number, place, 63)) as secure:
            try:
                np.testing.assert_array_equal(secure.share(GRAPH).predict(x), expected)
            except PeerProtocolError:
                ended += 1
    assert ended in {0, 8}, "one key: its lowest bit decides"


MESSAGES = [
    (Opening, cut, r"party-[01]: round 0 has"),
    (Opening, longer, r"party-[01]: round 0 has"),
    (Opening, twice, "expected round 1|round 0 twice"),
    (Opening, changed(round=1), "sends round 1, expected round 0"),
    (Opening, changed(session=OTHER), "opens in a session that is not known here"),
    (Hello, changed(plan=OTHER), "has another plan"),
    (Hello, changed(walk=OTHER), "read other material"),
    (Answer, cut, "answer has"),
    (
        Answer,
        lambda message: (msgspec.structs.replace(message, values=memoryview(bytes(message.values.nbytes))),),
        "lies",
    ),
]


@pytest.mark.parametrize("sender", PARTIES)
@pytest.mark.parametrize(("kind", "change", "why"), MESSAGES)
def test_every_other_message_is_checked(sender: str, kind: type[Message], change: Any, why: str) -> None:
    tap = Tap(kind, sender, change)
    with world(tap) as secure:
        model = secure.share(GRAPH)
        tap.armed = True
        with pytest.raises(PeerProtocolError, match=why):
            model.predict(inputs(GRAPH, 2))
        assert tap.answers <= (2 if kind is Answer else 0)


@pytest.mark.parametrize("kind", [Opening, Hello, Ready, Answer])
@pytest.mark.parametrize("sender", PARTIES)
def test_a_lost_message_reveals_nothing(sender: str, kind: type[Message]) -> None:
    tap = Tap(kind, sender, lambda _: ())
    with world(tap) as secure:
        model = secure.share(GRAPH)
        tap.armed = True
        with pytest.raises(UnreachableError):
            model.predict(inputs(GRAPH, 2))


def test_parties_that_were_told_different_things_notice() -> None:
    def shifted(message: Any) -> Iterable[Message]:
        words = np.frombuffer(message.values, np.uint64) + np.uint64(1)
        return (msgspec.structs.replace(message, values=words.view(np.uint8).data),)

    for kind in (BeginSealed, ShareModel):

        class ToOne(Tap):
            def __call__(self, sender: str, to: str, message: Message) -> Iterable[Message]:
                return super().__call__(sender, to, message) if to == PARTIES[0] else (message,)

        tap = ToOne(kind, "client", shifted)
        tap.armed = True
        with world(tap) as secure, pytest.raises(PeerProtocolError, match="another input or model"):
            secure.share(GRAPH).predict(inputs(GRAPH, 2))
        assert tap.answers == 0


def test_after_a_deviation_the_model_and_its_keys_are_gone() -> None:
    tap = Flip(PARTIES[1], 0, 0.0, 1)
    with world(tap) as secure:
        model = secure.share(GRAPH)
        with pytest.raises(PeerProtocolError, match="does not fit its tags"):
            model.predict(inputs(GRAPH, 2))
        tap.number = -1
        with pytest.raises(PeerProtocolError, match="names a model that is not ready here"):
            model.predict(inputs(GRAPH, 2))


@pytest.mark.parametrize("sealed", [True, False])
def test_security_modes_do_not_mix(sealed: bool) -> None:
    """The model says which it is; who asks in the other is refused."""
    tap = Tap(Prepare, "client", changed(seal=None if sealed else OTHER))
    tap.armed = True
    local = infer.local(tap=tap)
    with AuthenticatedWorld.of(local) if sealed else local as secure:
        model = secure.share(GRAPH)
        with pytest.raises(PeerProtocolError, match="asks in another security mode than the model's"):
            model.predict(inputs(GRAPH, 2))


def test_a_model_that_is_sealed_for_one_side_only_is_refused() -> None:
    tap = Tap(NewModel, "client", changed(seal=None))
    tap.armed = True
    with world(tap) as secure, pytest.raises(PeerProtocolError, match="shares a model in one way, and has it dealt"):
        secure.share(GRAPH)


DEALT = [(cut, "words of material are left"), (changed(walk=OTHER), "in another order"), (twice, "deals a model twice")]


@pytest.mark.parametrize(("change", "why"), DEALT)
def test_a_dealer_that_deals_a_model_wrongly_is_named(change: Any, why: str) -> None:
    tap = Tap(DealtModel, DEALER, change)
    tap.armed = True
    with world(tap) as secure, pytest.raises(PeerProtocolError, match=f"dealer: .*{why}"):
        secure.share(GRAPH).predict(inputs(GRAPH, 2))


def test_sizes_are_bounded() -> None:
    graph = dense(2048, 2)
    with world() as secure:
        with pytest.raises(PeerProtocolError, match="2049 examples make a wire of 4196352 words, at most 4194304"):
            secure.share(graph).predict(np.zeros((2049, 2048), np.float32))
        with pytest.raises(PeerProtocolError, match="client: shares a model of 4196352 words, at most 4194304"):
            secure.share(dense(2048, 2048))


def test_keys_are_refused() -> None:
    with world() as secure, pytest.raises(PlanError, match="malicious security goes with boolean comparisons"):
        secure.share_model(GRAPH, comparison="fss")
