"""Rounds of one message over HTTP, and killed coordinators: what was acknowledged stays, and can be taken out again."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given, settings

from ridotto.coordinator.watchers import Event, EventKind
from ridotto.core.machine import Effect, Send
from ridotto.errors import PeerProtocolError
from ridotto.rounds.plan import Oneshot, Plan, Risk
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.round import ParticipantRound
from ridotto.secagg.oneshot.messages import Contribution
from tests.coordinator.bench import ideal_model, make_federation, make_plan, make_settings, opened
from tests.coordinator.test_restart import NAMES, STEPS, Scene
from tests.coordinator.test_rounds import model_of, records_of, run_all


def one_message_plan(**changes: object) -> Plan:
    return make_plan(**({"protocol": Oneshot(corrupt=0.0), "i_know": (Risk.SMALL_COHORT,)} | changes))


def record_of(scene: Scene) -> SignedRecord:
    (stored,) = scene.store.records()
    return msgspec.json.decode(stored.body, type=SignedRecord)


def kept(folder: Path) -> list[Path]:
    return list((folder / "kept").iterdir())


def finish(scene: Scene) -> None:
    while not scene.is_over:
        scene.step(4, "no")


class Spoiled(Scene):
    """p3 seals rubbish for everybody."""

    def _carry_out(self, name: str, machine: ParticipantRound, effects: list[Effect]) -> None:
        for place, effect in enumerate(effects):
            if name == "p3" and isinstance(effect, Send) and isinstance(effect.message, Contribution):
                parcels = tuple(bytes(len(parcel)) for parcel in effect.message.parcels)
                message = msgspec.structs.replace(effect.message, parcels=parcels)
                effects[place] = Send(effect.to, message, effect.attachment)
        super()._carry_out(name, machine, effects)


async def test_two_rounds_make_the_ideal_model(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(one_message_plan(), rounds=2))
    async with opened(federation) as client:
        minis = await run_all(client)
        assert await model_of(client) == ideal_model(federation.settings.plan, NAMES, rounds=2)
        records = await records_of(client)
    assert [mini.closed for mini in minis] == [["", ""]] * 4
    assert [record.record.protocol for record in records] == ["oneshot"] * 2
    assert kept(tmp_path) == []


async def test_a_seat_that_dies_costs_nothing_and_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    federation = make_federation(tmp_path, make_settings(one_message_plan(phase_s=0.3)))
    async with opened(federation) as client:
        await run_all(client, p2="Checked")
        assert await model_of(client) == ideal_model(federation.settings.plan, NAMES)
    assert "p2 did not do its part on its session's committee: sent no Checked" in caplog.messages


# Here the kill comes after the last commit, before the files are deleted.
LATE = [*[(1, "no")] * 4, (4, "no"), (1, "no"), (1, "no"), (2, "after"), (6, "no"), (4, "no"), (1, "no"), (1, "after")]


@settings(max_examples=10, deadline=None)
@example(steps=LATE)
@given(steps=STEPS)
def test_any_kills_lead_to_the_ideal_model(steps: list[tuple[int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), make_settings(one_message_plan()))
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
        scene = Spoiled(Path(folder), make_settings(one_message_plan()))
        scene.begin()
        for size, kill in steps:
            if not scene.is_over:
                scene.step(size, kill)
        finish(scene)
        assert bytes(scene.conductor.model_bytes) == ideal_model(scene.settings.plan, NAMES[:3])
        assert record_of(scene).record.lost == {"p3": "its parcels do not open"}
        assert kept(Path(folder)) == []


def test_two_kills_right_after_a_commit_leave_no_ciphertext_behind(tmp_path: Path) -> None:
    """The first leaves the files of a session whose set is final, the second those of an attempt that is over."""
    scene = Scene(tmp_path, make_settings(one_message_plan()))
    scene.begin()
    while not scene.is_over:
        scene.step(4, "after")
    scene.start()
    assert kept(tmp_path) == []


def test_ciphertexts_are_kept_until_the_set_is_final(tmp_path: Path) -> None:
    scene = Scene(tmp_path, make_settings(one_message_plan()))
    scene.begin()
    scene.step(4, "no")
    assert kept(tmp_path) == []
    scene.step(4, "between")
    assert len(kept(tmp_path)) == 4
    scene.step(4, "no")
    assert kept(tmp_path) == []


async def test_a_ciphertext_of_another_size_is_refused_by_name(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(one_message_plan()))
    assert federation.vector_bytes == 12 * 4096
    scene = Scene(tmp_path, make_settings(one_message_plan()))
    scene.begin()
    scene.step(4, "no")
    item = scene.queue[0]
    shorter = msgspec.structs.replace(item.message, size=12 * 4096 - 1)
    assert scene.conductor.attempt is not None
    with pytest.raises(PeerProtocolError, match=f"{item.sender}: its ciphertext has 49151 bytes, expected 49152"):
        scene.conductor.attempt.receive(item.sender, shorter, b"frame", scene.now)


async def test_watchers_are_shown_progress_and_nothing_about_single_seats(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(one_message_plan()))
    shown: list[Event] = []

    async def watch() -> None:
        async for event in federation.events(5.0):
            shown.extend([event] if event is not None else [])

    async with opened(federation) as client:
        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        await run_all(client)
    await watching
    steps = [msgspec.json.decode(event.data)["step"] for event in shown if event.kind is EventKind.PROGRESS]
    assert {"MemberKey", "Contribution", "Checked", "Ack", "Release"} <= set(steps)
