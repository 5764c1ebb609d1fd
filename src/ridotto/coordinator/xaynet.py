"""Serve rounds to xaynet's clients: `XaynetCoordinator` behind the paths and bodies that they know.

    GET  /params       -> RoundParameters                     GET /seeds?pk=<base64> -> the seeds for a summer, or 204
    GET  /sums         -> ephemeral keys, or 204              GET /model             -> the last mean exactly, or 204
    POST /message      -> 200, accepted or not

As in the original, a refused message is answered like an accepted one, because its clients send again without end what
is answered otherwise; the reason stands in the log. Bodies that are too long are refused before they are read, 413.

A round's state is in memory: after a restart, another round begins. Whoever wants to keep models stores them in
`on_round`, and gives the last one as `initial`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ridotto.coordinator.body import Budget, FrameBody, body_length
from ridotto.coordinator.refusals import RefusalError, problem_of
from ridotto.core.machine import Effect, Finish, Publish, Wake
from ridotto.core.rng import OsRng, Rng
from ridotto.errors import DataError, PeerProtocolError
from ridotto.rounds.service import PROBLEM_TYPE
from ridotto.secagg.xaynet.bincode import KEY_BYTES, encode_floats, encode_keys, encode_parameters
from ridotto.secagg.xaynet.machine import PhaseBegun, RoundBegun, RoundDone, RoundFailed, XaynetCoordinator
from ridotto.secagg.xaynet.settings import XaynetSettings
from ridotto.secagg.xaynet.wire import Tag, box_bytes, payload_bytes

BODY_TYPE = "application/octet-stream"

MESSAGES_HELD = 4
"""Bodies of the longest kind that are held in memory at once; further ones wait, unread."""

OnRound = Callable[[RoundDone, NDArray[np.float32]], None]
"""Takes a round's result and its mean, float32, shape (length,)."""

OnFailure = Callable[[RoundFailed], None]

_log = logging.getLogger(__name__)


