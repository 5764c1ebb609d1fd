"""The HTTP face of xaynet rounds, without a port: what clients get, and what is refused."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any
from urllib.parse import urlencode

import httpx
import numpy as np
import pytest

from ridotto.coordinator.xaynet import XaynetService, make_xaynet_app
from ridotto.core.rng import insecure_seeded_rng
from ridotto.crypto.sodium import SigningKey
from ridotto.errors import DataError
from ridotto.secagg.xaynet.bincode import decode_keys, decode_model, decode_parameters
from ridotto.secagg.xaynet.client import XaynetParticipant
from ridotto.secagg.xaynet.machine import RoundDone, RoundFailed, XaynetCoordinator
from ridotto.secagg.xaynet.settings import PhaseLimits
from ridotto.secagg.xaynet.sortition import Role
from ridotto.secagg.xaynet.wire import SEALED_SEED_BYTES
from tests.secagg.xaynet.world import make_settings

MODELS = [[0.5, -0.25, 0.0, 1.0], [0.25, 0.5, -1.0, 0.75], [-0.5, 0.25, 1.0, 0.0]]
MEAN = [Fraction(1, 12), Fraction(1, 6), Fraction(0), Fraction(7, 12)]


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    settings = options.pop("settings", make_settings())
    service = XaynetService(settings, rng=insecure_seeded_rng(1), **options)
    stopped = await service.open()
    transport = httpx.ASGITransport(make_xaynet_app(service))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator") as client:
            yield client
        if stopped.done():
            stopped.result()
    finally:
        await service.close()


async def play(client: httpx.AsyncClient) -> None:
    """Play one round with one summer and three updaters."""
    parameters = decode_parameters((await client.get("/params")).content, "coordinator")
    summers, updaters = [], []
    for number in range(100):
        rng = insecure_seeded_rng(number)
        one = XaynetParticipant(SigningKey.generate(rng), rng)
        {Role.SUM: summers, Role.UPDATE: updaters}.get(one.begin(parameters), []).append(one)
    for box in summers[0].sum_boxes():
        assert (await client.post("/message", content=box)).status_code == 200
    sums = decode_keys((await client.get("/sums")).content, 32, "coordinator")
    assert list(sums) == [summers[0].public]
    for one, model in zip(updaters, MODELS, strict=False):
        for box in one.update_boxes(sums, model, 1):
            assert (await client.post("/message", content=box)).status_code == 200
    query = urlencode({"pk": base64.b64encode(summers[0].public).decode()})
    answer = await client.get(f"/seeds?{query}")
    seeds = decode_keys(answer.content, SEALED_SEED_BYTES, "coordinator")
    assert len(seeds) == 3
    # Some clients do not escape the plus of base64.
    assert (await client.get("/seeds?pk=" + base64.b64encode(summers[0].public).decode())).content == answer.content
    for box in summers[0].sum2_boxes(seeds):
        answer = await client.post("/message", content=box)
        assert (answer.status_code, answer.content) == (200, b"")


async def test_a_round_over_http() -> None:
    results: list[tuple[RoundDone, np.ndarray[Any, Any]]] = []
    async with serving(on_round=lambda *result: results.append(result), rounds=2) as client:
        for path in ("/sums", "/model", "/seeds?pk=" + base64.b64encode(bytes(32)).decode()):
            assert (await client.get(path)).status_code == 204
        before = (await client.get("/params")).content
        await play(client)
        assert (await client.get("/params")).content != before
        assert (await client.get("/sums")).status_code == 204
        assert decode_model((await client.get("/model")).content, 4, "coordinator") == MEAN
        await play(client)
        over = await client.post("/message", content=b"x")
        assert over.status_code == 413
        assert (await client.get("/model")).status_code == 200
    assert [done.number for done, _ in results] == [1, 2]
    assert results[0][1].dtype == np.float32
    assert results[0][1].tolist() == [float(np.float32(float(weight))) for weight in MEAN]


async def test_the_initial_model_is_served_until_there_is_another() -> None:
    initial = np.array([0.5, -1.0, 0.0, 3.0], np.float32)
    async with serving(initial=initial) as client:
        model = (await client.get("/model")).content
        assert decode_model(model, 4, "coordinator") == [Fraction(1, 2), Fraction(-1), Fraction(0), Fraction(3)]
        await play(client)
        assert decode_model((await client.get("/model")).content, 4, "coordinator") == MEAN


@pytest.mark.parametrize("initial", [np.zeros(3, np.float32), np.zeros((4, 1), np.float32), np.full(4, np.nan, "f4")])
def test_refuses_an_initial_model_that_does_not_fit(initial: Any) -> None:
    with pytest.raises(DataError):
        XaynetService(make_settings(), initial=initial)


async def test_refused_messages_are_answered_as_in_the_original() -> None:
    async with serving() as client:
        for body in (b"", b"x", bytes(280)):
            answer = await client.post("/message", content=body)
            assert (answer.status_code, answer.content) == (200, b"")


async def test_bodies_without_a_proper_length_are_not_read() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"x"
        pytest.fail("it was read on")

    async with serving() as client:
        assert (await client.post("/message", content=bytes(281))).status_code == 413
        assert (await client.post("/message", content=endless())).status_code == 411


@pytest.mark.parametrize("query", ["", "?pk=", "?pk=abc", "?pk=%00", "?pk=AAAA", "?pk=" + "A" * 50_000])
async def test_refuses_seeds_for_what_is_no_key(query: str) -> None:
    async with serving() as client:
        assert (await client.get("/seeds" + query)).status_code == 400


async def test_unknown_paths_and_methods() -> None:
    async with serving() as client:
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.get("/message")).status_code == 405


async def test_time_ends_phases_and_failures_are_told() -> None:
    failures: list[RoundFailed] = []
    soon = PhaseLimits(least=1, most=1, min_s=0, max_s=0.02)
    async with serving(settings=make_settings(sum=soon), on_failure=failures.append) as client:
        before = (await client.get("/params")).content
        while (await client.get("/params")).content == before:
            await asyncio.sleep(0.005)
    assert failures[0].error.code == "TOO_FEW"


async def test_a_step_that_raises_when_time_is_up_stops_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(XaynetCoordinator, "expire", fail)
    soon = PhaseLimits(least=1, most=1, min_s=0, max_s=0.02)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        async with serving(settings=make_settings(sum=soon)):
            await asyncio.sleep(0.2)


async def test_a_hook_that_raises_stops_the_service() -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        async with serving(on_round=fail) as client:
            await play(client)
