"""Differential privacy as a coordinator serves it: an account that no kill makes smaller, and noise that is new."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings

import ridotto
from ridotto.coordinator.blobs import MODELS, Blobs
from ridotto.coordinator.conductor import Conductor
from ridotto.coordinator.privacy import PRIVACY_KEY, SERVED, Ledger, Spent, settled
from ridotto.coordinator.serve import free_port
from ridotto.coordinator.store import Change, MemoryStore
from ridotto.core.fixedpoint import container
from ridotto.core.rng import SEED_BYTES, OsRng, insecure_seeded_rng
from ridotto.core.tensors import read_model, write_model
from ridotto.core.vector import Layout
from ridotto.crypto.identity import load_or_create_identity
from ridotto.errors import MissingExtraError, PlanError, StorageError
from ridotto.learn.numpy_trainer import NumpyTrainer
from ridotto.privacy.event import NoPrivacyEvent, Repeated
from ridotto.privacy.noise.words import Words
from ridotto.rounds.clipping import AdaptiveClip
from ridotto.rounds.compression import Rotate, Sample
from ridotto.rounds.dice import SeededDice
from ridotto.rounds.pipeline import Pipeline
from ridotto.rounds.plan import CentralGaussian, DistributedGaussian, Plan
from ridotto.rounds.private import calibrated, round_event
from ridotto.rounds.record import RoundRecord, SignedRecord
from ridotto.rounds.service import RunState
from ridotto.rounds.settings import BandedGaussian
from ridotto.secagg.session import Member
from tests.coordinator.bench import (
    COORDINATOR_KEY,
    LAYOUT,
    MODEL,
    PARAMETERS,
    Mini,
    identity,
    make_federation,
    make_plan,
    make_settings,
    opened,
    rng_of,
    update_of,
)
from tests.coordinator.test_restart import NAMES, STEPS, Scene
from tests.coordinator.test_serve import Counting, Killer

DELTA = 1e-6


def private_plan(central: bool = False, z: float | None = 4.0, epsilon: float | None = None, **changes: object) -> Plan:
    kind = CentralGaussian if central else DistributedGaussian
    dp = kind(noise_multiplier=z, epsilon=epsilon, delta=DELTA)
    return make_plan(**({"clip": 1.0, "max_examples": 1, "metrics": {}, "dp": dp} | changes))  # type: ignore[arg-type]


def epsilon_of(rounds: int) -> float:
    ledger = Ledger(private_plan(), LAYOUT, rounds, Spent())
    for _ in range(rounds):
        ledger.charge()
    assert ledger.statement is not None
    assert ledger.statement.epsilon is not None
    return ledger.statement.epsilon


def budget_for(rounds: int) -> float:
    """Return a budget that so many rounds fit into, and not one more."""
    return (epsilon_of(rounds) + epsilon_of(rounds + 1)) / 2


def spent(store: MemoryStore) -> tuple[Repeated, ...]:
    return msgspec.msgpack.decode(store.values()[PRIVACY_KEY], type=Spent).events


def records(store: MemoryStore) -> list[RoundRecord]:
    return [msgspec.json.decode(stored.body, type=SignedRecord).record for stored in store.records()]


def members() -> list[Member]:
    return [Member(name, identity(name).public) for name in NAMES]


def finish(scene: Scene) -> None:
    while not scene.is_over:
        scene.step(4, "no")


EVENT = round_event(private_plan(), PARAMETERS)


# The plan.


def test_the_noise_for_an_epsilon_is_worked_out_once_and_announced(tmp_path: Path) -> None:
    plan, store = private_plan(z=None, epsilon=8.0), MemoryStore()
    federation = make_federation(tmp_path, make_settings(plan, rounds=3), store)
    exact = calibrated(plan, 3, PARAMETERS)
    assert federation.settings.plan == exact
    scene = Scene(tmp_path / "scene", make_settings(plan, rounds=3))
    scene.begin()
    assert scene.conductor.attempt is not None
    assert scene.conductor.attempt.description.attempt.plan == exact
    # More rounds later, and another budget, have the noise that the federation began with.
    scene.settings = make_settings(private_plan(z=None, epsilon=9.0), rounds=30)
    scene.mail.clear()
    scene.start()
    assert exact.dp is not None
    again = scene.conductor.settings.plan.dp
    assert again == DistributedGaussian(noise_multiplier=exact.dp.noise_multiplier, epsilon=9.0, delta=DELTA)


def test_a_budget_without_room_for_a_round_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"the first round would already spend epsilon 1\.\d+ of 0\.5"):
        make_federation(tmp_path, make_settings(private_plan(z=4.0, epsilon=0.5)))


def test_an_epsilon_costs_no_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sampled, so closed forms have all numbers: no coordinator and no participant needs dp-accounting."""
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    for bits in (32, 12):
        scene = Scene(tmp_path / str(bits), make_settings(private_plan(z=None, epsilon=8.0, bits=bits), rounds=2))
        scene.begin()
        assert scene.conductor.statement is not None
        assert 0 < (scene.conductor.statement.epsilon or 0.0) < 8.0


