"""Rounds of several sessions, and kills: every opened sum is in the round's total exactly once, and nowhere else."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ridotto.coordinator.blobs import SUMS, Blobs
from ridotto.coordinator.store import Change
from ridotto.core.machine import Effect
from ridotto.errors import StorageError
from ridotto.rounds.ciphers import sum_dtype
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import Committee, Helpers, Oneshot, Pairwise, Plan, Risk
from ridotto.rounds.record import RoundRecord, SignedRecord
from ridotto.rounds.robustness import BucketedMedian
from ridotto.rounds.round import ParticipantRound
from ridotto.rounds.totals import TOTAL
from tests.coordinator.bench import PARAMETERS, ideal_model, make_plan, make_settings
from tests.coordinator.test_committee import KEYS
from tests.coordinator.test_restart import Scene

NINE = tuple(f"p{place}" for place in range(9))

PROTOCOLS: dict[str, Any] = {
    "pairwise": Pairwise(corrupt=0.0, shard_size=3),
    "oneshot": Oneshot(corrupt=0.0, shard_size=3),
    "committee": Committee(corrupt=0.0, shard_size=3, helpers=Helpers(keys=KEYS)),
}


def plan_of(protocol: str, **changes: Any) -> Plan:
    """Nine participants in three sessions of three, which the nonce of the attempt deals."""
    settled = {"minimum": 3, "protocol": PROTOCOLS[protocol], "i_know": (Risk.SMALL_COHORT,)}
    return make_plan(9, **(settled | changes))


class Sharded(Scene):
    """Look after every step at what is stored: what is in the total, and whose sums are still there.

    liar: who counts for two in the check lane of its vector.
    """

    def __init__(self, folder: Path, plan: Plan, liar: str = "") -> None:
        self.liar = liar
        super().__init__(folder, make_settings(plan), names=NINE)

    def step(self, size: int, kill: str) -> None:
        super().step(size, kill)
        if not self.is_over:
            self.check()

    def check(self) -> None:
        """Hold what is stored to what the log says: this is what a kill right now would leave."""
        attempt, sums = self.conductor.attempt, self.store.sums()
        assert attempt is not None
        ended = attempt._machine._closed
        assert set(sums) <= {TOTAL, *(sid for sid in attempt.sessions if sid not in ended)}
        merged = sum(len(record.included) for record in ended.values() if not record.failure)
        assert (TOTAL in sums) == bool(merged)
        if merged:
            plan = self.settings.plan
            total = np.frombuffer((self.folder / sums[TOTAL]).read_bytes(), sum_dtype(plan))
            assert Pipeline(plan, PARAMETERS).read_lanes(total).count == attempt.merged == merged

    def finish(self, steps: Sequence[tuple[int, str]] = ()) -> RoundRecord:
        self.begin()
        for size, kill in steps:
            if not self.is_over:
                self.step(size, kill)
        while not self.is_over:
            self.step(4, "no")
        (stored,) = self.store.records()
        return msgspec.json.decode(stored.body, type=SignedRecord).record

    def _carry_out(self, name: str, machine: ParticipantRound | HelperRound, effects: list[Effect]) -> None:
        if name != self.liar:
            super()._carry_out(name, machine, effects)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pipeline, "encode", _lying(Pipeline.encode))
            super()._carry_out(name, machine, effects)


def _lying(encode: Any) -> Any:
    def lying(self: Pipeline, *arguments: Any, **named: Any) -> Any:
        vector = encode(self, *arguments, **named)
        vector[self.entries] = 2
        return vector

    return lying


def sums_in(folder: Path) -> list[Path]:
    return list((folder / SUMS).iterdir())


EVERY = st.sampled_from(("no", "before", "after", "between"))
MANY_STEPS = st.lists(st.tuples(st.integers(1, 8), EVERY), max_size=30)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=10, deadline=None)
@example(steps=[(8, "before"), (8, "after")] * 30)
@example(steps=[(8, "between")] * 40)
@given(steps=MANY_STEPS)
def test_any_kills_leave_every_sum_in_the_total_once(protocol: str, steps: list[tuple[int, str]]) -> None:
    plan = plan_of(protocol)
    with tempfile.TemporaryDirectory() as folder:
        scene = Sharded(Path(folder), plan)
        record = scene.finish(steps)
        assert bytes(scene.conductor.model_bytes) == ideal_model(plan, NINE)
        assert [len(session.included) for session in record.sessions] == [3, 3, 3]
        assert sums_in(Path(folder)) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=5, deadline=None)
@given(steps=MANY_STEPS)
def test_a_lost_shard_costs_its_shard_only_whenever_the_coordinator_is_killed(
    protocol: str, steps: list[tuple[int, str]]
) -> None:
    plan = plan_of(protocol)
    with tempfile.TemporaryDirectory() as folder:
        scene = Sharded(Path(folder), plan, liar="p4")
        record = scene.finish(steps)
        (failed,) = [session for session in record.sessions if session.failure]
        assert failed.failure.startswith("CHECK_LANE")
        assert "p4" in failed.included
        left = [name for name in NINE if name not in failed.included]
        assert record.participants == len(left) == 6
        assert bytes(scene.conductor.model_bytes) == ideal_model(plan, left)
        assert sums_in(Path(folder)) == []


def opened_one(folder: Path) -> Sharded:
    """Go on until the first sum is in the total and others are open."""
    scene = Sharded(folder, plan_of("pairwise"))
    scene.begin()
    while TOTAL not in scene.store.sums():
        scene.step(8, "no")
    return scene


def test_an_opened_sum_is_written_into_the_total_and_not_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, written = opened_one(tmp_path), []
    real = Blobs.write

    def write(self: Blobs, name: str, data: Any) -> None:
        written.append(name)
        real(self, name, data)

    monkeypatch.setattr(Blobs, "write", write)
    assert scene.conductor.attempt is not None
    while scene.conductor.attempt.merged == 3:
        scene.step(1, "no")
    assert written == [scene.store.sums()[TOTAL]]


@pytest.mark.parametrize("change", ["lost", "twice"])
def test_a_total_that_is_not_what_the_log_says_gives_the_attempt_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    """As a store that was put back from a copy may leave it, or an earlier version, which had no total."""
    scene = opened_one(tmp_path)
    if change == "lost":
        scene.store.commit(Change(sums={TOTAL: None}))
        found = 0
    else:
        total = scene.conductor._vault.opened(TOTAL)
        scene.conductor._sums[TOTAL] = total + total
        scene.store.commit(Change(sums=scene.conductor._sums.changes()))
        found = 6
    scene.mail = defaultdict(list)
    scene.start()
    assert scene.conductor.attempt is None
    assert f"the total has {found} contributions, its log 3" in caplog.text


def test_a_total_that_is_damaged_gives_the_attempt_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = opened_one(tmp_path)
    (tmp_path / scene.store.sums()[TOTAL]).write_bytes(b"damaged")
    scene.mail = defaultdict(list)
    scene.start()
    assert scene.conductor.attempt is None
    assert "is damaged" in caplog.text


def test_a_store_that_fails_leaves_the_sum_out_of_the_total_until_it_works_again(tmp_path: Path) -> None:
    scene = opened_one(tmp_path)
    before = scene.store.sums()
    attempt = scene.conductor.attempt
    assert attempt is not None
    while not attempt.pending:
        scene.step(8, "no")
    before = scene.store.sums()
    scene.store.fail_before = 1
    with pytest.raises(StorageError):
        scene.conductor.perform(scene.now)
    assert scene.store.sums() == before
    scene.start()
    assert scene.conductor.attempt is not None
    assert scene.conductor.attempt.merged == scene.conductor._vault.merged == 3
    while not scene.is_over:
        scene.step(8, "no")
    assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NINE)


def test_sums_that_a_rule_looks_at_are_stored_apart_until_the_end(tmp_path: Path) -> None:
    plan = plan_of("pairwise", clip=8.0, max_examples=1, robust=BucketedMedian(groups=3))
    scene, most = Scene(tmp_path, make_settings(plan), names=NINE), 0
    scene.begin()
    while not scene.is_over:
        scene.step(8, "between")
        assert TOTAL not in scene.store.sums()
        most = max(most, len(scene.store.sums()))
    assert most == 3
