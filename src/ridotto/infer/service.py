"""Drive a party's or the dealer's machine over TLS: one thread, one loop, one connection to each other party.

Who calls whom is fixed: clients call everybody, the dealer calls the parties, party 1 calls party 0. A connection that
breaks is told to the machine, which gives up what depends on it, and is called again and again; nobody new is let
in before all are there again, so whoever gets in finds everybody. Whoever sends what is refused is told why, by a last
message, and its connection is closed.

Offline work comes last: what deals or prepares a session is put off until everything else that is here is done, and
then done one at a time, so that a running query waits for at most one of them.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from ridotto.core.machine import Effect, Machine, Send, Wake
from ridotto.core.wire import Message, sentence
from ridotto.errors import PeerProtocolError, UnreachableError
from ridotto.infer.messages import GOODBYE, Dealt, Failed, Prepare
from ridotto.infer.tls import Connection, Contact, Identity, Pins

CALL_S = 1.0
"""Longest that one call waits for an answer; nothing else happens meanwhile, nor could it without who is called."""

CALL_AGAIN_S = 0.2
HANDSHAKE_S = 10.0

TICK_S = 1.0
"""How often something is done that has nothing to do with messages."""

SPIN_S = 1e-4
"""How long to look for the next message without sleeping: a peer's round takes less, and to sleep and be woken takes as
long as a round."""

LUCK = 16
"""So many messages that came while looking outweigh one time that nothing did. Where processors are busy with others,
peers are late, and looking only keeps them later: then this side sleeps."""

OFFLINE = (Dealt, Prepare)
"""What can wait: nobody's input is on its way yet."""

OFFLINE_LIMIT = 256
"""Most messages that are put off. Beyond that nobody is read faster than their work is done."""


class Losing(Machine, Protocol):
    """A machine that can be told that a party is gone."""

    def lose(self, name: str, why: str) -> list[Effect]:
        """Give up what depends on it."""


