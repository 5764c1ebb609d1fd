"""Kills at any moment, and stores that fail: what was acknowledged stays, and the model comes out the same."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ridotto.coordinator.blobs import Blobs, DiskFullError, model_name
from ridotto.coordinator.conductor import RUN_KEY, Conductor, Input, Run
from ridotto.coordinator.settings import FederationSettings
from ridotto.coordinator.store import Change, MemoryStore
from ridotto.core.machine import COORDINATOR, SELF, Do, Effect, Finish, Send
from ridotto.core.rng import OsRng
from ridotto.core.vector import Layout
from ridotto.errors import DataError, StorageError
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.messages import Decline, Train, Trained
from ridotto.rounds.noise import add_committee_noise
from ridotto.rounds.plan import Pairwise, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.record import SessionRecord, SignedRecord
from ridotto.rounds.round import CoordinatorRound, ParticipantRound
from ridotto.rounds.service import RunState
from ridotto.secagg.committee.masks import sum_masks
from ridotto.secagg.committee.tasks import SumMasks
from ridotto.secagg.committee_roles.seals import encapsulate_all
from ridotto.secagg.committee_roles.tasks import Encapsulate
from ridotto.secagg.session import Member
from tests.coordinator.bench import (
    CODEC,
    COORDINATOR_KEY,
    LAYOUT,
    MODEL,
    Mini,
    ideal_model,
    identity,
    make_federation,
    make_plan,
    make_settings,
    opened,
    rng_of,
    update_of,
)

NAMES = ("p0", "p1", "p2", "p3")


class FailingStore(MemoryStore):
    """A store whose next commits fail, before or after they were carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.fail_before = 0
        self.fail_after = 0

    def commit(self, change: Change) -> None:
        if self.fail_before:
            self.fail_before -= 1
            raise DiskFullError("the disk is full")
        super().commit(change)
        if self.fail_after:
            self.fail_after -= 1
            raise StorageError("killed after the commit")


class Scene:
    """A conductor that is killed now and then, and participants that send again what was not acknowledged."""

    def __init__(
        self, folder: Path, configured: FederationSettings, silent: Sequence[str] = (), names: Sequence[str] = NAMES
    ) -> None:
        self.folder = folder
        self.settings = configured
        self.store = FailingStore()
        self.silent = silent
        self.names = names
        self.mail: defaultdict[str, list[bytes]] = defaultdict(list)
        self.read: defaultdict[str, int] = defaultdict(int)
        self.queue: list[Input] = []
        self.now = 1000.0
        policy = Policy(min_corrupt=0.0, min_participants=2, i_know=(Risk.SMALL_COHORT,))
        self.machines: dict[str, ParticipantRound | HelperRound] = {
            name: ParticipantRound(name, identity(name), policy, COORDINATOR_KEY.public, rng_of(name), serving=OsRng())
            for name in names
        }
        self.machines |= {
            name: HelperRound(name, identity(name), policy, COORDINATOR_KEY.public, OsRng())
            for name in configured.helpers
        }
        self.start()

    def start(self) -> None:
        """Start a new process, so to say: nothing but the store and the folder is left."""
        self.now += 3600.0
        self.conductor = Conductor(
            self.settings, LAYOUT, MODEL, COORDINATOR_KEY, self.store, Blobs(self.folder), OsRng()
        )
        outcome = self.conductor.load(self.now)
        again: defaultdict[str, list[bytes]] = defaultdict(list)
        for name, frame in outcome.sent:
            again[name].append(frame)
        for name, frames in self.mail.items():
            # Whatever a participant has seen it finds again, under the same number.
            assert again[name][: len(frames)] == frames
        self.mail = again

    def begin(self) -> None:
        members = [Member(name, identity(name).public) for name in self.names]
        helpers = [Member(name, identity(name).public) for name in self.settings.helpers]
        self._deliver(self.conductor.begin(members, helpers, self.now).sent)

    def step(self, size: int, kill: str) -> None:
        """Let one thing happen, with a kill before or after its commit or between the steps."""
        self.store.fail_before, self.store.fail_after = int(kill == "before"), int(kill == "after")
        batch = self.queue[:size]
        try:
            if batch:
                outcome = self.conductor.take(batch, self.now)
                assert outcome.refused == {}
                self.queue = self.queue[size:]
            elif self.conductor.attempt and self.conductor.attempt.pending:
                outcome = self.conductor.perform(self.now)
            else:
                self.now = max(self.now, self.conductor.wake_at() or 0.0)
                outcome = self.conductor.expire(self.now)
            self._deliver(outcome.sent)
        except StorageError:
            self.start()
        if kill == "between":
            self.start()
        self.store.fail_before = self.store.fail_after = 0
        self._participants_read()

    @property
    def is_over(self) -> bool:
        return bool(self.store.records())

    def _deliver(self, sent: Sequence[tuple[str, bytes]]) -> None:
        for name, frame in sent:
            self.mail[name].append(frame)
        self._participants_read()

    def _participants_read(self) -> None:
        for name, machine in self.machines.items():
            for frame in self.mail[name][self.read[name] :]:
                self.read[name] += 1
                message, _ = CODEC.decode(frame, COORDINATOR)
                self._carry_out(name, machine, machine.receive(COORDINATOR, message, 0.0))

    def _carry_out(self, name: str, machine: ParticipantRound | HelperRound, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Do(Train()):
                    update, examples = update_of(name)
                    trained = Trained(update.copy(), examples, {"loss": 1.0})
                    self._carry_out(name, machine, machine.receive(SELF, trained, 0.0))
                case Do(Encapsulate() as task):
                    self._carry_out(name, machine, machine.receive(SELF, encapsulate_all(task), 0.0))
                case Do(SumMasks() as task):
                    self._carry_out(name, machine, machine.receive(SELF, sum_masks(task, add_committee_noise), 0.0))
                case Send(_, message, attachment) if f"{name} {type(message).__name__}" not in self.silent:
                    self.queue.append(Input(name, 1, message, CODEC.header(message), attachment))


STEPS = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(("no", "before", "after", "between"))), max_size=16)
"""Size of the next batch, and when the coordinator is killed around it."""

