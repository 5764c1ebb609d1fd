"""What an operator may ask for, and what is left of a strategy when it is written down."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

from ridotto.coordinator.states import read_state, write_state
from ridotto.coordinator.watchers import BACKLOG, EventKind, Watchers, heard, make_event
from ridotto.errors import ConfigError, PlanError, StorageError
from ridotto.rounds.compression import ErrorFeedback, Sample
from ridotto.rounds.plan import Algorithm, Ideal, Oneshot, Risk
from ridotto.rounds.robustness import Robust
from tests.coordinator.bench import make_plan, make_settings


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": ""}, "name has 1 to 200 characters"),
        ({"rounds": 0}, "rounds is at least 1, not 0"),
        ({"max_failures": 0}, "max_failures is at least 1"),
        ({"presence_s": 0.0}, "presence_s is above 0"),
        ({"allowed": {"self": "0" * 64}}, "'self' can't name a participant"),
        ({"allowed": {"a b": "0" * 64}}, "'a b' can't name a participant"),
        ({"allowed": {"anna": "F" * 64}}, "the identity key of anna is not 64 lower-case hex digits"),
    ],
)
def test_refuses_impossible_settings(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_settings(**change)  # type: ignore[arg-type]


def test_serves_no_plan_for_which_something_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(private: bytes) -> None:
        raise UnsupportedAlgorithm("ML-KEM-768 is not supported by this backend.")

    plan = make_plan(protocol=Oneshot(corrupt=0.0, seal="hybrid"), i_know=(Risk.SMALL_COHORT,))
    assert make_settings(plan).plan == plan
    monkeypatch.setattr(MLKEM768PrivateKey, "from_seed_bytes", refuse)
    with pytest.raises(ConfigError, match=r"ML-KEM-768 is needed .* pip install"):
        make_settings(plan)


def test_refuses_an_algorithm_that_participants_are_not_told_about() -> None:
    plan = make_plan(algorithm=Algorithm(name="scaffold"))
    with pytest.raises(
        PlanError, match="scaffold can only be simulated so far; a coordinator serves fedavg and fedprox"
    ):
        make_settings(plan)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            {"compress": (Sample(0.5, scaled=False), ErrorFeedback()), "clip": 1.0},
            "error feedback can only be simulated so far",
        ),
        (
            {
                "robust": Robust("fltrust"),
                "clip": 1.0,
                "max_examples": 1,
                "protocol": Ideal(),
                "i_know": ("no-protection",),
            },
            "fltrust can only be simulated so far: a coordinator has no data",
        ),
    ],
)
def test_refuses_what_takes_a_memory_or_data_that_nobody_has_here(change: dict[str, object], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        make_settings(make_plan(**change))


def test_serves_an_algorithm_that_bends_steps_only() -> None:
    assert make_settings(make_plan(algorithm=Algorithm(name="fedprox", parameters={"mu": 1.0}))).rounds == 1


def test_a_state_can_be_read_back() -> None:
    state = {"second": np.array([1.5, -2.0], np.float32), "first": np.zeros(2, np.float32), "clip": np.array([0.1])}
    data = write_state(state)
    assert data == write_state(dict(reversed(state.items())))
    again = read_state(data)
    assert {name: list(values) for name, values in again.items()} == {name: list(state[name]) for name in state}
    assert {name: values.dtype for name, values in again.items()} == {name: state[name].dtype for name in state}


@pytest.mark.parametrize("data", [b"\xc1", msgspec.msgpack.encode({"first": b"xyz"}), msgspec.msgpack.encode([1])])
def test_a_state_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(StorageError, match="strategy's state can't be read"):
        read_state(data)


async def test_a_slow_watcher_loses_the_oldest_events() -> None:
    watchers = Watchers()
    with watchers.watch() as queue:
        for number in range(BACKLOG + 10):
            watchers.show(make_event(EventKind.PROGRESS, number))
        watchers.close()
        seen = [event.data async for event in heard(queue, 1.0) if event is not None]
    assert seen == [b"%d" % number for number in range(11, BACKLOG + 10)]


async def test_a_silent_watch_beats_its_heart() -> None:
    with Watchers().watch() as queue:
        async for event in heard(queue, 0.01):
            assert event is None
            break
    await asyncio.sleep(0)
