"""Tests of the ray engine on a real cluster of two processors: the same bits, whatever happens to the actors."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ridotto
from ridotto.core.rng import insecure_seeded_rng
from ridotto.errors import ConfigError, DataError
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.rounds.plan import Algorithm, Optimiser, Plan
from ridotto.simulate.clients import Clients
from ridotto.simulate.inline import InlineEngine
from ridotto.simulate.job import Job
from ridotto.simulate.pool import WorkersDiedError
from tests.simulate.federation import PAIRWISE, clients, trainer

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
# One process of a parallel run is enough to start Ray in.
pytestmark = [
    pytest.mark.xdist_group("ray"),
    # Ray starts its processes by fork and exec at once; JAX, if an earlier test has loaded it, can't tell and warns.
    pytest.mark.filterwarnings(r"ignore:os.fork\(\) was called:RuntimeWarning"),
]

both_sums = pytest.mark.parametrize("secure_sum", [pytest.param("machines", marks=pytest.mark.slow), "modelled"])


@pytest.fixture(scope="module")
def ray_at_the_end() -> Iterator[None]:
    yield
    ray.shutdown()


@pytest.fixture
def cluster(ray_at_the_end: None) -> None:
    """Connect to a cluster, as a user does; the engines of all tests share it."""
    if not ray.is_initialized():
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def drawn(count: int = 12) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return clients of different sizes whose labels can be learned."""
    generator = np.random.default_rng(3)
    labels = [generator.integers(3, size=size) for size in generator.integers(3, 40, count)]
    return [(np.eye(3, 5, dtype=np.float32)[y] + generator.normal(0, 0.3, (len(y), 5)).astype("f4"), y) for y in labels]


def network() -> NumpyTrainer:
    return NumpyTrainer((5, 6, 3), seed=1, batch_size=8, epochs=2, learning_rate=0.2)


def learn(engine: str, plan: Plan, **options: Any) -> ridotto.Result:
    workers = {} if engine == "inline" else {"workers": 2}
    settings = {"rounds": 3, "seed": 4, "progress": False, "engine": engine}
    return ridotto.simulate(network(), drawn(), plan, **(workers | settings | options))


def small(train: Any, secure_sum: str, **options: Any) -> ridotto.Result:
    """Simulate the six clients that can be checked by hand."""
    settings = {"rounds": 2, "seed": 1, "progress": False, "secure_sum": secure_sum, "engine": "ray", "workers": 2}
    if options.get("engine") == "inline":
        del settings["workers"]
    return ridotto.simulate(trainer(train), clients(), PAIRWISE, **(settings | options))


@dataclass
class Deadly:
    """Kill the process that trains a client with so many examples: as often as there are fewer marks in the folder."""

    folder: Path
    times: int
    examples: int = 3

    def __call__(self, parameters, data, generator):
        marks = len(list(self.folder.iterdir()))
        if data[1] == self.examples and marks < self.times:
            (self.folder / str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"weight": parameters["weight"] + data[0]}, data[1], {"loss": 0.0}


@pytest.fixture
def ray_engine(cluster: None) -> Iterator[Any]:
    """Make engines, and close them in the end."""
    from ridotto.simulate.ray_engine import RayEngine

    engines = []

    def make(*arguments: Any, **options: Any) -> RayEngine:
        engines.append(RayEngine(*arguments, **options))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def test_starts_ray_and_shuts_it_down_where_the_user_has_no_cluster(ray_at_the_end):
    ray.shutdown()
    plan = Plan(cohort=7, metrics={"loss": 10.0})
    result = learn("ray", plan, secure_sum="modelled", rounds=1)
    assert not ray.is_initialized()
    assert result.digest == learn("inline", plan, rounds=1).digest


@pytest.mark.parametrize(
    ("secure_sum", "batch"), [("machines", 3), pytest.param("modelled", 1, marks=pytest.mark.slow), ("modelled", 3)]
)
def test_gives_the_bits_of_the_inline_engine(cluster, secure_sum, batch):
    plan = Plan(cohort=7, metrics={"loss": 10.0, "accuracy": 1.0}, clip=3.0, max_examples=40)
    expected = learn("inline", plan)
    found = learn("ray", plan, secure_sum=secure_sum, batch=batch)
    assert found.digest == expected.digest
    for column in ("train_loss", "train_accuracy", "participants", "examples", "bytes_up", "bytes_down"):
        assert found.table[column] == expected.table[column]
    assert found.engine == ("ray, 2 actors" if batch == 1 else "ray, 2 actors, 3 clients at once")


@pytest.mark.parametrize(
    ("secure_sum", "name"),
    [("machines", "scaffold"), pytest.param("modelled", "scaffold", marks=pytest.mark.slow), ("modelled", "feddyn")],
)
def test_what_clients_keep_travels_with_them(cluster, secure_sum, name):
    optimiser = Optimiser() if name == "feddyn" else Optimiser(name="fedavgm", parameters={"momentum": 0.5})
    parameters = {"alpha": 0.3} if name == "feddyn" else {}
    plan = Plan(
        cohort=7, metrics={"loss": 10.0}, algorithm=Algorithm(name=name, parameters=parameters), optimiser=optimiser
    )
    assert learn("ray", plan, secure_sum=secure_sum).digest == learn("inline", plan).digest


def test_leaves_the_users_cluster_running_and_nothing_of_its_own_in_it(ray_engine):
    engine = ray_engine(trainer(), Clients.of(clients()), PAIRWISE, insecure_seeded_rng(1), 2)
    assert engine.startup_s > 0
    engine.close()
    engine.close()
    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == 2


