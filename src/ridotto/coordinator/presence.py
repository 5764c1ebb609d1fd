"""Who is there, and what waits for whom: the two things that long polls need. In memory only.

A participant is there while its poll waits, and for a while after a poll began. When an attempt ends everybody has to
show up again, so that those who died in it are not asked to the next one: their connections may seem open for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable


class Presence:
    """Remember who polled when. presence_s: how long a poll counts, in seconds."""

    def __init__(self, presence_s: float) -> None:
        self._presence_s = presence_s
        self._waiting: dict[object, str] = {}
        self._newest: dict[str, object] = {}
        self._seen: dict[str, float] = {}

    def arrive(self, name: str, poll: object, now: float) -> None:
        """Note that a poll begins to wait, or goes on to. poll: anything that stands for it."""
        self._waiting[poll] = name
        self._seen[name] = now

    def begin(self, name: str, poll: object) -> None:
        """Note that a participant polls anew. A poll before it counts no more: who asks twice wants one answer."""
        self._newest[name] = poll

    def is_newest(self, name: str, poll: object) -> bool:
        """Return whether a participant has not polled anew since this poll began."""
        return self._newest.get(name) is poll

    def leave(self, poll: object) -> None:
        """Note that a poll has ended, answered or not."""
        self._waiting.pop(poll, None)

    def forget(self) -> None:
        """Forget everybody."""
        self._waiting.clear()
        self._seen.clear()

    def present(self, now: float) -> set[str]:
        """Return who is there."""
        seen = {name for name, at in self._seen.items() if now - at <= self._presence_s}
        return seen | set(self._waiting.values())


class Mailboxes:
    """Keep every participant's frames of the current attempt until they are acknowledged, and wake who waits for more.

    Asking for what follows the first N frames acknowledges those: a participant stores a frame before it asks for the
    next. So memory holds what is under way, and not what everybody was ever sent.
    """

    def __init__(self) -> None:
        self._frames: dict[str, list[bytes]] = {}
        self._dropped: dict[str, int] = {}
        self._waiting: dict[str, asyncio.Event] = {}

    def clear(self) -> None:
        """Drop every frame: another attempt begins."""
        self._frames.clear()
        self._dropped.clear()

    def deliver(self, sent: Iterable[tuple[str, bytes]]) -> None:
        """Append frames in order, and wake their receivers."""
        for name, frame in sent:
            self._frames.setdefault(name, []).append(frame)
            self.wake(name)

    def frames(self, name: str, after: int) -> list[bytes]:
        """Return a participant's frames after the first `after` ones, and forget those.

        Who asks for frames that it acknowledged before has lost its state, and gets none: it can't go on in this
        attempt.
        """
        frames, dropped = self._frames.get(name, []), self._dropped.get(name, 0)
        if after < dropped:
            return []
        acknowledged = min(after - dropped, len(frames))
        del frames[:acknowledged]
        self._dropped[name] = dropped + acknowledged
        return list(frames)

    async def changed(self, name: str, timeout_s: float) -> None:
        """Return when there is something new for `name`, or when time is up."""
        event = self._waiting.setdefault(name, asyncio.Event())
        try:
            await asyncio.wait_for(event.wait(), timeout_s)
        except TimeoutError:
            return

    def wake_all(self) -> None:
        """Wake everybody: something changed that concerns all."""
        for name in list(self._waiting):
            self.wake(name)

    def wake(self, name: str) -> None:
        """Wake who waits for frames of one participant."""
        event = self._waiting.pop(name, None)
        if event is not None:
            event.set()
