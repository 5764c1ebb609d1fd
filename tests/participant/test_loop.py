"""Tests of the driver: whole federations, kills between any two steps, lost answers, refusals."""

from __future__ import annotations

import logging

import httpx
import msgspec
import numpy as np
import pytest

from ridotto.core.vector import Layout
from ridotto.core.wire import Message
from ridotto.errors import (
    ConsentError,
    DataError,
    LocalProtocolError,
    PeerProtocolError,
    RefusedError,
    RoundFailedError,
    UnreachableError,
)
from ridotto.learn.trainer import LocalResult
from ridotto.participant.events import Event, EventKind, Fault, Summary
from ridotto.participant.join import run
from ridotto.participant.state import StateFile
from ridotto.rounds.messages import Announce, Closed, Decline
from ridotto.rounds.plan import Ideal, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.service import RunState
from ridotto.secagg.messages import Consistency, KeyBook
from tests.participant.fake import LAYOUT, ME, PLAN, Bench, FakeCoordinator, expected_model, key, problem


class Killed(BaseException):
    """What stands for SIGKILL: nothing of ours may catch it."""


class StepTrainer:
    """Move every entry by `step`, on 10 examples."""

    def __init__(self, step: float = 4.0, layout: Layout = LAYOUT) -> None:
        self.step, self._layout, self.calls = step, layout, 0

    @property
    def layout(self):
        return self._layout

    def initial(self):
        return np.zeros(self._layout.length, np.float32)

    def train(self, vector, data, rng):
        self.calls += 1
        return LocalResult(vector + np.float32(self.step), 10, {"loss": 0.5})

    def evaluate(self, vector, data):
        return {}


def take_part(bench: Bench, trainer: StepTrainer | None = None, **options) -> Summary:
    with bench.client(**options.pop("client", {})) as client, bench.state() as state:
        participation = bench.participation(client, state, **options)
        participation.start()
        return run(participation, trainer or StepTrainer(), None)


def test_takes_part_until_all_rounds_are_over(tmp_path):
    bench = Bench(tmp_path)
    summary = take_part(bench)
    assert np.abs(summary.model - expected_model(LAYOUT, 2, 4.0)).max() < 1e-4
    assert summary.model_digest == bench.fake.vault.model_digest
    assert [report.outcome for report in summary.rounds] == [EventKind.CLOSED, EventKind.CLOSED]
    assert [ME in record.sessions[0].included for record in bench.fake.records] == [True, True]
    steps = ["PublicKeys", "SealedShares", "Masked", "Consistency", "Unmask"]
    assert bench.fake.kinds() == [(attempt, kind) for attempt in (1, 2) for kind in steps]


def test_counts_bytes_of_every_round_and_in_total(tmp_path):
    summary = take_part(Bench(tmp_path))
    assert all(report.sent_bytes > 500 and report.received_bytes > 500 for report in summary.rounds)
    assert summary.sent_bytes >= sum(report.sent_bytes for report in summary.rounds)
    assert summary.received_bytes >= sum(report.received_bytes for report in summary.rounds)


def test_tells_whoever_watches(tmp_path):
    events: list[Event] = []
    take_part(Bench(tmp_path, FakeCoordinator(rounds=1)), on_event=events.append)
    kinds = [event.kind for event in events]
    assert kinds == ["waiting", "training", *["sending"] * 5, "closed", "done"]
    masked = next(event for event in events if event.message == "Masked")
    assert (masked.round, masked.attempt) == (1, 1)
    assert masked.size_bytes > 4 * LAYOUT.length


def test_secrets_of_a_round_are_gone_when_it_is_over(tmp_path):
    bench = Bench(tmp_path)
    take_part(bench)
    with bench.state() as state:
        assert (state.seed, state.frames, state.result) == (None, (), None)
        assert b"s" * 32 not in state.path.read_bytes()


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


def run_with_kills(folder, monkeypatch, kill_at: tuple[int, ...]) -> tuple[bytes, FakeCoordinator, int, int]:
    fake, trainer = FakeCoordinator(), StepTrainer()
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


