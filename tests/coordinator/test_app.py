"""The HTTP interface without a port: what is answered, and every kind of refusal with its word and status."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from ridotto.coordinator.app import make_app
from ridotto.coordinator.body import Budget
from ridotto.coordinator.federation import Federation
from ridotto.coordinator.refusals import RefusalError, RefusalKind, problem_of
from ridotto.coordinator.store import MemoryStore
from ridotto.core.sparse_packing import pack_shorter
from ridotto.core.wire import PREFIX, digest
from ridotto.rounds.compression import TopK
from ridotto.rounds.messages import Announce, Decline
from ridotto.rounds.plan import Ideal, Risk
from ridotto.rounds.service import (
    EVENTS_PATH,
    FEDERATION_PATH,
    HEALTH_PATH,
    INBOX_PATH,
    INBOX_TYPE,
    MESSAGES_PATH,
    MODEL_TYPE,
    MODELS_PATH,
    PARTICIPANTS_PATH,
    PROBLEM_TYPE,
    ROUNDS_PATH,
    Enrolment,
    FederationInfo,
    Inbox,
    Problem,
    RunState,
)
from ridotto.secagg.messages import Plain
from ridotto.secagg.session import session_id
from tests.coordinator.bench import (
    CODEC,
    COORDINATOR_KEY,
    Mini,
    authorization,
    identity,
    make_federation,
    make_plan,
    make_settings,
    opened,
    tokens,
)


def refused(response: httpx.Response, kind: str, status: int) -> str:
    """Check that a response is this refusal, and return its reason."""
    problem = msgspec.json.decode(response.content, type=Problem)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM_TYPE), problem
    assert (problem.type, problem.status) == (f"about:blank#{kind}", status)
    assert problem.detail
    assert "Traceback" not in response.text
    return problem.detail


async def start_round(client: httpx.AsyncClient, count: int = 3) -> list[tuple[Mini, Announce]]:
    """Enrol participants, let them poll until a round starts, and return them with what was announced to them."""
    minis = [Mini(f"p{index}", client) for index in range(count)]
    for mini in minis:
        assert (await mini.enrol()).status_code == 201
    answers = await asyncio.gather(*(mini.inbox(0, 0) for mini in minis))
    inboxes = [msgspec.msgpack.decode(answer.content, type=Inbox) for answer in answers]
    assert [inbox.attempt for inbox in inboxes] == [1] * count
    return [(mini, CODEC.decode(inbox.frames[0], "c")[0]) for mini, inbox in zip(minis, inboxes, strict=True)]  # type: ignore[misc]


IDEAL = make_plan(protocol=Ideal(), i_know=(Risk.NO_PROTECTION,))


def plain(announce: Announce, size: int | None = None) -> tuple[bytes, bytes]:
    vector = bytes(announce.session.length * 4 if size is None else size)
    message = Plain(digest=digest(vector), size=len(vector), sid=session_id(announce.session))
    return CODEC.encode(message, vector), CODEC.header(message)


async def test_tells_what_is_trained(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        info = msgspec.json.decode((await client.get(FEDERATION_PATH)).content, type=FederationInfo)
        health = await client.get(HEALTH_PATH)
    assert (info.name, info.state, info.round, info.attempt, info.parameters) == ("test", RunState.WAITING, 1, 0, 5)
    assert info.coordinator == COORDINATOR_KEY.public.hex()
    assert info.plan == make_plan()
    assert health.json() == {"status": "ok"}


async def test_serves_the_model_by_its_digest(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        name = federation.info().model
        answer = await client.get(f"{MODELS_PATH}/{name}")
        unknown = await client.get(f"{MODELS_PATH}/{'0' * 64}")
        no_digest = await client.get(f"{MODELS_PATH}/../secret")
    assert digest(answer.content).hex() == name
    assert answer.headers["content-type"] == MODEL_TYPE
    assert answer.headers["content-length"] == str(len(answer.content))
    refused(unknown, "not-found", 404)
    refused(no_digest, "not-found", 404)


async def test_serves_older_models_from_their_files(tmp_path: Path) -> None:
    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        first = federation.info().model
        await asyncio.gather(*(Mini(f"p{index}", client).run() for index in range(4)))
        assert federation.info().model != first
        answer = await client.get(f"{MODELS_PATH}/{first}")
    assert digest(answer.content).hex() == first


@pytest.mark.parametrize("path", ["/", "/v2/federation", f"{ROUNDS_PATH}/1", f"{ROUNDS_PATH}/one"])
async def test_says_what_it_does_not_have(tmp_path: Path, path: str) -> None:
    async with opened(make_federation(tmp_path)) as client:
        refused(await client.get(path), "not-found", 404)


async def test_refuses_a_wrong_method(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        refused(await client.delete(FEDERATION_PATH), "not-allowed", 405)
        assert (await client.get(ROUNDS_PATH)).json() == []
        assert (await client.get(f"{ROUNDS_PATH}?after=5")).json() == []
        assert (await client.get(f"{ROUNDS_PATH}?after=-1")).status_code == 422


async def test_enrols_with_a_token_once(tmp_path: Path) -> None:
    store = MemoryStore()
    async with opened(make_federation(tmp_path, make_settings(allowed=None), store)) as client:
        (token,) = tokens(store)
        assert (await Mini("p0", client).enrol(token)).status_code == 201
        assert (await Mini("p0", client).enrol(token)).status_code == 200
        assert (await Mini("p0", client).enrol()).status_code == 200
        refused(await Mini("p1", client).enrol(token), "not-enrolled", 403)
        refused(await Mini("p1", client).enrol("guessed"), "not-enrolled", 403)
        assert "brings no token" in refused(await Mini("p1", client).enrol(), "not-enrolled", 403)
    assert set(store.participants()) == {"p0"}


async def enrol_as(client: httpx.AsyncClient, body: bytes, signer: str = "p0") -> httpx.Response:
    headers = authorization(signer, "POST", PARTICIPANTS_PATH, body)
    return await client.post(PARTICIPANTS_PATH, content=body, headers=headers)


async def test_refuses_wrong_enrolments(tmp_path: Path) -> None:
    def body(name: str, owner: str) -> bytes:
        return msgspec.json.encode(Enrolment(name=name, key=identity(owner).public.hex()))

    async with opened(make_federation(tmp_path)) as client:
        refused(await enrol_as(client, body("p1", "p1"), signer="p0"), "unauthenticated", 401)
        assert "another key" in refused(await enrol_as(client, body("p1", "p0")), "not-enrolled", 403)
        refused(await enrol_as(client, body("self", "p0")), "refused", 409)
        refused(await enrol_as(client, body("../p0", "p0")), "malformed", 422)
        refused(await enrol_as(client, b"\xff{"), "malformed", 422)
        refused(await enrol_as(client, b"{}"), "malformed", 422)
        refused(await enrol_as(client, b" " * 5000), "too-large", 413)
        assert (await enrol_as(client, body("p0", "p0"))).status_code == 201
        assert "enrolled already" in refused(await enrol_as(client, body("other", "p0")), "refused", 409)


async def test_two_copies_of_one_enrolment_at_once(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        answers = await asyncio.gather(*(Mini("p0", client).enrol() for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]


async def test_refuses_requests_that_do_not_prove_who_sent_them(tmp_path: Path) -> None:
    target = f"{INBOX_PATH}?attempt=0&after=0&wait=0"
    async with opened(make_federation(tmp_path)) as client:
        refused(await client.get(target), "unauthenticated", 401)
        refused(await client.get(target, headers={"Authorization": "Bearer x"}), "unauthenticated", 401)
        old = authorization("p0", "GET", target, b"", at=time.time() - 3600)
        assert "s behind ours, at most 300 s" in refused(await client.get(target, headers=old), "unauthenticated", 401)
        other = authorization("p0", "GET", target + "0", b"")
        refused(await client.get(target, headers=other), "unauthenticated", 401)
        refused(await client.get(target, headers=authorization("p0", "GET", target, b"")), "not-enrolled", 403)


@pytest.mark.parametrize(
    "query", ["attempt=x", "attempt=-1", "attempt=1&after=9999999999999999", "wait=nan", "wait=-1", "wait=soon"]
)
async def test_refuses_malformed_queries(tmp_path: Path, query: str) -> None:
    target = f"{INBOX_PATH}?{query}"
    async with opened(make_federation(tmp_path)) as client:
        await Mini("p0", client).enrol()
        refused(await client.get(target, headers=authorization("p0", "GET", target, b"")), "malformed", 422)


async def test_an_inbox_waits_and_then_answers_empty(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        mini = Mini("p0", client)
        await mini.enrol()
        before = time.monotonic()
        answer = await mini.inbox(0, 0, wait_s=0.1)
        assert time.monotonic() - before >= 0.1
    assert answer.headers["content-type"] == INBOX_TYPE
    inbox = msgspec.msgpack.decode(answer.content, type=Inbox)
    assert inbox == Inbox(attempt=0, state=RunState.WAITING, reason="", after=0, frames=())


async def test_a_newer_poll_ends_the_one_before(tmp_path: Path) -> None:
    """One participant must not take everybody's connections with polls that wait."""
    async with opened(make_federation(tmp_path)) as client:
        mini = Mini("p0", client)
        await mini.enrol()
        first = asyncio.create_task(mini.inbox(0, 0, wait_s=30))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(mini.inbox(0, 0, wait_s=30))
        answer = await asyncio.wait_for(first, 2.0)
        assert msgspec.msgpack.decode(answer.content, type=Inbox).frames == ()
        assert not second.done()
        second.cancel()


