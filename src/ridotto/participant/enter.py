"""From a URL to a `Participation`: where the identity and the state lie, and what the defaults are.

Nothing here reads the environment: the state directory is the platform's usual one below the home directory, unless the
caller names another.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ridotto.core.machine import COORDINATOR, SELF
from ridotto.core.vector import Layout
from ridotto.core.wire import NAME_PATTERN
from ridotto.crypto.identity import load_or_create_identity
from ridotto.crypto.seal import IdentityKey
from ridotto.errors import ConfigError
from ridotto.participant.client import PATIENCE_S, Client, normal_url
from ridotto.participant.events import Fault, OnEvent
from ridotto.participant.loop import Participation
from ridotto.participant.notes import Keeper
from ridotto.participant.state import StateFile
from ridotto.rounds.policy import Policy

KEY_DIGITS = 12
"""Of the identity key in a default name: 48 bits, so that two of a million participants hardly ever meet."""


@dataclass(frozen=True)
class Params:
    """Say with which coordinator, as whom and under which conditions to take part.

    url: of the coordinator. name: the participant's; None derives one from its identity key. state: the directory for
    the identity and the state file. policy: the data holder's floor. token: for the first enrolment. coordinator: the
    coordinator's identity key, 64 hex digits, where it is known beforehand; otherwise the key of the first contact is
    kept and no other is accepted later. patience_s: how long an unreachable coordinator is tried again. ca: PEM file
    with the certificates to trust. certificate: (certificate, key) PEM files for a TLS endpoint that asks who comes.
    receipts: where receipts of rounds are kept, each checked; none are asked for without.

    Raises ConfigError if one of them can't be used.
    """

    url: str
    name: str | None = None
    state: Path | None = None
    policy: Policy = field(default_factory=Policy)
    token: str = field(default="", repr=False)
    coordinator: str | None = None
    patience_s: float = PATIENCE_S
    ca: Path | None = None
    certificate: tuple[Path, Path] | None = None
    receipts: Keeper | None = None

    def __post_init__(self) -> None:
        normal_url(self.url)
        if self.name is not None and (NAME_PATTERN.fullmatch(self.name) is None or self.name in (COORDINATOR, SELF)):
            raise ConfigError(
                f"{self.name!r} can't name a participant: 1 to 64 letters, digits and . _ @ -, the first a letter or a "
                f'digit, and neither "{COORDINATOR}" nor "{SELF}"'
            )
        if not (math.isfinite(self.patience_s) and self.patience_s >= 0):
            raise ConfigError(f"patience_s is a number of seconds from 0 up, not {self.patience_s}")
        if self.coordinator is not None and _key(self.coordinator) is None:
            raise ConfigError(f"coordinator is an identity key of 64 hex digits, not {self.coordinator!r}")

    @property
    def directory(self) -> Path:
        """Return where identity and state lie."""
        return default_state_directory() if self.state is None else Path(self.state)

    def pin(self, state: StateFile) -> None:
        """Have a state file accept only the coordinator's key that was given beforehand, if one was."""
        known = _key(self.coordinator or "")
        if known is not None:
            state.pin(known)


def default_state_directory(home: Path | None = None, platform: str = sys.platform) -> Path:
    """Return where programs of this platform keep a user's state. home: the user's home directory, if not its own."""
    home = home or Path.home()
    if platform == "win32":
        return home / "AppData" / "Local" / "ridotto"
    if platform == "darwin":
        return home / "Library" / "Application Support" / "ridotto"
    return home / ".local" / "state" / "ridotto"


def load_identity(params: Params) -> IdentityKey:
    """Return the identity of the participant, made at its first use: one for each name in a state directory."""
    return load_or_create_identity(params.directory / f"{params.name or 'identity'}.pem")


def identify(params: Params) -> tuple[IdentityKey, str]:
    """Return the participant's identity and its name: the one that was given, or one made of the key."""
    identity = load_identity(params)
    return identity, params.name or f"p-{identity.public.hex()[:KEY_DIGITS]}"


@contextmanager
def enter(
    params: Params, layout: Layout, *, on_event: OnEvent | None = None, fault: Fault | None = None
) -> Iterator[Participation]:
    """Open a participation: lock the state, meet the coordinator, enrol, resume what was open; close it at the end.

    layout: of the model that is trained here. on_event, fault: see `Participation`.
    """
    identity, name = identify(params)
    with (
        StateFile(params.directory, normal_url(params.url), name, identity.public) as state,
        Client(
            params.url, identity, ca=params.ca, certificate=params.certificate, patience_s=params.patience_s
        ) as client,
    ):
        params.pin(state)
        participation = Participation(
            client,
            name,
            identity,
            params.policy,
            state,
            layout,
            on_event=on_event,
            fault=fault,
            receipts=params.receipts,
        )
        participation.start(params.token)
        yield participation


def _key(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == 32 and len(text) == 64 else None