# Networks that lose things.


def test_lost_answers_are_asked_for_again_and_do_no_harm(tmp_path):
    fake, seen = FakeCoordinator(), set()

    def lose_once(request: httpx.Request) -> None:
        call = (request.method, str(request.url))
        if call not in seen:
            seen.add(call)
            raise httpx.ReadError("connection reset")

    fake.after = lose_once
    summary = take_part(Bench(tmp_path, fake))
    assert np.abs(summary.model - expected_model(LAYOUT, 2, 4.0)).max() < 1e-4
    assert fake.different() == []
    assert len(fake.heard) > 10, "messages were sent twice"


def test_an_unreachable_coordinator_leaves_the_open_round_to_the_next_start(tmp_path):
    fake, trainer = FakeCoordinator(rounds=1), StepTrainer()

    def unplug(request: httpx.Request) -> None:
        if request.url.path.endswith("messages") and len(fake.heard) == 2:
            raise httpx.ConnectError("connection refused")

    fake.before = unplug
    with pytest.raises(UnreachableError):
        take_part(Bench(tmp_path, fake), trainer)
    fake.before = lambda request: None
    take_part(Bench(tmp_path, fake), trainer)
    assert trainer.calls == 1
    assert ME in fake.records[0].sessions[0].included


# Refusals, in both directions.


def test_the_policy_refuses_and_the_coordinator_is_told(tmp_path):
    bench = Bench(tmp_path, policy=Policy(min_corrupt=0.0, min_participants=4))
    with pytest.raises(ConsentError, match=r"a sum of 3 may be opened; the policy has min_participants = 4"):
        take_part(bench)
    (attempt, message) = bench.fake.heard[-1]
    assert isinstance(message, Decline)
    assert attempt == 1
    with bench.state() as state:
        assert state.seed is None


def test_an_unprotected_round_is_refused_by_default(tmp_path):
    plan = Plan(cohort=4, minimum=3, protocol=Ideal(), i_know=("no-protection",))
    bench = Bench(tmp_path, FakeCoordinator(plan=plan), policy=Policy())
    with pytest.raises(ConsentError, match='the protocol is "ideal"'):
        take_part(bench)


def test_a_changed_coordinator_key_is_refused_with_both_keys(tmp_path):
    take_part(Bench(tmp_path))
    other = FakeCoordinator(identity=key("somebody else"))
    with pytest.raises(ConsentError) as caught:
        take_part(Bench(tmp_path, other))
    assert str(caught.value).startswith(
        f"the coordinator shows the key {key('somebody else').public.hex()[:16]}, and it was "
        f"{key('coordinator').public.hex()[:16]} before: somebody may stand between"
    )
    assert other.enrolled == {}


def test_not_being_enrolled_is_an_error_with_the_coordinators_reason(tmp_path):
    with pytest.raises(RefusedError) as caught:
        take_part(Bench(tmp_path, FakeCoordinator(token="only once")))
    assert str(caught.value) == (
        "the coordinator at http://coordinator.test refuses this participant: the token is unknown or was used before"
    )


def test_an_announcement_that_is_not_signed_is_left_alone_and_the_third_ends_it(tmp_path, caplog):
    fake = FakeCoordinator(rounds=5)

    def forge(message: Message) -> Message:
        return Announce(message.plan, message.session, bytes(64)) if isinstance(message, Announce) else message

    fake.tamper = forge
    with caplog.at_level(logging.WARNING), pytest.raises(PeerProtocolError, match="not signed with the coordinator"):
        take_part(Bench(tmp_path, fake))
    assert fake.heard == []
    assert fake.attempt == 3
    assert "round 1, attempt 1 goes on without this participant" in caplog.text


