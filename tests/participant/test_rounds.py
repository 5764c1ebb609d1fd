"""Tests of the one-line switch: `for epoch in ridotto.rounds(url, model, examples=len(data))`."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

import ridotto
from ridotto.core.vector import Layout
from ridotto.errors import ConfigError, ConsentError, DataError, RoundFailedError
from ridotto.learn.adapt import adapt
from ridotto.participant import enter
from ridotto.participant.rounds import Round, rounds
from ridotto.rounds.messages import Decline
from ridotto.rounds.policy import Policy
from ridotto.rounds.service import RunState
from tests.participant.bench import expected_model
from tests.participant.fake import PLAN, POLICY, URL, FakeCoordinator


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCoordinator:
    fake = FakeCoordinator()
    plug_in(fake, monkeypatch)
    return fake


def plug_in(fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that asks for a client get one that speaks to the fake."""
    client = partial(enter.Client, transport=fake.transport(), clock=fake.clock.clock())
    monkeypatch.setattr(enter, "Client", client)


def arrays() -> dict[str, np.ndarray]:
    return {"weight": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}


def train(model: dict[str, np.ndarray], step: float = 4.0) -> None:
    for array in model.values():
        array += step


def reasons(fake: FakeCoordinator) -> list[str]:
    return [message.reason for _, message in fake.heard if isinstance(message, Decline)]


def test_trains_a_dict_of_arrays_in_place(fake, tmp_path):
    model = arrays()
    weight = model["weight"]
    epochs = []
    for epoch in rounds(URL, model, examples=10, state=tmp_path, policy=POLICY):
        epochs.append((epoch, epoch.number, epoch.rounds))
        train(model)
    assert epochs == [(0, 1, 2), (1, 2, 2)]
    assert model["weight"] is weight
    assert np.abs(weight - 2 * (4 + 1 + 2 + 3) / 4).max() < 1e-4
    assert np.array_equal(adapt(model).read(), fake.vault.model)


def test_weights_count_the_examples(fake, tmp_path):
    fake.rounds = 1
    model = arrays()
    for _ in rounds(URL, model, examples=lambda: 30, state=tmp_path, policy=POLICY):
        train(model)
    assert np.abs(model["bias"] - (30 * 4 + 10 * (1 + 2 + 3)) / 60).max() < 1e-4


