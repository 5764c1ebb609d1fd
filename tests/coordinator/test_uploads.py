"""Bodies that come slowly, in vain or many at once: nobody else is to suffer from them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.requests import Request

from ridotto.coordinator import body
from ridotto.coordinator.app import make_app
from ridotto.coordinator.body import Budget, FrameBody
from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.core.wire import PREFIX, digest
from ridotto.rounds.messages import Decline
from ridotto.rounds.service import MESSAGES_PATH, Problem
from ridotto.secagg.messages import Plain
from tests.coordinator.bench import CODEC, Mini, authorization, make_federation, make_settings, opened

SOON_S = 2.0


async def never() -> dict[str, Any]:
    await asyncio.sleep(60)
    return {"type": "http.disconnect"}


def request(receive: Any) -> Request:
    return Request({"type": "http", "headers": []}, receive)


async def test_a_stranger_can_not_buy_time_with_the_length_that_it_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PATIENCE_S", 0.01)
    with pytest.raises(RefusalError) as refusal:
        await asyncio.wait_for(FrameBody(request(never), 1 << 40).head(100), SOON_S)
    assert refusal.value.kind is RefusalKind.TOO_SLOW


async def test_who_waits_for_room_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PATIENCE_S", 0.05)
    whole = {"type": "http.request", "body": PREFIX.pack(1, 0) + b"vector", "more_body": False}
    begun = dict(whole, body=PREFIX.pack(1, 0), more_body=True)
    pieces = iter([begun, dict(whole, body=b"vector")])

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.001)
        return next(pieces)

    upload = FrameBody(request(receive), PREFIX.size + 6)
    await upload.head(100)
    await asyncio.sleep(0.1)
    assert bytes(await upload.rest())[PREFIX.size :] == b"vector"


async def test_a_message_without_a_vector_does_not_wait_for_vectors() -> None:
    budget = Budget(10)
    async with budget.hold(10):
        waiting = asyncio.create_task(budget.hold(10).__aenter__())
        await asyncio.sleep(0)
        async with asyncio.timeout(SOON_S), budget.hold(0):
            pass
        waiting.cancel()


async def test_a_participants_newest_upload_ends_its_earlier_ones(tmp_path: Path) -> None:
    """With room for one vector, one participant that never finishes its upload would otherwise stop everybody's."""
    federation = make_federation(tmp_path, make_settings(upload_limit_bytes=1))
    async with opened(federation) as client:
        assert (await Mini("p0", client).enrol()).status_code == 201
        app, vector = make_app(federation), bytes(federation.vector_bytes)
        head = CODEC.header(Plain(digest=digest(vector), size=len(vector), sid=bytes(32)))
        slow = asyncio.create_task(upload(app, head, len(head) + len(vector)))
        await asyncio.sleep(0.05)
        small = CODEC.header(Decline(bytes(32), "meanwhile"))
        assert await asyncio.wait_for(upload(app, small, len(small)), SOON_S) == "attempt-over"
        assert not slow.done()
        assert await asyncio.wait_for(upload(app, head, len(head) + len(vector), vector), SOON_S) == "attempt-over"
        assert await asyncio.wait_for(slow, SOON_S) == "too-slow"


async def upload(app: Any, head: bytes, length: int, vector: bytes = b"") -> str:
    """Send a frame, of which nothing comes after `vector`; return the word of the refusal."""
    target, sent = f"{MESSAGES_PATH}?attempt=1", []
    headers = {**authorization("p0", "POST", target, head), "content-length": str(length)}
    pieces = iter([{"type": "http.request", "body": head + vector, "more_body": len(head + vector) < length}])

    async def receive() -> dict[str, Any]:
        return next(pieces, None) or await never()

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": MESSAGES_PATH,
        "raw_path": MESSAGES_PATH.encode(),
        "query_string": b"attempt=1",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    return msgspec.json.decode(sent[1]["body"], type=Problem).type.partition("#")[2]
