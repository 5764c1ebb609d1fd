"""Read request bodies: limited before memory is taken, and copied once.

A frame's header is read first. Once its signature has told who sends, the rest goes straight to its place in one
buffer. How much all uploads together may hold is limited by a `Budget`; who waits for room has not been read yet, and
the network holds it back. So memory does not grow with the number of participants. The time that a body may take
begins when it is read: nobody is late because others were before it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import numpy as np
from starlette.requests import Request

from ridotto.coordinator.refusals import RefusalError, RefusalKind
from ridotto.core.wire import PREFIX

ALIGNMENT_BYTES = 64
"""A vector that begins on a cache line is added without a detour; the header before it has any length."""

PATIENCE_S = 30.0
"""For a body to arrive, and longer in proportion to its size."""

SLOWEST_BYTES_PER_S = 16 << 10
"""Slower uploads are ended: 4 MB take at most four minutes. A bad mobile connection still does better."""


class Budget:
    """Limit the bytes that are held at once; who asks first is served first."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held_bytes = 0
        self._queue: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, size_bytes: int) -> AsyncIterator[None]:
        """Wait until there is room, and hold it. One that is larger than the limit gets all of it.

        Who needs no room does not wait: messages without a vector must not stand behind a slow upload.
        """
        size_bytes = min(size_bytes, self._limit_bytes)
        if not size_bytes:
            yield
            return
        await self._acquire(size_bytes)
        try:
            yield
        finally:
            self._release(size_bytes)

    async def _acquire(self, size_bytes: int) -> None:
        if not self._queue and self._held_bytes + size_bytes <= self._limit_bytes:
            self._held_bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((size_bytes, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release(size_bytes)
            raise

    def _release(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        while self._queue:
            size_bytes, turn = self._queue[0]
            if turn.cancelled():
                self._queue.popleft()
                continue
            if self._held_bytes + size_bytes > self._limit_bytes:
                return
            self._queue.popleft()
            self._held_bytes += size_bytes
            turn.set_result(None)


def body_length(request: Request, limit_bytes: int) -> int:
    """Return how long a body says it is. Raises RefusalError if it does not say, or is longer than `limit_bytes`."""
    text = request.headers.get("content-length", "")
    if not text:
        raise RefusalError(RefusalKind.LENGTH_REQUIRED, "the request needs a Content-Length")
    if not text.isascii() or not text.isdigit():
        raise RefusalError(RefusalKind.MALFORMED, "Content-Length is not a number")
    if len(text) > 18 or int(text) > limit_bytes:
        raise RefusalError(RefusalKind.TOO_LARGE, f"the body has {text[:24]} bytes, at most {limit_bytes} are taken")
    return int(text)


async def read_small(request: Request, limit_bytes: int) -> bytes:
    """Return a whole small body. Raises RefusalError if it is too large, or not all of it comes in time."""
    body = FrameBody(request, body_length(request, limit_bytes))
    return bytes(await body.rest())


class FrameBody:
    """Read one body in two parts. length: as `body_length` returned it."""

    def __init__(self, request: Request, length: int) -> None:
        self._request = request
        self._length = length
        self._begun: list[bytes] = []
        self._received = 0
        self._more = True
        self._head_bytes = 0
        self._given_up = False
        self._reading: asyncio.Timeout | None = None
        self._deadline = 0.0

    async def head(self, limit_bytes: int) -> bytes:
        """Return a frame's prefix and header.

        limit_bytes: longest header. Raises RefusalError if it is longer, or does not fit the body, or does not come in
        the time that a header takes: nobody knows yet who sends, so what the body says of its length buys no time.
        """
        self._allow(limit_bytes)
        while self._received < PREFIX.size and self._more:
            self._begun.append(await self._next())
        begun = b"".join(self._begun)
        if len(begun) < PREFIX.size:
            raise RefusalError(RefusalKind.MALFORMED, f"a frame of {len(begun)} bytes is shorter than its prefix")
        _, length = PREFIX.unpack(begun[: PREFIX.size])
        if length > limit_bytes:
            raise RefusalError(RefusalKind.TOO_LARGE, f"a header of {length} bytes, at most {limit_bytes} are taken")
        end = PREFIX.size + length
        if end > self._length:
            raise RefusalError(RefusalKind.MALFORMED, f"a header of {length} bytes does not fit its frame")
        while self._received < end and self._more:
            self._begun.append(await self._next())
        self._begun = [b"".join(self._begun)]
        self._head_bytes = end
        return self._begun[0][:end]

    async def rest(self) -> memoryview:
        """Return the whole body, with what follows the head on a cache line.

        Raises RefusalError if it ends early or late.
        """
        self._allow(self._length - self._received)
        room = np.empty(self._length + 2 * ALIGNMENT_BYTES, np.uint8)
        start = -(room.ctypes.data + self._head_bytes) % ALIGNMENT_BYTES
        body = room[start : start + self._length].data
        filled = 0
        for piece in self._begun:
            filled = _put(body, filled, piece)
        self._begun = []
        while self._more:
            filled = _put(body, filled, await self._next())
        if filled != self._length:
            raise RefusalError(RefusalKind.MALFORMED, f"the body ended after {filled} of {self._length} bytes")
        return body

    async def discard(self) -> None:
        """Read the rest and keep nothing of it."""
        self._allow(self._length - self._received)
        while self._more and self._received < self._length:
            await self._next()

    def give_up(self) -> None:
        """Read no more of it: its sender has begun another one."""
        self._given_up = True
        if self._reading is not None:
            self._reading.reschedule(asyncio.get_running_loop().time())

    def _allow(self, size_bytes: int) -> None:
        """Begin to count the time that so many bytes may take."""
        self._deadline = asyncio.get_running_loop().time() + PATIENCE_S + size_bytes / SLOWEST_BYTES_PER_S

    async def _next(self) -> bytes:
        if self._given_up:
            raise self._too_slow()
        try:
            async with asyncio.timeout_at(self._deadline) as self._reading:
                message = await self._request.receive()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            self._reading = None
        if message["type"] != "http.request":
            raise RefusalError(RefusalKind.MALFORMED, "the connection ended before the body did")
        self._more = bool(message.get("more_body"))
        piece: bytes = message.get("body", b"")
        self._received += len(piece)
        return piece

    def _too_slow(self) -> RefusalError:
        if self._given_up:
            return RefusalError(RefusalKind.TOO_SLOW, "its sender began another upload before this one was here")
        return RefusalError(RefusalKind.TOO_SLOW, f"{self._received} of {self._length} bytes came in time")


def _put(body: memoryview, filled: int, piece: bytes) -> int:
    end = filled + len(piece)
    if end > len(body):
        raise RefusalError(RefusalKind.TOO_LARGE, f"the body is longer than the {len(body)} bytes that it announced")
    body[filled:end] = piece
    return end
