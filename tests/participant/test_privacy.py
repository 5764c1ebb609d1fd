"""Differential privacy on a participant's side: noise that is used once, and an account that nobody talks down."""

from __future__ import annotations

import sys

import msgspec
import numpy as np
import pytest

from ridotto.core.rng import OsRng
from ridotto.errors import ConfigError, ConsentError, MissingExtraError, PeerProtocolError, StorageError
from ridotto.learn.adapt import adapt
from ridotto.learn.trainer import Correction
from ridotto.participant.events import Event, EventKind, Spent
from ridotto.participant.rounds import follow
from ridotto.privacy.account import Accountant
from ridotto.privacy.event import NoPrivacyEvent, Relation, Repeated
from ridotto.rounds.plan import Algorithm, DistributedGaussian, Pairwise, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.private import round_event
from ridotto.rounds.settings import BandedGaussian
from tests.participant.bench import Bench, StepTrainer, take_part
from tests.participant.fake import LAYOUT, PLAN, FakeCoordinator
from tests.participant.test_kills import Killed, Steps

DELTA = 1e-6


def private_plan(noise_multiplier: float = 4.0, **changes) -> Plan:
    dp = DistributedGaussian(noise_multiplier=noise_multiplier, delta=DELTA)
    settings = {"cohort": 4, "minimum": 3, "protocol": Pairwise(corrupt=0.0), "i_know": ("small-cohort",)}
    return Plan(**(settings | {"clip": 1.0, "max_examples": 1, "dp": dp} | changes))


EVENT = round_event(private_plan(), LAYOUT.length)


def epsilon_of(rounds: int) -> float:
    return Accountant(Relation.ZERO_OUT, [Repeated(EVENT, rounds)]).epsilon(DELTA)


class Fickle(StepTrainer):
    """Train to something else at every call, as programs do that draw from elsewhere."""

    def train(self, vector, data, rng):
        self.step = 4.0 + self.calls
        return super().train(vector, data, rng)


def run(folder, monkeypatch, kill_at: tuple[int, ...] = (), trainer: StepTrainer | None = None) -> tuple:
    """Take part in two rounds; return coordinator, state and how many steps there were."""
    fake, steps = FakeCoordinator(plan=private_plan()), Steps(kill_at)
    with monkeypatch.context() as patch:
        steps.watch(fake, patch)
        while True:
            try:
                take_part(Bench(folder, fake), trainer or StepTrainer())
                break
            except Killed:
                continue
    with Bench(folder, fake).state() as state:
        return fake, state, steps.count


# Noise.


def test_kills_change_neither_the_noise_nor_the_count(tmp_path, monkeypatch):
    quiet, state, count = run(tmp_path / "0", monkeypatch)
    assert state.spent == (Repeated(EVENT, 2),)
    for at in range(1, count, 9):
        fake, state, _ = run(tmp_path / str(at), monkeypatch, (at, at + 3))
        assert fake.vault.model_bytes == quiet.vault.model_bytes, f"killed at step {at}"
        assert state.spent == (Repeated(EVENT, 2),), f"killed at step {at}"


def test_words_never_meet_a_second_update(tmp_path, monkeypatch):
    """Two vectors under the same noise would show their difference; so training that ends differently is too late."""
    _, _, count = run(tmp_path / "0", monkeypatch)
    for at in range(1, count, 10):
        fake, _, _ = run(tmp_path / str(at), monkeypatch, (at,), Fickle())
        assert fake.different() == [], f"killed at step {at}"


def test_the_operating_system_gives_every_attempt_other_noise(tmp_path):
    models = []
    for folder in ("one", "two"):
        fake = FakeCoordinator(plan=private_plan())
        take_part(Bench(tmp_path / folder, fake), rng=OsRng())
        models.append(fake.vault.model)
    assert not np.array_equal(*models)


# The account.


def test_an_update_counts_from_the_moment_at_which_it_could_be_sent(tmp_path):
    fake = FakeCoordinator(plan=private_plan(), rounds=1)
    seen = []

    def look(request):
        if request.url.path.endswith("messages") and not seen:
            seen.append(bench_state.spent)
            raise Killed

    fake.before = look
    bench = Bench(tmp_path, fake)
    with bench.client() as client, bench.state() as bench_state:
        participation = bench.participation(client, bench_state)
        participation.start()
        task = participation.next_task()
        assert bench_state.spent == ()
        with pytest.raises(Killed):
            participation.submit(np.ones(LAYOUT.length, np.float32), 10, {})
    assert seen == [(Repeated(EVENT, 1),)]
    assert task is not None
    fake.before = lambda request: None
    take_part(bench)
    with bench.state() as state:
        assert state.spent == (Repeated(EVENT, 1),)


def test_goes_no_further_than_its_own_limit_whatever_the_plan_says(tmp_path):
    limit = (epsilon_of(2) + epsilon_of(3)) / 2
    policy = Policy(min_corrupt=0.0, i_know=("small-cohort",), max_delta=DELTA, max_epsilon=limit)
    fake, trainer, events = FakeCoordinator(plan=private_plan(), rounds=9), StepTrainer(), []
    bench = Bench(tmp_path, fake, policy=policy)
    with pytest.raises(ConsentError, match=r"after 2 rounds, one more makes epsilon .* by my own count"):
        take_part(bench, trainer, on_event=events.append)
    assert trainer.calls == 2
    closed = [event.spent for event in events if event.kind == EventKind.CLOSED]
    assert closed == [Spent(number, epsilon_of(number), DELTA, limit) for number in (1, 2)]
    # The count is on the disk: another process of the same participant is refused at once.
    fake.begin()
    with pytest.raises(ConsentError, match="after 2 rounds"):
        take_part(bench, trainer)
    assert trainer.calls == 2


def test_a_round_without_noise_counts_as_no_protection(tmp_path):
    fake = FakeCoordinator(rounds=1)
    summary = take_part(Bench(tmp_path, fake))
    assert summary.spent is None, "nobody asked about differential privacy"
    with Bench(tmp_path, fake).state() as state:
        assert state.spent == (Repeated(NoPrivacyEvent(), 1),)
    earlier, fake = fake.attempt, FakeCoordinator(plan=private_plan())
    fake.attempt = earlier
    policy = Policy(min_corrupt=0.0, i_know=("small-cohort",), max_delta=DELTA, max_epsilon=1000.0)
    with pytest.raises(ConsentError, match="after 1 rounds, one more makes epsilon inf"):
        take_part(Bench(tmp_path, fake, policy=policy))


# Answers of metrics are counted as pure mechanisms, which takes dp-accounting beside noise.
ANSWERS = DistributedGaussian(noise_multiplier=4.0, delta=DELTA, metrics_epsilon=0.5)


def test_a_limit_that_can_not_be_counted_here_is_found_out_before_a_token_is_spent(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    fake = FakeCoordinator(plan=private_plan(dp=ANSWERS, metrics={"loss": 1.0}))
    policy = Policy(min_corrupt=0.0, i_know=("small-cohort",), max_delta=DELTA, max_epsilon=90.0)
    with pytest.raises(MissingExtraError, match=r"pip install 'ridotto\[dp\]'"):
        take_part(Bench(tmp_path, fake, policy=policy))
    assert fake.enrolled == {}


def test_without_a_limit_what_can_not_be_counted_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    fake = FakeCoordinator(plan=private_plan(dp=ANSWERS, metrics={"loss": 1.0}), rounds=1)
    assert take_part(Bench(tmp_path, fake)).spent is None
    with Bench(tmp_path, fake).state() as state:
        assert state.spent == (Repeated(round_event(fake.plan, LAYOUT), 1),)


def test_a_plan_that_nobody_can_count_is_the_coordinators_fault(tmp_path):
    banded = BandedGaussian(noise_multiplier=4.0, delta=DELTA, bands=2, participations=1, separation=2)
    fake, trainer = FakeCoordinator(plan=PLAN, rounds=9), StepTrainer()
    fake.plan = private_plan(dp=banded)
    with pytest.raises(PeerProtocolError, match="banded-gaussian needs somebody to keep every participant"):
        take_part(Bench(tmp_path, fake), trainer)
    assert trainer.calls == 0


def test_a_loop_of_ones_own_sees_what_was_spent(tmp_path):
    bench, seen = Bench(tmp_path, FakeCoordinator(plan=private_plan())), []
    model = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    with bench.client() as client, bench.state() as state:
        participation = bench.participation(client, state)
        participation.start()
        for this in follow(participation, adapt(model), 10):
            seen.append(this.spent)
    assert seen == [Spent(number, epsilon_of(number) if number else 0.0, DELTA, None) for number in (0, 1)]


def test_what_was_spent_is_said_at_the_end(tmp_path):
    summary = take_part(Bench(tmp_path, FakeCoordinator(plan=private_plan())))
    assert summary.spent == Spent(2, epsilon_of(2), DELTA, None)
    assert str(Spent(1, 1.23401, 1e-6, 8.0)) == "epsilon 1.235 of 8 at delta 1e-06 (zero-out) after 1 round"
    assert str(Spent(3, float("inf"), 1e-6, None)) == "epsilon infinite at delta 1e-06 (zero-out) after 3 rounds"


def test_a_training_that_a_budget_ends_early_ends_in_order(tmp_path):
    fake, events = FakeCoordinator(plan=private_plan(), rounds=9, stop_after=2), list[Event]()
    summary = take_part(Bench(tmp_path, fake), on_event=events.append)
    assert np.array_equal(summary.model, fake.vault.model)
    assert (events[-1].kind, events[-1].reason) == (EventKind.DONE, "the privacy budget is spent")


def test_a_damaged_count_is_noticed(tmp_path):
    bench = Bench(tmp_path, FakeCoordinator(plan=private_plan()))
    take_part(bench)
    with bench.state() as state:
        path = state.path
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="is damaged at byte"):
        bench.state()


# Algorithms that bend local steps.

FEDPROX = Algorithm(name="fedprox", parameters={"mu": 0.5})


class Steerable(StepTrainer):
    learning_rate = 0.1

    def train(self, vector, data, rng, correction=None):
        self.correction = correction
        return super().train(vector, data, rng)


def test_a_trainer_is_bent_as_the_plan_says(tmp_path):
    fake, trainer = FakeCoordinator(plan=private_plan(algorithm=FEDPROX)), Steerable()
    take_part(Bench(tmp_path, fake), trainer)
    assert trainer.correction == Correction(pull=0.5)


def test_a_trainer_that_can_not_be_bent_declines(tmp_path):
    fake, trainer = FakeCoordinator(plan=private_plan(algorithm=FEDPROX)), StepTrainer()
    with pytest.raises(ConfigError, match="bends the steps of plain SGD, and StepTrainer does not let it"):
        take_part(Bench(tmp_path, fake), trainer)
    assert (fake.kinds(), trainer.calls) == ([(1, "Decline")], 0)


def test_a_loop_of_ones_own_can_not_be_bent(tmp_path):
    fake = FakeCoordinator(plan=private_plan(algorithm=FEDPROX))
    bench = Bench(tmp_path, fake)
    model = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
    with bench.client() as client, bench.state() as state:
        participation = bench.participation(client, state)
        participation.start()
        with pytest.raises(ConfigError, match="a loop of your own takes its steps itself"):
            next(follow(participation, adapt(model), 10))
    assert fake.kinds() == [(1, "Decline")]


def test_an_algorithm_that_no_coordinator_serves_is_not_trained(tmp_path):
    fake, trainer = FakeCoordinator(plan=PLAN, rounds=9), StepTrainer()
    fake.plan = msgspec.structs.replace(PLAN, algorithm=Algorithm(name="scaffold"))
    with pytest.raises(PeerProtocolError, match="its plan's algorithm is scaffold, which takes a simulation"):
        take_part(Bench(tmp_path, fake), trainer)
    assert trainer.calls == 0
