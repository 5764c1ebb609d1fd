"""Wait for what parties say about many sessions over one link, from any number of threads.

Whoever waits and finds nobody reading reads for all, and puts what comes into the box of its session. What comes for a
session that nobody has opened here is left of one that failed, and is dropped.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Protocol

from ridotto.core.wire import Message
from ridotto.errors import PeerProtocolError, UnreachableError
from ridotto.infer.messages import GOODBYE, Failed


class Link(Protocol):
    """Carry a client's messages. parties: names of party 0 and 1. dealer: its name.

    Any thread may send; one at a time receives.
    """

    parties: tuple[str, str]
    dealer: str

    def send(self, to: str, message: Message) -> None:
        """Deliver a message, some time. Raises UnreachableError if the receiver is known to be gone."""

    def receive(self) -> tuple[str, Message]:
        """Wait for the next message; return its authenticated sender too. Raises UnreachableError if none can come."""

    def arrived(self) -> bool:
        """Say whether `receive` has a message without waiting."""

    def check(self) -> None:
        """Raise UnreachableError if a party or the dealer is known to be gone."""

    def close(self) -> None:
        """Let go of everybody."""


class Mail:
    """Sort what comes over `link` by session."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._boxes: dict[bytes, deque[tuple[str, Message]]] = {}
        self._turn = threading.Condition()
        self._reading = False
        self._farewell: tuple[str, str] | None = None

    def open(self, name: bytes) -> None:
        """Keep what comes about `name` from now on, until `collect` fails or `close` is called."""
        with self._turn:
            self._boxes[name] = deque()

    def close(self, name: bytes) -> None:
        """Drop what comes about `name` from now on."""
        with self._turn:
            self._boxes.pop(name, None)

    def send(self, to: str, message: Message) -> None:
        """Send a message. Raises UnreachableError if `to` is gone; PeerProtocolError if it said why it goes."""
        try:
            self._link.send(to, message)
        except UnreachableError:
            self.sort()
            self._check()
            raise

    def sort(self) -> None:
        """Put everything that is here already into its box, without waiting."""
        with self._turn:
            while not self._reading and self._link.arrived():
                self._read()

    def failed(self, name: bytes) -> bool:
        """Say whether somebody gave `name` up, as far as is known."""
        with self._turn:
            return any(isinstance(message, Failed) for _, message in self._boxes.get(name, ()))

    def collect(self, name: bytes, kind: type[Any]) -> list[Any]:
        """Wait for one message of this kind about `name` from each party, and return them in their order.

        Raises PeerProtocolError, naming whose fault it is, if the session failed; UnreachableError if a party is gone
        or says nothing. `name` is closed then.
        """
        found: dict[str, Any] = {}
        try:
            while len(found) < len(self._link.parties):
                sender, message = self._next(name)
                if isinstance(message, Failed):
                    raise PeerProtocolError(message.blame, f"{message.why} (says {sender})")
                if not isinstance(message, kind) or sender not in self._link.parties or sender in found:
                    raise PeerProtocolError(sender, f"sends a {type(message).__name__}, expected a {kind.__name__}")
                found[sender] = message
        except TimeoutError as late:
            silent = " and ".join(party for party in self._link.parties if party not in found)
            raise UnreachableError(f"{silent}: {late}") from late
        finally:
            if len(found) < len(self._link.parties):
                self.close(name)
        return [found[party] for party in self._link.parties]

    def _next(self, name: bytes) -> tuple[str, Message]:
        with self._turn:
            while not self._boxes[name]:
                self._check()
                if self._reading:
                    self._turn.wait()
                else:
                    self._read()
            return self._boxes[name].popleft()

    def _read(self) -> None:
        """Read one message for whomever it is; the lock is open meanwhile."""
        self._reading = True
        self._turn.release()
        try:
            sender, message = self._link.receive()
        finally:
            self._turn.acquire()
            self._reading = False
            self._turn.notify_all()
        name = getattr(message, "session", None)
        if name == GOODBYE and isinstance(message, Failed):
            self._farewell = message.blame, f"{message.why} (says {sender})"
        elif name in self._boxes:
            self._boxes[name].append((sender, message))

    def _check(self) -> None:
        if self._farewell is not None:
            raise PeerProtocolError(*self._farewell)
