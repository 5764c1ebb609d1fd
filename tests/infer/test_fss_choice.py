"""The form of comparison follows the round-trip time."""

from __future__ import annotations

import pytest

from ridotto import infer
from ridotto.infer.fixed import Fixed
from ridotto.infer.fss_choice import batches, choose
from ridotto.infer.graph import Architecture, Softmax
from ridotto.infer.messages import Answer, Prepare
from ridotto.infer.program import Plan
from tests.infer.models import dense, inputs, tiny_images
from tests.infer.test_attacks import Tap, changed


def plan(batch: int) -> Plan:
    return Plan(dense(784, 128, 128, 10).architecture, Fixed(), batch, "class")


def test_near_parties_compare_bits_and_far_ones_evaluate_keys() -> None:
    assert choose(plan(1), 5e-5) == "boolean"
    assert choose(plan(1), 4e-2) == "fss"
    assert choose(plan(128), 1e-3) == "boolean"
    assert choose(plan(128), 4e-2) == "fss"


def test_a_longer_way_never_turns_the_choice_back() -> None:
    for batch in (1, 16, 256):
        forms = [choose(plan(batch), 1e-5 * 2**i) for i in range(18)]
        assert forms == sorted(forms)
        assert set(forms) == {"boolean", "fss"}


def test_keys_that_must_be_dealt_first_are_worth_less() -> None:
    assert choose(plan(4096), 0.3, dealt=True) == "boolean"
    assert choose(plan(4096), 4.0, dealt=True) == "fss"


def test_batches_are_those_of_the_program() -> None:
    assert batches(plan(2)) == [256, 256, 90]
    # Of a softmax: a maximum of ten, 23 breakpoints of exp for each of them, 16 of 1/x.
    softmax = Architecture((10,), (Softmax("soft"),))
    assert batches(Plan(softmax, Fixed(), 1, "logits")) == [5, 2, 1, 1, 230, 16]
    graph = tiny_images()
    # Windows of 4 in 3 channels of 2 by 2: two matches, then one; a ReLU of what is left; pairs of four classes.
    assert batches(Plan(graph.architecture, Fixed(), 1, "class")) == [24, 12, 12, 6]


@pytest.mark.parametrize("graph", [dense(20, 16, 10), tiny_images()])
def test_the_machines_run_either_form(graph: infer.Graph) -> None:
    x = inputs(graph, 9)
    classes, rounds = [], []
    for form in ("boolean", "fss"):
        tap = Tap(Prepare, "client", changed(comparison=form))
        tap.armed = True
        with infer.local(tap=tap) as world:
            model = world.share(graph)
            classes.append(model.predict(x).tolist())
            assert model.stats is not None
            rounds.append(model.stats.rounds)
    assert classes[0] == classes[1]
    assert rounds[0] - rounds[1] == 2 * len(batches(Plan(graph.architecture, Fixed(), 9, "class")))


def test_parties_tell_the_round_trip_time() -> None:
    seen: list[Answer] = []

    def look(message: Answer) -> tuple[Answer]:
        seen.append(message)
        return (message,)

    graph = dense(8, 6, 3)
    tap = Tap(Answer, "party-0", look)
    tap.armed = True
    with infer.local(tap=tap) as world:
        world.share(graph).predict(inputs(graph, 2))
    assert 0 < seen[0].round_trip_s < 10