def test_an_account_that_takes_an_extra_says_so_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of metrics are pure mechanisms; beside noise, dp-accounting has the better number."""
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    noise = DistributedGaussian(noise_multiplier=4.0, epsilon=90.0, delta=DELTA, metrics_epsilon=0.5)
    with pytest.raises(MissingExtraError, match=r"pip install 'ridotto\[dp\]'"):
        make_federation(tmp_path, make_settings(private_plan(dp=noise, metrics={"loss": 1.0})))


def test_noise_that_needs_participants_to_be_kept_apart_is_refused(tmp_path: Path) -> None:
    noise = BandedGaussian(noise_multiplier=4.0, delta=DELTA, bands=2, participations=1, separation=2)
    with pytest.raises(PlanError, match="banded-gaussian needs somebody to keep every participant to 1 rounds"):
        make_federation(tmp_path, make_settings(private_plan(dp=noise)))


# The account.


@settings(max_examples=15)
@given(steps=STEPS)
def test_kills_change_neither_the_account_nor_the_model(steps: list[tuple[int, str]]) -> None:
    plan = private_plan(epsilon=9.0)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), make_settings(plan, rounds=2))
        scene.begin()
        for size, kill in steps:
            if not scene.is_over:
                scene.step(size, kill)
        finish(scene)
        assert bytes(scene.conductor.model_bytes) == noisy_model(plan)
        assert spent(scene.store) == (Repeated(round_event(plan, PARAMETERS), 1),)
        (record,) = records(scene.store)
        assert record.privacy is not None
        assert (record.privacy.epsilon, record.epsilon_left) == (epsilon_of(1), 9.0 - epsilon_of(1))


@pytest.mark.slow
async def test_sigkill_changes_neither_the_account_nor_the_model(tmp_path: Path) -> None:
    """The same with a process that is killed between keys, shares, vectors, votes and shares again."""
    plan, after = private_plan(epsilon=9.0), {2, 6, 10, 14, 18}
    (tmp_path / "plan").write_bytes(plan.encode())
    killer = Killer(tmp_path, free_port("127.0.0.1", 0), after)
    try:
        url = await killer.start()
        async with httpx.AsyncClient(base_url=url, timeout=30.0, trust_env=False) as client:
            key = load_or_create_identity(tmp_path / "identity.pem").public
            minis = [Counting(name, client, coordinator=key) for name in NAMES]
            for mini in minis:
                mini.killer = killer
            await asyncio.gather(*(mini.run() for mini in minis))
            info = (await client.get("/v1/federation")).json()
            model = (await client.get(f"/v1/models/{info['model']}")).content
    finally:
        killer.process.kill()
        killer.process.communicate()
    assert (killer.kills, info["attempt"]) == (len(after), 1)
    assert info["privacy"]["epsilon"] == epsilon_of(1)
    assert model == noisy_model(plan)


def noisy_model(plan: Plan) -> bytes:
    """Compute the model from the participants' own noise, without masks and without a coordinator."""
    pipeline = Pipeline(plan, PARAMETERS)
    total = np.zeros(pipeline.length, container(plan.bits))
    for name in NAMES:
        update, examples = update_of(name)
        rng = rng_of(name)
        total += pipeline.encode(update, examples, {}, SeededDice(rng), words=Words(rng.bytes(SEED_BYTES)))
    strategy = plan.optimiser.build()
    _, model = strategy.apply(strategy.init(MODEL), MODEL, pipeline.decode(total).mean)
    return write_model(model, LAYOUT)


@pytest.mark.parametrize(("kill", "charged"), [("before", 0), ("after", 1)])
def test_a_round_is_charged_before_anybody_hears_of_it(tmp_path: Path, kill: str, charged: int) -> None:
    scene = Scene(tmp_path, make_settings(private_plan()))
    scene.store.fail_before, scene.store.fail_after = int(kill == "before"), int(kill == "after")
    with pytest.raises(StorageError):
        scene.begin()
    assert not any(scene.mail.values()), "nobody was asked"
    assert sum(repeated.times for repeated in spent(scene.store)) == charged
    scene.start()
    # An attempt that was stored goes on and is not charged again; one that was not is begun anew.
    if not charged:
        scene.begin()
    scene._deliver([])
    finish(scene)
    assert spent(scene.store) == (Repeated(EVENT, 1),)


