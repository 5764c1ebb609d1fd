"""Tests of the driver: a kill between any two steps changes nothing."""

from __future__ import annotations

import httpx
import msgspec
import numpy as np
import pytest

from ridotto.learn.adapt import adapt
from ridotto.participant.rounds import follow
from ridotto.participant.state import StateFile
from ridotto.rounds.plan import Committee, Plan
from tests.participant.bench import Bench, StepTrainer, take_part
from tests.participant.fake import ME, PLAN, FakeCoordinator


class Killed(BaseException):
    """What stands for SIGKILL: nothing of ours may catch it."""


# Kills. The seed of an attempt is the same in all runs here, so results can be compared bit for bit.


class Steps:
    """Count everything that reaches the disk or the network, and kill the process at chosen counts."""

    def __init__(self, kill_at: tuple[int, ...] = ()) -> None:
        self.count, self.kill_at = 0, kill_at

    def tick(self, *_: object) -> None:
        self.count += 1
        if self.count in self.kill_at:
            raise Killed

    def watch(self, fake: FakeCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        fake.before = fake.after = self.tick
        append, replace = StateFile._append, StateFile._replace

        def counted_append(state, records):
            self.tick()
            size = state.path.stat().st_size
            append(state, records)
            try:
                self.tick()
            except Killed:
                # Half a record: the process died while it wrote.
                with state.path.open("r+b") as file:
                    file.truncate((size + state.path.stat().st_size) // 2)
                raise
            self.tick()

        def counted_replace(state, header):
            self.tick()
            replace(state, header)
            self.tick()

        monkeypatch.setattr(StateFile, "_append", counted_append)
        monkeypatch.setattr(StateFile, "_replace", counted_replace)


def run_with_kills(
    folder, monkeypatch, kill_at: tuple[int, ...], plan: Plan = PLAN
) -> tuple[bytes, FakeCoordinator, int, int]:
    fake, trainer = FakeCoordinator(plan=plan), StepTrainer()
    steps = Steps(kill_at)
    with monkeypatch.context() as patch:
        steps.watch(fake, patch)
        kills = 0
        while True:
            try:
                summary = take_part(Bench(folder, fake), trainer)
            except Killed:
                kills += 1
                continue
            assert kills == len([at for at in kill_at if at <= steps.count])
            assert np.array_equal(summary.model, fake.vault.model)
            return fake.vault.model_bytes, fake, steps.count, trainer.calls


def test_a_kill_between_any_two_steps_changes_nothing(tmp_path, monkeypatch):
    model, fake, count, _ = run_with_kills(tmp_path / "0", monkeypatch, ())
    included = [record.sessions[0].included for record in fake.records]
    assert count > 60
    for at in range(1, count + 1):
        again, killed, _, trainings = run_with_kills(tmp_path / str(at), monkeypatch, (at,))
        assert again == model, f"killed at step {at}"
        assert killed.different() == []
        assert [record.sessions[0].included for record in killed.records] == included
        assert trainings <= 3


def test_a_kill_changes_nothing_where_secrets_are_encapsulated(tmp_path, monkeypatch):
    """The library draws them, and no seed does: what was written down is handed to the machine again, and sent again.

    `different` is empty: nobody saw two contributions, although encapsulating twice gives two ciphertexts.
    """
    protocol = Committee(corrupt=0.0, replicas=1, seal="hybrid")
    plan = msgspec.structs.replace(PLAN, protocol=protocol)
    model, fake, count, _ = run_with_kills(tmp_path / "0", monkeypatch, (), plan)
    assert [kind for _, kind in fake.kinds()] == ["MaskedVector"] * 2
    included = [record.sessions[0].included for record in fake.records]
    for at in range(1, count + 1):
        again, killed, _, _ = run_with_kills(tmp_path / str(at), monkeypatch, (at,), plan)
        assert again == model, f"killed at step {at}"
        assert killed.different() == [], f"killed at step {at}"
        assert [record.sessions[0].included for record in killed.records] == included


def test_two_kills_change_nothing_either(tmp_path, monkeypatch):
    model, _, count, _ = run_with_kills(tmp_path / "0", monkeypatch, ())
    for at in range(1, count, 7):
        again, killed, _, _ = run_with_kills(tmp_path / str(at), monkeypatch, (at, at + 4))
        assert again == model, f"killed at step {at} and again"
        assert killed.different() == []


def test_training_is_not_repeated_once_its_result_is_written_down(tmp_path):
    fake, trainer = FakeCoordinator(rounds=1), StepTrainer()

    def kill(request: httpx.Request) -> None:
        if request.url.path.endswith("messages"):
            raise Killed

    fake.before = kill
    with pytest.raises(Killed):
        take_part(Bench(tmp_path, fake), trainer)
    fake.before = lambda request: None
    take_part(Bench(tmp_path, fake), trainer)
    assert trainer.calls == 1


def test_a_participant_that_was_away_for_a_whole_attempt_takes_part_in_the_next(tmp_path):
    fake = FakeCoordinator(rounds=2)

    def kill(request: httpx.Request) -> None:
        if request.url.path.endswith("models/" + fake.vault.model_digest.hex()):
            raise Killed

    fake.before = kill
    with pytest.raises(Killed):
        take_part(Bench(tmp_path, fake))
    fake.before = lambda request: None
    fake._let_something_happen(1, len(fake.frames))
    assert fake.machine is None, "the others finished the first round alone"
    fake.begin()
    summary = take_part(Bench(tmp_path, fake))
    assert [(report.attempt, report.outcome) for report in summary.rounds] == [(1, "lost"), (2, "closed")]
    assert ME in fake.records[-1].sessions[0].included


def test_a_loop_of_ones_own_does_not_run_again_what_it_has_finished(tmp_path):
    fake, epochs = FakeCoordinator(), []

    def script() -> np.ndarray:
        model = {"weight": np.zeros((2, 2), np.float32), "bias": np.zeros(2, np.float32)}
        bench = Bench(tmp_path, fake)
        with bench.client() as client, bench.state() as state:
            participation = bench.participation(client, state)
            participation.start()
            for epoch in follow(participation, adapt(model), 10):
                epochs.append(int(epoch))
                for array in model.values():
                    array += 4.0
        return adapt(model).read()

    def kill(request: httpx.Request) -> None:
        if request.url.path.endswith("messages") and len(fake.heard) == 2:
            raise Killed

    fake.before = kill
    with pytest.raises(Killed):
        script()
    fake.before = lambda request: None
    assert np.array_equal(script(), fake.vault.model)
    assert epochs == [0, 1]