class XaynetService:
    """Drive a `XaynetCoordinator`: carry out its effects, keep the bodies that clients ask for, and call the hooks.

    initial: float32, shape (length,); served until the first round is done; None serves no model until then. on_round,
    on_failure: called in a thread, one at a time; the next round's parameters are shown after `on_round` has returned.
    rounds: successful ones; None goes on for ever. rng: secret.
    Raises DataError if `initial` does not fit the settings.
    """

    def __init__(
        self,
        settings: XaynetSettings,
        *,
        initial: NDArray[np.float32] | None = None,
        on_round: OnRound | None = None,
        on_failure: OnFailure | None = None,
        rounds: int | None = None,
        rng: Rng | None = None,
    ) -> None:
        if initial is not None and initial.shape != (settings.length,):
            raise DataError(f"the initial model has shape {initial.shape}, expected ({settings.length},)")
        self._machine = XaynetCoordinator(settings, rng or OsRng(), rounds=rounds)
        self._on_round = on_round
        self._on_failure = on_failure
        self._budget = Budget(MESSAGES_HELD * _longest_box(settings))
        self._model = None if initial is None else encode_floats(initial.tolist())
        self._parameters: bytes | None = None
        self._sums: bytes | None = None
        self._stepping = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, "ridotto-xaynet")
        self._wakes: set[asyncio.TimerHandle] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[None] | None = None

    async def open(self) -> asyncio.Future[None]:
        """Begin the first round; return what ends with what a hook raised, if one does."""
        self._stopped = asyncio.get_running_loop().create_future()
        await self._step(self._machine.start)
        return self._stopped

    async def close(self) -> None:
        """Stop: what is unfinished of a round is lost."""
        for wake in self._wakes:
            wake.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.to_thread(self._thread.shutdown, cancel_futures=True)

    async def parameters(self, _request: Request) -> Response:
        """Answer GET /params."""
        return _answer(self._parameters)

    async def sums(self, _request: Request) -> Response:
        """Answer GET /sums."""
        return _answer(self._sums)

    async def seeds(self, request: Request) -> Response:
        """Answer GET /seeds."""
        try:
            # A plus that was not escaped arrives as a space.
            key = base64.b64decode(request.query_params.get("pk", "").replace(" ", "+"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            return Response(status_code=400)
        found = self._machine.seeds_for(key)
        return _answer(None if found is None else encode_keys(found))

    async def model(self, _request: Request) -> Response:
        """Answer GET /model."""
        return _answer(self._model)

    async def message(self, request: Request) -> Response:
        """Answer POST /message."""
        try:
            length = body_length(request, self._machine.box_limit)
            async with self._budget.hold(length):
                box = bytes(await FrameBody(request, length).rest())
                # A client that hangs up must not cut a step in two.
                await asyncio.shield(self._spawn(self._step(partial(self._machine.receive, box))))
        except PeerProtocolError as refusal:
            _log.info("refused a message of %s", refusal)
        except RefusalError as refusal:
            problem = problem_of(refusal, request.url.path)
            return Response(msgspec.json.encode(problem), problem.status, {"Connection": "close"}, PROBLEM_TYPE)
        return Response()

    async def _step(self, step: Callable[[float], list[Effect]]) -> None:
        """Let the machine take one step, in a thread because it may add a large vector, and carry out what it says."""
        loop = asyncio.get_running_loop()
        async with self._stepping:
            for effect in await loop.run_in_executor(self._thread, step, loop.time()):
                match effect:
                    case Wake(at):
                        self._wake_at(at)
                    case Publish(record):
                        await loop.run_in_executor(self._thread, self._show, record)
                    case Finish():
                        _log.info("all rounds are over")
            self._parameters = encode_parameters(self._machine.parameters)
            sums = self._machine.sums
            self._sums = None if sums is None else encode_keys(sums)

    def _wake_at(self, at: float) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            self._wakes.discard(handle)
            self._spawn(self._expire())

        handle = loop.call_at(at, wake)
        self._wakes.add(handle)

    async def _expire(self) -> None:
        try:
            await self._step(self._machine.expire)
        except Exception as error:
            self._stop(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let `work` run to its end, whatever becomes of the request that asked for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _show(self, record: object) -> None:
        """Tell the log and the hooks what has happened."""
        try:
            match record:
                case RoundBegun(number):
                    _log.info("round %d begins", number)
                case PhaseBegun(number, phase):
                    _log.info("round %d: phase %s", number, phase)
                case RoundDone():
                    _log.info("round %d: the mean of %d models", record.number, record.mean.models)
                    self._model = record.mean.to_body()
                    if self._on_round is not None:
                        self._on_round(record, record.mean.to_float32())
                case RoundFailed(number, error):
                    _log.warning("round %d failed: %s", number, error)
                    if self._on_failure is not None:
                        self._on_failure(record)
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> None:
        """End the service with what a hook or a step raised: nobody may train on while results get lost."""
        stopped = self._stopped
        if stopped is not None:
            stopped.get_loop().call_soon_threadsafe(_fail_once, stopped, error)


def _fail_once(stopped: asyncio.Future[None], error: Exception) -> None:
    if not stopped.done():
        stopped.set_exception(error)


def make_xaynet_app(service: XaynetService) -> Starlette:
    """Return the ASGI app of a service, which must be open before the first request."""
    endpoints: list[tuple[str, str, Callable[[Request], Awaitable[Response]]]] = [
        ("/params", "GET", service.parameters),
        ("/sums", "GET", service.sums),
        ("/seeds", "GET", service.seeds),
        ("/model", "GET", service.model),
        ("/message", "POST", service.message),
    ]
    return Starlette(routes=[Route(path, endpoint, methods=[method]) for path, method, endpoint in endpoints])


def _longest_box(settings: XaynetSettings) -> int:
    """Return the length of the longest body that can come: an update, with the most summers."""
    return box_bytes(payload_bytes(Tag.UPDATE, settings.configs, settings.length, settings.sum.most))


def _answer(body: bytes | None) -> Response:
    """Answer with a body, or with 204 where there is none yet."""
    return Response(status_code=204) if body is None else Response(body, media_type=BODY_TYPE)
