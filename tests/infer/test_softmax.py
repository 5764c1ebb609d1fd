"""Encrypted softmax against its float values, within the documented bound, and against plain fixed point."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridotto import infer
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import PeerProtocolError, PlanError
from ridotto.infer import reference
from ridotto.infer.approximations import exact_softmax, softmax_error
from ridotto.infer.builder import GraphBuilder
from ridotto.infer.fixed import Fixed
from ridotto.infer.graph import Architecture, Graph, Sigmoid, Softmax
from ridotto.infer.kernels import without_numba
from ridotto.infer.kernels.plain import Words
from ridotto.infer.program import Plan, compile_plan
from tests.infer.models import weights
from tests.infer.sealed_parties import Sealed
from tests.infer.test_service import Deployment
from tests.infer.test_views import BATCH, QUERIES, compare
from tests.infer.two_parties import classify

FIXED = Fixed()
UNIT = 2.0**-14


def alone(features: int) -> Graph:
    """Return a softmax and nothing else: its input is exact, so the bounds are those of the softmax."""
    return Graph(Architecture((features,), (Softmax("soft"),)), {})


def scores(features: int) -> Any:
    """Return random logits of several sizes, and edges: equal ones, one or two that dominate, all far below zero."""
    rng = np.random.default_rng(features)
    one, two = np.zeros((2, features), np.float32)
    one[-1], two[0], two[-1] = 40, 12, 12
    edges = [np.zeros(features), np.full(features, -3000.25), one, -one, two, np.linspace(-8, 0, features)]
    return np.concatenate([rng.normal(0, size, (8, features)) for size in (0.3, 2, 30)] + [edges]).astype(np.float32)


def units(features: int) -> int:
    """Return how far a probability may be from plain fixed point, see `infer.softmax`."""
    return max(features + 1, 4)


@pytest.mark.parametrize(
    ("features", "form"), [(1, "boolean"), (2, "fss"), (3, "boolean"), (10, "boolean"), (10, "fss"), (128, "boolean")]
)
def test_probabilities(features: int, form: str) -> None:
    graph, x = alone(features), scores(features)
    found = classify(graph, x, "logits", insecure_seeded_rng(features), FIXED, form=form)
    away = np.abs(found - reference.fixed_forward(graph, x, 14))
    assert away.max() <= units(features)
    assert np.median(away) <= 1
    error = np.abs(found * UNIT - exact_softmax(x.astype(np.float64))).max()
    assert error <= softmax_error(features) + (units(features) + 3) * UNIT


def test_ten_classes_are_within_the_bound_that_is_documented() -> None:
    x = scores(10)
    found = classify(alone(10), x, "logits", insecure_seeded_rng(7), FIXED) * UNIT
    assert np.abs(found - exact_softmax(x.astype(np.float64))).max() <= 0.0064
    assert np.abs(found.sum(axis=1) - 1).max() <= 10 * 0.0064
    np.testing.assert_allclose(found[24], 0.1, atol=0.0064)
    np.testing.assert_allclose(found[26], np.eye(10)[9], atol=0.0064)


@pytest.mark.parametrize("f", [8, 11, 18])
def test_other_encodings(f: int) -> None:
    x = np.random.default_rng(f).normal(0, 2, (9, 5)).astype(np.float32)
    found = classify(alone(5), x, "logits", insecure_seeded_rng(f), Fixed(f, 33))
    assert np.abs(found - reference.fixed_forward(alone(5), x, f)).max() <= units(5)


def test_the_numpy_loops_give_the_same_bits() -> None:
    views: tuple[list[Any], list[Any]] = ([], [])
    plain_views: tuple[list[Any], list[Any]] = ([], [])
    found = classify(alone(5), scores(5), "logits", insecure_seeded_rng(5), FIXED, views)
    with without_numba():
        again = classify(alone(5), scores(5), "logits", insecure_seeded_rng(5), FIXED, plain_views)
    np.testing.assert_array_equal(found, again)
    for mine, plain in zip(views[0] + views[1], plain_views[0] + plain_views[1], strict=True):
        np.testing.assert_array_equal(mine, plain)


@pytest.mark.parametrize(("features", "form", "rounds"), [(10, "boolean", 27), (3, "boolean", 19), (10, "fss", 15)])
def test_rounds(features: int, form: str, rounds: int) -> None:
    views: tuple[list[Any], list[Any]] = ([], [])
    classify(alone(features), scores(features)[:1], "logits", insecure_seeded_rng(1), FIXED, views, form)
    # One more takes the input.
    assert len(views[0]) == rounds + 1


def ones(x: Any, seed: int) -> list[Any]:
    """Count ones at each place, over many queries, of what each party receives and of what both open.

    Words are opened as sums, planes by XOR. A masked value is uniform, whichever of the two is taken; see `test_views`.
    """
    total: list[Any] = [0, 0, 0, 0]
    for query in range(QUERIES):
        views: tuple[list[Any], list[Any]] = ([], [])
        classify(alone(2), x, "logits", insecure_seeded_rng(seed + query), FIXED, views)
        one, zero = (np.concatenate([message.reshape(-1) for message in view]) for view in views)
        for place, words in enumerate((one, zero, zero + one, zero ^ one)):
            total[place] = total[place] + np.unpackbits(words.view(np.uint8)).astype(np.int64)
    return total


def test_views_on_two_inputs_have_the_same_distribution() -> None:
    """False alarms: each of the 12 statistics is too large with probability 1e-6 if the protocol is right."""
    equal, apart = np.zeros((BATCH, 2), np.float32), np.tile(np.array([50, -50], np.float32), (BATCH, 1))
    for a, b in zip(ones(equal, 0), ones(apart, QUERIES), strict=True):
        assert a.size == b.size > 50_000
        compare(a, b)


def network(*, after: bool) -> Graph:
    """Return a softmax behind a linear layer, and before others."""
    builder = GraphBuilder()
    builder.linear("dense", weights(6, 4), weights(6))
    builder.add(Softmax("soft"))
    if after:
        builder.linear("mix", weights(5, 6), weights(5))
        builder.add(Sigmoid("squash"))
        builder.add(Softmax("again"))
    return builder.build((4,))


def examples(count: int) -> Any:
    return np.random.default_rng(count).normal(0, 1, (count, 4)).astype(np.float32)


def test_inside_a_network() -> None:
    graph, x = network(after=True), examples(20)
    found = classify(graph, x, "logits", insecure_seeded_rng(2), FIXED)
    assert np.abs(found - reference.fixed_forward(graph, x, 14)).max() <= 20
    assert np.abs(found * UNIT - reference.forward(graph, x)).max() <= 2 * softmax_error(6)


def test_the_largest_stays_the_largest() -> None:
    graph, x = network(after=False), examples(40)
    dense = np.argmax(np.asarray(reference.forward(graph, x)), axis=1)
    np.testing.assert_array_equal(classify(graph, x, "class", insecure_seeded_rng(3), FIXED), dense)
    found = classify(graph, x, "logits", insecure_seeded_rng(3), FIXED)
    ordered = np.sort(reference.forward(graph, x), axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > 2 * softmax_error(6)
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(found.argmax(axis=1)[clear], dense[clear])


def ask(world: infer.World) -> None:
    graph, x = network(after=False), examples(5)
    secret_model = world.share_model(graph, examples=x)
    secret_x = world.share_input(x, fixed=secret_model.fixed)
    expected = reference.forward(graph, x)
    found = secret_model(secret_x).reveal()
    np.testing.assert_allclose(found, expected, atol=softmax_error(6) + 20 * UNIT)
    np.testing.assert_array_equal(secret_model(secret_x).argmax().reveal(), expected.argmax(axis=1))


def test_worlds_reveal_probabilities() -> None:
    with infer.local() as world:
        ask(world)
    with infer.AuthenticatedWorld.of(infer.local()) as sealed:
        ask(sealed)


def test_probabilities_over_tls(tmp_path: Path) -> None:
    running = Deployment(tmp_path)
    try:
        with running.connect() as world:
            ask(world)
    finally:
        running.close()


def test_sealed_models_have_it_too() -> None:
    graph, x = network(after=True), examples(3)
    found = Sealed(graph, FIXED, insecure_seeded_rng(4)).query(x, "logits")
    assert np.abs(found - reference.fixed_forward(graph, x, 14)).max() <= 20


def test_every_round_of_a_sealed_query_is_checked() -> None:
    graph, x = alone(3), scores(3)[:1]
    sealed = Sealed(graph, FIXED, insecure_seeded_rng(5))
    views: tuple[list[Any], list[Any]] = ([], [])
    sealed.query(x, "logits", views=views)
    for number, message in enumerate(views[0]):

        def attack(party: int, round_: int, words: Words, *, at: int = number, place: int = message.size - 1) -> Words:
            if (party, round_) == (1, at):
                words.reshape(-1)[place] ^= np.uint64(1)
            return words

        with pytest.raises(PeerProtocolError, match="does not fit its tags"):
            sealed.query(x, "logits", change=attack)


def test_refuses_by_name_what_does_not_fit() -> None:
    with pytest.raises(PlanError, match=r"layer soft \(Softmax\): 129 features, at most 128"):
        compile_plan(Plan(alone(129).architecture, FIXED, 1, "logits"))
    with pytest.raises(PlanError, match=r"layer soft \(Softmax\): 25 compared bits hold numbers below 8, .* needs 10"):
        compile_plan(Plan(alone(10).architecture, Fixed(20, 25), 1, "logits"))
    with pytest.raises(PlanError, match=r"layer soft \(Softmax\): .* below 4, but it needs 7\.6"):
        compile_plan(Plan(alone(2).architecture, Fixed(17, 21), 1, "logits"))
