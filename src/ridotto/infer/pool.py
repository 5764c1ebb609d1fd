"""Sessions of one plan, made ready ahead of the queries that will use them up.

A session's offline work needs no input: the dealer deals and the parties prepare while nobody waits. A pool asks for so
many sessions again as queries took, never for more than it keeps: that bounds what lies at the parties, which bound
it a second time, for all clients (`party.Limits`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ridotto.errors import ConfigError

KEEP_LIMIT = 4096
"""Most sessions of one pool; parties allow fewer unless they are told otherwise."""


@dataclass(frozen=True)
class Ways:
    """Say how a session comes about: `ask` names a new one, `wait` waits until it is ready, `stale` asks if it died."""

    ask: Callable[[], bytes]
    wait: Callable[[bytes], None]
    stale: Callable[[bytes], bool]


class Pool:
    """Hand out ready sessions, each once, to any number of threads."""

    def __init__(self, ways: Ways) -> None:
        self._ways = ways
        self._keep = 0
        self._ready: deque[tuple[bytes, float | None]] = deque()
        self._lock = threading.Lock()

    def keep(self, count: int) -> None:
        """Keep `count` sessions on their way or ready from now on. Raises ConfigError if it is not 0 to KEEP_LIMIT."""
        if not 0 <= count <= KEEP_LIMIT:
            raise ConfigError(f"a pool keeps 0 to {KEEP_LIMIT} sessions, not {count}")
        self._keep = count
        self.fill()

    def fill(self) -> None:
        """Ask for what is missing, without waiting for it."""
        with self._lock:
            while len(self._ready) < self._keep:
                self._ready.append((self._ways.ask(), None))

    def prepare(self) -> None:
        """Have one more session made, and wait for it."""
        made = self._make()
        with self._lock:
            self._ready.append(made)

    def take(self) -> tuple[bytes, float]:
        """Return a session that is ready, and how long making it took, as far as somebody waited for it, in seconds."""
        while True:
            with self._lock:
                session, seconds = self._ready.popleft() if self._ready else (b"", None)
            if not session:
                return self._make()
            if self._ways.stale(session):
                # Kept for longer than the parties wait: it was never used, so another one takes its place.
                continue
            if seconds is None:
                begin = time.perf_counter()
                self._ways.wait(session)
                seconds = time.perf_counter() - begin
            return session, seconds

    def _make(self) -> tuple[bytes, float]:
        begin = time.perf_counter()
        session = self._ways.ask()
        self._ways.wait(session)
        return session, time.perf_counter() - begin
