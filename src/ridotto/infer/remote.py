"""A client's link to parties and dealer on other hosts."""

from __future__ import annotations

import selectors
import time
from collections import deque

from ridotto.core.rng import Rng
from ridotto.core.wire import Message
from ridotto.errors import ConfigError, UnreachableError
from ridotto.infer.tls import Connection, Contact, Identity, Pins
from ridotto.infer.world import World

CALL_S = 5.0
"""Longest that one call waits for an answer."""

PAUSE_S = 0.05
"""Between two calls to somebody who is not there yet."""

TIMEOUT_S = 60.0
"""How long to wait for the next message unless somebody asks for another time; parties give up later than that."""


class TlsLink:
    """Keep one connection to each of the three.

    timeout_s: how long to wait for them to answer, and for the next message.

    Raises UnreachableError, naming who, if one can't be reached in that time.
    """

    def __init__(self, own: Identity, parties: tuple[Contact, Contact], dealer: Contact, timeout_s: float) -> None:
        others = {contact.name: contact for contact in (*parties, dealer)}
        if len({own.name, *others}) != 4:
            raise ConfigError("client, parties and dealer need four different names")
        self.parties = (parties[0].name, parties[1].name)
        self.dealer = dealer.name
        self._timeout_s = timeout_s
        self._inbox: deque[tuple[str, Message]] = deque()
        self._connections: dict[str, Connection] = {}
        self._selector = selectors.DefaultSelector()
        pins = Pins(own, others)
        until = time.monotonic() + timeout_s
        try:
            for contact in others.values():
                self._connections[contact.name] = self._call(pins, contact, until)
        except UnreachableError:
            self.close()
            raise
        for connection in self._connections.values():
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def send(self, to: str, message: Message) -> None:
        """Send a message, reading in between what others send, so that nobody waits for somebody who waits."""
        connection = self._connections[to]
        connection.send(message)
        if connection.waiting:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
            self._drain(connection)
            self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def receive(self) -> tuple[str, Message]:
        """Return the next message and its sender."""
        while not self._inbox:
            self._pump()
        return self._inbox.popleft()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections.values():
            connection.close()
        self._selector.close()

    def _check(self, name: str) -> None:
        """Raise UnreachableError if it is known that this party will never answer; here, nothing is known."""

    def _call(self, pins: Pins, contact: Contact, until: float) -> Connection:
        while True:
            self._check(contact.name)
            try:
                return pins.call(contact, min(CALL_S, max(0.1, until - time.monotonic())))
            except UnreachableError:
                if time.monotonic() >= until:
                    raise
                time.sleep(PAUSE_S)

    def _drain(self, connection: Connection) -> None:
        while connection.waiting:
            self._pump()
            connection.flush()

    def _pump(self) -> None:
        ready = self._selector.select(self._timeout_s)
        if not ready:
            raise UnreachableError(f"neither parties nor dealer said anything for {self._timeout_s:g} s")
        for key, events in ready:
            if events & selectors.EVENT_READ:
                connection: Connection = key.data
                try:
                    self._inbox.extend((connection.name, message) for message in connection.receive())
                except UnreachableError:
                    # What it said before it went may say why.
                    if not self._inbox:
                        raise
                    self._selector.unregister(connection.socket)


def connect(
    own: Identity,
    parties: tuple[Contact, Contact],
    dealer: Contact,
    *,
    timeout_s: float = TIMEOUT_S,
    rng: Rng | None = None,
) -> World:
    """Return a world whose parties and dealer are reached over TLS.

    own: the client's name, certificate and key. parties, dealer: where they are, and their pinned certificates.
    Raises UnreachableError, naming who, if one can't be reached; ConfigError if a certificate can't be used.
    """
    return World(TlsLink(own, parties, dealer, timeout_s), rng)
