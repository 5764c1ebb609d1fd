"""Tests of the driver: what it refuses, what is refused to it, and what it says."""

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
    PeerProtocolError,
    RefusedError,
    RoundFailedError,
)
from ridotto.learn.trainer import LocalResult
from ridotto.participant.events import Event, EventKind
from ridotto.rounds.messages import Announce, Decline
from ridotto.rounds.plan import Ideal, Plan
from ridotto.rounds.policy import Policy
from ridotto.rounds.service import RunState
from ridotto.secagg.messages import Consistency, KeyBook
from tests.participant.bench import Bench, StepTrainer, take_part
from tests.participant.fake import PLAN, FakeCoordinator, key, problem

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
    layout = Layout.of({"weight": np.zeros((4, 1), np.float32), "bias": np.zeros(2, np.float32)})
    bench = Bench(tmp_path, layout=layout)
    with pytest.raises(DataError) as caught:
        take_part(bench, StepTrainer(layout=layout))
    assert str(caught.value) == (
        "parameter 'weight' has shape (4, 1) here and (2, 2) in the federation's model: "
        "train the same architecture as the others"
    )
    assert bench.fake.kinds() == [(1, "Decline")]


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"kernel": (2, 2), "bias": (2,)}, "has parameter 'weight' where this model has 'kernel'"),
        ({"weight": (2, 2), "bias": (2,), "none": (0,)}, "has 2 parameters and this model has 3"),
    ],
)
def test_other_parameters_are_refused(tmp_path, arrays, why):
    layout = Layout.of({name: np.zeros(shape, np.float32) for name, shape in arrays.items()})
    with pytest.raises(DataError, match=why):
        take_part(Bench(tmp_path, layout=layout), StepTrainer(layout=layout))


def test_a_model_of_another_size_is_refused_before_a_token_is_spent(tmp_path):
    layout = Layout.of({"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)})
    bench = Bench(tmp_path, layout=layout)
    with pytest.raises(DataError) as caught:
        take_part(bench, StepTrainer(layout=layout))
    assert str(caught.value) == (
        "the federation's model has 6 numbers and this one has 8 (weight (2, 3), bias (2,)): "
        "train the same architecture as the others"
    )
    assert bench.fake.heard == []


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


# The final model, which no announcement names.


def test_a_final_model_without_a_signed_record_is_refused(tmp_path):
    fake = FakeCoordinator()
    fake.record_key = key("somebody else")
    with pytest.raises(PeerProtocolError, match="the record of the last round is not signed with its key"):
        take_part(Bench(tmp_path, fake))


def test_another_final_model_than_the_recorded_one_is_refused(tmp_path):
    fake = FakeCoordinator()

    def exchange(event: Event) -> None:
        if event.kind == EventKind.DONE:
            fake.records[-1] = msgspec.structs.replace(fake.records[-1], model="ab" * 32)

    with pytest.raises(PeerProtocolError, match="its final model is not the one in the record of the last round"):
        take_part(Bench(tmp_path, fake), on_event=exchange)
