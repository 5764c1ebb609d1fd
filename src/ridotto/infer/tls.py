"""TLS 1.3 with pinned certificates on both ends, and a connection that never blocks.

Who is at the other end is who owns the certificate: each side trusts exactly those that it was given, compares the one
shown with them byte for byte, and takes the name that belongs to it. Names in certificates are not looked at.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ridotto.core.wire import Message
from ridotto.crypto.certificates import read_certificate
from ridotto.errors import ConfigError, PeerProtocolError, UnreachableError
from ridotto.infer.frames import Reader, encode


@dataclass(frozen=True)
class Identity:
    """Name a party's own certificate and key, as files in PEM."""

    name: str
    certificate: Path
    key: Path


@dataclass(frozen=True)
class Contact:
    """Say how to reach another party, and how to know it. port 0: it is never called, it calls."""

    name: str
    host: str
    port: int
    certificate: Path


RECORD_BYTES = 1 << 14
"""Most that one record of TLS holds: a full one is seldom the last (RFC 8446, section 5.1)."""


class TlsSocket(ssl.SSLSocket):
    """Close itself if the other end is gone before TLS begins.

    That is found out while the socket is made, by asking for the other end's address. Making it fails then, so nobody
    else has it to close it.
    """

    def getpeername(self) -> Any:
        """Return the other end's address. Raises ConnectionResetError if there is none any more."""
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, "the other end is gone") from error


class Pins:
    """Know the others by their certificates, and set connections up.

    Raises ConfigError if a file can't be used or two parties show the same certificate.
    """

    def __init__(self, own: Identity, others: Mapping[str, Contact]) -> None:
        self._names = {read_certificate(contact.certificate): name for name, contact in others.items()}
        if len(self._names) != len(others):
            raise ConfigError("two parties have the same certificate: each needs its own")
        self._server = self._context(ssl.PROTOCOL_TLS_SERVER, own)
        self._client = self._context(ssl.PROTOCOL_TLS_CLIENT, own)

    def wrap(self, raw: socket.socket, *, server: bool) -> ssl.SSLSocket:
        """Start TLS on a connected socket, and own it; the handshake is still to be done.

        Raises OSError if the other end is gone; the socket is closed then.
        """
        context = self._server if server else self._client
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return context.wrap_socket(raw, server_side=server, do_handshake_on_connect=False)
        except OSError:
            # Still open if it was not taken over yet.
            raw.close()
            raise

    def name_of(self, connection: ssl.SSLSocket) -> str:
        """Return who is at the other end, after the handshake. Raises PeerProtocolError if that is nobody known."""
        shown = connection.getpeercert(binary_form=True)
        if shown is None or shown not in self._names:
            raise PeerProtocolError("unknown", "shows a certificate that is not pinned here")
        return self._names[shown]

    def call(self, contact: Contact, timeout_s: float) -> Connection:
        """Connect to another party. Raises UnreachableError, naming it, if it can't be reached or is someone else."""
        place = f"{contact.name} at {contact.host}:{contact.port}"
        try:
            raw = socket.create_connection((contact.host, contact.port), timeout_s)
        except OSError as error:
            raise UnreachableError(f"{place}: {error}") from error
        wrapped = None
        try:
            wrapped = self.wrap(raw, server=False)
            wrapped.do_handshake()
            found = self.name_of(wrapped)
        except (OSError, PeerProtocolError) as error:
            if wrapped is not None:
                wrapped.close()
            raise UnreachableError(f"{place}: {error}") from error
        if found != contact.name:
            wrapped.close()
            raise UnreachableError(f"{place}: {found} answers there")
        return Connection(wrapped, found)

    def _context(self, protocol: int, own: Identity) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.sslsocket_class = TlsSocket
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(own.certificate, own.key)
        except OSError as error:
            raise ConfigError(f"certificate and key of {own.name} can't be used: {error}") from error
        for pinned in self._names:
            context.load_verify_locations(cadata=pinned)
        return context


class Connection:
    """Send and receive messages on an established connection, without ever waiting.

    name: who is at the other end. watched: whether a driver waits for room to write, which is the driver's to set.
    """

    def __init__(self, wrapped: ssl.SSLSocket, name: str) -> None:
        wrapped.setblocking(False)
        self.socket = wrapped
        self.name = name
        self._reader = Reader(name)
        self._outgoing: deque[memoryview] = deque()
        self.watched = False

    @property
    def waiting(self) -> bool:
        """Say whether something is left to send."""
        return bool(self._outgoing)

    def send(self, message: Message) -> None:
        """Send what fits now, and keep the rest for `flush`. Raises UnreachableError if the other end is gone."""
        self._outgoing.extend(encode(message))
        self.flush()

    def flush(self) -> None:
        """Send what is left, as far as it fits."""
        while self._outgoing:
            piece = self._outgoing[0]
            try:
                sent = self.socket.send(piece)
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise UnreachableError(f"{self.name}: {error}") from error
            if sent == piece.nbytes:
                self._outgoing.popleft()
            else:
                self._outgoing[0] = piece[sent:]

    def receive(self) -> Iterator[Message]:
        """Yield the messages that are here. Raises UnreachableError if the other end closed, PeerProtocolError."""
        while True:
            try:
                count = self.socket.recv_into(self._reader.space())
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as error:
                raise UnreachableError(f"{self.name}: {error}") from error
            if not count:
                raise UnreachableError(f"{self.name} closed the connection")
            yield from self._reader.filled(count)
            if count < RECORD_BYTES and not self.socket.pending():
                # Nothing more is here, or a selector will say so: asking again would cost an exception.
                return

    def close(self) -> None:
        """Let go. The other end sees it."""
        self.socket.close()