async def test_refuses_watchers_that_take_all_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridotto.coordinator.watchers.MOST_WATCHERS", 1)
    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        watching = federation.events(60.0)
        assert await anext(watching) is not None
        refused(await client.get(EVENTS_PATH), "too-many", 429)
        assert [event async for event in federation.events(60.0)][1:] == []
        await watching.aclose()  # type: ignore[attr-defined]


async def test_an_inbox_gives_the_same_frames_again(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path)) as client:
        mini, announce = (await start_round(client))[0]
        again = msgspec.msgpack.decode((await mini.inbox(1, 0)).content, type=Inbox)
        assert CODEC.decode(again.frames[0], "c")[0] == announce
        older = msgspec.msgpack.decode((await mini.inbox(7, 3)).content, type=Inbox)
        assert (older.attempt, older.after, len(older.frames)) == (1, 0, 1)


async def test_messages_are_acknowledged_and_may_be_repeated(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(IDEAL))) as client:
        for mini, announce in await start_round(client):
            for _ in range(2):
                assert (await mini.post(1, *plain(announce))).status_code == 204
        # The round may be over by now, and what was taken stays taken.
        assert (await mini.post(1, *plain(announce))).status_code == 204


async def test_refuses_messages_with_a_reason(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(IDEAL))) as client:
        (mini, announce), *_ = await start_round(client)
        frame, header = plain(announce)
        assert "20 bytes" in refused(await mini.post(1, *plain(announce, 20)), "refused", 409)
        changed = frame[:-1] + b"\x01"
        assert "digest" in refused(await mini.post(1, changed, header), "refused", 409)
        refused(await mini.post(1, frame[:-1], header), "refused", 409)
        refused(await mini.post(2, frame, header), "attempt-over", 410)
        refused(await mini.post(1, frame, header[:-1]), "unauthenticated", 401)
        refused(await mini.post(1, b"\x01", b"\x01"), "malformed", 422)
        lying = PREFIX.pack(1, 1000) + b"x"
        refused(await mini.post(1, lying, lying), "malformed", 422)
        garbage = PREFIX.pack(1, 3) + b"\xc1\xc1\xc1"
        assert "malformed message" in refused(await mini.post(1, garbage, garbage), "refused", 409)
        assert (await mini.post(1, frame, header)).status_code == 204


async def test_refuses_padding_that_is_not_zero(tmp_path: Path) -> None:
    plan = make_plan(
        bits=11, value_range=0.1, max_examples=1, metrics={}, protocol=Ideal(), i_know=(Risk.NO_PROTECTION,)
    )
    federation = make_federation(tmp_path, make_settings(plan))
    async with opened(federation) as client:
        (mini, announce), *_ = await start_round(client)
        assert announce.session.length * 11 % 8
        vector = bytes(federation.vector_bytes - 1) + b"\x80"
        message = Plain(digest=digest(vector), size=len(vector), sid=session_id(announce.session))
        answer = await mini.post(1, CODEC.encode(message, vector), CODEC.header(message))
    assert "not zero" in refused(answer, "refused", 409)


async def test_takes_vectors_without_zeros_and_refuses_malformed_ones(tmp_path: Path) -> None:
    plan = make_plan(protocol=Ideal(), compress=(TopK(0.4),), i_know=(Risk.NO_PROTECTION,))
    async with opened(make_federation(tmp_path, make_settings(plan))) as client:
        (mini, announce), *_ = await start_round(client)
        vector = bytes(pack_shorter(np.eye(1, announce.session.length, 2, dtype=np.uint32)[0], 32))
        assert len(vector) == 8 + 1 + 4
        for wrong in (vector[:-1], vector[:-4] + bytes(4), b"\xff" * 20, b""):
            message = Plain(digest=digest(wrong), size=len(wrong), sid=session_id(announce.session))
            answer = await mini.post(1, CODEC.encode(message, wrong), CODEC.header(message))
            assert "without zeros is malformed" in refused(answer, "refused", 409)
        message = Plain(digest=digest(vector), size=len(vector), sid=session_id(announce.session))
        assert (await mini.post(1, CODEC.encode(message, vector), CODEC.header(message))).status_code == 204


