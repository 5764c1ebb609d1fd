"""Whole rounds over the ASGI app: real participants' machines, the in-memory store, no port."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest

from ridotto.coordinator.federation import Federation
from ridotto.coordinator.watchers import EventKind
from ridotto.core.rng import insecure_seeded_rng
from ridotto.core.wire import digest
from ridotto.rounds.plan import Ideal, Optimiser, Pairwise, Risk
from ridotto.rounds.policy import Policy
from ridotto.rounds.record import SignedRecord
from ridotto.rounds.service import FEDERATION_PATH, MODELS_PATH, ROUNDS_PATH, FederationInfo, RunState
from tests.coordinator.bench import (
    COORDINATOR_KEY,
    Mini,
    ideal_model,
    make_federation,
    make_plan,
    make_settings,
    opened,
)

NAMES = ("p0", "p1", "p2", "p3")


async def run_all(
    client: httpx.AsyncClient, names: tuple[str, ...] = NAMES, helpers: tuple[str, ...] = (), **dies_before: str
) -> list[Mini]:
    """Let everybody take part or serve to the end; return the participants."""
    minis = [Mini(name, client, dies_before.get(name, "")) for name in names]
    serving = [Mini(name, client, dies_before.get(name, ""), serves=True) for name in helpers]
    await asyncio.gather(*(mini.run() for mini in [*minis, *serving]))
    return minis


async def records_of(client: httpx.AsyncClient) -> list[SignedRecord]:
    return msgspec.json.decode((await client.get(ROUNDS_PATH)).content, type=list[SignedRecord])


async def model_of(client: httpx.AsyncClient) -> bytes:
    info = msgspec.json.decode((await client.get(FEDERATION_PATH)).content, type=FederationInfo)
    answer = await client.get(f"{MODELS_PATH}/{info.model}")
    assert digest(answer.content).hex() == info.model
    return answer.content


async def test_three_rounds_make_the_ideal_model(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(rounds=3))
    async with opened(federation) as client:
        minis = await run_all(client)
        assert await model_of(client) == ideal_model(federation.settings.plan, NAMES, rounds=3)
        records = await records_of(client)
    assert [mini.closed for mini in minis] == [["", "", ""]] * 4
    assert [record.record.round for record in records] == [1, 2, 3]
    for record in records:
        record.check(COORDINATOR_KEY.public)
    assert federation.info().state is RunState.DONE


@pytest.mark.parametrize("bits", [20, 64])
async def test_any_width_and_a_strategy_with_state(tmp_path: Path, bits: int) -> None:
    plan = make_plan(bits=bits, value_range=1.0, max_examples=100, metrics={}, optimiser=Optimiser(name="fedavgm"))
    federation = make_federation(tmp_path, make_settings(plan, rounds=2))
    async with opened(federation) as client:
        await run_all(client)
        assert await model_of(client) == ideal_model(plan, NAMES, rounds=2)


async def test_only_the_newest_state_of_a_strategy_is_kept(tmp_path: Path) -> None:
    """A thousand rounds must not leave a thousand states on the disk."""
    settings = make_settings(make_plan(optimiser=Optimiser(name="fedavgm")), rounds=3)
    federation = make_federation(tmp_path, settings)
    async with opened(federation) as client:
        await run_all(client)
        assert federation.info().state is RunState.DONE
    assert len(list((tmp_path / "states").iterdir())) == 1


async def test_ideal_protocol(tmp_path: Path) -> None:
    plan = make_plan(protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        policy = Policy(protocols=("ideal",), i_know=(Risk.NO_PROTECTION,))
        await asyncio.gather(*(Mini(name, client, policy=policy).run() for name in NAMES))
        assert await model_of(client) == ideal_model(plan, NAMES)


@pytest.mark.parametrize("step", ["PublicKeys", "SealedShares", "Masked", "Consistency", "Unmask"])
async def test_survives_a_participant_that_leaves(tmp_path: Path, step: str) -> None:
    plan = make_plan(train_s=0.3, phase_s=0.3)
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        await run_all(client, p3=step)
        included = NAMES if step in ("Consistency", "Unmask") else NAMES[:3]
        assert await model_of(client) == ideal_model(plan, included)
        (signed,) = await records_of(client)
    assert set(signed.record.lost) == {"p3"}


async def test_who_died_is_not_asked_again(tmp_path: Path) -> None:
    plan = make_plan(train_s=0.3, phase_s=0.3)
    async with opened(make_federation(tmp_path, make_settings(plan, rounds=2))) as client:
        await run_all(client, p3="Masked")
        records = await records_of(client)
    assert [record.record.sessions[0].members for record in records] == [4, 3]


async def test_a_failed_attempt_is_repeated_until_it_has_failed_too_often(tmp_path: Path) -> None:
    settings = make_settings(make_plan(train_s=0.1, phase_s=0.1), max_failures=2)
    federation = make_federation(tmp_path, settings)
    async with opened(federation) as client:
        stayers = [asyncio.create_task(Mini(name, client).run()) for name in NAMES[:2]]
        silent = [asyncio.create_task(keep_polling(Mini(name, client))) for name in NAMES[2:]]
        await asyncio.gather(*stayers)
        for task in silent:
            task.cancel()
        info = federation.info()
        records = await records_of(client)
    assert info.state is RunState.FAILED
    assert info.reason.startswith("2 attempts failed in a row, the last one because of: TOO_FEW")
    assert [(record.record.round, record.record.attempt) for record in records] == [(1, 1), (1, 2)]
    assert {record.record.model for record in records} == {info.model}


async def keep_polling(mini: Mini) -> None:
    """Be present and say nothing."""
    await mini.enrol()
    while True:
        await mini.inbox(0, 0, wait_s=0.05)
        await asyncio.sleep(0.01)


async def test_starts_with_fewer_after_join_s(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        await run_all(client, NAMES[:3])
        (signed,) = await records_of(client)
    assert signed.record.participants == 3


async def test_does_not_start_with_too_few(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        tasks = [asyncio.create_task(Mini(name, client).run()) for name in NAMES[:2]]
        await asyncio.sleep(0.2)
        assert (federation.info().state, federation.info().present) == (RunState.WAITING, 2)
        for task in tasks:
            task.cancel()


async def test_chooses_a_cohort_among_many(tmp_path: Path) -> None:
    names = tuple(f"p{index}" for index in range(8))
    async with opened(make_federation(tmp_path, make_settings(rounds=2))) as client:
        await run_all(client, names)
        records = await records_of(client)
    assert [record.record.sessions[0].members for record in records] == [4, 4]


async def test_several_sessions_in_one_round(tmp_path: Path) -> None:
    plan = make_plan(cohort=8, protocol=msgspec.structs.replace(make_plan().protocol, shard_size=4))
    names = tuple(f"p{index}" for index in range(8))
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        await run_all(client, names)
        assert await model_of(client) == ideal_model(plan, names)
        (signed,) = await records_of(client)
    assert len(signed.record.sessions) == 2


async def test_a_model_that_diverged_fails_the_attempt_and_not_the_coordinator(tmp_path: Path) -> None:
    plan = make_plan(optimiser=Optimiser(name="fedavg", parameters={"learning_rate": 1e39}))
    federation = make_federation(tmp_path, make_settings(plan, max_failures=1))
    async with opened(federation) as client:
        before = await model_of(client)
        await run_all(client)
        assert await model_of(client) == before
    assert federation.info().state is RunState.FAILED
    assert "weights" in federation.info().reason


async def test_watchers_see_state_progress_and_records(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    seen: list[EventKind] = []

    async def watch(federation: Federation) -> None:
        async for event in federation.events(heartbeat_s=60.0):
            if event is not None:
                seen.append(event.kind)

    async with opened(federation) as client:
        watching = asyncio.create_task(watch(federation))
        await run_all(client)
    await watching
    assert seen[0] is EventKind.STATE
    assert seen[-2:] == [EventKind.RECORD, EventKind.STATE]
    assert seen.count(EventKind.PROGRESS) > 10


async def test_names_do_not_decide_who_shares_a_session(tmp_path: Path) -> None:
    """Dealt by their names, p0, p2, p4, ... would be together in every round."""
    plan = make_plan(cohort=8, protocol=Pairwise(corrupt=0.0, shard_size=4))
    names = tuple(f"p{place}" for place in range(8))
    federation = make_federation(tmp_path, make_settings(plan, rounds=3), rng=insecure_seeded_rng(1))
    async with opened(federation) as client:
        await run_all(client, names)
        records = await records_of(client)
    drawn = [session.included for signed in records for session in signed.record.sessions]
    assert all(len(members) == 4 for members in drawn)
    assert len(set(drawn)) > 2
    assert not {names[::2], names[1::2]} & set(drawn)