def test_a_users_error_keeps_its_type_and_traceback_and_names_client_and_round(ray_engine):
    class UnsendableError(Exception):
        def __init__(self, one: int, other: int) -> None:
            super().__init__(f"{one} {other}")

    def explode(parameters, data, generator):
        # The first of several is raised, as everywhere.
        if data[1] in (3, 4):
            raise ZeroDivisionError("in the user's code")
        if data[1] == 6:
            raise UnsendableError(1, 2)
        return parameters, data[1], {"loss": 0.0}

    engine = ray_engine(trainer(explode), Clients.of(clients()), PAIRWISE, insecure_seeded_rng(1), 2)
    update = engine.updates(job_of(6))
    for ask in (lambda: engine.sum(job_of(6)), lambda: update(2)):
        with pytest.raises(ZeroDivisionError, match="in the user's code") as caught:
            ask()
        shown = "".join(traceback.format_exception(caught.value))
        assert "in explode" in shown
        assert "This happened while client-2 was training in round 1." in shown
    with pytest.raises(RuntimeError, match="UnsendableError: 1 2") as caught:
        update(5)
    shown = "".join(traceback.format_exception(caught.value))
    assert "in explode" in shown
    assert "This happened while client-5 was training in round 1." in shown
    assert update(0).examples == 1


@both_sums
def test_clients_that_fail_can_be_dropped_and_are_counted(cluster, secure_sum):
    def explode(parameters, data, generator):
        if data[1] == 3:
            raise DataError("no good")
        return parameters, data[1], {"loss": 0.0}

    result = small(explode, secure_sum, on_client_error="drop")
    assert result.table["participants"] == [5, 5]
    assert result.table["dropped"][0].startswith("client-2: no good")


@both_sums
def test_an_actor_that_is_killed_costs_nothing(cluster, tmp_path, secure_sum):
    calm = small(Deadly(tmp_path, 0), "modelled", engine="inline")
    shaken = small(Deadly(tmp_path, 1), secure_sum)
    assert len(list(tmp_path.iterdir())) == 1
    assert shaken.digest == calm.digest
    assert shaken.table["participants"] == [6, 6]


def test_a_client_that_kills_actors_again_and_again_is_named(cluster, tmp_path):
    with pytest.raises(DataError, match=r"client-2, round 1: its training killed the Ray actor"):
        small(Deadly(tmp_path, 99), "modelled")


@both_sums
def test_a_client_that_kills_actors_again_and_again_can_be_dropped(cluster, tmp_path, secure_sum):
    result = small(Deadly(tmp_path, 99), secure_sum, rounds=1, on_client_error="drop")
    assert result.table["participants"] == [5]
    assert "client-2: its training killed" in result.table["dropped"][0]


def many(tmp_path: Path, times: int) -> tuple[Any, ...]:
    """Return what an engine is made of: a hundred clients, in pieces of several, of which the 61st is deadly."""
    plan = Plan(cohort=100, max_examples=100)
    return trainer(Deadly(tmp_path, times, 61)), Clients.of(clients(100)), plan, insecure_seeded_rng(1)


def job_of(count: int, drop: bool = False) -> Job:
    return Job(1, np.zeros(3, np.float32), np.arange(count), np.arange(count), drop=drop)


def test_what_a_lost_actor_had_done_is_done_again(ray_engine, tmp_path):
    inline, engine = InlineEngine(*many(tmp_path, 0)), ray_engine(*many(tmp_path, 1), workers=2)
    for _ in range(2):
        np.testing.assert_array_equal(engine.sum(job_of(100)).total, inline.sum(job_of(100)).total)
        assert engine.done() == 100
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_deadly_client_is_found_among_many(ray_engine, tmp_path):
    engine = ray_engine(*many(tmp_path, 99), workers=2)
    answer = engine.sum(job_of(100, drop=True))
    assert list(answer.dropped) == [60]
    others = Job(1, np.zeros(3, np.float32), *[np.delete(np.arange(100), 60)] * 2)
    np.testing.assert_array_equal(answer.total, InlineEngine(*many(tmp_path, 0)).sum(others).total)
    assert len(list(tmp_path.iterdir())) <= 3


def test_an_actor_may_be_lost_with_its_finished_sum_or_between_rounds(ray_engine, tmp_path, monkeypatch):
    inline, engine = InlineEngine(*many(tmp_path, 0)), ray_engine(*many(tmp_path, 0), workers=2)
    members = engine._crew.members
    collect = engine._collect

    def collect_late(work: Any) -> float:
        monkeypatch.undo()
        ray.kill(members[0].actor)
        return collect(work)

    monkeypatch.setattr(engine, "_collect", collect_late)
    np.testing.assert_array_equal(engine.sum(job_of(100)).total, inline.sum(job_of(100)).total)
    ray.kill(members[1].actor)
    np.testing.assert_array_equal(engine.sum(job_of(100)).total, inline.sum(job_of(100)).total)


@pytest.mark.slow
def test_actors_that_are_lost_everywhere_are_blamed_on_the_machine(ray_engine):
    def die(parameters, data, generator):
        os._exit(3)

    engine = ray_engine(trainer(die), Clients.of(clients(60)), Plan(cohort=60), insecure_seeded_rng(1), 2)
    with pytest.raises(WorkersDiedError, match=r"round 1: Ray actors were lost .*training client-.*enough memory"):
        engine.sum(job_of(60, drop=True))


def test_refuses_what_can_not_be_sent_and_more_actors_than_processors(ray_engine):
    rng = insecure_seeded_rng(1)
    with pytest.raises(ConfigError, match=r"can't be sent to other processes: .*generator"):
        ray_engine(trainer(), Clients.of([(one for one in ())]), PAIRWISE, rng, 2)
    with pytest.raises(ConfigError, match="3 Ray actors need 3 processors, and the cluster has 2"):
        ray_engine(trainer(), Clients.of(clients()), PAIRWISE, rng, 3)