async def test_refuses_what_is_too_large_before_reading_it(tmp_path: Path) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(1000)

    federation = make_federation(tmp_path)
    async with opened(federation) as client:
        target = f"{MESSAGES_PATH}?attempt=1"
        large = {"Content-Length": str(1 << 40)}
        refused(await client.post(target, content=endless(), headers=large), "too-large", 413)
        assert read == 0
        refused(await client.post(target, content=endless()), "length-required", 411)
        refused(await client.post(target, content=b"x", headers={"Content-Length": "ten"}), "malformed", 422)
        header = PREFIX.pack(1, 1 << 20)
        refused(await client.post(target, content=header), "too-large", 413)
        refused(
            await client.post(target, content=endless(), headers={"Content-Length": "5000"}), "unauthenticated", 401
        )
        refused(await client.post(MESSAGES_PATH, content=b"x"), "malformed", 422)


async def test_refuses_who_talks_too_much(tmp_path: Path) -> None:
    async with opened(make_federation(tmp_path, make_settings(IDEAL))) as client:
        (mini, announce), *_ = await start_round(client)
        sid = session_id(announce.session)
        declines = [CODEC.encode(Decline(sid, f"reason {index}")) for index in range(20)]
        answers = [await mini.post(1, frame, frame) for frame in declines]
    assert {answer.status_code for answer in answers[:16]} == {204}
    assert "more than 16 messages" in refused(answers[16], "refused", 409)


async def test_refuses_new_work_when_it_shuts_down(tmp_path: Path) -> None:
    federation = make_federation(tmp_path, make_settings(IDEAL))
    await federation.open()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(make_app(federation)), base_url="http://test") as client:
        (mini, announce), *_ = await start_round(client)
        waiting = asyncio.create_task(mini.inbox(1, 1, wait_s=30))
        await asyncio.sleep(0.05)
        await federation.close()
        assert (await waiting).status_code == 200
        refused(await mini.post(1, *plain(announce)), "shutting-down", 503)
        refused(await client.get(HEALTH_PATH), "shutting-down", 503)
        assert (await client.get(EVENTS_PATH)).text.startswith("event: state\ndata: {")


async def test_a_bug_is_answered_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Federation) -> FederationInfo:
        raise ZeroDivisionError("secret detail")

    async with opened(make_federation(tmp_path)) as client:
        monkeypatch.setattr(Federation, "info", broken)
        with caplog.at_level(logging.ERROR):
            answer = await client.get(FEDERATION_PATH)
    refused(answer, "internal", 500)
    assert "secret detail" not in answer.text
    assert "secret detail" in caplog.text


def test_every_kind_of_refusal_has_a_status_and_a_title() -> None:
    problems = [problem_of(RefusalError(kind, "why"), "/v1") for kind in RefusalKind]
    assert all(400 <= problem.status < 600 and problem.title for problem in problems)
    assert len({problem.type for problem in problems}) == len(RefusalKind)


async def test_a_budget_serves_in_order_and_lets_nobody_starve() -> None:
    budget, order = Budget(10), []

    async def hold(size: int) -> None:
        async with budget.hold(size):
            order.append(size)
            await asyncio.sleep(0)

    await asyncio.gather(hold(6), hold(100), hold(3), hold(4))
    assert order == [6, 100, 3, 4]


async def test_a_budget_forgets_who_gave_up() -> None:
    budget = Budget(10)
    async with budget.hold(10):
        waiting = [asyncio.create_task(budget.hold(10).__aenter__()) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
    await asyncio.wait_for(waiting[1], 1.0)
    assert waiting[0].cancelled()
