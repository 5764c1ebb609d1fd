"""Deltas at the coordinator: kept over kills, let go when too old, served to who holds a model they lead from."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import numpy as np
import pytest

from ridotto.coordinator.blobs import DELTAS, Blobs
from ridotto.coordinator.deltas import Deltas
from ridotto.coordinator.store import MemoryStore
from ridotto.core.tensors import read_model, rewrite_model
from ridotto.core.wire import digest
from ridotto.learn.compress.delta import apply_delta, split_deltas
from ridotto.rounds.service import DELTAS_TYPE, MODEL_TYPE, MODELS_PATH, RunState
from tests.coordinator.bench import Mini, make_federation, make_plan, make_settings, opened
from tests.coordinator.test_restart import Scene

A, B, C, D, E = (bytes([letter]) * 32 for letter in b"abcde")


def contents(paths: tuple[Path, ...]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


def four(folder: Path, most: int = 2) -> Deltas:
    """Publish A in round 0 and B, C and D in the next ones."""
    deltas = Deltas(Blobs(folder))
    deltas.load({A: 0}, most)
    for number, model in enumerate((B, C, D), 1):
        deltas.write(model, b"to " + model[:1])
        deltas.publish(model, number, most)
    return deltas


def test_a_chain_leads_from_model_to_model(tmp_path: Path) -> None:
    deltas = four(tmp_path, most=9)
    assert contents(deltas.between(A, D)) == [b"to b", b"to c", b"to d"]
    assert contents(deltas.between(C, D)) == [b"to d"]
    assert contents(deltas.between(A, B)) == [b"to b"]
    for held, wanted in ((D, D), (D, A), (E, D), (A, E)):
        assert deltas.between(held, wanted) == ()


def test_no_more_are_kept_than_are_worth_it(tmp_path: Path) -> None:
    deltas = four(tmp_path)
    assert len(list((tmp_path / DELTAS).iterdir())) == 2
    assert deltas.between(A, D) == ()
    assert contents(deltas.between(B, D)) == [b"to c", b"to d"]
    assert four(tmp_path / "none", most=0).between(C, D) == ()


def test_a_restart_finds_them_and_drops_what_was_never_published(tmp_path: Path) -> None:
    four(tmp_path).write(E, b"to e")
    (tmp_path / DELTAS / ("z" * 64 + ".part")).touch()
    again = Deltas(Blobs(tmp_path))
    again.load({A: 0, B: 1, C: 2, D: 3}, 2)
    assert contents(again.between(B, D)) == [b"to c", b"to d"]
    assert len(list((tmp_path / DELTAS).iterdir())) == 2
    assert again.between(D, E) == ()


def test_what_is_gone_from_the_disk_is_not_promised(tmp_path: Path) -> None:
    deltas = four(tmp_path)
    (path,) = deltas.between(C, D)
    path.unlink()
    assert deltas.between(B, D) == ()


def test_a_model_that_comes_back_counts_as_the_later_one(tmp_path: Path) -> None:
    deltas = four(tmp_path, most=9)
    deltas.write(C, b"back to c")
    deltas.publish(C, 4, 9)
    assert contents(deltas.between(D, C)) == [b"back to c"]
    assert deltas.between(A, D)


async def all_rounds(client: httpx.AsyncClient) -> None:
    await asyncio.gather(*(Mini(name, client).run() for name in ("p0", "p1", "p2", "p3")))


@pytest.mark.parametrize("bits", [2, 8])
async def test_serves_what_leads_to_the_newest_model_also_after_a_restart(tmp_path: Path, bits: int) -> None:
    store, settings = MemoryStore(), make_settings(make_plan(download_bits=bits), rounds=2)
    federation = make_federation(tmp_path, settings, store)
    async with opened(federation) as client:
        first = federation.info().model
        await all_rounds(client)
        assert federation.info().state is RunState.DONE
    again = make_federation(tmp_path, settings, store)
    async with opened(again) as client:
        last = again.info().model
        old = (await client.get(f"{MODELS_PATH}/{first}")).content
        answer = await client.get(f"{MODELS_PATH}/{last}?from={first}")
        assert answer.headers["content-type"] == DELTAS_TYPE
        vector, parts = read_model(old)[0], list(split_deltas(answer.content))
        assert len(parts) == 2
        for part in parts:
            vector = apply_delta(vector, part)
        assert digest(rewrite_model(old, vector)).hex() == last
        for held in ("0" * 64, "nonsense", last, ""):
            whole = await client.get(f"{MODELS_PATH}/{last}", params={"from": held})
            assert whole.headers["content-type"] == MODEL_TYPE
            assert digest(whole.content).hex() == last
        unknown = await client.get(f"{MODELS_PATH}/{'0' * 64}?from={first}")
        assert unknown.status_code == 404


@pytest.mark.parametrize("kill", ["before", "after", "between"])
def test_a_kill_around_any_step_leaves_what_leads_to_the_model(tmp_path: Path, kill: str) -> None:
    scene = Scene(tmp_path, make_settings(make_plan(download_bits=4)))
    scene.begin()
    first, number = scene.conductor.run.model, 0
    held = bytes(scene.conductor.model_bytes)
    while not scene.is_over:
        number += 1
        scene.step(4, kill if number % 2 else "no")
    scene.start()
    last = scene.conductor.run.model
    (data,) = contents(scene.conductor.deltas.between(first, last))
    assert digest(rewrite_model(held, apply_delta(read_model(held)[0], data))) == last


async def test_a_plan_without_them_keeps_none(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        first = federation.info().model
        await all_rounds(client)
        answer = await client.get(f"{MODELS_PATH}/{federation.info().model}?from={first}")
        assert answer.headers["content-type"] == MODEL_TYPE
        assert list((tmp_path / DELTAS).iterdir()) == []
        assert np.isfinite(read_model(answer.content)[0]).all()
