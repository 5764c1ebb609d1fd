"""Sealed queries are right, and every word that a party changes is noticed, by name, before anything is revealed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.infer import reference
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Gelu
from ridotto.infer.kernels import tagged
from ridotto.infer.kernels.plain import Words
from ridotto.infer.program import Plan, compile_plan
from tests.infer.models import dense, inputs, tiny_images
from tests.infer.sealed_parties import Sealed
from tests.infer.test_program import MODELS

FIXED = Fixed()
CHECK_ROUNDS = 3


@pytest.mark.parametrize("name", MODELS)
def test_logits(name: str) -> None:
    graph = MODELS[name]
    x = inputs(graph, 2)
    found = Sealed(graph, FIXED, insecure_seeded_rng(1)).query(x, "logits")
    assert np.abs(found - reference.fixed_forward(graph, x, 14)).max() <= 40


def test_smooth_functions() -> None:
    builder = GraphBuilder()
    builder.linear("dense", [[1.0]], [0.0])
    builder.add(Gelu("smooth"))
    graph = builder.build((1,))
    x = np.linspace(-5, 5, 31, dtype=np.float32).reshape(-1, 1)
    found = Sealed(graph, FIXED, insecure_seeded_rng(1)).query(x, "logits")
    assert np.abs(found - reference.fixed_forward(graph, x, 14)).max() <= 4


@pytest.mark.parametrize("graph", [dense(12, 8, 5), tiny_images()])
def test_classes(graph: Any) -> None:
    x = inputs(graph, 5)
    sealed = Sealed(graph, FIXED, insecure_seeded_rng(2))
    expected = reference.forward(graph, x).argmax(axis=1)
    # Twice: keys and weights stay, masks are fresh.
    for name in ("first", "second"):
        np.testing.assert_array_equal(sealed.query(x, "class", name), expected)


@pytest.mark.parametrize("shape", [(1, 9, 4), (8, 1, 1), (9, 600, 3), (20, 1100, 2)])
def test_products_with_tags_are_those_of_integers(shape: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(shape)
    public = draw.integers(0, 2**64, shape[:2], dtype=np.uint64)
    words = draw.integers(0, 2**64, (4, *shape[1:]), dtype=np.uint64).astype(object)
    tags = words[0] - (words[1] << 64) + ((words[2] + (words[3] << 64)) << tagged.FIELD_BITS)
    expected = tagged.parts(public.astype(object) @ tags)
    assert tagged.parts(tagged.matmul(public, tags)) == expected
    turned = tagged.matmul(np.ascontiguousarray(tags.T), np.ascontiguousarray(public.T)).T
    assert tagged.parts(turned) == expected


def test_keys_are_refused() -> None:
    plan = Plan(dense(4, 3).architecture, FIXED, 1, "class", "fss", "malicious")
    with pytest.raises(PlanError, match="malicious security goes with boolean comparisons"):
        compile_plan(plan)


class Attack:
    """Change one bit of one word of one round of one party's messages, or all of a round."""

    def __init__(self, party: int, number: int, place: int, flip: int) -> None:
        self.party, self.number, self.place, self.flip = party, number, place, np.uint64(flip)

    def __call__(self, party: int, number: int, message: Words) -> Words:
        if (party, number) == (self.party, self.number):
            message.reshape(-1)[self.place] ^= self.flip
        return message


def sizes(sealed: Sealed, x: Any, output: str) -> list[int]:
    views: tuple[list[Any], list[Any]] = ([], [])
    sealed.query(x, output, views=views)
    return [message.size for message in views[0]]


ATTACKED = [(dense(6, 5, 3), "class"), (dense(5, 4, 2), "logits"), (tiny_images(), "class")]


@pytest.mark.parametrize("party", [0, 1])
@pytest.mark.parametrize("which", range(len(ATTACKED)))
def test_every_round_is_checked(party: int, which: int) -> None:
    """First, middle and last word of each round; lowest, middle and highest bit: the honest party names the other."""
    graph, output = ATTACKED[which]
    sealed, x = Sealed(graph, FIXED, insecure_seeded_rng(3)), inputs(graph, 1)
    rounds = sizes(sealed, x, output)
    for number, size in enumerate(rounds):
        for turn, place in enumerate(sorted({0, size // 2, size - 1})):
            attack = Attack(party, number, place, 1 << (0, 17, 63)[turn])
            with pytest.raises(PeerProtocolError, match="does not fit its tags") as caught:
                sealed.query(x, output, change=attack)
            assert caught.value.peer in {"party-0", "party-1"}


@pytest.mark.parametrize("party", [0, 1])
def test_the_honest_party_blames_the_other_and_has_no_output(party: int) -> None:
    graph = dense(4, 3)
    sealed, x = Sealed(graph, FIXED, insecure_seeded_rng(4)), inputs(graph, 1)
    number = len(sizes(sealed, x, "class")) - CHECK_ROUNDS - 1
    outcomes = sealed.outcomes(x, "class", Attack(party, number, 0, 1))
    assert isinstance(outcomes[1 - party], PeerProtocolError)
    assert outcomes[1 - party].peer == f"party-{party}"


def test_the_highest_bit_alone_is_noticed_every_time() -> None:
    """The error 2^63 is zero in every tag of 64 bits with an even key: here tags have 128."""
    graph = dense(3, 2)
    x = inputs(graph, 1)
    for seed in range(40):
        sealed = Sealed(graph, FIXED, insecure_seeded_rng(seed))
        with pytest.raises(PeerProtocolError, match="does not fit its tags"):
            sealed.query(x, "logits", change=Attack(0, 0, 0, 1 << 63))


def test_errors_that_cancel_in_a_sum_are_noticed() -> None:
    def change(party: int, number: int, message: Words) -> Words:
        if party == 0 and number == 0:
            message.reshape(-1)[0] += np.uint64(5)
            message.reshape(-1)[1] -= np.uint64(5)
        return message

    graph = dense(3, 2)
    sealed = Sealed(graph, FIXED, insecure_seeded_rng(5))
    with pytest.raises(PeerProtocolError, match="does not fit its tags"):
        sealed.query(inputs(graph, 1), "logits", change=change)


def test_another_input_or_model_is_noticed() -> None:
    """The client, or who pretends to be it, tells the parties different words."""
    graph = dense(3, 2)
    sealed, x = Sealed(graph, FIXED, insecure_seeded_rng(6)), inputs(graph, 1)
    with pytest.raises(PeerProtocolError, match="another input or model"):
        sealed.query(x, "logits", another_input=True)


def test_an_echo_is_no_proof() -> None:
    """Who sends back what it receives in the last rounds proves nothing: commitments name the role."""
    graph = dense(3, 2)
    sealed, x = Sealed(graph, FIXED, insecure_seeded_rng(7)), inputs(graph, 1)
    rounds = len(sizes(sealed, x, "logits"))
    received: dict[int, Words] = {}

    def change(party: int, number: int, message: Words) -> Words:
        if party == 0:
            received[number] = message
            if number == 0:
                message = message.copy()
        elif number >= rounds - 2:
            return received[number]
        if party == 1 and number == 0:
            message.reshape(-1)[0] ^= np.uint64(1)
        return message

    outcomes = sealed.outcomes(x, "logits", change)
    assert isinstance(outcomes[0], PeerProtocolError)