def test_one_broken_attempt_is_followed_by_the_next(tmp_path):
    fake = FakeCoordinator(rounds=3)
    broken = {2}

    def spoil(message: Message) -> Message:
        if isinstance(message, KeyBook) and fake.attempt in broken:
            return KeyBook(message.sid, message.entries[::-1])
        return message

    fake.tamper = spoil
    summary = take_part(Bench(tmp_path, fake))
    assert [report.outcome for report in summary.rounds] == ["closed", "lost", "closed"]
    assert summary.rounds[1].reason == "coordinator: its key book is not a sorted list of members"
    assert (2, "SealedShares") not in fake.kinds()


def test_random_bytes_for_a_frame_are_the_coordinators_fault(tmp_path):
    fake = FakeCoordinator(rounds=9)
    original = fake.codec.header
    fake.codec.header = lambda message: b"\x01garbage" if isinstance(message, Announce) else original(message)
    with pytest.raises(PeerProtocolError, match="does not fit its frame"):
        take_part(Bench(tmp_path, fake))


def test_a_message_that_is_refused_costs_the_attempt_and_three_end_it(tmp_path):
    fake = FakeCoordinator(rounds=9)
    answer = fake.answer
    fake.answer = lambda request: (
        problem(409, "its PublicKeys came too late") if request.url.path == "/v1/messages" else answer(request)
    )
    with pytest.raises(RefusedError) as caught:
        take_part(Bench(tmp_path, fake))
    assert str(caught.value) == "the coordinator refuses what was asked: its PublicKeys came too late"
    assert fake.attempt == 3


def test_an_attempt_that_is_over_before_the_answer_is_not_an_error(tmp_path):
    fake = FakeCoordinator(rounds=2)
    answer, late = fake.answer, {1}
    fake.answer = lambda request: (
        problem(410, "this attempt is over")
        if request.url.path == "/v1/messages" and fake.attempt in late
        else answer(request)
    )
    summary = take_part(Bench(tmp_path, fake))
    assert [(report.outcome, report.reason) for report in summary.rounds] == [
        ("lost", "the attempt is over: this attempt is over"),
        ("closed", ""),
    ]


def test_a_failed_round_is_reported_and_tried_again(tmp_path):
    fake = FakeCoordinator(rounds=1)
    fake.silent_from = Consistency
    events: list[Event] = []

    def heal(event: Event) -> None:
        events.append(event)
        if event.kind == EventKind.CLOSED:
            fake.silent_from = None

    summary = take_part(Bench(tmp_path, fake), on_event=heal)
    first, second = summary.rounds
    assert (first.round, first.outcome, second.round, second.reason) == (1, "closed", 1, "")
    assert "TOO_FEW" in first.reason


def test_a_failed_federation_is_an_error(tmp_path):
    fake = FakeCoordinator()
    fake.state, fake.reason = RunState.FAILED, "three rounds in a row had too few participants"
    with pytest.raises(RoundFailedError) as caught:
        take_part(Bench(tmp_path, fake))
    assert str(caught.value) == "FEDERATION_FAILED: three rounds in a row had too few participants"


# Models and updates that do not fit.


def test_a_model_of_another_shape_is_refused_with_both_shapes(tmp_path):
    layout = Layout.of({"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)})
    bench = Bench(tmp_path, layout=layout)
    with pytest.raises(DataError) as caught:
        take_part(bench, StepTrainer(layout=layout))
    assert str(caught.value) == (
        "parameter 'weight' has shape (2, 3) here and (2, 2) in the federation's model: "
        "train the same architecture as the others"
    )
    assert bench.fake.kinds() == [(1, "Decline")]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"kernel": (2, 2), "bias": (2,)}, "has parameter 'weight' where this model has 'kernel'"),
        ({"weight": (2, 2)}, "has 2 parameters and this model has 1"),
    ],
)
def test_other_parameters_are_refused(tmp_path, arrays, why):
    layout = Layout.of({name: np.zeros(shape, np.float32) for name, shape in arrays.items()})
    with pytest.raises(DataError, match=why):
        take_part(Bench(tmp_path, layout=layout), StepTrainer(layout=layout))