def test_a_round_that_fails_and_is_tried_again_is_charged_twice(tmp_path: Path) -> None:
    scene = Scene(tmp_path, make_settings(private_plan(epsilon=9.0)), silent=[f"{name} Masked" for name in NAMES])
    scene.begin()
    finish(scene)
    (record,) = records(scene.store)
    assert "TOO_FEW" in record.failure
    assert record.privacy is not None
    assert (record.privacy.rounds, record.privacy.epsilon) == (1, epsilon_of(1))
    scene.conductor.begin(members(), [], scene.now)
    assert spent(scene.store) == (Repeated(round_event(private_plan(), PARAMETERS), 2),)


def test_a_budget_that_is_gone_before_a_round_succeeds_is_a_failure(tmp_path: Path) -> None:
    plan = private_plan(epsilon=budget_for(1))
    scene = Scene(tmp_path, make_settings(plan), silent=[f"{name} Masked" for name in NAMES])
    scene.begin()
    finish(scene)
    assert scene.conductor.run.state is RunState.FAILED
    assert scene.conductor.run.reason.startswith("the privacy budget is spent: epsilon ")
    scene.start()
    assert scene.conductor.run.state is RunState.FAILED, "a restart does not give the budget back"


async def test_a_clip_that_adapts_goes_on_where_it_was(tmp_path: Path) -> None:
    clip, store = AdaptiveClip(norm=0.5, deviation=2.0), MemoryStore()
    plan = private_plan(z=2.0, clip=clip, bits=24, compress=(Rotate(), Sample(0.8)))
    federation = make_federation(tmp_path, make_settings(plan, rounds=2), store)
    async with opened(federation) as client:
        await asyncio.gather(*(Mini(name, client).run() for name in NAMES))
        moved = federation.info().plan
    norms = [record.clip for record in records(store)]
    assert norms[0] == 0.5 != norms[1] != moved.clip_norm
    assert spent(store) == (Repeated(round_event(plan, LAYOUT), 2),), "rounds cost alike wherever the clip is"
    # To the last bit: a plan with a clip a little off would be another plan.
    again = make_federation(tmp_path, make_settings(plan, rounds=3), store)
    async with opened(again):
        assert again.info().plan == moved
        assert again._conductor.attempt is not None, "who was away still finds the end of the last round"


async def test_training_stops_by_itself_before_the_round_that_would_overspend(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan, store = private_plan(epsilon=budget_for(2)), MemoryStore()
    federation = make_federation(tmp_path, make_settings(plan, rounds=9), store)
    async with opened(federation) as client:
        with caplog.at_level(logging.INFO, "ridotto.coordinator"):
            minis = [Mini(name, client) for name in NAMES]
            await asyncio.gather(*(mini.run() for mini in minis))
        info = federation.info()
        answer = (await client.get("/v1/federation")).json()
    assert {mini.state for mini in minis} == {RunState.DONE}
    assert (info.state, info.round, info.attempt) == (RunState.DONE, 2, 2)
    assert info.reason.startswith(f"the privacy budget is spent: epsilon {epsilon_of(2):.4f} of {budget_for(2):g}")
    assert info.privacy is not None
    assert answer["privacy"]["epsilon"] == info.privacy.epsilon == epsilon_of(2)
    assert answer["epsilon_left"] == info.epsilon_left == budget_for(2) - epsilon_of(2)
    assert "training ends after round 2: the privacy budget is spent" in caplog.text
    assert f"of {budget_for(2):g} at delta 1e-06 (zero-out) is spent" in caplog.text
    assert [record.privacy.epsilon for record in records(store) if record.privacy] == [epsilon_of(1), epsilon_of(2)]

    # It stays so after a restart; a larger budget has it go on.
    for epsilon, state, number in ((budget_for(2), RunState.DONE, 2), (budget_for(3), RunState.WAITING, 3)):
        again = make_federation(tmp_path, make_settings(private_plan(epsilon=epsilon), rounds=9), store)
        async with opened(again):
            assert (again.info().state, again.info().round) == (state, number)


def test_what_was_trained_without_noise_never_becomes_private(tmp_path: Path) -> None:
    """Neither in a store that counted it, nor in one from before anything was counted."""
    for forgets in (False, True):
        scene = Scene(tmp_path / str(forgets), make_settings(rounds=2))
        scene.begin()
        finish(scene)
        assert spent(scene.store) == (Repeated(NoPrivacyEvent(), 1),)
        if forgets:
            del scene.store._values[PRIVACY_KEY]
        scene.settings = make_settings(private_plan(epsilon=9.0), rounds=2)
        scene.mail.clear()
        scene.start()
        assert (scene.conductor.run.state, scene.conductor.run.round) == (RunState.DONE, 1)
        assert scene.conductor.run.reason.startswith("the privacy budget is spent: epsilon inf of 9 after 1 rounds")
        assert scene.conductor.statement is not None
        assert scene.conductor.statement.epsilon is None


def test_an_account_that_can_not_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    store = MemoryStore()
    store.commit(Change(values={PRIVACY_KEY: b"\xc1"}))
    with pytest.raises(StorageError, match="the privacy account of this federation can't be read"):
        make_federation(tmp_path, make_settings(private_plan()), store)


def test_spends_what_a_simulation_of_the_same_plan_spends() -> None:
    trainer, clients = NumpyTrainer((2, 2), seed=1), []
    for client in range(6):
        rows = np.frombuffer(insecure_seeded_rng(client).bytes(16), np.uint8).reshape(8, 2)
        clients.append((rows.astype(np.float32) / 255, rows[:, 0] % 2))
    for dp in ({"epsilon": 6.0}, {"noise_multiplier": 5.0}):
        noise = DistributedGaussian(delta=DELTA, **dp)  # type: ignore[arg-type]
        plan = make_plan(6, clip=1.0, max_examples=1, metrics={}, dp=noise)
        result = ridotto.simulate(trainer, clients, plan, rounds=3, seed=1, progress=False)
        served = settled(plan, Spent(), 3, trainer.layout)
        assert served == result.plan
        ledger, found = Ledger(served, trainer.layout, 3, Spent()), []
        for _ in range(3):
            ledger.charge()
            assert ledger.statement is not None
            found.append(ledger.statement.epsilon)
        assert found == list(result.history["epsilon"])
        assert ledger.statement is not None
        assert ledger.statement.sampling == str(SERVED) != ""


# The coordinator's own noise.


def central_model(folder: Path, kill: bool = False) -> tuple[np.ndarray, Scene]:
    scene = Scene(folder, make_settings(private_plan(central=True)))
    scene.begin()
    while not scene.is_over:
        attempt = scene.conductor.attempt
        ends = bool(attempt and attempt.pending and type(attempt.pending[0]).__name__ == "Apply")
        scene.step(4, "before" if kill and ends else "no")
        kill = kill and not ends
    model, _ = read_model(bytearray(scene.conductor.model_bytes))
    return model, scene


def test_the_coordinator_adds_noise_that_is_new_every_time(tmp_path: Path) -> None:
    plan = private_plan(central=True)
    exact = MODEL + np.mean([clipped(update_of(name)[0]) for name in NAMES], axis=0)
    found = np.array([central_model(tmp_path / str(number))[0] - exact for number in range(16)])
    assert len(np.unique(found[:, 0])) == 16
    # 80 draws of deviation z * clip / 4: below half of it, or above twice, with a probability below 1e-10.
    assert plan.dp is not None
    expected = (plan.dp.noise_multiplier or 0.0) / len(NAMES)
    assert expected / 2 < found.std() < 2 * expected


def clipped(update: np.ndarray) -> np.ndarray:
    return update / max(1.0, float(np.linalg.norm(update)))


def test_noise_that_a_kill_interrupted_is_thrown_away(tmp_path: Path) -> None:
    """Two models with the same sum under other noise would be better than one: only one of them is ever kept."""
    _, scene = central_model(tmp_path, kill=True)
    kept = sorted(path.name for path in (tmp_path / MODELS).iterdir())
    assert kept == sorted(f"{model.hex()}.safetensors" for model in scene.store.models())
    (record,) = records(scene.store)
    assert f"{record.model}.safetensors" in kept


def test_conductors_of_one_store_agree_on_the_noise(tmp_path: Path) -> None:
    store, plan = MemoryStore(), private_plan(z=None, epsilon=8.0)
    layout = Layout.of({"weights": MODEL})

    def conductor(rounds: int) -> Conductor:
        return Conductor(make_settings(plan, rounds), layout, MODEL, COORDINATOR_KEY, store, Blobs(tmp_path), OsRng())

    first = conductor(3)
    first.load(0.0)
    assert conductor(50).settings.plan == first.settings.plan
