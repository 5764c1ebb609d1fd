"""The HTTP interface of `rounds.service`, as an ASGI app around a `Federation`. Every refusal is a problem document."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive

from ridotto.coordinator.auth import check_signature
from ridotto.coordinator.body import Budget, FrameBody, body_length, read_small
from ridotto.coordinator.conductor import Input
from ridotto.coordinator.federation import Federation
from ridotto.coordinator.refusals import RefusalError, RefusalKind, problem_of, refusal_of
from ridotto.core.wire import PREFIX, Codec, digest
from ridotto.errors import StorageError
from ridotto.rounds.messages import messages_of_all
from ridotto.rounds.protocol_settings import parcels_bytes
from ridotto.rounds.service import (
    DELTAS_TYPE,
    EVENTS_PATH,
    FEDERATION_PATH,
    HEALTH_PATH,
    INBOX_PATH,
    INBOX_TYPE,
    LONGEST_WAIT_S,
    MESSAGES_PATH,
    MODEL_TYPE,
    MODELS_PATH,
    PARTICIPANTS_PATH,
    PROBLEM_TYPE,
    PROOF_PART,
    RECEIPT_PART,
    ROUNDS_PATH,
    Enrolment,
)

HEARTBEAT_S = 15.0
"""Between two comments of a silent event stream: proxies cut connections after 30 to 60 seconds of silence."""

ENROLMENT_LIMIT_BYTES = 4096

HEADER_BASE_BYTES = 64 << 10
HEADER_MEMBER_BYTES = 256
"""Longest header of a participant's message: `SealedShares` takes 152 bytes per member of its session, `Unmask` 40."""

INLINE_BYTES = 256 << 10
"""Longer frames are hashed in a thread, so that others are answered meanwhile. This many bytes hash in 0.2 ms."""

PIECE_BYTES = 1 << 20
"""Of a model in an answer: what one slow reader holds in memory."""

LARGEST_COUNT = 2**48

_Endpoint = Callable[[Request], Awaitable[Response]]
_Json = "application/json"
_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def make_app(federation: Federation) -> Starlette:
    """Return the ASGI app that serves a federation, which must be open before the first request."""
    service = _Service(federation)
    endpoints: list[tuple[str, str, _Endpoint]] = [
        (FEDERATION_PATH, "GET", service.federation),
        (PARTICIPANTS_PATH, "POST", service.enrol),
        (INBOX_PATH, "GET", service.inbox),
        (MESSAGES_PATH, "POST", service.message),
        (MODELS_PATH + "/{sha256}", "GET", service.model),
        (ROUNDS_PATH, "GET", service.rounds),
        (ROUNDS_PATH + "/{number}", "GET", service.round),
        (ROUNDS_PATH + "/{number}" + RECEIPT_PART, "GET", service.receipt),
        (ROUNDS_PATH + "/{number}" + PROOF_PART, "GET", service.proof),
        (EVENTS_PATH, "GET", service.events),
        (HEALTH_PATH, "GET", service.health),
    ]
    routes = [Route(path, _answered(endpoint), methods=[method]) for path, method, endpoint in endpoints]
    return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_route})


