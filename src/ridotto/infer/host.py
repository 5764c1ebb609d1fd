"""Run one of the three: `python -m ridotto.infer.host settings.json`, until it is told to end.

The same settings describe everybody; `own` says which of them this process is.
"""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from ridotto.core.rng import OsRng
from ridotto.errors import ConfigError, StorageError
from ridotto.infer.dealer import Dealer
from ridotto.infer.kernels import active
from ridotto.infer.metrics import PER_CLIENT, Watched, write_text
from ridotto.infer.party import Limits, Party
from ridotto.infer.service import Losing, Service
from ridotto.infer.tls import Contact, Identity

LOG = logging.getLogger("ridotto.infer")


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say where somebody is, and by which certificate it is known. port: 0 for clients, which are never called."""

    certificate: str
    host: str = "127.0.0.1"
    port: int = 0

    def contact(self, name: str) -> Contact:
        """Return this place as a contact."""
        return Contact(name, self.host, self.port, Path(self.certificate))


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Describe a deployment, and who of it this process is.

    own: a name of parties or dealer. key: its key file. parties: party 0 and party 1. places: of everybody, by name.
    listener: descriptor of an inherited listening socket; without it, the own place's host and port are bound.
    per_client: sessions that one client may keep waiting. metrics: a file to which counts are written every second.
    """

    own: str
    key: str
    parties: tuple[str, str]
    dealer: str
    clients: tuple[str, ...]
    places: dict[str, Place]
    listener: int | None = None
    limits: Limits = Limits()
    per_client: int = PER_CLIENT
    metrics: str | None = None

    def __post_init__(self) -> None:
        everybody = {*self.parties, self.dealer, *self.clients}
        if len(everybody) != 3 + len(self.clients) or not self.clients:
            raise ConfigError("two parties, a dealer and at least one client are needed, all with different names")
        if missing := sorted(everybody - set(self.places)):
            raise ConfigError(f"there is no place for {missing[0]}")
        if self.own not in {*self.parties, self.dealer}:
            raise ConfigError(f"{self.own} is neither a party nor the dealer")
        if self.per_client < 1:
            raise ConfigError(f"a client needs at least 1 session, not {self.per_client}")


def make_service(settings: Settings) -> Service:
    """Return the service of `settings.own`, listening."""
    own = settings.places[settings.own]
    identity = Identity(settings.own, Path(own.certificate), Path(settings.key))
    others = {name: place.contact(name) for name, place in settings.places.items() if name != settings.own}
    watched = Watched(_machine(settings), settings.per_client)
    tick = None if settings.metrics is None else _writer(watched, Path(settings.metrics))
    return Service(watched, identity, others, _listen(settings, own), _calls(settings), tick)


def _writer(watched: Watched, path: Path) -> Callable[[], None]:
    """Return what writes the counts. A path that can't be written is found out now; a disk may fill up later."""
    write_text(watched, path)

    def write() -> None:
        try:
            write_text(watched, path)
        except StorageError as error:
            LOG.warning("%s", error)

    return write


def _machine(settings: Settings) -> Losing:
    if settings.own == settings.dealer:
        return Dealer(settings.parties, settings.clients, OsRng(), model_limit=settings.limits.models)
    place = settings.parties.index(settings.own)
    return Party(
        first=place == 0,
        peer=settings.parties[1 - place],
        dealer=settings.dealer,
        clients=settings.clients,
        limits=settings.limits,
    )


def _calls(settings: Settings) -> tuple[str, ...]:
    if settings.own == settings.dealer:
        return settings.parties
    return settings.parties[:1] if settings.own == settings.parties[1] else ()


def _listen(settings: Settings, own: Place) -> socket.socket:
    if settings.listener is not None:
        return socket.socket(fileno=settings.listener)
    try:
        return socket.create_server((own.host, own.port))
    except OSError as error:
        raise ConfigError(f"{own.host}:{own.port} can't be listened on: {error}") from error


def serve(settings: Settings, ready: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. ready: called with the port as soon as calls are taken. Main thread only."""
    # The loops are loaded now and not during the first query.
    active()
    service = make_service(settings)

    def end(_signal: int, _frame: Any) -> None:
        service.stop()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    if ready is not None:
        ready(service.port)
    service.run()


def main() -> int:
    """Read the settings file named on the command line, and serve until SIGTERM or SIGINT."""
    if len(sys.argv) != 2:
        raise ConfigError("usage: python -m ridotto.infer.host settings.json")
    try:
        settings = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{sys.argv[1]}: {error}") from error
    serve(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
