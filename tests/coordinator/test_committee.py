"""Rounds whose sums helpers open, over HTTP: kills, lost helpers, and who may be one."""

from __future__ import annotations

import asyncio
import json
import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given, settings

from ridotto.coordinator.attempt import LiveAttempt
from ridotto.core.machine import COORDINATOR, Effect, Send
from ridotto.errors import PlanError
from ridotto.rounds.helping import HelperRound
from ridotto.rounds.plan import Committee, CommitteeGaussian, Helpers, Oneshot, Plan, Risk
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.round import ParticipantRound
from ridotto.rounds.service import FEDERATION_PATH, FederationInfo
from ridotto.rounds.sessions import make_sessions
from ridotto.secagg.committee.drawn import setup_of
from ridotto.secagg.committee.messages import MaskedVector
from ridotto.secagg.committee_roles.agreement import sign_ack
from ridotto.secagg.committee_roles.keys import book_root
from ridotto.secagg.committee_roles.messages import Ack
from tests.coordinator.bench import (
    CODEC,
    COORDINATOR_KEY,
    Mini,
    authorization,
    ideal_model,
    identity,
    make_federation,
    make_plan,
    make_settings,
    opened,
)
from tests.coordinator.test_oneshot import finish, kept, record_of
from tests.coordinator.test_restart import NAMES, STEPS, Scene
from tests.coordinator.test_rounds import model_of, records_of, run_all

HELPERS = ("h0", "h1", "h2", "h3")
KEYS = {name: identity(name).public.hex() for name in HELPERS}


def served_plan(protocol: Committee | Oneshot | None = None, **changes: object) -> Plan:
    chosen = protocol or Committee(corrupt=0.0, helpers=Helpers(keys=KEYS))
    return make_plan(**({"protocol": chosen, "i_know": (Risk.SMALL_COHORT,)} | changes))


BOTH = pytest.mark.parametrize(
    "plan",
    [served_plan(), served_plan(Oneshot(corrupt=0.0, helpers=Helpers(keys=KEYS)))],
    ids=["committee", "oneshot"],
)


class Spoiled(Scene):
    """p3 seals rubbish for everybody."""

    def _carry_out(self, name: str, machine: ParticipantRound | HelperRound, effects: list[Effect]) -> None:
        for place, effect in enumerate(effects):
            if name == "p3" and isinstance(effect, Send) and isinstance(effect.message, MaskedVector):
                parcels = tuple(bytes(len(parcel)) for parcel in effect.message.parcels)
                message = msgspec.structs.replace(effect.message, parcels=parcels)
                effects[place] = Send(effect.to, message, effect.attachment)
        super()._carry_out(name, machine, effects)


@BOTH
async def test_two_rounds_make_the_ideal_model(tmp_path: Path, plan: Plan) -> None:
    federation = make_federation(tmp_path, make_settings(plan, rounds=2))
    async with opened(federation) as client:
        minis = await run_all(client, helpers=HELPERS)
        assert await model_of(client) == ideal_model(plan, NAMES, rounds=2)
        records = await records_of(client)
    assert [mini.closed for mini in minis] == [["", ""]] * 4
    assert [record.record.protocol for record in records] == [plan.protocol_name] * 2
    assert [session.included for record in records for session in record.record.sessions] == [NAMES] * 2
    assert kept(tmp_path) == []


async def test_helpers_add_the_noise_and_the_record_says_what_it_cost(tmp_path: Path) -> None:
    plan = served_plan(
        clip=1.0, max_examples=1, metrics={}, dp=CommitteeGaussian(noise_multiplier=1.0, delta=1e-5, epsilon=9.0)
    )
    federation = make_federation(tmp_path, make_settings(plan, rounds=2))
    async with opened(federation) as client:
        await run_all(client, helpers=HELPERS)
        first, second = await records_of(client)
    assert second.record.privacy is not None
    assert second.record.privacy.trust.startswith("Trusted: all but 1 of 4 helpers, to add the noise")
    assert first.record.epsilon_left is not None
    assert second.record.epsilon_left is not None
    assert 9.0 > first.record.epsilon_left > second.record.epsilon_left > 0
    assert [record.record.participants for record in (first, second)] == [4, 4]