class _Service:
    """Hold what the endpoints share."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._budget = Budget(federation.settings.upload_limit_bytes)
        self._uploads: dict[str, FrameBody] = {}
        self._codec = Codec(*messages_of_all(), attachment_limit=federation.vector_bytes)
        plan = federation.settings.plan
        members = min(plan.cohort, plan.session_limit)
        self._header_limit = HEADER_BASE_BYTES + HEADER_MEMBER_BYTES * members + parcels_bytes(plan)
        self._frame_limit = PREFIX.size + self._header_limit + federation.vector_bytes

    async def federation(self, request: Request) -> Response:
        return _json(self._federation.info())

    async def enrol(self, request: Request) -> Response:
        body = await read_small(request, ENROLMENT_LIMIT_BYTES)
        signer = self._signer(request, body)
        try:
            enrolment = msgspec.json.decode(body, type=Enrolment)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RefusalError(RefusalKind.MALFORMED, f"the enrolment can't be read: {error}") from error
        new = await self._federation.enrol(enrolment, signer)
        return _json(self._federation.info(), 201 if new else 200)

    async def inbox(self, request: Request) -> Response:
        name = self._federation.roster.name_of(self._signer(request, b""))
        attempt, after = _count(request, "attempt", 0), _count(request, "after", 0)
        wait_s = _seconds(request, "wait", LONGEST_WAIT_S)
        inbox = await _unless_gone(request.receive, self._federation.inbox(name, attempt, after, wait_s))
        if inbox is None:
            return Response(status_code=204)
        return Response(msgspec.msgpack.encode(inbox), media_type=INBOX_TYPE)

    async def message(self, request: Request) -> Response:
        length = body_length(request, self._frame_limit)
        attempt = _count(request, "attempt", None)
        body = FrameBody(request, length)
        head = await body.head(self._header_limit)
        try:
            name = self._federation.roster.name_of(self._signer(request, head))
            self._federation.admit(name)
        except RefusalError:
            # Who is still writing when the connection is closed never reads why.
            await body.discard()
            raise
        vector_bytes = length - len(head)
        async with self._only_upload(name, body, vector_bytes), self._budget.hold(vector_bytes):
            frame = await body.rest()
            if length > INLINE_BYTES:
                message, attachment = await asyncio.to_thread(self._codec.decode, frame, name)
            else:
                message, attachment = self._codec.decode(frame, name)
            await self._federation.submit(Input(name, attempt, message, head, attachment))
        return Response(status_code=204)

    @asynccontextmanager
    async def _only_upload(self, name: str, body: FrameBody, vector_bytes: int) -> AsyncIterator[None]:
        """Let a participant's newest vector stand for it: many slow ones would take everybody's room."""
        if not vector_bytes:
            yield
            return
        earlier = self._uploads.get(name)
        if earlier is not None:
            earlier.give_up()
        self._uploads[name] = body
        try:
            yield
        finally:
            if self._uploads.get(name) is body:
                del self._uploads[name]

    async def model(self, request: Request) -> Response:
        name = request.path_params["sha256"]
        sha256, held = _sha256(name), _sha256(request.query_params.get("from", ""))
        if sha256 is not None and held is not None:
            deltas = await asyncio.to_thread(self._federation.deltas, held, sha256)
            if deltas:
                return StreamingResponse(_contents(deltas), media_type=DELTAS_TYPE)
        found = self._federation.model_file(sha256) if sha256 is not None else None
        if found is None:
            raise RefusalError(RefusalKind.NOT_FOUND, "no model with this SHA-256 was published")
        # A name that is a digest never means anything else.
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{name}"'}
        if isinstance(found, Path):
            return FileResponse(found, media_type=MODEL_TYPE, headers=headers)
        headers["Content-Length"] = str(len(found))
        return StreamingResponse(_pieces(found), media_type=MODEL_TYPE, headers=headers)

    async def rounds(self, request: Request) -> Response:
        records = await self._federation.closed.records(after=_count(request, "after", 0))
        return Response(b"[" + b",".join(record.body for record in records) + b"]", media_type=_Json)

    async def round(self, request: Request) -> Response:
        number = _round(request)
        records = await self._federation.closed.records(number)
        if not records:
            raise RefusalError(RefusalKind.NOT_FOUND, f"there is no record of round {number}")
        # A round that failed was tried again; the last attempt is the one that counts.
        return Response(records[-1].body, media_type=_Json)

    async def receipt(self, request: Request) -> Response:
        path = await self._federation.closed.receipt(_round(request), _count(request, "attempt", 0))
        return FileResponse(path, media_type=_Json)

    async def proof(self, request: Request) -> Response:
        name = self._federation.roster.name_of(self._signer(request, b""))
        sid = _sha256(request.query_params.get("session", ""))
        if sid is None:
            raise RefusalError(RefusalKind.MALFORMED, "the query needs session, the id of one in 64 digits of hex")
        return _json(await self._federation.closed.proof(name, _round(request), sid))

    async def events(self, request: Request) -> Response:
        self._federation.admit_watcher()
        return StreamingResponse(
            self._event_stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    async def health(self, request: Request) -> Response:
        if not self._federation.is_alive:
            raise RefusalError(RefusalKind.SHUTTING_DOWN, "messages can't be taken just now")
        return _json({"status": "ok"})

    async def _event_stream(self) -> AsyncIterator[bytes]:
        async for event in self._federation.events(HEARTBEAT_S):
            if event is None:
                yield b": still here\n\n"
            else:
                yield b"event: " + event.kind.value.encode() + b"\ndata: " + event.data + b"\n\n"

    def _signer(self, request: Request, signed: bytes) -> bytes:
        """Return the key that signed a request over this part of its body."""
        scope = request.scope
        target = scope.get("raw_path") or scope["path"].encode("latin-1", "replace")
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        header = request.headers.get("authorization")
        now = self._federation.clock()
        return check_signature(header, request.method, target.decode("latin-1"), digest(signed), now)


def _answered(endpoint: _Endpoint) -> _Endpoint:
    """Turn whatever an endpoint raises into a problem document."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.kind is RefusalKind.INTERNAL:
                _log.exception("a request to %s failed", request.url.path)
            elif isinstance(error, StorageError):
                _log.error("a request to %s failed: %s", request.url.path, error)
            return _problem(request, refusal)

    return answer


async def _no_such_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        return _problem(request, RefusalError(RefusalKind.NOT_ALLOWED, f"{request.method} is not for this address"))
    return _problem(request, RefusalError(RefusalKind.NOT_FOUND, "there is nothing at this address"))


def _problem(request: Request, refusal: RefusalError) -> Response:
    problem = problem_of(refusal, request.url.path[:200])
    # A refused upload was not read to its end, so nothing else may follow on its connection.
    headers = {"Connection": "close"} if request.method == "POST" else {}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Ridotto"
    return Response(msgspec.json.encode(problem), problem.status, headers, PROBLEM_TYPE)


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type=_Json)


def _count(request: Request, name: str, default: int | None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 15 or int(text) > LARGEST_COUNT:
        raise RefusalError(RefusalKind.MALFORMED, f"the query needs {name}, a number from 0 to {LARGEST_COUNT}")
    return int(text)


def _round(request: Request) -> int:
    """Return the round that a path names."""
    text = request.path_params["number"]
    if not (text.isascii() and text.isdigit() and len(text) < 15):
        raise RefusalError(RefusalKind.NOT_FOUND, f"there is no round {text[:20]}")
    return int(text)


def _seconds(request: Request, name: str, default: float) -> float:
    try:
        value = float(request.query_params.get(name, default))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise RefusalError(RefusalKind.MALFORMED, f"{name} is a number of seconds from 0 up")
    return value


def _sha256(text: str) -> bytes | None:
    """Return a digest that is written as it should be."""
    return bytes.fromhex(text) if len(text) == 64 and set(text) <= set("0123456789abcdef") else None


async def _contents(paths: Iterable[Path]) -> AsyncIterator[bytes]:
    for path in paths:
        with await asyncio.to_thread(path.open, "rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    view = memoryview(data)
    for start in range(0, len(view), PIECE_BYTES):
        yield bytes(view[start : start + PIECE_BYTES])


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Return what `work` returns, or None if the client hangs up first: then nobody is there any more."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_hang_up(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        gone.cancel()


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue
