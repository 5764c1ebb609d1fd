"""A world in one process: what a user does, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from ridotto import infer
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import ConfigError, DataError, LocalProtocolError, PeerProtocolError, PlanError, UnreachableError
from ridotto.infer import reference
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.graph import Softmax
from ridotto.infer.party import Limits
from tests.infer.models import dense, inputs, tiny_images, weights


@pytest.mark.parametrize("graph", [dense(20, 16, 10), tiny_images()])
def test_classes_and_logits(graph: infer.Graph) -> None:
    x = inputs(graph, 9)
    expected = reference.forward(graph, x)
    with infer.local(parties=2) as world:
        secret_model = world.share(graph)
        secret_x = world.share(x)
        logits = secret_model(secret_x).reveal()
        classes = secret_model(secret_x).argmax().reveal()
        np.testing.assert_array_equal(secret_model.predict(x), classes)
    assert np.abs(logits - expected).max() < 0.005
    np.testing.assert_array_equal(classes, expected.argmax(axis=1))


def test_costs_are_counted() -> None:
    graph = dense(20, 16, 10)
    with infer.local() as world:
        secret_model = world.share(graph)
        secret_model.predict(inputs(graph, 1))
        stats = secret_model.stats
    assert stats is not None
    assert stats.rounds == 11
    # Input, two layers, one ReLU: 20 + 16 + 16 + 10 words; 16 planes of a word; argmax: 15 and 12 planes. Each way.
    assert stats.sent_bytes == 2 * 8 * (20 + 16 + 16 + 10 + 16 + 15 + 9 + 3)
    assert stats.offline_s > 0 < stats.online_s


def test_offline_work_can_be_done_ahead() -> None:
    graph = dense(8, 6, 3)
    with infer.local(limits=Limits(sessions=4)) as world:
        secret_model = world.share(graph)
        secret_model.prepare(2, count=4)
        with pytest.raises(PeerProtocolError, match="client: asks for one session more than the 4 kept here"):
            secret_model.prepare(2)


def test_uses_prepared_sessions_up() -> None:
    graph = dense(8, 6, 3)
    x = inputs(graph, 2)
    with infer.local(limits=Limits(sessions=4)) as world:
        secret_model = world.share(graph)
        for _ in range(3):
            secret_model.prepare(2, count=4)
            answers = [secret_model.predict(x).tolist() for _ in range(4)]
            assert answers == [reference.forward(graph, x).argmax(axis=1).tolist()] * 4


def test_head_room_is_chosen_from_examples() -> None:
    graph = dense(8, 6, 3)
    with infer.local() as world:
        secret_model = world.share(graph, examples=inputs(graph, 50))
        assert secret_model.fixed.compared_bits < 33
        with pytest.raises(DataError, match=r"share it with fixed=model\.fixed"):
            secret_model(world.share(inputs(graph, 2))).reveal()
        assert secret_model.predict(inputs(graph, 2)).shape == (2,)


def test_refuses_what_does_not_fit() -> None:
    graph = dense(8, 6, 3)
    with infer.local() as world:
        secret_model = world.share(graph)
        with pytest.raises(DataError, match=r"inputs of shape \(batch, 8\), these are \(2, 7\)"):
            secret_model(world.share(np.zeros((2, 7)))).reveal()
        with pytest.raises(DataError, match="input: a number of magnitude"):
            world.share(np.full((1, 8), 1e9))
        with pytest.raises(DataError, match="inputs are numbers"):
            world.share(np.array([["a"]]))
        with pytest.raises(DataError, match="is no model that can be imported"):
            world.share(object())
        with infer.local() as other, pytest.raises(LocalProtocolError, match="different worlds"):
            secret_model(other.share(np.zeros((1, 8)))).reveal()


def test_refuses_a_model_by_its_layer() -> None:
    builder = GraphBuilder()
    builder.linear("big", [[1e7]])
    softmax = GraphBuilder()
    softmax.linear("dense", weights(129, 4))
    softmax.add(Softmax("soft"))
    with infer.local() as world:
        with pytest.raises(DataError, match="layer big: weight: a number of magnitude"):
            world.share(builder.build((1,)))
        with pytest.raises(PlanError, match="layer soft"):
            world.share(softmax.build((4,)))
        with pytest.raises(PlanError, match="layer dense0"):
            world.share(dense(4, 2, scale=50), examples=np.full((3, 4), 3e3))


def test_forgotten_things_are_gone() -> None:
    graph = dense(4, 2)
    with infer.local() as world:
        secret_model, secret_x = world.share(graph), world.share(inputs(graph, 1))
        secret_x.forget()
        with pytest.raises(PeerProtocolError, match="client: begins with an input that is not known here"):
            secret_model(secret_x).reveal()
        secret_model.forget()
        with pytest.raises(PeerProtocolError, match="names a model that"):
            secret_model.predict(inputs(graph, 1))


def test_two_parties_and_no_other_number() -> None:
    with pytest.raises(ConfigError, match="for 2 parties, not 3"):
        infer.local(parties=3)


def test_a_closed_world_says_so() -> None:
    world = infer.local()
    world.close()
    with pytest.raises(UnreachableError, match="closed"):
        world.share(dense(4, 2))


def test_the_same_seed_gives_the_same_answers() -> None:
    graph = dense(8, 6, 3)
    found = []
    for _ in range(2):
        with infer.local(rng=insecure_seeded_rng(1)) as world:
            found.append(world.share(graph)(world.share(inputs(graph, 4))).reveal())
    np.testing.assert_array_equal(found[0], found[1])


def test_importing_loads_neither_numba_nor_torch() -> None:
    code = (
        "import sys, ridotto.infer as i; i.local, i.World; print([m for m in ('numba', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