class Service:
    """Run `machine` for `own`, known to `others` by name.

    listener: where others call, bound and listening. calls: names of those whom this side calls. tick: called about
    every second, as to write down what was counted.
    """

    def __init__(
        self,
        machine: Losing,
        own: Identity,
        others: Mapping[str, Contact],
        listener: socket.socket,
        calls: tuple[str, ...] = (),
        tick: Callable[[], None] | None = None,
    ) -> None:
        self._machine, self._others, self._calls = machine, others, calls
        self._pins = Pins(own, others)
        self._connections: dict[str, Connection] = {}
        self._greeting: dict[ssl.SSLSocket, float] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._wakes: list[float] = []
        self._offline: deque[tuple[Connection, Message]] = deque()
        self._tick, self._tick_at = tick, 0.0
        self._due = self._spin_until = 0.0
        self._luck = 0
        self._call_at = 0.0
        self._stopped = False
        self._open = False
        listener.setblocking(False)

    @property
    def port(self) -> int:
        """Return the port on which this service is called."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve until `stop` is called from a signal handler or another thread."""
        self._carry_out(self._machine.start(time.monotonic()))
        while not self._stopped:
            if (now := time.monotonic()) >= self._due:
                self._look_at_the_clock(now)
            ready = self._selector.select(0 if self._offline else self._patience(now))
            for key, events in ready:
                self._happen(key, events)
            if self._offline:
                connection, message = self._offline.popleft()
                if self._connections.get(connection.name) is connection:
                    self._take(connection, message)
            else:
                self._look_out(bool(ready))
        self._close()

    def stop(self) -> None:
        """End `run`, within a second."""
        self._stopped = True

    def _look_out(self, came: bool) -> None:
        """Decide whether to sleep before the next message. came: whether something came just now."""
        if came:
            self._luck = min(self._luck + 1, LUCK)
            self._spin_until = time.monotonic() + SPIN_S if self._luck > 0 else 0.0
        elif self._spin_until and time.monotonic() >= self._spin_until:
            self._spin_until = 0.0
            self._luck = max(self._luck - LUCK, -LUCK)

    def _happen(self, key: selectors.SelectorKey, events: int) -> None:
        if key.fileobj is self._listener:
            self._accept()
        elif isinstance(key.data, Connection):
            if self._connections.get(key.data.name) is key.data:
                self._exchange(key.data, events)
        elif isinstance(key.fileobj, ssl.SSLSocket):
            self._shake(key.fileobj)

    def _exchange(self, connection: Connection, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                connection.flush()
                self._watch(connection)
            if events & selectors.EVENT_READ:
                for message in connection.receive():
                    if isinstance(message, OFFLINE) and len(self._offline) < OFFLINE_LIMIT:
                        self._offline.append((connection, message))
                        continue
                    self._take(connection, message)
                    if self._connections.get(connection.name) is not connection:
                        return
        except PeerProtocolError as refused:
            self._refuse(connection, refused)
        except UnreachableError as error:
            self._drop(connection, str(error))

    def _take(self, connection: Connection, message: Message) -> None:
        try:
            self._carry_out(self._machine.receive(connection.name, message, time.monotonic()))
        except PeerProtocolError as refused:
            self._refuse(connection, refused)

    def _refuse(self, connection: Connection, refused: PeerProtocolError) -> None:
        self._drop(connection, refused.why, Failed(GOODBYE, refused.peer, sentence(refused.why)))

    def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Send(to, message):
                    self._send(to, message)
                case Wake(at):
                    heapq.heappush(self._wakes, at)
                    self._due = min(self._due, at)

    def _send(self, to: str, message: Message) -> None:
        connection = self._connections.get(to)
        if connection is None:
            # It is not there: the machine finds out by time, or was told before.
            return
        try:
            connection.send(message)
        except UnreachableError as error:
            self._drop(connection, str(error))
        else:
            self._watch(connection)

    def _watch(self, connection: Connection) -> None:
        """Wait for room to write only where something is to be written."""
        if connection.waiting != connection.watched:
            connection.watched = connection.waiting
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.waiting else 0)
            self._selector.modify(connection.socket, wanted, connection)

    def _drop(self, connection: Connection, why: str, last: Message | None = None) -> None:
        if self._connections.get(connection.name) is not connection:
            return
        del self._connections[connection.name]
        self._due = 0.0
        self._selector.unregister(connection.socket)
        if last is not None:
            try:
                connection.send(last)
            except UnreachableError as error:
                why = f"{why}; {error}"
        connection.close()
        self._carry_out(self._machine.lose(connection.name, why))

    def _accept(self) -> None:
        try:
            raw, _ = self._listener.accept()
            raw.setblocking(False)
            wrapped = self._pins.wrap(raw, server=True)
        except OSError:
            # Nobody calls any more, or hung up at once: anybody may do that, and it must not stop us.
            return
        self._greeting[wrapped] = time.monotonic() + HANDSHAKE_S
        self._selector.register(wrapped, selectors.EVENT_READ)
        self._shake(wrapped)

    def _shake(self, wrapped: ssl.SSLSocket) -> None:
        try:
            wrapped.do_handshake()
            name = self._pins.name_of(wrapped)
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self._selector.modify(wrapped, selectors.EVENT_READ | selectors.EVENT_WRITE)
            return
        except (OSError, PeerProtocolError):
            # Nobody whose certificate is pinned here: there is no name to give this to.
            self._hang_up(wrapped)
            return
        del self._greeting[wrapped]
        self._selector.unregister(wrapped)
        self._add(Connection(wrapped, name))

    def _hang_up(self, wrapped: ssl.SSLSocket) -> None:
        self._greeting.pop(wrapped, None)
        self._selector.unregister(wrapped)
        wrapped.close()

    def _add(self, connection: Connection) -> None:
        earlier = self._connections.get(connection.name)
        if earlier is not None:
            self._drop(earlier, "connected a second time")
        self._connections[connection.name] = connection
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        # What came with the end of the handshake is already inside of TLS, where no selector sees it.
        self._exchange(connection, selectors.EVENT_READ)

    def _look_at_the_clock(self, now: float) -> None:
        """Do what is due, and find out when to look again."""
        if self._tick is not None and now >= self._tick_at:
            self._tick_at = now + TICK_S
            self._tick()
        if self._wakes and self._wakes[0] <= now:
            while self._wakes and self._wakes[0] <= now:
                heapq.heappop(self._wakes)
            self._carry_out(self._machine.expire(now))
        for wrapped in [wrapped for wrapped, until in self._greeting.items() if until <= now]:
            self._hang_up(wrapped)
        if self._missing() and now >= self._call_at:
            self._call_at = now + CALL_AGAIN_S
            for name in self._missing():
                self._call(name)
        missing = bool(self._missing())
        self._let_in(not missing)
        self._due = min([now + 1.0, *self._wakes[:1], *([self._call_at] if missing else [])])

    def _missing(self) -> list[str]:
        return [name for name in self._calls if name not in self._connections]

    def _let_in(self, wanted: bool) -> None:
        """Take calls, or leave them waiting."""
        if wanted == self._open:
            return
        self._open = wanted
        if wanted:
            self._selector.register(self._listener, selectors.EVENT_READ)
        else:
            self._selector.unregister(self._listener)

    def _call(self, name: str) -> None:
        try:
            self._add(self._pins.call(self._others[name], CALL_S))
        except UnreachableError:
            # It may not have started yet; the next call is soon.
            return

    def _patience(self, now: float) -> float:
        """Return how long to sleep: not at all where the next round is likely to be on its way."""
        return 0.0 if now < self._spin_until else max(0.0, self._due - now)

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        for wrapped in self._greeting:
            wrapped.close()
        self._listener.close()
        self._selector.close()
