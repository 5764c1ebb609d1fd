"""Tell whoever watches what happens. A watcher that is too slow loses events, never the coordinator's memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

BACKLOG = 256
"""Events that wait for one watcher. A round of ten has about sixty."""


MOST_WATCHERS = 256
"""Anyone may watch, without an end. More would take the connections of those who take part."""


class EventKind(StrEnum):
    """Name the kinds of events, as server-sent events spell them."""

    STATE = "state"
    """A `FederationInfo`: sent first, and whenever the state changes."""

    PROGRESS = "progress"
    """A `secagg.session.Progress`: how far one session is."""

    RECORD = "record"
    """A `SignedRecord`: an attempt has ended."""


@dataclass(frozen=True, slots=True)
class Event:
    """Hold one event. data: JSON in one line."""

    kind: EventKind
    data: bytes


def make_event(kind: EventKind, content: Any) -> Event:
    """Make an event of anything that msgspec can write as JSON."""
    return Event(kind, msgspec.json.encode(content))


class Watchers:
    """Hand every event to every watcher."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Event | None]] = set()

    def show(self, event: Event) -> None:
        """Give an event to everybody; who has too many waiting loses the oldest."""
        for queue in self._queues:
            _push(queue, event)

    def close(self) -> None:
        """Tell everybody that nothing follows."""
        for queue in self._queues:
            _push(queue, None)

    @property
    def are_many(self) -> bool:
        """Return whether there is no room for one more."""
        return len(self._queues) >= MOST_WATCHERS

    @contextmanager
    def watch(self) -> Iterator[asyncio.Queue[Event | None]]:
        """Begin to watch; the queue ends with None, at once if there is no room."""
        queue: asyncio.Queue[Event | None] = asyncio.Queue(BACKLOG)
        if self.are_many:
            queue.put_nowait(None)
        else:
            self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)


async def heard(queue: asyncio.Queue[Event | None], heartbeat_s: float) -> AsyncIterator[Event | None]:
    """Yield events as they come, and None whenever nothing came for `heartbeat_s` seconds, until the watch ends."""
    while True:
        try:
            event = await asyncio.wait_for(queue.get(), heartbeat_s)
        except TimeoutError:
            yield None
            continue
        if event is None:
            return
        yield event


def _push(queue: asyncio.Queue[Event | None], event: Event | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