def test_a_model_that_is_not_the_announced_one_is_the_coordinators_fault(tmp_path):
    fake = FakeCoordinator(rounds=5)
    answer = fake.answer

    def corrupt(request: httpx.Request) -> httpx.Response:
        response = answer(request)
        if "/models/" in request.url.path:
            response = httpx.Response(200, content=response.content[:-1] + b"\xff")
        return response

    fake.answer = corrupt
    with pytest.raises(PeerProtocolError, match="the model that it sent is not"):
        take_part(Bench(tmp_path, fake))


def test_nan_weights_name_the_parameter_and_decline(tmp_path):
    bench = Bench(tmp_path)
    with pytest.raises(DataError, match="parameter 'weight' has 4 of 4 elements that are NaN or infinite"):
        take_part(bench, StepTrainer(step=float("nan")))
    assert bench.fake.kinds() == [(1, "Decline")]
    assert bench.fake.heard[0][1].reason == "training failed: DataError"


def test_no_examples_decline_before_anything_else_is_sent(tmp_path):
    bench = Bench(tmp_path)
    trainer = StepTrainer()
    trainer.train = lambda vector, data, rng: LocalResult(vector, 0, {})
    with pytest.raises(DataError, match="there are no examples to train on"):
        take_part(bench, trainer)
    assert bench.fake.kinds() == [(1, "Decline")]


def test_a_missing_metric_is_named(tmp_path):
    plan = msgspec.structs.replace(PLAN, metrics={"accuracy": 1.0})
    bench = Bench(tmp_path, FakeCoordinator(plan=plan))
    with pytest.raises(DataError, match="the plan asks for metric 'accuracy'; training reported loss"):
        take_part(bench)
    assert bench.fake.kinds() == [(1, "Decline")]


def test_an_error_of_the_trainer_declines_without_its_message(tmp_path):
    bench = Bench(tmp_path)
    trainer = StepTrainer()

    def fail(vector, data, rng):
        raise ValueError("patient 4711 has no age")

    trainer.train = fail
    with pytest.raises(ValueError, match="4711"):
        take_part(bench, trainer)
    assert [message.reason for _, message in bench.fake.heard] == ["training failed: ValueError"]


# Small things.


def test_a_fault_holds_one_message_of_one_round_back(tmp_path):
    bench = Bench(tmp_path)
    events: list[Event] = []
    take_part(bench, fault=Fault(round=2, before="Masked", pause_s=30.0), on_event=events.append)
    assert bench.fake.clock.slept.count(30.0) == 1
    paused = [event for event in events if event.kind == EventKind.PAUSED]
    assert [(event.round, event.message) for event in paused] == [(2, "Masked")]


def test_an_inbox_that_does_not_wait_is_not_asked_in_a_tight_loop(tmp_path):
    bench = Bench(tmp_path, FakeCoordinator(rounds=1))
    happen, idle = bench.fake._let_something_happen, [3]

    def nothing_at_first(asked: int, after: int) -> None:
        if idle[0]:
            idle[0] -= 1
        else:
            happen(asked, after)

    bench.fake._let_something_happen = nothing_at_first
    take_part(bench)
    assert bench.fake.clock.slept == [1.0, 1.0, 1.0]


def test_the_same_task_is_given_until_it_is_answered(tmp_path):
    bench = Bench(tmp_path)
    with bench.client() as client, bench.state() as state:
        participation = bench.participation(client, state)
        participation.start()
        assert participation.next_task() is participation.next_task()
        participation.decline("no time")
        participation.decline("again does nothing")
        with pytest.raises(LocalProtocolError, match="no round asks for one"):
            participation.submit(np.zeros(LAYOUT.length, np.float32), 1, {})
    assert [message.reason for _, message in bench.fake.heard] == ["no time"]


def test_a_message_closed_for_another_session_is_refused(tmp_path):
    fake = FakeCoordinator(rounds=9)
    fake.tamper = lambda message: Closed(bytes(32), message.model) if isinstance(message, Closed) else message
    with pytest.raises(PeerProtocolError, match="it closed another session"):
        take_part(Bench(tmp_path, fake))
