"""A client's link to parties and dealer on other hosts."""

from __future__ import annotations

import selectors
import threading
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

TIMEOUT_S = 150.0
"""How long to wait for the next message unless somebody asks for another time. Parties give up before that
(`party.Limits.wait_s`), and say for whom they waited."""


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
        self._lost: dict[str, str] = {}
        self._lock = threading.RLock()
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
        """Send a message, reading in between what others send, so that nobody waits for somebody who waits.

        Raises UnreachableError if the receiver is gone, or takes nothing for as long as this link waits.
        """
        with self._lock:
            if to in self._lost:
                raise UnreachableError(self._lost[to])
            connection = self._connections[to]
            try:
                connection.send(message)
                if connection.waiting:
                    self._drain(connection)
            except UnreachableError as error:
                self._lose(connection, error)
                raise

    def receive(self) -> tuple[str, Message]:
        """Return the next message and its sender.

        Raises UnreachableError if a party is gone, TimeoutError if nothing came in time. A dealer may go: what was
        dealt is enough.
        """
        while True:
            with self._lock:
                if self._inbox:
                    return self._inbox.popleft()
                for party in self.parties:
                    if party in self._lost:
                        raise UnreachableError(self._lost[party])
            if not self._pump(self._timeout_s):
                raise TimeoutError(f"nothing came for {self._timeout_s:g} s")

    def arrived(self) -> bool:
        """Read what is here, and say whether that is something."""
        self._pump(0)
        return bool(self._inbox)

    def check(self) -> None:
        """Raise UnreachableError if a party or the dealer is known to be gone."""
        for why in self._lost.values():
            raise UnreachableError(why)

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
        self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
        try:
            while connection.waiting:
                if not self._pump(self._timeout_s):
                    raise UnreachableError(f"{connection.name} took nothing for {self._timeout_s:g} s")
                if connection.name in self._lost:
                    raise UnreachableError(self._lost[connection.name])
                connection.flush()
        finally:
            if connection.name not in self._lost:
                self._selector.modify(connection.socket, selectors.EVENT_READ, connection)

    def _pump(self, timeout_s: float) -> bool:
        """Wait for something to happen on any connection, and read what came. Return whether anything happened."""
        ready = self._selector.select(timeout_s)
        with self._lock:
            for key, events in ready:
                connection: Connection = key.data
                if events & selectors.EVENT_READ and connection.name not in self._lost:
                    try:
                        self._inbox.extend((connection.name, message) for message in connection.receive())
                    except UnreachableError as error:
                        # What others say first, and what it said before it went, may say why.
                        self._lose(connection, error)
        return bool(ready)

    def _lose(self, connection: Connection, error: UnreachableError) -> None:
        if connection.name not in self._lost:
            self._lost[connection.name] = str(error)
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