LOST = st.sampled_from((None, "PublicKeys", "SealedShares", "Masked", "Consistency", "Unmask"))


@settings(max_examples=30)
@given(shard_size=st.sampled_from((4, 2)), lost=LOST, steps=STEPS)
def test_any_kills_lead_to_the_ideal_model(shard_size: int, lost: str | None, steps: list[tuple[int, str]]) -> None:
    plan = make_plan(minimum=2, protocol=Pairwise(corrupt=0.0, shard_size=shard_size), i_know=(Risk.SMALL_COHORT,))
    silent = (f"p3 {lost}",) if lost and shard_size == 4 else ()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), make_settings(plan), silent)
        scene.begin()
        for size, kill in steps:
            if not scene.is_over:
                scene.step(size, kill)
        while not scene.is_over:
            scene.step(4, "no")
        included = NAMES[:3] if silent and lost in ("PublicKeys", "SealedShares", "Masked") else NAMES
        assert bytes(scene.conductor.model_bytes) == ideal_model(plan, included)
        (record,) = scene.store.records()
        signed = msgspec.json.decode(record.body, type=SignedRecord)
        assert signed.record.participants == len(included)
        # The round is over, yet who was away finds its end after one more restart.
        scene.start()
        assert {len(frames) for name, frames in scene.mail.items() if name != "p3"} == {6}


def test_an_outage_makes_nobody_late(tmp_path: Path) -> None:
    scene = Scene(tmp_path, make_settings())
    scene.begin()
    scene.step(2, "between")  # an hour passes, and phase_s is 5 s
    wake = scene.conductor.wake_at()
    assert wake is not None
    assert wake > scene.now
    while not scene.is_over:
        scene.step(4, "no")
    assert bytes(scene.conductor.model_bytes) == ideal_model(make_plan(), NAMES)


def finished(folder: Path, rounds: int = 1) -> Scene:
    scene = Scene(folder, make_settings(rounds=rounds))
    scene.begin()
    while scene.conductor.run.attempt == 1 and not scene.store.records():
        scene.step(4, "no")
    return scene


def test_more_rounds_can_be_asked_for_later(tmp_path: Path) -> None:
    scene = finished(tmp_path)
    assert scene.conductor.run.state is RunState.DONE
    scene.settings = make_settings(rounds=2)
    scene.start()
    assert (scene.conductor.run.state, scene.conductor.run.round) == (RunState.WAITING, 2)


def test_fewer_rounds_can_be_asked_for_later(tmp_path: Path) -> None:
    scene = finished(tmp_path, rounds=2)
    assert scene.conductor.run.state is RunState.WAITING
    scene.settings = make_settings(rounds=1)
    scene.start()
    assert scene.conductor.run.state is RunState.DONE


def test_another_plan_gives_the_open_attempt_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, make_settings())
    scene.begin()
    scene.step(2, "no")
    scene.settings, scene.mail = make_settings(make_plan(phase_s=7.0)), defaultdict(list)
    scene.start()
    assert scene.conductor.attempt is None
    assert scene.conductor.run.state is RunState.WAITING
    assert "begun with another plan" in caplog.text


