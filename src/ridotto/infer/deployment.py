"""Who is who, in one file that every host of a deployment has: names, addresses, certificates and limits.

    parties = ["alice", "bob"]
    dealer = "dealer"
    clients = ["carol"]
    per_client = 64                # sessions that one client may keep waiting

    [places.alice]
    host = "10.0.0.1"
    port = 9701
    certificate = "alice.pem"      # this is the default; beside this file
    ...
    [limits]
    sessions = 256

Clients may be left out of `places`: they are never called. A key is where its certificate is, as NAME.key, unless
somebody says otherwise; only its owner has it.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec

from ridotto.core.wire import Name
from ridotto.errors import ConfigError
from ridotto.infer.host import Place, Settings
from ridotto.infer.metrics import PER_CLIENT
from ridotto.infer.party import Limits
from ridotto.infer.tls import Contact, Identity


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Say where somebody is. certificate: NAME.pem without it."""

    host: str = "127.0.0.1"
    port: int = 0
    certificate: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"a port is 0 to 65535, not {self.port}")


class _Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `party.Limits` holds; here, a misspelt key is refused."""

    models: int = Limits.models
    inputs: int = Limits.inputs
    sessions: int = Limits.sessions
    wait_s: float = Limits.wait_s


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    parties: tuple[Name, Name]
    dealer: Name
    clients: tuple[Name, ...]
    places: dict[Name, Address] = {}
    limits: _Limits = _Limits()
    per_client: int = PER_CLIENT


class Deployment:
    """Answer each of them what it must know of the others. Paths are relative to the file's folder."""

    def __init__(self, file: _File, folder: Path) -> None:
        self.parties, self.dealer, self.clients = file.parties, file.dealer, file.clients
        self._limits, self._per_client = Limits(**msgspec.structs.asdict(file.limits)), file.per_client
        self._folder = folder
        known = (*file.parties, file.dealer, *file.clients)
        if strangers := sorted(set(file.places) - set(known)):
            raise ConfigError(f"[places.{strangers[0]}] is of nobody: expected one of {', '.join(known)}")
        for name in (*file.parties, file.dealer):
            if name not in file.places or not file.places[name].port:
                raise ConfigError(f"{name} is called by others: say where, as host and port in [places.{name}]")
        self._places = {name: self._place(name, file.places.get(name, Address())) for name in known}

    def settings(self, own: str, key: Path | None = None, metrics: Path | None = None) -> Settings:
        """Return what a party or the dealer needs to serve. Raises ConfigError if `own` is neither, or names clash."""
        if own not in (*self.parties, self.dealer):
            served = ", ".join((*self.parties, self.dealer))
            raise ConfigError(f"{own} is neither a party nor the dealer here: expected one of {served}")
        file = str(key or self._key(own))
        return Settings(
            own,
            file,
            self.parties,
            self.dealer,
            self.clients,
            self._places,
            limits=self._limits,
            per_client=self._per_client,
            metrics=None if metrics is None else str(metrics),
        )

    def client(self, name: str | None = None) -> str:
        """Return which client somebody is; None means the only one. Raises ConfigError if that is nobody."""
        if name is None and len(self.clients) == 1:
            return self.clients[0]
        if name not in self.clients:
            found = "say which client you are" if name is None else f"{name} is no client here"
            raise ConfigError(f"{found}: one of {', '.join(self.clients) or 'none'}")
        return name

    def identity(self, client: str, key: Path | None = None) -> Identity:
        """Return a client's certificate and key."""
        return Identity(client, Path(self._places[client].certificate), key or self._key(client))

    def contacts(self) -> tuple[tuple[Contact, Contact], Contact]:
        """Return where both parties are, and the dealer."""
        zero, one, dealer = (self._places[name].contact(name) for name in (*self.parties, self.dealer))
        return (zero, one), dealer

    def _key(self, name: str) -> Path:
        return Path(self._places[name].certificate).with_name(f"{name}.key")

    def _place(self, name: str, address: Address) -> Place:
        certificate = self._folder / (address.certificate or f"{name}.pem")
        return Place(str(certificate), address.host, address.port)


def load_deployment(path: Path) -> Deployment:
    """Read a deployment's file. Raises ConfigError, naming the file and what is wrong in it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Deployment(msgspec.convert(table, _File), path.parent)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no file {path}: give the path of a deployment's TOML file") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.MsgspecError, ConfigError) as error:
        raise ConfigError(f"{path}: {error}") from error
