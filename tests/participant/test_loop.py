"""Tests of the driver: whole federations, and networks that lose things."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from ridotto.errors import (
    LocalProtocolError,
    PeerProtocolError,
    UnreachableError,
)
from ridotto.participant.events import Event, EventKind, Fault
from ridotto.rounds.messages import Closed
from tests.participant.bench import Bench, StepTrainer, expected_model, take_part
from tests.participant.fake import LAYOUT, ME, FakeCoordinator


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