def test_trains_a_torch_module(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    module = torch.nn.Linear(3, 2)
    layout = adapt(module).layout
    fake = FakeCoordinator(layout=layout)
    plug_in(fake, monkeypatch)
    for _ in rounds(URL, module, examples=10, state=tmp_path, policy=POLICY):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += 4.0
    assert np.abs(adapt(module).read() - expected_model(layout, 2, 4.0)).max() < 1e-4


def test_trains_a_scikit_learn_estimator(tmp_path, monkeypatch):
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is an extra")
    estimator = linear.SGDClassifier()
    estimator.partial_fit(np.eye(3), [0, 1, 2], classes=[0, 1, 2])
    layout = adapt(estimator).layout
    fake = FakeCoordinator(layout=layout)
    plug_in(fake, monkeypatch)
    for _ in rounds(URL, estimator, examples=10, state=tmp_path, policy=POLICY):
        estimator.coef_ += 4.0
        estimator.intercept_ += 4.0
    assert np.abs(adapt(estimator).read() - expected_model(layout, 2, 4.0)).max() < 1e-4


def test_trains_a_tree_of_jax_arrays(tmp_path, monkeypatch):
    jnp = pytest.importorskip("jax.numpy", reason="JAX is an extra")
    tree: dict[str, Any] = {"layers": [{"w": jnp.ones((2, 2))}, {"w": jnp.ones(2)}]}
    layout = adapt(tree).layout
    fake = FakeCoordinator(layout=layout)
    plug_in(fake, monkeypatch)
    for _ in rounds(URL, tree, examples=10, state=tmp_path, policy=POLICY):
        for layer in tree["layers"]:
            layer["w"] = layer["w"] + 4.0
    assert np.abs(adapt(tree).read() - expected_model(layout, 2, 4.0)).max() < 1e-4


def test_reported_metrics_go_into_the_masked_sum(tmp_path, monkeypatch):
    plan = msgspec.structs.replace(PLAN, metrics={"accuracy": 1.0, "loss": 9.0})
    fake = FakeCoordinator(plan=plan, rounds=1)
    plug_in(fake, monkeypatch)
    model = arrays()
    for epoch in rounds(URL, model, examples=10, state=tmp_path, policy=POLICY, metrics=lambda: {"loss": 2.5}):
        train(model)
        epoch.report(accuracy=0.9, secret=7.0)
    assert fake.records[0].metrics["accuracy"] == pytest.approx((0.9 + 3 * 0.5) / 4, abs=1e-4)
    assert fake.records[0].metrics["loss"] == pytest.approx((2.5 + 3 * 0.5) / 4, abs=1e-4)
    assert "secret" not in fake.records[0].metrics


def test_a_default_name_comes_from_the_identity(fake, tmp_path):
    for _ in rounds(URL, arrays(), examples=10, state=tmp_path, policy=POLICY):
        pass
    (public, name) = next(iter(fake.enrolled.items()))
    assert name == f"p-{public.hex()[:12]}"
    assert (tmp_path / "identity.pem").exists()


def test_two_names_in_one_directory_are_two_participants(tmp_path, monkeypatch):
    fake = FakeCoordinator(plan=msgspec.structs.replace(PLAN, cohort=5))
    plug_in(fake, monkeypatch)
    other = {"weight": np.zeros(6, np.float32)}  # as many numbers, of another shape: refused in the round
    for name in ("north", "south"):
        with pytest.raises(DataError):
            next(rounds(URL, other, examples=10, name=name, state=tmp_path, policy=POLICY))
    assert sorted(fake.enrolled.values()) == ["north", "south"]
    assert len(fake.enrolled) == 2


def test_an_error_in_the_body_declines_and_propagates(fake, tmp_path):
    def script() -> None:
        for _ in rounds(URL, arrays(), examples=10, state=tmp_path, policy=POLICY):
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        script()
    gc.collect()
    assert reasons(fake) == ["left its training loop"]


def test_break_declines_politely(fake, tmp_path):
    for epoch in rounds(URL, arrays(), examples=10, state=tmp_path, policy=POLICY):
        if epoch == 1:
            break
    gc.collect()
    assert reasons(fake) == ["left its training loop"]
    assert [kind for attempt, kind in fake.kinds() if attempt == 2] == ["Decline"]


def test_an_exception_thrown_in_is_named_by_its_type_only(fake, tmp_path):
    generator = rounds(URL, arrays(), examples=10, state=tmp_path, policy=POLICY)
    next(generator)
    with pytest.raises(ValueError, match="4711"):
        generator.throw(ValueError("patient 4711"))
    assert reasons(fake) == ["training failed: ValueError"]


def test_leaving_does_not_wait_for_a_coordinator_that_is_away(fake, tmp_path):
    generator = rounds(URL, arrays(), examples=10, state=tmp_path, policy=POLICY)
    next(generator)

    def away(request: object) -> None:
        raise httpx.ConnectError("refused")

    fake.before = away
    generator.close()
    assert fake.clock.slept == []


def test_nan_weights_are_named(fake, tmp_path):
    model = arrays()
    generator = rounds(URL, model, examples=10, state=tmp_path, policy=POLICY)
    next(generator)
    model["bias"][1] = np.nan
    with pytest.raises(DataError, match="parameter 'bias' has 1 of 2 elements that are NaN or infinite"):
        next(generator)
    assert reasons(fake) == ["training failed: DataError"]


def test_no_examples_are_refused_before_anything_is_sent(fake, tmp_path):
    with pytest.raises(DataError, match="there are 0 examples to train on; a participant without data can't take part"):
        rounds(URL, arrays(), examples=0, state=tmp_path)
    with pytest.raises(DataError, match="examples is a whole number, not str"):
        rounds(URL, arrays(), examples="ten", state=tmp_path)
    assert (fake.enrolled, list(tmp_path.iterdir())) == ({}, [])


def test_no_examples_of_a_function_decline(fake, tmp_path):
    with pytest.raises(DataError, match="there are 0 examples"):
        for _ in rounds(URL, arrays(), examples=lambda: 0, state=tmp_path, policy=POLICY):
            pass
    assert reasons(fake) == ["training failed: DataError"]


def test_another_architecture_is_named_with_both_shapes(fake, tmp_path):
    model = {"weight": np.zeros((4, 1), np.float32), "bias": np.zeros(2, np.float32)}
    with pytest.raises(DataError, match=r"parameter 'weight' has shape \(4, 1\) here and \(2, 2\) in the federation's"):
        next(rounds(URL, model, examples=10, state=tmp_path, policy=POLICY))
    assert reasons(fake) == ["the announced model does not fit the one that is trained here"]


def test_the_default_policy_refuses_what_hides_nobody(fake, tmp_path):
    with pytest.raises(ConsentError, match=r"the policy has min_corrupt = 0\.05"):
        for _ in rounds(URL, arrays(), examples=10, state=tmp_path):
            pass


def test_a_federation_that_fails_raises(fake, tmp_path):
    fake.state, fake.reason = RunState.FAILED, "nobody came"
    with pytest.raises(RoundFailedError, match="nobody came"):
        list(rounds(URL, arrays(), examples=10, state=tmp_path))


def test_a_federation_that_is_over_gives_its_model(fake, tmp_path):
    list(passes(tmp_path))
    model = arrays()
    assert list(rounds(URL, model, examples=10, state=tmp_path)) == []
    assert np.array_equal(adapt(model).read(), fake.vault.model)


def test_a_known_key_of_the_coordinator_is_required_from_the_start(fake, tmp_path):
    good, bad = fake.identity.public.hex(), "ab" * 32
    assert fake.rounds == len(list(passes(tmp_path / "good", coordinator=good)))
    with pytest.raises(ConsentError, match=f"the coordinator shows the key {good[:16]}, and it was {bad[:16]} before"):
        list(passes(tmp_path / "bad", coordinator=bad))


def passes(folder: Any, **options: Any) -> Any:
    return rounds(URL, arrays(), examples=10, state=folder, policy=POLICY, **options)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"url": "example.org"}, "is not a coordinator's URL"),
        ({"name": "coordinator"}, "'coordinator' can't name a participant"),
        ({"name": "../up"}, "can't name a participant"),
        ({"patience_s": -1.0}, "patience_s is a number of seconds from 0 up, not -1.0"),
        ({"patience_s": float("nan")}, "patience_s is a number of seconds"),
        ({"coordinator": "abc"}, "coordinator is an identity key of 64 hex digits, not 'abc'"),
    ],
)
def test_a_wrong_argument_is_named_at_once(options, why):
    with pytest.raises(ConfigError, match=why):
        rounds(**({"url": URL, "model": arrays(), "examples": 10} | options))


def test_a_token_is_not_shown():
    assert "hush" not in repr(enter.Params(URL, token="hush"))


def test_a_round_counts_like_range():
    epoch = Round(3, rounds=20)
    assert list(range(20))[epoch] == 2
    assert f"{epoch}" == "2"
    epoch.report(accuracy=1)
    assert epoch.metrics == {"accuracy": 1.0}


@pytest.mark.parametrize(
    ("platform", "where"),
    [
        ("linux", ".local/state/ridotto"),
        ("darwin", "Library/Application Support/ridotto"),
        ("win32", "AppData/Local/ridotto"),
    ],
)
def test_state_lies_where_the_platform_keeps_it(tmp_path, platform, where):
    assert enter.default_state_directory(tmp_path, platform) == tmp_path / where


def test_the_default_directory_is_below_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert enter.Params(URL).directory.is_relative_to(tmp_path)


def test_policies_are_what_the_default_says():
    assert enter.Params(URL).policy == Policy()
    assert Layout.of(arrays()).length == 6


def test_is_the_public_name():
    assert ridotto._LAZY["rounds"] == "ridotto.participant.rounds"