def test_a_damaged_sum_gives_the_open_attempt_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(tmp_path, make_settings())
    scene.begin()
    while not scene.store.sums():
        scene.step(1, "no")
    (name,) = scene.store.sums().values()
    (tmp_path / name).write_bytes(b"damaged")
    scene.mail = defaultdict(list)
    scene.start()
    assert scene.conductor.attempt is None
    assert "is damaged" in caplog.text


def test_a_damaged_model_is_not_used(tmp_path: Path) -> None:
    scene = finished(tmp_path)
    (tmp_path / model_name(scene.conductor.run.model)).write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"\.safetensors is damaged"):
        scene.start()


def test_a_model_of_another_shape_is_refused_with_its_name(tmp_path: Path) -> None:
    scene = finished(tmp_path)
    other = Layout.of({"weights": MODEL[:4]})
    conductor = Conductor(
        make_settings(), other, MODEL[:4].copy(), COORDINATOR_KEY, scene.store, Blobs(tmp_path), OsRng()
    )
    with pytest.raises(DataError, match=r"'weights' float32\[4\] instead of 'weights' float32\[5\]"):
        conductor.load(0.0)


async def test_a_full_disk_acknowledges_nothing_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ridotto.coordinator.federation.RETRY_S", 0.01)
    store = FailingStore()
    federation = make_federation(tmp_path, make_settings(), store)
    answers: list[int] = []
    met: set[bytes] = set()

    class Noting(Mini):
        async def post(self, attempt: int, frame: bytes, header: bytes):  # type: ignore[no-untyped-def]
            # Every message meets a full disk the first time.
            if frame not in met:
                met.add(frame)
                store.fail_before = 1
            answer = await super().post(attempt, frame, header)
            answers.append(answer.status_code)
            return answer

    async with opened(federation) as client:
        with caplog.at_level(logging.CRITICAL, "ridotto.coordinator"):
            await asyncio.gather(*(Noting(name, client).run() for name in NAMES))
        assert bytes(federation._model_bytes) == ideal_model(make_plan(), NAMES)
    assert set(answers) == {204, 507}
    assert len(store.log()) >= answers.count(204)


async def test_a_message_that_sets_off_a_bug_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = Conductor.take

    def take(self: Conductor, batch: Sequence[Input], wall: float):  # type: ignore[no-untyped-def]
        if any(item.sender == "p3" for item in batch):
            raise ZeroDivisionError("a bug")
        return real(self, batch, wall)

    plan = make_plan(train_s=0.5)
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        minis = [Mini(name, client) for name in NAMES]
        for mini in minis:
            await mini.enrol()
        tasks = [asyncio.create_task(mini.run()) for mini in minis]
        monkeypatch.setattr(Conductor, "take", take)
        with caplog.at_level(logging.CRITICAL + 1):
            await asyncio.gather(*tasks[:3])
        assert minis[0].closed == [""]
        tasks[3].cancel()


async def test_who_is_blamed_takes_part_no_more(tmp_path: Path) -> None:
    store = MemoryStore()
    async with opened(make_federation(tmp_path, make_settings(), store)) as client:
        await Mini("p3", client).enrol()
    # Stored as the end of an attempt stores it, see test_a_record_that_blames_excludes.
    run = msgspec.msgpack.decode(store.values()[RUN_KEY], type=Run)
    blamed = msgspec.structs.replace(run, excluded={"p3": "blamed in attempt 1 at round 1: BAD_SHARES: a reason"})
    store.commit(Change(values={RUN_KEY: msgspec.msgpack.encode(blamed)}))
    federation = make_federation(tmp_path, make_settings(), store)
    async with opened(federation) as client:
        mini = Mini("p3", client)
        for answer in (await mini.inbox(0, 0), await mini.post(1, *[CODEC.header(Decline(bytes(32), ""))] * 2)):
            assert (answer.status_code, answer.json()["type"]) == (403, "about:blank#excluded")
            assert answer.json()["detail"].endswith("BAD_SHARES: a reason")
        await asyncio.gather(*(Mini(name, client).run() for name in NAMES[:3]))
        assert bytes(federation._model_bytes) == ideal_model(make_plan(), NAMES[:3])


def test_a_record_that_blames_excludes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def blame(self: CoordinatorRound, sid: bytes, finish: Finish) -> SessionRecord:
        record = real(self, sid, finish)
        return msgspec.structs.replace(record, failure="BAD_SHARES: a reason", blamed=("p3",))

    real = CoordinatorRound._session_record
    monkeypatch.setattr(CoordinatorRound, "_session_record", blame)
    scene = finished(tmp_path)
    assert scene.conductor.run.excluded == {"p3": "blamed in attempt 1 at round 1: BAD_SHARES: a reason"}
    assert scene.conductor.run.failures == 1
    scene.start()
    assert set(scene.conductor.run.excluded) == {"p3"}