async def test_a_helper_serves_in_every_session_of_a_round(tmp_path: Path) -> None:
    protocol = Committee(corrupt=0.0, helpers=Helpers(keys=KEYS), shard_size=3)
    plan = served_plan(protocol, cohort=6)
    names = tuple(f"p{place}" for place in range(6))
    federation = make_federation(tmp_path, make_settings(plan))
    async with opened(federation) as client:
        await run_all(client, names, HELPERS)
        assert await model_of(client) == ideal_model(plan, names)
        (record,) = await records_of(client)
    assert [len(session.included) for session in record.record.sessions] == [3, 3]


@pytest.mark.parametrize("kind", ["MemberKey", "Checked", "Ack", "MaskSum"])
async def test_a_helper_that_dies_costs_nothing_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Six helpers in two slots: of three replicas each, two are a majority."""
    caplog.set_level(logging.INFO)
    keys = {f"h{place}": identity(f"h{place}").public.hex() for place in range(6)}
    plan = served_plan(Committee(corrupt=0.0, helpers=Helpers(keys=keys)), phase_s=0.4)
    federation = make_federation(tmp_path, make_settings(plan))
    async with opened(federation) as client:
        await run_all(client, helpers=tuple(keys), h2=kind)
        assert await model_of(client) == ideal_model(plan, NAMES)
        (record,) = await records_of(client)
    assert f"h2 did not do its part on its session's committee: sent no {kind}" in caplog.messages
    assert record.record.blamed == ()


async def test_without_a_majority_of_a_slot_the_round_fails_and_is_tried_again(tmp_path: Path) -> None:
    plan = served_plan(phase_s=0.3)
    federation = make_federation(tmp_path, make_settings(plan, presence_s=0.5))
    async with opened(federation) as client:
        others = asyncio.create_task(run_all(client, helpers=("h0", "h1", "h2")))
        await Mini("h3", client, "Ack", serves=True).run()
        await Mini("h3", client, serves=True).run()
        await others
        assert await model_of(client) == ideal_model(plan, NAMES)
        first, *_, last = await records_of(client)
    assert first.record.failure.startswith("SLOT_LOST: ")
    assert (last.record.failure, last.record.participants) == ("", 4)


async def test_a_round_waits_for_its_helpers(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(served_plan()))
    async with opened(federation) as client:
        waiting = [asyncio.create_task(Mini(name, client).run()) for name in (*NAMES,)]
        waiting.append(asyncio.create_task(Mini("h0", client, serves=True).run()))
        await asyncio.sleep(0.3)
        answer = await client.get(FEDERATION_PATH)
        info = msgspec.json.decode(answer.content, type=FederationInfo)
        assert (info.attempt, info.present, info.helpers_present) == (0, 4, 1)
        await asyncio.gather(*waiting, *(Mini(name, client, serves=True).run() for name in HELPERS[1:]))
        assert await model_of(client) == ideal_model(federation.settings.plan, NAMES)


async def test_nobody_else_enrols_as_a_helper_and_no_helper_as_somebody_else(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(served_plan(), allowed={"h9": KEYS["h1"]}))
    async with opened(federation) as client:
        body = msgspec.json.encode({"name": "h0", "key": identity("p9").public.hex()})
        headers = authorization("p9", "POST", "/v1/participants", body)
        refused = await client.post("/v1/participants", content=body, headers=headers)
        assert (refused.status_code, "names a helper with this name or key" in refused.text) == (409, True)
        body = msgspec.json.encode({"name": "h9", "key": KEYS["h1"]})
        refused = await client.post(
            "/v1/participants", content=body, headers=authorization("h1", "POST", "/v1/participants", body)
        )
        assert (refused.status_code, "names a helper with this name or key" in refused.text) == (409, True)
        assert (await Mini("h0", client).enrol()).status_code == 201


def test_a_plan_whose_helpers_are_not_named_can_not_be_served() -> None:
    with pytest.raises(PlanError, match=r"names 0, which is too few: put what `ridotto identity NAME` shows"):
        make_settings(served_plan(Committee(corrupt=0.0)))


@settings(max_examples=10, deadline=None)
@given(steps=STEPS)
def test_any_kills_lead_to_the_ideal_model(steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), make_settings(served_plan()))
        scene.begin()
        for size, kill in steps:
            if not scene.is_over:
                scene.step(size, kill)
        finish(scene)
        assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NAMES)
        assert kept(Path(folder)) == []


@settings(max_examples=5, deadline=None)
@given(steps=STEPS)
def test_whoever_sealed_rubbish_is_taken_out_again_whenever_the_coordinator_is_killed(
    steps: list[tuple[int, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Spoiled(Path(folder), make_settings(served_plan()))
        scene.begin()
        for size, kill in steps:
            if not scene.is_over:
                scene.step(size, kill)
        finish(scene)
        assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NAMES[:3])
        assert record_of(scene).record.lost == {"p3": "its seeds do not open"}
        assert kept(Path(folder)) == []


def test_masks_are_kept_until_the_sum_is_opened(tmp_path: Path) -> None:
    """Two slots, so two sums of masks, whichever and however many of their replicas bring them."""
    scene = Scene(tmp_path, make_settings(served_plan()))
    scene.begin()
    found = set()
    while not scene.is_over:
        scene.step(1, "between")
        found.add(len(kept(tmp_path)))
    assert found == {0, 1, 2, 3, 4}
    assert kept(tmp_path) == []
    assert msgspec.json.decode(scene.store.records()[0].body, type=SignedRecord).record.participants == 4


def test_all_that_a_session_needs_may_come_in_one_batch(tmp_path: Path) -> None:
    """Seats that lie acknowledge a set before it was shown to them; what they release must not be forgotten with it."""
    scene = Scene(tmp_path, make_settings(served_plan()))
    scene.begin()
    assert scene.conductor.attempt is not None
    shadow = LiveAttempt(scene.conductor.attempt.description, COORDINATOR_KEY)
    shadow.begin()
    heard = 0
    while heard < len(scene.queue):
        item, heard = scene.queue[heard], heard + 1
        scene._deliver(shadow.receive(item.sender, item.message, item.frame, scene.now).sent)
    assert {type(item.message).__name__ for item in scene.queue} >= {"MemberKey", "MaskedVector", "Checked", "MaskSum"}
    assert scene.conductor.take(scene.queue, scene.now).refused == {}
    while not scene.is_over:
        scene.conductor.perform(scene.now)
    assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NAMES)
    assert kept(tmp_path) == []


class Equivocal(Scene):
    """h2 acknowledges another set as well, right after the first."""

    def _carry_out(self, name: str, machine: ParticipantRound | HelperRound, effects: list[Effect]) -> None:
        for effect in list(effects):
            if name == "h2" and isinstance(effect, Send) and isinstance(effect.message, Ack):
                session = make_sessions(self.conductor.attempt.description.attempt)[0]  # type: ignore[union-attr]
                book = CODEC.decode(self.mail["h2"][1], COORDINATOR)[0]
                context = setup_of(session).context
                other = sign_ack(identity("h2"), effect.message.sid, context, book_root(context, book), b"r" * 32)
                effects.append(Send(effect.to, other))
        super()._carry_out(name, machine, effects)


def test_two_acknowledgements_of_one_helper_are_kept_as_a_proof(tmp_path: Path) -> None:
    """Anybody who knows the helper's key checks it: both roots bear its signature, in one session."""
    scene = Equivocal(tmp_path, make_settings(served_plan()))
    scene.begin()
    finish(scene)
    assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NAMES)
    (path,) = (tmp_path / "proofs").iterdir()
    proof = json.loads(path.read_bytes())
    assert (proof["kind"], [one["member"] for one in proof["signed"]]) == ("Equivocation", ["h2", "h2"])
    assert len({one["root"] for one in proof["signed"]}) == 2
    assert len({one["sid"] for one in proof["signed"]}) == 1
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(KEYS["h2"]))
    for one in proof["signed"]:
        said = bytes.fromhex(proof["context"] + proof["book"] + one["root"])
        key.verify(bytes.fromhex(one["signature"]), b"ridotto/1 committee set\x00" + said)
